package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/effector-go/resilience/breaker"
)

func Example() {
	payments := breaker.New(breaker.Config{Name: "payments", Consecutive: 2})
	pay := func(ctx context.Context) (string, error) { return "", errors.New("connection refused") }

	for range 3 {
		_, err := breaker.Do(context.Background(), payments, pay)
		fmt.Println(err, errors.Is(err, breaker.ErrOpen))
	}
	// Output:
	// connection refused false
	// connection refused false
	// breaker payments: open, retry in 5s true
}

// The circuit breaker of the book Cloud Native Go, plus the half-open state that its closure lacks.
func Example_book() {
	calls := 0
	failAfter := func(n int) func(context.Context) (int, error) {
		return func(context.Context) (int, error) {
			if calls++; calls > n {
				return calls, errors.New("INTENTIONAL FAIL!")
			}
			return calls, nil
		}
	}
	circuit, fn := breaker.New(breaker.Config{Leaky: 1, OpenFor: 40 * time.Millisecond}), failAfter(5)
	open := false
	for range 10 {
		_, err := breaker.Do(context.Background(), circuit, fn)
		open = open || errors.Is(err, breaker.ErrOpen)
	}
	fmt.Println("calls:", calls, "opened:", open)
	// Output: calls: 6 opened: true
}

func ExampleBreaker_Acquire() {
	events := breaker.New(breaker.Config{Name: "events"})
	subscribe := func(ctx context.Context) error { return nil }

	listen := func(ctx context.Context) error {
		permit, err := events.Acquire(ctx)
		if err != nil {
			return err
		}
		defer permit.Cancel()
		err = subscribe(ctx)
		permit.Done(err) // reports whether the stream was established; its later end isn't counted
		return err
	}
	fmt.Println(listen(context.Background()))
	// Output: <nil>
}

func ExampleConfig_OnStateChange() {
	b := breaker.New(breaker.Config{Name: "payments", OnStateChange: func(t breaker.Transition) { fmt.Println(t) }})
	for range 5 {
		breaker.Do(context.Background(), b, func(context.Context) (int, error) { return 0, errors.New("503") })
	}
	b.Reset()
	// Output:
	// breaker payments: closed to open: 5 failures in a row
	// breaker payments: open to closed: manual
}
