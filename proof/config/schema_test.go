// Package config checks resilienceconfig against what is written elsewhere: JSON Schema, the pages, and
// sets that were created afresh.
package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/effector-go/resilience/adaptive"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/bulkhead"
	"github.com/effector-go/resilience/hedge"
	"github.com/effector-go/resilience/ratelimit"
	"github.com/effector-go/resilience/resilienceconfig"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/shed"
	"github.com/effector-go/resilience/throttle"
	"github.com/effector-go/resilience/timeout"
)

// configs are the Configs that a file can contain, with the fields that make each valid.
var configs = []struct {
	kind   string
	config reflect.Type
	valid  string
}{
	{"adaptive", reflect.TypeFor[adaptive.Config](), ""},
	{"breaker", reflect.TypeFor[breaker.Config](), ""},
	{"budget", reflect.TypeFor[budget.Config](), "ratio: 1"},
	{"bulkhead", reflect.TypeFor[bulkhead.Config](), "limit: 1"},
	{"hedge", reflect.TypeFor[hedge.Config](), "delay: 1s"},
	{"ratelimit", reflect.TypeFor[ratelimit.Config](), "rate: 1"},
	{"retry", reflect.TypeFor[retry.Config](), ""},
	{"shed", reflect.TypeFor[shed.Config](), ""},
	{"throttle", reflect.TypeFor[throttle.Config](), "max: 1, refill: 1, every: 1s"},
	{"timeout", reflect.TypeFor[timeout.Config](), "limit: 1s"},
}

// keyOf returns the key of a field in a file.
func keyOf(field string) string {
	if strings.ToUpper(field) == field {
		return strings.ToLower(field)
	}
	return strings.ToLower(field[:1]) + field[1:]
}

func schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(resilienceconfig.Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	if err := c.AddResource("pipelines.json", document); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("pipelines.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// accepts returns the schema's error for a file.
func accepts(t *testing.T, s *jsonschema.Schema, text string) error {
	t.Helper()
	var value any
	if err := yaml.Unmarshal([]byte(text), &value); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(instance)
}

// TestSchemaHasEveryField walks every Config: each field is a key in the schema, and each key a field.
func TestSchemaHasEveryField(t *testing.T) {
	var document struct {
		Defs map[string]struct {
			Properties map[string]any `json:"properties"`
		} `json:"$defs"`
	}
	if err := json.Unmarshal(resilienceconfig.Schema(), &document); err != nil {
		t.Fatal(err)
	}
	for _, c := range configs {
		properties := document.Defs[c.kind].Properties
		if len(properties) != c.config.NumField() {
			t.Errorf("%s: got %d keys, want the %d fields of Config", c.kind, len(properties), c.config.NumField())
		}
		for i := range c.config.NumField() {
			if key := keyOf(c.config.Field(i).Name); properties[key] == nil {
				t.Errorf("%s: got no key %s, want one for each field", c.kind, key)
			}
		}
	}
}

// typeErrors are parts of Parse's messages about names, types, and units. What Validate says, and that
// a name is of nothing in the file or in Options, is not among them.
var typeErrors = []string{
	"is not a ", "must be a time", "must be a whole number", "must be a decimal number", "must be true or false", "must be text",
	"must be queue or AIMD", "must be a schedule such as", "is a list", "is a mapping", "is empty", "is missing", "must be one", "contains ",
	"must be {", "must be a list", "must be a mapping", "must have at least one", "is not accepted", "must be a policy",
}

// TestSchemaAgreesWithParse gives each field values of all types, and each place in a file what doesn't
// belong there.
func TestSchemaAgreesWithParse(t *testing.T) {
	var files []string
	values := []string{
		"0", "5", "-1", "0.5", "7.5", `"5"`, `"0.5"`, "5s", "1h30m", "-1s", "+1.5ms", "5 s", "1d", "1µs", "s", `""`, "true", "false", `"true"`,
		"yes", "AIMD", "queue", "text", "b", "unlimited", "[]", "[1]", "{}", "{a: 1}", "${X}", "${X:-1}", "a ${X}", "20%",
		"{fullJitter: {initial: 1s, max: 2s}}", "{constant: {delay: 0}}", "{constant: {delay: 1}}", "{linear: {step: 1s}}",
		"{linear: {step: 1s, max: 1s, x: 1s}}", "{lineer: {step: 1s, max: 1s}}", "{constant: {delay: 1s}, linear: {step: 1s, max: 1s}}", "{constant: 1s}",
	}
	for _, c := range configs {
		for i := range c.config.NumField() {
			for _, value := range values {
				files = append(files, policyFile(c.kind, c.valid, keyOf(c.config.Field(i).Name), value))
			}
		}
		files = append(files, policyFile(c.kind, c.valid, "unknown", "1"), policyFile(c.kind, c.valid, c.config.Field(0).Name, "x"))
	}
	for _, item := range []string{
		"atMostOnce", "atMostonce", "breaker", "5", "null", "[]", "{}", "{breaker: }", "{breaker: {}}", "{breaker: null}", "{breaker: []}", "{breaker: 5}",
		"{use: q}", "{use: 12}", "{use: true}", "{use: []}", "{use: {}}", "{atMostOnce: {}}", "{breaker: {}, timeout: {limit: 1s}}", "{share: {}}", "{brekaer: {}}",
	} {
		files = append(files, "pipelines: {q: [], 12: [], true: [], p: ["+item+"]}", "policies: {x: "+item+"}\npipelines: {q: [], p: []}")
	}
	files = append(files,
		"pipelines: {}", "pipelines: []", "pipelines: null", "pipelines: {p: null}", "pipelines: {p: {}}", "pipelines: {p: 5}", "policies: {x: {breaker: {}}}", "5", "[]",
		"pipelines: {p: []}\nbudgets: null\npolicies: null", "pipelines: {p: []}\nbudgets: []", "pipelines: {p: []}\npolicies: 5", "pipelines: {p: []}\nmore: {}",
		"pipelines: {\"a b\": []}", "pipelines: {a.b: []}", "pipelines: {\"a[0]\": []}", "pipelines: {\"\": []}", "pipelines: {$a: []}", "pipelines: {é: []}",
		"budgets: {b: {ratio: 1}, \"c d\": {ratio: 1}}\npipelines: {p: []}", "budgets: {b: null}\npipelines: {p: []}", "budgets: {b: 5}\npipelines: {p: []}",
	)
	s := schema(t)
	accepted := 0
	for _, text := range files {
		_, err := resilienceconfig.Parse([]byte(text), resilienceconfig.Options{Env: func(string) (string, bool) { return "1", true }})
		rejected := false
		if err != nil {
			for _, part := range typeErrors {
				rejected = rejected || strings.Contains(err.Error(), part)
			}
		}
		if strings.Contains(text, "${") && rejected {
			continue // whether the variable has the right type is known only to Parse
		}
		if !rejected {
			accepted++
		}
		if fault := accepts(t, s, text); (fault != nil) != rejected {
			t.Errorf("%s\ngot from the schema: %v\nwant the same as from Parse: %v", text, fault, err)
		}
	}
	if accepted < 100 || len(files)-accepted < 100 {
		t.Errorf("got %d accepted of %d files, want many of both", accepted, len(files))
	}
}

// policyFile returns a file with a policy or budget whose field has the value.
func policyFile(kind, valid, key, value string) string {
	fields := key + ": " + quoted(value)
	for part := range strings.SplitSeq(valid, ", ") {
		if part != "" && !strings.HasPrefix(part, key+":") {
			fields += ", " + part
		}
	}
	if kind == "budget" {
		return fmt.Sprintf("budgets: {b: {ratio: 1}, c: {%s}}\npipelines: {p: []}", fields)
	}
	return fmt.Sprintf("budgets: {b: {ratio: 1}}\npipelines: {p: [{%s: {%s}}]}", kind, fields)
}

// quoted returns a variable in quotes: without them, its braces are YAML.
func quoted(value string) string {
	if strings.Contains(value, "${") {
		return `"` + value + `"`
	}
	return value
}

// TestSchemaTimesAgreeWithGo compares the schema's pattern with time.ParseDuration.
func TestSchemaTimesAgreeWithGo(t *testing.T) {
	s := schema(t)
	parts := []string{"", "1", "01", "1.5", ".5", "5.", "s", "ms", "m", "h", "us", "µs", "μs", "ns", "d", "-", "+", " ", "0", "e1", "."}
	for _, a := range parts {
		for _, b := range parts {
			for _, c := range parts {
				text := a + b + c
				_, err := time.ParseDuration(text)
				fault := accepts(t, s, fmt.Sprintf("pipelines: {p: [{timeout: {limit: %q}}]}", text))
				if (err == nil) != (fault == nil) {
					t.Errorf("%q: got %v from the schema, want the same as from Go: %v", text, fault, err)
				}
			}
		}
	}
}
