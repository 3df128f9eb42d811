package concurrency

import (
	"math"
	"math/bits"
	"time"
)

// A tally summarizes how long calls took: their number, the sum of their times, and the sum of the
// squares. The numbers are not whole where a tally counts for a part only.
type tally struct{ n, sum, squares float64 }

func (t *tally) add(took time.Duration) {
	x := float64(max(took, 1)) // a coarse clock may report 0, and nothing can be divided by a mean of 0
	t.n++
	t.sum += x
	t.squares += x * x
}

// plus returns t and part of other.
func (t tally) plus(other tally, part float64) tally {
	return tally{t.n + part*other.n, t.sum + part*other.sum, t.squares + part*other.squares}
}

// atMost returns t with the weight of at most n calls.
func (t tally) atMost(n float64) tally {
	if t.n <= n {
		return t
	}
	return tally{}.plus(t, n/t.n)
}

// scaled returns t as if each call had taken by times as long.
func (t tally) scaled(by float64) tally { return tally{t.n, by * t.sum, by * by * t.squares} }

func (t tally) empty() bool { return t.n == 0 }

// mean returns the mean time in nanoseconds. The tally must not be empty.
func (t tally) mean() float64 { return t.sum / t.n }

// variation returns the square of the coefficient of variation: the variance of the times, in units
// of the squared mean. It is 0 if all calls take the same time, 1 if the times are exponential.
func (t tally) variation() float64 {
	if t.n <= 1 {
		return 0
	}
	mean := t.mean()
	variance := (t.squares - t.n*mean*mean) / (t.n - 1)
	return max(0, variance) / (mean * mean) // rounding may take it below 0
}

// differs reports whether t and other can hardly be times of the same calls: under that hypothesis
// their means are more than this many standard deviations apart. Both tallies together show how
// much the times vary: a tally that happens to lack the rare long calls shows neither the mean nor
// the variation.
func (t tally) differs(other tally, deviations float64) bool {
	both := t.plus(other, 1)
	apart := (t.mean() - other.mean()) / both.mean()
	return apart*apart > deviations*deviations*both.variation()*(1/t.n+1/other.n)
}

// A histogram holds times by octave: the first bucket those below firstBound, and each of the
// others those up to twice as long as the one before. The last one has no bound.
type histogram [32]tally

const firstBound = 1024 // nanoseconds

// bound returns the upper bound of a bucket, in nanoseconds.
func bound(bucket int) float64 { return math.Ldexp(firstBound, bucket) }

func (h *histogram) add(took time.Duration) {
	octave := bits.Len64(uint64(max(took, 0)) / firstBound)
	h[min(octave, len(h)-1)].add(took)
}

// mix keeps part of the weight of h and adds other.
func (h *histogram) mix(keep float64, other *histogram) {
	for i := range h {
		if h[i].n > 0 || other[i].n > 0 {
			h[i] = other[i].plus(h[i], keep)
		}
	}
}

// sample returns the summary of all times, capped at the bound of a bucket.
func (h *histogram) sample(bucket int) (s sample) {
	most := bound(bucket)
	for i := range h {
		t := h[i]
		if t.n == 0 {
			continue
		}
		s.all = s.all.plus(t, 1)
		if i > bucket {
			s.above += t.n
			t = tally{t.n, t.n * most, t.n * most * most}
		}
		s.capped = s.capped.plus(t, 1)
	}
	return s
}

// lowestCap returns the bucket with the lowest bound that fits.
func (h *histogram) lowestCap(part float64) (bucket int) {
	for bucket < len(h)-1 && !h.sample(bucket).fits(bucket, part) {
		bucket++
	}
	return bucket
}

// A sample summarizes times in two ways: as they are, and capped, so that none counts for more than
// a bound (the statistical term is winsorized). The mean of all times depends on how many of the
// few longest ones happen to be among them. A queue makes all of them longer, which the capped ones
// show with far fewer calls.
type sample struct {
	all, capped tally
	above       float64 // number of times above the cap
}

func (s sample) empty() bool { return s.all.empty() }

// fits reports whether the bound of the bucket, at which the times are capped, is a good cap: no
// more than this part of the times are above it, and it leaves room for a queue, since a wait that
// takes all times to the cap is hidden.
func (s sample) fits(bucket int, part float64) bool {
	return s.above <= part*s.all.n && bound(bucket) >= 3*s.capped.mean()
}

// plus returns s and part of other.
func (s sample) plus(other sample, part float64) sample {
	return sample{s.all.plus(other.all, part), s.capped.plus(other.capped, part), s.above + part*other.above}
}

// scaled returns s as if each call had taken by times as long.
func (s sample) scaled(by float64) sample {
	return sample{s.all.scaled(by), s.capped.scaled(by), s.above}
}

// differs reports whether s and other can hardly be times of the same calls, capped or as they are.
func (s sample) differs(other sample, deviations float64) bool {
	return s.capped.differs(other.capped, deviations) || s.all.differs(other.all, deviations)
}

// A share is an estimate of the part of a round trip that calls spend in a queue.
type share struct{ mean, deviation float64 }

// queued estimates the share from the times of calls that didn't queue, and of calls that may have.
// The variation is that of a call's capped time. The times as they are count only if they show a
// queue with more certainty than the capped ones, though their error is taken as half as large
// again: they show a queue that only the longest calls wait in.
func queued(base, seen sample, variation float64) share {
	service := base.all.mean()
	s := waiting(base.capped, seen.capped, service, variation)
	all := waiting(base.all, seen.all, service, max(base.all.variation(), seen.all.variation()))
	all.deviation *= 1.5
	if all.surely() > s.surely() {
		return all
	}
	return s
}

// waiting estimates the share from two means, whose difference is the wait, and the mean service
// time. Both means have the error of the larger one: base may happen to lack the longest calls.
func waiting(base, seen tally, service, variation float64) share {
	wait := seen.mean() - base.mean()
	deviation := max(base.mean(), seen.mean()) * math.Sqrt(variation*(1/base.n+1/seen.n))
	return share{wait / (service + wait), deviation / (service + wait)}
}

// surely returns the lower end of the confidence interval: two standard deviations below the mean.
func (s share) surely() float64 { return s.mean - 2*s.deviation }

// beyondDoubt returns the lower end of the wider interval of three standard deviations.
func (s share) beyondDoubt() float64 { return s.mean - 3*s.deviation }
