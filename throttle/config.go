package throttle

import (
	"errors"
	"fmt"
	"time"
)

// Config configures a [Throttle]. All fields except Name must be set.
type Config struct {
	// Name appears in errors and snapshots. Default: none.
	Name string

	// Max is how many tokens the bucket holds, and therefore how many calls may start at the same
	// instant. From 1 to 1,000,000,000.
	Max int

	// Refill is how many tokens are added every Every, from 1 to 1,000,000,000. Tokens beyond Max
	// are lost.
	Refill int

	// Every is the time between refills. At least 1 µs.
	Every time.Duration
}

// Validate reports all invalid fields of c, joined by [errors.Join]. Each error names the field,
// its value, and the allowed range. Validate returns nil if c is valid.
func (c Config) Validate() error {
	var mistakes []error
	mistake := func(ok bool, field string, value any, allowed string) {
		if !ok {
			mistakes = append(mistakes, fmt.Errorf("%s: %s is %v, must be %s", title(c.Name), field, value, allowed))
		}
	}
	mistake(c.Max >= 1 && c.Max <= maxTokens, "Max", c.Max, "1 to 1000000000")
	mistake(c.Refill >= 1 && c.Refill <= maxTokens, "Refill", c.Refill, "1 to 1000000000")
	mistake(c.Every >= minEvery, "Every", c.Every, "at least 1µs")
	return errors.Join(mistakes...)
}
