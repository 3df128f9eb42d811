// Package peers measures what this library costs beside what a user would take instead: the same effector, or the same HTTP
// request, through each, the rows of one table in one run. Compare within a run: absolute times move with the machine.
//
//	go test -bench . -count 10 ./bench/peers
//
// Every library is used as its documentation says, and as fast as it can be used: what may be made once and shared is made
// outside of the loop, what a call needs for itself within it. Where a library has no context to hand on, none is handed on.
//
// What the libraries do, and what each cannot do, is in the table of TestBehaviour. docs/performance.md is made of both by
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

// An effector is the call that every side makes. Sides get it as a value, so that it is called as users' effectors are: none
// is inlined.
type effector = func(context.Context) (int, error)

func succeed(context.Context) (int, error) { return 1, nil }

func fail(context.Context) (int, error) { return 0, errBoom }

// A side is one library's way to make the call.
type side struct {
	name string
	call func() error
}

// run runs each side of a comparison, serial and on all processors.
func run(b *testing.B, sides []side) {
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

// counter is what the floors count in, alone on its cache line.
var counter struct {
	_ [64]byte
	n atomic.Int64
	_ [64]byte
}

func floors(fn effector) []side {
	start := time.Now()
	return []side{
		{"empty", func() error { return nil }}, // what the loop costs: it is in every row
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

// BenchmarkFloors is what the pieces cost of which policies are made.
func BenchmarkFloors(b *testing.B) {
	run(b, floors(succeed))
}
