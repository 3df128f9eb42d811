package concurrency

import (
	"math"
	"time"
)

// The parameters of the Queue algorithm.
const (
	shortest = 0.02 // share of the limit that queues: with less, the limit grows
	aim      = 0.04 // the share that a step leads to
	longest  = 0.06 // with more, the limit shrinks
	step     = 0.05 // largest change of the limit by one round
	leap     = 0.25 // largest change until a drain has shown a queue

	fewestCalls = 20  // in a round or a drain
	roundCalls  = 100 // in a round, times the variation: the mean is then known within 10%
	drainCalls  = 50  // in a drain, times the variation
	baseCalls   = 200 // that base remembers, times the variation
	fade        = 0.9 // weight of a round in the next one
	patience    = 128 // round trips that a round waits for its last calls

	mostCalls = 1 << (leftBits - 1) // that the word can count

	fewAbove, mostAbove = 0.015, 0.03 // part of the calls above the cap: wanted, and accepted
	roundAbove          = 20          // calls above the cap in a round; half in a drain, twice in base
	mostForAbove        = 2000        // calls in a round for the sake of those above the cap
	tripsForAbove       = 64          // round trips for their sake, or else a small limit grows too slowly
	seekingForAbove     = 16          // the same while no drain has shown a queue: an error only leads to a drain

	// A limit that has shrunk below this share of its peak is drained. It takes four steps of 5%.
	doubt = 0.83
	// A drain is also due after this many times as many calls as a drain has: soon at first, and
	// then twice as late each time. Where calls don't meet the limit it is always as late as at last.
	firstDrain, everyDrain = 4, 256
)

// queue is the law of [NewQueue].
type queue struct {
	// next is how many calls begin in the open cohort until something is to be done, and ran how
	// many ran when it began. They are apart from the other fields for the sake of processors that
	// only read them.
	next, ran int
	_         [64]byte

	times     histogram // of calls that didn't queue
	cap       int       // of these times, and of all samples below: a bucket
	base      sample    // times, summarized
	past      sample    // times of the rounds before, for the present limit
	last      sample    // times of the last round and those before
	seeking   bool      // no drain has shown a queue yet
	confirmed bool      // base was measured in a drain

	open    cohort // whose calls are being admitted
	closing cohort // whose last calls are waited for; inactive if there is none

	failing  bool   // more calls were dropped than answered before the drain
	before   sample // the round trip before the drain; empty if the dependency has become faster
	peak     int    // where the limit began to shrink; 0 if it didn't shrink last
	calls    int    // since base was measured last
	interval int    // until the next drain, in units of a drain's calls
}

// A cohort is the calls that began in one epoch. All of them count, however long they take.
type cohort struct {
	active  bool
	drain   bool // no more than half of the limit is admitted
	epoch   uint32
	need    int // calls that begin in it
	older   int // calls of earlier epochs that still run
	running int // its own calls that still run, once it is closing
	ended   int
	peak    int // concurrent calls, once it is closing

	answered, dropped int
	samples           histogram // of the answered ones
	drops             histogram // none shorter than base
}

// NewQueue returns a Limit that keeps the dependency's queue short. It begins at initial and stays
// between least and most, which are from 1 to MaxLimit.
//
// By Little's law, limit × (1 − base / mean round trip) calls queue at the dependency, where base
// is the mean round trip without a queue, whatever the distribution of the service times. The law
// holds this at 2 to 6% of the limit. What makes it work where service times vary is how it
// estimates the two means, and that it takes the error of the estimates into account:
//
//   - A round is a cohort: all calls that began in one epoch, judged when the last of them has
//     ended. To count the calls that end in some period instead would favor the short ones after
//     each change of the limit.
//   - A call's time counts up to a cap that is above nearly all of them. How many of the rare longer
//     ones are in a round is chance, and would decide its mean. Their excess counts only if it is
//     significant in spite of its larger error.
//   - A round has the more calls the more their times vary, so that its mean is known within 10%,
//     and enough that some are above the cap.
//   - The limit shrinks only if the queue is significant, by two standard deviations, and by no
//     more than is certain. It grows unless the queue is beyond doubt, by three: an error of base
//     lasts for many rounds, and must not hold down the limit of a dependency that could take more.
//   - Any division of the dependency among several clients would be stable. So a drain that shows a
//     queue makes room for others, and a limit grows by one at least, which is more for a small one.
//   - Base is the mean of cohorts that had at most half of the limit to themselves: by chance, or
//     now and then in a drain, when no more is admitted. Before the first queue other rounds count
//     as well. What looks like the first queue leads to a drain, and is one if the drain shows it.
func NewQueue(initial, least, most int) *Limit {
	q := newQueue()
	q.open = cohort{active: true, need: max(initial, fewestCalls)}
	q.plan(initial)
	return newLimit(initial, least, most, q)
}

func newQueue() *queue { return &queue{seeking: true, interval: firstDrain} }

func (q *queue) restart(l *Limit, limit int) {
	q.closing, q.past, q.peak = cohort{}, sample{}, 0
	q.begin(l, limit, limit)
}

func (q *queue) roundTrip() time.Duration {
	if q.base.empty() {
		return 0
	}
	return time.Duration(q.base.all.mean())
}

func (q *queue) ended(_ *Limit, p Pass, took time.Duration, outcome Outcome) bool {
	q.calls++
	if p.epoch == q.open.epoch {
		q.count(&q.open, took, outcome)
		return false
	}
	q.open.older--
	if !q.closing.active || p.epoch != q.closing.epoch {
		return false
	}
	q.count(&q.closing, took, outcome)
	q.closing.running--
	return q.closing.running == 0
}

func (q *queue) due(word uint64) bool { return q.began(word) >= q.next }

// began returns how many calls have begun in the open cohort: those that have left since, and run
// now, without those that ran then.
func (q *queue) began(word uint64) int { return left(word) + running(word) - q.ran }

// plan sets when the word is due. The limit is the present one.
func (q *queue) plan(limit int) {
	switch {
	case !q.closing.active:
		q.next = q.open.need
	case q.closing.running == 0:
		q.next = 0
	default:
		q.next = patience*max(limit, fewestCalls) + 1
	}
	q.next = min(q.next, mostCalls)
}

func (q *queue) round(l *Limit) {
	if q.closing.active && (q.closing.running == 0 || q.began(l.word.Load()) >= q.next) {
		q.judge(l, &q.closing)
		q.closing.active = false
	}
	if !q.closing.active && q.began(l.word.Load()) >= q.open.need {
		q.close(l)
	}
	q.plan(l.Limit())
}

// count adds a call to its cohort.
func (q *queue) count(c *cohort, took time.Duration, outcome Outcome) {
	c.ended++
	switch outcome {
	case Sample:
		c.answered++
		c.samples.add(took)
	case Drop: // an answer would have taken at least as long
		c.dropped++
		c.drops.add(max(took, q.roundTrip()))
	}
}

// close ends the admission of calls to the open cohort and opens the next one, which has the whole
// limit. It is open at least until the closing one has ended, so that no call is lost.
func (q *queue) close(l *Limit) {
	q.closing = q.open
	q.closing.peak = int(l.peak.Load())
	q.begin(l, l.Limit(), l.Limit())
	q.closing.running = q.open.older - q.closing.older
}

// begin opens a cohort.
func (q *queue) begin(l *Limit, limit, admit int) {
	epoch, running := l.begin(limit, admit)
	q.open = cohort{
		active: true,
		epoch:  epoch,
		need:   q.roundCalls(admit),
		older:  running,
	}
	q.ran = running
	q.plan(limit)
}

// beginDrain opens a cohort that has half of the limit to itself.
func (q *queue) beginDrain(l *Limit, limit int) {
	admit := max(l.least, (limit+1)/2)
	q.begin(l, limit, admit)
	q.open.drain = true
	q.open.need = q.drainCalls(admit)
}

// roundCalls returns how many calls a round takes at least, so that chance has little influence on
// their mean.
func (q *queue) roundCalls(admit int) int {
	trips := tripsForAbove
	if q.seeking {
		trips = seekingForAbove
	}
	above := min(q.callsFor(roundAbove), trips*admit)
	return max(admit, fewestCalls, int(roundCalls*q.spread()), above)
}

// drainCalls returns how many calls a drain takes.
func (q *queue) drainCalls(admit int) int {
	return max(admit, fewestCalls, int(drainCalls*q.spread()), q.callsFor(roundAbove/2))
}

// baseCalls returns how many calls base remembers.
func (q *queue) baseCalls() float64 {
	return max(baseCalls*q.base.capped.variation(), float64(q.callsFor(2*roundAbove)))
}

// spread returns how much the capped times of calls vary, as far as that was seen.
func (q *queue) spread() float64 { return max(q.last.capped.variation(), q.base.capped.variation()) }

// callsFor returns how many calls it takes until this many of them are above the cap. It is 0 if
// none has been seen there: then all calls are alike.
func (q *queue) callsFor(above int) int {
	seen := q.last.plus(q.base, 1)
	if seen.above == 0 {
		return 0
	}
	return int(float64(above) / roundAbove * min(roundAbove*seen.all.n/seen.above, mostForAbove))
}

// judge sets the limit by a cohort whose calls have ended.
func (q *queue) judge(l *Limit, c *cohort) {
	limit := l.Limit()
	c.peak = max(c.peak, int(l.peak.Load()))
	next, drain := limit, false
	failing := c.dropped > c.answered
	switch {
	case failing && q.base.empty():
		next = limit / 2 // not a single answer at this limit
	case failing:
		next, drain = q.failed(c, limit)
	case c.answered == 0:
		return
	case c.drain:
		next = q.drained(c, limit)
	case q.base.empty() || 2*c.peak <= limit:
		next = q.calm(l, c, limit)
	default:
		next, drain = q.loaded(l, c, limit)
	}
	next = l.clamp(next)

	switch {
	case drain:
		q.failing, q.past = failing, sample{}
		q.beginDrain(l, next)
	case next > limit || c.drain:
		q.past = sample{}
		q.begin(l, next, next)
	default:
		q.past = c.samples.sample(q.cap).plus(q.past, fade)
		if next < limit {
			// The dependency was saturated, so round trips shrink with the limit: by Little's law.
			q.past = q.past.scaled(float64(next) / float64(limit))
			q.begin(l, next, next)
		}
	}
	l.beginRound()
}

// loaded judges a round in which calls may have queued.
func (q *queue) loaded(l *Limit, c *cohort, limit int) (next int, drain bool) {
	seen := c.samples.sample(q.cap)
	if seen.capped.mean() < q.base.capped.mean() && seen.capped.differs(q.base.capped, 5) {
		if seen.capped.mean() < (1-longest)*q.base.capped.mean() {
			q.before = sample{} // the dependency has become faster, perhaps only during this round
			return limit, true
		}
		q.times = c.samples // it becomes faster little by little
		q.rebase()
		seen, q.past = c.samples.sample(q.cap), sample{}
	}
	all := seen.plus(q.past, fade)
	q.last = all
	s := queued(q.base, all, q.spread())
	if now := queued(q.base, seen, max(seen.capped.variation(), q.base.capped.variation())); now.surely() > s.surely() {
		s, all = now, seen
	}

	switch {
	case s.surely() > longest && crowded(s, limit):
		if !q.seeking {
			return q.shrink(limit, s, all)
		}
		q.before = all
		return towards(limit, s, leap), true // the rounds in base may have queued as well
	case q.seeking && s.mean-s.deviation > shortest: // perhaps a queue: another round at this limit
		next = limit
		if l.met(c.peak) && q.base.all.n < all.all.n { // unless the error is mostly that of base
			return next, q.drainAfter(q.interval/2, limit, all)
		}
	case q.seeking:
		q.times.mix(1, &c.samples)
		q.rebase()
		all = c.samples.sample(q.cap).plus(q.past, fade)
		next = limit
		if l.met(c.peak) {
			next = up(limit, leap)
		}
	case l.met(c.peak) && queued(q.base, all, q.base.capped.variation()).beyondDoubt() < shortest:
		next, q.peak = max(limit+1, towards(limit, s, step)), 0
	default:
		next = limit
	}
	return next, q.drainIsDue(limit, all, l.met(c.peak))
}

// shrink lowers the limit by a step. Round trips may be longer because of a queue, or because the
// dependency has become slower: if the limit has shrunk several times in a row, a drain shows
// which.
func (q *queue) shrink(limit int, s share, seen sample) (next int, drain bool) {
	q.peak = max(q.peak, limit)
	next = min(limit-1, towards(limit, s, step))
	if float64(next) < doubt*float64(q.peak) {
		q.before = seen
		return next, true
	}
	return next, q.drainIsDue(limit, seen, true)
}

// drainIsDue reports whether it is time for a drain. Drains are rare where calls don't meet the
// limit, since nothing else is refused there.
func (q *queue) drainIsDue(limit int, seen sample, met bool) bool {
	interval := q.interval
	if !met {
		interval = everyDrain
	}
	return q.drainAfter(interval, limit, seen)
}

// drainAfter reports whether it is time for a drain that comes after some times as many calls as a
// drain has. If so, the next one comes later.
func (q *queue) drainAfter(interval, limit int, seen sample) bool {
	if q.calls < interval*q.drainCalls(limit/2) {
		return false
	}
	q.interval = min(2*q.interval, everyDrain)
	q.before = seen
	return true
}

// drained judges a drain. What was longer before it was a queue, so that the limit need not go on
// in steps. If that isn't certain and no queue was seen before, the limit goes on in large steps.
func (q *queue) drained(c *cohort, limit int) (next int) {
	seen := c.samples.sample(q.cap)
	faster := q.before.empty()
	if (faster || !q.confirmed) && seen.capped.mean() < q.base.capped.mean() && seen.capped.differs(q.base.capped, 2) {
		q.base = sample{} // base is of before, or its calls queued from the start
	}
	q.confirmed = true
	q.measured(&c.samples)
	if faster {
		return limit
	}
	s := queued(seen, q.before, max(seen.capped.variation(), q.before.capped.variation()))
	if s.surely() > shortest && crowded(s, limit) { // otherwise it may have been chance
		q.seeking = q.failing // calls that failed may have waited for anything
		if s.surely() > longest {
			return towards(limit, s, 0.5)
		}
	}
	if q.seeking {
		return limit
	}
	// Give way to other clients of the dependency, by what seems to queue.
	return limit - int(min(max(0, s.mean), longest)*float64(limit))
}

// calm judges a round in which at most half of the limit was used, or the first one.
func (q *queue) calm(l *Limit, c *cohort, limit int) (next int) {
	q.measured(&c.samples)
	if q.seeking && l.met(c.peak) {
		return up(limit, leap)
	}
	return limit
}

// failed judges a round in which more calls were dropped than answered. If they took no longer than
// answers, nothing is known about a queue. Otherwise the dependency can't answer this many calls in
// the time that callers have.
func (q *queue) failed(c *cohort, limit int) (next int, drain bool) {
	both := c.samples
	both.mix(1, &c.drops)
	seen := both.sample(q.cap)
	s := queued(q.base, seen, max(seen.capped.variation(), q.base.capped.variation()))
	if s.surely() <= longest {
		return limit, false
	}
	q.seeking = true // the way back is as at first
	if c.drain {
		q.peak = 0
		return (limit + 1) / 2, false
	}
	return q.shrink(limit, s, seen)
}

// measured takes in the times of calls that didn't queue.
func (q *queue) measured(times *histogram) {
	if seen := times.sample(q.cap); q.base.empty() || seen.differs(q.base, 4) {
		q.times = *times
	} else {
		remembered := max(4*seen.all.n, q.baseCalls())
		q.times.mix(min(1, remembered/q.base.all.n), times)
	}
	q.rebase()
	q.calls, q.peak = 0, 0
}

// rebase summarizes the times of calls that didn't queue. It changes the cap if that doesn't fit
// them, or if one that is lower by two octaves would do.
func (q *queue) rebase() {
	base := q.times.sample(q.cap)
	tooHigh := func() bool {
		// For the lower cap to fit, the present one must be ten times the mean.
		return q.cap >= 2 && bound(q.cap) >= 10*base.capped.mean() && q.times.sample(q.cap-2).fits(q.cap-2, fewAbove)
	}
	if q.base.empty() || !base.fits(q.cap, mostAbove) || tooHigh() {
		q.cap = q.times.lowestCap(fewAbove)
		q.past, q.last = sample{}, sample{}
		base = q.times.sample(q.cap)
	}
	q.base = base
}

// crowded reports whether more than one call queues. A small limit can't be held closer.
func crowded(s share, limit int) bool { return s.mean*float64(limit) > 1.05 }

// towards returns the limit at which the aimed share would queue if the share is what it surely is.
// It is at most the given part away.
func towards(limit int, s share, most float64) int {
	factor := (1 - max(0, s.surely())) / (1 - aim)
	return int(math.Round(float64(limit) * max(1-most, min(factor, 1+most))))
}

// up returns a limit that is larger by the given part.
func up(limit int, by float64) int {
	return max(limit+1, int(math.Round(float64(limit)*(1+by))))
}
