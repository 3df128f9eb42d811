package main

import (
	"fmt"
	"io"
	"math"
	"text/tabwriter"
	"time"
)

// settle is how long a law may take to find the new limit before the table judges it: 50 round trips.
const settle = 50

// A row is what the table tells of a law in a phase, from settle on.
type row struct {
	limit, least, most int           // all clients' together: the mean, and the extremes
	off                float64       // share by which the worst of them was off the number of workers
	took               time.Duration // mean round trip
	rate               float64       // answers a second
}

// summarize looks at the phase.
func summarize(r *result, i, workers int) row {
	begin, end := span(i)
	begin += settle * script[i].pace
	right := script[i].workers(workers)
	s := row{least: math.MaxInt}
	sum, n := 0, 0
	for _, l := range r.looks {
		if l.at < begin || l.at >= end {
			continue
		}
		limit := together(l.limits)
		s.least, s.most = min(s.least, limit), max(s.most, limit)
		sum += limit
		n++
		if off := float64(limit)/float64(right) - 1; math.Abs(off) > math.Abs(s.off) {
			s.off = off
		}
	}
	s.limit = sum / max(1, n)
	var took time.Duration
	answers := 0
	for _, t := range r.trips {
		if t.at >= begin && t.at < end {
			took += t.took
			answers++
		}
	}
	s.took = took / time.Duration(max(1, answers))
	s.rate = float64(answers) / (end - begin).Seconds()
	return s
}

func together(limits []int) (sum int) {
	for _, limit := range limits {
		sum += limit
	}
	return sum
}

// printTable prints a row for each phase and law.
func printTable(w io.Writer, cfg config, runs []*result) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "phase\tworkers\tlaw\tlimit\tleast\tmost\tworst off by\tround trip\tof it needed\tanswers/s\t")
	for i, p := range script {
		for j, r := range runs {
			name, workers := p.name, fmt.Sprint(p.workers(cfg.workers))
			if j > 0 {
				name, workers = "", ""
			}
			s := summarize(r, i, cfg.workers)
			fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%d\t%d\t%+.0f %%\t%v\t%v\t%.0f\t\n",
				name, workers, r.law.name, s.limit, s.least, s.most, 100*s.off, s.took.Round(100*time.Microsecond), p.pace, s.rate)
		}
	}
	fmt.Fprintln(table)
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, `Each phase is judged from %d round trips after its beginning. limit: the mean, of both clients' together in the last phase; the right one is the number
of workers. With fewer calls some workers idle, with more calls queue: the round trip is longer than needed, and no call is answered sooner for it. Gradient2
stops where there are no more callers: it grows while at least half of the limit runs.
`, settle)
	return err
}
