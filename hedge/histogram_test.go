package hedge

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience/internal/clock"
)

func TestHistogramBucketsAdjoinAndAreNarrow(t *testing.T) {
	for b := range buckets {
		upper := above(b)
		lower := time.Duration(0)
		if b > 0 {
			lower = above(b - 1)
		}
		if bucket(lower) != b || bucket(upper-1) != b || b+1 < buckets && bucket(upper) != b+1 {
			t.Fatalf("bucket %d: %v to %v are in %d to %d, what is beyond in %d", b, lower, upper-1, bucket(lower), bucket(upper-1), bucket(upper))
		}
		if width := upper - lower; width > 1 && float64(width) > float64(lower)/parts {
			t.Errorf("bucket %d begins at %d and is %d wide", b, lower, width)
		}
	}
	if bucket(math.MaxInt64) != buckets-1 || above(buckets-1) != math.MaxInt64 {
		t.Errorf("the longest time is in bucket %d, the last reaches up to %v", bucket(math.MaxInt64), above(buckets-1))
	}
}

// exact returns the exact quantile: the smallest duration such that the share of the durations
// isn't above it.
func exact(times []time.Duration, share float64) time.Duration {
	sorted := slices.Sorted(slices.Values(times))
	return sorted[max(0, int(math.Ceil(share*float64(len(sorted))-1e-6))-1)]
}

// TestHistogramQuantileIsWithinFivePercent also checks that the quantile is above the exact one: a
// call that takes exactly that long isn't hedged.
func TestHistogramQuantileIsWithinFivePercent(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for name, draw := range map[string]func() time.Duration{
		"uniform":     func() time.Duration { return time.Duration(random.Int64N(int64(time.Second))) },
		"exponential": func() time.Duration { return time.Duration(random.ExpFloat64() * float64(time.Millisecond)) },
		"heavy": func() time.Duration {
			return time.Duration(float64(time.Microsecond) * math.Pow(1-random.Float64(), -2))
		},
		"two":     func() time.Duration { return []time.Duration{time.Millisecond, time.Second}[random.IntN(2)] },
		"one":     func() time.Duration { return 10 * time.Millisecond },
		"tiny":    func() time.Duration { return time.Duration(random.IntN(3)) },
		"longest": func() time.Duration { return math.MaxInt64 - time.Duration(random.IntN(2)) },
	} {
		for _, share := range []float64{0.01, 0.5, 0.9, 0.95, 0.999} {
			h := newHistogram(share)
			var times []time.Duration
			for n := range 1000 {
				took := draw()
				times = append(times, took)
				h.record(took, 1)
				if n > 50 && n%50 != 0 {
					continue
				}
				got, samples := h.quantile(share, 1)
				want := exact(times, share)
				if samples != n+1 || got <= want && want < math.MaxInt64-1 || float64(got-want-1) > 0.05*float64(want) {
					t.Fatalf("%s: got %v as the %v quantile of %d durations, want just above %v", name, got, share, samples, want)
				}
			}
		}
	}
}

func TestHistogramForgetsAfterThreeToFourMinutes(t *testing.T) {
	h := newHistogram(0.5)
	at := func(minutes float64) int64 { return int64(minutes * float64(time.Minute)) }
	want := func(when float64, quantile time.Duration, samples int) {
		t.Helper()
		got, n := h.quantile(0.5, at(when))
		if n != samples || samples > 0 && bucket(got-1) != bucket(quantile) {
			t.Errorf("after %v min: got %v of %d durations, want %v of %d", when, got, n, quantile, samples)
		}
	}
	const long, short = time.Second, time.Millisecond
	for range 3 {
		h.record(long, at(10.5))
	}
	h.record(short, at(11.1))
	h.record(short, at(12.2))
	want(13.99, long, 5)
	want(14, short, 2)
	h.record(short, at(14.5))
	want(15, short, 2)
	want(17.9, short, 1)
	want(18, 0, 0)
	h.record(long, at(30)) // after many minutes without calls
	want(30, long, 1)
	want(1000, 0, 0)
	for minute, took := range []time.Duration{long, long, short, short} {
		h.record(took, at(2000+float64(minute)))
	}
	want(2005, short, 2) // two minutes passed
	want(2006, short, 1)
}

// TestHistogramQuantileIsPositive even if no call is as fast as the share demands: a delay of 0 means
// that no call is hedged.
func TestHistogramQuantileIsPositive(t *testing.T) {
	h := newHistogram(1e-9)
	h.record(time.Second, 1)
	if got, samples := h.quantile(1e-9, 1); got <= 0 || samples != 1 {
		t.Errorf("got %v of %d durations, want a positive time of 1", got, samples)
	}
}

// TestHistogramRestartsWhenClockJumpsBack: the clock of a synctest bubble is decades behind. A
// reading that is only a few minutes old, from a delayed goroutine, changes nothing.
func TestHistogramRestartsWhenClockJumpsBack(t *testing.T) {
	h := newHistogram(0.5)
	at := func(minutes int64) int64 { return minutes * int64(time.Minute) }
	h.record(time.Second, at(1000))
	h.record(time.Second, at(997))
	if _, samples := h.quantile(0.5, at(997)); samples != 2 {
		t.Errorf("got %d durations after a reading three minutes back, want 2", samples)
	}
	h.record(time.Millisecond, at(996))
	if got, samples := h.quantile(0.5, at(996)); samples != 1 || got > 2*time.Millisecond {
		t.Errorf("got %v of %d durations after the jump, want 1ms of 1", got, samples)
	}
	h.record(-time.Hour, at(996)) // of a call during which the clock jumped
	h.record(-time.Hour, at(996))
	if got, samples := h.quantile(0.5, at(996)); samples != 3 || got > 1 {
		t.Errorf("got %v of %d durations, two of them negative, want at most 1ns of 3", got, samples)
	}
	if _, samples := h.quantile(0.5, at(999)); samples != 3 {
		t.Errorf("got %d durations three minutes after the jump, want 3", samples)
	}
}

func TestHistogramConcurrentCallersLoseNoTime(t *testing.T) {
	h := newHistogram(0.5)
	var group errgroup.Group
	for range 4 {
		group.Go(func() error {
			for n := range 10_000 {
				h.record(time.Duration(n%10)*time.Millisecond, 1)
				h.quantile(0.5, 1)
			}
			return nil
		})
	}
	group.Wait()
	if got, samples := h.quantile(0.5, 1); samples != 40_000 || bucket(got-1) != bucket(4*time.Millisecond) {
		t.Errorf("got %v of %d durations, want 4ms of 40000", got, samples)
	}
}

func TestHistogramTakesAtMostFortyKilobytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHistogram(0.5)
		if n := testing.AllocsPerRun(100, func() { h.record(1, clock.Now()); h.quantile(0.5, clock.Now()); time.Sleep(time.Second) }); n != 0 {
			t.Errorf("got %v allocations, want 0", n)
		}
	})
	if size := (minutes + 1) * (buckets*4 + 8); size > 40_000 {
		t.Errorf("got %d bytes, want at most 40000", size)
	}
}
