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
	cause    error // of the next change

	ramp   bool      // if half-open: in the slow start
	began  time.Time // of the slow start, if ramp
	lasts  time.Duration
	credit float64 // what the calls admitted by the slow start lack of its share

	running           []*call // calls that count in this phase, oldest first; probes by deadline
	row, leak         int
	last              []bool   // whether each of the last LastCalls calls failed
	ended             []result // in this closed phase, oldest first, including those that have left Window
	succeeded, failed int      // probes
}

type call struct {
	start    time.Time
	deadline time.Time // of a probe
	timed    bool      // it was admitted with SlowRate, or as a probe, so that its start is known
	watched  bool      // it becomes slow while it runs
}

func newReference(c breaker.Config, open choices) *reference {
	return &reference{choices: open, c: withDefaults(c), since: time.Now()}
}

func withDefaults(c breaker.Config) breaker.Config {
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
	return c
}

// setConfig keeps what the documents say, and judges nothing.
func (r *reference) setConfig(c breaker.Config) {
	r.now()
	defer r.Unlock()
	old := r.c
	r.c = withDefaults(c)
	if old.Consecutive == 0 {
		r.row = 0
	}
	if old.Leaky == 0 {
		r.leak = 0
	}
	if old.LastCalls != r.c.LastCalls {
		r.last = nil
	}
	if old.Window != r.c.Window || old.SlowCall != r.c.SlowCall || !rates(old) || !rates(r.c) {
		r.ended = nil
		for _, c := range r.running {
			c.watched = false
		}
	}
}

func rates(c breaker.Config) bool { return c.FailureRate > 0 || c.SlowRate > 0 }

// counts reports whether calls count by the rules of a closed breaker.
func (r *reference) counts() bool { return r.state == breaker.Closed || r.ramp }

func (r *reference) share(now time.Time) float64 {
	return min(1, max(0.1, float64(now.Sub(r.began))/float64(r.lasts)))
}

// now locks, makes the transitions that are due, each at its own time, and returns the time.
func (r *reference) now() time.Time {
	r.Lock()
	for now := time.Now(); ; {
		switch {
		case r.state == breaker.Open && !now.Before(r.until):
			r.become(breaker.HalfOpen, r.until)
		case r.ramp && now.Sub(r.began) >= r.lasts:
			r.become(breaker.Closed, r.began.Add(r.lasts))
		case r.state == breaker.HalfOpen && !r.ramp && len(r.running) > 0 && !now.Before(r.running[0].deadline):
			end := r.running[0].deadline
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
	if r.counts() && r.c.SlowRate > 0 {
		r.judge(now, breaker.Ignored, nil)
	}
	if r.shut() && !r.c.DryRun || r.ramp && !r.withinShare(now) {
		return nil, r.state, max(0, r.until.Sub(now))
	}
	slow := r.counts() && r.c.SlowRate > 0
	probe := r.state == breaker.HalfOpen && !r.ramp
	admitted := &call{now, now.Add(r.c.ProbeTimeout), slow || probe, slow}
	if !r.shut() {
		r.running = append(r.running, admitted)
	}
	if probe {
		slices.SortStableFunc(r.running, func(a, b *call) int { return a.deadline.Compare(b.deadline) })
	}
	return admitted, 0, 0
}

// withinShare reports whether a slow start admits a call. The sum of the admitted calls is exact to
// one call; which one it is remains open.
func (r *reference) withinShare(now time.Time) bool {
	const rounding = 1e-6
	r.credit += r.share(now)
	free := len(r.running) < r.c.Probes
	if free || r.credit > 1-rounding || r.credit > -rounding && r.admits() {
		r.credit = max(-1, r.credit-1)
		return true
	}
	return false
}

func (r *reference) shut() bool {
	full := r.state == breaker.HalfOpen && !r.ramp && len(r.running) >= r.c.Probes
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
	case r.state == breaker.HalfOpen && !r.ramp:
		r.probe(now, outcome, err)
	case r.counts():
		slow := r.c.SlowRate > 0 && of.timed && now.Sub(of.start) >= r.c.SlowCall
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
		r.succeeded++
	case breaker.Failure:
		r.failed++
	default:
		return
	}
	succeeded, failed := r.succeeded >= r.c.ProbeSuccesses, r.failed >= r.c.ProbeFailures
	switch {
	case outcome == breaker.Failure && failed || failed && !succeeded:
		r.open(now, outcome, err)
	case succeeded && r.c.SlowStart > 0:
		r.ramp, r.began, r.lasts, r.credit = true, now, r.c.SlowStart, 0
	case succeeded:
		r.cause = err
		r.become(breaker.Closed, now)
	}
}

// judge opens a breaker if one of its rules is met. An ignored call, and an admission, is only
// judged by the rates.
func (r *reference) judge(now time.Time, outcome breaker.Outcome, err error) {
	sums := outcome != breaker.Ignored &&
		(reached(r.row, r.c.Consecutive) || reached(r.leak, r.c.Leaky) || reached(count(r.last), r.c.Failures))
	may, must := false, true
	for _, n := range r.window(now) {
		trips := sums || r.reached(n.failures, n.calls, r.c.FailureRate) || r.reached(n.slow, n.all, r.c.SlowRate)
		may, must = may || trips, must && trips
	}
	if must || may && r.opened() {
		r.open(now, outcome, err)
	}
}

func reached(n, limit int) bool { return limit > 0 && n >= limit }

func (r *reference) reached(n, of int, limit float64) bool {
	return limit > 0 && of >= r.c.MinCalls && float64(n)/float64(of) >= limit
}

func (r *reference) open(now time.Time, outcome breaker.Outcome, err error) {
	r.cause = err
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
	r.changes = append(r.changes, change{r.state, to, at, r.snapshots(at), r.cause})
	r.cause = nil
	r.begin(to, at)
}

func (r *reference) begin(to breaker.State, at time.Time) {
	r.openings = r.inARow(at)
	r.state, r.since, r.until = to, at, time.Time{}
	r.running, r.row, r.leak, r.last, r.ended, r.succeeded, r.failed, r.ramp = nil, 0, 0, nil, nil, 0, 0, false
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
