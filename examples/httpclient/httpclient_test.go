package main

import (
	"bytes"
	"context"
	"regexp"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestTheProgramTellsWhatHappens attempt by attempt, the same each time but for how long a breaker will still be open.
func TestTheProgramTellsWhatHappens(t *testing.T) {
	const want = `
1. A GET that is answered 503 twice is sent again, after the server's Retry-After.
   GET /flaky
      attempt 1: 503 Service Unavailable
      retry: waits 1.01s
      attempt 2: 503 Service Unavailable
      retry: waits 1.01s
      attempt 3: 200 OK
   the caller gets 200 OK: "here you are"

2. A POST that is answered 500 is sent once, and its answer is the caller's.
   POST /order
      attempt 1: 500 Internal Server Error
   the caller gets 500 Internal Server Error: "order 1 may have been placed"

3. With an Idempotency-Key it may be sent again.
   POST /order
      attempt 1: 500 Internal Server Error
      retry: waits 10ms
      attempt 2: 200 OK
   the caller gets 200 OK: "placed"

4. A Retry-After of a year is not waited for: the answer comes at once.
   GET /maintenance
      attempt 1: 503 Service Unavailable
   the caller gets 503 Service Unavailable: "back next year"

5. A body may take longer than an attempt: the limit ends with the headers.
   GET /stream
      attempt 1: 200 OK
   the caller gets 200 OK: "0123"

6. A server that hangs up opens the breaker, and calls are refused without a request.
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
	var out bytes.Buffer
	if err := run(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	if got := regexp.MustCompile(`retry in [\d.]+m?s`).ReplaceAllString(out.String(), "retry in TIME"); got != want {
		t.Errorf("%s", got)
	}
}

func TestTheProgramEndsWhenItIsInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(ctx, &bytes.Buffer{}); err != context.Canceled {
		t.Error(err)
	}
}
