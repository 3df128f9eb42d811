package main

import (
	"bytes"
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
	b := bound{"test", one("a"), []sum{{one("b"), summand{2, "c", 0}}}, 1}
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

func TestTheTableCountsWhatIsOver(t *testing.T) {
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
	if n := tell(&out, findings); n != 2 || strings.Count(out.String(), string(over)) != 2 {
		t.Errorf("%d are over in\n%s", n, &out)
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

func TestEveryRowOfEveryBoundIsAskedFor(t *testing.T) {
	need := rowsOf(bounds)
	for _, b := range bounds {
		for _, s := range append([]sum{{b.what}}, b.than...) {
			for _, term := range s {
				if !slices.Contains(need[term.procs], term.row) {
					t.Errorf("%s: %s on %d is not among the rows", b.name, term.row, term.procs)
				}
			}
		}
	}
}

func TestARowIsRunByItsExactName(t *testing.T) {
	passes := only(suite{}, map[int][]string{
		0: {"Closed/ours/serial"}, machineProcs: {"Closed/ours/serial"}, machineProcs + 1: {"Open/a.b/serial"},
	})
	if len(passes) != 2 || passes[0].procs[0] != machineProcs || passes[1].procs[0] != machineProcs+1 {
		t.Fatalf("%+v", passes)
	}
	if got, want := passes[0].benchmark, "^BenchmarkClosed$/^ours$/^serial$"; got != want {
		t.Errorf("pattern %s, want %s", got, want)
	}
	if got, want := passes[1].benchmark, `^BenchmarkOpen$/^a\.b$/^serial$`; got != want {
		t.Errorf("pattern %s, want %s", got, want)
	}
}
