package bulkhead

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Config configures a [Bulkhead]. Limit must be set.
type Config struct {
	// Name appears in errors and snapshots. Default: none.
	Name string

	// Limit is how many calls may run concurrently, from 1 to 2147483647. It must be set.
	Limit int

	// Queue is how many additional calls may wait. Default 0: a call that finds no room is refused
	// immediately.
	Queue int

	// MaxWait is how long a call may wait in the queue. Default 0: until its context ends.
	MaxWait time.Duration
}

// Validate reports all invalid fields of c, joined by [errors.Join]. Each error names the field,
// its value, and the allowed range. Validate returns nil if c is valid.
func (c Config) Validate() error {
	var mistakes []error
	if err := checkLimit(c.Name, "Limit", c.Limit); err != nil {
		mistakes = append(mistakes, err)
	}
	if c.Queue < 0 {
		mistakes = append(mistakes, fmt.Errorf("%s: Queue is %d, must be 0 or more", title(c.Name), c.Queue))
	}
	if c.MaxWait < 0 {
		mistakes = append(mistakes, fmt.Errorf("%s: MaxWait is %v, must be positive, or 0 for no limit", title(c.Name), c.MaxWait))
	}
	return errors.Join(mistakes...)
}

func checkLimit(name, field string, limit int) error {
	if limit < 1 || limit > math.MaxInt32 {
		return fmt.Errorf("%s: %s is %d, must be 1 to %d", title(name), field, limit, math.MaxInt32)
	}
	return nil
}
