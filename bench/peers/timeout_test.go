package peers

import (
	"context"
	"testing"
	"time"

	"github.com/failsafe-go/failsafe-go"
	failsafetimeout "github.com/failsafe-go/failsafe-go/timeout"

	"github.com/effector-go/resilience/timeout"
)

// limiting are the timeouts around the given effector.
func limiting(fn effector) []side {
	ours := timeout.After(time.Minute)
	abandoning := timeout.New(timeout.Config{Limit: time.Minute, Abandon: 100})
	executor := failsafe.With(failsafetimeout.New[int](time.Minute))
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

// inGoroutine is what is written by hand for effectors that ignore their ctx.
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

// done is an effector that asks for its ctx's end, as those that wait for something do.
func done(ctx context.Context) (int, error) { ctx.Done(); return 1, nil }

// BenchmarkTimeout is a call whose effector does not wait for the end of its ctx; the rows that end in -done have one that does.
func BenchmarkTimeout(b *testing.B) {
	run(b, limiting(succeed))
	waiting := limiting(done)
	for i := range waiting {
		waiting[i].name += "-done"
	}
	run(b, waiting)
}
