// Package observe compares what an observer counts with a ledger. Random pipelines run random calls;
// a spy inside each layer records independently what enters the layer, what its policy does with the
// rest of the pipeline, and what it returns.
package observe

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/bulkhead"
	"github.com/effector-go/resilience/hedge"
	"github.com/effector-go/resilience/observe"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// A node is a policy of a random pipeline: what it does, and on which of its runs.
type node struct {
	kind  string
	n     int
	inner []node // of a pipeline
}

func (n node) String() string {
	if n.kind == "pipeline" {
		return fmt.Sprint(n.inner)
	}
	return fmt.Sprint(n.kind, n.n)
}

// A start is what one start of the effector does.
type start struct {
	outcome string
	takes   time.Duration
	deaf    bool // ignores its context
}

type scenario struct {
	policies  []node
	starts    []start
	calls     int
	gap       time.Duration // between calls
	endsAt    time.Duration // of each caller's context; 0: never
	deadline  bool
	listening bool
}

var kinds = []string{
	"pass", "retry", "retry", "hedge", "limit", "abandon", "bulkhead", "refuse", "again", "fan", "leave",
	"panic", "goexit", "recover", "own error", "own timeout", "fallback", "shared retry", "shared hedge",
}

func drawNodes(t *rapid.T, depth int) (nodes []node) {
	from := kinds
	if depth > 0 {
		from = append(slices.Clone(kinds), "pipeline", "pipeline", "pipeline")
	}
	for range rapid.IntRange(0, 4).Draw(t, "policies") {
		n := node{kind: rapid.SampledFrom(from).Draw(t, "kind"), n: rapid.IntRange(1, 3).Draw(t, "n")}
		if n.kind == "pipeline" {
			n.inner = drawNodes(t, depth-1)
		}
		nodes = append(nodes, n)
	}
	return nodes
}

func draw(t *rapid.T) scenario {
	s := scenario{
		policies:  drawNodes(t, 2),
		calls:     rapid.IntRange(1, 4).Draw(t, "calls"),
		gap:       time.Duration(rapid.IntRange(0, 3000).Draw(t, "gap")) * time.Millisecond,
		deadline:  rapid.Bool().Draw(t, "deadline"),
		listening: rapid.Bool().Draw(t, "listening"),
	}
	if rapid.Bool().Draw(t, "ends") {
		s.endsAt = time.Duration(rapid.IntRange(1, 5000).Draw(t, "endsAt"))*time.Millisecond + 7
	}
	for range rapid.IntRange(1, 6).Draw(t, "starts") {
		s.starts = append(s.starts, start{
			rapid.SampledFrom([]string{"ok", "failed", "failed", "not failure", "timeout", "panic", "goexit"}).Draw(t, "outcome"),
			time.Duration(rapid.IntRange(0, 3000).Draw(t, "takes"))*time.Millisecond + 1,
			rapid.Bool().Draw(t, "deaf"),
		})
	}
	return s
}

// A typed error has the type of a timeout.
type typed struct{ by string }

func (e *typed) Error() string   { return "limit of " + e.by }
func (*typed) ErrorType() string { return "timeout" }

var errRefused = fmt.Errorf("full: %w", resilience.ErrRefused)

// A pipe is an observed pipeline, and its ledger.
type pipe struct {
	name     string
	places   []*place
	policy   resilience.Policy
	calls    int
	attempts int
}

// A place is a layer with a spy, and its ledger. A spell is one run of the policy.
type place struct {
	policy  resilience.Policy
	nested  *pipe
	entered int
	passed  int
	events  [5]int
}

type spell struct {
	runs, running int
	failed        bool // a made run has failed since the latest one began
	errs          []error
}

// A call is the ledger of one call of the outermost pipeline.
type call struct {
	attempts int
	timeouts []error
}

type callKey struct{}

// A world is a scenario that runs. Its mutex guards the ledger.
type world struct {
	scenario
	mu       sync.Mutex
	o        [2]*observe.Observer
	pipes    []*pipe
	begun    int // starts of the effector
	shared   map[string]resilience.Policy
	heard    map[string]int
	ended    map[*observe.Call]bool
	fault    string
	canPanic bool // no policy forks, so each panic has a caller to go to
}

func (w *world) listener() observe.Listener {
	count := func(c *observe.Call, what string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.ended[c] && what != "attempt ends" {
			w.fault = what + " after End"
		}
		w.heard[what]++
		if what == "end" {
			w.ended[c] = true
		}
	}
	return observe.Listener{
		Begin: func(_ context.Context, c *observe.Call) context.Context { count(c, "begin"); return nil },
		Attempt: func(_ context.Context, c *observe.Call, _ int) (context.Context, func(observe.Result, error)) {
			count(c, "attempt")
			return nil, func(observe.Result, error) { count(c, "attempt ends") }
		},
		Event: func(_ context.Context, c *observe.Call, e observe.Event) { count(c, "event") },
		End:   func(_ context.Context, c *observe.Call) { count(c, "end") },
	}
}

// build creates the pipeline of the nodes. Each observer observes every other level.
func (w *world) build(nodes []node, depth int) *pipe {
	p := &pipe{name: fmt.Sprint("p", len(w.pipes))}
	w.pipes = append(w.pipes, p)
	var policies []resilience.Policy
	for _, n := range nodes {
		at := &place{}
		if n.kind == "pipeline" {
			at.nested = w.build(n.inner, depth+1)
			at.policy = at.nested.policy
		} else {
			at.policy = w.policy(n)
		}
		p.places = append(p.places, at)
		policies = append(policies, w.spy(p, at, len(p.places)-1))
	}
	p.policy = w.o[depth%2].Pipeline(p.name, policies...)
	return p
}

// spy returns a policy that is like that of the place, and records what it does.
func (w *world) spy(p *pipe, at *place, index int) resilience.Policy {
	return resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) (err error) {
		if index > 0 {
			leave := w.enter(ctx, p.places[index-1], next)
			returned := false
			defer func() { leave(returned, err) }()
			defer func() { returned = err != nil || returned }()
			err = w.run(ctx, next, at)
			returned = true
			return err
		}
		return w.run(ctx, next, at)
	})
}

// enter records that the place's policy, and the innermost ones of the pipelines nested there, run
// the rest.
func (w *world) enter(ctx context.Context, at *place, next resilience.Next) (leave func(returned bool, err error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var spells []*spell
	for at != nil {
		s := ctx.Value(at).(*spell)
		at.passed++
		if s.runs > 0 {
			if s.running > 0 && !s.failed {
				at.events[observe.Hedge]++
			} else {
				at.events[observe.Retry]++
			}
		}
		s.runs++
		s.running++
		s.failed = false
		spells = append(spells, s)
		inner := at.nested
		at = nil
		if inner != nil {
			inner.attempts++
			if n := len(inner.places); n > 0 {
				at = inner.places[n-1]
			}
		}
	}
	starts := next.Starts()
	return func(returned bool, err error) {
		made := next.Starts() > starts
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, s := range spells {
			s.running--
			s.failed = s.failed || made && (!returned || err != nil)
			if err != nil {
				s.errs = append(s.errs, err)
			}
		}
	}
}

// run runs the place's policy in a new spell.
func (w *world) run(ctx context.Context, next resilience.Next, at *place) error {
	w.mu.Lock()
	s := &spell{}
	at.entered++
	if at.nested != nil {
		at.nested.calls++
	}
	w.mu.Unlock()
	err := at.policy.Run(context.WithValue(ctx, at, s), next)
	if err == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	name := ""
	if e, ok := err.(interface{ ErrorType() string }); ok {
		name = e.ErrorType()
	}
	own := !slices.Contains(s.errs, err)
	switch {
	case name == "timeout":
		if own {
			at.events[observe.Timeout]++
			c := ctx.Value(callKey{}).(*call)
			c.timeouts = append(c.timeouts, err)
		}
	case name == "retry_exhausted":
		if own {
			at.events[observe.GiveUp]++
		}
	case s.runs == 0 && (ctx.Err() == nil || errors.Is(err, resilience.ErrRefused)):
		at.events[observe.Refusal]++
	}
	return err
}

func (w *world) policy(n node) resilience.Policy {
	type F = resilience.PolicyFunc
	runs := 0
	nth := func() bool { // reports whether this is an n-th run
		w.mu.Lock()
		defer w.mu.Unlock()
		runs++
		return runs%n.n == 0
	}
	switch n.kind {
	case "shared retry", "shared hedge":
		if w.shared[n.kind] == nil {
			w.shared[n.kind] = w.policy(node{kind: n.kind[len("shared "):], n: 2})
		}
		return w.shared[n.kind]
	case "retry":
		return retry.New(retry.Config{MaxAttempts: n.n, Backoff: retry.Constant(300 * time.Millisecond), RetryRefused: n.n == 3, MaxElapsed: 5 * time.Second})
	case "hedge":
		return hedge.New(hedge.Config{Delay: time.Duration(n.n) * 400 * time.Millisecond, Max: n.n, Budget: budget.New(budget.Config{MinPerSecond: 100})})
	case "limit":
		return timeout.After(time.Duration(n.n) * 500 * time.Millisecond)
	case "abandon":
		return timeout.New(timeout.Config{Limit: time.Duration(n.n) * 500 * time.Millisecond, Abandon: n.n})
	case "bulkhead":
		return bulkhead.New(bulkhead.Config{Limit: 1, Queue: n.n - 1, MaxWait: time.Second})
	case "refuse":
		return F(func(ctx context.Context, next resilience.Next) error {
			if nth() {
				return errRefused
			}
			return next.Run(ctx)
		})
	case "again":
		return F(func(ctx context.Context, next resilience.Next) (err error) {
			for range n.n {
				err = next.Run(ctx)
			}
			return err
		})
	case "fan", "leave": // leave doesn't wait for all of its forks, nor adopt them
		return F(func(ctx context.Context, next resilience.Next) error {
			results := make(chan error, n.n)
			for range n.n {
				fork := next.Fork()
				go func() {
					var err error
					defer func() {
						if v := recover(); v != nil {
							err = fmt.Errorf("fork: %v", v)
						}
						results <- err
					}()
					err = fork.Run(ctx)
				}()
				time.Sleep(200 * time.Millisecond)
			}
			if n.kind == "leave" {
				return <-results
			}
			var err error
			for range n.n {
				err = <-results
			}
			return err
		})
	case "panic", "goexit":
		return F(func(ctx context.Context, next resilience.Next) error {
			switch {
			case !nth() || n.n == 1:
			case next.Forked(): // a panic may have no caller to go to
				runtime.Goexit()
			default:
				unwind(n.kind)
			}
			return next.Run(ctx)
		})
	case "recover":
		return F(func(ctx context.Context, next resilience.Next) (err error) {
			for range n.n {
				func() {
					defer func() {
						if recover() != nil {
							err = errors.New("recovered")
						}
					}()
					err = next.Run(ctx)
				}()
			}
			return err
		})
	case "own error":
		return F(func(ctx context.Context, next resilience.Next) error {
			if n.n == 1 {
				return errors.New("own")
			}
			return errors.Join(errors.New("own"), next.Run(ctx))
		})
	case "own timeout":
		return F(func(ctx context.Context, next resilience.Next) error {
			if err := next.Run(ctx); err != nil {
				return &typed{"policy"}
			}
			return nil
		})
	case "fallback":
		return F(func(ctx context.Context, next resilience.Next) error {
			if nth() {
				return nil
			}
			return next.Run(ctx)
		})
	}
	return F(func(ctx context.Context, next resilience.Next) error { return next.Run(ctx) })
}

// forks reports whether a policy may run the call on another goroutine.
func forks(nodes []node) bool {
	return slices.ContainsFunc(nodes, func(n node) bool {
		return forks(n.inner) || slices.Contains([]string{"hedge", "shared hedge", "abandon", "fan", "leave"}, n.kind)
	})
}

func unwind(kind string) {
	if kind == "panic" {
		panic("unwound")
	}
	runtime.Goexit()
}

// effector is what is inside all pipelines.
func (w *world) effector(ctx context.Context) error {
	w.mu.Lock()
	s := w.starts[min(w.begun, len(w.starts)-1)]
	w.begun++
	w.mu.Unlock()
	if s.deaf {
		time.Sleep(s.takes)
	} else {
		select {
		case <-time.After(s.takes):
		case <-ctx.Done():
			return fmt.Errorf("effector: %w", ctx.Err())
		}
	}
	switch s.outcome {
	case "ok":
		return nil
	case "not failure":
		return resilience.NotFailure(errors.New("not found"))
	case "timeout":
		return &typed{"effector"}
	case "panic", "goexit":
		if w.canPanic {
			unwind(s.outcome)
		}
		runtime.Goexit()
	}
	return errors.New("failed")
}

// inside is a policy behind the outermost pipeline: it sees its attempts.
func (w *world) inside(outer *pipe) resilience.Policy {
	return resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) (err error) {
		w.mu.Lock()
		outer.attempts++
		ctx.Value(callKey{}).(*call).attempts++
		w.mu.Unlock()
		n := len(outer.places)
		if n == 0 {
			return next.Run(ctx)
		}
		leave := w.enter(ctx, outer.places[n-1], next)
		returned := false
		defer func() { leave(returned, err) }()
		err = next.Run(ctx)
		returned = true
		return err
	})
}

// one makes one call, and returns its result by the rules.
func (w *world) one(outer *pipe) observe.Result {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if w.endsAt > 0 && w.deadline {
		ctx, cancel = context.WithTimeout(ctx, w.endsAt)
		defer cancel()
	} else if w.endsAt > 0 {
		defer time.AfterFunc(w.endsAt, cancel).Stop()
	}
	w.mu.Lock()
	outer.calls++
	w.mu.Unlock()
	c := &call{}
	var err error
	returned := false
	var ended error // of the context, when the call ended
	done := make(chan bool)
	go func() {
		defer close(done)
		defer func() { _ = recover() }()
		err = resilience.Run(context.WithValue(ctx, callKey{}, c), resilience.Pipeline{outer.policy, w.inside(outer)}, w.effector)
		ended = ctx.Err()
		returned = true
	}()
	<-done
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case !returned:
		return observe.Panicked
	case err == nil || resilienceNotFailure(err):
		return observe.Success
	case slices.ContainsFunc(c.timeouts, func(e error) bool { return errors.Is(err, e) }):
		return observe.TimedOut
	case c.attempts == 0 && errors.Is(err, resilience.ErrRefused):
		return observe.Refused
	case ended == context.DeadlineExceeded:
		return observe.TimedOut
	case ended != nil:
		return observe.Canceled
	}
	return observe.Failure
}

// resilienceNotFailure reports whether err is the effector's NotFailure, which no policy here wraps.
func resilienceNotFailure(err error) bool { return err.Error() == "not found" }

// check runs the scenario and returns what is wrong with the observers' books.
func (s scenario) check() (wrong string) {
	w := &world{scenario: s, shared: map[string]resilience.Policy{}, heard: map[string]int{}, ended: map[*observe.Call]bool{}}
	var config observe.Config
	if s.listening {
		config.Listeners = []observe.Listener{w.listener()}
	}
	w.canPanic = !forks(s.policies)
	w.o = [2]*observe.Observer{observe.New(config), observe.New(config)}
	outer := w.build(s.policies, 0)
	results := map[observe.Result]int{}
	var group sync.WaitGroup
	for range s.calls {
		group.Go(func() {
			r := w.one(outer)
			w.mu.Lock()
			defer w.mu.Unlock()
			results[r]++
		})
		time.Sleep(s.gap)
		w.snapshots()
	}
	group.Wait()
	time.Sleep(time.Hour) // late parts end
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	found := map[string]observe.PipelineSnapshot{}
	for _, p := range w.snapshots() {
		found[p.Name] = p
	}
	for _, p := range w.pipes {
		if wrong := p.compare(found[p.name]); wrong != "" {
			return fmt.Sprintf("pipeline %s: %s", p.name, wrong)
		}
	}
	for r, h := range found[outer.name].Calls {
		if int(h.Count) != results[r] {
			return fmt.Sprintf("got %d %v, want %d of %v", h.Count, r, results[r], results)
		}
	}
	calls, attempts := 0, 0
	for _, p := range w.pipes {
		calls += p.calls
		attempts += p.attempts
	}
	if h := w.heard; s.listening && (h["begin"] != calls || h["end"] != calls || h["attempt"] != h["attempt ends"] || h["attempt"] > attempts) {
		return fmt.Sprintf("got %v from listeners, want %d calls, at most %d attempts", h, calls, attempts)
	}
	runtime.KeepAlive(outer)
	return w.fault
}

func (w *world) snapshots() []observe.PipelineSnapshot {
	return append(w.o[0].Snapshot().Pipelines, w.o[1].Snapshot().Pipelines...)
}

// compare returns how the books differ from the ledger.
func (p *pipe) compare(s observe.PipelineSnapshot) string {
	calls := 0
	for _, h := range s.Calls {
		calls += int(h.Count)
	}
	if s.Running != 0 || calls != p.calls || int(s.Attempts) != p.attempts || len(s.Layers) != len(p.places) {
		return fmt.Sprintf("got %d running, %d calls, %d attempts, %d layers, want 0, %d, %d, %d", s.Running, calls, s.Attempts, len(s.Layers), p.calls, p.attempts, len(p.places))
	}
	for i, at := range p.places {
		l := s.Layers[i]
		if int(l.Entered) != at.entered || int(l.Passed) != at.passed {
			return fmt.Sprintf("layer %d: got %d entered, %d passed, want %d, %d", i+1, l.Entered, l.Passed, at.entered, at.passed)
		}
		for kind, n := range at.events {
			if got := l.Events[observe.EventKind(kind)]; int(got) != n {
				return fmt.Sprintf("layer %d: got %d of %v, want %d", i+1, got, observe.EventKind(kind), n)
			}
		}
	}
	return ""
}

func TestObserverBooksBalance(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := draw(rt)
		var wrong string
		synctest.Test(t, func(*testing.T) { wrong = s.check() })
		if wrong != "" {
			rt.Fatalf("%+v: %s", s, wrong)
		}
	})
}
