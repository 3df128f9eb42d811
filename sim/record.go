package sim

import (
	"math"
	"slices"
	"time"
)

// A level is a number that changes over time, and its mean in each second.
type level struct {
	value float64
	since time.Duration
	end   time.Duration // changes after it don't count
	sums  []float64     // value × seconds, by second
	most  float64
}

func newLevel(end time.Duration) level { return level{end: end, sums: make([]float64, seconds(end))} }

// seconds returns the number of seconds that have begun before end.
func seconds(end time.Duration) int { return int((end + time.Second - 1) / time.Second) }

// add changes the level.
func (l *level) add(change float64, now time.Duration) {
	l.advance(now)
	l.value += change
	l.most = max(l.most, l.value)
}

func (l *level) advance(now time.Duration) {
	now = min(now, l.end)
	for l.since < now {
		second := l.since / time.Second
		until := min((second+1)*time.Second, now)
		l.sums[second] += l.value * (until - l.since).Seconds()
		l.since = until
	}
}

// mean returns the mean level in a second, which may be cut off by the end.
func (l *level) mean(second int) float64 {
	length := min(time.Second, l.end-time.Duration(second)*time.Second)
	return l.sums[second] / length.Seconds()
}

// The ways in which a call can end.
type outcome int

const (
	good outcome = iota
	late
	failed
	refused
	outcomes
)

// counts are numbers of calls.
type counts struct {
	offered  int
	outcomes [outcomes]int
}

func (c *counts) add(o counts) {
	c.offered += o.offered
	for i := range c.outcomes {
		c.outcomes[i] += o.outcomes[i]
	}
}

func (c *counts) subtract(o counts) {
	c.offered -= o.offered
	for i := range c.outcomes {
		c.outcomes[i] -= o.outcomes[i]
	}
}

// share returns the share of an outcome. There must be a call.
func (c counts) share(o outcome) float64 { return float64(c.outcomes[o]) / float64(c.offered) }

// The phases of a run.
type phase int

const (
	before phase = iota
	during
	after
	phases
)

// A record is what is counted in one run. It is guarded by the run's mutex.
type record struct {
	scenario    *Scenario
	first, last time.Duration // begin and end of the incidents
	phases      [phases]counts
	seconds     []counts
	attempts    []int // by second
	openings    []int // by second
	early       int   // openings before the first incident
	allAttempts int
	inProgress  level
	open        level // breakers that aren't closed
	breakers    int
	latencies   histogram               // of good answers
	recent      map[int][]time.Duration // good answers to the calls of a second that can still get some
	quantiles   [][2]float64            // P50 and P99 of a second, in seconds; 0 if there was no good answer
	finished    int                     // seconds whose quantiles are known
	busy        time.Duration           // see server
	wasted      time.Duration           // see server
	queue       *level                  // see server
}

func newRecord(s *Scenario, v *server) *record {
	n := seconds(s.Length)
	return &record{
		scenario:   s,
		first:      s.firstIncident(),
		last:       s.lastIncident(),
		seconds:    make([]counts, n),
		attempts:   make([]int, n),
		openings:   make([]int, n),
		quantiles:  make([][2]float64, n),
		recent:     map[int][]time.Duration{},
		inProgress: newLevel(s.Length),
		open:       newLevel(s.Length),
		queue:      &v.waiting,
	}
}

func (r *record) callBegins(now time.Duration) { r.inProgress.add(1, now) }

func (r *record) attemptBegins(now time.Duration) {
	r.allAttempts++
	if second := int(now / time.Second); second < len(r.attempts) {
		r.attempts[second]++
	}
}

// callEnds counts a call by the time when it was made and by how long it took.
func (r *record) callEnds(made, took time.Duration, o outcome) {
	r.inProgress.add(-1, made+took)
	c := counts{offered: 1}
	c.outcomes[o] = 1
	second := int(made / time.Second)
	r.seconds[second].add(c)
	phase := after
	switch {
	case made < r.first:
		phase = before
	case made < r.last:
		phase = during
	}
	r.phases[phase].add(c)
	if o == good {
		r.latencies.add(took)
		r.recent[second] = append(r.recent[second], took)
	}
}

// breakerChanges counts a change of a breaker.
func (r *record) breakerChanges(wasClosed, isClosed, opens bool, now time.Duration) {
	if wasClosed != isClosed {
		change := 1.0
		if isClosed {
			change = -1
		}
		r.open.add(change, now)
	}
	if second := int(now / time.Second); opens && second < len(r.openings) {
		r.openings[second]++
		if now < r.first {
			r.early++
		}
	}
}

// finish computes the quantiles of the seconds whose calls can't get good answers any more.
func (r *record) finish(now time.Duration) {
	for r.finished < len(r.quantiles) && now > time.Duration(r.finished+1)*time.Second+r.scenario.GoodWithin {
		took := r.recent[r.finished]
		delete(r.recent, r.finished)
		if len(took) > 0 {
			slices.Sort(took)
			quantile := func(q float64) float64 { return took[int(math.Ceil(q*float64(len(took))))-1].Seconds() }
			r.quantiles[r.finished] = [2]float64{quantile(0.5), quantile(0.99)}
		}
		r.finished++
	}
}

// end ends the record at the end of the run.
func (r *record) end(v *server) {
	r.finish(math.MaxInt64)
	for _, l := range []*level{&r.inProgress, &r.open, r.queue} {
		l.advance(r.scenario.Length)
	}
	r.busy, r.wasted = v.busy, v.wasted
}

// A histogram counts durations. Its buckets are at most 1% wide.
type histogram struct {
	counts      []uint32 // by bucket
	n           int
	least, most time.Duration
}

const precision = 7 // 2^7 buckets for each power of two

func bucket(d time.Duration) int {
	shift := 0
	for d>>shift >= 2<<precision {
		shift++
	}
	return shift<<precision + int(d>>shift)
}

// limits returns the least value of a bucket and of the next one.
func limits(bucket int) (low, high float64) {
	if bucket < 2<<precision {
		return float64(bucket), float64(bucket + 1)
	}
	shift := bucket>>precision - 1
	low = math.Ldexp(float64(bucket-shift<<precision), shift)
	return low, low + math.Ldexp(1, shift)
}

func (h *histogram) add(d time.Duration) {
	b := bucket(d)
	for len(h.counts) <= b {
		h.counts = append(h.counts, 0)
	}
	h.counts[b]++
	if h.n == 0 {
		h.least, h.most = d, d
	}
	h.n++
	h.least, h.most = min(h.least, d), max(h.most, d)
}

// quantile returns the time within which the share q of all times are. There must be one.
func (h *histogram) quantile(q float64) time.Duration {
	rank := max(math.Ceil(q*float64(h.n)), 1)
	for b, count := range h.counts {
		if rank <= float64(count) {
			low, high := limits(b)
			d := time.Duration(low + (high-low)*(rank-0.5)/float64(count))
			return min(max(d, h.least), h.most)
		}
		rank -= float64(count)
	}
	return h.most
}
