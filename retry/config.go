package retry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/internal/clock"
	"github.com/effector-go/resilience/internal/errtext"
)

// Unlimited as MaxAttempts allows any number of attempts.
const Unlimited = -1

// Config configures a [Retry]. The zero Config makes up to three attempts.
type Config struct {
	// Name appears in errors and events.
	Name string

	// MaxAttempts is the maximum number of attempts, including the first. Default 3; [Unlimited]
	// for no limit.
	MaxAttempts int

	// MaxElapsed is how long after the first failure an attempt may begin. (Backoff v4 counts from
	// the start of the call instead.) Default no limit: to limit the whole call, use the context's
	// deadline or an outer timeout.
	MaxElapsed time.Duration

	// MaxRetryAfter is the longest RetryAfter of an error that is waited for. A longer one isn't
	// shortened: it ends retrying. Default 1 min.
	MaxRetryAfter time.Duration

	// ResetAfter, if set, is for attempts that last, such as the sessions of a stream that is
	// reconnected: an attempt that fails after running for at least this time is the first failure
	// of a new series. The schedule, the attempts (also [Attempt]), and MaxElapsed then start over;
	// Budget continues. The time includes waits in inner policies.
	//
	// Set it longer than any limit of an attempt. Otherwise, a host that hangs is retried forever.
	// Default never.
	ResetAfter time.Duration

	// Backoff creates the schedule of the waits: one of this package, or any of backoff v4. It is
	// called once for each call that fails at least once. The schedule is reset before its first
	// delay, and at the beginning of a new series (see ResetAfter); a negative delay (v4's Stop)
	// ends retrying. Default FullJitter(100*time.Millisecond, 10*time.Second).
	Backoff func() backoff.BackOff

	// RetryIf, if set, reports whether to retry an error that would otherwise be retried. It
	// narrows and never widens: it isn't called with a permanent error, with an error marked as
	// NotFailure or CallerFault, with an error of a call that must not be repeated, or with the
	// error of the last attempt.
	RetryIf func(error) bool

	// RetryRefused also retries runs that an inner policy, such as an open breaker, refused.
	// Refused runs don't count as attempts, so MaxElapsed must be set.
	RetryRefused bool

	// Budget, if set, must have a token for every attempt after the first. It is checked last, but
	// before the wait: the token is spent even if the context ends during the wait. Share one
	// budget among all callers of the same dependency.
	Budget *budget.Budget

	// OnRetry, if set, is called when another attempt has been decided on, before the wait, on the
	// call's goroutine, with the policy's context. It announces retries and doesn't count them: the
	// retry may still be refused or canceled. If the context ends while OnRetry runs, no run
	// follows.
	OnRetry func(ctx context.Context, e Event)

	// OnGiveUp, if set, is called with every ExhaustedError that this policy returns, once,
	// immediately before it is returned, on the call's goroutine, with the policy's context. It
	// isn't called if the call returns another error.
	OnGiveUp func(ctx context.Context, err *ExhaustedError)
}

const (
	defaultMaxAttempts   = 3
	defaultMaxRetryAfter = time.Minute
)

var defaultBackoff = FullJitter(100*time.Millisecond, 10*time.Second)

// Validate reports all errors in the Config together. It returns nil if there are none.
func (c Config) Validate() error {
	var errs []error
	invalid := func(format string, args ...any) {
		errs = append(errs, errors.New(prefix(c.Name)+fmt.Sprintf(format, args...)))
	}
	if c.MaxAttempts < Unlimited {
		invalid("MaxAttempts is %d, must be positive, 0 for the default %d or Unlimited (%d)",
			c.MaxAttempts, defaultMaxAttempts, Unlimited)
	}
	if c.MaxElapsed < 0 {
		invalid("MaxElapsed is %v, must be positive, or 0 for no limit", c.MaxElapsed)
	}
	if c.MaxRetryAfter < 0 {
		invalid("MaxRetryAfter is %v, must be positive, or 0 for the default %v", c.MaxRetryAfter, defaultMaxRetryAfter)
	}
	if c.ResetAfter < 0 {
		invalid("ResetAfter is %v, must be positive, or 0 for never", c.ResetAfter)
	}
	if c.RetryRefused && c.MaxElapsed == 0 {
		invalid("RetryRefused is true and MaxElapsed is 0: MaxElapsed must be positive, because refusals don't count as attempts")
	}
	return errors.Join(errs...)
}

// withDefaults fills in the defaults, except that of Backoff: see newSchedule.
func (c Config) withDefaults() Config {
	if c.MaxAttempts == 0 {
		c.MaxAttempts = defaultMaxAttempts
	}
	if c.MaxRetryAfter == 0 {
		c.MaxRetryAfter = defaultMaxRetryAfter
	}
	return c
}

// newSchedule creates a schedule for one call.
func (c *Config) newSchedule() backoff.BackOff {
	if c.Backoff == nil {
		return defaultBackoff()
	}
	schedule := c.Backoff()
	if schedule == nil {
		panic(prefix(c.Name) + "Backoff returned nil, must return a backoff.BackOff")
	}
	return schedule
}

// now returns the time of package clock at which an attempt begins, or 0 if it isn't needed.
func (c *Config) now() int64 {
	if c.ResetAfter == 0 {
		return 0
	}
	return clock.Now()
}

// prefix returns the beginning of every message of the policy.
func prefix(name string) string { return errtext.Title("retry", name) + ": " }
