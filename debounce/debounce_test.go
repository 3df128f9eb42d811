package debounce_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/debounce"
	"github.com/effector-go/resilience/resiliencetest"
)

type key struct{}

// burst makes calls at the given times, each with its number as a context value, and returns what
// each call returned and when.
func burst(t *testing.T, call resilience.Effector[string], at ...time.Duration) []string {
	t.Helper()
	began := time.Now()
	got := make([]string, len(at))
	var g errgroup.Group
	for i, at := range at {
		g.Go(func() error {
			time.Sleep(at)
			value, err := call(context.WithValue(t.Context(), key{}, i))
			if err != nil {
				value = err.Error()
			}
			got[i] = fmt.Sprint(value, " at ", time.Since(began))
			return nil
		})
	}
	g.Wait()
	return got
}

// naming returns an effector that takes a second and returns the number of the run and of the call
// whose values it has.
func naming() (resilience.Effector[string], *atomic.Int32) {
	var runs atomic.Int32
	return func(ctx context.Context) (string, error) {
		n := runs.Add(1)
		time.Sleep(time.Second)
		if n == 3 {
			return "", errors.New("run 3 fails")
		}
		return fmt.Sprintf("run %d of call %v", n, ctx.Value(key{})), nil
	}, &runs
}

func check(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got\n%q, want\n%q", got, want)
	}
}

func TestFirstRunsFirstCallOfBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, _ := naming()
		got := burst(t, debounce.First(e, 2*time.Second, 0),
			0, 500*time.Millisecond, // both calls wait for the run
			2*time.Second, // quiet would end a second later
			3999*time.Millisecond,
			5999*time.Millisecond, // quiet has passed, and another burst begins
			8999*time.Millisecond, // two seconds after its run
		)
		check(t, got, "run 1 of call 0 at 1s", "run 1 of call 0 at 1s", "run 1 of call 0 at 2s", "run 1 of call 0 at 3.999s",
			"run 2 of call 4 at 6.999s", "run 3 fails at 9.999s")
	})
}

func TestFirstSharesErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := resiliencetest.FailAfter[string](0)
		call := debounce.First(down.Do, time.Second, 0)
		for range 5 {
			if _, err := call(t.Context()); !errors.Is(err, resiliencetest.ErrFailed) {
				t.Error(err)
			}
			time.Sleep(time.Second / 2)
		}
		if down.Calls() != 1 {
			t.Errorf("got %d runs, want 1", down.Calls())
		}
	})
}

func TestFirstKeepsResultNoLongerThanMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, runs := naming()
		var at []time.Duration
		for i := range 50 { // a call every 100 ms for five seconds
			at = append(at, time.Duration(i)*100*time.Millisecond)
		}
		got := burst(t, debounce.First(e, time.Second, 1500*time.Millisecond), at...)
		// The run from 0 s ends at 1 s and counts until 2.5 s. The run from 2.5 s ends at 3.5 s and
		// counts until 5 s.
		if runs.Load() != 2 || got[24] != "run 1 of call 0 at 2.4s" || got[25] != "run 2 of call 25 at 3.5s" || got[49] != "run 2 of call 25 at 4.9s" {
			t.Errorf("got %d runs: %q", runs.Load(), got)
		}
	})
}

func TestFirstRunOutlivesFirstCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, runs := naming()
		call := debounce.First(e, time.Second, 0)
		ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, "first"), time.Second/2)
		defer cancel()
		var g errgroup.Group
		g.Go(func() error {
			if _, err := call(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			return nil
		})
		time.Sleep(time.Second / 4)
		if value, err := call(t.Context()); value != "run 1 of call first" || err != nil || runs.Load() != 1 {
			t.Errorf("got %q, %v after %d runs, want run 1", value, err, runs.Load())
		}
		g.Wait()
	})
}

func TestDebounceCancelsAbandonedRun(t *testing.T) {
	for name, debounced := range map[string]func(resilience.Effector[string], time.Duration, time.Duration) resilience.Effector[string]{
		"First": debounce.First[string], "Last": debounce.Last[string],
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hung := resiliencetest.Hang[string]()
				call := debounced(hung.Do, time.Second, 0)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if _, err := call(ctx); !errors.Is(err, context.DeadlineExceeded) || hung.Calls() != 1 {
					t.Error(err)
				}
				synctest.Wait()
				if hung.Running() != 0 {
					t.Error("the run continues without callers")
				}
				ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if call(ctx); hung.Calls() != 2 {
					t.Errorf("got %d runs, want 2: no call may join a canceled run", hung.Calls())
				}
			})
		})
	}
}

func TestLastRunsOnceAfterBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, runs := naming()
		got := burst(t, debounce.Last(e, 2*time.Second, 0),
			0, 1*time.Second, 2999*time.Millisecond, // a burst whose run begins at 4.999 s
			5*time.Second, // another burst, which begins while the run lasts
		)
		check(t, got, "run 1 of call 2 at 5.999s", "run 1 of call 2 at 5.999s", "run 1 of call 2 at 5.999s", "run 2 of call 3 at 8s")
		if runs.Load() != 2 {
			t.Errorf("got %d runs", runs.Load())
		}
	})
}

func TestLastWaitsNoLongerThanMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, runs := naming()
		var at []time.Duration
		for i := range 30 { // a call every 100 ms for three seconds
			at = append(at, time.Duration(i)*100*time.Millisecond)
		}
		got := burst(t, debounce.Last(e, 150*time.Millisecond, 950*time.Millisecond), at...)
		if runs.Load() != 3 || got[0] != "run 1 of call 9 at 1.95s" || got[9] != got[0] || got[10] != "run 2 of call 19 at 2.95s" || got[29] != "run 3 fails at 3.95s" {
			t.Errorf("got %d runs: %q", runs.Load(), got)
		}
	})
}

func TestLastCallerMayLeaveBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, runs := naming()
		call := debounce.Last(e, time.Second, 0)
		ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, "last"), time.Second/2)
		defer cancel()
		var g errgroup.Group
		var mu sync.Mutex
		var got string
		g.Go(func() error {
			value, err := call(t.Context())
			mu.Lock()
			defer mu.Unlock()
			got = value
			return err
		})
		synctest.Wait()
		began := time.Now()
		if _, err := call(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second/2 {
			t.Errorf("got %v after %v, want context.DeadlineExceeded after 500ms", err, time.Since(began))
		}
		if err := g.Wait(); err != nil || got != "run 1 of call last" || runs.Load() != 1 {
			t.Errorf("got %q, %v; want the values of the burst's last call although it has left", got, err)
		}
	})
}

func TestLastDoesNotRunAbandonedBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, runs := naming()
		call := debounce.Last(e, time.Minute, 0)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := call(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		time.Sleep(time.Hour)
		if runs.Load() != 0 {
			t.Error("the burst was run, want no run")
		}
	})
}

func TestDebouncePanicAndGoexitReachEveryCaller(t *testing.T) {
	for name, debounced := range map[string]func(resilience.Effector[string], time.Duration, time.Duration) resilience.Effector[string]{
		"First": debounce.First[string], "Last": debounce.Last[string],
	} {
		for what, end := range map[string]func(){"panic": func() { panic("boom") }, "Goexit": runtime.Goexit} {
			synctest.Test(t, func(t *testing.T) {
				call := debounced(func(context.Context) (string, error) {
					time.Sleep(time.Second)
					end()
					return "", nil
				}, time.Second, 0)
				var reached atomic.Int32
				var callers sync.WaitGroup
				for i := range 4 {
					callers.Add(1)
					go func() {
						defer callers.Done()
						defer func() {
							p, ok := recover().(*resilience.PanicError)
							if ok == (what == "panic") && (!ok || p.Value == "boom") {
								reached.Add(1)
							}
						}()
						if i == 3 && name == "First" {
							time.Sleep(1500 * time.Millisecond) // after the run: its outcome still belongs to the burst
						}
						call(t.Context())
						t.Errorf("%s, %s: a call returned", name, what)
					}()
				}
				callers.Wait()
				if reached.Load() != 4 {
					t.Errorf("got %s: %s reached %d callers, want 4", name, what, reached.Load())
				}
			})
		}
	}
}

// Without quiet, the burst ends with its run.
func TestFirstWithoutQuietSharesOnlyRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, _ := naming()
		got := burst(t, debounce.First(e, 0, 0), 0, 999*time.Millisecond, 1001*time.Millisecond)
		check(t, got, "run 1 of call 0 at 1s", "run 1 of call 0 at 1s", "run 2 of call 2 at 2.001s")
		if got := burst(t, debounce.First(e, 0, 0), 0); got[0] != "run 3 fails at 1s" {
			t.Error(got)
		}
	})
}

// Without quiet, a burst consists of the calls of one instant.
func TestLastWithoutQuietRunsImmediately(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, _ := naming()
		got := burst(t, debounce.Last(e, 0, 0), 0, time.Nanosecond)
		check(t, got, "run 1 of call 0 at 1s", "run 2 of call 1 at 1.000000001s")
	})
}

// Without a most, nothing ends a burst while calls keep coming.
func TestFirstBurstMayLastForever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, runs := naming()
		call := debounce.First(e, time.Minute, 0)
		for range 10_000 {
			if value, err := call(t.Context()); value != "run 1 of call <nil>" || err != nil {
				t.Fatalf("got %q, %v, want the result of run 1", value, err)
			}
			time.Sleep(time.Minute - time.Nanosecond)
		}
		time.Sleep(time.Nanosecond)
		if call(t.Context()); runs.Load() != 2 {
			t.Errorf("got %d runs", runs.Load())
		}
	})
}

func TestFirstCountsQuietFromLastCallOrRunEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, _ := naming()
		got := burst(t, debounce.First(e, 2*time.Second, 0), 0, 2999*time.Millisecond, 4998*time.Millisecond, 7*time.Second)
		check(t, got, "run 1 of call 0 at 1s", "run 1 of call 0 at 2.999s", "run 1 of call 0 at 4.998s", "run 2 of call 3 at 8s")
	})
}

// The other callers leave before the run begins and while it runs.
func TestLastRunsForRemainingCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, runs := naming()
		call := debounce.Last(e, time.Second, 0)
		var g errgroup.Group
		for i, stays := range []time.Duration{time.Second / 2, 1500 * time.Millisecond, time.Hour} {
			g.Go(func() error {
				ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, "any"), stays)
				defer cancel()
				began := time.Now()
				value, err := call(ctx)
				switch {
				case i < 2 && (!errors.Is(err, context.DeadlineExceeded) || time.Since(began) != stays):
					t.Errorf("caller %d: %q, %v after %v", i, value, err, time.Since(began))
				case i == 2 && (value != "run 1 of call any" || err != nil || time.Since(began) != 2*time.Second):
					t.Errorf("caller %d: %q, %v after %v", i, value, err, time.Since(began))
				}
				return nil
			})
		}
		if g.Wait(); runs.Load() != 1 {
			t.Errorf("got %d runs", runs.Load())
		}
	})
}

// The new burst has its own bounds.
func TestLastStartsNewBurstAfterAbandonedOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, runs := naming()
		call := debounce.Last(e, 2*time.Second, 3*time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		call(ctx)
		began := time.Now()
		if value, err := call(context.WithValue(t.Context(), key{}, "other")); value != "run 1 of call other" || err != nil || time.Since(began) != 3*time.Second {
			t.Errorf("got %q, %v after %v and %d runs", value, err, time.Since(began), runs.Load())
		}
	})
}

// A package-level effector is used outside a bubble and then inside one, decades earlier.
func TestFirstClockGoingBackEndsBurst(t *testing.T) {
	counted := resiliencetest.FailFirst[int](0)
	call := debounce.First(counted.Do, time.Hour, 0)
	call(t.Context())
	synctest.Test(t, func(t *testing.T) {
		for range 2 {
			if _, err := call(t.Context()); err != nil || counted.Calls() != 2 {
				t.Errorf("got %v after %d runs, want 2 runs", err, counted.Calls())
			}
		}
	})
}

func TestDebounceServesConcurrentCallers(t *testing.T) {
	for name, debounced := range map[string]func(resilience.Effector[int], time.Duration, time.Duration) resilience.Effector[int]{
		"First": debounce.First[int], "Last": debounce.Last[int],
	} {
		var runs atomic.Int32
		call := debounced(func(ctx context.Context) (int, error) {
			runs.Add(1)
			return 1, ctx.Err()
		}, time.Microsecond, 10*time.Microsecond)
		var g errgroup.Group
		for i := range 8 {
			g.Go(func() error {
				for j := range 300 {
					ctx, cancel := context.WithCancel(t.Context())
					leaves := (i+j)%3 == 0
					if leaves {
						go cancel()
					}
					value, err := call(ctx)
					cancel()
					if err == nil && value != 1 || err != nil && (!leaves || !errors.Is(err, context.Canceled)) {
						return fmt.Errorf("%s: got %d, %w", name, value, err)
					}
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		if n := runs.Load(); n == 0 || n > 2400 {
			t.Errorf("%s: got %d runs for 2400 calls, want 1 to 2400", name, n)
		}
	}
}

func TestDebounceEndedContextStartsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		e, runs := naming()
		for _, call := range []resilience.Effector[string]{debounce.First(e, 0, 0), debounce.Last(e, 0, 0)} {
			_, err := call(ctx)
			if synctest.Wait(); !errors.Is(err, context.Canceled) || runs.Load() != 0 {
				t.Errorf("got %v after %d runs, want context.Canceled and no run", err, runs.Load())
			}
		}
	})
}

// A call whose context has ended neither delays the run nor provides its values.
func TestLastEndedContextIsNotPartOfBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dead, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "dead"))
		cancel()
		e, _ := naming()
		call := debounce.Last(e, 2*time.Second, 0)
		time.AfterFunc(time.Second, func() { call(dead) })
		check(t, burst(t, call, 0), "run 1 of call 0 at 3s")
	})
}

// The context ends at the instant when the run begins; either may come first.
func TestLastCancelsRunOfCallerLeavingAtStart(t *testing.T) {
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			hung := resiliencetest.Hang[int]()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if _, err := debounce.Last(hung.Do, time.Second, 0)(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			if synctest.Wait(); hung.Running() != 0 {
				t.Fatal("the run continues without callers")
			}
		})
	}
}

func TestDebounceArgumentErrorsPanic(t *testing.T) {
	e, _ := naming()
	for want, mistake := range map[string]func(){
		"debounce: First: e is nil, must be a function":                     func() { debounce.First[int](nil, 0, 0) },
		"debounce: Last: e is nil, must be a function":                      func() { debounce.Last[int](nil, 0, 0) },
		"debounce: First: quiet is -1ns, must be 0 or more":                 func() { debounce.First(e, -1, 0) },
		"debounce: Last: most is -1ns, must be positive, or 0 for no bound": func() { debounce.Last(e, 0, -1) },
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

// A package-level effector is used in the bubbles of two tests, which begin at the same instant.
func TestFirstBurstContinuesInAnotherBubble(t *testing.T) {
	runs := 0
	first := debounce.First(func(context.Context) (int, error) { runs++; return runs, nil }, time.Second, 0)
	use := func(t *testing.T) {
		if value, err := first(context.Background()); value != 1 || err != nil {
			t.Errorf("got %d, %v, want 1", value, err)
		}
	}
	synctest.Test(t, use)
	synctest.Test(t, use)
}

func TestFirstRunAskingForItselfReturnsErrCycle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a, b resilience.Effector[int]
		a = debounce.First(func(ctx context.Context) (int, error) { return b(ctx) }, time.Second, 0)
		b = debounce.First(func(ctx context.Context) (int, error) { return a(ctx) }, time.Second, 0)
		for range 2 { // the run, and another call of its burst
			if _, err := a(t.Context()); !errors.Is(err, debounce.ErrCycle) {
				t.Errorf("got %v, want ErrCycle", err)
			}
		}
	})
}

// TestFirstCallerThatLeftWaitsForNothing has a run of a that leaves the run of b, which then asks for
// a's result.
func TestFirstCallerThatLeftWaitsForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a, b resilience.Effector[string]
		a = debounce.First(func(ctx context.Context) (string, error) {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			if _, err := b(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v from b, want context.DeadlineExceeded", err)
			}
			time.Sleep(time.Minute)
			return "a", nil
		}, time.Second, 0)
		b = debounce.First(func(ctx context.Context) (string, error) {
			time.Sleep(2 * time.Second)
			return a(ctx)
		}, time.Second, 0)
		var g errgroup.Group
		g.Go(func() error { _, err := b(t.Context()); return err }) // keeps the run of b
		synctest.Wait()
		if value, err := a(t.Context()); value != "a" || err != nil {
			t.Errorf("got %q, %v from a, want a, nil", value, err)
		}
		if err := g.Wait(); err != nil {
			t.Errorf("got %v from b, want nil", err)
		}
	})
}
