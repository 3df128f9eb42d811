package main

import (
	"bytes"
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

	"github.com/effector-go/resilience/bench/peers/internal/behaviour"
)

// sample is results with rows on every path, in so many rounds.
func sample(rounds int) *results {
	r := newResults()
	r.config = map[string]string{"cpu": "Some Processor", "toolchain": "go1.26", "date": "2026-01-02", "processors": "2"}
	ns := 1.0
	add := func(pkg, name string, procs ...int) {
		for _, n := range procs {
			ns *= 1.02
			key := row{pkg, name, n}
			c := cost{"allocs/op": {0}, "B/op": {0}}
			for round := range rounds {
				c["sec/op"] = append(c["sec/op"], ns*1e-9*(1+0.01*float64(round)))
			}
			r.rows, r.costs[key] = append(r.rows, key), c
		}
	}
	for _, p := range paths {
		for _, side := range []string{"ours", "eapache", "gobreaker"} {
			add("peers", p.row(side, "serial"), 2)
			add("peers", p.row(side, "parallel"), 1, 2, 4)
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
				r.cost("bench", name, 0)[g.unit] = []float64{float64(n)}
			}
		}
	}
	add("bench", "Floors/floor=call/callers=serial", 2)
	add("bench", "Floors/floor=call/callers=parallel", 1, 2)
	return r
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

func TestWhatIsWrittenByHandSurvives(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "new")
	if _, err := open(t, folder).write(sample(8), nil); err != nil {
		t.Fatal(err)
	}
	text := read(t, folder, pageName)
	const hand = "The window was slow.\n\n- a bucket a word: 3 ns less"
	text, err := replace(text, byHand, hand)
	if err != nil {
		t.Fatal(err)
	}
	put(t, text, folder, pageName)
	for range 2 {
		r := sample(8)
		r.config["date"] = "2027-01-01"
		if _, err := open(t, folder).write(r, nil); err != nil {
			t.Fatal(err)
		}
		text = read(t, folder, pageName)
		if got, ok := between(text, byHand); !ok || got != hand || !strings.Contains(text, "2027-01-01") {
			t.Errorf("by hand: %q", got)
		}
	}
}

func TestAPageWithoutMarkersIsNotOverwritten(t *testing.T) {
	folder := t.TempDir()
	put(t, "# Performance\n\nall by hand", folder, pageName)
	if _, err := openDocs(folder); err == nil {
		t.Error("no error")
	}
	if got := read(t, folder, pageName); !strings.Contains(got, "all by hand") {
		t.Errorf("it now reads %q", got)
	}
}

func TestOnlyTheTableOfLocksIsReplaced(t *testing.T) {
	folder := t.TempDir()
	before, after := "# Locks\n\nWhy.\n\n", "\n\nWhat it means.\n"
	put(t, before+begin(locks)+"\nold table\n"+end(locks)+after, folder, filepath.Dir(locksName), filepath.Base(locksName))
	if _, err := open(t, folder).write(sample(8), nil); err != nil {
		t.Fatal(err)
	}
	got := read(t, folder, locksName)
	inner, ok := between(got, locks)
	if !ok || strings.Contains(inner, "old") || !strings.Contains(inner, "| one-mutex |") ||
		!strings.HasPrefix(got, before) || !strings.HasSuffix(got, after) {
		t.Errorf("%s", got)
	}
}

func TestMarkersMustStandOnceInOrder(t *testing.T) {
	a, b := begin("x"), end("x")
	for _, text := range []string{"", a, b, b + a, a + b + a, a + b + b, a + a + b, b + a + b} {
		if got, err := replace(text, "x", "new"); err == nil {
			t.Errorf("%q became %q", text, got)
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

func TestTimesAreComparedWithOurs(t *testing.T) {
	var w bytes.Buffer
	r := newResults()
	for side, ns := range map[string]float64{"ours": 10, "eapache": 25} {
		for _, callers := range []string{"serial", "parallel"} {
			key := row{"peers", "Closed/" + side + "/" + callers, 1}
			r.rows = append(r.rows, key)
			r.costs[key] = cost{"sec/op": {ns * 1e-9}, "allocs/op": {3}, "B/op": {48}}
		}
	}
	if err := pathTable(&w, r, paths[0]); err != nil {
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

func TestTailsAreComparedWithTheBareCall(t *testing.T) {
	r := parsed(t, "pkg: example.com/bench/peers\n"+
		"BenchmarkTail/bare-2 1 9 ns/op 1000000 p50-ns 100000000 p99-ns 1.000 starts/call\n"+
		"BenchmarkTail/ours-2 1 9 ns/op 1100000 p50-ns 4000000 p99-ns 1.010 starts/call\n")
	want := "| bare | 1.00 ms | 100 ms | 1.00 | 1.00 |\n| ours | 1.10 ms | 4.00 ms | 0.040 | 1.01 |\n"
	if got := tailTable(r); !strings.HasSuffix(got, want) {
		t.Errorf("%s", got)
	}
}

func TestGrowthIsToldByNumber(t *testing.T) {
	table := growthTable(sample(8))
	for _, want := range []string{
		"| | 1 | 10 | 100 | 1000 | 10000 | 100000 |\n", "| breakers alive: bytes of each | 1.00 | 10.0 | 100 | | | |\n",
	} {
		if !strings.Contains(table, want) {
			t.Errorf("no %q in\n%s", want, table)
		}
	}
}

func TestLocksAreToldByProcessors(t *testing.T) {
	var w bytes.Buffer
	r := newResults()
	for procs, ns := range map[int]float64{1: 10, 2: 7, 4: 8} {
		key := row{"bench", lockRow("closed", "library", "parallel"), procs}
		r.rows = append(r.rows, key)
		r.costs[key] = cost{"sec/op": {ns * 1e-9}}
	}
	locksByProcessors(&w, r, "closed")
	if want := "| form | 1 | 2 | 4 |\n| --- | ---: | ---: | ---: |\n| library | 10.0 ns | 7.00 ns | 8.00 ns |\n"; w.String() != want {
		t.Errorf("%q, want %q", w.String(), want)
	}
}

func TestStagesAreFloorsPipelinesPoliciesGrowth(t *testing.T) {
	r := newResults()
	for _, name := range []string{
		"Bulkhead/call=x/callers=serial", "Callers/goroutines=1", "Floors/floor=x/callers=parallel", "Floors/floor=x/callers=serial",
		"Locks/path=x", "Pipeline/pipeline=x/callers=serial",
	} {
		key := row{"bench", name, 1}
		r.rows, r.costs[key] = append(r.rows, key), cost{"sec/op": {1e-9}}
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

func TestEveryComparisonHasItsPlaceOnThePage(t *testing.T) {
	placed := map[string]bool{"Floors": true, "Length": true, "Tail": true} // in tables of their own, or within the bounds
	for _, p := range paths {
		placed[p.benchmark] = true
		if p.title == "" || p.text == "" || p.figure == "" {
			t.Errorf("%s has no title, text or figure", p.benchmark)
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
				t.Errorf("%s: Benchmark%s has no place", filepath.Base(file), match[1])
			}
		}
	}
	if found < len(paths) {
		t.Errorf("%d benchmarks of %d paths", found, len(paths))
	}
}

func TestAPathHasItsOwnRows(t *testing.T) {
	r := newResults()
	for _, name := range []string{
		"Timeout/ours/serial", "Timeout/ours-done/serial", "Timeout/context-done/serial", "TimeoutX/ours/serial",
	} {
		r.rows = append(r.rows, row{"peers", name, 1})
	}
	r.rows = append(r.rows, row{"bench", "Timeout/other/serial", 1})
	for _, test := range []struct {
		path path
		want string
	}{
		{path{benchmark: "Timeout", not: []string{"-done"}}, "[ours]"},
		{path{benchmark: "Timeout", suffix: "-done"}, "[ours context]"},
	} {
		if got := fmt.Sprint(test.path.sides(r)); got != test.want {
			t.Errorf("%+v: %s, want %s", test.path, got, test.want)
		}
	}
}

func TestAReasonStandsOnce(t *testing.T) {
	answers := []behaviour.Answer{
		{Kind: behaviour.Retry, Subject: "a", Probe: "x", Verdict: behaviour.Cannot, Why: "is deaf"},
		{Kind: behaviour.Retry, Subject: "a", Probe: "y", Verdict: behaviour.Yes},
		{Kind: behaviour.Retry, Subject: "b", Probe: "x", Verdict: behaviour.Cannot, Why: "is blind"},
		{Kind: behaviour.Retry, Subject: "b", Probe: "y", Verdict: behaviour.Cannot, Why: "is deaf"},
	}
	var reasons []string
	var cells []string
	for _, a := range answers {
		cells = append(cells, cell(answers, a.Kind, a.Subject, a.Probe, &reasons))
	}
	cells = append(cells, cell(answers, behaviour.Timeout, "a", "x", &reasons))
	if got, want := fmt.Sprint(cells), "[cannot (1) yes cannot (2) cannot (1) not asked]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got := fmt.Sprint(reasons); got != "[is deaf is blind]" {
		t.Errorf("reasons %s", got)
	}
}

func TestWhatAProbeFoundStandsBesideTheVerdict(t *testing.T) {
	answers := []behaviour.Answer{{Kind: behaviour.Client, Subject: "a", Probe: "x", Verdict: behaviour.No, Found: "sent 4×"}}
	if got := cell(answers, behaviour.Client, "a", "x", nil); got != "no: sent 4×" {
		t.Errorf("%q", got)
	}
}

func TestAnswersAreReadFromTheTestsOutput(t *testing.T) {
	answer, ok, err := answerOf("=== ATTR  TestBehaviour/retry/a_b/x behaviour " +
		`{"Kind":"retry","Subject":"a b","Probe":"x","Verdict":"cannot","Why":"is deaf"}`)
	want := behaviour.Answer{Kind: behaviour.Retry, Subject: "a b", Probe: "x", Verdict: behaviour.Cannot, Why: "is deaf"}
	if !ok || err != nil || answer != want {
		t.Errorf("%+v, %v, %v", answer, ok, err)
	}
	for _, line := range []string{"", "PASS", "=== RUN   TestBehaviour/retry behaviour {}", "=== ATTR  TestOther colour red"} {
		if answer, ok, err := answerOf(line); ok || err != nil {
			t.Errorf("%q: %+v, %v", line, answer, err)
		}
	}
	if _, _, err := answerOf("=== ATTR  TestBehaviour/x behaviour {garbled"); err == nil {
		t.Error("a garbled answer is no error")
	}
}

func TestFiguresAreWholeAndNameTheirAxes(t *testing.T) {
	figures := figures(sample(8))
	if len(figures) != 8 {
		t.Fatalf("%d figures, want 8", len(figures))
	}
	for _, f := range figures {
		svg, err := f.render("svg")
		if err != nil {
			t.Fatal(err)
		}
		texts := svgTexts(t, svg)
		if n := len(regexp.MustCompile(`\|10* (ns|µs|ms)`).FindAllString(texts, -1)); n < 2 {
			t.Errorf("%s: %d ticks have a label among %s", f.name, n, texts)
		}
		wants := []string{f.plot.Title.Text}
		if f.name == figureCalls {
			wants = append(wants, "Pipeline, refused", "eapache", "peers, parallel")
		}
		for _, want := range wants {
			if !strings.Contains(texts, "|"+want+"|") {
				t.Errorf("%s: no %q among %s", f.name, want, texts)
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

func TestOneTimeAloneHasAnAxis(t *testing.T) {
	if low, high := decades(10, 10); low > 10 || high < 10 || high <= low {
		t.Errorf("from %g to %g", low, high)
	}
	if figures := figures(newResults()); len(figures) != 0 {
		t.Errorf("%d figures of no measurements", len(figures))
	}
}

// svgTexts is all texts of an SVG, each between bars.
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

func TestEachPowerOfTenHasALabel(t *testing.T) {
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
