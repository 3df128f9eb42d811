// Package ratelimit compares the limiter with golang.org/x/time/rate, call by call, and with a
// plain bucket and a queue.
package ratelimit

import (
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
	"pgregory.net/rapid"

	"github.com/effector-go/resilience/ratelimit"
)

// boundary returns how far apart in time the two limiters may admit a call: a nanosecond, because
// each rounds in its own way, plus the error of x/time/rate's floating-point number of tokens after
// this many calls. That error is below a nanosecond unless a token takes minutes or a bucket holds
// thousands.
func boundary(calls int, perSecond float64, burst int) time.Duration {
	off := float64(calls) * float64(burst) * 0x1p-51 / perSecond
	return time.Nanosecond + time.Duration(off*1e9)
}

// The two agree call by call, except for the nanosecond at a boundary. If one of them refuses a
// call that the other admits, it must admit it that much later.
func TestLimiterAdmitsLikeXTimeRate(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		perSecond := rapid.OneOf(
			rapid.SampledFrom([]float64{1, 2, 3, 7, 10, 100, 999, 1e3, 1e6, 0.1, 1.0 / 3600}),
			rapid.Float64Range(0.001, 1e6),
		).Draw(rt, "rate")
		burst := rapid.OneOf(rapid.IntRange(1, 20), rapid.SampledFrom([]int{100, 10_000})).Draw(rt, "burst")
		seed := rapid.Uint64().Draw(rt, "seed")
		synctest.Test(t, func(*testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			var ours *ratelimit.Limiter
			var theirs *rate.Limiter
			begin := -1
			between := 1e9 / perSecond
			for call := range 2000 {
				if begin < 0 {
					begin = call
					ours = ratelimit.New(ratelimit.Config{Rate: perSecond, Burst: burst})
					theirs = rate.NewLimiter(rate.Limit(perSecond), burst)
				}
				switch random.IntN(10) {
				case 0, 1, 2: // in the same instant
				case 3:
					time.Sleep(time.Duration(between)) // to a boundary
				case 4:
					time.Sleep(min(time.Duration(between*float64(burst)*random.Float64()), 100*24*time.Hour)) // at most a century in total
				default:
					time.Sleep(time.Duration(between * random.Float64()))
				}
				we, they := ours.Allow(), theirs.Allow()
				if we == they {
					continue
				}
				bound := boundary(call-begin, perSecond, burst)
				time.Sleep(bound)
				if we && !theirs.Allow() || they && !ours.Allow() {
					rt.Fatalf("call %d: got %v, x/time/rate %v, and still different %v later", call, we, they, bound)
				}
				begin = -1 // start again: a full bucket of one may have lost that much
			}
		})
	})
}

// Calls that wait one after another start at the same times, except for the rounding to
// nanoseconds. Waiting loses nothing, however many calls there are.
func TestLimiterWaitsLikeXTimeRate(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		perSecond := rapid.Float64Range(0.01, 1e6).Draw(rt, "rate")
		burst := rapid.IntRange(1, 5).Draw(rt, "burst")
		synctest.Test(t, func(t *testing.T) {
			ours := ratelimit.New(ratelimit.Config{Rate: perSecond, Burst: burst, Wait: 1000 * time.Hour})
			theirs := rate.NewLimiter(rate.Limit(perSecond), burst)
			for call := range 50 {
				planned := time.Now().Add(theirs.Reserve().Delay())
				if err := wait(t.Context(), ours); err != nil {
					rt.Fatal(err)
				}
				if off := time.Since(planned); off < -2*time.Nanosecond || off > 2*time.Nanosecond {
					rt.Fatalf("call %d started %v after x/time/rate's, want at most 2ns", call, off)
				}
			}
		})
	})
}

// The rate is set again and again meanwhile. A goroutine that has read the clock long ago must not
// return tokens.
func TestLimiterNeverExceedsRateOnThreads(t *testing.T) {
	const perSecond, burst = 1e5, 1000
	began := time.Now()
	l := ratelimit.New(ratelimit.Config{Rate: perSecond, Burst: burst})
	var admitted atomic.Int64
	var g errgroup.Group
	for worker := range 8 {
		g.Go(func() error {
			for call := range 50_000 {
				if l.Allow() {
					admitted.Add(1)
				}
				if worker == 0 && call%100 == 0 {
					l.SetRate(perSecond, burst)
				}
			}
			return nil
		})
	}
	g.Wait()
	if most := time.Since(began).Seconds()*perSecond + burst; float64(admitted.Load()) > most+1 {
		t.Errorf("got %d admitted calls, want at most %.1f", admitted.Load(), most)
	}
}
