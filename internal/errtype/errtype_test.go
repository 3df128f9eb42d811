package errtype

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"unsafe"

	"github.com/effector-go/resilience/internal/mark"
)

type typed struct{ name string }

func (e typed) Error() string     { return e.name }
func (e typed) ErrorType() string { return e.name }

type exhausted []error

func (exhausted) Error() string     { return "exhausted" }
func (exhausted) ErrorType() string { return Exhausted }
func (e exhausted) Unwrap() []error { return e }

// An op is a network error with an ErrorType further inside.
func op(err error) error { return &net.OpError{Op: "dial", Err: err} }

// A broken error can't be unwrapped.
type broken struct{}

func (broken) Error() string { return "broken" }
func (broken) Unwrap() error { panic("broken") }

func TestOf(t *testing.T) {
	var none *typed // its methods panic
	for _, c := range []struct {
		err  error
		want string
	}{
		{nil, ""},
		{errors.New("x"), "*errors.errorString"},
		{fmt.Errorf("x: %w", errors.New("y")), "*fmt.wrapError"},
		{fmt.Errorf("x: %w", op(errors.New("y"))), "*net.OpError"},
		{errors.Join(errors.New("x"), op(errors.New("y"))), "*net.OpError"},
		{context.DeadlineExceeded, "context.deadlineExceededError"},
		{typed{"a"}, "a"},
		{op(typed{"a"}), "a"},
		{errors.Join(op(typed{"a"}), typed{"b"}), "a"},
		{exhausted{op(errors.New("x")), typed{"refusal"}}, "*net.OpError"},
		{fmt.Errorf("x: %w", exhausted{exhausted{typed{"a"}}}), "a"},
		{exhausted{}, Exhausted},
		{mark.New(mark.NotFailure, op(errors.New("x"))), "*net.OpError"},
		{none, "*errtype.typed"},
		{fmt.Errorf("x: %w", none), "*errtype.typed"},
		{broken{}, "errtype.broken"},
		{fmt.Errorf("x: %w", broken{}), "*fmt.wrapError"},
	} {
		if got := Of(c.err); got != c.want {
			t.Errorf("%T: got %q, want %q", c.err, got, c.want)
		}
	}
}

func TestOwnIgnoresErrorsInside(t *testing.T) {
	var none *typed
	for err, want := range map[error]string{typed{"a"}: "a", fmt.Errorf("x: %w", typed{"a"}): "", none: "", errors.New("x"): ""} {
		if got := Own(err); got != want {
			t.Errorf("%T: got %q, want %q", err, got, want)
		}
	}
}

func TestTextIsCutBeforeCharacterThatDoesNotFit(t *testing.T) {
	for text, want := range map[string]string{
		"":                                      "",
		"boom":                                  "boom",
		strings.Repeat("x", 500):                strings.Repeat("x", 500),
		strings.Repeat("x", 501):                strings.Repeat("x", 500),
		strings.Repeat("x", 498) + "äy":         strings.Repeat("x", 498) + "ä",
		strings.Repeat("x", 499) + "äy":         strings.Repeat("x", 499),
		strings.Repeat("x", 497) + "\U0001F600": strings.Repeat("x", 497),
		strings.Repeat("\x80", 600):             strings.Repeat("\x80", 497), // no character starts here
	} {
		if got := Text(errors.New(text)); got != want {
			t.Errorf("%d bytes: got %q, want %q", len(text), got, want)
		}
	}
}

func TestTextSurvivesPanic(t *testing.T) {
	var none *typed // its methods panic
	if got, want := Text(none), "its method Error panicked"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTextKeepsNoLongText(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	if got := Text(errors.New(long)); unsafe.StringData(got) == unsafe.StringData(long) {
		t.Error("got a part of the long text, want a copy, so that the long text can be collected")
	}
}
