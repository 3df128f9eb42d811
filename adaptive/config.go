package adaptive

import (
	"context"
	"errors"
	"fmt"

	"github.com/effector-go/resilience/internal/concurrency"
	"github.com/effector-go/resilience/internal/outcome"
)

// Config says how a [Limiter] finds its limit. The zero Config is good for most.
type Config struct {
	// Name stands in errors and snapshots. Default none.
	Name string

	// Initial is the limit until calls have told more. One that is too high is found out late: the first round is taken for what a call takes that does
	// not queue, until the limit is first halved; one that is too low costs less. From Min to Max; default 20, or the nearest to it from Min to Max.
	Initial int
	// Min is the least that the limit becomes. From 1 to Max; default 1.
	Min int
	// Max is the most that the limit becomes. From Min to 1,000,000; default 1000, or Min or Initial if that is larger.
	Max int

	// Algorithm is how the limit is found. Default [Queue].
	Algorithm Algorithm

	// Priority is how important a call is, from 0 (least) to 4 (most); what is below or above counts as these. A call of priority p is admitted while fewer
	// calls run than limit × (0.6 + 0.1 p), so that the least important ones are refused first. Default 4 for all.
	Priority func(ctx context.Context) int

	// Classify says what a call that came back tells of the dependency, by the caller's ctx and the call's error. It is not asked about panics, nor about
	// calls that a policy further in turned away: these are ignored. Default [DefaultClassify].
	Classify func(ctx context.Context, err error) Outcome
}

// Algorithm is a way to find the limit.
type Algorithm int

// The algorithms.
const (
	// Queue goes by how long calls take. It needs no call to fail: it sees the dependency's queue as it grows, and holds it at 2 to 6 % of the limit.
	Queue Algorithm = iota
	// AIMD goes by calls that are dropped: the limit grows by one with each round trip in which calls met it and none was dropped, and falls by a tenth with
	// a dropped one, once for all that ran then. For dependencies that refuse rather than queue.
	AIMD
)

// String names the algorithm: queue, AIMD.
func (a Algorithm) String() string {
	switch a {
	case Queue:
		return "queue"
	case AIMD:
		return "AIMD"
	}
	return fmt.Sprintf("Algorithm(%d)", int(a))
}

// Outcome is what a call tells of the dependency.
type Outcome int

// The outcomes.
const (
	// Sample is a call that the dependency answered in the time it needs: how long it took counts.
	Sample = Outcome(concurrency.Sample)
	// Drop is a call for which the dependency had no room. With Queue it counts only where most calls are dropped, as one that would have taken so long or
	// longer: calls that fail fast tell nothing of a queue.
	Drop = Outcome(concurrency.Drop)
	// Ignored is a call that tells nothing.
	Ignored = Outcome(concurrency.Ignored)
)

// String names the outcome: sample, drop, ignored.
func (o Outcome) String() string {
	switch o {
	case Sample:
		return "sample"
	case Drop:
		return "drop"
	case Ignored:
		return "ignored"
	}
	return fmt.Sprintf("Outcome(%d)", int(o))
}

// DefaultClassify is the Classify of a Config that has none. No error is a sample. Any error is ignored while the caller's own ctx.Err() is
// context.Canceled: the caller went away. Every other error is a drop, that of an expired deadline too.
//
// With AIMD that is too much for a dependency some of whose errors have nothing to do with its load: give a Classify that ignores these.
func DefaultClassify(ctx context.Context, err error) Outcome {
	switch outcome.Of(ctx, err) {
	case outcome.Success:
		return Sample
	case outcome.Failure:
		return Drop
	}
	return Ignored
}

// The defaults.
const (
	defaultInitial = 20
	defaultMin     = 1
	defaultMax     = 1000
)

// Validate reports all mistakes of c at once, joined by [errors.Join], each naming the field, its value and the allowed range;
// nil if there is none.
func (c Config) Validate() error {
	var mistakes []error
	mistake := func(ok bool, field string, value any, must string) bool {
		if !ok {
			mistakes = append(mistakes, fmt.Errorf("%s: %s is %v, must be %s", title(c.Name), field, value, must))
		}
		return ok
	}
	inRange := func(field string, value, standard int) bool {
		return mistake(value >= 0 && value <= concurrency.MaxLimit, field, value, fmt.Sprintf("1 to %d, or 0 for %d", concurrency.MaxLimit, standard))
	}
	initial, least, most := inRange("Initial", c.Initial, defaultInitial), inRange("Min", c.Min, defaultMin), inRange("Max", c.Max, defaultMax)
	if full := c.withDefaults(); initial && least && most {
		if mistake(full.Min <= full.Max, "Min", c.Min, fmt.Sprintf("at most Max (%d)", full.Max)) {
			mistake(full.Min <= full.Initial && full.Initial <= full.Max, "Initial", c.Initial, fmt.Sprintf("from Min (%d) to Max (%d)", full.Min, full.Max))
		}
	}
	mistake(c.Algorithm == Queue || c.Algorithm == AIMD, "Algorithm", c.Algorithm, "Queue or AIMD")
	return errors.Join(mistakes...)
}

// withDefaults fills in the defaults of the fields that are zero.
func (c Config) withDefaults() Config {
	if c.Min == 0 {
		c.Min = defaultMin
	}
	if c.Max == 0 {
		c.Max = max(defaultMax, c.Min, c.Initial)
	}
	if c.Initial == 0 {
		c.Initial = max(c.Min, min(defaultInitial, c.Max))
	}
	if c.Classify == nil {
		c.Classify = DefaultClassify
	}
	return c
}
