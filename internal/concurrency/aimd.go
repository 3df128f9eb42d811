package concurrency

import "time"

// aimd is the law of [NewAIMD].
type aimd struct {
	shrank  bool   // the limit has shrunk
	cut     uint32 // the epoch that began with the last decrease, if shrank
	dropped bool   // a call was dropped that began in it or later
	ends    int    // calls that began since the limit last changed and have ended
	_       [64]byte

	next int // how many calls have left the epoch when a round may be over; apart from what is written
}

// NewAIMD returns a Limit that grows by one with each round trip in which it was met and no call
// was dropped. It shrinks by a tenth with a dropped call, but only once for all calls that began
// before it shrank. This is additive increase, multiplicative decrease (Chiu and Jain, 1989), as in
// TCP. It begins at initial and stays between least and most, which are from 1 to MaxLimit.
func NewAIMD(initial, least, most int) *Limit {
	return newLimit(initial, least, most, &aimd{next: initial})
}

func (a *aimd) roundTrip() time.Duration { return 0 }

func (a *aimd) restart(l *Limit, limit int) {
	l.begin(limit, limit)
	a.reset(l)
}

func (a *aimd) ended(l *Limit, p Pass, _ time.Duration, outcome Outcome) bool {
	switch {
	case outcome == Drop && (!a.shrank || atLeast(p.epoch, a.cut)):
		a.dropped = true
	case outcome == Sample && p.epoch == l.epoch:
		a.ends++
	}
	return a.dropped
}

// due compares by the difference: the number of calls that have left may overflow.
func (a *aimd) due(word uint64) bool {
	return (left(word)-a.next)&(1<<leftBits-1) < 1<<(leftBits-1)
}

func (a *aimd) round(l *Limit) {
	limit := l.Limit()
	switch {
	case a.dropped:
		l.set(l.clamp(limit * 9 / 10))
		a.shrank, a.cut = true, l.epoch
	case a.ends < limit: // some of those that have left don't count
		a.plan(l)
		return
	case l.met(int(l.peak.Load())):
		l.set(l.clamp(limit + 1))
	}
	l.beginRound()
	a.reset(l)
}

// reset begins to count calls.
func (a *aimd) reset(l *Limit) {
	a.dropped, a.ends = false, 0
	l.peak.Store(int64(running(l.word.Load())))
	a.plan(l)
}

func (a *aimd) plan(l *Limit) { a.next = left(l.word.Load()) + l.Limit() - a.ends }
