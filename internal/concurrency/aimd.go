package concurrency

import "time"

// aimd is the law of [NewAIMD].
type aimd struct {
	cut  uint64 // the epoch that began with the last decrease
	ends int    // calls that began since the limit last changed and have ended
	peak int    // concurrent calls since then
}

// NewAIMD returns a Limit that grows by one with each round trip in which it was met and no call
// was dropped. It shrinks by a tenth with a dropped call, but only once for all calls that began
// before it shrank. This is additive increase, multiplicative decrease (Chiu and Jain, 1989), as in
// TCP. It begins at initial and stays between least and most, which are from 1 to MaxLimit.
func NewAIMD(initial, least, most int) *Limit { return newLimit(initial, least, most, &aimd{}) }

func (a *aimd) roundTrip() time.Duration { return 0 }

func (a *aimd) ended(l *Limit, p Pass, running int, _ time.Duration, outcome Outcome) {
	a.peak = max(a.peak, running)
	now := epoch(l.word.Load())
	limit := l.Limit()
	switch {
	case outcome == Drop && atLeast(p.epoch, a.cut):
		l.set(l.clamp(min(limit-1, limit*9/10)))
		a.cut = epoch(l.word.Load())
	case outcome == Sample && p.epoch == now:
		if a.ends++; a.ends < limit {
			return
		}
		if l.met(a.peak) {
			l.set(l.clamp(limit + 1))
		}
	default:
		return
	}
	a.ends, a.peak = 0, running-1
	l.refused.Store(false)
}
