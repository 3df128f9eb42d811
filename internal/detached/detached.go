// Package detached runs a fork of a call on its own goroutine and passes the result to the call's
// goroutine: an error, a panic, or a runtime.Goexit.
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

// An Owner started a run. It may have left the run behind since then.
type Owner interface {
	// Ended is called when the run has ended. It reports whether the run is still awaited. returned
	// is false after a panic or Goexit; err is the error that the run returned.
	Ended(returned bool, err error) (awaited bool)

	// Done is called after Ended with its result. By then, the run's result is ready if it is
	// awaited, and was discarded if not.
	Done(awaited bool)
}

// Do runs the fork. It must be the first function of its goroutine. A value that isn't awaited is
// discarded; a panic that isn't awaited crashes the program, as in any goroutine.
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
		if value := recover(); value != nil { // recover only if the panic is passed on
			r.panicked = PanicError(value)
		}
	}()
	r.err = r.Fork.Run(ctx)
	r.returned = true
}

// Result returns the error of the run, which must be done. If the run panicked or called
// runtime.Goexit, Result does the same.
func (r *Run) Result() error {
	switch {
	case r.panicked != nil:
		panic(r.panicked)
	case !r.returned:
		runtime.Goexit()
	}
	return r.err
}

// PanicError returns the value of a panic with the stack of its goroutine. It must be called by a
// deferred function of that goroutine. A value that is already a *resilience.PanicError, from an
// inner policy, is returned unchanged.
func PanicError(value any) *resilience.PanicError {
	if inner, ok := value.(*resilience.PanicError); ok {
		return inner
	}
	return &resilience.PanicError{Value: value, Stack: debug.Stack()}
}
