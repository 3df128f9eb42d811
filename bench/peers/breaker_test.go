package peers

import (
	"context"
	"testing"
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

const failures = 5 // consecutive ones open a breaker

// counting returns closed breakers that open after consecutive failures, for the given time.
func counting(fn effector, openFor time.Duration) []side {
	call := func() (int, error) { return fn(ctx) }
	run := func() error { _, err := fn(ctx); return err }
	runIn := func(ctx context.Context) error { _, err := fn(ctx); return err }

	ours := breaker.New(breaker.Config{Consecutive: failures, OpenFor: openFor})
	resiliency := eapache.New(failures, 1, openFor)
	settings := gobreaker.Settings{
		Timeout:     openFor,
		ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= failures },
	}
	sony := gobreaker.NewCircuitBreaker[int](settings)
	sonyTwoStep := gobreaker.NewTwoStepCircuitBreaker[int](settings)
	config := circuitbreaker.NewBuilder[int]().WithFailureThreshold(failures).WithSuccessThreshold(1).WithDelay(openFor)
	executor := failsafe.With(config.Build())
	twoStep := config.Build()
	cep21 := circuit.NewCircuitFromConfig("", cep21Config(inARow, openFor))

	return []side{
		{"ours", func() error { _, err := breaker.Do(ctx, ours, fn); return err }},
		{"ours-two-step", func() error {
			permit, err := ours.Acquire(ctx)
			if err != nil {
				return err
			}
			_, err = fn(ctx)
			permit.Done(err)
			return err
		}},
		{"eapache", func() error { return resiliency.Run(run) }},
		{"gobreaker", func() error { _, err := sony.Execute(call); return err }},
		{"gobreaker-two-step", func() error {
			done, err := sonyTwoStep.Allow()
			if err != nil {
				return err
			}
			_, err = fn(ctx)
			done(err)
			return err
		}},
		{"failsafe", func() error { _, err := executor.Get(call); return err }},
		{"failsafe-two-step", failsafeTwoStep(twoStep, fn)},
		{"cep21", func() error { return cep21.Run(ctx, runIn) }},
	}
}

var inARow = simplelogic.ConsecutiveErrOpenerFactory(simplelogic.ConfigConsecutiveErrOpener{ErrorThreshold: failures})

// cep21Config turns off what the others don't do: it limits neither the time nor the number of
// concurrent calls.
func cep21Config(opener func() circuit.ClosedToOpen, openFor time.Duration) circuit.Config {
	return circuit.Config{
		General: circuit.GeneralConfig{
			ClosedToOpenFactory: opener,
			OpenToClosedFactory: hystrix.CloserFactory(hystrix.ConfigureCloser{SleepWindow: openFor}),
		},
		Execution: circuit.ExecutionConfig{Timeout: -1, MaxConcurrentRequests: -1},
	}
}

func failsafeTwoStep(b circuitbreaker.CircuitBreaker[int], fn effector) func() error {
	return func() error {
		if !b.TryAcquirePermit() {
			return circuitbreaker.ErrOpen
		}
		_, err := fn(ctx)
		if err != nil {
			b.RecordError(err)
		} else {
			b.RecordSuccess()
		}
		return err
	}
}

// windowed returns closed breakers that open if the share of failures within a time window is too
// high.
func windowed(fn effector) []side {
	const (
		rate     = 0.5
		minCalls = 20
		window   = 10 * time.Second
		openFor  = time.Hour
	)
	call := func() (int, error) { return fn(ctx) }
	runIn := func(ctx context.Context) error { _, err := fn(ctx); return err }

	ours := breaker.New(breaker.Config{FailureRate: rate, MinCalls: minCalls, Window: window, OpenFor: openFor})
	slow := breaker.New(breaker.Config{FailureRate: rate, MinCalls: minCalls, Window: window, OpenFor: openFor,
		SlowRate: rate, SlowCall: time.Second})
	sony := gobreaker.NewCircuitBreaker[int](gobreaker.Settings{
		Interval: window, BucketPeriod: window / 10, Timeout: openFor,
		ReadyToTrip: func(c gobreaker.Counts) bool {
			return c.Requests >= minCalls && float64(c.TotalFailures) >= rate*float64(c.Requests)
		},
	})
	config := circuitbreaker.NewBuilder[int]().WithFailureRateThreshold(rate, minCalls, window).WithDelay(openFor)
	executor := failsafe.With(config.Build())
	twoStep := config.Build()
	cep21 := circuit.NewCircuitFromConfig("", cep21Config(hystrix.OpenerFactory(hystrix.ConfigureOpener{
		ErrorThresholdPercentage: 100 * rate, RequestVolumeThreshold: minCalls, RollingDuration: window,
	}), openFor))

	return []side{
		{"ours", func() error { _, err := breaker.Do(ctx, ours, fn); return err }},
		{"ours-slow", func() error { _, err := breaker.Do(ctx, slow, fn); return err }},
		{"gobreaker", func() error { _, err := sony.Execute(call); return err }},
		{"failsafe", func() error { _, err := executor.Get(call); return err }},
		{"failsafe-two-step", failsafeTwoStep(twoStep, fn)},
		{"cep21", func() error { return cep21.Run(ctx, runIn) }},
	}
}

// opened returns the breakers of counting, open. The effector must fail.
func opened(fn effector) []side {
	sides := counting(fn, time.Hour)
	for _, s := range sides {
		for range failures {
			s.call()
		}
	}
	return sides
}

// tripping creates a breaker for each call and opens it with failures. The open time is short, so
// that the measurement includes what an open breaker leaves behind, such as a timer or a goroutine.
func tripping(fn effector) []side {
	const openFor = time.Millisecond
	call := func() (int, error) { return fn(ctx) }
	run := func() error { _, err := fn(ctx); return err }
	runIn := func(ctx context.Context) error { _, err := fn(ctx); return err }
	settings := gobreaker.Settings{
		Timeout:     openFor,
		ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= failures },
	}
	config := circuitbreaker.NewBuilder[int]().WithFailureThreshold(failures).WithDelay(openFor)
	return []side{
		{"ours", func() (err error) {
			b := breaker.New(breaker.Config{Consecutive: failures, OpenFor: openFor})
			for range failures {
				_, err = breaker.Do(ctx, b, fn)
			}
			return err
		}},
		{"eapache", func() (err error) {
			b := eapache.New(failures, 1, openFor)
			for range failures {
				err = b.Run(run)
			}
			return err
		}},
		{"gobreaker", func() (err error) {
			b := gobreaker.NewCircuitBreaker[int](settings)
			for range failures {
				_, err = b.Execute(call)
			}
			return err
		}},
		{"failsafe", func() (err error) {
			b := failsafe.With(config.Build())
			for range failures {
				_, err = b.Get(call)
			}
			return err
		}},
		{"failsafe-two-step", func() (err error) {
			do := failsafeTwoStep(config.Build(), fn)
			for range failures {
				err = do()
			}
			return err
		}},
		{"cep21", func() (err error) {
			b := circuit.NewCircuitFromConfig("", cep21Config(inARow, openFor))
			for range failures {
				err = b.Run(ctx, runIn)
			}
			return err
		}},
	}
}

// BenchmarkClosed is a call that succeeds, through a breaker that counts consecutive failures.
func BenchmarkClosed(b *testing.B) { run(b, counting(succeed, time.Hour)) }

// BenchmarkRateWindow is a call that succeeds, through a breaker that counts within a time window.
func BenchmarkRateWindow(b *testing.B) { run(b, windowed(succeed)) }

// BenchmarkOpen is a call that is refused.
func BenchmarkOpen(b *testing.B) { run(b, opened(fail)) }

// BenchmarkTrip creates a breaker and opens it with consecutive failures.
func BenchmarkTrip(b *testing.B) { run(b, tripping(fail)) }
