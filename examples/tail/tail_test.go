package main

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/effector-go/resilience/examples/internal/programtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestHedgeCutsTail runs in virtual time, in which only the dependency takes time.
func TestHedgeCutsTail(t *testing.T) {
	cfg := config{length: 10 * time.Second, rate: 500, quantile: 0.98, seed: 1}
	var r *result
	synctest.Test(t, func(t *testing.T) { r = measure(t.Context(), cfg, func(time.Duration) {}) })
	waits, hedges := r.clients[0], r.clients[1]
	if len(waits.calls) != 5000 || len(hedges.calls) != 5000 {
		t.Fatalf("%d and %d calls, want 5000 each", len(waits.calls), len(hedges.calls))
	}
	before, after := quantile(waits.sorted(), 0.99), quantile(hedges.sorted(), 0.99)
	if after > before/10 || hedges.extra() > 0.03 || waits.extra() != 0 {
		t.Errorf("99%% of the calls take %v, hedged %v with %.1f%% extra starts; want at most a tenth with at most 3%%", before, after, 100*hedges.extra())
	}
}

// runVirtually runs the program in virtual time until the interrupt, if there is one.
func runVirtually(t *testing.T, interrupt time.Duration, args ...string) (got programtest.Result) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		switch {
		case interrupt == 0:
			cancel()
		case interrupt > 0:
			time.AfterFunc(interrupt, cancel)
		}
		got = programtest.Run(ctx, "tail", run, args...)
	})
	return got
}

const never = -1

func TestRunPrintsTableAndPlots(t *testing.T) {
	dir := t.TempDir()
	got := runVirtually(t, never, "-quick", "-out", dir)
	if got.Status != 0 {
		t.Fatalf("got exit status %d, want 0:\n%s", got.Status, got.Stderr)
	}
	for _, want := range []string{"client", "p99", "waits", "hedges", "extra starts"} {
		if !strings.Contains(got.Stdout, want) {
			t.Errorf("the output lacks %q:\n%s", want, got.Stdout)
		}
	}
	programtest.CheckFiles(t, dir, got.Stdout, "tail.svg", "tail.png")
}

func TestRunReportsWhatItHasWhenInterrupted(t *testing.T) {
	for _, at := range []time.Duration{0, 1234 * time.Millisecond} {
		dir := t.TempDir()
		got := runVirtually(t, at, "-quick", "-rate", "100", "-out", dir)
		if got.Status != 130 {
			t.Errorf("got exit status %d, want 130:\n%s", got.Status, got.Stderr)
		}
		if want := fmt.Sprintf("stopped after %v of 4s", at.Round(100*time.Millisecond)); !strings.HasPrefix(got.Stdout, want) {
			t.Errorf("got the output below, want one that begins with %q:\n%s", want, got.Stdout)
		}
		programtest.CheckFiles(t, dir, got.Stdout, "tail.svg", "tail.png")
	}
}

func TestMeasureFinishesCallsWhenInterrupted(t *testing.T) {
	cfg := config{length: 4 * time.Second, rate: 500, quantile: 0.98}
	took := func(interrupt time.Duration) (took map[time.Duration]time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			time.AfterFunc(interrupt, cancel)
			waits := measure(ctx, cfg, func(time.Duration) {}).clients[0]
			if waits.extra() != 0 {
				t.Errorf("the client without a hedge has %v extra starts, want none", waits.extra())
			}
			took = map[time.Duration]time.Duration{}
			for _, call := range waits.calls {
				took[call.at] = call.took
			}
		})
		return took
	}
	const interrupt = 1234*time.Millisecond + 1
	whole, interrupted := took(time.Hour), took(interrupt)
	for at, want := range whole {
		if got := interrupted[at]; at < interrupt && got != want {
			t.Errorf("the call at %v took %v, want %v as without an interrupt", at, got, want)
		}
	}
	if want := int(interrupt/(2*time.Millisecond)) + 1; len(interrupted) != want {
		t.Errorf("%d calls before the interrupt, want %d", len(interrupted), want)
	}
}

func TestRunReportsUsageErrors(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"-rate 0", "-rate is 0, must be 50 to 2000"},
		{"-rate 2001", "-rate is 2001"},
		{"-rate many", `"many"`},
		{"-quantile 1", "-quantile is 1, must be 0.5 to 0.999"},
		{"-quantile 0.4", "-quantile is 0.4"},
		{"-quantile nan", "-quantile is NaN"},
		{"-seed -1", `"-1"`},
		{"-out=", "-out"},
		{"-fast", "-fast"},
		{"quick", `unexpected argument "quick"`},
	} {
		t.Run(test.args, func(t *testing.T) {
			got := runVirtually(t, never, strings.Fields(test.args)...)
			if got.Status != 2 || !strings.Contains(got.Stderr, test.want) || got.Stdout != "" {
				t.Errorf("got %+v, want exit status 2 and only an error with %q", got, test.want)
			}
		})
	}
}

func TestRunPrintsHelp(t *testing.T) {
	got := runVirtually(t, never, "-help")
	if got.Status != 0 {
		t.Errorf("got exit status %d, want 0", got.Status)
	}
	if !strings.Contains(got.Stderr, "-quantile share") {
		t.Errorf("help lacks -quantile:\n%s", got.Stderr)
	}
}
