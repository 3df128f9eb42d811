package permanent

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cenkalti/backoff/v4"

	"github.com/effector-go/resilience/internal/mark"
)

var errDown = errors.New("down")

func TestNewMarksErrorForBackoff(t *testing.T) {
	var permanent *backoff.PermanentError
	if err := New(errDown); !errors.As(err, &permanent) || permanent.Err != errDown {
		t.Errorf("got %#v, want a permanent error of %v", err, errDown)
	}
	if err := New(nil); err != nil {
		t.Errorf("got %v for nil, want nil", err)
	}
}

func TestIsFindsPermanentErrorInTree(t *testing.T) {
	for err, want := range map[error]bool{
		New(errDown): true, fmt.Errorf("get: %w", New(errDown)): true, errors.Join(errDown, New(errDown)): true, errDown: false,
	} {
		if got := Is(err); got != want {
			t.Errorf("%#v: got %t, want %t", err, got, want)
		}
	}
}

// TestPermanentHidesNoMarks: it is a mark for package mark, too.
func TestPermanentHidesNoMarks(t *testing.T) {
	err := New(mark.New(mark.Contention, mark.New(mark.NotMade, errDown)))
	if mark.Of(err) != mark.Contention || !mark.IsNotMade(err) {
		t.Errorf("got kind %d, not made %t, want %d, true", mark.Of(err), mark.IsNotMade(err), mark.Contention)
	}
	if without := mark.WithoutNotMade(err); mark.Of(without) != mark.Contention || mark.IsNotMade(without) || !Is(without) {
		t.Errorf("got %#v, want it permanent, with the other mark", without)
	}
	for _, err := range []error{(*backoff.PermanentError)(nil), errDown} {
		if got := mark.Of(err); got != mark.None {
			t.Errorf("%#v: got kind %d, want none", err, got)
		}
	}
}

func TestWithoutRemovesOutermostMarkOnly(t *testing.T) {
	var none *backoff.PermanentError
	empty, wrapped := &backoff.PermanentError{}, fmt.Errorf("get: %w", New(errDown))
	inner := New(wrapped)
	for err, want := range map[error]error{
		errDown: errDown, New(errDown): errDown, New(inner): inner, wrapped: wrapped, none: none, empty: empty,
	} {
		if got := Without(err); got != want {
			t.Errorf("%#v: got %#v, want %#v", err, got, want)
		}
	}
	errInjected := errors.New("injected")
	for err, want := range map[error]error{New(errDown): errDown, wrapped: wrapped} {
		got := Without(mark.Also(err, errInjected, "injected: "))
		if errors.Unwrap(got) != want || !errors.Is(got, errInjected) || got.Error() != "injected: "+want.Error() {
			t.Errorf("%#v as an alias: got %#v, want an alias of %#v", err, got, want)
		}
	}
}
