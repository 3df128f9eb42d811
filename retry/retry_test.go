package retry_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cenkalti/backoff/v4"
	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/retry"
)

var (
	errBoom   = errors.New("boom")
	errClosed = errors.New("shop closed")
)

// refusal is the error of a policy that refuses a call.
type refusal struct{ after time.Duration }

func (refusal) Error() string                       { return "breaker payments: open" }
func (refusal) Is(target error) bool                { return target == resilience.ErrRefused }
func (r refusal) RetryAfter() time.Duration         { return r.after }
func refuse(context.Context, resilience.Next) error { return refusal{} }

// refuseFrom admits n runs and refuses the later ones.
func refuseFrom(n int, err error) resilience.Policy {
	return resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		if n--; n < 0 {
			return err
		}
		return next.Run(ctx)
	})
}

// refuseFirst refuses n runs and admits the later ones.
func refuseFirst(n int, err error) resilience.Policy {
	return resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		if n--; n >= 0 {
			return err
		}
		return next.Run(ctx)
	})
}

// failing returns a function that fails with err n times and then succeeds. Its value is the call's
// number.
func failing(n int, err error) (fn func(context.Context) (int, error), calls *int) {
	calls = new(int)
	return func(context.Context) (int, error) {
		if *calls++; *calls <= n {
			return *calls, err
		}
		return *calls, nil
	}, calls
}

// both runs the test with Do alone and through a pipeline: the same must hold for both.
func both(t *testing.T, test func(t *testing.T, do func(context.Context, *retry.Retry, func(context.Context) (int, error)) (int, error))) {
	t.Run("Do", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { test(t, retry.Do[int]) })
	})
	t.Run("Run", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			test(t, func(ctx context.Context, r *retry.Retry, fn func(context.Context) (int, error)) (int, error) {
				return resilience.Do(ctx, r, fn)
			})
		})
	})
}

type doer = func(context.Context, *retry.Retry, func(context.Context) (int, error)) (int, error)

func exhausted(t *testing.T, err error, reason retry.Reason, attempts int) *retry.ExhaustedError {
	t.Helper()
	var e *retry.ExhaustedError
	if !errors.As(err, &e) {
		t.Fatalf("got %v (%T), want an *ExhaustedError", err, err)
	}
	if e.Reason != reason || e.Attempts != attempts {
		t.Fatalf("got %v after %d attempts, want %v after %d: %v", e.Reason, e.Attempts, reason, attempts, err)
	}
	return e
}

var now = retry.Constant(0)

func TestDoReturnsValueOfFirstAttempt(t *testing.T) {
	both(t, func(t *testing.T, do doer) {
		value, err := do(t.Context(), retry.New(retry.Config{}), func(context.Context) (int, error) { return 7, nil })
		if value != 7 || err != nil {
			t.Errorf("got %d, %v, want 7, nil", value, err)
		}
	})
}

func TestRetryReturnsFirstSuccess(t *testing.T) {
	both(t, func(t *testing.T, do doer) {
		fn, calls := failing(2, errBoom)
		value, err := do(t.Context(), retry.New(retry.Config{}), fn)
		if value != 3 || err != nil || *calls != 3 {
			t.Errorf("got %d, %v after %d calls, want 3, nil after 3", value, err, *calls)
		}
	})
}

func TestRetryMakesThreeAttemptsByDefault(t *testing.T) {
	both(t, func(t *testing.T, do doer) {
		fn, _ := failing(9, errBoom)
		value, err := do(t.Context(), retry.New(retry.Config{Name: "payments"}), fn)
		e := exhausted(t, err, retry.ReasonAttempts, 3)
		if value != 3 || e.Err != errBoom || e.Name != "payments" || !errors.Is(err, errBoom) {
			t.Errorf("got %d, %+v, want 3 and an error of payments that is errBoom", value, e)
		}
		if got, want := err.Error(), "retry payments: gave up after 3 attempts: boom"; got != want {
			t.Errorf("got text %q, want %q", got, want)
		}
	})
}

func TestRetryUnlimitedAttempts(t *testing.T) {
	both(t, func(t *testing.T, do doer) {
		fn, _ := failing(1000, errBoom)
		if value, err := do(t.Context(), retry.New(retry.Config{MaxAttempts: retry.Unlimited}), fn); value != 1001 || err != nil {
			t.Errorf("got %d, %v", value, err)
		}
	})
}

func TestRetryMakesNoCallWithEndedContext(t *testing.T) {
	both(t, func(t *testing.T, do doer) {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errClosed)
		b := budget.New(budget.Config{Ratio: 1})
		fn, calls := failing(0, nil)
		value, err := do(ctx, retry.New(retry.Config{Budget: b}), fn)
		if value != 0 || *calls != 0 || !errors.Is(err, context.Canceled) || !errors.Is(err, errClosed) {
			t.Errorf("got %d, %v after %d calls, want 0, the context's error and cause, no call", value, err, *calls)
		}
		if b.Withdraw() {
			t.Error("a call that was not made deposited into the budget")
		}
	})
}

func TestRetryReturnsErrorUnchangedOnceContextEnded(t *testing.T) {
	both(t, func(t *testing.T, do doer) {
		ctx, cancel := context.WithCancel(t.Context())
		_, err := do(ctx, retry.New(retry.Config{}), func(context.Context) (int, error) { cancel(); return 0, errBoom })
		if err != errBoom {
			t.Errorf("got %v", err)
		}
	})
}

func TestRetryNeverRetriesPermanentError(t *testing.T) {
	both(t, func(t *testing.T, do doer) {
		wrapped := fmt.Errorf("wrapped: %w", retry.Permanent(errBoom))
		for _, test := range []struct{ err, want error }{
			{retry.Permanent(errBoom), errBoom}, // only the outermost mark is removed
			{backoff.Permanent(errBoom), errBoom},
			{wrapped, wrapped},
			{retry.Permanent(wrapped), wrapped},
		} {
			fn, calls := failing(9, test.err)
			if _, err := do(t.Context(), retry.New(retry.Config{}), fn); err != test.want || *calls != 1 {
				t.Errorf("%v: got %v after %d calls, want %v after 1", test.err, err, *calls, test.want)
			}
		}
		if retry.Permanent(nil) != nil {
			t.Error("Permanent(nil) is an error, want nil")
		}
	})
}

func TestRetryIfOnlyNarrows(t *testing.T) {
	both(t, func(t *testing.T, do doer) {
		var asked []error
		r := retry.New(retry.Config{Backoff: now, RetryIf: func(err error) bool { asked = append(asked, err); return err != errClosed }})
		n := 0
		_, err := do(t.Context(), r, func(context.Context) (int, error) {
			if n++; n == 1 {
				return 0, errBoom
			}
			return 0, errClosed
		})
		if err != errClosed || !slices.Equal(asked, []error{errBoom, errClosed}) {
			t.Errorf("got %v, RetryIf called with %v, want errClosed, with both errors", err, asked)
		}
		asked = nil
		fn, _ := failing(9, retry.Permanent(errBoom))
		_, _ = do(t.Context(), r, fn)
		fn, _ = failing(9, errBoom)
		_, err = do(t.Context(), retry.New(retry.Config{MaxAttempts: 1, RetryIf: func(error) bool { t.Error("RetryIf called with the last attempt's error"); return true }}), fn)
		exhausted(t, err, retry.ReasonAttempts, 1)
		if asked != nil {
			t.Errorf("RetryIf called with %v, which is not retried", asked)
		}
	})
}

// delays is a v4 schedule.
type delays struct {
	list   []time.Duration
	n      int
	resets int
}

func (d *delays) NextBackOff() time.Duration { d.n++; return d.list[d.n-1] }
func (d *delays) Reset()                     { d.resets++; d.n = 0 }

func TestRetryCreatesScheduleOnceAtFirstFailure(t *testing.T) {
	both(t, func(t *testing.T, do doer) {
		made := 0
		schedule := &delays{list: []time.Duration{1, 2, 3}}
		r := retry.New(retry.Config{MaxAttempts: 9, Backoff: func() backoff.BackOff { made++; return schedule }})
		fn, _ := failing(0, nil)
		_, _ = do(t.Context(), r, fn)
		if made != 0 {
			t.Error("schedule created for a call that succeeded")
		}
		fn, _ = failing(3, errBoom)
		_, _ = do(t.Context(), r, fn)
		if made != 1 || schedule.resets != 1 {
			t.Errorf("schedule created %d times, reset %d times, want once each", made, schedule.resets)
		}
	})
}

func TestRetryEndsWhenScheduleStops(t *testing.T) {
	both(t, func(t *testing.T, do doer) {
		for _, stop := range []time.Duration{backoff.Stop, -2, math.MinInt64} {
			fn, _ := failing(9, errBoom)
			r := retry.New(retry.Config{MaxAttempts: 9, Backoff: func() backoff.BackOff { return &delays{list: []time.Duration{1, stop}} }})
			_, err := do(t.Context(), r, fn)
			exhausted(t, err, retry.ReasonSchedule, 2)
		}
	})
}

func TestRetryAcceptsBackoffV4Schedules(t *testing.T) {
	both(t, func(t *testing.T, do doer) {
		fn, _ := failing(4, errBoom)
		r := retry.New(retry.Config{MaxAttempts: 9, Backoff: func() backoff.BackOff { return backoff.NewExponentialBackOff() }})
		if value, err := do(t.Context(), r, fn); value != 5 || err != nil {
			t.Errorf("exponential: got %d, %v, want 5, nil", value, err)
		}
		fn, _ = failing(9, errBoom)
		r = retry.New(retry.Config{MaxAttempts: 9, Backoff: func() backoff.BackOff {
			return backoff.WithMaxRetries(backoff.NewConstantBackOff(time.Second), 2)
		}})
		_, err := do(t.Context(), r, fn)
		exhausted(t, err, retry.ReasonSchedule, 3)
	})
}

func TestRetryPanicsOnNilScheduleAndNilFunction(t *testing.T) {
	both(t, func(t *testing.T, do doer) {
		defer func() {
			if got, want := recover(), "retry x: Backoff returned nil, must return a backoff.BackOff"; got != want {
				t.Errorf("got panic %v, want %q", got, want)
			}
		}()
		fn, _ := failing(9, errBoom)
		_, _ = do(t.Context(), retry.New(retry.Config{Name: "x", Backoff: func() backoff.BackOff { return nil }}), fn)
	})
	defer func() {
		if got, want := recover(), "retry: Do: fn is nil, must be a function"; got != want {
			t.Errorf("got panic %v, want %q", got, want)
		}
	}()
	_, _ = retry.Do[int](t.Context(), retry.New(retry.Config{}), nil)
}

func TestRetryWaitsRetryAfterPlusDelay(t *testing.T) {
	both(t, func(t *testing.T, do doer) {
		start := time.Now()
		fn, _ := failing(1, fmt.Errorf("busy: %w", resilience.WithRetryAfter(errBoom, 2*time.Second)))
		_, err := do(t.Context(), retry.New(retry.Config{Backoff: retry.Constant(time.Second)}), fn)
		if got := time.Since(start); err != nil || got != 3*time.Second {
			t.Errorf("got %v after a wait of %v, want nil after 3s", err, got)
		}
	})
}

func TestRetryEndsOnRetryAfterBeyondMax(t *testing.T) {
	both(t, func(t *testing.T, do doer) {
		for _, test := range []struct{ max, after time.Duration }{{0, time.Minute + 1}, {time.Second, time.Second + 1}} {
			start := time.Now()
			fn, _ := failing(9, resilience.WithRetryAfter(errBoom, test.after))
			_, err := do(t.Context(), retry.New(retry.Config{MaxRetryAfter: test.max}), fn)
			exhausted(t, err, retry.ReasonRetryAfter, 1)
			if time.Since(start) != 0 {
				t.Error("waited although retrying had ended")
			}
		}
		start := time.Now()
		fn, _ := failing(1, resilience.WithRetryAfter(errBoom, time.Minute))
		if _, err := do(t.Context(), retry.New(retry.Config{Backoff: now}), fn); err != nil || time.Since(start) != time.Minute {
			t.Errorf("got %v after %v, want nil after 1m, the longest wait allowed", err, time.Since(start))
		}
	})
}

func TestRetryWaitDoesNotOverflow(t *testing.T) {
	both(t, func(t *testing.T, do doer) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		fn, _ := failing(9, resilience.WithRetryAfter(errBoom, math.MaxInt64))
		_, err := do(ctx, retry.New(retry.Config{MaxRetryAfter: math.MaxInt64, Backoff: retry.Constant(math.MaxInt64)}), fn)
		exhausted(t, err, retry.ReasonDeadline, 1)
	})
}

func TestRetrySpreadsRefusedCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		r := retry.New(retry.Config{RetryRefused: true, MaxElapsed: time.Minute})
		var mu sync.Mutex
		back := make(map[time.Duration]int)
		var group errgroup.Group
		for range 100 {
			group.Go(func() error {
				return resilience.Run(t.Context(), resilience.Pipeline{r, refuseFirst(1, refusal{5 * time.Second})}, func(context.Context) error {
					mu.Lock()
					defer mu.Unlock()
					back[time.Since(start)]++
					return nil
				})
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		for at, callers := range back {
			if at < 5*time.Second || callers > 2 {
				t.Errorf("%d callers returned after %v, want at most 2, not before 5s", callers, at)
			}
		}
	})
}

func TestRetryMaxElapsedCountsFromFirstFailure(t *testing.T) {
	both(t, func(t *testing.T, do doer) {
		n := 0
		r := retry.New(retry.Config{MaxAttempts: 9, MaxElapsed: 3 * time.Second, Backoff: retry.Constant(time.Second)})
		start := time.Now()
		_, err := do(t.Context(), r, func(context.Context) (int, error) {
			if n++; n == 1 {
				time.Sleep(time.Hour) // a slow first attempt doesn't reduce the retries
			}
			return 0, errBoom
		})
		e := exhausted(t, err, retry.ReasonElapsed, 4) // at 0, 1, 2, and 3 s
		if got := time.Since(start); got != time.Hour+3*time.Second || e.Elapsed != 3*time.Second {
			t.Errorf("gave up after %v with Elapsed %v, want 1h0m3s and 3s", got, e.Elapsed)
		}
	})
}

func TestRetryNeverSleepsPastDeadline(t *testing.T) {
	both(t, func(t *testing.T, do doer) {
		for limit, attempts := range map[time.Duration]int{time.Second: 1, 2 * time.Second: 1, 2*time.Second + 1: 2} {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			start := time.Now()
			fn, _ := failing(9, errBoom)
			_, err := do(ctx, retry.New(retry.Config{Backoff: retry.Constant(2 * time.Second)}), fn)
			e := exhausted(t, err, retry.ReasonDeadline, attempts)
			if got := time.Since(start); got != time.Duration(attempts-1)*2*time.Second {
				t.Errorf("limit %v: returned after %v, want no sleep past the deadline", limit, got)
			}
			if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errBoom) || !e.Timeout() {
				t.Errorf("got %v", err)
			}
			if attempts == 1 && err.Error() != "retry: gave up after 1 attempt, a wait of 2s would outlast the deadline: boom" {
				t.Errorf("got text %q", err)
			}
			cancel()
		}
	})
}

func TestRetryKeepsLastErrorWhenContextEndsWhileWaiting(t *testing.T) {
	both(t, func(t *testing.T, do doer) {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(errClosed) })
		start := time.Now()
		fn, _ := failing(9, errBoom)
		value, err := do(ctx, retry.New(retry.Config{Backoff: retry.Constant(time.Hour)}), fn)
		e := exhausted(t, err, retry.ReasonContext, 1)
		if time.Since(start) != time.Second || e.Elapsed != time.Second || value != 1 || e.Err != errBoom {
			t.Errorf("got %d, %+v after %v, want 1, errBoom after 1s", value, e, time.Since(start))
		}
		for _, want := range []error{errBoom, context.Canceled, errClosed} {
			if !errors.Is(err, want) {
				t.Errorf("got %v, want an error that is %v", err, want)
			}
		}
		if e.Timeout() {
			t.Error("Timeout is true for a cancellation")
		}
	})
}

func TestRetryMakesNoAttemptIfContextEndsAtWakeup(t *testing.T) {
	both(t, func(t *testing.T, do doer) {
		for range 50 {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			fn, calls := failing(9, errBoom)
			r := retry.New(retry.Config{Backoff: retry.Constant(time.Second), MaxAttempts: 2})
			_, err := do(ctx, r, fn)
			var e *retry.ExhaustedError
			if !errors.As(err, &e) && err != errBoom {
				t.Fatalf("got %v", err)
			}
			if e != nil && e.Reason == retry.ReasonContext && *calls != 1 {
				t.Fatalf("got %d calls, want none after the context's end", *calls)
			}
			cancel()
		}
	})
}

func TestRetryEndsWithoutWaitIfOnRetryEndsContext(t *testing.T) {
	both(t, func(t *testing.T, do doer) {
		ctx, cancel := context.WithCancel(t.Context())
		fn, calls := failing(9, errBoom)
		_, err := do(ctx, retry.New(retry.Config{Backoff: now, OnRetry: func(context.Context, retry.Event) { cancel() }}), fn)
		exhausted(t, err, retry.ReasonContext, 1)
		if *calls != 1 {
			t.Errorf("got %d calls, want 1", *calls)
		}
	})
}

func TestRetryCallsOnRetryForEveryRetry(t *testing.T) {
	both(t, func(t *testing.T, do doer) {
		var events []retry.Event
		fn, _ := failing(9, errBoom)
		r := retry.New(retry.Config{Name: "x", Backoff: retry.Linear(time.Second, time.Hour), OnRetry: func(_ context.Context, e retry.Event) { events = append(events, e) }})
		_, _ = do(t.Context(), r, fn)
		want := []retry.Event{{"x", 1, errBoom, time.Second, 0}, {"x", 2, errBoom, 2 * time.Second, time.Second}}
		if !slices.Equal(events, want) {
			t.Errorf("got events %v, want %v", events, want)
		}
	})
}

func TestRetryChecksSharedBudgetLast(t *testing.T) {
	both(t, func(t *testing.T, do doer) {
		b := budget.New(budget.Config{Ratio: 0.5})
		one := retry.New(retry.Config{Backoff: now, Budget: b})
		two := retry.New(retry.Config{Backoff: now, Budget: b})
		ok, _ := failing(0, nil)
		_, _ = do(t.Context(), one, ok)
		_, _ = do(t.Context(), two, ok)
		_, _ = do(t.Context(), two, ok) // the budget now holds one and a half tokens

		// None of these may take a token.
		for _, config := range []retry.Config{
			{MaxAttempts: 1},
			{RetryIf: func(error) bool { return false }},
			{Backoff: func() backoff.BackOff { return &backoff.StopBackOff{} }},
			{Backoff: retry.Constant(time.Hour), MaxElapsed: time.Second},
		} {
			config.Budget = b
			if config.Backoff == nil {
				config.Backoff = now
			}
			fn, _ := failing(9, errBoom)
			if _, err := do(t.Context(), retry.New(config), fn); err == nil {
				t.Fatal("no error")
			}
		}
		// 7 calls deposited 3.5 tokens.
		fn, _ := failing(9, errBoom)
		_, err := do(t.Context(), retry.New(retry.Config{Backoff: now, Budget: b, MaxAttempts: retry.Unlimited}), fn)
		e := exhausted(t, err, retry.ReasonBudget, 5) // 4 tokens with its own deposit
		if e.Error() != "retry: gave up after 5 attempts, the retry budget is empty: boom" {
			t.Errorf("got text %q", e)
		}
	})
}

func TestRetryConcurrentCallersNeverExceedBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := retry.New(retry.Config{Backoff: now, Budget: budget.New(budget.Config{Ratio: 0.1})})
		var calls atomic.Int64
		var group errgroup.Group
		for range 1000 {
			group.Go(func() error {
				_, err := retry.Do(t.Context(), r, func(context.Context) (int, error) { calls.Add(1); return 0, errBoom })
				if err == nil {
					return errors.New("no error")
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		if got := calls.Load(); got != 1100 {
			t.Errorf("got %d calls, want 1100", got)
		}
	})
}

func TestRetryDepositsOncePerCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(budget.Config{Ratio: 1})
		outer, inner := retry.New(retry.Config{MaxAttempts: 2, Backoff: now}), retry.New(retry.Config{MaxAttempts: 1, Budget: b})
		_ = resilience.Run(t.Context(), resilience.Pipeline{outer, inner}, func(context.Context) error { return errBoom })
		if !b.Withdraw() || b.Withdraw() {
			t.Error("want exactly one deposit for a call with two attempts")
		}
	})
}

func TestRetriesSharingBudgetDepositOncePerCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(budget.Config{Ratio: 1})
		outer, inner := retry.New(retry.Config{MaxAttempts: 1, Budget: b}), retry.New(retry.Config{MaxAttempts: 1, Budget: b})
		_ = resilience.Run(t.Context(), resilience.Pipeline{outer, inner}, func(context.Context) error { return nil })
		if !b.Withdraw() || b.Withdraw() {
			t.Error("want exactly one deposit for a call through two retries")
		}
	})
}

func TestRetryReturnsFirstRefusalUnchanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		err := resilience.Run(t.Context(), resilience.Pipeline{retry.New(retry.Config{}), resilience.PolicyFunc(refuse)}, func(context.Context) error { return nil })
		if err != error(refusal{}) {
			t.Errorf("got %v", err)
		}
	})
}

func TestRetryKeepsLastErrorOnRefusalAfterAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := retry.New(retry.Config{MaxAttempts: 9})
		err := resilience.Run(t.Context(), resilience.Pipeline{r, refuseFrom(2, refusal{})}, func(context.Context) error { return errBoom })
		e := exhausted(t, err, retry.ReasonRefused, 2)
		if e.Err != errBoom || !errors.Is(err, errBoom) || !errors.Is(err, resilience.ErrRefused) {
			t.Errorf("got %v", err)
		}
		if got, want := err.Error(), "retry: gave up after 2 attempts, then refused (breaker payments: open): boom"; got != want {
			t.Errorf("got text %q, want %q", got, want)
		}
	})
}

func TestRetryForgetsRefusalThatWasWaitedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := retry.New(retry.Config{RetryRefused: true, MaxElapsed: time.Hour, MaxAttempts: 2})
		n := 0
		second := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			if n++; n == 2 {
				return refusal{}
			}
			return next.Run(ctx)
		})
		err := resilience.Run(t.Context(), resilience.Pipeline{r, second}, func(context.Context) error { return errBoom })
		exhausted(t, err, retry.ReasonAttempts, 2)
		if errors.Is(err, resilience.ErrRefused) {
			t.Errorf("got %v, which contains a refusal that did not end the call", err)
		}
	})
}

func TestRetryReportsContextOnRefusalAfterContextEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		n := 0
		stop := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			if n++; n == 2 {
				cancel(errClosed)
				return refusal{}
			}
			return next.Run(ctx)
		})
		err := resilience.Run(ctx, resilience.Pipeline{retry.New(retry.Config{}), stop}, func(context.Context) error { return errBoom })
		if e := exhausted(t, err, retry.ReasonContext, 1); e.Err != errBoom || !errors.Is(err, errClosed) || !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

func TestRetryTreatsEffectorsOwnRefusalAsFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		err := resilience.Run(t.Context(), retry.New(retry.Config{}), func(context.Context) error {
			if n++; n < 3 {
				return fmt.Errorf("my own dependency: %w", refusal{})
			}
			return nil
		})
		if err != nil || n != 3 {
			t.Errorf("got %v after %d calls, want nil after 3", err, n)
		}
	})
}

func TestRetryRefusedWaitsAndCountsNoAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(budget.Config{Ratio: 1, TTL: time.Hour})
		var events []retry.Event
		r := retry.New(retry.Config{RetryRefused: true, MaxElapsed: time.Hour, MaxAttempts: 2, Backoff: retry.Constant(time.Second), Budget: b,
			OnRetry: func(_ context.Context, e retry.Event) { events = append(events, e) }})
		n, calls := 0, 0
		policy := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			n++
			if n <= 3 || n >= 5 && n <= 7 { // three before each attempt
				return refusal{4 * time.Second}
			}
			return next.Run(ctx)
		})
		start := time.Now()
		err := resilience.Run(t.Context(), resilience.Pipeline{r, policy}, func(ctx context.Context) error {
			if calls++; retry.Attempt(ctx) != calls {
				t.Errorf("attempt %d: Attempt returned %d", calls, retry.Attempt(ctx))
			}
			if calls == 1 {
				return errBoom
			}
			return nil
		})
		if err != nil || calls != 2 || time.Since(start) != 31*time.Second {
			t.Errorf("got %v after %d calls and %v, want nil after 2 and 31s", err, calls, time.Since(start))
		}
		var attempts []int
		for _, e := range events {
			attempts = append(attempts, e.Attempt)
		}
		if !slices.Equal(attempts, []int{1, 1, 1, 1, 2, 2, 2}) {
			t.Errorf("got events of the attempts %v, want 1 1 1 1 2 2 2", attempts)
		}
		if b.Withdraw() {
			t.Error("the budget has a token left, want it taken by the second attempt")
		}
	})
}

func TestRetryRefusedEndsAtMaxElapsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := retry.New(retry.Config{RetryRefused: true, MaxElapsed: 5 * time.Second, MaxAttempts: 9, Backoff: retry.Constant(2 * time.Second)})
		err := resilience.Run(t.Context(), resilience.Pipeline{r, resilience.PolicyFunc(refuse)}, func(context.Context) error { return nil })
		if e := exhausted(t, err, retry.ReasonElapsed, 0); e.Err != error(refusal{}) {
			t.Errorf("got %v", err)
		}
		err = resilience.Run(t.Context(), resilience.Pipeline{r, refuseFrom(1, refusal{})}, func(context.Context) error { return errBoom })
		if e := exhausted(t, err, retry.ReasonElapsed, 1); e.Err != errBoom || !errors.Is(err, resilience.ErrRefused) {
			t.Errorf("got %v", err)
		}
	})
}

func TestRetryRefusedNeverBusyLoops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := retry.New(retry.Config{RetryRefused: true, MaxElapsed: 50 * time.Millisecond, Backoff: now})
		runs := 0
		err := resilience.Run(t.Context(), resilience.Pipeline{r, resilience.PolicyFunc(func(context.Context, resilience.Next) error {
			runs++
			return refusal{}
		})}, func(context.Context) error { return nil })
		exhausted(t, err, retry.ReasonElapsed, 0)
		if runs > 60 {
			t.Errorf("got %d runs in 50 ms, want at most 60", runs)
		}
	})
}

func TestRetryRefusedHonorsPermanentAndRetryIf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := retry.Config{RetryRefused: true, MaxElapsed: time.Hour}
		err := resilience.Run(t.Context(), resilience.Pipeline{retry.New(config), refuseFrom(0, retry.Permanent(refusal{}))}, func(context.Context) error { return nil })
		if err != error(refusal{}) {
			t.Errorf("got %v", err)
		}
		config.RetryIf = func(err error) bool { return !errors.Is(err, resilience.ErrRefused) }
		err = resilience.Run(t.Context(), resilience.Pipeline{retry.New(config), refuseFrom(1, refusal{})}, func(context.Context) error { return errBoom })
		exhausted(t, err, retry.ReasonRefused, 1)
	})
}

func TestRetryNeverRepeatsAtMostOnceCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, test := range []struct {
			err   error
			calls int
		}{
			{errBoom, 1},
			{retry.Permanent(errBoom), 1},
			// It may have had an effect before the refusal.
			{fmt.Errorf("my own dependency: %w", resilience.ErrRefused), 1},
			{fmt.Errorf("write: %w", resilience.NotMade(errBoom)), 1},
			{resilience.NotMade(errBoom), 3},
		} {
			n := 0
			err := resilience.Run(t.Context(), resilience.Pipeline{resilience.AtMostOnce, retry.New(retry.Config{Backoff: now})}, func(context.Context) error {
				n++
				return test.err
			})
			if n != test.calls || !errors.Is(err, errBoom) && !errors.Is(err, resilience.ErrRefused) {
				t.Errorf("%v: got %v after %d calls, want %d", test.err, err, n, test.calls)
			}
			var e *retry.ExhaustedError
			if n == 1 && errors.As(err, &e) {
				t.Errorf("%v: got %v, want it unchanged", test.err, err)
			}
		}
	})
}

func TestAttemptReturnsNumberOfNearestRetry(t *testing.T) {
	both(t, func(t *testing.T, do doer) {
		var seen []int
		inner := retry.New(retry.Config{MaxAttempts: 2, Backoff: now})
		outer := retry.New(retry.Config{MaxAttempts: 2, Backoff: now})
		_, _ = do(t.Context(), outer, func(ctx context.Context) (int, error) {
			seen = append(seen, retry.Attempt(ctx)*10)
			return do(ctx, inner, func(ctx context.Context) (int, error) {
				seen = append(seen, retry.Attempt(ctx))
				return 0, errBoom
			})
		})
		if !slices.Equal(seen, []int{10, 1, 2, 20, 1, 2}) {
			t.Errorf("got %v", seen)
		}
		if got := retry.Attempt(t.Context()); got != 1 {
			t.Errorf("got %d outside any retry, want 1", got)
		}
	})
}

func TestRetryDropsValueBeforeWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		type drop struct {
			value int
			at    time.Duration
		}
		var drops []drop
		fn, _ := failing(2, errBoom)
		value, err := resilience.Do(t.Context(), resilience.Pipeline{
			resilience.Discard(func(v int) { drops = append(drops, drop{v, time.Since(start)}) }),
			retry.New(retry.Config{Backoff: retry.Constant(time.Second)}),
		}, fn)
		if value != 3 || err != nil || !slices.Equal(drops, []drop{{1, 0}, {2, time.Second}}) {
			t.Errorf("got %d, %v, dropped %v, want 3, nil, each failed value dropped at its failure", value, err, drops)
		}
	})
}

func TestRetryPassesPanicAndGoexit(t *testing.T) {
	both(t, func(t *testing.T, do doer) {
		n := 0
		func() {
			defer func() {
				if got := recover(); got != io.EOF {
					t.Errorf("recovered %v, want io.EOF", got)
				}
			}()
			_, _ = do(t.Context(), retry.New(retry.Config{Backoff: now}), func(context.Context) (int, error) {
				if n++; n == 1 {
					return 0, errBoom
				}
				panic(io.EOF)
			})
		}()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = do(t.Context(), retry.New(retry.Config{}), func(context.Context) (int, error) { n++; runtime.Goexit(); return 0, nil })
			t.Error("the call returned, want Goexit")
		}()
		<-done
		if n != 3 {
			t.Errorf("got %d calls, want 3", n)
		}
	})
}

func TestRetryFirstSuccessAllocatesNothing(t *testing.T) {
	r := retry.New(retry.Config{})
	ctx := t.Context()
	fn := func(context.Context) (int, error) { return 1, nil }
	if got := testing.AllocsPerRun(1000, func() { _, _ = retry.Do(ctx, r, fn) }); got != 0 {
		t.Errorf("got %v allocations, want 0", got)
	}
}

func TestRetryServesConcurrentCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := retry.New(retry.Config{Backoff: retry.Decorrelated(time.Second, time.Minute), MaxAttempts: 5})
		var group errgroup.Group
		for range 100 {
			group.Go(func() error {
				fn, calls := failing(4, errBoom)
				value, err := resilience.Do(t.Context(), r, fn)
				if value != 5 || *calls != 5 {
					return fmt.Errorf("got %d after %d calls: %w", value, *calls, err)
				}
				return err
			})
		}
		if err := group.Wait(); err != nil {
			t.Error(err)
		}
	})
}

func TestRetryDepositsNothingForRefusedCall(t *testing.T) {
	extra := budget.New(budget.Config{Ratio: 1})
	refuse := resilience.PolicyFunc(func(context.Context, resilience.Next) error { return resilience.ErrRefused })
	retries := retry.New(retry.Config{Budget: extra})
	fine := func(context.Context) error { return nil }
	resilience.Run(t.Context(), resilience.Pipeline{retries, refuse}, fine)
	if extra.Withdraw() {
		t.Error("a refused call deposited into the budget")
	}
	resilience.Run(t.Context(), retries, fine)
	if !extra.Withdraw() || extra.Withdraw() {
		t.Error("want exactly one deposit for a call that was made")
	}
}

// An outer policy has started the effector on a fork, so the call that is refused here may have
// been made.
func TestRetryRefusedNeverWaitsForUnrepeatableCall(t *testing.T) {
	calls, refuse := 0, true
	pipeline := resilience.Pipeline{
		resilience.AtMostOnce,
		resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			one, other := next.Fork(), next.Fork()
			one.Run(ctx)
			return other.Run(ctx)
		}),
		retry.New(retry.Config{RetryRefused: true, MaxElapsed: time.Second, Backoff: retry.Constant(0)}),
		resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			if calls > 0 && refuse {
				refuse = false
				return resilience.ErrRefused
			}
			return next.Run(ctx)
		}),
	}
	resilience.Run(t.Context(), pipeline, func(context.Context) error { calls++; return errors.New("x") })
	if calls != 1 {
		t.Errorf("the effector ran %d times, want once", calls)
	}
}

type timeoutError bool

func (timeoutError) Error() string   { return "timeout or not" }
func (t timeoutError) Timeout() bool { return bool(t) }

func TestExhaustedErrorTimeoutSearchesJoinedErrors(t *testing.T) {
	for _, want := range []bool{true, false} {
		_, err := retry.Do(t.Context(), retry.New(retry.Config{MaxAttempts: 1}), func(context.Context) (int, error) {
			return 0, fmt.Errorf("joined: %w", errors.Join(timeoutError(false), timeoutError(want)))
		})
		var exhausted *retry.ExhaustedError
		if !errors.As(err, &exhausted) || exhausted.Timeout() != want {
			t.Errorf("%v: Timeout is not %v", err, want)
		}
	}
}

func TestRetryDoPanicsOnNilRetry(t *testing.T) {
	defer func() {
		if text, _ := recover().(string); !strings.Contains(text, "r is nil") {
			t.Errorf("panicked with %q, want a text that contains \"r is nil\"", text)
		}
	}()
	retry.Do(t.Context(), nil, func(context.Context) (int, error) { return 0, nil })
}

// A call that panics was made, so it deposits like any other.
func TestRetryDepositsForCallThatPanics(t *testing.T) {
	b := budget.New(budget.Config{Ratio: 1})
	r := retry.New(retry.Config{Budget: b})
	boom := func(context.Context) (int, error) { panic("boom") }
	for name, call := range map[string]func(){
		"Do":  func() { retry.Do(t.Context(), r, boom) },
		"Run": func() { resilience.Compose(boom, r)(t.Context()) },
	} {
		func() {
			defer func() { recover() }()
			call()
		}()
		if !b.Withdraw() || b.Withdraw() {
			t.Errorf("%s: want exactly one deposit for a call that panicked", name)
		}
	}
}
