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
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// short is a run of 3 s.
var short = config{unit: 150 * time.Millisecond, rate: 100, seed: 1}

func TestPipelineAnswersFasterAndSparesTheServer(t *testing.T) {
	result, err := measure(t.Context(), short, func(time.Duration) {})
	if err != nil {
		t.Fatal(err)
	}
	begin, _ := span(1, short.unit)
	_, end := span(2, short.unit)
	naive, pipeline := summarize(result.clients[0], begin, end, short.unit), summarize(result.clients[1], begin, end, short.unit)
	if naive.calls != pipeline.calls {
		t.Errorf("naive made %d calls and the pipeline %d, must be the same load", naive.calls, pipeline.calls)
	}
	if pipeline.p50 >= naive.p50 {
		t.Errorf("in the outage half of the pipeline's calls ended in %v, the naive client's in %v", pipeline.p50, naive.p50)
	}
	if pipeline.p99 >= naive.p99 {
		t.Errorf("in the outage 99 %% of the pipeline's calls ended in %v, the naive client's in %v", pipeline.p99, naive.p99)
	}
	if pipeline.requests >= naive.requests {
		t.Errorf("in the outage the pipeline sent %d requests, the naive client %d", pipeline.requests, naive.requests)
	}
	if len(result.clients[1].breaker) < 2 {
		t.Error("the breaker never changed its state")
	}

	var table bytes.Buffer
	if err := printTable(&table, result); err != nil {
		t.Fatal(err)
	}
	for _, phase := range script {
		if !strings.Contains(table.String(), phase.name) {
			t.Errorf("the table lacks the phase %q:\n%s", phase.name, &table)
		}
	}
	t.Log(table.String())
	checkPlots(t, result)
}

func TestCompanionsAreAThirdClient(t *testing.T) {
	cfg := short
	cfg.companions = true
	result, err := measure(t.Context(), cfg, func(time.Duration) {})
	if err != nil {
		t.Fatal(err)
	}
	if len(result.clients) != 3 {
		t.Fatalf("%d clients, want 3", len(result.clients))
	}
	begin, _ := span(1, cfg.unit)
	_, end := span(2, cfg.unit)
	naive, third := summarize(result.clients[0], begin, end, cfg.unit), summarize(result.clients[2], begin, end, cfg.unit)
	if third.calls != naive.calls {
		t.Errorf("naive made %d calls and that with companions %d, must be the same load", naive.calls, third.calls)
	}
	if third.p99 >= naive.p99 || third.requests >= naive.requests {
		t.Errorf("in the outage that with companions took %v (p99) and sent %d requests, the naive one %v and %d", third.p99, third.requests, naive.p99, naive.requests)
	}
	if len(result.clients[2].breaker) < 2 {
		t.Error("its breaker never changed its state")
	}
	var table bytes.Buffer
	if err := printTable(&table, result); err != nil {
		t.Fatal(err)
	}
	if rows := strings.Count(table.String(), "companions"); rows != len(script) {
		t.Errorf("the table has %d rows of the third client, want one for each phase:\n%s", rows, &table)
	}
	t.Log(table.String())
	checkPlots(t, result)
}

// checkPlots saves the plots and decodes them.
func checkPlots(t *testing.T, r *result) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"outage.svg", "outage.png"} {
		if err := savePlot(filepath.Join(dir, name), r); err != nil {
			t.Fatal(err)
		}
	}
	decodePlots(t, dir)
}

func decodePlots(t *testing.T, dir string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "outage.png"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := png.Decode(bytes.NewReader(data)); err != nil {
		t.Errorf("outage.png: %v", err)
	}
	data, err = os.ReadFile(filepath.Join(dir, "outage.svg"))
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
			t.Fatalf("outage.svg: %v", err)
		}
		if _, ok := token.(xml.StartElement); ok {
			elements++
		}
	}
	if elements == 0 {
		t.Error("outage.svg is empty")
	}
}

func TestEarlyStopShowsWhatWasMeasured(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	dir := t.TempDir()
	var stdout, stderr bytes.Buffer
	stopper := writerFunc(func(p []byte) (int, error) { // stops when the progress tells of the slow phase
		if bytes.Contains(p, []byte(script[1].name)) {
			cancel()
		}
		return stderr.Write(p)
	})
	if status := run(ctx, []string{"-quick", "-out", dir}, &stdout, stopper); status != 0 {
		t.Fatalf("exit status %d:\n%s", status, &stderr)
	}
	if out := stdout.String(); !strings.HasPrefix(out, "stopped after") || strings.Contains(out, script[2].name) {
		t.Errorf("want a table of the first phases under the word that it was stopped, got:\n%s", out)
	}
	decodePlots(t, dir)
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
		{"-rate 0", "-rate is 0, must be 10 to 200"},
		{"-rate 201", "-rate is 201"},
		{"-rate many", `"many"`},
		{"-seed -1", `"-1"`},
		{"-quick=perhaps", `"perhaps"`},
		{"-out=", "-out is empty"},
		{"-out " + file, "-out"},
		{"-fast", "-fast"},
		{"quick", `unexpected argument "quick"`},
		{"-quick 5", `unexpected argument "5"`},
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
	if !strings.Contains(stderr.String(), "-rate calls") {
		t.Errorf("help lacks -rate:\n%s", &stderr)
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
