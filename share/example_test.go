package share_test

import (
	"context"
	"fmt"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/share"
	"github.com/effector-go/resilience/timeout"
)

func Example() {
	runs := 0
	fetchRates := func(context.Context) (float64, error) { runs++; return 1.08, nil }
	rates := share.Stale(resilience.Compose(fetchRates, timeout.After(time.Second)), time.Minute, time.Hour)
	for range 3 {
		rate, err := rates(context.Background())
		fmt.Println(rate, err)
	}
	fmt.Println(runs, "run")
	// Output:
	// 1.08 <nil>
	// 1.08 <nil>
	// 1.08 <nil>
	// 1 run
}

func ExampleNewGroup() {
	users := share.NewGroup(share.Config{Fresh: time.Minute}, func(ctx context.Context, id int) (string, error) {
		return fmt.Sprint("user ", id), nil
	})
	user, err := users.Do(context.Background(), 7)
	fmt.Println(user, err, users.Len())
	// Output: user 7 <nil> 1
}
