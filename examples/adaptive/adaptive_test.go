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

	"github.com/effector-go/resilience/examples/internal/program"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestQueueIsWithinFifthInEveryPhase, at the cost of no more than a tenth of the answers or of the
// round trip.
func TestQueueIsWithinFifthInEveryPhase(t *testing.T) {
	for _, workers := range []int{100, 160} {
		for _, seed := range share(t, 0, []uint64{0, 1}) {
			r := simulate(config{workers: workers, seed: seed}, laws[0])
			for i, p := range script {
				s := summarize(r, i, workers)
				right := p.workers(workers)
				if s.off > 0.2 || s.off < -0.2 {
					t.Errorf("%d workers, seed %d, %s: limit from %d to %d, want %d", workers, seed, p.name, s.least, s.most, right)
				}
				if all := float64(right) / p.pace.Seconds(); s.rate < 0.9*all || s.took > p.pace*11/10 {
					t.Errorf("%d workers, seed %d, %s: %.0f answers/s of %.0f, in %v", workers, seed, p.name, s.rate, all, s.took)
				}
			}
		}
	}
}

// TestPublishedLawsMissLimit checks the reason for another law.
func TestPublishedLawsMissLimit(t *testing.T) {
	for _, l := range laws[1:] {
		r := simulate(config{workers: 100, seed: 1}, l)
		if s := summarize(r, 1, 100); s.off > -0.36 && s.off < 0.36 {
			t.Errorf("%s: limit from %d to %d for 50 workers", l.name, s.least, s.most)
		}
	}
}

// TestQueueAdmitsCallsThatVary checks the second table: Queue refuses few calls of a healthy
// server, and keeps few workers busy without a long wait.
func TestQueueAdmitsCallsThatVary(t *testing.T) {
	cfg := config{seed: 1, measured: measured}
	for _, d := range share(t, 4, distributions) {
		if refused, _, _ := steady(cfg, laws[0], d, endless, healthyCallers); refused > 0.03 {
			t.Errorf("%s: %.3f refused, want at most 0.03", d.name, refused)
		}
		if _, busy, wait := steady(cfg, laws[0], d, fewWorkers, 4*fewWorkers); busy < 0.9 || wait > 0.5 {
			t.Errorf("%s: %.2f of the workers busy, want 0.9; wait %.2f, want at most 0.5", d.name, busy, wait)
		}
	}
}

// share returns one of the cases, which always runs, or all of them if PROOF_TIMES is set.
func share[C any](t *testing.T, always int, cases []C) []C {
	t.Helper()
	if os.Getenv("PROOF_TIMES") != "" {
		return cases
	}
	t.Logf("%v, 1 of %d cases: PROOF_TIMES=1 runs the others as well", cases[always], len(cases))
	return cases[always : always+1]
}

func TestVegasFollowsItsQueue(t *testing.T) {
	v := &vegas{limit: 100, least: 10, jitter: 1e6}
	if v.sample(10, 100); v.limit != 112 { // no queue: by 6 × log10 of the limit
		t.Errorf("%v, want 112", v.limit)
	}
	v.limit = 100
	if v.sample(10.8, 100); v.limit != 100 { // 8 queue: between 6 and 12
		t.Errorf("%v, want 100", v.limit)
	}
	if v.sample(20, 100); v.limit != 98 {
		t.Errorf("%v, want 98", v.limit)
	}
	if v.sample(20, 10); v.limit != 98 {
		t.Errorf("%v with few calls, want 98", v.limit)
	}
}

func TestGradient2FollowsItsAverages(t *testing.T) {
	g := &gradient2{limit: 100}
	g.sample(10, 100)
	if g.limit != 100.8 { // a fifth of 4 more
		t.Errorf("got %v, want 100.8", g.limit)
	}
	g = &gradient2{limit: 100, long: 10, samples: 10}
	g.sample(60, 100) // six times as long: half, and 4
	if g.limit != 90.8 {
		t.Errorf("got %v, want 100.8", g.limit)
	}
	g.sample(10, 10)
	if g.limit != 90.8 {
		t.Errorf("got %v with few calls, want 90.8", g.limit)
	}
}

func TestRunIsTheSameForTheSameSeed(t *testing.T) {
	var outs [2]bytes.Buffer
	for i := range outs {
		var stderr bytes.Buffer
		dir := t.TempDir()
		if status := program.Run(t.Context(), "adaptive", run, []string{"-quick", "-workers", "20", "-out", dir}, &outs[i], &stderr); status != 0 {
			t.Fatalf("exit status %d:\n%s", status, &stderr)
		}
		decodePlots(t, dir)
	}
	table := func(b *bytes.Buffer) string { before, _, _ := strings.Cut(b.String(), "wrote "); return before }
	if first, second := table(&outs[0]), table(&outs[1]); first != second || first == "" {
		t.Errorf("two runs differ:\n%s\n%s", first, second)
	}
	for _, l := range laws {
		if !strings.Contains(outs[0].String(), l.name) {
			t.Errorf("the table lacks %s", l.name)
		}
	}
}

func decodePlots(t *testing.T, dir string) {
	t.Helper()
	for _, name := range []string{"adaptive-limit", "adaptive-spread"} {
		decodePlot(t, filepath.Join(dir, name))
	}
}

func decodePlot(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path + ".png")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := png.Decode(bytes.NewReader(data)); err != nil {
		t.Error(err)
	}
	file, err := os.Open(path + ".svg")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	decoder := xml.NewDecoder(file)
	elements := 0
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := token.(xml.StartElement); ok {
			elements++
		}
	}
	if elements < 10 {
		t.Errorf("%d elements in the SVG", elements)
	}
}

func TestRunReportsUsageErrors(t *testing.T) {
	for want, args := range map[string][]string{
		"-workers is 19, must be 20 to 400": {"-workers", "19"},
		"-out":                              {"-out", ""},
		`unexpected argument "x"`:           {"x"},
		"-x":                                {"-x"},
	} {
		var stdout, stderr bytes.Buffer
		if status := program.Run(t.Context(), "adaptive", run, args, &stdout, &stderr); status != 2 || !strings.Contains(stderr.String(), want) || stdout.Len() > 0 {
			t.Errorf("%q: exit status %d, %s, want 2 and an error with %q", args, status, &stderr, want)
		}
	}
	var stdout, stderr bytes.Buffer
	if status := program.Run(t.Context(), "adaptive", run, []string{"-help"}, &stdout, &stderr); status != 0 || !strings.Contains(stderr.String(), "-workers number") {
		t.Errorf("-help: exit status %d, %s", status, &stderr)
	}
}

func TestRunStopsWhenInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stdout, stderr bytes.Buffer
	if status := program.Run(ctx, "adaptive", run, []string{"-quick", "-out", t.TempDir()}, &stdout, &stderr); status != 130 || stdout.Len() > 0 {
		t.Errorf("exit status %d with the output %s, want 130 and none", status, &stdout)
	}
}

func TestWorldRunsEventsInOrder(t *testing.T) {
	var w world
	var order []int
	for i, d := range []time.Duration{3, 1, 2, 1, 9} {
		w.after(d, func() { order = append(order, i) })
	}
	w.run(9)
	if want := []int{1, 3, 2, 0}; len(order) != 4 || order[0] != want[0] || order[1] != want[1] || order[2] != want[2] || order[3] != want[3] {
		t.Errorf("%v, want %v", order, want)
	}
}
