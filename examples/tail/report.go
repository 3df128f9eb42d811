package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// sorted are the times of the client's calls.
func (c *client) sorted() []time.Duration {
	took := make([]time.Duration, len(c.calls))
	for i, call := range c.calls {
		took[i] = call.took
	}
	slices.Sort(took)
	return took
}

// quantile is the sorted time that all but the share of them reach or exceed.
func quantile(sorted []time.Duration, share float64) time.Duration {
	return sorted[min(len(sorted)-1, int(share*float64(len(sorted))))]
}

// more is how many more starts than calls the client's dependency saw, as a share of the calls.
func (c *client) more() float64 {
	return float64(c.dependency.starts)/float64(len(c.calls)) - 1
}

// printTable prints a row for each client.
func printTable(w io.Writer, r *result) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table)
	fmt.Fprintln(table, "client\tcalls\tmore\tp50\tp90\tp99\tp99.9\tslowest\t")
	for _, c := range r.clients {
		fmt.Fprintf(table, "%s\t%d\t", c.name, len(c.calls))
		if took := c.sorted(); len(took) > 0 {
			fmt.Fprintf(table, "%.1f %%\t", 100*c.more())
			for _, share := range []float64{0.5, 0.9, 0.99, 0.999, 1} {
				fmt.Fprintf(table, "%s\t", readable(quantile(took, share)))
			}
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

const notes = `more: how many more calls reached the dependency than were made.
The first hundred calls are not hedged: they tell how fast the dependency is. A hedge may be slow too, one in a hundred.

`

// readable rounds to what a reader wants to know.
func readable(d time.Duration) string {
	if d >= time.Second {
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(100 * time.Microsecond).String()
}
