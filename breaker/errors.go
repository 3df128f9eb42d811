package breaker

import (
	"errors"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/clock"
	"github.com/effector-go/resilience/internal/errtext"
)

// ErrOpen is matched under [errors.Is] by every [*OpenError], including that of a half-open
// breaker.
var ErrOpen = errors.New("breaker: open")

// OpenError is returned for a call that a breaker refused. It matches [ErrOpen] and
// [resilience.ErrRefused]. Refusals share one value, so don't modify it.
type OpenError struct {
	Name  string // the breaker's name
	State State  // Open, HalfOpen or ForcedOpen

	until     int64 // when the open time ends, by package clock; 0 if unknown
	slowStart bool
}

// Error returns a text like "breaker payments: open, retry in 4.2s", or, for a half-open breaker,
// "breaker payments: half-open, probing" or "breaker payments: half-open, slow start".
func (e *OpenError) Error() string {
	text := title(e.Name) + ": " + e.State.String()
	switch {
	case e.slowStart:
		return text + ", slow start"
	case e.State == HalfOpen:
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

// ErrorType returns "breaker_open", the type of the error in logs and metrics.
func (e *OpenError) ErrorType() string { return "breaker_open" }

// RetryAfter returns how long the breaker will stay open from now on, or 0 if that is unknown. A
// caller that sleeps for exactly this time is not refused by the open breaker. It is unknown if the
// breaker is forced open or half-open, including a slow start: any later call may be admitted.
func (e *OpenError) RetryAfter() time.Duration {
	if e.until == 0 {
		return 0
	}
	return max(0, time.Duration(e.until-clock.Now()))
}

func title(name string) string { return errtext.Title("breaker", name) }
