package shed

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/effector-go/resilience/internal/outcome"
)

// Config says when a [Shedder] refuses calls. The zero Config is a good one.
type Config struct {
	// Name stands in errors and snapshots. Default none.
	Name string

	// K is how many calls may be made for each that the dependency accepts: with 2, it gets up to twice as many as it takes, so that it can be seen
	// when it takes more. Less is gentler to the dependency, and slower to see that it has recovered. At least 1, with which that is not seen at
	// all while calls keep coming; default 2.
	K float64

	// Window is how far the counts look back, in ten buckets: a call counts for at least nine tenths of it and at most the whole. At least 1 ms;
	// default 2 min.
	Window time.Duration

	// MaxShare is the most that is refused: the share of calls beyond it is made whatever the counts say, and finds out that the dependency has
	// recovered. Above 0, at most 1, which is the published form and finds it out late; default 0.9.
	MaxShare float64

	// Classify says what a call that came back tells of the dependency, by the caller's ctx and the call's error. It is not asked about
	// panics, nor about calls that a policy further in turned away. Default [DefaultClassify].
	Classify func(ctx context.Context, err error) Outcome
}

const (
	leastWindow = time.Millisecond
	maxShare    = 0.9
)

// Validate reports all mistakes of c at once, joined by [errors.Join], each naming the field, its value and the allowed range;
// nil if there is none.
func (c Config) Validate() error {
	var mistakes []error
	mistake := func(ok bool, field string, value any, must string) {
		if !ok {
			mistakes = append(mistakes, fmt.Errorf("%s: %s is %v, must be %s", title(c.Name), field, value, must))
		}
	}
	c = c.withDefaults()
	mistake(c.K >= 1 && c.K <= math.MaxFloat64, "K", c.K, "at least 1, or 0 for 2") // a NaN is in no range
	mistake(c.Window >= leastWindow, "Window", c.Window, "at least 1ms, or 0 for 2m")
	mistake(c.MaxShare > 0 && c.MaxShare <= 1, "MaxShare", c.MaxShare, "above 0 and at most 1, or 0 for 0.9")
	return errors.Join(mistakes...)
}

func (c Config) withDefaults() Config {
	if c.K == 0 {
		c.K = 2
	}
	if c.Window == 0 {
		c.Window = 2 * time.Minute
	}
	if c.MaxShare == 0 {
		c.MaxShare = maxShare
	}
	if c.Classify == nil {
		c.Classify = DefaultClassify
	}
	return c
}

// Outcome is what a call tells of the dependency.
type Outcome int

// The outcomes.
const (
	Accepted = Outcome(outcome.Success) // the dependency took the call and did its work
	Rejected = Outcome(outcome.Failure) // it did not
	Ignored  = Outcome(outcome.Ignored) // the call tells nothing, and counts nowhere
)

// String names the outcome: accepted, rejected, ignored.
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

// DefaultClassify is the Classify of a Config that has none: no error is accepted. Any error is ignored while the caller's own ctx.Err()
// is context.Canceled: the caller went away, and drivers return all sorts of errors then. Every other error is rejected, that of an
// expired deadline too.
func DefaultClassify(ctx context.Context, err error) Outcome { return Outcome(outcome.Of(ctx, err)) }
