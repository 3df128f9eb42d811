package peers

import (
	"context"
	"testing"
	"time"

	"github.com/failsafe-go/failsafe-go"
	failsafetimeout "github.com/failsafe-go/failsafe-go/timeout"

	"github.com/effector-go/resilience/timeout"
)

// limiting returns the timeouts around the effector, called with the context.
func limiting(ctx context.Context, fn effector) []side {
	ours := timeout.After(time.Minute)
	abandoning := timeout.New(timeout.Config{Limit: time.Minute, Abandon: 100})
	executor := failsafe.With(failsafetimeout.New[int](time.Minute))
	if ctx.Done() != nil {
		executor = executor.WithContext(ctx)
	}
	call := func(e failsafe.Execution[int]) (int, error) { return fn(e.Context()) }
	return []side{
		{"ours", func() error { _, err := timeout.Do(ctx, ours, fn); return err }},
		{"context", func() error {
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			_, err := fn(ctx)
			return err
		}},
		{"failsafe", func() error { _, err := executor.GetWithExecution(call); return err }},
		{"ours-abandon", func() error { _, err := timeout.Do(ctx, abandoning, fn); return err }},
		{"goroutine", func() error { _, err := inGoroutine(ctx, time.Minute, fn); return err }},
	}
}

// inGoroutine is what users write for effectors that ignore their context.
func inGoroutine(ctx context.Context, limit time.Duration, fn effector) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	type answer struct {
		value int
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
		return 0, ctx.Err()
	}
}

// BenchmarkTimeout is a call whose effector doesn't call its context's Done.
func BenchmarkTimeout(b *testing.B) { run(b, limiting(ctx, succeed)) }

// BenchmarkTimeoutDone is a call whose effector waits on its context.
func BenchmarkTimeoutDone(b *testing.B) { run(b, limiting(ctx, wait)) }

// BenchmarkTimeoutDoneRequest is the same with a context that can be canceled, as a request's.
func BenchmarkTimeoutDoneRequest(b *testing.B) { run(b, limiting(request(b), wait)) }
