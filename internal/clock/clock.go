// Package clock tells the time in one word, for policies that keep it in an atomic.
package clock

import (
	"math"
	"time"
)

// base lies a century back, so that Now is positive in a testing/synctest bubble too, whose time begins in the year 2000.
// Add keeps the monotonic reading, with which time.Since need not read the wall clock: half the cost of time.Now.
var base = time.Now().Add(-100 * 365 * 24 * time.Hour)

// Now is the time in nanoseconds since an instant that stays the same while the process runs. It is positive and follows
// the monotonic clock, in a testing/synctest bubble the bubble's.
func Now() int64 { return int64(time.Since(base)) }

// Of is the time t, which must have a monotonic reading, as time.Now's has.
func Of(t time.Time) int64 { return int64(t.Sub(base)) }

// Until is the time from now to t, or the least of 192 years and it. It reads the wall clock only where t has no monotonic reading.
func Until(t time.Time, now int64) time.Duration {
	if t == t.Round(0) {
		return time.Until(t)
	}
	return time.Duration(Of(t) - now)
}

// Monotonic is t as a time.Time whose monotonic reading is right. Its wall clock is the one that was set when the process began, so
// it is good for a timer, not for comparing with times that have no monotonic reading.
func Monotonic(t uint64) time.Time {
	if t > math.MaxInt64 { // beyond the largest Duration
		return base.Add(math.MaxInt64).Add(time.Duration(t - math.MaxInt64))
	}
	return base.Add(time.Duration(t)) // costs half
}

// Add is t + d for d >= 0, held at the largest time there is.
func Add(t int64, d time.Duration) int64 {
	if sum := t + int64(d); sum >= t {
		return sum
	}
	return math.MaxInt64
}
