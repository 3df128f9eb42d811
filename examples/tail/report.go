package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// sorted returns the times of the client's calls, in ascending order.
func (c *client) sorted() []time.Duration {
	took := make([]time.Duration, len(c.calls))
	for i, call := range c.calls {
		took[i] = call.took
	}
	slices.Sort(took)
	return took
}

// quantile returns the time below which the given share of the sorted times is.
func quantile(sorted []time.Duration, share float64) time.Duration {
	return sorted[min(len(sorted)-1, int(share*float64(len(sorted))))]
}

// extra returns the starts in addition to the calls, as a share of the calls.
func (c *client) extra() float64 {
	return float64(c.dependency.starts)/float64(len(c.calls)) - 1
}

// printTable prints a row for each client.
func printTable(w io.Writer, r *result) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table)
	fmt.Fprintln(table, "client\tp99\tp50\tp90\tp99.9\tslowest\tcalls\textra starts\t")
	for _, c := range r.clients {
		fmt.Fprintf(table, "%s\t", c.name)
		if took := c.sorted(); len(took) > 0 {
			for _, share := range []float64{0.99, 0.5, 0.9, 0.999, 1} {
				fmt.Fprintf(table, "%s\t", readable(quantile(took, share)))
			}
			fmt.Fprintf(table, "%d\t%.1f%%\t", len(c.calls), 100*c.extra())
		}
		fmt.Fprintln(table)
	}
	fmt.Fprintln(table)
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprint(w, notes)
	return err
}

const notes = `extra starts: starts of calls that reached the dependency in addition to the first ones.
The first hundred calls aren't hedged: from them, the hedge learns how fast the dependency is.
A hedge can be slow too, one in a hundred.

`

// readable rounds a time for a reader.
func readable(d time.Duration) string {
	if d >= time.Second {
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(100 * time.Microsecond).String()
}
