// Package detached runs a fork of a call on a goroutine of its own, and hands what becomes of it to the call's goroutine: an error, a panic,
// a runtime.Goexit.
package detached

import (
	"context"
	"runtime"
	"runtime/debug"

	"github.com/effector-go/resilience"
)

// A Run is one run of a fork.
type Run struct {
	Fork resilience.Next

	err      error
	returned bool                   // neither panic nor Goexit
	panicked *resilience.PanicError // nil after Goexit
}

// An Owner is who started a run and may have left it behind.
type Owner interface {
	// Ended is called when the run has ended, and reports whether somebody waits for it. Returned is false after a panic or Goexit,
	// err what the run returned.
	Ended(returned bool, err error) (awaited bool)

	// Done is called after that, with what Ended said: the result is there, or was given up.
	Done(awaited bool)
}

// Do runs the fork. It is the first function of its goroutine. What nobody waits for is discarded; a panic that nobody waits for is
// the program's, as in any goroutine.
func (r *Run) Do(ctx context.Context, owner Owner) {
	defer func() {
		awaited := owner.Ended(r.returned, r.err)
		defer owner.Done(awaited) // even if drop panics
		if !awaited {
			r.Fork.Discard()
			return
		}
		if r.returned {
			return
		}
		if value := recover(); value != nil { // only now that somebody hears of it
			r.panicked = PanicError(value)
		}
	}()
	r.err = r.Fork.Run(ctx)
	r.returned = true
}

// Result gives what the run, which is done, returned. If it panicked, or ended its goroutine, Result does the same.
func (r *Run) Result() error {
	switch {
	case r.panicked != nil:
		panic(r.panicked)
	case !r.returned:
		runtime.Goexit()
	}
	return r.err
}

// PanicError holds a panic's value with the stack of the goroutine, whose deferred function calls it. A value that comes
// from a policy further in and holds both already stays as it is.
func PanicError(value any) *resilience.PanicError {
	if inner, ok := value.(*resilience.PanicError); ok {
		return inner
	}
	return &resilience.PanicError{Value: value, Stack: debug.Stack()}
}
