package config

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/effector-go/resilience/adaptive"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/resilienceconfig"
	"github.com/effector-go/resilience/retry"
)

var updatePage = flag.Bool("update", false, "write the tables of docs/config.md")

const configPage = "../../docs/config.md"

// valueOf returns how the value of a field is written.
func valueOf(f reflect.StructField) string {
	switch f.Type {
	case reflect.TypeFor[time.Duration]():
		return "time"
	case reflect.TypeFor[adaptive.Algorithm]():
		return "`queue` or `AIMD`"
	case reflect.TypeFor[*budget.Budget]():
		return "name of a budget"
	case reflect.TypeOf(retry.Constant(0)):
		return "schedule, or name of a function"
	}
	switch f.Type.Kind() {
	case reflect.String:
		return "text"
	case reflect.Int:
		if f.Name == "MaxAttempts" {
			return "whole number or `unlimited`"
		}
		return "whole number"
	case reflect.Float64:
		return "number"
	case reflect.Bool:
		return "boolean"
	case reflect.Func:
		return "name of a `" + strings.ReplaceAll(f.Type.String(), "interface {}", "any") + "`"
	}
	return f.Type.String()
}

// tables returns the tables of all keys, with the defaults that Effective shows.
func tables(t *testing.T) string {
	var b strings.Builder
	for _, c := range configs {
		var without []string // fields that have no default
		text := fmt.Sprintf("pipelines: {p: [%s: {%s}]}", c.kind, c.valid)
		if c.kind == "budget" {
			text = fmt.Sprintf("budgets: {p: {%s}}\npipelines: {p: []}", c.valid)
		}
		f, err := resilienceconfig.Parse([]byte(text), resilienceconfig.Options{})
		if err != nil {
			t.Fatal(err)
		}
		var effective struct {
			Budgets   map[string]map[string]any
			Pipelines map[string][]map[string]map[string]any
		}
		if err := yaml.Unmarshal(resilienceconfig.New(f).Effective(), &effective); err != nil {
			t.Fatal(err)
		}
		defaults := effective.Budgets["p"]
		if c.kind != "budget" {
			defaults = effective.Pipelines["p"][0][c.kind]
		}
		for part := range strings.SplitSeq(c.valid, ", ") {
			key, _, _ := strings.Cut(part, ":")
			without = append(without, key)
		}
		title := "`" + c.kind + "`"
		if c.kind == "budget" {
			title = "An entry of `budgets`"
		}
		fmt.Fprintf(&b, "%s, explained in [%s](%s.md#fields):\n\n| key | value | default |\n| --- | --- | --- |\n", title, c.kind, c.kind)
		for i := range c.config.NumField() {
			field := c.config.Field(i)
			key := keyOf(field.Name)
			value := defaults[key]
			shown := fmt.Sprintf("`%v`", value)
			switch {
			case key == "name":
				shown = "see above"
			case key == "backoff":
				shown = "`{fullJitter: {initial: 100ms, max: 10s}}`"
			case slices.Contains(without, key) && (c.kind == "budget" || c.kind == "hedge"):
				shown = "`0`"
			case slices.Contains(without, key):
				shown = "must be set"
			case value == nil:
				shown = "none"
			case value == "0s":
				shown = "`0`"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", key, valueOf(field), shown)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// TestConfigPageListsEveryKey compares the tables on the page with the code.
func TestConfigPageListsEveryKey(t *testing.T) {
	page, err := os.ReadFile(configPage)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- keys -->\n", "<!-- end of keys -->\n"
	before, rest, ok := strings.Cut(string(page), begin)
	got, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("got a page without %q and %q, want both", begin, end)
	}
	want := "\n" + tables(t)
	if *updatePage {
		if err := os.WriteFile(configPage, []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != want {
		t.Errorf("got the tables\n%s\nwant\n%s", got, want)
	}
}

// TestConfigPageFilesAreValid parses the YAML of the page.
func TestConfigPageFilesAreValid(t *testing.T) {
	page, err := os.ReadFile(configPage)
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	for _, block := range strings.Split(string(page), "```yaml\n")[1:] {
		block, _, _ = strings.Cut(block, "```")
		if _, configMap, ok := strings.Cut(block, "pipelines.yaml: |\n"); ok {
			block, _, _ = strings.Cut(configMap, "---\n")
			block = strings.ReplaceAll("\n"+block, "\n    ", "\n")
		}
		if !strings.Contains(block, "\npipelines:\n") {
			continue
		}
		files++
		f, err := resilienceconfig.Parse([]byte(block), resilienceconfig.Options{})
		if err != nil {
			t.Errorf("got error %v for\n%s", err, block)
		} else if notes := f.Notes(); len(notes) > 0 {
			t.Errorf("got notes %q for\n%s", notes, block)
		}
	}
	if files != 2 {
		t.Errorf("got %d files on the page, want 2", files)
	}
}

// TestDefaultScheduleMatchesRetry compares the default that Effective shows with the source of retry,
// which doesn't export it.
func TestDefaultScheduleMatchesRetry(t *testing.T) {
	source, err := os.ReadFile("../../retry/config.go")
	if err != nil {
		t.Fatal(err)
	}
	if want := "var defaultBackoff = FullJitter(100*time.Millisecond, 10*time.Second)\n"; !strings.Contains(string(source), want) {
		t.Errorf("got a retry without %q, want the default that Effective shows", want)
	}
	f, err := resilienceconfig.Parse([]byte("pipelines: {p: [retry: {}]}"), resilienceconfig.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(resilienceconfig.New(f).Effective()), "backoff: {fullJitter: {initial: 100ms, max: 10s}}\n"; !strings.Contains(got, want) {
		t.Errorf("got\n%s\nwant %s", got, want)
	}
}
