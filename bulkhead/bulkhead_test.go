package bulkhead_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/bulkhead"
	"github.com/effector-go/resilience/resiliencetest"
	"github.com/effector-go/resilience/timeout"
)

// check compares a bulkhead's counts.
func check(t *testing.T, b *bulkhead.Bulkhead, running, waiting int) {
	t.Helper()
	if s := b.Snapshot(); s.Running != running || s.Waiting != waiting {
		t.Errorf("got %d running and %d waiting, want %d and %d", s.Running, s.Waiting, running, waiting)
	}
}

// take acquires a free place.
func take(t *testing.T, b *bulkhead.Bulkhead) *bulkhead.Permit {
	t.Helper()
	permit, err := b.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return &permit
}

func TestBulkheadBoundsRunningAndWaitingCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bulkhead.New(bulkhead.Config{Name: "reports", Limit: 3, Queue: 5})
		slow := resiliencetest.Slow[int](time.Second)
		var refused atomic.Int32
		var g errgroup.Group
		for range 20 {
			g.Go(func() error {
				_, err := bulkhead.Do(t.Context(), b, slow.Do)
				if errors.Is(err, bulkhead.ErrFull) && errors.Is(err, resilience.ErrRefused) {
					refused.Add(1)
					return nil
				}
				return err
			})
		}
		synctest.Wait()
		check(t, b, 3, 5)
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		if slow.Calls() != 8 || slow.MaxConcurrent() != 3 || refused.Load() != 12 {
			t.Errorf("got %d calls, %d concurrently, and %d refused, want 8, 3, and 12", slow.Calls(), slow.MaxConcurrent(), refused.Load())
		}
		check(t, b, 0, 0)
	})
}

// Newcomers don't overtake a waiting call either.
func TestBulkheadServesWaitersInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bulkhead.New(bulkhead.Config{Limit: 1, Queue: 100})
		first := take(t, b)
		var mu sync.Mutex
		var order []int
		var g errgroup.Group
		for i := range 10 {
			g.Go(func() error {
				_, err := bulkhead.Do(t.Context(), b, func(context.Context) (int, error) {
					mu.Lock()
					order = append(order, i)
					mu.Unlock()
					if i < 5 { // a newcomer, while the place is about to become free
						g.Go(func() error {
							_, err := bulkhead.Do(t.Context(), b, func(context.Context) (int, error) {
								mu.Lock()
								defer mu.Unlock()
								order = append(order, 100+i)
								return 0, nil
							})
							return err
						})
						synctest.Wait()
					}
					return 0, nil
				})
				return err
			})
			synctest.Wait()
		}
		first.Release()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		if want := []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 100, 101, 102, 103, 104}; !slices.Equal(order, want) {
			t.Errorf("got order %v, want %v", order, want)
		}
	})
}

// The waiter leaves immediately, takes nothing with it, and gets its context's error.
func TestBulkheadWaiterLeavesWhenContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bulkhead.New(bulkhead.Config{Limit: 1, Queue: 3})
		held := take(t, b)
		cause := errors.New("cause")
		ctx, cancel := context.WithCancelCause(t.Context())
		var g errgroup.Group
		for i := range 3 { // the second one leaves
			own := t.Context()
			if i == 1 {
				own = ctx
			}
			g.Go(func() error {
				permit, err := b.Acquire(own)
				if i == 1 {
					if !errors.Is(err, context.Canceled) || !errors.Is(err, cause) || errors.Is(err, bulkhead.ErrFull) {
						t.Errorf("got %v, want the context's error with its cause", err)
					}
					return nil
				}
				time.Sleep(time.Second)
				permit.Release()
				return err
			})
			synctest.Wait()
		}
		check(t, b, 1, 3)
		cancel(cause)
		synctest.Wait()
		check(t, b, 1, 2)
		held.Release()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		check(t, b, 0, 0)
	})
}

func TestBulkheadAdmitsAfterLastWaiterLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bulkhead.New(bulkhead.Config{Limit: 1, Queue: 1, MaxWait: time.Second})
		held := take(t, b)
		_, err := b.Acquire(t.Context())
		var full *bulkhead.FullError
		if !errors.As(err, &full) || *full != (bulkhead.FullError{Limit: 1, Queue: 1, Waited: time.Second}) {
			t.Errorf("got %#v, want a *FullError with Waited 1s", err)
		}
		check(t, b, 1, 0)
		held.Release()
		take(t, b).Release()
		check(t, b, 0, 0)
	})
}

// silent is a context that ends without waking its waiters, like one that is canceled in the
// instant after the waiter was woken.
type silent struct {
	context.Context
	ended atomic.Bool
}

func (s *silent) Err() error {
	if s.ended.Load() {
		return context.Canceled
	}
	return nil
}

// The end of the context takes precedence, and the next waiter gets the place.
func TestBulkheadPassesOnPlaceOfEndedContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bulkhead.New(bulkhead.Config{Limit: 1, Queue: 2})
		held := take(t, b)
		ctx := &silent{Context: t.Context()}
		var g errgroup.Group
		g.Go(func() error {
			if _, err := b.Acquire(ctx); !errors.Is(err, context.Canceled) || errors.Is(err, bulkhead.ErrFull) {
				t.Errorf("waiter whose context ended: got %v, want context.Canceled", err)
			}
			return nil
		})
		synctest.Wait()
		g.Go(func() error {
			permit, err := b.Acquire(t.Context())
			permit.Release()
			return err
		})
		synctest.Wait()
		ctx.ended.Store(true)
		held.Release() // hands the place to the first waiter
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		check(t, b, 0, 0)
	})
}

// Package timeout arms its timer only when something waits for the context.
func TestBulkheadTimeoutEndsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bulkhead.New(bulkhead.Config{Limit: 1, Queue: 1, MaxWait: time.Minute})
		held := take(t, b)
		began := time.Now()
		_, err := resilience.Compose(resiliencetest.FailFirst[int](0).Do, timeout.After(time.Second), b)(t.Context())
		if !errors.Is(err, timeout.ErrTimeout) || errors.Is(err, bulkhead.ErrFull) || time.Since(began) != time.Second {
			t.Errorf("got %v after %v, want a timeout after 1s", err, time.Since(began))
		}
		check(t, b, 1, 0)
		held.Release()
		check(t, b, 0, 0)
	})
}

// MaxWait counts from the call, not from the head of the queue, and doesn't interrupt a running
// call.
func TestBulkheadMaxWaitBoundsOnlyQueueing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bulkhead.New(bulkhead.Config{Limit: 1, Queue: 10, MaxWait: 2500 * time.Millisecond})
		slow := resiliencetest.Slow[int](time.Second)
		var ended, refused []time.Duration
		began := time.Now()
		var mu sync.Mutex
		var g errgroup.Group
		for range 5 {
			g.Go(func() error {
				_, err := bulkhead.Do(t.Context(), b, slow.Do)
				mu.Lock()
				defer mu.Unlock()
				var full *bulkhead.FullError
				if errors.As(err, &full) {
					refused = append(refused, full.Waited)
					return nil
				}
				ended = append(ended, time.Since(began))
				return err
			})
		}
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		if !slices.Equal(ended, []time.Duration{1e9, 2e9, 3e9}) || !slices.Equal(refused, []time.Duration{2.5e9, 2.5e9}) {
			t.Errorf("calls ended at %v and were refused after %v, want [1s 2s 3s] and [2.5s 2.5s]", ended, refused)
		}
		check(t, b, 0, 0)
	})
}

// Either the waiting call or the next one gets the place.
func TestBulkheadKeepsPlaceFreedAsWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bulkhead.New(bulkhead.Config{Limit: 1, Queue: 1, MaxWait: time.Second})
		for range 100 { // which of the two timers fires first is random
			held := take(t, b)
			var g errgroup.Group
			g.Go(func() error {
				permit, err := b.Acquire(t.Context())
				defer permit.Release()
				if err != nil && !errors.Is(err, bulkhead.ErrFull) {
					return err
				}
				return nil
			})
			time.Sleep(time.Second)
			held.Release()
			if err := g.Wait(); err != nil {
				t.Error(err)
			}
			check(t, b, 0, 0)
		}
	})
}

// Resize admits only as many waiters as there is room for.
func TestResizeAdmitsWaitersInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bulkhead.New(bulkhead.Config{Limit: 1, Queue: 10})
		held := take(t, b)
		var mu sync.Mutex
		var order []int
		end := make(chan struct{})
		var g errgroup.Group
		for i := range 6 {
			g.Go(func() error {
				_, err := bulkhead.Do(t.Context(), b, func(context.Context) (int, error) {
					mu.Lock()
					order = append(order, i)
					mu.Unlock()
					<-end
					return 0, nil
				})
				return err
			})
			synctest.Wait()
		}
		for limit := 2; limit <= 7; limit++ {
			b.Resize(limit)
			synctest.Wait()
			check(t, b, limit, 7-limit)
		}
		b.Resize(3)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := b.Acquire(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a newcomer got %v while more calls run than the limit allows, want context.DeadlineExceeded", err)
		}
		close(end)
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		held.Release()
		if !slices.Equal(order, []int{0, 1, 2, 3, 4, 5}) {
			t.Errorf("got order %v, want 0 to 5", order)
		}
		check(t, b, 0, 0)
	})
}

var global = bulkhead.New(bulkhead.Config{Limit: 1, Queue: 1})

// A waiter must not wait for anything that was created outside its bubble.
func TestBulkheadOfPackageWorksInBubble(t *testing.T) {
	for range 2 {
		synctest.Test(t, func(t *testing.T) {
			held := take(t, global)
			time.AfterFunc(time.Hour, held.Release)
			take(t, global).Release()
		})
	}
}

func TestBulkheadReleasesPlaceOnPanicAndGoexit(t *testing.T) {
	b := bulkhead.New(bulkhead.Config{Limit: 1})
	for name, call := range map[string]func(fn func(context.Context) (int, error)){
		"Do":  func(fn func(context.Context) (int, error)) { bulkhead.Do(t.Context(), b, fn) },
		"Run": func(fn func(context.Context) (int, error)) { resilience.Compose(fn, b)(t.Context()) },
	} {
		func() {
			defer func() {
				if value := recover(); value != "boom" {
					t.Errorf("got %s: panic value is %v, want boom", name, value)
				}
			}()
			call(resiliencetest.Panic[int]("boom").Do)
		}()
		check(t, b, 0, 0)
		done := make(chan struct{})
		go func() {
			defer close(done)
			call(func(context.Context) (int, error) { runtime.Goexit(); return 0, nil })
		}()
		<-done
		check(t, b, 0, 0)
	}
}

func TestResizeAdmitsWaitersAndEndsNoCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bulkhead.New(bulkhead.Config{Limit: 2, Queue: 10})
		slow := resiliencetest.Slow[int](time.Second)
		var g errgroup.Group
		for range 8 {
			g.Go(func() error { _, err := bulkhead.Do(t.Context(), b, slow.Do); return err })
		}
		synctest.Wait()
		check(t, b, 2, 6)
		b.Resize(5)
		synctest.Wait()
		check(t, b, 5, 3)
		b.Resize(1)
		check(t, b, 5, 3)
		time.Sleep(time.Second) // the five calls end; one place remains
		synctest.Wait()
		check(t, b, 1, 2)
		b.Resize(100)
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		if s := b.Snapshot(); s.Limit != 100 || slow.Calls() != 8 {
			t.Errorf("got %+v after %d calls, want limit 100 and 8 calls", s, slow.Calls())
		}
	})
}

// together runs do on two goroutines, step by step, so that they collide even if other programs
// leave them little time.
func together(t *testing.T, times int, do func(worker, i int) error) {
	t.Helper()
	var steps atomic.Int64
	var g errgroup.Group
	for worker := range 2 {
		g.Go(func() error {
			for i := range times {
				steps.Add(1)
				for range 1000 { // a bound, in case the other goroutine doesn't run at all
					if steps.Load() >= int64(2*(i+1)) {
						break
					}
				}
				if err := do(worker, i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

// Two goroutines release the same permits.
func TestPermitReleasesOnce(t *testing.T) {
	const permits = 20_000
	b := bulkhead.New(bulkhead.Config{Limit: 2 * permits})
	all := make([]*bulkhead.Permit, permits)
	for i := range all {
		all[i] = take(t, b)
	}
	for range permits {
		take(t, b) // a double release would free one of these
	}
	together(t, permits, func(_, i int) error {
		all[i].Release()
		return nil
	})
	check(t, b, permits, 0)
	new(bulkhead.Permit).Release()
}

func TestBulkheadRefusesEndedContext(t *testing.T) {
	b := bulkhead.New(bulkhead.Config{Limit: 1})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	called := false
	if _, err := bulkhead.Do(ctx, b, func(context.Context) (int, error) { called = true; return 0, nil }); !errors.Is(err, context.Canceled) || called {
		t.Errorf("got %v, called %v, want context.Canceled and no call", err, called)
	}
	if _, err := b.Acquire(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	check(t, b, 0, 0)
}

// Callers wait, give up, resize, and take snapshots on real threads.
func TestBulkheadLosesNoPlaceUnderContention(t *testing.T) {
	const limit = 4
	b := bulkhead.New(bulkhead.Config{Limit: limit, Queue: 8})
	var inside, most atomic.Int32
	var g errgroup.Group
	for i := range 16 {
		g.Go(func() error {
			random := rand.New(rand.NewPCG(uint64(i), 1))
			for range 2000 {
				ctx, cancel := context.WithCancel(t.Context())
				if random.IntN(4) == 0 {
					go cancel()
				}
				_, err := bulkhead.Do(ctx, b, func(context.Context) (int, error) {
					most.Store(max(most.Load(), inside.Add(1)))
					if random.IntN(2) == 0 {
						runtime.Gosched()
					}
					inside.Add(-1)
					return 0, nil
				})
				cancel()
				if err != nil && !errors.Is(err, bulkhead.ErrFull) && !errors.Is(err, context.Canceled) {
					return err
				}
				if random.IntN(50) == 0 {
					b.Resize(1 + random.IntN(limit))
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	check(t, b, 0, 0)
	if most.Load() > limit || most.Load() < 2 {
		t.Errorf("got %d concurrent calls, want 2 to %d", most.Load(), limit)
	}
	b.Resize(1)
	take(t, b).Release()
}

// Neither do calls lose places while the limit changes.
func TestBulkheadLosesNoPlaceWithoutWaiters(t *testing.T) {
	b := bulkhead.New(bulkhead.Config{Limit: 100})
	together(t, 20_000, func(worker, i int) error {
		if worker == 0 && i%2 == 0 {
			b.Resize(100 + i%4)
			return nil
		}
		permit, err := b.Acquire(t.Context())
		permit.Release()
		return err
	})
	check(t, b, 0, 0)
}

func TestFullErrorText(t *testing.T) {
	for want, err := range map[string]error{
		"bulkhead reports: full, 10 running and 20 waiting": &bulkhead.FullError{Name: "reports", Limit: 10, Queue: 20},
		"bulkhead: full, 1 running":                         &bulkhead.FullError{Limit: 1},
		"bulkhead: full, 1 running, no place within 1.2s":   &bulkhead.FullError{Limit: 1, Queue: 3, Waited: 1234 * time.Millisecond},
	} {
		if err.Error() != want {
			t.Errorf("got %q, want %q", err, want)
		}
	}
}

func TestConfigValidateReportsAllErrors(t *testing.T) {
	const want = "bulkhead b: Limit is 0, must be 1 to 2147483647\nbulkhead b: Queue is -1, must be 0 or more\nbulkhead b: MaxWait is -1s, must be positive, or 0 for no limit"
	bad := bulkhead.Config{Name: "b", Queue: -1, MaxWait: -time.Second}
	if err := bad.Validate(); err == nil || err.Error() != want {
		t.Error(err)
	}
	good := bulkhead.New(bulkhead.Config{Limit: math.MaxInt32})
	for text, mistake := range map[string]func(){
		want: func() { bulkhead.New(bad) },
		"bulkhead: Resize: limit is -1, must be 1 to 2147483647":         func() { good.Resize(-1) },
		"bulkhead: Resize: limit is 2147483648, must be 1 to 2147483647": func() { good.Resize(math.MaxInt32 + 1) },
		"bulkhead: Do: fn is nil, must be a function":                    func() { bulkhead.Do[int](t.Context(), good, nil) },
		"bulkhead: Do: b is nil, must be a Bulkhead made by New":         func() { bulkhead.Do(t.Context(), nil, resiliencetest.FailFirst[int](0).Do) },
	} {
		func() {
			defer func() {
				if value := recover(); fmt.Sprint(value) != text {
					t.Errorf("panic value is %v, want %s", value, text)
				}
			}()
			mistake()
		}()
	}
	if text := strings.TrimSpace(good.Name()); text != "" {
		t.Error(text)
	}
}

func TestBulkheadWithRoomAllocatesNothing(t *testing.T) {
	b := bulkhead.New(bulkhead.Config{Limit: 1})
	ctx := t.Context()
	one := func(context.Context) (int, error) { return 1, nil }
	for name, call := range map[string]func(){
		"Do": func() { bulkhead.Do(ctx, b, one) },
		"Acquire": func() {
			permit, _ := b.Acquire(ctx)
			permit.Release()
		},
	} {
		if n := testing.AllocsPerRun(1000, call); n != 0 {
			t.Errorf("%s: got %v allocations, want 0", name, n)
		}
	}
	if n := testing.AllocsPerRun(1000, func() { resilience.Do(ctx, b, one) }); n != 1 {
		t.Errorf("got %v allocations in a pipeline, want 1, the call's own", n)
	}
}

func BenchmarkDo(b *testing.B) {
	ctx := b.Context()
	succeed := func(context.Context) (int, error) { return 1, nil }
	b.Run("serial", func(b *testing.B) {
		bulk := bulkhead.New(bulkhead.Config{Limit: 10})
		b.ReportAllocs()
		for b.Loop() {
			bulkhead.Do(ctx, bulk, succeed)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		bulk := bulkhead.New(bulkhead.Config{Limit: 1000})
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				bulkhead.Do(ctx, bulk, succeed)
			}
		})
	})
	b.Run("queue", func(b *testing.B) { // more callers than places
		bulk := bulkhead.New(bulkhead.Config{Limit: 1, Queue: 1000})
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				bulkhead.Do(ctx, bulk, succeed)
			}
		})
	})
}
