package breaker_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/effector-go/resilience/breaker"
)

var configs = []struct {
	name string
	c    breaker.Config
}{
	{"consecutive", breaker.Config{}},
	{"leaky", breaker.Config{Leaky: 5}},
	{"last-calls", breaker.Config{Failures: 50, LastCalls: 100}},
	{"rate", breaker.Config{FailureRate: 0.5}},
	{"slow", breaker.Config{FailureRate: 0.5, SlowRate: 0.5, SlowCall: time.Second}},
}

func succeed(context.Context) (int, error) { return 1, nil }

// BenchmarkDo measures a call through a breaker: closed with each kind of rule, and open.
func BenchmarkDo(b *testing.B) {
	ctx := context.Background()
	for _, config := range configs {
		b.Run(config.name, func(b *testing.B) {
			brk := breaker.New(config.c)
			b.ReportAllocs()
			for b.Loop() {
				breaker.Do(ctx, brk, succeed)
			}
		})
		b.Run(config.name+"/parallel", func(b *testing.B) {
			brk := breaker.New(config.c)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					breaker.Do(ctx, brk, succeed)
				}
			})
		})
	}
	b.Run("open", func(b *testing.B) {
		brk := breaker.New(breaker.Config{})
		brk.ForceOpen()
		b.ReportAllocs()
		for b.Loop() {
			breaker.Do(ctx, brk, succeed)
		}
	})
	b.Run("open/parallel", func(b *testing.B) {
		brk := breaker.New(breaker.Config{})
		brk.ForceOpen()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				breaker.Do(ctx, brk, succeed)
			}
		})
	})
}

// BenchmarkFailure measures a failing call that opens nothing, so that its rule is evaluated each
// time.
func BenchmarkFailure(b *testing.B) {
	ctx, boom := context.Background(), errors.New("boom")
	fail := func(context.Context) (int, error) { return 0, boom }
	brk := breaker.New(breaker.Config{FailureRate: 1, MinCalls: 1 << 40})
	b.ReportAllocs()
	for b.Loop() {
		breaker.Do(ctx, brk, fail)
	}
}

func BenchmarkAcquire(b *testing.B) {
	ctx := context.Background()
	for _, config := range configs {
		b.Run(config.name, func(b *testing.B) {
			brk := breaker.New(config.c)
			b.ReportAllocs()
			for b.Loop() {
				permit, _ := brk.Acquire(ctx)
				permit.Done(nil)
			}
		})
	}
}

func BenchmarkSnapshot(b *testing.B) {
	brk := breaker.New(breaker.Config{FailureRate: 0.5})
	for b.Loop() {
		brk.Snapshot()
	}
}
