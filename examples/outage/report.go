package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// A row is what the table tells of a client in a phase.
type row struct {
	calls    int
	answered float64       // share with a good answer
	inTime   float64       // share with a good answer while the user still waited
	p50, p99 time.Duration // time to an answer or error
	requests int           // that reached the server
}

// summarize looks at the calls that were due, and the requests that arrived, from begin to end.
func summarize(c *client, begin, end, unit time.Duration) row {
	var r row
	var took []time.Duration
	answered, inTime := 0, 0
	for _, call := range c.calls {
		if begin <= call.at && call.at < end {
			took = append(took, call.took)
			if call.ok {
				answered++
				if call.took <= patience*unit {
					inTime++
				}
			}
		}
	}
	for _, at := range c.requests {
		if begin <= at && at < end {
			r.requests++
		}
	}
	if r.calls = len(took); r.calls > 0 {
		slices.Sort(took)
		r.answered = float64(answered) / float64(r.calls)
		r.inTime = float64(inTime) / float64(r.calls)
		r.p50, r.p99 = quantile(took, 50), quantile(took, 99)
	}
	return r
}

// quantile is the smallest of the sorted times that at least percent of them do not exceed.
func quantile(sorted []time.Duration, percent int) time.Duration {
	return sorted[(len(sorted)*percent+99)/100-1]
}

// recovery is how long after the outage a client was well again: from the first call on after which, for one unit, every call
// was answered and none was slow. It reports false if that did not happen.
func recovery(c *client, unit time.Duration) (time.Duration, bool) {
	outageEnd, runEnd := span(len(script)-1, unit)
	calls := slices.DeleteFunc(slices.Clone(c.calls), func(call call) bool { return call.at < outageEnd })
	slices.SortFunc(calls, func(a, b call) int { return cmp.Compare(a.at, b.at) })
	since := runEnd
	for _, call := range calls {
		switch well := call.ok && call.took < unit/2; {
		case !well:
			since = runEnd
		case since == runEnd:
			since = call.at
		case call.at-since >= unit:
			return since - outageEnd, true
		}
	}
	return 0, false
}

// printTable prints a row for each phase and client.
func printTable(w io.Writer, r *result) error {
	unit := r.cfg.unit
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table)
	fmt.Fprintln(table, "phase\tclient\tcalls\tanswered\tin "+readable(patience*unit)+"\tp50\tp99\trequests at server\trecovered after\t")
	for i, p := range script {
		begin, end := span(i, unit)
		if begin >= r.end {
			break
		}
		until := end
		if last := i == len(script)-1; last {
			until = 1 << 62 // requests of late retries too
		}
		for j, c := range r.clients {
			name := p.name
			if j > 0 {
				name = ""
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t\n", name, c.name, cells(c, i, begin, until, unit))
		}
	}
	fmt.Fprintln(table)
	if err := table.Flush(); err != nil {
		return err
	}
	text := notes
	if r.cfg.companions {
		text += companionsNotes
	}
	_, err := fmt.Fprintln(w, text)
	return err
}

const notes = `answered: share of the calls that got a good answer, however late; then of those that got it in time for a user who waits.
p50, p99: time until the caller had an answer or an error. Calls belong to the phase they began in, requests to that they came in.
recovered after: from the end of the outage until calls were answered, and fast, again.
While its breaker is open the pipeline answers with an error at once: it gives up late answers for a fast word and a spared server.
The naive client's late answers are those of retries that outlived the outage.
`

const companionsNotes = `The limit refuses calls once as many hang as the server takes at a time, which may be before the breaker has seen enough of them.
Hedges cut the tail of a healthy server (go run ./examples/tail); of one where every call is slow they ask 5 % more, no more than that.
`

// cells are a table row without its titles.
func cells(c *client, phase int, begin, end, unit time.Duration) string {
	s := summarize(c, begin, end, unit)
	answered, inTime, p50, p99, recovered := "-", "-", "-", "-", ""
	if s.calls > 0 {
		answered = fmt.Sprintf("%.0f %%", 100*s.answered)
		inTime = fmt.Sprintf("%.0f %%", 100*s.inTime)
		p50, p99 = readable(s.p50), readable(s.p99)
	}
	if phase == len(script)-1 {
		recovered = "not in this run"
		if after, ok := recovery(c, unit); ok {
			recovered = readable(after)
		}
	}
	return fmt.Sprintf("%d\t%s\t%s\t%s\t%s\t%d\t%s", s.calls, answered, inTime, p50, p99, s.requests, recovered)
}

// readable rounds to what a reader wants to know.
func readable(d time.Duration) string {
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(time.Millisecond).String()
	}
	return d.Round(10 * time.Microsecond).String()
}
