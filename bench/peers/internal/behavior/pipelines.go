package behavior

import (
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
	failsafetimeout "github.com/failsafe-go/failsafe-go/timeout"
	"github.com/sony/gobreaker/v2"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// wholeLimit is the limit of the outermost timeout: longer than any question takes.
const wholeLimit = 48 * time.Hour

// Each pipeline is a timeout for the whole call, retry, breaker, and a timeout for each attempt.
// None retries refusals.
func pipelines() []Subject {
	return []Subject{
		{Kind: Pipeline, Name: "this library", share: oursPipeline},
		{Kind: Pipeline, Name: "failsafe-go", make: failsafePipeline, cannot: map[string]string{"share": "has a retry that " + byType}},
		{
			Kind: Pipeline, Name: "gobreaker + backoff v5 + context", make: assembledPipeline,
			cannot: map[string]string{"share": "has a breaker that " + byType},
		},
	}
}

func oursPipeline(w setup) (guard[int], guard[string]) {
	policies := resilience.Pipeline{
		timeout.After(wholeLimit),
		retry.New(retry.Config{MaxAttempts: w.attempts, Backoff: retry.Constant(w.delay)}),
		breaker.New(oursConfig(w)),
		timeout.After(w.limit),
	}
	return func(ctx context.Context, fn call[int]) (int, error) { return resilience.Do(ctx, policies, fn) },
		func(ctx context.Context, fn call[string]) (string, error) {
			return resilience.Do(ctx, policies, fn)
		}
}

func failsafePipeline(w setup) guard[int] {
	executor := failsafe.With(
		failsafetimeout.New[int](wholeLimit),
		failsafeRetryPolicy(w).AbortOnErrors(circuitbreaker.ErrOpen).Build(),
		failsafeConfig[int](w).Build(),
		failsafetimeout.New[int](w.limit),
	)
	return func(ctx context.Context, fn call[int]) (int, error) {
		value, err := executor.WithContext(ctx).GetWithExecution(
			func(e failsafe.Execution[int]) (int, error) { return fn(e.Context()) })
		var exceeded retrypolicy.ExceededError
		if errors.As(err, &exceeded) {
			err = exceeded.LastError
		}
		return value, err
	}
}

func assembledPipeline(w setup) guard[int] {
	b := gobreaker.NewCircuitBreaker[int](sonySettings(w))
	retries := byBackoffV5[int](backoffV5Options(w))
	attempt := byContext[int](w.limit)
	whole := byContext[int](wholeLimit)
	return func(ctx context.Context, fn call[int]) (int, error) {
		return whole(ctx, func(ctx context.Context) (int, error) {
			return retries(ctx, func(ctx context.Context) (int, error) {
				value, err := b.Execute(func() (int, error) { return attempt(ctx, fn) })
				if errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests) {
					err = backoff.Permanent(err)
				}
				return value, err
			})
		})
	}
}
