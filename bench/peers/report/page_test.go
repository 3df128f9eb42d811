package main

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"errors"
	"fmt"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/effector-go/resilience/bench/peers/internal/behavior"
)

// sample returns measurements with rows of every comparison, in this many rounds.
func sample(rounds int) measurements {
	r := newResults()
	r.config = map[string]string{"cpu": "Some Processor", "toolchain": "go1.26", "date": "2026-01-02", "processors": "2"}
	ns := 1.0
	add := func(pkg, name string, procs ...int) {
		for _, n := range procs {
			ns *= 1.02
			key := row{pkg, name, n}
			c := cost{"allocs/op": values{}, "B/op": values{}, "sec/op": values{}}
			for round := range rounds {
				c["allocs/op"][round], c["B/op"][round] = 3, 48
				c["sec/op"][round] = ns * 1e-9 * (1 + 0.01*float64(round))
			}
			r.rows, r.costs[key] = append(r.rows, key), c
		}
	}
	for _, c := range comparisons {
		for _, side := range []string{"ours", "eapache", "gobreaker"} {
			add("peers", c.row(side, "serial"), 2)
			add("peers", c.row(side, "parallel"), 1, 2, 4)
		}
	}
	for _, need := range append(rowsOf(bounds), rowsOfCalls()...) {
		for _, callers := range []string{"serial", "parallel"} {
			name := strings.TrimSuffix(strings.TrimSuffix(need.name, "serial"), "parallel") + callers
			if r.cost(need.pkg, name, need.procs) == nil {
				add(need.pkg, name, cmp.Or(need.procs, 2))
			}
		}
	}
	for _, n := range []int{1, 4, 16} {
		for _, side := range lengthSides {
			add("peers", lengthRow(n, side), 2)
		}
	}
	for _, form := range []string{"one-mutex", "library"} {
		for _, path := range []string{"closed", "half-open"} {
			add("bench", lockRow(path, form, "serial"), 2)
			add("bench", lockRow(path, form, "parallel"), 1, 2, 4)
		}
	}
	for _, g := range growths {
		for _, n := range []int{1, 10, 100} {
			name := fmt.Sprintf(g.row, n)
			if r.cost("bench", name, 0) == nil {
				add("bench", name, 2)
			}
			if g.unit != "sec/op" {
				r.cost("bench", name, 0)[g.unit] = values{0: float64(n)}
			}
		}
	}
	add("bench", "Floors/floor=call/callers=serial", 2)
	add("bench", "Floors/floor=call/callers=parallel", 1, 2)
	return measurements{r, newResults()}
}

func open(t *testing.T, folder string) docs {
	t.Helper()
	d, err := openDocs(folder)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func read(t *testing.T, parts ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(parts...))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func put(t *testing.T, text string, parts ...string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(filepath.Join(parts...)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(parts...), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestWriteKeepsNotes(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "new")
	if _, err := open(t, folder).write(sample(8), nil, ""); err != nil {
		t.Fatal(err)
	}
	text := read(t, folder, measurementsName)
	const kept = "The window was slow.\n\n- one bucket per word: 3 ns less"
	text, err := replace(text, notes, kept)
	if err != nil {
		t.Fatal(err)
	}
	put(t, text, folder, measurementsName)
	for range 2 {
		m := sample(8)
		m.all.config["date"] = "2027-01-01"
		if _, err := open(t, folder).write(m, nil, ""); err != nil {
			t.Fatal(err)
		}
		text = read(t, folder, measurementsName)
		if got, ok := between(text, notes); !ok || got != kept || !strings.Contains(text, "2027-01-01") {
			t.Errorf("notes %q, want %q on a page of 2027-01-01", got, kept)
		}
	}
}

func TestOpenDocsRejectsPageWithoutMarkers(t *testing.T) {
	folder := t.TempDir()
	put(t, "# Measurements\n\nnotes", folder, measurementsName)
	if _, err := openDocs(folder); err == nil {
		t.Error("no error")
	}
	if got := read(t, folder, measurementsName); !strings.Contains(got, "notes") {
		t.Errorf("the page is now %q", got)
	}
}

func TestWriteReplacesTableOfLocks(t *testing.T) {
	folder := t.TempDir()
	before, after := "# Locks\n\nWhy.\n\n", "\n\nWhat it means.\n"
	put(t, before+begin(locks)+"\nold table\n"+end(locks)+after, folder, locksName)
	if _, err := open(t, folder).write(sample(8), nil, ""); err != nil {
		t.Fatal(err)
	}
	got := read(t, folder, locksName)
	inner, ok := between(got, locks)
	if !ok || strings.Contains(inner, "old") || !strings.Contains(inner, "| one-mutex |") ||
		!strings.HasPrefix(got, before) || !strings.HasSuffix(got, after) {
		t.Errorf("locks.md:\n%s", got)
	}
}

func TestReplaceNeedsMarkersOnceInOrder(t *testing.T) {
	a, b := begin("x"), end("x")
	for _, text := range []string{"", a, b, b + a, a + b + a, a + b + b, a + a + b, b + a + b} {
		if got, err := replace(text, "x", "new"); err == nil {
			t.Errorf("%q became %q, want an error", text, got)
		}
	}
	once, err := replace("1 "+a+" old "+b+" 2", "x", "new")
	if err != nil || once != "1 "+a+"\n\nnew\n\n"+b+" 2" {
		t.Errorf("%q, %v", once, err)
	}
	if twice, err := replace(once, "x", "new"); err != nil || twice != once {
		t.Errorf("%q, %v", twice, err)
	}
}

func TestComparisonTableComparesWithOurs(t *testing.T) {
	var w bytes.Buffer
	r := newResults()
	for side, ns := range map[string]float64{"ours": 10, "eapache": 25} {
		for _, callers := range []string{"serial", "parallel"} {
			key := row{"peers", "Closed/" + side + "/" + callers, 1}
			r.rows = append(r.rows, key)
			r.costs[key] = cost{"sec/op": {0: ns * 1e-9}, "allocs/op": {0: 3}, "B/op": {0: 48}}
		}
	}
	if err := comparisonTable(&w, r, comparison{benchmark: "Closed"}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| ours | 1 | 1 | 10.0 ns | 10.0 ns | 3 | 48 |", "| eapache | 2.50 | 2.50 | 25.0 ns | 25.0 ns | 3 | 48 |",
	} {
		if !strings.Contains(w.String(), want) {
			t.Errorf("no %q in\n%s", want, &w)
		}
	}
}

func TestTailTableComparesWithBareCall(t *testing.T) {
	r := parsed(t, "pkg: example.com/bench/peers\n"+
		"BenchmarkTail/bare-2 1 9 ns/op 1000000 p50-ns 100000000 p99-ns 1.000 starts/call\n"+
		"BenchmarkTail/ours-2 1 9 ns/op 1100000 p50-ns 4000000 p99-ns 1.010 starts/call\n")
	want := "| bare | 1.00 ms | 100 ms | 1.00 | 1.00 |\n| ours | 1.10 ms | 4.00 ms | 0.040 | 1.01 |\n"
	if got := tailTable(r); !strings.HasSuffix(got, want) {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestGrowthTableHasColumnPerNumber(t *testing.T) {
	table := growthTable(sample(8).all)
	for _, want := range []string{
		"| | 1 | 10 | 100 | 1000 | 10000 | 100000 |\n", "| live breakers: bytes per breaker | 1.00 | 10.0 | 100 | | | |\n",
	} {
		if !strings.Contains(table, want) {
			t.Errorf("no %q in\n%s", want, table)
		}
	}
}

func TestLocksTableHasColumnPerProcessors(t *testing.T) {
	var w bytes.Buffer
	r := newResults()
	for procs, ns := range map[int]float64{1: 10, 2: 7, 4: 8} {
		key := row{"bench", lockRow("closed", "library", "parallel"), procs}
		r.rows = append(r.rows, key)
		r.costs[key] = cost{"sec/op": {0: ns * 1e-9}}
	}
	locksByProcessors(&w, r, "closed")
	if want := "| form | 1 | 2 | 4 |\n| --- | ---: | ---: | ---: |\n| library | 10.0 ns | 7.00 ns | 8.00 ns |\n"; w.String() != want {
		t.Errorf("%q, want %q", w.String(), want)
	}
}

func TestStageTablesStartWithFloors(t *testing.T) {
	r := newResults()
	for _, name := range []string{
		"Bulkhead/call=x/callers=serial", "Callers/goroutines=1", "Floors/floor=x/callers=parallel", "Floors/floor=x/callers=serial",
		"Locks/path=x", "Pipeline/pipeline=x/callers=serial",
	} {
		key := row{"bench", name, 1}
		r.rows, r.costs[key] = append(r.rows, key), cost{"sec/op": {0: 1e-9}}
	}
	got := stageTables(r)
	var heads []string
	for _, match := range regexp.MustCompile(`### (\w+)`).FindAllStringSubmatch(got, -1) {
		heads = append(heads, match[1])
	}
	if want := []string{"Floors", "Pipeline", "Bulkhead", "Callers"}; !slices.Equal(heads, want) {
		t.Errorf("%q, want %q", heads, want)
	}
	if want := "| floor=x | 1.00 ns | 1.00 ns | | |  |\n"; strings.Count(got, "| floor=x") != 1 || !strings.Contains(got, want) {
		t.Errorf("no %q in\n%s", want, got)
	}
}

func TestComparisonsIncludeEveryBenchmark(t *testing.T) {
	placed := map[string]bool{"Floors": true, "Length": true, "Tail": true} // in other tables
	for _, c := range comparisons {
		placed[c.benchmark] = true
		if c.title == "" || c.text == "" || c.figure == "" {
			t.Errorf("%s: title, text, or figure is missing", c.benchmark)
		}
	}
	files, err := filepath.Glob("../*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range files {
		for _, match := range regexp.MustCompile(`func Benchmark(\w+)`).FindAllStringSubmatch(read(t, file), -1) {
			found++
			if !placed[match[1]] {
				t.Errorf("%s: Benchmark%s is in no table", filepath.Base(file), match[1])
			}
		}
	}
	if found < len(comparisons) {
		t.Errorf("%d benchmarks, %d comparisons", found, len(comparisons))
	}
}

func TestComparisonSidesAreOfItsBenchmark(t *testing.T) {
	r := newResults()
	for _, name := range []string{"Timeout/ours/serial", "Timeout/ours/parallel", "Timeout/context/serial", "TimeoutDone/other/serial"} {
		r.rows = append(r.rows, row{"peers", name, 1})
	}
	r.rows = append(r.rows, row{"bench", "Timeout/other/serial", 1})
	if got := fmt.Sprint(comparison{benchmark: "Timeout"}.sides(r)); got != "[ours context]" {
		t.Errorf("%s, want ours and context", got)
	}
}

func TestCellShowsVerdict(t *testing.T) {
	answers := []behavior.Answer{
		{Kind: behavior.Retry, Subject: "a", Question: "x", Verdict: behavior.Cannot, Why: "has a fixed limit"},
		{Kind: behavior.Retry, Subject: "a", Question: "y", Verdict: behavior.Yes},
		{Kind: behavior.Retry, Subject: "b", Question: "x", Verdict: behavior.No},
	}
	var cells []string
	for _, a := range answers {
		cells = append(cells, cell(answers, a.Kind, a.Subject, a.Question))
	}
	cells = append(cells, cell(answers, behavior.Timeout, "a", "x"))
	if got, want := fmt.Sprint(cells), "[– yes no not asked]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestQuestionListsNameReasons(t *testing.T) {
	subject := behavior.Subjects(behavior.Breaker)[1].Name
	text := questionLists([]behavior.Answer{
		{Kind: behavior.Breaker, Subject: subject, Question: "hung", Verdict: behavior.Cannot, Why: "has no such rule"},
	})
	if want := "  - –: " + subject + " has no such rule.\n"; strings.Count(text, want) != 1 {
		t.Errorf("%q is missing:\n%s", want, text)
	}
	for _, kind := range behavior.Kinds {
		for _, q := range behavior.Questions(kind) {
			if n := strings.Count(text, perLine(q.Text, "  ")); n != 1 {
				t.Errorf("%s: %d times, want once: %s", q.ID, n, q.Text)
			}
		}
	}
}

// The page is for users, who read the first screen.
func TestPerformancePageIsShortAndStartsWithWaitingCall(t *testing.T) {
	text, err := performancePage(sample(8), nil)
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(text, "\n"); lines > 150 {
		t.Errorf("%d lines, want at most 150", lines)
	}
	_, table, _ := strings.Cut(text, "| call |")
	rows := strings.Split(table, "\n")[2:12]
	for i, want := range []string{"| **pipeline**: effector waits", "| **pipeline**: effector doesn't wait"} {
		if !strings.HasPrefix(rows[i], want) {
			t.Errorf("row %d: %s, want %s", i+1, rows[i], want)
		}
	}
	if strings.Contains(table, "not measured") {
		t.Errorf("a row was not measured:\n%s", table)
	}
	for _, c := range userCalls {
		if !strings.Contains(table, "| "+c.instead+" |") {
			t.Errorf("%s is missing", c.instead)
		}
	}
}

func TestPerformancePageListsBoundsThatAreNotMet(t *testing.T) {
	m := sample(8) // each row costs a little more than the one before
	text, err := performancePage(m, nil)
	if err != nil {
		t.Fatal(err)
	}
	counts := map[standing]int{}
	listed := 0
	for _, b := range bounds {
		f, err := b.find(m.all, confidence)
		if err != nil {
			t.Fatal(err)
		}
		counts[f.standing()]++
		if !strings.Contains(text, "| "+b.name+" |") {
			continue
		}
		if listed++; f.standing() == met {
			t.Errorf("%s: listed, but it is met", b.name)
		}
	}
	if want := min(counts[undecided]+counts[missed], mostOpen); listed != want || counts[met] == 0 || want == 0 {
		t.Errorf("%d bounds listed, want %d", listed, want)
	}
	want := fmt.Sprintf("Of %d bounds, met: %d; undecided: %d; missed: %d.",
		len(bounds), counts[met], counts[undecided], counts[missed])
	if !strings.Contains(text, want) {
		t.Errorf("%q is missing", want)
	}
	if rest := counts[undecided] + counts[missed] - mostOpen; rest > 0 &&
		!strings.Contains(text, fmt.Sprintf("| and %d others |", rest)) {
		t.Errorf("the other %d bounds are not mentioned", rest)
	}
}

// A row that doesn't exist would be an empty cell on the page.
func TestUserCallsNameBenchmarks(t *testing.T) {
	files, err := filepath.Glob("../*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	sources := ""
	for _, file := range files {
		sources += read(t, file)
	}
	for _, r := range append(rowsOfCalls(), rowsOf(bounds)...) {
		parts := strings.Split(r.name, "/")
		if r.pkg != "peers" {
			continue
		}
		if !strings.Contains(sources, "func Benchmark"+parts[0]+"(") {
			t.Errorf("%s: there is no such benchmark", r.name)
		}
		if !strings.Contains(sources, `"`+parts[1]+`"`) {
			t.Errorf("%s: there is no such side", r.name)
		}
	}
}

func TestPerLineSplitsSentences(t *testing.T) {
	got := perLine("One 1.5 s wait. Two; three. (Four.) Five.", "  ")
	if want := "One 1.5 s wait.\n  Two;\n  three.\n  (Four.)\n  Five."; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestCellShowsFoundDetail(t *testing.T) {
	answers := []behavior.Answer{{Kind: behavior.Client, Subject: "a", Question: "x", Verdict: behavior.No, Found: "sent 4×"}}
	if got := cell(answers, behavior.Client, "a", "x"); got != "no: sent 4×" {
		t.Errorf("%q", got)
	}
}

func TestAnswerOfParsesTestOutput(t *testing.T) {
	answer, ok, err := answerOf("=== ATTR  TestBehavior/retry/a_b/x behavior " +
		`{"Kind":"retry","Subject":"a b","Question":"x","Verdict":"cannot","Why":"has a fixed limit"}`)
	want := behavior.Answer{Kind: behavior.Retry, Subject: "a b", Question: "x", Verdict: behavior.Cannot, Why: "has a fixed limit"}
	if !ok || err != nil || answer != want {
		t.Errorf("%+v, %v, %v", answer, ok, err)
	}
	for _, line := range []string{"", "PASS", "=== RUN   TestBehavior/retry behavior {}", "=== ATTR  TestOther color red"} {
		if answer, ok, err := answerOf(line); ok || err != nil {
			t.Errorf("%q: %+v, %v", line, answer, err)
		}
	}
	if _, _, err := answerOf("=== ATTR  TestBehavior/x behavior {garbled"); err == nil {
		t.Error("garbled answer: no error")
	}
}

func TestFiguresRenderWithTitlesAndTicks(t *testing.T) {
	figures := figures(sample(8))
	if len(figures) != 9 {
		t.Fatalf("%d figures, want 9", len(figures))
	}
	for _, f := range figures {
		svg, err := f.render("svg")
		if err != nil {
			t.Fatal(err)
		}
		texts := svgTexts(t, svg)
		if n := len(regexp.MustCompile(`\|10* (ns|µs|ms)`).FindAllString(texts, -1)); n < 2 {
			t.Errorf("%s: %d labeled ticks, want at least 2: %s", f.name, n, texts)
		}
		wants := []string{f.plot.Title.Text}
		if f.name == figureCalls {
			wants = append(wants, "Pipeline, refused", "eapache", "peers, parallel")
		}
		if f.name == figureCallsOfUsers {
			wants = append(wants, "pipeline: effector waits on its context", "compared with gobreaker + backoff + context", "failsafe-go")
		}
		for _, want := range wants {
			if !strings.Contains(texts, "|"+want+"|") {
				t.Errorf("%s: %q is missing: %s", f.name, want, texts)
			}
		}
		data, err := f.render("png")
		if err != nil {
			t.Fatal(err)
		}
		if image, err := png.Decode(bytes.NewReader(data)); err != nil || image.Bounds().Dx() < 600 {
			t.Errorf("%s: %v", f.name, err)
		}
	}
}

func TestDecadesOfOneTimeDiffer(t *testing.T) {
	if low, high := decades(10, 10); low > 10 || high < 10 || high <= low {
		t.Errorf("from %g to %g", low, high)
	}
	if figures := figures(newMeasurements()); len(figures) != 0 {
		t.Errorf("%d figures of no measurements, want none", len(figures))
	}
}

// svgTexts returns all texts of an SVG, separated by bars.
func svgTexts(t *testing.T, svg []byte) string {
	t.Helper()
	texts := "|"
	for d := xml.NewDecoder(bytes.NewReader(svg)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return texts
		}
		if err != nil {
			t.Fatal(err)
		}
		if data, ok := token.(xml.CharData); ok && strings.TrimSpace(string(data)) != "" {
			texts += strings.TrimSpace(string(data)) + "|"
		}
	}
}

func TestTimesLabelPowersOfTen(t *testing.T) {
	var labels []string
	marks := 0
	for _, tick := range (times{}).Ticks(1, 1e6) {
		if marks++; tick.Label != "" {
			labels = append(labels, tick.Label)
		}
	}
	if got, want := strings.Join(labels, ", "), "1 ns, 10 ns, 100 ns, 1 µs, 10 µs, 100 µs, 1 ms"; got != want || marks != 6*9+1 {
		t.Errorf("%s, want %s; %d marks", got, want, marks)
	}
}
