package hedge

import (
	"math"
	"math/bits"
	"sync"
	"time"
)

// A histogram counts the durations of the last few minutes and maintains one of their quantiles. It
// is safe for concurrent use.
//
// Its buckets are those of Gil Tene's HdrHistogram: each power of two is divided into parts equal
// parts, so no bucket is wider than 1/32 of its lower bound.
//
// The quantile is maintained rather than searched for: each recorded duration moves its bucket by a
// few buckets at most.
type histogram struct {
	mu     sync.Mutex // guards the following
	share  float64    // share of the durations that aren't above the quantile
	minute int64      // the latest minute, by package clock
	slots  [minutes]counts
	sum    counts // the sum of slots
	at     int    // the bucket that contains the quantile
	upTo   int64  // number of durations in that bucket and those below
}

const (
	partBits = 5
	parts    = 1 << partBits
	buckets  = (64 - partBits) * parts // covers all positive durations: see bucket
	minutes  = 4                       // minutes that are remembered, including the current one
)

// counts is the number of durations in each bucket.
type counts struct {
	total int64
	of    [buckets]uint32
}

func newHistogram(share float64) *histogram { return &histogram{share: share} }

// bucket returns the bucket of a duration, which must not be negative. Each duration below parts
// has its own bucket. The durations from parts<<k up to twice that share parts buckets, each 1<<k
// wide.
func bucket(t time.Duration) int {
	k := max(0, bits.Len64(uint64(t))-partBits-1)
	return k*parts + int(t>>k)
}

// above returns the smallest duration beyond the bucket.
func above(bucket int) time.Duration {
	bucket++
	k := max(0, bucket/parts-1)
	return time.Duration(min(uint64(bucket-k*parts)<<k, math.MaxInt64)) // 1<<63 is beyond the last one
}

// record counts a duration that was measured now.
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

// quantile returns a duration that the share of the last minutes' durations is below, and the
// number of those durations. From then on, it maintains the quantile for this share.
func (h *histogram) quantile(share float64, now int64) (t time.Duration, samples int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.advance(now)
	if share != h.share {
		h.share = share
		h.settle()
	}
	return above(h.at), int(h.sum.total)
}

// settle moves at to the lowest bucket at which the share is reached.
func (h *histogram) settle() {
	// 0.95 of 100 is 95 despite rounding errors.
	want := int64(math.Ceil(h.share*float64(h.sum.total) - 1e-6))
	for h.upTo < want {
		h.at++
		h.upTo += int64(h.sum.of[h.at])
	}
	for h.at > 0 && h.upTo-int64(h.sum.of[h.at]) >= want {
		h.upTo -= int64(h.sum.of[h.at])
		h.at--
	}
}

// advance removes the minutes that are too old.
func (h *histogram) advance(now int64) {
	minute := now / int64(time.Minute)
	// Unsigned, so that either is large if the other is positive.
	passed, behind := uint64(minute-h.minute), uint64(h.minute-minute)
	if behind < minutes { // 0, or more if a goroutine was delayed after it read the clock
		return
	}
	for m := range min(passed, minutes) { // all if the clock jumped back
		h.forget(&h.slots[(h.minute+1+int64(m))%minutes])
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
