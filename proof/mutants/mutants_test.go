package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// mutantsOf returns the mutants of a package sum with this source.
func mutantsOf(t *testing.T, source string) (all []*mutant) {
	t.Helper()
	p := &goPackage{Name: "sum", ImportPath: "example.com/sum", GoFiles: []string{"sum.go"}}
	p.Module.Path = "example.com/sum"
	fns, err := functions(p, func(string) ([]byte, error) { return []byte("package sum\n" + source), nil })
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range fns {
		all = append(all, generate(f)...)
	}
	return all
}

func TestGenerateMakesEveryKind(t *testing.T) {
	for body, want := range map[string]string{
		"if a < b { a = b }": "boundary/1 a < b  ->  a <= b\n" + "negate/1 a < b  ->  a >= b\n" + "no-assign/1 a = b  ->  (nothing)\n",
		"for ok && !on || f(a) {}": "logic/1 ok && !on || f(a)  ->  ok && !on && f(a)\n" + "logic/2 ok && !on  ->  ok || !on\n" +
			"negate/1 ok  ->  !ok\n" + "negate/2 !on  ->  on\n" + "negate/3 f(a)  ->  !(f(a))\n",
		"a += min(a<<1, 2*b)": "arithmetic/1 2*b  ->  2 / b\n" + "assign/1 a += min(a<<1, 2*b)  ->  a -= min(a<<1, 2*b)\n" +
			"bits/1 a<<1  ->  a >> 1\n" + "minmax/1 min(a<<1, 2*b)  ->  max(a<<1, 2*b)\n",
		"switch a { case 1: g(); default: }":              "no-call/1 g()  ->  (nothing)\n" + "no-case/1 case 1: g()  ->  case 1: (nothing)\n",
		"switch { case on: return }":                      "negate/1 on  ->  !on\n",
		"for { a++; continue }":                           "increment/1 a++  ->  a--\n" + "loop/1 continue  ->  break\n",
		"on = true; _ = on":                               "bool/1 true  ->  false\n" + "no-assign/1 on = true  ->  (nothing)\n",
		"mu.Lock(); g(); mu.Unlock()":                     "no-call/1 g()  ->  (nothing)\n" + "no-lock/1 mu.Lock ... Unlock  ->  (nothing)\n",
		"mu.Lock()":                                       "", // released elsewhere
		"defer g()":                                       "no-defer/1 defer g()  ->  (nothing)\n",
		"_ = x.CompareAndSwap(a, b)":                      "cas-store/1 x.CompareAndSwap(a, b)  ->  func() bool { _ = a; x.Store(b); return true }()\n",
		"_ = func() (n int, err error) { return a, nil }": "zero/1 return a, nil  ->  return *new(int), *new(error)\n",
		"_ = func() int { panic(a) }; _ = \"a\" + s":      "no-call/1 panic(a)  ->  (nothing)\n", // doesn't compile
	} {
		var got []string
		for _, m := range mutantsOf(t, "func (s *S[T]) Do() {\n"+body+"\n}\n") {
			got = append(got, strings.TrimPrefix(m.id, "sum/S.Do/")+" "+m.change()+"\n")
		}
		slices.Sort(got)
		if got := strings.Join(got, ""); got != want {
			t.Errorf("%s: got\n%swant\n%s", body, got, want)
		}
	}
}

func TestGenerateKeepsIDsWhenOtherCodeMoves(t *testing.T) {
	const add, sub = "func Add(a, b int) int { return a + b }\n", "func Sub(a, b int) int { return a - b }\n"
	ids := func(source string) (all []string) {
		for _, m := range mutantsOf(t, source) {
			all = append(all, m.id+m.change())
		}
		slices.Sort(all)
		return all
	}
	if one, other := ids(add+sub), ids("// Sub is first.\n\n"+sub+add); !slices.Equal(one, other) || len(one) != 4 {
		t.Errorf("got %v and %v, want the same four", one, other)
	}
}

func TestFindFaultNeedsItsCodeOnce(t *testing.T) {
	fns := []*function{mutantsOf(t, "func Add(a, b int) int {\n\ta = a +\n\t\tb\n\tb = b\n\treturn a\n}\n")[0].function}
	m, err := findFault([]string{"sum/Add", "drops b", "a + b", "a"}, fns)
	if err != nil {
		t.Fatal(err)
	}
	if got := m.apply(m.begin(), m.end()); got != "\n\ta = a\n\tb = b\n\treturn a\n" || m.id != "sum/Add/fault/drops b" || m.position() != "sum.go:3" {
		t.Errorf("got %s at %s:%s", m.id, m.position(), got)
	}
	for want, f := range map[string][]string{
		"0 times": {"sum/Add", "x", "a - b", ""}, "3 times": {"sum/Add", "x", "a", ""}, "doesn't exist": {"sum/Sub", "x", "a", ""},
	} {
		if _, err := findFault(f, fns); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want an error with %q", f, err, want)
		}
	}
}

// TestTablesFitCode fails if a line of faults.tsv or survivors.tsv doesn't fit the code any more,
// and prints which.
func TestTablesFitCode(t *testing.T) {
	w, err := load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	explained, err := explanations(survivorsTable)
	if err != nil {
		t.Fatal(err)
	}
	var problems bytes.Buffer
	if !w.check(&problems, explained) {
		t.Error(problems.String())
	}
	count := map[string]int{}
	for _, m := range w.mutants {
		if count[m.id]++; count[m.id] == 2 {
			t.Errorf("two mutants have the ID %s", m.id)
		}
	}
	if n := strings.Count(faultsTable, "\n") - 1; n > 60 {
		t.Errorf("got %d manual faults, want at most 60: let the generator make them", n)
	}
}

// sumModule has a mutant for each way in which one ends.
var sumModule = map[string]string{
	"go.mod": "module example.com/sum\n\ngo 1.25\n",
	"sum.go": `package sum

func New(n int) *int { return &n } // n is on the caller's stack, as long as New is inlined

func Count(n int) (count int) {
	for i := 0; i < n; i++ {
		count++
	}
	return count
}

func Must(ok bool) int {
	switch ok {
	case true:
		return 1
	}
	panic("not ok")
}

func Name(a string) string { return a + a }
`,
	"sum_test.go": `package sum

import "testing"

func TestNew(t *testing.T) {
	if n := testing.AllocsPerRun(10, func() { _ = *New(1) }); n > 0 {
		t.Error(n)
	}
}

func TestOthers(t *testing.T) {
	if Count(2) != 2 || Must(true) != 1 || Name("") != "" {
		t.Error("wrong")
	}
}
`,
}

func TestHuntSettlesEveryMutant(t *testing.T) {
	h, mutants, results := newHunt(t, sumModule)
	if err := h.pkg(t.Context(), h.mutated[0], mutants); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"sum/New/zero/1":        "sum TestNew", // which is skipped while all mutants are in one program
		"sum/Count/boundary/1":  "sum TestOthers",
		"sum/Count/negate/1":    "sum TestOthers",
		"sum/Count/increment/1": "sum TestOthers",
		"sum/Count/increment/2": "sum TestOthers",
		"sum/Count/zero/1":      "sum TestOthers",
		"sum/Must/bool/1":       "sum TestOthers",
		"sum/Must/no-case/1":    "sum TestOthers",
		"sum/Must/zero/1":       "sum TestOthers",
		"sum/Must/no-call/1":    notCompiled,
		"sum/Name/arithmetic/1": notCompiled,
		"sum/Name/zero/1":       "",
	}
	if !maps.Equal(results, want) {
		t.Errorf("got\n%v, want\n%v", results, want)
	}
	if text, err := os.ReadFile(filepath.Join(h.root, "sum.go")); err != nil || string(text) != sumModule["sum.go"] {
		t.Errorf("the file has changed: %v\n%s", err, text)
	}
}

func TestHuntRejectsTestsThatFailWithoutFault(t *testing.T) {
	module := maps.Clone(sumModule)
	module["sum_test.go"] = "package sum\nimport \"testing\"\nfunc TestRed(t *testing.T) { t.Error(Count(0)) }\n"
	h, mutants, _ := newHunt(t, module)
	if err := h.pkg(t.Context(), h.mutated[0], mutants); err == nil || !strings.Contains(err.Error(), "TestRed") {
		t.Errorf("got %v, want an error that names TestRed", err)
	}
}

// newHunt returns a hunt in a module with these files, its mutants, and what will be the results.
func newHunt(t *testing.T, files map[string]string) (h *hunt, mutants []*mutant, results map[string]string) {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("GOWORK", "off")
	all, err := list(t.Context(), root, "./...")
	if err != nil {
		t.Fatal(err)
	}
	fns, err := functions(all[0], os.ReadFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range fns {
		mutants = append(mutants, generate(f)...)
	}
	var mu sync.Mutex
	results = map[string]string{}
	return &hunt{root: root, slack: time.Second, workers: 2, mutated: all, settled: func(r result) {
		mu.Lock()
		defer mu.Unlock()
		results[r.id] = r.killedBy
	}}, mutants, results
}

func TestVerdictNamesFailedTest(t *testing.T) {
	failed := errors.New("exit status 1")
	for _, test := range []struct {
		err          error
		output, want string
	}{
		{failed, "--- FAIL: TestA (0.00s)\n    --- FAIL: TestA/b (0.00s)\nFAIL\n", "TestA"},
		{failed, "panic: test timed out after 30s\n\trunning tests:\n\t\tTestLoop (30s)\n\ngoroutine 1\n", "TestLoop"},
		{failed, "panic: oops [recovered]\n\ngoroutine 7\n", "panic: oops [recovered]"},
		{context.DeadlineExceeded, "", "context deadline exceeded"},
		{errors.New("signal: killed"), "", "signal: killed"},
		{failed, "left behind after the tests:\ngoroutine 9\n", "exit status 1 goroutine 9"},
	} {
		if got := verdict(test.output, test.err); got != test.want {
			t.Errorf("%q: got %q, want %q", test.output, got, test.want)
		}
	}
}

func TestChooseKeepsMostOfSampleWhenMutantsChange(t *testing.T) {
	var all []*mutant
	for i := range 1000 {
		all = append(all, &mutant{id: fmt.Sprint("a/F/zero/", i), kind: "zero"}, &mutant{id: fmt.Sprint("a/F/no-lock/", i), kind: "no-lock"})
	}
	cfg := config{which: regexp.MustCompile("^a/"), sample: 100, seed: 1}
	sample := choose(all, cfg)
	if len(sample) != 100 || slices.ContainsFunc(sample, func(m *mutant) bool { return m.kind == "no-lock" }) {
		t.Errorf("got %d mutants, want 100 that need no race detector", len(sample))
	}
	other := func(mutants []*mutant) int {
		return len(slices.DeleteFunc(mutants, func(m *mutant) bool { return slices.Contains(sample, m) }))
	}
	if n := other(choose(all[2:], cfg)); n > 1 {
		t.Errorf("got %d other mutants after one was removed, want at most one", n)
	}
	cfg.seed = 2
	if n := other(choose(all, cfg)); n < 50 {
		t.Errorf("got %d other mutants with another seed, want most", n)
	}
}

func TestExplanationsRejectMistakes(t *testing.T) {
	for lines, want := range map[string]string{
		"a\tb\n": "survivors.tsv:2", "a\tb\tbecause\n": "must begin", "a\tb\tgap: no test\na\tb\tgap: no test\n": "twice",
	} {
		if _, err := explanations("mutant\tchange\twhy\n" + lines); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want an error with %q", lines, err, want)
		}
	}
}

func TestStaleReportsWhatDoesNotFit(t *testing.T) {
	misfits := stale(map[string]explanation{
		"sum/Add/arithmetic/1": {change: "a + b  ->  a - b"}, "sum/Add/zero/1": {change: "return a"}, "sum/Sub/zero/1": {change: "return b"},
	}, mutantsOf(t, "func Add(a, b int) int { return a + b }\n"))
	if len(misfits) != 2 || !strings.HasPrefix(misfits[0], "survivors.tsv: sum/Add/zero/1: got") || !strings.HasPrefix(misfits[1], "survivors.tsv: sum/Sub/zero/1: the mutant doesn't exist") {
		t.Errorf("got %q, want one line for each of the last two", misfits)
	}
}

func TestReportFailsForUnexplainedSurvivors(t *testing.T) {
	all := mutantsOf(t, "func Add(a, b int) int { a++; b--; f(); return a + b }\n")
	results := []result{{all[0], "sum TestAdd"}, {all[1], ""}, {all[2], ""}, {all[3], notCompiled}}
	explained := map[string]explanation{all[1].id: {equivalent: true}, all[2].id: {}}
	var out bytes.Buffer
	if !report(&out, results, explained) || !regexp.MustCompile(`\n. sum +. +3 . +3 . +1 . +1 . +1 . +0 . +50.0% .\n`).MatchString(out.String()) {
		t.Errorf("got a failure, or other counts:\n%s", out.String())
	}
	out.Reset()
	if report(&out, results, nil) || !strings.Contains(out.String(), "SURVIVED") {
		t.Errorf("got success with an unexplained survivor:\n%s", out.String())
	}
	if report(&out, []result{{all[1], "sum TestAdd"}}, explained) || !strings.Contains(out.String(), "KILLED BUT EXPLAINED") {
		t.Errorf("got success though an equivalent mutant was killed:\n%s", out.String())
	}
	if report(&out, []result{{&mutant{function: all[0].function, kind: "fault", edits: all[0].edits}, notCompiled}}, nil) || !strings.Contains(out.String(), "FAULT DOESN'T COMPILE") {
		t.Errorf("got success though a manual fault doesn't compile:\n%s", out.String())
	}
	page, err := withScores([]byte("before\n"+begin+"old\n"+end+"after\n"), all[:4], results, explained)
	if text := string(page); err != nil || !strings.Contains(text, " 50.0% |\n") || strings.Contains(text, "old") || !strings.HasSuffix(text, "\n"+end+"after\n") {
		t.Errorf("got %v and\n%s", err, text)
	}
	page, err = withScores([]byte(begin+end), all, results, explained)
	if text := string(page); err != nil || !strings.Contains(text, " not measured |\n") || strings.Contains(text, "50.0%") {
		t.Errorf("got %v and, for a package with a mutant without a result,\n%s", err, text)
	}
	if _, err := withScores([]byte("no marks"), all, results, explained); err == nil {
		t.Error("got no error for a page without marks")
	}
}

func TestOpenCacheReadsWholeLines(t *testing.T) {
	name := filepath.Join(t.TempDir(), "cache")
	m := mutantsOf(t, "func Add(a, b int) int { return a + b }\n")[0]
	for range 2 { // the second time appends
		_, file, err := openCache(name)
		if err != nil {
			t.Fatal(err)
		}
		_, err = fmt.Fprintf(file, "%s\tsum TestAdd\nhalf\ta line", m.key())
		if err := errors.Join(err, file.Close()); err != nil {
			t.Fatal(err)
		}
	}
	known, file, err := openCache(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if by := known[m.key()]; by != "sum TestAdd" || known["half"] != "" {
		t.Errorf("got %q", known)
	}
}

func TestRunRejectsWrongFlags(t *testing.T) {
	for _, args := range [][]string{
		{"-j", "0"}, {"-timeout", "0s"}, {"-sample", "-1"}, {"-seed", "-1"}, {"-run", "("}, {"all"}, {"-what"},
	} {
		var stderr bytes.Buffer
		if status := run(t.Context(), args, io.Discard, &stderr); status != 2 || stderr.Len() == 0 {
			t.Errorf("%v: got status %d, %q, want 2 and a message", args, status, stderr.String())
		}
	}
}
