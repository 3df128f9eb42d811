package bench

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/timeout"
)

// breakers returns a pipeline of n breakers.
func breakers(n int) resilience.Pipeline {
	p := make(resilience.Pipeline, n)
	for i := range p {
		p[i] = breaker.New(breaker.Config{})
	}
	return p
}

// timeouts returns a pipeline of n timeouts. Each is a little shorter than the one around it, so
// each makes a context.
func timeouts(n int) resilience.Pipeline {
	p := make(resilience.Pipeline, n)
	for i := range p {
		p[i] = timeout.After(time.Hour - time.Duration(i)*time.Second)
	}
	return p
}

// BenchmarkPipelineLength measures a call through a pipeline of n policies of one kind.
func BenchmarkPipelineLength(b *testing.B) {
	for _, kind := range []struct {
		name string
		make func(n int) resilience.Pipeline
	}{
		{"breaker", breakers}, {"timeout", timeouts},
	} {
		for _, n := range []int{1, 10, 100, 1000} {
			serialAndParallel(b, fmt.Sprintf("kind=%s/policies=%d", kind.name, n),
				always(composed(kind.make(n))))
		}
	}
}

// BenchmarkPipelineDepth measures a call through nested pipelines with one breaker each, flattened
// by Compose or by each call. If the inner pipeline is before the breaker, a call must remember
// what follows.
func BenchmarkPipelineDepth(b *testing.B) {
	for _, shape := range []struct {
		name string
		make func(depth int) resilience.Pipeline
	}{
		{"inner-last", nested}, {"inner-first", nestedFirst},
	} {
		for _, depth := range []int{1, 10, 100, 1000} {
			name, p := fmt.Sprintf("shape=%s/depth=%d", shape.name, depth), shape.make(depth)
			serialAndParallel(b, name+"/by=compose", always(composed(p)))
			serialAndParallel(b, name+"/by=do", always(byDo(p)))
		}
	}
}

// nestedFirst is nested with the breaker after the inner pipeline.
func nestedFirst(depth int) resilience.Pipeline {
	p := resilience.Pipeline{breaker.New(breaker.Config{})}
	for range depth - 1 {
		p = resilience.Pipeline{p, breaker.New(breaker.Config{})}
	}
	return p
}

var aliveRules = []struct {
	name  string
	c     breaker.Config
	bytes int64 // maximum for an uncontended breaker
}{
	{"consecutive", breaker.Config{}, 512},
	{"rate", breaker.Config{FailureRate: 0.5}, 1536},
	{"slow", breaker.Config{FailureRate: 0.5, SlowRate: 0.5, SlowCall: time.Second}, 1536},
}

// makeBreakers fills alive with breakers that have each had a few calls.
func makeBreakers(alive []*breaker.Breaker, c breaker.Config) {
	for i := range alive {
		alive[i] = breaker.New(c)
		for range 3 {
			breaker.Do(ctx, alive[i], succeed)
		}
	}
}

// heap returns the bytes in use on the heap.
func heap() int64 {
	// Twice: what the first collection finds unreachable may be swept only when the second begins.
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

// watch forgets the breakers. It returns a function that returns how many of them are still in
// memory, held by a timer.
func watch(alive []*breaker.Breaker) (held func() int) {
	pointers := make([]weak.Pointer[breaker.Breaker], len(alive))
	for i, b := range alive {
		pointers[i] = weak.Make(b)
	}
	clear(alive)
	return func() (held int) {
		runtime.GC()
		runtime.GC()
		for _, p := range pointers {
			if p.Value() != nil {
				held++
			}
		}
		return held
	}
}

// BenchmarkBreakersAlive measures a call through n breakers in rotation, and what each of them
// holds: bytes, goroutines, timers. The open ones were opened by failures.
func BenchmarkBreakersAlive(b *testing.B) {
	numbers := []int{1, 10, 100, 1000, 10_000, 100_000}
	for _, rule := range aliveRules {
		for _, n := range numbers {
			b.Run(fmt.Sprintf("rule=%s/state=closed/breakers=%d", rule.name, n), func(b *testing.B) {
				breakersAlive(b, n, rule.c, false)
			})
		}
	}
	for _, n := range numbers {
		b.Run(fmt.Sprintf("rule=consecutive/state=open/breakers=%d", n), func(b *testing.B) {
			// Long enough to create and count them, and not much longer, because their timers are
			// waited for.
			openFor := max(50*time.Millisecond, time.Duration(n)*10*time.Microsecond)
			breakersAlive(b, n, breaker.Config{OpenFor: openFor}, true)
		})
	}
}

func breakersAlive(b *testing.B, n int, c breaker.Config, open bool) {
	alive := make([]*breaker.Breaker, n)
	goroutines, bytes := runtime.NumGoroutine(), heap()
	makeBreakers(alive, c)
	if open {
		openAll(alive)
	}
	bytes, goroutines = heap()-bytes, runtime.NumGoroutine()-goroutines
	timers, held := 0, func() int { return 0 }
	if open { // counted before the open time ends; the calls are made on other breakers, which stay open
		held = watch(alive)
		timers = held()
		makeBreakers(alive, c)
		forceOpen(alive)
	}
	next := 0
	for b.Loop() {
		breaker.Do(ctx, alive[next], succeed)
		if next++; next == n {
			next = 0
		}
	}
	if !open {
		timers = watch(alive)()
	}
	b.ReportMetric(float64(bytes)/float64(n), "B/breaker")
	b.ReportMetric(float64(goroutines)/float64(n), "goroutines/breaker")
	b.ReportMetric(float64(timers)/float64(n), "timers/breaker")
	for held() > 0 { // otherwise these would count in the next measurement
		runtime.Gosched()
	}
}

func forceOpen(alive []*breaker.Breaker) {
	for _, brk := range alive {
		brk.ForceOpen()
	}
}

func openAll(alive []*breaker.Breaker) {
	for _, brk := range alive {
		for brk.State() == breaker.Closed {
			breaker.Do(ctx, brk, fail)
		}
	}
}

// BenchmarkCallers measures a call through one breaker by n concurrent goroutines. Each makes b.N
// calls, so that starting the goroutines hardly matters. ns/op is for one call.
func BenchmarkCallers(b *testing.B) {
	for _, rule := range breakerRules {
		for _, n := range []int{1, 10, 100, 1000, 10_000} {
			b.Run(fmt.Sprintf("rule=%s/goroutines=%d", rule.name, n), func(b *testing.B) {
				brk := breaker.New(rule.c)
				start := make(chan struct{})
				var callers errgroup.Group
				for range n {
					callers.Go(func() error {
						<-start
						for range b.N {
							breaker.Do(ctx, brk, succeed)
						}
						return nil
					})
				}
				b.ResetTimer()
				close(start)
				callers.Wait()
				b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(n), "ns/op")
			})
		}
	}
}

func TestBreakerFitsInExpectedBytes(t *testing.T) {
	for _, rule := range aliveRules {
		alive := make([]*breaker.Breaker, 10_000)
		before := heap()
		makeBreakers(alive, rule.c)
		each := (heap() - before) / int64(len(alive))
		runtime.KeepAlive(alive)
		t.Logf("%s: %d bytes", rule.name, each)
		if each > rule.bytes {
			t.Errorf("%s: got %d bytes for a closed breaker, want at most %d", rule.name, each, rule.bytes)
		}
	}
}

func TestBreakerHoldsNoGoroutineOrTimerWhileClosed(t *testing.T) {
	for _, rule := range breakerRules {
		t.Run(rule.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				alive := make([]*breaker.Breaker, 100)
				goroutines := runtime.NumGoroutine()
				makeBreakers(alive, rule.c)
				if now := runtime.NumGoroutine(); now > goroutines { // goroutines of other tests may end
					t.Errorf("got %d goroutines with the breakers, want %d as before", now, goroutines)
				}
				if n := watch(alive)(); n != 0 {
					t.Errorf("got %d of 100 closed breakers held by timers, want 0", n)
				}
			})
		})
	}
}

// This test also shows that the previous one would detect a timer.
func TestBreakerHoldsTimerOnlyWhileOpen(t *testing.T) {
	for _, rule := range aliveRules {
		t.Run(rule.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				alive := make([]*breaker.Breaker, 100)
				goroutines := runtime.NumGoroutine()
				makeBreakers(alive, rule.c)
				openAll(alive)
				if now := runtime.NumGoroutine(); now > goroutines { // goroutines of other tests may end
					t.Errorf("got %d goroutines with the breakers, want %d as before", now, goroutines)
				}
				held := watch(alive)
				if n := held(); n != 100 {
					t.Errorf("got %d open breakers held by timers, want 100", n)
				}
				time.Sleep(5*time.Second - 1) // OpenFor's default
				synctest.Wait()
				if n := held(); n != 100 {
					t.Errorf("just before the open time ends: got %d breakers held by timers, want 100", n)
				}
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				if n := held(); n != 0 {
					t.Errorf("after the open time: got %d breakers held by timers, want 0", n)
				}
			})
		})
	}
}

func TestPipelineAllocationsGrowLinearly(t *testing.T) {
	for _, kind := range []struct {
		name string
		make func(n int) resilience.Pipeline
		call func(resilience.Pipeline) effector
		want func(n int) float64
	}{
		{"breakers, composed", breakers, composed, func(int) float64 { return 1 }},
		{"timeouts, composed", timeouts, composed, func(n int) float64 { return float64(n) + 1 }},
		{"nested, composed", nestedFirst, composed, func(int) float64 { return 1 }},
		{"nested, by Do", nestedFirst, byDo, func(n int) float64 { return float64(n) + 1 }},
		{"breakers, by Do", breakers, byDo, func(int) float64 { return 2 }},
	} {
		for _, n := range []int{1, 10, 100, 1000} {
			call := kind.call(kind.make(n))
			if got := testing.AllocsPerRun(10, func() { call(ctx) }); got > kind.want(n) {
				t.Errorf("%s: got %v allocations for a call through %d policies, want at most %v", kind.name, got, n, kind.want(n))
			}
		}
	}
}

func composed(p resilience.Pipeline) effector { return resilience.Compose(succeed, p...) }

func byDo(p resilience.Pipeline) effector {
	return func(ctx context.Context) (int, error) { return resilience.Do(ctx, p, succeed) }
}
