package contexts

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// A stage is a policy of a pipeline: a limit, or a policy between limits.
type stage struct {
	kind string
	d    time.Duration
}

func (s stage) String() string { return fmt.Sprintf("%s(%v)", s.kind, s.d) }

var stageKinds = []string{"limit", "limit", "limit", "retry", "breaker", "breaker that classifies", "breaker that classifies", "policy", "nested pipeline"}

// policy makes the stage's policy, with limit for those that limit the time.
func (w *world) policy(s stage, looks bool, limit func(w *world, d time.Duration) resilience.Policy) resilience.Policy {
	switch s.kind {
	case "limit":
		return limit(w, s.d+time.Nanosecond)
	case "retry":
		wait := retry.Constant(s.d + time.Millisecond) // not at the instant at which a breaker's open time ends
		return retry.New(retry.Config{RetryRefused: true, MaxElapsed: time.Minute, Backoff: wait})
	case "breaker":
		return breaker.New(breaker.Config{Consecutive: 2, OpenFor: s.d + time.Second})
	case "breaker that classifies":
		return breaker.New(breaker.Config{Classify: func(ctx context.Context, err error) breaker.Outcome {
			w.see(ctx, looks)
			w.wait(s.d)
			return breaker.DefaultClassify(ctx, err)
		}})
	case "policy":
		return resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			w.see(ctx, looks)
			w.wait(s.d)
			err := next.Run(ctx)
			w.wait(s.d)
			w.look(looks)
			return err
		})
	case "nested pipeline":
		return resilience.Pipeline{limit(w, 2*s.d), retry.New(retry.Config{MaxAttempts: 1}), limit(w, s.d)}
	}
	panic("no such stage: " + s.kind)
}

// see adds a context that a policy or an effector received.
func (w *world) see(ctx context.Context, looks bool) {
	w.add(ctx, nil)
	w.limits = append(w.limits, ctx)
	w.look(looks)
}

// withTimeout returns package timeout's policy.
func withTimeout(w *world, limit time.Duration) resilience.Policy {
	return resilience.Pipeline{timeout.After(max(limit, 1)), resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		w.limits = append(w.limits, ctx) // an unarmed limit must be looked at too: see drawPlan
		return seen(ctx, next.Run(ctx))
	})}
}

// withContext does the same with package context.
func withContext(w *world, limit time.Duration) resilience.Policy {
	return resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) > max(limit, 1) {
			limited, cancel := context.WithTimeout(ctx, max(limit, 1))
			defer cancel()
			ctx = limited
		}
		w.limits = append(w.limits, ctx)
		return next.Run(ctx)
	})
}

// TestContextsOfPipelineAgreeWithStandardLibrary, whatever is between the limits.
func TestContextsOfPipelineAgreeWithStandardLibrary(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := drawPlan(rt)
		stages := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) stage {
			return stage{rapid.SampledFrom(stageKinds).Draw(t, "kind"), durations().Draw(t, "d")}
		}), 1, 6).Draw(rt, "stages")
		failures := rapid.IntRange(0, 3).Draw(rt, "failures")
		composed := rapid.Bool().Draw(rt, "composed")
		again := durations().Draw(rt, "again") // the effector's own limit for a call inside it

		var logs [2][]string
		for i, limit := range []func(*world, time.Duration) resilience.Policy{withTimeout, withContext} {
			synctest.Test(t, func(*testing.T) {
				logs[i] = carryOut(p, func(w *world, root context.Context) error {
					var policies resilience.Pipeline
					for _, s := range stages {
						policies = append(policies, w.policy(s, p.looks, limit))
					}
					runs := 0
					effector := func(ctx context.Context) (int, error) {
						w.see(ctx, p.looks)
						for _, s := range p.inside {
							w.do(s, p.looks)
						}
						if runs++; runs <= failures {
							return 0, errors.New("failed")
						}
						return 0, resilience.Run(ctx, limit(w, again), func(ctx context.Context) error {
							w.see(ctx, p.looks)
							return nil
						})
					}
					var err error
					if composed {
						_, err = resilience.Compose(effector, policies)(root)
					} else {
						_, err = resilience.Do(root, policies, effector)
					}
					if err != nil { // their texts differ
						err = errors.New("an error")
					}
					return err
				})
				time.Sleep(time.Hour) // for the breakers' timers
			})
		}
		if got, want := strings.Join(logs[0], "\n"), strings.Join(logs[1], "\n"); got != want {
			rt.Fatalf("%v\nstages %v, %d failures, then a limit of %v\ntimeout:\n%s\n\ncontext:\n%s", p, stages, failures, again, got, want)
		}
	})
}
