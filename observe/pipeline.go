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

// Position implements [watch.Layer].
func (l *layer) Position(watch.Friend) int { return l.position }

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

const pipelineKind = "pipeline"

// Run implements [resilience.Policy].
func (p *pipeline) Run(ctx context.Context, next resilience.Next) error {
	inner, run := calls.Enter(next, p.list, p)
	if p.observer.listeners != nil {
		return p.runHeard(ctx, next, inner, run)
	}
	if len(p.layers) > watch.Bytes {
		extraOf(run)
	}
	began := clock.Now()
	var err error
	returned := false
	defer func() { // panics and Goexit too
		calls.Leave(inner)
		p.done(ctx, next, run, time.Duration(clock.Now()-began), returned, err)
	}()
	err = inner.Run(ctx)
	returned = true
	return err
}

// done counts a call that has ended, and returns what there is to say about it.
func (p *pipeline) done(ctx context.Context, next resilience.Next, run *watch.Run, took time.Duration, returned bool, err error) (Result, time.Duration, error) {
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
	if x, ok := run.Extra.(*extra); ok {
		x.call.passTimeouts(calls.Of(next))
	}
	return result, took, err
}

// result returns the result of a call that returned err, by the first rule that applies.
func (p *pipeline) result(ctx context.Context, run *watch.Run, err error) Result {
	if mark.Of(err) == mark.NotFailure {
		return Success
	}
	reached := run.Reached
	if x, ok := run.Extra.(*extra); ok {
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

// Run runs the policy, as a run of the rest of the pipeline that the next outer policy makes.
func (l *layer) Run(ctx context.Context, next resilience.Next) error {
	run := calls.Of(next)
	t := l.pipeline.tally
	t.enter(run, l.position)
	if run.Extra != nil {
		return l.runExtra(ctx, next, run)
	}
	if run.Ran[(l.position-1)%watch.Bytes] != 0 {
		t.event(run, l.position-1, Retry)
	}
	run.Ran[(l.position-1)%watch.Bytes] = 1
	run.Ran[l.position%watch.Bytes] = 0
	var err error
	if l.policy == nil {
		run.Reached = true
		err = calls.Inside(ctx, next)
	} else {
		err = l.policy.Run(ctx, next)
	}
	if err != nil {
		l.failed(ctx, run, err)
	}
	return err
}

// failed records the error that the policy, or what is inside the pipeline, has returned.
func (l *layer) failed(ctx context.Context, run *watch.Run, err error) {
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
	if x, ok := run.Extra.(*extra); ok {
		return x.runs(run, l.position) > 0
	}
	return run.Ran[l.position%watch.Bytes] != 0
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
