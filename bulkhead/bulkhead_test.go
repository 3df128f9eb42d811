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
		t.Errorf("%d running and %d waiting, want %d and %d", s.Running, s.Waiting, running, waiting)
	}
}

// take acquires a place that is there.
func take(t *testing.T, b *bulkhead.Bulkhead) *bulkhead.Permit {
	t.Helper()
	permit, err := b.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return &permit
}

func TestNoMoreRunThanTheLimitAndNoMoreWaitThanTheQueue(t *testing.T) {
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
			t.Errorf("%d calls, %d at once, %d refused", slow.Calls(), slow.MaxConcurrent(), refused.Load())
		}
		check(t, b, 0, 0)
	})
}

// TestFirstComeFirstServed, also against newcomers while somebody waits.
func TestFirstComeFirstServed(t *testing.T) {
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
					if i < 5 { // a newcomer, who finds the place about to be free
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
			t.Errorf("%v, want %v", order, want)
		}
	})
}

// TestAWaiterWhoseCtxEndsLeavesAtOnce, takes nothing with it, and gets the ctx's error.
func TestAWaiterWhoseCtxEndsLeavesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bulkhead.New(bulkhead.Config{Limit: 1, Queue: 3})
		held := take(t, b)
		cause := errors.New("cause")
		ctx, cancel := context.WithCancelCause(t.Context())
		var g errgroup.Group
		for i := range 3 { // the middle one goes
			own := t.Context()
			if i == 1 {
				own = ctx
			}
			g.Go(func() error {
				permit, err := b.Acquire(own)
				if i == 1 {
					if !errors.Is(err, context.Canceled) || !errors.Is(err, cause) || errors.Is(err, bulkhead.ErrFull) {
						t.Errorf("%v", err)
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

// TestTheLastWaiterThatGoesLeavesTheWayFree for those who come at once.
func TestTheLastWaiterThatGoesLeavesTheWayFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bulkhead.New(bulkhead.Config{Limit: 1, Queue: 1, MaxWait: time.Second})
		held := take(t, b)
		_, err := b.Acquire(t.Context())
		var full *bulkhead.FullError
		if !errors.As(err, &full) || *full != (bulkhead.FullError{Limit: 1, Queue: 1, Waited: time.Second}) {
			t.Errorf("%#v", err)
		}
		check(t, b, 1, 0)
		held.Release()
		take(t, b).Release()
		check(t, b, 0, 0)
	})
}

// silent is a ctx that ends without waking anybody, as one whose cancellation comes in the instant after its waiter was woken.
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

// TestAWaiterWhoseCtxEndsAsItIsServedPassesThePlaceOn: the ctx's end counts, and the place is the next one's.
func TestAWaiterWhoseCtxEndsAsItIsServedPassesThePlaceOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bulkhead.New(bulkhead.Config{Limit: 1, Queue: 2})
		held := take(t, b)
		ctx := &silent{Context: t.Context()}
		var g errgroup.Group
		g.Go(func() error {
			if _, err := b.Acquire(ctx); !errors.Is(err, context.Canceled) || errors.Is(err, bulkhead.ErrFull) {
				t.Errorf("the one whose ctx ended: %v", err)
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
		held.Release() // gives the place to the first
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		check(t, b, 0, 0)
	})
}

// TestACtxWithALimitEndsTheWait also where it has no timer of its own: package timeout's is armed only when it is waited for.
func TestACtxWithALimitEndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bulkhead.New(bulkhead.Config{Limit: 1, Queue: 1, MaxWait: time.Minute})
		held := take(t, b)
		began := time.Now()
		_, err := resilience.Compose(resiliencetest.FailFirst[int](0).Do, timeout.After(time.Second), b)(t.Context())
		if !errors.Is(err, timeout.ErrTimeout) || errors.Is(err, bulkhead.ErrFull) || time.Since(began) != time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		check(t, b, 1, 0)
		held.Release()
		check(t, b, 0, 0)
	})
}

// TestMaxWaitBoundsTheWaitAlone: it counts from the call, not from the head of the queue, and does not cut the call itself short.
func TestMaxWaitBoundsTheWaitAlone(t *testing.T) {
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
			t.Errorf("ended at %v, refused after %v", ended, refused)
		}
		check(t, b, 0, 0)
	})
}

// TestAPlaceThatComesAsTheWaitEndsIsNotLost: the call has it, or the next one does.
func TestAPlaceThatComesAsTheWaitEndsIsNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bulkhead.New(bulkhead.Config{Limit: 1, Queue: 1, MaxWait: time.Second})
		for range 100 { // which of two timers goes first is chance
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

// TestResizeLetsWaitersInInTheirOrder, no more than there is room for.
func TestResizeLetsWaitersInInTheirOrder(t *testing.T) {
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
			t.Error("a newcomer found a place where more run than the limit allows")
		}
		close(end)
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		held.Release()
		if !slices.Equal(order, []int{0, 1, 2, 3, 4, 5}) {
			t.Errorf("%v", order)
		}
		check(t, b, 0, 0)
	})
}

var global = bulkhead.New(bulkhead.Config{Limit: 1, Queue: 1})

// TestAPackagesBulkheadWaitsInABubble too: nobody waits for something that was made outside of it.
func TestAPackagesBulkheadWaitsInABubble(t *testing.T) {
	for range 2 {
		synctest.Test(t, func(t *testing.T) {
			held := take(t, global)
			time.AfterFunc(time.Hour, held.Release)
			take(t, global).Release()
		})
	}
}

func TestAPlaceIsReleasedUnderPanicAndGoexit(t *testing.T) {
	b := bulkhead.New(bulkhead.Config{Limit: 1})
	for name, call := range map[string]func(fn func(context.Context) (int, error)){
		"Do":  func(fn func(context.Context) (int, error)) { bulkhead.Do(t.Context(), b, fn) },
		"Run": func(fn func(context.Context) (int, error)) { resilience.Compose(fn, b)(t.Context()) },
	} {
		func() {
			defer func() {
				if value := recover(); value != "boom" {
					t.Errorf("%s panicked with %v", name, value)
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

func TestResizeLetsWaitersInAndNobodyOut(t *testing.T) {
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
		time.Sleep(time.Second) // the five end; one place is left
		synctest.Wait()
		check(t, b, 1, 2)
		b.Resize(100)
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		if s := b.Snapshot(); s.Limit != 100 || slow.Calls() != 8 {
			t.Errorf("%+v", s)
		}
	})
}

// together has two goroutines do the same thing so many times, in step, so that they meet also where other programs leave them little time.
func together(t *testing.T, times int, do func(worker, i int) error) {
	t.Helper()
	var steps atomic.Int64
	var g errgroup.Group
	for worker := range 2 {
		g.Go(func() error {
			for i := range times {
				steps.Add(1)
				for range 1000 { // unless the other does not run at all
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

// TestAPermitIsReleasedOnce, also by goroutines that race through many of them.
func TestAPermitIsReleasedOnce(t *testing.T) {
	const permits = 20_000
	b := bulkhead.New(bulkhead.Config{Limit: 2 * permits})
	all := make([]*bulkhead.Permit, permits)
	for i := range all {
		all[i] = take(t, b)
	}
	for range permits {
		take(t, b) // what is given back twice would be one of these
	}
	together(t, permits, func(_, i int) error {
		all[i].Release()
		return nil
	})
	check(t, b, permits, 0)
	new(bulkhead.Permit).Release()
}

func TestACtxThatIsDoneTakesNoPlace(t *testing.T) {
	b := bulkhead.New(bulkhead.Config{Limit: 1})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	called := false
	if _, err := bulkhead.Do(ctx, b, func(context.Context) (int, error) { called = true; return 0, nil }); !errors.Is(err, context.Canceled) || called {
		t.Error(err, called)
	}
	if _, err := b.Acquire(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	check(t, b, 0, 0)
}

// TestNothingIsLostUnderContention: callers that wait, give up, resize and look, on real threads.
func TestNothingIsLostUnderContention(t *testing.T) {
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
		t.Errorf("%d at once", most.Load())
	}
	b.Resize(1)
	take(t, b).Release()
}

// TestNoPlaceIsLostWhereNobodyWaits, also while the limit changes.
func TestNoPlaceIsLostWhereNobodyWaits(t *testing.T) {
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

func TestErrorsAreReadable(t *testing.T) {
	for want, err := range map[string]error{
		"bulkhead reports: full, 10 running and 20 waiting": &bulkhead.FullError{Name: "reports", Limit: 10, Queue: 20},
		"bulkhead: full, 1 running":                         &bulkhead.FullError{Limit: 1},
		"bulkhead: full, 1 running, waited 1.2s":            &bulkhead.FullError{Limit: 1, Queue: 3, Waited: 1234 * time.Millisecond},
	} {
		if err.Error() != want {
			t.Errorf("%s, want %s", err, want)
		}
	}
}

func TestMistakesAreToldAllAtOnce(t *testing.T) {
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
					t.Errorf("panicked with %v, want %s", value, text)
				}
			}()
			mistake()
		}()
	}
	if text := strings.TrimSpace(good.Name()); text != "" {
		t.Error(text)
	}
}

func TestARoomyBulkheadAllocatesNothing(t *testing.T) {
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
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	if n := testing.AllocsPerRun(1000, func() { resilience.Do(ctx, b, one) }); n != 1 {
		t.Errorf("%v allocations in a pipeline, must be the call's one", n)
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
