package throttle_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/throttle"
)

func Example() {
	api := throttle.New(throttle.Config{Name: "api", Max: 2, Refill: 2, Every: time.Minute})
	for range 3 {
		err := resilience.Run(context.Background(), api, func(context.Context) error { return nil })
		fmt.Println(errors.Is(err, throttle.ErrThrottled))
	}
	// Output:
	// false
	// false
	// true
}
