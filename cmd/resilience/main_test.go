package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/effector-go/resilience/resilienceconfig"
	"github.com/effector-go/resilience/sim"
)

// TestMain makes the test binary the program itself, if a test starts it as that.
func TestMain(m *testing.M) {
	if os.Getenv("RESILIENCE_PROGRAM") != "" {
		main()
	}
	os.Exit(m.Run())
}

func command(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "RESILIENCE_PROGRAM=1")
	return cmd
}

// execute runs the program.
func execute(t *testing.T, args ...string) (out, errOut string, status int) {
	t.Helper()
	cmd := command(args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var e *exec.ExitError
	if err != nil && !errors.As(err, &e) {
		t.Fatal(err)
	}
	return stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
}

// quick makes a simulation of the guide's pipeline short.
func quick(args ...string) []string {
	return append([]string{args[0], "-rate", "50", "-runs", "2", "-length", "12s"}, args[1:]...)
}

func TestProgramExplainsItself(t *testing.T) {
	for _, test := range []struct {
		args []string
		want []string
	}{
		{[]string{"help"}, []string{"Usage:\n", "resilience tune FILE"}},
		{[]string{"-h"}, []string{"Usage:\n", "resilience tune FILE"}},
		{[]string{"simulate", "-h"}, []string{"Usage: resilience simulate [FILE]", "-rate RATE\n", "-out FILE\n", "(default all)"}},
		{[]string{"tune", "--help"}, []string{"Usage: resilience tune FILE", "-rate RATE\n", "-vary values\n", "(default: the only one in the file)"}},
		{[]string{"check", "-h"}, []string{"Usage: resilience check [-effective] FILE...\n", "-effective\n"}},
		{[]string{"schema", "-h"}, []string{"Usage: resilience schema\n"}},
	} {
		out, errOut, status := execute(t, test.args...)
		for _, want := range test.want {
			if status != fine || !strings.Contains(out, want) || errOut != "" {
				t.Errorf("%q: got %d, %q, %q, want 0 and %q", test.args, status, out, errOut, want)
			}
		}
	}
	if out, errOut, status := execute(t); status != misused || !strings.Contains(errOut, "Usage") || out != "" {
		t.Errorf("got %d, %q, want 2 and the usage", status, errOut)
	}
}

func TestCheckReportsErrorsWithPlaces(t *testing.T) {
	out, errOut, status := execute(t, "check", "testdata/guide.yaml", "testdata/broken.yaml", "testdata/missing.yaml")
	if status != bad || out != "" {
		t.Errorf("got %d, %q, want 1 and nothing", status, out)
	}
	for _, want := range []string{
		"testdata/broken.yaml:3:28: pipelines.users[0].retry.maxAttempts is -2",
		"testdata/broken.yaml:4:24: pipelines.users[1].timeout.limit",
		"testdata/missing.yaml",
	} {
		if !strings.Contains(errOut, want) {
			t.Errorf("got %q, want %q", errOut, want)
		}
	}
	if out, errOut, status := execute(t, "check", "testdata/guide.yaml"); status != fine || out+errOut != "" {
		t.Errorf("got %d, %q, %q for a valid file, want 0 and nothing", status, out, errOut)
	}
}

func TestCheckPrintsEffectiveFile(t *testing.T) {
	out, errOut, status := execute(t, "check", "testdata/guide.yaml", "-effective")
	if status != fine || errOut != "" || !strings.Contains(out, "probes: 1") {
		t.Errorf("got %d, %q, %s, want the file with defaults", status, errOut, out)
	}
	if _, err := resilienceconfig.Parse([]byte(out), resilienceconfig.Options{}); err != nil {
		t.Errorf("got %v, want a valid file", err)
	}
}

func TestCheckAcceptsFunctionsOfAnotherProgram(t *testing.T) {
	if _, errOut, status := execute(t, "check", "testdata/functions.yaml"); status != fine {
		t.Errorf("got %d, %q, want 0", status, errOut)
	}
	out, errOut, status := execute(t, quick("simulate", "testdata/functions.yaml", "-incident", "errors-100", "-length", "45s")...)
	if status != fine || !strings.Contains(out, "users") {
		t.Errorf("got %d, %q, %q, want 0 and a report", status, out, errOut)
	}
}

func TestSchemaPrintsSchema(t *testing.T) {
	out, errOut, status := execute(t, "schema")
	if status != fine || errOut != "" || !json.Valid([]byte(out)) || out != string(resilienceconfig.Schema()) {
		t.Errorf("got %d, %q, %.100s, want the schema", status, errOut, out)
	}
}

func TestCompletionPrintsScripts(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		out, errOut, status := execute(t, "completion", shell)
		if status != fine || errOut != "" || !strings.Contains(out, "one-of-many") || !strings.Contains(out, "good-within") {
			t.Errorf("%s: got %d, %q, %s, want a script", shell, status, errOut, out)
		}
	}
	script, _, _ := execute(t, "completion", "bash")
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skipf("the script was not executed: %v", err)
	}
	for words, want := range map[string]string{
		"sim":                "simulate",
		"check -":            "-effective",
		"simulate -inc":      "-incident",
		"simulate -o":        "-out",
		"tune -v":            "-vary",
		"tune -incident one": "one-of-many",
		"completion b":       "bash",
		"simulate -vary":     "",
		"tune -out":          "",
	} {
		const complete = "%s\nCOMP_WORDS=(resilience %s); COMP_CWORD=%d; _resilience; echo ${COMPREPLY[@]}"
		cmd := exec.Command(bash, "-c", fmt.Sprintf(complete, script, words, len(strings.Fields(words))))
		if out, err := cmd.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != want {
			t.Errorf("%s: got %q, %v, want %q", words, out, err, want)
		}
	}
}

// TestProgramRefusesHostileFilesSoon has files that would take the YAML parser from minutes to hours, or
// more memory than there is.
func TestProgramRefusesHostileFilesSoon(t *testing.T) {
	var aliases strings.Builder
	aliases.WriteString("a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n")
	for i := range 12 {
		fmt.Fprintf(&aliases, "a%d: &a%d [%s*a%d]\n", i+1, i+1, strings.Repeat(fmt.Sprintf("*a%d, ", i), 9), i)
	}
	block := "pipelines: {}\nrate: |\n"
	for name, text := range map[string]string{
		"blank lines": block + strings.Repeat("  \n", 300_000),
		"brackets":    strings.Repeat("[", 19_000),
		"keys":        strings.Repeat("a: 1\n", 40_000),
		"size":        "rate: " + strings.Repeat("x", 1<<20),
		"aliases":     aliases.String(),
	} {
		path := filepath.Join(t.TempDir(), "hostile.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"check", path}, {"simulate", "-scenario", path}} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			cmd := exec.CommandContext(ctx, os.Args[0], args...)
			cmd.Env = append(os.Environ(), "RESILIENCE_PROGRAM=1", "GOMEMLIMIT=1GiB")
			out, _ := cmd.CombinedOutput()
			cancel()
			if got := cmd.ProcessState.ExitCode(); got != bad || len(out) > 20_000 || !strings.Contains(string(out), "hostile.yaml:") {
				t.Errorf("%s, %s: got status %d and %.300q, want 1 and a short error soon", name, args[0], got, out)
			}
		}
	}
}

func TestSimulateComparesPipelinesOfExample(t *testing.T) {
	out, errOut, status := execute(t, quick("simulate", "-incident", "calm")...)
	for _, want := range []string{"calm\n50 calls per second for 12s", "naive", "budget", "guide", "no incident"} {
		if !strings.Contains(out, want) {
			t.Errorf("got %d, %q, %s, want %q", status, errOut, out, want)
		}
	}
	if status != fine || errOut != "" {
		t.Errorf("got %d, %q, want 0 and no progress without a terminal", status, errOut)
	}
}

func TestSimulateGivesFlagsPrecedenceOverExample(t *testing.T) {
	out, errOut, status := execute(t, "simulate", "-clients", "3", "-runs", "1", "-length", "1s", "-service", "fixed(1ms)", "-incident", "calm")
	for _, want := range []string{"240 calls per second for 1s from 3 clients", "; 1 run\n", "service fixed(1ms)"} {
		if status != fine || !strings.Contains(out, want) {
			t.Errorf("got %d, %q, %s, want %q", status, errOut, out, want)
		}
	}
}

func TestSimulateWritesReports(t *testing.T) {
	dir := t.TempDir()
	for ext, want := range map[string]string{".html": "<!DOCTYPE html>", ".json": `"metastable"`, ".csv": "pipeline,at,offered", ".txt": "pipeline"} {
		path := filepath.Join(dir, "report"+ext)
		if _, errOut, status := execute(t, quick("simulate", "testdata/guide.yaml", "-out", path)...); status != fine {
			t.Fatalf("%s: got %d, %s", ext, status, errOut)
		}
		if text, err := os.ReadFile(path); err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s: got %.100s, %v, want %q", ext, text, err, want)
		}
	}
	path := filepath.Join(dir, "r.json")
	if _, errOut, status := execute(t, quick("simulate", "testdata/guide.yaml", "-incident", "one-of-many,surge", "-out", path)...); status != fine {
		t.Fatalf("got %d, %s", status, errOut)
	}
	for name, replicas := range map[string]int{"r-one-of-many.json": 3, "r-surge.json": 1} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		var r sim.Report
		if err != nil || json.Unmarshal(text, &r) != nil || r.Scenario.Server.Replicas != replicas || len(r.Scenario.Incidents) != 1 {
			t.Errorf("%s: got %+v, %v, want %d replicas and an incident", name, r.Scenario, err, replicas)
		}
	}
}

func TestSimulateReadsScenarioAndTrace(t *testing.T) {
	dir := t.TempDir()
	scenario := func(args ...string) sim.Scenario {
		t.Helper()
		path := filepath.Join(dir, "r.json")
		if out, errOut, status := execute(t, append([]string{"simulate", "testdata/guide.yaml", "-out", path}, args...)...); status != fine {
			t.Fatalf("%q: got %d, %s%s", args, status, out, errOut)
		}
		text, err := os.ReadFile(path)
		var r sim.Report
		if err != nil || json.Unmarshal(text, &r) != nil {
			t.Fatalf("%q: got %v, want a report", args, err)
		}
		return r.Scenario
	}
	s := scenario("-scenario", "testdata/scenario.yaml")
	if s.Name != "half" || s.Rate.String() != "steps(0s: 50, 5s: 100)" || s.Length != 20*time.Second || len(s.Incidents) != 1 || s.Incidents[0].Fail != 0.5 {
		t.Errorf("got %+v, want the scenario of the file", s)
	}
	s = scenario("-scenario", "testdata/scenario.yaml", "-rate", "20", "-service", "fixed(1ms)", "-workers", "2", "-replicas", "2", "-clients", "3", "-runs", "1", "-length", "10s", "-good-within", "2s")
	if s.Rate.String() != "20" || s.Server.Service.String() != "fixed(1ms)" || s.Server.Workers != 2 || s.Server.Replicas != 2 || s.Clients != 3 || s.Runs != 1 || s.Length != 10*time.Second || s.GoodWithin != 2*time.Second {
		t.Errorf("got %+v, want what the flags say", s)
	}
	s = scenario("-trace", "testdata/trace.csv", "-runs", "1")
	if s.Rate.String() != "replay of 100 calls" || s.Server.Service.String() != "100 recorded times, mean 12ms" {
		t.Errorf("got %+v, want the trace", s)
	}
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	again := filepath.Join(dir, "again.json")
	if err := os.WriteFile(again, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if s := scenario("-scenario", again); s.Rate.String() != "replay of 100 calls" {
		t.Errorf("got %+v from JSON, want the same", s)
	}
}

func TestSimulateChecksGoals(t *testing.T) {
	out, _, status := execute(t, quick("simulate", "testdata/guide.yaml", "-incident", "errors-100", "-length", "100s", "-goal", "before>=0.99", "-goal", "during>=0.5,recovery<=1m,p99<=1s")...)
	if status != bad || !regexp.MustCompile(`missed: errors-100: users: during is 0\.?\d*, must be >=0.5\n`).MatchString(out) || strings.Count(out, "missed") != 1 {
		t.Errorf("got %d, %s, want 1 and one missed goal", status, out)
	}
	if out, _, status := execute(t, quick("simulate", "testdata/guide.yaml", "-goal", "good>=0.9", "-goal", "after>=0.99")...); status != fine {
		t.Errorf("got %d, %s, want 0", status, out)
	}
}

func TestProgramDistinguishesErrors(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) (path string) {
		path = filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	empty := write("empty.yaml", "rate: 0\nrun: 3\n")
	two := write("two.yaml", "rate: 1\n---\nrate: 2\n")
	crlf := write("crlf.yaml", "\ufeff# a comment\r\n\r\nname: a\r\nrate: b: c\r\n")
	long := write("long.csv", "start,duration\n0,1ms\n100000,1ms\n")
	const guide = "testdata/guide.yaml"
	for _, test := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"dance"}, misused, "unknown command"},
		{[]string{"check"}, misused, "no file"},
		{[]string{"check", "-x"}, misused, "-x"},
		{[]string{"simulate", guide}, misused, "-rate"},
		{[]string{"simulate", guide, guide, "-rate", "1"}, misused, "2 files"},
		{[]string{"simulate", guide, "-rate", "fast"}, misused, "-rate"},
		{[]string{"simulate", guide, "-rate", "0"}, misused, "above 0"},
		{[]string{"simulate", guide, "-rate", "1", "-service", "20ms"}, misused, "-service"},
		{[]string{"simulate", guide, "-rate", "1", "-runs", "1001"}, misused, "Scenario.Runs"},
		{[]string{"simulate", guide, "-rate", "1", "-incident", "fire"}, misused, "fire"},
		{[]string{"simulate", guide, "-rate", "1", "-pipeline", "orders"}, misused, "orders"},
		{[]string{"simulate", guide, "-rate", "1", "-goal", "nice>=1"}, misused, "nice"},
		{[]string{"simulate", guide, "-rate", "1", "-goal", "after"}, misused, "after"},
		{[]string{"simulate", guide, "-rate", "1", "-out", "r.pdf"}, misused, ".html"},
		{[]string{"simulate", guide, "-scenario", "testdata/missing.yaml"}, bad, "missing.yaml"},
		{[]string{"simulate", guide, "-scenario", empty}, bad, `"run", must be one of`},
		{[]string{"simulate", guide, "-scenario", "testdata/broken-scenario.yaml"}, bad, "broken-scenario.yaml:1:7: mapping value"},
		{[]string{"simulate", guide, "-scenario", two}, bad, "two.yaml: has 2 YAML documents"},
		{[]string{"simulate", guide, "-scenario", crlf}, bad, "crlf.yaml:4:7: "},
		{[]string{"simulate", guide, "-trace", guide}, bad, "line 1"},
		{[]string{"simulate", guide, "-trace", long}, bad, "long.csv: sim: Scenario.Rate: a call at 27h46m40s"},
		{[]string{"simulate", guide, "-trace", long, "-scenario", "testdata/scenario.yaml", "-runs", "-1"}, misused, "Scenario.Runs"},
		{[]string{"simulate", guide, "-trace", long, "-length", "25h"}, misused, "Scenario.Length"},
		{[]string{"simulate", "testdata/broken.yaml", "-rate", "1"}, bad, "broken.yaml:3:28: "},
		{[]string{"simulate", "testdata/missing.yaml", "-rate", "1"}, bad, "missing.yaml"},
		{quick("simulate", guide, "-out", filepath.Join(empty, "r.html")), bad, "r.html"},
		{[]string{"tune", guide, "-rate", "1"}, misused, "-vary"},
		{[]string{"tune", "-vary", "retry.maxAttempts=1..5", "-rate", "1"}, misused, "0 files"},
		{[]string{"tune", guide, "-vary", "retry.maxAttempts", "-rate", "1"}, misused, "no values"},
		{[]string{"tune", guide, "-vary", "retry.maxAttempts=5..1", "-rate", "1"}, misused, "ascend"},
		{[]string{"tune", guide, "-vary", "hedge.max=1..5", "-rate", "1"}, misused, `no hedge`},
		{[]string{"tune", guide, "-vary", "timeout.limit=1s..5s", "-rate", "1"}, misused, `timeout[1] to timeout[2]`},
		{[]string{"tune", guide, "-vary", "timeout[3].limit=1s..5s", "-rate", "1"}, misused, `only 2`},
		{[]string{"tune", guide, "-vary", "retry.attempts=1..5", "-rate", "1"}, misused, `attempts`},
		{[]string{"tune", guide, "-vary", "budgets.other.ratio=0.1..1", "-rate", "1"}, misused, `no budget`},
		{[]string{"tune", guide, "-vary", "retry.maxAttempts=1..5", "-for", "0s", "-rate", "1"}, misused, `-for`},
	} {
		out, errOut, status := execute(t, test.args...)
		if status != test.status || !strings.Contains(errOut, test.want) {
			t.Errorf("%q: got %d, %q, %q, want %d and %q", test.args, status, out, errOut, test.status, test.want)
		}
	}
}

func TestGoalMissedShowsTheDifference(t *testing.T) {
	for _, test := range []struct {
		goal string
		r    sim.Result
		want string
	}{
		{"after>=0.99", sim.Result{After: sim.Spread{Min: 0.9912, Max: 1, Runs: 2}}, ""},
		{"after>=0.99", sim.Result{After: sim.Spread{Min: 0.4123456, Max: 1, Runs: 2}}, "after is 0.4123, must be >=0.99"},
		{"after>=0.99", sim.Result{After: sim.Spread{Min: 0.989999, Max: 1, Runs: 2}}, "after is 0.989999, must be >=0.99"},
		{"amplification < 1.3", sim.Result{Amplification: sim.Spread{Max: 1.3, Runs: 1}}, "amplification is 1.3, must be < 1.3"},
		{"recovery<=10s", sim.Result{Metastable: 1}, "recovery is infinite, must be <=10s"},
		{"metastable<=0", sim.Result{Metastable: 1}, "metastable is 1, must be <=0"},
		{"after>=0.99", sim.Result{}, ""},
	} {
		g, err := parseGoal(test.goal)
		if err != nil {
			t.Fatal(err)
		}
		if got := g.missed(&test.r); got != test.want {
			t.Errorf("%s: got %q, want %q", test.goal, got, test.want)
		}
	}
}

func TestTuneFindsBetterNumbers(t *testing.T) {
	out, errOut, status := execute(t, "tune", "testdata/guide.yaml", "-pipeline", "users", "-rate", "50", "-clients", "2", "-runs", "2", "-length", "60s", "-incident", "errors-20",
		"-vary", "retry.maxAttempts=1..4", "-vary", "budgets.extra.ratio=0.02..1", "-vary", "bulkhead.limit=30,31", "-goal", "amplification<=1.5", "-for", "12s")
	if status != fine || errOut != "" {
		t.Fatalf("got %d, %s, %s", status, out, errOut)
	}
	rows := regexp.MustCompile(`(?m)^[<>]?[0-9.]+ %  +[0-9.]+×.*$`).FindAllString(out, -1)
	if len(rows) < 2 || len(rows) > 10 || strings.Count(out, "as it is") != 1 || strings.Count(out, "chosen") != 1 {
		t.Errorf("got %s, want two to ten rows, with marks for the file and the choice", out)
	}
	lost := func(mark string) float64 {
		for _, row := range rows {
			if strings.Contains(row, mark) {
				v, err := strconv.ParseFloat(strings.TrimPrefix(strings.Fields(row)[0], "<"), 64)
				if err != nil {
					t.Error(err)
				}
				return v
			}
		}
		return math.NaN()
	}
	if chosen, old := lost("chosen"), lost("as it is"); !(chosen < old) {
		t.Errorf("got %v %% lost instead of %v %%, want fewer\n%s", chosen, old, out)
	}
	for _, want := range []string{"budgets.extra.ratio: 0.02 → ", "with the old value: +", "limit: 30}", "# the whole call"} {
		if !strings.Contains(out, want) {
			t.Errorf("got %s, want %q", out, want)
		}
	}
	at := strings.Index(out, "\nbudgets:")
	if at < 0 {
		t.Fatalf("got %s, want the file at the end", out)
	}
	if _, err := resilienceconfig.Parse([]byte(out[at:]), resilienceconfig.Options{}); err != nil {
		t.Errorf("got %v, want a valid file", err)
	}
}

func TestTuneReportsThatNothingMeetsTheGoal(t *testing.T) {
	out, errOut, status := execute(t, "tune", "testdata/guide.yaml", "-rate", "20", "-runs", "1", "-length", "45s", "-incident", "down", "-vary", "retry.maxAttempts=1..2", "-goal", "good>=1", "-for", "2s")
	if status != bad || !strings.Contains(errOut, "no candidate meets the goal") || !strings.Contains(out, "as it is") || strings.Contains(out, "budgets:") {
		t.Errorf("got %d, %s, %s, want 1 and the rows without a file", status, out, errOut)
	}
}

func TestProgramEndsWith130OnInterrupt(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "r.json")
	for name, args := range map[string][]string{
		"simulate": {"simulate", "testdata/guide.yaml", "-rate", "500", "-length", "24h", "-out", path},
		"tune":     {"tune", "testdata/guide.yaml", "-rate", "50", "-length", "60s", "-runs", "1", "-vary", "timeout[2].limit=50ms..1s", "-for", "10m"},
	} {
		cmd := command(args...)
		var out bytes.Buffer
		cmd.Stdout = &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// The program sets its handler first. Real time: another process can't be in a bubble.
		time.AfterFunc(3*time.Second, func() { cmd.Process.Signal(syscall.SIGINT) })
		cmd.Wait()
		if got := cmd.ProcessState.ExitCode(); got != interrupted {
			t.Errorf("%s: got status %d, want 130", name, got)
		}
		if name == "simulate" && !strings.Contains(out.String(), "users") {
			t.Errorf("%s: got %q, want what there is", name, out.String())
		}
	}
	if text, err := os.ReadFile(path); err != nil || !json.Valid(text) {
		t.Errorf("got %v, want a report of what there is", err)
	}
}

// The example's pipeline guide has the values of docs/guide.md.
func TestExampleHasValuesOfGuide(t *testing.T) {
	guide, err := os.ReadFile(filepath.Join("..", "..", "docs", "guide.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, code, ok := strings.Cut(string(guide), "### All together")
	if !ok {
		t.Fatal("docs/guide.md has no section All together")
	}
	code, _, _ = strings.Cut(code, "###")
	example, err := os.ReadFile("example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for inCode, inFile := range map[string]string{
		"timeout.After(400 * time.Millisecond)":              "timeout: {limit: 400ms}",
		"MaxAttempts: 2":                                     "maxAttempts: 2",
		"retry.FullJitter(50*time.Millisecond, time.Second)": "fullJitter: {initial: 50ms, max: 1s}",
		"Ratio: 0.02, MinPerSecond: 1":                       "ratio: 0.02, minPerSecond: 1",
		"FailureRate: 0.5":                                   "failureRate: 0.5",
		"Window: 2 * time.Second":                            "window: 2s",
		"MinCalls: 20":                                       "minCalls: 20",
		"Consecutive: 20":                                    "consecutive: 20",
		"OpenFor:     time.Second":                           "openFor: 1s",
		"MaxOpenFor: 30 * time.Second":                       "maxOpenFor: 30s",
		"Jitter: 0.2":                                        "jitter: 0.2",
		"Limit: 30":                                          "bulkhead: {limit: 30}",
		"timeout.After(120 * time.Millisecond)":              "timeout: {limit: 120ms}",
	} {
		if !strings.Contains(code, inCode) || !strings.Contains(string(example), inFile) {
			t.Errorf("docs/guide.md must have %q, and example.yaml %q", inCode, inFile)
		}
	}
}
