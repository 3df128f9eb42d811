package main

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/effector-go/resilience/resilienceconfig"
)

func TestDocumentSetChangesOneNumber(t *testing.T) {
	const flow = "pipelines: {users: [{retry: {maxAttempts: 2}}, {breaker: {}}, {timeout: {limit: 1s}}]}\n"
	const block = "# é: a comment\nbudgets:\n  extra: {ratio: 0.1}\npolicies:\n  shared:\n    breaker:\n      openFor: \"1s\" # soon\n" +
		"pipelines:\n  users:\n    - timeout:\n        limit: 1s\n    - retry:\n        maxAttempts: 2\n    - use: other\n  other:\n    - use: shared\n    - bulkhead:\n        limit: 3\n    - atMostOnce\n    - timeout: {limit: 500ms}\n    - adaptive:\n"
	for _, test := range []struct{ data, place, value, old, want string }{
		{flow, "retry.maxAttempts", "3", "2", "pipelines: {users: [{retry: {maxAttempts: 3}}, {breaker: {}}, {timeout: {limit: 1s}}]}\n"},
		{flow, "retry.maxElapsed", "3s", "", "pipelines: {users: [{retry: {maxElapsed: 3s, maxAttempts: 2}}, {breaker: {}}, {timeout: {limit: 1s}}]}\n"},
		{flow, "breaker.consecutive", "7", "", "pipelines: {users: [{retry: {maxAttempts: 2}}, {breaker: {consecutive: 7}}, {timeout: {limit: 1s}}]}\n"},
		{block, "timeout[2].limit", "600ms", "500ms", "timeout: {limit: 600ms}"},
		{block, "timeout[1].limit", "2s", "1s", "        limit: 2s\n    - retry"},
		{block, "breaker.openFor", "2s", "1s", "      openFor: 2s # soon\n"},
		{block, "breaker.jitter", "0.5", "", "    breaker:\n      jitter: 0.5\n      openFor: \"1s\" # soon\n"},
		{block, "budgets.extra.ratio", "0.2", "0.1", "  extra: {ratio: 0.2}\n"},
		{block, "budgets.extra.minPerSecond", "2", "", "  extra: {minPerSecond: 2, ratio: 0.1}\n"},
		{block, "bulkhead.limit", "4", "3", "        limit: 4\n"},
		{block, "adaptive.initial", "10", "", "    - adaptive: {initial: 10}\n"},
	} {
		p, err := parsePlace(test.place)
		if err != nil {
			t.Fatal(err)
		}
		d, err := newDocument([]byte(test.data), "users")
		if err != nil {
			t.Fatal(err)
		}
		old, err := d.get(p)
		if err != nil || old != test.old {
			t.Errorf("%s: got %q, %v, want %q", test.place, old, err, test.old)
		}
		got, err := d.set(p, test.value)
		if err != nil || !strings.Contains(string(got), test.want) {
			t.Errorf("%s: got %s, %v, want %s", test.place, got, err, test.want)
			continue
		}
		after, err := newDocument(got, "users")
		if err != nil {
			t.Fatal(err)
		}
		if value, err := after.get(p); err != nil || value != test.value {
			t.Errorf("%s: got %q, %v in the changed file, want %q", test.place, value, err, test.value)
		}
		if _, err := resilienceconfig.Parse(got, resilienceconfig.Options{}); err != nil {
			t.Errorf("%s: got %v, want a valid file:\n%s", test.place, err, got)
		}
	}
}

func TestDocumentSetFindsPlacesInFileWithCRLF(t *testing.T) {
	path := filepath.Join(t.TempDir(), "crlf.yaml")
	const lines = "\ufeff# a comment\r\n\r\npipelines:\r\n  users:\r\n    # another\r\n\r\n    - timeout: {limit: 1s}\r\n"
	if err := os.WriteFile(path, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	data, err := read(path, maxConfig)
	if err != nil {
		t.Fatal(err)
	}
	d, err := newDocument(data, "users")
	if err != nil {
		t.Fatal(err)
	}
	p, err := parsePlace("timeout.limit")
	if err != nil {
		t.Fatal(err)
	}
	got, err := d.set(p, "2s")
	if want := "# a comment\n\npipelines:\n  users:\n    # another\n\n    - timeout: {limit: 2s}\n"; err != nil || string(got) != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

func TestVariableStaysInRange(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, text := range []string{"x.y=1..5", "x.y=0.05..1", "x.y=50ms..1s", "x.y=a,b,c", "x.y=10,20,40"} {
		var vars variables
		if err := vars.Set(text); err != nil {
			t.Fatal(err)
		}
		v := vars[0]
		seen := map[string]bool{}
		value := v.random(random)
		for range 1000 {
			value = v.near(value, random)
			seen[value] = true
			if n, ok := v.number(value); v.choices == nil && (!ok || n < v.from || n > v.to) {
				t.Errorf("%s: got %s, want a value in the range", text, value)
			}
		}
		if len(seen) < 3 || v.choices != nil && len(seen) != len(v.choices) {
			t.Errorf("%s: got %v, want all values", text, seen)
		}
	}
	for _, text := range []string{"x=1..5", "x.y", "x.y=", "x.y=1..", "x.y=..5", "x.y=5..5", "x.y=0s..1s", "x.y=1s..50ms", "x.y=1..1e9..", "x.y=a,,b", "x.y={}", "x[0].y=1,2", "x[a].y=1,2", "budgets.y=1,2", "x..y=1,2", "x.y=NaN..1"} {
		var vars variables
		if err := vars.Set(text); err == nil {
			t.Errorf("%s: got %v, want an error", text, vars)
		}
	}
}
