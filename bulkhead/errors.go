package bulkhead

import (
	"errors"
	"fmt"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/errtext"
)

// ErrFull is matched by every [*FullError] under [errors.Is].
var ErrFull = errors.New("bulkhead: full")

// FullError is the error of a call that a bulkhead refused. It matches [ErrFull] and
// [resilience.ErrRefused]. It has no RetryAfter: the time at which a place will be free is unknown.
// After the limit was lowered, more calls may run than Limit says.
type FullError struct {
	Name         string        // of the bulkhead
	Limit, Queue int           // of the bulkhead at that time
	Waited       time.Duration // time in the queue; 0 if the queue was full
}

// Error returns a text such as "bulkhead reports: full, 10 running and 20 waiting", or "bulkhead
// reports: full, 10 running, no place within 1s" for a call that has waited.
func (e *FullError) Error() string {
	text := fmt.Sprintf("%s: full, %d running", title(e.Name), e.Limit)
	switch {
	case e.Waited > 0:
		text += fmt.Sprintf(", no place within %v", errtext.Round(e.Waited))
	case e.Queue > 0:
		text += fmt.Sprintf(" and %d waiting", e.Queue)
	}
	return text
}

// Is reports whether target is [ErrFull] or [resilience.ErrRefused].
func (e *FullError) Is(target error) bool {
	return target == ErrFull || target == resilience.ErrRefused
}

// ErrorType returns "bulkhead_full", the type of the error in logs and metrics.
func (e *FullError) ErrorType() string { return "bulkhead_full" }

func title(name string) string { return errtext.Title("bulkhead", name) }
