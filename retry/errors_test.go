package retry_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/retry"
)

func TestExhaustedErrorTextNamesReason(t *testing.T) {
	for want, e := range map[string]*retry.ExhaustedError{
		"retry p: gave up after 1 attempt: boom":                                                 {Name: "p", Attempts: 1, Reason: retry.ReasonAttempts, Err: errBoom},
		"retry: gave up after 2 attempts, the schedule stopped: boom":                            {Attempts: 2, Reason: retry.ReasonSchedule, Err: errBoom},
		"retry: gave up after 2 attempts, refused: boom":                                         {Attempts: 2, Reason: retry.ReasonRefused, Err: errBoom},
		"retry: gave up after 2 attempts, context ended: boom":                                   {Attempts: 2, Reason: retry.ReasonContext, Err: errBoom},
		"retry: gave up before the first attempt and 4.3s, a wait of 0s would be too long: boom": {Reason: retry.ReasonElapsed, Elapsed: 4321 * time.Millisecond, Err: errBoom},
		"retry: gave up before the first attempt, Reason(0)":                                     {},
	} {
		if got := e.Error(); got != want {
			t.Errorf("got text %q, want %q", got, want)
		}
	}
}

func TestReasonStringIsDistinct(t *testing.T) {
	seen := make(map[string]bool)
	for r := retry.ReasonAttempts; r <= retry.ReasonContext; r++ {
		if s := r.String(); s == "" || seen[s] {
			t.Errorf("got the text %q for reason %d, want a distinct one", s, int(r))
		} else {
			seen[s] = true
		}
	}
	if retry.Reason(99).String() != "Reason(99)" || retry.Reason(-1).String() != "Reason(-1)" {
		t.Errorf("got %v and %v for unknown reasons, want Reason(99) and Reason(-1)", retry.Reason(99), retry.Reason(-1))
	}
}

func TestReasonStringNamesUnknownNextToKnown(t *testing.T) {
	for r, want := range map[retry.Reason]string{
		retry.ReasonAttempts - 1: "Reason(0)", retry.ReasonAttempts: "attempts used up",
		retry.ReasonContext: "context ended", retry.ReasonContext + 1: "Reason(9)",
	} {
		if got := r.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestExhaustedErrorTextOfCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		later := func(context.Context) error { return resilience.WithRetryAfter(errBoom, 5*time.Second) }
		err := resilience.Run(t.Context(), retry.New(retry.Config{MaxRetryAfter: time.Second}), later)
		if got, want := err.Error(), "retry: gave up after 1 attempt, asked to wait 5s, which is too long: boom"; got != want {
			t.Errorf("got text %q, want %q", got, want)
		}

		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		boom := func(context.Context) error { return errBoom }
		err = resilience.Run(ctx, retry.New(retry.Config{Backoff: retry.Constant(time.Minute)}), boom)
		if got, want := err.Error(), "retry: gave up after 1 attempt, context canceled while waiting: boom"; got != want {
			t.Errorf("got text %q, want %q", got, want)
		}

		r := retry.New(retry.Config{RetryRefused: true, MaxElapsed: time.Minute, MaxAttempts: -1, Backoff: retry.Constant(50 * time.Second)})
		err = resilience.Run(t.Context(), resilience.Pipeline{r, refuseFrom(1, refusal{})}, boom)
		if got, want := err.Error(), "retry: gave up after 1 attempt and 50s, a wait of 50s would be too long, refused (breaker payments: open): boom"; got != want {
			t.Errorf("got text %q, want %q", got, want)
		}
	})
}

func TestReasonMarshalTextEqualsString(t *testing.T) {
	for r := range retry.ReasonContext + 2 {
		text, err := r.MarshalText()
		if err != nil || string(text) != r.String() {
			t.Errorf("Reason(%d): got %q, %v, want %q", int(r), text, err, r)
		}
	}
	got, err := json.Marshal(map[string]retry.Reason{"reason": retry.ReasonBudget})
	if want := `{"reason":"budget empty"}`; err != nil || string(got) != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
}

func TestExhaustedErrorTimeoutFollowsUnwrappedError(t *testing.T) {
	for _, test := range []struct {
		err  error
		want bool
	}{
		{errBoom, false},
		{nil, false},
		{os.ErrDeadlineExceeded, true},
		{&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, true},
		{&net.DNSError{Err: "no such host"}, false},
	} {
		var e error = &retry.ExhaustedError{Err: test.err}
		timeout, ok := e.(interface{ Timeout() bool })
		if !ok || timeout.Timeout() != test.want {
			t.Errorf("%v: Timeout is not %v", test.err, test.want)
		}
		if test.err != nil && !errors.Is(e, test.err) {
			t.Errorf("got %v, want it to unwrap to %v", e, test.err)
		}
	}
}

// hasty is an error whose Timeout method returns false whatever error it wraps.
type hasty struct{ error }

func (hasty) Timeout() bool   { return false }
func (e hasty) Unwrap() error { return e.error }

func TestExhaustedErrorTimeoutSearchesWrappedErrors(t *testing.T) {
	for err, want := range map[error]bool{hasty{errBoom}: false, hasty{os.ErrDeadlineExceeded}: true, hasty{hasty{os.ErrDeadlineExceeded}}: true} {
		if e := (&retry.ExhaustedError{Err: err}); e.Timeout() != want {
			t.Errorf("%#v: Timeout is not %v", err, want)
		}
	}
}
