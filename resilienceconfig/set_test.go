package resilienceconfig

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/bulkhead"
	"github.com/effector-go/resilience/ratelimit"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// A recorder is a Wrap that keeps what it was called with: the latest list of each pipeline, and the
// names in order.
type recorder struct {
	lists map[string]resilience.Pipeline
	calls []string
}

func (r *recorder) wrap(name string, p resilience.Pipeline) resilience.Policy {
	if r.lists == nil {
		r.lists = map[string]resilience.Pipeline{}
	}
	r.lists[name] = p
	r.calls = append(r.calls, name)
	return p
}

// first returns the first policy of type P in the pipeline.
func first[P resilience.Policy](t *testing.T, p resilience.Pipeline) P {
	t.Helper()
	for _, policy := range p {
		if found, ok := policy.(P); ok {
			return found
		}
	}
	t.Fatalf("got the policies %T, want one of type %T among them", p, *new(P))
	panic("unreachable")
}

// update updates the set to the text and checks the difference, by path.
func update(t *testing.T, s *Set, text string, want Diff) {
	t.Helper()
	got := s.Update(parsed(t, text, s.options))
	for _, c := range []struct {
		name      string
		got, want []string
	}{{"Added", got.Added, want.Added}, {"Removed", got.Removed, want.Removed}, {"Changed", got.Changed, want.Changed}, {"Kept", got.Kept, want.Kept}, {"Notes", got.Notes, want.Notes}} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, c.got, c.want)
		}
	}
	if got.Empty() != want.Empty() {
		t.Errorf("Empty: got %v, want %v", got.Empty(), want.Empty())
	}
}

func TestSetPipelineIsAlwaysTheSame(t *testing.T) { // rule 8
	s := New(parsed(t, pipelines, Options{}))
	users := s.Pipeline("users")
	if again, ok := s.Lookup("users"); again != users || !ok || s.Pipeline("users") != users {
		t.Errorf("got %p and %v, want %p and true", again, ok, users)
	}
	s.Update(parsed(t, strings.Replace(pipelines, "limit: 400ms", "limit: 500ms", 1), Options{}))
	if s.Pipeline("users") != users {
		t.Error("after a change: got another pipeline, want the same")
	}
	s.Update(parsed(t, "pipelines: {others: []}", Options{}))
	if _, ok := s.Lookup("users"); ok {
		t.Error("after its removal: Lookup found the pipeline")
	}
	func() {
		defer func() {
			if got, want := recover(), `resilienceconfig: Pipeline: name is "users", must be one of the file's pipelines: ["others"]`; got != want {
				t.Errorf("Pipeline: got panic %v, want %v", got, want)
			}
		}()
		s.Pipeline("users")
	}()
	func() {
		defer func() {
			if got, want := recover(), `resilienceconfig: Make: name is "users", must be one of the file's pipelines: ["others"]`; got != want {
				t.Errorf("Make: got panic %v, want %v", got, want)
			}
		}()
		s.Make("users")
	}()
	s.Update(parsed(t, pipelines, Options{}))
	if s.Pipeline("users") != users {
		t.Error("after its return: got another pipeline, want the same")
	}
}

func TestHandleAllocatesNothing(t *testing.T) { // rule 8
	s := New(parsed(t, "pipelines: {p: [breaker: {}, use: q], q: [bulkhead: {limit: 5}]}", Options{}))
	bare := resilience.Policy(resilience.Pipeline{breaker.New(breaker.Config{}), bulkhead.New(bulkhead.Config{Limit: 5})})
	fetch := func(context.Context) (int, error) { return 7, nil }
	allocs := func(p resilience.Policy) float64 {
		return testing.AllocsPerRun(100, func() { resilience.Do(context.Background(), p, fetch) })
	}
	if got, want := allocs(s.Pipeline("p")), allocs(bare); got != want {
		t.Errorf("got %v allocations, want %v as without a handle", got, want)
	}
	around := func(p resilience.Policy) resilience.Policy { return resilience.Pipeline{resilience.AtMostOnce, p} }
	if got, want := allocs(around(s.Pipeline("p"))), allocs(around(bare)); got != want {
		t.Errorf("inside another pipeline: got %v allocations, want %v as without a handle", got, want)
	}
}

func TestSetFlattensUses(t *testing.T) { // rule 8
	var r recorder
	New(parsed(t, "policies: {b: {breaker: {}}}\npipelines: {p: [atMostOnce, use: q, use: b], q: [use: r, retry: {}], r: [timeout: {limit: 1s}]}", Options{Wrap: r.wrap}))
	var got []string
	for _, policy := range r.lists["p"] {
		got = append(got, fmt.Sprintf("%T", policy))
	}
	if want := []string{"resilience.atMostOnce", "*timeout.Timeout", "*retry.Retry", "*breaker.Breaker"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if r.lists["p"][1] != r.lists["r"][0] || r.lists["p"][2] != r.lists["q"][1] {
		t.Error("got separate policies, want those of the pipelines that are used")
	}
}

func TestHandleReportsBreakerThatIsNotClosed(t *testing.T) {
	var r recorder
	s := New(parsed(t, "pipelines: {p: [breaker: {}, breaker: {}]}", Options{Wrap: r.wrap}))
	h := s.Make("p").(interface{ State() breaker.State })
	if got := h.State(); got != breaker.Closed {
		t.Errorf("got %v, want closed", got)
	}
	r.lists["p"][1].(*breaker.Breaker).ForceOpen()
	if got := h.State(); got != breaker.ForcedOpen {
		t.Errorf("got %v, want forced open", got)
	}
}

func TestMakeCreatesInlinePoliciesAndSharesOthers(t *testing.T) { // rule 9
	var r recorder
	const text = `
budgets: {extra: {ratio: 1}}
policies: {shared: {bulkhead: {limit: 5}}}
pipelines:
  p: [retry: {budget: extra}, use: shared, use: q, use: q]
  q: [breaker: {}, use: shared]
`
	s := New(parsed(t, text, Options{Wrap: r.wrap}))
	base := r.lists["p"]
	a := s.Make("p")
	listA := r.lists["p"]
	b := s.Make("p")
	listB := r.lists["p"]
	if a == b || a == s.Pipeline("p") {
		t.Error("got the same pipeline, want separate ones")
	}
	for i, shared := range []bool{false, true, false, true, false, true} {
		if (listA[i] == base[i]) != shared || (listA[i] == listB[i]) != shared {
			t.Errorf("policy %d (%T): got shared %v and %v, want %v", i, base[i], listA[i] == base[i], listA[i] == listB[i], shared)
		}
	}
	if listA[2] != listA[4] {
		t.Error("got two breakers for a pipeline that is used twice, want one")
	}
	if got, want := listA[0].(*retry.Retry).Config().Budget, base[0].(*retry.Retry).Config().Budget; got != want {
		t.Error("got another budget, want the shared one")
	}
	// Updates reach it.
	listA[2].(*breaker.Breaker).ForceOpen()
	changed := strings.Replace(strings.Replace(text, "breaker: {}", "timeout: {limit: 1s}, breaker: {openFor: 9s}", 1), "limit: 5", "limit: 7", 1)
	r.calls = nil
	s.Update(parsed(t, changed, Options{}))
	if want := []string{"p", "q", "p", "p"}; !slices.Equal(r.calls, want) {
		t.Errorf("got Wrap for %q, want %q", r.calls, want)
	}
	err := resilience.Run(t.Context(), a, func(context.Context) error { return nil })
	if !errors.Is(err, resilience.ErrRefused) {
		t.Errorf("got %v, want the open breaker's refusal", err)
	}
	if err := resilience.Run(t.Context(), b, func(context.Context) error { return nil }); err != nil {
		t.Errorf("the other pipeline: got %v, want no error", err)
	}
	if got := listA[2].(*breaker.Breaker).Config().OpenFor; got != 9*time.Second {
		t.Errorf("got OpenFor %v, want the 9s of the update", got)
	}
	if got := listA[1].(*bulkhead.Bulkhead).Config().Limit; got != 7 {
		t.Errorf("got Limit %v, want the 7 of the update", got)
	}
	runtime.KeepAlive(b)
}

func TestMakeIsHeldWeakly(t *testing.T) { // rule 9
	s := New(parsed(t, pipelines, Options{}))
	kept := s.Make("users")
	collected := make(chan bool, 1000)
	for range 1000 {
		h := s.Make("users")
		runtime.AddCleanup(h.(*handle), func(c chan bool) { c <- true }, collected)
	}
	for n := 0; n < 1000; {
		runtime.GC()
		for len(collected) > 0 {
			<-collected
			n++
		}
		runtime.Gosched()
	}
	s.Update(parsed(t, pipelines, Options{}))
	if got := len(s.made); got != 1 {
		t.Errorf("got %d pipelines, want the one that is in use", got)
	}
	// Without updates, their places are reused.
	for i := range 10_000 {
		s.Make("users")
		if i%1000 == 0 {
			runtime.GC()
		}
	}
	if got := len(s.made); got > 5000 {
		t.Errorf("got %d places for pipelines, want few", got)
	}
	runtime.KeepAlive(kept)
}

func TestMakeDoesNotWaitForUpdate(t *testing.T) { // rules 9 and 11
	inWrap, proceed := make(chan bool), make(chan bool)
	var block sync.Once
	blocking := false
	wrap := func(name string, p resilience.Pipeline) resilience.Policy {
		if blocking && name == "slow" {
			block.Do(func() { inWrap <- true; <-proceed })
		}
		return p
	}
	s := New(parsed(t, "pipelines: {p: [timeout: {limit: 1s}]}", Options{Wrap: wrap}))
	blocking = true
	updated := make(chan Diff)
	go func() {
		updated <- s.Update(parsed(t, "pipelines: {p: [timeout: {limit: 2s}, breaker: {}], slow: []}", Options{}))
	}()
	<-inWrap
	h := s.Make("p").(*handle)
	if _, ok := s.Lookup("p"); !ok || len(s.Names()) != 1 || resilience.Run(t.Context(), s.Pipeline("p"), func(context.Context) error { return nil }) != nil {
		t.Error("got no pipeline during the update, want the old one")
	}
	close(proceed)
	<-updated
	if got := len(h.list); got != 2 {
		t.Errorf("got %d policies in a pipeline that was made during the update, want the 2 of the new file", got)
	}
	if got := h.list[0].policy.(*timeout.Timeout).Config().Limit; got != 2*time.Second {
		t.Errorf("got Limit %v, want the 2s of the new file", got)
	}
}

// TestMakeSeesUpdateThatComesMeanwhile has an update between the beginning and the end of Make.
func TestMakeSeesUpdateThatComesMeanwhile(t *testing.T) { // rule 9
	var s *Set
	next := parsed(t, "pipelines: {p: [timeout: {limit: 2s}, breaker: {}]}", Options{})
	meanwhile := false
	wrap := func(name string, p resilience.Pipeline) resilience.Policy {
		if meanwhile {
			meanwhile = false
			updated := make(chan bool)
			go func() {
				s.Update(next)
				close(updated)
			}()
			<-updated
		}
		return p
	}
	s = New(parsed(t, "pipelines: {p: [timeout: {limit: 1s}]}", Options{Wrap: wrap}))
	meanwhile = true
	h := s.Make("p").(*handle)
	if got := len(h.list); got != 2 {
		t.Errorf("got %d policies, want the 2 of the new file", got)
	}
	s.Update(parsed(t, "pipelines: {p: []}", Options{}))
	if got := len(h.list); got != 0 {
		t.Errorf("got %d policies, want none as in the next file", got)
	}
}

// TestLookupFindsOnlyFinishedPipelines makes a call as soon as a new pipeline is found, while the
// update still changes others.
func TestLookupFindsOnlyFinishedPipelines(t *testing.T) { // rule 11
	text := func(i int) string {
		var b strings.Builder
		fmt.Fprintf(&b, "pipelines:\n  p%d: [timeout: {limit: 1s}]\n", i)
		for n := range 10 {
			fmt.Fprintf(&b, "  others%d:\n%s", n, strings.Repeat(fmt.Sprintf("  - timeout: {limit: %ds}\n", i+1), maxItems))
		}
		return b.String()
	}
	s := New(parsed(t, text(0), Options{}))
	var wg sync.WaitGroup
	for i := range 20 {
		f := parsed(t, text(i+1), Options{})
		wg.Go(func() {
			for {
				if p, ok := s.Lookup(fmt.Sprintf("p%d", i+1)); ok {
					if err := resilience.Run(t.Context(), p, func(context.Context) error { return nil }); err != nil {
						t.Errorf("got %v, want no error", err)
					}
					return
				}
				runtime.Gosched()
			}
		})
		s.Update(f)
		wg.Wait()
	}
}

// TestUpdateKeepsState changes each kind of policy, inserts policies before it, and checks that it is
// still the same one with another Config.
func TestUpdateKeepsState(t *testing.T) { // rule 10
	for before, after := range map[string]string{
		"retry: {maxAttempts: 2}":                  "retry: {maxAttempts: 3}",
		"hedge: {delay: 1s}":                       "hedge: {delay: 2s}",
		"breaker: {consecutive: 2}":                "breaker: {consecutive: 3}",
		"shed: {k: 2}":                             "shed: {k: 3}",
		"bulkhead: {limit: 2}":                     "bulkhead: {limit: 3}",
		"ratelimit: {rate: 2}":                     "ratelimit: {rate: 3}",
		"adaptive: {max: 2}":                       "adaptive: {max: 3}",
		"throttle: {max: 2, refill: 1, every: 1s}": "throttle: {max: 3, refill: 1, every: 1s}",
		"timeout: {limit: 2s}":                     "timeout: {limit: 3s}",
	} {
		for place, text := range map[string]string{
			"pipelines: {p: [%s]}":                          "pipelines: {p: [retry: {name: other}, atMostOnce, %s]}",
			"policies: {x: {%s}}\npipelines: {p: [use: x]}": "policies: {y: {shed: {}}, x: {%s}}\npipelines: {p: [use: y, use: x]}",
		} {
			if strings.HasPrefix(before, "retry") { // the n-th of its kind
				text = strings.ReplaceAll(text, "retry: {name: other}", "breaker: {name: other}")
			}
			var r recorder
			s := New(parsed(t, fmt.Sprintf(place, before), Options{Wrap: r.wrap}))
			policy := r.lists["p"][0]
			s.Update(parsed(t, fmt.Sprintf(text, after), Options{}))
			last := r.lists["p"][len(r.lists["p"])-1]
			if last != policy {
				t.Errorf("%s in %s: got a new policy, want the same one", before, text)
			}
			New(parsed(t, fmt.Sprintf(place, after), Options{Wrap: r.wrap}))
			want := r.lists["p"][0]
			if got, want := fmt.Sprintf("%+v", configOf(last)), fmt.Sprintf("%+v", configOf(want)); got != want {
				t.Errorf("%s in %s: got Config %s, want %s", after, text, got, want)
			}
		}
	}
}

func configOf(policy resilience.Policy) any {
	return reflect.ValueOf(policy).MethodByName("Config").Call(nil)[0].Interface()
}

func TestUpdateDoesNotCloseBreaker(t *testing.T) { // rule 10
	synctest.Test(t, func(t *testing.T) {
		var r recorder
		s := New(parsed(t, "pipelines: {p: [breaker: {consecutive: 1, openFor: 10s}]}", Options{Wrap: r.wrap}))
		fail := func(context.Context) error { return errors.New("failed") }
		resilience.Run(t.Context(), s.Pipeline("p"), fail)
		time.Sleep(4 * time.Second)
		update(t, s, "pipelines: {p: [timeout: {limit: 1s}, retry: {}, breaker: {consecutive: 5, openFor: 20s}]}", Diff{
			Added: []string{"pipelines.p[0].timeout", "pipelines.p[1].retry"}, Changed: []string{"pipelines.p", "pipelines.p[2].breaker"},
		})
		var open *breaker.OpenError
		if err := resilience.Run(t.Context(), s.Pipeline("p"), fail); !errors.As(err, &open) || open.RetryAfter() != 6*time.Second {
			t.Errorf("got %v, want the open breaker's refusal for the remaining 6s", err)
		}
	})
}

// TestUpdateLeavesEqualPoliciesAlone changes a policy in the program. An update that doesn't change
// it in the file keeps that.
func TestUpdateLeavesEqualPoliciesAlone(t *testing.T) { // rule 10
	var r recorder
	o := Options{Wrap: r.wrap, Funcs: map[string]any{"cost": func(context.Context) int { return 2 }}}
	s := New(parsed(t, "pipelines: {p: [bulkhead: {limit: 5}, ratelimit: {rate: 5, burst: 1, cost: cost}]}", o))
	limiter, places := first[*ratelimit.Limiter](t, r.lists["p"]), first[*bulkhead.Bulkhead](t, r.lists["p"])
	limiter.SetRate(9, 1)
	places.Resize(9)
	update(t, s, "pipelines: {p: [breaker: {}, bulkhead: {limit: 5}, ratelimit: {rate: 5.0, cost: cost}]}", Diff{
		Added: []string{"pipelines.p[0].breaker"}, Changed: []string{"pipelines.p"},
		Kept: []string{"pipelines.p[1].bulkhead", "pipelines.p[2].ratelimit"},
	})
	if rate, limit := limiter.Config().Rate, places.Config().Limit; rate != 9 || limit != 9 {
		t.Errorf("got rate %v and limit %v, want the 9 that the program has set", rate, limit)
	}
	// The same function with other captured variables is another one.
	for n := range 2 {
		o.Funcs["cost"] = func(context.Context) int { return 10 + n }
		f := parsed(t, "pipelines: {p: [ratelimit: {rate: 5, cost: cost}]}", o)
		if d := s.Update(f); !slices.Contains(d.Changed, "pipelines.p[0].ratelimit") {
			t.Errorf("got %+v, want the limiter among the changed", d)
		}
		if got := limiter.Config().Cost(t.Context()); got != 10+n {
			t.Errorf("got cost %d, want %d", got, 10+n)
		}
		if d := s.Update(f); !d.Empty() {
			t.Errorf("the same File: got %+v, want no change", d)
		}
	}
}

func TestUpdateMatchesNthOfKind(t *testing.T) { // rule 10
	var r recorder
	s := New(parsed(t, "pipelines: {p: [timeout: {limit: 1s}, retry: {}, timeout: {limit: 2s}]}", Options{Wrap: r.wrap}))
	old := r.lists["p"]
	update(t, s, "pipelines: {p: [retry: {}, timeout: {limit: 1s}, breaker: {}]}", Diff{
		Added: []string{"pipelines.p[2].breaker"}, Removed: []string{"pipelines.p[2].timeout"}, Changed: []string{"pipelines.p"},
		Kept:  []string{"pipelines.p[0].retry", "pipelines.p[1].timeout"},
		Notes: []string{"1:50: pipelines.p[2].breaker: breaker is inside timeout, should be outside: docs/composition.md"},
	})
	if now := r.lists["p"]; now[0] != old[1] || now[1] != old[0] {
		t.Errorf("got %v, want the retry and the first timeout of %v", now, old)
	}
}

func TestUpdateCreatesOtherKindAgain(t *testing.T) { // rule 10
	var r recorder
	s := New(parsed(t, "policies: {x: {breaker: {}}}\npipelines: {p: [use: x]}", Options{Wrap: r.wrap}))
	update(t, s, "policies: {x: {bulkhead: {limit: 1}}}\npipelines: {p: [use: x]}", Diff{
		Changed: []string{"policies.x", "pipelines.p"}, Notes: []string{"policies.x was a breaker and is now a bulkhead: its state is lost"},
	})
	first[*bulkhead.Bulkhead](t, r.lists["p"])
}

func TestUpdateKeepsBudgetsByName(t *testing.T) { // rule 10
	var r recorder
	s := New(parsed(t, "budgets: {b: {ratio: 1}}\npipelines: {p: [retry: {budget: b}]}", Options{Wrap: r.wrap}))
	budgetOf := func() *budget.Budget { return first[*retry.Retry](t, r.lists["p"]).Config().Budget }
	b := budgetOf()
	update(t, s, "budgets: {c: {ratio: 1}, b: {ratio: 0.5}}\npipelines: {p: [retry: {budget: b}]}", Diff{
		Added: []string{"budgets.c"}, Changed: []string{"budgets.b"}, Kept: []string{"pipelines.p", "pipelines.p[0].retry"},
	})
	if budgetOf() != b || b.Config().Ratio != 0.5 {
		t.Errorf("got %p with ratio %v, want %p with 0.5", budgetOf(), b.Config().Ratio, b)
	}
	update(t, s, "budgets: {c: {ratio: 1}, b: {ratio: 0.5}}\npipelines: {p: [retry: {budget: c}]}", Diff{
		Changed: []string{"pipelines.p[0].retry"}, Kept: []string{"budgets.c", "budgets.b", "pipelines.p"},
	})
	if budgetOf() == b || budgetOf().Name() != "c" {
		t.Errorf("got the budget %q, want c", budgetOf().Name())
	}
	update(t, s, "pipelines: {p: [retry: {}]}", Diff{
		Removed: []string{"budgets.c", "budgets.b"}, Changed: []string{"pipelines.p[0].retry"}, Kept: []string{"pipelines.p"},
	})
	if budgetOf() != nil {
		t.Errorf("got the budget %q, want none", budgetOf().Name())
	}
}

// TestUpdateRunsCallsThroughOneList holds a call between its two policies while the file swaps them.
func TestUpdateRunsCallsThroughOneList(t *testing.T) { // rule 11
	synctest.Test(t, func(t *testing.T) {
		s := New(parsed(t, "pipelines: {p: [bulkhead: {limit: 1, queue: 1}, throttle: {max: 9, refill: 1, every: 1h}]}", Options{}))
		var r recorder
		s.options.Wrap = r.wrap
		release := make(chan bool)
		done := make(chan error, 2)
		go func() {
			done <- resilience.Run(t.Context(), s.Pipeline("p"), func(context.Context) error { <-release; return nil })
		}()
		synctest.Wait()
		go func() {
			done <- resilience.Run(t.Context(), s.Pipeline("p"), func(context.Context) error { return nil })
		}()
		synctest.Wait()
		// The waiting call has the old list, with the throttle behind the bulkhead.
		s.Update(parsed(t, "pipelines: {p: [bulkhead: {limit: 1, queue: 5}]}", Options{}))
		close(release)
		for range 2 {
			if err := <-done; err != nil {
				t.Errorf("got %v, want no error", err)
			}
		}
		s.Update(parsed(t, "pipelines: {p: [bulkhead: {limit: 3}]}", Options{}))
		if got := first[*bulkhead.Bulkhead](t, r.lists["p"]).Config().Limit; got != 3 {
			t.Errorf("got limit %d, want 3", got)
		}
	})
}

func TestUpdateKeepsRemovedPipelineUsable(t *testing.T) { // rule 12
	const text = "budgets: {e: {ratio: 1}}\npolicies: {x: {breaker: {consecutive: 1}}}\npipelines: {p: [retry: {maxAttempts: 1, budget: e}, use: x, bulkhead: {limit: 2}], q: []}"
	var r recorder
	s := New(parsed(t, text, Options{Wrap: r.wrap}))
	p, made, list := s.Pipeline("p"), s.Make("p"), r.lists["p"]
	places := first[*bulkhead.Bulkhead](t, list)
	update(t, s, "pipelines: {q: []}", Diff{
		Removed: []string{"budgets.e", "policies.x", "pipelines.p"}, Kept: []string{"pipelines.q"},
	})
	if got, want := s.Names(), []string{"q"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	runtime.GC() // what callers have must stay
	runtime.GC()
	failed := errors.New("failed")
	for _, policy := range []resilience.Policy{p, made} {
		err := resilience.Run(t.Context(), policy, func(context.Context) error { return failed })
		if policy == p && !errors.Is(err, failed) || policy == made && !errors.Is(err, resilience.ErrRefused) {
			t.Errorf("got %v, want a failure, then the refusal of the shared breaker that it opened", err)
		}
	}
	b := first[*retry.Retry](t, list).Config().Budget
	update(t, s, strings.NewReplacer("limit: 2", "limit: 3", "ratio: 1", "ratio: 0.5").Replace(text), Diff{
		Added: []string{"budgets.e", "policies.x", "pipelines.p"}, Kept: []string{"pipelines.q"},
	})
	if s.Pipeline("p") != p {
		t.Error("got another pipeline, want the handle to continue")
	}
	if err := resilience.Run(t.Context(), p, func(context.Context) error { return nil }); !errors.Is(err, resilience.ErrRefused) {
		t.Errorf("got %v, want the breaker to be still open", err)
	}
	if got := places.Config().Limit; got != 3 {
		t.Errorf("got limit %d, want the 3 of the new file", got)
	}
	if got := b.Config().Ratio; got != 0.5 {
		t.Errorf("got ratio %v, want the 0.5 of the new file", got)
	}
	runtime.KeepAlive(made)
}

// TestUpdateForgetsRemovedPipelines checks that names which come and go leave nothing behind.
func TestUpdateForgetsRemovedPipelines(t *testing.T) { // rule 12
	s := New(parsed(t, "pipelines: {p: []}", Options{}))
	for i := range 200 {
		s.Update(parsed(t, fmt.Sprintf("budgets: {b%[1]d: {ratio: 1}}\npolicies: {x%[1]d: {breaker: {}}}\npipelines: {p%[1]d: [use: x%[1]d, retry: {budget: b%[1]d}]}", i), Options{}))
	}
	runtime.GC()
	runtime.GC()
	s.Update(parsed(t, "pipelines: {p: []}", Options{}))
	if b, p, h := len(s.gone.budgets), len(s.gone.policies), len(s.gone.handles); b > 1 || p > 1 || h > 1 {
		t.Errorf("got %d budgets, %d policies, %d pipelines, want at most the last one of each", b, p, h)
	}
}

func TestWrapIsCalledAgainOnlyForOtherLists(t *testing.T) { // rule 13
	var r recorder
	s := New(parsed(t, pipelines, Options{Wrap: r.wrap}))
	made := s.Make("invoices")
	if want := []string{"users", "invoices", "invoices"}; !slices.Equal(r.calls, want) {
		t.Errorf("got Wrap for %q, want %q", r.calls, want)
	}
	for _, c := range []struct {
		old, new string
		want     []string
	}{
		{"limit: 400ms", "limit: 500ms", nil},
		{"# outermost", "# first", nil},
		{"openFor: 1s", "openFor: 2s", nil},
		{"- atMostOnce", "- atMostOnce\n    - bulkhead: {limit: 5}", []string{"invoices", "invoices"}},
		{"- timeout: {limit: 120ms}", "- timeout: {limit: 120ms}\n    - timeout: {limit: 1s}", []string{"users", "invoices", "invoices"}},
		{"pipelines:\n", "pipelines:\n  new: []\n", []string{"new"}},
	} {
		r.calls = nil
		text := strings.Replace(pipelines, c.old, c.new, 1)
		s.Update(parsed(t, text, Options{}))
		if !slices.Equal(r.calls, c.want) {
			t.Errorf("%s: got Wrap for %q, want %q", c.new, r.calls, c.want)
		}
		s.Update(parsed(t, pipelines, Options{}))
	}
	runtime.KeepAlive(made)
}

func TestWrapPanicLeavesSetUnchanged(t *testing.T) { // rule 13
	broken := false
	var r recorder
	wrap := func(name string, p resilience.Pipeline) resilience.Policy {
		if broken && name == "z" {
			return nil
		}
		return r.wrap(name, p)
	}
	s := New(parsed(t, pipelines, Options{Wrap: wrap}))
	effective, limit := s.Effective(), first[*timeout.Timeout](t, r.lists["users"])
	broken = true
	func() {
		defer func() {
			if got, want := recover(), `resilienceconfig: Options.Wrap returned nil for the pipeline "z", must return a Policy`; got != want {
				t.Errorf("got panic %v, want %v", got, want)
			}
		}()
		s.Update(parsed(t, strings.Replace(pipelines, "400ms", "1h", 1)+"  z: []\n", Options{}))
	}()
	if got := limit.Config().Limit; got != 400*time.Millisecond || string(s.Effective()) != string(effective) {
		t.Errorf("got limit %v, want the 400ms from before", got)
	}
	broken = false
	s.Update(parsed(t, pipelines+"  z: []\n", Options{})) // the lock is free
}

func TestSetPanicsWithoutFile(t *testing.T) {
	s := New(parsed(t, pipelines, Options{}))
	for name, f := range map[string]func(){"New": func() { New(nil) }, "Update": func() { s.Update(nil) }} {
		func() {
			defer func() {
				if got, want := recover(), "resilienceconfig: "+name+": f is nil, must be a File that Parse has returned"; got != want {
					t.Errorf("got panic %v, want %v", got, want)
				}
			}()
			f()
		}()
	}
}

func TestEffectiveIsTheSameFile(t *testing.T) { // rule 14
	env := func(name string) (string, bool) { return "$" + name + "${x}: \"a\" \u2028 # \x00", true }
	o := Options{Env: env, Funcs: map[string]any{
		"if": func(error) bool { return true }, "a: b $": retry.Constant(0), "no": func(context.Context, breaker.Transition) {}, "change": func(breaker.Transition) {},
	}}
	for _, text := range []string{
		pipelines,
		"pipelines: {p: []}",
		`{"budgets": {"no": {"minPerSecond": 0.3, "ttl": "1h2m3s"}}, "policies": {"12": {"breaker": {"name": "${N}", "onStateChange": "change"}}},
		  "pipelines": {"null": [{"use": "12"}, {"retry": {"retryIf": "if", "backoff": "a: b $$", "budget": "no", "maxAttempts": -1, "maxElapsed": "1ns"}}],
		    "é:日": ["atMostOnce", {"use": "null"}, {"shed": {"k": 1000000000000000000000}}, {"breaker": {"failures": 3, "lastCalls": 7}}]}}`,
	} {
		f := parsed(t, text, o)
		s := New(f)
		again := parsed(t, string(s.Effective()), o)
		if string(again.effective) != string(s.Effective()) {
			t.Errorf("got\n%s\nwant\n%s", again.effective, s.Effective())
		}
		d := s.Update(again)
		if !d.Empty() || len(d.Kept) == 0 {
			t.Errorf("%s\ngot %+v, want nothing changed", text, d)
		}
	}
}

func TestEffectiveShowsEveryDefault(t *testing.T) { // rule 14
	s := New(parsed(t, "pipelines:\n  p: [retry: {}, hedge: {delay: 1m}]", Options{}))
	const want = `pipelines:
  p:
    - retry:
        name: p
        maxAttempts: 3
        maxElapsed: 0s
        maxRetryAfter: 1m
        resetAfter: 0s
        backoff: {fullJitter: {initial: 100ms, max: 10s}}
        retryRefused: false
    - hedge:
        name: p
        delay: 1m
        quantile: 0
        minSamples: 100
        max: 1
`
	if got := string(s.Effective()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	s.Effective()[0] = 'x' // is the caller's
	if got := string(s.Effective()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
