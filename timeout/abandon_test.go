package timeout_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/timeout"
)

func abandoning(n int) *timeout.Timeout {
	return timeout.New(timeout.Config{Name: "payments", Limit: time.Second, Abandon: n})
}

func TestAbandonReturnsAtLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		policy := abandoning(1)
		start := time.Now()
		value, err := timeout.Do(t.Context(), policy, sleeps(time.Minute, errDown))
		if took := time.Since(start); took != time.Second {
			t.Errorf("took %v, want 1s", took)
		}
		if value != "" || !errors.Is(err, timeout.ErrTimeout) || !errors.Is(err, context.DeadlineExceeded) || errors.Unwrap(err) != nil {
			t.Errorf("got %q, %v, want the zero value and an *Error without the effector's", value, err)
		}
		if got, want := err.Error(), "timeout payments: limit of 1s passed"; got != want {
			t.Errorf("error reads %q, want %q", got, want)
		}
		if n := policy.Abandoned(); n != 1 {
			t.Errorf("Abandoned is %d, want 1", n)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := policy.Abandoned(); n != 0 {
			t.Errorf("Abandoned is %d after the effector ended, want 0", n)
		}
	})
}

func TestAbandonKeepsResultOfFinishedCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		policy := abandoning(1)
		for _, want := range []error{nil, errDown} {
			value, err := timeout.Do(t.Context(), policy, sleeps(time.Millisecond, want))
			if value != "slept" || err != want {
				t.Errorf("got %q, %v, want slept, %v", value, err, want)
			}
		}
	})
}

func TestAbandonRefusesCallsBeyondNumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		policy := abandoning(2)
		var group errgroup.Group
		for range 3 { // all begin before the number is reached, and return at their limit
			group.Go(func() error {
				if _, err := timeout.Do(t.Context(), policy, sleeps(time.Minute, nil)); !errors.Is(err, timeout.ErrTimeout) {
					return err
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		_, err := timeout.Do(t.Context(), policy, func(context.Context) (int, error) {
			t.Error("called")
			return 0, nil
		})
		var refusal *timeout.AbandonedError
		if !errors.As(err, &refusal) || refusal.Name != "payments" || refusal.Abandoned != 3 {
			t.Fatalf("error %#v, want *AbandonedError of payments with 3", err)
		}
		if !errors.Is(err, resilience.ErrRefused) || errors.Is(err, timeout.ErrTimeout) {
			t.Error("want ErrRefused and not ErrTimeout")
		}
		if got, want := err.Error(), "timeout payments: 3 abandoned calls still running"; got != want {
			t.Errorf("error reads %q, want %q", got, want)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if _, err := timeout.Do(t.Context(), policy, sleeps(0, nil)); err != nil {
			t.Errorf("error %v after all ended, want nil", err)
		}
	})
}

func TestAbandonCountsConcurrentCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const calls = 200
		policy := abandoning(calls)
		for range 5 {
			var group errgroup.Group
			for range calls {
				group.Go(func() error {
					_, _ = timeout.Do(t.Context(), policy, sleeps(time.Minute, nil))
					return nil
				})
			}
			_ = group.Wait()
			if n := policy.Abandoned(); n != calls {
				t.Fatalf("got %d abandoned calls, want %d", n, calls)
			}
			time.Sleep(time.Hour)
			synctest.Wait()
			if n := policy.Abandoned(); n != 0 {
				t.Fatalf("got %d abandoned calls after all have ended, want 0", n)
			}
		}
	})
}

func TestAbandonReturnsWhenCallerEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		policy := abandoning(2)
		canceled, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Millisecond, func() { cancel(errBoss) })
		_, err := timeout.Do(canceled, policy, sleeps(time.Minute, nil))
		if !errors.Is(err, context.Canceled) || !errors.Is(err, errBoss) || errors.Is(err, timeout.ErrTimeout) {
			t.Errorf("error %v, want Canceled with its cause", err)
		}
		sooner, stop := context.WithTimeoutCause(t.Context(), time.Millisecond, errBoss)
		defer stop()
		_, err = timeout.Do(sooner, policy, sleeps(time.Minute, nil))
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errBoss) || errors.Is(err, timeout.ErrTimeout) {
			t.Errorf("error %v, want DeadlineExceeded with its cause and not ErrTimeout", err)
		}
		if n := policy.Abandoned(); n != 2 {
			t.Errorf("Abandoned is %d, want 2", n)
		}
		time.Sleep(time.Minute)
	})
}

func TestAbandonPanicsInCallerBeforeLimit(t *testing.T) {
	defer func() {
		panicked, ok := recover().(*resilience.PanicError)
		if !ok || panicked.Value != errDown || !errors.Is(panicked, errDown) {
			t.Fatalf("panicked with %v, want *PanicError of errDown", panicked)
		}
		if !strings.Contains(string(panicked.Stack), "whereItHappened") {
			t.Errorf("stack is not the effector's:\n%s", panicked.Stack)
		}
	}()
	// Two detached goroutines: the value is not wrapped twice.
	call := resilience.Compose(whereItHappened, abandoning(1), abandoning(1))
	call(t.Context())
}

//go:noinline
func whereItHappened(context.Context) (int, error) { panic(errDown) }

func TestAbandonPassesGoexitBeforeLimit(t *testing.T) {
	ended := make(chan bool)
	go func() {
		returned := false
		defer func() { ended <- returned || recover() != nil }()
		timeout.Do(context.Background(), abandoning(1), func(context.Context) (int, error) {
			runtime.Goexit()
			return 0, nil
		})
		returned = true
	}()
	if <-ended {
		t.Error("Do returned or panicked, want Goexit")
	}
}

// TestAbandonPanicAfterLimitCrashesProgram runs itself in a process that must crash.
func TestAbandonPanicAfterLimitCrashesProgram(t *testing.T) {
	if os.Getenv("TIMEOUT_TEST_CRASH") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestAbandonPanicAfterLimitCrashesProgram$")
		cmd.Env = append(os.Environ(), "TIMEOUT_TEST_CRASH=1")
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "panic: nobody is there") || strings.Contains(string(out), "recovered") {
			t.Errorf("process ended with %v, want a crash:\n%s", err, out)
		}
		return
	}
	policy := timeout.New(timeout.Config{Limit: 1, Abandon: 1})
	timeout.Do(t.Context(), policy, func(ctx context.Context) (int, error) {
		for policy.Abandoned() == 0 {
			runtime.Gosched()
		}
		panic("nobody is there")
	})
	select {}
}

func TestAbandonDiscardsValueOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dropped []string
		call := resilience.Compose(sleeps(time.Minute, nil),
			resilience.Discard(func(value string) { dropped = append(dropped, value) }),
			abandoning(1))
		if value, err := call(t.Context()); value != "" || !errors.Is(err, timeout.ErrTimeout) {
			t.Errorf("got %q, %v", value, err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(dropped) != 1 || dropped[0] != "slept" {
			t.Errorf("dropped %q, want slept once", dropped)
		}
	})
}

// TestAbandonDiscardsValueWhenEffectorEnds: not only when the whole call ends, which may be much
// later.
func TestAbandonDiscardsValueWhenEffectorEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dropped := 0
		goOn := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			err := next.Run(ctx)
			time.Sleep(time.Hour)
			synctest.Wait()
			if dropped != 1 {
				t.Errorf("dropped %d while the call goes on, want 1", dropped)
			}
			return err
		})
		call := resilience.Compose(sleeps(time.Minute, nil),
			resilience.Discard(func(string) { dropped++ }), goOn, abandoning(1))
		call(t.Context())
		if dropped != 1 {
			t.Errorf("dropped %d, want 1", dropped)
		}
	})
}

func TestAbandonKeepsFinishedValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		call := resilience.Compose(sleeps(0, nil),
			resilience.Discard(func(value string) { t.Errorf("dropped %q", value) }),
			abandoning(1))
		if value, err := call(t.Context()); value != "slept" || err != nil {
			t.Errorf("got %q, %v", value, err)
		}
	})
}

// TestAbandonLosesNothingWhenEndMeetsLimit lets effectors end just when their callers leave: each
// value is returned or dropped, and the count returns to zero.
func TestAbandonLosesNothingWhenEndMeetsLimit(t *testing.T) {
	policy := timeout.New(timeout.Config{Limit: 20 * time.Microsecond, Abandon: 1000})
	var made, got, dropped atomic.Int64
	call := resilience.Compose(func(ctx context.Context) (int, error) {
		<-ctx.Done()
		made.Add(1)
		return 1, nil
	}, resilience.Discard(func(n int) { dropped.Add(int64(n)) }), policy)
	var group errgroup.Group
	for range 8 {
		group.Go(func() error {
			for range 200 {
				n, err := call(context.Background())
				if (n == 1) != (err == nil) {
					t.Errorf("got %d, %v", n, err)
				}
				got.Add(int64(n))
			}
			return nil
		})
	}
	group.Wait()
	for range 1_000_000 {
		if policy.Abandoned() == 0 && made.Load() == 1600 {
			break
		}
		runtime.Gosched()
	}
	if policy.Abandoned() != 0 || made.Load() != 1600 || got.Load()+dropped.Load() != 1600 {
		t.Errorf("made %d, got %d, dropped %d, abandoned %d, want 1600 made, each got or dropped",
			made.Load(), got.Load(), dropped.Load(), policy.Abandoned())
	}
}

// TestAbandonReturnsErrorForFailureAtLimit, whichever comes first, the effector or its caller.
func TestAbandonReturnsErrorForFailureAtLimit(t *testing.T) {
	policy := timeout.New(timeout.Config{Limit: time.Second, Abandon: 1})
	for name, fn := range map[string]func(context.Context) (string, error){
		"respects its context": obedient,
		"by its own timer": func(ctx context.Context) (string, error) {
			time.Sleep(time.Second)
			return "", errDown
		},
	} {
		t.Run(name, func(t *testing.T) {
			for range 200 {
				synctest.Test(t, func(t *testing.T) {
					if _, err := timeout.Do(t.Context(), policy, fn); !errors.Is(err, timeout.ErrTimeout) {
						t.Errorf("error %v, want ErrTimeout", err)
					}
				})
			}
		})
	}
}

func TestAbandonCountsCallAsStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var starts []int
		watch := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			err := next.Run(ctx)
			starts = append(starts, next.Starts())
			return err
		})
		policy := abandoning(1)
		for range 2 { // made and abandoned, then refused
			resilience.Do(t.Context(), resilience.Pipeline{watch, policy}, sleeps(time.Minute, nil))
		}
		if len(starts) != 2 || starts[0] != 1 || starts[1] != 0 {
			t.Errorf("starts %v, want [1 0]", starts)
		}
		time.Sleep(time.Minute)
	})
}
