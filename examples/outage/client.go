package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/adaptive"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// Every client has the same limits: a caller waits for as long as its patience lasts, an attempt may
// take a quarter of that, and a call has at most four attempts.
const (
	patience     = 2 * time.Second
	attemptLimit = 500 * time.Millisecond
	attempts     = 4
)

// An effector is the call that a client makes.
type effector = resilience.Effector[page]

// A clientFunc returns a client's call around get. Its breaker, if it has one, reports to
// onStateChange.
type clientFunc func(get effector, onStateChange func(breaker.Transition)) effector

// naive is the client that many programs have: a timeout for the call, a timeout for each attempt,
// and retries with exponential backoff and full jitter.
func naive(get effector, _ func(breaker.Transition)) effector {
	attempt := func(ctx context.Context) (page, error) {
		ctx, cancel := context.WithTimeout(ctx, attemptLimit)
		defer cancel()
		return get(ctx)
	}
	return func(ctx context.Context) (page, error) {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		backoff := 100 * time.Millisecond
		for n := 1; ; n++ {
			p, err := attempt(ctx)
			if err == nil || n == attempts {
				return p, err
			}
			select {
			case <-time.After(rand.N(backoff)):
			case <-ctx.Done():
				return p, err
			}
			backoff *= 2
		}
	}
}

// pipeline is the client that calls through policies. To what the naive client does it adds a budget
// for retries and a breaker.
func pipeline(get effector, onStateChange func(breaker.Transition)) effector {
	return pipelineStarting(0, get, onStateChange)
}

// pipelineStarting is the pipeline with a slow start of the given length.
func pipelineStarting(slowStart time.Duration, get effector, onStateChange func(breaker.Transition)) effector {
	return get.With( // outermost first
		timeout.After(patience),
		retry.New(retry.Config{
			MaxAttempts: attempts,
			Budget:      newBudget(),
		}),
		newBreaker(slowStart, onStateChange),
		timeout.After(attemptLimit),
	)
}

func newBudget() *budget.Budget {
	return budget.New(budget.Config{Ratio: 0.1}) // one retry for ten calls
}

func newBreaker(slowStart time.Duration, onStateChange func(breaker.Transition)) *breaker.Breaker {
	return breaker.New(breaker.Config{
		Name:          "outage",
		FailureRate:   0.5,
		Window:        2 * time.Second,
		OpenFor:       time.Second,
		MaxOpenFor:    2 * time.Second,
		SlowStart:     slowStart,
		OnStateChange: onStateChange,
	})
}

// budgetOnly is the naive client with a budget for retries.
func budgetOnly(get effector, _ func(breaker.Transition)) effector {
	return get.With(
		timeout.After(patience),
		retry.New(retry.Config{MaxAttempts: attempts, Budget: newBudget()}),
		timeout.After(attemptLimit),
	)
}

// breakerOnly is the naive client with a breaker.
func breakerOnly(get effector, onStateChange func(breaker.Transition)) effector {
	return get.With(
		timeout.After(patience),
		retry.New(retry.Config{MaxAttempts: attempts}),
		newBreaker(0, onStateChange),
		timeout.After(attemptLimit),
	)
}

// limitOnly is the naive client with an adaptive limit of concurrent attempts.
func limitOnly(get effector, _ func(breaker.Transition)) effector {
	return get.With(
		timeout.After(patience),
		retry.New(retry.Config{MaxAttempts: attempts}),
		adaptive.New(adaptive.Config{Name: "outage"}),
		timeout.After(attemptLimit),
	)
}

// A page is a response, read to its end.
type page struct {
	status int
	body   []byte
}

// getter returns an effector that gets the page at url. A response that reports a failure is an error.
func getter(client *http.Client, url string) effector {
	get := effector(func(ctx context.Context) (page, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return page{}, err
		}
		response, err := client.Do(request)
		if err != nil {
			return page{}, err
		}
		// The context of an attempt ends with the attempt, so the body must be read here.
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		return page{response.StatusCode, body}, err
	})
	return get.Check(func(p page) error {
		if p.status >= 500 {
			return fmt.Errorf("server answered %d %s", p.status, http.StatusText(p.status))
		}
		return nil
	})
}
