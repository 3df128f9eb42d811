package bulkhead

import (
	"errors"
	"fmt"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/errtext"
)

// ErrFull is matched under [errors.Is] by every [*FullError].
var ErrFull = errors.New("bulkhead: full")

// FullError is the error of a call that a bulkhead refused. It matches [ErrFull] and [resilience.ErrRefused].
type FullError struct {
	Name         string // of the bulkhead
	Limit, Queue int
	Waited       time.Duration // in the queue, 0 if it was full
}

// Error reads like "bulkhead reports: full, 10 running and 20 waiting".
func (e *FullError) Error() string {
	text := fmt.Sprintf("%s: full, %d running", title(e.Name), e.Limit)
	switch {
	case e.Waited > 0:
		text += fmt.Sprintf(", waited %v", errtext.Round(e.Waited))
	case e.Queue > 0:
		text += fmt.Sprintf(" and %d waiting", e.Queue)
	}
	return text
}

// Is reports whether target is [ErrFull] or [resilience.ErrRefused].
func (e *FullError) Is(target error) bool {
	return target == ErrFull || target == resilience.ErrRefused
}

func title(name string) string { return errtext.Title("bulkhead", name) }
