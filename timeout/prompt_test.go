package timeout_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// slowBreaker is a breaker that takes its time, made by embedding.
type slowBreaker struct{ *breaker.Breaker }

func (b slowBreaker) Run(ctx context.Context, next resilience.Next) error {
	time.Sleep(3 * time.Second)
	return b.Breaker.Run(ctx, next)
}

// maybeBreaker may have none.
type maybeBreaker struct{ *breaker.Breaker }

func (b maybeBreaker) Run(ctx context.Context, next resilience.Next) error {
	if b.Breaker != nil {
		return b.Breaker.Run(ctx, next)
	}
	time.Sleep(3 * time.Second)
	return next.Run(ctx)
}

// ways are how a pipeline may be run. One that is composed is run twice: it learns from the first call.
var ways = map[string]func(ctx context.Context, policies resilience.Pipeline, fn func(context.Context) error) error{
	"Do": func(ctx context.Context, policies resilience.Pipeline, fn func(context.Context) error) error {
		return resilience.Run(ctx, policies, fn)
	},
	"Compose": func(ctx context.Context, policies resilience.Pipeline, fn func(context.Context) error) error {
		call := resilience.Compose(func(ctx context.Context) (int, error) { return 0, fn(ctx) }, policies)
		_, err := call(ctx)
		if err == nil {
			_, err = call(ctx)
		}
		return err
	},
}

// TestALimitIsFromItsOwnBeginning, not from that of the limit around it: whatever takes time between the two. Where nothing does, they
// share a reading of the clock.
func TestALimitIsFromItsOwnBeginning(t *testing.T) {
	attempt := timeout.After(time.Second)
	dawdle := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		time.Sleep(3 * time.Second)
		return next.Run(ctx)
	})
	for name, between := range map[string]func() resilience.Policy{
		"nothing": func() resilience.Policy { return resilience.Pipeline{} },
		"prompt policies": func() resilience.Policy {
			return resilience.Pipeline{retry.New(retry.Config{}), breaker.New(breaker.Config{})}
		},
		"a limit later than it": func() resilience.Policy { return timeout.After(2 * time.Hour) },
		"a policy":              func() resilience.Policy { return dawdle },
		"a nested policy": func() resilience.Policy {
			return resilience.Pipeline{resilience.Pipeline{dawdle}, breaker.New(breaker.Config{})}
		},
		"a policy around a breaker": func() resilience.Policy {
			return slowBreaker{breaker.New(breaker.Config{})}
		},
		"a policy around no breaker": func() resilience.Policy { return maybeBreaker{} },
		"a policy that runs the limit itself": func() resilience.Policy {
			return resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
				time.Sleep(3 * time.Second)
				return attempt.Run(ctx, next)
			})
		},
		"a policy that runs another pipeline": func() resilience.Policy {
			return resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
				return resilience.Pipeline{timeout.After(time.Minute), dawdle, breaker.New(breaker.Config{})}.Run(ctx, next)
			})
		},
		"a policy after many": func() resilience.Policy {
			var many resilience.Pipeline
			for range 10 {
				many = append(many, breaker.New(breaker.Config{}))
			}
			return append(many, dawdle, breaker.New(breaker.Config{}))
		},
		"a policy before many": func() resilience.Policy {
			many := resilience.Pipeline{dawdle}
			for range 10 {
				many = append(many, breaker.New(breaker.Config{}))
			}
			return many
		},
		"a policy that calls anew": func() resilience.Policy {
			return resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
				time.Sleep(3 * time.Second)
				return resilience.Run(ctx, attempt, next.Run)
			})
		},
		"a wait for a breaker": func() resilience.Policy {
			open := breaker.New(breaker.Config{Consecutive: 1, OpenFor: 3 * time.Second})
			breaker.Do(context.Background(), open, func(context.Context) (int, error) { return 0, errors.New("down") })
			return resilience.Pipeline{retry.New(retry.Config{RetryRefused: true, MaxElapsed: time.Minute}), open}
		},
		"a wait for an effector that was left behind": func() resilience.Policy {
			full := timeout.New(timeout.Config{Limit: time.Second, Abandon: 1})
			timeout.Do(context.Background(), full, func(context.Context) (int, error) {
				time.Sleep(3 * time.Second)
				return 0, nil
			})
			retries := retry.Config{MaxAttempts: 1, RetryRefused: true, MaxElapsed: time.Minute, Backoff: retry.Constant(3 * time.Second)}
			return resilience.Pipeline{retry.New(retries), full}
		},
		"a breaker that tells of a change": func() resilience.Policy {
			b := breaker.New(breaker.Config{SlowRate: 1, SlowCall: time.Second, MinCalls: 1, DryRun: true, OpenFor: time.Hour,
				OnStateChange: func(breaker.Transition) { time.Sleep(3 * time.Second) }})
			if _, err := b.Acquire(context.Background()); err != nil { // a call that hangs
				t.Error(err)
			}
			time.Sleep(2 * time.Second)
			return b
		},
	} {
		for way, run := range ways {
			t.Run(name+", by "+way, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					policies := resilience.Pipeline{timeout.After(time.Hour), between(), attempt}
					began := time.Now()
					var left time.Duration
					call := func(ctx context.Context) error {
						deadline, _ := ctx.Deadline()
						left = time.Until(deadline)
						return nil
					}
					if err := run(context.Background(), policies, call); err != nil || left != time.Second {
						t.Errorf("after %v the call has %v left, error %v, want 1s and none", time.Since(began), left, err)
					}
					// An effector that takes time and calls anew, in the ctx of the inner limit or of the outer one.
					late := func(ctx context.Context) error {
						time.Sleep(time.Second / 2)
						return run(ctx, resilience.Pipeline{timeout.After(time.Second / 4)}, call)
					}
					for _, outer := range []resilience.Pipeline{policies, policies[:1], policies[:2]} {
						if err := run(context.Background(), outer, late); err != nil || left != time.Second/4 {
							t.Errorf("a call within the effector has %v left, error %v, want 250ms and none", left, err)
						}
					}
					_, err := timeout.Do(context.Background(), attempt, func(ctx context.Context) (int, error) { return 0, late(ctx) })
					if err != nil || left != time.Second/4 {
						t.Errorf("a call within Do has %v left, error %v, want 250ms and none", left, err)
					}
				})
			})
		}
	}
}

// TestAComposedEffectorLearnsNothingFromALimitThatOthersHave: the first call has no limit but its caller's.
func TestAComposedEffectorLearnsNothingFromALimitThatOthersHave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var left time.Duration
		dawdle := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			time.Sleep(3 * time.Second)
			return next.Run(ctx)
		})
		call := resilience.Compose(func(ctx context.Context) (int, error) {
			deadline, _ := ctx.Deadline()
			left = time.Until(deadline)
			return 0, nil
		}, timeout.After(time.Hour), dawdle, timeout.After(time.Second))
		_, err := timeout.Do(t.Context(), timeout.After(time.Minute), call)
		_, err2 := call(t.Context())
		if err := errors.Join(err, err2); err != nil || left != time.Second {
			t.Errorf("%v left, error %v, want 1s and none", left, err)
		}
	})
}

// TestClassifyMayCallAnew, with limits of its own, on goroutines too. The race detector looks on.
func TestClassifyMayCallAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lefts [4]time.Duration
		classify := func(ctx context.Context, _ error) breaker.Outcome {
			var g errgroup.Group
			for i := range lefts {
				g.Go(func() error {
					return resilience.Run(ctx, timeout.After(10*time.Second), func(ctx context.Context) error {
						deadline, _ := ctx.Deadline()
						lefts[i] = time.Until(deadline)
						return nil
					})
				})
			}
			if err := g.Wait(); err != nil {
				t.Error(err)
			}
			return breaker.Success
		}
		policies := resilience.Pipeline{timeout.After(time.Hour), breaker.New(breaker.Config{Classify: classify}), retry.New(retry.Config{})}
		// In a second attempt of a retry further out the inner one gives the effector a ctx of its own: nobody has got the outer limit's yet.
		attempts := 0
		_, err := retry.Do(t.Context(), retry.New(retry.Config{}), func(ctx context.Context) (int, error) {
			if attempts++; attempts == 1 {
				return 0, errors.New("again")
			}
			return 0, resilience.Run(ctx, policies, func(context.Context) error {
				time.Sleep(3 * time.Second)
				return nil
			})
		})
		for _, left := range lefts {
			if left != 10*time.Second {
				t.Errorf("%v left, want 10s", left)
			}
		}
		if err != nil {
			t.Error(err)
		}
	})
}

// TestCallsWithinACallShareItsCtx: any number of them at once. The race detector looks on.
func TestCallsWithinACallShareItsCtx(t *testing.T) {
	policies := resilience.Pipeline{timeout.After(time.Hour), retry.New(retry.Config{}), timeout.After(time.Minute)}
	within := resilience.Pipeline{timeout.After(time.Second), resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		return next.Run(ctx)
	})}
	apart := timeout.New(timeout.Config{Limit: time.Second, Abandon: 1000})
	err := resilience.Run(context.Background(), policies, func(ctx context.Context) error {
		var g errgroup.Group
		for range 8 {
			g.Go(func() error {
				return errors.Join(
					resilience.Run(ctx, within, func(context.Context) error { return nil }),
					resilience.Run(ctx, within[1:], func(context.Context) error { return nil }),
					resilience.Run(ctx, apart, func(context.Context) error { return nil }),
				)
			})
		}
		return g.Wait()
	})
	if err != nil {
		t.Error(err)
	}
}

// TestACallThatIsLeftBehindHasItsCtxToItself: the caller, who retries and then returns, knows nothing of what goes on in it. The race
// detector looks on.
func TestACallThatIsLeftBehindHasItsCtxToItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		policies := resilience.Pipeline{
			timeout.After(time.Second),
			retry.New(retry.Config{}),
			timeout.New(timeout.Config{Limit: time.Hour, Abandon: 1}),
			timeout.After(time.Second / 2),
		}
		err := resilience.Run(context.Background(), policies, func(context.Context) error {
			time.Sleep(time.Minute)
			return nil
		})
		if !errors.Is(err, timeout.ErrTimeout) {
			t.Error(err)
		}
		time.Sleep(time.Hour)
	})
}

// TestALimitThatPassedIsTold to all who got the ctx, also of a call that succeeded, within which another limit did not pass.
func TestALimitThatPassedIsTold(t *testing.T) {
	var got context.Context
	dawdle := func(ctx context.Context) {
		got = ctx
		time.Sleep(time.Minute)
	}
	for name, policy := range map[string]resilience.Policy{
		"a policy before the call": resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			dawdle(ctx)
			return next.Run(context.WithoutCancel(ctx))
		}),
		"a policy after the call": resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			err := next.Run(ctx)
			dawdle(ctx)
			return err
		}),
		"Classify": breaker.New(breaker.Config{Classify: func(ctx context.Context, err error) breaker.Outcome {
			dawdle(ctx)
			return breaker.DefaultClassify(ctx, err)
		}}),
		"Classify of an attempt": resilience.Pipeline{retry.New(retry.Config{}), breaker.New(breaker.Config{
			Classify: func(ctx context.Context, err error) breaker.Outcome {
				dawdle(ctx)
				return breaker.DefaultClassify(ctx, err)
			},
		})},
	} {
		for way, run := range ways {
			t.Run(name+", by "+way, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					policies := resilience.Pipeline{timeout.After(10 * time.Second), policy, timeout.After(time.Second)}
					if err := run(context.Background(), policies, func(context.Context) error { return nil }); err != nil {
						t.Error(err)
					}
					if err := got.Err(); err != context.DeadlineExceeded {
						t.Errorf("the ctx tells %v of the call that took a minute", err)
					}
				})
			})
		}
	}
}
