// Package health reports which policies must not be forgotten.
package health

import (
	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/internal/clock"
)

// Unhealthy reports whether a breaker in the policy, at any depth, isn't closed, and if all are, since
// when. It looks into pipelines, observed ones too.
func Unhealthy(policy resilience.Policy) (keep bool, since int64) {
	for _, inner := range inside(policy) {
		keep, closed := Unhealthy(inner)
		if keep {
			return true, 0
		}
		since = max(since, closed)
	}
	if b, ok := policy.(interface{ State() breaker.State }); ok && b.State() != breaker.Closed {
		return true, 0
	}
	if b, ok := policy.(interface{ Snapshot() breaker.Snapshot }); ok {
		since = clock.Of(b.Snapshot().Since)
	}
	return false, since
}

// inside returns the policies that a policy consists of.
func inside(policy resilience.Policy) []resilience.Policy {
	switch p := policy.(type) {
	case resilience.Pipeline:
		return p
	case interface{ Policies() []resilience.Policy }:
		return p.Policies()
	}
	return nil
}
