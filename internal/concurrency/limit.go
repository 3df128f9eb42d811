// Package concurrency finds how many concurrent calls a dependency takes, by one of two algorithms:
// [NewQueue] and [NewAIMD]. It uses no clock and no context: package adaptive measures how long
// calls take, and so can a simulation.
package concurrency

import (
	"sync"
	"sync/atomic"
	"time"
)

// MaxLimit is the largest possible limit.
const MaxLimit = 1_000_000

// Highest is the highest priority. The lowest is 0.
const Highest = 4

// An Outcome is what a finished call shows about the dependency.
type Outcome int

// The outcomes.
const (
	Sample  Outcome = iota // it answered: the call's duration counts
	Drop                   // it had no room for the call
	Ignored                // nothing
)

// A Limit is the largest number of concurrent calls. It is safe for concurrent use.
type Limit struct {
	// word holds the number of running calls, the number of admitted ones, and the epoch. Enter
	// adds to the first by compare-and-swap, Leave subtracts. The others are written by
	// compare-and-swap with mu held. So a call learns in one step that it may run, and in which
	// epoch; and begin learns in one step how many calls of earlier epochs run.
	word atomic.Uint64

	// found is the limit. It is written with mu held. Word admits this many calls, or fewer during
	// a measurement.
	found atomic.Int64

	// refused is set by each call that isn't admitted, and reset with mu held at the end of a
	// round.
	refused atomic.Bool

	mu          sync.Mutex // guards the fields below, and the law's own fields
	least, most int        // bounds of found
	law         law
}

// A law sets the limit.
type law interface {
	// ended is called when a call has ended, with the number of calls that ran until then,
	// including this one. It is called with mu held.
	ended(l *Limit, p Pass, running int, took time.Duration, outcome Outcome)
	// roundTrip returns how long a call takes that doesn't queue, 0 while that is unknown. It is
	// called with mu held.
	roundTrip() time.Duration
	// restart begins a round at the limit, with all of it admitted. What is known about round trips
	// stays; what a round had collected doesn't count. It is called with mu held, when the law is
	// new or the bounds have moved the limit.
	restart(l *Limit, limit int)
}

func newLimit(initial, least, most int, law law) *Limit {
	l := &Limit{least: least, most: most, law: law}
	l.found.Store(int64(initial))
	l.word.Store(uint64(initial) << admitsShift)
	return l
}

// The parts of word.
const (
	partBits    = 20 // MaxLimit is below 2^20
	partMask    = 1<<partBits - 1
	admitsShift = partBits
	epochShift  = 2 * partBits
	epochBits   = 64 - epochShift
)

func running(word uint64) int  { return int(word & partMask) }
func admits(word uint64) int   { return int(word >> admitsShift & partMask) }
func epoch(word uint64) uint64 { return word >> epochShift }

// atLeast reports whether epoch is other or came after it. Epochs wrap around: an epoch that is
// half of the range ahead came before.
func atLeast(epoch, other uint64) bool {
	return (epoch-other)&(1<<epochBits-1) < 1<<(epochBits-1)
}

// A Pass is the admission of one call.
type Pass struct{ epoch uint64 } // in which it was admitted

// Enter admits a call of the priority, from 0 to Highest, while fewer calls run than
// limit × (0.6 + 0.1 × priority). An admitted call must Leave.
func (l *Limit) Enter(priority int) (Pass, bool) {
	for {
		word := l.word.Load()
		if 10*running(word) >= admits(word)*(6+priority) {
			if !l.refused.Load() { // where many are refused it is set already, and need not be written
				l.refused.Store(true)
			}
			return Pass{}, false
		}
		if l.word.CompareAndSwap(word, word+1) {
			return Pass{epoch(word)}, true
		}
	}
}

// Leave ends an admitted call. The call leaves the word with mu held, so that a law which begins an
// epoch knows exactly how many calls of each epoch still run.
func (l *Limit) Leave(p Pass, took time.Duration, outcome Outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := running(l.word.Add(^uint64(0))) + 1
	l.law.ended(l, p, before, took, outcome)
}

// SetBounds changes the bounds, which are from 1 to MaxLimit, and moves the limit between them.
// What is known about round trips stays. If the limit and what is admitted are between the new
// bounds, nothing else changes.
func (l *Limit) SetBounds(least, most int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.least, l.most = least, most
	limit := l.clamp(l.Limit())
	if limit != l.Limit() || admits(l.word.Load()) < least { // a drain admits less than the limit
		l.restart(limit)
	}
}

// UseQueue continues with the present limit as [NewQueue] does. Nothing is known about round trips.
func (l *Limit) UseQueue() { l.use(newQueue()) }

// UseAIMD continues with the present limit as [NewAIMD] does. A drop of any call that runs now
// makes the limit shrink.
func (l *Limit) UseAIMD() { l.use(&aimd{}) }

func (l *Limit) use(next law) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.law = next
	l.restart(l.Limit())
}

func (l *Limit) restart(limit int) {
	l.law.restart(l, limit)
	l.refused.Store(false)
}

// Limit returns the limit as found so far.
func (l *Limit) Limit() int { return int(l.found.Load()) }

// Running returns the number of running calls.
func (l *Limit) Running() int { return running(l.word.Load()) }

// RoundTrip returns how long a call takes that doesn't queue, 0 while that is unknown.
func (l *Limit) RoundTrip() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.law.roundTrip()
}

// met reports whether calls were refused in this round, or ran up to the limit.
func (l *Limit) met(peak int) bool {
	return l.refused.Load() || peak >= admits(l.word.Load())
}

// set changes the limit. If that is a change, it begins an epoch and reports true.
func (l *Limit) set(limit int) (changed bool) {
	if admits(l.word.Load()) == limit {
		return false
	}
	l.begin(limit, limit)
	return true
}

// begin sets the limit and begins an epoch, in which admit calls may run. It returns the epoch, and
// how many calls of earlier ones still run.
func (l *Limit) begin(limit, admit int) (now uint64, ran int) {
	l.found.Store(int64(limit))
	for {
		word := l.word.Load()
		next := word&partMask | uint64(admit)<<admitsShift | (epoch(word)+1)<<epochShift
		if l.word.CompareAndSwap(word, next) {
			return epoch(next), running(word)
		}
	}
}

// clamp returns the limit, or the nearest one in the range.
func (l *Limit) clamp(limit int) int { return max(l.least, min(limit, l.most)) }
