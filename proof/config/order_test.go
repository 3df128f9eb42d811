package config

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/effector-go/resilience/resilienceconfig"
)

// items are a policy of each kind.
var items = map[string]string{
	"adaptive": "adaptive: {}", "breaker": "breaker: {}", "bulkhead": "bulkhead: {limit: 1}", "hedge": "hedge: {delay: 1s}",
	"ratelimit": "ratelimit: {rate: 1}", "retry": "retry: {}", "shed": "shed: {}", "throttle": "throttle: {max: 1, refill: 1, every: 1s}",
	"timeout": "timeout: {limit: 1s}",
}

func notes(t *testing.T, text string) []string {
	t.Helper()
	f, err := resilienceconfig.Parse([]byte(text), resilienceconfig.Options{})
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return f.Notes()
}

// TestNotesMatchCompositionPage tries both orders of each pair in the page's table. The timeout there is
// that of an attempt, so a retry or a hedge is outside of it.
func TestNotesMatchCompositionPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/composition.md")
	if err != nil {
		t.Fatal(err)
	}
	pairs := 0
	for _, row := range regexp.MustCompile(`(?m)^\| ([a-z]+), ([a-z]+) \|.*\| \*\*([a-z]+)\*\*`).FindAllStringSubmatch(string(page), -1) {
		a, b, outside := row[1], row[2], row[3]
		if items[a] == "" || items[b] == "" {
			continue
		}
		pairs++
		for _, order := range [][2]string{{a, b}, {b, a}} {
			around := ""
			if order[0] == "timeout" {
				around = items["retry"] + ", "
			}
			text := fmt.Sprintf("pipelines: {p: [%s%s, %s]}", around, items[order[0]], items[order[1]])
			if order[0] == "timeout" && order[1] == "retry" {
				text = strings.Replace(text, around, "", 1)
			}
			got := notes(t, text)
			if want := outside != "both" && outside != order[0]; (len(got) > 0) != want {
				t.Errorf("%s: got notes %q, want some: %v, because the page puts %s outside", text, got, want, outside)
			}
		}
	}
	if pairs != 36 {
		t.Errorf("got %d pairs of the nine kinds from the page, want 36", pairs)
	}
	// The page's whole order, with what goes outside all policies.
	whole := []string{"atMostOnce", items["timeout"]}
	for _, kind := range regexp.MustCompile("(?m)^[0-9]+\\. `([a-z]+)`: ").FindAllStringSubmatch(string(page), -1) {
		if items[kind[1]] != "" {
			whole = append(whole, items[kind[1]])
		}
	}
	if got := notes(t, "pipelines: {p: ["+strings.Join(whole, ", ")+"]}"); len(got) > 0 || len(whole) != 12 {
		t.Errorf("got notes %q for the %d policies of the whole order, want none for 12", got, len(whole))
	}
	for _, mistake := range []string{"A bulkhead around an abandoning timeout.", "`resilience.AtMostOnce` and `resilience.Discard` go outside all policies."} {
		if !strings.Contains(string(page), mistake) {
			t.Errorf("got a page without %q, want what the notes refer to", mistake)
		}
	}
}

func TestNotesHavePlaces(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string
	}{
		{"pipelines:\n  p:\n    - breaker:\n    - bulkhead: {limit: 1}\n    - retry:\n", []string{
			"5:7: pipelines.p[2].retry: retry is inside breaker, should be outside: docs/composition.md"}},
		// What is wrong within a pipeline is noted there, not again where it is used.
		{"policies:\n  r: {retry: {}}\npipelines:\n  q:\n    - use: p\n  p: [breaker: {}, use: r]\n  s:\n    - shed:\n    - use: p\n", []string{
			"6:25: pipelines.p[1].use: retry is inside breaker, should be outside: docs/composition.md",
			"9:12: pipelines.s[1].use: breaker is inside shed, should be outside: docs/composition.md",
			"9:12: pipelines.s[1].use: retry is inside shed, should be outside: docs/composition.md"}},
		{"pipelines: {p: [retry: {}, atMostOnce]}", []string{
			"1:28: pipelines.p[1]: atMostOnce is inside retry, should be outside all policies: docs/composition.md"}},
		{"pipelines: {p: [bulkhead: {limit: 1}, timeout: {limit: 1s, abandon: 5}]}", []string{
			"1:39: pipelines.p[1].timeout: timeout with abandon is inside bulkhead, whose limit does not count the calls that it leaves running: docs/composition.md"}},
		{"pipelines: {p: [retry: {}, timeout: {limit: 1s, abandon: 5}, bulkhead: {limit: 1}]}", nil},
		{"pipelines: {p: [timeout: {limit: 1s}, timeout: {limit: 1s}, retry: {}, breaker: {}, timeout: {limit: 1s}, timeout: {limit: 1s}]}", nil},
		{"pipelines: {p: [retry: {}, timeout: {limit: 1s}, breaker: {}]}", []string{
			"1:50: pipelines.p[2].breaker: breaker is inside timeout, should be outside: docs/composition.md"}},
	} {
		if got := notes(t, c.text); !slices.Equal(got, c.want) {
			t.Errorf("%s: got\n%s\nwant\n%s", c.text, strings.Join(got, "\n"), strings.Join(c.want, "\n"))
		}
	}
	var long strings.Builder
	long.WriteString("pipelines:\n")
	for i := range 150 {
		fmt.Fprintf(&long, "  p%d: [breaker: {}, retry: {}]\n", i)
	}
	if got := notes(t, long.String()); len(got) != 101 || got[100] != "102:23: 50 more notes from here on" {
		t.Errorf("got %d notes, the last %q, want 100 and the number of the rest", len(got), got[len(got)-1])
	}
}
