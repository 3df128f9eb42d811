package resilience_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/mark"
	"github.com/effector-go/resilience/retry"
)

var marks = map[string]func(error) error{
	"NotFailure":     resilience.NotFailure,
	"Contention":     resilience.Contention,
	"CallerFault":    resilience.CallerFault,
	"NotMade":        resilience.NotMade,
	"WithRetryAfter": func(err error) error { return resilience.WithRetryAfter(err, time.Second) },
	"Permanent":      retry.Permanent,
}

func TestMarkUnwrapsKeepsTextAndIsNilForNil(t *testing.T) {
	for name, mark := range marks {
		err := mark(errDown)
		if err == errDown || errors.Unwrap(err) != errDown || err.Error() != errDown.Error() || !errors.Is(err, errDown) {
			t.Errorf("%s(%v) = %#v, want a mark that unwraps to it and has its text", name, errDown, err)
		}
		if err := mark(nil); err != nil {
			t.Errorf("%s(nil) = %v", name, err)
		}
	}
}

// TestMarksStack combines every two and three marks: of NotFailure, Contention, and CallerFault the
// outermost counts, and NotMade counts wherever it is.
func TestMarksStack(t *testing.T) {
	kinds := map[string]mark.Kind{"NotFailure": mark.NotFailure, "Contention": mark.Contention, "CallerFault": mark.CallerFault}
	for outer, markOuter := range marks {
		for middle, markMiddle := range marks {
			for inner, markInner := range marks {
				err := markOuter(markMiddle(markInner(errDown)))
				want, notMade := mark.None, false
				for _, name := range []string{inner, middle, outer} {
					if kind, ok := kinds[name]; ok {
						want = kind
					}
					notMade = notMade || name == "NotMade"
				}
				if got := mark.Of(err); got != want || mark.IsNotMade(err) != notMade {
					t.Errorf("%s(%s(%s)): kind %d, not made %t; want %d, %t", outer, middle, inner, got, mark.IsNotMade(err), want, notMade)
				}
				without := mark.WithoutNotMade(err)
				if mark.IsNotMade(without) || mark.Of(without) != want || !errors.Is(without, errDown) || !notMade && without != err {
					t.Errorf("%s(%s(%s)) without NotMade is %#v", outer, middle, inner, without)
				}
			}
		}
	}
}

func TestMarksCountOnlyOutsideOtherErrors(t *testing.T) {
	for name, m := range marks {
		for how, err := range map[string]error{
			"wrapped":              fmt.Errorf("get user: %w", m(errDown)),
			"joined":               errors.Join(m(errDown)),
			"wrapped, then marked": resilience.WithRetryAfter(fmt.Errorf("get user: %w", m(errDown)), time.Second),
		} {
			if mark.Of(err) != mark.None || mark.IsNotMade(err) {
				t.Errorf("%s, %s: counts", name, how)
			}
		}
	}
}

func TestDoRemovesNotMade(t *testing.T) {
	pass := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error { return next.Run(ctx) })
	stacked := resilience.WithRetryAfter(resilience.Contention(resilience.NotMade(retry.Permanent(resilience.NotMade(errDown)))), time.Minute)
	fail := func(context.Context) error { return stacked }
	inside := false
	watch := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		err := next.Run(ctx)
		inside = err == stacked
		return err
	})
	for name, call := range map[string]func() error{
		"Run":        func() error { return resilience.Run(t.Context(), watch, fail) },
		"ComposeRun": func() error { return resilience.ComposeRun(fail, pass, watch)(t.Context()) },
		"Do": func() error {
			_, err := resilience.Do(t.Context(), watch, func(ctx context.Context) (int, error) { return 1, fail(ctx) })
			return err
		},
		"Compose": func() error {
			_, err := resilience.Compose(func(ctx context.Context) (int, error) { return 1, fail(ctx) }, watch)(t.Context())
			return err
		},
	} {
		inside = false
		err := call()
		after, _ := resilience.RetryAfter(err)
		if mark.IsNotMade(err) || mark.Of(err) != mark.Contention || after != time.Minute || !errors.Is(err, errDown) {
			t.Errorf("%s returned %#v, want the error without NotMade and with its other marks", name, err)
		}
		if !inside {
			t.Errorf("%s: a policy did not receive the error as it was", name)
		}
	}
}

func TestNotMadeCountsInsideOtherMarks(t *testing.T) {
	for name, m := range marks {
		starts := 0
		twice := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			err := next.Run(ctx)
			if next.Repeatable() {
				err = next.Run(ctx)
			}
			return err
		})
		_ = resilience.Run(t.Context(), resilience.Pipeline{resilience.AtMostOnce, twice}, func(context.Context) error {
			starts++
			return m(resilience.NotMade(errDown))
		})
		if starts != 2 {
			t.Errorf("%s(NotMade(err)): started %d times, want 2", name, starts)
		}
	}
}
