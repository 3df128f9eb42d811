package breaker_test

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience/breaker"
)

// Histories that can be searched for an order are short. In these tests far more calls race, and what is looked at is the sum.

const (
	callers = 4
	calls   = 100_000 // of a caller
)

// tally is what callers did.
type tally struct{ failures, successes, left atomic.Int64 }

// callAll has callers make and end all calls at once: failed of ten fail, and each caller leaves one call running.
func callAll(t *testing.T, b *breaker.Breaker, failed int) *tally {
	var sums tally
	race := newStart(callers)
	var g errgroup.Group
	for range callers {
		g.Go(func() error {
			race.wait()
			for range calls {
				p, err := b.Acquire(context.Background())
				if err != nil {
					return err
				}
				if rand.IntN(10) < failed {
					p.Done(failure{})
					sums.failures.Add(1)
				} else {
					p.Done(nil)
					sums.successes.Add(1)
				}
			}
			_, err := b.Acquire(context.Background())
			sums.left.Add(1)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	return &sums
}

func TestNoFailureInARowIsLost(t *testing.T) {
	b := breaker.New(breaker.Config{Consecutive: 1e9})
	if sums, s := callAll(t, b, 10), b.Snapshot(); int64(s.Consecutive) != sums.failures.Load() {
		t.Fatalf("%+v after %d failures", s, sums.failures.Load())
	}
}

func TestNothingLeaksFromLeaky(t *testing.T) {
	b := breaker.New(breaker.Config{Leaky: 1e9})
	before := callAll(t, b, 10)
	sums, s := callAll(t, b, 5), b.Snapshot()
	if want := before.failures.Load() + sums.failures.Load() - sums.successes.Load(); int64(s.Leak) != want {
		t.Fatalf("%+v, want a leak of %d", s, want)
	}
}

func TestLastCallsForgetWhatHasGone(t *testing.T) {
	b := breaker.New(breaker.Config{Failures: 100, LastCalls: 100})
	callAll(t, b, 5)
	for range 100 {
		p, err := b.Acquire(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		p.Done(nil)
	}
	if s := b.Snapshot(); s.Calls != 100 || s.Failures != 0 {
		t.Fatalf("%+v after 100 successes", s)
	}
}

func TestNoCallOfTheWindowIsLost(t *testing.T) {
	b := breaker.New(breaker.Config{
		FailureRate: 1, SlowRate: 1, SlowCall: 10 * time.Hour, MinCalls: 1e9, Window: 100 * time.Hour,
	})
	sums, s := callAll(t, b, 3), b.Snapshot()
	if int64(s.Calls) != sums.failures.Load()+sums.successes.Load() || int64(s.Failures) != sums.failures.Load() ||
		int64(s.Running) != sums.left.Load() || s.Slow != 0 {
		t.Fatalf("%+v after %d failures and %d successes, %d running", s, sums.failures.Load(), sums.successes.Load(), sums.left.Load())
	}
}

func TestPermitEndedByManyCountsOnce(t *testing.T) {
	b := breaker.New(breaker.Config{Consecutive: 1e9})
	for n := range calls / 5 {
		p, err := b.Acquire(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		race := newStart(2)
		var g errgroup.Group
		for range 2 {
			g.Go(func() error {
				race.wait()
				p.Done(failure{})
				return nil
			})
		}
		g.Wait()
		if s := b.Snapshot(); s.Consecutive != n+1 {
			t.Fatalf("%+v after %d failures", s, n+1)
		}
	}
}

// A start lets so many goroutines go at one moment.
type start struct{ missing atomic.Int32 }

func newStart(n int32) *start {
	s := &start{}
	s.missing.Store(n)
	return s
}

// wait turns at first, to be quick, and then gives way, since there may be one processor.
func (s *start) wait() {
	s.missing.Add(-1)
	for turns := 0; s.missing.Load() > 0; turns++ {
		if turns > 1000 {
			runtime.Gosched()
		}
	}
}
