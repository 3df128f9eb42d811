package timeout

import (
	"errors"
	"fmt"
	"time"
)

// Config says what a [Timeout] does. The zero Config is not valid: Limit must be set.
type Config struct {
	// Name stands in error texts and in [Error]. Default none.
	Name string

	// Limit is how long a call may take. It must be positive.
	Limit time.Duration

	// Abandon, if positive, is for effectors that ignore their ctx: a call then returns at the limit, or when the caller's
	// ctx ends, and leaves its effector running. While so many or more are left running, further calls are refused with
	// [*AbandonedError]; calls that already run when the number is reached are still let go at their limit, so that the
	// number may be exceeded by as many as run at once. Default 0: every call waits for its effector. It must not be negative.
	Abandon int
}

// Validate reports all mistakes of c at once, joined by [errors.Join], each naming the field, its value and the allowed range;
// nil if there is none. It is for configuration that comes from outside.
func (c Config) Validate() error {
	var mistakes []error
	if c.Limit <= 0 {
		mistakes = append(mistakes, fmt.Errorf("%s: Limit is %v, must be positive", title(c.Name), c.Limit))
	}
	if c.Abandon < 0 {
		mistakes = append(mistakes, fmt.Errorf("%s: Abandon is %d, must be 0 or more", title(c.Name), c.Abandon))
	}
	return errors.Join(mistakes...)
}
