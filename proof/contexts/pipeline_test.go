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

// A stage is a policy of a pipeline: a limit, or one that stands between limits.
type stage struct {
	kind string
	d    time.Duration
}

func (s stage) String() string { return fmt.Sprintf("%s(%v)", s.kind, s.d) }

var stageKinds = []string{"limit", "limit", "limit", "retry", "breaker", "breaker that classifies", "breaker that classifies", "policy", "nested pipeline"}

// policy makes the stage's. Limits are made by limit.
func (w *world) policy(s stage, looks bool, limit func(d time.Duration) resilience.Policy) resilience.Policy {
	switch s.kind {
	case "limit":
		return limit(s.d + time.Nanosecond)
	case "retry":
		wait := retry.Constant(s.d + time.Millisecond) // not in the instant in which a breaker's open time is over
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
		return resilience.Pipeline{limit(2 * s.d), retry.New(retry.Config{MaxAttempts: 1}), limit(s.d)}
	}
	panic("no such stage: " + s.kind)
}

// see adds a ctx that a policy or an effector got.
func (w *world) see(ctx context.Context, looks bool) {
	w.add(ctx, nil)
	w.limits = append(w.limits, ctx)
	w.look(looks)
}

// byPipeline is package timeout's policy.
func byPipeline(limit time.Duration) resilience.Policy {
	return resilience.Pipeline{timeout.After(max(limit, 1)), resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		return seen(ctx, next.Run(ctx))
	})}
}

// byPolicy does the same by package context.
func byPolicy(limit time.Duration) resilience.Policy {
	return resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= max(limit, 1) {
			return next.Run(ctx)
		}
		limited, cancel := context.WithTimeout(ctx, max(limit, 1))
		defer cancel()
		return next.Run(limited)
	})
}

// TestThePipelinesContextsTellWhatTheStandardLibrarysTell, whatever stands between the limits.
func TestThePipelinesContextsTellWhatTheStandardLibrarysTell(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := drawPlan(rt)
		stages := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) stage {
			return stage{rapid.SampledFrom(stageKinds).Draw(t, "kind"), durations().Draw(t, "d")}
		}), 1, 6).Draw(rt, "stages")
		failures := rapid.IntRange(0, 3).Draw(rt, "failures")
		composed := rapid.Bool().Draw(rt, "composed")
		again := durations().Draw(rt, "again") // the effector's own limit for a call within it

		var logs [2][]string
		for i, limit := range []func(time.Duration) resilience.Policy{byPipeline, byPolicy} {
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
						return 0, resilience.Run(ctx, limit(again), func(ctx context.Context) error {
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
					if err != nil { // their texts are not the same
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
