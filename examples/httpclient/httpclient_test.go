package main

import (
	"bytes"
	"context"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/effector-go/resilience/examples/internal/program"
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
	var stdout, stderr bytes.Buffer
	if status := program.Run(t.Context(), "httpclient", run, nil, &stdout, &stderr); status != 0 || stderr.Len() > 0 {
		t.Fatalf("exit status %d:\n%s", status, &stderr)
	}
	if got := regexp.MustCompile(`retry in [\d.]+m?s`).ReplaceAllString(stdout.String(), "retry in TIME"); got != want {
		t.Errorf("got:\n%s", got)
	}
}

func TestRunStopsWhenInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var stdout, stderr bytes.Buffer
	stopper := writerFunc(func(p []byte) (int, error) {
		if bytes.Contains(p, []byte("retry: waits")) {
			cancel()
		}
		return stdout.Write(p)
	})
	if status := program.Run(ctx, "httpclient", run, nil, stopper, &stderr); status != 130 {
		t.Errorf("exit status %d, want 130:\n%s", status, &stderr)
	}
	if got := stdout.String(); !strings.Contains(got, "attempt 1: 503") || strings.Contains(got, "attempt 2") {
		t.Errorf("want the first attempt and no second one, got:\n%s", got)
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestRunReportsUsageErrors(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if status := program.Run(t.Context(), "httpclient", run, []string{"quick"}, &stdout, &stderr); status != 2 {
		t.Errorf("exit status %d, want 2", status)
	}
	if want := `unexpected argument "quick"`; !strings.Contains(stderr.String(), want) || stdout.Len() > 0 {
		t.Errorf("got the error %q and the output %q, want an error with %q", &stderr, &stdout, want)
	}
}
