// Package pipelines creates the pipelines that tests and benchmarks of several modules share.
package pipelines

import (
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/adaptive"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/bulkhead"
	"github.com/effector-go/resilience/hedge"
	"github.com/effector-go/resilience/observe"
	"github.com/effector-go/resilience/ratelimit"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/shed"
	"github.com/effector-go/resilience/throttle"
	"github.com/effector-go/resilience/timeout"
)

// Usual returns a pipeline as most programs have it, for benchmarks.
func Usual() resilience.Pipeline {
	return resilience.Pipeline{
		timeout.After(10 * time.Second),
		retry.New(retry.Config{}),
		breaker.New(breaker.Config{Name: "users"}),
		timeout.After(time.Second),
	}
}

// EveryKind returns an observed pipeline with a policy of each kind that reports values. The pipeline
// contains another observed one, and retry has a budget, which o watches. The breaker opens at the
// first failure.
func EveryKind(o *observe.Observer) resilience.Policy {
	tokens := budget.New(budget.Config{Name: "tokens", Ratio: 0.1})
	o.Watch(tokens)
	return o.Pipeline("everything",
		timeout.After(time.Minute),
		retry.New(retry.Config{Budget: tokens}),
		hedge.New(hedge.Config{Delay: time.Minute}),
		adaptive.New(adaptive.Config{}),
		bulkhead.New(bulkhead.Config{Limit: 1}),
		ratelimit.New(ratelimit.Config{Rate: 1}),
		shed.New(shed.Config{}),
		throttle.New(throttle.Config{Max: 1, Refill: 1, Every: time.Minute}),
		o.Pipeline("inner", breaker.New(breaker.Config{Name: "db", Consecutive: 1})),
	)
}
