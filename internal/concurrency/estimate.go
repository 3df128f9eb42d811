package concurrency

import (
	"math"
	"time"
)

// A tally is times whose mean is asked for.
type tally struct{ n, sum, squares float64 }

func (t *tally) add(took time.Duration) {
	x := float64(max(took, 1)) // a coarse clock may have seen none; a mean of nothing cannot be compared with
	t.n++
	t.sum += x
	t.squares += x * x
}

// plus is t and a part of another tally.
func (t tally) plus(other tally, part float64) tally {
	return tally{t.n + part*other.n, t.sum + part*other.sum, t.squares + part*other.squares}
}

// estimate is the mean of the times and how far off it may be. There must be a time.
func (t tally) estimate() estimate {
	mean := t.sum / t.n
	spread := max(0, t.squares/t.n-mean*mean) // rounding may take it below
	return estimate{mean, spread / max(1, t.n-1)}
}

// An estimate is a mean time, in nanoseconds, and its variance. The zero estimate is none.
type estimate struct{ mean, variance float64 }

func (e estimate) none() bool { return e == estimate{} }

// differs reports whether two estimates can hardly be of the same mean: they are three standard deviations apart.
func (e estimate) differs(other estimate) bool {
	apart := e.mean - other.mean
	return apart*apart > 3*3*(e.variance+other.variance)
}

// with is the estimate by e and a later one of the same mean, each weighed by how sure it is. But of the past no more than some memory is kept, so that
// a mean that moves slowly is followed.
func (e estimate) with(later estimate) estimate {
	const memory = 4 // later estimates
	both := e.variance + later.variance
	if both == 0 {
		return later
	}
	weight := later.variance / both // of e
	return estimate{
		mean:     weight*e.mean + (1-weight)*later.mean,
		variance: max(e.variance*weight, later.variance/memory),
	}
}

// A share is the part of a round trip that calls spend in a queue, and its standard deviation: all of it, and that which comes of least.
type share struct{ is, off, least float64 }

// queued is the share of a round trip that takes as long as seen where no more than least is needed.
func queued(least, seen estimate) share {
	return share{
		is:    1 - least.mean/seen.mean,
		off:   math.Sqrt(least.variance+seen.variance) / seen.mean,
		least: math.Sqrt(least.variance) / seen.mean,
	}
}

// surely is what the share is at least.
func (s share) surely() float64 { return s.is - sure*s.off }

// maybe is the share if the round trip that is needed was thought too short, as much as may well be. A limit that took the other for certain
// would stay too low until that is learned anew.
func (s share) maybe() float64 { return s.is - 2*s.least }

const sure = 2.5 // standard deviations: one round in 160 is taken for what it is not
