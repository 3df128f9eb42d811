package resilience_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/effector-go/resilience"
)

// again is a policy that repeats a failed call once, if the call may be repeated.
var again = resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
	err := next.Run(ctx)
	if err != nil && next.Repeatable() {
		return next.Run(ctx)
	}
	return err
})

func ExampleCompose() {
	calls := 0
	greet := resilience.Compose(func(context.Context) (string, error) {
		calls++
		if calls == 1 {
			return "", errors.New("connection reset")
		}
		return "hello", nil
	}, again)

	fmt.Println(greet(context.Background()))
	// Output: hello <nil>
}

func ExampleDo() {
	guarded := resilience.Pipeline{again}

	length, err := resilience.Do(context.Background(), guarded, func(context.Context) (int, error) {
		return len("some answer"), nil
	})
	fmt.Println(length, err)
	// Output: 11 <nil>
}

func ExampleRun() {
	err := resilience.Run(context.Background(), again, func(context.Context) error {
		return errors.New("no route to host")
	})
	fmt.Println(err)
	// Output: no route to host
}

func ExamplePolicyFunc() {
	logged := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		before := next.Starts()
		err := next.Run(ctx)
		fmt.Printf("calls made: %d, error: %v\n", next.Starts()-before, err)
		return err
	})

	_ = resilience.Run(context.Background(), resilience.Pipeline{logged, again}, func(context.Context) error {
		return errors.New("no route to host")
	})
	// Output: calls made: 2, error: no route to host
}

func ExampleEffector_Check() {
	fetch := resilience.Effector[int](func(context.Context) (int, error) { return 503, nil })

	checked := fetch.Check(func(status int) error {
		if status >= 500 {
			return fmt.Errorf("status %d", status)
		}
		return nil
	})
	fmt.Println(checked(context.Background()))
	// Output: 503 status 503
}

func ExampleEffector_OrElse() {
	fetch := resilience.Effector[string](func(context.Context) (string, error) { return "", errors.New("down") })

	call := fetch.With(again).OrElse(func(_ context.Context, err error) (string, error) {
		return "cached answer", nil
	})
	fmt.Println(call(context.Background()))
	// Output: cached answer <nil>
}

// One pipeline serves reads and writes: under AtMostOnce, a write is not made a second time.
func ExampleNext_Repeatable() {
	write := func(context.Context) error {
		fmt.Println("written, then the answer was lost")
		return errors.New("connection reset")
	}
	err := resilience.Run(context.Background(), resilience.Pipeline{resilience.AtMostOnce, again}, write)
	fmt.Println(err)
	// Output:
	// written, then the answer was lost
	// connection reset
}

func ExampleNotMade() {
	calls := 0
	write := func(context.Context) error {
		calls++
		if calls == 1 {
			return resilience.NotMade(errors.New("connection refused")) // nothing was sent
		}
		return nil
	}
	err := resilience.Run(context.Background(), resilience.Pipeline{resilience.AtMostOnce, again}, write)
	fmt.Println(calls, err)
	// Output: 2 <nil>
}

type connection struct{ id int }

func (c *connection) Close() { fmt.Println("closed", c.id) }

func ExampleDiscard() {
	calls := 0
	dial := func(context.Context) (*connection, error) {
		calls++
		c := &connection{calls}
		if calls == 1 {
			return c, errors.New("handshake failed")
		}
		return c, nil
	}
	closing := resilience.Discard(func(c *connection) {
		if c != nil {
			c.Close()
		}
	})

	c, err := resilience.Do(context.Background(), resilience.Pipeline{closing, again}, dial)
	fmt.Println("got", c.id, err)
	// Output:
	// closed 1
	// got 2 <nil>
}

func ExampleRetryAfter() {
	err := fmt.Errorf("get user: %w", resilience.WithRetryAfter(errors.New("status 429"), 2*time.Second))

	after, ok := resilience.RetryAfter(err)
	fmt.Println(err)
	fmt.Println(after, ok)
	// Output:
	// get user: status 429
	// 2s true
}
