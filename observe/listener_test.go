package observe_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/bulkhead"
	"github.com/effector-go/resilience/hedge"
	"github.com/effector-go/resilience/observe"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

type key string

// A journal records what listeners receive. Only one call may use it.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) all() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.lines)
}

func (j *journal) add(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf(format, args...))
}

// listener returns a listener that records everything under a name, with the marks that earlier
// listeners have put on the context.
func (j *journal) listener(name string) observe.Listener {
	marks := func(ctx context.Context) string { s, _ := ctx.Value(key("marks")).(string); return s }
	mark := func(ctx context.Context, m string) context.Context {
		return context.WithValue(ctx, key("marks"), marks(ctx)+m)
	}
	return observe.Listener{
		Begin: func(ctx context.Context, c *observe.Call) context.Context {
			j.add("%s begin %s %q", name, c.Pipeline, marks(ctx))
			return mark(ctx, name)
		},
		Attempt: func(ctx context.Context, c *observe.Call, number int) (context.Context, func(observe.Result, error)) {
			j.add("%s attempt %d %q", name, number, marks(ctx))
			return mark(ctx, fmt.Sprint(number)), func(r observe.Result, err error) { j.add("%s attempt %d: %v, %v", name, number, r, err) }
		},
		Event: func(ctx context.Context, c *observe.Call, e observe.Event) {
			j.add("%s event %v layer %d %s %d %v %v %q", name, e.Kind, e.Layer, e.Policy, e.Attempt, e.Wait, e.Err, marks(ctx))
		},
		End: func(ctx context.Context, c *observe.Call) {
			j.add("%s end %v %v %d %v %q", name, c.Result, c.Err, c.Attempts, c.Duration, marks(ctx))
		},
	}
}

func TestListenerOrderAndContexts(t *testing.T) { // rule 6
	synctest.Test(t, func(t *testing.T) {
		var j journal
		o := observe.New(observe.Config{Listeners: []observe.Listener{j.listener("a"), j.listener("b")}})
		calls := 0
		p := o.Pipeline("p", retry.New(retry.Config{Backoff: retry.Constant(time.Second)}))
		_ = resilience.Run(t.Context(), p, func(context.Context) error {
			time.Sleep(time.Minute)
			if calls++; calls == 1 {
				return errBoom
			}
			return nil
		})
		equal(t, "calls of listeners", j.all(), []string{
			`a begin p ""`, `b begin p "a"`,
			`a attempt 1 "ab"`, `b attempt 1 "ab1"`, `b attempt 1: failure, boom`, `a attempt 1: failure, boom`,
			`a event retry layer 1 retry 2 1s boom "ab"`, `b event retry layer 1 retry 2 1s boom "ab"`,
			`a attempt 2 "ab"`, `b attempt 2 "ab2"`, `b attempt 2: success, <nil>`, `a attempt 2: success, <nil>`,
			`b end success <nil> 2 2m1s "ab"`, `a end success <nil> 2 2m1s "a"`,
		})
	})
}

func TestListenerNilContextChangesNothing(t *testing.T) { // rule 6
	type seen struct{ begin, attempt, event, end any }
	var got seen
	o := observe.New(observe.Config{Listeners: []observe.Listener{
		{
			Begin: func(context.Context, *observe.Call) context.Context { return nil },
			Attempt: func(context.Context, *observe.Call, int) (context.Context, func(observe.Result, error)) {
				return nil, nil
			},
		},
		{},
		{
			Begin: func(ctx context.Context, _ *observe.Call) context.Context {
				got.begin = ctx.Value(key("k"))
				return nil
			},
			Attempt: func(ctx context.Context, _ *observe.Call, _ int) (context.Context, func(observe.Result, error)) {
				got.attempt = ctx.Value(key("k"))
				return nil, nil
			},
			Event: func(ctx context.Context, _ *observe.Call, _ observe.Event) { got.event = ctx.Value(key("k")) },
			End:   func(ctx context.Context, _ *observe.Call) { got.end = ctx.Value(key("k")) },
		},
	}})
	again := policy(func(ctx context.Context, next resilience.Next) error {
		return errors.Join(next.Run(ctx), next.Run(ctx))
	})
	_ = resilience.Run(context.WithValue(t.Context(), key("k"), 1), o.Pipeline("p", again), fails(nil))
	if want := (seen{1, 1, 1, 1}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestListenerEventContext(t *testing.T) { // rule 6: that of the new run, otherwise of the policy
	var got []string
	o := observe.New(observe.Config{Listeners: []observe.Listener{{
		Event: func(ctx context.Context, _ *observe.Call, e observe.Event) {
			got = append(got, fmt.Sprint(e.Kind, ctx.Value(key("k"))))
		},
	}}})
	runs := 0
	again := policy(func(ctx context.Context, next resilience.Next) error {
		for range 2 {
			runs++
			_ = next.Run(context.WithValue(ctx, key("k"), runs))
		}
		return &typedError{"retry_exhausted"}
	})
	_ = resilience.Run(context.WithValue(t.Context(), key("k"), 0), o.Pipeline("p", again, returns(errBoom)), fails(nil))
	equal(t, "events", got, []string{"refusal 1", "retry 2", "refusal 2", "give_up 0"})
}

func TestListenerEventFields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []observe.Event
		o := observe.New(observe.Config{Listeners: []observe.Listener{{
			Event: func(_ context.Context, _ *observe.Call, e observe.Event) { got = append(got, e) },
		}}})
		hedges := hedge.New(hedge.Config{Name: "h", Delay: time.Second, Budget: budget.New(budget.Config{MinPerSecond: 10})})
		_ = resilience.Run(t.Context(), o.Pipeline("p", policy(pass), hedges), func(context.Context) error {
			time.Sleep(time.Minute)
			return nil
		})
		want := observe.Event{Kind: observe.Hedge, Layer: 2, Policy: "hedge", Name: "h", Attempt: 2, Wait: time.Second}
		if len(got) != 1 || got[0] != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		got = nil
		_ = resilience.Run(t.Context(), o.Pipeline("q", returns(errBoom)), fails(nil))
		want = observe.Event{Kind: observe.Refusal, Layer: 1, Policy: "resilience.PolicyFunc", Err: errBoom}
		if len(got) != 1 || got[0] != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
	})
}

func TestListenerAfterEndOnlyAttemptsEnd(t *testing.T) { // rule 5
	synctest.Test(t, func(t *testing.T) {
		var j journal
		o := observe.New(observe.Config{Listeners: []observe.Listener{j.listener("a")}})
		p := o.Pipeline("p",
			timeout.New(timeout.Config{Limit: time.Second, Abandon: 1}),
			retry.New(retry.Config{MaxAttempts: 3, Backoff: retry.Constant(time.Second)}),
			policy(func(ctx context.Context, next resilience.Next) error { return next.Run(context.WithoutCancel(ctx)) }))
		_ = resilience.Run(t.Context(), p, func(context.Context) error { time.Sleep(time.Minute); return errBoom })
		ended := len(j.all())
		time.Sleep(time.Hour)
		synctest.Wait()
		equal(t, "calls of listeners", j.all()[:ended], []string{
			`a begin p ""`, `a attempt 1 "a"`,
			`a event timeout layer 1 timeout 0 0s timeout: limit of 1s passed "a"`,
			`a end timed_out timeout: limit of 1s passed 1 1s "a"`,
		})
		equal(t, "later", j.all()[ended:], []string{`a attempt 1: failure, boom`})
		s := pipelineOf(t, o, "p")
		if got := counted(s); s.Attempts != 1 || len(got) != 1 || got[observe.TimedOut] != 1 || s.Running != 0 {
			t.Errorf("got %d attempts, %v, %d running, want 1, one timed_out, 0", s.Attempts, got, s.Running)
		}
	})
}

func TestListenerLatePartsCountOnce(t *testing.T) { // rule 5
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		results := map[string]int{}
		count := func(what string) {
			mu.Lock()
			defer mu.Unlock()
			results[what]++
		}
		o := observe.New(observe.Config{Listeners: []observe.Listener{{
			Attempt: func(_ context.Context, _ *observe.Call, number int) (context.Context, func(observe.Result, error)) {
				return nil, func(r observe.Result, _ error) { count(fmt.Sprint(number, " ", r)) }
			},
			Event: func(_ context.Context, _ *observe.Call, e observe.Event) { count(e.Kind.String()) },
		}}})
		hedges := hedge.New(hedge.Config{Delay: time.Second, Budget: budget.New(budget.Config{MinPerSecond: 10})})
		again := policy(func(ctx context.Context, next resilience.Next) error {
			_ = next.Run(ctx)
			time.Sleep(time.Second)
			return next.Run(ctx)
		})
		var starts atomic.Int32
		p := o.Pipeline("p", hedges, again)
		_ = resilience.Run(t.Context(), p, func(ctx context.Context) error {
			if starts.Add(1) == 1 {
				<-ctx.Done() // a loser
				return ctx.Err()
			}
			time.Sleep(time.Second)
			return nil
		})
		time.Sleep(time.Hour)
		synctest.Wait()
		// The first start makes its second run after the call has ended: it is counted, and no
		// listener receives it.
		want := map[string]int{"hedge": 1, "retry": 1, "1 canceled": 1, "2 success": 1, "3 success": 1}
		mu.Lock()
		defer mu.Unlock()
		if fmt.Sprint(results) != fmt.Sprint(want) {
			t.Errorf("got %v, want %v", results, want)
		}
		s := pipelineOf(t, o, "p")
		equal(t, "events", happened(s), []string{"1 hedge 1", "2 retry 2"})
		if s.Attempts != 4 || s.Layers[1].Passed != 4 {
			t.Errorf("got %d attempts, %d passed, want 4, 4", s.Attempts, s.Layers[1].Passed)
		}
	})
}

func TestListenerPanicIsTheCallsPanic(t *testing.T) { // rule 6
	for _, unwind := range []func(){func() { panic("listener") }, runtime.Goexit} {
		for _, where := range []string{"begin", "attempt", "attempt end", "event", "end"} {
			var ended []string
			end := func(name string) func(context.Context, *observe.Call) {
				return func(_ context.Context, c *observe.Call) { ended = append(ended, fmt.Sprint(name, " ", c.Result)) }
			}
			attemptEnds := 0
			at := func(here string) {
				if where == here {
					unwind()
				}
			}
			o := observe.New(observe.Config{Listeners: []observe.Listener{
				{End: end("first"), Attempt: func(context.Context, *observe.Call, int) (context.Context, func(observe.Result, error)) {
					return nil, func(observe.Result, error) { attemptEnds++ }
				}},
				{
					Begin: func(context.Context, *observe.Call) context.Context { at("begin"); return nil },
					Attempt: func(context.Context, *observe.Call, int) (context.Context, func(observe.Result, error)) {
						at("attempt")
						return nil, func(observe.Result, error) { at("attempt end") }
					},
					Event: func(context.Context, *observe.Call, observe.Event) { at("event") },
					End:   func(context.Context, *observe.Call) { at("end") },
				},
				{End: end("last")},
			}})
			room := bulkhead.New(bulkhead.Config{Limit: 1})
			again := policy(func(ctx context.Context, next resilience.Next) error {
				return errors.Join(next.Run(ctx), next.Run(ctx))
			})
			p := o.Pipeline("p", room, again)
			done := make(chan any)
			go func() {
				defer func() { done <- recover() }()
				_ = resilience.Run(context.Background(), p, fails(nil))
				done <- "returned"
			}()
			if got := <-done; got == "returned" {
				t.Errorf("%s: got a return, want a panic or Goexit", where)
			}
			want := []string{"last panicked", "first panicked"}
			switch where {
			case "begin":
				want = []string{"first panicked"}
			case "end":
				want = []string{"last success", "first success"}
			}
			equal(t, where+": ends", ended, want)
			s := pipelineOf(t, o, "p")
			if s.Running != 0 || uint64(attemptEnds) != s.Attempts {
				t.Errorf("%s: got %d running, %d of %d attempts ended, want 0, all", where, s.Running, attemptEnds, s.Attempts)
			}
			if err := resilience.Run(t.Context(), resilience.Pipeline{room}, fails(nil)); err != nil {
				t.Errorf("%s: got %v, want the permit back", where, err)
			}
		}
	}
}

func TestListenerIsNeverCalledConcurrentlyForOneCall(t *testing.T) { // rule 6
	var inside, calls atomic.Int32
	listen := func() {
		if inside.Add(1) != 1 {
			t.Error("got a concurrent call of a listener")
		}
		runtime.Gosched()
		calls.Add(1)
		inside.Add(-1)
	}
	o := observe.New(observe.Config{Listeners: []observe.Listener{{
		Begin: func(context.Context, *observe.Call) context.Context { listen(); return nil },
		Attempt: func(context.Context, *observe.Call, int) (context.Context, func(observe.Result, error)) {
			listen()
			return nil, func(observe.Result, error) { listen() }
		},
		Event: func(context.Context, *observe.Call, observe.Event) { listen() },
		End:   func(context.Context, *observe.Call) { listen() },
	}}})
	const forks = 50
	fan := policy(func(ctx context.Context, next resilience.Next) error {
		var g errgroup.Group
		for range forks {
			fork := next.Fork()
			g.Go(func() error { return fork.Run(ctx) })
		}
		return g.Wait()
	})
	_ = resilience.Run(t.Context(), o.Pipeline("p", fan, policy(pass)), fails(nil))
	// Begin and End, two for each attempt, and a Hedge or Retry for each fork except the first.
	if got, want := calls.Load(), int32(2+2*forks+forks-1); got != want {
		t.Errorf("got %d calls of listeners, want %d", got, want)
	}
}

func TestListenerMayMakeCallsAndSnapshots(t *testing.T) { // rule 6
	var o *observe.Observer
	var p resilience.Policy
	depth := 0
	var running []int
	o = observe.New(observe.Config{Listeners: []observe.Listener{{
		Event: func(context.Context, *observe.Call, observe.Event) {
			running = append(running, pipelineOf(t, o, "p").Running)
			if depth++; depth < 3 {
				_ = resilience.Run(t.Context(), p, fails(nil))
			}
		},
		End: func(context.Context, *observe.Call) { running = append(running, pipelineOf(t, o, "p").Running) },
	}}})
	p = o.Pipeline("p", returns(errBoom))
	_ = resilience.Run(t.Context(), p, fails(nil))
	equal(t, "running", running, []int{1, 2, 3, 2, 1, 0})
}

func TestListenerChangedOncePerChange(t *testing.T) {
	var got []resilience.Change
	changed := observe.Listener{Changed: func(c resilience.Change) { got = append(got, c) }}
	broken := observe.Listener{Changed: func(resilience.Change) { panic("listener") }}
	o := observe.New(observe.Config{Listeners: []observe.Listener{broken, changed}})
	b := breaker.New(breaker.Config{Name: "b", Consecutive: 1, OpenFor: time.Hour, MaxOpenFor: time.Hour})
	p := o.Pipeline("p", b, b)
	q := o.Pipeline("q", b)
	o.Watch(b)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("got no panic, want the listener's")
			}
		}()
		_ = resilience.Run(t.Context(), p, fails(errBoom))
	}()
	_ = q
	if len(got) != 1 || got[0].Name != "b" || got[0].To != "open" || got[0].Err != errBoom {
		t.Errorf("got %+v, want one change to open by %v", got, errBoom)
	}
}

func TestPipelineNestedIsOneLayer(t *testing.T) { // rule 7
	var j []string
	o := observe.New(observe.Config{Listeners: []observe.Listener{{
		Begin: func(_ context.Context, c *observe.Call) context.Context {
			j = append(j, "begin "+c.Pipeline)
			return nil
		},
		Event: func(_ context.Context, c *observe.Call, e observe.Event) {
			j = append(j, fmt.Sprint(c.Pipeline, " ", e.Layer, " ", e.Kind))
		},
		End: func(_ context.Context, c *observe.Call) { j = append(j, fmt.Sprint("end ", c.Pipeline, " ", c.Result)) },
	}}})
	inner := o.Pipeline("inner", retry.New(retry.Config{MaxAttempts: 2, Backoff: retry.Constant(0)}))
	outer := o.Pipeline("outer", policy(pass), resilience.Pipeline{resilience.Pipeline{}, inner}, policy(pass))
	_ = resilience.Run(t.Context(), outer, fails(errBoom))
	s := pipelineOf(t, o, "outer")
	equal(t, "outer events", happened(s), []string{"2 retry 1", "2 give_up 1"})
	equal(t, "inner events", happened(pipelineOf(t, o, "inner")), []string{"1 retry 1", "1 give_up 1"})
	equal(t, "listeners", j, []string{"begin outer", "begin inner", "inner 1 retry", "inner 1 give_up", "end inner failure", "end outer failure"})
	if l := s.Layers[1]; l.Kind != "pipeline" || l.Name != "inner" || l.Entered != 1 || l.Passed != 2 || s.Attempts != 2 {
		t.Errorf("got %+v, %d attempts, want layer 2 of kind pipeline, entered once, passed twice", l, s.Attempts)
	}
	if len(s.Layers) != 3 {
		t.Errorf("got %d layers, want 3", len(s.Layers))
	}
}

func TestPipelinePoliciesBehindItAreItsEffector(t *testing.T) { // rule 7
	o := observe.New(observe.Config{})
	p := o.Pipeline("p", policy(pass))
	again := retry.New(retry.Config{MaxAttempts: 3, Backoff: retry.Constant(0)})
	hedges := hedge.New(hedge.Config{Delay: time.Minute})
	_ = resilience.Run(t.Context(), resilience.Pipeline{p, again, hedges, p}, fails(errBoom))
	s := pipelineOf(t, o, "p")
	// The first p is run once, and the one behind it three times.
	if got := counted(s); got[observe.Failure] != 4 || s.Attempts != 4 || s.Layers[0].Entered != 4 || happened(s) != nil {
		t.Errorf("got %v, %d attempts, %v, want 4 failures without events", got, s.Attempts, happened(s))
	}
}

func TestPipelineTimeoutsOfNestedPipelines(t *testing.T) { // rules 1 and 7
	synctest.Test(t, func(t *testing.T) {
		o := observe.New(observe.Config{})
		inner := o.Pipeline("inner", retry.New(retry.Config{MaxAttempts: 2, Backoff: retry.Constant(0)}), timeout.After(time.Second))
		_ = resilience.Run(t.Context(), o.Pipeline("outer", inner), func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		for _, name := range []string{"inner", "outer"} {
			if got := counted(pipelineOf(t, o, name)); got[observe.TimedOut] != 1 {
				t.Errorf("%s: got %v, want one timed_out", name, got)
			}
		}
		// What is behind the pipeline is its effector, so its timeouts are failures.
		_ = resilience.Run(t.Context(), resilience.Pipeline{o.Pipeline("front", policy(pass)), inner}, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		if got := counted(pipelineOf(t, o, "front")); got[observe.Failure] != 1 {
			t.Errorf("got %v, want one failure", got)
		}
	})
}

func TestPipelineObservedTwice(t *testing.T) { // rule 7
	synctest.Test(t, func(t *testing.T) {
		a, b := observe.New(observe.Config{}), observe.New(observe.Config{})
		hedges := hedge.New(hedge.Config{Delay: time.Second, Budget: budget.New(budget.Config{MinPerSecond: 10})})
		p := a.Pipeline("a", hedges, policy(pass))
		for _, q := range []resilience.Policy{b.Pipeline("b", p), b.Pipeline("b", policy(pass), p)} {
			_ = resilience.Run(t.Context(), q, func(context.Context) error { time.Sleep(10 * time.Second); return nil })
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		equal(t, "a", happened(pipelineOf(t, a, "a")), []string{"1 hedge 2"})
		equal(t, "b", happened(pipelineOf(t, b, "b")), []string{"1 hedge 1", "2 hedge 1"})
		if got := pipelineOf(t, b, "b").Attempts; got != 4 {
			t.Errorf("got %d attempts, want 4", got)
		}
	})
}

func TestPipelineOnePolicyAtTwoPlaces(t *testing.T) {
	o := observe.New(observe.Config{})
	again := retry.New(retry.Config{MaxAttempts: 2, Backoff: retry.Constant(0)})
	_ = resilience.Run(t.Context(), o.Pipeline("p", again, policy(pass), again), fails(errBoom))
	equal(t, "events", happened(pipelineOf(t, o, "p")), []string{"1 retry 1", "1 give_up 1", "3 retry 2", "3 give_up 2"})
}

func TestPipelineCopiesItsList(t *testing.T) { // rule 7
	o := observe.New(observe.Config{})
	list := []resilience.Policy{policy(pass), resilience.Pipeline{policy(pass)}}
	p := o.Pipeline("p", list...)
	list[0], list[1].(resilience.Pipeline)[0] = nil, nil
	if err := resilience.Run(t.Context(), p, fails(nil)); err != nil {
		t.Errorf("got %v, want nil", err)
	}
}

func TestPipelinePanicsOnNil(t *testing.T) { // rule 7
	var none *retry.Retry
	o := observe.New(observe.Config{})
	for want, policies := range map[string][]resilience.Policy{
		"observe: Pipeline: policies[0] is nil (<nil>), must be a Policy":                    {nil},
		"observe: Pipeline: policies[1] is nil (*retry.Retry), must be a Policy":             {policy(pass), none},
		"observe: Pipeline: policies[0][1] is nil (resilience.PolicyFunc), must be a Policy": {resilience.Pipeline{policy(pass), policy(nil)}},
	} {
		func() {
			defer func() {
				if got := recover(); got != want {
					t.Errorf("got %v, want %v", got, want)
				}
			}()
			o.Pipeline("p", policies...)
		}()
	}
	func() {
		defer func() {
			if got, want := recover(), "observe: Watch: reporters[0] is nil (*retry.Retry), must be a Reporter"; got != want {
				t.Errorf("got %v, want %v", got, want)
			}
		}()
		o.Watch(none)
	}()
	if got := o.Snapshot(); len(got.Pipelines)+len(got.Policies) != 0 {
		t.Errorf("got %+v, want nothing", got)
	}
}

func TestPipelineRecoveredPanicIsAnotherRun(t *testing.T) {
	recovers := policy(func(ctx context.Context, next resilience.Next) (err error) {
		run := func() (err error) {
			defer func() {
				if recover() != nil {
					err = errBoom
				}
			}()
			return next.Run(ctx)
		}
		if err := run(); err != nil {
			return run()
		}
		return nil
	})
	for _, listeners := range [][]observe.Listener{nil, {{Event: func(context.Context, *observe.Call, observe.Event) {}}}} {
		o := observe.New(observe.Config{Listeners: listeners})
		inner := o.Pipeline("inner", policy(pass))
		runs := 0
		_ = resilience.Run(t.Context(), resilience.Pipeline{o.Pipeline("p", recovers, inner, policy(pass)), policy(pass)}, func(context.Context) error {
			if runs++; runs == 1 {
				panic("boom")
			}
			return nil
		})
		s := pipelineOf(t, o, "p")
		equal(t, "events", happened(s), []string{"1 retry 1"})
		if s.Attempts != 2 || counted(s)[observe.Success] != 1 {
			t.Errorf("got %+v, want 2 attempts, one success", s)
		}
		if got := counted(pipelineOf(t, o, "inner")); got[observe.Panicked] != 1 || got[observe.Success] != 1 {
			t.Errorf("got %v, want one panicked and one success", got)
		}
	}
}

// A policy that returns while it still runs the rest breaks its contract. The next call must not notice.
func TestPipelineOfPolicyThatReturnsEarlyHarmsNoOtherCall(t *testing.T) {
	o := observe.New(observe.Config{})
	started, release, ended := make(chan bool), make(chan bool), make(chan bool)
	runs := 0
	early := policy(func(ctx context.Context, next resilience.Next) error {
		if runs++; runs == 2 { // within the next call, the first one goes on
			close(release)
			<-ended
			return next.Run(ctx)
		}
		go func() {
			defer close(ended)
			_ = next.Run(ctx)
		}()
		<-started
		return nil
	})
	p := o.Pipeline("p", early, policy(pass), policy(pass))
	_ = resilience.Run(t.Context(), p, func(context.Context) error {
		close(started)
		<-release
		return errBoom
	})
	if err := resilience.Run(t.Context(), p, fails(nil)); err != nil {
		t.Errorf("got %v, want nil", err)
	}
	s := pipelineOf(t, o, "p")
	if got := counted(s); got[observe.Success] != 2 || s.Attempts != 2 || s.Running != 0 || happened(s) != nil {
		t.Errorf("got %v, %d attempts, %d running, %v, want 2 successes, 2, 0, no events", got, s.Attempts, s.Running, happened(s))
	}
}

func TestPipelineOfManyLayers(t *testing.T) {
	for _, n := range []int{0, 1, 30, 31, 32, 33, 100, 254, 255, 256, 257, 300} {
		for _, listeners := range [][]observe.Listener{nil, {{Event: func(context.Context, *observe.Call, observe.Event) {}}}} {
			o := observe.New(observe.Config{Listeners: listeners})
			policies := slices.Repeat([]resilience.Policy{policy(pass)}, n)
			if n > 0 {
				policies[n-1] = policy(func(ctx context.Context, next resilience.Next) error {
					_ = next.Run(ctx)
					fork := next.Fork()
					return fork.Run(ctx)
				})
			}
			p := o.Pipeline("p", policies...)
			_ = resilience.Run(t.Context(), p, fails(nil))
			_ = resilience.Run(t.Context(), p, fails(errBoom))
			s := pipelineOf(t, o, "p")
			if len(s.Layers) != n || n > 0 && (s.Layers[n-1].Entered != 2 || s.Layers[n-1].Passed != 4 || s.Layers[n-1].Events[observe.Retry] != 2) || s.Attempts != uint64(2+2*min(n, 1)) {
				t.Errorf("%d layers: got %+v", n, s)
			}
		}
	}
}
