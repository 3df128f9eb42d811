package breaker

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/clock"
)

// A stay is one period of a state, from one transition to the next. (Reset of a closed breaker
// begins one too.) An admitted call counts in the stay that admitted it. A result that arrives
// after the stay has ended finds another one in the breaker, and is ignored.
//
// Nothing but probes is written after the stay has begun.
type stay struct {
	state    State
	since    time.Time
	began    int64         // since, by package clock
	until    int64         // if open: when it becomes half-open, by package clock
	openings int           // consecutive openings, including this one
	openTime time.Duration // of the latest opening; 0 if there was none since New or Reset
	probes   *probes       // set if half-open
}

// A phase is a stay under one Config, or, if half-open, one of its two parts: the probes, then the
// slow start. SetConfig replaces the phase with another one of the same stay. A call refers to the
// phase that admitted it, and is counted in the phase that its stay has when the call ends.
//
// Counts are behind pointers, so that the next phase of the stay can keep them.
type phase struct {
	b *Breaker
	*stay
	cfg     *Config // with defaults filled in; never written
	changed bool    // SetConfig lowered a limit, so that a kept count may have reached it already

	// What a call needs to know first, derived from state and Config.
	admitsAll bool // closed without SlowRate: nothing needs to be noted before a call

	// refusesAll means that refusals need no clock: open or forced open, and not a dry run. It is
	// cleared, with mu held, shortly before the end of the open time. A refusal that still sees it
	// set is early by at least nearEnd, minus the lateness of a timer.
	refusesAll atomic.Bool

	// success is what a nil error changes. SetConfig sets it to anything after it has replaced the
	// phase. So a call that ends after SetConfig has returned looks for the phase that replaced its
	// own, and no call pays for that before.
	success atomic.Uint32

	// refusal is the *OpenError of a refused call; nil if the phase can't refuse.
	refusal error

	// The counts of a closed breaker, and of a slow start.
	streak *atomic.Int64 // failures in a row; set with the rule Consecutive
	leak   *atomic.Int64 // failures minus successes; set with the rule Leaky
	last   *lastCalls    // set with the rule Failures
	window *window       // set with FailureRate or SlowRate

	ramp *ramp // set in a slow start
}

// The values of phase.success.
const (
	anything   = iota // look at the breaker's phase: it may be another one, or have a Classify
	counts            // the counts of this phase
	streakOnly        // nothing but streak: nothing at all, if streak is 0
	windowOnly        // nothing but window
)

// nearEnd is the last part of the open time, in which refusals read the clock.
const nearEnd = 50 * time.Millisecond

// newStay returns a stay that begins now.
func newStay(state State) *stay {
	began := clock.Now() // before since, so that the open time is over when Snapshot says so
	s := &stay{state: state, since: time.Now(), began: began}
	if state == HalfOpen {
		s.probes = &probes{}
	}
	return s
}

// newPhase returns a phase of the stay under the Config. It keeps the counts of old, a phase of the
// same stay or nil, where they count the same.
func newPhase(b *Breaker, s *stay, c *Config, old *phase) *phase {
	p := &phase{b: b, stay: s, cfg: c}
	if old == nil {
		old = &phase{}
	}
	p.ramp = old.ramp
	switch {
	case s.state == Closed:
		p.keepCounts(old)
		p.admitsAll = c.SlowRate == 0
		p.success.Store(p.successChanges())
	case p.ramp != nil:
		p.keepCounts(old)
		p.refusal = &OpenError{Name: c.Name, State: HalfOpen, slowStart: true}
	case s.state == HalfOpen:
		p.refusal = &OpenError{Name: c.Name, State: HalfOpen}
	case s.state == Open:
		p.refusesAll.Store(!c.DryRun && s.openTime > 2*nearEnd && clock.Now() < s.until-int64(nearEnd))
		p.refusal = &OpenError{Name: c.Name, State: Open, until: s.until}
	case s.state == ForcedOpen:
		p.refusesAll.Store(!c.DryRun)
		p.refusal = &OpenError{Name: c.Name, State: ForcedOpen}
	}
	return p
}

// keepCounts sets the counts that the rules of p need: those of old, or new ones.
func (p *phase) keepCounts(old *phase) {
	c := p.cfg
	if c.Consecutive > 0 {
		p.streak = orNew(old.streak)
	}
	if c.Leaky > 0 {
		p.leak = orNew(old.leak)
	}
	if c.Failures > 0 {
		if p.last = old.last; p.last == nil || p.last.size != uint64(c.LastCalls) {
			p.last = newLastCalls(c.LastCalls)
		}
	}
	if c.FailureRate > 0 || c.SlowRate > 0 {
		if p.window = old.window.with(c); p.window == nil {
			p.window = newWindow(c, p.countsSince())
		}
	}
}

// countsSince returns when the breaker began to count for a decision to open.
func (p *phase) countsSince() int64 {
	if p.ramp != nil {
		return p.ramp.began
	}
	return p.began
}

func orNew(n *atomic.Int64) *atomic.Int64 {
	if n == nil {
		return new(atomic.Int64)
	}
	return n
}

// successChanges returns what a nil error changes in a closed phase.
func (p *phase) successChanges() uint32 {
	c := p.cfg
	switch others := p.leak != nil || p.last != nil; {
	case c.Classify != nil:
		return anything
	case p.window == nil && !others:
		return streakOnly
	case p.streak == nil && !others:
		return windowOnly
	}
	return counts
}

// latest returns the current phase of p's stay, or nil if the stay has ended.
func (p *phase) latest() *phase {
	if latest := p.b.phase.Load(); latest.stay == p.stay {
		return latest
	}
	return nil
}

// admitNoted decides on a call if that takes more than loading the phase.
func (b *Breaker) admitNoted(p *phase) (ticket, error) {
	for {
		switch {
		case p.state == Closed:
			if p.admitsAll { // a phase that followed the first one
				return ticket{phase: p}, nil
			}
			now := clock.Now()
			if cause := p.window.judgeAdmission(now); cause != "" {
				p.trip(cause, nil, Ignored)
				break
			}
			return ticket{phase: p, entry: p.window.enter(now)}, nil
		case p.ramp != nil:
			if t, refused, ok := p.admitRamped(); ok {
				if refused {
					return p.refuse()
				}
				return t, nil
			}
		case p.state == HalfOpen:
			if p.probes.full.Load() {
				return p.refuse()
			}
			if t, ok := p.admitProbe(); ok {
				if t == nil {
					return p.refuse()
				}
				return ticket{phase: p, probe: t}, nil
			}
		case p.state == Disabled:
			return ticket{}, nil
		case p.state == Open && !p.refusesAll.Load() && clock.Now() >= p.until:
			p.openTimeOver()
		default:
			return p.refuse()
		}
		p = b.phase.Load() // p has ended, or SetConfig replaced it
	}
}

// refuse refuses a call; in a dry run it admits the call without counting it.
func (p *phase) refuse() (ticket, error) {
	if p.cfg.DryRun {
		return ticket{}, nil
	}
	return ticket{}, p.refusal
}

// count counts the outcome of a call that p's stay admitted, and that has left its window. It opens
// the breaker if a rule is met. p is closed or in a slow start.
func (p *phase) count(e entry, outcome Outcome, err error) {
	if outcome == canceled {
		return
	}
	c := p.cfg
	cause := ""
	if p.window != nil {
		cause = p.window.book(e, outcome)
	}
	failed := outcome == Failure
	if outcome != Ignored {
		// In a fixed Config only a failure can make these counts meet their rule. Judging successes
		// too would let one of them take the opening from the failure, whose error counts.
		judged := failed || p.changed
		if p.last != nil && p.last.book(failed) >= c.Failures && judged {
			cause = count(c.Failures, "failure") + " among the last " + count(c.LastCalls, "call")
		}
		if p.leak != nil && addNotBelowZero(p.leak, failed) >= int64(c.Leaky) && judged {
			cause = count(c.Leaky, "failure") + " more than successes"
		}
		if p.streak != nil && p.countStreak(failed) {
			cause = count(c.Consecutive, "failure") + " in a row"
		}
	}
	if cause != "" {
		p.trip(cause, err, outcome)
	}
}

// countStreak counts a call in streak. It reports whether the rule Consecutive is met.
func (p *phase) countStreak(failed bool) bool {
	if failed {
		return p.streak.Add(1) >= int64(p.cfg.Consecutive)
	}
	if p.streak.Load() != 0 {
		// A failure added meanwhile either precedes this success, and is forgotten, or has seen its
		// own sum and opens the breaker.
		p.streak.Store(0)
	}
	return false
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

// trip opens the breaker if p's stay has not ended. err is the error of the call that caused it, and
// outcome that call's. Asking err for its RetryAfter may panic. Then no lock is held, and the
// breaker opens anyway.
func (p *phase) trip(cause string, err error, outcome Outcome) {
	after := time.Duration(0)
	defer func() {
		p.b.mu.Lock()
		p.reopen(cause, after, err)
		p.b.mu.Unlock()
		p.b.deliver()
	}()
	if outcome == Failure { // the RetryAfter of a call that is only slow doesn't count
		after, _ = resilience.RetryAfter(err) // asks the user's error
	}
}

// The functions below make all transitions. They need b.mu held, and do nothing if p's stay has
// ended. They act by the current Config.

// reopen changes the state from closed or half-open to open.
func (p *phase) reopen(cause string, retryAfter time.Duration, err error) {
	if p = p.latest(); p == nil {
		return
	}
	s := newStay(Open)
	s.openings = 1
	if p.state == HalfOpen || time.Duration(s.began-p.began) < p.openTime {
		s.openings = p.openings + 1
	}
	s.openTime = p.cfg.openTime(s.openings, retryAfter, rand.Float64())
	s.until = clock.Add(s.began, s.openTime)
	next := newPhase(p.b, s, p.cfg, nil)
	// The timer is never stopped: if it fires late it finds another stay. (Stopping a timer from
	// outside its synctest bubble is fatal.)
	time.AfterFunc(s.openTime-nearEnd, next.openTimeEnds)
	p.change(next, cause, err)
}

// openTimeEnds makes refusals read the clock for the rest of the open time, at the end of which the
// breaker becomes half-open. If its own timer is late by more than that rest, calls are refused
// until it has run.
func (p *phase) openTimeEnds() {
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	if latest := p.latest(); latest != nil {
		latest.refusesAll.Store(false)
		time.AfterFunc(time.Duration(p.until-clock.Now()), p.openTimeOver)
	}
}

// openTimeOver changes the state from open to half-open.
func (p *phase) openTimeOver() {
	p.b.mu.Lock()
	p.halfOpen()
	p.b.mu.Unlock()
	p.b.deliver()
}

func (p *phase) halfOpen() {
	if p = p.latest(); p != nil {
		p.change(p.following(HalfOpen), "open time over", nil)
	}
}

// closeAgain changes the state from half-open to closed.
func (p *phase) closeAgain(cause string, err error) {
	p.change(p.following(Closed), cause, err)
}

// following returns the first phase of a stay that keeps p's openings.
func (p *phase) following(state State) *phase {
	s := newStay(state)
	s.openings, s.openTime = p.openings, p.openTime
	return newPhase(p.b, s, p.cfg, nil)
}

// force changes any state to a manually chosen one.
func (b *Breaker) force(state State) {
	b.mu.Lock()
	b.catchUp()
	p := b.phase.Load()
	if p.state != state || state == Closed {
		next := p.following(state)
		if state == Closed || p.state == Closed && time.Duration(next.began-p.began) >= p.openTime {
			next.openings, next.openTime = 0, 0
		}
		p.change(next, "manual", nil)
	}
	b.mu.Unlock()
	b.deliver()
}

// change replaces p, the current phase, with next, and queues what reports it. err is the error of
// the call that caused it, or nil.
func (p *phase) change(next *phase, cause string, err error) {
	p.b.phase.Store(next)
	if p.state != next.state {
		p.b.queue(p, next, cause, err)
	}
}

// replace replaces p, the current phase, with another one of the same stay.
func (p *phase) replace(next *phase) {
	p.b.phase.Store(next)
	p.success.Store(anything) // after the store: a call that sees this finds next
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
	p, now := b.phase.Load(), clock.Now()
	switch {
	case p.state == Open && now >= p.until:
		p.halfOpen()
	case p.ramp != nil:
		p.endRamp(now)
	case p.state == HalfOpen:
		p.failOverdue(now)
	}
}

// snapshot returns p's state and counts. It needs b.mu held.
func (p *phase) snapshot() Snapshot {
	now := clock.Now()
	s := Snapshot{Name: p.cfg.Name, State: p.state, Since: p.since, Openings: p.openings}
	switch {
	case p.state == Open:
		s.Until = p.since.Add(p.openTime)
	case p.state == Closed && time.Duration(now-p.began) >= p.openTime:
		s.Openings = 0
	}
	if p.streak != nil {
		s.Consecutive = int(p.streak.Load())
	}
	if p.leak != nil {
		s.Leak = int(p.leak.Load())
	}
	if p.last != nil {
		s.Calls, s.Failures = p.last.held()
	}
	if p.window != nil {
		p.window.snapshot(&s)
	}
	switch {
	case p.ramp != nil:
		s.Running, s.Share = int(p.ramp.running.Load()), p.ramp.share(now)
	case p.probes != nil:
		s.Calls, s.Failures, s.Running = p.probes.succeeded+p.probes.failed, p.probes.failed, len(p.probes.running)
	}
	return s
}

// probes is the state of a half-open stay. All of it except full is guarded by b.mu.
type probes struct {
	running   []*probe // by deadline
	succeeded int
	failed    int
	wake      int64 // the earliest time, by package clock, at which a timer looks at the deadlines; 0 if none is set

	// full is stored with b.mu held whenever a probe is admitted or ends, and by SetConfig. A reader
	// may refuse by it alone. A reader that finds it false must check again under b.mu.
	full atomic.Bool
}

// A probe is a call that a half-open breaker admitted.
type probe struct {
	began    int64
	deadline int64 // by package clock; without a result by then, the probe has failed
}

// admitProbe returns a new probe, or nil if the maximum is running. ok is false if the breaker
// doesn't admit probes any more.
func (p *phase) admitProbe() (t *probe, ok bool) {
	b, now := p.b, clock.Now()
	b.mu.Lock()
	p.failOverdue(now)
	latest := p.latest()
	if ok = latest != nil && latest.ramp == nil; ok && len(p.probes.running) < latest.cfg.Probes {
		t = &probe{now, clock.Add(now, latest.cfg.probeTime())}
		p.probes.add(t)
		latest.checkFull()
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

// add adds a probe, in the order of deadlines. It needs b.mu held.
func (ps *probes) add(t *probe) {
	i := len(ps.running)
	for i > 0 && ps.running[i-1].deadline > t.deadline { // only if SetConfig made probes shorter
		i--
	}
	ps.running = slices.Insert(ps.running, i, t)
}

// remove removes a probe, if it is running. It needs b.mu held.
func (ps *probes) remove(t *probe) bool {
	i := slices.Index(ps.running, t)
	if i < 0 {
		return false
	}
	ps.running = slices.Delete(ps.running, i, i+1)
	return true
}

// checkFull stores whether more probes are refused. It needs b.mu held.
func (p *phase) checkFull() { p.probes.full.Store(len(p.probes.running) >= p.cfg.Probes) }

// endProbe counts the result of a probe, unless its deadline has already failed it.
func (p *phase) endProbe(t *probe, outcome Outcome, err error) {
	after, now := time.Duration(0), clock.Now()
	defer func() {
		if leftOver := p.bookProbe(t, outcome, err, after, now); leftOver {
			p.endRamped(entry{start: t.began}, outcome, err)
		}
	}()
	if outcome == Failure {
		after, _ = resilience.RetryAfter(err) // as in trip
	}
}

// bookProbe reports whether the slow start has begun meanwhile, so that the probe is one of its
// calls.
func (p *phase) bookProbe(t *probe, outcome Outcome, err error, retryAfter time.Duration, now int64) (leftOver bool) {
	b := p.b
	defer b.deliver()
	b.mu.Lock()
	defer b.mu.Unlock()
	p.failOverdue(now)
	latest := p.latest()
	if latest == nil || !p.probes.remove(t) {
		return false
	}
	if latest.ramp != nil {
		return true
	}
	latest.checkFull()
	switch outcome {
	case Success:
		p.probes.succeeded++
	case Failure:
		p.probes.failed++
	default:
		return false
	}
	latest.judgeProbes(outcome, "failed", retryAfter, err)
	return false
}

// judgeProbes decides by the counts whether the probes have succeeded or failed. They can have done
// both if SetConfig changed the numbers; then the latest outcome decides. It needs b.mu held.
func (p *phase) judgeProbes(latest Outcome, how string, retryAfter time.Duration, err error) {
	succeeded := p.probes.succeeded >= p.cfg.ProbeSuccesses
	failed := p.probes.failed >= p.cfg.ProbeFailures
	switch {
	case failed && (latest == Failure || !succeeded):
		p.reopen(count(p.probes.failed, "probe")+" "+how, retryAfter, err)
	case succeeded && p.cfg.SlowStart > 0:
		p.startRamp()
	case succeeded:
		p.closeAgain(count(p.probes.succeeded, "probe")+" succeeded", err)
	}
}

// failOverdue fails the probes whose deadline has passed. It needs b.mu held.
func (p *phase) failOverdue(now int64) {
	for {
		latest := p.latest()
		if latest == nil || latest.ramp != nil || len(p.probes.running) == 0 || p.probes.running[0].deadline > now {
			return
		}
		p.probes.remove(p.probes.running[0])
		latest.checkFull()
		p.probes.failed++
		latest.judgeProbes(Failure, "without a result in time", 0, nil)
	}
}

// watchProbes sets a timer for the earliest deadline, unless one is set for that time or before. So
// a stay has one timer, however many probes start and end, until SetConfig makes probes shorter. It
// needs b.mu held.
func (p *phase) watchProbes(now int64) {
	if len(p.probes.running) == 0 {
		return
	}
	deadline := p.probes.running[0].deadline
	if p.probes.wake != 0 && p.probes.wake <= deadline {
		return
	}
	p.probes.wake = deadline
	time.AfterFunc(time.Duration(deadline-now), func() {
		now := clock.Now()
		p.b.mu.Lock()
		if p.probes.wake == deadline {
			p.probes.wake = 0
		}
		p.failOverdue(now)
		if latest := p.latest(); latest != nil && latest.ramp == nil {
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
