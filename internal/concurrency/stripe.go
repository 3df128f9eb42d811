package concurrency

import (
	"sync"
	"sync/atomic"
	"time"
)

// A stripe keeps what calls of the present epoch leave, until the law takes it in.
type stripe struct {
	mu     sync.Mutex
	n      int           // of the times
	places int           // how often a place was left here since the law took in the times
	lags   bool          // counted in Limit.lagging
	place  atomic.Uint32 // of the next call: the epoch + 1, or 0 if there is none
	took   [28]time.Duration
}

// maxStripes is the largest number of stripes of a Limit.
const maxStripes = 16

// stripe returns the stripe for an address on the caller's stack: it usually differs between
// goroutines.
func (l *Limit) stripe(at uintptr) uint32 {
	const goldenRatio = 0x9e3779b97f4a7c15 // spreads equal distances evenly
	hash := uint64(at) >> 11 * goldenRatio
	return uint32(hash >> 32 * uint64(len(l.stripes)) >> 32)
}

// leaveInStripe ends a call of the present epoch and leaves its time in the stripe, if that has room.
func (l *Limit) leaveInStripe(s *stripe, p Pass, took time.Duration) (due, done bool) {
	s.mu.Lock()
	if done = s.n < len(s.took) && p.epoch == l.epoch; done {
		s.took[s.n] = took
		s.n++
		if !l.far || !l.leavePlace(s, p) {
			due = l.mayBeDue(l.leave())
		}
	}
	s.mu.Unlock()
	return due, done
}

// leavePlace leaves the place of a call in the stripe, if that has none and no round can be over.
func (l *Limit) leavePlace(s *stripe, p Pass) bool {
	if l.state.Load()&shut != 0 || s.place.Load() != 0 {
		return false
	}
	if !s.lags {
		s.lags = true
		l.lagging.Add(1)
	}
	word := l.word.Load()
	if l.mayBeDue(word) {
		return false
	}
	l.reach(running(word))
	s.place.Store(p.epoch + 1)
	if l.state.Load()&shut != 0 && s.place.Swap(0) != 0 {
		return false // the call that set shut may not have seen the place
	}
	s.places++
	return true
}

// mayBeDue reports whether a round may be over, by the word and what it may lack.
func (l *Limit) mayBeDue(word uint64) bool {
	if l.far {
		word += uint64(l.lagging.Load()) * uint64(len(stripe{}.took)) << leftShift
	}
	return l.law.due(word)
}

// lookAhead finds out whether the end of the round is far.
func (l *Limit) lookAhead() {
	l.far = !l.law.due(l.word.Load() + uint64(len(stripe{}.took))<<leftShift)
}

// leaveLocked ends any call and hands it to the law, with those in its stripe.
func (l *Limit) leaveLocked(s *stripe, p Pass, took time.Duration, outcome Outcome) (due bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leave()
	over := l.law.ended(l, p, took, outcome)
	s.mu.Lock()
	defer s.mu.Unlock()
	l.collect(s)
	return over || l.mayBeDue(l.word.Load())
}

// collect hands the calls in a stripe to the law. It is called with mu and the stripe locked.
func (l *Limit) collect(s *stripe) {
	for _, took := range s.took[:s.n] {
		l.law.ended(l, Pass{epoch: l.epoch}, took, Sample)
	}
	if s.places > 0 {
		l.word.Add(uint64(s.places) << leftShift)
	}
	s.n, s.places = 0, 0
}

// lock locks mu and all stripes, and collects what those keep. No call leaves until unlock.
func (l *Limit) lock() {
	l.mu.Lock()
	for i := range l.stripes {
		s := &l.stripes[i]
		s.mu.Lock()
		l.collect(s)
		l.takePlace(s)
		s.lags = false
	}
	l.lagging.Store(0)
}

func (l *Limit) unlock() {
	l.lookAhead()
	for i := range l.stripes {
		l.stripes[i].mu.Unlock()
	}
	l.mu.Unlock()
}

// takePlaces gives the stripes' places back.
func (l *Limit) takePlaces() {
	for i := range l.stripes {
		if s := &l.stripes[i]; s.place.Load() != 0 {
			s.mu.Lock() // begin must not run between taking the place and lowering the word
			l.takePlace(s)
			s.mu.Unlock()
		}
	}
}

// takePlace gives a stripe's place back, if it has one. It is called with the stripe locked.
func (l *Limit) takePlace(s *stripe) {
	if s.place.Swap(0) != 0 {
		l.word.Add(^uint64(0))
	}
}
