package main

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestHedgingCutsTheTail in virtual time, in which nothing but the dependency takes any.
func TestHedgingCutsTheTail(t *testing.T) {
	cfg := config{length: 10 * time.Second, rate: 500, quantile: 0.98, seed: 1}
	var r *result
	synctest.Test(t, func(t *testing.T) { r = measure(t.Context(), cfg, func(time.Duration) {}) })
	waits, hedges := r.clients[0], r.clients[1]
	if len(waits.calls) != 5000 || len(hedges.calls) != 5000 {
		t.Fatalf("%d and %d calls, want 5000 each", len(waits.calls), len(hedges.calls))
	}
	before, after := quantile(waits.sorted(), 0.99), quantile(hedges.sorted(), 0.99)
	if after > before/10 || hedges.more() > 0.03 || waits.more() != 0 {
		t.Errorf("99 %% of calls take %v, hedged %v for %.1f %% more calls; want a tenth for 3 %% at most", before, after, 100*hedges.more())
	}

	var table bytes.Buffer
	if err := printTable(&table, r); err != nil {
		t.Fatal(err)
	}
	t.Log(table.String())
	dir := t.TempDir()
	for _, name := range []string{"tail.svg", "tail.png"} {
		if err := savePlot(filepath.Join(dir, name), r); err != nil {
			t.Fatal(err)
		}
	}
	decodePlots(t, dir)
}

func decodePlots(t *testing.T, dir string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "tail.png"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := png.Decode(bytes.NewReader(data)); err != nil {
		t.Errorf("tail.png: %v", err)
	}
	data, err = os.ReadFile(filepath.Join(dir, "tail.svg"))
	if err != nil {
		t.Fatal(err)
	}
	decoder := xml.NewDecoder(bytes.NewReader(data))
	elements := 0
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("tail.svg: %v", err)
		}
		if _, ok := token.(xml.StartElement); ok {
			elements++
		}
	}
	if elements == 0 {
		t.Error("tail.svg is empty")
	}
}

func TestEarlyStopShowsWhatWasMeasured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		time.AfterFunc(1234*time.Millisecond, cancel)
		dir := t.TempDir()
		var stdout, stderr bytes.Buffer
		if status := run(ctx, []string{"-quick", "-rate", "100", "-out", dir}, &stdout, &stderr); status != 0 {
			t.Fatalf("exit status %d:\n%s", status, &stderr)
		}
		if !strings.HasPrefix(stdout.String(), "stopped after 1.2s of 4s") {
			t.Errorf("want a table under the word that it was stopped, got:\n%s", &stdout)
		}
		decodePlots(t, dir)
	})
}

func TestStopBeforeTheFirstCall(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	var stdout, stderr bytes.Buffer
	if status := run(ctx, []string{"-quick", "-out", dir}, &stdout, &stderr); status != 0 {
		t.Fatalf("exit status %d:\n%s", status, &stderr)
	}
	decodePlots(t, dir)
}

func TestMistakesInFlags(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ args, want string }{
		{"-rate 0", "-rate is 0, must be 50 to 2000"},
		{"-rate 2001", "-rate is 2001"},
		{"-rate many", `"many"`},
		{"-quantile 1", "-quantile is 1, must be 0.5 to 0.999"},
		{"-quantile 0.4", "-quantile is 0.4"},
		{"-quantile nan", "-quantile is NaN"},
		{"-seed -1", `"-1"`},
		{"-out=", "-out is empty"},
		{"-out " + file, "-out"},
		{"-fast", "-fast"},
		{"quick", `unexpected argument "quick"`},
	} {
		t.Run(test.args, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if status := run(t.Context(), strings.Fields(test.args), &stdout, &stderr); status != 2 {
				t.Errorf("exit status %d, want 2", status)
			}
			if !strings.Contains(stderr.String(), test.want) || stdout.Len() > 0 {
				t.Errorf("want an error with %q, got %q and output %q", test.want, &stderr, &stdout)
			}
		})
	}
}

func TestHelp(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if status := run(t.Context(), []string{"-help"}, &stdout, &stderr); status != 0 {
		t.Errorf("exit status %d, want 0", status)
	}
	if !strings.Contains(stderr.String(), "-quantile share") {
		t.Errorf("help lacks -quantile:\n%s", &stderr)
	}
}
