package hedge

import (
	"math"
	"math/bits"
	"sync"
	"time"
)

// A histogram counts the times of the last few minutes and knows one of their quantiles. It is safe for concurrent use.
//
// Its buckets are those of Gil Tene's HdrHistogram: each power of two is divided into parts equal parts, so that no bucket is wider than a
// 32nd of where it begins.
//
// The quantile is kept and not looked for: with each time that is counted the bucket in which it lies moves by a few at most.
type histogram struct {
	share float64 // of the times that are not above the quantile

	mu     sync.Mutex // guards the following
	minute int64      // the latest, on package clock: it and those before it are counted
	slots  [minutes]counts
	sum    counts // of slots
	at     int    // the bucket in which the quantile lies
	upTo   int64  // times in it and those below
}

const (
	partBits = 5
	parts    = 1 << partBits
	buckets  = (64 - partBits) * parts // for all positive durations: see bucket
	minutes  = 4                       // that are remembered, the present one included
)

// counts are how many times each bucket holds.
type counts struct {
	total int64
	of    [buckets]uint32
}

func newHistogram(share float64) *histogram { return &histogram{share: share} }

// bucket is the bucket of a time, which is not negative. Times below parts have one each; those from parts<<k on, below twice that, parts
// buckets of 1<<k each.
func bucket(t time.Duration) int {
	k := max(0, bits.Len64(uint64(t))-partBits-1)
	return k*parts + int(t>>k)
}

// above is the least time that is beyond the bucket.
func above(bucket int) time.Duration {
	bucket++
	if bucket < 2*parts {
		return time.Duration(bucket)
	}
	k := bucket/parts - 1
	if t := time.Duration(bucket-k*parts) << k; t > 0 {
		return t
	}
	return math.MaxInt64
}

// record counts a time that was taken now.
func (h *histogram) record(t time.Duration, now int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.advance(now)
	b := bucket(max(0, t))
	slot := &h.slots[h.minute%minutes]
	for _, c := range [...]*counts{slot, &h.sum} {
		c.total++
		c.of[b]++
	}
	if b <= h.at {
		h.upTo++
	}
	h.settle()
}

// quantile gives a time that the share of the times in the last minutes is below, and how many these are.
func (h *histogram) quantile(now int64) (t time.Duration, samples int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.advance(now)
	return above(h.at), int(h.sum.total)
}

// settle moves at to the first bucket with which the share is reached.
func (h *histogram) settle() {
	want := int64(math.Ceil(h.share*float64(h.sum.total) - 1e-6)) // 0.95 of 100 is 95, whatever its last binary digit
	for h.upTo < want {
		h.at++
		h.upTo += int64(h.sum.of[h.at])
	}
	for h.at > 0 && h.upTo-int64(h.sum.of[h.at]) >= want {
		h.upTo -= int64(h.sum.of[h.at])
		h.at--
	}
}

// advance forgets the minutes that are over.
func (h *histogram) advance(now int64) {
	minute := now / int64(time.Minute)
	passed := minute - h.minute
	switch {
	case passed == 0 || passed < 0 && passed > -minutes: // a goroutine slept after it had looked at the clock
		return
	case passed < 0 || passed >= minutes: // the clock jumped back, or nothing is left
		h.slots, h.sum = [minutes]counts{}, counts{}
	default:
		for m := h.minute + 1; m <= minute; m++ {
			h.forget(&h.slots[m%minutes])
		}
	}
	h.minute = minute
	h.at, h.upTo = 0, int64(h.sum.of[0])
	h.settle()
}

// forget empties a slot.
func (h *histogram) forget(slot *counts) {
	h.sum.total -= slot.total
	for b, n := range slot.of {
		h.sum.of[b] -= n
	}
	*slot = counts{}
}
