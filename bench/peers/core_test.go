// Package peers measures what this library costs beside what a user would take instead: the same effector through each, the
// rows of one table in one run. Compare within a run: absolute times move with the machine.
//
//	go test -bench . -count 10 ./bench/peers
package peers

import (
	"context"
	"errors"
	"testing"
	"time"

	eapache "github.com/eapache/go-resiliency/breaker"
	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
	failsafetimeout "github.com/failsafe-go/failsafe-go/timeout"
	sethvargo "github.com/sethvargo/go-retry"
	"github.com/sony/gobreaker/v2"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

var ctx = context.Background()

func succeed(context.Context) (int, error) { return 1, nil }

// sides runs each side of a comparison, serial and on all processors.
func sides(b *testing.B, names []string, calls ...func()) {
	for i, call := range calls {
		b.Run(names[i]+"/serial", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				call()
			}
		})
		b.Run(names[i]+"/parallel", func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					call()
				}
			})
		})
	}
}

func BenchmarkFloors(b *testing.B) {
	start := time.Now()
	var now time.Time
	var since time.Duration
	sides(b, []string{"bare", "now", "since"}, func() { succeed(ctx) }, func() { now = time.Now() }, func() { since = time.Since(start) })
	_, _ = now, since
}

func BenchmarkClosed(b *testing.B) {
	ours := breaker.New(breaker.Config{})
	theirs := eapache.New(5, 1, time.Second)
	run := func() error { _, err := succeed(ctx); return err }
	gb := gobreaker.NewCircuitBreaker[int](gobreaker.Settings{})
	exec := func() (int, error) { return succeed(ctx) }
	sides(b, []string{"ours", "eapache", "gobreaker"},
		func() { breaker.Do(ctx, ours, succeed) },
		func() { theirs.Run(run) },
		func() { gb.Execute(exec) },
	)
}

func BenchmarkOpen(b *testing.B) {
	ours := breaker.New(breaker.Config{OpenFor: time.Hour})
	gb := gobreaker.NewCircuitBreaker[int](gobreaker.Settings{Timeout: time.Hour})
	fail := func(context.Context) (int, error) { return 0, errors.New("boom") }
	for range 10 {
		breaker.Do(ctx, ours, fail)
		gb.Execute(func() (int, error) { return fail(ctx) })
	}
	exec := func() (int, error) { return succeed(ctx) }
	sides(b, []string{"ours", "gobreaker"}, func() { breaker.Do(ctx, ours, succeed) }, func() { gb.Execute(exec) })
}

func BenchmarkRateWindow(b *testing.B) {
	ours := breaker.New(breaker.Config{FailureRate: 0.5})
	slow := breaker.New(breaker.Config{FailureRate: 0.5, SlowRate: 0.5, SlowCall: time.Second})
	theirs := circuitbreaker.NewBuilder[any]().WithFailureRateThreshold(0.5, 20, 10*time.Second).Build()
	sides(b, []string{"ours", "ours-slow", "failsafe-two-step"},
		func() { breaker.Do(ctx, ours, succeed) },
		func() { breaker.Do(ctx, slow, succeed) },
		func() {
			if theirs.TryAcquirePermit() {
				succeed(ctx)
				theirs.RecordSuccess()
			}
		},
	)
}

func BenchmarkRetry(b *testing.B) {
	ours := retry.New(retry.Config{})
	fn := func(ctx context.Context) error { _, err := succeed(ctx); return err }
	sides(b, []string{"ours", "sethvargo"},
		func() { retry.Do(ctx, ours, succeed) },
		func() { sethvargo.Do(ctx, sethvargo.WithMaxRetries(3, sethvargo.NewExponential(time.Second)), fn) },
	)
}

func BenchmarkTimeout(b *testing.B) {
	ours := timeout.After(time.Minute)
	asks := func(ctx context.Context) (int, error) { ctx.Done(); return 1, nil }
	with := func(fn func(context.Context) (int, error)) func() {
		return func() {
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			fn(ctx)
		}
	}
	sides(b, []string{"ours", "context", "ours-done", "context-done"},
		func() { timeout.Do(ctx, ours, succeed) }, with(succeed),
		func() { timeout.Do(ctx, ours, asks) }, with(asks),
	)
}

func BenchmarkPipeline(b *testing.B) {
	ours := resilience.Compose(succeed,
		timeout.After(time.Minute), retry.New(retry.Config{}), breaker.New(breaker.Config{}), timeout.After(time.Second))
	theirs := failsafe.With[int](
		failsafetimeout.New[int](time.Minute), retrypolicy.NewWithDefaults[int](),
		circuitbreaker.NewWithDefaults[int](), failsafetimeout.New[int](time.Second),
	).WithContext(ctx)
	sides(b, []string{"ours", "failsafe"},
		func() { ours(ctx) },
		func() {
			theirs.GetWithExecution(func(e failsafe.Execution[int]) (int, error) { return succeed(e.Context()) })
		},
	)
}
