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

// policies are all that the table is about, in the order of its rows.
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

// TestCompositionTableMatchesScenes: every pair once, in order, and beside what each order means what the scene shows.
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
		row := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if pair := strings.TrimSpace(row[0]); strings.HasPrefix(line, "| ") && pair != "pair" && pair != "---" {
			if len(row) != 5 {
				t.Fatalf("%s has %d cells, want 5", pair, len(row))
			}
			onPage = append(onPage, pair)
			cells[pair] = row
		}
	}
	if !slices.Equal(onPage, pairs) {
		t.Errorf("the page has the rows\n%q, want\n%q", onPage, pairs)
	}
	var played []string
	for _, r := range rows {
		pair := r.a + ", " + r.b
		played = append(played, pair)
		row := cells[pair]
		if row == nil || !strings.HasSuffix(row[2], ": *"+r.aAround+"*") || !strings.HasSuffix(row[3], ": *"+r.bAround+"*") {
			t.Errorf("%s: the page says\n%q, and what is seen is\n%q and %q", pair, row, r.aAround, r.bAround)
		}
	}
	if !slices.Equal(played, pairs) {
		t.Errorf("there are scenes for\n%q, want\n%q", played, pairs)
	}
}

// TestCompositionChoicesMatchWholeOrder: who is advised to stand outside stands outside in the list, where timeout is the one of an attempt.
func TestCompositionChoicesMatchWholeOrder(t *testing.T) {
	text := page(t)
	var order []string
	for _, item := range regexp.MustCompile("(?m)^[0-9]+\\. `([a-z]+)`: ").FindAllStringSubmatch(text, -1) {
		order = append(order, item[1])
	}
	first, last := slices.Index(order, "timeout"), len(order)-1
	if len(order) != len(policies)+1 || order[last] != "timeout" || first == last {
		t.Fatalf("the whole order is %q", order)
	}
	order[first] = "the whole call's"
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
			t.Errorf("%s, %s: %q, the whole order has %s outside", r.a, r.b, row, want)
		}
	}
}

// TestCompositionWholeOrderServesCalls: the page's pipeline serves a dependency that is slow once and fails once, and starts it no more often than it must.
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
			resiliencetest.Step[int]{Delay: time.Hour},                 // is hedged
			resiliencetest.Step[int]{Value: 2},                         // by this one
			resiliencetest.Step[int]{Err: resiliencetest.ErrFailed},    // has the next begin at once
			resiliencetest.Step[int]{Value: 3, Delay: time.Nanosecond}, // and all after
		)
		call := share.Calls(resilience.Compose(e.Do, guarded))
		for want := 1; want <= 3; want++ {
			if value, err := call(t.Context()); value != want || err != nil {
				t.Errorf("%d, %v, want %d", value, err, want)
			}
		}
		time.Sleep(time.Minute) // the loser ends
		if s := users.Snapshot(); e.Calls() != 5 || s.State != breaker.Closed {
			t.Errorf("%d starts, %+v", e.Calls(), s)
		}
	})
}

// TestComposeNestedHidesRefusalsFromOuterRetry: to a retry around another effector's breaker a refusal is an attempt that failed.
func TestComposeNestedHidesRefusalsFromOuterRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		retries := func() *retry.Retry {
			return retry.New(retry.Config{MaxAttempts: 5, Backoff: retry.Constant(time.Second)})
		}
		users := func() *breaker.Breaker { return breaker.New(breaker.Config{Consecutive: 2, OpenFor: 10 * time.Second}) }
		for _, c := range []struct {
			name string
			call effector
			took time.Duration
		}{
			{"one list", resilience.Compose(fails().Do, retries(), users()), time.Second + time.Second},
			{"apart", resilience.Compose(resilience.Compose(fails().Do, users()), retries()), 13 * time.Second},
		} {
			began := time.Now()
			c.call(t.Context())
			if took := time.Since(began); took != c.took {
				t.Errorf("%s: %v, want %v", c.name, took, c.took)
			}
		}
	})
}
