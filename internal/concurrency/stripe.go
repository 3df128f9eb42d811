package concurrency

import (
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// A stripe keeps what calls of the present epoch leave, until the law takes it in.
type stripe struct {
	mu     sync.Mutex
	n      int           // of the times
	places int           // of the calls that have left a place here, which the word doesn't know of
	using  bool          // counted in Limit.using
	place  atomic.Uint32 // epoch + 1 of a place that can be taken, or 0
	took   [28]time.Duration
}

// maxStripes is the largest number of stripes of a Limit.
const maxStripes = 16

// stripe returns the stripe for an address on the caller's stack: it differs between goroutines.
func (l *Limit) stripe(at unsafe.Pointer) uint32 {
	const goldenRatio = 0x9e3779b97f4a7c15 // spreads equal distances evenly
	hash := uint64(uintptr(at)) >> 11 * goldenRatio
	return uint32(hash>>32) & uint32(len(l.stripes)-1)
}

// keep ends a call of the present epoch and keeps its time in the stripe, if that has room.
func (l *Limit) keep(s *stripe, p Pass, took time.Duration) (due, kept bool) {
	s.mu.Lock()
	if kept = s.n < len(s.took) && p.epoch == l.epoch; kept {
		s.took[s.n] = took
		s.n++
		if !l.far || !l.keepPlace(s, p) {
			due = l.near(l.leave())
		}
	}
	s.mu.Unlock()
	return due, kept
}

// keepPlace keeps the place of a call in the stripe, if it has none and no round can be over.
func (l *Limit) keepPlace(s *stripe, p Pass) bool {
	if !s.using {
		s.using = true
		l.using.Add(1)
	}
	if l.refused.Load() || s.place.Load() != 0 || l.near(l.word.Load()) {
		return false
	}
	s.place.Store(p.epoch + 1)
	if l.refused.Load() && s.place.Swap(0) != 0 {
		return false // the refused call may not have seen the place
	}
	s.places++
	return true
}

// near reports whether a round may be over, by the word and what stripes may keep.
func (l *Limit) near(word uint64) bool {
	if l.far {
		word += uint64(l.using.Load()) * uint64(len(stripe{}.took)) << leftShift
	}
	return l.law.due(word)
}

// count ends any call and hands it to the law, with those in its stripe.
func (l *Limit) count(s *stripe, p Pass, took time.Duration, outcome Outcome) (due bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leave()
	over := l.law.ended(l, p, took, outcome)
	s.mu.Lock()
	defer s.mu.Unlock()
	l.collect(s)
	return over || l.near(l.word.Load())
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
		s.using = false
	}
	l.using.Store(0)
}

func (l *Limit) unlock() {
	l.far = !l.law.due(l.word.Load() + uint64(len(stripe{}.took))<<leftShift)
	for i := range l.stripes {
		l.stripes[i].mu.Unlock()
	}
	l.mu.Unlock()
}

// takePlaces gives the stripes' places back, and reports whether there was one.
func (l *Limit) takePlaces() (found bool) {
	for i := range l.stripes {
		if s := &l.stripes[i]; s.place.Load() != 0 {
			s.mu.Lock() // for begin, since the stripe and the word change one after the other
			found = l.takePlace(s) || found
			s.mu.Unlock()
		}
	}
	return found
}

// takePlace gives a stripe's place back, if it has one. It is called with the stripe locked.
func (l *Limit) takePlace(s *stripe) bool {
	if s.place.Swap(0) == 0 {
		return false
	}
	l.word.Add(^uint64(0))
	return true
}
