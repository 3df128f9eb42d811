package adaptive

import (
	"context"
	"errors"
	"fmt"

	"github.com/effector-go/resilience/internal/concurrency"
	"github.com/effector-go/resilience/internal/outcome"
)

// Config configures a [Limiter]. The zero Config suits most dependencies.
type Config struct {
	// Name appears in errors and snapshots. Default: none.
	Name string

	// Initial is the limit until calls have shown more. A value that is too low costs little. One
	// that is too high is noticed late: the first round counts as calls that didn't queue, until
	// the first drain. From Min to Max. Default: 20, or the nearest value from Min to Max.
	Initial int
	// Min is the smallest limit. From 1 to Max. Default: 1.
	Min int
	// Max is the largest limit. From Min to 1,000,000. Default: 1000, or Min or Initial if larger.
	Max int

	// Algorithm finds the limit. Default: [Queue].
	Algorithm Algorithm

	// Priority returns how important a call is, from 0 (least) to 4 (most); values outside count as
	// the nearest. A call of priority p is admitted while fewer calls run than limit × (0.6 + 0.1
	// p), so that the least important calls are refused first. Default: 4 for all.
	Priority func(ctx context.Context) int

	// Classify decides, from the caller's context and the call's error, what a finished call shows
	// about the dependency. It isn't called for panics, nor for calls that an inner policy refused:
	// these are ignored. Default: [DefaultClassify].
	Classify func(ctx context.Context, err error) Outcome
}

// Algorithm is a way to find the limit.
type Algorithm int

// The algorithms.
const (
	// Queue is based on how long calls take. No call needs to fail: it sees the dependency's queue
	// as it grows, and keeps it at 2 to 6% of the limit. Where call times vary, it needs more calls
	// to see a queue, and keeps it below a third.
	Queue Algorithm = iota
	// AIMD is based on dropped calls. The limit grows by one with each round trip in which calls
	// met it and none was dropped. It shrinks by a tenth with a dropped call, once for all that ran
	// then. It suits dependencies that refuse calls rather than queue them.
	AIMD
)

// String returns the algorithm's name: queue or AIMD.
func (a Algorithm) String() string {
	switch a {
	case Queue:
		return "queue"
	case AIMD:
		return "AIMD"
	}
	return fmt.Sprintf("Algorithm(%d)", int(a))
}

// Outcome is what a finished call shows about the dependency.
type Outcome int

// The outcomes.
const (
	// Sample is a call that the dependency answered in the time it needs. The duration counts.
	Sample = Outcome(concurrency.Sample)
	// Drop is a call for which the dependency had no room. With Queue it counts only in a round in
	// which most calls are dropped, as one that would have taken at least as long: calls that fail
	// fast show nothing about a queue. If no call was ever answered, such a round halves the limit.
	Drop = Outcome(concurrency.Drop)
	// Ignored is a call that shows nothing.
	Ignored = Outcome(concurrency.Ignored)
)

// String returns the outcome's name: sample, drop, or ignored.
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

// DefaultClassify is the default of Config.Classify. It returns
//
//   - Sample if there is no error;
//   - Ignored for any error if the caller canceled its context: the caller went away;
//   - Drop for every other error, including an expired deadline.
//
// With AIMD that is too much for a dependency some of whose errors have nothing to do with its
// load: set a Classify that ignores these.
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

// Validate reports all invalid fields, joined by [errors.Join], each with its value and the allowed
// range. It returns nil if there is none.
func (c Config) Validate() error {
	var mistakes []error
	mistake := func(ok bool, field string, value any, must string) bool {
		if !ok {
			mistakes = append(mistakes, fmt.Errorf("%s: %s is %v, must be %s", title(c.Name), field, value, must))
		}
		return ok
	}
	inRange := func(field string, value, standard int) bool {
		must := fmt.Sprintf("1 to %d, or 0 for %d", concurrency.MaxLimit, standard)
		return mistake(value >= 0 && value <= concurrency.MaxLimit, field, value, must)
	}
	initial, least, most := inRange("Initial", c.Initial, defaultInitial), inRange("Min", c.Min, defaultMin), inRange("Max", c.Max, defaultMax)
	if full := c.withDefaults(); initial && least && most {
		if mistake(full.Min <= full.Max, "Min", c.Min, fmt.Sprintf("at most Max (%d)", full.Max)) {
			must := fmt.Sprintf("from Min (%d) to Max (%d)", full.Min, full.Max)
			mistake(full.Min <= full.Initial && full.Initial <= full.Max, "Initial", c.Initial, must)
		}
	}
	mistake(c.Algorithm == Queue || c.Algorithm == AIMD, "Algorithm", c.Algorithm, "Queue or AIMD")
	return errors.Join(mistakes...)
}

// withDefaults returns c with the defaults in the fields that are zero.
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
