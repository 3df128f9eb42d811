package adaptive_test

import (
	"context"
	"fmt"

	"github.com/effector-go/resilience/adaptive"
)

func Example() {
	search := adaptive.New(adaptive.Config{Name: "search", Initial: 1})
	ctx := context.Background()

	find := func(context.Context) (string, error) { return "page", nil }
	page, err := adaptive.Do(ctx, search, func(ctx context.Context) (string, error) {
		_, err := adaptive.Do(ctx, search, find) // while the other call runs
		fmt.Println(err)
		return find(ctx)
	})
	fmt.Println(page, err)
	// Output:
	// adaptive search: at the limit of 1
	// page <nil>
}
