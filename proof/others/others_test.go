// Package others holds a test for each behavior of another library that its users reported. The
// tests are named after the reports. The comment of each test describes the report in our own
// words.
package others

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/resiliencetest"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

var errDown = errors.New("down")

// halfOpen returns a breaker that its own timer has just made half-open.
func halfOpen(t *testing.T, c breaker.Config) *breaker.Breaker {
	t.Helper()
	c.Consecutive, c.OpenFor = 1, time.Second
	b := breaker.New(c)
	breaker.Do(t.Context(), b, resiliencetest.FailAfter[int](0).Do)
	time.Sleep(time.Second)
	synctest.Wait()
	if b.State() != breaker.HalfOpen {
		t.Fatalf("got %v, want half-open", b.State())
	}
	return b
}

// With concurrent callers, a half-open breaker admitted more calls than its limit: all that came
// before the first probe ended.
func TestBreakerLimitsConcurrentProbes_Polly216(t *testing.T) {
	for _, probes := range []int{1, 3} {
		t.Run(fmt.Sprint(probes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := halfOpen(t, breaker.Config{Probes: probes, ProbeSuccesses: 10 * probes})
				probe := resiliencetest.Slow[int](time.Second)
				for range 5 { // rounds of probes: only the permits of the last round become free
					var refused atomic.Int32
					var g errgroup.Group
					for range 100 {
						g.Go(func() error {
							if _, err := breaker.Do(t.Context(), b, probe.Do); errors.Is(err, breaker.ErrOpen) {
								refused.Add(1)
							}
							return nil
						})
					}
					g.Wait()
					if int(refused.Load()) != 100-probes {
						t.Errorf("got %d of 100 calls refused with %d probes, want %d", refused.Load(), probes, 100-probes)
					}
				}
				if probe.MaxConcurrent() != probes || probe.Calls() != 5*probes {
					t.Errorf("got %d concurrent probes, %d in all, want %d, %d", probe.MaxConcurrent(), probe.Calls(), probes, 5*probes)
				}
			})
		})
	}
}

// The call that found the open time over made the breaker half-open and was made without being
// counted, as were calls concurrent with it.
func TestBreakerCountsCallsAtTransition_Resilience4j1432(t *testing.T) {
	for _, probes := range []int{1, 10} {
		t.Run(fmt.Sprint(probes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := breaker.New(breaker.Config{Consecutive: 1, OpenFor: time.Second, Probes: probes})
				breaker.Do(t.Context(), b, resiliencetest.FailAfter[int](0).Do)
				probe := resiliencetest.Slow[int](time.Minute / 2)
				var g errgroup.Group
				for i := range 100 {
					g.Go(func() error {
						time.Sleep(time.Second + time.Duration(i%2)) // at the time of the breaker's timer, and right after it
						if i%4 == 0 {
							b.State() // may make the transition if the timer hasn't
						}
						breaker.Do(t.Context(), b, probe.Do)
						return nil
					})
				}
				g.Wait()
				if probe.Calls() != probes {
					t.Errorf("got %d of 100 calls admitted, want %d", probe.Calls(), probes)
				}
			})
		})
	}
}

// A breaker stayed half-open forever if its probes didn't report. Calls that were ignored,
// canceled, or lost took permits and never released them.
func TestBreakerLeavesHalfOpenWithLostProbes_Resilience4j903_935(t *testing.T) {
	ways := map[string]func(t *testing.T, b *breaker.Breaker){
		"lost": func(t *testing.T, b *breaker.Breaker) {
			if _, err := b.Acquire(t.Context()); err != nil {
				t.Error(err)
			}
		},
		"canceled": func(t *testing.T, b *breaker.Breaker) {
			permit, err := b.Acquire(t.Context())
			if err != nil {
				t.Error(err)
			}
			permit.Cancel()
		},
		"ignored": func(t *testing.T, b *breaker.Breaker) {
			ctx, cancel := context.WithCancel(t.Context())
			breaker.Do(ctx, b, func(context.Context) (int, error) { cancel(); return 0, errDown })
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := halfOpen(t, breaker.Config{Probes: 2, ProbeTimeout: time.Minute})
				way(t, b)
				way(t, b)
				if name == "lost" {
					// The probes have failed, the breaker has been open and is half-open again,
					// though nothing has called it.
					time.Sleep(time.Minute + 2*time.Second)
					synctest.Wait()
				}
				for range 2 {
					if _, err := breaker.Do(t.Context(), b, resiliencetest.FailFirst[int](0).Do); err != nil {
						t.Fatal(err)
					}
				}
				if b.State() != breaker.Closed {
					t.Errorf("got %v after two successful probes, want closed", b.State())
				}
			})
		})
	}
}

// An exception that the breaker was configured to ignore decided the probe: it closed the breaker
// as a success, or opened it.
func TestBreakerIgnoredErrorDecidesNoProbe_Polly311_SmallRye320(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		errIgnored := errors.New("no such user")
		b := halfOpen(t, breaker.Config{Classify: func(ctx context.Context, err error) breaker.Outcome {
			if errors.Is(err, errIgnored) {
				return breaker.Ignored
			}
			return breaker.DefaultClassify(ctx, err)
		}})
		ignored := resiliencetest.FailAfter[int](0).Failing(errIgnored)
		for range 10 {
			breaker.Do(t.Context(), b, ignored.Do)
			if b.State() != breaker.HalfOpen {
				t.Fatalf("got %v after an ignored error, want half-open", b.State())
			}
		}
		if ignored.Calls() != 10 {
			t.Errorf("got %d of 10 probes admitted, want all: each must release its permit", ignored.Calls())
		}
	})
}

// A retry around a breaker continued against the open breaker, as if the refusal were another
// failure of the dependency. It used up its attempts immediately, or waited for nothing.
func TestRetryStopsAtOpenBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{Consecutive: 1})
		down := resiliencetest.FailAfter[int](0)
		refusals := &resiliencetest.Recorder{}
		call := resilience.Compose(down.Do, retry.New(retry.Config{MaxAttempts: 10, Backoff: retry.Constant(time.Second)}), refusals, b)
		_, err := call(t.Context())
		var exhausted *retry.ExhaustedError
		refused := errors.As(err, &exhausted) && exhausted.Reason == retry.ReasonRefused
		if !refused || exhausted.Attempts != 1 || !errors.Is(err, resiliencetest.ErrFailed) {
			t.Errorf("got %v, want 1 attempt that failed and ReasonRefused", err)
		}
		if n := len(refusals.Runs()); n != 2 {
			t.Errorf("got %d runs, want the attempt and the refusal", n)
		}
		_, err = call(t.Context())
		if !errors.Is(err, breaker.ErrOpen) || errors.As(err, &exhausted) || len(refusals.Runs()) != 3 || down.Calls() != 1 {
			t.Errorf("got %v after %d runs and %d calls, want ErrOpen after 3 and 1", err, len(refusals.Runs()), down.Calls())
		}
	})
}

// The elapsed time began with the call, not with its first failure. So a call that took long before
// it failed was never retried.
func TestRetryMaxElapsedStartsAtFirstFailure_Backoff188(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := resiliencetest.Script(
			resiliencetest.Step[int]{Delay: time.Hour, Err: errDown},
			resiliencetest.Step[int]{Value: 1},
		)
		r := retry.New(retry.Config{MaxElapsed: time.Minute, Backoff: retry.Constant(time.Second)})
		if value, err := retry.Do(t.Context(), r, slow.Do); value != 1 || err != nil {
			t.Errorf("got %v, %v, want 1", value, err)
		}
	})
}

// If the context ended during a wait, only its error was returned, and the last failure was lost.
func TestRetryKeepsLastErrorOnCancellation_Backoff181(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cause := errors.New("shutting down")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Minute, func() { cancel(cause) })
		r := retry.New(retry.Config{MaxAttempts: retry.Unlimited, Backoff: retry.Constant(time.Hour)})
		_, err := retry.Do(ctx, r, resiliencetest.FailAfter[int](0).Failing(errDown).Do)
		for _, want := range []error{errDown, context.Canceled, cause} {
			if !errors.Is(err, want) {
				t.Errorf("got %v, want it to match %v", err, want)
			}
		}
	})
}

// An error that asked for a delay replaced the error that it was about, which was lost when the
// attempts were used up.
func TestRetryAfterKeepsCause_Backoff184(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asking := resilience.WithRetryAfter(fmt.Errorf("wrapped: %w", errDown), 3*time.Second)
		if after, ok := resilience.RetryAfter(asking); !errors.Is(asking, errDown) || after != 3*time.Second || !ok {
			t.Errorf("got %v, %v, %v, want down and 3s", asking, after, ok)
		}
		began := time.Now()
		r := retry.New(retry.Config{MaxAttempts: 2, Backoff: retry.Constant(0)})
		if _, err := retry.Do(t.Context(), r, resiliencetest.FailAfter[int](0).Failing(asking).Do); !errors.Is(err, errDown) {
			t.Errorf("got %v, want down", err)
		}
		if time.Since(began) != 3*time.Second {
			t.Errorf("got a wait of %v, want 3s", time.Since(began))
		}
	})
}

// A client slept until its deadline though it was clear from the start that the wait was longer,
// and then had no answer.
func TestRetryNeverSleepsPastDeadline_RetryableHTTP272(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		for name, err := range map[string]error{"schedule": errDown, "RetryAfter": resilience.WithRetryAfter(errDown, 365*24*time.Hour)} {
			r := retry.New(retry.Config{MaxRetryAfter: 1 << 62, Backoff: retry.Constant(2 * time.Second)})
			began := time.Now()
			_, got := retry.Do(ctx, r, resiliencetest.FailAfter[int](0).Failing(err).Do)
			if !errors.Is(got, errDown) || !errors.Is(got, context.DeadlineExceeded) || time.Since(began) != 0 {
				t.Errorf("%s: got %v after %v, want down and DeadlineExceeded immediately", name, got, time.Since(began))
			}
		}
	})
}

// A breaker opened only on results, however many calls were in flight. So a dependency that
// answered after half a minute got half a minute of traffic before the breaker counted the first
// failure.
func TestBreakerOpensOnCallsInFlight_GoBreaker91(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{SlowRate: 0.5, SlowCall: time.Second, MinCalls: 20})
		ctx, cancel := context.WithCancel(t.Context())
		hung := resiliencetest.Hang[int]()
		var g errgroup.Group
		for range 20 {
			g.Go(func() error { breaker.Do(ctx, b, hung.Do); return nil })
		}
		time.Sleep(time.Second)
		if _, err := breaker.Do(t.Context(), b, hung.Do); !errors.Is(err, breaker.ErrOpen) || hung.Calls() != 20 {
			t.Errorf("got %v with %d hanging calls, want a refusal with 20", err, hung.Calls())
		}
		cancel()
		g.Wait()
	})
}

// A waiting retry counted as a retry, but not among the requests of which the budget was a share.
// With a budget of 100% the only call could not be retried, and under load the share differed from
// the configured one.
func TestBudgetOfOneRetriesOnlyCall_Envoy30205(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		extra := budget.New(budget.Config{Ratio: 1})
		r := retry.New(retry.Config{Budget: extra, Backoff: retry.Constant(time.Second)})
		for range 3 {
			once := resiliencetest.FailFirst[int](1)
			if _, err := retry.Do(t.Context(), r, once.Do); err != nil || once.Calls() != 2 {
				t.Errorf("got %v after %d attempts, want success after 2", err, once.Calls())
			}
		}
	})
}

func TestBudgetKeepsRatioUnderLoad_Envoy30205(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const calls = 2000
		extra := budget.New(budget.Config{Ratio: 0.2})
		down := resiliencetest.FailAfter[int](0)
		r := retry.New(retry.Config{MaxAttempts: 5, Budget: extra, Backoff: retry.Constant(time.Millisecond)})
		var g errgroup.Group
		for range 20 {
			g.Go(func() error {
				for range calls / 20 {
					retry.Do(t.Context(), r, down.Do)
				}
				return nil
			})
		}
		g.Wait()
		if retries := down.Calls() - calls; retries != calls/5 {
			t.Errorf("got %d retries for %d calls at ratio 0.2, want %d", retries, calls, calls/5)
		}
	})
}

// Each attempt opened a response, and only the last was ever closed. In other libraries the others
// stayed open during the wait.
func TestDiscardDropsValuesOfSupersededAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		errLate := errors.New("late")
		steps := []resiliencetest.Step[int]{{Value: 1, Err: errDown}, {Value: 2, Err: errLate}, {Value: 3}}
		began := time.Now()
		var dropped []string
		call := resilience.Compose(resiliencetest.Script(steps...).Do,
			resilience.Discard(func(value int) { dropped = append(dropped, fmt.Sprint(value, " after ", time.Since(began))) }),
			retry.New(retry.Config{Backoff: retry.Constant(time.Second)}))
		value, err := call(t.Context())
		if value != 3 || err != nil || fmt.Sprint(dropped) != "[1 after 0s 2 after 1s]" {
			t.Errorf("got %v, %v, dropped %q, want 3 with 1 and 2 dropped", value, err, dropped)
		}
	})
}

// When one goroutine of a group failed, the group canceled the others, and their canceled calls
// opened the breaker of a healthy dependency.
func TestBreakerIgnoresCallsCanceledBySibling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		healthy := breaker.New(breaker.Config{Consecutive: 1})
		guarded := resilience.Compose(resiliencetest.Hang[int]().Do, retry.New(retry.Config{}), healthy, timeout.After(time.Hour))
		g, ctx := errgroup.WithContext(t.Context())
		for range 10 {
			g.Go(func() error { _, err := guarded(ctx); return err })
		}
		g.Go(func() error { time.Sleep(time.Second); return errDown })
		if err := g.Wait(); err != errDown {
			t.Errorf("got %v, want down", err)
		}
		if s := healthy.Snapshot(); s.State != breaker.Closed || s.Consecutive != 0 {
			t.Errorf("got %+v, want closed with no failure", s)
		}
	})
}

// A call that had begun before the breaker opened failed after it had closed again, and opened it
// once more.
func TestBreakerIgnoresStaleFailure_FailsafeGo_Eapache_CEP21(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{Consecutive: 1, OpenFor: time.Second})
		stale := make([]breaker.Permit, 2)
		for i := range stale {
			var err error
			if stale[i], err = b.Acquire(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		breaker.Do(t.Context(), b, resiliencetest.FailAfter[int](0).Do)
		time.Sleep(time.Second)
		synctest.Wait()
		stale[0].Done(errDown)
		if b.State() != breaker.HalfOpen {
			t.Fatalf("got %v after a stale failure, want half-open", b.State())
		}
		breaker.Do(t.Context(), b, resiliencetest.FailFirst[int](0).Do)
		stale[1].Done(errDown)
		if s := b.Snapshot(); s.State != breaker.Closed || s.Consecutive != 0 {
			t.Errorf("got %+v, want closed with no failure", s)
		}
	})
}

// The only probe of a half-open breaker hung, and every later call was refused forever.
func TestBreakerOutlivesHungProbe_GoBreaker_FailsafeGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []breaker.State
		b := halfOpen(t, breaker.Config{
			ProbeTimeout:  time.Minute,
			OnStateChange: func(tr breaker.Transition) { got = append(got, tr.To) },
		})
		ctx, cancel := context.WithCancel(t.Context())
		var g errgroup.Group
		g.Go(func() error { breaker.Do(ctx, b, resiliencetest.Hang[int]().Do); return nil })
		time.Sleep(time.Minute + 2*time.Second) // without asking for the state, which may itself make a transition
		synctest.Wait()
		if _, err := breaker.Do(t.Context(), b, resiliencetest.FailFirst[int](0).Do); err != nil {
			t.Errorf("got %v, want an admitted call", err)
		}
		if fmt.Sprint(got) != "[open half-open open half-open closed]" {
			t.Errorf("got transitions to %v", got)
		}
		cancel()
		g.Wait()
	})
}
