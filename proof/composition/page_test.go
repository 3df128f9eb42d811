package composition

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/adaptive"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/bulkhead"
	"github.com/effector-go/resilience/hedge"
	"github.com/effector-go/resilience/ratelimit"
	"github.com/effector-go/resilience/resiliencetest"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/share"
	"github.com/effector-go/resilience/shed"
	"github.com/effector-go/resilience/throttle"
	"github.com/effector-go/resilience/timeout"
)

// policies are the policies in the table, in the order of its rows.
var policies = []string{
	"timeout", "retry", "breaker", "bulkhead", "hedge", "ratelimit", "adaptive", "shed", "throttle", "share", "debounce",
}

func page(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/composition.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestCompositionTableMatchesScenes checks that the table has every pair once, in order, with the
// outcomes that the scenes produce.
func TestCompositionTableMatchesScenes(t *testing.T) {
	var pairs, onPage []string
	for i, a := range policies {
		for _, b := range policies[i+1:] {
			pairs = append(pairs, a+", "+b)
		}
	}
	cells := map[string][]string{}
	_, table, _ := strings.Cut(page(t), "\n## Every pair\n")
	for line := range strings.Lines(table) {
		row := strings.Split(strings.TrimSpace(line), " | ")
		if pair := strings.TrimPrefix(row[0], "| "); strings.HasPrefix(line, "| ") && pair != "pair" && pair != "---" {
			if len(row) != 5 {
				t.Fatalf("%s has %d cells, want 5", pair, len(row))
			}
			onPage = append(onPage, pair)
			cells[pair] = row
		}
	}
	if !slices.Equal(onPage, pairs) {
		t.Errorf("got the page's rows\n%q, want\n%q", onPage, pairs)
	}
	var played []string
	for _, r := range rows {
		pair := r.a + ", " + r.b
		played = append(played, pair)
		row := cells[pair]
		if row == nil || row[2] != "*"+r.aAround+"*" || row[3] != "*"+r.bAround+"*" {
			t.Errorf("%s: got the page's row\n%q, want the outcomes\n%q and %q", pair, row, r.aAround, r.bAround)
		}
	}
	if !slices.Equal(played, pairs) {
		t.Errorf("got scenes for\n%q, want\n%q", played, pairs)
	}
}

// TestCompositionChoicesMatchWholeOrder checks that the policy that each row puts outside comes
// first in the list of the whole order. There, timeout is the timeout of an attempt.
func TestCompositionChoicesMatchWholeOrder(t *testing.T) {
	text := page(t)
	var order []string
	for _, item := range regexp.MustCompile("(?m)^[0-9]+\\. `([a-z]+)`: ").FindAllStringSubmatch(text, -1) {
		order = append(order, item[1])
	}
	first, last := slices.Index(order, "timeout"), len(order)-1
	if len(order) != len(policies)+1 || order[last] != "timeout" || first == last {
		t.Fatalf("got the whole order %q, want each policy once and timeout twice, the second time at the end", order)
	}
	order[first] = "timeout of the whole call"
	for _, r := range rows {
		row := regexp.MustCompile(`(?m)^\| ` + r.a + ", " + r.b + ` \|.*\| \*\*([a-z]+)\*\*[^|]*\|$`).FindStringSubmatch(text)
		want := r.a
		switch a, b := slices.Index(order, r.a), slices.Index(order, r.b); {
		case r.a == "timeout" && r.b == "retry":
			want = "both"
		case b < a:
			want = r.b
		}
		if row == nil || row[1] != want {
			t.Errorf("%s, %s: got the choice %q, want %s, which is outside in the whole order", r.a, r.b, row, want)
		}
	}
}

// TestCompositionWholeOrderServesCalls checks that the page's pipeline gets good answers from a
// dependency that is slow once and fails once, without starting it more often than necessary.
func TestCompositionWholeOrderServesCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		extra := budget.New(budget.Config{Ratio: 0.1, MinPerSecond: 1, TTL: 5 * time.Minute})
		users := breaker.New(breaker.Config{Name: "users"})
		guarded := resilience.Pipeline{
			timeout.After(3 * time.Second),
			retry.New(retry.Config{MaxAttempts: 3, Budget: extra}),
			hedge.New(hedge.Config{Quantile: 0.95, Delay: 100 * time.Millisecond, Budget: extra}),
			users,
			shed.New(shed.Config{Name: "users"}),
			bulkhead.New(bulkhead.Config{Name: "users", Limit: 50, Queue: 50}),
			ratelimit.New(ratelimit.Config{Name: "users", Rate: 100, Burst: 20, Wait: time.Second}),
			adaptive.New(adaptive.Config{Name: "users"}),
			throttle.New(throttle.Config{Name: "users", Max: 5000, Refill: 5000, Every: time.Minute}),
			timeout.After(time.Second),
		}
		e := resiliencetest.Script(
			resiliencetest.Step[int]{Value: 1},
			resiliencetest.Step[int]{Delay: time.Hour}, // is hedged
			resiliencetest.Step[int]{Value: 2},         // by this one
			// Triggers the next start immediately.
			resiliencetest.Step[int]{Err: resiliencetest.ErrFailed},
			// Repeated for all later starts.
			resiliencetest.Step[int]{Value: 3, Delay: time.Nanosecond},
		)
		call := share.Calls(resilience.Compose(e.Do, guarded))
		for want := 1; want <= 3; want++ {
			if value, err := call(t.Context()); value != want || err != nil {
				t.Errorf("got %d, %v, want %d, nil", value, err, want)
			}
		}
		time.Sleep(time.Minute) // until the loser has ended
		if s := users.Snapshot(); e.Calls() != 5 || s.State != breaker.Closed {
			t.Errorf("got %d starts, breaker %+v, want 5 starts, closed", e.Calls(), s)
		}
	})
}
