package shed

import (
	"sync/atomic"
	"time"

	"github.com/effector-go/resilience/internal/clock"
)

// A window counts the calls of the last Config.Window, without a lock.
//
// Time is cut into epochs of a tenth of the window. A counter is one word for each class of calls and epoch, in a ring: the epoch in the high
// bits, the count in the low. Booking is one compare-and-swap: in the same epoch it adds one, an older epoch it replaces by (epoch, 1), which
// resets and counts in one step. So no call is lost or counted twice, and nothing has to rotate the ring.
type window struct {
	width   int64  // of an epoch
	between func() // a test's: what happens between the look at a counter and the swap
	ring    [classes][buckets]atomic.Uint64
}

// The classes of calls. In good times others are only read, and accepted written by every call: so they come last, out of the way of what stands before.
const (
	others   = iota // rejected by the dependency, or refused before it
	accepted        // by the dependency
	classes
)

const (
	span    = 10 // epochs in the window
	buckets = 16 // in the ring: one ahead of the slowest booker, and to spare

	countBits = 32
	countMask = 1<<countBits - 1
)

func newWindow(length time.Duration) *window {
	return &window{width: (int64(length)-1)/span + 1}
}

// epoch is the number of the epoch that now is in, since long before the window began: so a clock that goes back, as it does when a shedder is used
// in a synctest bubble and then in another, finds epochs all the same.
func (w *window) epoch(now int64) int64 { return now / w.width }

// tag is what a word holds of an epoch, and age how many epochs a word is older than one: 32 bits, which come round after five days at a window of
// a millisecond, and after centuries at the default one.
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
			return // full: at this count one more call changes no share
		case a == 0:
			next = old + 1
		case a < 0 && !fresh:
			// A newer epoch. Either this call stood still while the ring went round: then it counts now. Or the clock went back: then the word is
			// replaced.
			epoch, fresh = w.epoch(clock.Now()), true
			continue
		}
		if word.CompareAndSwap(old, next) {
			return
		}
	}
}

// clean reports whether all calls of the window were accepted.
func (w *window) clean(now int64) bool { return w.sum(others, w.epoch(now)) == 0 }

// sums are what the window holds. They lack what is counted while they are taken.
func (w *window) sums(now int64) (requests, accepts int64) {
	epoch := w.epoch(now)
	accepts = w.sum(accepted, epoch)
	return accepts + w.sum(others, epoch), accepts
}

func (w *window) sum(class int, epoch int64) (n int64) {
	for i := range w.ring[class] {
		word := w.ring[class][i].Load()
		// One epoch ahead too, where another caller is already.
		if a := age(epoch, word); -1 <= a && a < span {
			n += int64(word & countMask)
		}
	}
	return n
}
