package ratelimit

import (
	"errors"
	"fmt"
	"time"
)

// Config says what a [Limiter] admits. Rate must be set.
type Config struct {
	// Name stands in errors. Default none.
	Name string

	// Rate is how many calls are let through in a second, over any longer time. Above 0, at most 1,000,000; it must be set.
	Rate float64

	// Burst is how many calls may start at once after a time without calls. Default 1; Burst/Rate at most 100 years.
	Burst int

	// Wait is how long a call may wait for its turn. One whose turn would come later, or after its ctx's deadline, is refused at once. Default 0:
	// none waits.
	Wait time.Duration
}

// Validate reports all mistakes of c at once, joined by [errors.Join], each naming the field, its value and the allowed range;
// nil if there is none.
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
	good := rate > 0 && rate <= maxRate // not so for NaN
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
