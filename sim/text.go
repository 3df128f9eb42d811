package sim

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// The columns of the table, after the pipeline and its verdict.
var columns = []struct {
	head [2]string
	of   func(r *Result) string
}{
	{[2]string{"good", "before"}, func(r *Result) string { return share(r.Before) }},
	{[2]string{"good", "during"}, func(r *Result) string { return share(r.During) }},
	{[2]string{"good", "after"}, func(r *Result) string { return share(r.After) }},
	{[2]string{"attempts", "per call"}, func(r *Result) string { return factor(r.Attempts) }},
	{[2]string{"worst", "10 s"}, func(r *Result) string { return factor(r.Amplification) }},
	{[2]string{"work for", "nobody"}, func(r *Result) string { return share(r.Wasted) }},
	{[2]string{"", "p50"}, func(r *Result) string { return mean(r.P50) }},
	{[2]string{"", "p99"}, func(r *Result) string { return mean(r.P99) }},
	{[2]string{"most calls", "waiting"}, func(r *Result) string { return spread(r.Waiting, whole, "") }},
	{[2]string{"false", "openings"}, func(r *Result) string { return spread(r.FalseOpenings, whole, "") }},
}

func share(s Spread) string { return spread(s, percent, "%") }
func factor(s Spread) string {
	return spread(s, func(v float64) string { return strconv.FormatFloat(v, 'f', 2, 64) }, "×")
}

// spread formats the range of a number over the runs.
func spread(s Spread, format func(float64) string, unit string) string {
	if s.Runs == 0 {
		return "–"
	}
	least, most := format(s.Min), format(s.Max)
	if least == most {
		return least + unit
	}
	return least + "–" + most + unit
}

// percent formats a share without the sign. Only 1 is 100, and only 0 is 0.
func percent(v float64) string {
	switch {
	case v > 0 && v < 0.0005:
		return "<0.1"
	case v < 1 && v >= 0.9995:
		return ">99.9"
	}
	return strings.TrimSuffix(strconv.FormatFloat(100*v, 'f', 1, 64), ".0")
}

// mean formats the mean of a number of seconds, with two digits.
func mean(s Spread) string {
	if s.Runs == 0 {
		return "–"
	}
	d := time.Duration(s.Mean * 1e9)
	unit := time.Duration(1)
	for d >= 100*unit && unit < time.Second {
		unit *= 10
	}
	return d.Round(unit).String()
}

func whole(v float64) string { return strconv.FormatFloat(math.Round(v), 'f', -1, 64) }

// names returns the names of the pipelines in order.
func (r *Report) names() []string { return slices.Sorted(maps.Keys(r.Pipelines)) }

// printable returns a name without characters that would break a line or a terminal.
func printable(name string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsPrint(c) {
			return c
		}
		return '\uFFFD'
	}, name)
}

// title returns what the scenario is, in a few words.
func (s *Scenario) title() string {
	if s.Name != "" {
		return printable(s.Name)
	}
	return "Simulation"
}

// setting returns the scenario in two lines.
func (s *Scenario) setting() []string {
	calls := s.Rate.String()
	switch s.Rate.kind {
	case "constant":
		calls += " calls per second"
	case "steps", "ramp":
		calls += " calls per second, by time"
	}
	queue := "queue " + strconv.Itoa(s.Server.Queue)
	if s.Server.Queue < 0 {
		queue = "no queue"
	}
	server := fmt.Sprintf("server: %d × %s, service %v, %s, network %v",
		s.Server.Replicas, counted(s.Server.Workers, "worker"), s.Server.Service, queue, s.Server.Network)
	if s.Server.Fail > 0 {
		server += ", " + percent(s.Server.Fail) + "% fail"
	}
	if s.Server.GivesUp {
		server += ", gives up work whose caller has left"
	}
	callers := fmt.Sprintf("%s for %s from %s; an answer is good within %s; %s",
		calls, short(s.Length), counted(s.Clients, "client"), short(s.GoodWithin), counted(s.Runs, "run"))
	return []string{callers, server}
}

// words returns the incident in words.
func (i Incident) words() string {
	var what []string
	add := func(is bool, format string, args ...any) {
		if is {
			what = append(what, fmt.Sprintf(format, args...))
		}
	}
	add(i.SlowBy > 0, "%s times slower", decimal(i.SlowBy))
	add(i.Fail > 0, "%s%% of the calls fail immediately", percent(i.Fail))
	add(i.Hang > 0, "%s%% of the calls hang", percent(i.Hang))
	add(i.Down, "connections are refused")
	add(i.Capacity > 0, "%s%% of the workers remain", percent(i.Capacity))
	add(i.Surge > 0, "%s times as many calls", decimal(i.Surge))
	if len(what) == 0 {
		what = []string{"nothing happens"}
	}
	where := ""
	if i.Replica > 0 {
		where = fmt.Sprintf(", at replica %d", i.Replica)
	}
	return fmt.Sprintf("%s to %s%s: %s", short(i.From), short(i.end()), where, strings.Join(what, ", "))
}

// WriteText writes the scenario and a table for terminals.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintln(&b, r.Scenario.title())
	for _, line := range r.Scenario.setting() {
		fmt.Fprintln(&b, line)
	}
	for _, i := range r.Scenario.Incidents {
		fmt.Fprintln(&b, i.words())
	}
	fmt.Fprintln(&b)
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for line := range 2 {
		head := []string{"", ""}
		if line == 1 {
			head = []string{"pipeline", "after the incident"}
		}
		for _, column := range columns {
			head = append(head, column.head[line])
		}
		fmt.Fprintln(table, strings.Join(head, "\t"))
	}
	for _, name := range r.names() {
		result := r.Pipelines[name]
		cells := []string{printable(name), result.verdict()}
		for _, column := range columns {
			cells = append(cells, column.of(result))
		}
		fmt.Fprintln(table, strings.Join(cells, "\t"))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(b.String()) {
		if _, err := io.WriteString(w, strings.TrimRight(line, " \n")+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// WriteJSON writes the whole report. Scenario reads its part again: see [Scenario.UnmarshalJSON].
func (r *Report) WriteJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "\t")
	return encoder.Encode(r)
}

// WriteCSV writes the series of all pipelines: a header line, then a line for each pipeline and
// second.
func (r *Report) WriteCSV(w io.Writer) error {
	c := csv.NewWriter(w)
	c.Write([]string{
		"pipeline", "at", "offered", "good", "late", "failed", "refused", "attempts", "queue", "waiting", "open", "p50", "p99",
	})
	for _, name := range r.names() {
		for _, s := range r.Pipelines[name].Series {
			row := []string{name, strconv.Itoa(s.At)}
			for _, v := range []float64{
				s.Offered, s.Good, s.Late, s.Failed, s.Refused, s.Attempts, s.Queue, s.Waiting, s.Open, s.P50, s.P99,
			} {
				row = append(row, decimal(v))
			}
			c.Write(row)
		}
	}
	c.Flush()
	return c.Error() // also of Write
}
