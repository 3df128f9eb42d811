package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/resiliencegrpc"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// newClient returns a connection that prints what its policies do. Apart from the printing, it is what
// a program would use.
func newClient(address string, out io.Writer) (*grpc.ClientConn, error) {
	options := resiliencegrpc.DialOptions(resiliencegrpc.Config{
		Policies: func(string) resilience.Policy { // the key is the address, which differs from run to run
			return resilience.Pipeline{
				timeout.After(5 * time.Second), // all attempts and the waits between them
				retry.New(retry.Config{
					Budget:  budget.New(budget.Config{Ratio: 0.1, MinPerSecond: 10}),
					Backoff: retry.Constant(10 * time.Millisecond),
					OnRetry: func(_ context.Context, e retry.Event) { fmt.Fprintf(out, "      retry: waits %v\n", e.Delay) },
				}),
				breaker.New(breaker.Config{
					Name:          "test service",
					OnStateChange: func(t breaker.Transition) { fmt.Fprintf(out, "      breaker: %v, %s\n", t.To, t.Cause) },
				}),
				timeout.After(500 * time.Millisecond), // each attempt
				attempts(out),
			}
		},
	})
	return grpc.NewClient(address, append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
}

// attempts returns a policy that prints the result of each attempt.
func attempts(out io.Writer) resilience.Policy {
	return resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		err := next.Run(ctx)
		fmt.Fprintf(out, "      attempt %d: %v\n", retry.Attempt(ctx), status.Code(err))
		return err
	})
}
