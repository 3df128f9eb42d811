package resilience_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

func down(context.Context) error { return errDown }

func waitForCtx(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// TestErrorTexts holds the text of every kind of error that a call may end with, as it appears in a
// log.
func TestErrorTexts(t *testing.T) {
	run := func(ctx context.Context, effector func(context.Context) error, policies ...resilience.Policy) error {
		return resilience.Run(ctx, resilience.Pipeline(policies), effector)
	}
	second := retry.Constant(time.Second)
	open := func(name string) *breaker.Breaker {
		b := breaker.New(breaker.Config{Name: name, Consecutive: 1, OpenFor: 4200 * time.Millisecond})
		_ = resilience.Run(context.Background(), b, down)
		return b
	}
	for _, c := range []struct {
		name string
		call func(ctx context.Context) error
		want string
		is   []error
	}{
		{"dead ctx", func(ctx context.Context) error {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			return run(ctx, down)
		}, "context canceled", []error{context.Canceled}},
		{"dead ctx with a cause", func(ctx context.Context) error {
			ctx, cancel := context.WithCancelCause(ctx)
			cancel(errCause)
			return run(ctx, down)
		}, "context canceled: shutting down", []error{context.Canceled, errCause}},
		{"refused", func(context.Context) error { return resilience.ErrRefused },
			"resilience: refused", []error{resilience.ErrRefused}},
		{"with a RetryAfter", func(context.Context) error { return resilience.WithRetryAfter(errDown, time.Second) },
			"down", []error{errDown}},
		{"not made", func(context.Context) error { return resilience.NotMade(errDown) }, "down", []error{errDown}},

		{"breaker, open", func(ctx context.Context) error { return run(ctx, down, open("payments")) },
			"breaker payments: open, retry in 4.2s", []error{breaker.ErrOpen, resilience.ErrRefused}},
		{"breaker, open, without a name", func(ctx context.Context) error { return run(ctx, down, open("")) },
			"breaker: open, retry in 4.2s", []error{breaker.ErrOpen, resilience.ErrRefused}},
		{"breaker, half-open", func(ctx context.Context) error {
			b := breaker.New(breaker.Config{})
			b.HalfOpen()
			permit, err := b.Acquire(ctx)
			if err != nil {
				return err
			}
			defer permit.Cancel()
			return run(ctx, down, b)
		}, "breaker: half-open, probing", []error{breaker.ErrOpen, resilience.ErrRefused}},
		{"breaker, forced open", func(ctx context.Context) error {
			b := breaker.New(breaker.Config{Name: "payments"})
			b.ForceOpen()
			return run(ctx, down, b)
		}, "breaker payments: forced open", []error{breaker.ErrOpen, resilience.ErrRefused}},

		{"timeout", func(ctx context.Context) error { return run(ctx, waitForCtx, timeout.After(time.Second)) },
			"timeout: limit of 1s passed", []error{timeout.ErrTimeout, context.DeadlineExceeded}},
		{"timeout, named, of an effector with an error of its own", func(ctx context.Context) error {
			return run(ctx, func(ctx context.Context) error { <-ctx.Done(); return errDown },
				timeout.New(timeout.Config{Name: "users", Limit: 1500 * time.Millisecond}))
		}, "timeout users: limit of 1.5s passed: down", []error{timeout.ErrTimeout, context.DeadlineExceeded, errDown}},
		{"timeout, too many abandoned", func(ctx context.Context) error {
			limit := timeout.New(timeout.Config{Name: "users", Limit: time.Second, Abandon: 1})
			_ = run(ctx, func(context.Context) error { time.Sleep(time.Minute); return nil }, limit)
			return run(ctx, down, limit)
		}, "timeout users: 1 abandoned call still running", []error{resilience.ErrRefused}},

		{"retry, permanent", func(ctx context.Context) error {
			return run(ctx, func(context.Context) error { return retry.Permanent(errDown) }, retry.New(retry.Config{}))
		}, "down", []error{errDown}},
		{"retry, attempts", func(ctx context.Context) error {
			return run(ctx, down, retry.New(retry.Config{Name: "users"}))
		}, "retry users: gave up after 3 attempts: down", []error{errDown}},
		{"retry, elapsed time", func(ctx context.Context) error {
			return run(ctx, down, retry.New(retry.Config{MaxAttempts: retry.Unlimited, MaxElapsed: 2500 * time.Millisecond, Backoff: second}))
		}, "retry: gave up after 3 attempts and 2s, a wait of 1s would be too long: down", []error{errDown}},
		{"retry, deadline", func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, 1500*time.Millisecond)
			defer cancel()
			return run(ctx, down, retry.New(retry.Config{Backoff: second}))
		}, "retry: gave up after 2 attempts, a wait of 1s would outlast the deadline: down", []error{errDown, context.DeadlineExceeded}},
		{"retry, RetryAfter", func(ctx context.Context) error {
			return run(ctx, func(context.Context) error { return resilience.WithRetryAfter(errDown, time.Hour) }, retry.New(retry.Config{}))
		}, "retry: gave up after 1 attempt, asked to wait 1h0m0s, which is too long: down", []error{errDown}},
		{"retry, budget", func(ctx context.Context) error {
			return run(ctx, down, retry.New(retry.Config{Budget: budget.New(budget.Config{Ratio: 0.1})}))
		}, "retry: gave up after 1 attempt, the retry budget is empty: down", []error{errDown}},
		{"retry, schedule", func(ctx context.Context) error {
			stop := func() backoff.BackOff { return &backoff.StopBackOff{} }
			return run(ctx, down, retry.New(retry.Config{Backoff: stop}))
		}, "retry: gave up after 1 attempt, the schedule stopped: down", []error{errDown}},
		{"retry, refused", func(ctx context.Context) error {
			b := breaker.New(breaker.Config{Name: "payments", Consecutive: 1})
			return run(ctx, down, retry.New(retry.Config{Name: "users", Backoff: second}), b)
		}, "retry users: gave up after 1 attempt, then refused (breaker payments: open, retry in 4s): down",
			[]error{errDown, breaker.ErrOpen, resilience.ErrRefused}},
		{"retry, ctx ended while waiting", func(ctx context.Context) error {
			ctx, cancel := context.WithCancelCause(ctx)
			time.AfterFunc(500*time.Millisecond, func() { cancel(errCause) })
			return run(ctx, down, retry.New(retry.Config{Backoff: second}))
		}, "retry: gave up after 1 attempt, context canceled: shutting down while waiting: down",
			[]error{errDown, context.Canceled, errCause}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				defer time.Sleep(time.Hour) // lets an abandoned effector end
				err := c.call(t.Context())
				if err == nil {
					t.Fatal("no error")
				}
				t.Log(err)
				if err.Error() != c.want {
					t.Errorf("got  %q\nwant %q", err, c.want)
				}
				for _, target := range c.is {
					if !errors.Is(err, target) {
						t.Errorf("%q does not match %q", err, target)
					}
				}
			})
		})
	}
}
