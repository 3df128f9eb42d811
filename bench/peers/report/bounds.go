package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"golang.org/x/perf/benchmath"
)

// A bound is a promise of the kind "this costs at most so much of that", in rows of bench/peers. All rows are whole: each has
// its loop and its call in it.
type bound struct {
	name string
	what summand // what must not cost too much
	than []sum   // what it is compared with: the cheapest of these
	most float64
}

// A sum is a cost put together of several rows, each so many times.
type sum []summand

type summand struct {
	times float64
	row   string
	procs int // 0 for those of the machine
}

func one(row string) summand { return summand{1, row, 0} }

func rows(names ...string) []sum {
	var sums []sum
	for _, name := range names {
		sums = append(sums, sum{one(name)})
	}
	return sums
}

func closed(callers string) []sum {
	var names []string
	for _, peer := range []string{"eapache", "gobreaker", "gobreaker-two-step", "failsafe", "failsafe-two-step", "cep21"} {
		names = append(names, "Closed/"+peer+"/"+callers)
	}
	return rows(names...)
}

var nowAndAdd = []sum{{one("Floors/now/serial"), one("Floors/add/serial")}}

// bounds are what a change must not go beyond.
var bounds = []bound{
	{"closed breaker, to the fastest peer", one("Closed/ours/serial"), closed("serial"), 1},
	{"closed breaker in parallel, to the fastest peer", one("Closed/ours/parallel"), closed("parallel"), 1},
	{"refusal, to gobreaker's", one("Open/ours/serial"), rows("Open/gobreaker/serial"), 0.1},
	{"refusal, to a bare call and twice an atomic load and compare", one("Open/ours/serial"),
		[]sum{{one("Floors/bare/serial"), summand{2, "Floors/load-compare/serial", 0}}}, 1},
	{"window breaker, to failsafe-go's in two steps", one("RateWindow/ours/serial"),
		rows("RateWindow/failsafe-two-step/serial"), 0.5},
	{"window breaker, to time.Now and an atomic add", one("RateWindow/ours/serial"), nowAndAdd, 0.9},
	{"window breaker with slow and hanging calls, to time.Now and an atomic add", one("RateWindow/ours-slow/serial"), nowAndAdd, 2},
	{"window breaker on two processors, to one", summand{1, "RateWindow/ours/parallel", 2},
		[]sum{{summand{1, "RateWindow/ours/parallel", 1}}}, 1},
	{"retry, first try, to backoff's", one("Retry/ours/serial"), rows("Retry/backoff-v4/serial", "Retry/backoff-v5/serial"), 0.3},
	{"timeout without Done, to context.WithTimeout", one("Timeout/ours/serial"), rows("Timeout/context/serial"), 0.4},
	{"timeout with Done, to context.WithTimeout", one("Timeout/ours-done/serial"), rows("Timeout/context-done/serial"), 1.1},
	{"pipeline, to failsafe-go's", one("Pipeline/ours/serial"), rows("Pipeline/failsafe/serial"), 0.12},
	{"HTTP with an empty pipeline, to the bare transport", one("HTTP/ours-empty/serial"), rows("HTTP/bare/serial"), 1.25},
	{"HTTP with a whole pipeline, network apart, to failsafehttp's", one("HTTPAlone/ours/serial"),
		rows("HTTPAlone/failsafe/serial"), 1},
}

// A finding is what the measurements say of a bound.
type finding struct {
	bound
	ratio   benchmath.Summary
	against string // which of the costs compared with is the cheapest
}

// A standing is where a ratio stands to its bound.
type standing string

const (
	within    standing = "ok"
	undecided standing = "over, within the noise"
	over      standing = "OVER"
)

// standing is over only where the whole interval is: a noisy machine is no finding.
func (f finding) standing() standing {
	switch {
	case f.ratio.Center <= f.most:
		return within
	case f.ratio.Lo <= f.most:
		return undecided
	default:
		return over
	}
}

// find compares what r holds with the bound.
func (b bound) find(r *results, confidence float64) (finding, error) {
	what, err := sum{b.what}.costs(r)
	if err != nil {
		return finding{}, fmt.Errorf("%s: %w", b.name, err)
	}
	var cheapest []float64
	against := ""
	for _, s := range b.than {
		costs, err := s.costs(r)
		if err != nil {
			return finding{}, fmt.Errorf("%s: %w", b.name, err)
		}
		if cheapest == nil || median(costs, confidence).Center < median(cheapest, confidence).Center {
			cheapest, against = costs, s.String()
		}
	}
	ratio, err := compare(what, cheapest, confidence)
	if err != nil {
		return finding{}, fmt.Errorf("%s: %w", b.name, err)
	}
	return finding{b, ratio, against}, nil
}

// costs is the sum for every round.
func (s sum) costs(r *results) ([]float64, error) {
	var total []float64
	for _, t := range s {
		each := r.seconds("peers", t.row, t.procs)
		if len(each) == 0 {
			return nil, fmt.Errorf("%s was not measured", t.row)
		}
		if total == nil {
			total = make([]float64, len(each))
		}
		if len(each) != len(total) {
			return nil, fmt.Errorf("%s was measured %d times, not %d", t.row, len(each), len(total))
		}
		for i, v := range each {
			total[i] += t.times * v
		}
	}
	return total, nil
}

func (s sum) String() string {
	var parts []string
	for _, t := range s {
		name := t.row
		if t.times != 1 {
			name = fmt.Sprintf("%g × %s", t.times, name)
		}
		if t.procs != 0 {
			name = fmt.Sprintf("%s on %d", name, t.procs)
		}
		parts = append(parts, name)
	}
	return strings.Join(parts, " + ")
}

// rowsOf are the rows that the bounds need, by number of processors.
func rowsOf(bounds []bound) map[int][]string {
	byProcs := map[int][]string{}
	need := func(t summand) {
		if !slices.Contains(byProcs[t.procs], t.row) {
			byProcs[t.procs] = append(byProcs[t.procs], t.row)
		}
	}
	for _, b := range bounds {
		need(b.what)
		for _, s := range b.than {
			for _, t := range s {
				need(t)
			}
		}
	}
	return byProcs
}

// findAll compares r with all bounds.
func findAll(r *results, confidence float64) ([]finding, error) {
	var findings []finding
	for _, b := range bounds {
		f, err := b.find(r, confidence)
		if err != nil {
			return nil, err
		}
		findings = append(findings, f)
	}
	return findings, nil
}

// tell writes the findings as a table for a terminal, and reports how many are over their bound.
func tell(w io.Writer, findings []finding) (overs int) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ratio\tinterval\tbound\t\twhat\tto")
	for _, f := range findings {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n",
			short(f.ratio.Center), interval(f.ratio), short(f.most), f.standing(), f.name, f.against)
		if f.standing() == over {
			overs++
		}
	}
	table.Flush()
	return overs
}
