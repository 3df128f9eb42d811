package hedge_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/hedge"
)

func succeed(context.Context) (int, error) { return 1, nil }

// BenchmarkDo measures a call that isn't hedged.
func BenchmarkDo(b *testing.B) {
	cancelable, cancel := context.WithCancel(context.Background())
	defer cancel()
	asks := func(ctx context.Context) (int, error) {
		ctx.Done()
		return 1, nil
	}
	for _, bench := range []struct {
		name   string
		config hedge.Config
		ctx    context.Context
		fn     func(context.Context) (int, error)
	}{
		{"delay", hedge.Config{Delay: time.Second}, context.Background(), succeed},
		{"quantile", hedge.Config{Delay: time.Second, Quantile: 0.95, MinSamples: 1 << 40}, context.Background(), succeed},
		{"delay-done", hedge.Config{Delay: time.Second}, cancelable, asks},
	} {
		h := hedge.New(bench.config)
		b.Run(bench.name+"/callers=serial", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				hedge.Do(bench.ctx, h, bench.fn)
			}
		})
		b.Run(bench.name+"/callers=parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					hedge.Do(bench.ctx, h, bench.fn)
				}
			})
		})
	}
}

// BenchmarkGoroutine measures the cost of running a function on its own goroutine and waiting for
// it.
func BenchmarkGoroutine(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		done := make(chan int, 1)
		go func() { done <- 1 }()
		<-done
	}
}

// BenchmarkTail measures the effect of hedging on the tail, in real time: one call in a hundred
// takes a hundred times as long. p99 is the 99th percentile of the durations, more the share of
// additional calls.
func BenchmarkTail(b *testing.B) {
	const typical = time.Millisecond
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(1, 2))
	starts, slow := 0, 0
	dependency := func(ctx context.Context) (time.Duration, error) {
		mu.Lock()
		if starts%100 == 0 {
			slow = starts + random.IntN(100)
		}
		d := time.Duration((0.5 + random.Float64()) * float64(typical))
		if starts == slow {
			d *= 100
		}
		starts++
		mu.Unlock()
		return sleep(d)(ctx)
	}
	for name, call := range map[string]resilience.Effector[time.Duration]{
		"waits":  dependency,
		"hedges": resilience.Compose(dependency, hedge.New(hedge.Config{Quantile: 0.98})),
	} {
		b.Run(name, func(b *testing.B) {
			starts = 0
			var took []time.Duration
			b.SetParallelism(32)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					began := time.Now()
					call(context.Background())
					d := time.Since(began)
					mu.Lock()
					took = append(took, d)
					mu.Unlock()
				}
			})
			slices.Sort(took)
			b.ReportMetric(took[len(took)*99/100].Seconds()*1e3, "p99-ms")
			b.ReportMetric(100*(float64(starts)/float64(b.N)-1), "more-%")
		})
	}
}
