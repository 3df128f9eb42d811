package breaker

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/clock"
)

// A phase is one stay in a state. An admitted call refers to its phase, so a result that comes after the phase has ended
// finds that it is no longer the breaker's and falls away.
type phase struct {
	b     *Breaker
	state State

	// What a call may know at once, derived from state and Config.
	admitsAll  bool // closed without SlowRate: there is nothing to note before a call
	refusesAll bool // open or forced open, and no dry run
	simple     bool // admitsAll, and a nil error is a success that changes streak only
	windowOnly bool // closed, and a nil error is a success that changes window only: count would do the same, by a longer way

	refusal error // *OpenError, what a call gets that is not admitted; nil if that cannot be

	streak atomic.Int64 // failures in a row; with the rule Consecutive
	leak   atomic.Int64 // failures less successes; with the rule Leaky
	last   *lastCalls   // with the rule Failures
	window *window      // with FailureRate or SlowRate
	probes *probes      // half-open

	since    time.Time
	began    int64         // since, on package clock
	until    int64         // open: when it becomes half-open, on package clock
	openings int           // in a row, this one included
	openTime time.Duration // of the latest opening; 0: none since New or Reset
}

// newPhase makes a phase that begins now and knows nothing of what was before.
func newPhase(b *Breaker, state State) *phase {
	p := &phase{b: b, state: state, since: time.Now(), began: clock.Now()}
	c := &b.cfg
	switch state {
	case Closed:
		if c.Failures > 0 {
			p.last = newLastCalls(c.LastCalls, c.Failures)
		}
		if c.FailureRate > 0 || c.SlowRate > 0 {
			p.window = newWindow(c, p.began)
		}
		p.admitsAll = c.SlowRate == 0
		p.windowOnly = p.window != nil && p.last == nil && c.Leaky == 0 && c.Consecutive == 0 && b.defaultClassify
		p.simple = p.admitsAll && p.window == nil && p.last == nil && c.Leaky == 0 && b.defaultClassify
	case HalfOpen:
		p.probes = &probes{}
		p.refusal = &OpenError{Name: c.Name, State: state}
	case Open, ForcedOpen:
		p.refusesAll = !c.DryRun
		p.refusal = &OpenError{Name: c.Name, State: state}
	}
	return p
}

// admitNoted decides on a call where more is to do than to load the phase.
func (b *Breaker) admitNoted(p *phase) (ticket, error) {
	for {
		switch p.state {
		case Closed:
			if p.admitsAll { // the phase that came after p
				return ticket{phase: p}, nil
			}
			now := clock.Now()
			if cause := p.window.judgeAdmission(now); cause != "" {
				p.trip(cause, nil)
				break
			}
			return ticket{phase: p, mark: p.window.enter(now)}, nil
		case HalfOpen:
			if p.probes.full.Load() {
				return p.refuse()
			}
			if t, ok := p.admitProbe(); ok {
				if t == nil {
					return p.refuse()
				}
				return ticket{phase: p, probe: t}, nil
			}
		case Disabled:
			return ticket{}, nil
		default:
			return p.refuse()
		}
		p = b.phase.Load() // p has ended
	}
}

// refuse turns a call away, or in a dry run admits it without counting it.
func (p *phase) refuse() (ticket, error) {
	if p.b.cfg.DryRun {
		return ticket{}, nil
	}
	return ticket{}, p.refusal
}

// count books the outcome of a call that the closed phase p admitted, and opens the breaker if a rule says so.
func (p *phase) count(t *ticket, outcome Outcome, err error) {
	c := &p.b.cfg
	cause := ""
	if p.window != nil {
		cause = p.window.book(t.mark, outcome)
	}
	failed := outcome == Failure
	if !failed {
		err = nil // it may be slow, but asks for no time
	}
	if outcome == Ignored {
		if cause != "" {
			p.trip(cause, nil)
		}
		return
	}
	if p.last != nil && p.last.book(failed) {
		cause = fmt.Sprintf("%d failures among the last %d calls", c.Failures, c.LastCalls)
	}
	if c.Leaky > 0 && addNotBelowZero(&p.leak, failed) >= int64(c.Leaky) && failed {
		cause = fmt.Sprintf("%d failures more than successes", c.Leaky)
	}
	if c.Consecutive > 0 {
		if failed {
			if p.streak.Add(1) >= int64(c.Consecutive) {
				cause = fmt.Sprintf("%d failures in a row", c.Consecutive)
			}
		} else if p.streak.Load() != 0 {
			// A failure added meanwhile is either before this success, and forgotten, or has seen its sum and opens.
			p.streak.Store(0)
		}
	}
	if cause != "" {
		p.trip(cause, err)
	}
}

// addNotBelowZero counts a failure up and a success down, and returns the sum.
func addNotBelowZero(leak *atomic.Int64, failed bool) int64 {
	if failed {
		return leak.Add(1)
	}
	for {
		sum := leak.Load()
		if sum == 0 || leak.CompareAndSwap(sum, sum-1) {
			return max(0, sum-1)
		}
	}
}

// trip opens the breaker from p, if it is still in p. err is that of the failure that did it.
func (p *phase) trip(cause string, err error) {
	after := time.Duration(0)
	defer func() {
		p.b.mu.Lock()
		p.reopen(cause, after)
		p.b.mu.Unlock()
		p.b.deliver()
	}()
	after, _ = resilience.RetryAfter(err) // asks the user's error, which may panic: neither under the lock nor instead of the trip
}

// The following are every transition there is. All are made with b.mu held, and do nothing if p has ended.

// reopen is closed or half-open to open.
func (p *phase) reopen(cause string, retryAfter time.Duration) {
	b := p.b
	if b.phase.Load() != p {
		return
	}
	next := newPhase(b, Open)
	next.openings = 1
	if p.state == HalfOpen || time.Duration(next.began-p.began) < p.openTime {
		next.openings = p.openings + 1
	}
	next.openTime = b.cfg.openTime(next.openings, retryAfter, rand.Float64())
	next.until = clock.Add(next.began, next.openTime)
	next.refusal = &OpenError{Name: b.cfg.Name, State: Open, until: next.until}
	// Never stopped: a late one finds another phase. (Stopping a timer from outside its synctest bubble is fatal.)
	time.AfterFunc(next.openTime, next.openTimeOver)
	p.change(next, cause)
}

// openTimeOver is open to half-open.
func (p *phase) openTimeOver() {
	p.b.mu.Lock()
	p.halfOpen()
	p.b.mu.Unlock()
	p.b.deliver()
}

func (p *phase) halfOpen() {
	if p.b.phase.Load() == p {
		next := newPhase(p.b, HalfOpen)
		next.openings, next.openTime = p.openings, p.openTime
		p.change(next, "open time over")
	}
}

// closeAgain is half-open to closed.
func (p *phase) closeAgain(cause string) {
	next := newPhase(p.b, Closed)
	next.openings, next.openTime = p.openings, p.openTime
	p.change(next, cause)
}

// force is any state to one chosen by hand.
func (b *Breaker) force(state State) {
	b.mu.Lock()
	b.catchUp()
	p := b.phase.Load()
	if p.state != state || state == Closed {
		next := newPhase(b, state)
		if state != Closed && (p.state != Closed || time.Duration(next.began-p.began) < p.openTime) {
			next.openings, next.openTime = p.openings, p.openTime
		}
		p.change(next, "by hand")
	}
	b.mu.Unlock()
	b.deliver()
}

// change puts next in the place of p, which is the present phase, and queues the event.
func (p *phase) change(next *phase, cause string) {
	b := p.b
	b.phase.Store(next)
	if b.cfg.OnStateChange != nil && p.state != next.state {
		b.events = append(b.events, Transition{
			Name: b.cfg.Name, From: p.state, To: next.state, At: next.since, Cause: cause, Snapshot: p.snapshot(),
		})
	}
}

// current is the present phase after what is due by the clock.
func (b *Breaker) current() *phase {
	p := b.phase.Load()
	if p.state != Open && p.state != HalfOpen {
		return p
	}
	b.mu.Lock()
	b.catchUp()
	p = b.phase.Load()
	b.mu.Unlock()
	b.deliver()
	return p
}

// catchUp makes, with b.mu held, the transition that a timer missed.
func (b *Breaker) catchUp() {
	p := b.phase.Load()
	switch p.state {
	case Open:
		if clock.Now() >= p.until {
			p.halfOpen()
		}
	case HalfOpen:
		p.failOverdue(clock.Now())
	}
}

// snapshot tells of p, with b.mu held.
func (p *phase) snapshot() Snapshot {
	c := &p.b.cfg
	s := Snapshot{
		Name: c.Name, State: p.state, Since: p.since,
		Consecutive: int(p.streak.Load()), Leak: int(p.leak.Load()), Openings: p.openings,
	}
	switch {
	case p.state == Open:
		s.Until = p.since.Add(p.openTime)
	case p.state == Closed && time.Duration(clock.Now()-p.began) >= p.openTime:
		s.Openings = 0
	}
	if p.probes != nil {
		s.Calls, s.Failures, s.Running = p.probes.succeeded+p.probes.failed, p.probes.failed, len(p.probes.running)
	}
	if p.last != nil {
		s.Calls, s.Failures = p.last.held()
	}
	if p.window != nil {
		p.window.snapshot(&s)
	}
	return s
}

// probes are what a half-open phase knows, guarded by b.mu but for full.
type probes struct {
	running   []*probe // in the order of their admission and so of their deadlines
	succeeded int
	failed    int
	timer     bool // one is set for the deadline of a probe

	// full is stored with b.mu held when a place is taken or given back. A reader may refuse by it alone: whoever finds it false
	// looks again under b.mu.
	full atomic.Bool
}

// A probe is one call that a half-open breaker let through.
type probe struct {
	deadline int64 // on package clock: without a result by then it has failed
}

// admitProbe gives a place, or nil if none is free. It is not ok if p has ended.
func (p *phase) admitProbe() (t *probe, ok bool) {
	b, now := p.b, clock.Now()
	b.mu.Lock()
	p.failOverdue(now)
	if ok = b.phase.Load() == p; ok && len(p.probes.running) < b.cfg.Probes {
		t = &probe{deadline: clock.Add(now, b.cfg.probeTime())}
		p.probes.running = append(p.probes.running, t)
		p.probes.full.Store(len(p.probes.running) == b.cfg.Probes)
		p.watchProbes(now)
	}
	b.mu.Unlock()
	if !ok {
		b.deliver() // what failOverdue did. A goroutine with a probe made no transition, and must not be held up by hooks.
	}
	return t, ok
}

// endProbe books a probe, unless it has failed by its deadline already.
func (p *phase) endProbe(t *probe, outcome Outcome, err error) {
	after, now := time.Duration(0), clock.Now()
	defer func() { p.bookProbe(t, outcome, after, now) }()
	if outcome == Failure {
		after, _ = resilience.RetryAfter(err) // as in trip
	}
}

func (p *phase) bookProbe(t *probe, outcome Outcome, retryAfter time.Duration, now int64) {
	b := p.b
	b.mu.Lock()
	p.failOverdue(now)
	if b.phase.Load() == p && p.removeProbe(t) {
		switch outcome {
		case Success:
			p.probes.succeeded++
			if p.probes.succeeded >= b.cfg.ProbeSuccesses {
				p.closeAgain(count(p.probes.succeeded, "probe") + " succeeded")
			}
		case Failure:
			p.failProbe("failed", retryAfter)
		}
	}
	b.mu.Unlock()
	b.deliver()
}

func (p *phase) removeProbe(t *probe) bool {
	for i, running := range p.probes.running {
		if running == t {
			p.probes.running = append(p.probes.running[:i], p.probes.running[i+1:]...)
			p.probes.full.Store(false)
			return true
		}
	}
	return false
}

func (p *phase) failProbe(how string, retryAfter time.Duration) {
	p.probes.failed++
	if p.probes.failed >= p.b.cfg.ProbeFailures {
		p.reopen(count(p.probes.failed, "probe")+" "+how, retryAfter)
	}
}

// failOverdue fails the probes that have had their time, with b.mu held.
func (p *phase) failOverdue(now int64) {
	for p.b.phase.Load() == p && len(p.probes.running) > 0 && p.probes.running[0].deadline <= now {
		p.removeProbe(p.probes.running[0])
		p.failProbe("without a result in time", 0)
	}
}

// watchProbes sets a timer for the oldest probe unless there is one, with b.mu held: one a phase, however many probes come
// and go.
func (p *phase) watchProbes(now int64) {
	if p.probes.timer || len(p.probes.running) == 0 {
		return
	}
	p.probes.timer = true
	time.AfterFunc(time.Duration(p.probes.running[0].deadline-now), func() {
		now := clock.Now()
		p.b.mu.Lock()
		p.probes.timer = false
		p.failOverdue(now)
		if p.b.phase.Load() == p {
			p.watchProbes(now)
		}
		p.b.mu.Unlock()
		p.b.deliver()
	})
}

// probeTime is how long a probe may take.
func (c *Config) probeTime() time.Duration {
	if c.SlowRate > 0 {
		return min(c.ProbeTimeout, c.SlowCall)
	}
	return c.ProbeTimeout
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
