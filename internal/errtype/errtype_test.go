package errtype_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"testing"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/internal/errtype"
	"github.com/effector-go/resilience/retry"
)

type statedError struct{}

func (statedError) Error() string     { return "stated" }
func (statedError) ErrorType() string { return "stated" }

type silentError struct{ statedError }

func (silentError) ErrorType() string { return "" }

func TestOf(t *testing.T) {
	path := &fs.PathError{Err: io.EOF}
	for _, test := range []struct {
		err  error
		want string
	}{
		{nil, ""},
		{io.EOF, "*errors.errorString"},
		{path, "*fs.PathError"},
		{fmt.Errorf("open: %w", path), "*fs.PathError"},
		{errors.Join(io.EOF, fmt.Errorf("%w, %w", io.EOF, path)), "*fs.PathError"},
		{fmt.Errorf("read: %w", io.EOF), "*fmt.wrapError"},
		{resilience.NotMade(path), "*fs.PathError"},
		{silentError{}, "errtype_test.silentError"},
		{&breaker.OpenError{}, "breaker_open"},
		{fmt.Errorf("fetch: %w", &breaker.OpenError{}), "breaker_open"},
		{errors.Join(path, statedError{}), "stated"},
		{&retry.ExhaustedError{Err: statedError{}}, "stated"},
		{&retry.ExhaustedError{Err: path}, "*fs.PathError"},
		{fmt.Errorf("fetch: %w", &retry.ExhaustedError{Err: fmt.Errorf("read: %w", statedError{})}), "stated"},
		{&retry.ExhaustedError{}, "retry_exhausted"},
	} {
		if got := errtype.Of(test.err); got != test.want {
			t.Errorf("got type %q of %#v, want %q", got, test.err, test.want)
		}
	}
}
