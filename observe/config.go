package observe

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Config is the configuration of an [Observer]. The zero Config has no listeners.
type Config struct {
	// Listeners are called in this order; ends of calls and attempts in reverse order.
	Listeners []Listener
	// Buckets are the upper bounds of the histograms of durations, inclusive. At most 64, positive
	// and ascending; default 1, 2, and 5 times each power of ten from 1 ms to 10 s.
	Buckets []time.Duration
	// MaxNames limits the number of pipeline names that are counted separately, and that of policies'
	// kinds and names. Beyond the limit, a new name replaces the one that has been unused for the
	// longest time; if all are in use, it is counted as "other". At least 1; default 1000.
	MaxNames int
}

// maxBuckets bounds the memory of a pipeline's counts: six histograms in each of up to 32 stripes.
const maxBuckets = 64

// Validate returns an error that lists every invalid field of c with its value and range, or nil if
// there is none.
func (c Config) Validate() error {
	var mistakes []error
	if n := len(c.Buckets); n > maxBuckets {
		mistakes = append(mistakes, fmt.Errorf("observe: Buckets has %d bounds, must have at most %d", n, maxBuckets))
	}
	for i, bound := range c.Buckets {
		switch {
		case bound <= 0:
			mistakes = append(mistakes, fmt.Errorf("observe: Buckets[%d] is %v, must be positive", i, bound))
		case i > 0 && bound <= c.Buckets[i-1]:
			mistakes = append(mistakes, fmt.Errorf("observe: Buckets[%d] is %v, must be above Buckets[%d] (%v)", i, bound, i-1, c.Buckets[i-1]))
		}
	}
	if c.MaxNames < 0 {
		mistakes = append(mistakes, fmt.Errorf("observe: MaxNames is %d, must be at least 1, or 0 for 1000", c.MaxNames))
	}
	return errors.Join(mistakes...)
}

// withDefaults returns a copy of c that shares nothing with it and has the defaults filled in.
func (c Config) withDefaults() Config {
	c.Listeners = slices.Clone(c.Listeners)
	c.Buckets = slices.Clone(c.Buckets)
	if len(c.Buckets) == 0 {
		for unit := time.Millisecond; unit <= time.Second; unit *= 10 {
			c.Buckets = append(c.Buckets, unit, 2*unit, 5*unit)
		}
		c.Buckets = append(c.Buckets, 10*time.Second)
	}
	if c.MaxNames == 0 {
		c.MaxNames = 1000
	}
	return c
}
