package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/resiliencehttp"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// newClient returns a client that prints what its policies do. Apart from the printing, it is what a
// program would use.
func newClient(out io.Writer) *http.Client {
	retries := budget.New(budget.Config{Ratio: 0.1, MinPerSecond: 10})
	return &http.Client{Transport: resiliencehttp.NewTransport(resiliencehttp.Config{
		Base: printingTransport{http.DefaultTransport.(*http.Transport).Clone(), out},
		Key:  func(req *http.Request) string { return req.URL.Path }, // separate policies per scene; the default is per host
		Policies: func(key string) resilience.Policy {
			return resilience.Pipeline{
				timeout.After(10 * time.Second), // all attempts and the waits between them
				retry.New(retry.Config{
					Budget:  retries,
					Backoff: retry.Constant(10 * time.Millisecond),
					OnRetry: func(_ context.Context, e retry.Event) { fmt.Fprintf(out, "      retry: waits %v\n", e.Delay) },
				}),
				breaker.New(breaker.Config{
					Name:          key,
					OnStateChange: func(t breaker.Transition) { fmt.Fprintf(out, "      breaker: %v, %s\n", t.To, t.Cause) },
				}),
				timeout.After(time.Second), // each attempt, to its headers
			}
		},
	})}
}

// printingTransport prints the result of each attempt.
type printingTransport struct {
	*http.Transport
	out io.Writer
}

func (t printingTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	response, err := t.Transport.RoundTrip(req)
	number := retry.Attempt(req.Context())
	if err != nil {
		fmt.Fprintf(t.out, "      attempt %d: %v\n", number, err)
		return nil, err
	}
	fmt.Fprintf(t.out, "      attempt %d: %s\n", number, response.Status)
	return response, nil
}
