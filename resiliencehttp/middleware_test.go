package resiliencehttp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/bulkhead"
	"github.com/effector-go/resilience/ratelimit"
	"github.com/effector-go/resilience/resiliencehttp"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// guard puts the policy around the handler.
func guard(policy resilience.Policy, handler http.HandlerFunc) http.Handler {
	return resiliencehttp.Middleware(resiliencehttp.ServerConfig{Policy: policy})(handler)
}

// record serves a request and returns the response.
func record(handler http.Handler, r *http.Request) *http.Response {
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, r)
	return recorder.Result()
}

// panicOf returns the value that f panics with.
func panicOf(f func()) (value any) {
	defer func() { value = recover() }()
	f()
	return nil
}

func get() *http.Request { return httptest.NewRequest("GET", "/path?query", nil) }

// capture returns a policy that stores the error that it receives.
func capture(err *error) resilience.Policy {
	return resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		*err = next.Run(ctx)
		return *err
	})
}

// returning returns a policy that returns err without running the handler.
func returning(err error) resilience.Policy {
	return resilience.PolicyFunc(func(context.Context, resilience.Next) error { return err })
}

// abandonOn returns a policy that runs the handler as timeout's Abandon does, and abandons it when
// it receives from when.
func abandonOn(when <-chan struct{}, end func() error) resilience.Policy {
	return resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		fork := next.Fork()
		done := make(chan error, 1)
		go func() { done <- fork.Run(ctx) }()
		select {
		case err := <-done:
			next.Adopt(fork)
			return err
		case <-when:
			return end()
		}
	})
}

func abandoning(limit time.Duration) *timeout.Timeout {
	return timeout.New(timeout.Config{Limit: limit, Abandon: 1000})
}

var errAbandoned = errors.New("left behind")

func abandonedErr() error { return errAbandoned }

func mustNotRun(t *testing.T) http.HandlerFunc {
	return func(http.ResponseWriter, *http.Request) { t.Error("the handler ran") }
}

type errorWithStatus int

func (s errorWithStatus) Error() string   { return "an error with a status" }
func (s errorWithStatus) HTTPStatus() int { return int(s) }

func TestMiddlewareRefusalIs503WithRetryAfterRoundedUp(t *testing.T) {
	for _, row := range []struct {
		after time.Duration
		want  string
	}{
		{-time.Second, ""},
		{0, ""},
		{1, "1"},
		{time.Second - 1, "1"},
		{time.Second, "1"},
		{time.Second + 1, "2"},
		{4200 * time.Millisecond, "5"},
		{math.MaxInt64, "9223372037"},
	} {
		refusal := resilience.WithRetryAfter(fmt.Errorf("too much: %w", resilience.ErrRefused), row.after)
		answer := record(guard(returning(refusal), mustNotRun(t)), get())
		if answer.StatusCode != 503 || answer.Header.Get("Retry-After") != row.want {
			t.Errorf("%v: got %d, Retry-After %q, want %q", row.after, answer.StatusCode, answer.Header.Get("Retry-After"), row.want)
		}
		if text := readAll(t, answer); text != "Service Unavailable\n" {
			t.Errorf("%v: got body %q", row.after, text)
		}
	}
}

// TestMiddlewareDefaultResponseMatchesHTTPError, with its headers.
func TestMiddlewareDefaultResponseMatchesHTTPError(t *testing.T) {
	want := httptest.NewRecorder()
	http.Error(want, "Service Unavailable", http.StatusServiceUnavailable)
	got := record(guard(returning(resilience.ErrRefused), mustNotRun(t)), get())
	if got.StatusCode != 503 || fmt.Sprint(got.Header) != fmt.Sprint(want.Header()) || readAll(t, got) != want.Body.String() {
		t.Errorf("got %d, %v, want 503, %v", got.StatusCode, got.Header, want.Header())
	}
}

func TestMiddlewareOpenBreakerSetsRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{Consecutive: 1, OpenFor: 10 * time.Second})
		handler := guard(b, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) })
		record(handler, get())
		time.Sleep(3500 * time.Millisecond)
		if answer := record(handler, get()); answer.StatusCode != 503 || answer.Header.Get("Retry-After") != "7" {
			t.Errorf("got %d, Retry-After %q, want 503 and 7", answer.StatusCode, answer.Header.Get("Retry-After"))
		}
		time.Sleep(10 * time.Second)
	})
}

func TestMiddlewareRefusalUsesHTTPStatus(t *testing.T) {
	for code, want := range map[int]int{429: 429, 599: 599, 999: 999, 200: 200, 199: 503, 101: 503, 0: 503, -1: 503, 1000: 503} {
		refusal := fmt.Errorf("%w, %w", resilience.ErrRefused, errorWithStatus(code))
		if answer := record(guard(returning(refusal), mustNotRun(t)), get()); answer.StatusCode != want {
			t.Errorf("got %d for HTTPStatus %d, want %d", answer.StatusCode, code, want)
		}
	}
}

func TestMiddlewareRateLimitIs429(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := ratelimit.New(ratelimit.Config{Rate: 1 / 1.5, Burst: 1})
		handler := guard(limit, func(http.ResponseWriter, *http.Request) {})
		if answer := record(handler, get()); answer.StatusCode != 200 {
			t.Errorf("got %d for the first request, want 200", answer.StatusCode)
		}
		if answer := record(handler, get()); answer.StatusCode != 429 || answer.Header.Get("Retry-After") != "2" {
			t.Errorf("got %d, Retry-After %q, want 429 and 2", answer.StatusCode, answer.Header.Get("Retry-After"))
		}
	})
}

func TestMiddlewareOtherErrorIs500OrHTTPStatus(t *testing.T) {
	for _, row := range []struct {
		name string
		err  error
		want int
	}{
		{"an error", errors.New("broken"), 500},
		{"an error with a status", fmt.Errorf("login: %w", errorWithStatus(401)), 401},
		{"an error with an invalid status", errorWithStatus(42), 500},
		{"no error", nil, 500},
		{"a limit that passed", &timeout.Error{}, 503},
	} {
		if answer := record(guard(returning(row.err), mustNotRun(t)), get()); answer.StatusCode != row.want {
			t.Errorf("%s: got %d, want %d", row.name, answer.StatusCode, row.want)
		}
	}
}

func TestMiddlewareTimeoutInQueueIs503(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		room := bulkhead.New(bulkhead.Config{Limit: 1, Queue: 1})
		handler := guard(resilience.Pipeline{timeout.After(time.Second), room}, func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(2 * time.Second)
			io.WriteString(w, "done")
		})
		var g errgroup.Group
		g.Go(func() error {
			if answer := record(handler, get()); answer.StatusCode != 200 {
				t.Errorf("got %d for the first request, want 200", answer.StatusCode)
			}
			return nil
		})
		synctest.Wait()
		if answer := record(handler, get()); answer.StatusCode != 503 {
			t.Errorf("got %d for the second request, want 503", answer.StatusCode)
		}
		g.Wait()
	})
}

// TestMiddlewareOwnResponseDropsHandlerHeaders, whether the handler returned or not, and keeps
// those of other middleware.
func TestMiddlewareOwnResponseDropsHandlerHeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, policy := range map[string]resilience.Policy{"waiting": timeout.After(time.Second), "abandoning": abandoning(time.Second)} {
			inner := guard(policy, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-Handler", "1")
				w.Header().Set("Content-Type", "image/png")
				w.Header().Set("Content-Length", "1000")
				w.Header().Add("X-Outer", "handler's")
				w.Header().Del("X-Request-Id")
				time.Sleep(2 * time.Second)
			})
			recorder := httptest.NewRecorder()
			recorder.Header().Set("X-Outer", "outer's")
			recorder.Header().Set("X-Request-Id", "7")
			inner.ServeHTTP(recorder, get())
			header := recorder.Result().Header
			if recorder.Code != 503 || header.Get("X-Handler") != "" || header.Get("Content-Length") != "" ||
				header.Get("Content-Type") != "text/plain; charset=utf-8" {
				t.Errorf("%s: got %d, %v", name, recorder.Code, header)
			}
			if len(header["X-Outer"]) != 1 || header.Get("X-Outer") != "outer's" || header.Get("X-Request-Id") != "7" {
				t.Errorf("%s: the outer headers became %v", name, header)
			}
			time.Sleep(time.Minute)
		}
	})
}

func TestMiddlewareSendsHandlerHeaders(t *testing.T) {
	recorder := httptest.NewRecorder()
	recorder.Header().Set("X-Outer", "1")
	recorder.Header().Set("X-Removed", "1")
	recorder.Header().Set("X-Changed", "1")
	guard(resilience.Pipeline{}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Del("X-Removed")
		w.Header().Add("X-Changed", "2")
		w.Header()["X-Empty"] = nil
		w.WriteHeader(201)
		w.Header().Set("X-Late", "1")
		io.WriteString(w, "body")
	}).ServeHTTP(recorder, get())
	answer := recorder.Result()
	if answer.StatusCode != 201 || readAll(t, answer) != "body" {
		t.Errorf("got status %d, want 201", answer.StatusCode)
	}
	want := http.Header{"X-Outer": {"1"}, "X-Changed": {"1", "2"}, "X-Empty": nil}
	if fmt.Sprint(answer.Header) != fmt.Sprint(want) {
		t.Errorf("got header %v, want %v", answer.Header, want)
	}
}

func TestMiddlewareSilentHandlerIs200(t *testing.T) {
	var seen error
	answer := record(guard(capture(&seen), func(w http.ResponseWriter, r *http.Request) { w.Header().Set("X-Handler", "1") }), get())
	if answer.StatusCode != 200 || answer.Header.Get("X-Handler") != "1" || seen != nil {
		t.Errorf("got %d, %v, %v", answer.StatusCode, answer.Header, seen)
	}
}

// TestMiddlewareSilenceUntilTimeoutIs503, and an error for the policy, whether the handler returns
// or is abandoned.
func TestMiddlewareSilenceUntilTimeoutIs503(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, policy := range map[string]resilience.Policy{"waiting": timeout.After(time.Second), "abandoning": abandoning(time.Second)} {
			var seen error
			began := time.Now()
			answer := record(guard(resilience.Pipeline{capture(&seen), policy}, func(w http.ResponseWriter, r *http.Request) {
				<-r.Context().Done()
				if name == "abandoning" {
					time.Sleep(time.Hour)
				}
			}), get())
			if answer.StatusCode != 503 || !errors.Is(seen, timeout.ErrTimeout) || time.Since(began) != time.Second {
				t.Errorf("%s: got %d, the policy received %v after %v", name, answer.StatusCode, seen, time.Since(began))
			}
			time.Sleep(2 * time.Hour)
			synctest.Wait()
		}
	})
}

func TestMiddlewareKeepsLateResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, write := range map[string]func(w http.ResponseWriter){
			"a body":   func(w http.ResponseWriter) { w.WriteHeader(202); io.WriteString(w, "late") },
			"a status": func(w http.ResponseWriter) { w.WriteHeader(202) },
		} {
			for when, early := range map[string]bool{"before the limit": true, "after": false} {
				var seen error
				policy := resilience.Pipeline{capture(&seen), timeout.After(time.Second)}
				answer := record(guard(policy, func(w http.ResponseWriter, r *http.Request) {
					if early {
						write(w)
					}
					time.Sleep(2 * time.Second)
					if !early {
						write(w)
					}
				}), get())
				if answer.StatusCode != 202 || seen != nil {
					t.Errorf("%s %s: got %d, the policy received %v", name, when, answer.StatusCode, seen)
				}
			}
		}
	})
}

func TestMiddlewareIgnoresErrorAfterResponse(t *testing.T) {
	policy := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		next.Run(ctx)
		return fmt.Errorf("afterthought: %w", resilience.ErrRefused)
	})
	answer := record(guard(policy, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "done") }), get())
	if answer.StatusCode != 200 || readAll(t, answer) != "done" {
		t.Errorf("got %d", answer.StatusCode)
	}
}

func TestMiddlewareAbortsAbandonedWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, write := range map[string]func(w http.ResponseWriter){
			"a body":   func(w http.ResponseWriter) { io.WriteString(w, "begun") },
			"a status": func(w http.ResponseWriter) { w.WriteHeader(204) },
			"a flush":  func(w http.ResponseWriter) { w.(http.Flusher).Flush() },
		} {
			handler := guard(abandoning(time.Second), func(w http.ResponseWriter, r *http.Request) {
				write(w)
				time.Sleep(time.Minute)
			})
			if value := panicOf(func() { record(handler, get()) }); value != http.ErrAbortHandler {
				t.Errorf("%s: got panic %v, want http.ErrAbortHandler", name, value)
			}
			time.Sleep(time.Hour)
		}
	})
}

func TestMiddlewarePolicySeesStatusError(t *testing.T) {
	var seen error
	handler := guard(capture(&seen), func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "17")
		w.WriteHeader(503)
		w.Header().Set("Retry-After", "18")
		io.WriteString(w, "sorry")
	})
	answer := record(handler, get())
	if answer.StatusCode != 503 || answer.Header.Get("Retry-After") != "17" || readAll(t, answer) != "sorry" {
		t.Errorf("got %d, %v at the client", answer.StatusCode, answer.Header)
	}
	var status *resiliencehttp.StatusError
	if !errors.As(seen, &status) || status.StatusCode != 503 || status.Method != "GET" || status.URL != "/path" {
		t.Fatalf("got %v at the policy", seen)
	}
	if after, _ := resilience.RetryAfter(seen); after == 0 {
		t.Errorf("the policy's error has no Retry-After")
	}
	if text := seen.Error(); text != "resiliencehttp: GET /path: 503 Service Unavailable" {
		t.Errorf("got text %q", text)
	}
}

func TestMiddlewareFailedStatusOpensBreaker(t *testing.T) {
	for _, row := range []struct {
		status int
		failed func(int) bool
		want   breaker.State
	}{
		{500, nil, breaker.Open},
		{502, nil, breaker.Open},
		{599, nil, breaker.Open},
		{501, nil, breaker.Closed},
		{505, nil, breaker.Closed},
		{404, nil, breaker.Closed},
		{429, nil, breaker.Closed},
		{600, nil, breaker.Closed},
		{404, func(status int) bool { return status == 404 }, breaker.Open},
		{500, func(status int) bool { return status == 404 }, breaker.Closed},
		{200, func(status int) bool { return status == 200 }, breaker.Open}, // also if the handler writes none
	} {
		b := breaker.New(breaker.Config{Consecutive: 1})
		handler := resiliencehttp.Middleware(resiliencehttp.ServerConfig{Policy: b, Failed: row.failed})(
			http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if row.status != 200 {
					w.WriteHeader(row.status)
				}
			}))
		if answer := record(handler, get()); answer.StatusCode != row.status || b.State() != row.want {
			t.Errorf("got %d, want %d: got breaker state %v, want %v", answer.StatusCode, row.status, b.State(), row.want)
		}
	}
}

// TestMiddlewareNeverRunsHandlerTwice, neither under a retry nor under a policy that doesn't check
// Repeatable.
func TestMiddlewareNeverRunsHandlerTwice(t *testing.T) {
	again := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		next.Run(ctx)
		return next.Run(ctx)
	})
	forked := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		var g errgroup.Group
		forks := []resilience.Next{next.Fork(), next.Fork()}
		for _, fork := range forks {
			g.Go(func() error { return fork.Run(ctx) })
		}
		err := g.Wait()
		for _, fork := range forks {
			next.Adopt(fork)
		}
		return err
	})
	for name, policy := range map[string]resilience.Policy{
		"retry":                          retry.New(retry.Config{MaxAttempts: 5, Backoff: retry.Constant(0)}),
		"a policy that runs it again":    again,
		"a policy that runs forks of it": forked,
		"retry around a breaker": resilience.Pipeline{
			retry.New(retry.Config{MaxAttempts: 5, Backoff: retry.Constant(0)}), breaker.New(breaker.Config{}),
		},
	} {
		runs := 0
		answer := record(guard(policy, func(w http.ResponseWriter, r *http.Request) {
			runs++
			w.WriteHeader(500)
			fmt.Fprint(w, "run ", runs)
		}), get())
		if text := readAll(t, answer); runs != 1 || answer.StatusCode != 500 || text != "run 1" {
			t.Errorf("%s: got %d runs, %d, %q", name, runs, answer.StatusCode, text)
		}
	}
}

func TestMiddlewareRunsHandlerAfterRetriedRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{Consecutive: 1, OpenFor: time.Second})
		policy := resilience.Pipeline{retry.New(retry.Config{RetryRefused: true, MaxElapsed: time.Minute}), b}
		handler := guard(policy, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "done") })
		permit, err := b.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		permit.Done(errors.New("failed"))
		if answer := record(handler, get()); answer.StatusCode != 200 {
			t.Errorf("got %d, want 200 after the wait", answer.StatusCode)
		}
	})
}

func TestMiddlewareAbortIsNotFailure(t *testing.T) {
	for name, policy := range map[string]resilience.Policy{"same goroutine": resilience.Pipeline{}, "other goroutine": abandoning(time.Hour)} {
		b := breaker.New(breaker.Config{Consecutive: 1})
		handler := guard(resilience.Pipeline{b, policy}, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
		if value := panicOf(func() { record(handler, get()) }); value != http.ErrAbortHandler {
			t.Errorf("%s: got panic %v, want http.ErrAbortHandler", name, value)
		}
		if b.State() != breaker.Closed {
			t.Errorf("%s: got breaker state %v, want closed", name, b.State())
		}
	}
}

// TestMiddlewarePanicKeepsValue: the panic keeps its value and its stack, and is a failure.
func TestMiddlewarePanicKeepsValue(t *testing.T) {
	b := breaker.New(breaker.Config{Consecutive: 1})
	thrown := []int{1} // not comparable
	handler := guard(b, func(http.ResponseWriter, *http.Request) { panicInFunction(thrown) })
	var stack []byte
	func() {
		defer func() {
			value, ok := recover().([]int)
			if !ok || len(value) != 1 {
				t.Errorf("got panic %v", value)
			}
			stack = stackHere()
		}()
		record(handler, get())
	}()
	if !bytes.Contains(stack, []byte("panicInFunction")) {
		t.Errorf("the stack of the panic is lost:\n%s", stack)
	}
	if b.State() != breaker.Open {
		t.Errorf("got breaker state %v, want open", b.State())
	}
}

//go:noinline
func panicInFunction(value any) { panic(value) }

func stackHere() []byte {
	stack := make([]byte, 1<<16)
	return stack[:runtime.Stack(stack, false)]
}

func TestMiddlewarePanicOnOtherGoroutineKeepsValueAndStack(t *testing.T) {
	b := breaker.New(breaker.Config{Consecutive: 1})
	handler := guard(resilience.Pipeline{b, abandoning(time.Hour)}, func(http.ResponseWriter, *http.Request) { panicInFunction("thrown") })
	value := panicOf(func() { record(handler, get()) })
	p, ok := value.(*resilience.PanicError)
	if !ok || p.Value != "thrown" || !bytes.Contains(p.Stack, []byte("panicInFunction")) {
		t.Errorf("got panic %v", value)
	}
	if b.State() != breaker.Open {
		t.Errorf("got breaker state %v, want open", b.State())
	}

	inner := &resilience.PanicError{Value: "inner", Stack: []byte("of the inner")}
	handler = guard(abandoning(time.Hour), func(http.ResponseWriter, *http.Request) { panic(inner) })
	if value := panicOf(func() { record(handler, get()) }); value != inner {
		t.Errorf("got panic %v, want %v unchanged", value, inner)
	}
}

// TestMiddlewarePanicOfAbandonedHandlerDoesNotCrash, even if its context isn't done: a timeout may
// expire while it unwinds.
func TestMiddlewarePanicOfAbandonedHandlerDoesNotCrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leave := make(chan struct{})
		alive := false
		handler := guard(abandonOn(leave, abandonedErr), func(w http.ResponseWriter, r *http.Request) {
			leave <- struct{}{}
			time.Sleep(time.Hour) // the request is over by then
			alive = r.Context().Err() == nil
			panic("thrown")
		})
		log := &lockedLog{}
		server := &http.Server{ErrorLog: log.logger()}
		r := get().WithContext(context.WithValue(t.Context(), http.ServerContextKey, server))
		if answer := record(handler, r); answer.StatusCode != 503 {
			t.Errorf("got %d, want 503", answer.StatusCode)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if !alive {
			t.Error("the handler's context has ended, and the test proves nothing")
		}
		if text := log.String(); !strings.Contains(text, "thrown") || !strings.Contains(text, "middleware_test.go") {
			t.Errorf("got log %q, want the value and the stack", text)
		}
	})
}

func TestMiddlewareDoesNotLogAbortOfAbandonedHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handler := guard(abandoning(time.Second), func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Minute)
			panic(http.ErrAbortHandler)
		})
		log := &lockedLog{}
		server := &http.Server{ErrorLog: log.logger()}
		record(handler, get().WithContext(context.WithValue(t.Context(), http.ServerContextKey, server)))
		time.Sleep(time.Hour)
		if text := log.String(); text != "" {
			t.Errorf("got log %q", text)
		}
	})
}

// TestMiddlewareEndsWriterWhenPolicyPanics: the handler that it has abandoned can't write any more.
func TestMiddlewareEndsWriterWhenPolicyPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leave := make(chan struct{})
		var written error
		handler := guard(abandonOn(leave, func() error { panic("the policy's") }), func(w http.ResponseWriter, r *http.Request) {
			leave <- struct{}{}
			time.Sleep(time.Hour)
			_, written = io.WriteString(w, "too late")
		})
		recorder := httptest.NewRecorder()
		if value := panicOf(func() { handler.ServeHTTP(recorder, get()) }); value != "the policy's" {
			t.Errorf("got panic %v", value)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if written != http.ErrHandlerTimeout || recorder.Body.Len() > 0 {
			t.Errorf("the handler wrote %q, %v", recorder.Body, written)
		}
	})
}

func TestMiddlewarePassesGoexit(t *testing.T) {
	for name, policy := range map[string]resilience.Policy{"same goroutine": resilience.Pipeline{}, "other goroutine": abandoning(time.Hour)} {
		b := breaker.New(breaker.Config{Consecutive: 1})
		handler := guard(resilience.Pipeline{b, policy}, func(http.ResponseWriter, *http.Request) { runtime.Goexit() })
		recorder := httptest.NewRecorder()
		returned := false
		done := make(chan struct{})
		go func() {
			defer close(done)
			handler.ServeHTTP(recorder, get())
			returned = true
		}()
		<-done
		if returned || len(recorder.Result().Header) > 0 {
			t.Errorf("%s: ServeHTTP returned: %v, wrote %v", name, returned, recorder.Result().Header)
		}
		if b.State() != breaker.Open {
			t.Errorf("%s: got breaker state %v, want open", name, b.State())
		}
	}
}

func TestMiddlewareCanceledClientIsNotFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, answer := range map[string]http.HandlerFunc{
			"silence":       func(http.ResponseWriter, *http.Request) {},
			"a failure":     func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
			"a panic":       func(http.ResponseWriter, *http.Request) { panic("thrown") },
			"a late return": func(http.ResponseWriter, *http.Request) { time.Sleep(time.Hour) },
		} {
			for place, policy := range map[string]resilience.Policy{"same goroutine": timeout.After(time.Minute), "other goroutine": abandoning(time.Minute)} {
				b := breaker.New(breaker.Config{Consecutive: 1})
				ctx, cancel := context.WithCancel(t.Context())
				handler := guard(resilience.Pipeline{b, policy}, func(w http.ResponseWriter, r *http.Request) {
					cancel()
					answer(w, r)
				})
				ctx = context.WithValue(ctx, http.ServerContextKey, &http.Server{ErrorLog: silent})
				value := panicOf(func() { record(handler, get().WithContext(ctx)) })
				if value != nil && name != "a panic" {
					t.Errorf("%s %s: got panic %v", name, place, value)
				}
				if b.State() != breaker.Closed {
					t.Errorf("%s %s: got breaker state %v, want closed", name, place, b.State())
				}
				time.Sleep(2 * time.Hour)
				synctest.Wait()
			}
		}
	})
}

const timeLeftHeader = "X-Patience-Ms"

func withTimeLeft(text string) *http.Request {
	r := get()
	r.Header.Set(timeLeftHeader, text)
	return r
}

func TestMiddlewareDeadlineHeaderSetsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const none = time.Duration(-1)
		century := time.Duration(math.MaxInt64)
		for _, row := range []struct {
			text      string
			max, want time.Duration
		}{
			{"1500", 0, 1500 * time.Millisecond},
			{"1", 0, time.Millisecond},
			{"0042", 0, 42 * time.Millisecond},
			{"1500", time.Second, time.Second},
			{"1000", time.Second, time.Second},
			{"999", time.Second, 999 * time.Millisecond},
			{"9223372036855", time.Minute, time.Minute}, // more ms than a Duration holds
			{"9223372036855", 0, century},
			{"99999999999999999999999999", time.Minute, time.Minute}, // more than an int64 holds
			{"", time.Minute, none},
			{"0", time.Minute, none},
			{"000", time.Minute, none},
			{"-5", time.Minute, none},
			{"+5", time.Minute, none},
			{"1.5", time.Minute, none},
			{"1e3", time.Minute, none},
			{"0x10", time.Minute, none},
			{"5 ms", time.Minute, none},
			{"1_000", time.Minute, none},
			{"٣", time.Minute, none}, // a digit, but not an ASCII digit
			{"NaN", time.Minute, none},
			{"soon", time.Minute, none},
		} {
			got := none
			resiliencehttp.Middleware(resiliencehttp.ServerConfig{
				Policy: resilience.Pipeline{}, DeadlineHeader: strings.ToLower(timeLeftHeader), MaxDeadline: row.max,
			})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if deadline, ok := r.Context().Deadline(); ok {
					got = time.Until(deadline)
				}
			})).ServeHTTP(httptest.NewRecorder(), withTimeLeft(row.text))
			if got != row.want {
				t.Errorf("got %q, at most %v: %v left, want %v", row.text, row.max, got, row.want)
			}
		}
	})
}

func TestMiddlewareIgnoresDeadlineHeaderByDefault(t *testing.T) {
	resiliencehttp.Middleware(resiliencehttp.ServerConfig{Policy: resilience.Pipeline{}, MaxDeadline: time.Second})(
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, ok := r.Context().Deadline(); ok {
				t.Error("got a deadline, want none")
			}
		})).ServeHTTP(httptest.NewRecorder(), withTimeLeft("5"))
}

// guardWithHeader puts the policy around the handler and sets DeadlineHeader.
func guardWithHeader(policy resilience.Policy, handler http.HandlerFunc) http.Handler {
	return resiliencehttp.Middleware(resiliencehttp.ServerConfig{Policy: policy, DeadlineHeader: timeLeftHeader})(handler)
}

func TestMiddlewareNeverExtendsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for text, want := range map[string]time.Duration{"400": 400 * time.Millisecond, "1000": time.Second, "5000": time.Second} {
			guardWithHeader(resilience.Pipeline{}, func(w http.ResponseWriter, r *http.Request) {
				if deadline, ok := r.Context().Deadline(); !ok || time.Until(deadline) != want {
					t.Errorf("%s: got %v left, want %v", text, time.Until(deadline), want)
				}
			}).ServeHTTP(httptest.NewRecorder(), withTimeLeft(text).WithContext(ctx))
		}
		guardWithHeader(timeout.After(100*time.Millisecond), func(w http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			if r.Context().Err() != context.DeadlineExceeded {
				t.Errorf("got %v, want the policy's limit", r.Context().Err())
			}
		}).ServeHTTP(httptest.NewRecorder(), withTimeLeft("400").WithContext(ctx))
	})
}

// TestMiddlewareClientDeadlineCancelsContext with the cause DeadlineExceeded.
func TestMiddlewareClientDeadlineCancelsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		handler := guardWithHeader(resilience.Pipeline{}, func(w http.ResponseWriter, r *http.Request) {
			ctx := r.Context()
			child, cancel := context.WithTimeout(ctx, time.Hour)
			defer cancel()
			if ctx.Err() != nil || context.Cause(ctx) != nil {
				t.Errorf("at the start: got %v, %v", ctx.Err(), context.Cause(ctx))
			}
			<-child.Done()
			if time.Since(began) != 1500*time.Millisecond {
				t.Errorf("got end after %v", time.Since(began))
			}
			for name, ctx := range map[string]context.Context{"the context": ctx, "a child": child} {
				if ctx.Err() != context.Canceled || context.Cause(ctx) != context.DeadlineExceeded {
					t.Errorf("%s: got %v, cause %v", name, ctx.Err(), context.Cause(ctx))
				}
				if deadline, ok := ctx.Deadline(); !ok || !deadline.Equal(began.Add(1500*time.Millisecond)) {
					t.Errorf("got deadline of %s %v, %t", name, deadline, ok)
				}
			}
		})
		if answer := record(handler, withTimeLeft("1500")); answer.StatusCode != 503 {
			t.Errorf("got %d, want 503", answer.StatusCode)
		}
	})
}

func TestMiddlewareTinyClientDeadlinesDoNotOpenBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, limit := range map[string]resilience.Policy{"waiting": timeout.After(time.Second), "abandoning": abandoning(time.Second)} {
			b := breaker.New(breaker.Config{Consecutive: 1, FailureRate: 0.01, MinCalls: 1})
			handler := guardWithHeader(resilience.Pipeline{timeout.After(time.Minute), b, limit}, func(w http.ResponseWriter, r *http.Request) {
				time.Sleep(10 * time.Millisecond)
				if r.Context().Err() != nil {
					w.WriteHeader(504)
				}
			})
			for range 20 {
				if answer := record(handler, withTimeLeft("1")); answer.StatusCode < 500 {
					t.Errorf("%s: got %d", name, answer.StatusCode)
				}
				time.Sleep(time.Second)
			}
			if b.State() != breaker.Closed {
				t.Errorf("%s: got breaker state %v, want closed", name, b.State())
			}
			if answer := record(handler, withTimeLeft("100")); answer.StatusCode != 200 {
				t.Errorf("%s: got %d with enough time", name, answer.StatusCode)
			}
		}
	})
}

func TestMiddlewareClientDeadlineChildrenStartNoGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		guardWithHeader(resilience.Pipeline{}, func(w http.ResponseWriter, r *http.Request) {
			before := goroutines()
			for range 10 {
				child, cancel := context.WithCancel(r.Context())
				defer cancel()
				defer context.AfterFunc(child, func() {})()
			}
			if !noneSince(before) {
				t.Error("goroutines were started")
			}
		}).ServeHTTP(httptest.NewRecorder(), withTimeLeft("1500"))
	})
}

func TestMiddlewareClientDeadlineContextEndsWithRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ctx context.Context
		guardWithHeader(resilience.Pipeline{}, func(w http.ResponseWriter, r *http.Request) { ctx = r.Context() }).
			ServeHTTP(httptest.NewRecorder(), withTimeLeft("1500"))
		if ctx.Err() != context.Canceled || context.Cause(ctx) != context.Canceled {
			t.Errorf("got %v, cause %v", ctx.Err(), context.Cause(ctx))
		}
	})
}

func TestMiddlewareDoneContextRunsNoHandler(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if answer := record(guard(resilience.Pipeline{}, mustNotRun(t)), get().WithContext(ctx)); answer.StatusCode != 503 {
		t.Errorf("got %d, want 503", answer.StatusCode)
	}
}

func TestMiddlewareHandlerSeesPolicyContextValues(t *testing.T) {
	type key struct{}
	policy := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		return next.Run(context.WithValue(ctx, key{}, "policy's"))
	})
	record(guard(policy, func(w http.ResponseWriter, r *http.Request) {
		if r.Context().Value(key{}) != "policy's" {
			t.Error("the handler's context lacks the policy's value")
		}
	}), get())
}

// TestMiddlewareNestsInItself: the outer middleware passes on the inner one's response.
func TestMiddlewareNestsInItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(w http.ResponseWriter, r *http.Request) {
			if r.URL.RawQuery == "begun" {
				io.WriteString(w, "begun")
			}
			time.Sleep(time.Hour)
			w.Header().Set("X-Handler", "1")
			if _, err := io.WriteString(w, "too late"); err != http.ErrHandlerTimeout {
				t.Errorf("got %v from a write after the end, want http.ErrHandlerTimeout", err)
			}
		}
		for name, row := range map[string]struct{ outer, inner time.Duration }{
			"the inner limit first": {time.Minute, time.Second},
			"the outer limit first": {time.Second, time.Minute},
		} {
			b := breaker.New(breaker.Config{Consecutive: 2})
			handler := guard(resilience.Pipeline{b, abandoning(row.outer)}, guard(abandoning(row.inner), slow).ServeHTTP)
			if answer := record(handler, httptest.NewRequest("GET", "/?silent", nil)); answer.StatusCode != 503 || answer.Header.Get("X-Handler") != "" {
				t.Errorf("%s: got %d, %v", name, answer.StatusCode, answer.Header)
			}
			value := panicOf(func() { record(handler, httptest.NewRequest("GET", "/?begun", nil)) })
			if value != http.ErrAbortHandler {
				t.Errorf("%s: got panic %v, want http.ErrAbortHandler", name, value)
			}
			time.Sleep(2 * time.Hour)
			synctest.Wait()
		}
	})
}

func TestMiddlewareReportsMuxPattern(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /users/{id}", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("id") == "8" {
			panic("thrown")
		}
		io.WriteString(w, r.PathValue("id"))
	})
	for name, policy := range map[string]resilience.Policy{"same goroutine": timeout.After(time.Minute), "other goroutine": abandoning(time.Minute)} {
		r := httptest.NewRequest("GET", "/users/7", nil)
		r.Header.Set(timeLeftHeader, "60000")
		if answer := record(guardWithHeader(policy, mux.ServeHTTP), r); readAll(t, answer) != "7" || r.Pattern != "GET /users/{id}" {
			t.Errorf("%s: got %d, pattern %q", name, answer.StatusCode, r.Pattern)
		}
		r = httptest.NewRequest("GET", "/users/8", nil)
		if value := panicOf(func() { record(guardWithHeader(policy, mux.ServeHTTP), r) }); value == nil || r.Pattern != "GET /users/{id}" {
			t.Errorf("%s: got panic %v, pattern %q", name, value, r.Pattern)
		}
	}
}

// TestMiddlewareRemovesFormFiles: net/http removes only files that its own request has parsed, not
// those of a copy.
func TestMiddlewareRemovesFormFiles(t *testing.T) {
	for name, policy := range map[string]resilience.Policy{"same goroutine": resilience.Pipeline{}, "other goroutine": abandoning(time.Hour)} {
		dir := t.TempDir()
		t.Setenv("TMPDIR", dir)
		var body bytes.Buffer
		form := multipart.NewWriter(&body)
		file, err := form.CreateFormFile("file", "name")
		if err != nil {
			t.Fatal(err)
		}
		file.Write(make([]byte, 1<<20))
		form.Close()
		r := httptest.NewRequest("POST", "/", &body)
		r.Header.Set("Content-Type", form.FormDataContentType())
		record(guard(policy, func(w http.ResponseWriter, r *http.Request) {
			if err := r.ParseMultipartForm(1); err != nil {
				t.Error(err)
			}
			if files, _ := os.ReadDir(dir); len(files) != 1 {
				t.Errorf("%s: got %d files while the handler runs, and the test proves nothing", name, len(files))
			}
		}), r)
		if files, _ := os.ReadDir(dir); len(files) != 0 {
			t.Errorf("%s: got %d files are left", name, len(files))
		}
	}
}

func TestServerConfigValidateReportsAllErrors(t *testing.T) {
	if err := (resiliencehttp.ServerConfig{Policy: resilience.Pipeline{}}).Validate(); err != nil {
		t.Error(err)
	}
	config := resiliencehttp.ServerConfig{DeadlineHeader: "Time Left", MaxDeadline: -time.Second}
	want := `resiliencehttp: Policy is nil, must be a Policy
resiliencehttp: DeadlineHeader is "Time Left", must be a header name, or empty for none
resiliencehttp: MaxDeadline is -1s, must be positive, or 0 for no limit`
	if err := config.Validate(); err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	if value := panicOf(func() { resiliencehttp.Middleware(config) }); value != want {
		t.Errorf("got panic %v from Middleware", value)
	}
}

func TestMiddlewarePanicsOnNilPolicyOrHandler(t *testing.T) {
	nested := resilience.Pipeline{timeout.After(time.Second), resilience.Pipeline{nil}}
	value := panicOf(func() { resiliencehttp.Middleware(resiliencehttp.ServerConfig{Policy: nested}) })
	if text := fmt.Sprint(value); !strings.Contains(text, "[1][0] is nil") {
		t.Errorf("got panic %q", text)
	}
	value = panicOf(func() {
		guard(nested[:1], nil)
		resiliencehttp.Middleware(resiliencehttp.ServerConfig{Policy: nested[:1]})(nil)
	})
	if value != "resiliencehttp: Middleware: the handler is nil, must be a Handler" {
		t.Errorf("got panic %v", value)
	}
}

// gatewayTimeout is an error of a policy with a status.
type gatewayTimeout struct{ error }

func (gatewayTimeout) HTTPStatus() int { return http.StatusGatewayTimeout }

// asGateway is a policy that turns each error into a gatewayTimeout.
var asGateway = resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
	if err := next.Run(ctx); err != nil {
		return gatewayTimeout{err}
	}
	return nil
})

// TestMiddlewareTimeoutUsesHTTPStatus of the error, whether the handler returned or was abandoned. The
// Content-Type that an outer handler has set stays.
func TestMiddlewareTimeoutUsesHTTPStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, row := range []struct {
			name   string
			policy resilience.Policy
			want   int
		}{
			{"waiting", resilience.Pipeline{asGateway, timeout.After(time.Second)}, 504},
			{"abandoning", resilience.Pipeline{asGateway, abandoning(time.Second)}, 504},
			{"waiting, without a status", timeout.After(time.Second), 503},
			{"abandoning, without a status", abandoning(time.Second), 503},
		} {
			handler := guard(row.policy, func(w http.ResponseWriter, r *http.Request) { time.Sleep(2 * time.Second) })
			recorder := httptest.NewRecorder()
			recorder.Header().Set("Content-Type", "application/json")
			recorder.Header().Set("Content-Length", "1000")
			handler.ServeHTTP(recorder, get())
			header := recorder.Result().Header
			if recorder.Code != row.want || header.Get("Content-Type") != "application/json" || header.Get("Content-Length") != "" {
				t.Errorf("%s: got %d, %v", row.name, recorder.Code, header)
			}
			time.Sleep(time.Minute)
		}
	})
}

// TestMiddlewareRespondWritesOwnResponses: refusals, other errors, and limits, with Retry-After set, and
// without the handler's headers. The handler's own responses are not affected.
func TestMiddlewareRespondWritesOwnResponses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refusal := resilience.WithRetryAfter(fmt.Errorf("too much: %w", resilience.ErrRefused), 1500*time.Millisecond)
		for _, row := range []struct {
			name   string
			policy resilience.Policy
			status int
			after  string
		}{
			{"a refusal", returning(refusal), 503, "2"},
			{"an error", returning(errors.New("broken")), 500, ""},
			{"no error", returning(nil), 500, ""},
			{"a limit", timeout.After(time.Second), 503, ""},
			{"a limit with a status", resilience.Pipeline{asGateway, abandoning(time.Second)}, 504, ""},
		} {
			var policyErr error
			handler := resiliencehttp.Middleware(resiliencehttp.ServerConfig{
				Policy: resilience.Pipeline{capture(&policyErr), row.policy},
				Respond: func(w http.ResponseWriter, r *http.Request, status int, err error) {
					if err != policyErr || r.URL.Path != "/path" {
						t.Errorf("%s: got %v for %s, want %v", row.name, err, r.URL, policyErr)
					}
					w.WriteHeader(status)
					fmt.Fprintf(w, `{"status":%d}`, status)
				},
			})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-Handler", "1")
				time.Sleep(2 * time.Second)
			}))
			recorder := httptest.NewRecorder()
			recorder.Header().Set("Content-Type", "application/json")
			handler.ServeHTTP(recorder, get())
			answer := recorder.Result()
			if answer.StatusCode != row.status || answer.Header.Get("Content-Type") != "application/json" || answer.Header.Get("Retry-After") != row.after ||
				answer.Header.Get("X-Handler") != "" || readAll(t, answer) != fmt.Sprintf(`{"status":%d}`, row.status) {
				t.Errorf("%s: got %d, %v", row.name, answer.StatusCode, answer.Header)
			}
			time.Sleep(time.Minute)
		}
		handler := resiliencehttp.Middleware(resiliencehttp.ServerConfig{
			Policy: resilience.Pipeline{},
			Respond: func(http.ResponseWriter, *http.Request, int, error) {
				t.Error("Respond was called for the handler's response")
			},
		})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) }))
		if answer := record(handler, get()); answer.StatusCode != 503 {
			t.Errorf("got %d", answer.StatusCode)
		}
	})
}

// TestMiddlewareRespondStatusIsFinal: the middleware sends no second one, even after 200.
func TestMiddlewareRespondStatusIsFinal(t *testing.T) {
	for _, status := range []int{101, 200, 503} {
		handler := resiliencehttp.Middleware(resiliencehttp.ServerConfig{
			Policy:  returning(resilience.ErrRefused),
			Respond: func(w http.ResponseWriter, _ *http.Request, _ int, _ error) { w.WriteHeader(status) },
		})(mustNotRun(t))
		server := newBare()
		if handler.ServeHTTP(server, get()); server.status != status {
			t.Errorf("got last status %d, want Respond's %d", server.status, status)
		}
	}
}

// TestMiddlewareRespondRequestIsSeparate from the one of an abandoned handler, which may change its
// header map at the same time. It relies on the race detector.
func TestMiddlewareRespondRequestIsSeparate(t *testing.T) {
	leave, responded, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	handler := resiliencehttp.Middleware(resiliencehttp.ServerConfig{
		Policy: abandonOn(leave, abandonedErr),
		Respond: func(w http.ResponseWriter, r *http.Request, status int, err error) {
			for range 100 {
				if r.Header.Get("Accept") != "text/css" || r.URL.Path != "/path" {
					t.Errorf("got %v, %v", r.Header, r.URL)
				}
			}
			w.WriteHeader(status)
		},
	})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		leave <- struct{}{}
		for {
			select {
			case <-responded:
				return
			default:
				r.Header.Set("Accept", "text/html")
				r.URL.Path = "/elsewhere"
			}
		}
	}))
	request := get()
	request.Header.Set("Accept", "text/css")
	record(handler, request)
	close(responded)
	<-ended
}
