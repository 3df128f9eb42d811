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
	"github.com/effector-go/resilience/proof/internal/cases"
)

// Histories must be short to be searched for an order. In these tests far more calls race, and only
// the sums are checked.

const callers = 4

// calls is the number of calls of a caller. It is smaller under the race detector, which makes
// collisions less frequent: there the tests look for data races.
var calls = map[bool]int{false: 50_000, true: 2_000}[cases.Race]

// A tally is what the callers did.
type tally struct{ failures, successes, left atomic.Int64 }

// callAll has all callers make and end calls concurrently, repeated the given number of times. Of
// ten calls, failed fail. Each caller leaves one call running.
func callAll(t *testing.T, b *breaker.Breaker, times, failed int) (failures, successes, left int) {
	t.Helper()
	var sums tally
	for range times {
		race := newStart(callers)
		var g errgroup.Group
		for range callers {
			g.Go(func() error {
				race.wait()
				return callSome(b, failed, &sums)
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	return int(sums.failures.Load()), int(sums.successes.Load()), int(sums.left.Load())
}

func callSome(b *breaker.Breaker, failed int, sums *tally) error {
	failures := 0
	for range calls {
		p, err := b.Acquire(context.Background())
		if err != nil {
			return err
		}
		if rand.IntN(10) < failed {
			failures++
			p.Done(failure{})
		} else {
			p.Done(nil)
		}
	}
	sums.failures.Add(int64(failures))
	sums.successes.Add(int64(calls - failures))
	sums.left.Add(1)
	_, err := b.Acquire(context.Background())
	return err
}

func TestConsecutiveLosesNoFailure(t *testing.T) {
	b := breaker.New(breaker.Config{Consecutive: 1e9})
	failures, _, _ := callAll(t, b, 25, 10)
	if s := b.Snapshot(); s.Consecutive != failures {
		t.Fatalf("got %+v, want %d failures in a row", s, failures)
	}
}

func TestLeakyLosesNoCall(t *testing.T) {
	b := breaker.New(breaker.Config{Leaky: 1e9})
	before, _, _ := callAll(t, b, 2, 10)
	failures, successes, _ := callAll(t, b, 20, 5)
	if s, want := b.Snapshot(), before+failures-successes; s.Leak != want {
		t.Fatalf("got %+v, want a leak of %d", s, want)
	}
}

func TestLastCallsForgetOldFailures(t *testing.T) {
	b := breaker.New(breaker.Config{Failures: 100, LastCalls: 100})
	callAll(t, b, 5, 1)
	for range 100 {
		p, err := b.Acquire(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		p.Done(nil)
	}
	if s := b.Snapshot(); s.Calls != 100 || s.Failures != 0 {
		t.Fatalf("got %+v after 100 successes, want no failures", s)
	}
}

func TestWindowLosesNoCall(t *testing.T) {
	b := breaker.New(breaker.Config{
		FailureRate: 1, SlowRate: 1, SlowCall: 10 * time.Hour, MinCalls: 1e9, Window: 100 * time.Hour,
	})
	failures, successes, left := callAll(t, b, 4, 3)
	if s := b.Snapshot(); s.Calls != failures+successes || s.Failures != failures || s.Running != left || s.Slow != 0 {
		t.Fatalf("got %+v, want %d failures, %d successes, %d running", s, failures, successes, left)
	}
}

// Two goroutines end the same permits in step, so that they collide at many of them.
func TestPermitEndedTwiceCountsOnce(t *testing.T) {
	b := breaker.New(breaker.Config{Consecutive: 1e9})
	permits := make([]breaker.Permit, 6*calls)
	starts := make([]*start, len(permits))
	for i := range permits {
		var err error
		if permits[i], err = b.Acquire(context.Background()); err != nil {
			t.Fatal(err)
		}
		starts[i] = newStart(2)
	}
	var g errgroup.Group
	for range 2 {
		g.Go(func() error {
			for i := range permits {
				starts[i].wait()
				permits[i].Done(failure{})
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if s := b.Snapshot(); s.Consecutive != len(permits) {
		t.Fatalf("got %+v, want %d failures", s, len(permits))
	}
}

// A start releases n goroutines at the same moment.
type start struct{ missing atomic.Int32 }

func newStart(n int32) *start {
	s := &start{}
	s.missing.Store(n)
	return s
}

// wait spins first, which is fast, and then yields, because there may be only one processor.
func (s *start) wait() {
	s.missing.Add(-1)
	for turns := 0; s.missing.Load() > 0; turns++ {
		if turns > 1000 {
			runtime.Gosched()
		}
	}
}
