package retry

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/effector-go/resilience/internal/errtext"
)

// A Reason is why the retrying ended.
type Reason int

const (
	ReasonAttempts   Reason = iota + 1 // MaxAttempts are used up
	ReasonElapsed                      // the next attempt would begin later than MaxElapsed after the first failure
	ReasonDeadline                     // the wait would outlast the deadline of ctx; it was not begun
	ReasonRetryAfter                   // the error's RetryAfter is beyond MaxRetryAfter
	ReasonBudget                       // the budget is empty
	ReasonSchedule                     // the schedule stopped
	ReasonRefused                      // a policy further in refused the call after attempts that were made
	ReasonContext                      // ctx ended while waiting
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

// String is the reason in two or three words.
func (r Reason) String() string {
	if r < ReasonAttempts || int(r) >= len(reasons) {
		return fmt.Sprintf("Reason(%d)", int(r))
	}
	return reasons[r]
}

// An ExhaustedError is what a call ends with that failed and may not be retried any more. It unwraps to Err and to what
// ended the retrying: the refusal; [context.DeadlineExceeded] for ReasonDeadline; the error and the cause of ctx for
// ReasonContext.
type ExhaustedError struct {
	Name     string        // of the policy
	Attempts int           // that were made
	Elapsed  time.Duration // since the first failure
	Reason   Reason
	Err      error // of the last attempt that was made; of the last refusal if none was

	wait    time.Duration // that was too long, for the text
	refusal error         // if attempts were made before
	cause   error         // the error of ctx
}

// Error begins with the policy's name and ends with Err.
func (e *ExhaustedError) Error() string {
	var b strings.Builder
	b.WriteString(text(e.Name))
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

// Unwrap gives Err and what ended the retrying.
func (e *ExhaustedError) Unwrap() []error {
	errs := make([]error, 0, 3)
	for _, err := range [...]error{e.Err, e.refusal, e.cause} {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// Timeout reports whether one of the errors that e unwraps to tells of a timeout.
func (e *ExhaustedError) Timeout() bool {
	return errors.Is(e, context.DeadlineExceeded) || saysTimeout(e.Unwrap()...)
}

// saysTimeout reports whether an error in one of the trees has a method Timeout that says so.
func saysTimeout(errs ...error) bool {
	for _, err := range errs {
		if teller, ok := err.(interface{ Timeout() bool }); ok && teller.Timeout() {
			return true
		}
		switch parent := err.(type) {
		case interface{ Unwrap() error }:
			if saysTimeout(parent.Unwrap()) {
				return true
			}
		case interface{ Unwrap() []error }:
			if saysTimeout(parent.Unwrap()...) {
				return true
			}
		}
	}
	return false
}
