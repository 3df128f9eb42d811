package main

import (
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/effector-go/resilience/examples/internal/programtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The output is the same each time, except for how long a breaker stays open.
func TestRunPrintsEachAttempt(t *testing.T) {
	const want = `
1. A GET that is answered 503 twice is sent again, after the server's Retry-After.
   GET /flaky
      attempt 1: 503 Service Unavailable
      retry: waits 1.01s
      attempt 2: 503 Service Unavailable
      retry: waits 1.01s
      attempt 3: 200 OK
   the caller gets 200 OK: "hello"

2. A POST that is answered 500 is sent once: the caller gets the response.
   POST /order
      attempt 1: 500 Internal Server Error
   the caller gets 500 Internal Server Error: "order 1 may have been placed"

3. With an Idempotency-Key the POST is sent again.
   POST /order
      attempt 1: 500 Internal Server Error
      retry: waits 10ms
      attempt 2: 200 OK
   the caller gets 200 OK: "placed"

4. A Retry-After of a year isn't waited for: the caller gets the response immediately.
   GET /maintenance
      attempt 1: 503 Service Unavailable
   the caller gets 503 Service Unavailable: "back next year"

5. A body may take longer than an attempt: the attempt's limit ends with the headers.
   GET /stream
      attempt 1: 200 OK
   the caller gets 200 OK: "0123"

6. A server that drops connections opens the breaker: calls are refused without a request.
   GET /down
      attempt 1: EOF
      retry: waits 10ms
      attempt 2: EOF
      retry: waits 10ms
      attempt 3: EOF
   the caller gets the error: Get "/down": retry: gave up after 3 attempts: EOF
   GET /down
      attempt 1: EOF
      retry: waits 10ms
      attempt 2: EOF
      breaker: open, 5 failures in a row
      retry: waits 10ms
   the caller gets the error: Get "/down": retry: gave up after 2 attempts, then refused (breaker /down: open, retry in TIME): EOF
   GET /down
   the caller gets the error: Get "/down": breaker /down: open, retry in TIME
   GET /down
   the caller gets the error: Get "/down": breaker /down: open, retry in TIME
`
	got := programtest.Run(t.Context(), "httpclient", run)
	if got.Status != 0 || got.Stderr != "" {
		t.Fatalf("got exit status %d and the error %q, want 0 and none", got.Status, got.Stderr)
	}
	if stdout := regexp.MustCompile(`retry in [\d.]+m?s`).ReplaceAllString(got.Stdout, "retry in TIME"); stdout != want {
		t.Errorf("got:\n%s\nwant:\n%s", stdout, want)
	}
}

func TestRunStopsWhenInterrupted(t *testing.T) {
	got := programtest.RunUntil(t.Context(), "retry: waits", "httpclient", run)
	if got.Status != 130 {
		t.Errorf("got exit status %d, want 130:\n%s", got.Status, got.Stderr)
	}
	if !strings.Contains(got.Stdout, "attempt 1: 503") || strings.Contains(got.Stdout, "attempt 2") {
		t.Errorf("got the output below, want the first attempt and no second one:\n%s", got.Stdout)
	}
}

func TestRunReportsUsageErrors(t *testing.T) {
	got := programtest.Run(t.Context(), "httpclient", run, "quick")
	if want := `unexpected argument "quick"`; got.Status != 2 || !strings.Contains(got.Stderr, want) || got.Stdout != "" {
		t.Errorf("got %+v, want exit status 2 and only an error with %q", got, want)
	}
}
