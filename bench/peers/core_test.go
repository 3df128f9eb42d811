// Package peers compares the cost of this library with that of its alternatives.
// Each benchmark makes the same call, or sends the same HTTP request, through each library.
// Compare only rows of one run: absolute times differ between machines and change on one machine.
//
//	go test -bench . -count 10 ./bench/peers
//
// Every library is used as its documentation says, in its fastest way:
//
//   - what can be created once and shared is created outside the loop
//   - what each call needs for itself is created within it
//   - an effector gets a context only if the library passes one
//
// TestBehavior finds out what the libraries do when calls go wrong.
// The pages docs/performance.md and docs/internals/measurements.md are made from both by
//
//	go run ./bench/peers/report
package peers

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"
)

var (
	ctx     = context.Background()
	errBoom = errors.New("boom")
)

// An effector is the call that every side makes. It is a function value, as users' effectors are,
// so it is never inlined.
type effector = func(context.Context) (int, error)

func succeed(context.Context) (int, error) { return 1, nil }

func fail(context.Context) (int, error) { return 0, errBoom }

// wait waits for a result or for the end of its context, as net/http, database/sql, and gRPC do.
// The result is already there.
func wait(ctx context.Context) (int, error) {
	select {
	case <-result:
		return 1, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

var result = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// request returns a context that can be canceled, as an HTTP server's requests have.
func request(tb testing.TB) context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	tb.Cleanup(cancel)
	return ctx
}

// A side is one library's way to make the call.
type side struct {
	name string
	call func() error
}

// warmUp lets the heap and the timers reach their usual size and cleans up after the benchmark before.
// Otherwise the first side of a comparison takes up to three times as long as the others.
func warmUp() {
	for range 20_000 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		ctx.Done()
		cancel()
	}
}

// run measures each side of a comparison, with one goroutine and with one per processor.
func run(b *testing.B, sides []side) {
	warmUp()
	for _, s := range sides {
		b.Run(s.name+"/serial", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.call()
			}
		})
		b.Run(s.name+"/parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					s.call()
				}
			})
		})
	}
}

// counter is alone on its cache line.
var counter struct {
	_ [64]byte
	n atomic.Int64
	_ [64]byte
}

func floors(fn effector) []side {
	start := time.Now()
	return []side{
		{"empty", func() error { return nil }}, // the loop, which is part of every row
		{"bare", func() error { _, err := fn(ctx); return err }},
		{"load-compare", func() error {
			if counter.n.Load() == -1 {
				return errBoom
			}
			return nil
		}},
		{"add", func() error { counter.n.Add(1); return nil }},
		{"now", func() error { _ = time.Now(); return nil }},
		{"since", func() error { _ = time.Since(start); return nil }},
	}
}

// BenchmarkFloors is the cost of the operations that policies consist of.
func BenchmarkFloors(b *testing.B) {
	run(b, floors(succeed))
}
