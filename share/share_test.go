package share_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/resiliencetest"
	"github.com/effector-go/resilience/share"
)

type key struct{}

func TestCallsShareOneRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := resiliencetest.Script(
			resiliencetest.Step[int]{Value: 1, Delay: time.Second},
			resiliencetest.Step[int]{Err: errors.New("down"), Delay: time.Second},
		)
		calls := share.Calls(slow.Do)
		for round, want := range []string{"1 <nil>", "0 down"} {
			var g errgroup.Group
			for range 10 {
				g.Go(func() error {
					value, err := calls(t.Context())
					if got := fmt.Sprint(value, " ", err); got != want {
						t.Errorf("got %s, want %s", got, want)
					}
					return nil
				})
				time.Sleep(time.Second / 20)
			}
			g.Wait()
			if slow.Calls() != round+1 {
				t.Errorf("got %d runs, want %d", slow.Calls(), round+1)
			}
		}
	})
}

// A later caller starts another run, however soon it comes.
func TestCallsShareNoEarlierResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := resiliencetest.Slow[int](time.Second)
		calls := share.Calls(slow.Do)
		for range 3 {
			calls(t.Context())
		}
		if slow.Calls() != 3 {
			t.Errorf("got %d runs for three calls in sequence, want 3", slow.Calls())
		}
	})
}

// The run ends with the last caller.
func TestCallsRunHasFirstCallerValuesAndNoDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var runs atomic.Int32
		calls := share.Calls(func(ctx context.Context) (string, error) {
			runs.Add(1)
			if _, ok := ctx.Deadline(); ok {
				t.Error("the run has a deadline")
			}
			select {
			case <-time.After(time.Hour):
				return fmt.Sprint(ctx.Value(key{})), nil
			case <-ctx.Done():
				return "", ctx.Err()
			}
		})
		began := time.Now()
		var g errgroup.Group
		for i := range 3 { // the first leaves after a second, the second after two, the third stays
			ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, i), time.Duration(i+1)*time.Second)
			if i == 2 {
				ctx = context.WithValue(t.Context(), key{}, i)
			}
			defer cancel()
			g.Go(func() error {
				value, err := calls(ctx)
				switch {
				case i < 2 && (!errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Duration(i+1)*time.Second):
					t.Errorf("caller %d: got %q, %v after %v", i, value, err, time.Since(began))
				case i == 2 && (value != "0" || err != nil || time.Since(began) != time.Hour):
					t.Errorf("caller %d: got %q, %v after %v", i, value, err, time.Since(began))
				}
				return nil
			})
			synctest.Wait()
		}
		g.Wait()
		if runs.Load() != 1 {
			t.Errorf("got %d runs, want 1", runs.Load())
		}
	})
}

// A run is canceled when its last caller leaves, and the next caller starts another.
func TestCallsNeverJoinAbandonedRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ignoring := resiliencetest.IgnoresContext[int](time.Minute).Returning(1)
		ended := 0
		calls := share.Calls(func(ctx context.Context) (int, error) {
			value, err := ignoring.Do(ctx)
			if ctx.Err() != nil {
				ended++
			}
			return value, err
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := calls(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		began := time.Now()
		if value, err := calls(t.Context()); value != 1 || err != nil || time.Since(began) != time.Minute || ignoring.Calls() != 2 {
			t.Errorf("got %v, %v after %v with %d runs, want 1 after 1m with 2 runs", value, err, time.Since(began), ignoring.Calls())
		}
		if ended != 1 {
			t.Errorf("got %d canceled runs, want 1", ended)
		}
	})
}

func TestCallsPanicAndGoexitReachEveryCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, end := range map[string]func(){"panic": func() { panic("boom") }, "Goexit": runtime.Goexit} {
			calls := share.Calls(func(context.Context) (int, error) {
				time.Sleep(time.Second)
				end()
				return 0, nil
			})
			var reached atomic.Int32
			done := make(chan struct{})
			for range 5 {
				go func() {
					defer func() {
						switch value := recover().(type) {
						case *resilience.PanicError:
							if name == "panic" && value.Value == "boom" && strings.Contains(string(value.Stack), "share_test") {
								reached.Add(1)
							}
						case nil:
							if name == "Goexit" {
								reached.Add(1)
							}
						}
						done <- struct{}{}
					}()
					calls(t.Context())
					t.Errorf("%s: a call returned", name)
				}()
			}
			for range 5 {
				<-done
			}
			if reached.Load() != 5 {
				t.Errorf("%s reached %d of 5 callers", name, reached.Load())
			}
		}
	})
}

// A good value is returned without a run while fresh, and for stale longer if runs fail. An error
// is never kept.
func TestStaleKeepsGoodValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := errors.New("down")
		script := resiliencetest.Script(
			resiliencetest.Step[int]{Err: down},
			resiliencetest.Step[int]{Value: 1},
			resiliencetest.Step[int]{Err: down, Times: 3},
			resiliencetest.Step[int]{Value: 2},
		)
		stale := share.Stale(script.Do, time.Minute, time.Hour)
		for _, c := range []struct {
			after time.Duration
			want  string
			runs  int
		}{
			{0, "0 down", 1}, // and not kept
			{0, "1 <nil>", 2},
			{time.Minute - 1, "1 <nil>", 2},
			{1, "1 <nil>", 3}, // a run that failed
			{time.Hour - 1, "1 <nil>", 4},
			{1, "0 down", 5},
			{0, "2 <nil>", 6},
			{time.Minute - 1, "2 <nil>", 6},
		} {
			time.Sleep(c.after)
			value, err := stale(t.Context())
			if got := fmt.Sprint(value, " ", err); got != c.want || script.Calls() != c.runs {
				t.Errorf("got %s after %d runs, want %s after %d", got, script.Calls(), c.want, c.runs)
			}
		}
	})
}

// A panic is never replaced by a kept value.
func TestStaleNeverHidesPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runs := 0
		stale := share.Stale(func(context.Context) (int, error) {
			if runs++; runs != 2 {
				panic("boom")
			}
			return 1, nil
		}, 0, time.Hour)
		for run := range 4 {
			func() {
				defer func() {
					if value := recover(); value != nil {
						if p, ok := value.(*resilience.PanicError); !ok || p.Value != "boom" {
							t.Errorf("panic value is %v, want a *PanicError with boom", value)
						}
					} else if run != 1 {
						t.Errorf("run %d returned", run+1)
					}
				}()
				stale(t.Context())
			}()
		}
	})
}

func TestStaleSharesRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := resiliencetest.Slow[int](time.Second)
		stale := share.Stale(slow.Do, time.Minute, 0)
		for range 3 {
			var g errgroup.Group
			for range 10 {
				g.Go(func() error { _, err := stale(t.Context()); return err })
			}
			if err := g.Wait(); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Minute)
		}
		if slow.Calls() != 3 {
			t.Errorf("got %d runs for three times ten callers, want 3", slow.Calls())
		}
	})
}

// The value of an abandoned run may come late, and must not replace a newer one.
func TestStaleKeepsNoValueOfAbandonedRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var runs atomic.Int32
		stale := share.Stale(func(context.Context) (int32, error) {
			run := runs.Add(1)
			if run == 1 {
				time.Sleep(time.Minute) // although its context ends
			}
			return run, nil
		}, time.Hour, time.Hour)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := stale(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		for range 3 { // before the first run ends, and after
			if value, err := stale(t.Context()); value != 2 || err != nil || runs.Load() != 2 {
				t.Errorf("got %v, %v after %d runs, want 2 after 2", value, err, runs.Load())
			}
			time.Sleep(time.Minute - time.Second)
		}
	})
}

func TestCallsShareValueReturnedWithError(t *testing.T) {
	down := errors.New("down")
	for _, call := range []resilience.Effector[int]{
		share.Calls(resiliencetest.Script(resiliencetest.Step[int]{Value: 7, Err: down}).Do),
		share.Stale(resiliencetest.Script(resiliencetest.Step[int]{Value: 7, Err: down}).Do, time.Hour, time.Hour),
	} {
		if value, err := call(t.Context()); value != 7 || err != down {
			t.Errorf("got %v, %v, want 7, down", value, err)
		}
	}
}

// The run's context ends with the run, not with one of its callers.
func TestCallsReturnCauseToLeavingCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cause := errors.New("cause")
		var own context.Context
		calls := share.Calls(func(ctx context.Context) (int, error) {
			own = ctx
			return resiliencetest.Slow[int](time.Minute).Returning(1).Do(ctx)
		})
		var g errgroup.Group
		g.Go(func() error { _, err := calls(t.Context()); return err })
		synctest.Wait()
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(cause) })
		began := time.Now()
		if _, err := calls(ctx); !errors.Is(err, cause) || !errors.Is(err, context.Canceled) || time.Since(began) != time.Second {
			t.Errorf("got %v after %v, want the cause after 1s", err, time.Since(began))
		}
		if own.Err() != nil {
			t.Error("the run ended with one of its callers")
		}
		if err := g.Wait(); err != nil || own.Err() == nil {
			t.Errorf("got %v, and %v from the run's context, want nil and an error", err, own.Err())
		}
	})
}

// A package-level effector is used outside a bubble and then inside one, decades earlier.
func TestStaleDropsValueWhenClockGoesBack(t *testing.T) {
	counted := resiliencetest.FailFirst[int](0)
	stale := share.Stale(counted.Do, time.Hour, time.Hour)
	stale(t.Context())
	synctest.Test(t, func(t *testing.T) {
		for range 2 {
			if _, err := stale(t.Context()); err != nil || counted.Calls() != 2 {
				t.Errorf("got %v after %d runs, want 2 runs", err, counted.Calls())
			}
		}
	})
}

func TestStaleFreshValueAllocatesNothing(t *testing.T) {
	stale := share.Stale(resiliencetest.FailFirst[int](0).Do, time.Hour, 0)
	ctx := t.Context()
	if n := testing.AllocsPerRun(100, func() { stale(ctx) }); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}

func TestGroupKeepsOneValuePerKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runs := map[string]int{}
		g := share.NewGroup(share.Config{Fresh: time.Minute, MaxKeys: 2}, func(_ context.Context, key string) (string, error) {
			runs[key]++
			if key == "bad" {
				return "", errors.New("bad")
			}
			return fmt.Sprint(key, runs[key]), nil
		})
		ask := func(key, want string, length int) {
			t.Helper()
			value, err := g.Do(t.Context(), key)
			if got := fmt.Sprint(value, " ", err); got != want || g.Len() != length {
				t.Errorf("got %s with %d keys, want %s with %d", got, g.Len(), want, length)
			}
		}
		ask("a", "a1 <nil>", 1)
		ask("a", "a1 <nil>", 1)
		ask("bad", " bad", 1)
		ask("b", "b1 <nil>", 2)
		ask("a", "a1 <nil>", 2)
		ask("c", "c1 <nil>", 2) // b was used least recently
		ask("b", "b2 <nil>", 2)
		g.Forget("b")
		g.Forget("nobody")
		ask("b", "b3 <nil>", 2)
		time.Sleep(time.Minute)
		if g.Len() != 0 {
			t.Errorf("got %d keys after a minute, want 0", g.Len())
		}
		ask("b", "b4 <nil>", 1)
	})
}

// The waiting callers receive the run's result, which isn't kept, and the next caller starts
// another run.
func TestForgetDuringRunKeepsNoResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var runs atomic.Int32
		g := share.NewGroup(share.Config{Fresh: time.Hour}, func(context.Context, string) (int32, error) {
			run := runs.Add(1)
			time.Sleep(time.Minute)
			return run, nil
		})
		var callers errgroup.Group
		ask := func(want int32) {
			callers.Go(func() error {
				if value, err := g.Do(t.Context(), "a"); value != want || err != nil {
					t.Errorf("got %v, %v, want %v", value, err, want)
				}
				return nil
			})
			synctest.Wait()
		}
		ask(1)
		ask(1)
		if g.Forget("a"); g.Len() != 0 {
			t.Errorf("got %d keys, want 0", g.Len())
		}
		time.Sleep(time.Second)
		ask(2)
		ask(2)
		callers.Wait()
		ask(2)
		callers.Wait()
		if runs.Load() != 2 || g.Len() != 1 {
			t.Errorf("got %d runs and %d keys, want 2 and 1", runs.Load(), g.Len())
		}
	})
}

// None of the keys in use is evicted.
func TestGroupKeysInUseMayExceedMaxKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var runs atomic.Int32
		g := share.NewGroup(share.Config{Fresh: time.Hour, MaxKeys: 2}, func(_ context.Context, key int) (int, error) {
			runs.Add(1)
			time.Sleep(time.Minute)
			return key, nil
		})
		var callers errgroup.Group
		for i := range 20 {
			callers.Go(func() error { _, err := g.Do(t.Context(), i%10); return err })
		}
		synctest.Wait()
		if g.Len() != 10 {
			t.Errorf("got %d keys in use, want 10", g.Len())
		}
		if err := callers.Wait(); err != nil || runs.Load() != 10 || g.Len() != 2 {
			t.Errorf("got %v, %d runs, and %d keys, want 10 runs and 2 keys", err, runs.Load(), g.Len())
		}
	})
}

// A kept value replaces errors, as with Stale.
func TestGroupKeepsKeyForFreshAndStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := errors.New("down")
		script := resiliencetest.Script(resiliencetest.Step[int]{Value: 1}, resiliencetest.Step[int]{Err: down})
		g := share.NewGroup(share.Config{Fresh: time.Minute, Stale: time.Hour}, func(ctx context.Context, _ string) (int, error) { return script.Do(ctx) })
		for _, c := range []struct {
			after time.Duration
			want  string
			kept  int
		}{{0, "1 <nil>", 1}, {time.Minute, "1 <nil>", 1}, {time.Hour - 1, "1 <nil>", 1}, {1, "0 down", 0}} {
			time.Sleep(c.after)
			value, err := g.Do(t.Context(), "a")
			if got := fmt.Sprint(value, " ", err); got != c.want || g.Len() != c.kept {
				t.Errorf("got %s with %d keys, want %s with %d", got, g.Len(), c.want, c.kept)
			}
		}
	})
}

func TestGroupEndedContextEvictsNoKey(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	runs := 0
	g := share.NewGroup(share.Config{Fresh: time.Hour, MaxKeys: 1}, func(context.Context, string) (int, error) { runs++; return runs, nil })
	for range 2 {
		if value, err := g.Do(t.Context(), "a"); value != 1 || err != nil {
			t.Errorf("got %v, %v, want a's value", value, err)
		}
		if _, err := g.Do(ctx, "b"); !errors.Is(err, context.Canceled) || runs != 1 {
			t.Errorf("got %v after %d runs, want context.Canceled after 1", err, runs)
		}
	}
}

// After the panic, the key isn't in use anymore.
func TestGroupPanicReachesEveryCaller(t *testing.T) {
	g := share.NewGroup(share.Config{Fresh: time.Hour}, func(context.Context, string) (int, error) { panic("boom") })
	for range 2 {
		func() {
			defer func() {
				if value, ok := recover().(*resilience.PanicError); !ok || value.Value != "boom" {
					t.Errorf("panic value is %v, want a *PanicError with boom", value)
				}
			}()
			g.Do(t.Context(), "a")
		}()
		if g.Len() != 0 {
			t.Errorf("got %d keys, want 0", g.Len())
		}
	}
}

func TestGroupWithZeroConfigKeepsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var runs atomic.Int32
		g := share.NewGroup(share.Config{}, func(_ context.Context, key int) (int, error) {
			runs.Add(1)
			time.Sleep(time.Second)
			return key, nil
		})
		var callers errgroup.Group
		for i := range 30 {
			callers.Go(func() error {
				if value, err := g.Do(t.Context(), i%3); value != i%3 || err != nil {
					return fmt.Errorf("key %d: got %d, %w", i%3, value, err)
				}
				return nil
			})
		}
		synctest.Wait()
		if g.Len() != 3 {
			t.Errorf("got %d keys in use, want 3", g.Len())
		}
		if err := callers.Wait(); err != nil || runs.Load() != 3 || g.Len() != 0 {
			t.Errorf("got %v, %d runs, and %d keys, want 3 runs and 0 keys", err, runs.Load(), g.Len())
		}
	})
}

func TestGroupServesConcurrentCallers(t *testing.T) {
	g := share.NewGroup(share.Config{Fresh: time.Microsecond, MaxKeys: 3}, func(ctx context.Context, key int) (int, error) {
		runtime.Gosched()
		return key, ctx.Err()
	})
	var callers errgroup.Group
	for i := range 8 {
		callers.Go(func() error {
			for j := range 2000 {
				ctx, cancel := context.WithCancel(t.Context())
				if j%7 == 0 {
					go cancel()
				}
				key := (i + j) % 5
				value, err := g.Do(ctx, key)
				if err == nil && value != key || err != nil && !errors.Is(err, context.Canceled) || err != nil && j%7 != 0 {
					cancel()
					return fmt.Errorf("key %d: got %d, %w", key, value, err)
				}
				if j%100 == 0 {
					g.Forget(key)
				}
				cancel()
			}
			return nil
		})
	}
	if err := callers.Wait(); err != nil {
		t.Error(err)
	}
}

func TestCallsEndedContextStartsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		one := resiliencetest.FailFirst[int](0)
		_, err := share.Calls(one.Do)(ctx)
		if synctest.Wait(); !errors.Is(err, context.Canceled) || one.Calls() != 0 {
			t.Errorf("got %v after %d runs, want context.Canceled and no run", err, one.Calls())
		}
	})
}

func TestShareArgumentErrorsPanic(t *testing.T) {
	one := resiliencetest.FailFirst[int](0).Do
	for want, mistake := range map[string]func(){
		"share: Calls: e is nil, must be a function":     func() { share.Calls[int](nil) },
		"share: Stale: e is nil, must be a function":     func() { share.Stale[int](nil, 0, 0) },
		"share: Fresh is -1ns, must be 0 or more":        func() { share.Stale(one, -1, 0) },
		"share: Stale is -1ns, must be 0 or more":        func() { share.Stale(one, 0, -1) },
		"share: New: e is nil, must be a function":       func() { share.New[int](share.Config{}, nil) },
		"share: Revalidate is -1ns, must be 0 or more":   func() { share.New(share.Config{Revalidate: -1}, one) },
		"share: NewGroup: fn is nil, must be a function": func() { share.NewGroup[int, int](share.Config{}, nil) },
		"share: MaxKeys is -1, must be at least 1, or 0 for 10000": func() {
			share.NewGroup(share.Config{MaxKeys: -1}, func(context.Context, int) (int, error) { return 0, nil })
		},
		"share: Fresh + Stale is 2562047h47m16.854775807s + 1ns, must be at most 292 years": func() { share.Stale(one, 1<<63-1, 1) },
	} {
		func() {
			defer func() {
				if value := recover(); value != want {
					t.Errorf("panic value is %v, want %s", value, want)
				}
			}()
			mistake()
		}()
	}
}

func BenchmarkCalls(b *testing.B) {
	calls := share.Calls(func(context.Context) (int, error) { return 1, nil })
	fresh := share.Stale(func(context.Context) (int, error) { return 1, nil }, time.Hour, 0)
	ctx := b.Context()
	b.Run("run", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			calls(ctx)
		}
	})
	b.Run("fresh", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			fresh(ctx)
		}
	})
}
