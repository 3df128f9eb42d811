package concurrency

import (
	"math"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// TestEpochsComeRound: the order of two epochs is right though there are no more than 2^24.
func TestEpochsComeRound(t *testing.T) {
	const all = 1 << epochBits
	for _, c := range []struct {
		epoch, other uint64
		want         bool
	}{{0, 0, true}, {1, 0, true}, {0, 1, false}, {0, all - 1, true}, {all - 1, 0, false}, {all/2 - 1, 0, true}, {all / 2, 0, false}} {
		if got := atLeast(c.epoch, c.other); got != c.want {
			t.Errorf("%d after %d: %v", c.epoch, c.other, got)
		}
	}
	l := NewAIMD(10, 1, 100)
	l.word.Store(l.word.Load() | (all-1)<<epochShift)
	if !l.set(11, 11) || admits(l.word.Load()) != 11 || running(l.word.Load()) != 0 || epoch(l.word.Load()) != 0 {
		t.Errorf("%x", l.word.Load())
	}
	if l.set(11, 11) {
		t.Error("the same limit is no change")
	}
}

// TestTheHighestLimitFits beside as many calls.
func TestTheHighestLimitFits(t *testing.T) {
	l := NewQueue(MaxLimit, 1, MaxLimit)
	passes := 0
	for {
		if _, ok := l.Enter(Highest); !ok {
			break
		}
		passes++
	}
	if passes != MaxLimit || l.Running() != MaxLimit || l.Limit() != MaxLimit || epoch(l.word.Load()) != 0 {
		t.Errorf("%d calls; %d running of %d", passes, l.Running(), l.Limit())
	}
	l.Leave(Pass{}, time.Second, Ignored)
	if l.Running() != MaxLimit-1 {
		t.Error(l.Running())
	}
}

// TestNoCallIsLostWhileTheLimitChanges, on more threads than there are processors, so that the system stops each at any of its instructions.
func TestNoCallIsLostWhileTheLimitChanges(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4 * runtime.NumCPU()))
	l := NewAIMD(1000, 1, MaxLimit)
	var g errgroup.Group
	var callers atomic.Int32
	for range 3 {
		callers.Add(1)
		g.Go(func() error {
			defer callers.Add(-1)
			for range 1_000_000 {
				if p, ok := l.Enter(Highest); ok {
					l.Leave(p, 1, Ignored)
				}
			}
			return nil
		})
	}
	g.Go(func() error {
		for n := 0; callers.Load() > 0; n++ {
			l.mu.Lock()
			l.set(1000+n%2, 1000+n%2)
			l.mu.Unlock()
		}
		return nil
	})
	g.Wait()
	if l.Running() != 0 {
		t.Errorf("%d running when all have left", l.Running())
	}
}

func TestATallyTellsItsMeanAndHowFarItIsOff(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	outside := 0
	const tallies = 2000
	for range tallies {
		var t tally
		for range 100 {
			t.add(time.Duration(1e6 * (1 + random.Float64())))
		}
		if e := t.estimate(); math.Abs(e.mean-1.5e6) > 2*math.Sqrt(e.variance) {
			outside++
		}
	}
	if share := float64(outside) / tallies; share < 0.03 || share > 0.065 { // 4.6 % of a normal distribution
		t.Errorf("%.3f of the means are two standard deviations off", share)
	}
	var same tally
	for range 3 {
		same.add(time.Hour)
	}
	if e := same.estimate(); e != (estimate{float64(time.Hour), 0}) {
		t.Errorf("%+v of equal times", e)
	}
}

// TestAnEstimateLearns from later ones by how sure they are, and forgets.
func TestAnEstimateLearnsAndForgets(t *testing.T) {
	e := estimate{100, 4}
	if got := e.with(estimate{110, 4}); got != (estimate{105, 2}) {
		t.Errorf("%+v of equals", got)
	}
	if got := (estimate{100, 0}).with(estimate{110, 4}); got.mean != 100 || got.variance != 1 {
		t.Errorf("%+v of a sure one", got)
	}
	if got := (estimate{100, 0}).with(estimate{110, 0}); got != (estimate{110, 0}) {
		t.Errorf("%+v of two sure ones", got)
	}
	for range 100 {
		e = e.with(estimate{110, 4})
	}
	if math.Abs(e.mean-110) > 0.01 || e.variance < 1 {
		t.Errorf("%+v after a hundred later ones", e)
	}
	if !e.differs(estimate{117, 4}) || e.differs(estimate{116, 4}) || e.none() || !(estimate{}).none() {
		t.Errorf("%+v", e)
	}
}

func TestTheShareThatQueuesIsByLittlesLaw(t *testing.T) {
	s := queued(estimate{80, 9}, estimate{100, 16})
	if math.Abs(s.is-0.2) > 1e-12 || math.Abs(s.off-0.05) > 1e-12 || math.Abs(s.surely()-(0.2-0.125)) > 1e-9 {
		t.Errorf("%+v", s)
	}
}

func TestStepsGoTowardsTheAimAndNoFurther(t *testing.T) {
	for _, c := range []struct {
		limit int
		share float64
		most  float64
		want  int
	}{
		{1000, 0, step, 1042},
		{1000, -0.5, step, 1042}, // faster than was known: no reason to hurry
		{1000, 0.02, step, 1021},
		{1000, 0.06, step, 979},
		{1000, 0.5, step, 950},
		{1000, 0.5, 0.5, 521},
		{1000, 0.9, 0.5, 500},
	} {
		if got := towards(c.limit, share{is: c.share}, c.most); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
	if up(1, leap) != 2 || up(20, leap) != 25 || up(1000, leap) != 1250 {
		t.Error(up(1, leap), up(20, leap), up(1000, leap))
	}
}
