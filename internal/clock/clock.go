// Package clock represents times as one word, for policies that store them in atomics.
package clock

import (
	"math"
	"time"
)

// base is a century ago, so that Now is also positive in a testing/synctest bubble, where time
// begins in the year 2000. Add preserves the monotonic reading, so time.Since doesn't read the wall
// clock, which halves its cost.
var base = time.Now().Add(-100 * 365 * 24 * time.Hour)

// Now returns the time in nanoseconds since an instant that is fixed while the process runs. It is
// positive and follows the monotonic clock; in a testing/synctest bubble, the bubble's clock.
func Now() int64 { return int64(time.Since(base)) }

// Of returns t as a time of this package. t must have a monotonic reading, like the result of
// time.Now.
func Of(t time.Time) int64 { return int64(t.Sub(base)) }

// Until returns the time from now to t, at most 192 years. It reads the wall clock only if t has no
// monotonic reading.
func Until(t time.Time, now int64) time.Duration {
	if t == t.Round(0) {
		return time.Until(t)
	}
	return time.Duration(Of(t) - now)
}

// Monotonic returns t as a time.Time with a correct monotonic reading. Its wall clock reading is
// based on the clock's setting at the start of the process, so use it for timers, but don't compare
// it with times that have no monotonic reading.
func Monotonic(t uint64) time.Time {
	if t > math.MaxInt64 { // beyond the largest Duration
		return base.Add(math.MaxInt64).Add(time.Duration(t - math.MaxInt64))
	}
	return base.Add(time.Duration(t)) // half the cost of two additions
}

// Add returns t + d for d >= 0, capped at the largest time.
func Add(t int64, d time.Duration) int64 {
	if sum := t + int64(d); sum >= t {
		return sum
	}
	return math.MaxInt64
}
