package limit_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/bulkhead"
	"github.com/effector-go/resilience/internal/limit"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// TestWhichPoliciesArePrompt: those that stand between the timeouts of most pipelines. None of the user's is, whatever it embeds.
func TestWhichPoliciesArePrompt(t *testing.T) {
	type embedding struct{ *breaker.Breaker }
	for policy, prompt := range map[any]bool{
		breaker.New(breaker.Config{}):            true,
		retry.New(retry.Config{}):                true,
		timeout.After(time.Second):               true,
		embedding{breaker.New(breaker.Config{})}: false,
		bulkhead.New(bulkhead.Config{Limit: 1}):  false,
		resilience.AtMostOnce:                    false,
		resilience.Discard(func(int) {}):         false,
	} {
		hold(t, policy, prompt)
	}
	hold(t, resilience.PolicyFunc(func(context.Context, resilience.Next) error { return nil }), false)
	hold(t, nil, false)
}

func hold(t *testing.T, policy any, prompt bool) {
	t.Run(fmt.Sprintf("%T", policy), func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			outer := (&limit.Limit{After: time.Hour}).Within(context.Background())
			outer.HandedTo(policy)
			time.Sleep(time.Second)
			deadline, _ := (&limit.Limit{After: time.Minute}).Within(outer).Deadline()
			if shares := time.Until(deadline) < time.Minute; shares != prompt {
				t.Errorf("a limit after it shares the reading of the clock: %t", shares)
			}
		})
	})
}
