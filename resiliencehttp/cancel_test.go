package resiliencehttp_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// cancelable returns a request that its field Cancel cancels.
func cancelable(t *testing.T) (req *http.Request, cancel func()) {
	req = newRequest(t, "GET", "http://example.com/", "")
	channel := make(chan struct{})
	//lint:ignore SA1019 deprecated, and kept
	req.Cancel = channel
	return req, func() { close(channel) }
}

// TestTransportDoesNotResendCanceledRequest: to policies, Request.Cancel is the end of the context,
// immediately.
func TestTransportDoesNotResendCanceledRequest(t *testing.T) {
	boom := errors.New("boom")
	for name, policy := range map[string]resilience.Policy{
		"no limit": retries(retry.Config{}),
		"limits":   resilience.Pipeline{timeout.After(time.Hour), retries(retry.Config{}), timeout.After(time.Minute)},
	} {
		req, cancel := cancelable(t)
		calls := 0
		base := roundTripper(func(*http.Request) (*http.Response, error) {
			if calls++; calls == 1 {
				cancel()
			}
			return nil, boom
		})
		if _, err := through(base, policy).RoundTrip(req); err != boom || calls != 1 {
			t.Errorf("%s: got %v after %d calls", name, err, calls)
		}
		if _, err := through(base, policy).RoundTrip(req); !errors.Is(err, context.Canceled) || calls != 1 {
			t.Errorf("%s: sent although it was canceled: %v", name, err)
		}
	}
}

func TestTransportRequestCancelEndsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		req, cancel := cancelable(t)
		base := &answers{statuses: []int{503}}
		time.AfterFunc(time.Second, cancel)
		began := time.Now()
		response, err := through(base, retries(retry.Config{Backoff: retry.Constant(time.Hour)})).RoundTrip(req)
		if response != nil || !errors.Is(err, context.Canceled) || time.Since(began) != time.Second {
			t.Errorf("got %v, %v after %v", response, err, time.Since(began))
		}
		checkClosed(t, base.bodies)
	})
}

// TestTransportRequestCancelCountsAsCaller: the caller receives no response, and the breaker counts
// nothing.
func TestTransportRequestCancelCountsAsCaller(t *testing.T) {
	b := breaker.New(breaker.Config{Consecutive: 1})
	req, cancel := cancelable(t)
	base := &answers{statuses: []int{500}}
	response, err := through(base, resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		return b.Run(ctx, next)
	})).RoundTrip(req)
	if err != nil || b.State() != breaker.Open {
		t.Fatalf("got %v, %v: a failed response should have opened the breaker", err, b.State())
	}
	response.Body.Close()

	b.Reset()
	canceling := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		err := next.Run(ctx)
		cancel()
		return err
	})
	if response, err = through(base, resilience.Pipeline{b, canceling}).RoundTrip(req); response != nil || err == nil || b.State() != breaker.Closed {
		t.Errorf("got %v, %v, breaker state %v", response, err, b.State())
	}
	checkClosed(t, base.bodies)
}

// TestTransportClientTimeoutIsDeadline: Client.Timeout is a failure for the breaker, although it
// closes Request.Cancel at the same instant.
func TestTransportClientTimeoutIsDeadline(t *testing.T) {
	for name, hang := range map[string]func(req *http.Request) error{
		"ends by Request.Cancel": func(req *http.Request) error {
			//lint:ignore SA1019 what Client.Timeout sets
			<-req.Cancel
			return errors.New("canceled")
		},
		"seen of by the context": func(req *http.Request) error {
			<-req.Context().Done()
			return req.Context().Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := breaker.New(breaker.Config{Consecutive: 1})
				calls := 0
				client := &http.Client{Timeout: time.Second, Transport: through(roundTripper(func(req *http.Request) (*http.Response, error) {
					calls++
					return nil, hang(req)
				}), resilience.Pipeline{retries(retry.Config{}), b})}
				_, err := client.Get("http://example.com/")
				if timeoutErr, ok := err.(interface{ Timeout() bool }); !ok || !timeoutErr.Timeout() || calls != 1 || b.State() != breaker.Open {
					t.Errorf("got %v after %d calls, breaker state %v", err, calls, b.State())
				}
				time.Sleep(time.Hour) // the breaker's timer
			})
		})
	}
}

// TestTransportRequestCancelAtDeadlineIsDeadline even if the context hasn't ended yet:
// Client.Timeout has a timer for each.
func TestTransportRequestCancelAtDeadlineIsDeadline(t *testing.T) {
	b := breaker.New(breaker.Config{Consecutive: 1})
	req, cancel := cancelable(t)
	calls := 0
	base := roundTripper(func(*http.Request) (*http.Response, error) {
		calls++
		cancel()
		return nil, errors.New("canceled")
	})
	_, err := through(base, resilience.Pipeline{retries(retry.Config{}), b}).RoundTrip(req.WithContext(due{t.Context()}))
	if !errors.Is(err, context.DeadlineExceeded) || calls != 1 || b.State() != breaker.Open {
		t.Errorf("got %v after %d calls, breaker state %v", err, calls, b.State())
	}
}

// due is a context whose deadline has passed and whose timer is late.
type due struct{ context.Context }

func (due) Deadline() (time.Time, bool) { return time.Unix(0, 0), true }

// TestTransportRequestCancelContextEndsWithCall, so that the request's context holds nothing
// of it. The response's body stays readable.
func TestTransportRequestCancelContextEndsWithCall(t *testing.T) {
	req, cancel := cancelable(t)
	defer cancel()
	var policies context.Context
	response, err := through(&answers{statuses: []int{200}}, resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		policies = ctx
		return next.Run(ctx)
	})).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	if policies.Err() != context.Canceled {
		t.Errorf("got %v from the policies' context, want %v", policies.Err(), context.Canceled)
	}
	if text := readAll(t, response); text != "answer 1" {
		t.Errorf("got %q", text)
	}
}

// TestTransportRequestCancelStartsNoGoroutine if nothing waits for it: Client.Timeout sets it on
// each request.
func TestTransportRequestCancelStartsNoGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		req, cancel := cancelable(t)
		defer cancel()
		before := goroutines()
		base := roundTripper(func(*http.Request) (*http.Response, error) {
			if !noneSince(before) {
				t.Error("goroutines were started")
			}
			return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
		})
		for _, policies := range []func(string) resilience.Policy{empty, designed} {
			if _, err := wrapped(base, policies).RoundTrip(req); err != nil {
				t.Error(err)
			}
		}
	})
}
