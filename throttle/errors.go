package throttle

import (
	"errors"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/clock"
	"github.com/effector-go/resilience/internal/errtext"
)

// ErrThrottled is matched by every [*Error] under [errors.Is].
var ErrThrottled = errors.New("throttle: throttled")

// Error is the error of a call that a throttle refused. It matches [ErrThrottled] and
// [resilience.ErrRefused].
type Error struct {
	Name string // of the throttle

	until int64 // on package clock
}

// Error returns a text such as "throttle api: no tokens left, retry in 1.2s".
func (e *Error) Error() string {
	text := title(e.Name) + ": no tokens left"
	if left := e.RetryAfter(); left > 0 {
		text += ", retry in " + errtext.Round(left).String()
	}
	return text
}

// Is reports whether target is [ErrThrottled] or [resilience.ErrRefused].
func (e *Error) Is(target error) bool {
	return target == ErrThrottled || target == resilience.ErrRefused
}

// ErrorType returns "throttled", the type of the error in logs and metrics.
func (e *Error) ErrorType() string { return "throttled" }

// RetryAfter is the exact time from now until the next refill.
func (e *Error) RetryAfter() time.Duration {
	return max(0, time.Duration(e.until-clock.Now()))
}

// HTTPStatus is 429, Too Many Requests.
func (e *Error) HTTPStatus() int { return 429 }

func title(name string) string { return errtext.Title("throttle", name) }
