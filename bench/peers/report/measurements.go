package main

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"fmt"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"github.com/effector-go/resilience/bench/peers/internal/behavior"
)

// confidence is that of the pages' intervals.
const confidence = 0.95

// A comparison is a benchmark of bench/peers on the page.
type comparison struct {
	benchmark string
	title     string
	text      string
	figure    string
}

var comparisons = []comparison{
	{"PipelineDoneRequest", "Pipeline, effector waits, under a request's context",
		"A call that succeeds at the first attempt, through a timeout for the whole call, retry, breaker, and a timeout for each " +
			"attempt. The effector waits for its result or for the end of its context, and the caller's context can be canceled.", figureCalls},
	{"PipelineDone", "Pipeline, effector waits", "The same under `context.Background()`.", figureCalls},
	{"Pipeline", "Pipeline, effector doesn't wait",
		"The same, but the effector doesn't call its context's Done: nothing waits for the context's end, so this library " +
			"starts no timer.", figureCalls},
	{"PipelineOpen", "Pipeline, refused", "The same with an open breaker.", figureCalls},
	{"PipelineTwice", "Pipeline, third attempt", "A call that fails twice and then succeeds, without waits.", figureCalls},
	{"TimeoutDoneRequest", "Timeout, effector waits, under a request's context",
		"The effector waits for its result or for the end of its context, and the caller's context can be canceled. ours-abandon " +
			"and goroutine run the effector on another goroutine.", figureCalls},
	{"TimeoutDone", "Timeout, effector waits", "The same under `context.Background()`.", figureCalls},
	{"Timeout", "Timeout, effector doesn't wait", "The same, but the effector doesn't call its context's Done.", figureCalls},
	{"Retry", "Retry, first attempt", "A call that succeeds at the first attempt.", figureCalls},
	{"RetryTwice", "Retry, third attempt", "A call that fails twice and then succeeds, without waits.", figureCalls},
	{"HTTP", "HTTP request",
		"A GET to a server on loopback over a kept-alive connection, under a context that can be canceled. ours and failsafe are a " +
			"timeout for the whole call, retry, breaker, and a timeout for each attempt. retryablehttp, ours-retry, and failsafe-retry " +
			"are retry alone. ours-empty is an empty pipeline. bare is the transport of net/http.", figureCalls},
	{"HTTPAlone", "HTTP request without a network",
		"The same over a transport that responds immediately, so the time is that of the libraries.", figureCalls},
	{"Closed", "Closed breaker", "A call that succeeds, through a breaker that opens after 5 consecutive failures.", figureBreakers},
	{"RateWindow", "Breaker with a window",
		"A call that succeeds, through a breaker that opens by the share of failures within 10 s. ours-slow also counts slow " +
			"and hanging calls.", figureBreakers},
	{"Open", "Open breaker", "A call that is refused.", figureBreakers},
	{"Trip", "Tripping breaker",
		"A breaker is created and opened by five failing calls. What that leaves behind, such as a timer or a goroutine, ends " +
			"within a millisecond and is included.", figureBreakers},
	{"Bulkhead", "Bulkhead, admitted",
		"A call within the limit. channel is a buffered channel with a select, semaphore is TryAcquire of x/sync.", figureLimits},
	{"BulkheadFull", "Bulkhead, refused", "A call over the limit.", figureLimits},
	{"BulkheadQueue", "Bulkhead with a queue",
		"One call runs at a time, and others wait. New callers can overtake waiting ones in channel, which makes it cheaper. " +
			"In parallel, most of the time is the scheduler's.", figureLimits},
	{"RateLimit", "Rate limit, admitted", "A call that is admitted immediately. x-time is Allow, x-time-wait is Wait.", figureLimits},
	{"RateLimited", "Rate limit, refused", "A call that is refused. The error of ours says when to come back.", figureLimits},
	{"Adaptive", "Adaptive limit, admitted", "A call within a limit that follows from the durations of calls.", figureLimits},
	{"AdaptiveFull", "Adaptive limit, refused", "A call over the limit.", figureLimits},
	{"Shed", "Shedding, admitted",
		"A call to a healthy dependency, through a policy that refuses a share of the calls. The share follows from the results of " +
			"recent calls.", figureLimits},
	{"ShedRefused", "Shedding, refused",
		"The same after ten thousand failures: ours and failsafe admit one call in ten, aegis nearly none.", figureLimits},
	{"Hedge", "Hedge, one start",
		"A call that returns before it would be started again. In the rows that end in -quantile, the delay follows from the " +
			"durations of calls.", figureLimits},
	{"HedgeHTTP", "Hedge of HTTP requests without a network",
		"The same for a GET over a transport that responds immediately, under a context that can be canceled. bare is that " +
			"transport alone.", figureLimits},
	{"Share", "Shared call",
		"A call that concurrent callers share, of one caller or of one per processor. singleflight runs it on the first caller's " +
			"goroutine, and no caller can leave. With ours and singleflight-chan, callers can leave when their context ends, " +
			"which needs a goroutine for the run.", figureLimits},
}

// sides returns the libraries that were measured, by their name in the row.
func (c comparison) sides(r *results) []string {
	var sides []string
	for _, key := range r.rows {
		parts := strings.Split(key.name, "/")
		if key.pkg == "peers" && len(parts) == 3 && parts[0] == c.benchmark && !slices.Contains(sides, parts[1]) {
			sides = append(sides, parts[1])
		}
	}
	return sides
}

func (c comparison) row(side, callers string) string { return c.benchmark + "/" + side + "/" + callers }

//go:embed measurements.md.tmpl
var measurementsText string

var measurementsTemplate = template.Must(template.New("measurements").Option("missingkey=error").Parse(measurementsText))

// measurementsPage returns the text of measurements.md.
func measurementsPage(m measurements, answers []behavior.Answer, peers, notesText string) (string, error) {
	r := m.all
	tables, err := comparisonTables(r)
	if err != nil {
		return "", err
	}
	var w bytes.Buffer
	err = measurementsTemplate.Execute(&w, map[string]any{
		"Where":            where(m),
		"Peers":            peers,
		"Confidence":       100 * confidence,
		"CheckConfidence":  100 * checkConfidence,
		"FirstLook":        firstLook,
		"Bounds":           boundsTable(m),
		"Comparisons":      tables,
		"Processors":       r.machineProcs(),
		"ProcessorsTable":  breakersByProcessors.table(r),
		"LimitProcsTable":  limitsByProcessors.table(r),
		"LengthTable":      lengthTable(r),
		"Behavior":         questionLists(answers),
		"Begin":            begin(notes),
		"Notes":            cmp.Or(notesText, "Nothing yet."),
		"End":              end(notes),
		"Stages":           stageTables(r),
		"Locks":            path.Base(locksName),
		"TailTable":        tailTable(r),
		"GrowthTable":      growthTable(r),
		"FigureBreakers":   path.Base(figureBreakers),
		"FigureCalls":      path.Base(figureCalls),
		"FigureLimits":     path.Base(figureLimits),
		"FigureProcessors": path.Base(figureProcessors),
		"FigureLimitProcs": path.Base(figureLimitProcs),
		"FigureLength":     path.Base(figureLength),
		"FigureGrowth":     path.Base(figureGrowth),
	})
	return strings.TrimRight(w.String(), "\n") + "\n", err
}

// where says on what, when, and how long the benchmarks were measured.
func where(m measurements) string {
	c := m.all.config
	cpu := cmp.Or(strings.TrimSpace(c["cpu"]), "an unnamed processor")
	text := fmt.Sprintf("Measured on %s with %s,\non %s, %d processors, %s/%s:\n%s of all benchmarks, %s for each row",
		c["date"], c["toolchain"], cpu, m.all.machineProcs(), c["goos"], c["goarch"],
		rounds(m.all), c["benchtime"])
	if m.bounds.rounds() > 0 {
		text += fmt.Sprintf(",\nthen up to %s of the rows that a bound needs", rounds(m.bounds))
	}
	return text + "."
}

func rounds(r *results) string {
	if n := r.rounds(); n != 1 {
		return fmt.Sprintf("%d rounds", n)
	}
	return "1 round"
}

// peersText names the libraries that the module in dir is compared with, with their versions.
func peersText(ctx context.Context, dir string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", append([]string{"list", "-m", "-f", "- {{.Path}} {{.Version}}"}, peerModules...)...)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("versions of the libraries: %w", explain(err))
	}
	return "The libraries compared, in addition to the standard library:\n\n" + strings.TrimSpace(string(out)), nil
}

// peerModules are the modules that this library is compared with.
var peerModules = []string{
	"github.com/avast/retry-go/v4", "github.com/cenkalti/backoff/v4", "github.com/cenkalti/backoff/v5",
	"github.com/cep21/circuit/v4", "github.com/cristalhq/hedgedhttp", "github.com/eapache/go-resiliency",
	"github.com/failsafe-go/failsafe-go", "github.com/go-kratos/aegis", "github.com/hashicorp/go-retryablehttp",
	"github.com/platinummonkey/go-concurrency-limits", "github.com/sethvargo/go-retry", "github.com/sony/gobreaker/v2",
	"golang.org/x/sync", "golang.org/x/time",
}

func boundsTable(m measurements) string {
	var w bytes.Buffer
	w.WriteString("| | value | bound | | compared with |\n| --- | ---: | ---: | --- | --- |\n")
	for _, b := range bounds {
		f, err := b.find(m.decisive(), confidence)
		if err != nil {
			fmt.Fprintf(&w, "| %s | | %s | not measured: %v | |\n", b.name, short(b.most), err)
			continue
		}
		fmt.Fprintf(&w, "| %s | %s | %s | %s | %s |\n", b.name, withInterval(f.value), short(b.most), emphasized(f.standing()), f.against)
	}
	return w.String()
}

func emphasized(s standing) string {
	if s == missed {
		return "**missed**"
	}
	return string(s)
}

// comparisonTables returns the tables of all comparisons.
func comparisonTables(r *results) (string, error) {
	var w bytes.Buffer
	for _, c := range comparisons {
		if len(c.sides(r)) == 0 {
			continue
		}
		if err := comparisonTable(&w, r, c); err != nil {
			return "", err
		}
	}
	return w.String(), nil
}

// perLine returns the text with one sentence per line, the later ones indented.
func perLine(text, indent string) string { return sentenceEnd.ReplaceAllString(text, "$1\n"+indent) }

var sentenceEnd = regexp.MustCompile(`([.;:]\)?) `)

func comparisonTable(w *bytes.Buffer, r *results, c comparison) error {
	fmt.Fprintf(w, "\n### %s\n\n%s\n\n", c.title, perLine(c.text, ""))
	w.WriteString("| | serial, to ours | parallel, to ours | serial | parallel | allocations | bytes |\n")
	w.WriteString("| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n")
	for _, side := range c.sides(r) {
		fmt.Fprintf(w, "| %s |", side)
		for _, callers := range []string{"serial", "parallel"} {
			to, err := compare(r.seconds("peers", c.row(side, callers), 0), r.seconds("peers", c.row("ours", callers), 0), confidence)
			if err != nil {
				return fmt.Errorf("%s: %w", c.row(side, callers), err)
			}
			if side == "ours" {
				w.WriteString(" 1 |")
			} else {
				fmt.Fprintf(w, " %s |", withInterval(to))
			}
		}
		for _, callers := range []string{"serial", "parallel"} {
			fmt.Fprintf(w, " %s |", duration(r.seconds("peers", c.row(side, callers), 0)))
		}
		costs := r.cost("peers", c.row(side, "serial"), 0)
		fmt.Fprintf(w, " %.0f | %.0f |\n", median(costs["allocs/op"], confidence).Center, median(costs["B/op"], confidence).Center)
	}
	return nil
}

// table returns the figure's values.
func (x byProcessors) table(r *results) string {
	var w bytes.Buffer
	procs := r.procs("peers", x.lines[0].row)
	head, line := "| |", "| --- |"
	for _, n := range procs {
		head += fmt.Sprintf(" %d |", n)
		line += " ---: |"
	}
	fmt.Fprintf(&w, "%s\n%s\n", head, line)
	for _, l := range x.lines {
		fmt.Fprintf(&w, "| %s |", l.label)
		for _, n := range procs {
			fmt.Fprintf(&w, " %s |", duration(r.seconds("peers", l.row, n)))
		}
		w.WriteString("\n")
	}
	return w.String()
}

func lengthTable(r *results) string {
	var w bytes.Buffer
	w.WriteString("| policies | ours |")
	line := "| ---: | ---: |"
	for _, side := range lengthSides[1:] {
		fmt.Fprintf(&w, " %s, to ours |", side)
		line += " ---: |"
	}
	fmt.Fprintf(&w, "\n%s\n", line)
	for _, n := range lengths(r) {
		ours := r.seconds("peers", lengthRow(n, "ours"), 0)
		fmt.Fprintf(&w, "| %d | %s |", n, duration(ours))
		for _, side := range lengthSides[1:] {
			to, err := compare(r.seconds("peers", lengthRow(n, side), 0), ours, confidence)
			if err != nil {
				w.WriteString(" |")
				continue
			}
			fmt.Fprintf(&w, " %s |", withInterval(to))
		}
		w.WriteString("\n")
	}
	return w.String()
}

// tailTable returns what hedging does if 1 call in 100 is slow.
func tailTable(r *results) string {
	var w bytes.Buffer
	w.WriteString("| | median | 99th percentile | to bare | starts per call |\n| --- | ---: | ---: | ---: | ---: |\n")
	for _, key := range r.rows {
		side, ok := strings.CutPrefix(key.name, "Tail/")
		if !ok || key.pkg != "peers" {
			continue
		}
		c := r.costs[key]
		to := ""
		if ratio, err := compare(c["p99-sec"], r.cost("peers", "Tail/bare", 0)["p99-sec"], confidence); err == nil {
			to = withInterval(ratio)
		}
		fmt.Fprintf(&w, "| %s | %s | %s | %s | %s |\n", side, duration(c["p50-sec"]), duration(c["p99-sec"]), to,
			short(median(c["starts/call"], confidence).Center))
	}
	return w.String()
}

// A growth is a row of bench with a number in its name, and a unit that may grow with the number.
type growth struct {
	label string
	row   string // with %d in place of the number
	unit  string // benchfmt's
}

// growths are the rows of the growth table. The figure shows those that are times.
var growths = []growth{
	{"policies in a pipeline, breakers: time of a call", "PipelineLength/kind=breaker/policies=%d/callers=serial", "sec/op"},
	{"policies in a pipeline, timeouts: time of a call", "PipelineLength/kind=timeout/policies=%d/callers=serial", "sec/op"},
	{"pipelines in a pipeline: time of a call", "PipelineDepth/shape=inner-first/depth=%d/by=compose/callers=serial", "sec/op"},
	{"the same without Compose", "PipelineDepth/shape=inner-first/depth=%d/by=do/callers=serial", "sec/op"},
	{"goroutines on one breaker: time of a call", "Callers/rule=consecutive/goroutines=%d", "sec/op"},
	{"goroutines on one breaker with a window", "Callers/rule=rate/goroutines=%d", "sec/op"},
	{"live breakers: time of a call", "BreakersAlive/rule=consecutive/state=closed/breakers=%d", "sec/op"},
	{"live breakers: bytes per breaker", "BreakersAlive/rule=consecutive/state=closed/breakers=%d", "B/breaker"},
	{"live breakers with a window: bytes per breaker", "BreakersAlive/rule=rate/state=closed/breakers=%d", "B/breaker"},
	{"live breakers, open: bytes per breaker", "BreakersAlive/rule=consecutive/state=open/breakers=%d", "B/breaker"},
	{"live breakers, closed: timers per breaker", "BreakersAlive/rule=rate/state=closed/breakers=%d", "timers/breaker"},
	{"live breakers, open: timers per breaker", "BreakersAlive/rule=consecutive/state=open/breakers=%d", "timers/breaker"},
	{"live breakers, open: goroutines per breaker", "BreakersAlive/rule=consecutive/state=open/breakers=%d", "goroutines/breaker"},
}

// growthNumbers are the numbers for which there may be rows.
var growthNumbers = []int{1, 10, 100, 1000, 10_000, 100_000}

// values returns what the row measured for the number.
func (g growth) values(r *results, n int) values {
	return r.cost("bench", fmt.Sprintf(g.row, n), 0)[g.unit]
}

func growthTable(r *results) string {
	var w bytes.Buffer
	w.WriteString("| |")
	for _, n := range growthNumbers {
		fmt.Fprintf(&w, " %d |", n)
	}
	w.WriteString("\n| --- |" + strings.Repeat(" ---: |", len(growthNumbers)) + "\n")
	for _, g := range growths {
		fmt.Fprintf(&w, "| %s |", g.label)
		for _, n := range growthNumbers {
			switch values := g.values(r, n); {
			case len(values) == 0:
				w.WriteString(" |")
			case g.unit == "sec/op":
				fmt.Fprintf(&w, " %s |", duration(values))
			default:
				fmt.Fprintf(&w, " %s |", short(median(values, confidence).Center))
			}
		}
		w.WriteString("\n")
	}
	return w.String()
}

// stageTables returns all rows of bench except those of locks, one table per benchmark: first
// floors and pipelines, then each policy, then what grows.
func stageTables(r *results) string {
	order := map[string]int{"Floors": -3, "Pipeline": -2, "Do": -1, "PipelineLength": 1, "PipelineDepth": 1, "BreakersAlive": 1, "Callers": 1}
	tables := map[string]*bytes.Buffer{}
	var benchmarks []string
	for _, key := range r.rows {
		first, rest, _ := strings.Cut(key.name, "/")
		if key.pkg != "bench" || first == "Locks" {
			continue
		}
		if name, ok := strings.CutSuffix(key.name, "callers=parallel"); ok && r.seconds("bench", name+"callers=serial", 0) != nil {
			continue // it is in the same line as the serial one
		}
		if tables[first] == nil {
			tables[first] = &bytes.Buffer{}
			benchmarks = append(benchmarks, first)
			fmt.Fprintf(tables[first], "\n### %s\n\n| | serial | parallel | allocations | bytes | |\n", first)
			tables[first].WriteString("| --- | ---: | ---: | ---: | ---: | --- |\n")
		}
		stageRow(tables[first], r, key, rest)
	}
	slices.SortStableFunc(benchmarks, func(a, b string) int { return cmp.Compare(order[a], order[b]) })
	var w strings.Builder
	for _, name := range benchmarks {
		w.WriteString(tables[name].String())
	}
	return w.String()
}

func stageRow(w *bytes.Buffer, r *results, key row, rest string) {
	c := r.costs[key]
	label, parallel := rest, ""
	if base, ok := strings.CutSuffix(rest, "callers=serial"); ok {
		label = strings.TrimSuffix(base, "/")
		base, _ := strings.CutSuffix(key.name, "callers=serial")
		parallel = duration(r.seconds("bench", base+"callers=parallel", 0))
	}
	fmt.Fprintf(w, "| %s | %s | %s |", strings.ReplaceAll(label, "/", " "), duration(c["sec/op"]), parallel)
	for _, unit := range []string{"allocs/op", "B/op"} {
		if values := c[unit]; values != nil {
			fmt.Fprintf(w, " %.0f |", median(values, confidence).Center)
		} else {
			w.WriteString(" |")
		}
	}
	var others []string
	for unit, values := range c {
		if unit != "sec/op" && unit != "B/op" && unit != "allocs/op" {
			others = append(others, fmt.Sprintf("%s %s", short(median(values, confidence).Center), unit))
		}
	}
	slices.Sort(others)
	fmt.Fprintf(w, " %s |\n", strings.Join(others, ", "))
}

// locksTables returns the costs of the lock forms, compared with the library's.
func locksTables(r *results) string {
	var w bytes.Buffer
	fmt.Fprintf(&w, "The time of a call as a multiple of the library's on the same path. The last line is the library's time.\n%s\n", where(measurements{r, newResults()}))
	for _, callers := range []struct{ name, text string }{
		{"serial", "One caller:"},
		{"parallel", fmt.Sprintf("One caller per processor, %d in all:", r.machineProcs())},
	} {
		fmt.Fprintf(&w, "\n%s\n\n", callers.text)
		locksTable(&w, r, callers.name)
	}
	for _, state := range []struct{ name, text string }{
		{"closed", "a closed breaker"}, {"half-open", "a half-open breaker, where the callers compete for the probe"},
	} {
		fmt.Fprintf(&w, "\nThe time of a call through %s, by the number of processors, with one caller each:\n\n", state.text)
		locksByProcessors(&w, r, state.name)
	}
	fmt.Fprintf(&w, "\n![time of a call through each form against processors](%s.svg)\n", path.Base(figureLocks))
	return w.String()
}

// locksByProcessors writes the times of the forms on the path, by processors.
func locksByProcessors(w *bytes.Buffer, r *results, path string) {
	_, forms := lockNames(r)
	procs := r.procs("bench", lockRow(path, "library", "parallel"))
	w.WriteString("| form |")
	for _, n := range procs {
		fmt.Fprintf(w, " %d |", n)
	}
	w.WriteString("\n| --- |" + strings.Repeat(" ---: |", len(procs)) + "\n")
	for _, form := range forms {
		if r.procs("bench", lockRow(path, form, "parallel")) == nil {
			continue
		}
		fmt.Fprintf(w, "| %s |", form)
		for _, n := range procs {
			fmt.Fprintf(w, " %s |", duration(r.seconds("bench", lockRow(path, form, "parallel"), n)))
		}
		w.WriteString("\n")
	}
}

func lockRow(path, form, callers string) string {
	return "Locks/path=" + path + "/form=" + form + "/callers=" + callers
}

func locksTable(w *bytes.Buffer, r *results, callers string) {
	paths, forms := lockNames(r)
	name := func(path, form string) string { return lockRow(path, form, callers) }
	fmt.Fprintf(w, "| form | %s |\n| ---%s |\n", strings.Join(paths, " | "), strings.Repeat(" | ---:", len(paths)))
	for _, form := range forms {
		fmt.Fprintf(w, "| %s |", form)
		for _, path := range paths {
			to, err := compare(r.seconds("bench", name(path, form), 0), r.seconds("bench", name(path, "library"), 0), confidence)
			switch {
			case err != nil:
				w.WriteString(" |")
			case form == "library":
				w.WriteString(" 1 |")
			default:
				fmt.Fprintf(w, " %s |", short(to.Center))
			}
		}
		w.WriteString("\n")
	}
	w.WriteString("| *the library's time* |")
	for _, path := range paths {
		fmt.Fprintf(w, " %s |", duration(r.seconds("bench", name(path, "library"), 0)))
	}
	w.WriteString("\n")
}

// lockNames returns the paths and the forms of BenchmarkLocks, in its order.
func lockNames(r *results) (paths, forms []string) {
	add := func(list []string, part, prefix string) []string {
		if name, ok := strings.CutPrefix(part, prefix); ok && !slices.Contains(list, name) {
			return append(list, name)
		}
		return list
	}
	for _, key := range r.rows {
		if parts := strings.Split(key.name, "/"); key.pkg == "bench" && len(parts) == 4 && parts[0] == "Locks" {
			paths, forms = add(paths, parts[1], "path="), add(forms, parts[2], "form=")
		}
	}
	return paths, forms
}
