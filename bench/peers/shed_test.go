package peers

import (
	"testing"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/adaptivethrottler"
	"github.com/go-kratos/aegis/circuitbreaker/sre"

	"github.com/effector-go/resilience/shed"
)

// shedding returns policies that refuse a random share of the calls. The share depends on the
// results of recent calls.
func shedding(fn effector) []side {
	const window, most, few = time.Minute, 0.9, 10
	call := func() (int, error) { return fn(ctx) }
	ours := shed.New(shed.Config{Window: window, MaxShare: most})
	builder := adaptivethrottler.NewBuilder[int]().WithFailureRateThreshold(0.5, few, window).WithMaxRejectionRate(most)
	executor := failsafe.With(builder.Build())
	twoStep := builder.Build()
	aegis := sre.NewBreaker(sre.WithWindow(window), sre.WithRequest(few))
	return []side{
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
		{"aegis", func() error {
			if err := aegis.Allow(); err != nil {
				aegis.MarkFailed()
				return err
			}
			_, err := fn(ctx)
			if err != nil {
				aegis.MarkFailed()
			} else {
				aegis.MarkSuccess()
			}
			return err
		}},
	}
}

// overloaded returns the policies of shedding after ten thousand failures. Those of this library
// and of failsafe-go admit one call in ten, and aegis nearly none. The effector must fail.
func overloaded(fn effector) []side {
	sides := shedding(fn)
	for _, s := range sides {
		for range 10_000 {
			s.call()
		}
	}
	return sides
}

// BenchmarkShed is a call to a healthy dependency.
func BenchmarkShed(b *testing.B) { run(b, shedding(succeed)) }

// BenchmarkShedRefused is a call to a failing dependency: at least nine in ten are refused.
func BenchmarkShedRefused(b *testing.B) { run(b, overloaded(fail)) }
