package timeout

import (
	"errors"
	"fmt"
	"time"
)

// Config configures a [Timeout]. The zero Config is not valid: Limit must be set.
type Config struct {
	// Name appears in error texts and in [Error]. Default none.
	Name string

	// Limit is how long a call may take. It must be positive.
	Limit time.Duration

	// Abandon, if positive, is for effectors that ignore their context. A call then returns at the
	// limit, or when the caller's context ends, and leaves its effector running. While this many or
	// more effectors are left running, additional calls are refused with [*AbandonedError]. Calls
	// that already run when the number is reached still return at their limit, so the number may be
	// exceeded by the number of concurrent calls. Default 0: every call waits for its effector. It
	// must not be negative.
	Abandon int
}

// Validate reports all errors of c together, joined by [errors.Join]. Each names the field, its
// value, and the allowed range. It returns nil if there is none. Use it for configuration that
// comes from outside the program.
func (c Config) Validate() error {
	var errs []error
	if c.Limit <= 0 {
		errs = append(errs, fmt.Errorf("%s: Limit is %v, must be positive", title(c.Name), c.Limit))
	}
	if c.Abandon < 0 {
		errs = append(errs, fmt.Errorf("%s: Abandon is %d, must be 0 or more", title(c.Name), c.Abandon))
	}
	return errors.Join(errs...)
}
