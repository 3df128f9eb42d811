package ratelimit

import (
	"errors"
	"fmt"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/clock"
	"github.com/effector-go/resilience/internal/errtext"
)

// ErrLimited is matched by every [*LimitedError] under [errors.Is].
var ErrLimited = errors.New("ratelimit: rate exceeded")

// LimitedError is the error of a call that a limiter refused because its turn would come too late.
// It matches [ErrLimited] and [resilience.ErrRefused].
type LimitedError struct {
	Name string // of the limiter

	until int64 // on package clock
}

// Error returns a text such as "ratelimit mail: rate exceeded, retry in 1.2s".
func (e *LimitedError) Error() string {
	text := title(e.Name) + ": rate exceeded"
	if left := e.RetryAfter(); left > 0 {
		text += ", retry in " + errtext.Round(left).String()
	}
	return text
}

// Is reports whether target is [ErrLimited] or [resilience.ErrRefused].
func (e *LimitedError) Is(target error) bool {
	return target == ErrLimited || target == resilience.ErrRefused
}

// ErrorType returns "rate_limited", the type of the error in logs and metrics.
func (e *LimitedError) ErrorType() string { return "rate_limited" }

// RetryAfter is the exact time from now until the call would have had its turn, if no other calls
// come.
func (e *LimitedError) RetryAfter() time.Duration {
	return max(0, time.Duration(e.until-clock.Now()))
}

// HTTPStatus is 429, Too Many Requests.
func (e *LimitedError) HTTPStatus() int { return tooManyRequests }

const tooManyRequests = 429

func title(name string) string { return errtext.Title("ratelimit", name) }

// ErrCost is matched by every [*CostError] under [errors.Is].
var ErrCost = errors.New("ratelimit: cost above burst")

// CostError is the error of a call that costs more tokens than the bucket ever holds, so that its
// turn would never come. It matches [ErrCost] and [resilience.ErrRefused], and has no RetryAfter:
// the same call will be refused again, unless the burst is raised.
type CostError struct {
	Name  string // of the limiter
	Cost  int    // of the call
	Burst int    // of the limiter at that time
}

// Error returns a text such as "ratelimit mail: a cost of 70 is above the burst of 50".
func (e *CostError) Error() string {
	return fmt.Sprintf("%s: a cost of %d is above the burst of %d", title(e.Name), e.Cost, e.Burst)
}

// Is reports whether target is [ErrCost] or [resilience.ErrRefused].
func (e *CostError) Is(target error) bool {
	return target == ErrCost || target == resilience.ErrRefused
}

// ErrorType returns "rate_limited", the type of the error in logs and metrics.
func (e *CostError) ErrorType() string { return "rate_limited" }

// HTTPStatus is 413, Content Too Large: the same request will be refused again.
func (e *CostError) HTTPStatus() int { return contentTooLarge }

const contentTooLarge = 413
