package shared

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
)

// TestRunPanicAfterAllCallersLeftCrashesProgram runs itself in a process that must crash.
func TestRunPanicAfterAllCallersLeftCrashesProgram(t *testing.T) {
	const env = "SHARED_TEST_CRASH"
	if os.Getenv(env) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestRunPanicAfterAllCallersLeftCrashesProgram$")
		cmd.Env = append(os.Environ(), env+"=1")
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "panic: no caller is left") || strings.Contains(string(out), "recovered") {
			t.Errorf("process ended with %v, want a crash:\n%s", err, out)
		}
		return
	}
	var mu sync.Mutex
	mu.Lock()
	r := Start(t.Context(), nil, &mu, 1, func(ctx context.Context) (int, error) {
		<-ctx.Done()
		panic("no caller is left")
	}, nil)
	mu.Unlock()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r.Wait(ctx)
	select {}
}

// TestRunGivenUpReportsNoResult checks that settle isn't called, and that the run can't be joined.
func TestRunGivenUpReportsNoResult(t *testing.T) {
	for name, end := range map[string]func() (int, error){
		"a value": func() (int, error) { return 1, nil },
		"Goexit":  func() (int, error) { runtime.Goexit(); return 0, nil },
	} {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex
			mu.Lock()
			r := Start(t.Context(), nil, &mu, 2, func(ctx context.Context) (int, error) {
				<-ctx.Done()
				return end()
			}, func(*Run[int]) { t.Errorf("%s: settle was called", name) })
			mu.Unlock()
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			for range 2 {
				mu.Lock()
				if r.state != running {
					t.Errorf("%s: given up while a caller waits", name)
				}
				mu.Unlock()
				if _, err := r.Wait(ctx); !errors.Is(err, context.Canceled) {
					t.Errorf("%s: got %v, want canceled", name, err)
				}
			}
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if _, ok := r.Ended(); ok || r.Join() || r.state != givenUp || r.callers != 0 {
				t.Errorf("%s: got %+v, want a run that was given up", name, r)
			}
		})
	}
}

// TestRunWaitPrefersResultOverEndedContext: otherwise a panic might have no caller to go to
// although the run wasn't given up.
func TestRunWaitPrefersResultOverEndedContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		mu.Lock()
		r := Start(t.Context(), nil, &mu, 1, func(context.Context) (int, error) { return 1, nil }, nil)
		mu.Unlock()
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for range 100 { // both are ready, and select chooses at random
			if value, err := r.Wait(ctx); value != 1 || err != nil {
				t.Fatalf("got %v, %v, want 1, nil", value, err)
			}
		}
	})
}

// TestRunSettlesBeforeAnyCallerReturns checks that settle is called with the mutex held, and may
// replace an error.
func TestRunSettlesBeforeAnyCallerReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		began := time.Now()
		mu.Lock()
		r := Start(t.Context(), nil, &mu, 1, func(context.Context) (int, error) {
			time.Sleep(time.Second)
			return 1, errors.New("down")
		}, func(r *Run[int]) {
			if mu.TryLock() {
				t.Error("settle was called without the mutex held")
			}
			if value, err, ok := r.Returned(); value != 1 || err == nil || !ok {
				t.Errorf("Returned: got %v, %v, %v, want 1, an error, true", value, err, ok)
			}
			r.Answer(2)
		})
		mu.Unlock()
		if value, err := r.Wait(t.Context()); value != 2 || err != nil || time.Since(began) != time.Second {
			t.Errorf("got %v, %v after %v, want 2, nil after 1s", value, err, time.Since(began))
		}
		mu.Lock()
		defer mu.Unlock()
		if r.cancel != nil {
			t.Error("the run still holds its context")
		}
	})
}

func TestRunPassesInnerPanicErrorUnchanged(t *testing.T) {
	inner := &resilience.PanicError{Value: "boom", Stack: []byte("there")}
	var mu sync.Mutex
	mu.Lock()
	r := Start(t.Context(), nil, &mu, 1, func(context.Context) (int, error) { panic(inner) }, nil)
	mu.Unlock()
	defer func() {
		if value := recover(); value != inner {
			t.Errorf("got panic %v, want the inner *PanicError unchanged", value)
		}
	}()
	r.Wait(t.Context())
}

// TestRunCallersLeaveConcurrently checks that each caller is counted once, and that the last one
// gives the run up.
func TestRunCallersLeaveConcurrently(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const callers = 50
		var mu sync.Mutex
		mu.Lock()
		r := Start(t.Context(), nil, &mu, callers+1, func(ctx context.Context) (int, error) {
			<-ctx.Done()
			return 0, nil
		}, nil)
		mu.Unlock()
		ctx, cancel := context.WithCancel(t.Context())
		var g errgroup.Group
		for range callers {
			g.Go(func() error { _, err := r.Wait(ctx); return err })
		}
		synctest.Wait()
		cancel()
		if err := g.Wait(); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		mu.Lock()
		if r.callers != 1 || r.state != running {
			t.Errorf("got %d callers of a run in state %d, want 1 of a running one", r.callers, r.state)
		}
		mu.Unlock()
		if _, err := r.Wait(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestWaitReturnsResultOfRunThatEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// The run has ended, but its goroutine hasn't yet closed done.
		r := &Run[int]{done: make(chan struct{}), mu: new(sync.Mutex), state: ended, callers: 1, value: 7, returned: true}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		time.AfterFunc(time.Second, func() { close(r.done) })
		if value, err := r.Wait(ctx); value != 7 || err != nil {
			t.Errorf("got %d, %v, want 7, nil", value, err)
		}
	})
}
