package adaptive

import (
	"errors"
	"fmt"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/concurrency"
	"github.com/effector-go/resilience/internal/errtext"
)

// ErrLimit matches every [*LimitError] under [errors.Is].
var ErrLimit = errors.New("adaptive: at the limit")

// LimitError is the error of a call that a limiter refused. It matches [ErrLimit] and
// [resilience.ErrRefused]. It has no RetryAfter: it isn't known when there will be room.
type LimitError struct {
	Name     string // of the limiter
	Limit    int    // as returned by [Limiter.Limit]
	Priority int    // of the call, from 0 to 4
}

// Error returns a text like "adaptive search: at the limit of 20". If the call doesn't have the
// highest priority, it is like "adaptive search: at the limit of 20 for priority 2".
func (e *LimitError) Error() string {
	text := fmt.Sprintf("%s: at the limit of %d", title(e.Name), e.Limit)
	if e.Priority < concurrency.Highest {
		text += fmt.Sprintf(" for priority %d", e.Priority)
	}
	return text
}

// Is reports whether target is [ErrLimit] or [resilience.ErrRefused].
func (e *LimitError) Is(target error) bool {
	return target == ErrLimit || target == resilience.ErrRefused
}

// ErrorType returns "adaptive_limit", the type of the error in logs and metrics.
func (e *LimitError) ErrorType() string { return "adaptive_limit" }

func title(name string) string { return errtext.Title("adaptive", name) }
