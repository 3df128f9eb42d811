package main

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// measured makes results of rows of bench/peers, each with its times in nanoseconds.
func measured(rows map[string][]float64) *results {
	r := newResults()
	for name, times := range rows {
		key := row{"peers", name, machineProcs}
		r.rows = append(r.rows, key)
		c := cost{}
		for _, ns := range times {
			c["sec/op"] = append(c["sec/op"], ns*1e-9)
		}
		r.costs[key] = c
	}
	return r
}

// noisy is times around the given one, each round's with what disturbs it: half of them below, half above.
func noisy(ns, noise float64) []float64 {
	var times []float64
	for i := range 40 {
		times = append(times, ns*(1+noise*(float64(i*17%40)-19.5)/20))
	}
	return times
}

func steady(ns float64) []float64 { return noisy(ns, 0) }

func TestABoundIsComparedWithTheCheapest(t *testing.T) {
	b := bound{"test", one("a"), rows("dear", "cheap", "dearer"), 1}
	f, err := b.find(measured(map[string][]float64{
		"a": steady(6), "dear": steady(20), "cheap": steady(12), "dearer": steady(21),
	}), 0.95)
	if err != nil || f.against != "cheap" || !near(f.ratio.Center, 0.5) {
		t.Errorf("%+v, %v", f, err)
	}
}

func TestABoundAddsUpWhatItIsComparedWith(t *testing.T) {
	b := bound{"test", one("a"), []sum{{one("b"), nTimes(2, "c")}}, 1}
	f, err := b.find(measured(map[string][]float64{"a": steady(8), "b": steady(10), "c": steady(3)}), 0.95)
	if err != nil || f.against != "b + 2 × c" || !near(f.ratio.Center, 0.5) {
		t.Errorf("%+v, %v", f, err)
	}
}

func TestOnlyAWholeIntervalAboveItsBoundIsOver(t *testing.T) {
	for _, test := range []struct {
		a    []float64 // compared with 100, of which it may be one and a half
		want standing
	}{
		{steady(149), within},
		{steady(151), over},
		{noisy(149, 0.3), within},
		{noisy(155, 0.3), undecided},
		{noisy(300, 0.3), over},
	} {
		b := bound{"test", one("a"), rows("b"), 1.5}
		f, err := b.find(measured(map[string][]float64{"a": test.a, "b": steady(100)}), checkConfidence)
		if err != nil || f.standing() != test.want {
			t.Errorf("%s, want %s: %+v, %v", f.standing(), test.want, f, err)
		}
	}
}

func TestTheTableTellsWhatIsOver(t *testing.T) {
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
	overs := tell(&out, findings)
	if len(overs) != 2 || overs[0].most != 0.5 || overs[1].most != 0.7 || strings.Count(out.String(), string(over)) != 2 {
		t.Errorf("%d are over in\n%s", len(overs), &out)
	}
}

func TestARowThatWasNotMeasuredIsAnError(t *testing.T) {
	for name, r := range map[string]*results{
		"what":     measured(map[string][]float64{"b": steady(1)}),
		"than":     measured(map[string][]float64{"a": steady(1)}),
		"of a sum": measured(map[string][]float64{"a": steady(1), "b": steady(1)}),
	} {
		b := bound{"test", one("a"), []sum{{one("b"), one("c")}}, 1}
		if f, err := b.find(r, 0.95); err == nil || !strings.Contains(err.Error(), "not measured") {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
}

func TestEveryRowOfEveryBoundIsAskedForOnce(t *testing.T) {
	need := rowsOf(bounds)
	for _, b := range bounds {
		for _, s := range append([]sum{{b.what}}, b.than...) {
			for _, term := range s {
				if !slices.Contains(need, term.of) {
					t.Errorf("%s: %+v is not among the rows", b.name, term.of)
				}
			}
		}
	}
	for i, r := range need {
		if slices.Contains(need[i+1:], r) {
			t.Errorf("%+v is there twice", r)
		}
	}
}

func TestARowIsRunByItsExactName(t *testing.T) {
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

func TestOnlyWhatIsBrokenTwiceIsBroken(t *testing.T) {
	a, b, c := bound{name: "a"}, bound{name: "b"}, bound{name: "c"}
	names := func(bounds []bound) (names string) {
		for _, b := range bounds {
			names += b.name
		}
		return names
	}
	for _, test := range []struct {
		looks []string // what each finds broken
		want  string
		saw   string
	}{
		{[]string{""}, "", "abc by 10;"},
		{[]string{"ac", ""}, "", "abc by 10;ac by 20;"},
		{[]string{"ac", "c"}, "c", "abc by 10;ac by 20;"},
		{[]string{"b", "b"}, "b", "abc by 10;b by 20;"},
	} {
		saw := ""
		broken, err := twice([]bound{a, b, c}, 10, func(bounds []bound, rounds int) (overs []bound, err error) {
			saw += fmt.Sprintf("%s by %d;", names(bounds), rounds)
			for _, b := range bounds {
				if strings.Contains(test.looks[0], b.name) {
					overs = append(overs, b)
				}
			}
			test.looks = test.looks[1:]
			return overs, nil
		})
		if err != nil || names(broken) != test.want || saw != test.saw {
			t.Errorf("broken %q, looked at %q, %v; want %q, %q", names(broken), saw, err, test.want, test.saw)
		}
	}
	failed := errors.New("failed")
	if _, err := twice(nil, 1, func([]bound, int) ([]bound, error) { return nil, failed }); err != failed {
		t.Error(err)
	}
}
