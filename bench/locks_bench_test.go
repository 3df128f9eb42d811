package bench

import (
	"context"
	"sync/atomic"
	"testing"
	"time"
)

// A lockPath is a state of the breaker, and the calls that a benchmark makes in it.
type lockPath struct {
	name    string
	rules   rules
	prepare func(lockForm)  // unless nil
	calls   func() effector // returns the effector of one goroutine
	run     [2]callLoop     // serial, parallel
	reads   bool            // calls only read, so the wrong forms can be measured too, without a data race
}

// A callLoop makes the calls of a benchmark and returns how many returned an error.
type callLoop = func(b *testing.B, f lockForm, calls func() effector) (errs int64)

var callers = [2]string{"serial", "parallel"}

var lockPaths = []lockPath{
	{
		name:  "closed",
		rules: rules{failures: 5, openFor: time.Hour, probes: 1},
		calls: func() effector { return succeed },
		reads: true,
		run:   callLoops,
	},
	{
		name:  "failing", // 1 call in 100 fails, so the limit of consecutive failures is never reached
		rules: rules{failures: 1 << 20, openFor: time.Hour, probes: 1},
		calls: failOneIn100,
		run:   callLoops,
	},
	{
		name:    "open",
		rules:   rules{failures: 1, openFor: time.Hour, probes: 1},
		prepare: func(f lockForm) { f.Do(ctx, fail) },
		calls:   func() effector { return succeed },
		reads:   true,
		run:     callLoops,
	},
	{
		name:    "half-open", // stays half-open: its probes succeed, but never enough of them
		rules:   rules{failures: 1, openFor: 1, probes: 1 << 62},
		prepare: makeHalfOpen,
		calls:   func() effector { return succeed },
		run:     callLoops,
	},
	{
		name:  "tripping", // a failure that opens the breaker, and a Reset
		rules: rules{failures: 1, openFor: time.Millisecond, probes: 1},
		calls: func() effector { return fail },
		run:   tripLoops,
	},
}

// failOneIn100 returns an effector for one goroutine.
func failOneIn100() effector {
	n := 0
	return func(context.Context) (int, error) {
		if n++; n == 100 {
			n = 0
			return 0, errBoom
		}
		return 1, nil
	}
}

// BenchmarkLocks measures a call through each form of the same small breaker, on each path.
// refused/op is the share of a half-open breaker's callers that found a probe running.
func BenchmarkLocks(b *testing.B) {
	for _, path := range lockPaths {
		forms := lockForms
		if path.reads {
			forms = append(lockForms[:len(lockForms):len(lockForms)], wrongForms...)
		}
		for _, form := range forms {
			for i, run := range path.run {
				b.Run("path="+path.name+"/form="+form.name+"/callers="+callers[i], func(b *testing.B) {
					f := form.make(path.rules)
					if path.prepare != nil {
						path.prepare(f)
					}
					b.ReportAllocs()
					errs := run(b, f, path.calls)
					if path.name == "half-open" {
						b.ReportMetric(float64(errs)/float64(b.N), "refused/op")
					}
				})
			}
		}
	}
}

// The loops are repeated for each form so that each calls its Do directly, as users' code would.
// Through an interface, the library's Do would be two calls deep.

var callLoops = [2]callLoop{callSerial, callParallel}

func callSerial(b *testing.B, f lockForm, calls func() effector) (errs int64) {
	fn := calls()
	switch f := f.(type) {
	case *twoMutexes:
		for b.Loop() {
			if _, err := f.Do(ctx, fn); err != nil {
				errs++
			}
		}
	case *rwMutex:
		for b.Loop() {
			if _, err := f.Do(ctx, fn); err != nil {
				errs++
			}
		}
	case *rwMutexFailures:
		for b.Loop() {
			if _, err := f.Do(ctx, fn); err != nil {
				errs++
			}
		}
	case *oneMutex:
		for b.Loop() {
			if _, err := f.Do(ctx, fn); err != nil {
				errs++
			}
		}
	case *atomicCount:
		for b.Loop() {
			if _, err := f.Do(ctx, fn); err != nil {
				errs++
			}
		}
	case *library:
		for b.Loop() {
			if _, err := f.Do(ctx, fn); err != nil {
				errs++
			}
		}
	case *heldMutex:
		for b.Loop() {
			if _, err := f.Do(ctx, fn); err != nil {
				errs++
			}
		}
	case *unlimitedProbes:
		for b.Loop() {
			if _, err := f.Do(ctx, fn); err != nil {
				errs++
			}
		}
	case *readLocks:
		for b.Loop() {
			if _, err := f.Do(ctx, fn); err != nil {
				errs++
			}
		}
	case *looseAtomics:
		for b.Loop() {
			if _, err := f.Do(ctx, fn); err != nil {
				errs++
			}
		}
	}
	return errs
}

func callParallel(b *testing.B, f lockForm, calls func() effector) int64 {
	var total atomic.Int64
	b.RunParallel(func(pb *testing.PB) {
		fn, errs := calls(), int64(0)
		switch f := f.(type) {
		case *twoMutexes:
			for pb.Next() {
				if _, err := f.Do(ctx, fn); err != nil {
					errs++
				}
			}
		case *rwMutex:
			for pb.Next() {
				if _, err := f.Do(ctx, fn); err != nil {
					errs++
				}
			}
		case *rwMutexFailures:
			for pb.Next() {
				if _, err := f.Do(ctx, fn); err != nil {
					errs++
				}
			}
		case *oneMutex:
			for pb.Next() {
				if _, err := f.Do(ctx, fn); err != nil {
					errs++
				}
			}
		case *atomicCount:
			for pb.Next() {
				if _, err := f.Do(ctx, fn); err != nil {
					errs++
				}
			}
		case *library:
			for pb.Next() {
				if _, err := f.Do(ctx, fn); err != nil {
					errs++
				}
			}
		case *heldMutex:
			for pb.Next() {
				if _, err := f.Do(ctx, fn); err != nil {
					errs++
				}
			}
		case *unlimitedProbes:
			for pb.Next() {
				if _, err := f.Do(ctx, fn); err != nil {
					errs++
				}
			}
		case *readLocks:
			for pb.Next() {
				if _, err := f.Do(ctx, fn); err != nil {
					errs++
				}
			}
		case *looseAtomics:
			for pb.Next() {
				if _, err := f.Do(ctx, fn); err != nil {
					errs++
				}
			}
		}
		total.Add(errs)
	})
	return total.Load()
}

var tripLoops = [2]callLoop{tripSerial, tripParallel}

func tripSerial(b *testing.B, f lockForm, calls func() effector) int64 {
	fn := calls()
	switch f := f.(type) {
	case *twoMutexes:
		for b.Loop() {
			f.Do(ctx, fn)
			f.Reset()
		}
	case *rwMutex:
		for b.Loop() {
			f.Do(ctx, fn)
			f.Reset()
		}
	case *rwMutexFailures:
		for b.Loop() {
			f.Do(ctx, fn)
			f.Reset()
		}
	case *oneMutex:
		for b.Loop() {
			f.Do(ctx, fn)
			f.Reset()
		}
	case *atomicCount:
		for b.Loop() {
			f.Do(ctx, fn)
			f.Reset()
		}
	case *library:
		for b.Loop() {
			f.Do(ctx, fn)
			f.Reset()
		}
	}
	return 0
}

func tripParallel(b *testing.B, f lockForm, calls func() effector) int64 {
	b.RunParallel(func(pb *testing.PB) {
		fn := calls()
		switch f := f.(type) {
		case *twoMutexes:
			for pb.Next() {
				f.Do(ctx, fn)
				f.Reset()
			}
		case *rwMutex:
			for pb.Next() {
				f.Do(ctx, fn)
				f.Reset()
			}
		case *rwMutexFailures:
			for pb.Next() {
				f.Do(ctx, fn)
				f.Reset()
			}
		case *oneMutex:
			for pb.Next() {
				f.Do(ctx, fn)
				f.Reset()
			}
		case *atomicCount:
			for pb.Next() {
				f.Do(ctx, fn)
				f.Reset()
			}
		case *library:
			for pb.Next() {
				f.Do(ctx, fn)
				f.Reset()
			}
		}
	})
	return 0
}
