package concurrency

import (
	"math"
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
// their means are more than this many standard deviations apart. Both tallies together show how much the
// times vary: a tally that happens to lack the rare long calls shows neither the mean nor the
// variation.
func (t tally) differs(other tally, deviations float64) bool {
	both := t.plus(other, 1)
	apart := (t.mean() - other.mean()) / both.mean()
	return apart*apart > deviations*deviations*both.variation()*(1/t.n+1/other.n)
}

// A share is an estimate of the part of a round trip that calls spend in a queue.
type share struct{ mean, deviation float64 }

// queued estimates the share from the times of calls that didn't queue, and of calls that may have.
// The variation is that of a call's time.
func queued(base, seen tally, variation float64) share {
	ratio := base.mean() / seen.mean()
	return share{1 - ratio, math.Sqrt(variation * (ratio*ratio/base.n + 1/seen.n))}
}

// surely returns the lower end of the confidence interval: two standard deviations below the mean.
func (s share) surely() float64 { return s.mean - 2*s.deviation }

// beyondDoubt returns the lower end of the wider interval of three standard deviations.
func (s share) beyondDoubt() float64 { return s.mean - 3*s.deviation }
