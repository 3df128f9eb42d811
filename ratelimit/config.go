package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Config configures a [Limiter]. Rate must be set.
type Config struct {
	// Name appears in errors and snapshots. Default: none.
	Name string

	// Rate is how many calls, or tokens if Cost is set, are admitted per second over any longer
	// time. Above 0, at most 1,000,000. It must be set.
	Rate float64

	// Burst is how many tokens the bucket holds, and therefore how many calls may start at the same
	// instant after a time without calls. Default 1; Burst/Rate is at most 100 years.
	Burst int

	// Cost is called once for each call, with its context, before the call takes its tokens. It
	// returns how many tokens the call takes, such as the number of bytes it sends. A call with a
	// cost of 0 or less takes nothing and is admitted immediately, even while others wait. A call
	// with a cost above Burst is refused with a [*CostError]. Default: 1 for each call.
	Cost func(ctx context.Context) int

	// Wait is how long a call may wait for its turn. A call whose turn would come later, or not
	// before its context's deadline, is refused immediately. Default 0: no call waits.
	Wait time.Duration
}

// Validate reports all invalid fields of c, joined by [errors.Join]. Each error names the field,
// its value, and the allowed range. Validate returns nil if c is valid.
func (c Config) Validate() error {
	var mistakes []error
	c = c.withDefaults()
	if err := checkRate(c.Name, "Rate", c.Rate, "Burst", c.Burst); err != nil {
		mistakes = append(mistakes, err)
	}
	if c.Wait < 0 {
		mistakes = append(mistakes, fmt.Errorf("%s: Wait is %v, must be positive, or 0 for none", title(c.Name), c.Wait))
	}
	return errors.Join(mistakes...)
}

func (c Config) withDefaults() Config {
	if c.Burst == 0 {
		c.Burst = 1
	}
	return c
}

const maxRate = 1e6

func checkRate(name, rateField string, rate float64, burstField string, burst int) error {
	var mistakes []error
	good := rate > 0 && rate <= maxRate // false for NaN
	if !good {
		mistakes = append(mistakes, fmt.Errorf("%s: %s is %v, must be above 0 and at most %d", title(name), rateField, rate, int(maxRate)))
	}
	switch {
	case burst < 1:
		mistakes = append(mistakes, fmt.Errorf("%s: %s is %d, must be at least 1", title(name), burstField, burst))
	case good && float64(burst)/rate > century.Seconds():
		mistakes = append(mistakes, fmt.Errorf("%s: %s is %d, must be at most 100 years of %s (%v)", title(name), burstField, burst, rateField, rate))
	}
	return errors.Join(mistakes...)
}
