package breaker

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/effector-go/resilience/internal/clock"
)

// A ramp is a slow start: the second part of a half-open stay. It keeps its length when SetConfig
// changes SlowStart.
//
// Each admission decision is one compare-and-swap of credit. It is neither a lock, which would hold
// up calls while the dependency recovers, nor a draw of lots for each call, by which a tenth of 50
// calls is sometimes none and sometimes twelve.
type ramp struct {
	began int64 // by package clock
	lasts time.Duration

	running atomic.Int64 // calls, and probes that were running when the slow start began

	// credit is what the admitted calls lack of the share of all calls so far, in 1/whole of a
	// call. A call adds the share, and an admitted one takes a call off. Above 0, a call is admitted
	// with the credit as its probability, so the sum of the admitted calls is exact to one call, and
	// traffic with a rhythm (a cheap call, then an expensive one) isn't sorted by its rhythm.
	credit atomic.Int64
}

const (
	whole    = 1 << 32
	minShare = 0.1
)

func (r *ramp) share(now int64) float64 {
	return min(1, max(minShare, float64(now-r.began)/float64(r.lasts)))
}

func (r *ramp) over(now int64) bool { return time.Duration(now-r.began) >= r.lasts }

// admit decides on a call. An admitted call is running.
func (r *ramp) admit(now int64, probes int) bool {
	share := int64(r.share(now) * whole)
	for {
		running := r.running.Load()
		if running >= int64(probes) {
			break
		}
		if r.running.CompareAndSwap(running, running+1) {
			r.take(share, true)
			return true
		}
	}
	if !r.take(share, false) {
		return false
	}
	r.running.Add(1)
	return true
}

// take adds the share to the credit and takes a call off if the call is admitted: in any case, or
// by the credit. A debt is at most one call: where a call is admitted in any case, the share must
// not refuse calls for long afterwards.
func (r *ramp) take(share int64, inAnyCase bool) (admitted bool) {
	for {
		old := r.credit.Load()
		next := old + share
		admitted = inAnyCase || next > rand.Int64N(whole)
		if admitted {
			next = max(next-whole, -whole)
		}
		if r.credit.CompareAndSwap(old, next) {
			return admitted
		}
	}
}

// startRamp begins the slow start. That isn't a transition. It needs b.mu held.
func (p *phase) startRamp() {
	started := &phase{ramp: &ramp{began: clock.Now(), lasts: p.cfg.SlowStart}}
	started.ramp.running.Store(int64(len(p.probes.running)))
	next := newPhase(p.b, p.stay, p.cfg, started)
	time.AfterFunc(p.cfg.SlowStart, next.rampOver) // never stopped, like the timer of the open time
	p.replace(next)
}

// rampOver is called by a timer, or by a call that finds that the slow start is over.
func (p *phase) rampOver() {
	p.b.mu.Lock()
	p.endRamp(clock.Now())
	p.b.mu.Unlock()
	p.b.deliver()
}

// endRamp closes the breaker if the slow start is over. It needs b.mu held.
func (p *phase) endRamp(now int64) {
	if latest := p.latest(); latest != nil && p.ramp.over(now) {
		latest.closeAgain("slow start over", nil)
	}
}

// admitRamped decides on a call in a slow start. ok is false if the slow start has ended.
func (p *phase) admitRamped() (t ticket, refused, ok bool) {
	now := clock.Now()
	if p.ramp.over(now) {
		p.rampOver()
		return ticket{}, false, false
	}
	if p.cfg.SlowRate > 0 {
		if cause := p.window.judgeAdmission(now); cause != "" {
			p.trip(cause, nil, Ignored)
			return ticket{}, false, false
		}
	}
	if !p.ramp.admit(now, p.cfg.Probes) {
		return ticket{}, true, true
	}
	t = ticket{phase: p}
	if p.cfg.SlowRate > 0 {
		t.entry = p.window.enter(now)
	}
	return t, false, true
}

// endRamped counts the result of a call that ran in a slow start, if its stay has not ended.
func (p *phase) endRamped(e entry, outcome Outcome, err error) {
	p = p.latest()
	switch {
	case p == nil:
	case p.ramp.over(clock.Now()):
		p.rampOver()
	default:
		p.ramp.running.Add(-1)
		p.count(e, outcome, err)
	}
}
