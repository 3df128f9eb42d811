package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// A summary describes the calls of a client in a phase.
type summary struct {
	calls    int
	good     float64       // share of the calls with a good answer
	median   time.Duration // time to an answer or error
	requests float64       // at the server, per call
}

// summarize describes the calls that were due, and the requests that arrived, in the phase.
func summarize(c *client, cfg config, p phase) summary {
	begin, end := cfg.span(p)
	var took []time.Duration
	good := 0
	for _, call := range c.calls {
		if begin <= call.at && call.at < end {
			took = append(took, call.took)
			if call.good() {
				good++
			}
		}
	}
	if len(took) == 0 {
		return summary{}
	}
	requests := 0
	for _, at := range c.arrivals {
		if begin <= at && at < end {
			requests++
		}
	}
	slices.Sort(took)
	n := float64(len(took))
	return summary{len(took), float64(good) / n, took[(len(took)-1)/2], float64(requests) / n}
}

// A client has recovered when this share of the calls of one second gets a good answer.
const recovered = 0.95

// recovery returns how long after the trouble the client recovered. It reports false if the client
// didn't recover during the run.
func recovery(c *client, cfg config) (time.Duration, bool) {
	begin, _ := cfg.span(after)
	calls := slices.DeleteFunc(slices.Clone(c.calls), func(call call) bool { return call.at < begin })
	slices.SortFunc(calls, func(a, b call) int { return cmp.Compare(a.at, b.at) })
	window := int(cfg.rate()) // the calls of one second
	good := 0
	for i, call := range calls {
		if call.good() {
			good++
		}
		if i >= window && calls[i-window].good() {
			good--
		}
		if first := i - window + 1; first >= 0 && float64(good) >= recovered*float64(window) {
			return calls[first].at - begin, true
		}
	}
	return 0, false
}

// overruns returns how often the server restarted because it was overrun.
func overruns(c *client) int { return max(0, len(c.restarts)-1) } // the first restart ended the trouble

// printTable prints a row for each client.
func printTable(w io.Writer, r *result) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table)
	fmt.Fprintln(table, "\tgood answers\trecovered\tgood\tgood\tmedian wait\trequests per call\t")
	fmt.Fprintln(table, "client\tafter the trouble\tafter\tbefore\tduring\tafter\tafter\t")
	for _, c := range r.clients {
		fmt.Fprintf(table, "%s\t%s\t\n", c.name, cells(c, r))
	}
	fmt.Fprintln(table)
	if err := table.Flush(); err != nil {
		return err
	}
	if r.cfg.warmUp > 0 {
		fmt.Fprintf(w, "restarts of the server after the trouble, because it was overrun while it warmed up:")
		for i, c := range r.clients {
			if i > 0 {
				fmt.Fprint(w, ",")
			}
			fmt.Fprintf(w, " %s %d", c.name, overruns(c))
		}
		fmt.Fprint(w, "\n\n")
	}
	_, err := fmt.Fprintf(w, notes, capacity, 100*r.cfg.load, r.cfg.trouble, patience, 100*recovered)
	return err
}

const notes = `The server handles %.0f requests per second; the callers use %.0f%% of that. For %v each request takes ten times as long.
good answers: share of the calls that were answered while the caller waited, which is %v.
recovered after: from the end of the trouble until %.0f%% of the calls of one second got a good answer.
median wait: time until half of the callers had an answer or an error.
requests per call: what reached the server, per call of the client.

`

// cells returns a table row without its name.
func cells(c *client, r *result) string {
	good := func(p phase) string {
		s := summarize(c, r.cfg, p)
		if s.calls == 0 {
			return "-"
		}
		return fmt.Sprintf("%.1f%%", 100*s.good)
	}
	back, median, requests := "-", "-", "-"
	if s := summarize(c, r.cfg, after); s.calls > 0 {
		back = "never in this run"
		if took, ok := recovery(c, r.cfg); ok {
			back = readable(took)
		}
		median, requests = readable(s.median), fmt.Sprintf("%.1f", s.requests)
	}
	return fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s", good(after), back, good(before), good(trouble), median, requests)
}

// readable rounds a time for a reader.
func readable(d time.Duration) string {
	if d >= time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Millisecond).String()
}
