package dashboard

import (
	"regexp"
	"testing"
)

var idPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{8,64}$`)

func checkID(t *testing.T, id string) {
	t.Helper()
	if !idPattern.MatchString(id) {
		t.Errorf("got ID %q, want it to match %v", id, idPattern)
	}
}

func TestIDDiffersForAllKindsAndNames(t *testing.T) {
	seen := map[string]key{}
	for _, k := range []key{
		{"breaker", "payments"}, {"retry", "payments"}, {"breaker", ""}, {"", "breaker"}, {"break", "er"}, {"", ""}, {"breaker", "\xff"},
		{"breaker", "\ufffd"}, {"breaker", "other"}, {"1 ", "a"}, {"", "1 a"}, {"pipeline", "payments"},
	} {
		got := id(k.kind, k.name)
		checkID(t, got)
		if other, found := seen[got]; found {
			t.Errorf("got ID %s for %q and %q, want different ones", got, k, other)
		}
		seen[got] = k
	}
}

// IDs are in links that people send each other, so they are the same in all processes and versions.
func TestIDNeverChanges(t *testing.T) {
	if got, want := id("breaker", "payments"), "7yFyDj9p4QLbxiwucBVEoQ"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
