package main

import (
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/effector-go/resilience/examples/internal/programtest"
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
	got := programtest.Run(t.Context(), "sql", run)
	if got.Status != 0 || got.Stderr != "" {
		t.Fatalf("got exit status %d and the error %q, want 0 and none", got.Status, got.Stderr)
	}
	if got.Stdout != want {
		t.Errorf("got:\n%s\nwant:\n%s", got.Stdout, want)
	}
}

func TestRunStopsWhenInterrupted(t *testing.T) {
	got := programtest.RunUntil(t.Context(), "attempt 1", "sql", run)
	if got.Status != 130 {
		t.Errorf("got exit status %d, want 130:\n%s", got.Status, got.Stderr)
	}
	if !strings.Contains(got.Stdout, "attempt 1") || strings.Contains(got.Stdout, "\n2. ") {
		t.Errorf("got the output below, want the first scene and no second one:\n%s", got.Stdout)
	}
}

func TestRunReportsUsageErrors(t *testing.T) {
	got := programtest.Run(t.Context(), "sql", run, "quick")
	if want := `unexpected argument "quick"`; got.Status != 2 || !strings.Contains(got.Stderr, want) || got.Stdout != "" {
		t.Errorf("got %+v, want exit status 2 and only an error with %q", got, want)
	}
}
