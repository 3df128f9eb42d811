package observe_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/bulkhead"
	"github.com/effector-go/resilience/observe"
	"github.com/effector-go/resilience/retry"
)

// policyOf returns the snapshot of the policies of a kind and name.
func policyOf(t *testing.T, s observe.Snapshot, kind, name string) observe.PolicySnapshot {
	t.Helper()
	for _, p := range s.Policies {
		if p.Kind == kind && p.Name == name {
			return p
		}
	}
	t.Fatalf("got no policy %q of kind %q", name, kind)
	return observe.PolicySnapshot{}
}

// collect runs the garbage collector until done returns true.
func collect(t *testing.T, what string, done func() bool) {
	t.Helper()
	for range 1000 {
		runtime.GC()
		if done() {
			return
		}
		runtime.Gosched()
	}
	t.Errorf("%s: got no end, want the garbage collected", what)
}

func TestConfigValidateNamesEachMistake(t *testing.T) {
	many := make([]time.Duration, 65)
	for i := range many {
		many[i] = time.Duration(i + 1)
	}
	for want, c := range map[string]observe.Config{
		"observe: MaxNames is -1, must be at least 1, or 0 for 1000":                                            {MaxNames: -1},
		"observe: Buckets has 65 bounds, must have at most 64":                                                  {Buckets: many},
		"observe: Buckets[0] is 0s, must be positive\nobserve: Buckets[2] is 1s, must be above Buckets[1] (1s)": {Buckets: []time.Duration{0, time.Second, time.Second}},
	} {
		if err := c.Validate(); err == nil || err.Error() != want {
			t.Errorf("got %v, want %v", err, want)
		}
		func() {
			defer func() {
				if got := recover(); got != want {
					t.Errorf("New: got %v, want a panic with %v", got, want)
				}
			}()
			observe.New(c)
		}()
	}
	if err := (observe.Config{Buckets: many[:64]}).Validate(); err != nil {
		t.Errorf("got %v, want nil", err)
	}
}

func TestConfigIsCopied(t *testing.T) {
	buckets := []time.Duration{time.Second}
	listeners := []observe.Listener{{}}
	o := observe.New(observe.Config{Buckets: buckets, Listeners: listeners})
	buckets[0] = 0
	listeners[0].Begin = func(context.Context, *observe.Call) context.Context { panic("changed") }
	_ = resilience.Run(t.Context(), o.Pipeline("p"), fails(nil))
	s := o.Snapshot()
	equal(t, "bounds", s.Bounds, []time.Duration{time.Second})
	s.Bounds[0] = 0
	equal(t, "bounds", o.Snapshot().Bounds, []time.Duration{time.Second})
}

func TestSnapshotDefaultBounds(t *testing.T) {
	var want []time.Duration
	for _, ms := range []int{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000} {
		want = append(want, time.Duration(ms)*time.Millisecond)
	}
	equal(t, "bounds", observe.New(observe.Config{}).Snapshot().Bounds, want)
}

func TestSnapshotHistogramBoundsAreInclusive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := observe.New(observe.Config{Buckets: []time.Duration{time.Second, time.Minute}})
		for _, d := range []time.Duration{0, time.Second, time.Second + 1, time.Minute, time.Minute + 1, time.Hour} {
			_ = resilience.Run(t.Context(), o.Pipeline("p"), func(context.Context) error { time.Sleep(d); return nil })
		}
		got := pipelineOf(t, o, "p").Calls[observe.Success]
		if want := (observe.Histogram{Count: 6, Sum: 3722.000000002, Buckets: []uint64{2, 2, 2}}); got.Count != want.Count || math.Abs(got.Sum-want.Sum) > 1e-6 || !slices.Equal(got.Buckets, want.Buckets) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

func TestSnapshotHasEveryResultAndEvent(t *testing.T) {
	o := observe.New(observe.Config{})
	p := o.Pipeline("p", policy(pass))
	s := pipelineOf(t, o, "p")
	if len(s.Calls) != 6 || len(s.Layers[0].Events) != 5 {
		t.Errorf("got %d results, %d events, want 6, 5", len(s.Calls), len(s.Layers[0].Events))
	}
	for r, h := range s.Calls {
		if len(h.Buckets) != 14 {
			t.Errorf("%v: got %d buckets, want 14", r, len(h.Buckets))
		}
	}
	runtime.KeepAlive(p)
}

func TestSnapshotOfRunningCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := observe.New(observe.Config{})
		p := o.Pipeline("p", policy(pass), bulkhead.New(bulkhead.Config{Limit: 1, Queue: 1, MaxWait: time.Hour}))
		go resilience.Run(t.Context(), p, func(context.Context) error { time.Sleep(time.Minute); return nil })
		synctest.Wait()
		s := pipelineOf(t, o, "p")
		if s.Running != 1 || s.Attempts != 1 || s.Layers[0].Passed != 1 || s.Layers[1].Passed != 1 {
			t.Errorf("got %+v, want one running call that is inside", s)
		}
		if got := p.(resilience.Reporter).Report(); got.Kind != "pipeline" || got.Name != "p" || got.Values[0] != (resilience.Value{Name: "running", Unit: "{call}", Value: 1}) {
			t.Errorf("got %+v, want kind pipeline, name p, 1 running", got)
		}
		time.Sleep(time.Hour)
		if s := pipelineOf(t, o, "p"); s.Running != 0 {
			t.Errorf("got %d running, want 0", s.Running)
		}
	})
}

func TestSnapshotAddsUpPipelinesOfOneName(t *testing.T) { // rule 8
	o := observe.New(observe.Config{})
	for _, policies := range [][]resilience.Policy{
		{retry.New(retry.Config{Name: "a"}), breaker.New(breaker.Config{Name: "x"})},
		{retry.New(retry.Config{Name: "b"}), breaker.New(breaker.Config{Name: "x"})},
		{retry.New(retry.Config{Name: "a"}), policy(pass), policy(pass)},
	} {
		_ = resilience.Run(t.Context(), o.Pipeline("p", policies...), fails(nil))
	}
	check := func() {
		t.Helper()
		s := pipelineOf(t, o, "p")
		var layers []string
		for _, l := range s.Layers {
			layers = append(layers, fmt.Sprint(l.Position, l.Kind, " ", l.Name, " ", l.Entered, l.Passed))
		}
		equal(t, "layers", layers, []string{"1retry  3 3", "2breaker x 2 2", "2resilience.PolicyFunc  1 1", "3resilience.PolicyFunc  1 1"})
		if s.Calls[observe.Success].Count != 3 || s.Attempts != 3 {
			t.Errorf("got %d calls, %d attempts, want 3, 3", s.Calls[observe.Success].Count, s.Attempts)
		}
	}
	check()
	collect(t, "breakers", func() bool { return len(o.Live("breaker", "x")) == 0 })
	check()
	if got := policyOf(t, o.Snapshot(), "breaker", "x"); len(got.Reports) != 0 || len(got.States) != 0 || got.InState["closed"] <= 0 {
		t.Errorf("got %+v, want no reports, and the time in state closed", got)
	}
}

func TestSnapshotReplacesLongestUnusedName(t *testing.T) { // rule 8
	o := observe.New(observe.Config{MaxNames: 2})
	names := func() (names []string) {
		for _, p := range o.Snapshot().Pipelines {
			names = append(names, fmt.Sprint(p.Name, p.Calls[observe.Success].Count))
		}
		return names
	}
	call := func(name string) resilience.Policy {
		p := o.Pipeline(name, retry.New(retry.Config{Name: name}))
		_ = resilience.Run(t.Context(), p, fails(nil))
		return p
	}
	a := call("a")
	call("b")
	collect(t, "b", func() bool { return len(o.Live("retry", "b")) == 0 })
	equal(t, "names", names(), []string{"a1", "b1"})
	c := call("c") // replaces b
	equal(t, "names", names(), []string{"a1", "c1"})
	d, e := call("d"), call("e") // all are in use
	equal(t, "names", names(), []string{"a1", "c1", "other2"})
	others := policyOf(t, o.Snapshot(), "retry", "other")
	if len(others.Reports) != 0 || o.Live("retry", "other") != nil || o.Live("retry", "d") != nil {
		t.Errorf("got %+v, want other without reports", others)
	}
	runtime.KeepAlive([]any{a, c, d, e})
}

func TestSnapshotOtherIsOneName(t *testing.T) { // rule 8: a policy or pipeline may really be called other
	for _, order := range [][]string{{"other", "a", "b"}, {"a", "b", "other"}} {
		o := observe.New(observe.Config{MaxNames: 1})
		var kept []any
		for _, name := range order {
			p := o.Pipeline(name, breaker.New(breaker.Config{Name: name}))
			_ = resilience.Run(t.Context(), p, fails(nil))
			kept = append(kept, p)
		}
		seen := map[string]bool{}
		s := o.Snapshot()
		var calls uint64
		for _, p := range s.Pipelines {
			calls += p.Calls[observe.Success].Count
			if seen[p.Name] {
				t.Errorf("got pipeline %q twice", p.Name)
			}
			seen[p.Name] = true
		}
		states := 0
		for _, p := range s.Policies {
			states += p.States["closed"]
			if key := p.Kind + " " + p.Name; seen[key] {
				t.Errorf("got policy %q twice", key)
			} else {
				seen[key] = true
			}
		}
		if calls != 3 || states != 3 {
			t.Errorf("got %d calls, %d closed breakers, want 3, 3", calls, states)
		}
		runtime.KeepAlive(kept)
	}
}

func TestSnapshotOtherStaysOneNameWhenRoomIsMade(t *testing.T) { // rule 8
	o := observe.New(observe.Config{MaxNames: 1})
	create := func(name string) resilience.Policy {
		p := o.Pipeline(name, breaker.New(breaker.Config{Name: name}))
		_ = resilience.Run(t.Context(), p, fails(nil))
		return p
	}
	names := func() (names []string) {
		s := o.Snapshot()
		for _, p := range s.Pipelines {
			names = append(names, fmt.Sprint(p.Name, p.Calls[observe.Success].Count))
		}
		for _, p := range s.Policies {
			names = append(names, fmt.Sprint(p.Name, p.States["closed"]))
		}
		return names
	}
	a := create("a")
	create("b")
	collect(t, "b", func() bool { return slices.Contains(names(), "other0") })
	c := create("c") // a is in use, so there is still no room
	equal(t, "names", names(), []string{"a1", "other2", "a1", "other1"})
	real := create("other")
	equal(t, "names", names(), []string{"a1", "other3", "a1", "other2"})
	if got := len(o.Live("breaker", "other")); got != 1 {
		t.Errorf("got %d live breakers called other, want 1: the one that has this name", got)
	}
	runtime.KeepAlive(a)
	collect(t, "a", func() bool { return slices.Contains(names(), "a0") })
	again := create("other") // does not take the room of a
	equal(t, "names", names(), []string{"a1", "other4", "a0", "other3"})
	d := create("d") // does
	equal(t, "names", names(), []string{"d1", "other4", "d1", "other3"})
	runtime.KeepAlive([]any{c, d, real, again})
}

func TestSnapshotOtherIsNeverReplaced(t *testing.T) { // rule 8
	o := observe.New(observe.Config{MaxNames: 1})
	create := func(name string) resilience.Policy { return o.Pipeline(name, breaker.New(breaker.Config{Name: name})) }
	real := create("other")
	a := create("a")
	runtime.KeepAlive(real)
	collect(t, "other", func() bool { return len(o.Live("breaker", "other")) == 0 })
	b := create("b") // counts as other too, although no pipeline has this name any more
	s := o.Snapshot()
	if len(s.Pipelines) != 1 || s.Pipelines[0].Name != "other" || len(s.Policies) != 1 || s.Policies[0].States["closed"] != 2 {
		t.Errorf("got %+v, %+v, want only other, with two breakers", s.Pipelines, s.Policies)
	}
	runtime.KeepAlive([]any{a, b})
}

// A kind is a reporter of a kind of its own.
type kind string

func (k kind) Report() resilience.Report {
	return resilience.Report{Kind: string(k), Name: "x", State: "on"}
}

func TestSnapshotBoundsKinds(t *testing.T) { // rule 8: user-written policies choose them
	o := observe.New(observe.Config{MaxNames: 1})
	for i := range 150 {
		o.Watch(kind(fmt.Sprint("kind", i)))
	}
	s := o.Snapshot()
	states := 0
	for _, p := range s.Policies {
		states += p.States["on"]
	}
	if len(s.Policies) != 102 || states != 150 { // the first, others of 100 kinds, others of other kinds
		t.Errorf("got %d kinds and names, %d states, want 102, 150", len(s.Policies), states)
	}
}

// Policies of all sorts, with reports.
type (
	zero       struct{}
	uncompared struct{ list []int }
	compared   struct{ n int }
	wrapper    struct{ *breaker.Breaker }
	reporting  func()
	tiny       struct{ n byte }
)

func report(kind string) resilience.Report { return resilience.Report{Kind: kind, State: "on"} }

func (*zero) Run(ctx context.Context, next resilience.Next) error      { return next.Run(ctx) }
func (*zero) Report() resilience.Report                                { return report("zero") }
func (uncompared) Run(ctx context.Context, next resilience.Next) error { return next.Run(ctx) }
func (uncompared) Report() resilience.Report                           { return report("uncompared") }
func (compared) Run(ctx context.Context, next resilience.Next) error   { return next.Run(ctx) }
func (compared) Report() resilience.Report                             { return report("compared") }
func (reporting) Run(ctx context.Context, next resilience.Next) error  { return next.Run(ctx) }
func (reporting) Report() resilience.Report                            { return report("reporting") }
func (*tiny) Run(ctx context.Context, next resilience.Next) error      { return next.Run(ctx) }
func (*tiny) Report() resilience.Report                                { return report("tiny") }

var (
	global     zero
	globalTiny struct {
		name   string
		policy tiny // not the first field
	}
)

func TestPipelineOfEveryKindOfPolicy(t *testing.T) { // rule 9
	o := observe.New(observe.Config{})
	shared := breaker.New(breaker.Config{Name: "shared"})
	policies := []resilience.Policy{
		&zero{}, &zero{}, &global, uncompared{[]int{1}}, uncompared{nil}, compared{1}, compared{1}, compared{2},
		wrapper{shared}, wrapper{shared}, shared, reporting(func() {}), &tiny{1}, &tiny{2}, &globalTiny.policy, resilience.AtMostOnce, policy(pass),
	}
	p, q := o.Pipeline("p", policies...), o.Pipeline("q", policies...)
	for range 3 {
		if err := resilience.Run(t.Context(), p, fails(nil)); err != nil {
			t.Errorf("got %v, want nil", err)
		}
		runtime.GC()
	}
	s := o.Snapshot()
	got := map[string]int{}
	for _, p := range s.Policies {
		got[p.Kind] += len(p.Reports)
	}
	// All pointers to zero-size values may be equal. Values that can't be compared count once for
	// each place.
	zeros := got["zero"]
	want := map[string]int{"zero": zeros, "uncompared": 4, "compared": 2, "breaker": 2, "reporting": 2, "tiny": 3, "at_most_once": 1}
	if !reflect.DeepEqual(got, want) || zeros < 1 || zeros > 3 {
		t.Errorf("got %v, want %v", got, want)
	}
	shared.ForceOpen()
	if got := policyOf(t, o.Snapshot(), "breaker", "shared").States["forced open"]; got != 2 {
		t.Errorf("got %d, want 2: the breaker, and the value around it", got)
	}
	runtime.KeepAlive([]any{p, q})
}

func TestObserverKeepsNothingAlive(t *testing.T) { // rule 9
	o := observe.New(observe.Config{})
	var mu sync.Mutex
	left := map[string]bool{}
	watch := func(name string, p *breaker.Breaker) {
		mu.Lock()
		defer mu.Unlock()
		left[name] = true
		runtime.AddCleanup(p, func(name string) {
			mu.Lock()
			defer mu.Unlock()
			delete(left, name)
		}, name)
	}
	func() {
		used, held, watched := breaker.New(breaker.Config{}), breaker.New(breaker.Config{}), breaker.New(breaker.Config{})
		watch("in a pipeline", used)
		watch("in a value", held)
		watch("watched", watched)
		o.Watch(watched)
		p := o.Pipeline("p", used, wrapper{held})
		_ = resilience.Run(t.Context(), p, fails(errBoom))
		_ = o.Snapshot()
	}()
	collect(t, "policies", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(left) == 0
	})
	s := o.Snapshot()
	if got := policyOf(t, s, "breaker", ""); len(got.Reports) != 0 {
		t.Errorf("got %+v, want no reports", got)
	}
	if got := pipelineOf(t, o, "p").Calls[observe.Failure].Count; got != 1 {
		t.Errorf("got %d failures, want 1", got)
	}
}

// A hub is a Notifier whose changes a test makes.
type hub struct {
	mu        sync.Mutex
	listeners map[int]func(resilience.Change)
	next      int
}

func (*hub) Run(ctx context.Context, next resilience.Next) error { return next.Run(ctx) }
func (*hub) Report() resilience.Report                           { return report("hub") }

func (h *hub) Notify(listen func(resilience.Change)) (stop func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.next
	h.next++
	h.listeners[n] = listen
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.listeners, n)
	}
}

func (h *hub) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.listeners)
}

func (h *hub) change() { h.changeAt(time.Now()) }

func (h *hub) changeAt(at time.Time) {
	h.mu.Lock()
	listeners := slices.Collect(maps.Values(h.listeners))
	h.mu.Unlock()
	for _, listen := range listeners {
		listen(resilience.Change{Kind: "hub", From: "on", To: "off", At: at})
	}
}

// An embedding policy is collected before the hub that it embeds.
type embedding struct{ *hub }

func TestObserverStopsListeningToCollectedPolicies(t *testing.T) { // rule 9
	changed := 0
	o := observe.New(observe.Config{Listeners: []observe.Listener{{Changed: func(resilience.Change) { changed++ }}}})
	h := &hub{listeners: map[int]func(resilience.Change){}}
	o.Pipeline("p", embedding{h})
	collect(t, "value", func() bool { return h.count() == 0 })
	o.Pipeline("p", &embedding{h})
	collect(t, "pointer", func() bool { return len(policyOf(t, o.Snapshot(), "hub", "").Reports) == 0 })
	h.change() // removes the listener of the pointer, which o can't do earlier
	if got := h.count(); got != 0 {
		t.Errorf("got %d listeners, want none", got)
	}
	if s := policyOf(t, o.Snapshot(), "hub", ""); changed != 0 || s.Changes["off"] != 0 || s.InState["off"] != 0 {
		t.Errorf("got %d calls of the listener, %v, %v, want no change of collected policies", changed, s.Changes, s.InState)
	}
	p := o.Pipeline("p", embedding{h})
	h.change()
	if s := policyOf(t, o.Snapshot(), "hub", ""); changed != 1 || s.Changes["off"] != 1 {
		t.Errorf("got %d calls of the listener, %v, want one change", changed, s.Changes)
	}
	runtime.KeepAlive(p)
}

func TestWatchKeepsValues(t *testing.T) { // rule 9
	o := observe.New(observe.Config{})
	o.Watch(compared{1}, compared{1}, budget.New(budget.Config{Name: "b", Ratio: 1}))
	b := budget.New(budget.Config{Name: "c", Ratio: 1})
	o.Watch(b, b)
	for range 3 {
		runtime.GC()
	}
	s := o.Snapshot()
	if got := len(policyOf(t, s, "compared", "").Reports); got != 1 {
		t.Errorf("got %d reports of the value, want 1", got)
	}
	if got := len(policyOf(t, s, "budget", "c").Reports); got != 1 {
		t.Errorf("got %d reports of the budget, want 1", got)
	}
	runtime.KeepAlive(b)
}

func TestLiveReturnsPoliciesInOrder(t *testing.T) {
	o := observe.New(observe.Config{})
	var want []resilience.Reporter
	for range 10 {
		b := breaker.New(breaker.Config{Name: "b"})
		o.Watch(b)
		want = append(want, b)
	}
	equal(t, "live", o.Live("breaker", "b"), want)
	if got := o.Live("breaker", "c"); got != nil {
		t.Errorf("got %v, want nil", got)
	}
}

func TestSnapshotTimeInState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := observe.New(observe.Config{})
		begun := time.Now()
		b := breaker.New(breaker.Config{Name: "b", Consecutive: 1, OpenFor: time.Minute})
		p := o.Pipeline("p", b)
		time.Sleep(time.Second)
		_ = resilience.Run(t.Context(), p, fails(errBoom))
		time.Sleep(10 * time.Second)
		s := policyOf(t, o.Snapshot(), "breaker", "b")
		if s.InState["closed"] != time.Second || s.InState["open"] != 10*time.Second || s.Changes["open"] != 1 || s.States["open"] != 1 || !s.Since.Equal(begun.Add(time.Second)) {
			t.Errorf("got %+v, want 1s closed, 10s open", s)
		}
		time.Sleep(time.Minute)
		_ = resilience.Run(t.Context(), p, fails(nil))
		time.Sleep(time.Second)
		s = policyOf(t, o.Snapshot(), "breaker", "b")
		if s.InState["closed"] != 2*time.Second || s.InState["open"] != time.Minute || s.InState["half-open"] != 10*time.Second {
			t.Errorf("got %v, want 2s closed, 1m open, 10s half-open", s.InState)
		}
		var recent []string
		for _, c := range s.Recent {
			recent = append(recent, fmt.Sprint(c.At.Sub(begun), c.From, "-", c.To, " ", c.Error != nil))
		}
		equal(t, "recent", recent, []string{"1sclosed-open true", "1m1sopen-half-open false", "1m11shalf-open-closed false"})
		if e := s.Recent[0].Error; e.Text != "boom" || e.Type != "*errors.errorString" {
			t.Errorf("got %+v, want boom", e)
		}
		for range 100 {
			b.ForceOpen()
			b.Reset()
		}
		if s = policyOf(t, o.Snapshot(), "breaker", "b"); len(s.Recent) != 50 || s.Changes["closed"] != 101 || s.Changes["forced open"] != 100 {
			t.Errorf("got %d recent changes, %v, want 50, 101 and 100", len(s.Recent), s.Changes)
		}
	})
}

// A changing notifier changes its state while the observer asks for it: the report is older than the
// change.
type changing struct {
	*hub
	reports int
}

func (c *changing) Report() resilience.Report {
	if c.reports++; c.reports > 2 { // after the pipeline has asked for the name, and the observer for the state
		c.hub.change()
	}
	return report("changing")
}

func TestSnapshotStateOfChangeIsNewerThanReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := observe.New(observe.Config{})
		c := &changing{hub: &hub{listeners: map[int]func(resilience.Change){}}}
		p := o.Pipeline("p", c)
		time.Sleep(time.Minute)
		if got := policyOf(t, o.Snapshot(), "changing", "").InState; got["off"] != time.Minute || got["on"] != 0 {
			t.Errorf("got %v, want 1m off", got)
		}
		runtime.KeepAlive(p)
	})
}

func TestSnapshotSinceIsLatestChange(t *testing.T) {
	h := &hub{listeners: map[int]func(resilience.Change){}}
	o := observe.New(observe.Config{})
	o.Watch(h)
	begun := time.Now()
	for _, at := range []time.Duration{time.Hour, time.Minute} { // of two policies, changes can come in any order
		h.changeAt(begun.Add(at))
	}
	if got := policyOf(t, o.Snapshot(), "hub", "").Since; !got.Equal(begun.Add(time.Hour)) {
		t.Errorf("got %v, want 1h after %v", got, begun)
	}
}

func TestSnapshotLayerStates(t *testing.T) {
	o := observe.New(observe.Config{})
	shared, own := breaker.New(breaker.Config{}), breaker.New(breaker.Config{})
	p, q, r := o.Pipeline("p", retry.New(retry.Config{}), shared), o.Pipeline("p", retry.New(retry.Config{}), shared), o.Pipeline("p", retry.New(retry.Config{}), own)
	own.ForceOpen()
	s := pipelineOf(t, o, "p")
	if got := s.Layers[1].States; len(got) != 2 || got["closed"] != 1 || got["forced open"] != 1 || len(s.Layers[0].States) != 0 {
		t.Errorf("got %v, want one closed, one forced open", got)
	}
	runtime.KeepAlive([]any{p, q, r})
}

// A long error has a text of many bytes.
type longError struct{ n int }

func (e *longError) Error() string {
	return strings.Repeat("x", e.n) + "ä" + strings.Repeat("y", 1000)
}

func TestSnapshotErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := observe.New(observe.Config{})
		p := o.Pipeline("p", policy(pass))
		begun := time.Now()
		call := func(err error) { _ = resilience.Run(t.Context(), p, fails(err)) }
		latest := func() observe.ErrorSample { return pipelineOf(t, o, "p").Errors[observe.Failure] }
		call(fmt.Errorf("x: %w", &longError{499}))
		call(errBoom)
		if got := latest(); got.Type != "*observe_test.longError" || got.Text != "x: "+strings.Repeat("x", 497) || !got.At.Equal(begun) {
			t.Errorf("got %+v, want the first error, cut to 500 bytes", got)
		}
		time.Sleep(time.Second)
		call(fmt.Errorf("x: %w", errors.Join(errBoom, &typedError{"own"})))
		if got := latest(); got.Type != "own" || got.Text != "x: boom\nown" {
			t.Errorf("got %+v, want the type own", got)
		}
		time.Sleep(time.Second)
		call(&longError{496})
		if got := latest().Text; len(got) != 500 {
			t.Errorf("got %d bytes, want 500", len(got))
		}
		time.Sleep(time.Second)
		call(&longError{499})
		if got := latest().Text; got != strings.Repeat("x", 499) {
			t.Errorf("got %q, want no half of a character", got)
		}
		time.Sleep(time.Second)
		_ = resilience.Run(t.Context(), o.Pipeline("p", retry.New(retry.Config{MaxAttempts: 1})), fails(&typedError{"own"}))
		if got := latest().Type; got != "own" {
			t.Errorf("got %q, want the type of the last attempt's error", got)
		}
	})
}

func TestSnapshotFormatsErrorsNotTheCall(t *testing.T) {
	o := observe.New(observe.Config{})
	_ = resilience.Run(t.Context(), o.Pipeline("p"), fails(brokenText{}))
	if got := pipelineOf(t, o, "p").Errors[observe.Failure]; got.Type != "observe_test.brokenText" || got.Text == "" {
		t.Errorf("got %+v, want a type and a text", got)
	}
}

type brokenText struct{}

func (brokenText) Error() string { panic("broken") }

// A panicking reporter.
type brokenReport struct{ broken *bool }

func (b brokenReport) Report() resilience.Report {
	if *b.broken {
		panic("report")
	}
	return resilience.Report{Kind: "broken"}
}

func TestSnapshotReportPanicLeavesNoLock(t *testing.T) { // rule 10
	o := observe.New(observe.Config{})
	b := brokenReport{new(bool)}
	o.Watch(b)
	*b.broken = true
	func() {
		defer func() {
			if got := recover(); got != "report" {
				t.Errorf("got %v, want the report's panic", got)
			}
		}()
		o.Snapshot()
	}()
	*b.broken = false
	if got := len(o.Snapshot().Policies); got != 1 {
		t.Errorf("got %d policies, want 1", got)
	}
}

// A reentrant reporter uses the observer.
type reentrant struct{ o *observe.Observer }

func (r reentrant) Report() resilience.Report {
	r.o.Live("x", "y")
	r.o.Pipeline("p")
	return resilience.Report{Kind: "reentrant"}
}

func TestSnapshotCallsReportUnderNoLock(t *testing.T) { // rule 10
	o := observe.New(observe.Config{})
	o.Watch(reentrant{o})
	if got := len(policyOf(t, o.Snapshot(), "reentrant", "").Reports); got != 1 {
		t.Errorf("got %d reports, want 1", got)
	}
}

func TestSnapshotIsConsistent(t *testing.T) { // rule 10
	o := observe.New(observe.Config{})
	again := retry.New(retry.Config{MaxAttempts: 2, Backoff: retry.Constant(0)})
	ctx, cancel := context.WithCancel(t.Context())
	var g errgroup.Group
	for i := range 4 {
		g.Go(func() error {
			for n := 0; ctx.Err() == nil; n++ {
				p := o.Pipeline(fmt.Sprint("p", i%2), again, policy(pass)) // collected while snapshots are taken
				for range 20 {
					_ = resilience.Run(context.Background(), p, func(context.Context) error {
						if n%3 == 0 {
							return errBoom
						}
						return nil
					})
				}
			}
			return nil
		})
	}
	before := map[string]uint64{}
	grows := func(key string, n uint64) {
		if n < before[key] {
			t.Errorf("%s: got %d after %d, want no decrease", key, n, before[key])
		}
		before[key] = n
	}
	for range 30 {
		runtime.GC()
		for _, p := range o.Snapshot().Pipelines {
			if p.Running < 0 {
				t.Errorf("got %d running, want 0 or more", p.Running)
			}
			grows(p.Name+" attempts", p.Attempts)
			for r, h := range p.Calls {
				var sum uint64
				for _, n := range h.Buckets {
					sum += n
				}
				if sum != h.Count {
					t.Errorf("got a count of %d, want %d, the sum of the buckets", h.Count, sum)
				}
				grows(p.Name+r.String(), h.Count)
			}
			for _, l := range p.Layers {
				grows(fmt.Sprint(p.Name, l.Position, "entered"), l.Entered)
				grows(fmt.Sprint(p.Name, l.Position, "passed"), l.Passed)
				for kind, n := range l.Events {
					grows(fmt.Sprint(p.Name, l.Position, kind), n)
				}
			}
		}
	}
	cancel()
	_ = g.Wait()
}

func TestSnapshotsShareNothing(t *testing.T) { // rule 10
	o := observe.New(observe.Config{})
	b := breaker.New(breaker.Config{Name: "b", Consecutive: 1})
	p := o.Pipeline("p", b)
	_ = resilience.Run(t.Context(), p, fails(errBoom))
	b.Disable()
	first := o.Snapshot()
	want, err := json.Marshal(first.Pipelines)
	if err != nil {
		t.Fatal(err)
	}
	second := o.Snapshot()
	for r, h := range second.Pipelines[0].Calls {
		h.Buckets[0] = 99
		second.Pipelines[0].Calls[r] = observe.Histogram{}
		second.Pipelines[0].Errors[r] = observe.ErrorSample{}
	}
	second.Pipelines[0].Layers[0].Events[observe.Retry] = 99
	second.Pipelines[0].Layers[0].States["x"] = 99
	second.Policies[0].InState["x"], second.Policies[0].Changes["x"], second.Policies[0].States["x"] = 99, 99, 99
	second.Policies[0].Recent[0].Error.Text = "x"
	second.Policies[0].Recent[1] = observe.Change{}
	clear(second.Bounds)
	third := o.Snapshot()
	if got, _ := json.Marshal(third.Pipelines); string(got) != string(want) {
		t.Errorf("got %s, want %s", got, want)
	}
	if p := third.Policies[0]; p.InState["x"] != 0 || p.Changes["x"] != 0 || p.States["x"] != 0 || p.Recent[0].Error.Text != "boom" || p.Recent[1].To != "disabled" {
		t.Errorf("got %+v, want no change", p)
	}
	runtime.KeepAlive(p)
}

func TestSnapshotJSON(t *testing.T) { // rule 11
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		value any
		want  string
	}{
		{observe.Snapshot{}, `{"at":"0001-01-01T00:00:00Z","bounds":[],"pipelines":[],"policies":[]}`},
		{observe.Snapshot{At: at, Bounds: []time.Duration{time.Millisecond, 1500 * time.Millisecond}}, `{"at":"2026-01-02T03:04:05Z","bounds":[0.001,1.5],"pipelines":[],"policies":[]}`},
		{observe.PipelineSnapshot{}, `{"name":"","running":0,"attempts":0,"calls":{},"layers":[],"errors":{}}`},
		{observe.PipelineSnapshot{Calls: map[observe.Result]observe.Histogram{observe.TimedOut: {}}, Layers: []observe.LayerSnapshot{{Position: 1, Events: map[observe.EventKind]uint64{observe.GiveUp: 2}}}},
			`{"name":"","running":0,"attempts":0,"calls":{"timed_out":{"count":0,"sum":0,"buckets":[]}},"layers":[{"position":1,"kind":"","name":"","entered":0,"passed":0,"events":{"give_up":2},"states":{}}],"errors":{}}`},
		{observe.Histogram{Sum: math.Inf(1)}, `{"count":0,"sum":null,"buckets":[]}`},
		{observe.PolicySnapshot{Kind: "k", InState: map[string]time.Duration{"open": 1500 * time.Millisecond}, Since: at, Recent: []observe.Change{{At: at, To: "open"}},
			Reports: []resilience.Report{{Kind: "k", Values: []resilience.Value{{Name: "v", Unit: "s", Value: math.NaN()}, {Name: "w", Unit: "1", Value: 0.5}}}}},
			`{"kind":"k","name":"","reports":[{"kind":"k","name":"","state":"","values":[{"name":"v","unit":"s","value":null},{"name":"w","unit":"1","value":0.5}],"config":{}}],` +
				`"states":{},"in_state":{"open":1.5},"changes":{},"recent":[{"at":"2026-01-02T03:04:05Z","from":"","to":"open","cause":"","error":null}],"since":"2026-01-02T03:04:05Z"}`},
		{observe.ErrorSample{At: at, Type: "t", Text: "x"}, `{"at":"2026-01-02T03:04:05Z","type":"t","text":"x"}`},
	} {
		got, err := json.Marshal(c.value)
		if err != nil || string(got) != c.want {
			t.Errorf("got %s, %v, want %s", got, err, c.want)
		}
	}
}

func TestResultAndEventKindText(t *testing.T) {
	for r, want := range map[fmt.Stringer]string{
		observe.Success: "success", observe.Failure: "failure", observe.Refused: "refused", observe.TimedOut: "timed_out", observe.Canceled: "canceled",
		observe.Panicked: "panicked", observe.Result(-1): "Result(-1)", observe.Result(6): "Result(6)",
		observe.Refusal: "refusal", observe.Retry: "retry", observe.Hedge: "hedge", observe.Timeout: "timeout", observe.GiveUp: "give_up",
		observe.EventKind(-1): "EventKind(-1)", observe.EventKind(5): "EventKind(5)",
	} {
		text, err := r.(interface{ MarshalText() ([]byte, error) }).MarshalText()
		if r.String() != want || string(text) != want || err != nil {
			t.Errorf("got %s, %s, %v, want %s", r, text, err, want)
		}
	}
}

func TestPipelineAllocatesAtMostOnceMore(t *testing.T) { // rule 12
	policies := []resilience.Policy{policy(pass), retry.New(retry.Config{}), breaker.New(breaker.Config{}), policy(pass)}
	effector := func(context.Context) error { return nil }
	ctx := context.Background()
	bare := resilience.ComposeRun(effector, policies...)
	observed := resilience.ComposeRun(effector, observe.New(observe.Config{}).Pipeline("p", policies...))
	without := testing.AllocsPerRun(1000, func() { _ = bare(ctx) })
	with := testing.AllocsPerRun(1000, func() { _ = observed(ctx) })
	if with > without+1 {
		t.Errorf("got %v allocations, want at most one more than %v", with, without)
	}
}

func FuzzErrorText(f *testing.F) {
	f.Add("boom")
	f.Add(strings.Repeat("ä", 400))
	f.Add(strings.Repeat("\xff", 600))
	f.Fuzz(func(t *testing.T, text string) {
		o := observe.New(observe.Config{})
		_ = resilience.Run(context.Background(), o.Pipeline(text), fails(errors.New(text)))
		s := o.Snapshot()
		got := s.Pipelines[0].Errors[observe.Failure].Text
		if len(got) > 500 || !strings.HasPrefix(text, got) || len(text) <= 500 && got != text || len(text) > 500 && len(got) < 497 {
			t.Errorf("got %q, want the beginning of %q, at most 500 bytes", got, text)
		}
		if _, err := json.Marshal(s); err != nil {
			t.Errorf("got %v, want nil", err)
		}
	})
}
