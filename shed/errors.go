package shed

import (
	"errors"
	"fmt"
	"math"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/errtext"
)

// ErrShed is matched by every [*Error] under [errors.Is].
var ErrShed = errors.New("shed: refused")

// Error is the error of a call that a shedder refused. It matches [ErrShed] and
// [resilience.ErrRefused]. It has no RetryAfter: a call that is made again immediately has the same
// chance.
type Error struct {
	Name  string  // of the shedder
	Share float64 // probability of a refusal at that time, above 0 and at most MaxShare
}

// Error returns a text such as "shed search: refused, as are 83% of calls".
func (e *Error) Error() string {
	percent := math.Round(100 * e.Share)
	if percent < 1 {
		return title(e.Name) + ": refused, as are less than 1% of calls"
	}
	return fmt.Sprintf("%s: refused, as are %.0f%% of calls", title(e.Name), percent)
}

// Is reports whether target is [ErrShed] or [resilience.ErrRefused].
func (e *Error) Is(target error) bool {
	return target == ErrShed || target == resilience.ErrRefused
}

// ErrorType returns "shed", the type of the error in logs and metrics.
func (e *Error) ErrorType() string { return "shed" }

func title(name string) string { return errtext.Title("shed", name) }
