package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/effector-go/resilience/examples/internal/program"
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
func runVirtually(t *testing.T, interrupt time.Duration, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		switch {
		case interrupt == 0:
			cancel()
		case interrupt > 0:
			time.AfterFunc(interrupt, cancel)
		}
		status = program.Run(ctx, "tail", run, args, &out, &errs)
	})
	return status, out.String(), errs.String()
}

const never = -1

func TestRunPrintsTableAndPlots(t *testing.T) {
	dir := t.TempDir()
	status, stdout, stderr := runVirtually(t, never, "-quick", "-out", dir)
	if status != 0 {
		t.Fatalf("exit status %d:\n%s", status, stderr)
	}
	for _, want := range []string{"client", "p99", "waits", "hedges", "extra starts"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("the output lacks %q:\n%s", want, stdout)
		}
	}
	checkFiles(t, dir, stdout)
}

func TestRunReportsWhatItHasWhenInterrupted(t *testing.T) {
	for _, at := range []time.Duration{0, 1234 * time.Millisecond} {
		dir := t.TempDir()
		status, stdout, stderr := runVirtually(t, at, "-quick", "-rate", "100", "-out", dir)
		if status != 130 {
			t.Errorf("exit status %d, want 130:\n%s", status, stderr)
		}
		if want := fmt.Sprintf("stopped after %v of 4s", at.Round(100*time.Millisecond)); !strings.HasPrefix(stdout, want) {
			t.Errorf("want an output that begins with %q, got:\n%s", want, stdout)
		}
		checkFiles(t, dir, stdout)
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

// checkFiles checks that the plots were written and that stdout names them.
func checkFiles(t *testing.T, dir, stdout string) {
	t.Helper()
	for _, name := range []string{"tail.svg", "tail.png"} {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v, %v; want a file", name, info, err)
		}
		if !strings.Contains(stdout, "wrote "+path+"\n") {
			t.Errorf("the output doesn't name %s:\n%s", path, stdout)
		}
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
			status, stdout, stderr := runVirtually(t, never, strings.Fields(test.args)...)
			if status != 2 {
				t.Errorf("exit status %d, want 2", status)
			}
			if !strings.Contains(stderr, test.want) || stdout != "" {
				t.Errorf("got the error %q and the output %q, want an error with %q", stderr, stdout, test.want)
			}
		})
	}
}

func TestRunPrintsHelp(t *testing.T) {
	status, _, stderr := runVirtually(t, never, "-help")
	if status != 0 {
		t.Errorf("exit status %d, want 0", status)
	}
	if !strings.Contains(stderr, "-quantile share") {
		t.Errorf("help lacks -quantile:\n%s", stderr)
	}
}
