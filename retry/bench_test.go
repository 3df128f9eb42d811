package retry_test

import (
	"context"
	"testing"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/retry"
)

func succeed(context.Context) (int, error) { return 1, nil }

// BenchmarkDo measures a call of Do that succeeds at the first attempt.
func BenchmarkDo(b *testing.B) {
	r, ctx := retry.New(retry.Config{}), context.Background()
	b.ReportAllocs()
	for b.Loop() {
		_, _ = retry.Do(ctx, r, succeed)
	}
}

func BenchmarkDoBudget(b *testing.B) {
	r, ctx := retry.New(retry.Config{Budget: budget.New(budget.Config{Ratio: 0.1})}), context.Background()
	b.ReportAllocs()
	for b.Loop() {
		_, _ = retry.Do(ctx, r, succeed)
	}
}

// BenchmarkRun measures the same in a pipeline, whose call is the only allocation.
func BenchmarkRun(b *testing.B) {
	call, ctx := resilience.Compose(succeed, retry.New(retry.Config{})), context.Background()
	b.ReportAllocs()
	for b.Loop() {
		_, _ = call(ctx)
	}
}

// BenchmarkDoThirdAttempt measures a call that fails twice and then succeeds, without waits.
func BenchmarkDoThirdAttempt(b *testing.B) {
	r, ctx := retry.New(retry.Config{Backoff: retry.Constant(0)}), context.Background()
	n := 0
	fn := func(context.Context) (int, error) {
		if n++; n%3 != 0 {
			return 0, errBoom
		}
		return n, nil
	}
	b.ReportAllocs()
	for b.Loop() {
		_, _ = retry.Do(ctx, r, fn)
	}
}
