package resilience_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
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

// A mark states what an error means, for all policies: this breaker stays closed, because the
// dependency did its work.
func ExampleNotFailure() {
	users := breaker.New(breaker.Config{Name: "users", Consecutive: 2})
	getUser := resilience.Compose(func(context.Context) (string, error) {
		return "", resilience.NotFailure(fmt.Errorf("get user 42: %w", errNoUser)) // wrap first, mark last
	}, retry.New(retry.Config{}), users)

	for range 3 {
		_, err := getUser(context.Background())
		fmt.Println(err, errors.Is(err, errNoUser), users.State())
	}
	// Output:
	// get user 42: no such user true closed
	// get user 42: no such user true closed
	// get user 42: no such user true closed
}

var errNoUser = errors.New("no such user")

func ExampleComposeRun() {
	ping := resilience.ComposeRun(func(ctx context.Context) error { return nil }, timeout.After(time.Second))
	fmt.Println(ping(context.Background()))
	// Output: <nil>
}

// Go infers the type in Compose(fetch), unlike in a conversion to Effector.
func ExampleEffector_Check_compose() {
	fetch := func(ctx context.Context) (int, error) { return 503, nil }
	get := resilience.Compose(fetch).Check(func(status int) error {
		if status >= 500 {
			return fmt.Errorf("status %d", status)
		}
		return nil
	})
	fmt.Println(get(context.Background()))
	// Output: 503 status 503
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
