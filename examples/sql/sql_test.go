package main

import (
	"bytes"
	"context"
	"testing"

	"go.uber.org/goleak"

	"github.com/effector-go/resilience/examples/internal/program"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRunPrintsEachAttempt(t *testing.T) {
	const want = `
1. A transfer is a transaction.
      attempt 1
   the caller gets the balance: 90

2. While another connection holds the lock, the transfer is rolled back and repeated.
      retry: database is locked (5) (SQLITE_BUSY)
      retry: database is locked (5) (SQLITE_BUSY)
      attempt 3
   the caller gets the balance: 80

3. A transfer that the bank refuses is rolled back and not repeated.
      attempt 1
   the caller gets the error: not enough money

4. The answer to COMMIT is lost: nobody knows whether it took effect, so nothing is repeated.
      attempt 1
   the caller gets the error: resiliencesql: it is unknown whether the call took effect: driver: bad connection

5. The same, but Verify finds out that it took effect.
      attempt 1
      verify: true
   the caller gets the balance: 60

4 transfers took effect; the balances are 60 and 140.
`
	var stdout, stderr bytes.Buffer
	if status := program.Run(t.Context(), "sql", run, nil, &stdout, &stderr); status != 0 || stderr.Len() > 0 {
		t.Fatalf("exit status %d:\n%s", status, &stderr)
	}
	if got := stdout.String(); got != want {
		t.Errorf("got:\n%s", got)
	}
}

func TestRunStopsWhenInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(ctx, nil, &bytes.Buffer{}, &bytes.Buffer{}); err == nil {
		t.Error("got nil, want an error")
	}
}
