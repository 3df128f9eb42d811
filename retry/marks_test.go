package retry_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/retry"
)

func permanently(err error) error { return backoff.Permanent(err) }

func afterTwoSeconds(err error) error { return resilience.WithRetryAfter(err, 2*time.Second) }

// stack returns err with the marks, the last one outermost.
func stack(err error, marks ...func(error) error) error {
	for _, mark := range marks {
		err = mark(err)
	}
	return err
}

type marks = []func(error) error

// stopping are the stacks of marks that stop retrying.
var stopping = map[string]marks{
	"NotFailure":                 {resilience.NotFailure},
	"CallerFault":                {resilience.CallerFault},
	"NotFailure(Contention)":     {resilience.Contention, resilience.NotFailure},
	"CallerFault(Contention)":    {resilience.Contention, resilience.CallerFault},
	"NotMade(NotFailure)":        {resilience.NotFailure, resilience.NotMade},
	"WithRetryAfter(NotFailure)": {resilience.NotFailure, afterTwoSeconds},
	"NotFailure(Permanent)":      {permanently, resilience.NotFailure},
	"Contention(Permanent)":      {permanently, resilience.Contention},
}

// retried are the stacks of marks with which an error is retried.
var retried = map[string]marks{
	"none":                    {},
	"Contention":              {resilience.Contention},
	"NotMade(Contention)":     {resilience.Contention, resilience.NotMade},
	"Contention(NotFailure)":  {resilience.NotFailure, resilience.Contention},
	"Contention(CallerFault)": {resilience.CallerFault, resilience.Contention},
	"wrapped NotFailure":      {resilience.NotFailure, wrapped},
	"wrapped CallerFault":     {resilience.CallerFault, wrapped},
	"joined NotFailure":       {resilience.NotFailure, func(err error) error { return errors.Join(err) }},
}

func wrapped(err error) error { return fmt.Errorf("get user: %w", err) }

func TestRetryReturnsMarkedErrorThatStopsUnchanged(t *testing.T) {
	both(t, func(t *testing.T, do doer) {
		for name, marks := range stopping {
			for _, attempts := range []int{1, 3} {
				want := stack(errBoom, marks...)
				fn, calls := failing(9, want)
				r := retry.New(retry.Config{MaxAttempts: attempts, RetryIf: func(error) bool { t.Errorf("%s: RetryIf was called", name); return true }})
				// Composed effectors remove NotMade, so an identical error can't be expected of it.
				value, err := do(t.Context(), r, fn)
				if *calls != 1 || value != 1 || err != want && name != "NotMade(NotFailure)" || !errors.Is(err, errBoom) {
					t.Errorf("%s: got %d, %#v after %d attempts, want %#v after 1", name, value, err, *calls, want)
				}
			}
		}
	})
}

func TestRetryRemovesOnlyOutermostPermanent(t *testing.T) {
	both(t, func(t *testing.T, do doer) {
		for name, mark := range map[string]func(error) error{
			"NotFailure": resilience.NotFailure, "CallerFault": resilience.CallerFault, "Contention": resilience.Contention,
		} {
			want := mark(errBoom)
			fn, calls := failing(9, retry.Permanent(want))
			if _, err := do(t.Context(), retry.New(retry.Config{}), fn); err != want || *calls != 1 {
				t.Errorf("Permanent(%s): got %#v after %d attempts, want %#v after 1", name, err, *calls, want)
			}
		}
	})
}

func TestRetryRetriesContentionAndInnerMarks(t *testing.T) {
	both(t, func(t *testing.T, do doer) {
		for name, marks := range retried {
			asked := 0
			fn, calls := failing(2, stack(errBoom, marks...))
			r := retry.New(retry.Config{RetryIf: func(error) bool { asked++; return true }})
			if _, err := do(t.Context(), r, fn); err != nil || *calls != 3 || asked != 2 {
				t.Errorf("%s: got %v after %d attempts with %d calls of RetryIf, want nil after 3 with 2", name, err, *calls, asked)
			}
		}
	})
}

func TestRetryIfMayRejectContention(t *testing.T) {
	both(t, func(t *testing.T, do doer) {
		want := resilience.Contention(errBoom)
		fn, calls := failing(2, want)
		r := retry.New(retry.Config{RetryIf: func(err error) bool { return err != want }})
		if _, err := do(t.Context(), r, fn); err != want || *calls != 1 {
			t.Errorf("got %v after %d attempts, want %v after 1", err, *calls, want)
		}
	})
}

func TestRetryWaitsForRetryAfterInsideOtherMarks(t *testing.T) {
	both(t, func(t *testing.T, do doer) {
		began := time.Now()
		fn, _ := failing(1, resilience.Contention(resilience.WithRetryAfter(errBoom, 2*time.Second)))
		if _, err := do(t.Context(), retry.New(retry.Config{Backoff: now}), fn); err != nil || time.Since(began) != 2*time.Second {
			t.Errorf("got %v after %v, want nil after 2s", err, time.Since(began))
		}
	})
}

func TestRetryRetriesNotMadeInsideMarksUnderAtMostOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, c := range map[string]struct {
			err   error
			calls int
		}{
			"Contention":                          {resilience.Contention(errBoom), 1},
			"Contention(NotMade)":                 {resilience.Contention(resilience.NotMade(errBoom)), 3},
			"NotMade(Contention)":                 {resilience.NotMade(resilience.Contention(errBoom)), 3},
			"WithRetryAfter(Contention(NotMade))": {afterTwoSeconds(resilience.Contention(resilience.NotMade(errBoom))), 3},
			"wrapped NotMade":                     {wrapped(resilience.NotMade(errBoom)), 1},
			"NotFailure(NotMade)":                 {resilience.NotFailure(resilience.NotMade(errBoom)), 1},
			"Permanent(NotMade)":                  {retry.Permanent(resilience.NotMade(errBoom)), 1},
		} {
			fn, calls := failing(2, c.err)
			_, err := resilience.Do(t.Context(), resilience.Pipeline{resilience.AtMostOnce, retry.New(retry.Config{})}, fn)
			if *calls != c.calls || (err == nil) != (c.calls == 3) {
				t.Errorf("%s: got %v after %d attempts, want %d", name, err, *calls, c.calls)
			}
		}
	})
}

// TestRetryDoRemovesNotMadeAfterAttemptWithEffect: otherwise, an outer pipeline under AtMostOnce
// would repeat the call.
func TestRetryDoRemovesNotMadeAfterAttemptWithEffect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		notMade := resilience.NotMade(errBoom)
		stops := resilience.NotMade(resilience.NotFailure(errBoom))
		for _, c := range []struct {
			name    string
			answers []error
			stays   bool
		}{
			{"one attempt", []error{stops}, true},
			{"none with effect", []error{notMade, resilience.Contention(notMade), stops}, true},
			{"the first with effect", []error{errBoom, stops}, false},
			{"an earlier one with effect", []error{notMade, errBoom, notMade, stops}, false},
		} {
			outer := 0
			_, err := resilience.Do(t.Context(), resilience.Pipeline{resilience.AtMostOnce,
				resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
					err := next.Run(ctx)
					if next.Repeatable() != c.stays {
						t.Errorf("%s: Repeatable is %t, want %t", c.name, next.Repeatable(), c.stays)
					}
					return err
				})},
				func(ctx context.Context) (int, error) {
					outer++
					n := 0
					return retry.Do(ctx, retry.New(retry.Config{MaxAttempts: 9}), func(context.Context) (int, error) {
						n++
						return n, c.answers[n-1]
					})
				})
			if !errors.Is(err, errBoom) || outer != 1 {
				t.Errorf("%s: got %v, want %v", c.name, err, errBoom)
			}
		}
	})
}

func TestRetryReturnsMarkedErrorUnchangedOnceContextEnded(t *testing.T) {
	both(t, func(t *testing.T, do doer) {
		for _, mark := range []func(error) error{resilience.NotFailure, resilience.CallerFault, resilience.Contention} {
			ctx, cancel := context.WithCancel(t.Context())
			want := mark(errBoom)
			_, err := do(ctx, retry.New(retry.Config{OnGiveUp: giveUpFails(t)}), func(context.Context) (int, error) { cancel(); return 0, want })
			if err != want {
				t.Errorf("got %#v, want %#v", err, want)
			}
		}
	})
}

func giveUpFails(t *testing.T) func(context.Context, *retry.ExhaustedError) {
	return func(_ context.Context, err *retry.ExhaustedError) { t.Errorf("OnGiveUp was called with %v", err) }
}

// TestRetryReturnsMarkedErrorOfUnmadeRunUnchanged: an inner policy, such as a cache that knows that
// there is nothing, may return a marked error without starting the effector.
func TestRetryReturnsMarkedErrorOfUnmadeRunUnchanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, mark := range []func(error) error{resilience.NotFailure, resilience.CallerFault} {
			for _, refused := range []bool{false, true} {
				for made := range 2 {
					want := mark(refusal{time.Second})
					fn, calls := failing(9, errBoom)
					r := retry.New(retry.Config{RetryRefused: refused, MaxElapsed: time.Hour, OnGiveUp: giveUpFails(t)})
					_, err := resilience.Do(t.Context(), resilience.Pipeline{r, refuseFrom(made, want)}, fn)
					if err != want || *calls != made {
						t.Errorf("RetryRefused %t: got %#v after %d attempts, want %#v after %d", refused, err, *calls, want, made)
					}
				}
			}
		}
	})
}

func TestRetryRefusedRetriesContention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fn, calls := failing(0, nil)
		r := retry.New(retry.Config{RetryRefused: true, MaxElapsed: time.Hour})
		_, err := resilience.Do(t.Context(), resilience.Pipeline{r, refuseFirst(3, resilience.Contention(refusal{}))}, fn)
		if err != nil || *calls != 1 {
			t.Errorf("got %v after %d attempts, want nil after 1", err, *calls)
		}
	})
}

func TestRetryDepositsNothingForCallerFault(t *testing.T) {
	both(t, func(t *testing.T, do doer) {
		for name, c := range map[string]struct {
			answers  []error
			deposits int
		}{
			"CallerFault":                   {[]error{resilience.CallerFault(errBoom)}, 0},
			"Permanent(CallerFault)":        {[]error{retry.Permanent(resilience.CallerFault(errBoom))}, 0},
			"NotMade(CallerFault)":          {[]error{resilience.NotMade(resilience.CallerFault(errBoom))}, 0},
			"wrapped":                       {[]error{wrapped(resilience.CallerFault(errBoom)), nil}, 1},
			"NotFailure(CallerFault)":       {[]error{resilience.NotFailure(resilience.CallerFault(errBoom))}, 1},
			"NotFailure":                    {[]error{resilience.NotFailure(errBoom)}, 1},
			"Contention":                    {[]error{resilience.Contention(errBoom), nil}, 1},
			"a failure, then a CallerFault": {[]error{errBoom, resilience.CallerFault(errBoom)}, 1},
		} {
			b := budget.New(budget.Config{Ratio: 2, TTL: time.Hour})
			n := 0
			do(t.Context(), retry.New(retry.Config{Budget: b}), func(context.Context) (int, error) {
				n++
				return n, c.answers[n-1]
			})
			tokens := len(c.answers) - 1 // withdrawn
			for b.Withdraw() {
				tokens++
			}
			if tokens != 2*c.deposits || n != len(c.answers) {
				t.Errorf("%s: got %d deposited tokens and %d attempts, want %d and %d", name, tokens, n, 2*c.deposits, len(c.answers))
			}
		}
	})
}

// TestRetryKeepsMarksForOuterBreaker: a breaker outside retry receives marks of errors that stop,
// and no marks of the attempts that an ExhaustedError reports.
func TestRetryKeepsMarksForOuterBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, c := range map[string]struct {
			err  error
			want breaker.State
		}{
			"NotFailure":            {resilience.NotFailure(errBoom), breaker.Closed},
			"Permanent(Contention)": {retry.Permanent(resilience.Contention(errBoom)), breaker.Closed},
			"CallerFault":           {resilience.CallerFault(errBoom), breaker.Closed},
			"exhausted Contention":  {resilience.Contention(errBoom), breaker.Open},
			"none":                  {errBoom, breaker.Open},
		} {
			b := breaker.New(breaker.Config{})
			for range 5 {
				fn, _ := failing(9, c.err)
				resilience.Do(t.Context(), resilience.Pipeline{b, retry.New(retry.Config{})}, fn)
			}
			if got := b.Snapshot().State; got != c.want {
				t.Errorf("%s: got %v, want %v", name, got, c.want)
			}
		}
	})
}
