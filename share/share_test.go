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

func TestCallersAtTheSameTimeShareOneRun(t *testing.T) {
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
						t.Errorf("%s, want %s", got, want)
					}
					return nil
				})
				time.Sleep(time.Second / 20)
			}
			g.Wait()
			if slow.Calls() != round+1 {
				t.Errorf("%d runs", slow.Calls())
			}
		}
	})
}

// TestAResultIsNotSharedWithOneWhoComesAfterIt, however soon.
func TestAResultIsNotSharedWithOneWhoComesAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := resiliencetest.Slow[int](time.Second)
		calls := share.Calls(slow.Do)
		for range 3 {
			calls(t.Context())
		}
		if slow.Calls() != 3 {
			t.Errorf("%d runs for three calls in turn", slow.Calls())
		}
	})
}

// TestTheRunHasTheFirstCallersValuesAndNotItsDeadline, and ends with the last caller.
func TestTheRunHasTheFirstCallersValuesAndNotItsDeadline(t *testing.T) {
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
		for i := range 3 { // the first goes after a second, the second after two, the third stays
			ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, i), time.Duration(i+1)*time.Second)
			if i == 2 {
				ctx = context.WithValue(t.Context(), key{}, i)
			}
			defer cancel()
			g.Go(func() error {
				value, err := calls(ctx)
				switch {
				case i < 2 && (!errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Duration(i+1)*time.Second):
					t.Errorf("caller %d: %q, %v after %v", i, value, err, time.Since(began))
				case i == 2 && (value != "0" || err != nil || time.Since(began) != time.Hour):
					t.Errorf("caller %d: %q, %v after %v", i, value, err, time.Since(began))
				}
				return nil
			})
			synctest.Wait()
		}
		g.Wait()
		if runs.Load() != 1 {
			t.Errorf("%d runs", runs.Load())
		}
	})
}

// TestNobodyJoinsARunThatWasGivenUp: it is cancelled when its last caller goes, and the next caller starts another.
func TestNobodyJoinsARunThatWasGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		deaf := resiliencetest.Deaf[int](time.Minute).Returning(1)
		ended := 0
		calls := share.Calls(func(ctx context.Context) (int, error) {
			value, err := deaf.Do(ctx)
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
		if value, err := calls(t.Context()); value != 1 || err != nil || time.Since(began) != time.Minute || deaf.Calls() != 2 {
			t.Errorf("%v, %v after %v, %d runs", value, err, time.Since(began), deaf.Calls())
		}
		if ended != 1 {
			t.Errorf("%d runs were cancelled", ended)
		}
	})
}

func TestPanicAndGoexitReachEveryCaller(t *testing.T) {
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

// TestAGoodValueIsKept while fresh without a run, and for stale longer where runs fail; an error is never kept.
func TestAGoodValueIsKept(t *testing.T) {
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
				t.Errorf("%s after %d runs, want %s after %d", got, script.Calls(), c.want, c.runs)
			}
		}
	})
}

func TestAPanicIsNotHiddenByAStaleValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runs := 0
		stale := share.Stale(func(context.Context) (int, error) {
			if runs++; runs > 1 {
				panic("boom")
			}
			return 1, nil
		}, 0, time.Hour)
		stale(t.Context())
		defer func() {
			if value, ok := recover().(*resilience.PanicError); !ok || value.Value != "boom" {
				t.Errorf("panicked with %v", value)
			}
		}()
		stale(t.Context())
		t.Error("a call returned")
	})
}

func TestARefreshIsShared(t *testing.T) {
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
			t.Errorf("%d runs for three times ten callers", slow.Calls())
		}
	})
}

func TestEachKeyHasItsOwn(t *testing.T) {
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
				t.Errorf("%s with %d keys, want %s with %d", got, g.Len(), want, length)
			}
		}
		ask("a", "a1 <nil>", 1)
		ask("a", "a1 <nil>", 1)
		ask("bad", " bad", 1)
		ask("b", "b1 <nil>", 2)
		ask("a", "a1 <nil>", 2)
		ask("c", "c1 <nil>", 2) // b was asked for longest ago
		ask("b", "b2 <nil>", 2)
		g.Forget("b")
		g.Forget("nobody")
		ask("b", "b3 <nil>", 2)
		time.Sleep(time.Minute)
		if g.Len() != 0 {
			t.Errorf("%d keys have a value that is not fresh", g.Len())
		}
		ask("b", "b4 <nil>", 1)
	})
}

func TestAGroupWithoutTimesKeepsNothing(t *testing.T) {
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
					return fmt.Errorf("%d: %d, %w", i, value, err)
				}
				return nil
			})
		}
		synctest.Wait()
		if g.Len() != 3 {
			t.Errorf("%d keys in use", g.Len())
		}
		if err := callers.Wait(); err != nil || runs.Load() != 3 || g.Len() != 0 {
			t.Errorf("%v, %d runs, %d keys are left", err, runs.Load(), g.Len())
		}
	})
}

func TestRacingCallersGetAnswers(t *testing.T) {
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
					return fmt.Errorf("%d for %d, %w", value, key, err)
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

func TestACtxThatIsDoneStartsNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	one := resiliencetest.FailFirst[int](0)
	if _, err := share.Calls(one.Do)(ctx); !errors.Is(err, context.Canceled) || one.Calls() != 0 {
		t.Error(err)
	}
}

func TestMistakesPanic(t *testing.T) {
	one := resiliencetest.FailFirst[int](0).Do
	for want, mistake := range map[string]func(){
		"share: Calls: e is nil, must be a function":     func() { share.Calls[int](nil) },
		"share: Stale: e is nil, must be a function":     func() { share.Stale[int](nil, 0, 0) },
		"share: Fresh is -1ns, must be 0 or more":        func() { share.Stale(one, -1, 0) },
		"share: Stale is -1ns, must be 0 or more":        func() { share.Stale(one, 0, -1) },
		"share: NewGroup: fn is nil, must be a function": func() { share.NewGroup[int, int](share.Config{}, nil) },
		"share: MaxKeys is -1, must be at least 1, or 0 for 10000": func() {
			share.NewGroup(share.Config{MaxKeys: -1}, func(context.Context, int) (int, error) { return 0, nil })
		},
		"share: Fresh + Stale is 2562047h47m16.854775807s + 1ns, must be at most 292 years": func() { share.Stale(one, 1<<63-1, 1) },
	} {
		func() {
			defer func() {
				if value := recover(); value != want {
					t.Errorf("panicked with %v, want %s", value, want)
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
