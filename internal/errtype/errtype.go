// Package errtype describes errors for metrics, traces, and views: by a type and by a short text.
package errtype

import (
	"reflect"
	"strings"
	"unicode/utf8"

	"github.com/effector-go/resilience/internal/mark"
)

// The types of errors that package observe distinguishes.
const (
	Timeout   = "timeout"
	Exhausted = "retry_exhausted"
)

// Own returns the ErrorType of err itself, "" if it has none. It ignores the errors that err wraps.
func Own(err error) string {
	e, ok := err.(interface{ ErrorType() string })
	if !ok {
		return ""
	}
	defer func() { _ = recover() }() // of a nil pointer, for example
	return e.ErrorType()
}

// Of returns the type of err, "" for nil: the first ErrorType in its tree, or that of the last attempt
// for an error that ended retrying. If there is no ErrorType, it is the first Go type in the tree that
// is neither a mark nor defined by package fmt or errors. If there is no such type, it is err's own.
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

// firstName returns the first ErrorType in err's tree, "" if there is none.
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

// firstType returns the first Go type in err's tree that means something, "" if there is none.
func firstType(err error) string {
	if err == nil {
		return ""
	}
	switch err.(type) {
	case *mark.Error, *mark.Delay, *mark.Alias:
	default:
		t := reflect.TypeOf(err)
		if pkg := base(t).PkgPath(); pkg != "fmt" && pkg != "errors" {
			return t.String()
		}
	}
	for _, wrapped := range inner(err) {
		if name := firstType(wrapped); name != "" {
			return name
		}
	}
	return ""
}

// base returns what t points to, at any depth. Pointer types have no package.
func base(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}

// maxText is the largest length of a text in bytes. Errors may contain anything, such as the body of
// a response.
const maxText = 500

// Text returns the text of err, cut to 500 bytes, before a character that would not fit. It survives
// an Error method that panics.
func Text(err error) (text string) {
	defer func() {
		if recover() != nil {
			text = "its method Error panicked"
		}
	}()
	text = err.Error()
	if len(text) <= maxText {
		return text
	}
	end := maxText
	for end > maxText-utf8.UTFMax+1 && !utf8.RuneStart(text[end]) {
		end--
	}
	return strings.Clone(text[:end]) // a substring would keep the whole text in memory
}
