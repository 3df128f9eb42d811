package observe

import (
	"context"
	"errors"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/clock"
	"github.com/effector-go/resilience/internal/errtype"
	"github.com/effector-go/resilience/internal/mark"
	"github.com/effector-go/resilience/internal/watch"
)

// calls are the functions of the root package that access what a pipeline keeps of a call.
var calls = watch.Use[resilience.Next, resilience.Policy]()

// A pipeline is an observed pipeline. It doesn't change after its creation, except for the tally.
type pipeline struct {
	observer *Observer
	name     string
	group    *pipelineGroup
	tally    *tally
	layers   []*layer            // the policies, then what is inside the pipeline
	list     []resilience.Policy // layers as policies
}

// A layer is one policy of a pipeline, with what is recorded around it. The layer after the innermost
// policy is what is inside the pipeline; it has no policy.
type layer struct {
	pipeline   *pipeline
	policy     resilience.Policy
	box        *box   // keeps a policy that isn't a pointer known to the observer; otherwise nil
	above      *layer // the next outer one; nil for the outermost
	position   int    // from 1
	kind, name string // as in Event
	nested     bool   // the policy is an observed pipeline, whose policies report to the listeners
}

// Report describes the pipeline.
func (p *pipeline) Report() resilience.Report {
	c := p.tally.load()
	return resilience.Report{
		Kind:   pipelineKind,
		Name:   p.name,
		Values: []resilience.Value{{Name: "running", Unit: "{call}", Value: float64(c.running())}},
	}
}

// Name returns the pipeline's name.
func (p *pipeline) Name() string { return p.name }

// Policies returns the policies of the pipeline, for packages of this module that look for breakers.
func (p *pipeline) Policies() []resilience.Policy {
	var policies []resilience.Policy
	for _, l := range p.layers {
		if l.policy != nil {
			policies = append(policies, l.policy)
		}
	}
	return policies
}

const pipelineKind = "pipeline"

// Run implements [resilience.Policy].
func (p *pipeline) Run(ctx context.Context, next resilience.Next) error {
	inner, run := calls.Enter(next, p.list, p)
	p.tally.begin(run)
	if p.observer.listeners != nil {
		return p.runWithListeners(ctx, next, inner, run)
	}
	if len(p.layers) > watch.Plain {
		extraOf(run)
	}
	began := clock.Now()
	var err error
	returned := false
	defer func() { // panics and Goexit too
		p.done(ctx, run, time.Duration(clock.Now()-began), returned, err)
		p.leave(next, inner, run)
	}()
	err = inner.Run(ctx)
	returned = true
	return err
}

// done counts a call that has ended, and returns its result. Returned is false after a panic or
// runtime.Goexit.
func (p *pipeline) done(ctx context.Context, run *watch.Run, took time.Duration, returned bool, err error) Result {
	if run.Front < watch.Passed {
		settle(run) // the call did not run through all layers
	}
	result := Success
	if !returned {
		result = Panicked
	} else if err != nil {
		result = p.result(ctx, run, err)
	}
	p.tally.end(run, result, took)
	if err != nil {
		p.group.sample(result, err)
	}
	return result
}

// leave ends the call's run through the pipeline.
func (p *pipeline) leave(next, inner resilience.Next, run *watch.Run) {
	if x, ok := run.Watcher.(*extra); ok {
		calls.Leave(inner, false)
		x.call.passTimeouts(calls.Of(next))
		return
	}
	// A policy that returns before its run of the rest does breaks its contract, but that must not
	// break another call.
	calls.Leave(inner, run.Front == watch.Passed && int(run.Back) == len(p.layers))
}

// result returns the result of a call that returned err: the first that applies, in the order that the
// documentation of Result states.
func (p *pipeline) result(ctx context.Context, run *watch.Run, err error) Result {
	if mark.Of(err) == mark.NotFailure {
		return Success
	}
	reached := run.Reached
	if x, ok := run.Watcher.(*extra); ok {
		reached = x.call.tried() > 0
		if x.call.timedOut(err) {
			return TimedOut
		}
	}
	if !reached && isRefused(err) {
		return Refused
	}
	return resultOf(ctx)
}

// resultOf returns the result of a call or attempt that failed, by the end of its context.
func resultOf(ctx context.Context) Result {
	switch err := ctx.Err(); {
	case err == nil:
		return Failure
	case errors.Is(err, context.DeadlineExceeded):
		return TimedOut
	default:
		return Canceled
	}
}

// isRefused reports whether err is [resilience.ErrRefused]. It recovers from a method of err that
// panics, because observing must not make the call panic.
func isRefused(err error) (refused bool) {
	defer func() { _ = recover() }()
	return errors.Is(err, resilience.ErrRefused)
}

// Through implements [watch.Layer].
func (l *layer) Through(run *watch.Run) { l.pipeline.tally.through(run) }

func (l *layer) runUnobserved(ctx context.Context, next resilience.Next) error {
	if l.policy == nil {
		return calls.Inside(ctx, next)
	}
	return l.policy.Run(ctx, next)
}

// settle ends the call's run through the layers in order, if it has not ended yet: it counts the layers
// that the call has entered, and records in Ran which policies have run the rest.
func settle(run *watch.Run) {
	switch front := run.Front; front {
	case watch.Counted:
		return
	case watch.Passed:
		run.Ran = ^uint32(0)
	default:
		for position := 1; position <= int(front); position++ {
			(*run.Counts)[position].Add(1)
		}
		run.Ran = 1<<front - 1
	}
	run.Front = watch.Counted
}

// Counted implements [watch.Layer]. While the call has no extra, it runs on one goroutine, and a second
// run of the rest can only be a Retry.
func (l *layer) Counted(ctx context.Context, next resilience.Next, run *watch.Run) error {
	if run == nil {
		return l.runUnobserved(ctx, next)
	}
	settle(run)
	if x, ok := run.Watcher.(*extra); ok {
		return l.runExtra(ctx, next, run, x)
	}
	t := l.pipeline.tally
	t.enter(run, l.position)
	if l.above != nil && run.Ran&(1<<l.above.position) != 0 {
		t.event(run, l.above.position, Retry)
	}
	// The policy above has now run the rest; this one has not, in this run of it.
	run.Ran = run.Ran&^(1<<l.position) | 1<<(l.position-1)
	var err error
	if l.policy == nil {
		run.Reached = true
		err = calls.Inside(ctx, next)
	} else {
		err = l.policy.Run(ctx, next)
	}
	if err != nil {
		l.Failed(ctx, run, err)
	}
	return err
}

// Failed implements [watch.Layer].
func (l *layer) Failed(ctx context.Context, run *watch.Run, err error) {
	own := errtype.Own(err)
	typed := own == errtype.Timeout || own == errtype.Exhausted
	if l.policy != nil {
		switch {
		case typed && l.created(run, err, own == errtype.Timeout):
			kind := GiveUp
			if own == errtype.Timeout {
				kind = Timeout
			}
			l.report(ctx, run, Event{Kind: kind, Err: err})
		case !typed && !l.ranRest(run) && (ctx.Err() == nil || isRefused(err)):
			l.report(ctx, run, Event{Kind: Refusal, Err: err})
		}
	}
	if typed && l.above != nil {
		extraOf(run).returned(run, l.above.position, err)
	}
}

// created reports whether the policy has created err itself. If so, and err is that of a timeout, the
// call remembers it.
func (l *layer) created(run *watch.Run, err error, timeout bool) bool {
	x := extraOf(run)
	s := x.spell(run, l.position)
	x.call.mu.Lock()
	defer x.call.mu.Unlock()
	if s.inner.contains(err) {
		return false
	}
	if timeout {
		x.call.timeouts.add(err)
	}
	return true
}

// ranRest reports whether the policy has run the rest of the pipeline.
func (l *layer) ranRest(run *watch.Run) bool {
	if run.Front < watch.Counted {
		return l.position < int(run.Front)
	}
	if x, ok := run.Watcher.(*extra); ok {
		return x.runs(run, l.position) > 0
	}
	return run.Ran&(1<<l.position) != 0
}

// report counts an event of the layer's policy, and passes it to the listeners.
func (l *layer) report(ctx context.Context, run *watch.Run, e Event) {
	l.pipeline.tally.event(run, l.position, e.Kind)
	if l.pipeline.observer.listeners == nil || l.nested {
		return
	}
	e.Layer, e.Policy, e.Name = l.position, l.kind, l.name
	extraOf(run).call.event(ctx, e)
}
