package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience/examples/internal/programtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// simulated holds the results of simulate, which several tests look at.
var simulated = map[config]*result{}

// simulate measures in virtual time, over HTTP in memory.
func simulate(t *testing.T, cfg config) (r *result) {
	t.Helper()
	if r := simulated[cfg]; r != nil {
		return r
	}
	defer func() { simulated[cfg] = r }()
	synctest.Test(t, func(t *testing.T) {
		var err error
		if r, err = measure(t.Context(), cfg, pipes(), func(time.Duration) {}); err != nil {
			t.Fatal(err)
		}
	})
	return r
}

// scenarios are the default run and variations of it. The end of the trouble meets the pipeline's
// breaker at different moments of its open time.
func scenarios() (all []config) {
	all = append(all, config{load: 0.6, trouble: 5 * time.Second, after: 20 * time.Second, seed: 1})
	for i, length := range []time.Duration{3000, 4000, 5700} {
		all = append(all, config{load: 0.6, trouble: length * time.Millisecond, after: 6 * time.Second, seed: uint64(i + 2)})
	}
	return all
}

func TestNaiveStaysDownAfterTrouble(t *testing.T) {
	for _, cfg := range scenarios() {
		t.Run(cfg.trouble.String(), func(t *testing.T) {
			naive := simulate(t, cfg).clients[0]
			if s := summarize(naive, cfg, before); s.good != 1 || s.requests != 1 {
				t.Errorf("before the trouble: %.3f good answers and %.3f requests per call, want 1 and 1", s.good, s.requests)
			}
			s := summarize(naive, cfg, after)
			if s.good != 0 {
				t.Errorf("after the trouble: %.3f good answers, want 0", s.good)
			}
			if load := s.requests * cfg.rate(); load <= capacity {
				t.Errorf("after the trouble: %.0f requests per second, want more than the capacity of %.0f", load, capacity)
			}
			if took, ok := recovery(naive, cfg); ok {
				t.Errorf("recovered after %v, want never", took)
			}
		})
	}
}

func TestPipelineRecoversWithinSeconds(t *testing.T) {
	for _, cfg := range scenarios() {
		t.Run(cfg.trouble.String(), func(t *testing.T) {
			pipeline := simulate(t, cfg).clients[1]
			if s := summarize(pipeline, cfg, before); s.good != 1 || s.requests != 1 {
				t.Errorf("before the trouble: %.3f good answers and %.3f requests per call, want 1 and 1", s.good, s.requests)
			}
			if s := summarize(pipeline, cfg, after); s.good < 0.5 || s.requests > 1.1 {
				t.Errorf("after the trouble: %.3f good answers and %.3f requests per call, want at least 0.5 and at most 1.1", s.good, s.requests)
			}
			took, ok := recovery(pipeline, cfg)
			if !ok || took > 3*time.Second {
				t.Fatalf("recovered after %v (%t), want 3s at most", took, ok)
			}
			begin, _ := cfg.span(after)
			for _, call := range pipeline.calls {
				if call.at > begin+took+time.Second && !call.good() {
					t.Fatalf("the call at %v failed after the recovery at %v", call.at, begin+took)
				}
			}
			if len(pipeline.states) < 3 {
				t.Errorf("states of the breaker: %v, want it to open and to close", pipeline.states)
			}
		})
	}
}

func TestPipelineKeepsPatienceDuringTrouble(t *testing.T) {
	cfg := scenarios()[0]
	r := simulate(t, cfg)
	for _, c := range r.clients {
		for _, call := range c.calls {
			if call.took > patience {
				t.Fatalf("%s: the call at %v took %v, want %v at most", c.name, call.at, call.took, patience)
			}
		}
	}
}

func TestNaiveRecoversAtLowLoad(t *testing.T) {
	cfg := scenarios()[0]
	cfg.load = 0.2 // four attempts per call are less than the capacity
	took, ok := recovery(simulate(t, cfg).clients[0], cfg)
	if !ok || took == 0 {
		t.Errorf("recovered after %v (%t), want it to recover, but not immediately", took, ok)
	}
}

// The server has a tenth of its capacity after the trouble and warms up over 10 s. Without a slow
// start it is overrun again and again; with a slow start of 10 s, never.
func TestSlowStartDoesNotOverrunColdServer(t *testing.T) {
	for _, seed := range []uint64{1, 2} {
		cfg := scenarios()[0]
		cfg.warmUp, cfg.after, cfg.seed = 10*time.Second, 15*time.Second, seed
		r := simulate(t, cfg)
		plain, slowStart := r.clients[1], r.clients[2]
		good := summarize(plain, cfg, after).good
		if n := overruns(plain); n < 3 || good > 0.2 {
			t.Errorf("without a slow start: got %d overruns and %.3f good answers, want at least 3 and at most 0.2", n, good)
		}
		good = summarize(slowStart, cfg, after).good
		if n := overruns(slowStart); n != 0 || good < 0.5 {
			t.Errorf("with a slow start: got %d overruns and %.3f good answers, want 0 and at least 0.5", n, good)
		}
		begin, _ := cfg.span(after)
		for _, c := range slowStart.calls {
			if c.at > begin+13*time.Second && !c.good() {
				t.Fatalf("with a slow start: the call at %v failed, want all answered after the slow start", c.at)
			}
		}
		var table bytes.Buffer
		if err := printTable(&table, r); err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("naive %d, pipeline %d, slow start 0\n", overruns(r.clients[0]), overruns(plain)); !strings.Contains(table.String(), want) {
			t.Errorf("got\n%s, want %q", &table, want)
		}
	}
}

func TestPlotHasColorForEveryClient(t *testing.T) {
	all := config{parts: true, warmUp: time.Second}.clients()
	if len(all) != 6 || len(clientColors) < len(all) || len(clientWidths) < len(all) {
		t.Errorf("got %d colors and %d widths for %d clients, want at least 6 of each for 6", len(clientColors), len(clientWidths), len(all))
	}
}

func TestPartsRecoverAlone(t *testing.T) {
	cfg := scenarios()[0]
	cfg.parts, cfg.after = true, 9*time.Second
	r := simulate(t, cfg)
	for _, want := range []struct {
		name    string
		atMost  time.Duration
		breaker bool
	}{{"budget only", 8 * time.Second, false}, {"breaker only", 3 * time.Second, true}, {"limit only", time.Second, false}} {
		i := slices.IndexFunc(r.clients, func(c *client) bool { return c.name == want.name })
		if i < 0 {
			t.Fatalf("got no client %q", want.name)
		}
		c := r.clients[i]
		if took, ok := recovery(c, cfg); !ok || took > want.atMost {
			t.Errorf("%s: recovered after %v (%t), want %v at most", c.name, took, ok, want.atMost)
		}
		if got := len(c.states) > 1; got != want.breaker {
			t.Errorf("%s: a breaker that changes its state: got %t, want %t", c.name, got, want.breaker)
		}
	}
}

func TestRecoveryFindsFirstGoodSecond(t *testing.T) {
	cfg := config{load: 0.1, trouble: time.Second, after: 10 * time.Second} // 20 calls per second
	begin, _ := cfg.span(after)
	calls := func(bad func(i int) bool) *client {
		c := &client{}
		for i := 199; i >= 0; i-- { // in any order
			c.calls = append(c.calls, call{at: begin + time.Duration(i)*50*time.Millisecond, ok: !bad(i)})
		}
		c.calls = append(c.calls, call{at: begin - 1, ok: false}, call{at: 0, ok: true})
		return c
	}
	for _, test := range []struct {
		name string
		bad  func(i int) bool
		want time.Duration
		ok   bool
	}{
		{"all good", func(i int) bool { return false }, 0, true},
		{"all bad", func(i int) bool { return true }, 0, false},
		{"bad for 3 s", func(i int) bool { return i < 60 }, 2950 * time.Millisecond, true}, // one of twenty may be bad
		{"two bad of twenty", func(i int) bool { return i%10 == 0 }, 0, false},
		{"less than a second good", func(i int) bool { return i < 182 }, 0, false},
	} {
		if got, ok := recovery(calls(test.bad), cfg); got != test.want || ok != test.ok {
			t.Errorf("%s: %v, %t; want %v, %t", test.name, got, ok, test.want, test.ok)
		}
	}
}

func TestSummarizeCountsAnswersWithinPatience(t *testing.T) {
	cfg := config{load: 0.1, trouble: time.Second, after: time.Second}
	c := &client{
		calls:    []call{{0, patience, true}, {1, patience + 1, true}, {2, 7, false}, {beforeLength - 1, 9, true}, {beforeLength, 8, true}},
		arrivals: []time.Duration{0, 1, 2, 3, 4, beforeLength - 1, beforeLength},
	}
	want := summary{calls: 4, good: 0.5, median: 9, requests: 1.5}
	if got := summarize(c, cfg, before); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := summarize(c, cfg, after); got != (summary{}) {
		t.Errorf("without calls: got %+v, want zero", got)
	}
}

func TestServerWorksForCallersThatHaveGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(time.Now(), config{trouble: time.Second, after: time.Second})
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		request := httptest.NewRequestWithContext(gone, http.MethodGet, "/", nil)
		start := time.Now()
		s.ServeHTTP(httptest.NewRecorder(), request)
		if took := time.Since(start); took < pace/2 {
			t.Errorf("worked for %v, want at least %v", took, pace/2)
		}
	})
}

func TestServerRefusesRequestsBeyondQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(time.Now(), config{trouble: time.Second, after: time.Second})
		statuses := make([]int, workers+queueSize+3)
		var requests errgroup.Group
		for i := range statuses {
			requests.Go(func() error {
				w := httptest.NewRecorder()
				s.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
				statuses[i] = w.Code
				return nil
			})
			synctest.Wait() // the first ones get the workers, the others queue
		}
		requests.Wait()
		for i, status := range statuses {
			want := http.StatusOK
			if i >= workers+queueSize {
				want = http.StatusServiceUnavailable
			}
			if status != want {
				t.Fatalf("request %d: status %d, want %d", i, status, want)
			}
		}
	})
}

func TestRunPrintsGoodAnswersFirst(t *testing.T) {
	dir := t.TempDir()
	var got programtest.Result
	synctest.Test(t, func(t *testing.T) {
		got = programtest.Run(t.Context(), "outage", pipes().run, "-after", "4s", "-out", dir)
	})
	if got.Status != 0 {
		t.Fatalf("got exit status %d, want 0:\n%s", got.Status, got.Stderr)
	}
	columns := []string{"client", "after the trouble", "after", "before"}
	line := lineWith(got.Stdout, "client")
	for _, column := range columns {
		_, rest, ok := strings.Cut(line, column)
		if !ok {
			t.Fatalf("the table lacks the columns %q in this order:\n%s", columns, got.Stdout)
		}
		line = rest
	}
	if naive := strings.Fields(lineWith(got.Stdout, "naive")); len(naive) < 2 || naive[1] != "0.0%" {
		t.Errorf("row of the naive client: %q, want 0.0%% first", naive)
	}
	programtest.CheckFiles(t, dir, got.Stdout, plots...)
}

// plots are the files that the program writes.
var plots = []string{"outage.svg", "outage.png"}

// lineWith returns the first line of the text whose first word is the given one.
func lineWith(text, word string) string {
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); len(fields) > 0 && fields[0] == word {
			return line
		}
	}
	return ""
}

func TestRunReportsWhatItHasWhenInterrupted(t *testing.T) {
	for _, at := range []time.Duration{0, 1, 5500 * time.Millisecond, 10200 * time.Millisecond} {
		t.Run(at.String(), func(t *testing.T) {
			dir := t.TempDir()
			var got programtest.Result
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeoutCause(t.Context(), at, context.Canceled)
				defer cancel()
				got = programtest.Run(ctx, "outage", pipes().run, "-out", dir)
			})
			if got.Status != 130 {
				t.Errorf("got exit status %d, want 130:\n%s", got.Status, got.Stderr)
			}
			if want := fmt.Sprintf("stopped after %v of 30s", at.Round(100*time.Millisecond)); !strings.HasPrefix(got.Stdout, want) {
				t.Errorf("got the output below, want one that begins with %q:\n%s", want, got.Stdout)
			}
			programtest.CheckFiles(t, dir, got.Stdout, plots...)
		})
	}
}

func TestMeasureFinishesCallsWhenInterrupted(t *testing.T) {
	cfg := scenarios()[0]
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		time.AfterFunc(beforeLength+time.Second, cancel) // too early for the queue to be full
		starts := 0
		r, err := measure(ctx, cfg, pipes(), func(time.Duration) { starts++ })
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range r.clients {
			if len(c.calls) != starts {
				t.Errorf("%s: recorded %d calls, want all %d", c.name, len(c.calls), starts)
			}
		}
		for _, call := range r.clients[0].calls {
			if !call.ok && call.took < 3*attemptLimit {
				t.Errorf("naive: the call at %v failed after %v, want at least %v", call.at, call.took, 3*attemptLimit)
			}
		}
	})
}

// TestRunUsesLoopback starts real servers, and stops when the run has begun.
func TestRunUsesLoopback(t *testing.T) {
	dir := t.TempDir()
	got := programtest.RunUntil(t.Context(), before.String(), "outage", loopback.run, "-out", dir)
	if got.Status != 130 {
		t.Errorf("got exit status %d, want 130:\n%s", got.Status, got.Stderr)
	}
	programtest.CheckFiles(t, dir, got.Stdout, plots...)
}

func TestRunReportsUsageErrors(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ args, want string }{
		{"-load 0", "-load is 0, must be 0.1 to 0.9"},
		{"-load 1", "-load is 1, must be"},
		{"-load nan", "-load is NaN"},
		{"-load much", `"much"`},
		{"-trouble 0s", "-trouble is 0s, must be 1s to 10m0s"},
		{"-trouble 1h", "-trouble is 1h0m0s"},
		{"-after 20", `"20"`},
		{"-after 0s", "-after is 0s, must be 1s to 10m0s"},
		{"-after 11m", "-after is 11m0s"},
		{"-seed -1", `"-1"`},
		{"-parts=perhaps", `"perhaps"`},
		{"-warm-up -1s", "-warm-up is -1s, must be 0s to 10m0s"},
		{"-warm-up 11m", "-warm-up is 11m0s"},
		{"-out=", "-out"},
		{"-out " + file, "-out"},
		{"-fast", "-fast"},
		{"parts", `unexpected argument "parts"`},
	} {
		t.Run(test.args, func(t *testing.T) {
			got := programtest.Run(t.Context(), "outage", loopback.run, strings.Fields(test.args)...)
			if got.Status != 2 || !strings.Contains(got.Stderr, test.want) || got.Stdout != "" {
				t.Errorf("got %+v, want exit status 2 and only an error with %q", got, test.want)
			}
		})
	}
}

func TestRunPrintsHelp(t *testing.T) {
	got := programtest.Run(t.Context(), "outage", loopback.run, "-help")
	if got.Status != 0 {
		t.Errorf("got exit status %d, want 0", got.Status)
	}
	if !strings.Contains(got.Stderr, "-load share") {
		t.Errorf("help lacks -load:\n%s", got.Stderr)
	}
}
