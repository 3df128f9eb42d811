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
	"github.com/go-kratos/aegis/circuitbreaker/sre"
	"github.com/sony/gobreaker/v2"
	gozero "github.com/zeromicro/go-zero/core/breaker"

	"github.com/effector-go/resilience/breaker"
)

const failures = 5 // in a row: what opens the breakers that count so

// counting are the breakers that open after so many failures in a row, closed, with the given open time.
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

// cep21Config leaves out what the others do not do either: a limit of time and one of calls at once.
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

// windowed are the breakers that open by the share of failures in a window of time. Those of aegis and go-zero have no open
// state: they refuse a share of the calls, at random.
func windowed(fn effector) []side {
	const (
		rate     = 0.5
		minCalls = 20
		window   = 10 * time.Second
		openFor  = time.Hour
	)
	call := func() (int, error) { return fn(ctx) }
	run := func() error { _, err := fn(ctx); return err }
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
	aegis := sre.NewBreaker(sre.WithWindow(window), sre.WithRequest(minCalls))
	zero := gozero.NewBreaker()
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
		{"gozero", func() error { return zero.Do(run) }},
	}
}

// opened are the breakers of counting, open, and those that refuse a share of the calls, after so many failures that they
// refuse nearly all. The effector must fail.
func opened(fn effector) []side {
	sides := counting(fn, time.Hour)
	for _, s := range windowed(fn) {
		if s.name == "aegis" || s.name == "gozero" {
			sides = append(sides, s)
		}
	}
	for _, s := range sides {
		for range 10_000 {
			s.call()
		}
	}
	return sides
}

// tripping are breakers made anew, whose last of so many failures opens them. The open time is short, so that what opening
// leaves behind (a timer, a goroutine) is paid for too. Those that have no open state cannot be tripped.
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

// BenchmarkClosed is a call that succeeds, through a breaker that counts failures in a row.
func BenchmarkClosed(b *testing.B) { run(b, counting(succeed, time.Hour)) }

// BenchmarkRateWindow is a call that succeeds, through a breaker that counts in a window of time.
func BenchmarkRateWindow(b *testing.B) { run(b, windowed(succeed)) }

// BenchmarkOpen is a call that is refused.
func BenchmarkOpen(b *testing.B) { run(b, opened(fail)) }

// BenchmarkTrip is the whole of a breaker that is made and opened by failures in a row.
func BenchmarkTrip(b *testing.B) { run(b, tripping(fail)) }
