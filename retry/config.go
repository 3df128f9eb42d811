package retry

import (
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/internal/errtext"
)

// Unlimited as MaxAttempts sets no limit to the number of attempts.
const Unlimited = -1

// Config says what a [Retry] does. The zero Config makes three attempts.
type Config struct {
	// Name stands in errors and events.
	Name string

	// MaxAttempts is how often the call is made at most, the first time included. Default 3; [Unlimited] for no limit.
	MaxAttempts int

	// MaxElapsed is how long after the first failure an attempt may begin. Backoff v4 counts from the start of
	// the call instead. Default no limit: the limit of the whole call is the task of ctx or of a timeout further out.
	MaxElapsed time.Duration

	// MaxRetryAfter is the longest RetryAfter of an error that is waited for. A longer one is not cut but ends the retrying.
	// Default 1 min.
	MaxRetryAfter time.Duration

	// Backoff makes the schedule of the waits, anew for each call that has failed once: one of this package, or any of
	// backoff v4. It is reset once before its first delay; a negative delay (v4's Stop) ends the retrying. Default
	// FullJitter(100*time.Millisecond, 10*time.Second).
	Backoff func() backoff.BackOff

	// RetryIf, if set, is asked whether to retry an error that would be retried else: not about a permanent one, one of a
	// call that must not be repeated, or that of the last attempt. It narrows and never widens.
	RetryIf func(error) bool

	// RetryRefused has also those runs repeated in which a policy further in, an open breaker say, turned the call away. They do not count
	// as attempts, so MaxElapsed must be set.
	RetryRefused bool

	// Budget, if set, must yield a token for every attempt after the first. It is asked last, but before the
	// wait: the token is spent if ctx ends meanwhile. Share one among all that call the same dependency.
	Budget *budget.Budget

	// OnRetry, if set, is called when another attempt has been decided on, before the wait, on the goroutine of the call.
	OnRetry func(Event)
}

const (
	defaultMaxAttempts   = 3
	defaultMaxRetryAfter = time.Minute
)

var defaultBackoff = FullJitter(100*time.Millisecond, 10*time.Second)

// Validate reports every mistake in the Config, nil if there is none.
func (c Config) Validate() error {
	var mistakes []error
	mistake := func(format string, args ...any) {
		mistakes = append(mistakes, errors.New(text(c.Name)+fmt.Sprintf(format, args...)))
	}
	if c.MaxAttempts < Unlimited {
		mistake("MaxAttempts is %d, must be positive, 0 for the default %d or Unlimited (%d)", c.MaxAttempts, defaultMaxAttempts, Unlimited)
	}
	if c.MaxElapsed < 0 {
		mistake("MaxElapsed is %v, must be positive, or 0 for no limit", c.MaxElapsed)
	}
	if c.MaxRetryAfter < 0 {
		mistake("MaxRetryAfter is %v, must be positive, or 0 for the default %v", c.MaxRetryAfter, defaultMaxRetryAfter)
	}
	if c.RetryRefused && c.MaxElapsed == 0 {
		mistake("RetryRefused is true and MaxElapsed is 0: MaxElapsed must be positive, since refusals do not count as attempts")
	}
	return errors.Join(mistakes...)
}

func (c Config) withDefaults() Config {
	if c.MaxAttempts == 0 {
		c.MaxAttempts = defaultMaxAttempts
	}
	if c.MaxRetryAfter == 0 {
		c.MaxRetryAfter = defaultMaxRetryAfter
	}
	if c.Backoff == nil {
		c.Backoff = defaultBackoff
	}
	return c
}

// text is what messages begin with.
func text(name string) string { return errtext.Title("retry", name) + ": " }
