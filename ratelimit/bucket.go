package ratelimit

import (
	"math"
	"math/big"
	"math/bits"
	"sync/atomic"
	"time"
)

// A bucket is a token bucket in one word, by GCRA: the word is the theoretical arrival time, at which the bucket will be full. A call
// moves it on by one token.
//
// Time is counted in units of which a token takes a whole number, so that nothing is lost or gained over any number of calls. A unit is less than
// a nanosecond.
type bucket struct {
	rate  float64
	burst int

	began  int64  // on package clock: the units' zero
	token  uint64 // units from one token to the next
	scale  uint64 // units in a nanosecond, times 1<<scaleBits, rounded up
	full   uint64 // units that a bucket takes from empty to full: burst tokens
	arrive atomic.Uint64
}

const (
	scaleBits = 61
	closed    = math.MaxUint64 // as arrive: the bucket has been replaced

	century = 100 * 365 * 24 * time.Hour // how long a bucket lives at most, and the longest time from empty to full
)

// newBucket makes a full bucket.
func newBucket(rate float64, burst int, now int64) *bucket {
	// The units are as small as fits for a century, and twice from empty to full, in 64 bits: from 2 to 6 in a nanosecond.
	perNanosecond := (1 << 63) / (float64(century)/2 + float64(burst)/rate*1e9)
	b := &bucket{rate: rate, burst: burst, began: now}
	b.token = uint64(1e9 / rate * perNanosecond)
	b.full = uint64(burst) * b.token
	// scale = token * rate * 2^scaleBits / 1e9, rounded up, so that a token is there in the nanosecond in which it is due.
	r := new(big.Rat).SetFloat64(rate)
	r.Mul(r, new(big.Rat).SetInt(new(big.Int).SetUint64(b.token)))
	r.Mul(r, new(big.Rat).SetFrac(new(big.Int).Lsh(big.NewInt(1), scaleBits), big.NewInt(1e9)))
	quotient, remainder := new(big.Int).QuoRem(r.Num(), r.Denom(), new(big.Int))
	if remainder.Sign() > 0 {
		quotient.Add(quotient, big.NewInt(1))
	}
	b.scale = quotient.Uint64()
	return b
}

// units is the time in units.
func (b *bucket) units(now int64) uint64 {
	hi, lo := bits.Mul64(uint64(max(0, now-b.began)), b.scale)
	return hi<<(64-scaleBits) | lo>>scaleBits
}

// until is the time until so many units have gone by, exactly.
func (b *bucket) until(units uint64, clock int64) time.Duration {
	hi, lo := units>>(64-scaleBits), units<<scaleBits
	at, remainder := bits.Div64(hi, lo, b.scale)
	if remainder > 0 {
		at++
	}
	return time.Duration(at) - time.Duration(max(0, clock-b.began))
}

// lack is how much is missing in a bucket that would be full at arrive. More than all of it means that the clock went back.
func (b *bucket) lack(arrive, now uint64) uint64 {
	if arrive <= now {
		return 0
	}
	return min(arrive-now, b.full)
}

// take takes a token, or gives the time until there is one. It is not open if the bucket has been replaced.
func (b *bucket) take(clock int64) (wait time.Duration, open bool) {
	now := b.units(clock)
	for {
		arrive := b.arrive.Load()
		if arrive == closed {
			return 0, false
		}
		after := b.lack(arrive, now) + b.token
		if after > b.full {
			return b.until(now+after-b.full, clock), true
		}
		if b.arrive.CompareAndSwap(arrive, now+after) {
			return 0, true
		}
	}
}

// turn is the time until there is a token for one who comes after so many others.
func (b *bucket) turn(clock int64, others int) time.Duration {
	now := b.units(clock)
	hi, after := bits.Mul64(uint64(others)+1, b.token)
	after, carry := bits.Add64(after, now+b.lack(b.arrive.Load(), now), 0)
	if hi > 0 || carry > 0 {
		return math.MaxInt64
	}
	if after <= now+b.full {
		return 0
	}
	return b.until(after-b.full, clock)
}

// available is how many tokens there are.
func (b *bucket) available(clock int64) int {
	return int((b.full - b.lack(b.arrive.Load(), b.units(clock))) / b.token)
}

// close ends the bucket and gives how much was missing in it, and how much a token was.
func (b *bucket) close(clock int64) (lack, token uint64) {
	return b.lack(b.arrive.Swap(closed), b.units(clock)), b.token
}

// use takes out of a new bucket what was missing in another, at most all.
func (b *bucket) use(lack, token uint64) {
	if lack/token >= uint64(b.burst) {
		b.arrive.Store(b.full)
		return
	}
	hi, lo := bits.Mul64(lack, b.token)
	quotient, _ := bits.Div64(hi, lo, token)
	b.arrive.Store(quotient)
}
