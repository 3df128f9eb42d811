package hedge_test

import (
	"context"
	"testing"
	"time"

	"github.com/effector-go/resilience/hedge"
)

func succeed(context.Context) (int, error) { return 1, nil }

// A call that is not hedged.
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

// What a call costs that does no more than run on a goroutine of its own.
func BenchmarkGoroutine(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		done := make(chan int, 1)
		go func() { done <- 1 }()
		<-done
	}
}
