package resiliencehttp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/resiliencehttp"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// TestTransportReturnsResponseOfBase, the same struct, since net/http writes trailers into it.
func TestTransportReturnsResponseOfBase(t *testing.T) {
	own := &http.Response{StatusCode: 200, Body: &trackedBody{Reader: strings.NewReader("x")}}
	base := roundTripper(func(*http.Request) (*http.Response, error) { return own, nil })
	response, err := through(base, timeout.After(time.Hour)).RoundTrip(newRequest(t, "GET", "http://example.com/", ""))
	if err != nil || response != own {
		t.Errorf("got %p, %v, want %p", response, err, own)
	}
	response.Body.Close()
}

// TestTransportRunsPoliciesForEachRedirect, with separate attempts.
func TestTransportRunsPoliciesForEachRedirect(t *testing.T) {
	var paths []string
	base := roundTripper(func(req *http.Request) (*http.Response, error) {
		paths = append(paths, fmt.Sprint(req.URL.Path, retry.Attempt(req.Context())))
		response := &http.Response{StatusCode: 503, Header: http.Header{}, Body: http.NoBody}
		switch {
		case retry.Attempt(req.Context()) < 2:
		case req.URL.Path == "/there":
			response.StatusCode = 200
		default:
			response.StatusCode = 302
			response.Header.Set("Location", "/there")
		}
		return response, nil
	})
	client := &http.Client{Transport: through(base, retries(retry.Config{}))}
	response, err := client.Get("http://example.com/here")
	if err != nil || response.StatusCode != 200 || response.Request.URL.Path != "/there" || fmt.Sprint(paths) != "[/here1 /here2 /there1 /there2]" {
		t.Errorf("got %v, %v by %v", response, err, paths)
	}
}

// conn is the body of a 101 response; halfConn is one with CloseWrite.
type conn struct {
	trackedBody
	written strings.Builder
}

func (c *conn) Write(p []byte) (int, error) { return c.written.Write(p) }

type halfConn struct {
	conn
	halves int
}

func (c *halfConn) CloseWrite() error { c.halves++; return nil }

// TestTransportUpgradedBodyStaysWritable, and has CloseWrite if and only if Base's body has it.
func TestTransportUpgradedBodyStaysWritable(t *testing.T) {
	for _, half := range []bool{false, true} {
		whole := &halfConn{conn: conn{trackedBody: trackedBody{Reader: strings.NewReader("seen")}}}
		var body io.ReadCloser = &whole.conn
		if half {
			body = whole
		}
		var sent context.Context
		base := roundTripper(func(req *http.Request) (*http.Response, error) {
			sent = req.Context()
			return &http.Response{StatusCode: 101, Body: body}, nil
		})
		response, err := through(base, timeout.After(time.Hour)).RoundTrip(newRequest(t, "GET", "http://example.com/", ""))
		if err != nil {
			t.Fatal(err)
		}
		upgraded, ok := response.Body.(io.ReadWriteCloser)
		if !ok {
			t.Fatal("the body cannot be written to")
		}
		io.WriteString(upgraded, "said")
		if text, err := io.ReadAll(upgraded); string(text) != "seen" || err != nil || whole.written.String() != "said" {
			t.Errorf("got %q, %v and sent %q", text, err, whole.written.String())
		}
		if sent.Err() != nil {
			t.Errorf("Base's context ended when reading ended, although writing may go on: %v", sent.Err())
		}
		closer, ok := upgraded.(interface{ CloseWrite() error })
		if ok != half {
			t.Errorf("got CloseWrite: %t, want %t", ok, half)
		}
		if ok {
			closer.CloseWrite()
			if whole.halves != 1 {
				t.Errorf("half-closed %d times, want once", whole.halves)
			}
		}
		upgraded.Close()
		if sent.Err() == nil {
			t.Error("Base's context outlives the connection")
		}
		checkClosed(t, []*trackedBody{&whole.trackedBody})
	}
}

// TestTransportDropsUpgradedBodyUnread, since it may never end.
func TestTransportDropsUpgradedBodyUnread(t *testing.T) {
	body := &conn{trackedBody: trackedBody{Reader: strings.NewReader("seen")}}
	base := roundTripper(func(*http.Request) (*http.Response, error) { return &http.Response{StatusCode: 101, Body: body}, nil })
	boom := errors.New("boom")
	response, err := through(base, resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		return errors.Join(next.Run(ctx), boom)
	})).RoundTrip(newRequest(t, "GET", "http://example.com/", ""))
	if response != nil || !errors.Is(err, boom) || body.ended.Load() {
		t.Errorf("got %v, %v, read to the end: %v", response, err, body.ended.Load())
	}
	checkClosed(t, []*trackedBody{&body.trackedBody})
}

// TestTransportCancelsBaseWithPolicyContext before the headers arrive, with the policy's cause, as
// a hedge does.
func TestTransportCancelsBaseWithPolicyContext(t *testing.T) {
	lost := errors.New("lost")
	base := roundTripper(func(req *http.Request) (*http.Response, error) {
		<-req.Context().Done()
		return nil, context.Cause(req.Context())
	})
	_, err := through(base, resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		ctx, cancel := context.WithCancelCause(ctx)
		time.AfterFunc(time.Millisecond, func() { cancel(lost) })
		return next.Run(ctx)
	})).RoundTrip(newRequest(t, "GET", "http://example.com/", ""))
	if err != lost {
		t.Errorf("got %v", err)
	}
}

// TestTransportBodyOutlivesPolicyContext that ended after the headers arrived, as a hedge's does
// when it returns.
func TestTransportBodyOutlivesPolicyContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent context.Context
		base := roundTripper(func(req *http.Request) (*http.Response, error) {
			sent = req.Context()
			return &http.Response{StatusCode: 200, Body: &trackedBody{Reader: strings.NewReader("x")}}, nil
		})
		response, err := through(base, resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			return next.Run(ctx)
		})).RoundTrip(newRequest(t, "GET", "http://example.com/", ""))
		if err != nil {
			t.Fatal(err)
		}
		if synctest.Wait(); sent.Err() != nil {
			t.Errorf("Base's context ended with the policy's: %v", sent.Err())
		}
		if response.Body.Close(); sent.Err() == nil {
			t.Error("Base's context outlives the body")
		}
	})
}

// TestTransportDropsResponseThatArrivesAtDeadline: its context has ended, so it couldn't be read.
func TestTransportDropsResponseThatArrivesAtDeadline(t *testing.T) {
	canceling := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		ctx, cancel := context.WithCancel(ctx)
		time.AfterFunc(time.Second, cancel)
		return next.Run(ctx)
	})
	for name, policy := range map[string]resilience.Policy{"limit": timeout.After(time.Second), "cancel": canceling} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				body := &trackedBody{Reader: strings.NewReader("x")}
				base := roundTripper(func(req *http.Request) (*http.Response, error) {
					<-req.Context().Done()
					return &http.Response{StatusCode: 200, Body: body}, nil
				})
				response, err := through(base, policy).RoundTrip(newRequest(t, "GET", "http://example.com/", ""))
				if response != nil || !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
					t.Errorf("got %v, %v", response, err)
				}
				checkClosed(t, []*trackedBody{body})
			})
		})
	}
}

// TestTransportReleasesContextWithBody, however the body ends. The timer of the timeout is stopped
// with the headers.
func TestTransportReleasesContextWithBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, end := range map[string]func(body io.ReadCloser){
			"read":   func(body io.ReadCloser) { io.ReadAll(body) },
			"closed": func(body io.ReadCloser) { body.Close() },
			"empty":  nil,
			"none":   nil,
		} {
			var sent context.Context
			base := roundTripper(func(req *http.Request) (*http.Response, error) {
				sent = req.Context()
				response := &http.Response{StatusCode: 200, Body: &trackedBody{Reader: strings.NewReader("x")}}
				switch name {
				case "empty":
					response.Body = http.NoBody
				case "none":
					response.Body = nil
				}
				return response, nil
			})
			response, err := through(base, timeout.After(time.Second)).RoundTrip(newRequest(t, "GET", "http://example.com/", ""))
			if err != nil {
				t.Fatal(err)
			}
			if end != nil {
				if sent.Err() != nil {
					t.Errorf("%s: Base's context ended with the headers: %v", name, sent.Err())
				}
				end(response.Body)
			}
			if sent.Err() != context.Canceled || context.Cause(sent) != context.Canceled {
				t.Errorf("%s: Base's context has error %v, cause %v", name, sent.Err(), context.Cause(sent))
			}
		}
	})
}

// TestTransportHoldsNoConnectionDuringBackoff: before the wait, the response is drained and closed,
// and its context ends.
func TestTransportHoldsNoConnectionDuringBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		attempts := make(chan context.Context, 2)
		body := &trackedBody{Reader: strings.NewReader("x")}
		base := roundTripper(func(req *http.Request) (*http.Response, error) {
			attempts <- req.Context()
			if retry.Attempt(req.Context()) > 1 {
				return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
			}
			return &http.Response{StatusCode: 503, Body: body, ContentLength: -1}, nil
		})
		var g errgroup.Group
		g.Go(func() error {
			policy := resilience.Pipeline{retries(retry.Config{Backoff: retry.Constant(time.Hour)}), timeout.After(time.Second)}
			_, err := through(base, policy).RoundTrip(newRequest(t, "GET", "http://example.com/", ""))
			return err
		})
		time.Sleep(30 * time.Minute)
		if synctest.Wait(); len(attempts) != 1 || !body.ended.Load() || (<-attempts).Err() == nil {
			t.Errorf("%d attempts, the response of the first is still there", len(attempts))
		}
		checkClosed(t, []*trackedBody{body})
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
}

// TestTransportLateStartGetsNewBody: a policy abandoned the start and returned, so the caller's
// body is closed.
func TestTransportLateStartGetsNewBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		body := &trackedBody{Reader: strings.NewReader("callers'")}
		var sent string
		base := roundTripper(func(req *http.Request) (*http.Response, error) {
			text, err := io.ReadAll(req.Body)
			sent = string(text)
			return nil, errors.Join(err, req.Body.Close(), errors.New("boom"))
		})
		late := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			fork := next.Fork()
			time.AfterFunc(time.Minute, func() { fork.Run(ctx) })
			return errAbandoned
		})
		req := newRequest(t, "PUT", "http://example.com/", "replayed")
		req.Body = body
		if _, err := through(base, late).RoundTrip(req); err != errAbandoned {
			t.Error(err)
		}
		checkClosed(t, []*trackedBody{body})
		time.Sleep(time.Hour)
		synctest.Wait()
		if sent != "replayed" {
			t.Errorf("got sent body %q", sent)
		}
		checkClosed(t, []*trackedBody{body})
	})
}

// TestTransportMarksNotMadeByTraceHooks: a connection was requested and not obtained. Nothing else
// proves that a POST wasn't sent.
func TestTransportMarksNotMadeByTraceHooks(t *testing.T) {
	boom := errors.New("boom")
	for _, c := range []struct {
		asked, got bool
		want       int
	}{{false, false, 1}, {true, false, 3}, {true, true, 1}, {false, true, 1}} {
		calls := 0
		base := roundTripper(func(req *http.Request) (*http.Response, error) {
			calls++
			req.Body.Close()
			trace := httptrace.ContextClientTrace(req.Context())
			if c.asked {
				trace.GetConn("example.com:80")
			}
			if c.got {
				trace.GotConn(httptrace.GotConnInfo{})
			}
			return nil, boom
		})
		_, err := through(base, retries(retry.Config{})).RoundTrip(newRequest(t, "POST", "http://example.com/", "x"))
		if !errors.Is(err, boom) || calls != c.want {
			t.Errorf("requested %t, obtained %t: got %v after %d calls, want %d", c.asked, c.got, err, calls, c.want)
		}
	}
}

// TestTransportDoesNotResendPOSTOnceSent, although earlier attempts weren't sent.
func TestTransportDoesNotResendPOSTOnceSent(t *testing.T) {
	calls := 0
	var sent []string
	base := roundTripper(func(req *http.Request) (*http.Response, error) {
		calls++
		defer req.Body.Close()
		trace := httptrace.ContextClientTrace(req.Context())
		trace.GetConn("example.com:80")
		if calls == 1 {
			return nil, &net.OpError{Op: "dial", Err: errors.New("refused")}
		}
		trace.GotConn(httptrace.GotConnInfo{})
		text, err := io.ReadAll(req.Body)
		sent = append(sent, string(text))
		return nil, errors.Join(err, io.ErrUnexpectedEOF)
	})
	_, err := through(base, retries(retry.Config{MaxAttempts: 5})).RoundTrip(newRequest(t, "POST", "http://example.com/", "body"))
	if !errors.Is(err, io.ErrUnexpectedEOF) || calls != 2 || fmt.Sprint(sent) != "[body]" {
		t.Errorf("got %v after %d calls, sent %q", err, calls, sent)
	}
}

// TestTransportTracesOnlyAtMostOnceCalls: other calls don't need the trace, nor does a call without
// policies. The caller's own hooks are always called.
func TestTransportTracesOnlyAtMostOnceCalls(t *testing.T) {
	for _, row := range []struct {
		method string
		policy resilience.Policy
		traced bool
	}{
		{"GET", retries(retry.Config{}), false},
		{"POST", retries(retry.Config{}), true},
		{"POST", resilience.Pipeline{retries(retry.Config{})}, true},
		{"POST", resilience.Pipeline{}, false},
	} {
		method, traced := row.method, row.traced
		req := newRequest(t, method, "http://example.com/", "x")
		base := roundTripper(func(sent *http.Request) (*http.Response, error) {
			sent.Body.Close()
			if trace := httptrace.ContextClientTrace(sent.Context()); (trace != nil) != traced {
				t.Errorf("%s: got trace %v", method, trace)
			}
			return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
		})
		if _, err := through(base, row.policy).RoundTrip(req); err != nil {
			t.Error(err)
		}
		var seen []string
		base = roundTripper(func(sent *http.Request) (*http.Response, error) {
			sent.Body.Close()
			trace := httptrace.ContextClientTrace(sent.Context())
			trace.GetConn("a")
			trace.GotConn(httptrace.GotConnInfo{})
			return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
		})
		req = req.WithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			GetConn: func(hostPort string) { seen = append(seen, "get "+hostPort) },
			GotConn: func(httptrace.GotConnInfo) { seen = append(seen, "got") },
		}))
		if _, err := through(base, row.policy).RoundTrip(req); err != nil || fmt.Sprint(seen) != "[get a got]" {
			t.Errorf("%s: got %v, the caller's hooks saw %v", method, err, seen)
		}
	}
}

// TestTransportRetriesRefusedDial, even of a POST.
func TestTransportRetriesRefusedDial(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	dials := 0
	client := retryingClient(t, func(base *http.Transport) {
		base.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			dials++
			return new(net.Dialer).DialContext(ctx, network, address)
		}
	})
	_, err = client.Post("http://"+listener.Addr().String(), "", strings.NewReader("body"))
	var op *net.OpError
	if !errors.As(err, &op) || dials != 3 {
		t.Errorf("got %v after %d dials", err, dials)
	}
}

// TestTransportResendsBodyAfterRefusedExpectation: the server answered 503 without 100 Continue, so
// it never read the first body.
func TestTransportResendsBodyAfterRefusedExpectation(t *testing.T) {
	protocols(t, func(t *testing.T, protocol int) {
		requests := 0
		s := newSite(t, protocol, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if requests++; requests == 1 {
				w.WriteHeader(503)
				return
			}
			io.Copy(w, r.Body)
		}))
		base := s.Client().Transport.(*http.Transport)
		base.ExpectContinueTimeout = time.Hour
		req := newRequest(t, "POST", s.URL, "body")
		req.Header.Set("Expect", "100-continue")
		req.Header.Set("Idempotency-Key", "1")
		response, err := wrapped(base, designed).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		if text := readAll(t, response); text != "body" || response.StatusCode != 200 || requests != 2 {
			t.Errorf("got %s, %q after %d requests", response.Status, text, requests)
		}
	})
}

// TestTransportReportsProxyRefusalUnchanged: 407 is the response to a plain request through a
// proxy, and an error if a tunnel was requested.
func TestTransportReportsProxyRefusalUnchanged(t *testing.T) {
	proxy := newSite(t, 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Proxy-Authenticate", "Basic")
		w.WriteHeader(http.StatusProxyAuthRequired)
	}))
	at, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"http://example.com/", "https://example.com/"} {
		describe := func(wrap func(http.RoundTripper) http.RoundTripper) string {
			base := &http.Transport{Proxy: http.ProxyURL(at)}
			defer base.CloseIdleConnections()
			response, err := wrap(base).RoundTrip(newRequest(t, "PATCH", target, ""))
			if err != nil {
				return err.Error()
			}
			response.Body.Close()
			return response.Status
		}
		bare := describe(func(base http.RoundTripper) http.RoundTripper { return base })
		if got := describe(func(base http.RoundTripper) http.RoundTripper { return wrapped(base, empty) }); got != bare {
			t.Errorf("%s: got %s, bare %s", target, got, bare)
		}
	}
}

// TestTransportPanicLeavesNothingOpen and reaches the caller.
func TestTransportPanicLeavesNothingOpen(t *testing.T) {
	for _, place := range []string{"Base", "Failed"} {
		body := &trackedBody{Reader: strings.NewReader("x")}
		var sent context.Context
		transport := resiliencehttp.NewTransport(resiliencehttp.Config{
			Base: roundTripper(func(req *http.Request) (*http.Response, error) {
				sent = req.Context()
				if place == "Base" {
					panic(place)
				}
				return &http.Response{StatusCode: 200, Body: body}, nil
			}),
			Failed:   func(*http.Response) bool { panic(place) },
			Policies: func(string) resilience.Policy { return timeout.After(time.Hour) },
		})
		if value := panicOf(func() { transport.RoundTrip(newRequest(t, "GET", "http://example.com/", "")) }); value != place {
			t.Errorf("got panic %v, want %s", value, place)
		}
		if sent.Err() == nil {
			t.Errorf("%s: Base's context outlives the call", place)
		}
		if place == "Failed" {
			checkClosed(t, []*trackedBody{body})
		}
	}
}

// TestTransportStatusErrorsReportExhaustedRetry, with the last response in the tree and no body
// open.
func TestTransportStatusErrorsReportExhaustedRetry(t *testing.T) {
	base := &answers{statuses: []int{500, 503}}
	transport := resiliencehttp.NewTransport(resiliencehttp.Config{
		Base: base, StatusErrors: true, Policies: func(string) resilience.Policy { return retries(retry.Config{MaxAttempts: 2}) },
	})
	response, err := transport.RoundTrip(newRequest(t, "GET", "http://example.com/", ""))
	var exhausted *retry.ExhaustedError
	var status *resiliencehttp.StatusError
	if response != nil || !errors.As(err, &exhausted) || exhausted.Attempts != 2 || !errors.As(err, &status) || status.StatusCode != 503 {
		t.Errorf("got %v, %v", response, err)
	}
	checkClosed(t, base.bodies)
}

// TestTransportInnerStatusErrorIsError, since the outer transport doesn't hold its response.
func TestTransportInnerStatusErrorIsError(t *testing.T) {
	base := &answers{statuses: []int{500}}
	within := resiliencehttp.NewTransport(resiliencehttp.Config{Base: base, StatusErrors: true, Policies: empty})
	response, err := through(within, resilience.Pipeline{}).RoundTrip(newRequest(t, "GET", "http://example.com/", ""))
	var status *resiliencehttp.StatusError
	if response != nil || !errors.As(err, &status) {
		t.Errorf("got %v, %v", response, err)
	}
	checkClosed(t, base.bodies)
}

// TestTransportKeepsAtMostMaxKeys, without a goroutine.
func TestTransportKeepsAtMostMaxKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const many, most = 100_000, 100
		key := 0
		made := 0
		transport := resiliencehttp.NewTransport(resiliencehttp.Config{
			Base: roundTripper(func(*http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
			}),
			Key:      func(*http.Request) string { return fmt.Sprint(key) },
			Policies: func(string) resilience.Policy { made++; return resilience.Pipeline{} },
			MaxKeys:  most,
		})
		req := newRequest(t, "GET", "http://example.com/", "")
		for key = range many {
			if _, err := transport.RoundTrip(req); err != nil {
				t.Fatal(err)
			}
		}
		there := 0
		for key := range many {
			if _, ok := transport.Policy(fmt.Sprint(key)); ok {
				there++
			}
		}
		if there != most || made != many {
			t.Errorf("got %d keys and %d policies created, want %d and %d", there, made, most, many)
		}
	})
}
