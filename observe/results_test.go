package observe_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/hedge"
	"github.com/effector-go/resilience/observe"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

var errBoom = errors.New("boom")

// policy is a user-written policy.
type policy = resilience.PolicyFunc

func pass(ctx context.Context, next resilience.Next) error { return next.Run(ctx) }

// returns returns a policy that makes no call.
func returns(err error) policy {
	return func(context.Context, resilience.Next) error { return err }
}

func fails(err error) func(context.Context) error { return func(context.Context) error { return err } }

// a typedError has an ErrorType.
type typedError struct{ name string }

func (e *typedError) Error() string     { return e.name }
func (e *typedError) ErrorType() string { return e.name }

// pipelineOf returns the snapshot of the pipeline of the name.
func pipelineOf(t *testing.T, o *observe.Observer, name string) observe.PipelineSnapshot {
	t.Helper()
	for _, p := range o.Snapshot().Pipelines {
		if p.Name == name {
			return p
		}
	}
	t.Fatalf("got no pipeline %q", name)
	return observe.PipelineSnapshot{}
}

// counted returns the results of a pipeline's calls, without zeros.
func counted(p observe.PipelineSnapshot) map[observe.Result]uint64 {
	n := map[observe.Result]uint64{}
	for r, h := range p.Calls {
		if h.Count > 0 {
			n[r] = h.Count
		}
	}
	return n
}

// happened returns the events of a pipeline by layer, such as "2 retry 1".
func happened(p observe.PipelineSnapshot) (events []string) {
	for _, l := range p.Layers {
		for kind := observe.Refusal; kind <= observe.GiveUp; kind++ {
			if n := l.Events[kind]; n > 0 {
				events = append(events, fmt.Sprintf("%d %v %d", l.Position, kind, n))
			}
		}
	}
	return events
}

func equal[T comparable](t *testing.T, what string, got, want []T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func TestPipelineResultIsFirstThatMatches(t *testing.T) { // rule 1
	var cancel context.CancelFunc
	endContext := func(err error) func(context.Context) error {
		return func(context.Context) error { cancel(); return err }
	}
	again := func(n int) policy {
		return func(ctx context.Context, next resilience.Next) (err error) {
			for range n {
				err = next.Run(ctx)
			}
			return err
		}
	}
	wrap := policy(func(ctx context.Context, next resilience.Next) error {
		return fmt.Errorf("wrapped: %w", next.Run(ctx))
	})
	replace := policy(func(ctx context.Context, next resilience.Next) error {
		_ = next.Run(ctx)
		return errBoom
	})
	keepFirst := policy(func(ctx context.Context, next resilience.Next) (first error) {
		for range 20 {
			if err := next.Run(ctx); first == nil {
				first = err
			}
		}
		return first
	})
	limit := policy(func(ctx context.Context, next resilience.Next) error {
		_ = next.Run(ctx)
		return &typedError{"timeout"}
	})
	refusal := fmt.Errorf("closed: %w", resilience.ErrRefused)
	for _, c := range []struct {
		name     string
		policies []resilience.Policy
		effector func(context.Context) error
		want     observe.Result
	}{
		{"nil", nil, fails(nil), observe.Success},
		{"error", nil, fails(errBoom), observe.Failure},
		{"NotFailure", nil, fails(resilience.NotFailure(errBoom)), observe.Success},
		{"NotFailure under NotMade", nil, fails(resilience.NotMade(resilience.NotFailure(errBoom))), observe.Success},
		{"wrapped NotFailure", nil, fails(fmt.Errorf("x: %w", resilience.NotFailure(errBoom))), observe.Failure},
		{"success after the context ended", nil, endContext(nil), observe.Success},
		{"context ended", nil, endContext(errBoom), observe.Canceled},
		{"refused", []resilience.Policy{returns(refusal)}, fails(nil), observe.Refused},
		{"refused by another error", []resilience.Policy{returns(errBoom)}, fails(nil), observe.Failure},
		{"refused by the effector", nil, fails(refusal), observe.Failure},
		{"refused after an attempt", []resilience.Policy{again(2), policyTimes(1, returns(refusal))}, fails(errBoom), observe.Failure},
		{"no call, no error", []resilience.Policy{returns(nil)}, fails(errBoom), observe.Success},
		{"timed out", []resilience.Policy{limit}, fails(errBoom), observe.TimedOut},
		{"timed out, wrapped", []resilience.Policy{wrap, limit}, fails(errBoom), observe.TimedOut},
		{"timed out, then canceled", []resilience.Policy{limit}, endContext(errBoom), observe.TimedOut},
		{"timed out first of many", []resilience.Policy{keepFirst, limit}, fails(errBoom), observe.TimedOut},
		{"timed out, exhausted", []resilience.Policy{retry.New(retry.Config{Backoff: retry.Constant(0)}), limit}, fails(errBoom), observe.TimedOut},
		{"timed out, error lost", []resilience.Policy{replace, limit}, fails(errBoom), observe.Failure},
		{"timeout of the effector", []resilience.Policy{policy(pass)}, fails(&typedError{"timeout"}), observe.Failure},
		{"timeout of the effector, retried", []resilience.Policy{again(2), policy(pass)}, fails(&typedError{"timeout"}), observe.Failure},
	} {
		var ctx context.Context
		ctx, cancel = context.WithCancel(t.Context())
		o := observe.New(observe.Config{})
		_ = resilience.Run(ctx, o.Pipeline("p", c.policies...), c.effector)
		if got := counted(pipelineOf(t, o, "p")); len(got) != 1 || got[c.want] != 1 {
			t.Errorf("%s: got %v, want one %v", c.name, got, c.want)
		}
		cancel()
	}
}

// policyTimes returns a policy that passes n runs on and then is like p.
func policyTimes(n int, p policy) policy {
	return func(ctx context.Context, next resilience.Next) error {
		if n--; n >= 0 {
			return next.Run(ctx)
		}
		return p(ctx, next)
	}
}

func TestPipelineResultOfContextEnd(t *testing.T) { // rule 1
	synctest.Test(t, func(t *testing.T) {
		o := observe.New(observe.Config{})
		p := o.Pipeline("p", policy(pass))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_ = resilience.Run(ctx, p, func(ctx context.Context) error { <-ctx.Done(); return errBoom })
		if got := counted(pipelineOf(t, o, "p")); got[observe.TimedOut] != 1 {
			t.Errorf("got %v, want one timed_out", got)
		}
		// A limit inside the pipeline is not the end of the context that the pipeline received.
		inner := policy(func(ctx context.Context, next resilience.Next) error {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			return next.Run(ctx)
		})
		_ = resilience.Run(t.Context(), o.Pipeline("inner", inner), func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		if got := counted(pipelineOf(t, o, "inner")); got[observe.Failure] != 1 {
			t.Errorf("got %v, want one failure", got)
		}
	})
}

func TestPipelineResultOfPanicAndGoexit(t *testing.T) { // rule 1
	for name, unwind := range map[string]func(){"panic": func() { panic("boom") }, "Goexit": runtime.Goexit} {
		o := observe.New(observe.Config{})
		for _, policies := range [][]resilience.Policy{nil, {policy(pass)}, {policy(pass), policy(pass)}} {
			done := make(chan bool)
			go func() {
				defer close(done)
				defer func() { _ = recover() }()
				_ = resilience.Run(context.Background(), o.Pipeline("p", policies...), func(context.Context) error { unwind(); return nil })
			}()
			<-done
		}
		p := pipelineOf(t, o, "p")
		if got := counted(p); len(got) != 1 || got[observe.Panicked] != 3 || p.Running != 0 || p.Attempts != 3 {
			t.Errorf("%s: got %v, %d running, %d attempts, want 3 panicked, 0, 3", name, got, p.Running, p.Attempts)
		}
	}
}

func TestPipelineEventsOfPolicies(t *testing.T) { // rule 2
	open := breaker.New(breaker.Config{})
	open.ForceOpen()
	sleep := func(ctx context.Context) error {
		select {
		case <-time.After(time.Minute):
		case <-ctx.Done():
		}
		return errBoom
	}
	immediate := retry.Config{MaxAttempts: 3, Backoff: retry.Constant(time.Second)}
	for _, c := range []struct {
		name     string
		policies []resilience.Policy
		effector func(context.Context) error
		want     []string
	}{
		{"success", []resilience.Policy{retry.New(immediate), timeout.After(time.Second)}, fails(nil), nil},
		{"retry", []resilience.Policy{policy(pass), retry.New(immediate)}, fails(errBoom), []string{"2 retry 2", "2 give_up 1"}},
		{"open breaker", []resilience.Policy{retry.New(immediate), open}, fails(nil), []string{"2 refusal 1"}},
		{"timeout", []resilience.Policy{timeout.After(time.Second)}, sleep, []string{"1 timeout 1"}},
		{"timeout of each attempt", []resilience.Policy{retry.New(immediate), timeout.After(time.Second)}, sleep,
			[]string{"1 retry 2", "1 give_up 1", "2 timeout 3"}},
		{"abandoned", []resilience.Policy{timeout.New(timeout.Config{Limit: time.Second, Abandon: 1})}, func(context.Context) error { time.Sleep(time.Minute); return nil }, []string{"1 timeout 1"}},
		{"hedge", []resilience.Policy{hedge.New(hedge.Config{Delay: time.Second, Budget: budget.New(budget.Config{MinPerSecond: 10})})}, sleep, []string{"1 hedge 1"}},
		{"hedge replaces a failed start", []resilience.Policy{hedge.New(hedge.Config{Delay: time.Second, Budget: budget.New(budget.Config{MinPerSecond: 10})})}, fails(errBoom), []string{"1 retry 1"}},
		{"fallback", []resilience.Policy{returns(nil)}, fails(nil), nil},
		{"error of its own after a run", []resilience.Policy{policy(func(ctx context.Context, next resilience.Next) error {
			_ = next.Run(ctx)
			return errBoom
		})}, fails(nil), nil},
		{"own error without a run", []resilience.Policy{returns(errBoom)}, fails(nil), []string{"1 refusal 1"}},
		{"own timeout without a run", []resilience.Policy{returns(&typedError{"timeout"})}, fails(nil), []string{"1 timeout 1"}},
		{"wrapped timeout without a run", []resilience.Policy{returns(fmt.Errorf("x: %w", &typedError{"timeout"}))}, fails(nil), []string{"1 refusal 1"}},
		{"timeout of the effector", []resilience.Policy{policy(pass), policy(pass)}, fails(&typedError{"timeout"}), nil},
		{"give-up of the effector", []resilience.Policy{policy(pass), policy(pass)}, fails(&typedError{"retry_exhausted"}), nil},
		{"timeouts, the first returned", []resilience.Policy{policy(func(ctx context.Context, next resilience.Next) (first error) {
			for range 20 {
				if err := next.Run(ctx); first == nil {
					first = err
				}
			}
			return first
		}), policy(func(context.Context, resilience.Next) error { return &typedError{"timeout"} })}, fails(nil), []string{"1 retry 19", "2 timeout 20"}},
		{"another run after a swallowed timeout", []resilience.Policy{
			policy(func(ctx context.Context, next resilience.Next) error {
				return errors.Join(next.Run(ctx), next.Run(ctx))
			}),
			policy(pass),
			policy(func(ctx context.Context, next resilience.Next) error { _ = next.Run(ctx); return nil }),
			returns(&typedError{"timeout"}),
		}, fails(nil), []string{"1 retry 1", "4 timeout 2"}},
		{"another run after a success", []resilience.Policy{policy(func(ctx context.Context, next resilience.Next) error {
			return errors.Join(next.Run(ctx), next.Run(ctx))
		})}, fails(nil), []string{"1 retry 1"}},
	} {
		for _, listeners := range [][]observe.Listener{nil, {{Event: func(context.Context, *observe.Call, observe.Event) {}}}} {
			synctest.Test(t, func(t *testing.T) {
				o := observe.New(observe.Config{Listeners: listeners})
				_ = resilience.Run(t.Context(), o.Pipeline("p", c.policies...), c.effector)
				equal(t, c.name, happened(pipelineOf(t, o, "p")), c.want)
				time.Sleep(time.Hour) // abandoned effectors end
				synctest.Wait()
			})
		}
	}
}

func TestPipelineRefusalNeedsLiveContextOrErrRefused(t *testing.T) { // rule 2
	refusal := fmt.Errorf("closed: %w", resilience.ErrRefused)
	for name, c := range map[string]struct {
		err  error
		want []string
	}{
		"context ended":             {errBoom, nil},
		"context ended, ErrRefused": {refusal, []string{"1 refusal 1"}},
	} {
		o := observe.New(observe.Config{})
		ctx, cancel := context.WithCancel(t.Context())
		_ = resilience.Run(ctx, o.Pipeline("p", policy(func(context.Context, resilience.Next) error {
			cancel()
			return c.err
		})), fails(nil))
		equal(t, name, happened(pipelineOf(t, o, "p")), c.want)
	}
}

func TestPipelineEventOfSentinelErrorInEachAttempt(t *testing.T) { // rule 2: per run, not per call
	sentinel := &typedError{"timeout"}
	o := observe.New(observe.Config{})
	p := o.Pipeline("p", retry.New(retry.Config{MaxAttempts: 3, Backoff: retry.Constant(0)}), policy(func(ctx context.Context, next resilience.Next) error {
		_ = next.Run(ctx)
		return sentinel
	}))
	_ = resilience.Run(t.Context(), p, fails(nil))
	equal(t, "events", happened(pipelineOf(t, o, "p")), []string{"1 retry 2", "1 give_up 1", "2 timeout 3"})
}

func TestPipelineCountsEachStartOfHedges(t *testing.T) { // rules 2 and 3
	synctest.Test(t, func(t *testing.T) {
		o := observe.New(observe.Config{})
		// The second start is refused while the first one runs; the third one runs beside it.
		var starts atomic.Int32
		door := policy(func(ctx context.Context, next resilience.Next) error {
			if starts.Add(1) == 2 {
				return resilience.ErrRefused
			}
			return next.Run(ctx)
		})
		p := o.Pipeline("p", hedge.New(hedge.Config{Delay: time.Second, Max: 2, Budget: budget.New(budget.Config{MinPerSecond: 10})}), door)
		_ = resilience.Run(t.Context(), p, func(context.Context) error { time.Sleep(10 * time.Second); return nil })
		time.Sleep(time.Hour)
		synctest.Wait()
		s := pipelineOf(t, o, "p")
		equal(t, "events", happened(s), []string{"1 hedge 2", "2 refusal 1"})
		if s.Attempts != 2 || s.Layers[1].Entered != 3 || s.Layers[0].Passed != 3 || s.Layers[1].Passed != 2 {
			t.Errorf("got %+v, want 2 attempts, 3 entries of layer 2", s)
		}
	})
}

func TestPipelineForkOfUserPolicyInNestedList(t *testing.T) { // rule 3
	forks := policy(func(ctx context.Context, next resilience.Next) error {
		a, b := next.Fork(), next.Fork()
		done := make(chan bool)
		go func() { defer close(done); _ = a.Run(ctx) }()
		_ = b.Run(ctx)
		<-done
		next.Adopt(a)
		return nil
	})
	// A policy that runs a list of its own: its parts are not layers.
	group := policy(func(ctx context.Context, next resilience.Next) error {
		return resilience.Pipeline{forks, policy(pass), policy(pass)}.Run(ctx, next)
	})
	o := observe.New(observe.Config{})
	_ = resilience.Run(t.Context(), o.Pipeline("p", policy(pass), group, policy(pass)), fails(nil))
	s := pipelineOf(t, o, "p")
	var n []uint64
	for _, l := range s.Layers {
		n = append(n, l.Entered, l.Passed, l.Events[observe.Retry]+l.Events[observe.Hedge])
	}
	equal(t, "entered, passed, additional runs", n, []uint64{1, 1, 0, 1, 2, 1, 2, 2, 0})
}

// A list is an error that can't be compared.
type list []error

func (list) Error() string     { return "list" }
func (list) ErrorType() string { return "timeout" }

func TestPipelineUncomparableErrors(t *testing.T) { // rule 4
	o := observe.New(observe.Config{})
	var inner error = list{errBoom}
	_ = resilience.Run(t.Context(), o.Pipeline("passed on", policy(pass), policy(pass)), fails(inner))
	equal(t, "passed on", happened(pipelineOf(t, o, "passed on")), nil)
	own := policy(func(ctx context.Context, next resilience.Next) error {
		_ = next.Run(ctx)
		return list{errBoom}
	})
	_ = resilience.Run(t.Context(), o.Pipeline("own", own, own), fails(inner))
	s := pipelineOf(t, o, "own")
	equal(t, "own", happened(s), []string{"1 timeout 1", "2 timeout 1"})
	if s.Calls[observe.TimedOut].Count != 1 {
		t.Errorf("got %v, want one timed_out", counted(s))
	}
}

func TestPipelineErrorMethodsMayPanic(t *testing.T) { // rule 4
	o := observe.New(observe.Config{})
	var broken *typedError // its methods panic
	_ = resilience.Run(t.Context(), o.Pipeline("p", policy(pass), returns(broken)), fails(nil))
	s := pipelineOf(t, o, "p")
	if s.Calls[observe.Failure].Count != 1 || s.Errors[observe.Failure].Type != "*observe_test.typedError" {
		t.Errorf("got %v, %+v, want one failure of the error's type", counted(s), s.Errors)
	}
}

func TestPipelineAttemptsAddNoMemory(t *testing.T) { // rule 4
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for name, listeners := range map[string][]observe.Listener{
		"no listener": nil,
		"listener": {{Event: func(context.Context, *observe.Call, observe.Event) {}, Attempt: func(context.Context, *observe.Call, int) (context.Context, func(observe.Result, error)) {
			return nil, func(observe.Result, error) {}
		}}},
	} {
		o := observe.New(observe.Config{Listeners: listeners})
		var before, after uint64
		attempts := 0
		again := policy(func(ctx context.Context, next resilience.Next) error {
			for attempts < 20_000 {
				fork := next.Fork()
				_ = fork.Run(ctx)
				_ = next.Run(ctx)
			}
			return nil
		})
		limit := policy(func(ctx context.Context, next resilience.Next) error {
			_ = next.Run(ctx)
			return &typedError{"timeout"}
		})
		_ = resilience.Run(t.Context(), o.Pipeline("p", again, limit), func(context.Context) error {
			switch attempts++; attempts {
			case 1000:
				before = heap()
			case 20_000:
				after = heap()
			}
			return errBoom
		})
		if after > before+100_000 {
			t.Errorf("%s: got %d bytes after 20,000 attempts, %d after 1,000, want no growth", name, after, before)
		}
	}
}

func TestPipelineKeepsValuesOfForks(t *testing.T) { // as a bare one does
	synctest.Test(t, func(t *testing.T) {
		var dropped []int
		drop := resilience.Discard(func(n int) { dropped = append(dropped, n) })
		hedges := hedge.New(hedge.Config{Delay: time.Second, Budget: budget.New(budget.Config{MinPerSecond: 10})})
		o := observe.New(observe.Config{})
		p := o.Pipeline("p", drop, o.Pipeline("inner", hedges, policy(pass)))
		var starts atomic.Int32
		value, err := resilience.Do(t.Context(), resilience.Pipeline{p, policy(pass)}, func(context.Context) (int, error) {
			n := starts.Add(1)
			time.Sleep(time.Duration(10-3*n) * time.Second)
			return int(n), nil
		})
		time.Sleep(time.Hour)
		synctest.Wait()
		if value != 2 || err != nil || !slices.Equal(dropped, []int{1}) {
			t.Errorf("got %d, %v, dropped %v, want 2, nil, [1]", value, err, dropped)
		}
	})
}

func TestPipelineAdoptsOnlyForksOfTheCall(t *testing.T) { // as a bare one does
	o := observe.New(observe.Config{})
	adopts := policy(func(ctx context.Context, next resilience.Next) error {
		var other resilience.Next
		_ = resilience.Run(ctx, policy(func(ctx context.Context, next resilience.Next) error { other = next.Fork(); return nil }), fails(nil))
		for _, foreign := range []resilience.Next{{}, other} {
			func() {
				defer func() {
					if got, want := recover(), "resilience: Adopt: fork is not a fork of this call"; got != want {
						t.Errorf("got %v, want %v", got, want)
					}
				}()
				next.Adopt(foreign)
			}()
		}
		fork := next.Fork()
		err := fork.Run(ctx)
		next.Adopt(fork)
		next.Adopt(fork)
		if next.Starts() != 1 {
			t.Errorf("got %d starts, want 1", next.Starts())
		}
		return err
	})
	if value, err := resilience.Do(t.Context(), o.Pipeline("p", adopts), func(context.Context) (int, error) { return 7, nil }); value != 7 || err != nil {
		t.Errorf("got %d, %v, want 7, nil", value, err)
	}
}

func TestPipelineRunBesideAnotherIsRetryAfterFailure(t *testing.T) { // rule 2
	for _, test := range []struct {
		second error
		want   []string
	}{{errBoom, []string{"1 retry 1", "1 hedge 1"}}, {nil, []string{"1 hedge 2"}}} {
		synctest.Test(t, func(t *testing.T) {
			threeRuns := policy(func(ctx context.Context, next resilience.Next) error {
				first, second, third := next.Fork(), next.Fork(), next.Fork()
				go first.Run(ctx)
				synctest.Wait()
				_ = second.Run(ctx)
				return third.Run(ctx)
			})
			o := observe.New(observe.Config{})
			var starts atomic.Int32
			_ = resilience.Run(t.Context(), o.Pipeline("p", threeRuns), func(context.Context) error {
				switch starts.Add(1) {
				case 1:
					time.Sleep(time.Second)
				case 2:
					return test.second
				}
				return nil
			})
			equal(t, fmt.Sprintf("events after %v", test.second), happened(pipelineOf(t, o, "p")), test.want)
			time.Sleep(time.Second)
		})
	}
}

func TestPipelineNextUsedAfterItsCallRunsInnerPolicies(t *testing.T) { // as a bare one does
	var late resilience.Next
	keeps := policy(func(ctx context.Context, next resilience.Next) error { late = next; return nil })
	entered := 0
	inner := policy(func(ctx context.Context, next resilience.Next) error { entered++; return next.Run(ctx) })
	o := observe.New(observe.Config{})
	_ = resilience.Run(t.Context(), o.Pipeline("p", keeps, inner), fails(errBoom))
	if err := late.Run(t.Context()); err != errBoom || entered != 1 {
		t.Errorf("got %v, %d runs of the inner policy, want boom, 1", err, entered)
	}
	if s := pipelineOf(t, o, "p"); s.Layers[1].Entered != 0 || s.Attempts != 0 {
		t.Errorf("got %+v, want what runs after the call not counted", s)
	}
}

func TestPipelineEventOfErrorThatIsLikeTheInnerOne(t *testing.T) { // rule 2: errors are compared, not their types
	o := observe.New(observe.Config{})
	p := o.Pipeline("p", policy(func(ctx context.Context, next resilience.Next) error {
		_ = next.Run(ctx)
		return &typedError{"timeout"}
	}))
	_ = resilience.Run(t.Context(), p, fails(&typedError{"timeout"}))
	equal(t, "events", happened(pipelineOf(t, o, "p")), []string{"1 timeout 1"})
}
