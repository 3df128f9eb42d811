package resiliencehttp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/cenkalti/backoff/v4"
	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/resiliencehttp"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// roundTripper is a function as a Base.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// trackedBody records whether it was read to its end, and how often it was closed.
type trackedBody struct {
	io.Reader
	ended  atomic.Bool
	closed atomic.Int32
}

func (b *trackedBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		b.ended.Store(true)
	}
	return n, err
}

func (b *trackedBody) Close() error {
	b.closed.Add(1)
	return nil
}

// answers is a Base that returns one response after another, repeats the last, and keeps their
// bodies.
type answers struct {
	statuses []int
	header   http.Header
	bodies   []*trackedBody
	requests []*http.Request
	sent     []string // request bodies
}

func (a *answers) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		sent, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		req.Body.Close()
		a.sent = append(a.sent, string(sent))
	}
	status := a.statuses[min(len(a.bodies), len(a.statuses)-1)]
	body := &trackedBody{Reader: strings.NewReader(fmt.Sprint("answer ", len(a.bodies)+1))}
	a.bodies, a.requests = append(a.bodies, body), append(a.requests, req)
	return &http.Response{
		StatusCode: status, Status: fmt.Sprint(status, " ", http.StatusText(status)),
		Header: a.header.Clone(), Body: body, ContentLength: -1, Request: req,
	}, nil
}

// through returns a transport with one policy for all keys.
func through(base http.RoundTripper, policy resilience.Policy) *resiliencehttp.Transport {
	return resiliencehttp.NewTransport(resiliencehttp.Config{Base: base, Policies: func(string) resilience.Policy { return policy }})
}

func newRequest(t *testing.T, method, url, body string) *http.Request {
	t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, url, reader)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func readAll(t *testing.T, response *http.Response) string {
	t.Helper()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	return string(body)
}

func retries(config retry.Config) resilience.Policy {
	if config.Backoff == nil {
		config.Backoff = retry.Constant(0)
	}
	return retry.New(config)
}

// checkClosed checks that each body was closed once.
func checkClosed(t *testing.T, bodies []*trackedBody) {
	t.Helper()
	for i, body := range bodies {
		if n := body.closed.Load(); n != 1 {
			t.Errorf("body %d was closed %d times, want once", i+1, n)
		}
	}
}

func TestTransportReturnsLastFailedResponse(t *testing.T) {
	base := &answers{statuses: []int{503, 502, 500}}
	req := newRequest(t, "GET", "http://example.com/a", "")
	response, err := through(base, retries(retry.Config{MaxAttempts: 3})).RoundTrip(req)
	if err != nil || response.StatusCode != 500 || response.Request != req {
		t.Fatalf("got %v, %v", response, err)
	}
	if body := base.bodies[2]; body.ended.Load() || body.closed.Load() != 0 {
		t.Error("the body of the returned response was read or closed")
	}
	if text := readAll(t, response); text != "answer 3" {
		t.Errorf("got %q", text)
	}
	for _, body := range base.bodies[:2] {
		if !body.ended.Load() {
			t.Error("a dropped response wasn't drained, so its connection is lost")
		}
	}
	checkClosed(t, base.bodies)
}

// TestTransportReturnsResponseWhenWaitIsForbidden, immediately, whatever forbids it.
func TestTransportReturnsResponseWhenWaitIsForbidden(t *testing.T) {
	year := http.Header{"Retry-After": {"31536000"}}
	soon := http.Header{"Retry-After": {"1"}}
	for name, c := range map[string]struct {
		header http.Header
		policy resilience.Policy
		limit  time.Duration
		calls  int
	}{
		"deadline":                     {soon, retries(retry.Config{}), 500 * time.Millisecond, 1},
		"MaxRetryAfter":                {year, retries(retry.Config{}), 0, 1},
		"a year, and a deadline of 2s": {year, retries(retry.Config{MaxRetryAfter: 1 << 62}), 2 * time.Second, 1},
		"budget":                       {soon, retries(retry.Config{Budget: budget.New(budget.Config{Ratio: 0.01})}), 0, 1},
		"attempts":                     {soon, retries(retry.Config{MaxAttempts: 2}), 0, 2},
		"MaxElapsed":                   {soon, retries(retry.Config{MaxElapsed: 500 * time.Millisecond}), 0, 1},
		"schedule":                     {soon, retries(retry.Config{Backoff: func() backoff.BackOff { return &backoff.StopBackOff{} }}), 0, 1},
		"limit of the pipeline":        {soon, resilience.Pipeline{timeout.After(time.Millisecond), retries(retry.Config{})}, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base := &answers{statuses: []int{503}, header: c.header}
				req := newRequest(t, "GET", "http://example.com/", "")
				if c.limit > 0 {
					ctx, cancel := context.WithTimeout(t.Context(), c.limit)
					defer cancel()
					req = req.WithContext(ctx)
				}
				began := time.Now()
				response, err := through(base, c.policy).RoundTrip(req)
				if err != nil || response.StatusCode != 503 || len(base.bodies) != c.calls {
					t.Fatalf("got %v, %v after %d calls, want %d", response, err, len(base.bodies), c.calls)
				}
				if waited := time.Since(began); waited != time.Duration(c.calls-1)*time.Second {
					t.Errorf("got wait %v", waited)
				}
				if text := readAll(t, response); text != fmt.Sprint("answer ", c.calls) {
					t.Errorf("got %q", text)
				}
				checkClosed(t, base.bodies)
			})
		})
	}
}

func TestTransportStatusErrorsDropsBody(t *testing.T) {
	base := &answers{statuses: []int{429}, header: http.Header{"Retry-After": {"7"}}}
	transport := resiliencehttp.NewTransport(resiliencehttp.Config{
		Base: base, StatusErrors: true,
		Policies: func(string) resilience.Policy { return resilience.Pipeline{} },
	})
	response, err := transport.RoundTrip(newRequest(t, "", "http://me:secret@example.com/a/b?token=secret#x", ""))
	var status *resiliencehttp.StatusError
	if response != nil || !errors.As(err, &status) {
		t.Fatalf("got %v, %v", response, err)
	}
	if status.StatusCode != 429 || status.Method != "GET" || status.URL != "http://example.com/a/b" || status.RetryAfter() != 7*time.Second {
		t.Errorf("got %+v, %v", status, status.RetryAfter())
	}
	if text := err.Error(); text != "resiliencehttp: GET http://example.com/a/b: 429 Too Many Requests" {
		t.Errorf("got %s", text)
	}
	checkClosed(t, base.bodies)
}

func TestTransportForeignStatusErrorIsError(t *testing.T) {
	another := &resiliencehttp.StatusError{StatusCode: 500, Status: "500 Internal Server Error", Method: "GET", URL: "http://other/"}
	base := &answers{statuses: []int{500}}
	response, err := through(base, resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		next.Run(ctx)
		return fmt.Errorf("wrapped: %w", another)
	})).RoundTrip(newRequest(t, "GET", "http://example.com/", ""))
	if response != nil || !errors.Is(err, another) {
		t.Fatalf("got %v, %v", response, err)
	}
	checkClosed(t, base.bodies)
}

func TestTransportFindsWrappedStatusError(t *testing.T) {
	base := &answers{statuses: []int{500}}
	response, err := through(base, resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		return errors.Join(errors.New("other"), fmt.Errorf("wrapped: %w", next.Run(ctx)))
	})).RoundTrip(newRequest(t, "GET", "http://example.com/", ""))
	if err != nil || readAll(t, response) != "answer 1" {
		t.Fatalf("got %v, %v", response, err)
	}
}

// TestTransportFindsStatusErrorBehindForeignOne, although both are StatusErrors.
func TestTransportFindsStatusErrorBehindForeignOne(t *testing.T) {
	another := &resiliencehttp.StatusError{StatusCode: 502}
	base := &answers{statuses: []int{500}}
	response, err := through(base, resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		return errors.Join(another, next.Run(ctx))
	})).RoundTrip(newRequest(t, "GET", "http://example.com/", ""))
	if err != nil || response.StatusCode != 500 || readAll(t, response) != "answer 1" {
		t.Fatalf("got %v, %v, want the response with status 500", response, err)
	}
	checkClosed(t, base.bodies)
}

// TestTransportFindsFirstOfTwoStatusErrors: two attempts failed, both responses are open, and the
// policy returned both errors. The first one in the tree is the one that counts.
func TestTransportFindsFirstOfTwoStatusErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := &answers{statuses: []int{503, 500}}
		response, err := through(base, resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			first, second := next.Fork(), next.Fork()
			err := errors.Join(first.Run(ctx), second.Run(ctx))
			next.Adopt(first)
			return err
		})).RoundTrip(newRequest(t, "GET", "http://example.com/", ""))
		if err != nil || response.StatusCode != 503 || readAll(t, response) != "answer 1" {
			t.Fatalf("got %v, %v, want the response with status 503", response, err)
		}
		synctest.Wait() // the second is dropped concurrently
		checkClosed(t, base.bodies)
	})
}

func TestTransportCanceledCallerGetsError(t *testing.T) {
	base := &answers{statuses: []int{500}}
	ctx, cancel := context.WithCancel(t.Context())
	response, err := through(base, resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		defer cancel()
		return next.Run(ctx)
	})).RoundTrip(newRequest(t, "GET", "http://example.com/", "").WithContext(ctx))
	if response != nil || err == nil {
		t.Fatalf("got %v, %v", response, err)
	}
	checkClosed(t, base.bodies)
}

func TestTransportRefusalAfterAttemptIsError(t *testing.T) {
	for name, policy := range map[string]resilience.Policy{
		"after a wait": resilience.Pipeline{retries(retry.Config{}), breaker.New(breaker.Config{Consecutive: 1})},
		"at once": resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			return errors.Join(next.Run(ctx), resilience.ErrRefused)
		}),
	} {
		t.Run(name, func(t *testing.T) {
			base := &answers{statuses: []int{500}}
			response, err := through(base, policy).RoundTrip(newRequest(t, "GET", "http://example.com/", ""))
			if response != nil || !errors.Is(err, resilience.ErrRefused) {
				t.Fatalf("got %v, %v", response, err)
			}
			checkClosed(t, base.bodies)
		})
	}
}

// TestTransportDiscardedResponseIsError, since the error's response is no longer held.
func TestTransportDiscardedResponseIsError(t *testing.T) {
	base := &answers{statuses: []int{500}}
	response, err := through(base, resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		err := next.Run(ctx)
		next.Discard()
		return err
	})).RoundTrip(newRequest(t, "GET", "http://example.com/", ""))
	var status *resiliencehttp.StatusError
	if response != nil || !errors.As(err, &status) {
		t.Fatalf("got %v, %v", response, err)
	}
	checkClosed(t, base.bodies)
}

// TestTransportMatchesResponseToError: concurrent attempts failed, and the policy adopted one
// response and returned one error. If they don't belong together, the caller receives the error. No
// response is ever left open.
func TestTransportMatchesResponseToError(t *testing.T) {
	for _, c := range []struct{ response, err int }{{0, 0}, {1, 1}, {0, 1}, {1, 0}} {
		synctest.Test(t, func(t *testing.T) {
			base := &answers{statuses: []int{503, 500}}
			response, err := through(base, resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
				forks := []resilience.Next{next.Fork(), next.Fork()}
				errs := []error{forks[0].Run(ctx), forks[1].Run(ctx)}
				next.Adopt(forks[c.response])
				return errs[c.err]
			})).RoundTrip(newRequest(t, "GET", "http://example.com/", ""))
			var status *resiliencehttp.StatusError
			switch {
			case c.response == c.err && (err != nil || response.StatusCode != base.statuses[c.err]):
				t.Errorf("%+v: got %v, %v", c, response, err)
			case c.response != c.err && (response != nil || !errors.As(err, &status) || status.StatusCode != base.statuses[c.err]):
				t.Errorf("%+v: got %v, %v", c, response, err)
			}
			if response != nil {
				response.Body.Close()
			}
			synctest.Wait() // the first is dropped concurrently
			checkClosed(t, base.bodies)
		})
	}
}

func TestTransportPolicyWithoutResponseIsError(t *testing.T) {
	body := &trackedBody{Reader: strings.NewReader("x")}
	req := newRequest(t, "POST", "http://example.com/", "")
	req.Body = body
	response, err := through(&answers{}, resilience.PolicyFunc(func(context.Context, resilience.Next) error { return nil })).RoundTrip(req)
	if response != nil || err == nil || !strings.Contains(err.Error(), "http://example.com:80") {
		t.Fatalf("got %v, %v", response, err)
	}
	checkClosed(t, []*trackedBody{body})
}

// TestTransportRetriesOnlyRepeatableRequests: of three attempts, all are answered 500.
func TestTransportRetriesOnlyRepeatableRequests(t *testing.T) {
	plain := func(req *http.Request) *http.Request { return req }
	header := func(name string) func(*http.Request) *http.Request {
		return func(req *http.Request) *http.Request {
			req.Header[name] = nil
			return req
		}
	}
	allow := func(repeatable bool) func(*http.Request) *http.Request {
		return func(req *http.Request) *http.Request {
			return req.WithContext(resiliencehttp.AllowRepeat(req.Context(), repeatable))
		}
	}
	for _, c := range []struct {
		name, method, body string
		change             func(*http.Request) *http.Request
		want               int
	}{
		{"GET", "GET", "", plain, 3},
		{"no method", "", "", plain, 3},
		{"HEAD", "HEAD", "", plain, 3},
		{"OPTIONS", "OPTIONS", "", plain, 3},
		{"TRACE", "TRACE", "", plain, 3},
		{"PUT", "PUT", "x", plain, 3},
		{"DELETE", "DELETE", "", plain, 3},
		{"POST", "POST", "x", plain, 1},
		{"POST without body", "POST", "", plain, 1},
		{"PATCH", "PATCH", "x", plain, 1},
		{"an unknown method", "MOVE", "", plain, 1},
		{"POST with an idempotency key", "POST", "x", header("Idempotency-Key"), 3},
		{"POST with an x-idempotency key", "POST", "x", header("X-Idempotency-Key"), 3},
		{"POST that may", "POST", "x", allow(true), 3},
		{"GET that may not", "GET", "", allow(false), 1},
		{"PUT whose body cannot be replayed", "PUT", "x", func(req *http.Request) *http.Request {
			req.GetBody = nil
			return req
		}, 1},
		{"POST that may, whose body cannot be replayed", "POST", "x", func(req *http.Request) *http.Request {
			req.GetBody = nil
			return allow(true)(req)
		}, 1},
		{"PUT with NoBody", "PUT", "", func(req *http.Request) *http.Request {
			req.Body = http.NoBody
			return req
		}, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			base := &answers{statuses: []int{500}}
			req := newRequest(t, c.method, "http://example.com/", c.body)
			req.Method = c.method
			response, err := through(base, retries(retry.Config{})).RoundTrip(c.change(req))
			if err != nil || response.StatusCode != 500 || len(base.requests) != c.want {
				t.Fatalf("got %v, %v, sent %d times, want %d", response, err, len(base.requests), c.want)
			}
			for _, sent := range base.sent {
				if sent != c.body {
					t.Errorf("got sent body %q, want %q", sent, c.body)
				}
			}
			for i, sent := range base.requests {
				for _, other := range base.requests[:i] {
					if sent == other || sent == req {
						t.Error("two attempts share a request")
					}
				}
			}
			response.Body.Close()
			checkClosed(t, base.bodies)
		})
	}
}

func TestAllowRepeatDoesNotReachBase(t *testing.T) {
	base := &answers{statuses: []int{500}}
	outer := through(through(base, retries(retry.Config{MaxAttempts: 2})), retries(retry.Config{MaxAttempts: 2}))
	req := newRequest(t, "POST", "http://example.com/", "x")
	response, err := outer.RoundTrip(req.WithContext(resiliencehttp.AllowRepeat(req.Context(), true)))
	if err != nil || len(base.requests) != 2 {
		t.Fatalf("got %v, sent %d times: the inner transport should have sent each of the outer's two attempts once", err, len(base.requests))
	}
	response.Body.Close()
}

func TestTransportDoesNotModifyRequest(t *testing.T) {
	transport := resiliencehttp.NewTransport(resiliencehttp.Config{
		Base: &answers{statuses: []int{500, 500, 200}},
		Policies: func(string) resilience.Policy {
			return resilience.Pipeline{timeout.After(time.Minute), retries(retry.Config{})}
		},
		DeadlineHeader: "X-Deadline",
	})
	req := newRequest(t, "PUT", "http://example.com/a?b=c", "body")
	req.Header.Set("X-Own", "1")
	before, header := *req, req.Header.Clone()
	response, err := transport.RoundTrip(req)
	if err != nil || response.StatusCode != 200 || response.Request != req {
		t.Fatalf("got %v, %v", response, err)
	}
	response.Body.Close()
	if req.Body != before.Body || req.URL != before.URL || req.Context() != before.Context() || fmt.Sprint(req.Header) != fmt.Sprint(header) {
		t.Errorf("%+v became %+v", before, *req)
	}
}

// TestTransportAttemptsHaveSeparateHeaders, the first one included: a Base that changes a request's
// header affects neither other attempts nor the caller.
func TestTransportAttemptsHaveSeparateHeaders(t *testing.T) {
	attempts := 0
	base := roundTripper(func(req *http.Request) (*http.Response, error) {
		attempts++
		if req.Header.Get("X-Signature") != "" || req.Header.Get("X-Own") != "1" {
			t.Errorf("attempt %d has %v", attempts, req.Header)
		}
		req.Header.Add("X-Signature", "1")
		return nil, errors.New("boom")
	})
	req := newRequest(t, "GET", "http://example.com/", "")
	req.Header.Set("X-Own", "1")
	through(base, retries(retry.Config{})).RoundTrip(req)
	if attempts != 3 || len(req.Header) != 1 {
		t.Errorf("%d attempts, the caller's header became %v", attempts, req.Header)
	}
}

// TestTransportClosesRequestBodyOnce, also if Base doesn't receive it.
func TestTransportClosesRequestBodyOnce(t *testing.T) {
	forced := breaker.New(breaker.Config{})
	forced.ForceOpen()
	for name, c := range map[string]resiliencehttp.Config{
		"refused":         {Policies: func(string) resilience.Policy { return forced }},
		"no policy":       {Policies: func(string) resilience.Policy { return nil }},
		"Policies panics": {Policies: func(string) resilience.Policy { panic("boom") }},
		"Key panics": {
			Policies: func(string) resilience.Policy { return resilience.Pipeline{} },
			Key:      func(*http.Request) string { panic("boom") },
		},
		"Repeatable panics": {
			Policies:   func(string) resilience.Policy { return resilience.Pipeline{} },
			Repeatable: func(*http.Request) bool { panic("boom") },
		},
		"a nil policy within": {Policies: func(string) resilience.Policy { return resilience.Pipeline{nil} }},
		"a policy panics": {Policies: func(string) resilience.Policy {
			return resilience.PolicyFunc(func(context.Context, resilience.Next) error { panic("boom") })
		}},
		"sent, and closed by Base": {Policies: func(string) resilience.Policy { return resilience.Pipeline{} }},
	} {
		t.Run(name, func(t *testing.T) {
			c.Base = &answers{statuses: []int{200}}
			body := &trackedBody{Reader: strings.NewReader("x")}
			req := newRequest(t, "POST", "http://example.com/", "x")
			req.Body = body
			panicked := func() (value any) {
				defer func() { value = recover() }()
				response, err := resiliencehttp.NewTransport(c).RoundTrip(req)
				if (response == nil) != (err != nil) || err == nil && !strings.HasPrefix(name, "sent") {
					t.Errorf("got %v, %v", response, err)
				}
				return nil
			}()
			if (panicked != nil) != (strings.Contains(name, "panics") || strings.Contains(name, "nil policy within")) {
				t.Errorf("got panic %v", panicked)
			}
			checkClosed(t, []*trackedBody{body})
		})
	}
	t.Run("already canceled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		body := &trackedBody{Reader: strings.NewReader("x")}
		req := newRequest(t, "POST", "http://example.com/", "x").WithContext(ctx)
		req.Body = body
		if _, err := through(&answers{}, resilience.Pipeline{}).RoundTrip(req); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		checkClosed(t, []*trackedBody{body})
	})
}

// bodies is a GetBody that fails after a number of calls, and counts the bodies that are open.
type bodies struct {
	good, calls int
	open        atomic.Int32
}

var errGone = errors.New("the file is gone")

func (b *bodies) get() (io.ReadCloser, error) {
	if b.calls++; b.calls > b.good {
		return nil, errGone
	}
	b.open.Add(1)
	return struct {
		io.Reader
		io.Closer
	}{strings.NewReader("x"), closerFunc(func() error { b.open.Add(-1); return nil })}, nil
}

type closerFunc func() error

func (f closerFunc) Close() error { return f() }

// TestTransportReturnsResponseIfGetBodyFails: no attempt can follow, so the caller receives the response
// that is still open, unread. The host has failed once.
func TestTransportReturnsResponseIfGetBodyFails(t *testing.T) {
	for good := range 2 {
		base, source := &answers{statuses: []int{503}}, &bodies{good: good}
		b := breaker.New(breaker.Config{})
		req := newRequest(t, "PUT", "http://example.com/", "x")
		req.GetBody = source.get
		response, err := through(base, resilience.Pipeline{retries(retry.Config{}), b}).RoundTrip(req)
		if err != nil || response.StatusCode != 503 || readAll(t, response) != fmt.Sprint("answer ", good+1) {
			t.Fatalf("got %v, %v", response, err)
		}
		if n := b.Snapshot().Consecutive; n != good+1 || source.calls != good+1 || len(base.requests) != good+1 || source.open.Load() != 0 {
			t.Errorf("got %d failures, %d calls of GetBody, %d requests, %d open bodies", n, source.calls, len(base.requests), source.open.Load())
		}
		checkClosed(t, base.bodies)
	}
}

// TestTransportClosesUnneededBody that GetBody returned for an attempt that didn't follow.
func TestTransportClosesUnneededBody(t *testing.T) {
	for name, policy := range map[string]resilience.Policy{
		"no retry": breaker.New(breaker.Config{}),
		"retries":  retries(retry.Config{}),
	} {
		source := &bodies{good: 100}
		req := newRequest(t, "PUT", "http://example.com/", "x")
		req.GetBody = source.get
		response, err := through(&answers{statuses: []int{503}}, policy).RoundTrip(req)
		if err != nil || response.StatusCode != 503 || source.open.Load() != 0 {
			t.Fatalf("%s: got %v, %v, %d of %d bodies open", name, response, err, source.open.Load(), source.calls)
		}
		response.Body.Close()
	}
}

// TestTransportGetBodyErrorWrapsAttemptError: after an attempt without a response, GetBody's error is the
// caller's fault, and wraps the attempt's.
func TestTransportGetBodyErrorWrapsAttemptError(t *testing.T) {
	boom := errors.New("boom")
	var judged []blamed
	base := roundTripper(func(req *http.Request) (*http.Response, error) {
		req.Body.Close()
		return nil, boom
	})
	source, b := &bodies{}, breaker.New(breaker.Config{})
	req := newRequest(t, "PUT", "http://example.com/", "x")
	req.GetBody = source.get
	_, err := through(base, resilience.Pipeline{
		retries(retry.Config{}), b,
		resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			j := &judge{}
			err := j.Run(ctx, next)
			judged = append(judged, j.blamed)
			return err
		}),
	}).RoundTrip(req)
	if !errors.Is(err, errGone) || !errors.Is(err, boom) || source.calls != 1 || b.Snapshot().Consecutive != 1 {
		t.Errorf("got %v, %d calls of GetBody, %d failures, want both errors, 1, 1", err, source.calls, b.Snapshot().Consecutive)
	}
	if fmt.Sprint(judged) != fmt.Sprint([]blamed{host, caller}) {
		t.Errorf("got blamed %v", judged)
	}
}

// TestTransportGetBodyErrorWrapsStatusError: a policy that ignores the permanent mark of a failed
// response starts an attempt without a body. Its error wraps that of the attempt before it.
func TestTransportGetBodyErrorWrapsStatusError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base, source := &answers{statuses: []int{503}}, &bodies{}
		req := newRequest(t, "PUT", "http://example.com/", "x")
		req.GetBody = source.get
		response, err := through(base, resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			next.Run(ctx)
			return next.Run(ctx)
		})).RoundTrip(req)
		var status *resiliencehttp.StatusError
		if response != nil || !errors.Is(err, errGone) || !errors.As(err, &status) || status.StatusCode != 503 {
			t.Errorf("got %v, %v, want GetBody's error and status 503", response, err)
		}
		if source.calls != 1 || len(base.requests) != 1 {
			t.Errorf("got %d calls of GetBody and %d requests, want 1 of each", source.calls, len(base.requests))
		}
		synctest.Wait() // the response is dropped concurrently
		checkClosed(t, base.bodies)
	})
}

// TestTransportBlamesCallerForGetBodyInBase, which net/http calls to send a request on another connection.
func TestTransportBlamesCallerForGetBodyInBase(t *testing.T) {
	base := roundTripper(func(req *http.Request) (*http.Response, error) {
		req.Body.Close()
		body, err := req.GetBody()
		if err != nil {
			return nil, err
		}
		_, err = io.ReadAll(body)
		return nil, fmt.Errorf("write: %w", err)
	})
	req := newRequest(t, "PUT", "http://example.com/", "x")
	for name, getBody := range map[string]func() (io.ReadCloser, error){
		"GetBody fails": (&bodies{}).get,
		"its body fails": func() (io.ReadCloser, error) {
			return io.NopCloser(iotest.ErrReader(errGone)), nil
		},
	} {
		req.GetBody = getBody
		if j := try(t, base, req); j.blamed != caller || !errors.Is(j.err, errGone) {
			t.Errorf("%s: got blamed %s: %v", name, j.blamed, j.err)
		}
	}
}

// TestTransportRepeatsRequestsThatWereNotServed, even a POST. The caller gets the response if retrying
// ends.
func TestTransportRepeatsRequestsThatWereNotServed(t *testing.T) {
	busy := func(response *http.Response) bool {
		return response.StatusCode == 503 && response.Header.Get("X-Busy") != ""
	}
	for _, c := range []struct {
		name      string
		notServed func(*http.Response) bool
		status    int
		body      func(*http.Request)
		want      int
	}{
		{name: "429", status: 429, want: 3},
		{name: "500", status: 500, want: 1},
		{name: "503", status: 503, want: 1},
		{name: "NotServed", notServed: busy, status: 503, want: 3},
		{name: "429 with another NotServed", notServed: busy, status: 429, want: 1},
		{name: "404, which isn't a failure", notServed: func(*http.Response) bool { return true }, status: 404, want: 1},
		{name: "AllowRepeat false", status: 429, want: 3, body: func(r *http.Request) { *r = *r.WithContext(resiliencehttp.AllowRepeat(r.Context(), false)) }},
		{name: "no GetBody", status: 429, want: 1, body: func(r *http.Request) { r.GetBody = nil }},
		{name: "GetBody fails", status: 429, want: 1, body: func(r *http.Request) { r.GetBody = (&bodies{}).get }},
		{name: "no body", status: 429, want: 3, body: func(r *http.Request) { r.Body, r.GetBody, r.ContentLength = nil, nil, 0 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			base := &answers{statuses: []int{c.status}, header: http.Header{"X-Busy": {"1"}}}
			transport := resiliencehttp.NewTransport(resiliencehttp.Config{
				Base: base, NotServed: c.notServed, Policies: func(string) resilience.Policy { return retries(retry.Config{}) },
			})
			req := newRequest(t, "POST", "http://example.com/", "order")
			if c.body != nil {
				c.body(req)
			}
			response, err := transport.RoundTrip(req)
			if err != nil || response.StatusCode != c.status || len(base.requests) != c.want || readAll(t, response) != fmt.Sprint("answer ", c.want) {
				t.Errorf("got %v, %v after %d requests, want %d", response, err, len(base.requests), c.want)
			}
			for _, sent := range base.sent {
				if sent != "order" && c.name != "no body" {
					t.Errorf("sent %q", base.sent)
				}
			}
			checkClosed(t, base.bodies)
		})
	}
}

// TestTransportBodyOutlivesAttemptTimeout, and still ends with the request's own context.
func TestTransportBodyOutlivesAttemptTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent context.Context
		base := roundTripper(func(req *http.Request) (*http.Response, error) {
			sent = req.Context()
			return &http.Response{StatusCode: 200, Body: &trackedBody{Reader: strings.NewReader("slow")}}, nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		policy := resilience.Pipeline{timeout.After(10 * time.Second), retries(retry.Config{}), timeout.After(time.Second)}
		response, err := through(base, policy).RoundTrip(newRequest(t, "GET", "http://example.com/", "").WithContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Minute)
		own, _ := ctx.Deadline()
		if deadline, ok := sent.Deadline(); sent.Err() != nil || !ok || deadline != own {
			t.Errorf("got Base's context with error %v, deadline %v, want the request's %v", sent.Err(), deadline, own)
		}
		if text := readAll(t, response); text != "slow" || sent.Err() == nil {
			t.Errorf("got %q, and Base's context outlives the body: %v", text, sent.Err())
		}

		response, err = through(base, policy).RoundTrip(newRequest(t, "GET", "http://example.com/", "").WithContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if !errors.Is(sent.Err(), context.DeadlineExceeded) {
			t.Errorf("the request's context has ended, Base's context has error %v", sent.Err())
		}
		response.Body.Close()
	})
}

func TestTransportCancelsBaseAtAttemptTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var causes []error
		base := roundTripper(func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			causes = append(causes, context.Cause(req.Context()))
			return nil, req.Context().Err()
		})
		began := time.Now()
		response, err := through(base, resilience.Pipeline{
			timeout.After(10 * time.Second), retries(retry.Config{MaxAttempts: 2}), timeout.After(time.Second),
		}).RoundTrip(newRequest(t, "GET", "http://example.com/", ""))
		var limit *timeout.Error
		if response != nil || !errors.As(err, &limit) || limit.Limit != time.Second || time.Since(began) != 2*time.Second {
			t.Errorf("got %v, %v after %v", response, err, time.Since(began))
		}
		if fmt.Sprint(causes) != fmt.Sprint([]error{context.DeadlineExceeded, context.DeadlineExceeded}) {
			t.Errorf("got causes %v", causes)
		}
		if timeoutErr, ok := err.(interface{ Timeout() bool }); !ok || !timeoutErr.Timeout() {
			t.Errorf("%T doesn't report a timeout", err)
		}
	})
}

func TestTransportBaseSeesPolicyContextValues(t *testing.T) {
	type key struct{}
	var attempts []int
	base := roundTripper(func(req *http.Request) (*http.Response, error) {
		if req.Context().Value(key{}) != "own" {
			t.Error("the request's own value is lost")
		}
		attempts = append(attempts, retry.Attempt(req.Context()))
		return nil, errors.New("boom")
	})
	req := newRequest(t, "GET", "http://example.com/", "")
	through(base, retries(retry.Config{})).RoundTrip(req.WithContext(context.WithValue(req.Context(), key{}, "own")))
	if fmt.Sprint(attempts) != "[1 2 3]" {
		t.Errorf("got attempts %v, want [1 2 3]", attempts)
	}
}

// TestTransportErrorReportsWrappedTimeout to net/http, which examines only the outermost error.
func TestTransportErrorReportsWrappedTimeout(t *testing.T) {
	deep := fmt.Errorf("wrapped: %w", &url.Error{Op: "Get", URL: "x", Err: context.DeadlineExceeded})
	base := roundTripper(func(*http.Request) (*http.Response, error) { return nil, deep })
	client := &http.Client{Transport: through(base, resilience.Pipeline{})}
	_, err := client.Get("http://example.com/")
	if timeoutErr, ok := err.(interface{ Timeout() bool }); !ok || !timeoutErr.Timeout() || !errors.Is(err, deep) {
		t.Errorf("%v doesn't report a timeout", err)
	}
}

func TestTransportInvalidBaseResultIsError(t *testing.T) {
	for name, response := range map[string]*http.Response{
		"neither response nor error": nil,
		"both":                       {StatusCode: 200, Body: &trackedBody{Reader: strings.NewReader("x")}},
	} {
		t.Run(name, func(t *testing.T) {
			base := roundTripper(func(*http.Request) (*http.Response, error) {
				if response != nil {
					return response, errors.New("boom")
				}
				return nil, nil
			})
			got, err := through(base, resilience.Pipeline{}).RoundTrip(newRequest(t, "GET", "http://example.com/", ""))
			if got != nil || err == nil {
				t.Fatalf("got %v, %v", got, err)
			}
			if response != nil {
				checkClosed(t, []*trackedBody{response.Body.(*trackedBody)})
			}
		})
	}
}

// TestTransportDrainsDroppedBodyWithinLimits: at most DrainLimit bytes, for at most 100 ms.
func TestTransportDrainsDroppedBodyWithinLimits(t *testing.T) {
	for name, c := range map[string]struct {
		size   int
		length int64
		drip   time.Duration // before each byte
		read   int
		takes  time.Duration
	}{
		"short":                   {size: 10, length: -1, read: 10},
		"as long as the limit":    {size: 100, length: -1, read: 100},
		"equal, with its length":  {size: 100, length: 100, read: 100},
		"longer than the limit":   {size: 1000, length: -1, read: 100},
		"longer, with its length": {size: 1000, length: 1000, read: 0},
		"slow":                    {size: 50, length: -1, drip: 30 * time.Millisecond, read: 3, takes: 100 * time.Millisecond},
		"slow, and short":         {size: 2, length: -1, drip: 30 * time.Millisecond, read: 2, takes: 90 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				read := 0
				closed := make(chan struct{})
				body := &dripping{size: c.size, drip: c.drip, read: &read, closed: closed}
				transport := resiliencehttp.NewTransport(resiliencehttp.Config{
					Base: roundTripper(func(*http.Request) (*http.Response, error) {
						return &http.Response{StatusCode: 500, Body: body, ContentLength: c.length}, nil
					}),
					Policies:     func(string) resilience.Policy { return resilience.Pipeline{} },
					StatusErrors: true, DrainLimit: 100,
				})
				began := time.Now()
				if _, err := transport.RoundTrip(newRequest(t, "GET", "http://example.com/", "")); err == nil {
					t.Fatal("got no error")
				}
				if took := time.Since(began); read != c.read || took != c.takes {
					t.Errorf("got %d bytes read in %v, want %d in %v", read, took, c.read, c.takes)
				}
				<-closed
			})
		})
	}
}

// TestTransportEndsContextBeforeClosingDroppedBody, so that a body that reacts only to its context
// is dropped in time.
func TestTransportEndsContextBeforeClosingDroppedBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport := resiliencehttp.NewTransport(resiliencehttp.Config{
			Base: roundTripper(func(req *http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: 500, Body: &waitingBody{req.Context(), make(chan struct{})}, ContentLength: -1}, nil
			}),
			Policies:     func(string) resilience.Policy { return timeout.After(time.Hour) },
			StatusErrors: true,
		})
		began := time.Now()
		if _, err := transport.RoundTrip(newRequest(t, "GET", "http://example.com/", "")); err == nil || time.Since(began) != 100*time.Millisecond {
			t.Errorf("got %v after %v", err, time.Since(began))
		}
	})
}

// waitingBody is a body whose Read waits for the context, and whose Close waits for Read.
type waitingBody struct {
	ctx  context.Context
	read chan struct{}
}

func (b *waitingBody) Read([]byte) (int, error) {
	defer close(b.read)
	<-b.ctx.Done()
	return 0, b.ctx.Err()
}

func (b *waitingBody) Close() error {
	<-b.read
	return nil
}

type dripping struct {
	size   int
	drip   time.Duration
	read   *int
	closed chan struct{}
}

func (d *dripping) Read(p []byte) (int, error) {
	if d.drip > 0 {
		select {
		case <-time.After(d.drip):
		case <-d.closed:
			return 0, errors.New("closed")
		}
	}
	n := min(len(p), d.size)
	if d.drip > 0 {
		n = min(n, 1)
	}
	d.size -= n
	*d.read += n
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (d *dripping) Close() error {
	close(d.closed)
	return nil
}

// TestTransportDrainsOutsideNextAttempt: a replaced response is drained concurrently with the
// attempt that replaced it.
func TestTransportDrainsOutsideNextAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		read, calls := 0, 0
		base := roundTripper(func(*http.Request) (*http.Response, error) {
			if calls++; calls == 1 {
				body := &dripping{size: 50, drip: 30 * time.Millisecond, read: &read, closed: make(chan struct{})}
				return &http.Response{StatusCode: 500, Body: body, ContentLength: -1}, nil
			}
			return &http.Response{StatusCode: 500, Body: http.NoBody}, nil
		})
		twice := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			next.Run(ctx)
			return next.Run(ctx)
		})
		began := time.Now()
		response, err := through(base, resilience.Pipeline{twice, timeout.After(50 * time.Millisecond)}).
			RoundTrip(newRequest(t, "GET", "http://example.com/", ""))
		if err != nil || response.StatusCode != 500 || time.Since(began) != 0 {
			t.Errorf("got %v, %v after %v", response, err, time.Since(began))
		}
		time.Sleep(100 * time.Millisecond)
		if synctest.Wait(); read != 3 {
			t.Errorf("got %d bytes read, want 3", read)
		}
	})
}

func TestTransportCreatesPolicyPerKey(t *testing.T) {
	made := map[string]int{}
	transport := resiliencehttp.NewTransport(resiliencehttp.Config{
		Base: &answers{statuses: []int{200}},
		Policies: func(key string) resilience.Policy {
			made[key]++
			return breaker.New(breaker.Config{Name: key})
		},
	})
	for _, u := range []string{
		"http://Example.COM/a", "http://example.com:80/b", "HTTP://example.com", "https://example.com", "https://EXAMPLE.com:443/x",
		"http://example.com:8080/", "http://[::1]/", "http://[::1]:80/", "http://user:pw@example.com/",
	} {
		parsed, err := url.Parse(u)
		if err != nil {
			t.Fatal(err)
		}
		response, err := transport.RoundTrip((&http.Request{Method: "GET", URL: parsed, Header: http.Header{}}).WithContext(t.Context()))
		if err != nil {
			t.Fatal(u, err)
		}
		response.Body.Close()
	}
	want := "map[http://[::1]:80:1 http://example.com:80:1 http://example.com:8080:1 https://example.com:443:1]"
	if got := fmt.Sprint(made); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if policy, ok := transport.Policy("http://example.com:80"); !ok || policy.(*breaker.Breaker).Name() != "http://example.com:80" {
		t.Errorf("got %v, %t", policy, ok)
	}
	if policy, ok := transport.Policy("http://nobody:80"); ok || policy != nil {
		t.Error("got a policy for a key that was never used")
	}
}

func TestTransportConcurrentRequestsCreateOnePolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var made atomic.Int32
		transport := resiliencehttp.NewTransport(resiliencehttp.Config{
			Base: roundTripper(func(*http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
			}),
			Policies: func(string) resilience.Policy {
				time.Sleep(time.Second)
				made.Add(1)
				return resilience.Pipeline{}
			},
		})
		var g errgroup.Group
		for range 10 {
			g.Go(func() error {
				_, err := transport.RoundTrip(newRequest(t, "GET", "http://example.com/", ""))
				return err
			})
		}
		if err := g.Wait(); err != nil || made.Load() != 1 {
			t.Errorf("got %v, %d policies created, want nil, 1", err, made.Load())
		}
	})
}

// TestTransportEvictsKeys that are idle for too long or exceed MaxKeys, but never one in use.
func TestTransportEvictsKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		transport := resiliencehttp.NewTransport(resiliencehttp.Config{
			Base: roundTripper(func(req *http.Request) (*http.Response, error) {
				if req.URL.Path == "/hold" {
					<-hold
				}
				return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
			}),
			Policies: func(string) resilience.Policy { return resilience.Pipeline{} },
			Key:      func(req *http.Request) string { return req.URL.Host },
			MaxKeys:  2, IdleAfter: time.Minute,
		})
		get := func(url string) {
			if _, err := transport.RoundTrip(newRequest(t, "GET", url, "")); err != nil {
				t.Error(err)
			}
		}
		there := func(key string) bool {
			_, ok := transport.Policy(key)
			return ok
		}
		var g errgroup.Group
		g.Go(func() error { get("http://held/hold"); return nil })
		synctest.Wait()
		get("http://a/")
		get("http://b/")
		if !there("held") || there("a") || !there("b") {
			t.Error("with two keys, a should have been evicted for b")
		}
		time.Sleep(time.Minute)
		if !there("held") || there("b") {
			t.Error("b should have been evicted as idle, held shouldn't")
		}
		close(hold)
		g.Wait()
	})
}

// healthBase fails for hosts that begin with "dead".
func healthBase(req *http.Request) (*http.Response, error) {
	if strings.HasPrefix(req.URL.Host, "dead") {
		return nil, errors.New("down")
	}
	return &http.Response{StatusCode: 200, Body: http.NoBody, Request: req}, nil
}

// newHealth returns a transport whose keys are hosts, each with a breaker, and a function that sends a
// request to a host. wrap puts the breaker into a policy.
func newHealth(t *testing.T, config resiliencehttp.Config, wrap func(b *breaker.Breaker) resilience.Policy) (*resiliencehttp.Transport, map[string]*breaker.Breaker, func(host string)) {
	breakers := map[string]*breaker.Breaker{}
	config.Base = roundTripper(healthBase)
	config.Key = func(req *http.Request) string { return req.URL.Host }
	config.Policies = func(key string) resilience.Policy {
		breakers[key] = breaker.New(breaker.Config{Name: key, Consecutive: 1, OpenFor: time.Hour, MaxOpenFor: time.Hour})
		return wrap(breakers[key])
	}
	transport := resiliencehttp.NewTransport(config)
	return transport, breakers, func(host string) {
		if response, err := transport.RoundTrip(newRequest(t, "GET", "http://"+host, "")); err == nil {
			response.Body.Close()
		}
	}
}

func has(transport *resiliencehttp.Transport, key string) bool {
	_, ok := transport.Policy(key)
	return ok
}

// embedding is a user's policy around a breaker.
type embedding struct{ *breaker.Breaker }

// TestTransportKeepsUnhealthyKeys while their breaker is open, half-open, or was set manually. From then
// on, IdleAfter counts.
func TestTransportKeepsUnhealthyKeys(t *testing.T) {
	for name, wrap := range map[string]func(b *breaker.Breaker) resilience.Policy{
		"alone":    func(b *breaker.Breaker) resilience.Policy { return b },
		"embedded": func(b *breaker.Breaker) resilience.Policy { return resilience.Pipeline{embedding{b}} },
		"nested": func(b *breaker.Breaker) resilience.Policy {
			healthy := breaker.New(breaker.Config{})
			return resilience.Pipeline{timeout.After(time.Hour), healthy, resilience.Pipeline{resilience.Pipeline{b}}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				transport, breakers, get := newHealth(t, resiliencehttp.Config{IdleAfter: time.Minute}, wrap)
				hosts := []string{"dead", "forced", "disabled", "half-open", "well"}
				for _, host := range hosts {
					get(host)
				}
				breakers["forced"].ForceOpen()
				breakers["disabled"].Disable()
				breakers["half-open"].HalfOpen()
				for range 100 { // the open breaker becomes half-open in the meantime
					time.Sleep(59 * time.Second)
					for _, host := range hosts[:4] {
						if !has(transport, host) {
							t.Fatalf("%s was evicted", host)
						}
					}
				}
				if has(transport, "well") {
					t.Error("a healthy key should have been evicted")
				}
				for _, host := range hosts[:4] {
					breakers[host].Reset()
				}
				time.Sleep(time.Minute - 1)
				for _, host := range hosts[:4] {
					if !has(transport, host) {
						t.Errorf("%s was evicted before IdleAfter had passed", host)
					}
				}
				time.Sleep(time.Nanosecond)
				for _, host := range hosts[:4] {
					if has(transport, host) {
						t.Errorf("%s should have been evicted", host)
					}
				}
			})
		})
	}
}

// TestTransportEvictsHealthyKeysFirst, whichever were idle longest. Keys that aren't healthy are evicted
// only if there are more than MaxKeys.
func TestTransportEvictsHealthyKeysFirst(t *testing.T) {
	transport, breakers, get := newHealth(t, resiliencehttp.Config{MaxKeys: 10}, func(b *breaker.Breaker) resilience.Policy { return b })
	get("dead")
	get("forced")
	breakers["forced"].ForceOpen()
	for i := range 1000 {
		get(fmt.Sprint("well", i))
	}
	if !has(transport, "dead") || !has(transport, "forced") || !has(transport, "well999") || !has(transport, "well992") || has(transport, "well991") {
		t.Error("want the unhealthy keys and the last 8 healthy ones")
	}
	for i := range 1000 {
		get(fmt.Sprint("dead", i))
	}
	if has(transport, "dead") || has(transport, "well999") || !has(transport, "dead999") || !has(transport, "dead990") || has(transport, "dead989") {
		t.Error("want the last 10 unhealthy keys")
	}
}

// TestTransportKeepsUnhealthyKeyForBusyOnes: keys in flight don't push it out.
func TestTransportKeepsUnhealthyKeyForBusyOnes(t *testing.T) {
	transport, _, get := newHealth(t, resiliencehttp.Config{MaxKeys: 1}, func(b *breaker.Breaker) resilience.Policy { return b })
	get("dead")
	for range 3 {
		get("well")
	}
	if !has(transport, "dead") || has(transport, "well") {
		t.Error("want the unhealthy key kept, and the healthy one evicted once it was idle")
	}
}

// TestTransportOnEvictReportsDroppedKeys, each once, and may use the transport.
func TestTransportOnEvictReportsDroppedKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var transport *resiliencehttp.Transport
		var breakers map[string]*breaker.Breaker
		var dropped []string
		var get func(string)
		transport, breakers, get = newHealth(t, resiliencehttp.Config{MaxKeys: 2, IdleAfter: time.Minute, OnEvict: func(key string, p resilience.Policy) {
			dropped = append(dropped, key)
			if p != breakers[key] || has(transport, key) {
				t.Errorf("%s: got %v", key, p)
			}
		}}, func(b *breaker.Breaker) resilience.Policy { return b })
		for _, host := range []string{"a", "b", "c", "d"} {
			get(host)
		}
		if fmt.Sprint(dropped) != "[a b]" {
			t.Errorf("got %v, want [a b], for lack of room", dropped)
		}
		time.Sleep(time.Minute)
		if has(transport, "c"); fmt.Sprint(dropped) != "[a b c d]" {
			t.Errorf("got %v, want [a b c d], the last two as idle", dropped)
		}
	})
}

// TestTransportOnEvictMayUseNewKey: OnEvict sends a request to the host whose policy is being created.
func TestTransportOnEvictMayUseNewKey(t *testing.T) {
	var client *http.Client
	base := roundTripper(func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Body: http.NoBody, Request: r}, nil
	})
	evicted := make(chan string, 10)
	transport := resiliencehttp.NewTransport(resiliencehttp.Config{
		Base: base, MaxKeys: 1,
		Policies: func(string) resilience.Policy { return resilience.Pipeline{} },
		OnEvict: func(key string, _ resilience.Policy) {
			evicted <- key
			if key == "http://first:80" {
				client.Get("http://second/")
			}
		},
	})
	client = &http.Client{Transport: transport}
	client.Get("http://first/")
	client.Get("http://second/")
	if key := <-evicted; key != "http://first:80" {
		t.Errorf("got %s evicted", key)
	}
}

// TestTransportAllListsPoliciesInUse, without those that were evicted. The loop may use the transport.
func TestTransportAllListsPoliciesInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport, breakers, get := newHealth(t, resiliencehttp.Config{MaxKeys: 3, IdleAfter: time.Minute}, func(b *breaker.Breaker) resilience.Policy { return b })
		for _, host := range []string{"a", "b", "c", "d"} {
			get(host)
		}
		got := map[string]resilience.Policy{}
		for key, policy := range transport.All() {
			got[key] = policy
			get("e")
		}
		if len(got) != 3 || got["b"] != breakers["b"] || got["c"] != breakers["c"] || got["d"] != breakers["d"] {
			t.Errorf("got %v", got)
		}
		for range transport.All() {
			break
		}
		time.Sleep(time.Minute)
		for key := range transport.All() {
			t.Errorf("%s should have been evicted", key)
		}
	})
}

func TestTransportPassesEmptyHostToBase(t *testing.T) {
	base := &http.Transport{}
	base.RegisterProtocol("file", http.NewFileTransport(http.Dir(".")))
	client := &http.Client{Transport: through(base, resilience.PolicyFunc(func(context.Context, resilience.Next) error {
		return errors.New("no policy should run")
	}))}
	response, err := client.Get("file:///config.go")
	if err != nil || response.StatusCode != 200 {
		t.Fatalf("got %v, %v", response, err)
	}
	response.Body.Close()
	_, want := (&http.Client{Transport: &http.Transport{}}).Get("http:///x")
	if _, err := client.Get("http:///x"); err == nil || err.Error() != want.Error() {
		t.Errorf("got %v, a plain client has %v", err, want)
	}
}

func TestTransportDeadlineHeaderHoldsTimeLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			limit, own time.Duration
			want       string
		}{
			{limit: 2 * time.Second, want: "2000"},
			{limit: 2 * time.Second, own: 1500 * time.Millisecond, want: "1500"},
			{limit: 10 * time.Microsecond, want: "1"},
			{own: time.Second, want: "1000"},
			{want: "left alone"},
		} {
			base := &answers{statuses: []int{200}}
			pipeline := resilience.Pipeline{}
			if c.limit > 0 {
				pipeline = append(pipeline, timeout.After(c.limit))
			}
			transport := resiliencehttp.NewTransport(resiliencehttp.Config{
				Base: base, DeadlineHeader: "X-Time-Left", Policies: func(string) resilience.Policy { return pipeline },
			})
			req := newRequest(t, "GET", "http://example.com/", "")
			req.Header.Set("X-Time-Left", "left alone")
			if c.own > 0 {
				ctx, cancel := context.WithTimeout(t.Context(), c.own)
				defer cancel()
				req = req.WithContext(ctx)
			}
			response, err := transport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			if got := base.requests[0].Header.Get("X-Time-Left"); got != c.want || req.Header.Get("X-Time-Left") != "left alone" {
				t.Errorf("%+v: got header %q", c, got)
			}
		}
	})
}

// TestTransportDeadlineHeaderNeedsNoHeaderMap: a request may have none if Base accepts that.
func TestTransportDeadlineHeaderNeedsNoHeaderMap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := &answers{statuses: []int{200}}
		transport := resiliencehttp.NewTransport(resiliencehttp.Config{
			Base: base, DeadlineHeader: "X-Time-Left",
			Policies: func(string) resilience.Policy { return timeout.After(2 * time.Second) },
		})
		req := newRequest(t, "GET", "http://example.com/", "")
		req.Header = nil
		response, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if got := base.requests[0].Header.Get("X-Time-Left"); got != "2000" || req.Header != nil {
			t.Errorf("got header %q, want 2000; the caller's header became %v", got, req.Header)
		}
	})
}

// TestTransportPassesMemoryBodyUnchanged, since Base may recognize its type, as net/http does.
// Any other body is watched.
func TestTransportPassesMemoryBodyUnchanged(t *testing.T) {
	for _, c := range []struct {
		name      string
		body      io.Reader
		unchanged bool
	}{
		{"bytes.Buffer", bytes.NewBufferString("x"), true},
		{"bytes.Reader", bytes.NewReader([]byte("x")), true},
		{"strings.Reader", strings.NewReader("x"), true},
		{"a stream", iotest.OneByteReader(strings.NewReader("x")), false},
	} {
		req, err := http.NewRequestWithContext(t.Context(), "PUT", "http://example.com/", c.body)
		if err != nil {
			t.Fatal(err)
		}
		base := roundTripper(func(sent *http.Request) (*http.Response, error) {
			if unchanged := sent.Body == req.Body; unchanged != c.unchanged {
				t.Errorf("%s: Base received %T for %T, unchanged is %t, want %t", c.name, sent.Body, req.Body, unchanged, c.unchanged)
			}
			sent.Body.Close()
			return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
		})
		if _, err := through(base, resilience.Pipeline{}).RoundTrip(req); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
