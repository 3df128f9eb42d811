package behaviour

import (
	"net/http"

	"github.com/failsafe-go/failsafe-go/failsafehttp"
	failsafetimeout "github.com/failsafe-go/failsafe-go/timeout"
	"github.com/hashicorp/go-retryablehttp"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/resiliencehttp"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// A transport makes what an http.Client sends its requests through, over base.
type transport func(base http.RoundTripper, w want) http.RoundTripper

// Each client repeats requests and limits the time of each attempt. What it repeats is left to it. Those that drop the last
// answer unless they are told otherwise are there in both ways.
func clients() []Subject {
	return []Subject{
		{Kind: Client, Name: "this library", over: oursOver},
		{Kind: Client, Name: "go-retryablehttp", over: retryableOver(nil)},
		{
			Kind: Client, Name: "go-retryablehttp, PassthroughErrorHandler",
			over: retryableOver(retryablehttp.PassthroughErrorHandler),
		},
		{Kind: Client, Name: "failsafehttp", over: failsafeOver(false)},
		{Kind: Client, Name: "failsafehttp, ReturnLastFailure", over: failsafeOver(true)},
	}
}

func oursOver(base http.RoundTripper, w want) http.RoundTripper {
	return resiliencehttp.NewTransport(resiliencehttp.Config{
		Base: base,
		Policies: func(string) resilience.Policy {
			return resilience.Pipeline{
				retry.New(retry.Config{MaxAttempts: w.attempts, Backoff: retry.Constant(w.delay)}),
				timeout.After(w.limit),
			}
		},
	})
}

// retryableOver limits attempts by the Timeout of the http.Client that makes them: the library has no limit of its own.
func retryableOver(atLast retryablehttp.ErrorHandler) transport {
	return func(base http.RoundTripper, w want) http.RoundTripper {
		client := retryablehttp.NewClient()
		client.HTTPClient = &http.Client{Transport: base, Timeout: w.limit}
		client.Logger = nil
		client.RetryMax, client.RetryWaitMin, client.RetryWaitMax = w.attempts-1, w.delay, w.delay
		client.ErrorHandler = atLast
		return client.StandardClient().Transport
	}
}

func failsafeOver(returnLast bool) transport {
	return func(base http.RoundTripper, w want) http.RoundTripper {
		retries := failsafehttp.NewRetryPolicyBuilder().WithMaxAttempts(w.attempts).WithDelay(w.delay)
		if returnLast {
			retries = retries.ReturnLastFailure()
		}
		return failsafehttp.NewRoundTripper(base, retries.Build(), failsafetimeout.New[*http.Response](w.limit))
	}
}
