package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"golang.org/x/perf/benchmath"
)

// A bound is a promise of the kind "this costs at most so much of that". All rows are whole: each has its loop and its call in it.
type bound struct {
	name string
	what summand // what must not cost too much
	than []sum   // what it is compared with: the cheapest of these
	most float64
}

// A sum is a cost put together of several rows, each so many times.
type sum []summand

// A summand's row with 0 processors is that of the machine's.
type summand struct {
	times float64
	of    row
}

func one(name string) summand { return nTimes(1, name) }

func nTimes(n float64, name string) summand { return summand{n, row{"peers", name, 0}} }

func on(procs int, name string) summand { return summand{1, row{"peers", name, procs}} }

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

// grows says that n cost at most n times what one does, by two rows of bench.
func grows(what string, n int, row1, rowN string) bound {
	return bound{fmt.Sprintf("%d %s, to %[1]d times one", n, what), summand{1, row{"bench", rowN, 0}},
		[]sum{{summand{float64(n), row{"bench", row1, 0}}}}, 1}
}

// bounds are what a change must not go beyond.
var bounds = []bound{
	{"closed breaker, to the fastest peer", one("Closed/ours/serial"), closed("serial"), 1},
	{"closed breaker in parallel, to the fastest peer", one("Closed/ours/parallel"), closed("parallel"), 1},
	{"closed breaker on two processors, to one", on(2, "Closed/ours/parallel"), []sum{{on(1, "Closed/ours/parallel")}}, 1},
	{"refusal, to gobreaker's", one("Open/ours/serial"), rows("Open/gobreaker/serial"), 0.1},
	{"refusal, to a bare call and twice an atomic load and compare", one("Open/ours/serial"),
		[]sum{{one("Floors/bare/serial"), nTimes(2, "Floors/load-compare/serial")}}, 1},
	{"window breaker, to failsafe-go's in two steps", one("RateWindow/ours/serial"),
		rows("RateWindow/failsafe-two-step/serial"), 0.5},
	{"window breaker, to time.Now and an atomic add", one("RateWindow/ours/serial"), nowAndAdd, 0.9},
	{"window breaker with slow and hanging calls, to time.Now and an atomic add", one("RateWindow/ours-slow/serial"), nowAndAdd, 2},
	{"window breaker on two processors, to one", on(2, "RateWindow/ours/parallel"), []sum{{on(1, "RateWindow/ours/parallel")}}, 1},
	{"retry, first try, to sethvargo's", one("Retry/ours/serial"), rows("Retry/sethvargo/serial"), 0.3},
	{"retry, first try, to backoff's", one("Retry/ours/serial"), rows("Retry/backoff-v4/serial", "Retry/backoff-v5/serial"), 0.3},
	{"timeout without Done, to context.WithTimeout", one("Timeout/ours/serial"), rows("Timeout/context/serial"), 0.4},
	{"timeout with Done, to context.WithTimeout", one("Timeout/ours-done/serial"), rows("Timeout/context-done/serial"), 1.1},
	{"pipeline, to failsafe-go's", one("Pipeline/ours/serial"), rows("Pipeline/failsafe/serial"), 0.12},
	{"HTTP with an empty pipeline, to the bare transport", one("HTTP/ours-empty/serial"), rows("HTTP/bare/serial"), 1.25},
	{"HTTP with a whole pipeline, network apart, to failsafehttp's", one("HTTPAlone/ours/serial"),
		rows("HTTPAlone/failsafe/serial"), 1},
	{"bulkhead, to x/sync/semaphore", one("Bulkhead/ours/serial"), rows("Bulkhead/semaphore/serial"), 0.75},
	{"rate limiter in parallel, to x/time/rate", one("RateLimit/ours-allow/parallel"), rows("RateLimit/x-time/parallel"), 0.5},
	{"rate limiter refusing in parallel, to x/time/rate", one("RateLimited/ours-allow/parallel"), rows("RateLimited/x-time/parallel"), 0.5},
	{"hedge, not hedged, to failsafe-go's", one("Hedge/ours/serial"), rows("Hedge/failsafe/serial"), 1},
	grows("breakers in a pipeline", 1000, "PipelineLength/kind=breaker/policies=1/callers=serial",
		"PipelineLength/kind=breaker/policies=1000/callers=serial"),
	grows("timeouts in a pipeline", 1000, "PipelineLength/kind=timeout/policies=1/callers=serial",
		"PipelineLength/kind=timeout/policies=1000/callers=serial"),
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
		each := r.seconds(t.of.pkg, t.of.name, t.of.procs)
		if len(each) == 0 {
			return nil, fmt.Errorf("%s was not measured", t.of.name)
		}
		if total == nil {
			total = make([]float64, len(each))
		}
		if len(each) != len(total) {
			return nil, fmt.Errorf("%s was measured %d times, not %d", t.of.name, len(each), len(total))
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
		name := t.of.name
		if t.times != 1 {
			name = fmt.Sprintf("%g × %s", t.times, name)
		}
		if t.of.procs != 0 {
			name = fmt.Sprintf("%s on %d", name, t.of.procs)
		}
		parts = append(parts, name)
	}
	return strings.Join(parts, " + ")
}

// rowsOf are the rows that the bounds need.
func rowsOf(bounds []bound) []row {
	var need []row
	for _, b := range bounds {
		for _, s := range append([]sum{{b.what}}, b.than...) {
			for _, t := range s {
				if !slices.Contains(need, t.of) {
					need = append(need, t.of)
				}
			}
		}
	}
	return need
}

// findAll compares r with the bounds.
func findAll(r *results, bounds []bound, confidence float64) ([]finding, error) {
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

// tell writes the findings as a table for a terminal, and returns the bounds that are broken.
func tell(w io.Writer, findings []finding) (overs []bound) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ratio\tinterval\tbound\t\twhat\tto")
	for _, f := range findings {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n",
			short(f.ratio.Center), interval(f.ratio), short(f.most), f.standing(), f.name, f.against)
		if f.standing() == over {
			overs = append(overs, f.bound)
		}
	}
	table.Flush()
	return overs
}
