package sim_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/sim"
	"github.com/effector-go/resilience/timeout"
)

func newUsersPipeline() resilience.Policy {
	return resilience.Pipeline{
		timeout.After(time.Second),
		retry.New(retry.Config{MaxAttempts: 3, Budget: budget.New(budget.Config{Ratio: 0.1})}),
		timeout.After(250 * time.Millisecond),
	}
}

func newNaivePipeline() resilience.Policy {
	return resilience.Pipeline{
		retry.New(retry.Config{MaxAttempts: 4, Backoff: retry.Constant(20 * time.Millisecond)}),
		timeout.After(250 * time.Millisecond),
	}
}

func Example() {
	report, err := sim.Run(context.Background(), sim.Scenario{
		Rate:      sim.Constant(100),
		Length:    40 * time.Second,
		Runs:      2,
		Incidents: []sim.Incident{{From: 10 * time.Second, For: 10 * time.Second, SlowBy: 10}},
	}, map[string]func() resilience.Policy{
		"naive": newNaivePipeline,
		"users": newUsersPipeline,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, name := range []string{"naive", "users"} {
		r := report.Pipelines[name]
		fmt.Printf("%s: recovers: %t, more than twice the load: %t\n", name, r.Metastable == 0, r.Amplification.Max > 2)
	}
	// Output:
	// naive: recovers: false, more than twice the load: true
	// users: recovers: true, more than twice the load: false
}

func ExampleTest() {
	// In a test file:
	_ = func(t *testing.T) {
		report := sim.Test(t, sim.Scenario{
			Rate:      sim.Constant(200),
			Incidents: sim.Library()["slow"],
		}, map[string]func() resilience.Policy{"users": newUsersPipeline})

		users := report.Pipelines["users"]
		if users.Metastable > 0 || users.Amplification.Max > 1.3 {
			report.WriteText(os.Stderr)
			t.Error("the outage does not end, or retries add more than 30% load")
		}
	}
}

func ExampleReadTrace() {
	file, err := os.Open("testdata/trace.csv")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer file.Close()
	trace, err := sim.ReadTrace(file)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(trace)

	s := sim.Scenario{Rate: trace.Rate, Server: sim.Server{Service: trace.Service, Network: sim.Fixed(0)}}
	fmt.Println(s.Validate())
	// Output:
	// 6 calls in 1.25s, 1 failed; service times of 5 successful calls, mean 22ms
	// <nil>
}
