// Package shared runs an effector once for several callers that wait for it.
package shared

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/clock"
	"github.com/effector-go/resilience/internal/detached"
)

// A Run is one run of an effector on its own goroutine. Its context has the values of one caller's
// context. It ends when the run does, or when every caller has left. In the latter case the run was
// given up: it can't be joined anymore, and its result is reported to no one.
type Run[T any] struct {
	done chan struct{} // closed when the run has ended and its result is ready, unless given up

	// ready is set just before done is closed. It is checked first, because done may belong to a
	// synctest bubble that has ended.
	ready atomic.Bool

	// mu is the owner's mutex, under which it decides which callers join which run. It guards the
	// following.
	mu      *sync.Mutex
	state   state
	callers int // callers that wait
	cancel  context.CancelFunc
	ended   int64 // by package clock

	// The result. It is written by the run's goroutine before done is closed, and read afterwards.
	value    T
	err      error
	returned bool                   // neither panic nor Goexit
	panicked *resilience.PanicError // nil after Goexit
}

type state int

const (
	running state = iota
	ended
	givenUp
)

// Start starts a run with the values of ctx. callers is the number of callers, each of which must
// call [Run.Wait]. mu is the owner's mutex and must be held. node is the run's, or nil if it has
// none.
//
// If settle isn't nil, it is called with mu held when the run has ended, before Wait returns to any
// caller. It isn't called if the run was given up.
func Start[T any](ctx context.Context, node *Node, mu *sync.Mutex, callers int, effector resilience.Effector[T], settle func(*Run[T])) *Run[T] {
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r := &Run[T]{done: make(chan struct{}), mu: mu, callers: callers, cancel: cancel}
	go r.run(own, node, effector, settle)
	return r
}

func (r *Run[T]) run(ctx context.Context, node *Node, effector resilience.Effector[T], settle func(*Run[T])) {
	defer func() {
		node.end() // before the context ends, on which goroutines that keep it may wait
		if !r.end(settle) {
			return // Given up. A panic has no caller to go to: it isn't recovered, so it crashes the program.
		}
		defer func() {
			r.ready.Store(true)
			close(r.done)
		}()
		if r.returned {
			return
		}
		if value := recover(); value != nil {
			r.panicked = detached.PanicError(value)
		}
	}()
	r.value, r.err = effector(ctx)
	r.returned = true
}

// end records that the effector has ended, and reports whether any caller waits.
func (r *Run[T]) end(settle func(*Run[T])) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cancel()
	r.cancel = nil // releases the context's values: the owner may keep the run
	if r.state == givenUp {
		return false
	}
	r.state, r.ended = ended, clock.Now()
	if settle != nil {
		settle(r)
	}
	return true
}

// Join adds a caller, which must call [Run.Wait], unless the run has ended or was given up. The
// owner's mutex must be held.
func (r *Run[T]) Join() (joined bool) {
	if r.state != running {
		return false
	}
	r.callers++
	return true
}

// Ended returns when the run ended, by package clock. ok is false while it is running, and if it
// was given up. The owner's mutex must be held.
func (r *Run[T]) Ended() (at int64, ok bool) { return r.ended, r.state == ended }

// Returned returns the effector's results. ok is false if the effector panicked or called
// runtime.Goexit. It is for use in settle.
func (r *Run[T]) Returned() (value T, err error, ok bool) { return r.value, r.err, r.returned }

// Answer replaces the effector's results by value and no error. It is for use in settle.
func (r *Run[T]) Answer(value T) { r.value, r.err = value, nil }

// Wait waits for the run and returns its results. If the run panicked or called runtime.Goexit,
// Wait does the same. If ctx ends first, the caller leaves the run and Wait returns the context's
// error.
func (r *Run[T]) Wait(ctx context.Context) (T, error) {
	if !r.ready.Load() {
		select {
		case <-r.done:
		case <-ctx.Done():
			if r.leave() {
				var zero T
				return zero, resilience.ContextErr(ctx)
			}
			<-r.done // it ended at the same time
		}
	}
	switch {
	case r.panicked != nil:
		panic(r.panicked)
	case !r.returned:
		runtime.Goexit()
	}
	return r.value, r.err
}

// leave removes a caller from the run, and gives the run up if it was the last one. It returns
// false if the run has already ended.
func (r *Run[T]) leave() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state != running {
		return false
	}
	if r.callers--; r.callers == 0 {
		r.state = givenUp
		r.cancel()
	}
	return true
}
