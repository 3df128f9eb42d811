package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const sum = `package sum

func Add(a, b int) int {
	return a + b
}
`

func TestPatchIsAppliedOnceAndSaysWhere(t *testing.T) {
	m, err := patch("sum/sum.go", sum, fault{what: "the difference", old: "a + b", new: "a - b"})
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Replace(sum, "+", "-", 1); m.source != want {
		t.Errorf("got\n%s\nwant\n%s", m.source, want)
	}
	if m.String() != "sum/sum.go:4 the difference" || m.dir() != "sum" {
		t.Errorf("%v in %s", m, m.dir())
	}
}

func TestPatchOfOtherTextIsAMistake(t *testing.T) {
	for name, f := range map[string]fault{
		"there 0 times":   {what: "unknown", old: "a * b", new: "a / b"},
		"there 2 times":   {what: "not clear", old: "int", new: "uint"},
		"change somethin": {what: "no change", old: "a + b", new: "a + b"},
		"must say":        {what: "", old: "a + b", new: "a - b"},
	} {
		if _, err := patch("sum/sum.go", sum, f); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%q: error %v, want one that says %q", f.what, err, name)
		}
	}
}

// TestTablesFitTheCode, so that who changes a line that a fault stands in hears of it at once.
func TestTablesFitTheCode(t *testing.T) {
	root, err := moduleRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	mutants, err := load(root, tables)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, m := range mutants {
		if name := m.file + m.what; seen[name] {
			t.Errorf("%v is there twice", m)
		} else {
			seen[name] = true
		}
	}
	if len(mutants) < 40 {
		t.Errorf("%d mutants, want 40 or more", len(mutants))
	}
}

func TestVerdictNamesTheTestThatFailed(t *testing.T) {
	failed := errors.New("exit status 1")
	for _, test := range []struct {
		err          error
		output, want string
	}{
		{nil, "PASS\n", ""},
		{failed, "--- FAIL: TestA (0.00s)\n    a_test.go:7: boom\nFAIL\n", "TestA"},
		{failed, "--- FAIL: TestA (0.00s)\n    --- FAIL: TestA/b (0.00s)\nFAIL\n", "TestA"},
		{failed, "panic: test timed out after 30s\n\trunning tests:\n\t\tTestLoop (30s)\n\ngoroutine 1\n", "TestLoop hangs"},
		{failed, "panic: oops [recovered]\n\ngoroutine 7\n", "panic: oops [recovered]"},
		{failed, "fatal error: all goroutines are asleep - deadlock!\n", "fatal error: all goroutines are asleep - deadlock!"},
		{context.DeadlineExceeded, "", "hangs"},
		{failed, "left behind after the tests:\ngoroutine 9\n", "exit status 1: goroutine 9"},
	} {
		if got := verdict(test.err, test.output); got != test.want {
			t.Errorf("%q: %q, want %q", test.output, got, test.want)
		}
	}
}

// TestEachEndOfAMutantIsTold puts faults into a module whose test sees one of them, is blind to another, and hangs at a third.
func TestEachEndOfAMutantIsTold(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":     "module example.com/sum\n\ngo 1.25\n",
		"sum/sum.go": sum,
		"sum/sum_test.go": `package sum

import "testing"

func TestAdd(t *testing.T) {
	if Add(1, 0) != 1 {
		t.Error("wrong")
	}
}
`,
	} {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("GOWORK", "off")
	l, err := newLab(root, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()

	whole := suite{"sum", false, 1}
	if err := l.measure(t.Context(), whole); err != nil {
		t.Fatalf("the tests fail without a fault: %v", err)
	}
	for _, test := range []struct {
		old, new, equivalent string
		word                 string
		expected             bool
	}{
		{"a + b", "b", "", "killed", true},
		{"a + b", "func() int { for {} }()", "", "killed", true},
		{"a + b", "a - b", "", "SURVIVED", false},
		{"a + b", "b + a", "a sum is the same from both ends", "equivalent", true},
		{"a + b", "0", "nothing is like nothing", "KILLED, NOT EQUIVALENT", false},
		{"a + b", "c", "", "BROKEN", false},
	} {
		m, err := patch("sum/sum.go", sum, fault{"a fault", test.old, test.new, test.equivalent})
		if err != nil {
			t.Fatal(err)
		}
		l.suitesOf = func(string) []suite { return []suite{whole} }
		if word, expected := l.try(t.Context(), m).state(); word != test.word || expected != test.expected {
			t.Errorf("%q: %s, %t, want %s, %t", test.new, word, expected, test.word, test.expected)
		}
	}

	if text, err := os.ReadFile(filepath.Join(root, "sum/sum.go")); err != nil || string(text) != sum {
		t.Errorf("the file has changed: %v\n%s", err, text)
	}
}

func TestTestsThatFailWithoutAFaultAreAMistake(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":      "module example.com/red\n\ngo 1.25\n",
		"red_test.go": "package red\n\nimport \"testing\"\n\nfunc TestRed(t *testing.T) { t.Error(\"red\") }\n",
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("GOWORK", "off")
	l, err := newLab(root, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	if err := l.measure(t.Context(), suite{".", false, 1}); err == nil || !strings.Contains(err.Error(), "TestRed") {
		t.Errorf("error %v, want one that names TestRed", err)
	}
}

// TestShortTakesSomeOfEveryFile that tests must notice, and with every seed others, until all were taken once.
func TestShortTakesSomeOfEveryFile(t *testing.T) {
	var mutants []mutant
	for i := range 4 * sample {
		file := "a.go"
		if i%2 == 0 {
			file = "b.go"
		}
		mutants = append(mutants, mutant{file: file, line: i}, mutant{file: "a.go", fault: fault{equivalent: "it is"}})
	}
	cfg := config{which: regexp.MustCompile("^b"), short: true}
	taken := map[int]int{}
	for ; cfg.seed < 2; cfg.seed++ {
		chosen := choose(mutants, cfg)
		if len(chosen) != sample || chosen[0].file != "b.go" {
			t.Errorf("%d, the first of %s, want %d of b.go", len(chosen), chosen[0].file, sample)
		}
		for _, m := range chosen {
			taken[m.line]++
		}
	}
	if len(taken) != 2*sample {
		t.Errorf("%d taken by two seeds, want %d", len(taken), 2*sample)
	}
	cfg.short = false
	if all := choose(mutants, cfg); len(all) != 2*sample {
		t.Errorf("%d in all, want %d", len(all), 2*sample)
	}
}

func TestTheCountsOnThePageAreCurrent(t *testing.T) {
	root, err := moduleRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	mutants, err := load(root, tables)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(page)))
	if err != nil {
		t.Fatal(err)
	}
	if want, err := withCounts(string(text), mutants); err != nil {
		t.Error(err)
	} else if string(text) != want {
		t.Errorf("%s tells other counts: go run ./proof/mutants -update", page)
	}
}

func TestCountsStandBetweenTheirMarks(t *testing.T) {
	mutants := []mutant{
		{file: "b/a.go", fault: fault{what: "one"}},
		{file: "b/a.go", fault: fault{what: "x | y", equivalent: "a < b"}},
		{file: "a.go", fault: fault{what: "three"}},
	}
	got, err := withCounts("before\n"+begin+"old\n"+end+"after\n", mutants)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"before\n" + begin + "There are 3 faults. Tests must notice 2,", "| `b` | 2 | 1 | 1 |\n", "| `.` | 1 | 1 | 0 |\n", "| all | 3 | 2 | 1 |\n",
		"| `b/a.go`: x \\| y | a &lt; b |\n" + end + "after\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
	if _, err := withCounts("no marks", mutants); err == nil {
		t.Error("a page without marks is no mistake")
	}
}

func TestReportsTellOfSurvivors(t *testing.T) {
	results := []result{
		{mutant: mutant{file: "a.go", line: 1, fault: fault{what: "one", old: "x", new: "y"}}, killedBy: "a TestOne"},
		{mutant: mutant{file: "a.go", line: 2, fault: fault{what: "two", old: "x", new: "y", equivalent: "a | b"}}},
		{mutant: mutant{file: "b.go", line: 3, fault: fault{what: "three", old: "x", new: "y"}}},
	}
	if asExpected(results) || !asExpected(results[:2]) {
		t.Error("a survivor is expected, or a killed or equivalent mutant is not")
	}
	for _, test := range []struct {
		print func(io.Writer)
		wants []string
	}{
		{func(w io.Writer) { printReport(w, results, false) }, []string{
			"killed      a.go:1 one  [a TestOne]", "equivalent  a.go:2 two: a | b", "SURVIVED    b.go:3 three\n    - x\n    + y\n",
		}},
		{func(w io.Writer) { printReport(w, results, true) }, []string{"[a TestOne]\n    - x\n    + y\n"}},
	} {
		var out bytes.Buffer
		test.print(&out)
		for _, want := range test.wants {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%q is not in\n%s", want, out.String())
			}
		}
	}
}

func TestMistakesInTheFlagsAreTold(t *testing.T) {
	for _, args := range [][]string{{"-j", "0"}, {"-timeout", "0s"}, {"-seed", "-1"}, {"-run", "("}, {"all"}, {"-what"}} {
		var stderr bytes.Buffer
		if status := run(t.Context(), args, io.Discard, &stderr); status != 2 || stderr.Len() == 0 {
			t.Errorf("%v: status %d, %q", args, status, stderr.String())
		}
	}
}
