package bench

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/adaptive"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/bulkhead"
	"github.com/effector-go/resilience/hedge"
	"github.com/effector-go/resilience/ratelimit"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/shed"
	"github.com/effector-go/resilience/throttle"
	"github.com/effector-go/resilience/timeout"
)

// ask needs its context's channel, like every effector that waits for something.
func ask(ctx context.Context) (int, error) {
	ctx.Done()
	return 1, nil
}

// failTwice returns an effector for one goroutine that repeatedly fails twice and then succeeds.
func failTwice() effector {
	n := 0
	return func(context.Context) (int, error) {
		if n++; n%3 != 0 {
			return 0, errBoom
		}
		return 1, nil
	}
}

func always(fn effector) func() effector { return func() effector { return fn } }

// whole returns the pipeline of the root package's documentation.
func whole() resilience.Pipeline {
	return resilience.Pipeline{
		timeout.After(3 * time.Second),
		retry.New(retry.Config{}),
		breaker.New(breaker.Config{}),
		timeout.After(time.Second),
	}
}

// nested returns pipelines nested depth deep, with a breaker before each inner one.
func nested(depth int) resilience.Pipeline {
	p := resilience.Pipeline{breaker.New(breaker.Config{})}
	for range depth - 1 {
		p = resilience.Pipeline{breaker.New(breaker.Config{}), p}
	}
	return p
}

// BenchmarkPipeline measures a call of a composed effector: with an empty pipeline, with each
// policy, and with all policies. The effector succeeds immediately unless the name says otherwise.
func BenchmarkPipeline(b *testing.B) {
	extra := budget.New(budget.Config{Ratio: 0.1})
	immediate := retry.Config{Backoff: retry.Constant(0)}
	for _, bench := range []struct {
		name     string
		effector func() effector
		policies resilience.Pipeline
	}{
		{"none", always(succeed), nil}, // Compose returns the effector itself
		{"pass", always(succeed), resilience.Pipeline{resilience.PolicyFunc(pass)}},
		{"at-most-once", always(succeed), resilience.Pipeline{resilience.AtMostOnce}},
		{"discard", always(succeed), resilience.Pipeline{resilience.Discard(func(int) {})}},
		{"breaker", always(succeed), resilience.Pipeline{breaker.New(breaker.Config{})}},
		{"breaker-rate", always(succeed), resilience.Pipeline{breaker.New(breaker.Config{FailureRate: 0.5})}},
		{"breaker-open", always(succeed), resilience.Pipeline{forcedOpen()}},
		{"retry", always(succeed), resilience.Pipeline{retry.New(retry.Config{})}},
		{"retry-budget", always(succeed), resilience.Pipeline{retry.New(retry.Config{Budget: extra})}},
		{"retry-third-time", failTwice, resilience.Pipeline{retry.New(immediate)}},
		{"timeout", always(succeed), resilience.Pipeline{timeout.After(time.Second)}},
		{"timeout-done", always(ask), resilience.Pipeline{timeout.After(time.Second)}},
		{"abandon", always(succeed), resilience.Pipeline{timeout.New(timeout.Config{Limit: time.Second, Abandon: 100})}},
		{"bulkhead", always(succeed), resilience.Pipeline{bulkhead.New(bulkhead.Config{Limit: 1000})}},
		{"ratelimit", always(succeed), resilience.Pipeline{ratelimit.New(ratelimit.Config{Rate: 1e6, Burst: plenty})}},
		{"adaptive", always(succeed), resilience.Pipeline{adaptive.New(adaptive.Config{Min: 20})}},
		{"shed", always(succeed), resilience.Pipeline{shed.New(shed.Config{})}},
		{"hedge", always(succeed), resilience.Pipeline{hedge.New(hedge.Config{Delay: time.Minute})}},
		{"throttle", always(succeed), resilience.Pipeline{throttle.New(throttle.Config{Max: 1e9, Refill: 1e9, Every: time.Millisecond})}},
		{"whole", always(succeed), whole()},
		{"whole-done", always(ask), whole()},
		{"everything", always(succeed), everything()},
		{"nested-10", always(succeed), nested(10)},
	} {
		serialAndParallel(b, "pipeline="+bench.name, func() effector {
			return resilience.Compose(bench.effector(), bench.policies...)
		})
	}
	check := resilience.Effector[int](succeed).Check(func(int) error { return nil })
	serialAndParallel(b, "pipeline=check", always(check))
	instead := resilience.Effector[int](fail).OrElse(func(context.Context, error) (int, error) { return 1, nil })
	serialAndParallel(b, "pipeline=or-else", always(instead))
}

func pass(ctx context.Context, next resilience.Next) error { return next.Run(ctx) }

func forcedOpen() *breaker.Breaker {
	b := breaker.New(breaker.Config{})
	b.ForceOpen()
	return b
}

// serialAndParallel measures calls of an effector. calls returns one for each goroutine.
func serialAndParallel(b *testing.B, name string, calls func() effector) {
	b.Run(name+"/callers=serial", func(b *testing.B) {
		call := calls()
		call(ctx) // grows the goroutine's stack before the measurement, as deep as the longest pipeline needs
		b.ReportAllocs()
		for b.Loop() {
			call(ctx)
		}
	})
	b.Run(name+"/callers=parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			call := calls()
			for pb.Next() {
				call(ctx)
			}
		})
	})
}

// BenchmarkDo measures a call by resilience.Do through a pipeline that wasn't composed before.
func BenchmarkDo(b *testing.B) {
	for _, bench := range []struct {
		name     string
		pipeline resilience.Pipeline
	}{
		{"none", nil}, {"whole", whole()}, {"nested-10", nested(10)},
	} {
		b.Run("pipeline="+bench.name+"/callers=serial", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				resilience.Do(ctx, bench.pipeline, succeed)
			}
		})
		b.Run("pipeline="+bench.name+"/callers=parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					resilience.Do(ctx, bench.pipeline, succeed)
				}
			})
		})
	}
}

var breakerRules = []struct {
	name string
	c    breaker.Config
}{
	{"consecutive", breaker.Config{}},
	{"leaky", breaker.Config{Leaky: 5}},
	{"last-calls", breaker.Config{Failures: 50, LastCalls: 100}},
	{"rate", breaker.Config{FailureRate: 0.5}},
	{"slow", breaker.Config{FailureRate: 0.5, SlowRate: 0.5, SlowCall: time.Second}},
}

// BenchmarkBreaker measures a call through a breaker alone, which all callers share: closed, with
// each kind of rule, with successes and with failures that don't open it; open; in two steps; and
// with a Snapshot after each call.
func BenchmarkBreaker(b *testing.B) {
	for _, rule := range breakerRules {
		b.Run("call=success/rule="+rule.name, func(b *testing.B) { doBreaker(b, breaker.New(rule.c), always(succeed)) })
		b.Run("call=1-in-100-fails/rule="+rule.name, func(b *testing.B) {
			doBreaker(b, breaker.New(neverOpens(rule.c)), failOneIn100)
		})
	}
	// A tenth of this window is 100 ns, so most calls begin a new tenth.
	turning := breaker.Config{FailureRate: 1, MinCalls: 1, Window: time.Microsecond}
	b.Run("call=success/rule=rate-turning", func(b *testing.B) { doBreaker(b, breaker.New(turning), always(succeed)) })
	// While the window holds fewer calls than MinCalls, every call sums it up.
	young := breaker.Config{FailureRate: 0.5, MinCalls: 1 << 40}
	b.Run("call=success/rule=rate-below-min-calls", func(b *testing.B) { doBreaker(b, breaker.New(young), always(succeed)) })
	b.Run("call=refused/rule=consecutive", func(b *testing.B) { doBreaker(b, forcedOpen(), always(succeed)) })
	for _, rule := range breakerRules {
		b.Run("call=acquire-done/rule="+rule.name, func(b *testing.B) { acquireBreaker(b, breaker.New(rule.c)) })
		b.Run("call=success-and-snapshot/rule="+rule.name, func(b *testing.B) { snapshotBreaker(b, breaker.New(rule.c)) })
	}
}

// BenchmarkChangedBreaker measures a call through a breaker after SetConfig, which must cost the same
// as before; SetConfig itself; and calls in a slow start, of which the breaker admits a tenth.
func BenchmarkChangedBreaker(b *testing.B) {
	for _, rule := range breakerRules {
		changed := func(b *testing.B) *breaker.Breaker {
			brk := breaker.New(rule.c)
			if err := brk.SetConfig(brk.Config()); err != nil {
				b.Fatal(err)
			}
			return brk
		}
		b.Run("call=success/rule="+rule.name, func(b *testing.B) { doBreaker(b, changed(b), always(succeed)) })
		b.Run("call=set-config/rule="+rule.name, func(b *testing.B) {
			brk := changed(b)
			c := brk.Config()
			b.ReportAllocs()
			for b.Loop() {
				brk.SetConfig(c)
			}
		})
		b.Run("call=slow-start/rule="+rule.name, func(b *testing.B) {
			c := rule.c
			c.SlowStart = 100 * time.Hour
			brk := breaker.New(c)
			brk.HalfOpen()
			breaker.Do(ctx, brk, succeed) // the probe
			if _, err := brk.Acquire(ctx); err != nil {
				b.Fatal(err)
			}
			doBreaker(b, brk, always(succeed))
		})
	}
}

// BenchmarkSnapshotUnderLoad measures a Snapshot while a goroutine on each other processor makes
// calls through the breaker.
func BenchmarkSnapshotUnderLoad(b *testing.B) {
	for _, rule := range breakerRules {
		b.Run("rule="+rule.name, func(b *testing.B) {
			brk := breaker.New(rule.c)
			var stop atomic.Bool
			var callers errgroup.Group
			for range runtime.GOMAXPROCS(0) - 1 {
				callers.Go(func() error {
					for !stop.Load() {
						breaker.Do(ctx, brk, succeed)
					}
					return nil
				})
			}
			b.ReportAllocs()
			for b.Loop() {
				brk.Snapshot()
			}
			stop.Store(true)
			callers.Wait()
		})
	}
}

// neverOpens returns c with limits that 1 failure in 100 calls doesn't reach, even if many
// goroutines fail concurrently.
func neverOpens(c breaker.Config) breaker.Config {
	switch {
	case c.Leaky > 0:
		c.Leaky = 1 << 40
	case c.Failures > 0:
		c.Failures = c.LastCalls
	case c.FailureRate > 0:
		c.FailureRate = 1
	default:
		c.Consecutive = 1 << 40
	}
	return c
}

func doBreaker(b *testing.B, brk *breaker.Breaker, calls func() effector) {
	b.Run("callers=serial", func(b *testing.B) {
		fn := calls()
		b.ReportAllocs()
		for b.Loop() {
			breaker.Do(ctx, brk, fn)
		}
	})
	b.Run("callers=parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			fn := calls()
			for pb.Next() {
				breaker.Do(ctx, brk, fn)
			}
		})
	})
}

func acquireBreaker(b *testing.B, brk *breaker.Breaker) {
	b.Run("callers=serial", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			permit, _ := brk.Acquire(ctx)
			permit.Done(nil)
		}
	})
	b.Run("callers=parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				permit, _ := brk.Acquire(ctx)
				permit.Done(nil)
			}
		})
	})
}

func snapshotBreaker(b *testing.B, brk *breaker.Breaker) {
	b.Run("callers=serial", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			breaker.Do(ctx, brk, succeed)
			brk.Snapshot()
		}
	})
	b.Run("callers=parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				breaker.Do(ctx, brk, succeed)
				brk.Snapshot()
			}
		})
	})
}

// BenchmarkRetry measures a call by retry.Do: without a failure, and with two failures and no wait.
func BenchmarkRetry(b *testing.B) {
	for _, bench := range []struct {
		name  string
		c     retry.Config
		calls func() effector
	}{
		{"success", retry.Config{}, always(succeed)},
		{"success-budget", retry.Config{Budget: budget.New(budget.Config{Ratio: 0.1})}, always(succeed)},
		{"third-time", retry.Config{Backoff: retry.Constant(0)}, failTwice},
		{"third-time-budget", retry.Config{Backoff: retry.Constant(0), Budget: budget.New(budget.Config{Ratio: 10})}, failTwice},
		{"refused-by-budget", retry.Config{Budget: empty()}, always(fail)},
	} {
		r := retry.New(bench.c)
		b.Run("call="+bench.name+"/callers=serial", func(b *testing.B) {
			fn := bench.calls()
			b.ReportAllocs()
			for b.Loop() {
				retry.Do(ctx, r, fn)
			}
		})
		b.Run("call="+bench.name+"/callers=parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				fn := bench.calls()
				for pb.Next() {
					retry.Do(ctx, r, fn)
				}
			})
		})
	}
}

// empty returns a budget that practically has no tokens.
func empty() *budget.Budget { return budget.New(budget.Config{Ratio: 1e-6}) }

// BenchmarkTimeout measures a call by timeout.Do, with an effector that uses Done or doesn't.
func BenchmarkTimeout(b *testing.B) {
	sooner, cancel := context.WithTimeout(ctx, time.Hour)
	defer cancel()
	for _, bench := range []struct {
		name string
		ctx  context.Context
		c    timeout.Config
		fn   effector
	}{
		{"success", ctx, timeout.Config{Limit: time.Minute}, succeed},
		{"done", ctx, timeout.Config{Limit: time.Minute}, ask},
		{"under-a-deadline", sooner, timeout.Config{Limit: time.Minute}, succeed},
		{"under-a-sooner-deadline", sooner, timeout.Config{Limit: 24 * time.Hour}, succeed},
		{"abandon", ctx, timeout.Config{Limit: time.Minute, Abandon: 100}, succeed},
	} {
		t := timeout.New(bench.c)
		b.Run("call="+bench.name+"/callers=serial", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				timeout.Do(bench.ctx, t, bench.fn)
			}
		})
		b.Run("call="+bench.name+"/callers=parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					timeout.Do(bench.ctx, t, bench.fn)
				}
			})
		})
	}
}

// BenchmarkBudget measures one budget that all callers share: deposits, withdrawals that find a
// token or none, and both.
func BenchmarkBudget(b *testing.B) {
	for _, bench := range []struct {
		name                string
		c                   budget.Config
		deposits, withdraws int // in one step
	}{
		{"deposit", budget.Config{Ratio: 0.1}, 1, 0},
		{"withdraw-none", budget.Config{Ratio: 1e-6}, 0, 1},
		{"withdraw-reserve", budget.Config{MinPerSecond: 1e6, TTL: time.Hour}, 0, 1},
		{"deposit-and-withdraw", budget.Config{Ratio: 1}, 1, 1},
		{"ten-deposits-and-withdraw", budget.Config{Ratio: 0.1}, 10, 1},
	} {
		b.Run("step="+bench.name+"/callers=serial", func(b *testing.B) {
			x := budget.New(bench.c)
			for b.Loop() {
				for range bench.deposits {
					x.Deposit()
				}
				for range bench.withdraws {
					x.Withdraw()
				}
			}
		})
		b.Run("step="+bench.name+"/callers=parallel", func(b *testing.B) {
			x := budget.New(bench.c)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					for range bench.deposits {
						x.Deposit()
					}
					for range bench.withdraws {
						x.Withdraw()
					}
				}
			})
		})
	}
}
