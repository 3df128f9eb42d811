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

// A pipeline is a whole call: a timeout, retry without waits, a breaker that opens after so many failures in a row, a timeout
// for each attempt. None retries a refusal. compose gives a call that is made again and again, do makes one.
type pipeline struct {
	name    string
	compose func(fn effector) func() error
	do      func(fn effector) error
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
	return pipeline{"ours", func(fn effector) func() error {
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
	compose := func(fn effector) func() error {
		call := func(e failsafe.Execution[int]) (int, error) { return fn(e.Context()) }
		return func() error { _, err := executor.GetWithExecution(call); return err }
	}
	return pipeline{"failsafe", compose, func(fn effector) error { return compose(fn)() }}
}

// assembledPipeline is what is written by hand of a library for each policy.
func assembledPipeline() pipeline {
	sony := gobreaker.NewCircuitBreaker[int](gobreaker.Settings{
		Timeout:     time.Hour,
		ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= failures },
	})
	options := []backoff.RetryOption{backoff.WithBackOff(&backoff.ZeroBackOff{}), backoff.WithMaxTries(attempts)}
	do := func(fn effector) error {
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
	return pipeline{"gobreaker-backoff-context", func(fn effector) func() error { return func() error { return do(fn) } }, do}
}

func piped(fn effector) []side {
	var sides []side
	for _, p := range pipelines() {
		sides = append(sides, side{p.name, p.compose(fn)})
	}
	return sides
}

// pipedOpen are the pipelines with their breaker open. The effector must fail.
func pipedOpen(fn effector) []side {
	sides := piped(fn)
	for _, s := range sides {
		for range failures {
			s.call()
		}
	}
	return sides
}

// pipedTwice are the pipelines around an effector that fails twice and then succeeds, each call being told to made.
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

// lengthened are pipelines of so many policies, each a retry: what another policy costs that has nothing to do.
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
	handmade := call
	for range policies {
		inner := handmade
		tries := backoff.WithMaxTries(attempts)
		handmade = func() (int, error) { return backoff.Retry(ctx, inner, tries) }
	}
	return []side{
		{"ours", func() error { _, err := composed(ctx); return err }},
		{"failsafe", func() error { _, err := executor.Get(call); return err }},
		{"backoff-v5", func() error { _, err := handmade(); return err }},
	}
}

// BenchmarkPipeline is a call that succeeds at first.
func BenchmarkPipeline(b *testing.B) { run(b, piped(succeed)) }

// BenchmarkPipelineOpen is a call that the breaker refuses.
func BenchmarkPipelineOpen(b *testing.B) { run(b, pipedOpen(fail)) }

// BenchmarkPipelineTwice is a call that fails twice and then succeeds, without a wait.
func BenchmarkPipelineTwice(b *testing.B) { run(b, pipedTwice(func() {})) }

// BenchmarkLength is a call that succeeds at first, through pipelines of growing length.
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
