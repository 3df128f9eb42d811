package budget

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/effector-go/resilience/internal/errtext"
)

// Config sets how many extra calls a [Budget] allows. Ratio or MinPerSecond must be set.
type Config struct {
	// Name is for programs that list or change their budgets, and appears in errors of Validate.
	// Default none.
	Name string

	// Ratio is the number of extra calls that each call pays for: 0.1 allows one for ten calls. 0,
	// or from 0.000001 to 1000.
	Ratio float64

	// MinPerSecond is the number of extra calls per second that are allowed whatever the traffic,
	// for clients that make few calls. It is a reserve that starts full, with MinPerSecond*TTL
	// tokens. Up to 1000000, and not below one token in TTL; default 0, no reserve.
	MinPerSecond float64

	// TTL is how long a token lasts: one that isn't withdrawn expires between 0.9 TTL and TTL after
	// its deposit. From 1 ms to 8760 h; default 10 s.
	TTL time.Duration
}

const (
	minRatio, maxRatio = 1e-6, 1000
	maxPerSecond       = 1e6
	defaultTTL         = 10 * time.Second
	minTTL, maxTTL     = time.Millisecond, 8760 * time.Hour
)

// Validate returns an error that lists every invalid field of c, or nil if there is none.
func (c Config) Validate() error {
	var mistakes []error
	mistake := func(format string, args ...any) {
		mistakes = append(mistakes, errors.New(errtext.Title("budget", c.Name)+": "+fmt.Sprintf(format, args...)))
	}
	if !(c.Ratio == 0 || c.Ratio >= minRatio && c.Ratio <= maxRatio) { // also true for NaN
		mistake("Ratio is %v, must be 0 or from %v to %v", c.Ratio, minRatio, maxRatio)
	}
	ttlOK := c.TTL == 0 || c.TTL >= minTTL && c.TTL <= maxTTL
	switch {
	case !(c.MinPerSecond >= 0 && c.MinPerSecond <= maxPerSecond):
		mistake("MinPerSecond is %v, must be from 0 to %d", c.MinPerSecond, int(maxPerSecond))
	case c.MinPerSecond > 0 && ttlOK && c.withDefaults().reserve() < 1:
		ttl := c.withDefaults().TTL
		mistake("MinPerSecond is %v, with TTL %v must be 0 or at least %v: otherwise the reserve holds no whole token",
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

// share returns what a call deposits, in millionths of a token. It is rounded up, so that n deposits
// of 1/n make a token. The factor keeps 0.07, which is a little more than seven hundredths in binary,
// from being rounded up as well.
func (c Config) share() uint64 { return uint64(math.Ceil(c.Ratio * token * (1 - 1e-12))) }

// reserve returns the number of whole tokens in the full reserve.
func (c Config) reserve() float64 {
	return math.Floor(c.MinPerSecond * c.TTL.Seconds() * (1 + 1e-12))
}
