package breaker

import (
	"math"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/clock"
)

// together calls each function with each i below n, on a goroutine of its own. The goroutines wait
// for each other a little before each i, so that most of their calls collide.
func together(n int, do ...func(i int)) {
	var g errgroup.Group
	begun := make([]atomic.Int64, len(do)) // how many calls each goroutine has begun
	for me := range do {
		g.Go(func() error {
			for i := range n {
				begun[me].Add(1)
				for other := range begun {
					for spins := 0; begun[other].Load() <= int64(i) && spins < 2000; spins++ {
						if spins > 1000 {
							runtime.Gosched()
						}
					}
				}
				do[me](i)
			}
			return nil
		})
	}
	g.Wait()
}

// collide makes calls on two goroutines until the window has counted a miss, because one call came
// between another one's load and swap. That takes a few calls, or, if only one processor is free, a
// few times that a goroutine is stopped while the other one runs. It returns the number of calls.
func collide(w *window, call func()) (calls int64) {
	const enough = 1 << 14 // of a thousand calls each, without a miss
	var thousands [2]atomic.Int64
	var g errgroup.Group
	for me := range thousands {
		g.Go(func() error {
			for w.misses.Load() == 0 && min(thousands[0].Load(), thousands[1].Load()) < enough {
				for range 1000 {
					call()
				}
				thousands[me].Add(1)
			}
			return nil
		})
	}
	g.Wait()
	return 1000 * (thousands[0].Load() + thousands[1].Load())
}

func TestPermitCountsOneOfConcurrentDones(t *testing.T) {
	const rounds = 4000
	b := New(Config{Consecutive: math.MaxInt})
	permits := make([]Permit, rounds)
	for i := range permits {
		permits[i], _ = b.Acquire(t.Context())
	}
	done := func(i int) { permits[i].Done(errCounted) }
	together(rounds, done, done)
	if s := b.Snapshot(); s.Consecutive != rounds {
		t.Errorf("got %d failures, want %d", s.Consecutive, rounds)
	}
}

func TestPermitReleasesOnceByConcurrentCancels(t *testing.T) {
	const rounds = 4000
	b := New(Config{SlowRate: 1, SlowCall: time.Hour})
	permits := make([]Permit, 2*rounds)
	for i := range permits {
		permits[i], _ = b.Acquire(t.Context())
	}
	cancel := func(i int) { permits[i].Cancel() }
	together(rounds, cancel, cancel)
	if s := b.Snapshot(); s.Running != rounds {
		t.Errorf("got %d running, want %d", s.Running, rounds)
	}
}

// The race detector notices if State looks at the probes without the lock.
func TestStateLocksProbes(t *testing.T) {
	b := New(Config{ProbeSuccesses: math.MaxInt})
	b.HalfOpen()
	together(500, func(int) {
		if s := b.State(); s != HalfOpen {
			t.Errorf("got %v, want half-open", s)
		}
	}, func(int) {
		permit, err := b.Acquire(t.Context())
		if err != nil {
			t.Errorf("got %v, want a probe", err)
		}
		permit.Cancel()
	})
}

func TestNotifyLosesNoConcurrentListener(t *testing.T) {
	const each = 500
	b := New(Config{})
	called := 0
	notify := func(int) { b.Notify(func(resilience.Change) { called++ }) }
	together(each, notify, notify)
	if b.ForceOpen(); called != 2*each {
		t.Errorf("got %d listeners called, want %d", called, 2*each)
	}
}

// With this debt, the share admits no call. One place is free.
func TestRampAdmitsOneOfConcurrentCallers(t *testing.T) {
	const rounds = 4000
	ramps := make([]ramp, rounds)
	now := clock.Now()
	for i := range ramps {
		ramps[i].began, ramps[i].lasts = now, time.Hour
		ramps[i].credit.Store(-whole)
	}
	var admitted [2][rounds]bool
	together(rounds,
		func(i int) { admitted[0][i] = ramps[i].admit(now, 1) },
		func(i int) { admitted[1][i] = ramps[i].admit(now, 1) },
	)
	for i := range ramps {
		if n := ramps[i].running.Load(); admitted[0][i] == admitted[1][i] || n != 1 {
			t.Fatalf("round %d: got %v and %v, %d running, want one admission", i, admitted[0][i], admitted[1][i], n)
		}
	}
}

func TestWindowCountsMiss(t *testing.T) {
	w := newWindow(&Config{Window: time.Hour, FailureRate: 1}, 0)
	ring := &(*w.stripes.Load())[0].ended[fastFailure]
	collide(w, func() { w.add(ring, 0, w.width) })
	if w.misses.Load() == 0 {
		t.Error("got no misses, want one")
	}
}

func TestWindowLosesNoConcurrentSuccess(t *testing.T) {
	w := newWindow(&Config{Window: time.Hour, FailureRate: 1, MinCalls: 1}, clock.Now())
	successes := collide(w, func() { w.succeed() })
	if _, calls := w.failed(0); calls != successes {
		t.Errorf("got %d calls, want %d", calls, successes)
	}
}

// Misses that wrap around may make two goroutines grow a window.
func TestWindowGrowsOnceByConcurrentCallers(t *testing.T) {
	const rounds = 500
	windows := make([]*window, rounds)
	for i := range windows {
		windows[i] = newWindow(&Config{Window: time.Hour, FailureRate: 1}, 0)
	}
	var seen [2][rounds]*[]*stripe // where each goroutine would count from then on
	grow := func(me int) func(i int) {
		return func(i int) {
			windows[i].grow()
			seen[me][i] = windows[i].stripes.Load()
		}
	}
	together(rounds, grow(0), grow(1))
	for i := range windows {
		if seen[0][i] != seen[1][i] {
			t.Fatalf("round %d: got other stripes for each goroutine, want the same", i)
		}
	}
}

// Two calls are admitted concurrently, at different times of one fine epoch.
func TestWindowNotesEveryConcurrentInstant(t *testing.T) {
	const rounds = 4000
	windows := make([]*window, rounds)
	for i := range windows {
		windows[i] = newWindow(&Config{SlowRate: 1, SlowCall: 80, Window: time.Second}, 0)
	}
	together(rounds, func(i int) { windows[i].enter(13) }, func(i int) { windows[i].enter(17) })
	for i := range windows {
		if all, slow := windows[i].running(96); all != 2 || slow > 1 {
			t.Fatalf("round %d: got %d slow of %d, want one of 2 at most", i, slow, all)
		}
	}
}
