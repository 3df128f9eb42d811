// Package bench measures, on the reader's own machine, the cost of a call through the library's
// policies. For comparison it measures the floors of the machine, and other ways in which a breaker
// may lock: see docs/internals/locks.md. Its tests check what needs no clock: which lock forms are
// correct, and what grows with the number of breakers and policies.
//
//	go test -run '^$' -bench . -cpu 1,2,4,8 ./bench
//
// Names are key=value pairs, as benchstat reads them. callers=serial is one goroutine;
// callers=parallel is testing's RunParallel.
package bench

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var ctx = context.Background()

func succeed(context.Context) (int, error) { return 1, nil }

func fail(context.Context) (int, error) { return 0, errBoom }

// called is the function that the floor of a call calls. It is a variable because a policy calls an
// effector through one, which can't be inlined.
var called effector = succeed

// floors are shared by the parallel callers. Each has its own cache line.
var floors struct {
	_    [64]byte
	word atomic.Int64
	_    [64]byte
	mu   sync.Mutex
	_    [64]byte
	rw   sync.RWMutex
	_    [64]byte
}

// BenchmarkFloors measures what the building blocks of policies cost on this machine.
func BenchmarkFloors(b *testing.B) {
	floor := func(name string, serial func(*testing.B), parallel func(*testing.PB)) {
		b.Run("floor="+name+"/callers=serial", serial)
		b.Run("floor="+name+"/callers=parallel", func(b *testing.B) { b.RunParallel(parallel) })
	}
	floor("call", func(b *testing.B) {
		for b.Loop() {
			called(ctx)
		}
	}, func(pb *testing.PB) {
		for pb.Next() {
			called(ctx)
		}
	})
	floor("atomic-load", func(b *testing.B) {
		for b.Loop() {
			floors.word.Load()
		}
	}, func(pb *testing.PB) {
		for pb.Next() {
			floors.word.Load()
		}
	})
	floor("atomic-add", func(b *testing.B) {
		for b.Loop() {
			floors.word.Add(1)
		}
	}, func(pb *testing.PB) {
		for pb.Next() {
			floors.word.Add(1)
		}
	})
	// Includes the load before it, as in counting by compare-and-swap. In parallel, some of the
	// swaps fail.
	floor("compare-and-swap", func(b *testing.B) {
		for b.Loop() {
			addBySwap(&floors.word)
		}
	}, func(pb *testing.PB) {
		for pb.Next() {
			addBySwap(&floors.word)
		}
	})
	floor("time-now", func(b *testing.B) {
		for b.Loop() {
			_ = time.Now()
		}
	}, func(pb *testing.PB) {
		for pb.Next() {
			_ = time.Now()
		}
	})
	// Uncontended if serial, contended if parallel.
	floor("mutex", func(b *testing.B) {
		for b.Loop() {
			floors.mu.Lock()
			floors.mu.Unlock() //lint:ignore SA2001 the empty section is what is measured
		}
	}, func(pb *testing.PB) {
		for pb.Next() {
			floors.mu.Lock()
			floors.mu.Unlock() //lint:ignore SA2001 the empty section is what is measured
		}
	})
	floor("read-lock", func(b *testing.B) {
		for b.Loop() {
			floors.rw.RLock()
			floors.rw.RUnlock() //lint:ignore SA2001 the empty section is what is measured
		}
	}, func(pb *testing.PB) {
		for pb.Next() {
			floors.rw.RLock()
			floors.rw.RUnlock() //lint:ignore SA2001 the empty section is what is measured
		}
	})
	floor("context-with-timeout", func(b *testing.B) {
		for b.Loop() {
			_, cancel := context.WithTimeout(ctx, time.Minute)
			cancel()
		}
	}, func(pb *testing.PB) {
		for pb.Next() {
			_, cancel := context.WithTimeout(ctx, time.Minute)
			cancel()
		}
	})
}

// addBySwap is a separate function because Loop keeps the variables of its body in memory.
func addBySwap(word *atomic.Int64) bool {
	v := word.Load()
	return word.CompareAndSwap(v, v+1)
}
