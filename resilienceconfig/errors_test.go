package resilienceconfig

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestErrorsAreAllReportedInFileOrder(t *testing.T) { // rule 5
	wantErrors(t, `pipelines:
  users:
    - timeout: {limit: 5}
    - retry: {maxAttempts: -2, maxElapsed: -1s, budget: extr, maxAttemps: 3}
    - hedge: {}
    - timeout: {}
    - use: userss
    - brekaer: {}
policies:
  slow: {breaker: {slowRate: 0.5, windw: 2s}}
budgets:
  extra: {ratio: 2000, minPerSecond: -1, ttl: 1}
`, Options{},
		"3:24: pipelines.users[0].timeout.limit is 5 without a unit, must be a time such as 400ms or 1h30m: write 5s or 5ms",
		"4:28: pipelines.users[1].retry.maxAttempts is -2, must be positive, 0 for the default 3 or Unlimited (-1)",
		"4:44: pipelines.users[1].retry.maxElapsed is -1s, must be positive, or 0 for no limit",
		`4:57: pipelines.users[1].retry.budget is "extr", must be the name of a budget, did you mean extra?`,
		"4:63: pipelines.users[1].retry.maxAttemps is not a field of retry, did you mean maxAttempts?",
		"5:7: pipelines.users[2].hedge.delay and Quantile are both 0, one of them must be positive",
		"6:7: pipelines.users[3].timeout.limit is 0s, must be positive",
		`7:12: pipelines.users[4].use is "userss", must be the name of a policy or a pipeline, did you mean users?`,
		"8:7: pipelines.users[5].brekaer is not a policy, did you mean breaker?",
		"10:10: policies.slow.breaker.slowCall is 0s, must be positive with SlowRate",
		"10:35: policies.slow.breaker.windw is not a field of breaker, did you mean window?",
		"12:18: budgets.extra.ratio is 2000, must be 0 or from 1e-06 to 1000",
		"12:38: budgets.extra.minPerSecond is -1, must be from 0 to 1000000",
		"12:47: budgets.extra.ttl is 1 without a unit, must be a time such as 400ms or 1h30m: write 1s or 1ms",
	)
}

// TestErrorsUseWordsOfValidate compares the error of each field, at a value that no field accepts, with
// that of Validate.
func TestErrorsUseWordsOfValidate(t *testing.T) { // rule 5
	for _, k := range append(slices.Clone(kinds), budgetKind) {
		for i := range k.fields {
			f := &k.fields[i]
			value := map[form]string{wholeForm: "-5", numberForm: "-5", durationForm: "-5s"}[f.form]
			if value == "" {
				continue
			}
			config := reflect.New(k.config).Elem()
			switch f.form {
			case wholeForm:
				config.Field(f.index).SetInt(-5)
			case numberForm:
				config.Field(f.index).SetFloat(-5)
			case durationForm:
				config.Field(f.index).SetInt(-5e9)
			}
			text := fmt.Sprintf("pipelines: {p: [%s: {%s: %s}]}", k.name, f.key, value)
			path := "pipelines.p[0]." + k.name
			if k == budgetKind {
				text, path = fmt.Sprintf("budgets: {b: {%s: %s}}\npipelines: {p: []}", f.key, value), "budgets.b"
			}
			_, err := Parse([]byte(text), Options{})
			var got []string
			var errs Errors
			if errors.As(err, &errs) {
				for _, e := range errs {
					key := strings.TrimPrefix(e.Path, path+".")
					if field := k.field(key); field != nil {
						got = append(got, k.name+": "+field.name+" "+e.Message)
					}
				}
			}
			var want []string
			for line := range strings.Lines(k.validate(config.Interface()).Error()) {
				want = append(want, strings.TrimSpace(line))
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("%s: got %q, want Validate's %q", text, got, want)
			}
		}
	}
}

func TestErrorsCauseNoAdditionalOnes(t *testing.T) { // rule 5
	for _, c := range []struct{ text, want string }{
		{"pipelines: {p: [timeout: {limit: 5}]}", "limit is 5"},
		{"pipelines: {p: [timeout: {limt: 5s}]}", "limt is not a field"},
		{"pipelines: {p: [breaker: {openFor: 5, maxOpenFor: 1s}]}", "openFor is 5"},
		{"pipelines: {p: [breaker: {lastCalls: x, failures: 3}]}", "lastCalls is"},
		{"pipelines: {p: [breaker: {failures: x, lastCalls: 3}]}", "failures is"},
		{"pipelines: {p: [breaker: {slowRate: x, slowCall: 3s}]}", "slowRate is"},
		{"pipelines: {p: [breaker: {slowRate: 0.5, slowCall: 3}]}", "slowCall is"},
		{"pipelines: {p: [breaker: {probes: x, probeSuccesses: 3}]}", "probes is"},
		{"pipelines: {p: [breaker: {probes: 7, probeSuccesses: x}]}", "probeSuccesses is"},
		{"pipelines: {p: [retry: {retryRefused: true, maxElapsed: 5}]}", "maxElapsed is"},
		{"pipelines: {p: [retry: {retryRefused: yes}]}", "retryRefused is"},
		{"pipelines: {p: [hedge: {delay: 5}]}", "delay is"},
		{"pipelines: {p: [hedge: {quantile: 50%}]}", "quantile is"},
		{"pipelines: {p: [hedge: {quantil: 0.5}]}", "quantil is not"},
		{"pipelines: {p: [ratelimit: {burst: 5, rate: x}]}", "rate is"},
		{"pipelines: {p: [adaptive: {initial: 5, min: x}]}", "min is"},
		{"pipelines: {p: [adaptive: {initial: 5000, max: x}]}", "max is"},
		{"pipelines: {p: [adaptive: {min: 5000, max: x}]}", "max is"},
		{"budgets: {b: {ratio: 5%}}\npipelines: {p: [retry: {budget: b}]}", "ratio is"},
		{"budgets: {b: {minPerSecond: 0.01, ttl: 10}}\npipelines: {p: [retry: {budget: b}]}", "ttl is"},
		{"budgets: [b]\npipelines: {p: [retry: {budget: b}]}", "budgets is a list"},
		{"budgets: {a b: {ratio: 1}}\npipelines: {p: [retry: {budget: a b}]}", `"a b" contains`},
		{"policies: [b]\npipelines: {p: [use: b]}", "policies is a list"},
		{"policies: {b: {brekaer: {}}}\npipelines: {p: [use: b]}", "brekaer is not"},
		{"policies: {b: }\npipelines: {p: [use: b]}", "policies.b is empty"},
		{"policie: {b: {breaker: {}}}\npipelines: {p: [use: b]}", "policie is not"},
		{"policies: {b: {breaker: {}}}\npipeline: {p: [use: b]}", "pipeline is not"},
		{"pipelines: {p: [use: q], q: [use: r], r: [use: q]}", "is a cycle: q uses r uses q"},
		{"policies: {p: {breaker: {}}}\npipelines: {p: [use: p]}", "is also the name"},
		{"pipelines: {p: [use: p, use: p]}", "is a cycle"},
		{"pipelines: {p: [retry: {backoff: {linear: {stepp: 1s, max: 2s}}}]}", "stepp is not"},
		{"pipelines: {p: [breaker: {<<: {openFor: 5}}]}", "merge key"},
	} {
		_, err := Parse([]byte(c.text), Options{})
		var errs Errors
		if errors.As(err, &errs); len(errs) == 0 || !strings.Contains(errs[0].Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.text, err, c.want)
		}
		if strings.HasSuffix(c.text, "use: p, use: p]}") { // two errors, two cycles
			errs = errs[:min(len(errs), 1)]
		}
		if len(errs) != 1 {
			t.Errorf("%s: got\n%v\nwant one error", c.text, err)
		}
	}
}

func TestErrorsDoNotHideOthers(t *testing.T) { // rule 5
	for _, c := range []struct{ text, want string }{
		{"adaptive: {min: x, initial: 9, max: 5}", "initial is 9"},
		{"adaptive: {max: x, initial: 2, min: 5}", "initial is 2"},
		{"breaker: {openFor: 5, maxOpenFor: -1s}", "maxOpenFor is -1s"},
		{"breaker: {openFor: 5, jitter: 2}", "jitter is 2"},
		{"breaker: {openFo: 5s, jitter: 2}", "jitter is 2"},
		{"throttle: {max: 5, every: 1}", "refill is 0"},
		{"retry: {maxAttempts: x, budget: b}", `budget is "b"`},
	} {
		_, err := Parse([]byte(inPipeline(c.text)), Options{})
		if errs := (Errors)(nil); !errors.As(err, &errs) || len(errs) != 2 || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want two errors, with %q", c.text, err, c.want)
		}
	}
}

func TestErrorsNameNearest(t *testing.T) { // rule 5
	o := Options{Funcs: map[string]any{"isBusy": func(error) bool { return true }, "other": 1}}
	for text, want := range map[string]string{
		"retry: {MaxAttempts: 3}":           "maxAttempts",
		"retry: {max_attempts: 3}":          "maxAttempts",
		"Retry: {}":                         "retry",
		"circuitbreaker: {}":                "breaker",
		"rateLimit: {}":                     "ratelimit",
		"uses: users":                       "use",
		"retry: {budget: etxra}":            "extra",
		"use: user":                         "users",
		"use: users_breaker":                "users-breaker",
		"retry: {retryIf: isbusy}":          "isBusy",
		"retry: {backoff: {fulljiter: {}}}": "fullJitter",
		"adaptive: {algorithm: aimd}":       "AIMD",
	} {
		_, err := Parse([]byte(pipelines+"  p:\n    - "+text+"\n"), o)
		if err == nil || !strings.HasSuffix(err.Error(), "did you mean "+want+"?") {
			t.Errorf("%s: got %v, want a question for %s", text, err, want)
		}
	}
	if _, err := Parse([]byte("piplines: {}"), Options{}); err == nil || !strings.Contains(err.Error(), "did you mean pipelines?") {
		t.Errorf("got %v, want a question for pipelines", err)
	}
	if got := edits("breaker", "brekaer"); got != 1 {
		t.Errorf("got %d edits for a swap, want 1", got)
	}
	if got := edits("kitten", "sitting"); got != 3 {
		t.Errorf("got %d edits, want 3", got)
	}
}

func TestErrorsAreAtMostHundredAndCountTheRest(t *testing.T) { // rule 5
	for n, want := range map[int]string{100: "", 101: "1 more error from here on", 150: "50 more errors from here on"} {
		_, err := Parse([]byte("pipelines:\n  p: []\n"+strings.Repeat("  q: []\n", n+1)), Options{})
		var errs Errors
		if !errors.As(err, &errs) {
			t.Fatalf("got %v, want Errors", err)
		}
		last := errs[len(errs)-1]
		if want == "" {
			if len(errs) != 100 {
				t.Errorf("got %d errors, want 100", len(errs))
			}
		} else if len(errs) != 101 || last.Message != want || last.Line != 104 {
			t.Errorf("got %d errors, the last %v, want 100 and %q in line 104", len(errs), last, want)
		}
	}
}

func TestErrorsUnwrap(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.yaml")
	if err := os.WriteFile(path, []byte(inPipeline("timeout: {limit: 5}")+"  q: 7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(path, Options{})
	var errs Errors
	var one *Error
	if !errors.As(err, &errs) || len(errs) != 2 || !errors.As(err, &one) || one != errs[0] {
		t.Errorf("got %v, want Errors of two, and the first as *Error", err)
	}
	want := path + ":3:24: pipelines.p[0].timeout.limit is 5 without a unit, must be a time such as 400ms or 1h30m: write 5s or 5ms\n" +
		path + ":4:6: pipelines.q is 7, must be a list of policies, outermost first"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want\n%s", err, want)
	}
	_, err = Load(path+"x", Options{})
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path+"x: ") {
		t.Errorf("got %v, want fs.ErrNotExist with the path", err)
	}
	_, err = Parse(nil, Options{Interval: -1})
	if err == nil || err.Error() != "Options.Interval is -1ns, must be positive, or 0 for 2s" {
		t.Errorf("got %v, want an error of Options.Interval", err)
	}
}

// TestErrorsAreOneLineEach checks that text of the file can't break or flood a log.
func TestErrorsAreOneLineEach(t *testing.T) { // rule 7
	evil := `"\e[2J\nfake: line\u2028` + strings.Repeat("x", 10_000) + `"`
	for _, text := range []string{
		"pipelines: {" + evil + ": []}",
		inPipeline("use: " + evil),
		inPipeline(evil + ": {}"),
		inPipeline("timeout: {" + evil + ": 1s, limit: 1s}"),
		inPipeline("timeout: {limit: " + evil + "}"),
		inPipeline("bulkhead: {limit: " + evil + "}"),
		inPipeline("retry: {budget: " + evil + "}"),
		inPipeline("retry: {backoff: {" + evil + ": {}}}"),
		inPipeline("retry: {backoff: {linear: {" + evil + ": 1s, step: 1s, max: 1s}}}"),
		inPipeline("retry: {retryIf: " + evil + "}"),
		inPipeline("adaptive: {algorithm: " + evil + "}"),
		evil,
		evil + ": 1",
	} {
		_, err := Parse([]byte(text), Options{})
		if err == nil {
			t.Errorf("%.60s: got no error, want one", text)
			continue
		}
		for line := range strings.Lines(err.Error()) {
			if strings.ContainsAny(line, "\x1b\u2028") || !strings.Contains(line, ":") || len(line) > 700 {
				t.Errorf("got the line %q, want short and printable text", line)
			}
		}
		if strings.Contains(err.Error(), "\nfake") {
			t.Errorf("got %v, want no line break from the file", err)
		}
	}
}
