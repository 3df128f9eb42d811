package observe

import (
	"math"
	"math/bits"
	"runtime"
	"sync/atomic"
	"time"
	"weak"

	"github.com/effector-go/resilience/internal/watch"
)

// A tally counts what happens in one pipeline. It is split into stripes, so that processors that
// make calls concurrently rarely write to the same cache line; its counts are the sums over all
// stripes.
//
// Each count only grows. A call counts everything in one stripe, its end after its beginning, and load
// reads a stripe in the opposite order. So no call seems to end before it begins, but calls that begin
// while load reads their stripe seem to be running.
type tally struct {
	bounds []time.Duration
	layers int // number of policies

	pipeline weak.Pointer[pipeline]
	places   []place   // of the policies
	names    []string  // of the policies
	members  []*member // of the policies; nil for those that aren't Reporters

	group *pipelineGroup // nil once the pipeline is collected; the observer's mutex guards it and index
	index int            // in group.live

	// stripes are created when they are first used. A stripe has these words:
	//
	//   - calls that began
	//   - for each layer, and for what is inside the pipeline: entries that the next word doesn't count
	//   - calls that have entered all layers in order, each layer once
	//   - for each result: the sum of durations, a float64, and a count for each bucket
	//   - for each policy: a count for each kind of event
	stripes []atomic.Pointer[[]atomic.Uint64]
}

// maxStripes is the largest number of stripes of a tally.
const maxStripes = 32

// newTally creates a tally with about four stripes for each processor.
func newTally(bounds []time.Duration, layers int) *tally {
	n := min(maxStripes, 1<<bits.Len(uint(4*runtime.GOMAXPROCS(0)-1))) // a power of two, for stripe
	return &tally{bounds: bounds, layers: layers, stripes: make([]atomic.Pointer[[]atomic.Uint64], n)}
}

// stripe returns the stripe for a run.
func (t *tally) stripe(run *watch.Run) *[]atomic.Uint64 {
	slot := &t.stripes[int(run.Slot)&(len(t.stripes)-1)]
	if stripe := slot.Load(); stripe != nil {
		return stripe
	}
	return t.grow(slot)
}

// grow creates the stripe of a slot, unless another goroutine does so first, and returns it.
func (t *tally) grow(slot *atomic.Pointer[[]atomic.Uint64]) *[]atomic.Uint64 {
	const lines = 16 // words of two cache lines; objects of whole lines share none with others
	words := make([]atomic.Uint64, (t.eventWord(t.layers+1, 0)+lines-1)/lines*lines)
	slot.CompareAndSwap(nil, &words)
	return slot.Load()
}

// throughWord returns the index of the word of calls that have entered all layers in order.
func (t *tally) throughWord() int { return t.layers + 2 }

// resultWord returns the index of the first word of a result.
func (t *tally) resultWord(r Result) int { return t.layers + 3 + int(r)*(len(t.bounds)+2) }

// eventWord returns the index of the word of a kind of event of the policy at position.
func (t *tally) eventWord(position int, kind EventKind) int {
	return t.resultWord(Result(len(results))) + (position-1)*len(eventKinds) + int(kind)
}

// begin counts a call that begins.
func (t *tally) begin(run *watch.Run) {
	run.Counts = t.stripe(run)
	(*run.Counts)[0].Add(1)
}

// enter counts an entry into the layer at position, or into what is inside the pipeline.
func (t *tally) enter(run *watch.Run, position int) { (*run.Counts)[position].Add(1) }

// through counts a call that has entered all layers in order.
func (t *tally) through(run *watch.Run) { (*run.Counts)[t.throughWord()].Add(1) }

// event counts an event of the policy at position.
func (t *tally) event(run *watch.Run, position int, kind EventKind) {
	(*run.Counts)[t.eventWord(position, kind)].Add(1)
}

// end counts a call that has ended.
func (t *tally) end(run *watch.Run, r Result, d time.Duration) {
	words := (*run.Counts)[t.resultWord(r):]
	addFloat(&words[0], d.Seconds())
	bucket := 0
	for bucket < len(t.bounds) && d > t.bounds[bucket] {
		bucket++
	}
	words[1+bucket].Add(1)
}

// addFloat adds v to the float64 in word.
func addFloat(word *atomic.Uint64, v float64) {
	for {
		old := word.Load()
		if word.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+v)) {
			return
		}
	}
}

// counts are the sums of a tally.
type counts struct {
	begun   uint64
	entered []uint64 // by position - 1; the last is what is inside the pipeline
	calls   [len(results)]Histogram
	events  [][len(eventKinds)]uint64 // by position - 1
}

// load returns the sums over all stripes.
func (t *tally) load() counts {
	c := counts{
		entered: make([]uint64, t.layers+1),
		events:  make([][len(eventKinds)]uint64, t.layers),
	}
	for r := range c.calls {
		c.calls[r].Buckets = make([]uint64, len(t.bounds)+1)
	}
	for i := range t.stripes {
		if stripe := t.stripes[i].Load(); stripe != nil {
			t.loadStripe(&c, *stripe)
		}
	}
	return c
}

// loadStripe adds the counts of a stripe to c. A call counts everything in one stripe. What it counts
// last is read first.
func (t *tally) loadStripe(c *counts, words []atomic.Uint64) {
	for r := range c.calls {
		c.calls[r].addWords(words[t.resultWord(Result(r)):][:len(t.bounds)+2])
	}
	for i := range c.events {
		for kind := range c.events[i] {
			c.events[i][kind] += words[t.eventWord(i+1, EventKind(kind))].Load()
		}
	}
	for i := len(c.entered) - 1; i >= 0; i-- {
		c.entered[i] += words[i+1].Load()
	}
	through := words[t.throughWord()].Load()
	for i := range c.entered {
		c.entered[i] += through
	}
	c.begun += words[0].Load()
}

// addWords adds the words of a result.
func (h *Histogram) addWords(words []atomic.Uint64) {
	h.Sum += math.Float64frombits(words[0].Load())
	for i := range h.Buckets {
		n := words[1+i].Load()
		h.Buckets[i] += n
		h.Count += n
	}
}

// ended returns how many calls have ended.
func (c *counts) ended() (n uint64) {
	for _, h := range c.calls {
		n += h.Count
	}
	return n
}

// running returns how many calls have begun and not ended.
func (c *counts) running() int { return int(c.begun - c.ended()) }
