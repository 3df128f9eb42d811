package observe

import (
	"context"
	"reflect"
	"slices"
	"sync"
	"time"
	"unsafe"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/clock"
	"github.com/effector-go/resilience/internal/mark"
	"github.com/effector-go/resilience/internal/watch"
)

// A callState is what a pipeline keeps of one call, with all its forks, if watch.Run isn't
// sufficient: for listeners, and once the call was forked or an error must be remembered.
type callState struct {
	pipeline *pipeline

	mu       sync.Mutex // guards attempts, timeouts, and the spells of all forks
	attempts int        // runs of what is inside the pipeline
	timeouts errorSet   // of errors that policies of the pipeline have created

	// listening is held while listeners are called, so that they are never called concurrently for
	// one call. It guards the following. Only Begin is called without it: the call has no other
	// goroutine yet.
	listening sync.Mutex
	Call      Call
	contexts  []context.Context // that each listener's Begin returned; as many as have begun
	ended     bool              // End of the listeners is next, or was called
}

// An extra is what a pipeline keeps for one call or fork in addition to its watch.Run. Like that, only
// the goroutine that holds the call or the fork uses it; what call and spells point to is shared.
type extra struct {
	call   *callState
	spells []*spell // by position: of the latest run of each policy; nil while watch.Run is sufficient
	own    []spell  // with listeners: the first spell of each policy, in one allocation; otherwise nil
}

// A spell is one run of a policy, in which it may run the rest of the pipeline several times. Forks
// that the policy makes share it. The call's mu guards it, except shared.
type spell struct {
	// shared is true if a fork has the spell too. The goroutine that runs the policy sets it before
	// the first fork runs. From then on, it is only read.
	shared  bool
	runs    int      // of the rest, so far
	running int      // how many of these have not ended
	failed  bool     // a run that started the effector has failed since the latest run began
	began   int64    // when the latest run began
	ended   int64    // when the run that ended last did
	err     error    // of the run that ended last
	inner   errorSet // of errors with a type that matters that the runs returned: the policy did not create them
}

// extraOf returns the extra of a run, created if necessary.
func extraOf(run *watch.Run) *extra {
	if x, ok := run.Watcher.(*extra); ok {
		return x
	}
	settle(run)
	p := run.Watcher.(*pipeline)
	x := &extra{call: &callState{pipeline: p}, spells: make([]*spell, len(p.layers))}
	if run.Reached {
		x.call.attempts = 1
	}
	run.Watcher = x
	return x
}

// Fork implements [watch.Watcher].
func (p *pipeline) Fork(from, to *watch.Run, inside int) { extraOf(from).Fork(from, to, inside) }

// Fork implements [watch.Watcher]. The policy outside of the layer inside has forked the call, so
// the fork's run of the rest of the pipeline belongs to the policy's spell.
func (x *extra) Fork(from, to *watch.Run, inside int) {
	fork := &extra{call: x.call, spells: make([]*spell, len(x.spells))}
	if position := inside - 1; position > 0 {
		s := x.spell(from, position)
		if !s.shared { // otherwise other goroutines may be reading it
			s.shared = true
		}
		fork.spells[position] = s
	}
	to.Watcher, to.Front, to.Counts = fork, watch.Counted, from.Counts
}

// spell returns the current spell of the policy at position.
func (x *extra) spell(run *watch.Run, position int) *spell {
	if x.spells[position] == nil {
		if x.own != nil && !x.own[position].shared {
			x.spells[position] = &x.own[position]
		} else {
			x.spells[position] = &spell{}
		}
		if run.Ran&(1<<position) != 0 {
			x.spells[position].runs = 1
		}
	}
	return x.spells[position]
}

// renew begins the next spell of the policy at position.
func (x *extra) renew(run *watch.Run, position int) {
	if s := x.spells[position]; s != nil && s.shared {
		x.spells[position] = nil
	} else if s != nil {
		*s = spell{}
	}
	run.Ran &^= 1 << position
}

// runs returns how often the policy at position has run the rest in its current spell.
func (x *extra) runs(run *watch.Run, position int) int {
	s := x.spell(run, position)
	x.call.mu.Lock()
	defer x.call.mu.Unlock()
	return s.runs
}

// returned records that a run of the rest, made by the policy at position, has returned err.
func (x *extra) returned(run *watch.Run, position int, err error) {
	s := x.spell(run, position)
	x.call.mu.Lock()
	defer x.call.mu.Unlock()
	s.inner.add(err)
}

// begin records that the policy of the spell runs the rest. If that is a Retry or a Hedge, it returns
// the event.
func (c *callState) begin(s *spell, now int64) (e Event, happened bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.runs > 0 {
		happened = true
		if s.running > 0 && !s.failed {
			e = Event{Kind: Hedge, Attempt: s.runs + 1, Wait: time.Duration(now - s.began)}
		} else {
			e = Event{Kind: Retry, Attempt: s.runs + 1, Wait: time.Duration(now - s.ended), Err: s.err}
		}
	}
	s.runs++
	s.running++
	s.began, s.failed = now, false
	return e, happened
}

// end records that a run of the rest has ended.
func (c *callState) end(s *spell, now int64, failed bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.running--
	s.ended, s.err = now, err
	if failed {
		s.failed = true
	}
}

// tried returns how often what is inside the pipeline has run.
func (c *callState) tried() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.attempts
}

// timedOut reports whether err contains an error of a timeout of this pipeline.
func (c *callState) timedOut(err error) bool {
	c.mu.Lock()
	timeouts := c.timeouts
	c.mu.Unlock()
	return timeouts.anyIn(err)
}

// passTimeouts makes the timeouts' errors known to the call of an outer pipeline, if there is one.
func (c *callState) passTimeouts(outer *watch.Run) {
	c.mu.Lock()
	timeouts := c.timeouts
	c.mu.Unlock()
	if outer == nil || len(timeouts.errs) == 0 {
		return
	}
	x := extraOf(outer)
	x.call.mu.Lock()
	defer x.call.mu.Unlock()
	for _, err := range timeouts.errs {
		x.call.timeouts.add(err)
	}
}

// now returns the time if listeners need it.
func (l *layer) now() int64 {
	if l.pipeline.observer.hasEvent {
		return clock.Now()
	}
	return 0
}

// runExtra does what Counted does, for a call with an extra.
func (l *layer) runExtra(ctx context.Context, next resilience.Next, run *watch.Run, x *extra) (err error) {
	if l.above == nil {
		return l.runPolicy(ctx, next, run, x)
	}
	s := x.spell(run, l.above.position)
	e, again := x.call.begin(s, l.now())
	starts, returned := next.Starts(), false
	defer func() { // panics and Goexit too
		failed := (!returned || err != nil) && next.Starts() > starts
		x.call.end(s, l.now(), failed, err)
	}()
	if again {
		l.above.report(ctx, run, e)
	}
	err = l.runPolicy(ctx, next, run, x)
	returned = true
	return err
}

// runPolicy runs the policy, or what is inside the pipeline, once.
func (l *layer) runPolicy(ctx context.Context, next resilience.Next, run *watch.Run, x *extra) (err error) {
	l.pipeline.tally.enter(run, l.position)
	if l.policy == nil {
		err = x.call.attempt(ctx, next)
	} else {
		x.renew(run, l.position)
		err = l.policy.Run(ctx, next)
	}
	if err != nil {
		l.Failed(ctx, run, err)
	}
	return err
}

// attempt runs what is inside the pipeline.
func (c *callState) attempt(ctx context.Context, next resilience.Next) (err error) {
	c.mu.Lock()
	c.attempts++
	number := c.attempts
	c.mu.Unlock()
	if !c.pipeline.observer.hasAttempt {
		return calls.Inside(ctx, next)
	}
	var ends []func(Result, error)
	returned := false
	defer func() {
		result := Panicked
		switch {
		case returned && (err == nil || mark.Of(err) == mark.NotFailure):
			result = Success
		case returned:
			result = resultOf(ctx)
		}
		c.endAttempt(ends, result, err)
	}()
	ctx = c.beginAttempt(ctx, number, &ends)
	err = calls.Inside(ctx, next)
	returned = true
	return err
}

// runWithListeners does what Run does, for an observer with listeners.
func (p *pipeline) runWithListeners(ctx context.Context, next, inner resilience.Next, run *watch.Run) error {
	start := time.Now()
	c := &callState{pipeline: p, Call: Call{Pipeline: p.name, Start: start}}
	run.Front, run.Watcher = watch.Counted, &extra{call: c, spells: make([]*spell, len(p.layers)), own: make([]spell, len(p.layers))}
	var err error
	returned := false
	defer func() { // panics and Goexit too
		took := time.Since(start)
		result := p.done(ctx, run, took, returned, err)
		p.leave(next, inner, run)
		c.endCall(result, took, err)
	}()
	err = inner.Run(c.beginCall(ctx))
	returned = true
	return err
}

// beginCall calls Begin of all listeners.
func (c *callState) beginCall(ctx context.Context) context.Context {
	listeners := c.pipeline.observer.listeners
	c.contexts = make([]context.Context, 0, len(listeners))
	for i := range listeners {
		if begin := listeners[i].Begin; begin != nil {
			ctx = orElse(begin(ctx, &c.Call), ctx)
		}
		c.contexts = append(c.contexts, ctx)
	}
	return ctx
}

// endCall calls End of all listeners whose Begin has returned, in reverse order. It calls each, even
// if another panics.
func (c *callState) endCall(result Result, took time.Duration, err error) {
	c.listening.Lock()
	defer c.listening.Unlock()
	c.ended = true
	c.Call.Duration, c.Call.Attempts, c.Call.Result, c.Call.Err = took, c.tried(), result, err
	backwards(len(c.contexts), func(i int) {
		if end := c.pipeline.observer.listeners[i].End; end != nil {
			end(c.contexts[i], &c.Call)
		}
	})
}

// event calls Event of all listeners, unless the call has ended.
func (c *callState) event(ctx context.Context, e Event) {
	if !c.pipeline.observer.hasEvent {
		return
	}
	c.listening.Lock()
	defer c.listening.Unlock()
	if c.ended {
		return
	}
	for _, listener := range c.pipeline.observer.listeners {
		if listener.Event != nil {
			listener.Event(ctx, &c.Call, e)
		}
	}
}

// beginAttempt calls Attempt of all listeners, unless the call has ended. It appends the functions that
// they return to ends, so that the caller has those of the first ones even if a later one panics.
func (c *callState) beginAttempt(ctx context.Context, number int, ends *[]func(Result, error)) context.Context {
	c.listening.Lock()
	defer c.listening.Unlock()
	if c.ended {
		return ctx
	}
	for _, listener := range c.pipeline.observer.listeners {
		if listener.Attempt == nil {
			continue
		}
		own, end := listener.Attempt(ctx, &c.Call, number)
		ctx = orElse(own, ctx)
		if end != nil {
			*ends = append(*ends, end)
		}
	}
	return ctx
}

// endAttempt calls all ends, in reverse order, even if one of them panics.
func (c *callState) endAttempt(ends []func(Result, error), result Result, err error) {
	if len(ends) == 0 {
		return
	}
	c.listening.Lock()
	defer c.listening.Unlock()
	backwards(len(ends), func(i int) { ends[i](result, err) })
}

// backwards calls f with n-1, n-2, ..., 0, even if a call panics.
func backwards(n int, f func(i int)) {
	if n == 0 {
		return
	}
	defer backwards(n-1, f)
	f(n - 1)
}

// orElse returns ctx, or instead if a listener has returned nil.
func orElse(ctx, instead context.Context) context.Context {
	if ctx == nil {
		return instead
	}
	return ctx
}

// An errorSet contains errors by identity: the first one and the latest ones, so that it stays small
// however many attempts a call makes. Errors must not be added to a copy of a set, but it may be read
// while they are added to the original.
type errorSet struct{ errs []error }

// maxErrors is the largest number of errors in an errorSet.
const maxErrors = 8

func (s *errorSet) add(err error) {
	if s.contains(err) {
		return
	}
	kept := s.errs
	if len(kept) == maxErrors {
		kept = append([]error{kept[0]}, kept[2:]...)
	}
	s.errs = append(slices.Clip(kept), err) // not into an array that a copy of the set refers to
}

func (s *errorSet) contains(err error) bool {
	for _, e := range s.errs {
		if same(e, err) {
			return true
		}
	}
	return false
}

// anyIn reports whether err's tree contains one of the errors. It recovers from a method of err that
// panics, because observing must not make the call panic.
func (s *errorSet) anyIn(err error) (found bool) {
	if len(s.errs) == 0 {
		return false
	}
	defer func() { _ = recover() }()
	return s.within(err)
}

// within does what anyIn does, but lets panics pass.
func (s *errorSet) within(err error) bool {
	for err != nil {
		if s.contains(err) {
			return true
		}
		switch e := err.(type) {
		case interface{ Unwrap() error }:
			err = e.Unwrap()
		case interface{ Unwrap() []error }:
			for _, inner := range e.Unwrap() {
				if s.within(inner) {
					return true
				}
			}
			return false
		default:
			return false
		}
	}
	return false
}

// same reports whether a and b are the same error. Errors that can't be compared are the same if they
// are copies of one interface value, which is a pair of pointers: to the type and to the data.
func same(a, b error) bool {
	if *(*[2]unsafe.Pointer)(unsafe.Pointer(&a)) == *(*[2]unsafe.Pointer)(unsafe.Pointer(&b)) {
		return true
	}
	// Both must contain what can't be compared, of one type and at one place, for == to panic.
	return reflect.TypeOf(a) == reflect.TypeOf(b) && reflect.ValueOf(b).Comparable() && a == b
}
