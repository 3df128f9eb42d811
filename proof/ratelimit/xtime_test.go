// Package ratelimit holds the real limiter against golang.org/x/time/rate, call by call, and against a plain bucket with a queue.
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

// boundary is how far apart in time the two may admit a call: a nanosecond, in which each rounds its own way, and what x/time/rate's floating
// point number of tokens is off after so many calls. That is below a nanosecond but where a token takes minutes, or a bucket holds thousands.
func boundary(calls int, perSecond float64, burst int) time.Duration {
	off := float64(calls) * float64(burst) * 0x1p-51 / perSecond
	return time.Nanosecond + time.Duration(off*1e9)
}

// TestLimiterAdmitsLikeXTimeRate, call by call, but for the nanosecond at a boundary. Where one of the two refuses a call that the other
// admits, it must admit it that much later.
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
				case 0, 1, 2: // at once
				case 3:
					time.Sleep(time.Duration(between)) // to a boundary
				case 4:
					time.Sleep(min(time.Duration(between*float64(burst)*random.Float64()), 100*24*time.Hour)) // a century in all
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
					rt.Fatalf("call %d: admitted by ours %v, by x/time/rate %v, and still %v later", call, we, they, bound)
				}
				begin = -1 // a full bucket of one may have lost that much to the other
			}
		})
	})
}

// TestLimiterWaitsLikeXTimeRate: for calls that wait one after the other the times are the same, but for the nanoseconds.
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
				// Ours waits for whole nanoseconds, and a bucket that holds no more than a token has lost the rest: theirs took it before.
				if off := time.Since(planned); off < -time.Nanosecond || off > time.Duration(call+1) {
					rt.Fatalf("call %d came %v after x/time/rate's", call, off)
				}
			}
		})
	})
}

// TestLimiterNeverExceedsRateOnThreads while the rate is set anew, on real threads: who has read the clock long ago gives nothing back.
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
		t.Errorf("%d calls admitted, %.1f at most", admitted.Load(), most)
	}
}
