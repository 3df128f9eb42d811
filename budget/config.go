package budget

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Config says how many extra calls a [Budget] allows. Ratio or MinPerSecond must be set.
type Config struct {
	// Ratio is how many extra calls each call pays for: 0.1 allows one for ten calls. Zero, or from 0.000001 to 1000.
	Ratio float64

	// MinPerSecond is how many extra calls a second are allowed whatever the traffic, for clients that call seldom: a reserve
	// that starts full, with MinPerSecond*TTL tokens. Up to 1000000; zero, the default, for none.
	MinPerSecond float64

	// TTL is how long a token that nobody withdraws lasts: an unused one is gone between 0.9 TTL and TTL after its deposit.
	// Default 10 s; from 1 ms to 8760 h.
	TTL time.Duration
}

const (
	minRatio, maxRatio = 1e-6, 1000
	maxPerSecond       = 1e6
	defaultTTL         = 10 * time.Second
	minTTL, maxTTL     = time.Millisecond, 8760 * time.Hour
)

// Validate reports every mistake in the Config, nil if there is none.
func (c Config) Validate() error {
	var mistakes []error
	mistake := func(format string, args ...any) {
		mistakes = append(mistakes, fmt.Errorf("budget: "+format, args...))
	}
	if !(c.Ratio == 0 || c.Ratio >= minRatio && c.Ratio <= maxRatio) { // so written, NaN is a mistake
		mistake("Ratio is %v, must be 0 or from %v to %v", c.Ratio, minRatio, maxRatio)
	}
	ttlOK := c.TTL == 0 || c.TTL >= minTTL && c.TTL <= maxTTL
	switch {
	case !(c.MinPerSecond >= 0 && c.MinPerSecond <= maxPerSecond):
		mistake("MinPerSecond is %v, must be from 0 to %d", c.MinPerSecond, int(maxPerSecond))
	case c.MinPerSecond > 0 && ttlOK && c.withDefaults().reserve() < 1:
		ttl := c.withDefaults().TTL
		mistake("MinPerSecond is %v, with TTL %v must be 0 or at least %v: no token would live to be whole",
			c.MinPerSecond, ttl, 1/ttl.Seconds())
	case c.MinPerSecond == 0 && c.Ratio == 0:
		mistake("Ratio and MinPerSecond are both 0, one of them must be positive")
	}
	if !ttlOK {
		mistake("TTL is %v, must be 0 for the default %v or from %v to %v", c.TTL, defaultTTL, minTTL, maxTTL)
	}
	return errors.Join(mistakes...)
}

func (c Config) withDefaults() Config {
	if c.TTL == 0 {
		c.TTL = defaultTTL
	}
	return c
}

// reserve is how many whole tokens the full reserve holds.
func (c Config) reserve() float64 {
	return math.Floor(c.MinPerSecond * c.TTL.Seconds() * (1 + 1e-12))
}
