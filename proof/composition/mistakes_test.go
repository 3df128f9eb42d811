package composition

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/bulkhead"
	"github.com/effector-go/resilience/resiliencetest"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/share"
	"github.com/effector-go/resilience/timeout"
)

// The tests in this file check the statements under "Common mistakes" in docs/composition.md.

func TestWithTwiceNestsSecondOutermost(t *testing.T) {
	var order []string
	named := func(name string) resilience.Policy {
		return resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			order = append(order, name)
			return next.Run(ctx)
		})
	}
	e := effector(func(context.Context) (int, error) { return 0, nil })
	for _, c := range []struct {
		name string
		call effector
		want []string
	}{
		{"With(a).With(b)", e.With(named("a")).With(named("b")), []string{"b", "a"}},
		{"With(a, b)", e.With(named("a"), named("b")), []string{"a", "b"}},
	} {
		order = nil
		if c.call(t.Context()); !slices.Equal(order, c.want) {
			t.Errorf("%s: got the order %q, want %q", c.name, order, c.want)
		}
	}
}

// TestComposeTwiceHidesRefusalsFromOuterRetry checks that a retry around another effector's breaker
// counts a refusal as a failed attempt and waits until the breaker closes.
func TestComposeTwiceHidesRefusalsFromOuterRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		retries := func() *retry.Retry {
			return retry.New(retry.Config{MaxAttempts: 5, Backoff: retry.Constant(time.Second)})
		}
		users := func() *breaker.Breaker { return breaker.New(breaker.Config{Consecutive: 2, OpenFor: 10 * time.Second}) }
		for _, c := range []struct {
			name     string
			call     effector
			attempts int
			took     time.Duration
		}{
			{"one list", resilience.Compose(fails().Do, retries(), users()), 2, 2 * time.Second},
			{"With twice", effector(fails().Do).With(users()).With(retries()), 5, 13 * time.Second},
			{"Compose twice", resilience.Compose(resilience.Compose(fails().Do, users()), retries()), 5, 13 * time.Second},
		} {
			began := time.Now()
			_, err := c.call(t.Context())
			if took := time.Since(began); took != c.took {
				t.Errorf("%s: got the end after %v, want %v", c.name, took, c.took)
			}
			var exhausted *retry.ExhaustedError
			if !errors.As(err, &exhausted) || exhausted.Attempts != c.attempts {
				t.Errorf("%s: got %v, want %d attempts", c.name, err, c.attempts)
			}
		}
	})
}

func TestBulkheadPerCallLimitsNothing(t *testing.T) {
	common := places(1, 0)
	for _, c := range []struct {
		name     string
		bulkhead func() *bulkhead.Bulkhead
		running  int
	}{
		{"one per call", func() *bulkhead.Bulkhead { return places(1, 0) }, 3},
		{"one for all calls", func() *bulkhead.Bulkhead { return common }, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := answersIn(time.Second)
				var callers errgroup.Group
				for range 3 {
					callers.Go(func() error {
						if _, err := resilience.Do(t.Context(), c.bulkhead(), e.Do); err != nil && !errors.Is(err, bulkhead.ErrFull) {
							return err
						}
						return nil
					})
				}
				if err := callers.Wait(); err != nil || e.MaxConcurrent() != c.running {
					t.Errorf("got %d concurrent calls, %v, want %d, nil", e.MaxConcurrent(), err, c.running)
				}
			})
		})
	}
}

func TestBulkheadAroundAbandoningTimeoutDoesNotBoundWhatRuns(t *testing.T) {
	for _, c := range []struct {
		name     string
		policies func(b *bulkhead.Bulkhead, limit *timeout.Timeout) []resilience.Policy
		running  int
		want     string
	}{
		{"bulkhead outside", func(b *bulkhead.Bulkhead, limit *timeout.Timeout) []resilience.Policy {
			return []resilience.Policy{b, limit}
		}, 3, "timeout, timeout, timeout"},
		{"timeout outside", func(b *bulkhead.Bulkhead, limit *timeout.Timeout) []resilience.Policy {
			return []resilience.Policy{limit, b}
		}, 1, "timeout, full, full"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := resiliencetest.IgnoresContext[int](time.Hour)
				call := resilience.Compose(e.Do, c.policies(places(1, 0), timeout.New(timeout.Config{Limit: time.Second, Abandon: 100}))...)
				var errs [3]error
				for i := range errs {
					_, errs[i] = call(t.Context())
				}
				got := fmt.Sprintf("%s, %s, %s", name(errs[0]), name(errs[1]), name(errs[2]))
				if got != c.want || e.MaxConcurrent() != c.running {
					t.Errorf("got %s with %d effectors running, want %s with %d", got, e.MaxConcurrent(), c.want, c.running)
				}
				time.Sleep(time.Hour) // until the effectors have ended
				synctest.Wait()
			})
		})
	}
}

// TestBreakerCountsImpatientCallersUnlessClassifyIgnoresThem uses the Classify of the page.
func TestBreakerCountsImpatientCallersUnlessClassifyIgnoresThem(t *testing.T) {
	ignoring := func(ctx context.Context, err error) breaker.Outcome {
		if err != nil && ctx.Err() != nil {
			return breaker.Ignored
		}
		return breaker.DefaultClassify(ctx, err)
	}
	for _, c := range []struct {
		name     string
		classify func(context.Context, error) breaker.Outcome
		want     breaker.State
	}{
		{"default", nil, breaker.Open},
		{"ignoring", ignoring, breaker.Closed},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				users := breaker.New(breaker.Config{Classify: c.classify})
				healthy := resilience.Compose(answersIn(100*ms).Do, users, timeout.After(time.Second))
				for range 5 {
					ctx, cancel := context.WithTimeout(t.Context(), ms)
					if _, err := healthy(ctx); !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("got %v, want a deadline exceeded", err)
					}
					cancel()
				}
				if got := users.State(); got != c.want {
					t.Errorf("got a breaker that is %v after 5 impatient callers, want %v", got, c.want)
				}
				users.Reset()
				hanging := resilience.Compose(resiliencetest.Hang[int]().Do, users, timeout.After(time.Second))
				for range 5 {
					hanging(t.Context())
				}
				if got := users.State(); got != breaker.Open {
					t.Errorf("got a breaker that is %v after 5 timeouts of attempts, want open", got)
				}
			})
		})
	}
}

func TestErrRefusedDoesNotMeanNoAttemptWasMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fails()
		call := resilience.Compose(e.Do, retry.New(retry.Config{MaxAttempts: 5}), opensAfter(2))
		_, err := call(t.Context())
		var exhausted *retry.ExhaustedError
		if !errors.Is(err, resilience.ErrRefused) || !errors.As(err, &exhausted) || exhausted.Attempts != 2 || e.Calls() != 2 {
			t.Errorf("got %v after %d calls, want ErrRefused and an ExhaustedError with 2 attempts", err, e.Calls())
		}
		// A refusal of the first attempt is returned unchanged.
		if _, err = call(t.Context()); !errors.Is(err, resilience.ErrRefused) || errors.As(err, &exhausted) || e.Calls() != 2 {
			t.Errorf("got %v after %d calls, want the refusal alone and no additional call", err, e.Calls())
		}
	})
}

func TestShareStaleReturnsImmediatelyOnlyWithBreakerInside(t *testing.T) {
	for _, c := range []struct {
		name    string
		compose func(e effector, b *breaker.Breaker) effector
		second  time.Duration // how long the second caller waits while the dependency is down
		state   breaker.State
	}{
		{"breaker inside", func(e effector, b *breaker.Breaker) effector {
			return share.Stale(resilience.Compose(e, b), time.Minute, time.Hour)
		}, 0, breaker.Open},
		{"breaker outside", func(e effector, b *breaker.Breaker) effector {
			return resilience.Compose(share.Stale(e, time.Minute, time.Hour), b)
		}, time.Second, breaker.Closed},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := resiliencetest.Script(
					resiliencetest.Step[int]{Value: 7},
					// Repeated for all later runs.
					resiliencetest.Step[int]{Delay: time.Second, Err: resiliencetest.ErrFailed},
				)
				b := opensAfter(1)
				call := c.compose(e.Do, b)
				call(t.Context())
				time.Sleep(time.Minute) // until the value is stale
				for i, want := range []time.Duration{time.Second, c.second} {
					began := time.Now()
					if value, err := call(t.Context()); value != 7 || err != nil || time.Since(began) != want {
						t.Errorf("call %d: got %d, %v after %v, want the stale 7, nil after %v", i+1, value, err, time.Since(began), want)
					}
				}
				if b.State() != c.state {
					t.Errorf("got a breaker that is %v, want %v", b.State(), c.state)
				}
			})
		})
	}
}
