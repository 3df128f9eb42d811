package timeout_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// TestMain fails a run that leaves a goroutine of this package's tests behind.
func TestMain(m *testing.M) {
	code := m.Run()
	// A goroutine that is about to end may need a moment on a busy machine.
	behind := leftBehind()
	for start := time.Now(); behind != "" && time.Since(start) < 10*time.Second; behind = leftBehind() {
		runtime.Gosched()
	}
	if behind != "" {
		fmt.Fprintf(os.Stderr, "left behind after the tests:\n%s\n", behind)
		code = 1
	}
	os.Exit(code)
}

// leftBehind returns the stack of a goroutine that a test started, or "" if there is none. A
// fuzzing worker has others.
func leftBehind() string {
	if runtime.NumGoroutine() == 1 {
		return ""
	}
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	for _, stack := range strings.Split(string(stacks), "\n\n")[1:] {
		if strings.Contains(stack, "resilience/timeout") || strings.Contains(stack, "context.") {
			return stack
		}
	}
	return ""
}

var errDown = errors.New("down")

// obedient waits for the end of its context and returns its error.
func obedient(ctx context.Context) (string, error) {
	<-ctx.Done()
	return "partial", ctx.Err()
}

// sleeps returns a call that takes d, whatever its context does.
func sleeps(d time.Duration, err error) func(context.Context) (string, error) {
	return func(context.Context) (string, error) {
		time.Sleep(d)
		return "slept", err
	}
}

func TestTimeoutReturnsErrorForFailureAfterLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		payments := timeout.New(timeout.Config{Name: "payments", Limit: time.Second})
		start := time.Now()
		value, err := timeout.Do(t.Context(), payments, obedient)
		if took := time.Since(start); took != time.Second {
			t.Errorf("took %v, want 1s", took)
		}
		var limit *timeout.Error
		if !errors.As(err, &limit) || limit.Name != "payments" || limit.Limit != time.Second || !limit.Timeout() {
			t.Fatalf("error %#v, want *Error of payments with Limit 1s and Timeout true", err)
		}
		for _, target := range []error{timeout.ErrTimeout, context.DeadlineExceeded} {
			if !errors.Is(err, target) {
				t.Errorf("error is not %v", target)
			}
		}
		if errors.Is(err, resilience.ErrRefused) || errors.Is(err, context.Canceled) {
			t.Errorf("error %v is too much", err)
		}
		if value != "partial" {
			t.Errorf("value %q, want the effector's", value)
		}
		if got, want := err.Error(), "timeout payments: limit of 1s passed"; got != want {
			t.Errorf("error reads %q, want %q", got, want)
		}
	})
}

func TestErrorUnwrapsToEffectorError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, err := timeout.Do(t.Context(), timeout.After(1234567*time.Microsecond), sleeps(2*time.Second, errDown))
		if !errors.Is(err, timeout.ErrTimeout) || !errors.Is(err, errDown) {
			t.Errorf("error %v, want ErrTimeout and errDown", err)
		}
		if got, want := err.Error(), "timeout: limit of 1.23s passed: down"; got != want {
			t.Errorf("error reads %q, want %q", got, want)
		}
	})
}

func TestErrorTextRoundsLimit(t *testing.T) {
	for limit, want := range map[time.Duration]string{
		61*time.Minute + 2345*time.Millisecond: "1h1m2s", 1234567 * time.Microsecond: "1.23s",
		1234567 * time.Nanosecond: "1.23ms", 1234 * time.Nanosecond: "1.23µs", 123 * time.Nanosecond: "123ns",
	} {
		synctest.Test(t, func(t *testing.T) {
			_, err := timeout.Do(t.Context(), timeout.After(limit), obedient)
			if got, want := fmt.Sprint(err), "timeout: limit of "+want+" passed"; got != want {
				t.Errorf("got text %q, want %q", got, want)
			}
		})
	}
}

func TestTimeoutKeepsLateSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		value, err := timeout.Do(t.Context(), timeout.After(time.Second), sleeps(time.Hour, nil))
		if value != "slept" || err != nil {
			t.Errorf("Do: got %q, %v, want success", value, err)
		}
		value, err = resilience.Do(t.Context(), timeout.After(time.Second), sleeps(time.Hour, nil))
		if value != "slept" || err != nil {
			t.Errorf("Run: got %q, %v, want success", value, err)
		}
	})
}

func TestTimeoutKeepsFailureBeforeLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, err := timeout.Do(t.Context(), timeout.After(time.Second), sleeps(time.Second-1, errDown))
		if err != errDown {
			t.Errorf("error %v, want errDown itself", err)
		}
		_, err = timeout.Do(t.Context(), timeout.After(time.Second), func(context.Context) (int, error) {
			return 0, context.DeadlineExceeded // of some other context
		})
		if err != context.DeadlineExceeded {
			t.Errorf("error %v, want DeadlineExceeded itself", err)
		}
	})
}

// TestTimeoutReturnsErrorForOtherTimerAtDeadline: a net.Conn keeps the deadline with its own timer,
// which may fire first.
func TestTimeoutReturnsErrorForOtherTimerAtDeadline(t *testing.T) {
	for range 100 {
		synctest.Test(t, func(t *testing.T) {
			_, err := timeout.Do(t.Context(), timeout.After(time.Second), func(ctx context.Context) (int, error) {
				deadline, _ := ctx.Deadline()
				timer := time.NewTimer(time.Until(deadline))
				ctx.Done()
				<-timer.C
				return 0, errDown
			})
			if !errors.Is(err, timeout.ErrTimeout) {
				t.Errorf("error %v, want ErrTimeout", err)
			}
		})
	}
}

func TestTimeoutDoesNotClaimCallerDeadline(t *testing.T) {
	for _, limit := range []time.Duration{time.Second, time.Minute} { // as long as the caller's, and longer
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := timeout.Do(ctx, timeout.After(limit), func(inner context.Context) (int, error) {
				if inner != ctx {
					t.Errorf("ctx is %v, want the caller's as it is", inner)
				}
				<-inner.Done()
				time.Sleep(time.Hour) // both have passed
				return 0, inner.Err()
			})
			if err != context.DeadlineExceeded {
				t.Errorf("error %v, want DeadlineExceeded itself", err)
			}
		})
	}
}

func TestTimeoutDoesNotClaimCallerCancellation(t *testing.T) {
	for name, fn := range map[string]func(context.Context) (string, error){
		"unarmed": sleeps(time.Hour, errDown),
		"armed": func(ctx context.Context) (string, error) {
			<-ctx.Done()
			time.Sleep(time.Hour)
			return "", errDown
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(time.Millisecond, cancel)
				_, err := timeout.Do(ctx, timeout.After(time.Second), fn)
				if err != errDown {
					t.Errorf("error %v, want errDown itself", err)
				}
			})
		})
	}
}

func TestTimeoutClaimsLimitBeforeCallerDeadline(t *testing.T) {
	for name, fn := range map[string]func(context.Context) (string, error){
		"unarmed": sleeps(time.Hour, errDown),
		"armed": func(ctx context.Context) (string, error) {
			<-ctx.Done()
			time.Sleep(time.Hour)
			return "", errDown
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				_, err := timeout.Do(ctx, timeout.After(time.Second), fn)
				if !errors.Is(err, timeout.ErrTimeout) {
					t.Errorf("error %v, want ErrTimeout", err)
				}
			})
		})
	}
}

// TestTimeoutDoesNotClaimEarlierCancellation covers a cancellation before the limit that nothing
// noticed until a caller's deadline had passed too.
func TestTimeoutDoesNotClaimEarlierCancellation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		time.AfterFunc(time.Millisecond, cancel)
		_, err := timeout.Do(ctx, timeout.After(time.Second), sleeps(time.Hour, errDown))
		if err != errDown {
			t.Errorf("error %v, want errDown itself", err)
		}
	})
}

func TestTimeoutReturnsErrorForUnarmedFailureAtLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, err := timeout.Do(t.Context(), timeout.After(time.Second), sleeps(time.Second, errDown))
		if !errors.Is(err, timeout.ErrTimeout) {
			t.Errorf("error %v, want ErrTimeout", err)
		}
	})
}

func TestTimeoutWithLaterLimitCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, limit := range []time.Duration{time.Second, time.Minute} { // as long as the outer one, and longer
			timeout.Do(t.Context(), timeout.After(time.Second), func(outer context.Context) (int, error) {
				return timeout.Do(outer, timeout.After(limit), func(inner context.Context) (int, error) {
					if inner != outer {
						t.Errorf("%v: ctx is %v, want the outer one as it is", limit, inner)
					}
					return 0, nil
				})
			})
		}
	})
}

func TestTimeoutSetsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		within := func(ctx context.Context, limit time.Duration, fn func(context.Context)) {
			timeout.Do(ctx, timeout.After(limit), func(ctx context.Context) (int, error) {
				if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) != limit {
					t.Errorf("deadline in %v, %t, want %v", time.Until(deadline), ok, limit)
				}
				fn(ctx)
				return 0, nil
			})
		}
		within(t.Context(), time.Minute, func(ctx context.Context) {
			time.Sleep(time.Second)
			within(ctx, time.Second, func(ctx context.Context) {
				within(ctx, time.Millisecond, func(context.Context) {})
			})
		})
	})
}

func TestTimeoutNestedClaimsOnlyOwnLimit(t *testing.T) {
	for _, test := range []struct {
		name         string
		outer, inner time.Duration
		fn           func(context.Context) (string, error)
		want         string
	}{
		{"inner", time.Minute, time.Second, obedient, "timeout inner: limit of 1s passed"},
		{"outer", time.Second, time.Minute, obedient, "timeout outer: limit of 1s passed"},
		{"neither", time.Minute, time.Minute, sleeps(time.Second, errDown), "down"},
		{"both", time.Minute, time.Second, sleeps(time.Hour, errDown), "timeout outer: limit of 1m0s passed: timeout inner: limit of 1s passed: down"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				call := resilience.Compose(test.fn,
					timeout.New(timeout.Config{Name: "outer", Limit: test.outer}),
					timeout.New(timeout.Config{Name: "inner", Limit: test.inner}))
				_, err := call(t.Context())
				if err == nil || err.Error() != test.want {
					t.Errorf("error %v, want %s", err, test.want)
				}
			})
		})
	}
}

func TestDoMakesNoCallWithEndedContext(t *testing.T) {
	boss := errors.New("boss said no")
	for name, policy := range map[string]*timeout.Timeout{
		"plain":   timeout.After(time.Second),
		"abandon": timeout.New(timeout.Config{Limit: time.Second, Abandon: 1}),
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			cancel(boss)
			value, err := timeout.Do(ctx, policy, func(context.Context) (int, error) {
				t.Error("called")
				return 1, nil
			})
			if value != 0 || !errors.Is(err, context.Canceled) || !errors.Is(err, boss) {
				t.Errorf("got %d, %v, want 0 and an error that is Canceled and the cause", value, err)
			}
		})
	}
}

func TestContextEndsWithCall(t *testing.T) {
	for name, leave := range map[string]func(){
		"return": func() {},
		"panic":  func() { panic("oops") },
		"goexit": func() { runtime.Goexit() },
	} {
		for _, way := range []string{"Do", "Run", "Abandon"} {
			t.Run(name+"/"+way, func(t *testing.T) {
				var idle, armed context.Context
				call := func(kept *context.Context, arm bool) {
					ended := make(chan any)
					go func() {
						defer func() { ended <- recover() }()
						fn := func(ctx context.Context) (int, error) {
							if *kept = ctx; arm {
								ctx.Done()
							}
							leave()
							return 0, nil
						}
						switch way {
						case "Do":
							timeout.Do(context.Background(), timeout.After(time.Hour), fn)
						case "Run":
							resilience.Do(context.Background(), timeout.After(time.Hour), fn)
						case "Abandon":
							timeout.Do(context.Background(), timeout.New(timeout.Config{Limit: time.Hour, Abandon: 1}), fn)
						}
					}()
					value := <-ended
					if apart, ok := value.(*resilience.PanicError); ok && way == "Abandon" {
						value = apart.Value
					}
					if (value != nil) != (name == "panic") || value != nil && value != "oops" {
						t.Errorf("recovered %v", value)
					}
				}
				call(&idle, false)
				call(&armed, true)
				for _, ctx := range []context.Context{idle, armed} {
					if ctx.Err() != context.Canceled {
						t.Errorf("Err is %v after the call, want Canceled", ctx.Err())
					}
					<-ctx.Done()
				}
			})
		}
	}
}

func TestConfigValidateReportsAllErrors(t *testing.T) {
	err := timeout.Config{Name: "payments", Limit: -time.Second, Abandon: -1}.Validate()
	const want = "timeout payments: Limit is -1s, must be positive\ntimeout payments: Abandon is -1, must be 0 or more"
	if err == nil || err.Error() != want {
		t.Errorf("Validate: %v, want %s", err, want)
	}
	if err := (timeout.Config{Limit: 1}).Validate(); err != nil {
		t.Errorf("Validate: %v, want nil", err)
	}
}

func TestNewPanicsOnInvalidConfig(t *testing.T) {
	fn := func(context.Context) (int, error) { return 0, nil }
	for want, mistake := range map[string]func(){
		"timeout: Limit is 0s, must be positive":                        func() { timeout.New(timeout.Config{}) },
		"timeout: Limit is -1ns, must be positive":                      func() { timeout.After(-1) },
		"timeout: Do: fn is nil, must be a function":                    func() { timeout.Do[int](t.Context(), timeout.After(1), nil) },
		"timeout: Do: t is nil, must be a Timeout made by New or After": func() { timeout.Do(t.Context(), nil, fn) },
	} {
		func() {
			defer func() {
				if got := recover(); got != want {
					t.Errorf("panicked with %v, want %s", got, want)
				}
			}()
			mistake()
		}()
	}
}

func TestTimeoutAcceptsLongestLimit(t *testing.T) {
	_, err := timeout.Do(t.Context(), timeout.After(1<<63-1), func(ctx context.Context) (int, error) {
		select {
		case <-ctx.Done():
		default:
		}
		return 0, ctx.Err()
	})
	if err != nil {
		t.Errorf("error %v, want nil", err)
	}
}

func TestTimeoutAllocatesOnlyContext(t *testing.T) {
	policy := timeout.After(time.Hour)
	fn := func(ctx context.Context) (int, error) { return 0, errors.Join(ctx.Err(), context.Cause(ctx)) } // neither arms
	if n := testing.AllocsPerRun(100, func() { timeout.Do(context.Background(), policy, fn) }); n != 1 {
		t.Errorf("%v allocations, want 1", n)
	}
	sooner, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if n := testing.AllocsPerRun(100, func() { timeout.Do(sooner, policy, fn) }); n != 0 {
		t.Errorf("%v allocations under a nearer deadline, want 0", n)
	}
}

// TestTimeoutNestedAllocations: a pipeline with two timeouts allocates one context for each and the
// call's state, and if the effector waits, one armed context for both.
func TestTimeoutNestedAllocations(t *testing.T) {
	root, cancel := context.WithCancel(context.Background())
	defer cancel()
	for name, test := range map[string]struct {
		effector resilience.Effector[int]
		most     float64
	}{
		"nobody waits": {func(context.Context) (int, error) { return 1, nil }, 3},
		"waits":        {func(ctx context.Context) (int, error) { ctx.Done(); return 1, nil }, 8},
	} {
		call := resilience.Compose(test.effector,
			timeout.After(3*time.Second), retry.New(retry.Config{MaxAttempts: 3}), breaker.New(breaker.Config{}), timeout.After(time.Second))
		if got := testing.AllocsPerRun(1000, func() { _, _ = call(root) }); got > test.most {
			t.Errorf("%s: got %v allocations, want at most %v", name, got, test.most)
		}
	}
}
