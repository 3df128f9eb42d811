package main

import (
	"fmt"
	"io"
	"math"
	"text/tabwriter"
	"time"
)

// settle is how many round trips a law has to find the new limit before the table judges it.
const settle = 50

// A row of the table is about one law in one phase, from settle on.
type row struct {
	limit, least, most int           // all clients' together: the mean, and the extremes
	off                float64       // largest deviation from the number of workers
	took               time.Duration // mean round trip
	rate               float64       // answers a second
}

// summarize returns the row of a phase.
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
			fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%d\t%d\t%+.0f%%\t%v\t%v\t%.0f\t\n",
				name, workers, r.law.name, s.limit, s.least, s.most, 100*s.off, s.took.Round(100*time.Microsecond), p.pace, s.rate)
		}
	}
	fmt.Fprintln(table)
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, `Each phase is judged from %d round trips after it begins. The limit is the mean; in the last phase it
is the sum of both clients'. The right limit is the number of workers. If it is lower, some workers
are idle. If it is higher, calls queue: the round trip is longer than needed, and no call is answered
sooner. Gradient2 stops growing where there are no more callers.
`, settle)
	return err
}
