// Package breaker keeps a caller from calling what is failing: a circuit breaker.
//
// Use one breaker for each dependency that fails as a whole (a service, a host, a database), shared by all calls to it. Do
// not use one for calls that fail each for reasons of its own, and leave it off streams that last for minutes, unless
// they report by [Breaker.Acquire] once they are established.
//
// A closed breaker lets calls through and counts their outcomes. When a rule of its [Config] says so it opens and refuses
// calls with [*OpenError] for the open time, then becomes half-open: a few probes decide whether it closes or opens again.
//
// The pattern is Michael Nygard's (Release It!, 2007); the half-open state with limited probes follows Microsoft's Azure
// Architecture Center, "Circuit Breaker pattern". A call through a closed breaker that counts failures in a row costs a few
// nanoseconds, no lock, no clock and no allocation, a refusal likewise (BenchmarkDo).
package breaker

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/outcome"
)

// A Breaker is a circuit breaker: a [resilience.Policy] that refuses calls while its dependency fails. [Do] uses it alone,
// [Breaker.Acquire] in two steps. Every call counts in the phase that admitted it: a result that arrives after a change of
// state changes nothing. A Breaker is made by [New] and safe for concurrent use. It holds no goroutine. It has a timer for
// each opening, and one while it has probes; they are never stopped, so one may hold a breaker in memory until the open time,
// or ProbeTimeout, is over.
type Breaker struct {
	// phase is the present stay in a state. A call loads it once. It is stored with mu held, by change alone, so that one of
	// any number of racing callers makes each transition and the events stand in the order of the transitions.
	phase atomic.Pointer[phase]

	// Never written after New.
	cfg             Config // with defaults filled in
	defaultClassify bool   // Config had none: no error is a success

	mu         sync.Mutex   // guards all of the following, writes of phase, and the probes of a half-open phase
	events     []Transition // made and not yet told, oldest first
	delivering bool         // a goroutine is telling events
}

// New makes a closed breaker. It panics if c.Validate reports a mistake.
func New(c Config) *Breaker {
	if err := c.Validate(); err != nil {
		panic(err.Error())
	}
	b := &Breaker{cfg: c.withDefaults(), defaultClassify: c.Classify == nil}
	b.phase.Store(newPhase(b, Closed))
	return b
}

// Do calls fn if b admits the call and returns what fn returns. If b refuses, it returns a zero T and [*OpenError]. A call
// whose ctx is already done is not made and counts nowhere: its error is [resilience.ContextErr]. Do allocates nothing.
func Do[T any](ctx context.Context, b *Breaker, fn func(context.Context) (T, error)) (T, error) {
	if ctx.Err() != nil {
		var zero T
		return zero, resilience.ContextErr(ctx)
	}
	p := b.phase.Load()
	if !p.admitsAll {
		if p.refusesAll {
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
	if err != nil || !p.simple || p.streak.Load() != 0 {
		p.done(ctx, err)
	}
	running = false
	return value, err
}

// done and unwind are those of a ticket that holds the phase only. They stand apart, so that Do's frame stays small.
//
//go:noinline
func (p *phase) done(ctx context.Context, err error) {
	if err == nil && p.windowOnly {
		if cause := p.window.succeed(); cause != "" {
			p.trip(cause, nil)
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

// doNoted is Do where more is to do than to load the phase.
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

// Run makes the call if b admits it: see [resilience.Policy]. A call that a policy further in turned away says nothing of the
// dependency and is ignored, whatever its error.
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
	if (err != nil || !p.simple || p.streak.Load() != 0) && next.Starts() != starts {
		p.done(ctx, err)
	}
	running = false
	return err
}

// run is the rest of Run for a ticket that must be given back if the call was not made.
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

// Acquire asks for one call in two steps, for streams and callbacks: the holder of the permit makes the call and reports by
// [Permit.Done], or gives it up by [Permit.Cancel]; `defer permit.Cancel()` is right. The error is [*OpenError] where the
// call is refused, and [resilience.ContextErr] where ctx is done. Done classifies by ctx too. A stream is best
// reported once it is established, by Done(nil), not at its end.
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

// A Permit is leave to make one call. The first of Done and Cancel counts, later ones do nothing; both are safe for
// concurrent use. The zero Permit does nothing. A Permit must not be copied after its first use.
type Permit struct {
	ctx    context.Context
	used   atomic.Bool // set by the first of Done and Cancel, who alone uses ticket
	ticket ticket
}

// Done reports the call's error, nil for success, to be classified as a call of [Do] would be.
func (p *Permit) Done(err error) {
	if p.used.Swap(true) {
		return
	}
	t := p.ticket
	defer t.unwind(p.ctx) // where Classify panics
	t.done(p.ctx, err)
}

// Cancel gives the permit back: the call counts nothing, neither as failed nor as slow.
func (p *Permit) Cancel() {
	if p.used.Swap(true) {
		return
	}
	t := p.ticket
	t.cancel()
}

// Name gives Config.Name.
func (b *Breaker) Name() string { return b.cfg.Name }

// State tells the present state. It judges by the clock, and makes the transition that is due if a timer missed it.
func (b *Breaker) State() State { return b.current().state }

// Snapshot tells the present state and counts. Counts that calls change meanwhile may be apart by those calls.
func (b *Breaker) Snapshot() Snapshot {
	p := b.current()
	b.mu.Lock()
	defer b.mu.Unlock()
	return p.snapshot()
}

// ForceOpen opens the breaker by hand: it refuses every call until another by-hand call. It does nothing if it is forced
// open already.
func (b *Breaker) ForceOpen() { b.force(ForcedOpen) }

// HalfOpen makes the breaker half-open by hand. It does nothing if it is half-open already.
func (b *Breaker) HalfOpen() { b.force(HalfOpen) }

// Disable lets every call through by hand and counts none, until another by-hand call. It does nothing if the breaker is
// disabled already.
func (b *Breaker) Disable() { b.force(Disabled) }

// Reset closes the breaker by hand, with nothing counted and its openings forgotten. Of a closed breaker it starts a fresh
// phase, which is no transition for OnStateChange.
func (b *Breaker) Reset() { b.force(Closed) }

// A ticket is one admitted call. It is settled once, by done, cancel or unwind, which set phase to nil.
type ticket struct {
	phase *phase // that admitted the call; nil: the call counts nowhere
	probe *probe // in a half-open phase
	mark  mark   // in a closed phase with a slow rate
}

// done settles the call by its error. A panic of Classify leaves it unsettled.
func (t *ticket) done(ctx context.Context, err error) {
	p := t.phase
	if p == nil {
		return
	}
	if err == nil && p.simple && p.streak.Load() == 0 {
		t.phase = nil
		return
	}
	if err == nil && p.windowOnly {
		t.phase = nil
		if cause := p.window.book(t.mark, Success); cause != "" {
			p.trip(cause, nil)
		}
		return
	}
	outcome := Success
	if err != nil || !p.b.defaultClassify {
		outcome = p.b.cfg.Classify(ctx, err)
	}
	t.settle(outcome, err)
}

// unwind settles, when deferred, a call that ends by panic or runtime.Goexit.
func (t *ticket) unwind(ctx context.Context) {
	if t.phase == nil {
		return
	}
	t.settle(Outcome(outcome.OfUnwind(ctx)), nil)
}

func (t *ticket) settle(outcome Outcome, err error) {
	p := t.phase
	t.phase = nil
	switch {
	case p.b.phase.Load() != p:
		// Stale: it changes nothing.
	case t.probe != nil:
		p.endProbe(t.probe, outcome, err)
	default:
		p.count(t, outcome, err)
	}
}

func (t *ticket) cancel() {
	p := t.phase
	t.phase = nil
	switch {
	case p == nil || p.b.phase.Load() != p:
	case t.probe != nil:
		p.endProbe(t.probe, cancelled, nil)
	case p.window != nil:
		p.window.leave(t.mark)
	}
}
