package main

import (
	"bytes"
	"cmp"
	_ "embed"
	"fmt"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"text/template"

	"github.com/effector-go/resilience/bench/peers/internal/behaviour"
)

// confidence is that of the page's intervals.
const confidence = 0.95

// A path is what the calls of one benchmark of bench/peers meet.
type path struct {
	benchmark string
	title     string
	text      string
	suffix    string   // of the rows that belong to it, cut off
	not       []string // suffixes of rows that do not
	figure    string   // in which it is drawn
}

var paths = []path{
	{benchmark: "Closed", title: "Closed breaker", figure: figureBreakers,
		text: "A call that succeeds, through a breaker that opens after 5 failures in a row."},
	{benchmark: "RateWindow", title: "Breaker with a window", figure: figureBreakers,
		text: "A call that succeeds, through a breaker that opens by the share of failures in the last 10 s. ours-slow counts slow " +
			"calls as well, and those that hang."},
	{benchmark: "Open", title: "Open breaker", figure: figureBreakers,
		text: "A call that is refused. aegis and gozero have no open state: they refuse nearly every call after ten thousand failures."},
	{benchmark: "Trip", title: "Tripping breaker", figure: figureBreakers,
		text: "A breaker is made, and five failing calls open it; what that leaves behind, a timer or a goroutine, is paid for " +
			"within a millisecond."},
	{benchmark: "Retry", title: "Retry, first try", text: "A call that succeeds at first.", figure: figureCalls},
	{benchmark: "RetryTwice", title: "Retry, third try", text: "A call that fails twice and then succeeds, without waits.",
		figure: figureCalls},
	{benchmark: "Timeout", title: "Timeout, ctx not waited for", not: []string{"-done"}, figure: figureCalls,
		text: "An effector that does not ask for the end of its ctx. ours-abandon and goroutine run it on a goroutine of its own."},
	{benchmark: "Timeout", title: "Timeout, ctx waited for", suffix: "-done", text: "An effector that asks for its ctx's Done.",
		figure: figureCalls},
	{benchmark: "Pipeline", title: "Pipeline, first try", figure: figureCalls,
		text: "A call that succeeds at first, through a timeout for the whole, retry, breaker and a timeout for each attempt."},
	{benchmark: "PipelineOpen", title: "Pipeline, refused", text: "The same, with the breaker open.", figure: figureCalls},
	{benchmark: "PipelineTwice", title: "Pipeline, third try", figure: figureCalls,
		text: "The same, with a call that fails twice and then succeeds, without waits."},
	{benchmark: "HTTP", title: "HTTP request", figure: figureCalls,
		text: "A GET to a server on loopback over a connection that is kept alive, under a ctx that can be canceled. ours and failsafe " +
			"have a timeout for the whole, retry, breaker and a timeout for each attempt; retryablehttp, ours-retry and failsafe-retry " +
			"have retry alone; ours-empty has an empty pipeline; bare is net/http's transport."},
	{benchmark: "HTTPAlone", title: "HTTP request, network apart", figure: figureCalls,
		text: "The same over a transport that answers at once, so that the time of the libraries themselves is seen."},
	{benchmark: "Bulkhead", title: "Bulkhead with room", figure: figureLimits,
		text: "A call for which there is room. channel is a buffered channel and a select, semaphore is x/sync's TryAcquire."},
	{benchmark: "BulkheadFull", title: "Bulkhead, full", text: "A call that is refused.", figure: figureLimits},
	{benchmark: "BulkheadQueue", title: "Bulkhead with a queue", figure: figureLimits,
		text: "One call runs at a time, and others wait in a queue. channel's may be overtaken by newcomers, and it costs less for it. In " +
			"parallel most of the time is the scheduler's."},
	{benchmark: "RateLimit", title: "Rate limit, let through", figure: figureLimits,
		text: "A call that has its turn at once. x-time is Allow, x-time-wait is Wait; uber refuses nothing and looks at no ctx."},
	{benchmark: "RateLimited", title: "Rate limit, refused", text: "A call that is refused; ours tells when to come again.",
		figure: figureLimits},
	{benchmark: "Adaptive", title: "Adaptive limit with room", figure: figureLimits,
		text: "A call for which there is room, within a limit that is found from what calls take."},
	{benchmark: "AdaptiveFull", title: "Adaptive limit, full", text: "A call that is refused.", figure: figureLimits},
	{benchmark: "Shed", title: "Shedding, let through", figure: figureLimits,
		text: "A call of a dependency that is well, through a policy that refuses a share of the calls by what came of the recent ones."},
	{benchmark: "ShedRefused", title: "Shedding, refused", figure: figureLimits,
		text: "The same after ten thousand failures: ours and failsafe let one call in ten through, aegis and gozero next to none."},
	{benchmark: "Hedge", title: "Hedge, not hedged", figure: figureLimits,
		text: "A call that comes back before it would be started again. In the rows that end in -quantile the delay is found from what calls take."},
	{benchmark: "HedgeHTTP", title: "Hedge of HTTP requests, network apart", figure: figureLimits,
		text: "The same of a GET over a transport that answers at once, under a ctx that can be canceled; bare is that transport alone."},
	{benchmark: "Share", title: "Shared call", figure: figureLimits,
		text: "A call that others may share, of one caller or of one on each processor. singleflight runs it on the first caller's goroutine " +
			"and lets nobody leave; ours and singleflight-chan let callers leave when their ctx ends, which takes a goroutine for the run."},
}

// sides are the libraries that were measured on the path, by the name in the row.
func (p path) sides(r *results) []string {
	var sides []string
	for _, key := range r.rows {
		parts := strings.Split(key.name, "/")
		if key.pkg != "peers" || len(parts) != 3 || parts[0] != p.benchmark {
			continue
		}
		side, ok := strings.CutSuffix(parts[1], p.suffix)
		if !ok || slices.ContainsFunc(p.not, func(s string) bool { return strings.HasSuffix(side, s) }) {
			continue
		}
		if !slices.Contains(sides, side) {
			sides = append(sides, side)
		}
	}
	return sides
}

func (p path) row(side, callers string) string {
	return p.benchmark + "/" + side + p.suffix + "/" + callers
}

//go:embed page.md.tmpl
var pageText string

var pageTemplate = template.Must(template.New("page").Option("missingkey=error").Parse(pageText))

// page is the text of the page.
func page(r *results, answers []behaviour.Answer, hand string) (string, error) {
	pathTables, err := pathTables(r)
	if err != nil {
		return "", err
	}
	var w bytes.Buffer
	err = pageTemplate.Execute(&w, map[string]any{
		"Where":            where(r),
		"Peers":            peersText(),
		"Confidence":       100 * confidence,
		"Bounds":           boundsTable(r),
		"Paths":            pathTables,
		"Processors":       r.machineProcs(),
		"ProcessorsTable":  breakersByProcessors.table(r),
		"LimitProcsTable":  limitsByProcessors.table(r),
		"LengthTable":      lengthTable(r),
		"Behaviour":        behaviourTables(answers),
		"Begin":            begin(byHand),
		"Hand":             cmp.Or(hand, "Nothing yet."),
		"End":              end(byHand),
		"Stages":           stageTables(r),
		"Locks":            locksName,
		"FigureBreakers":   figureBreakers,
		"FigureCalls":      figureCalls,
		"FigureLimits":     figureLimits,
		"FigureGrowth":     figureGrowth,
		"GrowthTable":      growthTable(r),
		"TailTable":        tailTable(r),
		"FigureProcessors": figureProcessors,
		"FigureLimitProcs": figureLimitProcs,
		"FigureLength":     figureLength,
	})
	return strings.TrimRight(w.String(), "\n") + "\n", err
}

// where tells what was measured on, when and how.
func where(r *results) string {
	return fmt.Sprintf("Measured on %s with %s, on %s, %d processors, %s/%s:\n%d rounds of everything, %s for each row.",
		r.config["date"], r.config["toolchain"], cmp.Or(r.config["cpu"], "an unnamed processor"), r.machineProcs(),
		r.config["goos"], r.config["goarch"], r.rounds(), r.config["benchtime"])
}

// peerModules are what this library is measured beside.
var peerModules = []string{
	"github.com/avast/retry-go/v4", "github.com/cenkalti/backoff/v4", "github.com/cenkalti/backoff/v5",
	"github.com/cep21/circuit/v4", "github.com/cristalhq/hedgedhttp", "github.com/eapache/go-resiliency",
	"github.com/failsafe-go/failsafe-go", "github.com/go-kratos/aegis", "github.com/hashicorp/go-retryablehttp",
	"github.com/platinummonkey/go-concurrency-limits", "github.com/sethvargo/go-retry", "github.com/sony/gobreaker/v2",
	"github.com/zeromicro/go-zero", "go.uber.org/ratelimit", "golang.org/x/sync", "golang.org/x/time",
}

// peersText names the peers, a line each, with the versions that are compiled in.
func peersText() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	var w strings.Builder
	w.WriteString("The peers, beside what the standard library has:\n\n")
	for _, path := range peerModules {
		version := ""
		if i := slices.IndexFunc(info.Deps, func(m *debug.Module) bool { return m.Path == path }); i >= 0 {
			version = " " + info.Deps[i].Version
		}
		fmt.Fprintf(&w, "- %s%s\n", path, version)
	}
	return strings.TrimRight(w.String(), "\n")
}

func boundsTable(r *results) string {
	var w bytes.Buffer
	w.WriteString("| | ratio | bound | | compared with |\n| --- | ---: | ---: | --- | --- |\n")
	for _, b := range bounds {
		f, err := b.find(r, confidence)
		if err != nil {
			fmt.Fprintf(&w, "| %s | | %s | not measured: %v | |\n", b.name, short(b.most), err)
			continue
		}
		met := map[standing]string{within: "met", undecided: "undecided", over: "**missed**"}[f.standing()]
		fmt.Fprintf(&w, "| %s | %s | %s | %s | %s |\n", b.name, withInterval(f.ratio), short(b.most), met, f.against)
	}
	return w.String()
}

// pathTables are the tables of all paths.
func pathTables(r *results) (string, error) {
	var w bytes.Buffer
	for _, p := range paths {
		if len(p.sides(r)) == 0 {
			continue
		}
		if err := pathTable(&w, r, p); err != nil {
			return "", err
		}
	}
	return w.String(), nil
}

func pathTable(w *bytes.Buffer, r *results, p path) error {
	fmt.Fprintf(w, "\n### %s\n\n%s\n\n", p.title, p.text)
	w.WriteString("| | serial, to ours | parallel, to ours | serial | parallel | allocations | bytes |\n")
	w.WriteString("| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n")
	for _, side := range p.sides(r) {
		fmt.Fprintf(w, "| %s |", side)
		for _, callers := range []string{"serial", "parallel"} {
			to, err := compare(r.seconds("peers", p.row(side, callers), 0), r.seconds("peers", p.row("ours", callers), 0), confidence)
			if err != nil {
				return fmt.Errorf("%s: %w", p.row(side, callers), err)
			}
			if side == "ours" {
				w.WriteString(" 1 |")
			} else {
				fmt.Fprintf(w, " %s |", withInterval(to))
			}
		}
		for _, callers := range []string{"serial", "parallel"} {
			fmt.Fprintf(w, " %s |", duration(r.seconds("peers", p.row(side, callers), 0)))
		}
		c := r.cost("peers", p.row(side, "serial"), 0)
		fmt.Fprintf(w, " %.0f | %.0f |\n", median(c["allocs/op"], confidence).Center, median(c["B/op"], confidence).Center)
	}
	return nil
}

// table is what the figure shows, in numbers.
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

// tailTable is what hedging does for calls of which 1 in 100 is slow.
func tailTable(r *results) string {
	var w bytes.Buffer
	w.WriteString("| | median | 99th percentile | to bare | starts of a call |\n| --- | ---: | ---: | ---: | ---: |\n")
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

// A growth is a row of bench with a number in it, and what grows with the number.
type growth struct {
	label string
	row   string // with %d for the number
	unit  string // benchfmt's
}

// growths are what the table of growth shows; the figure shows those that are times.
var growths = []growth{
	{"policies in a pipeline, breakers: time of a call", "PipelineLength/kind=breaker/policies=%d/callers=serial", "sec/op"},
	{"policies in a pipeline, timeouts: time of a call", "PipelineLength/kind=timeout/policies=%d/callers=serial", "sec/op"},
	{"pipelines in a pipeline: time of a call", "PipelineDepth/shape=inner-first/depth=%d/by=compose/callers=serial", "sec/op"},
	{"the same, not composed", "PipelineDepth/shape=inner-first/depth=%d/by=do/callers=serial", "sec/op"},
	{"goroutines on one breaker: time of a call", "Callers/rule=consecutive/goroutines=%d", "sec/op"},
	{"goroutines on one breaker with a window", "Callers/rule=rate/goroutines=%d", "sec/op"},
	{"breakers alive: time of a call", "BreakersAlive/rule=consecutive/state=closed/breakers=%d", "sec/op"},
	{"breakers alive: bytes of each", "BreakersAlive/rule=consecutive/state=closed/breakers=%d", "B/breaker"},
	{"breakers alive with a window: bytes of each", "BreakersAlive/rule=rate/state=closed/breakers=%d", "B/breaker"},
	{"breakers alive, open: bytes of each", "BreakersAlive/rule=consecutive/state=open/breakers=%d", "B/breaker"},
	{"breakers alive, closed: timers of each", "BreakersAlive/rule=rate/state=closed/breakers=%d", "timers/breaker"},
	{"breakers alive, open: timers of each", "BreakersAlive/rule=consecutive/state=open/breakers=%d", "timers/breaker"},
	{"breakers alive, open: goroutines of each", "BreakersAlive/rule=consecutive/state=open/breakers=%d", "goroutines/breaker"},
}

// growthNumbers are those of which there may be rows.
var growthNumbers = []int{1, 10, 100, 1000, 10_000, 100_000}

// values are what the growth's row gave for the number.
func (g growth) values(r *results, n int) []float64 {
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

// behaviourTables are the answers of all kinds, and what was asked.
func behaviourTables(answers []behaviour.Answer) string {
	var w bytes.Buffer
	asked := map[string]bool{}
	for _, kind := range behaviour.Kinds {
		behaviourTable(&w, kind, answers)
		whatWasAsked(&w, kind, asked)
	}
	return w.String()
}

// behaviourTable is the answers of a kind: a row for each library, a column for each probe.
func behaviourTable(w *bytes.Buffer, kind behaviour.Kind, answers []behaviour.Answer) {
	probes := behaviour.Probes(kind)
	fmt.Fprintf(w, "\n### Of a %s\n\nDoes it\n\n|", kind)
	for _, p := range probes {
		fmt.Fprintf(w, " | %s", p.Name)
	}
	w.WriteString(" |\n| ---" + strings.Repeat(" | :---:", len(probes)) + " |\n")
	var reasons []string
	for _, s := range behaviour.Subjects(kind) {
		fmt.Fprintf(w, "| %s |", s.Name)
		for _, p := range probes {
			fmt.Fprintf(w, " %s |", cell(answers, kind, s.Name, p.ID, &reasons))
		}
		w.WriteString("\n")
	}
	for i, why := range reasons {
		if i == 0 {
			w.WriteString("\n")
		}
		fmt.Fprintf(w, "%d. It %s.\n", i+1, why)
	}
}

// whatWasAsked lists the probes of the kind that were not listed before, but for those that it has no place for.
func whatWasAsked(w *bytes.Buffer, kind behaviour.Kind, asked map[string]bool) {
	head := "\nWhat was asked:\n\n"
	for _, p := range behaviour.Probes(kind) {
		if _, lacks := kind.Lacks(p.ID); lacks || asked[p.Asks] {
			continue
		}
		asked[p.Asks] = true
		fmt.Fprintf(w, "%s- *%s*: %s\n", head, p.Name, p.Asks)
		head = ""
	}
	if head != "" {
		w.WriteString("\nAll was asked as above.\n")
	}
}

// cell is an answer; where the library cannot, it refers to the reason, which is added to reasons if it is new.
func cell(answers []behaviour.Answer, kind behaviour.Kind, subject, probe string, reasons *[]string) string {
	i := slices.IndexFunc(answers, func(a behaviour.Answer) bool {
		return a.Kind == kind && a.Subject == subject && a.Probe == probe
	})
	if i < 0 {
		return "not asked"
	}
	if found := answers[i].Found; found != "" {
		return fmt.Sprintf("%s: %s", answers[i].Verdict, found)
	}
	if answers[i].Verdict != behaviour.Cannot {
		return string(answers[i].Verdict)
	}
	at := slices.Index(*reasons, answers[i].Why)
	if at < 0 {
		*reasons = append(*reasons, answers[i].Why)
		at = len(*reasons) - 1
	}
	return fmt.Sprintf("cannot (%d)", at+1)
}

// stageTables are all rows of bench but those of locks, a table for each benchmark: first what policies are made of and
// pipelines, then each policy, at last what grows.
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
			continue // it stands in the row of the serial one
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
	label, beside := rest, ""
	if base, ok := strings.CutSuffix(rest, "callers=serial"); ok {
		label = strings.TrimSuffix(base, "/")
		base, _ := strings.CutSuffix(key.name, "callers=serial")
		beside = duration(r.seconds("bench", base+"callers=parallel", 0))
	}
	fmt.Fprintf(w, "| %s | %s | %s |", strings.ReplaceAll(label, "/", " "), duration(c["sec/op"]), beside)
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

// locksTables are the costs of the lock forms, to the library's.
func locksTables(r *results) string {
	var w bytes.Buffer
	fmt.Fprintf(&w, "A call's time as a multiple of the library's on the same path, whose time stands below. %s\n", where(r))
	for _, callers := range []struct{ name, text string }{
		{"serial", "One caller:"},
		{"parallel", fmt.Sprintf("A caller on each of %d processors:", r.machineProcs())},
	} {
		fmt.Fprintf(&w, "\n%s\n\n", callers.text)
		locksTable(&w, r, callers.name)
	}
	for _, path := range []struct{ name, text string }{
		{"closed", "a closed breaker"}, {"half-open", "a half-open one, whose probe the callers contend for"},
	} {
		fmt.Fprintf(&w, "\nThe time of a call through %s, by the number of processors with a caller each:\n\n", path.text)
		locksByProcessors(&w, r, path.name)
	}
	fmt.Fprintf(&w, "\n![time of a call through each form against processors](%s.svg)\n", filepath.Base(figureLocks))
	return w.String()
}

// locksByProcessors is the times of the forms on the path, by processors.
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

// lockNames are the paths and the forms of BenchmarkLocks, in its order.
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
