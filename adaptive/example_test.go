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

// A stream is opened with a permit. It counts as a call that has ended once it is established.
func ExampleLimiter_Acquire() {
	quotes := adaptive.New(adaptive.Config{Name: "quotes"})
	ctx := context.Background()
	open := func(context.Context) (<-chan string, error) {
		stream := make(chan string, 1)
		stream <- "first quote"
		close(stream)
		return stream, nil
	}

	permit, err := quotes.Acquire(ctx)
	if err != nil {
		fmt.Println("refused:", err)
		return
	}
	defer permit.Cancel() // for a panic and an early return

	stream, err := open(ctx)
	permit.Done(err)
	if err != nil {
		fmt.Println(err)
		return
	}
	for quote := range stream {
		fmt.Println(quote)
	}
	// Output: first quote
}
