package share_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/debounce"
	"github.com/effector-go/resilience/share"
)

func TestGroupRunAskingForOwnKeyReturnsErrCycle(t *testing.T) {
	for _, next := range []map[string]string{
		{"a": "a"},
		{"a": "b", "b": "a"},
		{"a": "b", "b": "c", "c": "b"}, // the cycle doesn't include the first key
	} {
		synctest.Test(t, func(t *testing.T) {
			var g *share.Group[string, int]
			cycle := true
			g = share.NewGroup(share.Config{}, func(ctx context.Context, key string) (int, error) {
				if !cycle {
					return 1, nil
				}
				ctx, cancel := context.WithTimeout(ctx, time.Hour) // as a policy would
				defer cancel()
				return g.Do(ctx, next[key])
			})
			began := time.Now()
			if _, err := g.Do(t.Context(), "a"); !errors.Is(err, share.ErrCycle) || errors.Is(err, resilience.ErrRefused) {
				t.Errorf("%v: got %v, want ErrCycle", next, err)
			}
			if time.Since(began) != 0 || g.Len() != 0 {
				t.Errorf("%v: got the error after %v with %d keys in use, want 0s and 0 keys", next, time.Since(began), g.Len())
			}
			cycle = false
			if v, err := g.Do(t.Context(), "a"); v != 1 || err != nil {
				t.Errorf("%v: a later caller got %v, %v, want 1", next, v, err)
			}
		})
	}
}

func TestCallsAndStaleInCycleReturnErrCycle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stale resilience.Effector[int]
		calls := share.Calls(func(ctx context.Context) (int, error) { return stale(ctx) })
		group := share.NewGroup(share.Config{}, func(ctx context.Context, _ int) (int, error) { return calls(ctx) })
		stale = share.Stale(func(ctx context.Context) (int, error) { return group.Do(ctx, 1) }, time.Minute, 0)
		for name, call := range map[string]resilience.Effector[int]{
			"Calls": calls, "Stale": stale,
			"Group": func(ctx context.Context) (int, error) { return group.Do(ctx, 1) },
		} {
			if _, err := call(t.Context()); !errors.Is(err, share.ErrCycle) {
				t.Errorf("%s: got %v, want ErrCycle", name, err)
			}
		}
	})
}

// Each of two callers begins at another end of the cycle, so that neither run's context is derived
// from the other's.
func TestGroupRunsWaitingForEachOtherReturnErrCycle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g *share.Group[string, int]
		g = share.NewGroup(share.Config{}, func(ctx context.Context, key string) (int, error) {
			time.Sleep(time.Second) // until both runs have begun
			return g.Do(ctx, map[string]string{"a": "b", "b": "a"}[key])
		})
		var callers errgroup.Group
		for _, key := range []string{"a", "b"} {
			callers.Go(func() error {
				if _, err := g.Do(t.Context(), key); !errors.Is(err, share.ErrCycle) {
					return fmt.Errorf("%s: got %v, want ErrCycle", key, err)
				}
				return nil
			})
		}
		if err := callers.Wait(); err != nil {
			t.Error(err)
		}
	})
}

// Runs that wait for others without a cycle aren't refused: a diamond, asked for concurrently, and
// a key that is asked for again after a run has stopped waiting for it.
func TestGroupRunsWithoutCycleWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g *share.Group[string, int]
		g = share.NewGroup(share.Config{}, func(ctx context.Context, key string) (int, error) {
			time.Sleep(time.Second)
			sum := 1
			var parts errgroup.Group
			values := make([]int, 2)
			for i, next := range map[string][]string{"a": {"b", "c"}, "b": {"d"}, "c": {"d"}}[key] {
				parts.Go(func() (err error) {
					values[i], err = g.Do(ctx, next)
					return err
				})
			}
			err := parts.Wait()
			return sum + values[0] + values[1], err
		})
		var callers errgroup.Group
		for _, want := range []struct {
			key   string
			value int
		}{{"a", 5}, {"b", 2}, {"c", 2}, {"d", 1}, {"a", 5}} {
			callers.Go(func() error {
				if v, err := g.Do(t.Context(), want.key); v != want.value || err != nil {
					return fmt.Errorf("%s: got %v, %v, want %d", want.key, v, err, want.value)
				}
				return nil
			})
		}
		if err := callers.Wait(); err != nil {
			t.Error(err)
		}
	})
}

// A run that has stopped waiting for another may be waited for by it.
func TestGroupRunForgetsWhatItNoLongerWaitsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g *share.Group[string, string]
		g = share.NewGroup(share.Config{}, func(ctx context.Context, key string) (string, error) {
			switch key {
			case "a":
				impatient, cancel := context.WithTimeout(ctx, time.Second)
				defer cancel()
				_, err := g.Do(impatient, "b")
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("a: got %v, want context.DeadlineExceeded", err)
				}
				time.Sleep(time.Minute)
				return "a", nil
			default:
				time.Sleep(2 * time.Second) // until a waits no longer
				return g.Do(ctx, "a")
			}
		})
		var callers errgroup.Group
		for _, key := range []string{"a", "b"} {
			callers.Go(func() error {
				if v, err := g.Do(t.Context(), key); v != "a" || err != nil {
					return fmt.Errorf("%s: got %q, %v, want a", key, v, err)
				}
				return nil
			})
		}
		if err := callers.Wait(); err != nil {
			t.Error(err)
		}
	})
}

// A goroutine that keeps the context of a run may ask for anything once the run has ended, also in
// the moment before the runs that waited for it have received its result.
func TestGroupCallWithContextOfEndedRunIsNoCycle(t *testing.T) {
	for range 1000 {
		var g *share.Group[string, string]
		var once sync.Once
		after := make(chan error, 1)
		g = share.NewGroup(share.Config{}, func(ctx context.Context, key string) (string, error) {
			if key == "b" {
				return g.Do(ctx, "a")
			}
			once.Do(func() {
				context.AfterFunc(ctx, func() {
					_, err := g.Do(context.WithoutCancel(ctx), "b")
					after <- err
				})
			})
			return "a", nil
		})
		if _, err := g.Do(t.Context(), "b"); err != nil {
			t.Fatal(err)
		}
		if err := <-after; err != nil {
			t.Fatalf("got %v from a call with the context of a run that had ended, want none", err)
		}
	}
}

func TestErrCycleMatchesThatOfDebounce(t *testing.T) {
	if !errors.Is(share.ErrCycle, debounce.ErrCycle) || !errors.Is(debounce.ErrCycle, share.ErrCycle) {
		t.Error("share.ErrCycle and debounce.ErrCycle don't match each other")
	}
	if errors.Is(share.ErrCycle, resilience.ErrRefused) || errors.Is(errors.New("share"), share.ErrCycle) {
		t.Error("ErrCycle matches other errors")
	}
	for err, want := range map[error]string{
		share.ErrCycle:    "share: run would wait for its own result",
		debounce.ErrCycle: "debounce: run would wait for its own result",
	} {
		if err.Error() != want {
			t.Errorf("got text %q, want %q", err, want)
		}
	}
}
