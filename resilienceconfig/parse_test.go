package resilienceconfig

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/adaptive"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/retry"
)

// pipelines is the file of the package's documentation.
const pipelines = `# pipelines.yaml
budgets:
  extra: {ratio: 0.1, minPerSecond: 1}
policies:                         # shared by name
  users-breaker: {breaker: {failureRate: 0.5, window: 2s, minCalls: 20, openFor: 1s, jitter: 0.2}}
pipelines:
  users:                          # outermost first
    - timeout: {limit: 400ms}
    - retry: {maxAttempts: 2, backoff: {fullJitter: {initial: 50ms, max: 1s}}, budget: extra}
    - use: users-breaker
    - timeout: {limit: 120ms}
  invoices:
    - atMostOnce
    - use: users                  # a pipeline may use another pipeline
`

func parsed(t *testing.T, text string, o Options) *File {
	t.Helper()
	f, err := Parse([]byte(text), o)
	if err != nil {
		t.Fatalf("got error %.300v, want none for\n%.3000s", err, text)
	}
	return f
}

// wantErrors checks the errors of a file, one for each line.
func wantErrors(t *testing.T, text string, o Options, want ...string) {
	t.Helper()
	_, err := Parse([]byte(text), o)
	var got []string
	if err != nil {
		var errs Errors
		if !errors.As(err, &errs) {
			t.Fatalf("got error of type %T, want Errors", err)
		}
		for _, e := range errs {
			got = append(got, e.Error())
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("for\n%s\ngot errors\n%s\nwant\n%s", text, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// inPipeline returns a file with one policy, so that its errors are at 3:9 and behind.
func inPipeline(policy string) string { return "pipelines:\n  p:\n    - " + policy + "\n" }

// config returns the Config of the only policy of a file.
func config(t *testing.T, text string, o Options) any {
	t.Helper()
	var policy resilience.Policy
	o.Wrap = func(_ string, p resilience.Pipeline) resilience.Policy {
		policy = p[0]
		return p
	}
	New(parsed(t, text, o))
	return configOf(policy)
}

func TestParseAcceptsEveryKind(t *testing.T) { // rule 1
	f := parsed(t, `
policies:
  a: {retry: }
  b: {hedge: {delay: 1s}}
  c: {breaker: }
  d: {shed: {}}
  e: {bulkhead: {limit: 1}}
  f: {ratelimit: {rate: 1, burst: 2}}
  g: {adaptive: null}
  h: {throttle: {max: 2, refill: 1, every: 1s}}
  i: {timeout: {limit: 1s}}
pipelines:
  p: [atMostOnce, use: a, use: b, use: c, use: d, use: e, use: f, use: g, use: h, use: i]
  q:
  - breaker:
  - use: p
`, Options{})
	set := New(f)
	if got, want := set.Names(), []string{"p", "q"}; !slices.Equal(got, want) {
		t.Errorf("got pipelines %q, want %q", got, want)
	}
	for _, name := range set.Names() {
		got, err := resilience.Do(t.Context(), set.Make(name), func(context.Context) (int, error) { return 7, nil })
		if got != 7 || err != nil {
			t.Errorf("%s: got %v, %v, want 7, nil", name, got, err)
		}
	}
}

func TestParseRejectsWhatIsNoItem(t *testing.T) { // rule 1
	for _, name := range []string{"share", "debounce", "chaos", "keyed", "discard"} {
		wantErrors(t, inPipeline(name+": {}"), Options{}, "3:7: pipelines.p[0]."+name+" is not accepted in a file: put it around the pipeline in the program")
	}
	wantErrors(t, inPipeline("breaker"), Options{}, "3:7: pipelines.p[0] is text, must be a mapping: breaker:")
	wantErrors(t, inPipeline("p"), Options{}, "3:7: pipelines.p[0] is text, must be a mapping: use: p")
	wantErrors(t, inPipeline("atMostonce"), Options{}, `3:7: pipelines.p[0] is "atMostonce", must be a policy, use, or atMostOnce, did you mean atMostOnce?`)
	wantErrors(t, inPipeline("atMostOnce: {}"), Options{}, "3:7: pipelines.p[0].atMostOnce is a mapping, must be text: - atMostOnce")
	wantErrors(t, inPipeline("[breaker: {}]"), Options{}, "3:7: pipelines.p[0] is a list, must be a policy, use, or atMostOnce")
	wantErrors(t, inPipeline("{}"), Options{}, "3:7: pipelines.p[0] is empty, must be a policy, use, or atMostOnce")
	wantErrors(t, inPipeline("timeout:\n      limit: 1s"), Options{},
		`4:7: pipelines.p[0].limit is a second key beside timeout, must be one: indent the fields of a policy below it, and begin each policy with its own "- "`)
	wantErrors(t, "policies:\n  a: {use: b}\n  b: {breaker: }\npipelines: {p: [use: a]}", Options{},
		"2:7: policies.a.use is not accepted here, must be a policy: pipelines use policies")
}

func TestParseChecksNames(t *testing.T) { // rule 1
	for _, name := range []string{"a b", "a.b", "a[b", "a]b", "$a", "", "a\tb", "a\u00a0b", "a\x00b"} {
		text := fmt.Sprintf("budgets: {%[1]q: {ratio: 1}}\npolicies: {%[1]q: {breaker: }}\npipelines: {%[1]q: [breaker: {}]}", name)
		_, err := Parse([]byte(text), Options{})
		if errs := (Errors)(nil); !errors.As(err, &errs) || len(errs) != 4 { // one for the collision
			t.Errorf("name %q: got %v, want an error for each", name, err)
		}
	}
	wantErrors(t, "pipelines: {a: [breaker: {}]}\npolicies: {a: {breaker: }, p: {breaker: }}", Options{},
		"2:12: policies.a is also the name of a pipeline, in line 1")
	wantErrors(t, "policies: {a: {breaker: }, p: {breaker: }}\npipelines: {a: [breaker: {}]}", Options{},
		"2:13: pipelines.a is also the name of a policy, in line 1")
	parsed(t, "budgets: {a: {ratio: 1}}\npipelines: {a: [breaker: {}]}", Options{})
}

// TestParseReadsEveryField sets each field of each Config, and checks that the policy's Config has the
// value.
func TestParseReadsEveryField(t *testing.T) { // rule 2
	values := map[string]string{ // where the general ones aren't valid
		"retry.MaxAttempts": "unlimited", "breaker.Failures": "2", "breaker.LastCalls": "3", "breaker.ProbeSuccesses": "4",
		"breaker.MaxOpenFor": "1h", "adaptive.Initial": "3", "adaptive.Max": "9", "shed.K": "3", "budget.TTL": "1m",
		"throttle.Max": "1000000000",
	}
	for _, k := range append(slices.Clone(kinds), budgetKind) {
		t.Run(k.name, func(t *testing.T) {
			o := Options{Funcs: map[string]any{}}
			var lines strings.Builder
			for i := range k.config.NumField() {
				f := k.config.Field(i)
				key := strings.ToLower(f.Name[:1]) + f.Name[1:]
				if f.Name == "TTL" {
					key = "ttl"
				}
				value := values[k.name+"."+f.Name]
				switch {
				case value != "":
				case f.Name == "Backoff":
					value = "{linear: {step: 7ms, max: 9s}}"
				case f.Type == reflect.TypeFor[adaptive.Algorithm]():
					value = "AIMD"
				case f.Type == reflect.TypeFor[*budget.Budget]():
					value = "b"
				case f.Type == reflect.TypeFor[time.Duration]():
					value = "1m30s"
				case f.Type.Kind() == reflect.Func:
					value = "f" + f.Name
					o.Funcs[value] = reflect.MakeFunc(f.Type, nil).Interface()
				default:
					value = map[reflect.Kind]string{reflect.String: "n", reflect.Int: "2", reflect.Float64: "0.75", reflect.Bool: "true"}[f.Type.Kind()]
				}
				if value == "" {
					t.Fatalf("%s is a %v, want a type with a value in this test", f.Name, f.Type)
				}
				fmt.Fprintf(&lines, "        %s: %s\n", key, value)
			}
			text := "budgets:\n  b: {ratio: 1}\npipelines:\n  p:\n    - " + k.name + ":\n" + lines.String()
			if k == budgetKind {
				text = "budgets:\n    x:\n" + lines.String() + "pipelines: {p: [retry: {budget: x}]}"
			}
			got := reflect.ValueOf(config(t, text, o))
			if k == budgetKind {
				got = reflect.ValueOf(got.Interface().(retry.Config).Budget.Config())
			}
			for i := range got.NumField() {
				if got.Field(i).IsZero() {
					t.Errorf("%s.%s: got the zero value, want the one in the file", k.name, got.Type().Field(i).Name)
				}
			}
		})
	}
}

func TestParseNamesPoliciesAfterTheirPlace(t *testing.T) { // rule 2
	var names []string
	wrap := func(_ string, p resilience.Pipeline) resilience.Policy {
		for _, policy := range p {
			names = append(names, policy.(interface{ Name() string }).Name())
		}
		if r, ok := p[0].(*retry.Retry); ok {
			names = append(names, r.Config().Budget.Name())
		}
		return p
	}
	New(parsed(t, `
budgets: {b: {ratio: 1}}
policies:
  x: {breaker: }
  y: {breaker: {name: why}}
pipelines:
  p: [retry: {budget: b}, breaker: {}, breaker: {name: no}, breaker: {name: 12}, use: x, use: y, use: q]
  q: [timeout: {limit: 1s}]
`, Options{Wrap: wrap}))
	if want := []string{"p", "p", "no", "12", "x", "why", "q", "b", "q"}; !slices.Equal(names, want) {
		t.Errorf("got names %q, want %q", names, want)
	}
}

func TestParseReadsTimesInGoForm(t *testing.T) { // rule 3
	const must = "must be a time such as 400ms or 1h30m"
	for value, want := range map[string]string{
		"400ms": "", "1h30m": "", `"400ms"`: "", "1.5s": "", "2µs": "",
		"0":    "is 0s, must be positive", // the unit may be left out
		"-1s":  "is -1s, must be positive",
		"5":    "is 5 without a unit, " + must + ": write 5s or 5ms",
		"1.5":  "is 1.5 without a unit, " + must + ": write 1.5s or 1.5ms",
		`"5"`:  "is 5 without a unit, " + must + ": write 5s or 5ms",
		"5 s":  `is "5 s", ` + must,
		"1d":   `is "1d", ` + must,
		"true": `is "true", ` + must,
		"~":    `is "~", ` + must,
		"":     "is empty, " + must,
		"[1s]": "is a list, " + must,
		// More than 292 years.
		"3000000h": `is "3000000h", which is too long: must be at most 2562047h0m0s`,
	} {
		text := inPipeline("timeout:\n        limit: " + value)
		if want == "" {
			parsed(t, text, Options{})
			continue
		}
		at := "4:16"
		if value == "" {
			at = "4:9" // of the key
		}
		wantErrors(t, text, Options{}, at+": pipelines.p[0].timeout.limit "+want)
	}
}

func TestParseReadsDecimalNumbersWithoutQuotes(t *testing.T) { // rule 3
	for _, value := range []string{"010", "0x7", "0o7", "0b1", "1_000", "1e3", "7.0", "7.", ".5", ".inf", ".nan", "20%", `"7"`, "'7'", "true", "seven", "~", "", "[7]", "99999999999999999999"} {
		_, err := Parse([]byte(inPipeline("bulkhead:\n        limit: "+value)), Options{})
		if err == nil || !strings.Contains(err.Error(), "pipelines.p[0].bulkhead.limit is ") {
			t.Errorf("limit: %s: got %v, want an error of the value", value, err)
		}
	}
	for _, value := range []string{"010", "0x7", "1_000", "1e3", ".inf", "-.inf", ".nan", "20%", `"0.5"`, "'1'", "true", "half", "", "{}", "1" + strings.Repeat("0", 400)} {
		_, err := Parse([]byte(inPipeline("ratelimit:\n        rate: "+value)), Options{})
		if err == nil || !strings.Contains(err.Error(), "pipelines.p[0].ratelimit.rate is ") {
			t.Errorf("rate: %s: got %v, want an error of the value", value, err)
		}
	}
	for _, value := range []string{"7", "7.0", "0.5", ".5", "+7"} {
		parsed(t, inPipeline("ratelimit:\n        rate: "+value), Options{})
	}
	wantErrors(t, inPipeline("breaker: {jitter: 20%}"), Options{}, `3:25: pipelines.p[0].breaker.jitter is "20%", must be a decimal number such as 0.5: 0.2`)
	wantErrors(t, inPipeline(`breaker: {minCalls: "20"}`), Options{},
		`3:27: pipelines.p[0].breaker.minCalls is "20" in quotes, must be a whole number such as 3, without quotes`)
	got := config(t, inPipeline("retry: {maxAttempts: unlimited}"), Options{}).(retry.Config)
	if got.MaxAttempts != retry.Unlimited {
		t.Errorf("unlimited: got %d, want %d", got.MaxAttempts, retry.Unlimited)
	}
	wantErrors(t, inPipeline("retry: {maxAttempts: many}"), Options{},
		`3:28: pipelines.p[0].retry.maxAttempts is "many", must be a whole number such as 3, or unlimited`)
}

func TestParseReadsBooleansOnlyAsTrueAndFalse(t *testing.T) { // rule 3
	for _, value := range []string{"True", "TRUE", "yes", "on", "1", `"true"`, "'false'", "~", ""} {
		_, err := Parse([]byte(inPipeline("breaker:\n        dryRun: "+value)), Options{})
		if err == nil || !strings.Contains(err.Error(), "pipelines.p[0].breaker.dryRun is ") {
			t.Errorf("dryRun: %s: got %v, want an error of the value", value, err)
		}
	}
	for value, want := range map[string]bool{"true": true, "false": false} {
		if got := config(t, inPipeline("breaker: {dryRun: "+value+"}"), Options{}).(breaker.Config).DryRun; got != want {
			t.Errorf("dryRun: %s: got %v, want %v", value, got, want)
		}
	}
}

func TestParseReadsNamesAsText(t *testing.T) { // rule 3
	for _, name := range []string{"no", "12", "1e3", "0x10", "1_000", "true", "null", "~", "2001-01-01", "-1", "é", "日本", "a:b"} {
		text := fmt.Sprintf("budgets:\n  %[1]s: {ratio: 1}\npipelines:\n  %[1]s:\n    - retry:\n        name: %[1]s\n        budget: %[1]s\n  q:\n    - use: %[1]s\n", name)
		set := New(parsed(t, text, Options{}))
		if got, want := set.Names(), []string{name, "q"}; !slices.Equal(got, want) {
			t.Errorf("got names %q, want %q", got, want)
		}
	}
	wantErrors(t, inPipeline("breaker: {name: [a]}"), Options{}, "3:23: pipelines.p[0].breaker.name is a list, must be text")
}

func TestParseReadsSchedules(t *testing.T) { // rule 3
	for text, want := range map[string][]time.Duration{
		"constant: {delay: 1s}":                {1e9, 1e9, 1e9},
		"linear: {step: 1s, max: 2s}":          {1e9, 2e9, 2e9},
		"exponential: {initial: 1s, max: 3s}":  {1e9, 2e9, 3e9},
		"fibonacci: {initial: 1s, max: 1m}":    {1e9, 1e9, 2e9, 3e9, 5e9},
		"fullJitter: {initial: 1s, max: 1s}":   nil, // random
		"equalJitter: {initial: 1s, max: 1s}":  nil,
		"decorrelated: {initial: 1s, max: 1s}": {1e9, 1e9},
	} {
		schedule := config(t, inPipeline("retry: {backoff: {"+text+"}}"), Options{}).(retry.Config).Backoff()
		for i, d := range want {
			if got := schedule.NextBackOff(); got != d {
				t.Errorf("%s: delay %d: got %v, want %v", text, i, got, d)
			}
		}
	}
	mine := retry.Constant(7)
	got := config(t, inPipeline("retry: {backoff: mine}"), Options{Funcs: map[string]any{"mine": mine}}).(retry.Config)
	if d := got.Backoff().NextBackOff(); d != 7 {
		t.Errorf("a function: got delay %v, want 7ns", d)
	}
	const path = ": pipelines.p[0].retry.backoff"
	for text, want := range map[string][]string{
		"fulJitter":                          {"3:24" + path + ` is "fulJitter", must be a schedule or the name of a function in Options.Funcs, did you mean fullJitter?`},
		"fullJitter":                         {"3:24" + path + " is fullJitter without its parameters, must be {fullJitter: {initial: ..., max: ...}}"},
		"{fulJitter: {}}":                    {"3:25" + path + ".fulJitter is not a schedule, did you mean fullJitter?"},
		"{linear: {step: 1s}}":               {"3:25" + path + ".linear.max is missing, must be a time such as 400ms"},
		"{linear: {stap: 1s, max: 1s}}":      {"3:34" + path + ".linear.stap is not a parameter of linear, did you mean step?"},
		"{linear: {step: 3s, max: 1s}}":      {"3:49" + path + ".linear.max is 1s, must be at least step, 3s"},
		"{linear: {step: 0, max: 1s}}":       {"3:40" + path + ".linear.step is 0s, must be positive"},
		"{constant: {delay: -1s}}":           {"3:43" + path + ".constant.delay is -1s, must not be negative"},
		"{constant: 1s}":                     {"3:35" + path + `.constant is "1s", must be {delay: ...}`},
		"{constant: {delay: 5}, linear: {}}": {"3:43" + path + ".constant.delay is 5 without a unit, must be a time such as 400ms or 1h30m: write 5s or 5ms", "3:47" + path + ".linear is a second schedule, must be one"},
		"":                                   {"3:15" + path + " is empty, must be a schedule such as {fullJitter: {initial: 100ms, max: 10s}}, or the name of a function"},
		"[]":                                 {"3:24" + path + " is a list, must be a schedule such as {fullJitter: {initial: 100ms, max: 10s}}, or the name of a function"},
	} {
		wantErrors(t, inPipeline("retry: {backoff: "+text+"}"), Options{}, want...)
	}
}

func TestParseLooksUpFunctions(t *testing.T) { // rule 3
	classify := func(context.Context, error) breaker.Outcome { return breaker.Ignored }
	var missing func(error) bool
	type named func(error) bool
	o := Options{Funcs: map[string]any{"classify": classify, "missing": missing, "nothing": nil, "number": 7, "named": named(func(error) bool { return true })}}
	got := config(t, inPipeline("breaker: {classify: classify}"), o).(breaker.Config)
	if outcome := got.Classify(t.Context(), nil); outcome != breaker.Ignored {
		t.Errorf("got %v from classify, want ignored", outcome)
	}
	config(t, inPipeline("retry: {retryIf: named}"), o)
	const path = "pipelines.p[0].retry.retryIf "
	wantErrors(t, inPipeline("retry: {retryIf: clasify}"), o, "3:24: "+path+`is "clasify", must be the name of a function in Options.Funcs, did you mean classify?`)
	wantErrors(t, inPipeline("retry: {retryIf: missing}"), o, "3:24: "+path+`names the function "missing", which is nil in Options.Funcs`)
	wantErrors(t, inPipeline("retry: {retryIf: nothing}"), o, "3:24: "+path+`names the function "nothing", which is nil in Options.Funcs`)
	wantErrors(t, inPipeline("retry: {retryIf: number}"), o, "3:24: "+path+`names the function "number" of type int, must be a func(error) bool`)
	wantErrors(t, inPipeline("retry: {retryIf: classify}"), o,
		"3:24: "+path+`names the function "classify" of type func(context.Context, error) breaker.Outcome, must be a func(error) bool`)
}

func TestParseReplacesVariables(t *testing.T) { // rule 3
	env := map[string]string{"LIMIT": "3", "TIME": "2s", "EMPTY": "", "YAML": "1s, abandon: 5}\n- breaker:", "DOLLAR": "$$ ${LIMIT}", "BAD": "\xff", "NAME": "q"}
	lookup := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	o := Options{Env: lookup}
	name := func(text string) string {
		return config(t, inPipeline("breaker:\n        name: "+text), o).(breaker.Config).Name
	}
	for text, want := range map[string]string{
		"${LIMIT}": "3", "a${LIMIT}b${TIME}": "a3b2s", "${EMPTY:-x}": "x", "${NONE:-}y": "y", "${NONE:-a:-b}": "a:-b", "$$": "$", "$${LIMIT}": "${LIMIT}",
		"$x": "$x", "${DOLLAR}": "$$ ${LIMIT}", "${NONE:-$$}": "$$", "${YAML}": env["YAML"], `"a$"`: "a$", "${NONE:-with spaces}": "with spaces",
	} {
		if got := name(text); got != want {
			t.Errorf("name: %s: got %q, want %q", text, got, want)
		}
	}
	if got := name("x${EMPTY}"); got != "x" {
		t.Errorf("an empty variable: got %q, want x", got)
	}
	// Inside {}, YAML needs quotes around ${}; they don't make the number a text.
	parsed(t, inPipeline(`bulkhead: {limit: "${LIMIT}", maxWait: "${TIME}"}`), o)
	parsed(t, inPipeline("bulkhead:\n        limit: ${LIMIT}"), o)
	parsed(t, "pipelines: {q: [], p: [use: \"${NAME}\"]}", o)
	const path = "4:15: pipelines.p[0].breaker.name "
	for text, want := range map[string]string{
		"${NONE}":     "needs the variable NONE, which is not set and has no default: ${NONE:-default}",
		"${BAD}":      "needs the variable BAD, which is not valid UTF-8",
		"${":          `has "${", must be ${NAME} or ${NAME:-default}; $$ is a $`,
		"${LIMIT":     `has "${LIMIT", must be ${NAME} or ${NAME:-default}; $$ is a $`,
		"${a-b}":      `has "${a-b}", must be ${NAME} or ${NAME:-default}; $$ is a $`,
		"${}":         `has "${}", must be ${NAME} or ${NAME:-default}; $$ is a $`,
		"x ${NONE} $": "needs the variable NONE, which is not set and has no default: ${NONE:-default}",
	} {
		wantErrors(t, inPipeline("breaker:\n        name: "+text), o, path+want)
	}
	wantErrors(t, inPipeline("timeout:\n        limit: ${YAML}"), o,
		`4:16: pipelines.p[0].timeout.limit is "1s, abandon: 5}\n- breaker:", must be a time such as 400ms or 1h30m`)
	wantErrors(t, "pipelines: {\"${NAME}\": []}", o, `1:13: pipelines."${NAME}" contains '$': a name has no spaces, dots, brackets, or $`)
	if got := config(t, inPipeline("breaker: {name: \"${LIMIT} $$\"}"), Options{}).(breaker.Config).Name; got != "${LIMIT} $$" {
		t.Errorf("without Env: got %q, want the text as it is", got)
	}
	env["LONG"] = strings.Repeat("x", 1<<10)
	_, err := Parse([]byte(inPipeline("breaker:\n        name: "+strings.Repeat("${LONG}", 1<<11))), o)
	if err == nil || !strings.Contains(err.Error(), "variables add more than 1 MiB") {
		t.Errorf("2 MiB of variables: got %v, want an error", err)
	}
}

func TestParseRejectsYAMLBeyondData(t *testing.T) { // rule 4
	const anchor, tag = "has an anchor, which is not accepted: share with use", "has a tag, which is not accepted"
	for text, want := range map[string][]string{
		inPipeline("timeout: &a {limit: 1s}"):                              {"3:16: pipelines.p[0].timeout " + anchor},
		inPipeline("timeout: {limit: &a 1s}"):                              {"3:24: pipelines.p[0].timeout.limit " + anchor},
		inPipeline("breaker: &a {}\n    - breaker: *a"):                    {"3:16: pipelines.p[0].breaker " + anchor, "4:16: pipelines.p[1].breaker is an alias, which is not accepted: share with use"},
		inPipeline("timeout: {limit: !!str 1s}"):                           {"3:24: pipelines.p[0].timeout.limit " + tag},
		inPipeline("timeout: {limit: !custom 1s}"):                         {"3:24: pipelines.p[0].timeout.limit " + tag},
		inPipeline("timeout:\n        <<: {limit: 2s}\n        limit: 1s"): {"4:9: pipelines.p[0].timeout has a merge key, which is not accepted: share with use"},
		inPipeline("timeout: {limit: 1s, limit: 2s, limit: 3s}"): {
			"3:28: pipelines.p[0].timeout.limit is a duplicate, the first is in line 3", "3:39: pipelines.p[0].timeout.limit is a duplicate, the first is in line 3"},
		"pipelines: {p: []}\n\npipelines: {q: []}":    {"3:1: pipelines is a duplicate, the first is in line 1"},
		"pipelines: {p: []}\n---\npipelines: {q: []}": {"2:1: a second document is not accepted, a file has one"},
		"%YAML 1.2\n---\npipelines: {p: []}":          {"1:1: a YAML directive is not accepted"},
		"":                                            {"1:1: the file is empty, must have pipelines"},
		"# nothing\n":                                 {"1:1: the file is empty, must have pipelines"},
		"---\n":                                       {"1:1: the file is empty, must have pipelines"},
		"{}":                                          {"1:1: pipelines is missing, must have at least one pipeline"},
		"policies: {a: {breaker: }}":                  {"1:1: pipelines is missing, must have at least one pipeline"},
		"pipelines:":                                  {"1:1: pipelines is empty, must have at least one pipeline"},
		"pipelines: {}":                               {"1:12: pipelines is empty, must have at least one pipeline"},
		"pipelines: []":                               {"1:12: pipelines is a list, must be a mapping of names"},
		"pipelines: {p: }":                            {"1:13: pipelines.p is empty, must be a list of policies, outermost first"},
		"pipelines: {p: breaker}":                     {`1:16: pipelines.p is "breaker", must be a list of policies, outermost first`},
		"hello":                                       {`1:1: the file is "hello", must be a mapping with pipelines`},
		"- breaker:":                                  {"1:1: the file is a list, must be a mapping with pipelines"},
		"pipelines: {p: []}\n# \xff":                  {"2:3: the file is not valid UTF-8"},
		"a: b: c":                                     {"1:4: mapping value is not allowed in this context"},
	} {
		wantErrors(t, text, Options{}, want...)
	}
	for _, text := range []string{"? [a]\n: 1", "? {a: 1}\n: 1", "[a]: 1", "*a : 1", "&a b: 1", "!t b: 1"} {
		if _, err := Parse([]byte(text), Options{}); err == nil {
			t.Errorf("got no error, want one for the key of %q", text)
		}
	}
}

func TestParseAcceptsByteOrderMarkCRLFAndJSON(t *testing.T) { // rule 4
	want := parsed(t, pipelines, Options{}).effective
	for name, text := range map[string]string{
		"a byte order mark": "\ufeff" + pipelines,
		"CRLF":              strings.ReplaceAll(pipelines, "\n", "\r\n"),
		"CR":                strings.ReplaceAll(pipelines, "\n", "\r"),
		"a document marker": "---\n" + pipelines + "...\n",
		"JSON": `{"budgets": {"extra": {"ratio": 0.1, "minPerSecond": 1}},
			"policies": {"users-breaker": {"breaker": {"failureRate": 0.5, "window": "2s", "minCalls": 20, "openFor": "1s", "jitter": 0.2}}},
			"pipelines": {"users": [{"timeout": {"limit": "400ms"}},
				{"retry": {"maxAttempts": 2, "backoff": {"fullJitter": {"initial": "50ms", "max": "1s"}}, "budget": "extra"}},
				{"use": "users-breaker"}, {"timeout": {"limit": "120ms"}}],
			"invoices": ["atMostOnce", {"use": "users"}]}}`,
	} {
		if got := parsed(t, text, Options{}).effective; string(got) != string(want) {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
		}
	}
	// Lines and columns are those that an editor shows.
	wantErrors(t, "\ufeffpipelines:\r\n# a comment\r\n\r\n  p:\r\n    - timeout: {name: \"é日本\", limit: 5}\r\n", Options{},
		"5:37: pipelines.p[0].timeout.limit is 5 without a unit, must be a time such as 400ms or 1h30m: write 5s or 5ms")
}
