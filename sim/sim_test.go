package sim

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/bulkhead"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// guide is the pipeline of docs/guide.md.
func guide() resilience.Policy {
	return resilience.Pipeline{
		timeout.After(400 * time.Millisecond),
		retry.New(retry.Config{MaxAttempts: 2, Backoff: retry.FullJitter(50*time.Millisecond, time.Second), Budget: budget.New(budget.Config{Ratio: 0.02, MinPerSecond: 1})}),
		breaker.New(breaker.Config{
			Name:        "users",
			FailureRate: 0.5, Window: 2 * time.Second, MinCalls: 20,
			Consecutive: 20,
			OpenFor:     time.Second, MaxOpenFor: 30 * time.Second, Jitter: 0.2,
		}),
		bulkhead.New(bulkhead.Config{Name: "users", Limit: 30}),
		timeout.After(120 * time.Millisecond),
	}
}

func naive() resilience.Policy {
	return resilience.Pipeline{
		timeout.After(time.Second),
		retry.New(retry.Config{MaxAttempts: 4, Backoff: retry.Constant(50 * time.Millisecond)}),
		timeout.After(250 * time.Millisecond),
	}
}

func TestTry(t *testing.T) {
	s := Scenario{Rate: Constant(240), Runs: 3, Clients: 10, Server: Server{Service: LogNormal(18*time.Millisecond, 60*time.Millisecond)}, Incidents: Library()["slow"]}
	begun := time.Now()
	r, err := Run(context.Background(), s, map[string]func() resilience.Policy{"guide": guide, "naive": naive, "none": func() resilience.Policy { return resilience.Pipeline{} }})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(time.Since(begun))
	for n, p := range r.Pipelines {
		fmt.Println(n, p.verdict())
		p.Series = nil
		b, _ := json.MarshalIndent(p, "", " ")
		fmt.Println(string(b))
	}
	b, err := json.Marshal(r.Scenario)
	fmt.Println(string(b), err)
}
