package breaker

import (
	"context"
	"math"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience/internal/clock"
)

func TestWindowGrowsStripesAndLosesNothing(t *testing.T) {
	const callers, each = 8, 3000
	b := New(Config{FailureRate: 1, SlowRate: 1, SlowCall: time.Hour, Window: time.Hour, MinCalls: math.MaxInt})
	w := b.phase.Load().window
	w.misses.Store(missesToGrow - 1) // one more miss grows it, even on a machine with one processor
	var g errgroup.Group
	for i := range callers {
		g.Go(func() error {
			for j := range each {
				if i == 0 && j == each/2 {
					w.misses.Store(missesToGrow)
					w.grow()
				}
				p, err := b.Acquire(context.Background())
				if err != nil {
					return err
				}
				if j%2 == 0 {
					p.Done(context.DeadlineExceeded)
				} else {
					p.Done(nil)
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if n := len(*w.stripes.Load()); n < 4 {
		t.Errorf("got %d stripes, want at least 4", n)
	}
	if s := b.Snapshot(); s.Calls != callers*each || s.Failures != callers*each/2 || s.Running != 0 {
		t.Errorf("got %+v, want %d calls, half of them failed, none running", s, callers*each)
	}
}

func TestWindowGrowsAfterMisses(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(8))
	w := newWindow(&Config{Window: time.Hour, FailureRate: 1}, 0)
	for range missesToGrow - 1 {
		w.missed()
	}
	if n := len(*w.stripes.Load()); n != 1 {
		t.Errorf("got %d stripes before enough misses, want 1", n)
	}
	w.missed()
	if n := len(*w.stripes.Load()); n != 32 {
		t.Errorf("got %d stripes, want 32: four for each processor", n)
	}
}

func TestWindowSpreadsGoroutinesOverStripes(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(8))
	w := newWindow(&Config{Window: time.Hour, FailureRate: 1}, 0)
	w.grow()
	var chosen [64]*stripe
	var g errgroup.Group
	var all sync.WaitGroup
	all.Add(len(chosen))
	for i := range chosen {
		g.Go(func() error {
			chosen[i] = w.stripe()
			all.Done()
			all.Wait() // until then, all goroutines have a stack
			return nil
		})
	}
	g.Wait()
	different := map[*stripe]bool{}
	for _, s := range chosen {
		different[s] = true
	}
	if len(different) < 8 {
		t.Errorf("got %d of %d stripes chosen by %d goroutines, want most", len(different), len(*w.stripes.Load()), len(chosen))
	}
}

func TestWindowDealsStripesAgainAfterManyMisses(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(8))
	w := newWindow(&Config{Window: time.Hour, FailureRate: 1}, 0)
	w.grow()
	const deals = 64
	changes, last := 0, w.stripe()
	for misses := range int32(deals * missesToDeal) {
		w.misses.Store(misses)
		if s := w.stripe(); s != last {
			changes, last = changes+1, s
		}
	}
	if changes < deals/2 || changes > 2*deals { // a stack may move, too
		t.Errorf("got another stripe %d times in %d misses, want about %d", changes, deals*missesToDeal, deals)
	}
}

func TestWindowKeepsFullCounter(t *testing.T) {
	for _, epoch := range []int64{0, 3} {
		b := New(Config{FailureRate: 1, Window: time.Hour})
		w := b.phase.Load().window
		w.began -= epoch * w.width.by
		word := &(*w.stripes.Load())[0].ended[fastSuccess][epoch]
		full := tag(epoch) | countMask
		word.Store(full)
		Do(context.Background(), b, func(context.Context) (int, error) { return 0, nil })
		if got := word.Load(); got != full {
			t.Errorf("got %x, want %x: the count overflowed into the epoch", got, full)
		}
	}
}

func TestWindowCountsDelayedCallNow(t *testing.T) {
	w := newWindow(&Config{Window: time.Second, FailureRate: 1, MinCalls: 1}, 0)
	ring := &(*w.stripes.Load())[0].ended[fastFailure]
	w.add(ring, int64(time.Hour), w.width)
	w.began = 0
	epoch, _, _ := w.add(ring, int64(time.Hour)-buckets*int64(100*time.Millisecond), w.width)
	if epoch < w.epoch(int64(time.Hour), w.width) {
		t.Error("a delayed call was counted in a past epoch")
	}
}

// The model is a plain list. Half of the cases start where the numbers wrap around.
func TestLastCallsMatchPlainList(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{1, 2, 3, 7, 64, 100} {
		for _, first := range []uint64{0, numberMask - 150} {
			l := newLastCalls(size)
			l.word.Store(first << numberShift)
			for i := range l.size {
				number := (first - i) & numberMask
				l.slot(number).Store(number << 1)
			}
			var list []bool
			for range 400 {
				failed := random.IntN(2) == 0
				list = append(list, failed)
				list = list[max(0, len(list)-size):]
				failures := 0
				for _, failed := range list {
					if failed {
						failures++
					}
				}
				if got := l.book(failed); got != failures {
					t.Fatalf("%d of the last %d failed: got %d", failures, size, got)
				}
				if calls, got := l.held(); got != failures || first == 0 && calls != len(list) {
					t.Fatalf("got %d calls, %d failures, want %d and %d", calls, got, len(list), failures)
				}
			}
		}
	}
}

func TestLastCallsAreExactUnderRace(t *testing.T) {
	l := newLastCalls(64)
	var g errgroup.Group
	for i := range 8 {
		g.Go(func() error {
			for j := range 2000 {
				l.book((i+j)%3 == 0)
			}
			return nil
		})
	}
	g.Wait()
	calls, failures := l.held()
	in := 0
	for i := range l.ring {
		in += int(l.ring[i].Load() & 1)
	}
	if calls != 64 || failures != in || l.word.Load()>>numberShift != 8*2000 {
		t.Errorf("got %d calls, %d failures, %d failures in the ring", calls, failures, in)
	}
}

// Three failures are counted one after the other, with one concurrent success. In any order, two of
// the failures are next to each other, so with a limit of 2 among the last 2 calls one of them
// opens.
func TestLastCallsHideNoConcurrentFailure(t *testing.T) {
	for round := range 20_000 {
		l := newLastCalls(2)
		opened := l.book(true) >= 2
		var g errgroup.Group
		var ready atomic.Bool
		g.Go(func() error {
			ready.Store(true)
			l.book(false)
			return nil
		})
		for !ready.Load() {
			runtime.Gosched()
		}
		for range 2 {
			opened = l.book(true) >= 2 || opened
		}
		g.Wait()
		if !opened {
			t.Fatalf("round %d: no call opened", round)
		}
	}
}

// A call has been counted but hasn't written its slot in the ring yet. The call that pushes it out
// waits for that.
func TestLastCallsWaitForUnwrittenSlot(t *testing.T) {
	l := newLastCalls(1)
	l.word.Store(1<<numberShift | filled | 1) // the first call, a failure
	booked := make(chan struct{})
	go func() {
		defer close(booked)
		l.book(false)
	}()
	for range 100 {
		runtime.Gosched()
	}
	l.slot(1).Store(1<<1 | 1)
	<-booked
	if calls, failures := l.held(); calls != 1 || failures != 0 {
		t.Errorf("got %d calls, %d failures, want one success", calls, failures)
	}
}

func TestAgeSurvivesTagWraparound(t *testing.T) {
	for _, epoch := range []int64{0, 5, 1 << 29, 1<<30 - 1, 1 << 30, 1<<31 + 7} {
		for _, d := range []int64{-3, -1, 0, 1, 11, 1000} {
			if epoch-d < 0 {
				continue
			}
			if got := age(epoch, tag(epoch-d)|17); got != d {
				t.Errorf("age(%d, epoch %d) = %d, want %d", epoch, epoch-d, got, d)
			}
		}
	}
}

func TestWindowEpochIsExactQuotient(t *testing.T) {
	for _, d := range []time.Duration{1, 3, 10, 11, time.Microsecond, 999_999, time.Second, time.Hour, math.MaxInt64} {
		w := newWindow(&Config{Window: d}, 0)
		by := w.width.by
		for _, k := range []int64{0, 1, 2, 9, 10, 12345, math.MaxInt64/by - 1, math.MaxInt64 / by} {
			for _, off := range []int64{0, 1, by / 2, by - 1} {
				if now := k*by + off; now >= 0 && w.epoch(now, w.width) != now/by {
					t.Errorf("epoch(%d) of %d = %d, want %d", now, by, w.epoch(now, w.width), now/by)
				}
			}
		}
	}
}

// In a loop, virtual time doesn't advance and would hide this case. So the clock is real, and the
// word's age is made up.
func TestWindowReplacesWordAfterTagWraparound(t *testing.T) {
	w := newWindow(&Config{Window: time.Microsecond, FailureRate: 1, MinCalls: 1}, clock.Now())
	ring := &(*w.stripes.Load())[0].ended[fastFailure]
	for i := range ring {
		ring[i].Store(tag(1<<29) | 7) // newer than now, according to its tag
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.add(ring, clock.Now(), w.width)
	}()
	for looks := 0; looks < 1_000_000; looks++ {
		select {
		case <-done:
			return
		default:
			runtime.Gosched()
		}
	}
	t.Error("add loops without an end")
}

func TestProbeRunsNoHookOfOtherTransitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{SlowRate: 0.5, SlowCall: time.Second, OnStateChange: func(Transition) { time.Sleep(2 * time.Second) }})
		b.mu.Lock()
		b.phase.Load().reopen("test", 0, nil)
		b.phase.Load().halfOpen()
		b.mu.Unlock() // the goroutine that made these transitions hasn't delivered them yet
		Do(t.Context(), b, func(context.Context) (int, error) { return 0, nil })
		if s := b.State(); s != Closed {
			t.Errorf("got %v, want closed: the probe took no time", s)
		}
	})
}

func TestWindowCountsCallOfNextEpoch(t *testing.T) {
	w := newWindow(&Config{Window: time.Second, FailureRate: 1, MinCalls: 1}, 0)
	w.add(&(*w.stripes.Load())[0].ended[fastFailure], int64(100*time.Millisecond), w.width)
	if failures, calls := w.failed(0); failures != 1 || calls != 1 {
		t.Errorf("got %d failures of %d calls, want the call of epoch 1 in epoch 0", failures, calls)
	}
}

// A failure is counted while another call judges, and its own call sees fewer than MinCalls. The
// successes that complete MinCalls aren't judged once the other call has settled the window.
func TestWindowSettlesOnlyAfterSeeingAllCalls(t *testing.T) {
	b := New(Config{FailureRate: 0.25, MinCalls: 3, Window: time.Hour})
	w := b.phase.Load().window
	w.between = func() {
		w.between = nil
		if cause := w.book(entry{}, Failure); cause != "" {
			t.Errorf("got %q from fewer than MinCalls", cause)
		}
		for range 2 { // counted, not judged yet
			w.add(&w.stripe().ended[fastSuccess], clock.Now(), w.width)
		}
	}
	if cause := w.book(entry{}, Success); cause == "" {
		t.Error("1 failure of 4 calls was not judged")
	}
}

// While a call judges, epochs pass, and the successes that it hasn't counted yet are overwritten.
func TestWindowJudgesAgainAfterDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWindow(&Config{FailureRate: 0.5, MinCalls: 5, Window: 10 * time.Millisecond}, clock.Now())
		for range 20 {
			w.book(entry{}, Success)
		}
		time.Sleep(9 * time.Millisecond)
		for range 4 {
			w.book(entry{}, Failure)
		}
		w.between = func() {
			w.between = nil
			time.Sleep(7 * time.Millisecond)
			for range 100 {
				w.book(entry{}, Success)
			}
		}
		if cause := w.book(entry{}, Failure); cause != "" {
			t.Errorf("got %q, want no opening", cause)
		}
	})
}

// While a call judges, six tenths of the window pass. That overwrites nothing that it has counted.
func TestWindowOpensForDelayedFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWindow(&Config{FailureRate: 0.5, MinCalls: 5, Window: 10 * time.Millisecond}, clock.Now())
		for range 4 {
			w.book(entry{}, Failure)
		}
		time.Sleep(9 * time.Millisecond)
		w.between = func() {
			w.between = nil
			time.Sleep(6 * time.Millisecond)
		}
		if cause := w.book(entry{}, Failure); cause == "" {
			t.Error("got no opening, want one: 5 of 5 calls failed")
		}
	})
}

// While a call judges, a long time passes, and calls are admitted.
func TestWindowCountsNewCallsAsFastAfterDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{SlowRate: 0.5, SlowCall: 8 * time.Millisecond, MinCalls: 4, Window: time.Hour})
		w := b.phase.Load().window
		w.between = func() {
			w.between = nil
			time.Sleep(time.Second)
			for range 5 {
				b.Acquire(t.Context())
			}
		}
		if cause := w.judge(clock.Now(), 0); cause != "" {
			t.Errorf("got %q, want no opening", cause)
		}
		if s := b.Snapshot(); s.Running != 5 || s.Slow != 0 {
			t.Errorf("got %+v, want 5 running and none slow", s)
		}
	})
	w := newWindow(&Config{SlowRate: 1, SlowCall: 80, Window: time.Hour}, 0)
	w.enter(maxDelay * w.fine.by)
	if all, slow := w.running(0); all != 1 || slow != 0 {
		t.Errorf("after the longest delay: got %d running, %d slow, want 1 and 0", all, slow)
	}
}

// The calls are admitted in one fine epoch. The second one has read the clock before the first.
func TestWindowCountsRunningCallsAsSlowWithinAnEighth(t *testing.T) {
	w := newWindow(&Config{SlowRate: 1, SlowCall: 80, Window: time.Second}, 0)
	starts := []int64{15, 12}
	for _, start := range starts {
		w.enter(start)
	}
	for now := range int64(120) {
		least, most := int64(0), int64(0)
		for _, start := range starts {
			if now-start >= 90 {
				least++
			}
			if now-start >= 80 {
				most++
			}
		}
		if all, slow := w.running(now); now > 15 && (all != 2 || slow < least || slow > most) {
			t.Errorf("at %d: got %d slow of %d, want %d to %d of 2", now, slow, all, least, most)
		}
	}
}

// A goroutine is delayed after it has counted its call, the only one at that time, in a fine epoch.
// Another call comes before it has noted the instant.
func TestWindowCountsNoCallAsSlowEarlyAfterDelay(t *testing.T) {
	const delayed, other = 13, 17
	for name, ended := range map[string][]int64{"none": {}, "one": {11}, "two": {11, 12}, "one in the other's instant": {other}} {
		w := newWindow(&Config{SlowRate: 1, SlowCall: 80, Window: time.Second}, 0)
		s := (*w.stripes.Load())[0]
		var entries []entry
		for _, start := range ended {
			entries = append(entries, w.enter(start))
		}
		for _, e := range entries {
			w.leave(e)
		}
		w.add(&s.running, delayed, w.fine)
		w.enter(other)
		w.noteInstant(&s.instant[1], entry{delayed, &s.running[1], 1}, true)
		if all, slow := w.running(other + 79); all != 2 || slow > 1 {
			t.Errorf("%s ended before: got %d slow of %d, want one of 2 at most", name, slow, all)
		}
	}
}

// Two goroutines have counted their calls before they note the instant, which is the same.
func TestWindowCountsCallsOfOneInstantAsSlowOnTime(t *testing.T) {
	w := newWindow(&Config{SlowRate: 1, SlowCall: 80, Window: time.Second}, 0)
	s := (*w.stripes.Load())[0]
	for _, epoch := range []int64{1, 1 + buckets} { // in the same word
		e := entry{10*epoch + 3, &s.running[1], epoch}
		for range 2 {
			w.add(&s.running, e.start, w.fine)
		}
		w.noteInstant(&s.instant[1], e, true)
		w.noteInstant(&s.instant[1], e, false)
		for _, test := range []struct{ after, slow int64 }{{79, 0}, {80, 2}} {
			if _, slow := w.running(e.start + test.after); slow != test.slow {
				t.Errorf("epoch %d: got %d slow %d after they began, want %d", epoch, slow, test.after, test.slow)
			}
		}
		w.leave(e)
		w.leave(e)
	}
}

// A goroutine has counted a call that it admitted, but hasn't noted the instant yet.
func TestWindowCountsCallWithoutInstantAsSlowLater(t *testing.T) {
	w := newWindow(&Config{SlowRate: 1, SlowCall: 80, Window: time.Second}, 0)
	s := (*w.stripes.Load())[0]
	w.add(&s.running, 9, w.fine)
	if all, slow := w.running(80); all != 1 || slow != 0 || w.someSlowSoon(8) {
		t.Errorf("got %d slow of %d, soon %v, want the call not to be slow before 89", slow, all, w.someSlowSoon(8))
	}
	if all, slow := w.running(90); all != 1 || slow != 1 {
		t.Errorf("got %d slow of %d after an epoch, want 1 of 1", slow, all)
	}
	w.noteInstant(&s.instant[0], entry{9, &s.running[0], 0}, true)
	for now, want := range map[int64]int64{88: 0, 89: 1} {
		if _, slow := w.running(now); slow != want || !w.someSlowSoon(8) {
			t.Errorf("at %d: got %d slow, soon %v, want %d, true", now, slow, w.someSlowSoon(8), want)
		}
	}
}

// Calls are counted in pairs, first the one that lowers the share and then the one that raises it,
// so the share is always below half. A concurrent judgment must not combine an older count of the
// former with a newer count of the latter.
func TestWindowNeverJudgesInconsistentShare(t *testing.T) {
	for name, test := range map[string]struct {
		config         Config
		lighter, worse int // classes
	}{
		"failures":               {Config{FailureRate: 0.5}, fastSuccess, fastFailure},
		"slow failures":          {Config{FailureRate: 0.5}, slowSuccess, slowFailure},
		"slow calls":             {Config{SlowRate: 0.5, SlowCall: time.Hour}, fastSuccess, slowSuccess},
		"slow calls or failures": {Config{SlowRate: 0.5, SlowCall: time.Hour}, fastFailure, slowSuccess},
		"ignored slow calls":     {Config{SlowRate: 0.5, SlowCall: time.Hour}, fastFailure, slowIgnored},
	} {
		t.Run(name, func(t *testing.T) {
			test.config.Window, test.config.MinCalls = 100*time.Hour, 1
			w := newWindow(&test.config, clock.Now())
			ended := &(*w.stripes.Load())[0].ended
			ended[test.lighter][0].Store(2)
			ended[test.worse][0].Store(1)
			between, want := 0, 2 // the first judgment counts failures twice
			if test.config.SlowRate > 0 {
				want = 3
			}
			w.between = func() {
				between++
				for range 10 {
					ended[test.lighter][0].Add(1)
					ended[test.worse][0].Add(1)
				}
			}
			if cause := w.judge(clock.Now(), 0); cause != "" || between != want {
				t.Errorf("got %q after %d changes while it counted, want no opening and %d", cause, between, want)
			}
		})
	}
}

// A container's limit may be lowered, and the count of misses may wrap around.
func TestWindowKeepsStripesWithFewerProcessors(t *testing.T) {
	before := runtime.GOMAXPROCS(8)
	defer runtime.GOMAXPROCS(before)
	b := New(Config{FailureRate: 1, Window: time.Hour, MinCalls: 1000})
	w := b.phase.Load().window
	w.grow()
	stripes := *w.stripes.Load()
	stripes[len(stripes)-1].ended[fastFailure][0].Store(100)
	runtime.GOMAXPROCS(1)
	w.misses.Store(missesToGrow - 1)
	w.misses.Add(1)
	w.grow() // as missed would
	Do(t.Context(), b, func(context.Context) (int, error) { return 0, context.DeadlineExceeded })
	if s := b.Snapshot(); s.Failures != 101 {
		t.Errorf("got %d failures, want 101", s.Failures)
	}
}
