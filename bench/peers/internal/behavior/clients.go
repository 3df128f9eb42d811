package behavior

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

// A transport makes the RoundTripper that an http.Client uses, on top of base.
type transport func(base http.RoundTripper, w setup) http.RoundTripper

// clients repeat requests and limit the time of each attempt. Each one decides which requests it
// repeats. Clients that drop the last response by default appear with both settings.
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

func oursOver(base http.RoundTripper, w setup) http.RoundTripper {
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

// retryableOver limits attempts with the Timeout of the inner http.Client, since the library has no
// such setting.
func retryableOver(onGivingUp retryablehttp.ErrorHandler) transport {
	return func(base http.RoundTripper, w setup) http.RoundTripper {
		client := retryablehttp.NewClient()
		client.HTTPClient = &http.Client{Transport: base, Timeout: w.limit}
		client.Logger = nil
		client.RetryMax, client.RetryWaitMin, client.RetryWaitMax = w.attempts-1, w.delay, w.delay
		client.ErrorHandler = onGivingUp
		return client.StandardClient().Transport
	}
}

func failsafeOver(returnLast bool) transport {
	return func(base http.RoundTripper, w setup) http.RoundTripper {
		retries := failsafehttp.NewRetryPolicyBuilder().WithMaxAttempts(w.attempts).WithDelay(w.delay)
		if returnLast {
			retries = retries.ReturnLastFailure()
		}
		return failsafehttp.NewRoundTripper(base, retries.Build(), failsafetimeout.New[*http.Response](w.limit))
	}
}
