package peers

import (
	"testing"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/adaptivelimiter"
	"github.com/platinummonkey/go-concurrency-limits/core"
	"github.com/platinummonkey/go-concurrency-limits/limit"
	"github.com/platinummonkey/go-concurrency-limits/limiter"
	"github.com/platinummonkey/go-concurrency-limits/strategy"

	"github.com/effector-go/resilience/adaptive"
)

// adapting returns the policies that find out how many calls may run concurrently, starting with
// least, the lower bound.
func adapting(fn effector, least int) []side {
	most := 10 * least
	if least == 1 {
		most = 1
	}
	call := func() (int, error) { return fn(ctx) }
	ours := adaptive.New(adaptive.Config{Initial: least, Min: least, Max: most})
	aimd := adaptive.New(adaptive.Config{Initial: least, Min: least, Max: most, Algorithm: adaptive.AIMD})
	builder := adaptivelimiter.NewBuilder[int]().WithLimits(uint(least), uint(most), uint(least))
	executor := failsafe.With(builder.Build())
	twoStep := builder.Build()
	noLogger, noMetrics := limit.NoopLimitLogger{}, core.EmptyMetricRegistryInstance
	gradient, err := limit.NewGradient2Limit("", least, most, least, nil, -1, -1, noLogger, noMetrics)
	if err != nil {
		panic(err) // its defaults
	}
	return []side{
		{"ours", func() error { _, err := adaptive.Do(ctx, ours, fn); return err }},
		{"ours-aimd", func() error { _, err := adaptive.Do(ctx, aimd, fn); return err }},
		{"failsafe", func() error { _, err := executor.Get(call); return err }},
		{"failsafe-two-step", func() error {
			permit, ok := twoStep.TryAcquirePermit()
			if !ok {
				return errLimited
			}
			_, err := fn(ctx)
			if err != nil {
				permit.Drop()
			} else {
				permit.Record()
			}
			return err
		}},
		{"platinummonkey-gradient2", platinummonkey(gradient, fn)},
		{"platinummonkey-vegas", platinummonkey(limit.NewDefaultVegasLimitWithLimit("", least, noLogger, noMetrics), fn)},
	}
}

// platinummonkey counts every call. By default it ignores calls of less than a tenth of a
// millisecond, as those measured here.
func platinummonkey(algorithm core.Limit, fn effector) func() error {
	const window, leastTime, calls = int64(time.Second), 1, 100
	limits, err := limiter.NewDefaultLimiter(algorithm, window, window, leastTime, calls, strategy.NewSimpleStrategy(0),
		limit.NoopLimitLogger{}, core.EmptyMetricRegistryInstance)
	if err != nil {
		panic(err) // its defaults, apart from the shortest time
	}
	return func() error {
		call, ok := limits.Acquire(ctx)
		if !ok {
			return errLimited
		}
		_, err := fn(ctx)
		if err != nil {
			call.OnDropped()
		} else {
			call.OnSuccess()
		}
		return err
	}
}

func adaptingOne(fn effector) []side { return adapting(fn, 1) }

// BenchmarkAdaptive is a call within the limit.
func BenchmarkAdaptive(b *testing.B) { run(b, adapting(succeed, 20)) }

// BenchmarkAdaptiveFull is a call that is refused.
func BenchmarkAdaptiveFull(b *testing.B) {
	sides, release := full(adaptingOne, fail)
	defer release()
	run(b, sides)
}
