package shed

import (
	"sync/atomic"
	"time"

	"github.com/effector-go/resilience/internal/clock"
)

// A window counts the calls of the last Config.Window without a lock.
//
// Time is divided into epochs of a tenth of the window. A counter is one word per class of calls
// and epoch, in a ring: the high bits hold the epoch, the low bits the count. Counting is one
// compare-and-swap: in the same epoch it adds one; it replaces an older epoch by (epoch, 1), which
// resets and counts in one step. So no call is lost or counted twice, and nothing has to rotate the
// ring.
type window struct {
	width   int64  // of an epoch
	between func() // for tests: called between the load of a counter and its compare-and-swap
	ring    [classes][buckets]atomic.Uint64
}

// The classes of calls. In normal operation others is only read, while accepted is written by every
// call, so accepted comes last, away from the fields that are only read.
const (
	others   = iota // rejected by the dependency, or refused by the shedder
	accepted        // by the dependency
	classes
)

const (
	span    = 10 // epochs in the window
	buckets = 16 // in the ring: more than span, for callers that are late or early

	countBits = 32
	countMask = 1<<countBits - 1
)

func newWindow(length time.Duration) *window {
	return &window{width: (int64(length)-1)/span + 1}
}

// epoch returns the number of the epoch that contains now. Package clock starts a century back, so
// there are epochs for a clock that goes back as well, which happens when a shedder is used in one
// synctest bubble and then in another.
func (w *window) epoch(now int64) int64 { return now / w.width }

// tag is the part of a word that holds its epoch; age is how many epochs a word is older than the
// given one. Both have 32 bits, which wrap around after five days with a window of a millisecond,
// and after centuries with the default window.
func tag(epoch int64) uint64 { return uint64(epoch) << countBits }

func age(epoch int64, word uint64) int64 {
	return int64(tag(epoch)-word&^countMask) >> countBits
}

// add counts a call of the class at the time now.
func (w *window) add(class int, now int64) {
	epoch := w.epoch(now)
	for fresh := false; ; {
		word := &w.ring[class][uint64(epoch)%buckets]
		old := word.Load()
		if w.between != nil {
			w.between()
		}
		next := tag(epoch) | 1
		switch a := age(epoch, old); {
		case a == 0 && old&countMask == countMask:
			return // full: one more call wouldn't change the share
		case a == 0:
			next = old + 1
		case a < 0 && !fresh:
			// The word's epoch is newer. Either this goroutine was delayed while the ring wrapped
			// around; then its call counts now. Or the clock went back; then the word is replaced.
			epoch, fresh = w.epoch(clock.Now()), true
			continue
		}
		if word.CompareAndSwap(old, next) {
			return
		}
	}
}

// clean reports whether all calls in the window were accepted.
func (w *window) clean(now int64) bool { return w.sum(others, w.epoch(now)) == 0 }

// sums returns the counts of the window. Calls that are counted concurrently may be missing.
func (w *window) sums(now int64) (requests, accepts int64) {
	epoch := w.epoch(now)
	accepts = w.sum(accepted, epoch)
	return accepts + w.sum(others, epoch), accepts
}

func (w *window) sum(class int, epoch int64) (n int64) {
	for i := range w.ring[class] {
		word := w.ring[class][i].Load()
		// Another caller may already be one epoch ahead.
		if a := age(epoch, word); -1 <= a && a < span {
			n += int64(word & countMask)
		}
	}
	return n
}
