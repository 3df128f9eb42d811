package retry_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/retry"
)

func Example() {
	retries := retry.New(retry.Config{
		Name:    "stock",
		Backoff: retry.FullJitter(time.Millisecond, 10*time.Millisecond),
		Budget:  budget.New(budget.Config{Ratio: 0.1, MinPerSecond: 10}),
	})
	stock := resilience.Compose(func(ctx context.Context) (int, error) {
		if retry.Attempt(ctx) < 3 {
			return 0, errors.New("connection reset")
		}
		return 42, nil
	}, retries)

	fmt.Println(stock(context.Background()))
	// Output: 42 <nil>
}

func ExampleDo() {
	retries := retry.New(retry.Config{Name: "dial", MaxAttempts: 2, Backoff: retry.Constant(time.Millisecond)})
	_, err := retry.Do(context.Background(), retries, func(context.Context) (string, error) {
		return "", errors.New("connection refused")
	})
	fmt.Println(err)
	// Output: retry dial: gave up after 2 attempts: connection refused
}

func ExamplePermanent() {
	_, err := retry.Do(context.Background(), retry.New(retry.Config{}), func(context.Context) (string, error) {
		return "", retry.Permanent(errors.New("no such user"))
	})
	fmt.Println(err)
	// Output: no such user
}

func ExampleExhaustedError() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err := retry.Do(ctx, retry.New(retry.Config{Backoff: retry.Constant(time.Hour)}), func(context.Context) (string, error) {
		return "", errors.New("connection refused")
	})
	var exhausted *retry.ExhaustedError
	if errors.As(err, &exhausted) {
		fmt.Println(exhausted.Reason)
	}
	fmt.Println(err)
	// Output:
	// deadline too near
	// retry: gave up after 1 attempt, a wait of 1h0m0s would outlast the deadline: connection refused
}
