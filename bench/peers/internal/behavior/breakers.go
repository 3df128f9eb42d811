package behavior

import (
	"context"
	"errors"
	"time"

	"github.com/cep21/circuit/v4"
	"github.com/cep21/circuit/v4/closers/hystrix"
	"github.com/cep21/circuit/v4/closers/simplelogic"
	eapache "github.com/eapache/go-resiliency/breaker"
	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/sony/gobreaker/v2"

	"github.com/effector-go/resilience/breaker"
)

// Each library is configured as its documentation says, with what it has for the purpose: a library
// that can exclude canceled calls by their error does so. A breaker in two steps gets no result of
// a canceled call, unless it takes the error.

const (
	noSlowRule = "has no rule for slow or unfinished calls"
	fixedTime  = "has a fixed open time"
	byType     = "is created for one result type"
)

func breakers() []Subject {
	return []Subject{
		{Kind: Breaker, Name: "this library", share: oursShared},
		{
			Kind: Breaker, Name: "gobreaker Execute", make: sonyBreaker,
			cannot: map[string]string{"hung": noSlowRule, "retry-after": fixedTime, "share": byType},
		},
		{
			Kind: Breaker, Name: "gobreaker two-step", share: sonyTwoStepShared,
			cannot: map[string]string{"hung": noSlowRule, "retry-after": fixedTime},
		},
		{
			Kind: Breaker, Name: "failsafe-go executor", make: failsafeBreaker, share: failsafeShared,
			cannot: map[string]string{"hung": noSlowRule},
		},
		{
			Kind: Breaker, Name: "failsafe-go two-step", share: failsafeTwoStepShared,
			cannot: map[string]string{"hung": noSlowRule},
		},
		{
			Kind: Breaker, Name: "eapache go-resiliency", share: eapacheShared,
			cannot: map[string]string{"hung": noSlowRule, "retry-after": fixedTime},
		},
		{Kind: Breaker, Name: "cep21 circuit", share: cep21Shared, cannot: map[string]string{"retry-after": fixedTime}},
	}
}

func oursConfig(w setup) breaker.Config {
	c := breaker.Config{Consecutive: w.failures, OpenFor: w.openFor}
	if w.slowCall > 0 {
		c.SlowRate, c.SlowCall = 0.5, w.slowCall
	}
	return c
}

func oursShared(w setup) (guard[int], guard[string]) {
	b := breaker.New(oursConfig(w))
	return func(ctx context.Context, fn call[int]) (int, error) { return breaker.Do(ctx, b, fn) },
		func(ctx context.Context, fn call[string]) (string, error) {
			return breaker.Do(ctx, b, fn)
		}
}

func sonySettings(w setup) gobreaker.Settings {
	return gobreaker.Settings{
		Timeout:     w.openFor,
		ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= uint32(w.failures) },
		IsExcluded:  func(err error) bool { return errors.Is(err, context.Canceled) },
	}
}

func sonyBreaker(w setup) guard[int] {
	b := gobreaker.NewCircuitBreaker[int](sonySettings(w))
	return func(ctx context.Context, fn call[int]) (int, error) {
		return b.Execute(func() (int, error) { return fn(ctx) })
	}
}

func sonyTwoStepShared(w setup) (guard[int], guard[string]) {
	b := gobreaker.NewTwoStepCircuitBreaker[any](sonySettings(w))
	return twoStep[int](b), twoStep[string](b)
}

func twoStep[T any](b *gobreaker.TwoStepCircuitBreaker[any]) guard[T] {
	return func(ctx context.Context, fn call[T]) (T, error) {
		done, err := b.Allow()
		if err != nil {
			var zero T
			return zero, err
		}
		value, err := fn(ctx)
		done(err)
		return value, err
	}
}

func failsafeConfig[R any](w setup) circuitbreaker.Builder[R] {
	return circuitbreaker.NewBuilder[R]().
		WithFailureThreshold(uint(w.failures)).
		WithSuccessThreshold(1).
		WithDelay(w.openFor). // for failures that are recorded without an execution
		WithDelayFunc(func(e failsafe.ExecutionAttempt[R]) time.Duration { return retryAfter(e.LastError(), w.openFor) }).
		HandleIf(func(_ R, err error) bool { return err != nil && !errors.Is(err, context.Canceled) })
}

func failsafeBreaker(w setup) guard[int] {
	executor := failsafe.With(failsafeConfig[int](w).Build())
	return func(ctx context.Context, fn call[int]) (int, error) {
		return executor.WithContext(ctx).Get(func() (int, error) { return fn(ctx) })
	}
}

func failsafeShared(w setup) (guard[int], guard[string]) {
	b := failsafeConfig[any](w).Build()
	ints, texts := failsafe.WithAny[int](b), failsafe.WithAny[string](b)
	return func(ctx context.Context, fn call[int]) (int, error) {
			return ints.WithContext(ctx).Get(func() (int, error) { return fn(ctx) })
		}, func(ctx context.Context, fn call[string]) (string, error) {
			return texts.WithContext(ctx).Get(func() (string, error) { return fn(ctx) })
		}
}

func failsafeTwoStepShared(w setup) (guard[int], guard[string]) {
	b := failsafeConfig[any](w).Build()
	return failsafeTwoStep[int](b), failsafeTwoStep[string](b)
}

func failsafeTwoStep[T any](b circuitbreaker.CircuitBreaker[any]) guard[T] {
	return func(ctx context.Context, fn call[T]) (T, error) {
		if !b.TryAcquirePermit() {
			var zero T
			return zero, circuitbreaker.ErrOpen
		}
		value, err := fn(ctx)
		switch {
		case err == nil:
			b.RecordSuccess()
		case !errors.Is(err, context.Canceled):
			b.RecordError(err)
		}
		return value, err
	}
}

func eapacheShared(w setup) (guard[int], guard[string]) {
	b := eapache.New(w.failures, 1, w.openFor)
	return byRun[int](b.Run), byRun[string](b.Run)
}

// cep21Shared runs calls that may hang on other goroutines, limited to the time after which a call
// is slow.
func cep21Shared(w setup) (guard[int], guard[string]) {
	config := circuit.Config{
		General: circuit.GeneralConfig{
			ClosedToOpenFactory: simplelogic.ConsecutiveErrOpenerFactory(
				simplelogic.ConfigConsecutiveErrOpener{ErrorThreshold: int64(w.failures)}),
			OpenToClosedFactory: hystrix.CloserFactory(hystrix.ConfigureCloser{SleepWindow: w.openFor}),
		},
		Execution: circuit.ExecutionConfig{Timeout: -1, MaxConcurrentRequests: -1},
	}
	if w.slowCall > 0 {
		config.Execution.Timeout = w.slowCall
	}
	b := circuit.NewCircuitFromConfig("", config)
	run := b.Run
	if w.hangs {
		run = func(ctx context.Context, fn func(context.Context) error) error { return b.Go(ctx, fn, nil) }
	}
	return byRunContext[int](run), byRunContext[string](run)
}

// byRunContext is byRun with a context. A failed call may still be running, so it has no value.
func byRunContext[T any](run func(context.Context, func(context.Context) error) error) guard[T] {
	return func(ctx context.Context, fn call[T]) (T, error) {
		var value T
		err := run(ctx, func(ctx context.Context) (err error) { value, err = fn(ctx); return err })
		if err != nil {
			return *new(T), err
		}
		return value, nil
	}
}

// byRun makes calls through a breaker that takes a function without a value.
func byRun[T any](run func(func() error) error) guard[T] {
	return func(ctx context.Context, fn call[T]) (T, error) {
		var value T
		err := run(func() (err error) { value, err = fn(ctx); return err })
		return value, err
	}
}
