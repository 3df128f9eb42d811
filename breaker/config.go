package breaker

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/effector-go/resilience/internal/outcome"
)

// Config decides when a breaker opens, for how long, and what closes it. The zero Config opens
// after 5 consecutive failures. Each rule that is set is enough to open the breaker.
type Config struct {
	// Name appears in errors, events, and snapshots. Default none.
	Name string

	// Consecutive opens the breaker after this many failures in a row. At least 1; 0 is off, but 5
	// if no rule is set.
	Consecutive int
	// Leaky opens the breaker when failures minus successes, never counted below zero, reach it:
	// the rule of the book Cloud Native Go. The count doesn't decrease with time. At least 1; 0 is
	// off.
	Leaky int
	// Failures opens the breaker after this many failures among the last LastCalls calls. 1 to
	// LastCalls; 0 is off.
	Failures int
	// LastCalls is the number of calls that Failures considers. 1 to 1,000,000, at 8 bytes each.
	LastCalls int
	// FailureRate opens the breaker at this share of failures among the calls that ended in Window.
	// Above 0, at most 1; 0 is off.
	FailureRate float64
	// SlowRate opens the breaker at this share of slow calls in Window. Above 0, at most 1; 0 is
	// off. A call is slow, whatever its outcome, if it took SlowCall or longer, or if it is still
	// running after SlowCall. A running call is noticed at the next call, up to an eighth of
	// SlowCall late.
	SlowRate float64
	// SlowCall is the duration from which a call is slow. Above 0; must be set together with
	// SlowRate.
	SlowCall time.Duration
	// Window is how far back FailureRate and SlowRate look. It is divided into ten buckets, so a
	// call counts for at least nine tenths of Window, and at most for all of it. At least 1 µs;
	// default 10 s.
	Window time.Duration
	// MinCalls is the number of calls that Window must hold before a rate is judged. At least 1;
	// default 20.
	MinCalls int

	// OpenFor is the first open time. Each consecutive opening doubles it. An opening is
	// consecutive if it follows a failed half-open period, or a closed period shorter than the
	// previous open time. Default 5 s.
	OpenFor time.Duration
	// MaxOpenFor is the upper bound of the doubled open time. It also bounds RetryAfter, by which
	// the failure that opens the breaker may extend the open time. At least OpenFor; default the
	// larger of OpenFor and 1 min.
	MaxOpenFor time.Duration
	// Jitter is the maximum share by which an open time is then lengthened at random, so that a
	// fleet doesn't probe in lockstep. 0 to 1; default 0.
	Jitter float64

	// Probes is the number of probes that may run concurrently while half-open. At least 1; default
	// 1.
	Probes int
	// ProbeSuccesses is the number of successful probes that closes the breaker, or begins its slow
	// start. At least Probes; default Probes.
	ProbeSuccesses int
	// ProbeFailures is the number of failed probes that opens the breaker again. At least 1;
	// default 1.
	ProbeFailures int
	// ProbeTimeout is the time after which a probe that hasn't finished counts as failed. With
	// SlowRate, it is the shorter of ProbeTimeout and SlowCall. Above 0; default 1 min.
	ProbeTimeout time.Duration
	// SlowStart is the time for which the breaker stays half-open after the probes have succeeded.
	// It admits a growing share of the calls: elapsed time / SlowStart, at least a tenth. While
	// fewer than Probes calls run, it admits a call whatever the share. It opens again by the rules
	// of a closed breaker, counted from the beginning of the slow start. Otherwise it closes at the
	// end of this time. Above 0; default 0: the successful probes close the breaker.
	SlowStart time.Duration

	// DryRun makes the breaker count calls, change state, and report transitions, but never refuse
	// a call, even when forced open. Use it to try a Config in production.
	DryRun bool
	// Classify decides, from the caller's context and the call's error, whether a finished call
	// counts as Success, Failure, or Ignored. It decides alone, also about errors that are marked as
	// [resilience.NotFailure] or [resilience.Contention]. It is not called for panics, for errors
	// that are marked as [resilience.CallerFault], or for calls that an inner policy refused.
	// Default [DefaultClassify].
	Classify func(ctx context.Context, err error) Outcome
	// OnStateChange is called once for every transition, in order, never concurrently, and never
	// with a lock held. It runs on the goroutine that made the transition (a timer's goroutine at
	// the end of the open time), or on one that is still delivering an earlier transition. It may
	// call the breaker; transitions that this causes are delivered after it returns. If it panics,
	// the panic continues on that goroutine, and later transitions are still delivered.
	OnStateChange func(Transition)
}

const maxLastCalls = 1_000_000

// Validate returns an error that lists every invalid field of c with its value and range, or nil if
// there is none.
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
	share := func(field string, v float64) { // NaN is outside every range
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
	mistake(c.SlowStart >= 0, "SlowStart", c.SlowStart, "positive, or 0 for none")
	return errors.Join(mistakes...)
}

// withDefaults returns c with the defaults of all zero fields, except functions.
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
	return c
}

func orDefault[N int | time.Duration](field *N, value N) {
	if *field == 0 {
		*field = value
	}
}

// openTime returns the open time of the given consecutive opening, caused by a failure that asked
// for retryAfter.
func (c *Config) openTime(openings int, retryAfter time.Duration, random float64) time.Duration {
	d := c.MaxOpenFor
	if shift := openings - 1; c.OpenFor <= c.MaxOpenFor>>shift { // after many openings, the right side is 0
		d = c.OpenFor << shift
	}
	d = max(d, min(retryAfter, c.MaxOpenFor))
	longer := float64(d) * c.Jitter * random
	if longer >= float64(math.MaxInt64-d) {
		return math.MaxInt64
	}
	return d + time.Duration(longer)
}

// Outcome is what a call says about the dependency.
type Outcome int

// The outcomes of a call.
const (
	Success = Outcome(outcome.Success) // the dependency worked
	Failure = Outcome(outcome.Failure) // the dependency failed
	Ignored = Outcome(outcome.Ignored) // neither; a probe gives its permit back
)

// canceled is the outcome of a call that counts as never made: like Ignored, and never slow.
const canceled Outcome = -1

// String returns "success", "failure", or "ignored".
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

// MarshalText returns the text of String.
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// DefaultClassify is used if a Config has no Classify:
//
//   - A nil error is a success, and so is an error that is marked as [resilience.NotFailure] or
//     [resilience.Contention], even if the caller has gone away.
//   - An error that is marked as [resilience.CallerFault] is ignored. (A breaker doesn't call
//     Classify with it.)
//   - Any other error is ignored if the caller's ctx.Err() is [context.Canceled]: the caller has
//     gone away, and drivers return all sorts of errors then.
//   - Every other error is a failure, including an expired deadline.
func DefaultClassify(ctx context.Context, err error) Outcome { return Outcome(outcome.Of(ctx, err)) }
