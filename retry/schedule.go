package retry

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// The schedules: each function returns a factory for Config.Backoff. A factory is safe for
// concurrent use; each schedule that it creates serves one call. A schedule never stops, overflows,
// or returns a delay that is negative or above its maximum, however long it is used. Each function
// panics if an argument is out of range.

// Constant waits d each time: d(n) = d. Zero means no wait. It doesn't spread callers that failed
// together; use a schedule with jitter for that.
func Constant(d time.Duration) func() backoff.BackOff {
	if d < 0 {
		panic(fmt.Sprintf("retry: Constant: d is %v, must not be negative", d))
	}
	var schedule backoff.BackOff = constant(d) // has no state, so all calls share it
	return func() backoff.BackOff { return schedule }
}

type constant time.Duration

func (c constant) NextBackOff() time.Duration { return time.Duration(c) }
func (c constant) Reset()                     {}

// Linear waits a step longer each time: d(n) = min(max, step*n), n from 1.
func Linear(step, max time.Duration) func() backoff.BackOff {
	checkRange("Linear", "step", step, max)
	return func() backoff.BackOff { return &linear{step: step, max: max} }
}

type linear struct{ step, max, last time.Duration }

func (l *linear) NextBackOff() time.Duration {
	l.last = min(l.max, sum(l.last, l.step))
	return l.last
}

func (l *linear) Reset() { l.last = 0 }

// Exponential doubles the wait each time: d(n) = min(max, initial * 2^n), n from 0. Callers that
// failed together return together: with many callers, prefer [FullJitter]. It is truncated binary
// exponential backoff, after Metcalfe and Boggs, "Ethernet: Distributed Packet Switching for Local
// Computer Networks" (1976), which adds jitter.
func Exponential(initial, max time.Duration) func() backoff.BackOff {
	checkRange("Exponential", "initial", initial, max)
	return func() backoff.BackOff { return &exponential{doubling{initial, max, initial}} }
}

type exponential struct{ doubling }

func (e *exponential) NextBackOff() time.Duration { return e.next() }

// FullJitter waits a random time up to a bound that doubles each time:
//
//	d(n) = random(0, min(max, initial * 2^n)), n from 0
//
// Of the schedules with jitter, it spreads callers the widest and causes the fewest calls: Marc
// Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.
func FullJitter(initial, max time.Duration) func() backoff.BackOff {
	checkRange("FullJitter", "initial", initial, max)
	return func() backoff.BackOff { return &fullJitter{doubling{initial, max, initial}} }
}

type fullJitter struct{ doubling }

func (f *fullJitter) NextBackOff() time.Duration { return random(0, f.next()) }

// EqualJitter waits half of a bound that doubles each time, plus a random part of the other half:
//
//	d(n) = c/2 + random(0, c/2), c = min(max, initial * 2^n), n from 0
//
// Use it if a wait must never be close to zero. Source: Marc Brooker, "Exponential Backoff and
// Jitter", AWS Architecture Blog, 2015.
func EqualJitter(initial, max time.Duration) func() backoff.BackOff {
	checkRange("EqualJitter", "initial", initial, max)
	return func() backoff.BackOff { return &equalJitter{doubling{initial, max, initial}} }
}

type equalJitter struct{ doubling }

func (e *equalJitter) NextBackOff() time.Duration {
	bound := e.next()
	// Half is rounded up, so a wait is never below half of the bound.
	return random(bound-bound/2, bound)
}

// Decorrelated waits a random time up to three times the previous wait:
//
//	d(n) = random(initial, min(max, 3 * d(n-1))), d(0) = initial, n from 1
//
// Source: Marc Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015. The original
// caps the random time itself, so that eventually two of three waits equal the maximum and callers
// return together.
func Decorrelated(initial, max time.Duration) func() backoff.BackOff {
	checkRange("Decorrelated", "initial", initial, max)
	return func() backoff.BackOff { return &decorrelated{initial, max, initial} }
}

type decorrelated struct{ initial, max, last time.Duration }

func (d *decorrelated) NextBackOff() time.Duration {
	d.last = random(d.initial, min(d.max, sum(d.last, sum(d.last, d.last))))
	return d.last
}

func (d *decorrelated) Reset() { d.last = d.initial }

// Fibonacci waits the sum of the two previous waits: d(n) = min(max, initial * F(n)),
// F = 1, 1, 2, 3, 5, ... It grows by the golden ratio, more slowly than doubling.
func Fibonacci(initial, max time.Duration) func() backoff.BackOff {
	checkRange("Fibonacci", "initial", initial, max)
	return func() backoff.BackOff { return &fibonacci{initial, max, 0, initial} }
}

type fibonacci struct{ initial, max, last, next time.Duration }

func (f *fibonacci) NextBackOff() time.Duration {
	delay := f.next
	f.last, f.next = delay, min(f.max, sum(f.last, delay))
	return delay
}

func (f *fibonacci) Reset() { f.last, f.next = 0, f.initial }

// doubling is the bound of the exponential schedules: min(max, initial * 2^n).
type doubling struct{ initial, max, bound time.Duration }

func (d *doubling) next() time.Duration {
	bound := d.bound
	d.bound = min(d.max, sum(bound, bound))
	return bound
}

func (d *doubling) Reset() { d.bound = d.initial }

// random returns a random time from low to high, inclusive.
func random(low, high time.Duration) time.Duration {
	return low + time.Duration(rand.Uint64N(uint64(high-low)+1))
}

func checkRange(schedule, name string, initial, max time.Duration) {
	if initial <= 0 {
		panic(fmt.Sprintf("retry: %s: %s is %v, must be positive", schedule, name, initial))
	}
	if max < initial {
		panic(fmt.Sprintf("retry: %s: max is %v, must be at least %s, %v", schedule, max, name, initial))
	}
}
