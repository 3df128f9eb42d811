package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/perf/benchfmt"
	"golang.org/x/perf/benchmath"
)

// A row is one benchmark, by the name of the package it is in, its own name without "Benchmark", and the number of processors
// that it ran on.
type row struct {
	pkg   string // "bench" or "peers"
	name  string
	procs int
}

// A cost is what one benchmark gave in every round, in the order of the rounds. Units are benchfmt's: sec/op, B/op, allocs/op.
type cost map[string][]float64

// results are the costs of all rows, and where, when and how they were measured.
type results struct {
	rows   []row // in the order in which they were met first
	costs  map[row]cost
	config map[string]string // of the first result, by benchfmt's keys: those of go test and of header
}

// header is how measurements begin, so that a report made of them later can tell where they come from.
func header(o options, now time.Time) string {
	return fmt.Sprintf("toolchain: %s\ndate: %s\nprocessors: %d\nbenchtime: %s\n\n",
		runtime.Version(), now.Format(time.DateOnly), machineProcs, o.benchtime)
}

func newResults() *results { return &results{costs: map[row]cost{}} }

// read adds what test binaries printed to r.
func (r *results) read(in io.Reader, name string) error {
	reader := benchfmt.NewReader(in, name)
	for reader.Scan() {
		switch rec := reader.Result().(type) {
		case *benchfmt.SyntaxError:
			return rec
		case *benchfmt.Result:
			if r.config == nil {
				r.config = map[string]string{}
				for _, c := range rec.Config {
					r.config[c.Key] = string(c.Value)
				}
			}
			r.add(rec)
		}
	}
	return reader.Err()
}

func (r *results) add(rec *benchfmt.Result) {
	key := rowOf(rec)
	c, ok := r.costs[key]
	if !ok {
		c = cost{}
		r.costs[key] = c
		r.rows = append(r.rows, key)
	}
	for _, v := range rec.Values {
		c[v.Unit] = append(c[v.Unit], v.Value)
	}
}

func rowOf(rec *benchfmt.Result) row {
	pkg := rec.GetConfig("pkg")
	name, procs := rec.Name.Full(), 1
	if i := bytes.LastIndexByte(name, '-'); i >= 0 {
		if n, err := strconv.Atoi(string(name[i+1:])); err == nil && n > 0 {
			name, procs = name[:i], n
		}
	}
	return row{pkg[strings.LastIndexByte(pkg, '/')+1:], string(name), procs}
}

// procs is the numbers of processors that the row was run on, in ascending order.
func (r *results) procs(pkg, name string) []int {
	var procs []int
	for _, key := range r.rows {
		if key.pkg == pkg && key.name == name {
			procs = append(procs, key.procs)
		}
	}
	slices.Sort(procs)
	return procs
}

// cost is what the row cost; nil if it was not run. Where procs is 0 and the row ran on several numbers of processors, it is
// that on as many as the machine has, or the nearest below.
func (r *results) cost(pkg, name string, procs int) cost {
	if procs == 0 {
		for _, n := range r.procs(pkg, name) {
			if procs == 0 || n <= r.machineProcs() {
				procs = n
			}
		}
	}
	return r.costs[row{pkg, name, procs}]
}

// seconds is the time that the row took in every round: see cost.
func (r *results) seconds(pkg, name string, procs int) []float64 {
	return r.cost(pkg, name, procs)["sec/op"]
}

// machineProcs is how many processors the measuring machine had.
func (r *results) machineProcs() int {
	if n, err := strconv.Atoi(r.config["processors"]); err == nil {
		return n
	}
	return machineProcs
}

// rounds is how often the benchmarks were run.
func (r *results) rounds() int {
	if len(r.rows) == 0 {
		return 0
	}
	return len(r.costs[r.rows[0]]["sec/op"])
}

// check reports rows that were not run as often as the others: rounds are compared one by one.
func (r *results) check() error {
	if len(r.rows) == 0 {
		return errors.New("no measurements")
	}
	for _, key := range r.rows {
		if n := len(r.costs[key]["sec/op"]); n != r.rounds() {
			return fmt.Errorf("%s/%s on %d processors was run %d times, not %d", key.pkg, key.name, key.procs, n, r.rounds())
		}
	}
	return nil
}

// median is the median and its interval of confidence, as benchstat computes them. The interval is unbounded where there
// are too few values.
func median(values []float64, confidence float64) benchmath.Summary {
	sample := benchmath.NewSample(slices.Clone(values), &benchmath.DefaultThresholds)
	return benchmath.AssumeNothing.Summary(sample, confidence)
}

// compare is the median, over the rounds, of a's cost to b's in the same round. What slows a whole round is in both.
func compare(a, b []float64, confidence float64) (benchmath.Summary, error) {
	if len(a) == 0 || len(a) != len(b) {
		return benchmath.Summary{}, fmt.Errorf("%d values to compare with %d", len(a), len(b))
	}
	each := make([]float64, len(a))
	for i := range a {
		if b[i] <= 0 {
			return benchmath.Summary{}, fmt.Errorf("round %d: nothing to compare with", i+1)
		}
		each[i] = a[i] / b[i]
	}
	return median(each, confidence), nil
}

// interval reads "0.31 to 0.35", or is "" where the interval is unbounded.
func interval(s benchmath.Summary) string {
	if math.IsInf(s.Lo, 0) || math.IsInf(s.Hi, 0) {
		return ""
	}
	return fmt.Sprintf("%s to %s", short(s.Lo), short(s.Hi))
}

// short is a number, not negative, with as many digits as a reader needs.
func short(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v >= 99.5:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 9.95:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case v >= 0.0995:
		return strconv.FormatFloat(v, 'f', 2, 64)
	default:
		return strconv.FormatFloat(v, 'f', 3, 64)
	}
}

// withInterval reads "0.33 (0.31 to 0.35)".
func withInterval(s benchmath.Summary) string {
	if between := interval(s); between != "" {
		return fmt.Sprintf("%s (%s)", short(s.Center), between)
	}
	return short(s.Center)
}

// duration is the median of times in seconds, as "12.3 ns"; "" if there are none.
func duration(seconds []float64) string {
	if len(seconds) == 0 {
		return ""
	}
	v := median(seconds, confidence).Center * 1e9
	for _, unit := range []string{"ns", "µs", "ms"} {
		if v < 999.5 {
			return short(v) + " " + unit
		}
		v /= 1000
	}
	return short(v) + " s"
}
