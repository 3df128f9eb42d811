package timeout

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/errtext"
)

// ErrTimeout matches every [*Error] under [errors.Is]: the limit of a timeout passed, not the
// caller's own deadline.
var ErrTimeout = errors.New("timeout: limit passed")

// An Error is returned for a call that failed after the limit of its [Timeout] had passed. It
// matches [ErrTimeout] and [context.DeadlineExceeded] under [errors.Is], and unwraps to the
// effector's own error. It is not marked, whatever the effector's error is: an exceeded limit is a
// failure.
type Error struct {
	Name  string        // of the Timeout, "" if it has none
	Limit time.Duration // of the Timeout

	err error // the effector's, nil if it was left running
}

// Error returns text such as "timeout payments: limit of 1s passed", followed by the effector's
// error if that isn't just [context.DeadlineExceeded].
func (e *Error) Error() string {
	text := fmt.Sprintf("%s: limit of %v passed", title(e.Name), rounded(e.Limit))
	if e.err != nil && e.err != context.DeadlineExceeded {
		text += ": " + e.err.Error()
	}
	return text
}

// Is reports whether target is [ErrTimeout] or [context.DeadlineExceeded].
func (e *Error) Is(target error) bool {
	return target == ErrTimeout || target == context.DeadlineExceeded
}

// ErrorType returns "timeout", the type of the error in logs and metrics.
func (e *Error) ErrorType() string { return "timeout" }

// Timeout returns true, as for a net.Error.
func (e *Error) Timeout() bool { return true }

// Unwrap returns the effector's own error, or nil if the effector was left running.
func (e *Error) Unwrap() error { return e.err }

// An AbandonedError is returned for a call that was refused because too many abandoned effectors
// are still running: see [Config].Abandon. It matches [resilience.ErrRefused] under [errors.Is].
type AbandonedError struct {
	Name      string // of the Timeout, "" if it has none
	Abandoned int    // how many were running
}

// Error returns text such as "timeout payments: 10 abandoned calls still running".
func (e *AbandonedError) Error() string {
	calls := "calls"
	if e.Abandoned == 1 {
		calls = "call"
	}
	return fmt.Sprintf("%s: %d abandoned %s still running", title(e.Name), e.Abandoned, calls)
}

// Is reports whether target is [resilience.ErrRefused].
func (e *AbandonedError) Is(target error) bool { return target == resilience.ErrRefused }

// ErrorType returns "timeout_abandoned", the type of the error in logs and metrics.
func (e *AbandonedError) ErrorType() string { return "timeout_abandoned" }

// title returns what error texts begin with.
func title(name string) string { return errtext.Title("timeout", name) }

// rounded returns a limit, which someone chose and may search for, to three digits or more.
func rounded(d time.Duration) time.Duration {
	switch {
	case d >= time.Minute:
		return d.Round(time.Second)
	case d >= time.Second:
		return d.Round(10 * time.Millisecond)
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond)
	case d >= time.Microsecond:
		return d.Round(10 * time.Nanosecond)
	}
	return d
}
