package breaker

import (
	"errors"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/clock"
	"github.com/effector-go/resilience/internal/errtext"
)

// ErrOpen is matched under [errors.Is] by every [*OpenError], of a half-open breaker too.
var ErrOpen = errors.New("breaker: open")

// OpenError is the error of a call that a breaker refused. It matches [ErrOpen] and [resilience.ErrRefused]. One value
// serves all refusals of a phase, so it must not be changed.
type OpenError struct {
	Name  string // of the breaker
	State State  // Open, HalfOpen or ForcedOpen

	until int64 // on package clock, 0 where no time is known
}

// Error reads like "breaker payments: open, retry in 4.2s".
func (e *OpenError) Error() string {
	text := title(e.Name) + ": " + e.State.String()
	if e.State == HalfOpen {
		return text + ", probing"
	}
	if left := e.RetryAfter(); left > 0 {
		text += ", retry in " + errtext.Round(left).String()
	}
	return text
}

// Is reports whether target is [ErrOpen] or [resilience.ErrRefused].
func (e *OpenError) Is(target error) bool {
	return target == ErrOpen || target == resilience.ErrRefused
}

// RetryAfter is how long the breaker will stay open from now on, 0 where no time is known.
func (e *OpenError) RetryAfter() time.Duration {
	if e.until == 0 {
		return 0
	}
	return max(0, time.Duration(e.until-clock.Now()))
}

func title(name string) string { return errtext.Title("breaker", name) }
