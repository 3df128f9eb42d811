package breaker_test

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
)

// A reference is a breaker in its plainest form: one lock, lists instead of counters, no timer. It
// was written from the design alone. It asks choices about what the documents leave open.
type reference struct {
	sync.Mutex
	choices
	c        breaker.Config // with its defaults filled in
	state    breaker.State
	since    time.Time
	until    time.Time // set if open
	openings int       // consecutive
	openTime time.Duration
	changes  []change

	running           []*call // calls that count in this phase, oldest first
	row, leak         int
	last              []bool   // whether each of the last LastCalls calls failed
	ended             []result // in this closed phase, oldest first, including those that have left Window
	succeeded, failed int      // probes
}

type call struct{ start time.Time }

func newReference(c breaker.Config, open choices) *reference {
	if c.Leaky == 0 && c.Failures == 0 && c.FailureRate == 0 && c.SlowRate == 0 {
		c.Consecutive = cmp.Or(c.Consecutive, 5)
	}
	c.Window, c.MinCalls, c.OpenFor = cmp.Or(c.Window, 10*time.Second), cmp.Or(c.MinCalls, 20), cmp.Or(c.OpenFor, 5*time.Second)
	c.MaxOpenFor = cmp.Or(c.MaxOpenFor, max(c.OpenFor, time.Minute))
	c.Probes, c.ProbeFailures = cmp.Or(c.Probes, 1), cmp.Or(c.ProbeFailures, 1)
	c.ProbeSuccesses = cmp.Or(c.ProbeSuccesses, c.Probes)
	c.ProbeTimeout = cmp.Or(c.ProbeTimeout, time.Minute)
	if c.SlowRate > 0 {
		c.ProbeTimeout = min(c.ProbeTimeout, c.SlowCall)
	}
	return &reference{choices: open, c: c, since: time.Now()}
}

// now locks, makes the transitions that are due, each at its own time, and returns the time.
func (r *reference) now() time.Time {
	r.Lock()
	for now := time.Now(); ; {
		switch {
		case r.state == breaker.Open && !now.Before(r.until):
			r.become(breaker.HalfOpen, r.until)
		case r.state == breaker.HalfOpen && len(r.running) > 0 && now.Sub(r.running[0].start) >= r.c.ProbeTimeout:
			end := r.running[0].start.Add(r.c.ProbeTimeout)
			r.running = r.running[1:]
			r.probe(end, breaker.Failure, nil)
		default:
			return now
		}
	}
}

// acquire returns a call, or the state that refused it and the remaining open time.
func (r *reference) acquire() (_ *call, refusedBy breaker.State, left time.Duration) {
	now := r.now()
	defer r.Unlock()
	if r.state == breaker.Closed && r.c.SlowRate > 0 {
		r.judge(now, breaker.Ignored, nil)
	}
	if r.shut() && !r.c.DryRun {
		return nil, r.state, max(0, r.until.Sub(now))
	}
	admitted := &call{now}
	if !r.shut() {
		r.running = append(r.running, admitted)
	}
	return admitted, 0, 0
}

func (r *reference) shut() bool {
	full := r.state == breaker.HalfOpen && len(r.running) == r.c.Probes
	return full || r.state == breaker.Open || r.state == breaker.ForcedOpen
}

// done ends a call, once. A canceled one isn't counted.
func (r *reference) done(of *call, canceled bool, outcome breaker.Outcome, err error) {
	now := r.now()
	defer r.Unlock()
	i := slices.Index(r.running, of)
	if i < 0 {
		return
	}
	r.running = slices.Delete(r.running, i, i+1)
	switch {
	case canceled:
	case r.state == breaker.HalfOpen:
		r.probe(now, outcome, err)
	case r.state == breaker.Closed:
		slow := r.c.SlowRate > 0 && now.Sub(of.start) >= r.c.SlowCall
		if outcome == breaker.Ignored && !slow {
			return
		}
		r.ended = append(r.ended, result{now, outcome, slow})
		switch outcome {
		case breaker.Success:
			r.row, r.leak, r.last = 0, max(0, r.leak-1), append(r.last, false)
		case breaker.Failure:
			r.row, r.leak, r.last = r.row+1, r.leak+1, append(r.last, true)
		}
		r.last = r.last[max(0, len(r.last)-r.c.LastCalls):]
		r.judge(now, outcome, err)
	}
}

func (r *reference) probe(now time.Time, outcome breaker.Outcome, err error) {
	switch outcome {
	case breaker.Success:
		if r.succeeded++; r.succeeded == r.c.ProbeSuccesses {
			r.become(breaker.Closed, now)
		}
	case breaker.Failure:
		if r.failed++; r.failed == r.c.ProbeFailures {
			r.open(now, outcome, err)
		}
	}
}

// judge opens a closed breaker if one of its rules is met.
func (r *reference) judge(now time.Time, outcome breaker.Outcome, err error) {
	may, must := false, true
	for _, n := range r.window(now) {
		trips := reached(r.row, r.c.Consecutive) || reached(r.leak, r.c.Leaky) || reached(count(r.last), r.c.Failures) ||
			r.share(n.failures, n.calls, r.c.FailureRate) || r.share(n.slow, n.all, r.c.SlowRate)
		may, must = may || trips, must && trips
	}
	if must || may && r.opened() {
		r.open(now, outcome, err)
	}
}

func reached(n, limit int) bool { return limit > 0 && n >= limit }

func (r *reference) share(n, of int, limit float64) bool {
	return limit > 0 && of >= r.c.MinCalls && float64(n)/float64(of) >= limit
}

func (r *reference) open(now time.Time, outcome breaker.Outcome, err error) {
	r.become(breaker.Open, now)
	r.openings++
	r.openTime = r.c.OpenFor
	for range r.openings - 1 {
		r.openTime = min(2*r.openTime, r.c.MaxOpenFor)
	}
	if after, ok := resilience.RetryAfter(err); ok && outcome == breaker.Failure {
		r.openTime = max(r.openTime, min(after, r.c.MaxOpenFor))
	}
	if r.c.Jitter > 0 {
		r.openTime = r.lasting(r.openTime, r.openTime+time.Duration(r.c.Jitter*float64(r.openTime)))
	}
	r.until = now.Add(r.openTime)
}

// become ends a phase, reports the transition, and begins the next phase.
func (r *reference) become(to breaker.State, at time.Time) {
	r.changes = append(r.changes, change{r.state, to, at, r.snapshots(at)})
	r.begin(to, at)
}

func (r *reference) begin(to breaker.State, at time.Time) {
	r.openings = r.inARow(at)
	r.state, r.since, r.until = to, at, time.Time{}
	r.running, r.row, r.leak, r.last, r.ended, r.succeeded, r.failed = nil, 0, 0, nil, nil, 0, 0
}

// inARow returns the consecutive openings. A closed phase forgets them once it is as long as the
// previous open time.
func (r *reference) inARow(now time.Time) int {
	if r.state == breaker.Closed && now.Sub(r.since) >= r.openTime {
		return 0
	}
	return r.openings
}

// force does what ForceOpen, HalfOpen, Disable, and (for Closed) Reset do.
func (r *reference) force(to breaker.State) {
	now := r.now()
	defer r.Unlock()
	switch {
	case r.state != to:
		r.become(to, now)
	case to == breaker.Closed:
		r.begin(to, now)
	}
	if to == breaker.Closed {
		r.openings = 0
	}
}
