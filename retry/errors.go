package retry

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/effector-go/resilience/internal/errtext"
)

// A Reason states why retrying ended.
type Reason int

const (
	ReasonAttempts   Reason = iota + 1 // all MaxAttempts were made
	ReasonElapsed                      // the next attempt would begin beyond MaxElapsed
	ReasonDeadline                     // the wait would outlast the context's deadline; not started
	ReasonRetryAfter                   // the error's RetryAfter exceeds MaxRetryAfter
	ReasonBudget                       // the budget is empty
	ReasonSchedule                     // the schedule stopped
	ReasonRefused                      // an inner policy refused the call after attempts were made
	ReasonContext                      // the context ended while waiting
)

var reasons = [...]string{
	ReasonAttempts:   "attempts used up",
	ReasonElapsed:    "elapsed time used up",
	ReasonDeadline:   "deadline too near",
	ReasonRetryAfter: "retry-after too long",
	ReasonBudget:     "budget empty",
	ReasonSchedule:   "schedule stopped",
	ReasonRefused:    "refused",
	ReasonContext:    "context ended",
}

// String returns the reason in at most three words.
func (r Reason) String() string {
	if r < ReasonAttempts || int(r) >= len(reasons) {
		return fmt.Sprintf("Reason(%d)", int(r))
	}
	return reasons[r]
}

// MarshalText returns String, so that structured logs contain the text.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// An ExhaustedError is returned when a call has failed and won't be retried any further. It unwraps
// to Err and to what ended retrying:
//
//   - the refusal, if an inner policy refused the call after attempts that were made;
//   - [context.DeadlineExceeded] for ReasonDeadline;
//   - the context's error and its cause for ReasonContext.
//
// With Config.ResetAfter, Attempts and Elapsed are those of the last series. Attempts is 0 only if
// the whole call made no attempt.
//
// An ExhaustedError isn't marked, whatever the marks of Err: outer policies treat it as a failure.
type ExhaustedError struct {
	Name     string        // of the policy
	Attempts int           // number of attempts that were made
	Elapsed  time.Duration // since the first failure
	Reason   Reason
	Err      error // of the last attempt that was made; the last refusal if none was made

	wait    time.Duration // the wait that was too long, for the text
	refusal error         // the refusal that ended retrying after attempts that were made
	cause   error         // the context's error
}

// Error returns a text that begins with the package and the policy's name and ends with Err.
func (e *ExhaustedError) Error() string {
	var b strings.Builder
	b.WriteString(prefix(e.Name))
	switch e.Attempts {
	case 0:
		b.WriteString("gave up before the first attempt")
	case 1:
		b.WriteString("gave up after 1 attempt")
	default:
		fmt.Fprintf(&b, "gave up after %d attempts", e.Attempts)
	}
	b.WriteString(e.why())
	if e.refusal != nil && e.Reason != ReasonRefused {
		fmt.Fprintf(&b, ", refused (%v)", e.refusal)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

func (e *ExhaustedError) why() string {
	switch e.Reason {
	case ReasonAttempts:
		return ""
	case ReasonElapsed:
		return fmt.Sprintf(" and %v, a wait of %v would be too long", errtext.Round(e.Elapsed), errtext.Round(e.wait))
	case ReasonDeadline:
		return fmt.Sprintf(", a wait of %v would outlast the deadline", errtext.Round(e.wait))
	case ReasonRetryAfter:
		return fmt.Sprintf(", asked to wait %v, which is too long", errtext.Round(e.wait))
	case ReasonBudget:
		return ", the retry budget is empty"
	case ReasonSchedule:
		return ", the schedule stopped"
	case ReasonRefused:
		if e.refusal != nil {
			return fmt.Sprintf(", then refused (%v)", e.refusal)
		}
	case ReasonContext:
		if e.cause != nil {
			return fmt.Sprintf(", %v while waiting", e.cause)
		}
	}
	return ", " + e.Reason.String()
}

// Unwrap returns Err and what ended retrying.
func (e *ExhaustedError) Unwrap() []error {
	errs := make([]error, 0, 3)
	for _, err := range [...]error{e.Err, e.refusal, e.cause} {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// ErrorType returns "retry_exhausted", the type of the error in logs and metrics.
func (e *ExhaustedError) ErrorType() string { return "retry_exhausted" }

// Timeout reports whether one of the errors that e unwraps to reports a timeout.
func (e *ExhaustedError) Timeout() bool {
	return errors.Is(e, context.DeadlineExceeded) || anyTimeout(e.Unwrap()...)
}

// anyTimeout reports whether an error in one of the trees has a Timeout method that returns true.
// errors.As isn't enough: it stops at the first error that has the method.
func anyTimeout(errs ...error) bool {
	for _, err := range errs {
		if e, ok := err.(interface{ Timeout() bool }); ok && e.Timeout() {
			return true
		}
		switch parent := err.(type) {
		case interface{ Unwrap() error }:
			if anyTimeout(parent.Unwrap()) {
				return true
			}
		case interface{ Unwrap() []error }:
			if anyTimeout(parent.Unwrap()...) {
				return true
			}
		}
	}
	return false
}
