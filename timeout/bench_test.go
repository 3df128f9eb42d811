package timeout

import (
	"context"
	"testing"
	"time"
)

// BenchmarkTimeout compares Do with what a caller would write instead, for effectors that call Done
// and for those that don't, with and without a parent that can be canceled.
func BenchmarkTimeout(b *testing.B) {
	idle := func(ctx context.Context) (int, error) { return 1, nil }
	done := func(ctx context.Context) (int, error) {
		ctx.Done()
		return 1, nil
	}
	t := After(time.Minute)
	do := func(ctx context.Context, fn func(context.Context) (int, error)) (int, error) { return Do(ctx, t, fn) }
	std := func(ctx context.Context, fn func(context.Context) (int, error)) (int, error) {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		return fn(ctx)
	}
	cancelable, cancel := context.WithCancel(context.Background())
	defer cancel()
	sooner, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()

	for _, bench := range []struct {
		name string
		ctx  context.Context
		fn   func(context.Context) (int, error)
	}{
		{"idle", context.Background(), idle},
		{"done", context.Background(), done},
		{"idle-cancelable", cancelable, idle},
		{"done-cancelable", cancelable, done},
		{"sooner", sooner, idle},
	} {
		b.Run(bench.name+"/timeout.Do", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				do(bench.ctx, bench.fn)
			}
		})
		b.Run(bench.name+"/context.WithTimeout", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				std(bench.ctx, bench.fn)
			}
		})
	}
}

func BenchmarkAbandon(b *testing.B) {
	t := New(Config{Limit: time.Minute, Abandon: 1})
	b.ReportAllocs()
	for b.Loop() {
		Do(context.Background(), t, func(context.Context) (int, error) { return 1, nil })
	}
}
