package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/retry"
)

// ways are all ways in which a call can report err.
var ways = map[string]func(ctx context.Context, b *breaker.Breaker, err error) error{
	"Do": func(ctx context.Context, b *breaker.Breaker, err error) error {
		_, got := breaker.Do(ctx, b, func(context.Context) (int, error) { return 0, err })
		return got
	},
	"Run": func(ctx context.Context, b *breaker.Breaker, err error) error {
		return resilience.Run(ctx, b, func(context.Context) error { return err })
	},
	"Done": func(ctx context.Context, b *breaker.Breaker, err error) error {
		permit, refusal := b.Acquire(ctx)
		permit.Done(err)
		return errors.Join(refusal, err)
	},
}

// stacked returns err with the mark and others, in all positions.
func stacked(mark func(error) error, err error) []error {
	after := func(err error) error { return resilience.WithRetryAfter(err, time.Second) }
	return []error{
		mark(err), mark(resilience.NotMade(err)), resilience.NotMade(mark(err)), after(mark(err)),
		retry.Permanent(mark(err)), retry.Permanent(after(resilience.NotMade(mark(err)))),
	}
}

func TestCallerFaultContinuesStreak(t *testing.T) {
	for name, way := range ways {
		for _, err := range append(stacked(resilience.CallerFault, errBoom), resilience.CallerFault(resilience.NotFailure(errBoom))) {
			b := breaker.New(breaker.Config{Consecutive: 3, Leaky: 3, Failures: 3, LastCalls: 3})
			run(t, b, "ff")
			before := b.Snapshot()
			if got := way(t.Context(), b, err); !errors.Is(got, errBoom) {
				t.Errorf("%s: got %v, want the error", name, got)
			}
			if got := b.Snapshot(); got != before {
				t.Errorf("%s, %#v: got %+v, want %+v", name, err, got, before)
			}
			run(t, b, "f")
			wantState(t, b, breaker.Open)
		}
	}
}

func TestCallerFaultIsNotClassified(t *testing.T) {
	for name, way := range ways {
		b := breaker.New(breaker.Config{Consecutive: 1, Classify: func(context.Context, error) breaker.Outcome {
			t.Errorf("%s: Classify is called", name)
			return breaker.Failure
		}})
		way(t.Context(), b, resilience.CallerFault(errBoom))
		wantState(t, b, breaker.Closed)
		b.HalfOpen()
		way(t.Context(), b, resilience.CallerFault(errBoom))
		wantState(t, b, breaker.HalfOpen)
	}
}

func TestCallerFaultReleasesProbe(t *testing.T) {
	for name, way := range ways {
		b := breaker.New(breaker.Config{})
		b.HalfOpen()
		for range 3 {
			if err := way(t.Context(), b, resilience.CallerFault(errBoom)); errors.Is(err, breaker.ErrOpen) {
				t.Fatalf("%s: got %v, want the probe's place to be free", name, err)
			}
		}
		if s := b.Snapshot(); s.State != breaker.HalfOpen || s.Calls != 0 || s.Running != 0 {
			t.Errorf("%s: got %+v, want half-open without a result", name, s)
		}
	}
}

// The call also stops being one of the running slow calls.
func TestCallerFaultIsNotSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{SlowRate: 1, SlowCall: time.Second, MinCalls: 2, Window: time.Minute})
		for range 3 {
			permit, _ := b.Acquire(t.Context())
			time.Sleep(2 * time.Second)
			if s := b.Snapshot(); s.Slow != 1 || s.Running != 1 {
				t.Errorf("got %+v, want one running slow call", s)
			}
			permit.Done(resilience.CallerFault(errBoom))
			if s := b.Snapshot(); s.Slow != 0 || s.Running != 0 || s.Calls != 0 {
				t.Errorf("got %+v, want no calls", s)
			}
		}
		wantState(t, b, breaker.Closed)
	})
}

func TestNotFailureAndContentionAreSuccesses(t *testing.T) {
	for name, way := range ways {
		for _, mark := range []func(error) error{resilience.NotFailure, resilience.Contention} {
			for _, err := range append(stacked(mark, errBoom), mark(resilience.CallerFault(errBoom))) {
				b := breaker.New(breaker.Config{Consecutive: 2, Leaky: 2})
				run(t, b, "f")
				gone, cancel := context.WithCancel(t.Context())
				if name == "Done" { // the caller has left
					permit, _ := b.Acquire(gone)
					cancel()
					permit.Done(err)
				} else {
					way(gone, b, err)
				}
				cancel()
				if s := b.Snapshot(); s.Consecutive != 0 || s.Leak != 0 {
					t.Errorf("%s, %#v: got %+v, want a success", name, err, s)
				}
				b.HalfOpen()
				way(t.Context(), b, err)
				wantState(t, b, breaker.Closed)
			}
		}
	}
}

func TestBreakerCountsOnlyOuterMarks(t *testing.T) {
	for name, way := range ways {
		for _, mark := range []func(error) error{resilience.NotFailure, resilience.Contention, resilience.CallerFault} {
			for _, err := range []error{fmt.Errorf("get: %w", mark(errBoom)), errors.Join(mark(errBoom))} {
				b := breaker.New(breaker.Config{Consecutive: 1})
				way(t.Context(), b, err)
				if b.State() != breaker.Open {
					t.Errorf("%s, %v: got %v, want open: a mark inside of the error doesn't count", name, err, b.State())
				}
			}
		}
	}
}

func TestClassifyDecidesAloneOnSuccessMarks(t *testing.T) {
	for _, mark := range []func(error) error{resilience.NotFailure, resilience.Contention} {
		var got error
		marked := mark(errBoom)
		b := breaker.New(breaker.Config{Consecutive: 1, Classify: func(_ context.Context, err error) breaker.Outcome {
			got = err
			return breaker.Failure
		}})
		ways["Do"](t.Context(), b, marked)
		if got != marked {
			t.Errorf("Classify is called with %v, want the marked error", got)
		}
		wantState(t, b, breaker.Open)
	}
}

func TestTransitionHasErrorOfItsCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []error
		b := breaker.New(breaker.Config{
			Consecutive: 1, SlowRate: 1, SlowCall: 10 * time.Second, MinCalls: 1, ProbeTimeout: time.Second,
			OnStateChange: func(tr breaker.Transition) { got = append(got, tr.Err) },
		})
		want := func(errs ...error) {
			t.Helper()
			synctest.Wait()
			if fmt.Sprint(got) != fmt.Sprint(errs) {
				t.Errorf("got %v, want %v", got, errs)
			}
			got = nil
		}
		missing := resilience.NotFailure(errors.New("missing"))
		ways["Do"](t.Context(), b, errBoom)
		time.Sleep(5 * time.Second)
		want(errBoom, nil)
		ways["Do"](t.Context(), b, errBoom) // a probe
		time.Sleep(10 * time.Second)
		want(errBoom, nil)
		b.Acquire(t.Context()) // a probe without a result
		time.Sleep(21 * time.Second)
		want(nil, nil)
		ways["Do"](t.Context(), b, missing) // a probe that succeeds
		want(missing)
		b.Acquire(t.Context())
		time.Sleep(20 * time.Second)
		b.Acquire(t.Context()) // is refused: the first call hangs
		want(nil)
		b.Reset()
		want(nil)
		permit, _ := b.Acquire(t.Context())
		time.Sleep(10 * time.Second)
		permit.Done(missing) // a success, but slow
		want(missing)
		b.Reset()
		func() {
			defer func() { recover() }()
			breaker.Do(t.Context(), b, thatPanics)
		}()
		want(nil, nil)
	})
}
