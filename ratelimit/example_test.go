package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"

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

func ExampleKeyed() {
	perCustomer := ratelimit.NewKeyed(ratelimit.KeyedConfig[string]{Config: ratelimit.Config{Rate: 0.1, Burst: 2}})
	for i := range 6 {
		customer := "c" + strconv.Itoa(i%2)
		fmt.Println(customer, perCustomer.Allow(customer))
	}
	// Output:
	// c0 true
	// c1 true
	// c0 true
	// c1 true
	// c0 false
	// c1 false
}

type customer struct{}

// The key is in the context, where an authentication middleware may have put it.
func ExampleKeyed_By() {
	perCustomer := ratelimit.NewKeyed(ratelimit.KeyedConfig[string]{Config: ratelimit.Config{Rate: 0.1}})
	customerOf := func(ctx context.Context) string {
		id, _ := ctx.Value(customer{}).(string)
		return id
	}
	send := resilience.Compose(func(context.Context) (string, error) { return "sent", nil }, perCustomer.By(customerOf))
	for _, id := range []string{"alice", "bob", "alice"} {
		answer, err := send(context.WithValue(context.Background(), customer{}, id))
		fmt.Println(id, answer, errors.Is(err, ratelimit.ErrLimited))
	}
	// Output:
	// alice sent false
	// bob sent false
	// alice  true
}
