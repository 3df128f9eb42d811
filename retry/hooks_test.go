package retry_test

import (
	"cmp"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/retry"
)

type requestKey struct{}

// refuseLate admits the first run and refuses the second one when the context ends.
func refuseLate() resilience.Policy {
	runs := 0
	return resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		if runs++; runs == 1 {
			return next.Run(ctx)
		}
		<-ctx.Done()
		return refusal{}
	})
}

func TestRetryCallsHooksWithContextOfPolicy(t *testing.T) {
	both(t, func(t *testing.T, do doer) {
		ctx := context.WithValue(t.Context(), requestKey{}, "r1")
		calls := 0
		check := func(got context.Context) {
			calls++
			if got != ctx {
				t.Errorf("got context %v, want %v", got, ctx)
			}
		}
		fn, _ := failing(9, errBoom)
		do(ctx, retry.New(retry.Config{
			OnRetry:  func(ctx context.Context, _ retry.Event) { check(ctx) },
			OnGiveUp: func(ctx context.Context, _ *retry.ExhaustedError) { check(ctx) },
		}), fn)
		if calls != 3 {
			t.Errorf("got %d calls of hooks, want 3", calls)
		}
	})
}

func TestRetryCallsOnRetryBeforeWaitWithDelay(t *testing.T) {
	both(t, func(t *testing.T, do doer) {
		began := time.Now()
		fn, _ := failing(1, resilience.WithRetryAfter(errBoom, 2*time.Second))
		r := retry.New(retry.Config{Backoff: retry.Constant(time.Second), OnRetry: func(_ context.Context, e retry.Event) {
			if time.Since(began) != 0 || e.Delay != 3*time.Second {
				t.Errorf("OnRetry was called after %v with Delay %v, want 0s and 3s", time.Since(began), e.Delay)
			}
		}})
		if _, err := do(t.Context(), r, fn); err != nil || time.Since(began) != 3*time.Second {
			t.Errorf("got %v after %v, want nil after 3s", err, time.Since(began))
		}
	})
}

func TestRetryStartsNothingIfContextEndsDuringOnRetry(t *testing.T) {
	both(t, func(t *testing.T, do doer) {
		for _, delay := range []time.Duration{0, time.Second} {
			ctx, cancel := context.WithCancelCause(t.Context())
			fn, calls := failing(9, errBoom)
			began := time.Now()
			_, err := do(ctx, retry.New(retry.Config{Backoff: retry.Constant(delay), OnRetry: func(context.Context, retry.Event) {
				time.Sleep(time.Minute) // longer than the delay
				cancel(errClosed)
			}}), fn)
			exhausted(t, err, retry.ReasonContext, 1)
			if *calls != 1 || !errors.Is(err, errClosed) || time.Since(began) != time.Minute {
				t.Errorf("got %v after %v and %d attempts, want %v after 1m and 1", err, time.Since(began), *calls, errClosed)
			}
		}
	})
}

// TestRetryCallsOnGiveUpOnceWithReturnedError covers every reason, and every kind of error that
// isn't an ExhaustedError of this policy.
func TestRetryCallsOnGiveUpOnceWithReturnedError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		permanent, inner := retry.Permanent(errBoom), &retry.ExhaustedError{Name: "inner", Err: errBoom}
		for name, c := range map[string]struct {
			config retry.Config
			err    error
			inner  resilience.Policy
			limit  time.Duration // of the context
			reason retry.Reason  // 0: OnGiveUp isn't called
		}{
			"attempts":    {err: errBoom, reason: retry.ReasonAttempts},
			"elapsed":     {config: retry.Config{MaxElapsed: 1, Backoff: retry.Constant(time.Second)}, err: errBoom, reason: retry.ReasonElapsed},
			"deadline":    {config: retry.Config{Backoff: retry.Constant(time.Second)}, err: errBoom, limit: time.Second, reason: retry.ReasonDeadline},
			"retry-after": {config: retry.Config{MaxRetryAfter: time.Second}, err: afterTwoSeconds(errBoom), reason: retry.ReasonRetryAfter},
			"budget":      {config: retry.Config{Budget: budget.New(budget.Config{Ratio: 0.1})}, err: errBoom, reason: retry.ReasonBudget},
			"schedule":    {config: retry.Config{Backoff: stopped}, err: errBoom, reason: retry.ReasonSchedule},
			"refused":     {err: errBoom, inner: refuseFrom(1, refusal{}), reason: retry.ReasonRefused},
			"context": {config: retry.Config{OnRetry: func(context.Context, retry.Event) { time.Sleep(time.Minute) }},
				err: errBoom, limit: time.Second, reason: retry.ReasonContext},
			"refused after the context ended": {err: errBoom, limit: time.Second, inner: refuseLate(), reason: retry.ReasonContext,
				config: retry.Config{Backoff: now}},

			"success":              {},
			"first refusal":        {inner: refuseFrom(0, refusal{})},
			"permanent":            {err: permanent},
			"rejected":             {config: retry.Config{RetryIf: func(error) bool { return false }}, err: errBoom},
			"NotFailure":           {err: resilience.NotFailure(errBoom)},
			"another policy's own": {config: retry.Config{RetryIf: func(error) bool { return false }}, err: inner},
		} {
			ctx, cancel := context.WithTimeout(t.Context(), cmp.Or(c.limit, time.Hour))
			defer cancel()
			var got []*retry.ExhaustedError
			c.config.OnGiveUp = func(_ context.Context, err *retry.ExhaustedError) { got = append(got, err) }
			policies := resilience.Pipeline{retry.New(c.config)}
			if c.inner != nil {
				policies = append(policies, c.inner)
			}
			err := resilience.Run(ctx, policies, func(context.Context) error { return c.err })
			switch {
			case c.reason == 0 && len(got) != 0:
				t.Errorf("%s: OnGiveUp was called with %v, want no call", name, got)
			case c.reason != 0 && (len(got) != 1 || error(got[0]) != err || got[0].Reason != c.reason):
				t.Errorf("%s: OnGiveUp was called with %v, want one call with %v for reason %q", name, got, err, c.reason)
			}
		}
	})
}

// stopped returns a schedule that has stopped.
func stopped() backoff.BackOff { return &backoff.StopBackOff{} }
