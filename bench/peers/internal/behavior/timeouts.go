package behavior

import (
	"context"
	"time"

	"github.com/failsafe-go/failsafe-go"
	failsafetimeout "github.com/failsafe-go/failsafe-go/timeout"

	"github.com/effector-go/resilience/timeout"
)

func timeouts() []Subject {
	return []Subject{
		{Kind: Timeout, Name: "this library", share: oursTimeout},
		{
			Kind: Timeout, Name: "context.WithTimeout",
			share: func(w setup) (guard[int], guard[string]) { return byContext[int](w.limit), byContext[string](w.limit) },
		},
		{
			Kind: Timeout, Name: "goroutine and select",
			make: func(w setup) guard[int] { return byGoroutine[int](w.limit) },
			share: func(w setup) (guard[int], guard[string]) {
				return byGoroutine[int](w.limit), byGoroutine[string](w.limit)
			},
		},
		{
			Kind: Timeout, Name: "failsafe-go",
			make: func(w setup) guard[int] { return byFailsafe(failsafe.With(failsafetimeout.New[int](w.limit))) },
			share: func(w setup) (guard[int], guard[string]) {
				t := failsafetimeout.New[any](w.limit)
				return byFailsafe(failsafe.WithAny[int](t)), byFailsafe(failsafe.WithAny[string](t))
			},
		},
	}
}

func oursTimeout(w setup) (guard[int], guard[string]) {
	c := timeout.Config{Limit: w.limit}
	if w.hangs {
		c.Abandon = 10
	}
	t := timeout.New(c)
	return byOurs[int](t), byOurs[string](t)
}

func byOurs[T any](t *timeout.Timeout) guard[T] {
	return func(ctx context.Context, fn call[T]) (T, error) {
		return timeout.Do(ctx, t, fn)
	}
}

func byContext[T any](limit time.Duration) guard[T] {
	return func(ctx context.Context, fn call[T]) (T, error) {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		return fn(ctx)
	}
}

func byGoroutine[T any](limit time.Duration) guard[T] {
	return func(ctx context.Context, fn call[T]) (T, error) {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		type answer struct {
			value T
			err   error
		}
		answers := make(chan answer, 1)
		go func() {
			value, err := fn(ctx)
			answers <- answer{value, err}
		}()
		select {
		case a := <-answers:
			return a.value, a.err
		case <-ctx.Done():
			var zero T
			return zero, ctx.Err()
		}
	}
}

func byFailsafe[T any](executor failsafe.Executor[T]) guard[T] {
	return func(ctx context.Context, fn call[T]) (T, error) {
		return executor.WithContext(ctx).GetWithExecution(func(e failsafe.Execution[T]) (T, error) { return fn(e.Context()) })
	}
}
