package bench

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/adaptive"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/bulkhead"
	"github.com/effector-go/resilience/debounce"
	"github.com/effector-go/resilience/hedge"
	"github.com/effector-go/resilience/ratelimit"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/share"
	"github.com/effector-go/resilience/shed"
	"github.com/effector-go/resilience/throttle"
	"github.com/effector-go/resilience/timeout"
)

// everything returns a pipeline of all policies, in the order of docs/composition.md.
func everything() resilience.Pipeline {
	extra := budget.New(budget.Config{Ratio: 0.1, TTL: 5 * time.Minute})
	return resilience.Pipeline{
		timeout.After(3 * time.Second),
		retry.New(retry.Config{Budget: extra}),
		hedge.New(hedge.Config{Quantile: 0.95, MinSamples: plenty, Delay: time.Minute, Budget: extra}),
		breaker.New(breaker.Config{FailureRate: 0.5}),
		shed.New(shed.Config{}),
		bulkhead.New(bulkhead.Config{Limit: 1000, Queue: 1000}),
		ratelimit.New(ratelimit.Config{Rate: 1e6, Burst: plenty}),
		adaptive.New(adaptive.Config{Min: 20}),
		throttle.New(throttle.Config{Max: 1e9, Refill: 1e9, Every: time.Millisecond}),
		timeout.After(time.Second),
	}
}

// BenchmarkBulkhead measures a call through a bulkhead: admitted, refused, and in a queue where one
// call runs at any time.
func BenchmarkBulkhead(b *testing.B) {
	roomy := bulkhead.New(bulkhead.Config{Limit: 1000})
	serialAndParallel(b, "call=success", byBulkhead(roomy))
	serialAndParallel(b, "call=acquire-release", always(func(ctx context.Context) (int, error) {
		permit, err := roomy.Acquire(ctx)
		permit.Release()
		return 1, err
	}))
	full, empty := fullBulkhead()
	defer empty()
	serialAndParallel(b, "call=refused", byBulkhead(full))
	serialAndParallel(b, "call=queued", byBulkhead(bulkhead.New(bulkhead.Config{Limit: 1, Queue: 1 << 20})))
}

func byBulkhead(x *bulkhead.Bulkhead) func() effector {
	return always(func(ctx context.Context) (int, error) { return bulkhead.Do(ctx, x, succeed) })
}

// fullBulkhead returns a bulkhead that is full until empty is called.
func fullBulkhead() (full *bulkhead.Bulkhead, empty func()) {
	full = bulkhead.New(bulkhead.Config{Limit: 1})
	permit, err := full.Acquire(ctx)
	if err != nil {
		panic(err) // a new bulkhead admits a call
	}
	return full, permit.Release
}

const plenty = 1 << 40 // tokens: more than the benchmarks take

// BenchmarkRateLimit measures a call that is admitted immediately or refused, and the same with
// Allow.
func BenchmarkRateLimit(b *testing.B) {
	for _, bench := range []struct {
		name string
		c    ratelimit.Config
	}{
		{"success", ratelimit.Config{Rate: 1e6, Burst: plenty}},
		{"refused", ratelimit.Config{Rate: 1e-6}},
	} {
		l := ratelimit.New(bench.c)
		l.Allow() // takes the only token if there is only one
		serialAndParallel(b, "call="+bench.name, always(func(ctx context.Context) (int, error) {
			return ratelimit.Do(ctx, l, succeed)
		}))
		serialAndParallel(b, "call=allow-"+bench.name, always(func(context.Context) (int, error) {
			l.Allow()
			return 1, nil
		}))
	}
}

// BenchmarkRateLimitByKey measures a call that a key's limiter admits: always the same key, or many
// keys in rotation.
func BenchmarkRateLimitByKey(b *testing.B) {
	for _, keys := range []int{1, 10_000} {
		k := ratelimit.NewKeyed(ratelimit.KeyedConfig[int]{Config: ratelimit.Config{Rate: 1e6, Burst: plenty}})
		for key := range keys {
			ratelimit.DoKey(ctx, k, key, succeed)
		}
		serialAndParallel(b, fmt.Sprintf("keys=%d", keys), func() effector {
			key := 0
			return func(ctx context.Context) (int, error) {
				if key++; key == keys {
					key = 0
				}
				return ratelimit.DoKey(ctx, k, key, succeed)
			}
		})
	}
}

// BenchmarkThrottle measures a call that is admitted or refused.
func BenchmarkThrottle(b *testing.B) {
	for _, bench := range []struct {
		name string
		c    throttle.Config
	}{
		{"success", throttle.Config{Max: 1e9, Refill: 1e9, Every: time.Millisecond}},
		{"refused", throttle.Config{Max: 1, Refill: 1, Every: 24 * time.Hour}},
	} {
		x := throttle.New(bench.c)
		throttle.Do(ctx, x, succeed) // takes the only token if there is only one
		serialAndParallel(b, "call="+bench.name, always(func(ctx context.Context) (int, error) {
			return throttle.Do(ctx, x, succeed)
		}))
	}
}

// BenchmarkShare measures a call that makes a run, or shares one if callers are concurrent, and a
// call that finds a fresh value: of one effector, and of a group's only key or many keys in
// rotation.
func BenchmarkShare(b *testing.B) {
	serialAndParallel(b, "call=run", always(share.Calls(succeed)))
	serialAndParallel(b, "call=fresh", always(share.Stale(succeed, time.Hour, 0)))
	byKey := func(ctx context.Context, key int) (int, error) { return key, nil }
	running := share.NewGroup(share.Config{}, byKey)
	serialAndParallel(b, "call=run-of-group", always(func(ctx context.Context) (int, error) { return running.Do(ctx, 1) }))
	keeping := share.NewGroup(share.Config{Fresh: time.Hour}, byKey)
	for _, keys := range []int{1, 10_000} {
		for key := range keys {
			keeping.Do(ctx, key)
		}
		serialAndParallel(b, fmt.Sprintf("call=fresh-of-group/keys=%d", keys), func() effector {
			key := 0
			return func(ctx context.Context) (int, error) {
				if key++; key == keys {
					key = 0
				}
				return keeping.Do(ctx, key)
			}
		})
	}
}

// BenchmarkDebounce measures a call within a burst, which gets the result of the first; a call that
// begins a burst; and a call that is its burst's only and last one, with a timer of no delay.
func BenchmarkDebounce(b *testing.B) {
	serialAndParallel(b, "call=in-a-burst", always(debounce.First(succeed, time.Hour, 0)))
	serialAndParallel(b, "call=first", always(debounce.First(succeed, 0, 0)))
	serialAndParallel(b, "call=last", always(debounce.Last(succeed, 0, 0)))
}

// BenchmarkHedge measures a call that returns before it would be started again, and one that is
// started again immediately. The latter always finds a token in its budget, because each call
// deposits one.
func BenchmarkHedge(b *testing.B) {
	for _, bench := range []struct {
		name string
		c    hedge.Config
	}{
		{"success", hedge.Config{Delay: time.Minute}},
		{"success-quantile", hedge.Config{Delay: time.Minute, Quantile: 0.95, MinSamples: plenty}},
	} {
		h := hedge.New(bench.c)
		serialAndParallel(b, "call="+bench.name, always(func(ctx context.Context) (int, error) { return hedge.Do(ctx, h, succeed) }))
		serialAndParallel(b, "call="+bench.name+"-done", always(func(ctx context.Context) (int, error) { return hedge.Do(ctx, h, ask) }))
	}
	immediate := hedge.New(hedge.Config{Delay: time.Minute, Budget: budget.New(budget.Config{Ratio: 1})})
	serialAndParallel(b, "call=second-start", always(func(ctx context.Context) (int, error) {
		var starts atomic.Int32
		return hedge.Do(ctx, immediate, func(context.Context) (int, error) {
			if starts.Add(1) == 1 {
				return 0, errBoom
			}
			return 1, nil
		})
	}))
}

// BenchmarkShed measures a call to a healthy dependency, and one to a failing dependency: nine in
// ten are refused.
func BenchmarkShed(b *testing.B) {
	for _, bench := range []struct {
		name     string
		fn       effector
		failures int // earlier failures
	}{
		{"success", succeed, 0}, {"refused", fail, 10_000},
	} {
		s := shed.New(shed.Config{})
		for range bench.failures {
			shed.Do(ctx, s, fail)
		}
		serialAndParallel(b, "call="+bench.name, always(func(ctx context.Context) (int, error) { return shed.Do(ctx, s, bench.fn) }))
	}
}

// BenchmarkAdaptive measures a call that is admitted, with each algorithm and with a priority, and
// one that is refused.
func BenchmarkAdaptive(b *testing.B) {
	least := func(context.Context) int { return 0 }
	for _, bench := range []struct {
		name string
		c    adaptive.Config
	}{
		{"success", adaptive.Config{Min: 20}},
		{"success-priority", adaptive.Config{Min: 20, Priority: least}},
		{"success-aimd", adaptive.Config{Min: 20, Algorithm: adaptive.AIMD}},
	} {
		l := adaptive.New(bench.c)
		serialAndParallel(b, "call="+bench.name, always(func(ctx context.Context) (int, error) { return adaptive.Do(ctx, l, succeed) }))
	}
	full, empty := fullLimiter()
	defer empty()
	serialAndParallel(b, "call=refused", always(func(ctx context.Context) (int, error) { return adaptive.Do(ctx, full, succeed) }))
}

// fullLimiter returns a limiter that is full until empty is called: its only call hangs.
func fullLimiter() (full *adaptive.Limiter, empty func()) {
	full = adaptive.New(adaptive.Config{Initial: 1, Max: 1})
	entered, end := make(chan struct{}), make(chan struct{})
	var hanging errgroup.Group
	hanging.Go(func() error {
		_, err := adaptive.Do(ctx, full, func(context.Context) (int, error) {
			close(entered)
			<-end
			return 1, nil
		})
		return err
	})
	<-entered
	return full, func() { close(end); hanging.Wait() }
}
