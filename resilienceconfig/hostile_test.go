package resilienceconfig

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
)

func wantOneError(t *testing.T, name, text, want string) {
	t.Helper()
	_, err := Parse([]byte(text), Options{})
	var errs Errors
	if !errors.As(err, &errs) || len(errs) != 1 || !strings.Contains(errs[0].Message, want) {
		t.Errorf("%s: got %.300v, want one error with %q", name, err, want)
	}
}

// TestParseRefusesWhatTheParserIsSlowAt has files of at most 1 MiB that would take the parser from
// seconds to hours.
func TestParseRefusesWhatTheParserIsSlowAt(t *testing.T) { // rule 7
	fill := func(s string) string { return strings.Repeat(s, maxSize/len(s)) }
	for _, c := range []string{":", "-", "?", "[", "{", ",", "&", "*", "!"} {
		wantOneError(t, c, strings.Repeat(c, maxIndicators+1), fmt.Sprintf("the file has %d of the characters : - ? [ { , & * !", maxIndicators+1))
	}
	for _, c := range []string{"]", "}", "|", ">", "'", `"`, "@", "`", "%", "#"} {
		wantOneError(t, c, fill(c), "of the characters ] } | >")
	}
	wantOneError(t, "lines", "pipelines:\n"+strings.Repeat("a\n", maxLines), "lines, must be at most")
	wantOneError(t, "blank lines", "pipelines: {}\nx: |\n"+strings.Repeat("  \n", maxBlankLines+2), "blank lines in a row")
	wantOneError(t, "size", fill("a")+"b", "is larger than 1 MiB")
	wantOneError(t, "keys", strings.Repeat("a: 1\n", 40_000), "of the characters")

	// Exactly at the limit is read.
	commas := "pipelines: {p: []} # " + strings.Repeat(",", maxIndicators-4)
	parsed(t, commas, Options{})
	wantOneError(t, "one more", commas+",", "of the characters")
	parsed(t, "pipelines: {p: []} # "+strings.Repeat("x", maxSize-21), Options{})
	parsed(t, "pipelines: {p: []}"+strings.Repeat(strings.Repeat("\n", maxBlankLines)+"# text\n", 19), Options{})
}

func TestParseRefusesDeepNesting(t *testing.T) { // rule 7
	deep := func(n int) string { return "pipelines: {p: " + strings.Repeat("[", n) + strings.Repeat("]", n) + "}" }
	wantOneError(t, "deep", deep(50), "is nested too deeply, must be at most 50 levels")
	wantOneError(t, "very deep", deep(9000), "is nested too deeply, must be at most 50 levels")
	wantOneError(t, "open", strings.Repeat("[", 19_000), "is nested too deeply, must be at most 50 levels")
	_, err := Parse([]byte(deep(40)), Options{})
	if err == nil || strings.Contains(err.Error(), "deep") {
		t.Errorf("got %v, want an error of the item only", err)
	}
	var block strings.Builder
	block.WriteString("pipelines:\n")
	for i := range 60 {
		block.WriteString(strings.Repeat(" ", i+1) + "a:\n")
	}
	_, err = Parse([]byte(block.String()), Options{})
	if err == nil || !strings.Contains(err.Error(), "is nested too deeply") {
		t.Errorf("in a block: got %v, want an error of the nesting", err)
	}
	_, err = Parse([]byte(strings.Repeat("- ", 9000)), Options{})
	if err == nil || !strings.Contains(err.Error(), "is nested too deeply") {
		t.Errorf("in lists: got %v, want an error of the nesting", err)
	}
}

// TestParseRefusesExplosion has pipelines that use each other twice: in full, the last one would have
// 2^40 policies.
func TestParseRefusesExplosion(t *testing.T) { // rule 7
	var text strings.Builder
	text.WriteString("pipelines:\n  p0: [breaker: {}]\n")
	for i := range 40 {
		fmt.Fprintf(&text, "  p%d: [use: p%d, use: p%d]\n", i+1, i, i)
	}
	wantOneError(t, "doubling", text.String(), "has 190 items, with those of the pipelines that it uses, must have at most 100")
	long := func(n int) string { return "pipelines:\n  p:\n" + strings.Repeat("  - timeout: {limit: 1s}\n", n) }
	parsed(t, long(100), Options{})
	wantOneError(t, "long", long(101), "has 101 items")
	var chain strings.Builder
	chain.WriteString("pipelines:\n  p0: []\n")
	for i := range 3000 {
		fmt.Fprintf(&chain, "  p%d: [use: p%d]\n", i+1, i)
	}
	wantOneError(t, "a chain", chain.String(), "has 101 items")
}

// TestParseRefusesWhatEffectiveCannotShow keeps the promise that Effective is a file that is accepted.
func TestParseRefusesWhatEffectiveCannotShow(t *testing.T) { // rules 7 and 14
	file := func(n int, name string) string {
		var b strings.Builder
		b.WriteString("pipelines:\n")
		for i := range n {
			fmt.Fprintf(&b, "  p%d%s:\n    - breaker:\n", i, name)
		}
		return b.String()
	}
	f := parsed(t, file(900, ""), Options{})
	if again := parsed(t, string(f.effective), Options{}); string(again.effective) != string(f.effective) {
		t.Error("got another file from Effective, want the same")
	}
	wantOneError(t, "many policies", file(1000, ""), "the file has too many policies: with every default written, the file has")
	wantOneError(t, "long names", "pipelines:\n  "+strings.Repeat("x", 500_000)+":\n    - timeout: {limit: 1s}\n    - timeout: {limit: 1s}\n", "the file has too many policies")
}

// TestParseBoundsMemoryOfBreakers has breakers that would use 800 MB.
func TestParseBoundsMemoryOfBreakers(t *testing.T) { // rule 7
	one := "breaker: {failures: 1, lastCalls: 1000000}"
	text := "policies:\n  x: {" + one + "}\npipelines:\n  p:\n" + strings.Repeat("    - "+one+"\n", 9)
	parsed(t, text, Options{})
	_, err := Parse([]byte(text+strings.Repeat("    - "+one+"\n", 90)), Options{})
	if want := "14:7: pipelines.p[9].breaker.lastCalls is too large: all breakers of a file must together have at most 10000000"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestParseReportsPanicOfParser(t *testing.T) { // rule 7
	defer func(f func([]byte) (*ast.File, error)) { parseSource = f }(parseSource)
	parseSource = func([]byte) (*ast.File, error) { panic("index out of\nrange") }
	wantOneError(t, "a panic", pipelines, "the file is no YAML that the parser can read: index out of range")
}

// TestParseBoundsErrorsOfHostileFiles has as many errors and suggestions as fit into a file.
func TestParseBoundsErrorsOfHostileFiles(t *testing.T) { // rules 5 and 7
	var text strings.Builder
	text.WriteString("pipelines:\n  p:\n")
	for i := range 3000 {
		fmt.Fprintf(&text, "  - use: %060d\n", i)
	}
	for i := range 3000 {
		fmt.Fprintf(&text, "  q%059d: 1\n", i)
	}
	_, err := Parse([]byte(text.String()), Options{})
	var errs Errors
	if !errors.As(err, &errs) || len(errs) != 101 || len(err.Error()) > 50_000 {
		t.Errorf("got %d errors of %d bytes, want 101 short ones", len(errs), len(err.Error()))
	}
}

// FuzzParse checks that every file has errors with places inside it, or an Effective that is the same
// file.
func FuzzParse(f *testing.F) { // rules 7 and 14
	for _, seed := range []string{
		pipelines, "", "\ufeff# c\r\n", "pipelines: {p: []}", "pipelines: {p: [timeout: {limit: 5}]}", "? [a]\n: b", "a: &x {<<: *x}",
		"pipelines: {p: [use: q, use: p], q: [use: p]}", "budgets: {b: {ratio: 0.00001}}\npipelines: {p: [hedge: {delay: 1s, budget: b}]}",
		"pipelines:\n  p:\n  - breaker:\n      failures: 3\n      lastCalls: 5\n      name: |\n        text\n", "%YAML 1.2\n---\na: 1\n...\n---\n",
		"pipelines: {p: [retry: {backoff: {linear: {step: 1s, max: 2s}}, maxAttempts: unlimited}]}", `{"pipelines": {"p": ["atMostOnce", {"adaptive": null}]}}`,
		"pipelines: {\"\\0\": [breaker: {name: \"\\e\\u2028${X} $$\"}]}", "pipelines:\n\tp: 1", "a: \"", "[{[{", "!!binary x: !x", "- - - ? ? :", "pipelines: {p: [throttle: {max: 1, refill: 2, every: 1µs}]}",
	} {
		f.Add([]byte(seed))
	}
	o := Options{Env: func(name string) (string, bool) { return name + ": $ {", name != "NONE" }}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Parse(data, o)
		if err != nil {
			errs, ok := err.(Errors)
			if !ok || len(errs) == 0 || len(errs) > maxErrors+1 {
				t.Fatalf("got %T with %d errors, want Errors with 1 to %d", err, len(errs), maxErrors+1)
			}
			lines := strings.Split(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(string(data)), "\n")
			for i, e := range errs {
				if e.Line < 1 || e.Line > len(lines) || e.Column < 1 || i > 0 && compare(errs[i-1].Line, errs[i-1].Column, e.Line, e.Column) > 0 {
					t.Errorf("got error %v in a file of %d lines, want a place in it, in order", e, len(lines))
				}
				if e.Message == "" || len(e.Error()) > 2000 || !utf8.ValidString(e.Error()) || strings.ContainsAny(e.Error(), "\n\r\x1b\x00") {
					t.Errorf("got error %q, want short and printable text", e.Error())
				}
			}
			return
		}
		again, err := Parse(file.effective, o)
		if err != nil {
			t.Fatalf("got error %v of Effective, want none:\n%s", err, file.effective)
		}
		if string(again.effective) != string(file.effective) {
			t.Errorf("got Effective\n%s\nfrom\n%s", again.effective, file.effective)
		}
		if d := diff(file, again); !d.Empty() {
			t.Errorf("got the difference %+v to Effective, want none", d)
		}
	})
}

// FuzzVariables checks that a variable changes its value and nothing else, whatever it contains.
func FuzzVariables(f *testing.F) { // rule 3
	for _, seed := range []string{"", "x", "1s, abandon: 5}", "\n- breaker:", "${X}", "$$", "\xff", "\x00\u2028\u0085\ufeff", "'\"", "# c", "&a", "~"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		o := Options{Env: func(string) (string, bool) { return value, true }}
		file, err := Parse([]byte("pipelines:\n  p:\n    - breaker:\n        name: x${X}\n        openFor: 7s\n"), o)
		if (err == nil) != utf8.ValidString(value) {
			t.Fatalf("got error %v for %q", err, value)
		}
		if err != nil {
			return
		}
		s := file.pipelines[0].items[0].spec
		if got := s.config.FieldByName("Name").String(); got != "x"+value {
			t.Errorf("got the name %q, want %q", got, "x"+value)
		}
		again, err := Parse(file.effective, o)
		if err != nil || !diff(file, again).Empty() {
			t.Errorf("got %v and another file, want the same:\n%s", err, file.effective)
		}
	})
}
