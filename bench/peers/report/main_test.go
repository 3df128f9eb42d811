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

func TestBadFlagsExitWith2AndSayWhatIsWrong(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // a mistake that is not found must not measure for half an hour
	for args, want := range map[string]string{
		"-rounds 0":             "-rounds 0: must be from 1",
		"-rounds many":          `invalid value "many" for flag -rounds`,
		"-benchtime soon":       "-benchtime soon: must be a time",
		"-benchtime -1s":        "-benchtime -1s: must be a time",
		"-benchtime 0x":         "-benchtime 0x: must be a time",
		"-cpu 1,two":            `"two" is not a number`,
		"-cpu 2,1":              "must ascend",
		"-cpu 0":                `"0" is not a number from 1`,
		"-cpu=":                 "is not a number",
		"-sloppy":               "-sloppy",
		"everything":            `unknown argument "everything"`,
		"-check -rounds 3":      "-check needs at least 11",
		"-check -out docs":      "-out: has no meaning with -check",
		"-load x -benchtime 1s": "-load",
	} {
		var stdout, stderr bytes.Buffer
		if code := start(ctx, strings.Fields(args), &stdout, &stderr); code != 2 || !strings.Contains(stderr.String(), want) {
			t.Errorf("%s: exit %d, %q, want 2 and %q", args, code, stderr.String(), want)
		}
		if stdout.Len() > 0 {
			t.Errorf("%s: printed %q", args, stdout.String())
		}
	}
}

func TestAFileThatIsNotThereIsAnError(t *testing.T) {
	_, err := options{load: "no-such-file"}.measured(t.Context(), nil, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "no-such-file") {
		t.Errorf("%v", err)
	}
}

func TestSavedMeasurementsAreLoaded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "measurements")
	put(t, printed, file)
	r, err := options{load: file}.measured(t.Context(), nil, io.Discard)
	if err != nil || len(r.rows) != len(parsed(t, printed).rows) {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestAllMistakesAreToldAtOnce(t *testing.T) {
	_, err := parse(strings.Fields("-rounds 0 -cpu 0 -benchtime soon"), io.Discard)
	for _, want := range []string{"-rounds", "-cpu", "-benchtime"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %s in %v", want, err)
		}
	}
}

func TestHelpIsNoError(t *testing.T) {
	var stderr bytes.Buffer
	if code := start(t.Context(), []string{"-help"}, io.Discard, &stderr); code != 0 || !strings.Contains(stderr.String(), "-check") {
		t.Errorf("exit %d, %q", code, stderr.String())
	}
}

func TestWhatIsGivenStandsBeforeTheDefaults(t *testing.T) {
	for args, want := range map[string]options{
		"":                                {rounds: 8, benchtime: "30ms", procs: []int{1, 2, 4, 8}},
		"-quick":                          {rounds: 1, benchtime: "10ms", procs: []int{1, 2, 4, 8}, quick: true},
		"-quick -rounds 7 -benchtime 20x": {rounds: 7, benchtime: "20x", procs: []int{1, 2, 4, 8}, quick: true},
		"-check":                          {rounds: 90, benchtime: "10ms", procs: []int{1, 2, 4, 8}, check: true},
		"-cpu 2,6 -out x":                 {rounds: 8, benchtime: "30ms", procs: []int{2, 6}, out: "x"},
	} {
		got, err := parse(strings.Fields(args), io.Discard)
		same := slices.Equal(got.procs, want.procs)
		got.procs, want.procs = nil, nil
		if err != nil || !same || got.rounds != want.rounds || got.benchtime != want.benchtime || got.quick != want.quick ||
			got.check != want.check || got.out != want.out {
			t.Errorf("%q: %+v, %v, want %+v", args, got, err, want)
		}
	}
}

func TestAnInterruptedReportWritesNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	out := filepath.Join(t.TempDir(), "out")
	var stderr bytes.Buffer
	code := start(ctx, []string{"-out", out}, io.Discard, &stderr)
	if code != 130 || !strings.Contains(stderr.String(), "interrupted") {
		t.Errorf("exit %d, %q", code, stderr.String())
	}
	if _, err := os.Stat(filepath.Join(out, pageName)); err == nil {
		t.Error("it wrote a page")
	}
}

func TestProgressIsToldByLinesWhereThereIsNoTerminal(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out, 90, 3)
	for round := range 90 {
		p.round(round)
		p.line("BenchmarkOpen/ours/serial-2 \t 1000 \t 7 ns/op")
	}
	if n := strings.Count(out.String(), "\n"); n < 9 || n > 11 || !strings.HasPrefix(out.String(), "round 1 of 90\n") {
		t.Errorf("%q", out.String())
	}
}

func TestProgressTellsHowMuchTimeIsLeft(t *testing.T) {
	for done, want := range map[int]string{0: "", 2: ", some 6m0s left", 7: ", some 17s left"} {
		if got := left(done, 8, 2*time.Minute); got != want {
			t.Errorf("after %d rounds: %q, want %q", done, got, want)
		}
	}
}

func TestLinesComeWholeHoweverTheyAreWritten(t *testing.T) {
	var got []string
	l := &lines{each: func(line string) { got = append(got, line) }}
	for _, part := range []string{"on", "e\ntwo\n", "", "thr", "ee", "\n", "rest"} {
		if n, err := io.WriteString(l, part); n != len(part) || err != nil {
			t.Fatal(n, err)
		}
	}
	if !slices.Equal(got, []string{"one", "two", "three"}) {
		t.Errorf("%q", got)
	}
}
