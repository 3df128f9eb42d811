package peers

import (
	"testing"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/adaptivethrottler"

	"github.com/effector-go/resilience/shed"
)

// shedding refuse a share of the calls, at random, by what came of the recent ones. aegis' and go-zero's breakers do no other.
func shedding(fn effector) []side {
	const window, most, few = time.Minute, 0.9, 10
	call := func() (int, error) { return fn(ctx) }
	ours := shed.New(shed.Config{Window: window, MaxShare: most})
	builder := adaptivethrottler.NewBuilder[int]().WithFailureRateThreshold(0.5, few, window).WithMaxRejectionRate(most)
	executor := failsafe.With(builder.Build())
	twoStep := builder.Build()
	sides := []side{
		{"ours", func() error { _, err := shed.Do(ctx, ours, fn); return err }},
		{"failsafe", func() error { _, err := executor.Get(call); return err }},
		{"failsafe-two-step", func() error {
			if !twoStep.TryAcquirePermit() {
				return adaptivethrottler.ErrExceeded
			}
			_, err := fn(ctx)
			if err != nil {
				twoStep.RecordFailure()
			} else {
				twoStep.RecordSuccess()
			}
			return err
		}},
	}
	for _, s := range windowed(fn) {
		if s.name == "aegis" || s.name == "gozero" {
			sides = append(sides, s)
		}
	}
	return sides
}

// overloaded are those of shedding after ten thousand failures: ours and failsafe's let one call in ten through, the others
// next to none. The effector must fail.
func overloaded(fn effector) []side {
	sides := shedding(fn)
	for _, s := range sides {
		for range 10_000 {
			s.call()
		}
	}
	return sides
}

// BenchmarkShed is a call of a dependency that is well.
func BenchmarkShed(b *testing.B) { run(b, shedding(succeed)) }

// BenchmarkShedRefused is a call of which nine in ten or more are refused.
func BenchmarkShedRefused(b *testing.B) { run(b, overloaded(fail)) }
