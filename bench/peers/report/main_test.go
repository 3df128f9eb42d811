package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestStartRejectsBadFlags(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // if a mistake isn't found, nothing is measured for half an hour
	for args, want := range map[string]string{
		"-rounds 0":             "-rounds 0: must be from 1",
		"-rounds many":          `invalid value "many" for flag -rounds`,
		"-benchtime soon":       "-benchtime soon: must be a duration",
		"-benchtime -1s":        "-benchtime -1s: must be a duration",
		"-benchtime 0x":         "-benchtime 0x: must be a duration",
		"-cpu 1,two":            `"two" is not a number`,
		"-cpu 2,1":              "must ascend",
		"-cpu 0":                `"0" is not a number from 1`,
		"-cpu=":                 "is not a number",
		"-sloppy":               "-sloppy",
		"everything":            `unknown argument "everything"`,
		"-max-rounds 0":         "-max-rounds 0: must be from 1",
		"-check -max-rounds 3":  "-check needs at least 11",
		"-check -rounds 30":     "-rounds: can't be used with -check",
		"-check -out docs":      "-out: can't be used with -check",
		"-load x -benchtime 1s": "-load",
	} {
		var stdout, stderr bytes.Buffer
		if code := start(ctx, strings.Fields(args), &stdout, &stderr); code != 2 || !strings.Contains(stderr.String(), want) {
			t.Errorf("%s: exit %d, %q, want 2 and %q", args, code, stderr.String(), want)
		}
		if stdout.Len() > 0 {
			t.Errorf("%s: stdout %q, want nothing", args, stdout.String())
		}
	}
}

func TestLoadReportsMissingFile(t *testing.T) {
	_, err := options{load: "no-such-file"}.measurements(t.Context(), nil, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "no-such-file") {
		t.Errorf("error %v, want one that names the file", err)
	}
}

func TestLoadReadsSavedMeasurements(t *testing.T) {
	file := filepath.Join(t.TempDir(), "measurements")
	put(t, printed, file)
	m, err := options{load: file}.measurements(t.Context(), nil, io.Discard)
	if err != nil || len(m.all.rows) != len(parsed(t, printed).rows) {
		t.Errorf("%+v, %v", m.all, err)
	}
}

func TestParseReportsAllMistakes(t *testing.T) {
	_, err := parse(strings.Fields("-rounds 0 -cpu 0 -benchtime soon"), io.Discard)
	for _, want := range []string{"-rounds", "-cpu", "-benchtime"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s in it", err, want)
		}
	}
}

func TestHelpExitsWithZero(t *testing.T) {
	var stderr bytes.Buffer
	if code := start(t.Context(), []string{"-help"}, io.Discard, &stderr); code != 0 || !strings.Contains(stderr.String(), "-check") {
		t.Errorf("exit %d, %q", code, stderr.String())
	}
}

func TestParseKeepsGivenFlags(t *testing.T) {
	for args, want := range map[string]options{
		"":                                {rounds: 8, most: 320, benchtime: "30ms", procs: []int{1, 2, 4, 8}},
		"-quick":                          {rounds: 1, most: 6, benchtime: "10ms", procs: []int{1, 2, 4, 8}, quick: true},
		"-quick -rounds 7 -benchtime 20x": {rounds: 7, most: 6, benchtime: "20x", procs: []int{1, 2, 4, 8}, quick: true},
		"-check":                          {rounds: 8, most: 80, benchtime: "10ms", procs: []int{1, 2, 4, 8}, check: true},
		"-check -max-rounds 30":           {rounds: 8, most: 30, benchtime: "10ms", procs: []int{1, 2, 4, 8}, check: true},
		"-cpu 2,6 -out x":                 {rounds: 8, most: 320, benchtime: "30ms", procs: []int{2, 6}, out: "x"},
	} {
		got, err := parse(strings.Fields(args), io.Discard)
		same := slices.Equal(got.procs, want.procs)
		got.procs, want.procs = nil, nil
		if err != nil || !same || got.rounds != want.rounds || got.most != want.most || got.benchtime != want.benchtime || got.quick != want.quick ||
			got.check != want.check || got.out != want.out {
			t.Errorf("%q: %+v, %v, want %+v", args, got, err, want)
		}
	}
}

func TestInterruptedReportWritesNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	out := filepath.Join(t.TempDir(), "out")
	var stderr bytes.Buffer
	code := start(ctx, []string{"-out", out}, io.Discard, &stderr)
	if code != 130 || !strings.Contains(stderr.String(), "interrupted") {
		t.Errorf("exit %d, %q", code, stderr.String())
	}
	for _, name := range []string{performanceName, measurementsName} {
		if _, err := os.Stat(filepath.Join(out, name)); err == nil {
			t.Errorf("%s was written", name)
		}
	}
}

func TestProgressPrintsLinesWithoutTerminal(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out, 90, 3)
	for round := range 90 {
		p.round(round)
		p.line("BenchmarkOpen/ours/serial-2 \t 1000 \t 7 ns/op")
	}
	if n := strings.Count(out.String(), "\n"); n < 9 || n > 11 || !strings.HasPrefix(out.String(), "round 1 of 90\n") {
		t.Errorf("%d lines, want about 10: %q", n, out.String())
	}
}

func TestProgressEstimatesTimeLeft(t *testing.T) {
	for done, want := range map[int]string{0: "", 2: ", about 6m0s left", 7: ", about 17s left"} {
		if got := left(done, 8, 2*time.Minute); got != want {
			t.Errorf("after %d rounds: %q, want %q", done, got, want)
		}
	}
}

func TestLinesJoinsPartialWrites(t *testing.T) {
	var got []string
	l := &lines{each: func(line string) { got = append(got, line) }}
	for _, part := range []string{"on", "e\ntwo\n", "", "thr", "ee", "\n", "rest"} {
		if n, err := io.WriteString(l, part); n != len(part) || err != nil {
			t.Fatal(n, err)
		}
	}
	if !slices.Equal(got, []string{"one", "two", "three"}) {
		t.Errorf("%q, want one, two, three", got)
	}
}
