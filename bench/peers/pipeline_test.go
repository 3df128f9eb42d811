package peers

import (
	"context"
	"fmt"
	"testing"
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

// A pipeline is a timeout for the whole call, retry without waits, a breaker that opens after
// consecutive failures, and a timeout for each attempt. None retries a refusal.
type pipeline struct {
	name    string
	compose func(ctx context.Context, fn effector) func() error // returns a function that makes the call, any number of times
	do      func(fn effector) error                             // makes one call
}

func pipelines() []pipeline {
	return []pipeline{oursPipeline(), failsafePipeline(), assembledPipeline()}
}

const (
	wholeLimit   = time.Minute
	attemptLimit = time.Second
)

func oursPipeline() pipeline {
	policies := resilience.Pipeline{
		timeout.After(wholeLimit),
		retry.New(retry.Config{MaxAttempts: attempts, Backoff: retry.Constant(0)}),
		breaker.New(breaker.Config{Consecutive: failures, OpenFor: time.Hour}),
		timeout.After(attemptLimit),
	}
	return pipeline{"ours", func(ctx context.Context, fn effector) func() error {
		call := resilience.Compose(fn, policies)
		return func() error { _, err := call(ctx); return err }
	}, func(fn effector) error {
		_, err := resilience.Do(ctx, policies, fn)
		return err
	}}
}

func failsafePipeline() pipeline {
	executor := failsafe.With(
		failsafetimeout.New[int](wholeLimit),
		retrypolicy.NewBuilder[int]().WithMaxAttempts(attempts).AbortOnErrors(circuitbreaker.ErrOpen).Build(),
		circuitbreaker.NewBuilder[int]().WithFailureThreshold(failures).WithDelay(time.Hour).Build(),
		failsafetimeout.New[int](attemptLimit),
	)
	compose := func(ctx context.Context, fn effector) func() error {
		executor := executor
		if ctx.Done() != nil {
			executor = executor.WithContext(ctx)
		}
		call := func(e failsafe.Execution[int]) (int, error) { return fn(e.Context()) }
		return func() error { _, err := executor.GetWithExecution(call); return err }
	}
	return pipeline{"failsafe", compose, func(fn effector) error { return compose(ctx, fn)() }}
}

// assembledPipeline is what users write with one library for each policy.
func assembledPipeline() pipeline {
	sony := gobreaker.NewCircuitBreaker[int](gobreaker.Settings{
		Timeout:     time.Hour,
		ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= failures },
	})
	options := []backoff.RetryOption{backoff.WithBackOff(&backoff.ZeroBackOff{}), backoff.WithMaxTries(attempts)}
	do := func(ctx context.Context, fn effector) error {
		ctx, cancel := context.WithTimeout(ctx, wholeLimit)
		defer cancel()
		attempt := func() (int, error) {
			ctx, cancel := context.WithTimeout(ctx, attemptLimit)
			defer cancel()
			return fn(ctx)
		}
		_, err := backoff.Retry(ctx, func() (int, error) {
			value, err := sony.Execute(attempt)
			if err == gobreaker.ErrOpenState || err == gobreaker.ErrTooManyRequests {
				err = backoff.Permanent(err)
			}
			return value, err
		}, options...)
		return err
	}
	return pipeline{"gobreaker-backoff-context", func(ctx context.Context, fn effector) func() error {
		return func() error { return do(ctx, fn) }
	}, func(fn effector) error { return do(ctx, fn) }}
}

// piped returns the pipelines around the effector, called with the context.
func piped(ctx context.Context, fn effector) []side {
	var sides []side
	for _, p := range pipelines() {
		sides = append(sides, side{p.name, p.compose(ctx, fn)})
	}
	return sides
}

// pipedOpen returns pipelines whose breaker is open. The effector must fail.
func pipedOpen(fn effector) []side {
	sides := piped(ctx, fn)
	for _, s := range sides {
		for range failures {
			s.call()
		}
	}
	return sides
}

// pipedTwice returns pipelines around an effector that fails twice and then succeeds. It calls made
// each time.
func pipedTwice(made func()) []side {
	var sides []side
	for _, p := range pipelines() {
		sides = append(sides, side{p.name, func() error {
			n := 0
			return p.do(func(context.Context) (int, error) {
				made()
				if n++; n < attempts {
					return 0, errBoom
				}
				return 1, nil
			})
		}})
	}
	return sides
}

// lengthened returns pipelines of this many policies, each a retry: they show what another idle
// policy costs.
func lengthened(fn effector, policies int) []side {
	var ours resilience.Pipeline
	var theirs []failsafe.Policy[int]
	for range policies {
		ours = append(ours, retry.New(retry.Config{}))
		theirs = append(theirs, retrypolicy.NewWithDefaults[int]())
	}
	composed := resilience.Compose(fn, ours)
	executor := failsafe.With(theirs...)
	call := func() (int, error) { return fn(ctx) }
	nested := call
	for range policies {
		inner := nested
		tries := backoff.WithMaxTries(attempts)
		nested = func() (int, error) { return backoff.Retry(ctx, inner, tries) }
	}
	return []side{
		{"ours", func() error { _, err := composed(ctx); return err }},
		{"failsafe", func() error { _, err := executor.Get(call); return err }},
		{"backoff-v5", func() error { _, err := nested(); return err }},
	}
}

// BenchmarkPipelineDoneRequest is a call that succeeds at the first attempt. Its effector waits on
// its context, and the caller's context can be canceled, as a request's.
func BenchmarkPipelineDoneRequest(b *testing.B) { run(b, piped(request(b), wait)) }

// BenchmarkPipelineDone is the same under context.Background.
func BenchmarkPipelineDone(b *testing.B) { run(b, piped(ctx, wait)) }

// BenchmarkPipeline is a call that succeeds at the first attempt. Its effector doesn't call its
// context's Done.
func BenchmarkPipeline(b *testing.B) { run(b, piped(ctx, succeed)) }

// BenchmarkPipelineOpen is a call that the breaker refuses.
func BenchmarkPipelineOpen(b *testing.B) { run(b, pipedOpen(fail)) }

// BenchmarkPipelineTwice is a call that fails twice and then succeeds, without waits.
func BenchmarkPipelineTwice(b *testing.B) { run(b, pipedTwice(func() {})) }

// BenchmarkLength is a call that succeeds at the first attempt, through pipelines of increasing
// length.
func BenchmarkLength(b *testing.B) {
	for _, policies := range []int{1, 2, 4, 8, 16, 32} {
		b.Run(fmt.Sprintf("policies=%d", policies), func(b *testing.B) {
			for _, s := range lengthened(succeed, policies) {
				b.Run(s.name, func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						s.call()
					}
				})
			}
		})
	}
}
