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
1. A call that may be repeated is made again, after the server's pushback.
   call busy
      attempt 1: ResourceExhausted
      retry: waits 310ms
      attempt 2: ResourceExhausted
      retry: waits 310ms
      attempt 3: OK
   the caller gets the reply

2. A call that must not be repeated is made once: the caller gets the server's error.
   call order
      attempt 1: Unavailable
   the caller gets the error: rpc error: code = Unavailable desc = order 1 may have been placed

3. NotFound is an answer: it isn't made again, and the breaker counts a success.
   call missing
      attempt 1: NotFound
   the caller gets the error: rpc error: code = NotFound desc = no such user

4. A pushback of -1 forbids another attempt.
   call overloaded
      attempt 1: Unavailable
   the caller gets the error: rpc error: code = Unavailable desc = go away

5. An attempt that hangs ends with its own limit.
   call hang
      attempt 1: DeadlineExceeded
      retry: waits 10ms
      attempt 2: OK
   the caller gets the reply

6. A stream is opened again until its first message; each message is delivered once.
   call stream
      attempt 1: Unavailable
      retry: waits 10ms
      attempt 2: Unavailable
      retry: waits 10ms
      attempt 3: OK
   the caller gets message 0
   the caller gets message 1
   the caller gets message 2
   the caller gets the end of the stream

7. A server that is down opens the breaker: calls are refused without an attempt.
   call down
      attempt 1: Unavailable
      retry: waits 10ms
      attempt 2: Unavailable
      retry: waits 10ms
      attempt 3: Unavailable
   the caller gets the error: retry: gave up after 3 attempts: rpc error: code = Unavailable desc = down
   call down
      attempt 1: Unavailable
      retry: waits 10ms
      attempt 2: Unavailable
      breaker: open, 5 failures in a row
      retry: waits 10ms
   the caller gets the error: retry: gave up after 2 attempts, then refused (breaker test service: open, retry in TIME): rpc error: code = Unavailable desc = down
   call down
   the caller gets the error: breaker test service: open, retry in TIME
`
	got := programtest.Run(t.Context(), "grpc", run)
	if got.Status != 0 || got.Stderr != "" {
		t.Fatalf("got exit status %d and the error %q, want 0 and none", got.Status, got.Stderr)
	}
	if stdout := regexp.MustCompile(`retry in [\d.]+m?s`).ReplaceAllString(got.Stdout, "retry in TIME"); stdout != want {
		t.Errorf("got:\n%s\nwant:\n%s", stdout, want)
	}
}

func TestRunStopsWhenInterrupted(t *testing.T) {
	got := programtest.RunUntil(t.Context(), "retry: waits", "grpc", run)
	if got.Status != 130 {
		t.Errorf("got exit status %d, want 130:\n%s", got.Status, got.Stderr)
	}
	if !strings.Contains(got.Stdout, "attempt 1: ResourceExhausted") || strings.Contains(got.Stdout, "attempt 2") {
		t.Errorf("got the output below, want the first attempt and no second one:\n%s", got.Stdout)
	}
}

func TestRunReportsUsageErrors(t *testing.T) {
	got := programtest.Run(t.Context(), "grpc", run, "quick")
	if want := `unexpected argument "quick"`; got.Status != 2 || !strings.Contains(got.Stderr, want) || got.Stdout != "" {
		t.Errorf("got %+v, want exit status 2 and only an error with %q", got, want)
	}
}
