package shed

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/effector-go/resilience/internal/outcome"
)

// Config configures a [Shedder]. The zero Config is a good choice.
type Config struct {
	// Name appears in errors and snapshots. Default: none.
	Name string

	// K is how many calls are made for each one that the dependency accepts. With a K of 2 it
	// receives up to twice as many calls as it accepts, so that the shedder notices when it can
	// accept more. A smaller K is gentler to the dependency and slower to notice its recovery; with
	// a K of 1, recovery isn't noticed at all while calls keep coming. At least 1; default 2.
	K float64

	// Window is how far back calls are counted, in ten buckets: a call counts for at least nine
	// tenths of Window and at most all of it. At least 1 ms; default 2 min.
	Window time.Duration

	// MaxShare is the largest share of calls that is refused. The remaining calls are made whatever
	// the counts are, which reveals that the dependency has recovered. Above 0 and at most 1, which
	// is the published form and reveals it late; default 0.9.
	MaxShare float64

	// Classify decides, from the caller's context and the call's error, whether a finished call was
	// [Accepted] or [Rejected] by the dependency, or is [Ignored]. It isn't called for panics, for
	// calls that an inner policy refused, or for an error that is marked with
	// [resilience.CallerFault]. An error with another mark is passed as it is, and Classify decides
	// alone. Default [DefaultClassify].
	Classify func(ctx context.Context, err error) Outcome
}

const (
	minWindow       = time.Millisecond
	defaultMaxShare = 0.9
)

// Validate reports all invalid fields of c, joined by [errors.Join]. Each error names the field,
// its value, and the allowed range. Validate returns nil if c is valid.
func (c Config) Validate() error {
	var mistakes []error
	mistake := func(ok bool, field string, value any, must string) {
		if !ok {
			mistakes = append(mistakes, fmt.Errorf("%s: %s is %v, must be %s", title(c.Name), field, value, must))
		}
	}
	c = c.withDefaults()
	mistake(c.K >= 1 && c.K <= math.MaxFloat64, "K", c.K, "at least 1, or 0 for 2") // false for NaN
	mistake(c.Window >= minWindow, "Window", c.Window, "at least 1ms, or 0 for 2m")
	mistake(c.MaxShare > 0 && c.MaxShare <= 1, "MaxShare", c.MaxShare, "above 0 and at most 1, or 0 for 0.9")
	return errors.Join(mistakes...)
}

// withDefaults returns c with defaults filled in, except Classify: a nil one means DefaultClassify.
func (c Config) withDefaults() Config {
	if c.K == 0 {
		c.K = 2
	}
	if c.Window == 0 {
		c.Window = 2 * time.Minute
	}
	if c.MaxShare == 0 {
		c.MaxShare = defaultMaxShare
	}
	return c
}

// Outcome is what a finished call says about the dependency.
type Outcome int

// The outcomes.
const (
	Accepted = Outcome(outcome.Success) // the dependency took the call and did its work
	Rejected = Outcome(outcome.Failure) // it did not
	Ignored  = Outcome(outcome.Ignored) // the call says nothing, and isn't counted
)

// String returns the outcome's name: accepted, rejected, or ignored.
func (o Outcome) String() string {
	switch o {
	case Accepted:
		return "accepted"
	case Rejected:
		return "rejected"
	case Ignored:
		return "ignored"
	}
	return fmt.Sprintf("Outcome(%d)", int(o))
}

// MarshalText returns the outcome's name, as String does.
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// DefaultClassify is the default of Config.Classify. It decides as follows, by the first rule that
// applies:
//
//   - A call without an error is accepted, and so is one whose error is marked with
//     [resilience.NotFailure] or [resilience.Contention], even if the caller has left.
//   - An error that is marked with [resilience.CallerFault] is ignored.
//   - Any error is ignored if the caller's own ctx.Err() is context.Canceled: the caller has left,
//     and drivers return all kinds of errors then.
//   - Every other error is rejected, including that of an expired deadline.
//
// Only outer marks count: an error that wraps a marked error isn't marked.
func DefaultClassify(ctx context.Context, err error) Outcome { return Outcome(outcome.Of(ctx, err)) }
