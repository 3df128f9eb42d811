package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/adaptive"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/hedge"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// patience is how many units a user waits for an answer that is still of use.
const patience = 3

// naive gives the client that many programs have: a long timeout, and up to three retries at once after a failure.
func naive(transport http.RoundTripper, url string, unit time.Duration) func(context.Context) error {
	client := &http.Client{Transport: transport, Timeout: 2 * unit}
	return func(ctx context.Context) (err error) {
		for range 4 {
			var p page
			if p, err = get(ctx, client, url); err == nil {
				err = checkStatus(p)
			}
			if err == nil || ctx.Err() != nil {
				break
			}
		}
		return err
	}
}

// guarded gives the client that calls through a pipeline. Its breaker tells onStateChange what it does.
func guarded(transport http.RoundTripper, url string, unit time.Duration, onStateChange func(breaker.Transition)) func(context.Context) error {
	return through(transport, url, // outermost first
		timeout.After(patience*unit), // the whole call
		retries(unit),
		guard(unit, onStateChange),
		timeout.After(unit), // each attempt
	)
}

// companions gives the client whose pipeline has a hedge and an adaptive limit too.
func companions(transport http.RoundTripper, url string, unit time.Duration, onStateChange func(breaker.Transition)) func(context.Context) error {
	return through(transport, url,
		timeout.After(patience*unit),
		retries(unit),
		hedge.New(hedge.Config{ // starts slow attempts again, for 5 % more of them at most
			Quantile:   0.95,
			MinSamples: 50,
		}),
		guard(unit, onStateChange),                    // hears of each start
		adaptive.New(adaptive.Config{Name: "outage"}), // as many at once as the server takes without a queue
		timeout.After(unit),
	)
}

// through gives a client that calls through the policies.
func through(transport http.RoundTripper, url string, policies ...resilience.Policy) func(context.Context) error {
	client := &http.Client{Transport: transport}
	getPage := resilience.Effector[page](func(ctx context.Context) (page, error) {
		return get(ctx, client, url)
	})
	call := getPage.Check(checkStatus).With(policies...)
	return func(ctx context.Context) error {
		_, err := call(ctx)
		return err
	}
}

func retries(unit time.Duration) *retry.Retry {
	return retry.New(retry.Config{
		MaxAttempts: 3,
		Backoff:     retry.FullJitter(unit/10, unit),
	})
}

func guard(unit time.Duration, onStateChange func(breaker.Transition)) *breaker.Breaker {
	return breaker.New(breaker.Config{
		Name:          "outage",
		FailureRate:   0.5,
		SlowRate:      0.5,
		SlowCall:      unit / 2, // a slower answer is of no use to our callers
		Window:        2 * unit,
		MinCalls:      5,
		OpenFor:       unit / 2,
		MaxOpenFor:    unit,
		OnStateChange: onStateChange,
	})
}

// A page is an answer of the server, read to its end.
type page struct {
	status int
	body   []byte
}

// get reads the body and closes it before it returns: the ctx of an attempt ends with the attempt, and an
// *http.Response that outlived it could not be read. (An effector that does return something to be closed would have
// [resilience.Discard] as its outermost policy.)
func get(ctx context.Context, client *http.Client, url string) (page, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return page{}, err
	}
	response, err := client.Do(request)
	if err != nil {
		return page{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return page{response.StatusCode, body}, err
}

// checkStatus turns an answer that means failure into an error.
func checkStatus(p page) error {
	if p.status >= 500 {
		return fmt.Errorf("server answered %d %s", p.status, http.StatusText(p.status))
	}
	return nil
}
