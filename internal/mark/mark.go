// Package mark holds the marks with which an effector states what its error means, and reads them.
//
// Marks wrap an error, keep its text, and stack in any order. Only outer marks count: those from
// the outside of an error down to the first error that isn't a mark.
package mark

import "time"

// A Kind is a statement about the error that it marks.
type Kind uint8

// The kinds. Of NotFailure, Contention, and CallerFault, an error has at most one: the outermost.
const (
	None        Kind = iota
	NotFailure       // the dependency did its work; trying again is useless
	Contention       // the dependency did its work; trying again helps
	CallerFault      // the dependency was never asked
	NotMade          // the call had no effect
)

// An Error is a marked error.
type Error struct {
	error
	kind Kind
}

// New returns err with a mark of the kind, or nil if err is nil.
func New(kind Kind, err error) error {
	if err == nil {
		return nil
	}
	return &Error{err, kind}
}

// Unwrap returns the error that is marked.
func (e *Error) Unwrap() error { return e.error }

// A Delay is an error marked with the time after which to call again.
type Delay struct {
	error
	after time.Duration
}

// NewDelay returns err marked with the time, or nil if err is nil.
func NewDelay(err error, after time.Duration) error {
	if err == nil {
		return nil
	}
	return &Delay{err, after}
}

// Unwrap returns the error that is marked.
func (d *Delay) Unwrap() error { return d.error }

// RetryAfter returns the time.
func (d *Delay) RetryAfter() time.Duration { return d.after }

// An Alias is an error that matches another one too, and says so in its text. It hides no marks of
// the error that it wraps.
type Alias struct {
	error
	also error
	text string
}

// Also returns err, with its marks, as an error that also matches the other one under errors.Is,
// and whose text begins with the given one.
func Also(err, also error, text string) error { return &Alias{err, also, text} }

// Error returns the text, followed by that of the error that is wrapped.
func (a *Alias) Error() string { return a.text + a.error.Error() }

// Unwrap returns the error that is wrapped.
func (a *Alias) Unwrap() error { return a.error }

// Is reports whether target is the other error.
func (a *Alias) Is(target error) bool { return target == a.also }

// A Foreign recognizes a mark of another module: it returns a function that puts the same mark on
// another error, and the error that is marked, or nil if err isn't such a mark.
type Foreign func(err error) (remark func(error) error, marked error)

// foreign is backoff's permanent error, or nil if no package that knows it is linked in: then
// nothing makes one. It is set by an init function.
var foreign Foreign

// Register makes f known. Only an init function may call it.
func Register(f Foreign) { foreign = f }

// inner returns the error that err marks, or nil if err isn't a mark.
func inner(err error) error {
	switch e := err.(type) {
	case *Error:
		return e.error
	case *Delay:
		return e.error
	case *Alias:
		return e.error
	}
	if foreign != nil {
		_, marked := foreign(err)
		return marked
	}
	return nil
}

// Of returns the outermost of NotFailure, Contention, and CallerFault among err's outer marks, or
// None.
func Of(err error) Kind {
	for ; err != nil; err = inner(err) {
		if e, ok := err.(*Error); ok && e.kind != NotMade {
			return e.kind
		}
	}
	return None
}

// IsNotMade reports whether NotMade is among err's outer marks.
func IsNotMade(err error) bool {
	for ; err != nil; err = inner(err) {
		if e, ok := err.(*Error); ok && e.kind == NotMade {
			return true
		}
	}
	return false
}

// WithoutNotMade returns err without the NotMade marks among its outer ones. An error that has none
// stays the same.
func WithoutNotMade(err error) error {
	if !IsNotMade(err) {
		return err
	}
	switch e := err.(type) {
	case *Error:
		rest := WithoutNotMade(e.error)
		if e.kind == NotMade {
			return rest
		}
		return &Error{rest, e.kind}
	case *Delay:
		return &Delay{WithoutNotMade(e.error), e.after}
	case *Alias:
		return &Alias{WithoutNotMade(e.error), e.also, e.text}
	}
	remark, marked := foreign(err)
	return remark(WithoutNotMade(marked))
}
