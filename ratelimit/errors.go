package ratelimit

import (
	"errors"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/clock"
	"github.com/effector-go/resilience/internal/errtext"
)

// ErrLimited is matched under [errors.Is] by every [*LimitedError].
var ErrLimited = errors.New("ratelimit: limited")

// LimitedError is the error of a call that a limiter refused. It matches [ErrLimited] and [resilience.ErrRefused].
type LimitedError struct {
	Name string // of the limiter

	until int64 // on package clock
}

// Error reads like "ratelimit mail: limited, retry in 1.2s".
func (e *LimitedError) Error() string {
	text := title(e.Name) + ": limited"
	if left := e.RetryAfter(); left > 0 {
		text += ", retry in " + errtext.Round(left).String()
	}
	return text
}

// Is reports whether target is [ErrLimited] or [resilience.ErrRefused].
func (e *LimitedError) Is(target error) bool {
	return target == ErrLimited || target == resilience.ErrRefused
}

// RetryAfter is the time from now until the call would have had its turn, if nobody else comes.
func (e *LimitedError) RetryAfter() time.Duration {
	return max(0, time.Duration(e.until-clock.Now()))
}

// HTTPStatus is 429, Too Many Requests.
func (e *LimitedError) HTTPStatus() int { return tooManyRequests }

const tooManyRequests = 429

func title(name string) string { return errtext.Title("ratelimit", name) }
