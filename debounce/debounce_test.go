package debounce_test

import (
	"context"
	"errors"
	"fmt"
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

// burst makes calls at the given times, each with its number as a value, and gives what each got and when.
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

// naming gives an effector that takes a second and tells the number of the run and whose values it has.
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
		t.Errorf("\n%q, want\n%q", got, want)
	}
}

func TestFirstRunsTheFirstCallOfABurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, _ := naming()
		got := burst(t, debounce.First(e, 2*time.Second, 0),
			0, 500*time.Millisecond, // both wait for the run
			2*time.Second, // quiet would end a second later
			3999*time.Millisecond,
			5999*time.Millisecond, // quiet has passed, and another burst begins
			8999*time.Millisecond, // two seconds after its run
		)
		check(t, got, "run 1 of call 0 at 1s", "run 1 of call 0 at 1s", "run 1 of call 0 at 2s", "run 1 of call 0 at 3.999s",
			"run 2 of call 4 at 6.999s", "run 3 fails at 9.999s")
	})
}

func TestFirstSharesErrorsToo(t *testing.T) {
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
			t.Errorf("%d runs", down.Calls())
		}
	})
}

func TestFirstKeepsAResultForMostAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, runs := naming()
		var at []time.Duration
		for i := range 50 { // a call each 100 ms, for five seconds
			at = append(at, time.Duration(i)*100*time.Millisecond)
		}
		got := burst(t, debounce.First(e, time.Second, 1500*time.Millisecond), at...)
		// The run of 0 s ends at 1 s and is good until 2.5 s; that of 2.5 s ends at 3.5 s and is good until 5 s.
		if runs.Load() != 2 || got[24] != "run 1 of call 0 at 2.4s" || got[25] != "run 2 of call 25 at 3.5s" || got[49] != "run 2 of call 25 at 4.9s" {
			t.Errorf("%d runs: %q", runs.Load(), got)
		}
	})
}

func TestFirstRunsWhileCallersWaitThoughTheFirstHasGone(t *testing.T) {
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
			t.Errorf("%q, %v", value, err)
		}
		g.Wait()
	})
}

func TestARunThatEverybodyLeftIsCancelledAndTheNextCallBeginsAnew(t *testing.T) {
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
					t.Error("the run goes on without callers")
				}
				ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if call(ctx); hung.Calls() != 2 {
					t.Errorf("%d runs: a call joined the run that was given up", hung.Calls())
				}
			})
		})
	}
}

func TestLastRunsOnceAfterTheBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, runs := naming()
		got := burst(t, debounce.Last(e, 2*time.Second, 0),
			0, 1*time.Second, 2999*time.Millisecond, // a burst: its run is at 4.999 s
			5*time.Second, // another, which begins while the run lasts
		)
		check(t, got, "run 1 of call 2 at 5.999s", "run 1 of call 2 at 5.999s", "run 1 of call 2 at 5.999s", "run 2 of call 3 at 8s")
		if runs.Load() != 2 {
			t.Errorf("%d runs", runs.Load())
		}
	})
}

func TestLastWaitsForMostAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, runs := naming()
		var at []time.Duration
		for i := range 30 { // a call each 100 ms, for three seconds
			at = append(at, time.Duration(i)*100*time.Millisecond)
		}
		got := burst(t, debounce.Last(e, 150*time.Millisecond, 950*time.Millisecond), at...)
		if runs.Load() != 3 || got[0] != "run 1 of call 9 at 1.95s" || got[9] != got[0] || got[10] != "run 2 of call 19 at 2.95s" || got[29] != "run 3 fails at 3.95s" {
			t.Errorf("%d runs: %q", runs.Load(), got)
		}
	})
}

func TestACallerOfTheBurstMayGo(t *testing.T) {
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
			t.Errorf("%v after %v", err, time.Since(began))
		}
		if err := g.Wait(); err != nil || got != "run 1 of call last" || runs.Load() != 1 {
			t.Errorf("%q, %v: the run has the values of the burst's last call, gone or not", got, err)
		}
	})
}

func TestABurstThatEverybodyLeftIsNotRun(t *testing.T) {
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
			t.Error("it was run")
		}
	})
}

func TestPanicReachesEveryCaller(t *testing.T) {
	for name, debounced := range map[string]func(resilience.Effector[string], time.Duration, time.Duration) resilience.Effector[string]{
		"First": debounce.First[string], "Last": debounce.Last[string],
	} {
		synctest.Test(t, func(t *testing.T) {
			call := debounced(resiliencetest.Panic[string]("boom").Do, time.Second, 0)
			var g errgroup.Group
			var reached atomic.Int32
			for range 3 {
				g.Go(func() error {
					defer func() {
						if p, ok := recover().(*resilience.PanicError); ok && p.Value == "boom" {
							reached.Add(1)
						}
					}()
					call(t.Context())
					return nil
				})
			}
			g.Wait()
			if reached.Load() != 3 {
				t.Errorf("%s: the panic reached %d of 3 callers", name, reached.Load())
			}
		})
	}
}

func TestACtxThatIsDoneBeginsNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	e, runs := naming()
	for _, call := range []resilience.Effector[string]{debounce.First(e, 0, 0), debounce.Last(e, 0, 0)} {
		if _, err := call(ctx); !errors.Is(err, context.Canceled) || runs.Load() != 0 {
			t.Error(err)
		}
	}
}

func TestMistakesPanic(t *testing.T) {
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
					t.Errorf("panicked with %v, want %s", value, want)
				}
			}()
			mistake()
		}()
	}
}
