package timeout_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/timeout"
)

func ExampleDo() {
	payments := timeout.New(timeout.Config{Name: "payments", Limit: 10 * time.Millisecond})
	_, err := timeout.Do(context.Background(), payments, func(ctx context.Context) (string, error) {
		<-ctx.Done() // a call that takes too long and respects its context
		return "", ctx.Err()
	})
	fmt.Println(err)
	fmt.Println(errors.Is(err, timeout.ErrTimeout), errors.Is(err, context.DeadlineExceeded))
	// Output:
	// timeout payments: limit of 10ms passed
	// true true
}

// A Timeout is a policy: here, one limits the whole call and one what is inside it.
func ExampleAfter() {
	greet := resilience.Compose(func(ctx context.Context) (string, error) { return "hello", nil },
		timeout.After(3*time.Second),
		timeout.After(time.Second))
	fmt.Println(greet(context.Background()))
	// Output: hello <nil>
}

// An effector that ignores its context is left running at the limit. While as many effectors as
// Abandon allows are still running, additional calls are refused.
func ExampleConfig_abandon() {
	legacy := timeout.New(timeout.Config{Name: "legacy", Limit: 10 * time.Millisecond, Abandon: 1})
	hangs := make(chan struct{})
	defer close(hangs)
	call := func(context.Context) (string, error) {
		<-hangs
		return "late", nil
	}
	for range 2 {
		_, err := timeout.Do(context.Background(), legacy, call)
		fmt.Println(err, errors.Is(err, resilience.ErrRefused))
	}
	// Output:
	// timeout legacy: limit of 10ms passed false
	// timeout legacy: 1 abandoned call still running true
}
