package bulkhead

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Config says what a [Bulkhead] admits. Limit must be set.
type Config struct {
	// Name stands in errors. Default none.
	Name string

	// Limit is how many calls may run at once. From 1 to 2147483647; it must be set.
	Limit int

	// Queue is how many further calls may wait. Default 0: a call for which there is no room is refused at once.
	Queue int

	// MaxWait is how long a call may wait in the queue. Default no limit: until its ctx ends.
	MaxWait time.Duration
}

// Validate reports all mistakes of c at once, joined by [errors.Join], each naming the field, its value and the allowed range;
// nil if there is none.
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
