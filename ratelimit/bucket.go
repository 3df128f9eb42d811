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
// Time is counted in units of which a token takes a whole number, so that nothing is lost or gained over any number of calls. A unit is less than
// a nanosecond; the units' zero is package clock's.
type pace struct {
	rate  float64
	burst int

	token uint64 // units from one token to the next
	scale uint64 // units in a nanosecond, times 1<<scaleBits, rounded up
	full  uint64 // units that a bucket takes from empty to full: burst tokens
}

const (
	scaleBits = 61
	century   = 100 * 365 * 24 * time.Hour // that package clock has behind it when a process begins; the longest time from empty to full
)

func newPace(rate float64, burst int) pace {
	// The units are as small as fits for two centuries, and twice from empty to full, in 64 bits: from 1.4 to 3 in a nanosecond.
	perNanosecond := (1 << 63) / (float64(century) + float64(burst)/rate*1e9)
	token := uint64(1e9 / rate * perNanosecond)
	// scale = token * rate * 2^scaleBits / 1e9, rounded up, so that a token is there in the nanosecond in which it is due.
	r := new(big.Rat).SetFloat64(rate)
	r.Mul(r, new(big.Rat).SetInt(new(big.Int).SetUint64(token)))
	r.Mul(r, new(big.Rat).SetFrac(new(big.Int).Lsh(big.NewInt(1), scaleBits), big.NewInt(1e9)))
	scale, remainder := new(big.Int).QuoRem(r.Num(), r.Denom(), new(big.Int))
	if remainder.Sign() > 0 {
		scale.Add(scale, big.NewInt(1))
	}
	return pace{rate, burst, token, scale.Uint64(), uint64(burst) * token}
}

// units is the time in units.
func (p *pace) units(now int64) uint64 {
	hi, lo := bits.Mul64(uint64(now), p.scale)
	return hi<<(64-scaleBits) | lo>>scaleBits
}

// clock is the first time at which so many units have gone by.
func (p *pace) clock(units uint64) int64 {
	at, remainder := bits.Div64(units>>(64-scaleBits), units<<scaleBits, p.scale)
	if remainder > 0 {
		at++
	}
	return int64(min(at, math.MaxInt64))
}

// fills is a time in which an empty bucket fills, whenever it begins.
func (p *pace) fills() time.Duration { return time.Duration(p.clock(p.full)) }

// A bucket is a token bucket in one word, by GCRA: the word is the theoretical arrival time, at which the bucket will be full. A call
// moves it on by one token.
type bucket struct {
	pace

	// arrive is changed by compare-and-swap. One who has read the clock at t sets it to no more than t + full; so who reads the clock after
	// it and finds more knows that the clock went back.
	arrive atomic.Uint64
}

const closed = math.MaxUint64 // as arrive: the bucket has been replaced

// take takes a token, when at is 0, or gives the time at which there will be one. It is not open if the bucket has been replaced.
func (b *bucket) take(now int64) (at int64, open bool) {
	units := b.units(now)
	for {
		arrive := b.arrive.Load()
		if arrive == closed {
			return 0, false
		}
		after := max(arrive, units) + b.token
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

// move makes arrive later. It does nothing, and reports false, if arrive has changed since it was read.
func (b *bucket) move(arrive, after uint64) bool { return b.arrive.CompareAndSwap(arrive, after) }

// rewind reports whether the clock went back since arrive was set, as it does for a package's limiter in a synctest bubble. The bucket is
// empty then, as of now.
func (b *bucket) rewind(arrive uint64) bool {
	empty := b.units(clock.Now()) + b.full // the clock is read after arrive
	if arrive <= empty {
		return false
	}
	b.arrive.CompareAndSwap(arrive, empty) // else somebody else has seen to it
	return true
}

// lack is how much is missing in the bucket.
func (b *bucket) lack(now int64) uint64 {
	return b.missing(b.arrive.Load(), now)
}

// missing is how much is missing in a bucket that would be full at arrive: all of it if the clock went back.
func (b *bucket) missing(arrive uint64, now int64) uint64 {
	units := b.units(now)
	if arrive <= units {
		return 0
	}
	return min(arrive-units, b.full)
}

// turn is the time at which there is a token for one who comes after so many others.
func (b *bucket) turn(now int64, others int) int64 {
	hi, after := bits.Mul64(uint64(others)+1, b.token)
	after, carry := bits.Add64(after, b.units(now)+b.lack(now), 0)
	switch {
	case hi > 0 || carry > 0:
		return math.MaxInt64
	case after <= b.units(now)+b.full:
		return now
	}
	return b.clock(after - b.full)
}

// available is how many tokens there are.
func (b *bucket) available(now int64) int { return int((b.full - b.lack(now)) / b.token) }

// replace closes old and has what was missing in it, in tokens, missing in b, at most all. Nobody uses b yet.
func (b *bucket) replace(old *bucket) {
	arrive := old.arrive.Swap(closed)
	now := clock.Now() // after the last call that old knows of
	lack := old.missing(arrive, now)
	missing := b.full
	if lack/old.token < uint64(b.burst) {
		hi, lo := bits.Mul64(lack, b.token)
		missing, _ = bits.Div64(hi, lo, old.token)
	}
	b.arrive.Store(b.units(now) + missing)
}
