package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/perf/benchfmt"
	"golang.org/x/perf/benchmath"
)

// A row is one benchmark: the last element of its package, its name without "Benchmark", and the
// number of processors.
type row struct {
	pkg   string // "bench" or "peers"
	name  string
	procs int
}

// values are what a benchmark measured in each round, by the round's number.
type values map[int]float64

// A cost is what a benchmark measured, by unit. Units are benchfmt's: sec/op, B/op, allocs/op.
type cost map[string]values

// results are the costs of rows, and where, when, and how they were measured.
type results struct {
	rows   []row // in order of their first appearance
	costs  map[row]cost
	config map[string]string // of the first result, by benchfmt's keys: those of go test and of header
}

// measurements are all rows, and the rows of the bounds again: alone and in more rounds, so that
// the bounds can be decided.
type measurements struct {
	all, bounds *results
}

func newMeasurements() measurements { return measurements{newResults(), newResults()} }

// decisive returns the results that decide the bounds.
func (m measurements) decisive() *results {
	if len(m.bounds.rows) > 0 {
		return m.bounds
	}
	return m.all
}

// The parts of a file with measurements. A file of go test alone has no such lines: then all of it
// is partAll.
const (
	partAll    = "part: all\n"
	partBounds = "part: bounds\n"
)

// header starts a file with measurements, so that a report made from the file can say where they
// come from.
func header(o options, now time.Time) string {
	return fmt.Sprintf("toolchain: %s\ndate: %s\nprocessors: %d\nbenchtime: %s\n\n",
		runtime.Version(), now.Format(time.DateOnly), machineProcs, o.benchtime)
}

// read adds what test binaries printed. Text that contains no "part:" line belongs to all.
func (m measurements) read(in io.Reader, name string) error {
	return scan(in, name, func(rec *benchfmt.Result) {
		r := m.all
		if rec.GetConfig("part") == "bounds" {
			r = m.bounds
		}
		r.add(rec)
	})
}

func newResults() *results { return &results{costs: map[row]cost{}} }

// read adds what test binaries printed to r.
func (r *results) read(in io.Reader, name string) error { return scan(in, name, r.add) }

func scan(in io.Reader, name string, add func(*benchfmt.Result)) error {
	reader := benchfmt.NewReader(in, name)
	for reader.Scan() {
		switch rec := reader.Result().(type) {
		case *benchfmt.SyntaxError:
			return rec
		case *benchfmt.Result:
			add(rec)
		}
	}
	return reader.Err()
}

func (r *results) add(rec *benchfmt.Result) {
	if r.config == nil {
		r.config = map[string]string{}
		for _, c := range rec.Config {
			r.config[c.Key] = string(c.Value)
		}
	}
	key := rowOf(rec)
	c, ok := r.costs[key]
	if !ok {
		c = cost{}
		r.costs[key] = c
		r.rows = append(r.rows, key)
	}
	for _, v := range rec.Values {
		if c[v.Unit] == nil {
			c[v.Unit] = values{}
		}
		round, err := strconv.Atoi(rec.GetConfig("round"))
		if err != nil {
			round = len(c[v.Unit]) // output of go test alone
		}
		c[v.Unit][round] = v.Value
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

// procs returns the numbers of processors that the row ran on, in ascending order.
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

// cost returns the cost of the row, or nil if it wasn't measured. If procs is 0, it is the row on
// as many processors as the machine has, or on the next lower number that it ran on.
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

// seconds returns the time of the row in every round. See cost.
func (r *results) seconds(pkg, name string, procs int) values {
	return r.cost(pkg, name, procs)["sec/op"]
}

// machineProcs returns how many processors the measuring machine had.
func (r *results) machineProcs() int {
	if n, err := strconv.Atoi(r.config["processors"]); err == nil {
		return n
	}
	return machineProcs
}

// rounds returns the number of rounds.
func (r *results) rounds() int {
	most := 0
	for _, key := range r.rows {
		most = max(most, len(r.costs[key]["sec/op"]))
	}
	return most
}

// check returns an error if a row ran less often than the others.
func (r *results) check() error {
	if len(r.rows) == 0 {
		return errors.New("no measurements")
	}
	for _, key := range r.rows {
		if n := len(r.costs[key]["sec/op"]); n != r.rounds() {
			return fmt.Errorf("%s/%s on %d processors ran %d times, want %d", key.pkg, key.name, key.procs, n, r.rounds())
		}
	}
	return nil
}

// median returns the median and its confidence interval, as benchstat computes them. With too few
// values the interval is infinite.
func median(v values, confidence float64) benchmath.Summary {
	sample := benchmath.NewSample(slices.Collect(maps.Values(v)), &benchmath.DefaultThresholds)
	return benchmath.AssumeNothing.Summary(sample, confidence)
}

// compare returns the median ratio of a to b in the same round. What slows a whole round affects
// both.
func compare(a, b values, confidence float64) (benchmath.Summary, error) {
	each := values{}
	for round := range a {
		other, ok := b[round]
		if !ok {
			continue
		}
		if other <= 0 {
			return benchmath.Summary{}, fmt.Errorf("round %d: nothing to compare with", round)
		}
		each[round] = a[round] / other
	}
	if len(each) == 0 {
		return benchmath.Summary{}, fmt.Errorf("no round has both: %d values compared with %d", len(a), len(b))
	}
	return median(each, confidence), nil
}

// interval returns a text such as "0.31 to 0.35", or "" if the interval is infinite.
func interval(s benchmath.Summary) string {
	if math.IsInf(s.Lo, 0) || math.IsInf(s.Hi, 0) {
		return ""
	}
	return fmt.Sprintf("%s to %s", short(s.Lo), short(s.Hi))
}

// short formats a number that is not negative, with as many digits as a reader needs.
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

// withInterval returns a text such as "0.33 (0.31 to 0.35)".
func withInterval(s benchmath.Summary) string {
	if between := interval(s); between != "" {
		return fmt.Sprintf("%s (%s)", short(s.Center), between)
	}
	return short(s.Center)
}

// duration returns the median of times in seconds as a text such as "12.3 ns", or "" if there are
// none.
func duration(seconds values) string {
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
