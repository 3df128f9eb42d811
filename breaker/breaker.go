// Package breaker provides a circuit breaker, which keeps callers from calling a dependency that
// fails.
//
// Use one breaker for each dependency that fails as a whole (a service, a host, a database), and
// share it among all calls to that dependency. Don't share one breaker among calls that fail
// independently. Don't use one for streams that last for minutes, unless they report through
// [Breaker.Acquire] once they are established.
//
// A closed breaker admits all calls and counts their outcomes. When a rule of its [Config] is met,
// it opens: it refuses calls with [*OpenError] for the open time. Then it becomes half-open: a few
// probes decide whether it closes or opens again.
//
// The pattern is Michael Nygard's (Release It!, 2007). The half-open state with limited probes
// follows Microsoft's Azure Architecture Center, "Circuit Breaker pattern".
//
// A call through a closed breaker that counts consecutive failures costs a few nanoseconds. It
// takes no lock, reads no clock, and allocates nothing. The same holds for a refusal, except that it
// reads the clock in the last 50 ms of the open time. BenchmarkDo measures both.
package breaker

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/mark"
	"github.com/effector-go/resilience/internal/outcome"
)

// A Breaker is a circuit breaker: a [resilience.Policy] that refuses calls while its dependency
// fails. [Do] uses it without a pipeline; [Breaker.Acquire] splits a call into two steps.
//
// Each call is counted only in the period of a state that admitted it. A result that arrives after
// the breaker has changed state is ignored. SetConfig changes no state: a call that is running then
// is counted by the Config of the time at which it ends.
//
// A Breaker is created by [New] and is safe for concurrent use. It keeps no goroutine. It has one
// timer for each opening, one while probes run, and one for each slow start. These timers are never
// stopped, so they may keep a breaker in memory until the open time, ProbeTimeout, or SlowStart has
// passed.
type Breaker struct {
	// phase is the current period of a state, under the current Config. A call loads it once, unless
	// it changes a count. Only change and replace store it, with mu held, so that exactly one of
	// several racing callers makes each transition, and deliveries are queued in the order of the
	// transitions.
	phase atomic.Pointer[phase]

	// mu guards the fields below, writes of phase, and the probes of a half-open stay.
	mu         sync.Mutex
	listeners  []*listener // oldest first, some of them stopped
	deliveries []func()    // calls of OnStateChange and of listeners that haven't been made, oldest first
	delivering bool        // a goroutine is making deliveries
}

// New creates a closed breaker. It panics if c.Validate returns an error.
func New(c Config) *Breaker {
	if err := c.Validate(); err != nil {
		panic(err.Error())
	}
	c = c.withDefaults()
	b := new(Breaker)
	b.phase.Store(newPhase(b, newStay(Closed), &c, nil))
	return b
}

// Do calls fn if b admits the call, and returns what fn returns. If b refuses the call, Do returns
// the zero T and [*OpenError]. If ctx is already done, fn is not called, nothing is counted, and
// the error is [resilience.ContextErr]. Do allocates nothing.
func Do[T any](ctx context.Context, b *Breaker, fn func(context.Context) (T, error)) (T, error) {
	if ctx.Err() != nil {
		var zero T
		return zero, resilience.ContextErr(ctx)
	}
	p := b.phase.Load()
	if !p.admitsAll {
		if p.refusesAll.Load() {
			var zero T
			return zero, p.refusal
		}
		return doNoted(ctx, p, fn)
	}
	running := true
	defer func() {
		if running {
			p.unwind(ctx)
		}
	}()
	value, err := fn(ctx)
	if err != nil || p.success.Load() != streakOnly || p.streak.Load() != 0 {
		p.done(ctx, err)
	}
	running = false
	return value, err
}

// done and unwind settle a call that holds only its phase. They are separate functions to keep Do's
// frame small.
//
//go:noinline
func (p *phase) done(ctx context.Context, err error) {
	if err == nil && p.success.Load() == windowOnly {
		if cause := p.window.succeed(); cause != "" {
			p.trip(cause, nil, Success)
		}
		return
	}
	t := ticket{phase: p}
	t.done(ctx, err)
}

//go:noinline
func (p *phase) unwind(ctx context.Context) {
	t := ticket{phase: p}
	t.unwind(ctx)
}

// doNoted is the slow path of Do: the state decides more than admission.
func doNoted[T any](ctx context.Context, p *phase, fn func(context.Context) (T, error)) (value T, err error) {
	t, err := p.b.admitNoted(p)
	if err != nil {
		return value, err
	}
	defer t.unwind(ctx)
	value, err = fn(ctx)
	t.done(ctx, err)
	return value, err
}

// Run makes the call if b admits it: see [resilience.Policy]. A call that an inner policy refused
// says nothing about the dependency, so it is ignored whatever its error.
func (b *Breaker) Run(ctx context.Context, next resilience.Next) error {
	p := b.phase.Load()
	if !p.admitsAll {
		t, refusal := b.admitNoted(p)
		if refusal != nil {
			return refusal
		}
		return t.run(ctx, next)
	}
	starts, running := next.Starts(), true
	defer func() {
		if running && next.Starts() != starts {
			p.unwind(ctx)
		}
	}()
	err := next.Run(ctx)
	if (err != nil || p.success.Load() != streakOnly || p.streak.Load() != 0) && next.Starts() != starts {
		p.done(ctx, err)
	}
	running = false
	return err
}

// run is the slow path of Run: the ticket must be given back if the call was not made.
func (t *ticket) run(ctx context.Context, next resilience.Next) error {
	starts := next.Starts()
	defer func() {
		if next.Starts() == starts {
			t.cancel()
		} else {
			t.unwind(ctx)
		}
	}()
	err := next.Run(ctx)
	if next.Starts() != starts {
		t.done(ctx, err)
	}
	return err
}

// Acquire splits a call into two steps, for streams and callbacks. The holder of the permit makes
// the call and then reports its outcome with [Permit.Done], or releases the permit with
// [Permit.Cancel]. It is safe to defer Cancel in any case.
//
// Acquire returns [*OpenError] if the call is refused, and [resilience.ContextErr] if ctx is done.
// Done also uses ctx to classify the outcome. Report a stream with Done(nil) once it is
// established, not when it ends.
func (b *Breaker) Acquire(ctx context.Context) (Permit, error) {
	if ctx.Err() != nil {
		return Permit{}, resilience.ContextErr(ctx)
	}
	p := b.phase.Load()
	if p.admitsAll {
		return Permit{ctx: ctx, ticket: ticket{phase: p}}, nil
	}
	t, refusal := b.admitNoted(p)
	if refusal != nil {
		return Permit{}, refusal
	}
	return Permit{ctx: ctx, ticket: t}, nil
}

// A Permit is permission to make one call. Only the first call of Done or Cancel counts; later ones
// do nothing. Both are safe for concurrent use. The zero Permit does nothing. A Permit must not be
// copied after first use.
type Permit struct {
	ctx    context.Context
	used   atomic.Bool // set by the first call of Done or Cancel; only that call uses ticket
	ticket ticket
}

// Done reports the call's error, nil for success. It is classified as for [Do]. An error that is
// marked as [resilience.CallerFault] releases the permit, as Cancel does.
func (p *Permit) Done(err error) {
	if p.used.Swap(true) {
		return
	}
	t := p.ticket
	defer t.unwind(p.ctx) // where Classify panics
	t.done(p.ctx, err)
}

// Cancel releases the permit. The call isn't counted, neither as a failure nor as slow.
func (p *Permit) Cancel() {
	if p.used.Swap(true) {
		return
	}
	t := p.ticket
	t.cancel()
}

// Name returns the Config's Name.
func (b *Breaker) Name() string { return b.phase.Load().cfg.Name }

// Config returns the Config in use, with its defaults filled in. Functions that were not set are
// nil.
func (b *Breaker) Config() Config { return *b.phase.Load().cfg }

// SetConfig replaces the Config. If c is invalid, SetConfig changes nothing and returns
// [Config.Validate]'s error. It is safe for concurrent use.
//
// The state stays, even one that was set manually, and no transition is reported. These stay too:
//
//   - an open time or a slow start in progress, with its end; the number of consecutive openings
//   - running probes, each with its deadline, and the counts of probes that ended
//   - the counts of Consecutive and Leaky
//   - the last calls, unless LastCalls changes
//   - the calls in Window, unless Window or SlowCall changes; then calls that are running are
//     counted when they end; until then, they are not in Snapshot.Running and can't be slow
//
// Counts of a rule that is switched off are lost. The new numbers judge a count that is kept at the
// next result. A call that is running is counted when it ends, by the Config of that time.
func (b *Breaker) SetConfig(c Config) error {
	if err := c.Validate(); err != nil {
		return err
	}
	c = c.withDefaults()
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.phase.Load()
	next := newPhase(b, p.stay, &c, p)
	next.changed = p.changed || c.Leaky < p.cfg.Leaky || c.Failures < p.cfg.Failures
	if p.probes != nil {
		next.checkFull()
	}
	p.replace(next)
	return nil
}

// State returns the current state. It also checks the clock, and makes a transition that is due if
// its timer is late.
func (b *Breaker) State() State { return b.current().state }

// Snapshot returns the current state and counts. Counts may differ from each other by the calls
// that end meanwhile.
func (b *Breaker) Snapshot() Snapshot {
	p := b.current()
	b.mu.Lock()
	defer b.mu.Unlock()
	return p.snapshot()
}

// ForceOpen opens the breaker manually: it refuses every call until its state is next set manually.
// ForceOpen does nothing if the breaker is already forced open.
func (b *Breaker) ForceOpen() { b.force(ForcedOpen) }

// HalfOpen makes the breaker half-open manually. It does nothing if the breaker is already
// half-open.
func (b *Breaker) HalfOpen() { b.force(HalfOpen) }

// Disable admits every call and counts none, until the state is next set manually. It does nothing
// if the breaker is already disabled.
func (b *Breaker) Disable() { b.force(Disabled) }

// Reset closes the breaker manually and clears all counts and openings. Calls that were admitted
// before are no longer counted. Reset does this to a closed breaker too, but that isn't a
// transition: OnStateChange is not called.
func (b *Breaker) Reset() { b.force(Closed) }

// A ticket is an admitted call. It is settled once, by done, cancel, or unwind, which set phase to
// nil.
type ticket struct {
	phase *phase // the phase that admitted the call; nil if the call isn't counted
	probe *probe // set if a half-open phase admitted the call as a probe
	entry entry  // set with SlowRate in a closed phase, or in a slow start
}

// done settles the call by its error. If Classify panics, the call stays unsettled.
func (t *ticket) done(ctx context.Context, err error) {
	p := t.phase
	if p == nil {
		return
	}
	if err == nil {
		// If the stay has ended, its counts don't matter any more.
		switch success := p.success.Load(); success {
		case streakOnly, counts:
			t.phase = nil
			if success == counts || p.streak.Load() != 0 {
				p.window.leave(t.entry)
				p.count(t.entry, Success, nil)
			}
			return
		case windowOnly:
			t.phase = nil
			p.window.leave(t.entry)
			if cause := p.window.book(t.entry, Success); cause != "" {
				p.trip(cause, nil, Success)
			}
			return
		}
	} else if mark.Of(err) == mark.CallerFault {
		t.cancel()
		return
	}
	outcome := Success
	if classify := p.b.phase.Load().cfg.Classify; classify != nil {
		outcome = classify(ctx, err)
	} else if err != nil {
		outcome = DefaultClassify(ctx, err)
	}
	t.settle(outcome, err)
}

// unwind is deferred, and settles a call that ends by a panic or runtime.Goexit.
func (t *ticket) unwind(ctx context.Context) {
	if t.phase == nil {
		return
	}
	t.settle(Outcome(outcome.OfUnwind(ctx)), nil)
}

// cancel settles the call as if it had never been made.
func (t *ticket) cancel() {
	if t.phase != nil {
		t.settle(canceled, nil)
	}
}

// settle counts the call in the current phase of the stay that admitted it, unless that has ended.
func (t *ticket) settle(outcome Outcome, err error) {
	from := t.phase
	t.phase = nil
	p := from.latest()
	if p == nil {
		return
	}
	from.window.leave(t.entry)
	switch {
	case t.probe != nil:
		p.endProbe(t.probe, outcome, err)
	case p.ramp != nil:
		p.endRamped(t.entry, outcome, err)
	default:
		p.count(t.entry, outcome, err)
	}
}
