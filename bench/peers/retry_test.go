package peers

import (
	"context"
	"testing"
	"time"

	"github.com/avast/retry-go/v4"
	backoffv4 "github.com/cenkalti/backoff/v4"
	backoffv5 "github.com/cenkalti/backoff/v5"
	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
	sethvargo "github.com/sethvargo/go-retry"

	ours "github.com/effector-go/resilience/retry"
)

const attempts = 3 // at most, the first included

// retrying returns the retries with their usual backoff: exponential, and with jitter if that is
// the default. The schedules of backoff v4 and sethvargo have state, so each call creates one.
func retrying(fn effector) []side {
	call := func() (int, error) { return fn(ctx) }
	policy := ours.New(ours.Config{MaxAttempts: attempts})
	executor := failsafe.With(retrypolicy.NewBuilder[int]().
		WithMaxAttempts(attempts).WithBackoff(100*time.Millisecond, 10*time.Second).WithJitterFactor(0.5).Build())
	avast := []retry.Option{retry.Context(ctx), retry.Attempts(attempts), retry.LastErrorOnly(true)}
	tries := backoffv5.WithMaxTries(attempts)
	return []side{
		{"ours", func() error { _, err := ours.Do(ctx, policy, fn); return err }},
		{"backoff-v4", func() error {
			schedule := backoffv4.WithMaxRetries(backoffv4.NewExponentialBackOff(), attempts-1)
			_, err := backoffv4.RetryWithData(call, backoffv4.WithContext(schedule, ctx))
			return err
		}},
		{"backoff-v5", func() error { _, err := backoffv5.Retry(ctx, call, tries); return err }},
		{"avast", func() error { _, err := retry.DoWithData(call, avast...); return err }},
		{"sethvargo", func() error {
			schedule := sethvargo.WithMaxRetries(attempts-1, sethvargo.NewExponential(100*time.Millisecond))
			_, err := sethvargo.DoValue(ctx, schedule, fn)
			return err
		}},
		{"failsafe", func() error { _, err := executor.Get(call); return err }},
	}
}

// retryingWithoutWait returns retries without waits, around an effector that fails twice and then
// succeeds. It calls made each time.
func retryingWithoutWait(made func()) []side {
	twice := func() func() (int, error) {
		n := 0
		return func() (int, error) {
			made()
			if n++; n < attempts {
				return 0, errBoom
			}
			return 1, nil
		}
	}
	policy := ours.New(ours.Config{MaxAttempts: attempts, Backoff: ours.Constant(0)})
	executor := failsafe.With(retrypolicy.NewBuilder[int]().WithMaxAttempts(attempts).Build())
	avast := []retry.Option{retry.Context(ctx), retry.Attempts(attempts), retry.LastErrorOnly(true),
		retry.Delay(0), retry.DelayType(retry.FixedDelay)}
	options := []backoffv5.RetryOption{backoffv5.WithBackOff(&backoffv5.ZeroBackOff{}), backoffv5.WithMaxTries(attempts)}
	return []side{
		{"ours", func() error {
			call := twice()
			_, err := ours.Do(ctx, policy, func(context.Context) (int, error) { return call() })
			return err
		}},
		{"backoff-v4", func() error {
			schedule := backoffv4.WithContext(backoffv4.WithMaxRetries(&backoffv4.ZeroBackOff{}, attempts-1), ctx)
			_, err := backoffv4.RetryWithData(twice(), schedule)
			return err
		}},
		{"backoff-v5", func() error { _, err := backoffv5.Retry(ctx, twice(), options...); return err }},
		{"avast", func() error { _, err := retry.DoWithData(twice(), avast...); return err }},
		{"sethvargo", func() error {
			call := twice()
			schedule := sethvargo.WithMaxRetries(attempts-1, sethvargo.BackoffFunc(func() (time.Duration, bool) { return 0, false }))
			_, err := sethvargo.DoValue(ctx, schedule, func(context.Context) (int, error) {
				v, err := call()
				return v, sethvargo.RetryableError(err)
			})
			return err
		}},
		{"failsafe", func() error { _, err := executor.Get(twice()); return err }},
	}
}

// BenchmarkRetry is a call that succeeds at the first attempt.
func BenchmarkRetry(b *testing.B) { run(b, retrying(succeed)) }

// BenchmarkRetryTwice is a call that fails twice and then succeeds, without waits.
func BenchmarkRetryTwice(b *testing.B) { run(b, retryingWithoutWait(func() {})) }
