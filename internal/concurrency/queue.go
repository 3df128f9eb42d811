package concurrency

import (
	"math"
	"time"
)

// The queue law.
const (
	shortest = 0.02 // share of the limit that queues: with less the limit grows,
	aim      = 0.04 // towards this,
	longest  = 0.06 // and with more it shrinks;
	step     = 0.05 // at most so much at once,
	leap     = 0.25 // or so much, until a queue was seen

	fewest = 20  // calls that a round has: fewer tell too little
	fade   = 0.9 // what a round counts for in the next, where the limit stayed

	// A limit that fell below this share of where it began to shrink is drained: a fourth step of 5 %.
	doubt = 0.83
	// And so it is after so many rounds, at first more often.
	firstDrain, everyDrain = 8, 128
)

// queue is the law of [NewQueue].
type queue struct {
	least estimate // of the round trip of a call that does not queue
	quick bool     // no queue was seen yet

	// The round that is watched.
	skip    int // calls that are yet to end before it begins
	need    int // calls that it takes
	peak    int // of the calls that ran at once
	samples tally
	drops   tally // none shorter than least
	past    tally // of the rounds before, since the limit changed

	// Drains: for one round no more than half of the limit is admitted.
	draining bool
	before   estimate // the round trip until then
	top      int      // where the limit began to shrink; 0 if it did not shrink last
	rounds   int      // since least was taken anew
	interval int      // rounds until the next drain
}

// NewQueue gives a Limit that keeps the dependency's queue short. It begins at initial and stays from least to most, which are from 1 to MaxLimit.
//
// By Little's law the calls that queue at the dependency are limit × (1 − least / mean round trip), however its service times are spread. That is judged
// once a round trip, and held at 2 to 6 % of the limit. Least is the mean round trip of rounds in which no queue can have been: those that had at most half of
// the limit, by themselves or, now and then, because no more was admitted.
func NewQueue(initial, least, most int) *Limit {
	return newLimit(initial, least, most, &queue{quick: true, skip: initial, need: max(initial, fewest), interval: firstDrain})
}

func (q *queue) roundTrip() time.Duration { return time.Duration(q.least.mean) }

// ended adds the call to the round.
//
// A round begins when as many calls have ended as ran when the limit changed: that is one round trip later, and what ends from then on has met the new
// limit. To count only calls that began after the change, from the first of them that ends, would favour short ones.
func (q *queue) ended(l *Limit, _ Pass, running int, took time.Duration, outcome Outcome) {
	q.peak = max(q.peak, running)
	if q.skip > 0 {
		q.skip--
		return
	}
	switch outcome {
	case Sample:
		q.samples.add(took)
	case Drop: // an answer would have taken that long or longer
		q.drops.add(max(took, q.roundTrip()))
	default:
		return
	}
	if int(q.samples.n+q.drops.n) >= q.need {
		q.judge(l, running-1)
	}
}

// judge ends a round and begins the next.
func (q *queue) judge(l *Limit, running int) {
	limit := l.Limit()
	next, drain := limit, false
	switch failing := q.drops.n > q.samples.n; {
	case failing && q.least.none(): // nothing to compare with
	case failing:
		next, drain = q.failed(l, limit)
	case q.draining:
		next = q.drained(limit)
	case q.least.none() || 2*q.peak <= limit:
		next = q.calm(l, limit)
	default:
		next, drain = q.loaded(l, limit)
	}
	next = l.clamp(next)

	admit := next
	if drain {
		admit = max(l.least, (next+1)/2)
	}
	q.draining = drain
	if changed := l.set(next, admit); changed || drain {
		q.skip, q.past = running, tally{}
	} else {
		q.past = q.samples.plus(q.past, fade)
	}
	if drain {
		q.skip += admit // some that began before may have been overtaken: not one that queued may be among those of the drain
	}
	q.need = max(admit, fewest)
	q.peak = running
	q.samples, q.drops = tally{}, tally{}
	l.turnedAway.Store(false)
}

// loaded judges a round in which calls may have queued.
func (q *queue) loaded(l *Limit, limit int) (next int, drain bool) {
	seen := q.samples.estimate()
	if seen.mean < q.least.mean && (seen.differs(q.least) || 4*seen.variance < q.least.variance) {
		q.least = seen // the dependency is faster than it was, or than it was thought on less ground
	}
	all := q.samples.plus(q.past, fade).estimate()
	s := queued(q.least, all)
	if now := queued(q.least, seen); now.surely() > s.surely() {
		s, all = now, seen
	}

	next = limit
	switch met := l.met(q.peak); {
	case q.quick && s.surely() > shortest && crowded(s, limit):
		q.quick = false
		next = towards(limit, s, leap)
	case q.quick:
		q.least = q.least.with(seen)
		if met {
			next = up(limit, leap)
		}
	case s.surely() > longest && crowded(s, limit):
		return q.shrink(limit, s, all)
	case s.maybe() < shortest && met:
		next, q.top = max(limit+1, towards(limit, s, step)), 0
	}
	return next, q.isDue(all)
}

// shrink makes the limit smaller by a step. The longer round trip may be that of a queue or of a dependency that has become slower: where the limit has
// shrunk several times in a row, only a drain tells.
func (q *queue) shrink(limit int, s share, seen estimate) (next int, drain bool) {
	q.top = max(q.top, limit)
	next = min(limit-1, towards(limit, s, step))
	if float64(next) < doubt*float64(q.top) {
		q.before = seen
		return next, true
	}
	return next, q.isDue(seen)
}

// isDue counts the rounds, and says when it is time to drain.
func (q *queue) isDue(seen estimate) bool {
	if q.rounds++; q.rounds < q.interval {
		return false
	}
	q.interval = min(2*q.interval, everyDrain)
	q.before = seen
	return true
}

// drained judges a round of at most half of the limit. What was longer than its round trip before was a queue, so that the limit need not go on in steps.
func (q *queue) drained(limit int) (next int) {
	q.takeAnew(q.samples.estimate())
	if s := queued(q.least, q.before); s.surely() > longest && crowded(s, limit) {
		return towards(limit, s, 0.5)
	}
	return limit
}

// calm judges a round in which at most half of the limit was used, or the first one.
func (q *queue) calm(l *Limit, limit int) (next int) {
	q.takeAnew(q.samples.estimate())
	if q.quick && l.met(q.peak) {
		return up(limit, leap)
	}
	return limit
}

// failed judges a round in which more calls were dropped than answered. Where that took no longer than answers, nothing is known of a queue. Else the
// dependency answers in the time that callers have only if there are fewer of them.
func (q *queue) failed(l *Limit, limit int) (next int, drain bool) {
	seen := q.samples.plus(q.drops, 1).estimate()
	s := queued(q.least, seen)
	if s.surely() <= longest {
		return limit, false
	}
	q.quick = true // the way back is as at first
	if q.draining {
		q.top = 0
		return admits(l.word.Load()), false
	}
	return q.shrink(limit, s, seen)
}

// takeAnew takes what was seen for the round trip of calls that do not queue.
func (q *queue) takeAnew(seen estimate) {
	if q.least.none() || seen.differs(q.least) {
		q.least = seen
	} else {
		q.least = q.least.with(seen)
	}
	q.rounds, q.top = 0, 0
}

// crowded reports whether more than one call queues. A limit of few calls cannot be held closer.
func crowded(s share, limit int) bool { return s.is*float64(limit) > 1.05 }

// towards is the limit of which the aimed share would queue, or most of the way to it.
func towards(limit int, s share, most float64) int {
	factor := (1 - max(0, s.is)) / (1 - aim)
	return int(math.Round(float64(limit) * max(1-most, min(factor, 1+most))))
}

// up is a limit so much higher.
func up(limit int, by float64) int {
	return max(limit+1, int(math.Round(float64(limit)*(1+by))))
}
