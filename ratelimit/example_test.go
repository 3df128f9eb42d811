package ratelimit_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/ratelimit"
)

func Example() {
	mail := ratelimit.New(ratelimit.Config{Name: "mail", Rate: 0.1, Burst: 2})
	send := func(context.Context) error { return nil }
	for range 3 {
		err := resilience.Run(context.Background(), mail, send)
		fmt.Println(errors.Is(err, ratelimit.ErrLimited))
	}
	// Output:
	// false
	// false
	// true
}
