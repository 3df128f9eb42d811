package ratelimit

import (
	"math"
	"math/big"
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/effector-go/resilience/internal/clock"
)

// A pace is how fast a bucket fills and how much it holds.
//
// Time is counted in units such that a token takes a whole number of them, so that nothing is lost
// or gained over any number of calls. A unit is less than a nanosecond; the units begin with
// package clock.
type pace struct {
	token uint64 // units from one token to the next
	scale uint64 // units in a nanosecond, times 1<<scaleBits, rounded up
	full  uint64 // units that a bucket takes from empty to full: burst tokens
}

const (
	scaleBits = 61
	century   = 100 * 365 * 24 * time.Hour // the age of package clock when a process begins; the longest time from empty to full
)

func newPace(rate float64, burst int) pace {
	// The units are as small as possible if 64 bits must hold two centuries plus twice the time
	// from empty to full: there are 1.4 to 3 units per nanosecond.
	perNanosecond := (1 << 63) / (float64(century) + float64(burst)/rate*1e9)
	token := uint64(1e9 / rate * perNanosecond)
	// scale = token * rate * 2^scaleBits / 1e9, rounded up, so that a token comes in the nanosecond
	// in which it is due.
	r := new(big.Rat).SetFloat64(rate)
	r.Mul(r, new(big.Rat).SetInt(new(big.Int).SetUint64(token)))
	r.Mul(r, new(big.Rat).SetFrac(new(big.Int).Lsh(big.NewInt(1), scaleBits), big.NewInt(1e9)))
	scale, remainder := new(big.Int).QuoRem(r.Num(), r.Denom(), new(big.Int))
	if remainder.Sign() > 0 {
		scale.Add(scale, big.NewInt(1))
	}
	return pace{token, scale.Uint64(), uint64(burst) * token}
}

// units converts a time to units.
func (p *pace) units(now int64) uint64 {
	hi, lo := bits.Mul64(uint64(now), p.scale)
	return hi<<(64-scaleBits) | lo>>scaleBits
}

// clock returns the first time at which this many units have passed.
func (p *pace) clock(units uint64) int64 {
	at, remainder := bits.Div64(units>>(64-scaleBits), units<<scaleBits, p.scale)
	if remainder > 0 {
		at++
	}
	return int64(min(at, math.MaxInt64))
}

// fills returns a time in which an empty bucket becomes full, whenever it begins.
func (p *pace) fills() time.Duration { return time.Duration(p.clock(p.full)) }

// A bucket is a token bucket in one word, by GCRA: the word is the theoretical arrival time, at
// which the bucket will be full. A call advances it by the call's tokens.
type bucket struct {
	config Config // of the limiter, with defaults filled in, while this bucket is in use; never written
	pace          // of config's Rate and Burst

	// arrive is changed by compare-and-swap. A goroutine that has read the clock at t sets it to at
	// most t + full. So a goroutine that reads the clock after arrive, and finds arrive larger than
	// that, knows that the clock went back.
	arrive atomic.Uint64
}

const closed = math.MaxUint64 // as arrive: the bucket has been replaced

// take takes cost tokens, at most burst, for a call that has waited since came; 0 for one that
// hasn't waited. It returns 0, or the time at which there will be enough tokens. It isn't open if
// the bucket has been replaced.
//
// A call that has waited takes its tokens as of the time when they were due, not of the time when a
// timer has woken it. So late timers lose no tokens, also where a full bucket can hold no more.
func (b *bucket) take(came, now int64, cost int) (at int64, open bool) {
	units := b.units(now)
	since := units
	if came > 0 {
		since = b.units(min(came, now))
	}
	need := uint64(cost) * b.token
	for {
		arrive := b.arrive.Load()
		if arrive == closed {
			return 0, false
		}
		after := max(arrive, since) + need
		switch {
		case after > units+b.full:
			if arrive <= units+b.full || !b.rewind(arrive) {
				return b.clock(after - b.full), true
			}
		case b.move(arrive, after):
			return 0, true
		}
	}
}

// move advances arrive. It does nothing and returns false if arrive has changed since it was read.
func (b *bucket) move(arrive, after uint64) bool { return b.arrive.CompareAndSwap(arrive, after) }

// rewind reports whether the clock went back since arrive was set, which happens when a limiter of
// a package is used in a synctest bubble. The bucket is empty then, as of now.
func (b *bucket) rewind(arrive uint64) bool {
	empty := b.units(clock.Now()) + b.full // the clock is read after arrive
	if arrive <= empty {
		return false
	}
	b.arrive.CompareAndSwap(arrive, empty) // otherwise another goroutine has done it
	return true
}

// lack returns how many units are missing in the bucket.
func (b *bucket) lack(now int64) uint64 {
	return b.missing(b.arrive.Load(), now)
}

// missing returns how many units are missing in a bucket that will be full at arrive: all of them
// if the clock went back.
func (b *bucket) missing(arrive uint64, now int64) uint64 {
	units := b.units(now)
	if arrive <= units {
		return 0
	}
	return min(arrive-units, b.full)
}

// turn returns the time at which the bucket will have brought this many tokens in addition to those
// that are missing, or now if it has. That is the turn of a call that came at the given time, if the
// calls that wait before it and it take tokens in total. If the first of them wakes late, the turn
// of a call that comes now may be earlier by that delay.
func (b *bucket) turn(came, now int64, tokens int) int64 {
	most := b.units(now) + b.full
	since := max(b.units(min(came, now)), min(b.arrive.Load(), most))
	hi, after := bits.Mul64(uint64(tokens), b.token)
	after, carry := bits.Add64(after, since, 0)
	switch {
	case hi > 0 || carry > 0:
		return math.MaxInt64
	case after <= most:
		return now
	}
	return b.clock(after - b.full)
}

// available returns the number of tokens.
func (b *bucket) available(now int64) int { return int((b.full - b.lack(now)) / b.token) }

// replace closes old and makes b lack as many tokens as old lacked, or all of them. No other
// goroutine uses b yet.
func (b *bucket) replace(old *bucket) {
	arrive := old.arrive.Swap(closed)
	if b.pace == old.pace {
		b.arrive.Store(arrive) // without rounding, and due tokens of a late call stay due
		return
	}
	now := clock.Now() // later than the last call that took a token from old
	lack := old.missing(arrive, now)
	missing := b.full
	if lack/old.token < uint64(b.config.Burst) {
		hi, lo := bits.Mul64(lack, b.token)
		missing, _ = bits.Div64(hi, lo, old.token)
	}
	b.arrive.Store(b.units(now) + missing)
}
