package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"golang.org/x/perf/benchmath"
)

// A bound is a promise such as "this costs at most half of that".
type bound struct {
	name string
	what summand // what must not cost too much
	than []sum   // what it is compared with: the cheapest of these. If empty, the bound is of what's allocations per call
	most float64
}

// A sum is the cost of several rows together.
type sum []summand

// A summand is a row, multiplied. A row with 0 processors is the row on the machine's number of
// processors.
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

// grows returns the bound that n policies cost at most n times what one costs, by two rows of
// bench.
func grows(what string, n int, row1, rowN string) bound {
	return bound{fmt.Sprintf("%d %s, to %[1]d times one", n, what), summand{1, row{"bench", rowN, 0}},
		[]sum{{summand{float64(n), row{"bench", row1, 0}}}}, 1}
}

const (
	assembled = "gobreaker-backoff-context"
	request   = ", under a request's context"
)

// bounds are limits that a change must not exceed. Every row includes the loop and the call, which
// cost about 3 ns.
var bounds = []bound{
	{"pipeline, effector waits" + request + ", to gobreaker + backoff + context", one("PipelineDoneRequest/ours/serial"),
		rows("PipelineDoneRequest/" + assembled + "/serial"), 0.6},
	{"pipeline, effector waits" + request + ", to failsafe-go", one("PipelineDoneRequest/ours/serial"),
		rows("PipelineDoneRequest/failsafe/serial"), 0.4},
	{"pipeline, effector waits, to gobreaker + backoff + context", one("PipelineDone/ours/serial"),
		rows("PipelineDone/" + assembled + "/serial"), 0.6},
	{"pipeline, effector waits, to failsafe-go", one("PipelineDone/ours/serial"), rows("PipelineDone/failsafe/serial"), 0.4},
	{"pipeline, effector doesn't wait, to failsafe-go", one("Pipeline/ours/serial"), rows("Pipeline/failsafe/serial"), 0.11},
	{"pipeline, effector doesn't wait, allocations", one("Pipeline/ours/serial"), nil, 3},
	{"timeout, effector waits" + request + ", to context.WithTimeout", one("TimeoutDoneRequest/ours/serial"),
		rows("TimeoutDoneRequest/context/serial"), 1.1},
	{"timeout, effector waits, to context.WithTimeout", one("TimeoutDone/ours/serial"), rows("TimeoutDone/context/serial"), 1.1},
	{"timeout, effector doesn't wait, to context.WithTimeout", one("Timeout/ours/serial"), rows("Timeout/context/serial"), 0.2},
	{"closed breaker, to the fastest peer", one("Closed/ours/serial"), closed("serial"), 1},
	{"closed breaker in parallel, to the fastest peer", one("Closed/ours/parallel"), closed("parallel"), 1},
	{"closed breaker on two processors, to one", on(2, "Closed/ours/parallel"), []sum{{on(1, "Closed/ours/parallel")}}, 1},
	{"refusal by a breaker, to gobreaker", one("Open/ours/serial"), rows("Open/gobreaker/serial"), 0.1},
	{"refusal by a breaker, to a bare call and two atomic loads with compare", one("Open/ours/serial"),
		[]sum{{one("Floors/bare/serial"), nTimes(2, "Floors/load-compare/serial")}}, 1},
	{"window breaker, to failsafe-go in two steps", one("RateWindow/ours/serial"),
		rows("RateWindow/failsafe-two-step/serial"), 0.5},
	{"window breaker, to time.Now and an atomic add", one("RateWindow/ours/serial"), nowAndAdd, 0.9},
	{"window breaker with slow and hanging calls, to time.Now and an atomic add", one("RateWindow/ours-slow/serial"), nowAndAdd, 2},
	{"window breaker on two processors, to one", on(2, "RateWindow/ours/parallel"), []sum{{on(1, "RateWindow/ours/parallel")}}, 1},
	{"retry, first attempt succeeds, to sethvargo", one("Retry/ours/serial"), rows("Retry/sethvargo/serial"), 0.3},
	{"retry, first attempt succeeds, to backoff", one("Retry/ours/serial"), rows("Retry/backoff-v4/serial", "Retry/backoff-v5/serial"), 0.3},
	{"HTTP with an empty pipeline, to the bare transport", one("HTTP/ours-empty/serial"), rows("HTTP/bare/serial"), 1.25},
	{"HTTP with a whole pipeline and no network, to failsafehttp", one("HTTPAlone/ours/serial"),
		rows("HTTPAlone/failsafe/serial"), 1},
	{"bulkhead, to x/sync/semaphore", one("Bulkhead/ours/serial"), rows("Bulkhead/semaphore/serial"), 0.75},
	{"rate limiter in parallel, to x/time/rate", one("RateLimit/ours-allow/parallel"), rows("RateLimit/x-time/parallel"), 0.5},
	{"rate limiter refusing in parallel, to x/time/rate", one("RateLimited/ours-allow/parallel"), rows("RateLimited/x-time/parallel"), 0.5},
	{"hedge that starts once, to failsafe-go", one("Hedge/ours/serial"), rows("Hedge/failsafe/serial"), 1},
	grows("breakers in a pipeline", 1000, "PipelineLength/kind=breaker/policies=1/callers=serial",
		"PipelineLength/kind=breaker/policies=1000/callers=serial"),
	grows("timeouts in a pipeline", 1000, "PipelineLength/kind=timeout/policies=1/callers=serial",
		"PipelineLength/kind=timeout/policies=1000/callers=serial"),
}

// A finding is what the measurements say about a bound.
type finding struct {
	bound
	value   benchmath.Summary // the ratio, or the number of allocations
	against string            // the cheapest of what it is compared with, or "allocations per call"
}

// A standing is where the interval of a value is: below the bound, above it, or on both sides.
type standing string

const (
	met       standing = "met"
	undecided standing = "undecided"
	missed    standing = "missed"
)

// standing returns met or missed only if the whole interval agrees.
func (f finding) standing() standing {
	switch {
	case f.value.Hi <= f.most:
		return met
	case f.value.Lo > f.most:
		return missed
	default:
		return undecided
	}
}

// find compares the measurements with the bound.
func (b bound) find(r *results, confidence float64) (finding, error) {
	if len(b.than) == 0 {
		allocations := r.cost(b.what.of.pkg, b.what.of.name, b.what.of.procs)["allocs/op"]
		if len(allocations) == 0 {
			return finding{}, fmt.Errorf("%s: %s was not measured", b.name, b.what.of.name)
		}
		return finding{b, median(allocations, confidence), "allocations per call"}, nil
	}
	what, err := sum{b.what}.costs(r)
	if err != nil {
		return finding{}, fmt.Errorf("%s: %w", b.name, err)
	}
	var cheapest values
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

// costs returns the sum in every round that measured all of it.
func (s sum) costs(r *results) (values, error) {
	var total values
	for _, t := range s {
		each := r.seconds(t.of.pkg, t.of.name, t.of.procs)
		if len(each) == 0 {
			return nil, fmt.Errorf("%s was not measured", t.of.name)
		}
		next := values{}
		for round, v := range each {
			if before, ok := total[round]; ok || total == nil {
				next[round] = before + t.times*v
			}
		}
		total = next
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

// rowsOf returns the rows that the bounds need, each once.
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

// findAll compares the measurements with all bounds.
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

// decide measures rows of the bounds, and others, until no bound is open or most rounds
// are done. The first look is after a number of rounds, each later one after twice as many. Only
// the rows of open bounds are measured further.
func decide(r *results, bounds []bound, others []row, first, most int, open func(finding) bool,
	measure func(rows []row, from, to int) (string, error), confidence float64) error {
	rest := bounds
	for from, to := 0, min(first, most); from < most && len(rest) > 0; from, to = to, min(2*to, most) {
		text, err := measure(append(rowsOf(rest), others...), from, to)
		if err != nil {
			return err
		}
		if err := r.read(strings.NewReader(text), "measurements"); err != nil {
			return err
		}
		findings, err := findAll(r, rest, confidence)
		if err != nil {
			return err
		}
		rest, others = nil, nil
		for _, f := range findings {
			if open(f) {
				rest = append(rest, f.bound)
			}
		}
	}
	return nil
}

// printFindings writes the findings as a table for a terminal and returns the bounds that are
// missed.
func printFindings(w io.Writer, findings []finding) (over []bound) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "value\tinterval\tbound\t\twhat\tcompared with")
	for _, f := range findings {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n",
			short(f.value.Center), interval(f.value), short(f.most), f.standing(), f.name, f.against)
		if f.standing() == missed {
			over = append(over, f.bound)
		}
	}
	table.Flush()
	return over
}
