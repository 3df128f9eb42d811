package breaker_test

import (
	"slices"
	"time"

	"github.com/effector-go/resilience/breaker"
)

// choices answers what the documents leave open, as the real breaker decided it. The reference asks
// only where two answers are valid, and accepts only a valid one.
type choices struct {
	opened  func() bool // whether the real breaker opened at this call
	admits  func() bool // whether the real breaker admitted this call in a slow start
	lasting func(shortest, longest time.Duration) time.Duration
}

// A result is a call that ended.
type result struct {
	at      time.Time
	outcome breaker.Outcome
	slow    bool
}

// A change is a transition that OnStateChange must be called with, with one of the snapshots.
type change struct {
	from, to  breaker.State
	at        time.Time
	snapshots []breaker.Snapshot
	err       error // of the call that caused it
}

// A reading is what the window holds. slow is a share of all, which includes ignored and running
// calls.
type reading struct{ calls, failures, slow, all int }

// window returns every valid reading. A call leaves the window when its age is between nine tenths
// of the window and the whole window. A running call becomes slow when its age is between SlowCall
// and an eighth more. Each has one border for all calls.
func (r *reference) window(now time.Time) (readings []reading) {
	ended := make([]time.Time, len(r.ended))
	for i, e := range r.ended {
		ended[i] = e.at
	}
	started := make([]time.Time, 0, len(r.running))
	if r.c.SlowRate > 0 {
		for _, c := range r.running {
			if c.watched {
				started = append(started, c.start)
			}
		}
	}
	for _, left := range borders(now, ended, r.c.Window/10*9, r.c.Window+1) {
		for _, hanging := range borders(now, started, r.c.SlowCall, r.c.SlowCall+r.c.SlowCall/8) {
			n := reading{slow: hanging, all: hanging}
			for _, e := range r.ended[left:] {
				n.all++
				if e.outcome != breaker.Ignored {
					n.calls++
				}
				if e.outcome == breaker.Failure {
					n.failures++
				}
				if e.slow {
					n.slow++
				}
			}
			if !slices.Contains(readings, n) {
				readings = append(readings, n)
			}
		}
	}
	return readings
}

// borders returns every number of times, oldest first, that may count as old: none younger than
// young, and all from old on.
func borders(now time.Time, times []time.Time, young, old time.Duration) (valid []int) {
	for n := range len(times) + 1 {
		tooEarly := n > 0 && now.Sub(times[n-1]) < young
		tooLate := n < len(times) && now.Sub(times[n]) >= old
		torn := n > 0 && n < len(times) && times[n].Equal(times[n-1])
		if !tooEarly && !tooLate && !torn {
			valid = append(valid, n)
		}
	}
	return valid
}

// refuses reports whether the next call would be refused.
func (r *reference) refuses() bool {
	r.now()
	defer r.Unlock()
	return r.shut() && !r.c.DryRun // in a slow start, no call must be refused
}

// slowStarts reports whether the breaker is in a slow start, or may come into one.
func (r *reference) slowStarts() bool {
	r.now()
	defer r.Unlock()
	return r.ramp
}

// snapshots returns every valid Snapshot.
func (r *reference) snapshots(now time.Time) (valid []breaker.Snapshot) {
	s := breaker.Snapshot{Name: r.c.Name, State: r.state, Since: r.since.Round(0), Until: r.until.Round(0), Openings: r.inARow(now)}
	switch {
	case r.ramp:
		s.Share, s.Running = r.share(now), len(r.running)
	case r.state == breaker.HalfOpen:
		s.Calls, s.Failures, s.Running = r.succeeded+r.failed, r.failed, len(r.running)
	}
	if !r.counts() {
		return []breaker.Snapshot{s}
	}
	if r.c.Consecutive > 0 {
		s.Consecutive = r.row
	}
	if r.c.Leaky > 0 {
		s.Leak = r.leak
	}
	if r.c.SlowRate > 0 && !r.ramp {
		s.Running = r.watched()
	}
	if r.c.FailureRate == 0 && r.c.SlowRate == 0 {
		if r.c.Failures > 0 {
			s.Calls, s.Failures = len(r.last), count(r.last)
		}
		return []breaker.Snapshot{s}
	}
	for _, n := range r.window(now) {
		s.Calls, s.Failures = n.calls, n.failures
		if r.c.SlowRate > 0 {
			s.Slow = n.slow
		}
		valid = append(valid, s)
	}
	return valid
}

func (r *reference) watched() (n int) {
	for _, c := range r.running {
		if c.watched {
			n++
		}
	}
	return n
}

func count(failed []bool) (n int) {
	for _, f := range failed {
		if f {
			n++
		}
	}
	return n
}
