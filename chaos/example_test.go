package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/chaos"
	"github.com/effector-go/resilience/retry"
)

// A pipeline with retries survives a fault that hits a third of its calls.
func Example() {
	faults := chaos.New(chaos.Config{
		Name:   "users",
		Seed:   1,
		Faults: []chaos.Fault{{Share: 1. / 3, Err: errors.New("connection reset")}},
	})
	fetch := func(context.Context) (string, error) { return "hello", nil }
	getUser := resilience.Compose(fetch, retry.New(retry.Config{MaxAttempts: 10, Backoff: retry.Constant(0)}), faults)

	faults.Start(time.Minute)
	defer faults.Stop()
	answers := 0
	for range 100 {
		if _, err := getUser(context.Background()); err == nil {
			answers++
		}
	}
	s := faults.Snapshot()
	fmt.Printf("%d answers, faults in more than a quarter of the attempts: %t\n", answers, s.Injected[0] > s.Calls/4)
	// Output: 100 answers, faults in more than a quarter of the attempts: true
}

// A write whose answer is lost may have had its effect. Under AtMostOnce, it is not repeated;
// without it, a retry would write again.
func ExampleFault_lose() {
	for _, pipeline := range []resilience.Pipeline{
		{retry.New(retry.Config{MaxAttempts: 3, Backoff: retry.Constant(0)})},
		{resilience.AtMostOnce, retry.New(retry.Config{MaxAttempts: 3, Backoff: retry.Constant(0)})},
	} {
		balance := 0
		deposit := func(context.Context) error {
			balance += 100
			return nil
		}
		faults := chaos.New(chaos.Config{Name: "bank", Faults: []chaos.Fault{{Share: 1, Lose: true}}})
		faults.Start(time.Minute)
		err := resilience.Run(context.Background(), append(pipeline, faults), deposit)
		faults.Stop()
		fmt.Printf("balance %d, error: %v\n", balance, err)
	}
	// Output:
	// balance 300, error: retry: gave up after 3 attempts: chaos bank: injected: answer lost
	// balance 100, error: chaos bank: injected: answer lost
}
