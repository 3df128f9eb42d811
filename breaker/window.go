package breaker

import (
	"fmt"
	"math"
	"math/bits"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/effector-go/resilience/internal/clock"
)

// A window counts the calls of the last Config.Window, without a lock.
//
// Time is cut into epochs of a tenth of the window. A counter is one word for each class of calls and epoch, in a ring: the
// epoch in the high bits, the count in the low. Booking is one compare-and-swap: in the same epoch it adds one, an older
// epoch it replaces by (epoch, 1), which resets and counts in one step. So no call is lost or counted twice, and nothing has to
// rotate the ring.
//
// The words begin as one stripe. When callers have got in each other's way often enough they become several, and a call takes
// one by its goroutine.
type window struct {
	c     *Config
	began int64
	width divisor // of an epoch
	fine  divisor // of an epoch of the running calls; 0 without SlowRate

	// settled is 1 + the latest epoch in which the window was seen to hold MinCalls. Until the epoch ends it only gains, so
	// that a fast success need not be judged. Whoever judges writes it; a stale value costs a judgement.
	settled atomic.Int64
	// judged is the end of the epoch, fine or not, in which the running calls were last judged. Until then they only end. Whoever
	// judges writes it; a stale value costs a judgement.
	judged atomic.Int64

	carried atomic.Int64 // running calls whose words were reused: all of them slow
	misses  atomic.Int32 // compare-and-swaps that another booker made fail
	stripes atomic.Pointer[[]*stripe]

	between func() // a test's: what happens between the count of failures, or slow calls, and that of the others
}

const (
	span    = 10 // epochs in the window
	buckets = 16 // in the ring: one ahead of the slowest booker, and to spare; a power of two, since an index is taken at every call

	fineSpan = 8 // fine epochs in SlowCall

	missesToGrow = 32   // from one stripe to several
	missesToDeal = 1024 // until callers are dealt to the stripes anew

	countBits = 34
	countMask = 1<<countBits - 1
)

// The classes of calls.
const (
	fastSuccess = iota
	fastFailure
	slowSuccess
	slowFailure
	slowIgnored
	classes
)

type stripe struct {
	ended   [classes][buckets]atomic.Uint64
	running [buckets]atomic.Uint64 // by the fine epoch of their admission

	// instant is when the calls of a running word were admitted, if all were in one instant; negative if there were several. It
	// is of the word's epoch, or stale. Each caller writes it after the word unless it is right already.
	instant [buckets]atomic.Int64
}

// A mark is where a running call is noted.
type mark struct {
	start int64
	word  *atomic.Uint64
	epoch int64
}

func newWindow(c *Config, began int64) *window {
	w := &window{c: c, began: began, width: divisorFor(c.Window, span)}
	if c.SlowRate > 0 {
		w.fine = divisorFor(c.SlowCall, fineSpan)
	}
	w.stripes.Store(&[]*stripe{{}})
	return w
}

// A divisor is the length of an epoch, which time is divided by at every call, with its reciprocal: divisions
// took a quarter of a call through a window.
type divisor struct {
	by         int64
	reciprocal uint64 // 2^64/by, rounded down, or one less
}

func divisorFor(d time.Duration, parts int64) divisor {
	by := int64(d) / parts
	if by*parts < int64(d) {
		by++
	}
	return divisor{by, math.MaxUint64 / uint64(by)}
}

// epoch is the number of the epoch that now is in. A clock that went back before the phase began stays in the first.
func (w *window) epoch(now int64, width divisor) int64 {
	t := max(0, now-w.began)
	hi, _ := bits.Mul64(uint64(t), width.reciprocal) // the quotient, or one less
	if e := int64(hi); t-e*width.by < width.by {
		return e
	}
	return int64(hi) + 1
}

// tag is what a word holds of an epoch, and age how many epochs a word is older than one: 30 bits, which at a window of 10
// ms come round after 12 days.
func tag(epoch int64) uint64 { return uint64(epoch) << countBits }

func age(epoch int64, word uint64) int64 {
	return int64(tag(epoch)-word&^countMask) >> countBits
}

// add books one call in the word of now's epoch. It returns that epoch, what the word held before, and what it holds now.
func (w *window) add(ring *[buckets]atomic.Uint64, now int64, width divisor) (epoch int64, old, next uint64) {
	epoch = w.epoch(now, width)
	for fresh := false; ; {
		word := &ring[uint64(epoch)%buckets]
		old = word.Load()
		switch a := age(epoch, old); {
		case a == 0:
			next = old + 1
			if old&countMask == countMask {
				next = old // full: at this count one more call changes no share
			}
		case a > 0:
			next = tag(epoch) | 1
		default:
			// A newer epoch. Either this call stood still while the ring went round: then it counts now. Or the clock went back,
			// as it does when a breaker is used in a synctest bubble and then in another, or the word is so old that its tag came
			// round: then it is replaced.
			if !fresh {
				epoch, fresh = w.epoch(clock.Now(), width), true
				continue
			}
			next = tag(epoch) | 1
		}
		if word.CompareAndSwap(old, next) {
			return epoch, old, next
		}
		w.missed()
	}
}

// missed notes that another booker was in the way, and makes room when that has happened often enough.
func (w *window) missed() {
	if w.misses.Add(1) == missesToGrow {
		w.grow()
	}
}

// grow makes several stripes of one. It may be called again, when misses has come round.
func (w *window) grow() {
	old := w.stripes.Load()
	if len(*old) > 1 {
		return
	}
	grown := make([]*stripe, 1<<bits.Len(uint(4*runtime.GOMAXPROCS(0)-1)))
	grown[0] = (*old)[0]
	for i := 1; i < len(grown); i++ {
		grown[i] = new(stripe)
	}
	w.stripes.CompareAndSwap(old, &grown)
}

func (w *window) stripe() *stripe {
	stripes := *w.stripes.Load()
	if len(stripes) == 1 {
		return stripes[0]
	}
	// The address of the stack tells goroutines apart, for 2 ns. It is never used as a pointer. Those that meet on one stripe
	// all the same are dealt anew after so many more misses.
	var here byte
	hash := (uint64(uintptr(unsafe.Pointer(&here))>>11) + uint64(w.misses.Load()/missesToDeal)<<32) * 0x9e3779b97f4a7c15
	hash = (hash ^ hash>>29) * 0xbf58476d1ce4e5b9
	return stripes[hash>>(64-bits.Len(uint(len(stripes)-1)))]
}

// enter notes a call that begins now.
func (w *window) enter(now int64) mark {
	s := w.stripe()
	epoch, old, noted := w.add(&s.running, now, w.fine)
	i := uint64(epoch) % buckets
	alone := noted&countMask == 1
	if left := old & countMask; alone && left > 0 {
		w.carried.Add(int64(left)) // of an epoch long past
	}
	w.noteInstant(&s.instant[i], now, epoch, alone)
	return mark{now, &s.running[i], epoch}
}

// noteInstant notes that a call was admitted now. alone says that the word held no other when the call was noted: then what is
// known is of calls that have ended.
func (w *window) noteInstant(instant *atomic.Int64, now, epoch int64, alone bool) {
	for ; ; alone = false {
		known, next := instant.Load(), now
		switch {
		case known == now:
			return
		case alone || known == 0 || w.epoch(max(known, -known), w.fine) != epoch:
			// The call's own instant, unless another caller comes between.
		case known < 0:
			return
		default:
			next = -now
		}
		if instant.CompareAndSwap(known, next) {
			return
		}
	}
}

// leave takes back what enter noted.
func (w *window) leave(m mark) {
	if m.word == nil {
		return
	}
	for {
		old := m.word.Load()
		if age(m.epoch, old) != 0 {
			w.carried.Add(-1) // the word was reused, and the call carried
			return
		}
		if m.word.CompareAndSwap(old, old-1) {
			return
		}
	}
}

// book counts a call that ended now, and returns why the breaker is to open, or "". It leaves first, so that no call counts
// twice.
func (w *window) book(m mark, outcome Outcome) (cause string) {
	now := clock.Now()
	class := fastSuccess
	if m.word != nil {
		w.leave(m)
		if time.Duration(now-m.start) >= w.c.SlowCall {
			class = slowSuccess
		}
	}
	switch {
	case outcome == Failure:
		class++
	case outcome == Ignored && class == fastSuccess:
		return ""
	case outcome == Ignored:
		class = slowIgnored
	}
	return w.count(class, now)
}

// count counts a call of a class that ended now. Booked first and judged second: of several at a time the last sees all.
func (w *window) count(class int, now int64) (cause string) {
	epoch, _, _ := w.add(&w.stripe().ended[class], now, w.width)
	if class == fastSuccess && w.settled.Load() == epoch+1 && (w.fine.by == 0 || w.noneSlower(now)) {
		return ""
	}
	return w.judge(now, epoch)
}

// succeed counts a success that ends now, where nothing is noted of running calls: count(fastSuccess, now), with what is usual written
// out, which takes a tenth less.
func (w *window) succeed() (cause string) {
	now := clock.Now()
	epoch := w.epoch(now, w.width)
	word := &w.stripe().ended[fastSuccess][uint64(epoch)%buckets]
	switch old := word.Load(); {
	case age(epoch, old) != 0 || old&countMask == countMask:
		return w.count(fastSuccess, now)
	case !word.CompareAndSwap(old, old+1):
		w.missed()
		return w.count(fastSuccess, now)
	case w.settled.Load() == epoch+1:
		return ""
	}
	return w.judge(now, epoch)
}

// judgeAdmission judges the running calls where time may have made some of them slow.
func (w *window) judgeAdmission(now int64) (cause string) {
	if w.noneSlower(now) {
		return ""
	}
	return w.judge(now, w.epoch(now, w.width))
}

// noneSlower reports whether no running call has become slow since they were last judged.
func (w *window) noneSlower(now int64) bool {
	left := w.judged.Load() - now
	return 0 < left && left <= w.fine.by // else the clock went back
}

// someSlowSoon reports whether calls may become slow within the fine epoch: those whose instant is known.
func (w *window) someSlowSoon(epoch int64) bool {
	if epoch < fineSpan {
		return false
	}
	i := (epoch - fineSpan) % buckets
	for _, stripe := range *w.stripes.Load() {
		word := stripe.running[i].Load()
		if word&countMask > 0 && age(epoch, word) == fineSpan && stripe.instant[i].Load() > 0 {
			return true
		}
	}
	return false
}

// held counts the ended calls of the classes.
func (w *window) held(epoch int64, classes ...int) (n int64) {
	for _, stripe := range *w.stripes.Load() {
		for _, class := range classes {
			for i := range stripe.ended[class] {
				word := stripe.ended[class][i].Load()
				// One epoch ahead too: else an opening would wait where a booker is already there.
				if a := age(epoch, word); a >= -1 && a < span {
					n += int64(word & countMask)
				}
			}
		}
	}
	return n
}

// failed counts the failures, then the successes. In this order the share that is seen is at most what it was when the failures had
// been counted: a success booked meanwhile makes it smaller, a failure booked meanwhile is not seen, and its booker looks later.
func (w *window) failed(epoch int64) (failures, calls int64) {
	failures = w.held(epoch, slowFailure, fastFailure)
	if w.between != nil {
		w.between()
	}
	return failures, failures + w.held(epoch, slowSuccess, fastSuccess)
}

// slow counts the slow calls, then those that hang, then the fast ones: an order as in failed. A call that hung leaves first and is booked
// second, so none counts twice.
func (w *window) slow(now, epoch int64) (slow, calls int64) {
	slow = w.held(epoch, slowFailure, slowSuccess, slowIgnored)
	_, hanging := w.running(now)
	slow += hanging
	if w.between != nil {
		w.between()
	}
	return slow, slow + w.held(epoch, fastFailure, fastSuccess)
}

// running counts the calls that have not ended, and those among them that are slow by now.
func (w *window) running(now int64) (all, slow int64) {
	if w.fine.by == 0 {
		return 0, 0
	}
	all = w.carried.Load()
	slow = all
	epoch := w.epoch(now, w.fine)
	for _, stripe := range *w.stripes.Load() {
		for i := range stripe.running {
			word := stripe.running[i].Load()
			n := int64(word & countMask)
			all += n
			if n > 0 && w.allSlow(stripe.instant[i].Load(), age(epoch, word), epoch, now) {
				slow += n
			}
		}
	}
	return max(0, all), max(0, slow)
}

// allSlow reports whether the calls of a running word are slow now: when SlowCall has passed since its epoch ended, or since
// the instant in which all were admitted.
func (w *window) allSlow(instant, age, epoch, now int64) bool {
	if age == fineSpan && instant > 0 && w.epoch(instant, w.fine) == epoch-age {
		return time.Duration(now-instant) >= w.c.SlowCall
	}
	return age > fineSpan || age < -buckets // so old that its tag came round
}

// judge returns why the breaker is to open, or "". One who stood still while he looked may have found calls overwritten by those of newer
// epochs, successes above all, which are counted last: then he looks again.
func (w *window) judge(now, epoch int64) (cause string) {
	for {
		cause = w.look(now, epoch)
		if cause == "" {
			return ""
		}
		now = clock.Now()
		if fresh := w.epoch(now, w.width); fresh-epoch > buckets-span {
			epoch = fresh
			continue
		}
		return cause
	}
}

// look judges what the window holds.
func (w *window) look(now, epoch int64) (cause string) {
	least := int64(w.c.MinCalls)
	failures, calls := w.failed(epoch)
	if calls >= least && w.settled.Load() != epoch+1 {
		w.settled.Store(epoch + 1)
		failures, calls = w.failed(epoch) // with what was booked meanwhile by one who saw too few calls: fast successes are not judged from here on
	}
	if calls >= least && w.c.FailureRate > 0 && float64(failures)/float64(calls) >= w.c.FailureRate {
		return fmt.Sprintf("%d of %d calls failed in %v", failures, calls, w.c.Window)
	}
	if w.c.SlowRate > 0 {
		if fine := w.epoch(now, w.fine); !w.someSlowSoon(fine) {
			w.judged.Store(w.began + min((epoch+1)*w.width.by, (fine+1)*w.fine.by))
		}
		if slow, calls := w.slow(now, epoch); calls >= least && float64(slow)/float64(calls) >= w.c.SlowRate {
			return fmt.Sprintf("%d of %d calls took %v or longer in %v", slow, calls, w.c.SlowCall, w.c.Window)
		}
	}
	return ""
}

func (w *window) snapshot(s *Snapshot) {
	now := clock.Now()
	epoch := w.epoch(now, w.width)
	failures, calls := w.failed(epoch)
	running, hanging := w.running(now)
	s.Calls, s.Failures = int(calls), int(failures)
	s.Slow, s.Running = int(w.held(epoch, slowFailure, slowSuccess, slowIgnored)+hanging), int(running)
}

// lastCalls counts the failures among the last so many calls, without a lock. One word holds the number of the latest call and how many
// of the last calls failed; a compare-and-swap of it books a call, so calls stand in one order, and whoever books one knows the exact
// count at its place. How each call ended is then written into a ring, for the one whose call pushes it out.
//
// That one must find it: where a caller stood still between the two writes, while all the rest of the ring was filled, the next one
// waits for it.
type lastCalls struct {
	size  uint64
	limit uint64
	word  atomic.Uint64   // number of the latest call, whether the ring has been full, failures
	ring  []atomic.Uint64 // number<<1 of a call, plus one if it failed; a power of two long, so that numbers may come round
}

// The parts of lastCalls.word. Failures are at most LastCalls, which is at most 1,000,000.
const (
	failureBits = 20
	failureMask = 1<<failureBits - 1
	filled      = 1 << failureBits
	numberShift = failureBits + 1
	numberMask  = math.MaxUint64 >> numberShift
)

func newLastCalls(calls, failures int) *lastCalls {
	l := &lastCalls{size: uint64(calls), limit: uint64(failures), ring: make([]atomic.Uint64, 1<<bits.Len(uint(calls-1)))}
	for i := range l.size { // as many successes before the first call, which are not counted as calls
		number := (i - l.size + 1) & numberMask
		l.slot(number).Store(number << 1)
	}
	return l
}

func (l *lastCalls) slot(number uint64) *atomic.Uint64 { return &l.ring[number%uint64(len(l.ring))] }

// book counts a call and reports whether it is a failure with which the failures have reached the limit.
func (l *lastCalls) book(failed bool) bool {
	bit := uint64(0)
	if failed {
		bit = 1
	}
	for {
		word := l.word.Load()
		number := (word>>numberShift + 1) & numberMask
		gone := (number - l.size) & numberMask
		pushed := l.slot(gone).Load()
		if pushed>>1 != gone {
			if l.word.Load() == word {
				runtime.Gosched() // the call that is to go has its number and not yet its slot
			}
			continue
		}
		failures := word&failureMask + bit - pushed&1
		next := number<<numberShift | word&filled | failures
		if number == l.size {
			next |= filled
		}
		if l.word.CompareAndSwap(word, next) {
			l.slot(number).Store(number<<1 | bit)
			return failed && failures >= l.limit
		}
	}
}

// held counts the last calls and the failures among them.
func (l *lastCalls) held() (calls, failures int) {
	word := l.word.Load()
	calls = int(l.size)
	if word&filled == 0 {
		calls = int(word >> numberShift)
	}
	return calls, int(word & failureMask)
}
