package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A buffer is a bytes.Buffer for concurrent use.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

var address = regexp.MustCompile(`http://\S+/metrics`)

// await returns once something has happened. It is bounded by the test's own time limit.
func await(t *testing.T, what string, happened func() bool) {
	t.Helper()
	for !happened() {
		select {
		case <-t.Context().Done():
			t.Fatalf("the test ended before %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func TestRunServesMetricsLogsAndTraces(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var stdout, stderr buffer
	var running errgroup.Group
	running.Go(func() error {
		return run(ctx, []string{"-addr", "127.0.0.1:0", "-rate", "200", "-calm", "300ms", "-outage", "1s"}, &stdout, &stderr)
	})
	await(t, "the service started", func() bool { return address.MatchString(stdout.String()) })
	url := strings.TrimSuffix(address.FindString(stdout.String()), "/metrics")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	read := func(path string) string {
		response, err := client.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}

	for _, metric := range []string{
		`resilience_call_duration_seconds_count{pipeline="inventory",result="success"} [1-9]`,
		`resilience_call_duration_seconds_count{pipeline="inventory",result="refused"} [1-9]`,
		`resilience_attempts_total{pipeline="inventory"} [1-9]`,
		`resilience_events_total{event="refusal",layer="3",name="inventory",pipeline="inventory",policy="breaker"} [1-9]`,
		`resilience_events_total{event="retry",layer="2",name="",pipeline="inventory",policy="retry"} [1-9]`,
		`resilience_policy_changes_total{name="inventory",policy="breaker",to="open"} [1-9]`,
		`resilience_budget_tokens{name="inventory"} `,
	} {
		pattern := regexp.MustCompile(`(?m)^` + metric)
		await(t, metric, func() bool { return pattern.MatchString(read("/metrics")) })
	}
	var snapshot struct {
		Pipelines []struct{ Name string }
	}
	if page := read("/debug/resilience/"); !strings.Contains(page, "<h1") {
		t.Errorf("got the page:\n%s\nwant one with a heading", page)
	}
	if err := json.Unmarshal([]byte(read("/debug/pipelines")), &snapshot); err != nil || len(snapshot.Pipelines) != 1 || snapshot.Pipelines[0].Name != "inventory" {
		t.Errorf("got pipelines %v, error %v, want inventory", snapshot.Pipelines, err)
	}
	await(t, "an order succeeded", func() bool { return read("/order") == "12 in stock\n" })
	cancel()
	if err := running.Wait(); err != nil {
		t.Errorf("got error %v, want none", err)
	}
	if log := stderr.String(); !regexp.MustCompile(`level=WARN .*resilience\.to=open`).MatchString(log) {
		t.Errorf("got the log:\n%s\nwant a warning that the breaker opened", log)
	}
	if traces := stdout.String(); !regexp.MustCompile(`(?m)trace [0-9a-f]{8} inventory .*: .*refusal by breaker after`).MatchString(traces) {
		t.Errorf("got:\n%s\nwant a trace with a refusal", traces)
	}
}

func TestRunFollowsFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pipelines.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	shipped, err := os.ReadFile("pipelines.yaml")
	if err != nil {
		t.Fatal(err)
	}
	write(string(shipped))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var stdout, stderr buffer
	var running errgroup.Group
	running.Go(func() error { return run(ctx, []string{"-addr", "127.0.0.1:0", "-config", file}, &stdout, &stderr) })
	await(t, "the service started", func() bool { return address.MatchString(stdout.String()) })
	write("pipelines: {inventory: [retry: {maxAttempts: -2}]}")
	await(t, "the file was found wrong", func() bool { return strings.Contains(stderr.String(), "maxAttempts is -2") })
	write(strings.Replace(string(shipped), "limit: 150ms", "limit: 200ms", 1))
	await(t, "the file was applied", func() bool {
		return strings.Contains(stderr.String(), "changed=[pipelines.inventory[")
	})
	cancel()
	if err := running.Wait(); err != nil {
		t.Errorf("got error %v, want none", err)
	}
}

func TestRunReportsMissingFile(t *testing.T) {
	err := run(t.Context(), []string{"-addr", "127.0.0.1:0", "-config", filepath.Join(t.TempDir(), "none.yaml")}, io.Discard, io.Discard)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got error %v, want that there is no file", err)
	}
}

func TestRunReportsWrongFlags(t *testing.T) {
	for args, want := range map[string]string{
		"-rate 0":     "-rate is 0, must be from 1 to 1000",
		"-for -1s":    "-for is -1s, must not be negative",
		"-calm 0s":    "-calm is 0s and -outage is 10s, both must be positive",
		"more":        `unexpected argument "more"`,
		"-unknown":    "flag provided but not defined: -unknown",
		"-addr :::::": "too many colons",
	} {
		var stderr bytes.Buffer
		err := run(t.Context(), strings.Fields(args), io.Discard, &stderr)
		if err == nil || !strings.Contains(stderr.String()+err.Error(), want) {
			t.Errorf("%s: got error %v and\n%s\nwant %q", args, err, &stderr, want)
		}
	}
	if err := run(t.Context(), []string{"-help"}, io.Discard, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("got error %v for -help, want flag.ErrHelp", err)
	}
}
