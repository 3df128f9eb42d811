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

// A window counts the calls of the last Config.Window without a lock.
//
// Time is divided into epochs of a tenth of the window. Each class of calls has a ring of counters,
// with one word for each epoch. A word holds the epoch in its high bits and the count in its low
// bits. Counting a call is one compare-and-swap: if the word holds the current epoch it adds one;
// if the word holds an older epoch it replaces the word with (epoch, 1), which resets and counts in
// one step. So no call is lost or counted twice, and nothing needs to rotate the ring.
//
// A window starts with one stripe of such words. After enough compare-and-swaps have failed it gets
// several stripes, and a call chooses one by its goroutine.
//
// A window judges its calls by one Config. If a breaker gets another one with the same Window and
// SlowCall, a new window judges the same calls.
type window struct {
	c     *Config
	began int64
	width divisor // length of an epoch
	fine  divisor // length of an epoch of running calls; 0 without SlowRate
	*counted

	// settled is 1 + the latest epoch in which the window was seen to hold MinCalls. Until that
	// epoch ends the window only gains calls, so a fast success needn't be judged. The judging call
	// writes it; a stale value only costs a judgment.
	settled atomic.Int64
	// judged is the end of the epoch, fine or not, in which the running calls were last judged.
	// Until then they can only end. The judging call writes it; a stale value only costs a
	// judgment.
	judged atomic.Int64

	between func() // for tests: called between counting failures (or slow calls) and counting the others
}

// counted are the calls of a window. Every call writes them.
type counted struct {
	carried atomic.Int64 // running calls whose words were reused; all of them are slow
	misses  atomic.Int32 // compare-and-swaps that failed because of another call
	stripes atomic.Pointer[[]*stripe]
}

const (
	span = 10 // epochs in the window
	// buckets is the number of words in a ring: one more than span for the slowest call, and some
	// spare. It is a power of two because every call computes an index.
	buckets = 16

	fineSpan = 8 // fine epochs in SlowCall

	// maxDelay is by how many fine epochs a judging goroutine may be late. Words that are newer than
	// its time by more are so old that their tags wrapped around.
	maxDelay = 1 << 20

	missesToGrow = 32   // misses after which one stripe becomes several
	missesToDeal = 1024 // misses after which goroutines are assigned to stripes again

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
	running [buckets]atomic.Uint64 // by the fine epoch of admission

	// instant is when the calls of a running word were admitted, if all were admitted in one
	// instant; it is negative if there were several instants. It belongs to the word's epoch, or is
	// stale. Each call writes it after the word, unless it is already right.
	instant [buckets]atomic.Int64
}

// An entry is where a running call is noted.
type entry struct {
	start int64          // of the call; 0 if unknown
	word  *atomic.Uint64 // nil if the call isn't noted while it runs
	epoch int64
}

func newWindow(c *Config, began int64) *window {
	w := &window{c: c, began: began, width: divisorFor(c.Window, span), counted: new(counted)}
	if c.SlowRate > 0 {
		w.fine = divisorFor(c.SlowCall, fineSpan)
	}
	w.stripes.Store(&[]*stripe{{}})
	return w
}

// with returns a window that judges w's calls by c, or nil if c counts other calls.
func (w *window) with(c *Config) *window {
	if w == nil || c.Window != w.c.Window || c.SlowCall != w.c.SlowCall {
		return nil
	}
	return &window{c: c, began: w.began, width: w.width, fine: w.fine, counted: w.counted}
}

// A divisor is the length of an epoch, by which time is divided at every call, with its reciprocal.
// Real divisions took a quarter of the time of a call through a window.
type divisor struct {
	by         int64
	reciprocal uint64 // 2^64/by, rounded down, or one below that
}

func divisorFor(d time.Duration, parts int64) divisor {
	by := int64(d) / parts
	if by*parts < int64(d) {
		by++
	}
	return divisor{by, math.MaxUint64 / uint64(by)}
}

// epoch returns the number of the epoch at now. If the clock has gone back to before the phase
// began, that is the first epoch.
func (w *window) epoch(now int64, width divisor) int64 {
	t := max(0, now-w.began)
	hi, _ := bits.Mul64(uint64(t), width.reciprocal) // the quotient, or one below it
	if e := int64(hi); t-e*width.by < width.by {
		return e
	}
	return int64(hi) + 1
}

// tag returns the part of a word that holds the epoch. age returns by how many epochs a word is
// older than epoch. The tag has 30 bits, so with a window of 10 ms it wraps around after 12 days.
func tag(epoch int64) uint64 { return uint64(epoch) << countBits }

func age(epoch int64, word uint64) int64 {
	return int64(tag(epoch)-word&^countMask) >> countBits
}

// add counts one call in the word of now's epoch. It returns that epoch, and the word before and
// after.
func (w *window) add(ring *[buckets]atomic.Uint64, now int64, width divisor) (epoch int64, old, next uint64) {
	epoch = w.epoch(now, width)
	for fresh := false; ; {
		word := &ring[uint64(epoch)%buckets]
		old = word.Load()
		switch a := age(epoch, old); {
		case a == 0:
			next = old + 1
			if old&countMask == countMask {
				next = old // full: with so high a count, one more call changes no share
			}
		case a > 0:
			next = tag(epoch) | 1
		default:
			// The word holds a newer epoch. If this call was delayed while the ring went around, it
			// counts now. If the clock went back (as it does when a breaker is used in one synctest
			// bubble and then in another), or the word is so old that its tag wrapped around, the
			// word is replaced.
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

// missed counts a failed compare-and-swap, and adds stripes when there have been enough of them.
func (w *window) missed() {
	if w.misses.Add(1) == missesToGrow {
		w.grow()
	}
}

// grow replaces one stripe with several. It may be called again after misses has wrapped around.
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
	// The address of the stack distinguishes goroutines, in 2 ns. It is never used as a pointer.
	// Goroutines that still share a stripe are assigned again after missesToDeal more misses.
	var here byte
	hash := (uint64(uintptr(unsafe.Pointer(&here))>>11) + uint64(w.misses.Load()/missesToDeal)<<32) * 0x9e3779b97f4a7c15
	hash = (hash ^ hash>>29) * 0xbf58476d1ce4e5b9
	return stripes[hash>>(64-bits.Len(uint(len(stripes)-1)))]
}

// enter notes a call that begins now.
func (w *window) enter(now int64) entry {
	s := w.stripe()
	epoch, old, noted := w.add(&s.running, now, w.fine)
	i := uint64(epoch) % buckets
	alone := noted&countMask == 1
	if left := old & countMask; alone && left > 0 {
		w.carried.Add(int64(left)) // from an epoch long past
	}
	e := entry{now, &s.running[i], epoch}
	w.noteInstant(&s.instant[i], e, alone)
	return e
}

// noteInstant notes when a call was admitted. alone means that its word held no other call at that
// time, so that a known instant is about calls that have ended.
func (w *window) noteInstant(instant *atomic.Int64, e entry, alone bool) {
	for {
		known, next := instant.Load(), e.start
		switch {
		case known == e.start:
			return
		case alone || !w.isOf(e.epoch, known):
			// Store next, unless another call stores first.
		case known < 0:
			return
		default:
			next = -e.start
		}
		if instant.CompareAndSwap(known, next) {
			if alone && e.word.Load()&countMask > 1 && w.isOf(e.epoch, known) {
				// Another call has come since, and may have noted the known instant or relied on it.
				instant.CompareAndSwap(next, -next)
			}
			return
		}
	}
}

// isOf reports whether a noted instant, or several, is of the fine epoch.
func (w *window) isOf(epoch, instant int64) bool {
	return instant != 0 && w.epoch(max(instant, -instant), w.fine) == epoch
}

// leave undoes enter, in the window that was entered.
func (w *window) leave(e entry) {
	if e.word == nil {
		return
	}
	for {
		old := e.word.Load()
		if age(e.epoch, old) != 0 {
			w.carried.Add(-1) // the word was reused, so the call is in carried
			return
		}
		if e.word.CompareAndSwap(old, old-1) {
			return
		}
	}
}

// book counts a call that ended now. It returns why the breaker must open, or "". The call must have
// left before, so that it doesn't count twice.
func (w *window) book(e entry, outcome Outcome) (cause string) {
	now := clock.Now()
	class := fastSuccess
	if e.start != 0 && w.c.SlowRate > 0 && time.Duration(now-e.start) >= w.c.SlowCall {
		class = slowSuccess
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

// count counts a call of a class that ended now. It counts first and judges second: the last of
// several concurrent calls sees all of them.
func (w *window) count(class int, now int64) (cause string) {
	epoch, _, _ := w.add(&w.stripe().ended[class], now, w.width)
	if class == fastSuccess && w.settled.Load() == epoch+1 && (w.fine.by == 0 || w.noneSlower(now)) {
		return ""
	}
	return w.judge(now, epoch)
}

// succeed counts a success that ends now if running calls aren't noted. It does the same as
// count(fastSuccess, now), with the common case inlined, which takes a tenth less time.
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

// judgeAdmission judges the running calls if some of them may have become slow.
func (w *window) judgeAdmission(now int64) (cause string) {
	if w.noneSlower(now) {
		return ""
	}
	return w.judge(now, w.epoch(now, w.width))
}

// noneSlower reports whether no running call has become slow since they were last judged.
func (w *window) noneSlower(now int64) bool {
	left := w.judged.Load() - now
	return 0 < left && left <= w.fine.by // otherwise the clock went back
}

// someSlowSoon reports whether calls whose instant is known may become slow within the fine epoch.
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

// held returns the number of ended calls of the classes.
func (w *window) held(epoch int64, classes ...int) (n int64) {
	for _, stripe := range *w.stripes.Load() {
		for _, class := range classes {
			for i := range stripe.ended[class] {
				word := stripe.ended[class][i].Load()
				// Include the next epoch: otherwise an opening would have to wait if another call
				// has already counted there.
				if a := age(epoch, word); a >= -1 && a < span {
					n += int64(word & countMask)
				}
			}
		}
	}
	return n
}

// failed returns the number of failures and of all calls that weren't ignored. It counts failures
// first, then successes. In this order the share is at most what it was when the failures had been
// counted: a success counted meanwhile makes it smaller, and a failure counted meanwhile isn't
// seen, but is judged later by its own call.
func (w *window) failed(epoch int64) (failures, calls int64) {
	failures = w.held(epoch, slowFailure, fastFailure)
	if w.between != nil {
		w.between()
	}
	return failures, failures + w.held(epoch, slowSuccess, fastSuccess)
}

// slow returns the number of slow calls and of all calls. It counts slow calls first, then running
// slow ones, then fast ones, in an order chosen as in failed. A running slow call leaves before it
// is counted as ended, so none counts twice.
func (w *window) slow(now, epoch int64) (slow, calls int64) {
	slow = w.held(epoch, slowFailure, slowSuccess, slowIgnored)
	_, hanging := w.running(now)
	slow += hanging
	if w.between != nil {
		w.between()
	}
	return slow, slow + w.held(epoch, fastFailure, fastSuccess)
}

// running returns the number of calls that haven't ended, and how many of those are slow.
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

// allSlow reports whether the calls of a running word are slow now: SlowCall has passed since the
// word's epoch ended, or since the instant in which all of them were admitted.
func (w *window) allSlow(instant, age, epoch, now int64) bool {
	if age == fineSpan && instant > 0 && w.epoch(instant, w.fine) == epoch-age {
		return time.Duration(now-instant) >= w.c.SlowCall
	}
	return age > fineSpan || age < -maxDelay
}

// judge returns why the breaker must open, or "". If the goroutine was delayed while it counted,
// newer calls may have overwritten what it was counting (successes above all, which are counted
// last). Then it counts again.
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

// look judges the window's counts once.
func (w *window) look(now, epoch int64) (cause string) {
	least := int64(w.c.MinCalls)
	failures, calls := w.failed(epoch)
	if calls >= least && w.settled.Load() != epoch+1 {
		w.settled.Store(epoch + 1)
		// Count again: a failure counted meanwhile may have seen fewer than MinCalls, and from here
		// on fast successes aren't judged.
		failures, calls = w.failed(epoch) // with those failures
	}
	if calls >= least && w.c.FailureRate > 0 && float64(failures)/float64(calls) >= w.c.FailureRate {
		return fmt.Sprintf("%d of %s failed in %v", failures, count(int(calls), "call"), w.c.Window)
	}
	if w.c.SlowRate > 0 {
		if fine := w.epoch(now, w.fine); !w.someSlowSoon(fine) {
			w.judged.Store(w.began + min((epoch+1)*w.width.by, (fine+1)*w.fine.by))
		}
		if slow, calls := w.slow(now, epoch); calls >= least && float64(slow)/float64(calls) >= w.c.SlowRate {
			return fmt.Sprintf("%d of %s took %v or longer in %v", slow, count(int(calls), "call"), w.c.SlowCall, w.c.Window)
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

// lastCalls counts the failures among the last LastCalls calls, without a lock. One word holds the
// number of the latest call, and how many of the last calls failed. A compare-and-swap of this word
// counts a call, so all calls have one order, and each call knows the exact count at its place. How
// each call ended is then written into a ring, for the call that will push it out.
//
// That call must find it. If a goroutine is delayed between its two writes while the rest of the
// ring is filled, the next call waits for it.
type lastCalls struct {
	size uint64
	word atomic.Uint64 // number of the latest call, whether the ring has been full, failures

	// ring holds, for each of the last calls, number<<1, plus one if it failed. Its length is a
	// power of two, so that numbers may wrap around.
	ring []atomic.Uint64
}

// The parts of lastCalls.word. Failures are at most LastCalls, which is at most 1,000,000.
const (
	failureBits = 20
	failureMask = 1<<failureBits - 1
	filled      = 1 << failureBits
	numberShift = failureBits + 1
	numberMask  = math.MaxUint64 >> numberShift
)

func newLastCalls(calls int) *lastCalls {
	l := &lastCalls{size: uint64(calls), ring: make([]atomic.Uint64, 1<<bits.Len(uint(calls-1)))}
	for i := range l.size { // LastCalls successes before the first call, not counted as calls
		number := (i - l.size + 1) & numberMask
		l.slot(number).Store(number << 1)
	}
	return l
}

func (l *lastCalls) slot(number uint64) *atomic.Uint64 { return &l.ring[number%uint64(len(l.ring))] }

// book counts a call. It returns the number of failures among the last calls.
func (l *lastCalls) book(failed bool) (failures int) {
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
				runtime.Gosched() // the call to remove has its number but hasn't written its slot yet
			}
			continue
		}
		sum := word&failureMask + bit - pushed&1
		next := number<<numberShift | word&filled | sum
		if number == l.size {
			next |= filled
		}
		if l.word.CompareAndSwap(word, next) {
			l.slot(number).Store(number<<1 | bit)
			return int(sum)
		}
	}
}

// held returns the number of last calls and of the failures among them.
func (l *lastCalls) held() (calls, failures int) {
	word := l.word.Load()
	calls = int(l.size)
	if word&filled == 0 {
		calls = int(word >> numberShift)
	}
	return calls, int(word & failureMask)
}
