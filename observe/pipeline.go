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

// calls gives access to what a pipeline keeps of a call.
var calls = watch.Use[resilience.Next, resilience.Policy]()

// A pipeline is an observed pipeline.
type pipeline struct {
	observer *Observer
	name     string
	flow     *flow // what the observer keeps for the name
	tally    *tally
	layers   []*layer            // the policies, and what is inside the pipeline
	list     []resilience.Policy // layers as policies
}

// A layer is one policy of a pipeline, with what is recorded around it. The layer after the innermost
// policy is what is inside the pipeline; it has no policy.
type layer struct {
	pipeline   *pipeline
	policy     resilience.Policy
	keep       *box   // of a policy that isn't a pointer: what the observer refers to
	above      *layer // the next outer one; nil for the outermost
	position   int    // from 1
	kind, name string
	nested     bool // the policy is an observed pipeline, whose policies report to the listeners
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
		return p.runHeard(ctx, next, inner, run)
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

// done counts a call that has ended, and returns what there is to say about it.
func (p *pipeline) done(ctx context.Context, run *watch.Run, took time.Duration, returned bool, err error) (Result, time.Duration, error) {
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
		p.flow.sample(result, err)
	}
	return result, took, err
}

// leave ends the call's run through the pipeline.
func (p *pipeline) leave(next, inner resilience.Next, run *watch.Run) {
	if x, ok := run.Watcher.(*extra); ok {
		calls.Leave(inner, false)
		x.call.passTimeouts(calls.Of(next))
		return
	}
	// A policy that has returned although its run of the rest has not breaks its contract, but must
	// not break another call.
	calls.Leave(inner, run.Front == watch.Passed && int(run.Back) == len(p.layers))
}

// result returns the result of a call that returned err, by the first rule that applies.
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

// resultOf returns the result of a call that failed for a reason that only its context may know.
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

// isRefused reports whether err is [resilience.ErrRefused]. A method of err that panics can't be
// the call's panic.
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

// settle records what has happened until now, so that it can be told from what follows.
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

// Counted implements [watch.Layer].
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

// created reports whether the policy has made err itself. If so, and it is that of a timeout, the
// call remembers it.
func (l *layer) created(run *watch.Run, err error, timeout bool) bool {
	x := extraOf(run)
	a := x.spell(run, l.position)
	x.call.mu.Lock()
	defer x.call.mu.Unlock()
	if a.inner.contains(err) {
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
