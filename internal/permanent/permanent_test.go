package permanent

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cenkalti/backoff/v4"

	"github.com/effector-go/resilience/internal/mark"
)

var (
	errDown = errors.New("down")
	missing *backoff.PermanentError // most of its methods panic
)

func TestNewMarksError(t *testing.T) {
	if err := New(errDown); !Is(err) || Is(errDown) || !errors.Is(err, errDown) || New(nil) != nil {
		t.Errorf("got %v and %v, want a permanent error and nil", err, New(nil))
	}
	if !Is(fmt.Errorf("get: %w", New(errDown))) {
		t.Error("got false for a wrapped permanent error, want true")
	}
}

func TestWithoutRemovesOutermostMark(t *testing.T) {
	empty, twice, wrapped := &backoff.PermanentError{}, New(&backoff.PermanentError{Err: errDown}), fmt.Errorf("get: %w", New(errDown))
	alias := mark.Also(errDown, errors.ErrUnsupported, "")
	for _, c := range []struct {
		name      string
		err, want error
	}{
		{"nil", nil, nil},
		{"no mark", errDown, errDown},
		{"a mark", New(errDown), errDown},
		{"two marks", twice, twice.(*backoff.PermanentError).Err},
		{"a wrapped mark", wrapped, wrapped},
		{"an alias without a mark", alias, alias},
		{"a mark of no error", empty, empty},
		{"a nil mark", missing, missing},
	} {
		if got := Without(c.err); got != c.want {
			t.Errorf("%s: got %#v, want %#v", c.name, got, c.want)
		}
	}
}

func TestWithoutKeepsAlias(t *testing.T) {
	err := Without(mark.Also(New(errDown), errors.ErrUnsupported, "get: "))
	if Is(err) || !errors.Is(err, errDown) || !errors.Is(err, errors.ErrUnsupported) || err.Error() != "get: down" {
		t.Errorf("got %v, want the alias of the error without its mark", err)
	}
}

// Package mark looks through the mark, and puts it back.
func TestMarksInsidePermanentErrorCount(t *testing.T) {
	err := New(mark.New(mark.NotMade, mark.New(mark.Contention, errDown)))
	if mark.Of(err) != mark.Contention || !mark.IsNotMade(err) {
		t.Errorf("got kind %v, not made %t, want %v, true", mark.Of(err), mark.IsNotMade(err), mark.Contention)
	}
	rest := mark.WithoutNotMade(err)
	if mark.Of(rest) != mark.Contention || mark.IsNotMade(rest) || !Is(rest) {
		t.Errorf("got %#v, want a permanent error with the other mark", rest)
	}
	if mark.Of(missing) != mark.None || mark.IsNotMade(missing) {
		t.Error("got a mark of a nil permanent error, want none")
	}
}
