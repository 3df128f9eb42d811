package retry_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/retry"
)

// lasting returns a function whose attempts last for the given times and fail, and then one that
// succeeds at once. It records the number of each attempt.
func lasting(times ...time.Duration) (fn func(context.Context) (int, error), attempts *[]int) {
	attempts = new([]int)
	return func(ctx context.Context) (int, error) {
		n := len(*attempts)
		*attempts = append(*attempts, retry.Attempt(ctx))
		if n == len(times) {
			return n, nil
		}
		time.Sleep(times[n])
		return n, errBoom
	}, attempts
}

// TestRetryResetAfterStartsScheduleOver: a stream that was connected for an hour is connected again
// after the first delay.
func TestRetryResetAfterStartsScheduleOver(t *testing.T) {
	both(t, func(t *testing.T, do doer) {
		schedules, resets := 0, 0
		var delays []time.Duration
		r := retry.New(retry.Config{
			MaxAttempts: retry.Unlimited,
			ResetAfter:  time.Minute,
			Backoff: func() backoff.BackOff {
				schedules++
				return countedResets{retry.Exponential(time.Second, time.Hour)(), &resets}
			},
			OnRetry: func(_ context.Context, e retry.Event) { delays = append(delays, e.Delay) },
		})
		fn, _ := lasting(0, 0, time.Minute-1, time.Minute, 0, time.Hour, 0)
		_, err := do(t.Context(), r, fn)
		want := []time.Duration{1, 2, 4, 1, 2, 1, 2}
		for i := range want {
			want[i] *= time.Second
		}
		if err != nil || !slices.Equal(delays, want) {
			t.Errorf("got %v with delays %v, want %v", err, delays, want)
		}
		if schedules != 1 || resets != 3 {
			t.Errorf("got %d schedules and %d resets, want 1 and 3", schedules, resets)
		}
	})
}

type countedResets struct {
	backoff.BackOff
	resets *int
}

func (c countedResets) Reset() { *c.resets++; c.BackOff.Reset() }

func TestRetryResetAfterStartsAttemptsOver(t *testing.T) {
	both(t, func(t *testing.T, do doer) {
		var events []int
		config := retry.Config{MaxAttempts: 3, ResetAfter: time.Minute, Backoff: now,
			OnRetry: func(_ context.Context, e retry.Event) { events = append(events, e.Attempt) }}
		fn, attempts := lasting(0, 0, time.Minute, 0, time.Minute, 0, 0, 0)
		_, err := do(t.Context(), retry.New(config), fn)
		exhausted(t, err, retry.ReasonAttempts, 3)
		if want := []int{1, 2, 3, 2, 3, 2, 3}; !slices.Equal(*attempts, want) {
			t.Errorf("got attempts %v, want %v", *attempts, want)
		}
		if want := []int{1, 2, 1, 2, 1, 2}; !slices.Equal(events, want) {
			t.Errorf("got events of attempts %v, want %v", events, want)
		}
		config.MaxAttempts = 1
		fn, _ = lasting(time.Hour)
		_, err = do(t.Context(), retry.New(config), fn)
		exhausted(t, err, retry.ReasonAttempts, 1)
	})
}

func TestRetryResetAfterStartsMaxElapsedOver(t *testing.T) {
	both(t, func(t *testing.T, do doer) {
		config := retry.Config{MaxAttempts: retry.Unlimited, MaxElapsed: 3 * time.Second, Backoff: retry.Constant(time.Second)}
		times := []time.Duration{0, 0, 0, time.Minute, 0, 0, time.Minute, 0, 0, 0, 0}
		fn, _ := lasting(times...)
		_, err := do(t.Context(), retry.New(config), fn)
		if e := exhausted(t, err, retry.ReasonElapsed, 4); e.Elapsed != time.Minute+3*time.Second {
			t.Errorf("without ResetAfter: got Elapsed %v, want 1m3s", e.Elapsed)
		}
		config.ResetAfter = time.Minute
		fn, attempts := lasting(times...)
		_, err = do(t.Context(), retry.New(config), fn)
		if e := exhausted(t, err, retry.ReasonElapsed, 4); e.Elapsed != 3*time.Second || len(*attempts) != 10 {
			t.Errorf("got Elapsed %v after %d attempts, want 3s after 10", e.Elapsed, len(*attempts))
		}
	})
}

func TestRetryResetAfterContinuesBudget(t *testing.T) {
	both(t, func(t *testing.T, do doer) {
		b := budget.New(budget.Config{Ratio: 2, TTL: 8760 * time.Hour})
		fn, _ := lasting(time.Hour, time.Hour, time.Hour)
		_, err := do(t.Context(), retry.New(retry.Config{ResetAfter: time.Minute, Budget: b}), fn)
		exhausted(t, err, retry.ReasonBudget, 1)
	})
}

func TestRetryResetAfterCountsOnlyMadeAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runs := 0
		inner := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			if runs++; runs == 3 {
				time.Sleep(time.Hour) // a long queue
				return refusal{}
			}
			return next.Run(ctx)
		})
		fn, attempts := lasting(0, 0, 0)
		_, err := resilience.Do(t.Context(), resilience.Pipeline{
			retry.New(retry.Config{ResetAfter: time.Minute, RetryRefused: true, MaxElapsed: 9 * time.Hour}), inner}, fn)
		exhausted(t, err, retry.ReasonAttempts, 3)
		if want := []int{1, 2, 3}; !slices.Equal(*attempts, want) {
			t.Errorf("got attempts %v, want %v", *attempts, want)
		}
	})
}

func TestRetryResetAfterIsOffByDefault(t *testing.T) {
	both(t, func(t *testing.T, do doer) {
		fn, attempts := lasting(time.Hour, time.Hour, time.Hour)
		_, err := do(t.Context(), retry.New(retry.Config{}), fn)
		exhausted(t, err, retry.ReasonAttempts, 3)
		if want := []int{1, 2, 3}; !slices.Equal(*attempts, want) {
			t.Errorf("got attempts %v, want %v", *attempts, want)
		}
	})
}

func TestRetryResetAfterStopsOnErrorsThatStop(t *testing.T) {
	both(t, func(t *testing.T, do doer) {
		for _, mark := range []func(error) error{resilience.NotFailure, resilience.CallerFault, retry.Permanent} {
			calls := 0
			_, err := do(t.Context(), retry.New(retry.Config{ResetAfter: time.Minute}), func(context.Context) (int, error) {
				calls++
				time.Sleep(time.Hour)
				return 0, mark(errBoom)
			})
			if !errors.Is(err, errBoom) || calls != 1 {
				t.Errorf("got %v after %d attempts, want %v after 1", err, calls, errBoom)
			}
		}
	})
}
