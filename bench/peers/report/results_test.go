package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

const printed = `toolchain: go1.26
date: 2026-01-02
processors: 4
goos: linux
pkg: example.com/bench/peers
cpu: Some Processor
BenchmarkOpen/ours/serial-4         	 1000	        7.500 ns/op	       0 B/op	       0 allocs/op
BenchmarkOpen/ours/parallel         	 1000	        8.000 ns/op
BenchmarkOpen/ours/parallel-4       	 1000	        2.000 ns/op
BenchmarkOpen/ours/parallel-8       	 1000	        3.000 ns/op
PASS
pkg: example.com/bench
BenchmarkAlive/breakers=10-4        	 1000	        1.000 ns/op	     368.0 B/breaker
PASS
`

func parsed(t *testing.T, text string) *results {
	t.Helper()
	r := newResults()
	if err := r.read(strings.NewReader(text), "text"); err != nil {
		t.Fatal(err)
	}
	return r
}

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-9*math.Abs(b) }

func TestResultsReadByPackageNameAndProcessors(t *testing.T) {
	r := parsed(t, printed+printed)
	if got := r.seconds("peers", "Open/ours/serial", 4); len(got) != 2 || !near(got[0], 7.5e-9) || !near(got[1], 7.5e-9) {
		t.Errorf("serial: %v, want 7.5 ns twice", got)
	}
	if got := r.procs("peers", "Open/ours/parallel"); !slices.Equal(got, []int{1, 4, 8}) {
		t.Errorf("parallel ran on %v, want 1, 4, and 8", got)
	}
	if got := r.seconds("peers", "Open/ours/parallel", 1); len(got) != 2 || !near(got[0], 8e-9) {
		t.Errorf("on one processor: %v, want 8 ns twice", got)
	}
	if got := r.cost("bench", "Alive/breakers=10", 4)["B/breaker"]; len(got) != 2 || got[0] != 368 {
		t.Errorf("custom unit: %v, want 368 twice", got)
	}
	if got := r.seconds("peers", "Alive/breakers=10", 4); got != nil {
		t.Errorf("row of another package: %v, want none", got)
	}
	if r.rounds() != 2 || r.check() != nil {
		t.Errorf("%d rounds, error %v, want 2 and no error", r.rounds(), r.check())
	}
	for key, want := range map[string]string{"toolchain": "go1.26", "date": "2026-01-02", "cpu": "Some Processor", "goos": "linux"} {
		if r.config[key] != want {
			t.Errorf("%s is %q, want %q", key, r.config[key], want)
		}
	}
}

func TestResultsCostDefaultsToMachineProcessors(t *testing.T) {
	r := parsed(t, printed)
	if got := r.seconds("peers", "Open/ours/parallel", 0); len(got) != 1 || !near(got[0], 2e-9) {
		t.Errorf("machine with 4: %v, want 2 ns", got)
	}
	r = parsed(t, strings.Replace(printed, "processors: 4", "processors: 6", 1))
	if got := r.seconds("peers", "Open/ours/parallel", 0); len(got) != 1 || !near(got[0], 2e-9) {
		t.Errorf("machine with 6: %v, want 2 ns, that of 4", got)
	}
}

func TestResultsReadHeader(t *testing.T) {
	o := options{benchtime: "70ms"}
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	r := parsed(t, header(o, now)+printed[strings.Index(printed, "goos"):])
	if r.config["benchtime"] != "70ms" || r.config["date"] != "2026-03-04" || r.machineProcs() != machineProcs {
		t.Errorf("config %v", r.config)
	}
}

func TestResultsReadRejectsInvalidLine(t *testing.T) {
	r := newResults()
	err := r.read(strings.NewReader("BenchmarkOpen/ours-4 1000 seven ns/op\n"), "text")
	if err == nil || !strings.Contains(err.Error(), "text:1") {
		t.Errorf("error %v, want one that names text:1", err)
	}
}

func TestResultsCheckFindsMissingRounds(t *testing.T) {
	r := parsed(t, printed+printed+"pkg: example.com/bench/peers\nBenchmarkOpen/ours/serial-4 1000 7 ns/op\n")
	if err := r.check(); err == nil {
		t.Error("a row ran three times, the others twice: no error")
	}
	if err := newResults().check(); err == nil {
		t.Error("no measurements: no error")
	}
}

func TestCompareCancelsSlowRounds(t *testing.T) {
	a, b := values{}, values{}
	for round := range 20 {
		slow := 1 + float64(round*round)
		a[round], b[round] = 3*slow, 2*slow
	}
	s, err := compare(a, b, 0.95)
	if err != nil || !near(s.Center, 1.5) || !near(s.Lo, 1.5) || !near(s.Hi, 1.5) {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestCompareUsesOrderStatistics(t *testing.T) {
	a, b := values{}, values{}
	for i := range 101 { // ratios from 0 to 100, unordered
		a[i], b[i] = float64((i*37)%101), 1
	}
	for _, confidence := range []float64{0.9, 0.95, 0.999} {
		s, err := compare(a, b, confidence)
		if err != nil {
			t.Fatal(err)
		}
		// Each of the 101 values is above the median or below it, so the number below is binomial,
		// with deviation sqrt(101)/2.
		width := map[float64]float64{0.9: 1.645, 0.95: 1.96, 0.999: 3.291}[confidence] * math.Sqrt(101) / 2
		if s.Center != 50 || math.Abs(s.Hi-50-width) > 1.5 || math.Abs(50-s.Lo-width) > 1.5 {
			t.Errorf("%g: %g from %g to %g, want 50 and %.1f on each side", confidence, s.Center, s.Lo, s.Hi, width)
		}
	}
}

func TestCompareHasNoIntervalForFewRounds(t *testing.T) {
	s, err := compare(values{0: 1, 1: 2, 2: 3}, values{0: 1, 1: 1, 2: 1}, 0.95)
	if err != nil || s.Center != 2 || interval(s) != "" || withInterval(s) != "2.00" {
		t.Errorf("%+v, %v, %q", s, err, withInterval(s))
	}
}

func TestCompareReportsRoundsWithoutRatio(t *testing.T) {
	for name, v := range map[string][2]values{
		"none": {nil, nil}, "no common round": {{0: 1}, {1: 1, 2: 2}}, "zero": {{0: 1}, {0: 0}},
	} {
		if s, err := compare(v[0], v[1], 0.95); err == nil {
			t.Errorf("%s: %+v, want an error", name, s)
		}
	}
}

func TestShortRoundsToThreeDigits(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 0.0123: "0.012", 0.0996: "0.10", 0.123: "0.12", 1: "1.00", 9.94: "9.94", 9.96: "10.0", 99.4: "99.4", 99.6: "100",
		12345: "12345",
	} {
		if got := short(v); got != want {
			t.Errorf("short(%g) is %q, want %q", v, got, want)
		}
	}
	for v, want := range map[float64]string{1e-9: "1.00 ns", 999e-9: "999 ns", 999.9e-9: "1.00 µs", 0.25: "250 ms", 12: "12.0 s"} {
		if got := duration(values{0: v}); got != want {
			t.Errorf("duration(%g) is %q, want %q", v, got, want)
		}
	}
}

func TestComparePairsByRound(t *testing.T) {
	a, b := values{}, values{}
	for round := range 40 { // a was measured in all rounds, b in the last 20; each later round is slower
		a[round] = 3 * float64(1+round)
		if round >= 20 {
			b[round] = 2 * float64(1+round)
		}
	}
	s, err := compare(a, b, 0.95)
	if err != nil || !near(s.Lo, 1.5) || !near(s.Hi, 1.5) {
		t.Errorf("%+v, %v, want 1.5 in every round", s, err)
	}
}

func TestMeasurementsReadParts(t *testing.T) {
	line := func(round, ns int) string {
		return fmt.Sprintf("round: %d\npkg: example.com/bench/peers\nBenchmarkOpen/ours/serial-4 1000 %d ns/op\n", round, ns)
	}
	m := newMeasurements()
	text := header(options{}, time.Now()) + partAll + line(0, 7) + line(1, 8) + partBounds + line(0, 9)
	if err := m.read(strings.NewReader(text), "text"); err != nil {
		t.Fatal(err)
	}
	all, ofBounds := m.all.seconds("peers", "Open/ours/serial", 4), m.bounds.seconds("peers", "Open/ours/serial", 4)
	if len(all) != 2 || !near(all[1], 8e-9) || len(ofBounds) != 1 || !near(ofBounds[0], 9e-9) || m.decisive() != m.bounds {
		t.Errorf("all %v, of bounds %v", all, ofBounds)
	}

	m = newMeasurements() // a file that go test printed
	if err := m.read(strings.NewReader(printed+printed), "text"); err != nil {
		t.Fatal(err)
	}
	if m.all.rounds() != 2 || m.decisive() != m.all {
		t.Errorf("%d rounds of all, want 2 and no part of bounds", m.all.rounds())
	}
}
