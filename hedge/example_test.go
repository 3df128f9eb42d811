package hedge_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/hedge"
	"github.com/effector-go/resilience/timeout"
)

func Example() {
	hedges := hedge.New(hedge.Config{
		Name:     "users",
		Quantile: 0.95,
		Delay:    10 * time.Millisecond, // applies until there are a hundred samples
		Budget:   budget.New(budget.Config{Ratio: 0.05, MinPerSecond: 1}),
		OnHedge:  func(_ context.Context, e hedge.Event) { fmt.Printf("hedge %s: start %d\n", e.Name, e.Start) },
	})

	var calls atomic.Int32
	fetchUser := func(ctx context.Context) (string, error) {
		if calls.Add(1) == 1 { // reaches a busy replica
			<-ctx.Done()
			return "", ctx.Err()
		}
		return "Ann", nil
	}
	getUser := resilience.Compose(fetchUser, timeout.After(time.Second), hedges)

	fmt.Println(getUser(context.Background()))
	// Output:
	// hedge users: start 2
	// Ann <nil>
}

func ExampleDo() {
	hedges := hedge.New(hedge.Config{Delay: time.Second})
	fmt.Println(hedge.Do(context.Background(), hedges, func(context.Context) (string, error) { return "fast enough", nil }))
	// Output: fast enough <nil>
}

func ExampleHedge_Snapshot() {
	hedges := hedge.New(hedge.Config{Name: "users", Quantile: 0.95})
	fmt.Printf("%+v\n", hedges.Snapshot()) // no call was made yet
	// Output: {Name:users Delay:0s}
}
