package concurrency

import "time"

// aimd is the law of [NewAIMD].
type aimd struct {
	cut  uint64 // the epoch that began with the last decrease
	ends int    // of calls that began since the limit last changed
	peak int    // of the calls that ran at once since then
}

// NewAIMD gives a Limit that grows by one with each round trip in which it was met and no call was dropped, and falls by a tenth with a dropped call, but
// only once for all those that began before it fell: additive increase, multiplicative decrease (Chiu and Jain, 1989; TCP's). It begins at initial and
// stays from least to most, which are from 1 to MaxLimit.
func NewAIMD(initial, least, most int) *Limit { return newLimit(initial, least, most, &aimd{}) }

func (a *aimd) roundTrip() time.Duration { return 0 }

func (a *aimd) ended(l *Limit, p Pass, running int, _ time.Duration, outcome Outcome) {
	a.peak = max(a.peak, running)
	now := epoch(l.word.Load())
	limit := l.Limit()
	switch {
	case outcome == Drop && atLeast(p.epoch, a.cut):
		l.set(l.clamp(min(limit-1, limit*9/10)), l.clamp(min(limit-1, limit*9/10)))
		a.cut = epoch(l.word.Load())
	case outcome == Sample && p.epoch == now:
		if a.ends++; a.ends < limit {
			return
		}
		if l.met(a.peak) {
			l.set(l.clamp(limit+1), l.clamp(limit+1))
		}
	default:
		return
	}
	a.ends, a.peak = 0, running-1
	l.turnedAway.Store(false)
}
