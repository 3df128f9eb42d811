package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"strings"
	"text/template"

	"github.com/effector-go/resilience/bench/peers/internal/behavior"
)

// A userCall is a call that users ask about: a row of the table and of the figure in
// performance.md.
type userCall struct {
	title    string
	note     string // below the title in the figure, after it in the table
	ours     string // the row of this library
	instead  string // what users would take instead
	theirs   string // its row
	failsafe string // the row of failsafe-go
}

// userCalls are the rows, those in which the effector waits on its context first.
var userCalls = []userCall{
	{"pipeline", "effector waits on its context", "PipelineDoneRequest/ours/serial",
		"gobreaker + backoff + context", "PipelineDoneRequest/" + assembled + "/serial", "PipelineDoneRequest/failsafe/serial"},
	{"pipeline", "effector doesn't wait on its context", "Pipeline/ours/serial",
		"gobreaker + backoff + context", "Pipeline/" + assembled + "/serial", "Pipeline/failsafe/serial"},
	{"HTTP request", "the same pipeline around a GET on loopback", "HTTP/ours/serial",
		"net/http alone", "HTTP/bare/serial", "HTTP/failsafe/serial"},
	{"timeout", "effector waits on its context", "TimeoutDoneRequest/ours/serial",
		"context.WithTimeout", "TimeoutDoneRequest/context/serial", "TimeoutDoneRequest/failsafe/serial"},
	{"retry", "the first attempt succeeds", "Retry/ours/serial",
		"backoff v5", "Retry/backoff-v5/serial", "Retry/failsafe/serial"},
	{"breaker, closed", "counts consecutive failures", "Closed/ours/serial",
		"gobreaker", "Closed/gobreaker/serial", "Closed/failsafe/serial"},
	{"breaker, closed", "counts within a time window", "RateWindow/ours/serial",
		"gobreaker", "RateWindow/gobreaker/serial", "RateWindow/failsafe/serial"},
	{"breaker, open", "refuses the call", "Open/ours/serial",
		"gobreaker", "Open/gobreaker/serial", "Open/failsafe/serial"},
	{"bulkhead", "admits the call", "Bulkhead/ours/serial",
		"x/sync/semaphore", "Bulkhead/semaphore/serial", "Bulkhead/failsafe/serial"},
	{"rate limit", "admits the call", "RateLimit/ours/serial",
		"x/time/rate", "RateLimit/x-time/serial", "RateLimit/failsafe/serial"},
}

// rowsOfCalls returns the rows of all user calls.
func rowsOfCalls() []row {
	var rows []row
	for _, c := range userCalls {
		for _, name := range []string{c.ours, c.theirs, c.failsafe} {
			rows = append(rows, row{"peers", name, 0})
		}
	}
	return rows
}

//go:embed performance.md.tmpl
var performanceText string

var performanceTemplate = template.Must(template.New("performance").Option("missingkey=error").Parse(performanceText))

// performancePage returns the text of performance.md.
func performancePage(m measurements, answers []behavior.Answer) (string, error) {
	summary, open := boundsSummary(m)
	var w bytes.Buffer
	err := performanceTemplate.Execute(&w, map[string]any{
		"Where":      where(m),
		"Confidence": 100 * confidence,
		"Calls":      callsTable(m),
		"Figure":     figureCallsOfUsers,
		"Bounds":     summary,
		"OpenBounds": open,
		"Behavior":   behaviorTables(answers),
	})
	return strings.TrimRight(w.String(), "\n") + "\n", err
}

func callsTable(m measurements) string {
	var w bytes.Buffer
	w.WriteString("| call | ours | allocations | compared with | theirs | ours to theirs | failsafe-go | ours to failsafe-go |\n")
	w.WriteString("| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: |\n")
	r := m.decisive()
	for _, c := range userCalls {
		ours, theirs, failsafe := r.seconds("peers", c.ours, 0), r.seconds("peers", c.theirs, 0), r.seconds("peers", c.failsafe, 0)
		fmt.Fprintf(&w, "| **%s**: %s | %s | %s | %s | %s | %s | %s | %s |\n", c.title, c.note,
			duration(ours), count(r.cost("peers", c.ours, 0)["allocs/op"]),
			c.instead, duration(theirs), ratio(ours, theirs), duration(failsafe), ratio(ours, failsafe))
	}
	return w.String()
}

func count(v values) string {
	if len(v) == 0 {
		return ""
	}
	return fmt.Sprintf("%.0f", median(v, confidence).Center)
}

func ratio(a, b values) string {
	s, err := compare(a, b, confidence)
	if err != nil {
		return "not measured"
	}
	return withInterval(s)
}

// mostOpen is how many bounds that are not met the page lists. It is for users, who need no more.
const mostOpen = 12

// boundsSummary says how many bounds are met, undecided, and missed. The table has those that
// aren't met, the missed ones first.
func boundsSummary(m measurements) (summary, table string) {
	lines := map[standing][]string{}
	counts := map[standing]int{}
	unknown := 0
	for _, b := range bounds {
		f, err := b.find(m.decisive(), confidence)
		if err != nil {
			unknown++
			continue
		}
		s := f.standing()
		counts[s]++
		lines[s] = append(lines[s], fmt.Sprintf("| %s | %s | %s | %s |\n",
			b.name, withInterval(f.value), short(b.most), emphasized(s)))
	}
	summary = fmt.Sprintf("Of %d bounds, met: %d; undecided: %d; missed: %d",
		len(bounds), counts[met], counts[undecided], counts[missed])
	if unknown > 0 {
		summary += fmt.Sprintf("; %d were not measured", unknown)
	}
	if open := append(lines[missed], lines[undecided]...); len(open) > 0 {
		table = "\n| not met | value | bound | |\n| --- | ---: | ---: | --- |\n" +
			strings.Join(open[:min(len(open), mostOpen)], "")
		if rest := len(open) - mostOpen; rest > 0 {
			table += fmt.Sprintf("| and %d others | | | |\n", rest)
		}
	}
	return summary + ".", table
}
