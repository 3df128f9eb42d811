package main

import (
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

func TestResultsAreReadByPackageNameAndProcessors(t *testing.T) {
	r := parsed(t, printed+printed)
	if got := r.seconds("peers", "Open/ours/serial", 4); len(got) != 2 || !near(got[0], 7.5e-9) || !near(got[1], 7.5e-9) {
		t.Errorf("serial: %v", got)
	}
	if got := r.procs("peers", "Open/ours/parallel"); !slices.Equal(got, []int{1, 4, 8}) {
		t.Errorf("parallel ran on %v", got)
	}
	if got := r.seconds("peers", "Open/ours/parallel", 1); len(got) != 2 || !near(got[0], 8e-9) {
		t.Errorf("on one processor: %v", got)
	}
	if got := r.cost("bench", "Alive/breakers=10", 4)["B/breaker"]; len(got) != 2 || got[0] != 368 {
		t.Errorf("a unit of its own: %v", got)
	}
	if got := r.seconds("peers", "Alive/breakers=10", 4); got != nil {
		t.Errorf("a row of another package: %v", got)
	}
	if r.rounds() != 2 || r.check() != nil {
		t.Errorf("%d rounds, %v", r.rounds(), r.check())
	}
	for key, want := range map[string]string{"toolchain": "go1.26", "date": "2026-01-02", "cpu": "Some Processor", "goos": "linux"} {
		if r.config[key] != want {
			t.Errorf("%s is %q, want %q", key, r.config[key], want)
		}
	}
}

func TestWithoutANumberOfProcessorsTheMachinesIsTaken(t *testing.T) {
	r := parsed(t, printed)
	if got := r.seconds("peers", "Open/ours/parallel", 0); len(got) != 1 || !near(got[0], 2e-9) {
		t.Errorf("of a machine with 4: %v", got)
	}
	r = parsed(t, strings.Replace(printed, "processors: 4", "processors: 6", 1))
	if got := r.seconds("peers", "Open/ours/parallel", 0); len(got) != 1 || !near(got[0], 2e-9) {
		t.Errorf("of a machine with 6: %v, want the nearest below", got)
	}
}

func TestHeaderIsReadBack(t *testing.T) {
	o := options{benchtime: "70ms"}
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	r := parsed(t, header(o, now)+printed[strings.Index(printed, "goos"):])
	if r.config["benchtime"] != "70ms" || r.config["date"] != "2026-03-04" || r.machineProcs() != machineProcs {
		t.Errorf("%v", r.config)
	}
}

func TestGarbledLinesAreAnError(t *testing.T) {
	r := newResults()
	err := r.read(strings.NewReader("BenchmarkOpen/ours-4 1000 seven ns/op\n"), "text")
	if err == nil || !strings.Contains(err.Error(), "text:1") {
		t.Errorf("error %v, want one that names the line", err)
	}
}

func TestRowsThatRanLessOftenAreAnError(t *testing.T) {
	r := parsed(t, printed+"pkg: example.com/bench/peers\nBenchmarkOpen/ours/serial-4 1000 7 ns/op\n")
	if err := r.check(); err == nil {
		t.Error("no error")
	}
	if err := newResults().check(); err == nil {
		t.Error("no measurements, no error")
	}
}

func TestWhatSlowsAWholeRoundIsInNoRatio(t *testing.T) {
	var a, b []float64
	for round := range 20 {
		slow := 1 + float64(round*round)
		a, b = append(a, 3*slow), append(b, 2*slow)
	}
	s, err := compare(a, b, 0.95)
	if err != nil || !near(s.Center, 1.5) || !near(s.Lo, 1.5) || !near(s.Hi, 1.5) {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestIntervalIsOfOrderStatistics(t *testing.T) {
	var a, b []float64
	for i := range 101 { // ratios 0 to 100, in no order
		a, b = append(a, float64((i*37)%101)), append(b, 1)
	}
	given := slices.Clone(a)
	for _, confidence := range []float64{0.9, 0.95, 0.999} {
		s, err := compare(a, b, confidence)
		if err != nil {
			t.Fatal(err)
		}
		// Each of 101 values is above the median or not, so the number below it is binomial: its deviation is sqrt(101)/2.
		width := map[float64]float64{0.9: 1.645, 0.95: 1.96, 0.999: 3.291}[confidence] * math.Sqrt(101) / 2
		if s.Center != 50 || math.Abs(s.Hi-50-width) > 1.5 || math.Abs(50-s.Lo-width) > 1.5 {
			t.Errorf("%g: %g from %g to %g, want 50 and %.1f on each side", confidence, s.Center, s.Lo, s.Hi, width)
		}
	}
	if !slices.Equal(a, given) {
		t.Error("the rounds were reordered")
	}
}

func TestFewRoundsGiveNoInterval(t *testing.T) {
	s, err := compare([]float64{1, 2, 3}, []float64{1, 1, 1}, 0.95)
	if err != nil || s.Center != 2 || interval(s) != "" || withInterval(s) != "2.00" {
		t.Errorf("%+v, %v, %q", s, err, withInterval(s))
	}
}

func TestRatiosOfUnequalRoundsAreErrors(t *testing.T) {
	for name, values := range map[string][2][]float64{
		"none": {nil, nil}, "fewer": {{1}, {1, 2}}, "to nothing": {{1}, {0}},
	} {
		if s, err := compare(values[0], values[1], 0.95); err == nil {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

func TestNumbersHaveAsManyDigitsAsAReaderNeeds(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 0.0123: "0.012", 0.0996: "0.10", 0.123: "0.12", 1: "1.00", 9.94: "9.94", 9.96: "10.0", 99.4: "99.4", 99.6: "100",
		12345: "12345",
	} {
		if got := short(v); got != want {
			t.Errorf("short(%g) is %q, want %q", v, got, want)
		}
	}
	for v, want := range map[float64]string{1e-9: "1.00 ns", 999e-9: "999 ns", 999.9e-9: "1.00 µs", 0.25: "250 ms", 12: "12.0 s"} {
		if got := duration([]float64{v}); got != want {
			t.Errorf("duration(%g) is %q, want %q", v, got, want)
		}
	}
}
