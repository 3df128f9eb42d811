// Package shared is the run of an effector that several callers wait for.
package shared

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/detached"
	"github.com/effector-go/resilience/internal/clock"
)

// A Run is one run of an effector on a goroutine of its own. Its ctx has the values of one caller's, and ends when the run does, or
// when every caller has gone: then the run was given up, nobody may join it any more, and nobody hears what becomes of it.
type Run[T any] struct {
	done  chan struct{} // closed when the run has ended and its result is there, unless it was given up
	there atomic.Bool   // set just before: done may be of a synctest bubble that has ended

	// mu is the owner's, under which it decides who joins which run. It guards the following.
	mu      *sync.Mutex
	state   state
	callers int // that wait
	cancel  context.CancelFunc
	ended   int64 // on package clock

	// The result. It is written before done is closed, by the run's goroutine, and read after.
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

// Start starts a run with the values of ctx, for so many callers, who are to [Run.Wait]. It is called with mu held, the owner's. When the run has ended and was
// not given up, and before anybody hears of that, settle is called with the mutex held; nil for nothing.
func Start[T any](ctx context.Context, mu *sync.Mutex, callers int, effector resilience.Effector[T], settle func(*Run[T])) *Run[T] {
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r := &Run[T]{done: make(chan struct{}), mu: mu, callers: callers, cancel: cancel}
	go r.run(own, effector, settle)
	return r
}

func (r *Run[T]) run(ctx context.Context, effector resilience.Effector[T], settle func(*Run[T])) {
	defer func() {
		if !r.end(settle) {
			return // Given up. Nothing is recovered: a panic now has no caller to go to, and is the program's.
		}
		defer func() {
			r.there.Store(true)
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

// end takes note that the effector has ended, and reports whether anybody waits.
func (r *Run[T]) end(settle func(*Run[T])) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cancel()
	r.cancel = nil // the values of its ctx are needed no more, but the run may be kept
	if r.state == givenUp {
		return false
	}
	r.state, r.ended = ended, clock.Now()
	if settle != nil {
		settle(r)
	}
	return true
}

// Join adds a caller, who is to [Run.Wait], unless the run has ended or was given up. It is called with the owner's mutex held.
func (r *Run[T]) Join() (joined bool) {
	if r.state != running {
		return false
	}
	r.callers++
	return true
}

// Ended is when the run ended, on package clock; false while it lasts, and if it was given up. It is called with the owner's mutex held.
func (r *Run[T]) Ended() (at int64, ok bool) { return r.ended, r.state == ended }

// Returned gives what the effector returned, and reports whether it did, and neither panicked nor called runtime.Goexit. It is for settle.
func (r *Run[T]) Returned() (value T, err error, ok bool) { return r.value, r.err, r.returned }

// Answer gives the callers a value in place of what the effector returned. It is for settle.
func (r *Run[T]) Answer(value T) { r.value, r.err = value, nil }

// Wait gives a caller what the run returned. If the run panicked, or ended its goroutine, Wait does the same. If ctx ends first the caller goes,
// and gets ctx's error.
func (r *Run[T]) Wait(ctx context.Context) (T, error) {
	if !r.there.Load() {
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

// leave takes a caller off the run, and gives that up if he was the last. It is too late once the run has ended.
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
