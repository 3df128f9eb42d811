// Package concurrency finds how many calls a dependency takes at once, by one of two laws: [NewQueue] and [NewAIMD]. It knows no clock and no
// context: package adaptive tells it how long calls took, and a simulation may.
package concurrency

import (
	"sync"
	"sync/atomic"
	"time"
)

// MaxLimit is the highest limit there is.
const MaxLimit = 1_000_000

// Highest is the highest priority; the least is 0.
const Highest = 4

// An Outcome is what a call tells of the dependency.
type Outcome int

// The outcomes.
const (
	Sample  Outcome = iota // it answered: the time that it took counts
	Drop                   // it had no room for the call
	Ignored                // the call tells nothing
)

// A Limit is how many calls may run at once. It is safe for concurrent use.
type Limit struct {
	// word holds how many calls run, how many may, and an epoch, which is the number of changes of how many may. Calls change the first by
	// compare-and-swap and by addition; the others are written with mu held, by compare-and-swap too. So a call learns in one step that it may run and
	// after which change.
	word atomic.Uint64

	// found is the limit. It is written with mu held, and is what word admits but while a measurement needs that fewer run.
	found atomic.Int64

	// turnedAway is set by each call that is not admitted, and taken back with mu held when the law begins to watch anew.
	turnedAway atomic.Bool

	least, most int // of found
	law         law

	mu sync.Mutex // guards the law's own fields
}

// A law says how the limit changes.
type law interface {
	// ended hears of a call that ended, and of how many ran until then, it included. It is called with mu held.
	ended(l *Limit, p Pass, running int, took time.Duration, outcome Outcome)
	// roundTrip is how long a call takes that does not queue, 0 while that is unknown. It is called with mu held.
	roundTrip() time.Duration
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

// atLeast reports whether the epoch is the other one or came after it. Epochs come round; what is half of them away came before.
func atLeast(epoch, other uint64) bool {
	return (epoch-other)&(1<<epochBits-1) < 1<<(epochBits-1)
}

// A Pass is leave for one call.
type Pass struct{ epoch uint64 } // in which it was admitted

// Enter admits a call of the priority, from 0 to Highest, while fewer calls run than limit × (0.6 + 0.1 × priority). A call that was admitted must Leave.
func (l *Limit) Enter(priority int) (Pass, bool) {
	for {
		word := l.word.Load()
		if 10*running(word) >= admits(word)*(6+priority) {
			if !l.turnedAway.Load() { // it is there already where many are turned away: no need to fight for it
				l.turnedAway.Store(true)
			}
			return Pass{}, false
		}
		if l.word.CompareAndSwap(word, word+1) {
			return Pass{epoch(word)}, true
		}
	}
}

// Leave ends a call that was admitted and took so long.
func (l *Limit) Leave(p Pass, took time.Duration, outcome Outcome) {
	before := running(l.word.Add(^uint64(0))) + 1
	if l.least == l.most {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.law.ended(l, p, before, took, outcome)
}

// Limit is how many calls may run at once, as found so far.
func (l *Limit) Limit() int { return int(l.found.Load()) }

// Running is how many calls run.
func (l *Limit) Running() int { return running(l.word.Load()) }

// RoundTrip is how long a call takes that does not queue; 0 while that is unknown.
func (l *Limit) RoundTrip() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.law.roundTrip()
}

// met reports whether calls were turned away since the law began to watch, or ran up to the limit.
func (l *Limit) met(peak int) bool {
	return l.turnedAway.Load() || peak >= admits(l.word.Load())
}

// set makes limit the one that was found, and admits as many, or fewer for a measurement. It reports whether the latter is a change.
func (l *Limit) set(limit, admit int) (changed bool) {
	l.found.Store(int64(limit))
	for {
		word := l.word.Load()
		if admits(word) == admit {
			return false
		}
		next := word&partMask | uint64(admit)<<admitsShift | (epoch(word)+1)<<epochShift
		if l.word.CompareAndSwap(word, next) {
			return true
		}
	}
}

// clamp keeps a limit in its range.
func (l *Limit) clamp(limit int) int { return max(l.least, min(limit, l.most)) }
