// Package shared is the run of an effector that several callers wait for.
package shared

import (
	"context"
	"runtime"
	"runtime/debug"

	"github.com/effector-go/resilience"
)

// A Run is one run of an effector on a goroutine of its own. Its ctx has the values of one caller's, and ends when the run does, or
// when it is given up.
type Run[T any] struct {
	// Callers is how many wait. It is the owner's, who guards it.
	Callers int

	cancel context.CancelFunc
	done   chan struct{} // closed when the following are there

	value    T
	err      error
	panicked *resilience.PanicError
	exited   bool // by runtime.Goexit
}

// Start starts a run with the values of ctx. When it has ended, and before anybody who waits hears of that, ended is called on the run's
// goroutine.
func Start[T any](ctx context.Context, effector resilience.Effector[T], ended func(r *Run[T])) *Run[T] {
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r := &Run[T]{cancel: cancel, done: make(chan struct{})}
	go r.run(own, effector, ended)
	return r
}

func (r *Run[T]) run(ctx context.Context, effector resilience.Effector[T], ended func(r *Run[T])) {
	returned := false
	defer func() {
		if value := recover(); value != nil {
			p, ok := value.(*resilience.PanicError)
			if !ok {
				p = &resilience.PanicError{Value: value, Stack: debug.Stack()}
			}
			r.panicked = p
		} else {
			r.exited = !returned
		}
		r.cancel()
		ended(r)
		close(r.done)
	}()
	r.value, r.err = effector(ctx)
	returned = true
}

// GiveUp ends the run's ctx.
func (r *Run[T]) GiveUp() { r.cancel() }

// Done is closed when the run has ended.
func (r *Run[T]) Done() <-chan struct{} { return r.done }

// Good reports whether the run, which has ended, returned without an error.
func (r *Run[T]) Good() bool { return r.err == nil && r.panicked == nil && !r.exited }

// Err is the error that the run, which has ended, returned; nil if it did not return.
func (r *Run[T]) Err() error { return r.err }

// Result gives what the run, which has ended, returned. If it panicked, or ended its goroutine, Result does the same.
func (r *Run[T]) Result() (T, error) {
	switch {
	case r.panicked != nil:
		panic(r.panicked)
	case r.exited:
		runtime.Goexit()
	}
	return r.value, r.err
}
