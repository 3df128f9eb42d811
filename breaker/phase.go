package breaker

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/clock"
)

// A phase is one period of a state. An admitted call refers to its phase. A result that arrives
// after the phase has ended finds another phase in the breaker, and is ignored.
type phase struct {
	b     *Breaker
	state State

	// What a call needs to know first, derived from state and Config.
	admitsAll  bool // closed without SlowRate: nothing needs to be noted before a call
	refusesAll bool // open or forced open, and not a dry run
	simple     bool // admitsAll, and a nil error is a success that changes only streak
	windowOnly bool // closed, and a nil error is a success that changes only window, as count would

	// refusal is the *OpenError of a refused call; nil if the phase can't refuse.
	refusal error

	streak atomic.Int64 // failures in a row; with the rule Consecutive
	leak   atomic.Int64 // failures minus successes; with the rule Leaky
	last   *lastCalls   // set with the rule Failures
	window *window      // set with FailureRate or SlowRate
	probes *probes      // set if half-open

	since    time.Time
	began    int64         // since, by package clock
	until    int64         // if open: when it becomes half-open, by package clock
	openings int           // consecutive openings, including this one
	openTime time.Duration // of the latest opening; 0 if there was none since New or Reset
}

// newPhase returns a phase that begins now, with all counts at zero.
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

// admitNoted decides on a call if that takes more than loading the phase.
func (b *Breaker) admitNoted(p *phase) (ticket, error) {
	for {
		switch p.state {
		case Closed:
			if p.admitsAll { // a phase that followed the first one
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

// refuse refuses a call; in a dry run it admits the call without counting it.
func (p *phase) refuse() (ticket, error) {
	if p.b.cfg.DryRun {
		return ticket{}, nil
	}
	return ticket{}, p.refusal
}

// count counts the outcome of a call that the closed phase p admitted, and opens the breaker if a
// rule is met.
func (p *phase) count(t *ticket, outcome Outcome, err error) {
	c := &p.b.cfg
	cause := ""
	if p.window != nil {
		cause = p.window.book(t.mark, outcome)
	}
	failed := outcome == Failure
	if !failed {
		err = nil // the call may be slow, but its RetryAfter doesn't count
	}
	if outcome == Ignored {
		if cause != "" {
			p.trip(cause, nil)
		}
		return
	}
	if p.last != nil && p.last.book(failed) {
		cause = count(c.Failures, "failure") + " among the last " + count(c.LastCalls, "call")
	}
	if c.Leaky > 0 && addNotBelowZero(&p.leak, failed) >= int64(c.Leaky) && failed {
		cause = count(c.Leaky, "failure") + " more than successes"
	}
	if c.Consecutive > 0 {
		if failed {
			if p.streak.Add(1) >= int64(c.Consecutive) {
				cause = count(c.Consecutive, "failure") + " in a row"
			}
		} else if p.streak.Load() != 0 {
			// A failure added meanwhile either precedes this success, and is forgotten, or has
			// seen its own sum and opens the breaker.
			p.streak.Store(0)
		}
	}
	if cause != "" {
		p.trip(cause, err)
	}
}

// addNotBelowZero adds one for a failure, subtracts one for a success, and returns the sum.
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

// trip opens the breaker if p is still its phase. err is the error of the failure that caused it.
// Asking err for its RetryAfter may panic. Then no lock is held, and the breaker opens anyway.
func (p *phase) trip(cause string, err error) {
	after := time.Duration(0)
	defer func() {
		p.b.mu.Lock()
		p.reopen(cause, after)
		p.b.mu.Unlock()
		p.b.deliver()
	}()
	after, _ = resilience.RetryAfter(err) // asks the user's error
}

// The functions below make all transitions. They need b.mu held, and do nothing if p has ended.

// reopen changes the state from closed or half-open to open.
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
	// The timer is never stopped: if it fires late it finds another phase. (Stopping a timer from
	// outside its synctest bubble is fatal.)
	time.AfterFunc(next.openTime, next.openTimeOver)
	p.change(next, cause)
}

// openTimeOver changes the state from open to half-open.
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

// closeAgain changes the state from half-open to closed.
func (p *phase) closeAgain(cause string) {
	next := newPhase(p.b, Closed)
	next.openings, next.openTime = p.openings, p.openTime
	p.change(next, cause)
}

// force changes any state to a manually chosen one.
func (b *Breaker) force(state State) {
	b.mu.Lock()
	b.catchUp()
	p := b.phase.Load()
	if p.state != state || state == Closed {
		next := newPhase(b, state)
		if state != Closed && (p.state != Closed || time.Duration(next.began-p.began) < p.openTime) {
			next.openings, next.openTime = p.openings, p.openTime
		}
		p.change(next, "manual")
	}
	b.mu.Unlock()
	b.deliver()
}

// change replaces p, the current phase, with next, and queues the event.
func (p *phase) change(next *phase, cause string) {
	b := p.b
	b.phase.Store(next)
	if b.cfg.OnStateChange != nil && p.state != next.state {
		b.events = append(b.events, Transition{
			Name: b.cfg.Name, From: p.state, To: next.state, At: next.since, Cause: cause, Snapshot: p.snapshot(),
		})
	}
}

// current returns the current phase after making any transition that is due.
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

// catchUp makes the transition that is due if its timer is late. It needs b.mu held.
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

// snapshot returns p's state and counts. It needs b.mu held.
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

// probes is the state of a half-open phase. All of it except full is guarded by b.mu.
type probes struct {
	running   []*probe // in the order of admission, and so of deadlines
	succeeded int
	failed    int
	timer     bool // a timer is set for a probe's deadline

	// full is stored with b.mu held whenever a probe is admitted or ends. A reader may refuse by it
	// alone. A reader that finds it false must check again under b.mu.
	full atomic.Bool
}

// A probe is a call that a half-open breaker admitted.
type probe struct {
	deadline int64 // by package clock; without a result by then, the probe has failed
}

// admitProbe returns a new probe, or nil if the maximum is running. ok is false if p has ended.
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
	// Deliver what failOverdue did. If ok, this goroutine made no transition: it may have a probe,
	// which hooks must not delay.
	if !ok {
		b.deliver()
	}
	return t, ok
}

// endProbe counts the result of a probe, unless its deadline has already failed it.
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

// failOverdue fails the probes whose deadline has passed. It needs b.mu held.
func (p *phase) failOverdue(now int64) {
	for p.b.phase.Load() == p && len(p.probes.running) > 0 && p.probes.running[0].deadline <= now {
		p.removeProbe(p.probes.running[0])
		p.failProbe("without a result in time", 0)
	}
}

// watchProbes sets a timer for the oldest probe unless one is set. So a phase has one timer,
// however many probes start and end. It needs b.mu held.
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

// probeTime returns how long a probe may take.
func (c *Config) probeTime() time.Duration {
	if c.SlowRate > 0 {
		return min(c.ProbeTimeout, c.SlowCall)
	}
	return c.ProbeTimeout
}

// count returns "1 probe", "2 probes", and so on.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
