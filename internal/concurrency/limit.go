// Package concurrency finds how many concurrent calls a dependency takes, by one of two algorithms:
// [NewQueue] and [NewAIMD]. It uses no clock and no context: package adaptive measures how long
// calls take, and so can a simulation.
package concurrency

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
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
//
// Calls on different processors seldom wait for one another. Each call that ends leaves its time in
// a stripe, and the law takes in all stripes when a round may be over. While that is far away, the
// call leaves its place there as well, for the next call.
type Limit struct {
	// word holds the number of places that are taken, by running calls or in stripes, the epoch,
	// and how many calls have left in it, apart from those that left their place in a stripe. The
	// first is raised by Enter, and lowered with mu or a stripe locked. The others are written with
	// mu or a stripe locked, and the epoch with mu and all stripes locked. So a call learns in one
	// step that it may run, and in which epoch; and begin learns in one step how many calls of
	// earlier epochs run.
	word atomic.Uint64
	_    [56]byte // the fields below are read by each call and rarely written

	// admits is how many calls may run: the limit, or fewer during a measurement. found is the
	// limit. Both are written with mu and all stripes locked.
	admits, found atomic.Int64

	// peak is the largest number of concurrent calls in the epoch, of which at least one has left. It
	// is written with mu or a stripe locked.
	peak atomic.Int64

	// lagging is the number of stripes that may have kept places since all stripes were last locked.
	lagging atomic.Int32

	// state has the bits shut and refused, and counts rounds above them. A round begins with mu and
	// all stripes locked, and without the bits.
	state atomic.Uint32

	// The following fields are read with mu or any stripe locked, and written with mu and all
	// stripes locked.
	epoch uint32 // that of the word
	far   bool   // no round is over before a stripe is full: calls leave their places in stripes
	law   law

	stripes []stripe
	_       [48]byte

	mu          sync.Mutex // locked before any stripe; guards the fields below, and the law's own fields
	least, most int        // bounds of found
	_           [40]byte   // the whole is four cache lines
}

// The parts of state.
const (
	shut    = 1 << iota // a call found no place in the word: stripes keep none
	refused             // a call wasn't admitted, since stripes had no places either
	aRound
)

// A law sets the limit. Its methods are called with mu held, but due with mu or a stripe locked, and
// restart and round with mu and all stripes locked.
type law interface {
	// ended is called for each call that has ended, in any order, and reports whether a round may be
	// over.
	ended(l *Limit, p Pass, took time.Duration, outcome Outcome) bool
	// due reports whether a round may be over, by the word. It reads only what round and restart
	// write.
	due(word uint64) bool
	// round is called when a round may be over, and all calls that have ended are known.
	round(l *Limit)
	// roundTrip returns how long a call takes that doesn't queue, 0 while that is unknown.
	roundTrip() time.Duration
	// restart begins a round at the limit, with all of it admitted. What is known about round trips
	// stays; what a round had collected doesn't count. It is called when the law is new or the
	// bounds have moved the limit.
	restart(l *Limit, limit int)
}

func newLimit(initial, least, most int, law law) *Limit {
	n := min(maxStripes, 4*runtime.GOMAXPROCS(0))
	l := &Limit{least: least, most: most, law: law, stripes: make([]stripe, n)}
	l.found.Store(int64(initial))
	l.admits.Store(int64(initial))
	l.lookAhead()
	return l
}

// The parts of word. The last one may overflow.
const (
	runningBits = 20 // MaxLimit is below 2^20
	epochBits   = 20
	leftBits    = 64 - leftShift
	epochShift  = runningBits
	leftShift   = runningBits + epochBits
)

func running(word uint64) int  { return int(word & (1<<runningBits - 1)) }
func epoch(word uint64) uint32 { return uint32(word >> epochShift & (1<<epochBits - 1)) }
func left(word uint64) int     { return int(word >> leftShift) }

// leave ends a call in the word, and returns the word after it. It is called with mu or a stripe
// locked.
func (l *Limit) leave() uint64 {
	word := l.word.Add(1<<leftShift - 1)
	l.reach(running(word) + 1)
	return word
}

// atLeast reports whether epoch is other or came after it. Epochs wrap around: an epoch that is
// half of the range ahead came before.
func atLeast(epoch, other uint32) bool {
	return (epoch-other)&(1<<epochBits-1) < 1<<(epochBits-1)
}

// A Pass is the admission of one call.
type Pass struct {
	epoch  uint32 // in which it was admitted
	stripe uint32 // for what it leaves
}

// Enter admits a call of the priority, from 0 to Highest, while fewer calls run than
// limit × (0.6 + 0.1 × priority). An admitted call must Leave.
func (l *Limit) Enter(priority int) (Pass, bool) {
	var here byte
	at := l.stripe(uintptr(unsafe.Pointer(&here)))
	s := &l.stripes[at]
	if place := s.place.Load(); place != 0 && l.admitted(running(l.word.Load())-1, priority) && s.place.CompareAndSwap(place, 0) {
		return Pass{place - 1, at}, true
	}
	for {
		// In this order: if refused is set, all places in the word are those of running calls.
		state, word := l.state.Load(), l.word.Load()
		if calls := running(word); l.admitted(calls, priority) {
			if calls >= int(l.peak.Load()) {
				l.takePlaces() // so that only calls raise the peak
			}
			if l.word.CompareAndSwap(word, word+1) {
				return Pass{epoch(word), at}, true
			}
			continue
		}
		if state&refused != 0 {
			return Pass{}, false
		}
		if !l.state.CompareAndSwap(state, state|shut) {
			continue
		}
		l.takePlaces()
		if l.word.Load() == word && l.state.CompareAndSwap(state|shut, state|shut|refused) {
			return Pass{}, false
		}
	}
}

// admitted reports whether a call of the priority is admitted while so many others run.
func (l *Limit) admitted(others, priority int) bool {
	return 10*others < int(l.admits.Load())*(6+priority)
}

// reach raises the peak to the number of calls.
func (l *Limit) reach(calls int) {
	for {
		peak := l.peak.Load()
		if calls <= int(peak) || l.peak.CompareAndSwap(peak, int64(calls)) {
			return
		}
	}
}

// Leave ends an admitted call. The call leaves the word with mu or a stripe locked, so that a law
// which begins an epoch knows exactly how many calls of each epoch still run, and all that don't.
func (l *Limit) Leave(p Pass, took time.Duration, outcome Outcome) {
	s := &l.stripes[p.stripe]
	var due, done bool
	if outcome == Sample {
		due, done = l.leaveInStripe(s, p, took)
	}
	if !done {
		due = l.leaveLocked(s, p, took, outcome)
	}
	if due {
		l.lock()
		defer l.unlock()
		l.law.round(l)
	}
}

// SetBounds changes the bounds, which are from 1 to MaxLimit, and moves the limit between them.
// What is known about round trips stays. If the limit and what is admitted are between the new
// bounds, nothing else changes.
func (l *Limit) SetBounds(least, most int) {
	l.lock()
	defer l.unlock()
	l.least, l.most = least, most
	limit := l.clamp(l.Limit())
	if limit != l.Limit() || int(l.admits.Load()) < least { // a drain admits less than the limit
		l.restart(limit)
	}
}

// UseQueue continues with the present limit as [NewQueue] does. Nothing is known about round trips.
func (l *Limit) UseQueue() { l.use(newQueue()) }

// UseAIMD continues with the present limit as [NewAIMD] does. A drop of any call that runs now
// makes the limit shrink.
func (l *Limit) UseAIMD() { l.use(&aimd{}) }

func (l *Limit) use(next law) {
	l.lock()
	defer l.unlock()
	l.law = next
	l.restart(l.Limit())
}

func (l *Limit) restart(limit int) {
	l.law.restart(l, limit)
	l.beginRound()
}

// Limit returns the limit as found so far.
func (l *Limit) Limit() int { return int(l.found.Load()) }

// Running returns the number of running calls.
func (l *Limit) Running() int {
	n := running(l.word.Load())
	for i := range l.stripes {
		if l.stripes[i].place.Load() != 0 {
			n--
		}
	}
	return max(0, n) // calls may begin and end meanwhile
}

// RoundTrip returns how long a call takes that doesn't queue, 0 while that is unknown.
func (l *Limit) RoundTrip() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.law.roundTrip()
}

// beginRound forgets that calls were refused.
func (l *Limit) beginRound() { l.state.Store(l.state.Load()&^(shut|refused) + aRound) }

// met reports whether calls were refused in this round, or as many ran as are admitted.
func (l *Limit) met(peak int) bool {
	return l.state.Load()&refused != 0 || peak >= int(l.admits.Load())
}

// set changes the limit. If that is a change, it begins an epoch and reports true.
func (l *Limit) set(limit int) (changed bool) {
	if int(l.admits.Load()) == limit {
		return false
	}
	l.begin(limit, limit)
	return true
}

// begin sets the limit and begins an epoch, in which admit calls may run. It returns the epoch, and
// how many calls of earlier ones still run.
func (l *Limit) begin(limit, admit int) (now uint32, ran int) {
	l.found.Store(int64(limit))
	// Until the epoch has begun, as many are admitted as both epochs allow.
	l.admits.Store(min(l.admits.Load(), int64(admit)))
	for {
		word := l.word.Load()
		ran = running(word)
		now = (epoch(word) + 1) & (1<<epochBits - 1)
		if l.word.CompareAndSwap(word, uint64(now)<<epochShift|uint64(ran)) { // none has left
			l.admits.Store(int64(admit))
			l.epoch = now
			l.peak.Store(int64(ran))
			return now, ran
		}
	}
}

// clamp returns the limit, or the nearest one in the range.
func (l *Limit) clamp(limit int) int { return max(l.least, min(limit, l.most)) }
