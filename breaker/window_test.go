package breaker

import (
	"context"
	"math"
	"math/rand/v2"
	"runtime"
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

func TestWindowKeepsFullCounter(t *testing.T) {
	b := New(Config{FailureRate: 1, Window: time.Hour})
	w := b.phase.Load().window
	word := &(*w.stripes.Load())[0].ended[fastSuccess][0]
	word.Store(countMask)
	Do(context.Background(), b, func(context.Context) (int, error) { return 0, nil })
	if got := word.Load(); got != countMask {
		t.Errorf("got %x, want %x: the count overflowed into the epoch", got, uint64(countMask))
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
			w.between = func() {
				for range 10 {
					ended[test.lighter][0].Add(1)
					ended[test.worse][0].Add(1)
				}
			}
			if cause := w.judge(clock.Now(), 0); cause != "" {
				t.Errorf("got %q, want no opening", cause)
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
