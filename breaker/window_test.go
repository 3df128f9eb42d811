package breaker

import (
	"context"
	"math"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience/internal/clock"
)

func TestContendedWindowGrowsStripesAndLosesNothing(t *testing.T) {
	const callers, each = 8, 3000
	b := New(Config{FailureRate: 1, SlowRate: 1, SlowCall: time.Hour, Window: time.Hour, MinCalls: math.MaxInt})
	w := b.phase.Load().window
	w.misses.Store(missesToGrow - 1) // one more, however few processors this machine has
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
		t.Errorf("%d stripes", n)
	}
	if s := b.Snapshot(); s.Calls != callers*each || s.Failures != callers*each/2 || s.Running != 0 {
		t.Errorf("%+v, want %d calls, half of them failed, none running", s, callers*each)
	}
}

func TestFullCounterStaysFull(t *testing.T) {
	b := New(Config{FailureRate: 1, Window: time.Hour})
	w := b.phase.Load().window
	word := &(*w.stripes.Load())[0].ended[fastSuccess][0]
	word.Store(countMask)
	Do(context.Background(), b, func(context.Context) (int, error) { return 0, nil })
	if got := word.Load(); got != countMask {
		t.Errorf("%x, want %x: the count ran into the epoch", got, uint64(countMask))
	}
}

func TestCallThatStoodStillForARingIsCountedAnew(t *testing.T) {
	l := newLastCalls(4, 4)
	stalled := l.number.Add(1)
	for range 8 {
		l.book(false)
	}
	if l.put(stalled, 1) {
		t.Error("an old number took a slot of a newer call")
	}
	l.book(true)
	if calls, failures := l.held(); calls != 4 || failures != 1 {
		t.Errorf("%d calls, %d failures, want 4 and 1", calls, failures)
	}

	w := newWindow(&Config{Window: time.Second, FailureRate: 1, MinCalls: 1}, 0)
	ring := &(*w.stripes.Load())[0].ended[fastFailure]
	w.add(ring, int64(time.Hour), w.width)
	w.began = 0
	epoch, _, _ := w.add(ring, int64(time.Hour)-buckets*int64(100*time.Millisecond), w.width)
	if epoch < w.epoch(int64(time.Hour), w.width) {
		t.Error("a call that stood still was booked in the past")
	}
}

func TestLastCallsUnderRaceHoldExactlyTheLast(t *testing.T) {
	l := newLastCalls(64, 65)
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
	if calls != 64 || int64(failures) != l.failures.Load() {
		t.Errorf("%d calls, %d failures, counter %d", calls, failures, l.failures.Load())
	}
}

func TestAgeComesRoundWithoutASign(t *testing.T) {
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

func TestEpochIsTheQuotient(t *testing.T) {
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

// Virtual time stands still in a loop and would hide this one: the clock is real, the age of the word made up.
func TestWordWhoseTagCameRoundIsReplacedAtOnce(t *testing.T) {
	w := newWindow(&Config{Window: time.Microsecond, FailureRate: 1, MinCalls: 1}, clock.Now())
	ring := &(*w.stripes.Load())[0].ended[fastFailure]
	for i := range ring {
		ring[i].Store(tag(1<<29) | 7) // newer than now, by its tag
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
	t.Error("a caller goes round and round")
}

func TestTrialRunsNobodyElsesHook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{SlowRate: 0.5, SlowCall: time.Second, OnStateChange: func(Transition) { time.Sleep(2 * time.Second) }})
		b.mu.Lock()
		b.phase.Load().reopen("test", 0)
		b.phase.Load().halfOpen()
		b.mu.Unlock() // who made these has yet to deliver them
		Do(t.Context(), b, func(context.Context) (int, error) { return 0, nil })
		if s := b.State(); s != Closed {
			t.Errorf("%v, want closed: the trial took no time", s)
		}
	})
}
