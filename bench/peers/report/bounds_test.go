package main

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// measured returns results of rows of bench/peers with these times in nanoseconds.
func measured(rows map[string][]float64) *results {
	r := newResults()
	for name, times := range rows {
		key := row{"peers", name, machineProcs}
		r.rows = append(r.rows, key)
		c := cost{"sec/op": values{}}
		for round, ns := range times {
			c["sec/op"][round] = ns * 1e-9
		}
		r.costs[key] = c
	}
	return r
}

// noisy returns times around ns, half of them below and half above.
func noisy(ns, noise float64) []float64 {
	var times []float64
	for i := range 40 {
		times = append(times, ns*(1+noise*(float64(i*17%40)-19.5)/20))
	}
	return times
}

func steady(ns float64) []float64 { return noisy(ns, 0) }

func TestBoundUsesCheapestPeer(t *testing.T) {
	b := bound{"test", one("a"), rows("slow", "fast", "slower"), 1}
	f, err := b.find(measured(map[string][]float64{
		"a": steady(6), "slow": steady(20), "fast": steady(12), "slower": steady(21),
	}), 0.95)
	if err != nil || f.against != "fast" || !near(f.value.Center, 0.5) {
		t.Errorf("%+v, %v", f, err)
	}
}

func TestBoundAddsSummands(t *testing.T) {
	b := bound{"test", one("a"), []sum{{one("b"), nTimes(2, "c")}}, 1}
	f, err := b.find(measured(map[string][]float64{"a": steady(8), "b": steady(10), "c": steady(3)}), 0.95)
	if err != nil || f.against != "b + 2 × c" || !near(f.value.Center, 0.5) {
		t.Errorf("%+v, %v", f, err)
	}
}

func TestFindingStandingNeedsWholeInterval(t *testing.T) {
	for _, test := range []struct {
		a    []float64 // compared with 100, with a bound of 1.5
		want standing
	}{
		{steady(149), met},
		{steady(151), missed},
		{noisy(80, 0.3), met},
		{noisy(149, 0.3), undecided},
		{noisy(155, 0.3), undecided},
		{noisy(300, 0.3), missed},
	} {
		b := bound{"test", one("a"), rows("b"), 1.5}
		f, err := b.find(measured(map[string][]float64{"a": test.a, "b": steady(100)}), checkConfidence)
		if err != nil || f.standing() != test.want {
			t.Errorf("%s, want %s: %+v, %v", f.standing(), test.want, f, err)
		}
	}
}

func TestPrintFindingsReturnsMissedBounds(t *testing.T) {
	r := measured(map[string][]float64{"a": steady(8), "b": steady(10)})
	var findings []finding
	for _, most := range []float64{0.5, 1, 0.7} {
		f, err := bound{fmt.Sprint("at most ", most), one("a"), rows("b"), most}.find(r, checkConfidence)
		if err != nil {
			t.Fatal(err)
		}
		findings = append(findings, f)
	}
	var out bytes.Buffer
	over := printFindings(&out, findings)
	if len(over) != 2 || over[0].most != 0.5 || over[1].most != 0.7 || strings.Count(out.String(), string(missed)) != 2 {
		t.Errorf("%d missed, want 2:\n%s", len(over), &out)
	}
}

func TestBoundReportsMissingRow(t *testing.T) {
	for name, r := range map[string]*results{
		"what":     measured(map[string][]float64{"b": steady(1)}),
		"than":     measured(map[string][]float64{"a": steady(1)}),
		"of a sum": measured(map[string][]float64{"a": steady(1), "b": steady(1)}),
	} {
		b := bound{"test", one("a"), []sum{{one("b"), one("c")}}, 1}
		if f, err := b.find(r, 0.95); err == nil || !strings.Contains(err.Error(), "not measured") {
			t.Errorf("%s: %+v, error %v, want one that says what was not measured", name, f, err)
		}
	}
}

func TestRowsOfNamesEachRowOnce(t *testing.T) {
	need := rowsOf(bounds)
	for _, b := range bounds {
		for _, s := range append([]sum{{b.what}}, b.than...) {
			for _, term := range s {
				if !slices.Contains(need, term.of) {
					t.Errorf("%s: %+v is missing", b.name, term.of)
				}
			}
		}
	}
	for i, r := range need {
		if slices.Contains(need[i+1:], r) {
			t.Errorf("%+v appears twice", r)
		}
	}
}

func TestOnlyMatchesExactNames(t *testing.T) {
	passes := only([]suite{{pkg: "bench"}, {pkg: "peers"}}, []row{
		{"peers", "Closed/ours/serial", 0}, {"peers", "Closed/ours/serial", machineProcs}, {"peers", "Open/a.b/serial", machineProcs + 1},
		{"bench", "Length/kind=a", 0},
	})
	var got []string
	for _, p := range passes {
		got = append(got, fmt.Sprintf("%s %s on %v", p.suite.pkg, p.benchmark, p.procs))
	}
	want := []string{
		fmt.Sprintf("bench ^BenchmarkLength$/^kind=a$ on [%d]", machineProcs),
		fmt.Sprintf("peers ^BenchmarkClosed$/^ours$/^serial$ on [%d]", machineProcs),
		fmt.Sprintf(`peers ^BenchmarkOpen$/^a\.b$/^serial$ on [%d]`, machineProcs+1),
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestTwiceReturnsBoundsMissedTwice(t *testing.T) {
	a, b, c := bound{name: "a"}, bound{name: "b"}, bound{name: "c"}
	names := func(bounds []bound) (names string) {
		for _, b := range bounds {
			names += b.name
		}
		return names
	}
	for _, test := range []struct {
		looks []string // the bounds that each look misses
		want  string
		saw   string
	}{
		{[]string{""}, "", "abc by 10;"},
		{[]string{"ac", ""}, "", "abc by 10;ac by 20;"},
		{[]string{"ac", "c"}, "c", "abc by 10;ac by 20;"},
		{[]string{"b", "b"}, "b", "abc by 10;b by 20;"},
	} {
		saw := ""
		over, err := twice([]bound{a, b, c}, 10, func(bounds []bound, rounds int) (over []bound, err error) {
			saw += fmt.Sprintf("%s by %d;", names(bounds), rounds)
			for _, b := range bounds {
				if strings.Contains(test.looks[0], b.name) {
					over = append(over, b)
				}
			}
			test.looks = test.looks[1:]
			return over, nil
		})
		if err != nil || names(over) != test.want || saw != test.saw {
			t.Errorf("missed %q, looked at %q, error %v; want %q, %q", names(over), saw, err, test.want, test.saw)
		}
	}
	failed := errors.New("failed")
	if _, err := twice(nil, 1, func([]bound, int) ([]bound, error) { return nil, failed }); err != failed {
		t.Error(err)
	}
}

func TestBoundLimitsAllocations(t *testing.T) {
	r := measured(map[string][]float64{"a": steady(8)})
	r.costs[r.rows[0]]["allocs/op"] = values{}
	for round := range 20 {
		r.costs[r.rows[0]]["allocs/op"][round] = 3
	}
	for most, want := range map[float64]standing{2: missed, 3: met} {
		f, err := bound{"test", one("a"), nil, most}.find(r, checkConfidence)
		if err != nil || f.standing() != want {
			t.Errorf("3 allocations, bound %g: %s, error %v, want %s", most, f.standing(), err, want)
		}
	}
	if _, err := (bound{"test", one("b"), nil, 3}).find(r, checkConfidence); err == nil {
		t.Error("a row that was not measured: no error")
	}
}

func TestDecideMeasuresOpenBoundsFurther(t *testing.T) {
	// A costs half of C. B costs as much as C, apart from noise. Both bounds are 1.
	bounds := []bound{{"A", one("A"), rows("C"), 1}, {"B", one("B"), rows("C"), 1}}
	var looks []string
	measure := func(rows []row, from, to int) (string, error) {
		names, text := "", "pkg: example.com/peers\n"
		for _, r := range rows {
			names += r.name
		}
		looks = append(looks, fmt.Sprintf("%s %d to %d", names, from, to))
		for round := from; round < to; round++ {
			text += fmt.Sprintf("round: %d\n", round)
			for _, r := range rows {
				ns := map[string]float64{"A": 5, "B": 9 + 2*float64(round%2), "C": 10, "D": 10}[r.name]
				text += fmt.Sprintf("Benchmark%s-%d 1 %g ns/op\n", r.name, machineProcs, ns)
			}
		}
		return text, nil
	}
	r := newResults()
	open := func(f finding) bool { return f.standing() == undecided }
	err := decide(r, bounds, []row{{"peers", "D", 0}}, 20, 100, open, measure, 0.99)
	want := []string{"ACBD 0 to 20", "BC 20 to 40", "BC 40 to 80", "BC 80 to 100"}
	if err != nil || !slices.Equal(looks, want) {
		t.Errorf("%q, error %v, want %q", looks, err, want)
	}
	if a, b := len(r.seconds("peers", "A", 0)), len(r.seconds("peers", "B", 0)); a != 20 || b != 100 {
		t.Errorf("%d rounds of A and %d of B, want 20 and 100", a, b)
	}

	looks = nil
	if err := decide(newResults(), bounds[:1], nil, 20, 100, open, measure, 0.99); err != nil || len(looks) != 1 {
		t.Errorf("%q, error %v, want one look, since A is decided", looks, err)
	}
	failed := errors.New("failed")
	fails := func([]row, int, int) (string, error) { return "", failed }
	if err := decide(newResults(), bounds, nil, 20, 100, open, fails, 0.99); err != failed {
		t.Errorf("error %v, want that of measuring", err)
	}
}
