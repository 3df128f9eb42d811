package health_test

import (
	"context"
	"errors"
	"testing"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/internal/clock"
	"github.com/effector-go/resilience/internal/health"
	"github.com/effector-go/resilience/observe"
)

func TestUnhealthyFindsBreakersAtAnyDepth(t *testing.T) {
	obs := observe.New(observe.Config{})
	wrappers := map[string]func(resilience.Policy) resilience.Policy{
		"alone":    func(p resilience.Policy) resilience.Policy { return p },
		"pipeline": func(p resilience.Policy) resilience.Policy { return resilience.Pipeline{resilience.AtMostOnce, p} },
		"observed": func(p resilience.Policy) resilience.Policy { return obs.Pipeline("p", resilience.AtMostOnce, p) },
		"nested": func(p resilience.Policy) resilience.Policy {
			return resilience.Pipeline{obs.Pipeline("p", obs.Pipeline("q", p))}
		},
	}
	for name, wrap := range wrappers {
		b := breaker.New(breaker.Config{Consecutive: 1})
		policy := wrap(b)
		if keep, since := health.Unhealthy(policy); keep || since != clock.Of(b.Snapshot().Since) {
			t.Errorf("%s: got %v, %v for a closed breaker, want false and when it was created", name, keep, since)
		}
		if err := resilience.Run(t.Context(), policy, func(context.Context) error { return errors.New("failed") }); err == nil {
			t.Fatal("got no error")
		}
		if keep, _ := health.Unhealthy(policy); !keep {
			t.Errorf("%s: got false for an open breaker, want true", name)
		}
	}
	if keep, since := health.Unhealthy(resilience.AtMostOnce); keep || since != 0 {
		t.Errorf("got %v, %v without a breaker, want false, 0", keep, since)
	}
}
