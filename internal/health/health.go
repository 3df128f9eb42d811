// Package health reports which policies a store with a limit must keep: those with a breaker that isn't
// closed. A new breaker in its place would be closed.
package health

import (
	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/internal/clock"
)

// Unhealthy reports whether a breaker in the policy isn't closed. If all are closed, since is when the
// last of them closed, as a time of package clock; it is 0 if there is no breaker. Unhealthy looks into
// pipelines at any depth, observed ones too.
func Unhealthy(policy resilience.Policy) (unhealthy bool, since int64) {
	for _, inner := range inside(policy) {
		unhealthy, closed := Unhealthy(inner)
		if unhealthy {
			return true, 0
		}
		since = max(since, closed)
	}
	if b, ok := policy.(interface{ Snapshot() breaker.Snapshot }); ok {
		s := b.Snapshot()
		if s.State != breaker.Closed {
			return true, 0
		}
		since = max(since, clock.Of(s.Since))
	}
	return false, since
}

// inside returns the policies of a pipeline.
func inside(policy resilience.Policy) []resilience.Policy {
	switch p := policy.(type) {
	case resilience.Pipeline:
		return p
	case interface{ Policies() []resilience.Policy }:
		return p.Policies()
	}
	return nil
}
