package behavior

import (
	"context"
	"errors"
	"time"

	"github.com/avast/retry-go/v4"
	backoffv4 "github.com/cenkalti/backoff/v4"
	backoffv5 "github.com/cenkalti/backoff/v5"
	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
	sethvargo "github.com/sethvargo/go-retry"

	ours "github.com/effector-go/resilience/retry"
)

const noErrorToSchedule = "has a schedule that doesn't get the error"

func retries() []Subject {
	subject := func(name string, share func(setup) (guard[int], guard[string]), cannot map[string]string) Subject {
		return Subject{Kind: Retry, Name: name, share: share, cannot: cannot}
	}
	return []Subject{
		subject("this library", oursRetry, nil),
		subject("backoff v4", backoffV4, map[string]string{"retry-after": noErrorToSchedule}),
		subject("backoff v5", backoffV5, nil),
		subject("avast retry-go", avast, nil),
		subject("sethvargo go-retry", sethvargoRetry, map[string]string{"retry-after": noErrorToSchedule}),
		{Kind: Retry, Name: "failsafe-go", make: failsafeRetry, cannot: map[string]string{"share": byType}},
	}
}

func oursRetry(w setup) (guard[int], guard[string]) {
	r := ours.New(ours.Config{MaxAttempts: w.attempts, Backoff: ours.Constant(w.delay)})
	return func(ctx context.Context, fn call[int]) (int, error) { return ours.Do(ctx, r, fn) },
		func(ctx context.Context, fn call[string]) (string, error) {
			return ours.Do(ctx, r, fn)
		}
}

func backoffV4(w setup) (guard[int], guard[string]) {
	return byBackoffV4[int](w), byBackoffV4[string](w)
}

// byBackoffV4 creates a schedule for each call, since schedules have state.
func byBackoffV4[T any](w setup) guard[T] {
	return func(ctx context.Context, fn call[T]) (T, error) {
		schedule := backoffv4.WithMaxRetries(backoffv4.NewConstantBackOff(w.delay), uint64(w.attempts-1))
		return backoffv4.RetryWithData(func() (T, error) { return fn(ctx) }, backoffv4.WithContext(schedule, ctx))
	}
}

func backoffV5(w setup) (guard[int], guard[string]) {
	options := backoffV5Options(w)
	return byBackoffV5[int](options), byBackoffV5[string](options)
}

func backoffV5Options(w setup) []backoffv5.RetryOption {
	return []backoffv5.RetryOption{
		backoffv5.WithBackOff(backoffv5.NewConstantBackOff(w.delay)), backoffv5.WithMaxTries(uint(w.attempts)),
	}
}

// byBackoffV5 converts an error's delay to the error type of v5.
func byBackoffV5[T any](options []backoffv5.RetryOption) guard[T] {
	return func(ctx context.Context, fn call[T]) (T, error) {
		return backoffv5.Retry(ctx, func() (T, error) {
			value, err := fn(ctx)
			if after := retryAfter(err, 0); after > 0 {
				err = &backoffv5.RetryAfterError{Duration: after}
			}
			return value, err
		}, options...)
	}
}

func avast(w setup) (guard[int], guard[string]) {
	options := []retry.Option{retry.Attempts(uint(w.attempts)), retry.DelayType(
		func(_ uint, err error, _ *retry.Config) time.Duration { return retryAfter(err, w.delay) })}
	return byAvast[int](options), byAvast[string](options)
}

func byAvast[T any](options []retry.Option) guard[T] {
	return func(ctx context.Context, fn call[T]) (T, error) {
		return retry.DoWithData(func() (T, error) { return fn(ctx) },
			append([]retry.Option{retry.Context(ctx)}, options...)...)
	}
}

func sethvargoRetry(w setup) (guard[int], guard[string]) {
	return bySethvargo[int](w), bySethvargo[string](w)
}

func bySethvargo[T any](w setup) guard[T] {
	return func(ctx context.Context, fn call[T]) (T, error) {
		schedule := sethvargo.WithMaxRetries(uint64(w.attempts-1), sethvargo.NewConstant(w.delay))
		return sethvargo.DoValue(ctx, schedule, func(ctx context.Context) (T, error) {
			value, err := fn(ctx)
			return value, sethvargo.RetryableError(err)
		})
	}
}

func failsafeRetryPolicy(w setup) retrypolicy.Builder[int] {
	return retrypolicy.NewBuilder[int]().WithMaxAttempts(w.attempts).
		WithDelayFunc(func(e failsafe.ExecutionAttempt[int]) time.Duration { return retryAfter(e.LastError(), w.delay) })
}

func failsafeRetry(w setup) guard[int] {
	executor := failsafe.With(failsafeRetryPolicy(w).Build())
	return func(ctx context.Context, fn call[int]) (int, error) {
		value, err := executor.WithContext(ctx).Get(func() (int, error) { return fn(ctx) })
		var exceeded retrypolicy.ExceededError
		if errors.As(err, &exceeded) {
			err = exceeded.LastError
		}
		return value, err
	}
}
