package breaker

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/effector-go/resilience/internal/outcome"
)

// Config says when a breaker opens, for how long, and what closes it. The zero Config opens after 5 failures in a row.
// Each rule that is set is enough by itself to open it.
type Config struct {
	// Name stands in errors, events and snapshots. Default none.
	Name string

	// Consecutive opens after so many failures in a row. At least 1; 0 is off, but 5 if no rule is set.
	Consecutive int
	// Leaky opens when failures less successes, never counted below zero, reach it: the form of the book Cloud Native Go.
	// Nothing leaks with time. At least 1; 0 is off.
	Leaky int
	// Failures opens at so many failures among the last LastCalls calls. 1 to LastCalls; 0 is off.
	Failures int
	// LastCalls is how many calls Failures looks back. 1 to 1,000,000, 8 bytes each.
	LastCalls int
	// FailureRate opens at this share of failures among the calls that ended in Window. Above 0, at most 1; 0 is off.
	FailureRate float64
	// SlowRate opens at this share of slow calls in Window: those that took SlowCall or longer, whatever their outcome, and
	// those that still run after SlowCall (noticed at the next call, up to an eighth of SlowCall late). Above 0, at most 1; 0
	// is off.
	SlowRate float64
	// SlowCall is how long a slow call takes. Above 0, and set together with SlowRate.
	SlowCall time.Duration
	// Window is how far FailureRate and SlowRate look back, in ten buckets: a call counts for at least nine tenths of it and at
	// most the whole. At least 1 µs; default 10 s.
	Window time.Duration
	// MinCalls is how many calls Window must hold before a rate is judged. At least 1; default 20.
	MinCalls int

	// OpenFor is the first open time. It doubles with every opening in a row, which is one after a failed half-open, or after a
	// closed phase that was shorter than the open time before it. Default 5 s.
	OpenFor time.Duration
	// MaxOpenFor bounds the doubled open time, and the RetryAfter of the failure that opened the breaker, which extends it. At
	// least OpenFor; default the larger of OpenFor and 1 min.
	MaxOpenFor time.Duration
	// Jitter is the share by which an open time is then lengthened at random, so that a fleet does not probe in step. 0 to 1;
	// default 0.
	Jitter float64

	// Probes is how many probes may run at a time when half-open. At least 1; default 1.
	Probes int
	// ProbeSuccesses is how many successful probes close the breaker. At least Probes; default Probes.
	ProbeSuccesses int
	// ProbeFailures is how many failed probes open it again. At least 1; default 1.
	ProbeFailures int
	// ProbeTimeout is after how long a probe without a result has failed; with SlowRate the shorter of it and SlowCall. Above
	// 0; default 1 min.
	ProbeTimeout time.Duration

	// DryRun counts, changes state and tells, but refuses nothing, even when forced open: to try a Config in production.
	DryRun bool
	// Classify says what a call that came back tells of the dependency, by the caller's ctx and the call's error. It is not
	// asked about panics, nor about calls that a policy further in turned away. Default [DefaultClassify].
	Classify func(ctx context.Context, err error) Outcome
	// OnStateChange hears every transition once, in order, never under a lock, one at a time, on the goroutine that made the
	// transition (a timer's, for the end of the open time) or on one that still delivers an earlier one. It may call the breaker;
	// what that causes is delivered after it returns. A panic in it passes to that goroutine; later transitions are still
	// delivered.
	OnStateChange func(Transition)
}

const maxLastCalls = 1_000_000

// Validate reports all mistakes of c at once, each with its field, value and range; nil if there are none.
func (c Config) Validate() error {
	var mistakes []error
	mistake := func(ok bool, field string, value any, must string) {
		if !ok {
			mistakes = append(mistakes, fmt.Errorf("%s: %s is %v, must be %s", title(c.Name), field, value, must))
		}
	}
	atLeastZero := func(field string, value int) { mistake(value >= 0, field, value, "at least 1, or 0 for the default") }
	positive := func(field string, d time.Duration) {
		mistake(d >= 0, field, d, "positive, or 0 for the default")
	}
	share := func(field string, v float64) { // a NaN is in no range
		mistake(v >= 0 && v <= 1, field, v, "above 0 and at most 1, or 0 for none")
	}

	mistake(c.Consecutive >= 0, "Consecutive", c.Consecutive, "at least 1, or 0 for off")
	mistake(c.Leaky >= 0, "Leaky", c.Leaky, "at least 1, or 0 for off")
	mistake(c.LastCalls >= 0 && c.LastCalls <= maxLastCalls, "LastCalls", c.LastCalls, "1 to 1000000, or 0 for off")
	switch {
	case c.Failures < 0:
		mistake(false, "Failures", c.Failures, "1 to LastCalls, or 0 for off")
	case c.LastCalls > 0 && c.Failures > c.LastCalls:
		mistake(false, "Failures", c.Failures, fmt.Sprintf("1 to LastCalls (%d), or 0 for off", c.LastCalls))
	case c.Failures > 0:
		mistake(c.LastCalls != 0, "LastCalls", c.LastCalls, "set with Failures, 1 to 1000000")
	case c.LastCalls > 0:
		mistake(false, "Failures", c.Failures, "set with LastCalls, 1 to LastCalls")
	}
	share("FailureRate", c.FailureRate)
	share("SlowRate", c.SlowRate)
	switch {
	case c.SlowCall < 0 || c.SlowRate > 0 && c.SlowCall == 0:
		mistake(false, "SlowCall", c.SlowCall, "positive with SlowRate")
	case c.SlowCall > 0:
		mistake(c.SlowRate != 0, "SlowRate", c.SlowRate, "set with SlowCall, above 0 and at most 1")
	}
	mistake(c.Window == 0 || c.Window >= time.Microsecond, "Window", c.Window, "at least 1µs, or 0 for 10s")
	atLeastZero("MinCalls", c.MinCalls)
	positive("OpenFor", c.OpenFor)
	positive("MaxOpenFor", c.MaxOpenFor)
	if full := c.withDefaults(); c.MaxOpenFor > 0 && c.MaxOpenFor < full.OpenFor {
		mistake(false, "MaxOpenFor", c.MaxOpenFor, fmt.Sprintf("at least OpenFor (%v)", full.OpenFor))
	}
	mistake(c.Jitter >= 0 && c.Jitter <= 1, "Jitter", c.Jitter, "0 to 1")
	atLeastZero("Probes", c.Probes)
	atLeastZero("ProbeSuccesses", c.ProbeSuccesses)
	if full := c.withDefaults(); c.ProbeSuccesses > 0 && c.ProbeSuccesses < full.Probes {
		mistake(false, "ProbeSuccesses", c.ProbeSuccesses, fmt.Sprintf("at least Probes (%d)", full.Probes))
	}
	atLeastZero("ProbeFailures", c.ProbeFailures)
	positive("ProbeTimeout", c.ProbeTimeout)
	return errors.Join(mistakes...)
}

// withDefaults fills in the defaults of the fields that are zero.
func (c Config) withDefaults() Config {
	if c.Consecutive == 0 && c.Leaky == 0 && c.Failures == 0 && c.FailureRate == 0 && c.SlowRate == 0 {
		c.Consecutive = 5
	}
	orDefault(&c.Window, 10*time.Second)
	orDefault(&c.MinCalls, 20)
	orDefault(&c.OpenFor, 5*time.Second)
	orDefault(&c.MaxOpenFor, max(c.OpenFor, time.Minute))
	orDefault(&c.Probes, 1)
	orDefault(&c.ProbeSuccesses, c.Probes)
	orDefault(&c.ProbeFailures, 1)
	orDefault(&c.ProbeTimeout, time.Minute)
	if c.Classify == nil {
		c.Classify = DefaultClassify
	}
	return c
}

func orDefault[N int | time.Duration](field *N, value N) {
	if *field == 0 {
		*field = value
	}
}

// openTime is how long the breaker stays open at the given opening in a row, after a failure that asked for retryAfter.
func (c *Config) openTime(openings int, retryAfter time.Duration, random float64) time.Duration {
	d := c.MaxOpenFor
	if shift := openings - 1; shift < 63 && c.OpenFor <= c.MaxOpenFor>>shift {
		d = c.OpenFor << shift
	}
	d = max(d, min(retryAfter, c.MaxOpenFor))
	longer := float64(d) * c.Jitter * random
	if longer >= float64(math.MaxInt64-d) {
		return math.MaxInt64
	}
	return d + time.Duration(longer)
}

// Outcome is what a call tells of the dependency.
type Outcome int

// The outcomes.
const (
	Success = Outcome(outcome.Success) // the dependency did its work
	Failure = Outcome(outcome.Failure) // it did not
	Ignored = Outcome(outcome.Ignored) // the call tells nothing: a probe's place is given back
)

const cancelled Outcome = -1 // by Permit.Cancel: it tells nothing, nor is it slow

// String names the outcome: success, failure, ignored.
func (o Outcome) String() string {
	switch o {
	case Success:
		return "success"
	case Failure:
		return "failure"
	case Ignored:
		return "ignored"
	}
	return fmt.Sprintf("Outcome(%d)", int(o))
}

// DefaultClassify is the Classify of a Config that has none. No error is a success. Any error is ignored while the caller's
// own ctx.Err() is context.Canceled: the caller went away, and drivers return all sorts of errors then. Every other
// error is a failure, that of an expired deadline too.
func DefaultClassify(ctx context.Context, err error) Outcome { return Outcome(outcome.Of(ctx, err)) }
