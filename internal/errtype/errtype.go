// Package errtype names the type of an error for metrics and views: a word of which there are few.
package errtype

import (
	"fmt"
	"reflect"
	"slices"
)

// Exhausted is the ErrorType of a retry that gave up.
const Exhausted = "retry_exhausted"

// Of returns the first ErrorType in err's tree, depth first. If there is none, it returns the first
// Go type that isn't just a wrapper of package fmt, of package errors, or a mark, or else the
// outermost one. A retry that gave up has the type of its last attempt's error. Of nil, it returns
// an empty string.
func Of(err error) string {
	if err == nil {
		return ""
	}
	if t := stated(err); t != "" {
		return t
	}
	if e := first(err); e != nil {
		err = e
	}
	return fmt.Sprintf("%T", err)
}

// stated returns the first ErrorType in err's tree.
func stated(err error) string {
	if typed, ok := err.(interface{ ErrorType() string }); ok {
		t := typed.ErrorType()
		if inner := wrapped(err); t == Exhausted && len(inner) > 0 {
			return Of(inner[0])
		}
		if t != "" {
			return t
		}
	}
	for _, inner := range wrapped(err) {
		if t := stated(inner); t != "" {
			return t
		}
	}
	return ""
}

// first returns the first error in err's tree whose type says something.
func first(err error) error {
	switch path := packageOf(err); path {
	case "fmt", "errors", "github.com/effector-go/resilience/internal/mark":
	default:
		return err
	}
	for _, inner := range wrapped(err) {
		if e := first(inner); e != nil {
			return e
		}
	}
	return nil
}

func packageOf(err error) string {
	t := reflect.TypeOf(err)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.PkgPath()
}

// wrapped returns the errors that err wraps.
func wrapped(err error) []error {
	switch wrapper := err.(type) {
	case interface{ Unwrap() error }:
		if inner := wrapper.Unwrap(); inner != nil {
			return []error{inner}
		}
	case interface{ Unwrap() []error }:
		return slices.DeleteFunc(slices.Clone(wrapper.Unwrap()), func(err error) bool { return err == nil })
	}
	return nil
}
