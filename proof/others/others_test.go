// Package others holds one test for each behaviour of other libraries that their users reported, named after the report. What was reported
// stands above each in our own words.
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

// halfOpen gives a breaker that has just become half-open by its own timer.
func halfOpen(t *testing.T, c breaker.Config) *breaker.Breaker {
	t.Helper()
	c.Consecutive, c.OpenFor = 1, time.Second
	b := breaker.New(c)
	breaker.Do(t.Context(), b, resiliencetest.FailAfter[int](0).Do)
	time.Sleep(time.Second)
	synctest.Wait()
	if b.State() != breaker.HalfOpen {
		t.Fatalf("the breaker is %v", b.State())
	}
	return b
}

// Under concurrent callers a half-open breaker let more calls through than it was set to, all of those that came before the
// first probe had ended.
func TestHalfOpenAdmitsNoMoreThanAsked_Polly216(t *testing.T) {
	for _, probes := range []int{1, 3} {
		t.Run(fmt.Sprint(probes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := halfOpen(t, breaker.Config{Probes: probes, ProbeSuccesses: 10 * probes})
				probe := resiliencetest.Slow[int](time.Second)
				for range 5 { // rounds of probes: places are given back, and no more than those
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
						t.Errorf("%d of 100 calls refused with %d probes", refused.Load(), probes)
					}
				}
				if probe.MaxConcurrent() != probes || probe.Calls() != 5*probes {
					t.Errorf("%d probes at once, %d in all, with %d probes", probe.MaxConcurrent(), probe.Calls(), probes)
				}
			})
		})
	}
}

// The call that found the open time over made the breaker half-open and went through without being counted, and so did those beside it.
func TestTheCallsAtTheInstantOfTheChangeAreCounted_Resilience4j1432(t *testing.T) {
	for _, probes := range []int{1, 10} {
		t.Run(fmt.Sprint(probes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := breaker.New(breaker.Config{Consecutive: 1, OpenFor: time.Second, Probes: probes})
				breaker.Do(t.Context(), b, resiliencetest.FailAfter[int](0).Do)
				probe := resiliencetest.Slow[int](time.Minute / 2)
				var g errgroup.Group
				for i := range 100 {
					g.Go(func() error {
						time.Sleep(time.Second + time.Duration(i%2)) // with the breaker's own timer, and right after it
						if i%4 == 0 {
							b.State() // may make the change, if the timer has not
						}
						breaker.Do(t.Context(), b, probe.Do)
						return nil
					})
				}
				g.Wait()
				if probe.Calls() != probes {
					t.Errorf("%d of 100 calls went through, want %d", probe.Calls(), probes)
				}
			})
		})
	}
}

// A breaker stayed half-open for good when its probes did not report: permits were taken and never given back, by calls that
// were ignored, cancelled, or lost.
func TestHalfOpenIsLeftWhenProbesDoNotReport_Resilience4j903_935(t *testing.T) {
	ways := map[string]func(t *testing.T, b *breaker.Breaker){
		"lost": func(t *testing.T, b *breaker.Breaker) {
			if _, err := b.Acquire(t.Context()); err != nil {
				t.Error(err)
			}
		},
		"cancelled": func(t *testing.T, b *breaker.Breaker) {
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
					// The probes have failed, the breaker was open and is half-open again, though nobody asked it.
					time.Sleep(time.Minute + 2*time.Second)
					synctest.Wait()
				}
				for range 2 {
					if _, err := breaker.Do(t.Context(), b, resiliencetest.FailFirst[int](0).Do); err != nil {
						t.Fatal(err)
					}
				}
				if b.State() != breaker.Closed {
					t.Errorf("the breaker is %v after two good probes", b.State())
				}
			})
		})
	}
}

// An exception that the breaker was told to ignore decided the probe: it closed the breaker as a success, or opened it.
func TestAnIgnoredErrorDecidesNoProbe_Polly311_SmallRye320(t *testing.T) {
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
				t.Fatalf("an ignored error made the breaker %v", b.State())
			}
		}
		if ignored.Calls() != 10 {
			t.Errorf("%d of 10 probes were admitted: each should have given its place back", ignored.Calls())
		}
	})
}

// A retry around a breaker went on against the open circuit, as if the refusal were one more failure of the dependency, and
// spent its attempts in a moment or its time in vain.
func TestAnOpenCircuitIsNotRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{Consecutive: 1})
		down := resiliencetest.FailAfter[int](0)
		refusals := &resiliencetest.Recorder{}
		call := resilience.Compose(down.Do, retry.New(retry.Config{MaxAttempts: 10, Backoff: retry.Constant(time.Second)}), refusals, b)
		_, err := call(t.Context())
		var exhausted *retry.ExhaustedError
		refused := errors.As(err, &exhausted) && exhausted.Reason == retry.ReasonRefused
		if !refused || exhausted.Attempts != 1 || !errors.Is(err, resiliencetest.ErrFailed) {
			t.Errorf("%v", err)
		}
		if n := len(refusals.Runs()); n != 2 {
			t.Errorf("%d runs, want the attempt and the refusal", n)
		}
		_, err = call(t.Context())
		if !errors.Is(err, breaker.ErrOpen) || errors.As(err, &exhausted) || len(refusals.Runs()) != 3 || down.Calls() != 1 {
			t.Errorf("%v after %d runs and %d calls", err, len(refusals.Runs()), down.Calls())
		}
	})
}

// The elapsed time began with the call and not with its first failure: a call that took long before it failed was not
// retried at all.
func TestElapsedTimeCountsFromTheFirstFailure_Backoff188(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := resiliencetest.Script(
			resiliencetest.Step[int]{Delay: time.Hour, Err: errDown},
			resiliencetest.Step[int]{Value: 1},
		)
		r := retry.New(retry.Config{MaxElapsed: time.Minute, Backoff: retry.Constant(time.Second)})
		if value, err := retry.Do(t.Context(), r, slow.Do); value != 1 || err != nil {
			t.Errorf("%v, %v", value, err)
		}
	})
}

// When the context ended in a wait, its error was all that came back, and what had failed before was lost.
func TestTheLastErrorIsKeptOnCancellation_Backoff181(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cause := errors.New("shutting down")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Minute, func() { cancel(cause) })
		r := retry.New(retry.Config{MaxAttempts: retry.Unlimited, Backoff: retry.Constant(time.Hour)})
		_, err := retry.Do(ctx, r, resiliencetest.FailAfter[int](0).Failing(errDown).Do)
		for _, want := range []error{errDown, context.Canceled, cause} {
			if !errors.Is(err, want) {
				t.Errorf("%v is not %v", err, want)
			}
		}
	})
}

// An error that asked to be retried after a time stood in the place of the error that it was about: when the attempts were used up, that
// was gone.
func TestRetryAfterKeepsItsCause_Backoff184(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asking := resilience.WithRetryAfter(fmt.Errorf("wrapped: %w", errDown), 3*time.Second)
		if after, ok := resilience.RetryAfter(asking); !errors.Is(asking, errDown) || after != 3*time.Second || !ok {
			t.Errorf("%v, %v, %v", asking, after, ok)
		}
		began := time.Now()
		r := retry.New(retry.Config{MaxAttempts: 2, Backoff: retry.Constant(0)})
		if _, err := retry.Do(t.Context(), r, resiliencetest.FailAfter[int](0).Failing(asking).Do); !errors.Is(err, errDown) {
			t.Error(err)
		}
		if time.Since(began) != 3*time.Second {
			t.Errorf("waited %v", time.Since(began))
		}
	})
}

// A client slept until its deadline though it was clear from the start that the wait was longer, and then had no answer to give.
func TestNobodySleepsPastTheDeadline_RetryableHTTP272(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		for name, err := range map[string]error{"schedule": errDown, "RetryAfter": resilience.WithRetryAfter(errDown, 365*24*time.Hour)} {
			r := retry.New(retry.Config{MaxRetryAfter: 1 << 62, Backoff: retry.Constant(2 * time.Second)})
			began := time.Now()
			_, got := retry.Do(ctx, r, resiliencetest.FailAfter[int](0).Failing(err).Do)
			if !errors.Is(got, errDown) || !errors.Is(got, context.DeadlineExceeded) || time.Since(began) != 0 {
				t.Errorf("%s: %v after %v", name, got, time.Since(began))
			}
		}
	})
}

// A dependency that answers after half a minute gets half a minute of traffic before the breaker hears of the first failure: it opened only
// when results came, however many calls were in flight.
func TestCallsInFlightOpenTheBreaker_GoBreaker91(t *testing.T) {
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
			t.Errorf("%v: %d calls hang", err, hung.Calls())
		}
		cancel()
		g.Wait()
	})
}

// A retry that waited counted as a retry, but not among the requests of which the budget was a share: with a budget of all of them the
// only call there was could not be retried, and under load the share was another one than was set.
func TestABudgetOfOneForOneRetriesTheOnlyCall_Envoy30205(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		extra := budget.New(budget.Config{Ratio: 1})
		r := retry.New(retry.Config{Budget: extra, Backoff: retry.Constant(time.Second)})
		for range 3 {
			once := resiliencetest.FailFirst[int](1)
			if _, err := retry.Do(t.Context(), r, once.Do); err != nil || once.Calls() != 2 {
				t.Errorf("%v after %d attempts", err, once.Calls())
			}
		}
	})
}

func TestABudgetKeepsItsShareUnderLoad_Envoy30205(t *testing.T) {
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
			t.Errorf("%d retries for %d calls at a share of a fifth", retries, calls)
		}
	})
}

// Each attempt opened a response, and only the last was ever closed; where the others were, they stayed open through the wait.
func TestValuesOfSupersededAttemptsAreDropped(t *testing.T) {
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
			t.Errorf("%v, %v, dropped %q", value, err, dropped)
		}
	})
}

// One goroutine of a group failed, the group cancelled the others, and their cancelled calls opened the breaker of a healthy
// dependency.
func TestASiblingsErrorOpensNoBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		healthy := breaker.New(breaker.Config{Consecutive: 1})
		guarded := resilience.Compose(resiliencetest.Hang[int]().Do, retry.New(retry.Config{}), healthy, timeout.After(time.Hour))
		g, ctx := errgroup.WithContext(t.Context())
		for range 10 {
			g.Go(func() error { _, err := guarded(ctx); return err })
		}
		g.Go(func() error { time.Sleep(time.Second); return errDown })
		if err := g.Wait(); err != errDown {
			t.Error(err)
		}
		if s := healthy.Snapshot(); s.State != breaker.Closed || s.Consecutive != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// A call that had begun before the breaker opened failed after it had closed again, and opened it anew.
func TestAStaleFailureDoesNotReopen_FailsafeGo_Eapache_CEP21(t *testing.T) {
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
			t.Fatalf("a stale failure made the half-open breaker %v", b.State())
		}
		breaker.Do(t.Context(), b, resiliencetest.FailFirst[int](0).Do)
		stale[1].Done(errDown)
		if s := b.Snapshot(); s.State != breaker.Closed || s.Consecutive != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// The one probe of a half-open breaker hung, and every call after it was refused for good.
func TestAProbeThatHangsForEverIsOutlived_GoBreaker_FailsafeGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []breaker.State
		b := halfOpen(t, breaker.Config{
			ProbeTimeout:  time.Minute,
			OnStateChange: func(tr breaker.Transition) { told = append(told, tr.To) },
		})
		ctx, cancel := context.WithCancel(t.Context())
		var g errgroup.Group
		g.Go(func() error { breaker.Do(ctx, b, resiliencetest.Hang[int]().Do); return nil })
		time.Sleep(time.Minute + 2*time.Second) // nobody asks how the breaker is: that may itself bring it on
		synctest.Wait()
		if _, err := breaker.Do(t.Context(), b, resiliencetest.FailFirst[int](0).Do); err != nil {
			t.Error(err)
		}
		if fmt.Sprint(told) != "[open half-open open half-open closed]" {
			t.Errorf("told %v", told)
		}
		cancel()
		g.Wait()
	})
}
