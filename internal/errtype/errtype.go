// Package errtype names the kinds of errors for metrics, traces, and views.
package errtype

import (
	"fmt"
	"reflect"

	"github.com/effector-go/resilience/internal/mark"
)

// The types of errors that package observe distinguishes.
const (
	Timeout   = "timeout"
	Exhausted = "retry_exhausted"
)

// Own returns the ErrorType of err itself, "" if it has none. Errors inside err don't count.
func Own(err error) string {
	e, ok := err.(interface{ ErrorType() string })
	if !ok {
		return ""
	}
	defer func() { _ = recover() }() // of a nil pointer, for example
	return e.ErrorType()
}

// Of returns the first ErrorType in err's tree: of an error that ended retrying, the one of the last
// attempt's error. If there is none, it returns the first Go type that isn't of package fmt or errors
// or a mark, and if there is none either, err's own.
func Of(err error) (name string) {
	if err == nil {
		return ""
	}
	defer func() {
		if recover() != nil { // in a method of the error
			name = reflect.TypeOf(err).String()
		}
	}()
	if name := firstName(err); name != "" {
		return name
	}
	if name := firstType(err); name != "" {
		return name
	}
	return reflect.TypeOf(err).String()
}

// inner returns the errors that err wraps.
func inner(err error) []error {
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		if wrapped := e.Unwrap(); wrapped != nil {
			return []error{wrapped}
		}
	case interface{ Unwrap() []error }:
		return e.Unwrap()
	}
	return nil
}

func firstName(err error) string {
	if err == nil {
		return ""
	}
	name := Own(err)
	if name == Exhausted {
		if last := inner(err); len(last) > 0 {
			return Of(last[0])
		}
	}
	if name != "" {
		return name
	}
	for _, wrapped := range inner(err) {
		if name := firstName(wrapped); name != "" {
			return name
		}
	}
	return ""
}

func firstType(err error) string {
	if err == nil {
		return ""
	}
	switch err.(type) {
	case *mark.Error, *mark.Delay, *mark.Alias:
	default:
		t := reflect.TypeOf(err)
		if pkg := base(t).PkgPath(); pkg != "fmt" && pkg != "errors" {
			return fmt.Sprint(t)
		}
	}
	for _, wrapped := range inner(err) {
		if name := firstType(wrapped); name != "" {
			return name
		}
	}
	return ""
}

func base(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}
