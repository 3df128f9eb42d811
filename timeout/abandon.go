package timeout

import (
	"context"
	"runtime"
	"runtime/debug"
	"sync/atomic"

	"github.com/effector-go/resilience"
)

// leftBehind counts the effectors that run though their callers have gone. The caller adds one after it has left, and the
// effector's goroutine takes one away when it ends, which may come first; so it may be one too low for a moment, but
// counts the call from when it returns.
type leftBehind struct{ n atomic.Int64 }

func (l *leftBehind) load() int { return int(max(0, l.n.Load())) }

// Abandoned is how many effectors that were left behind are still running: see [Config].Abandon.
func (t *Timeout) Abandoned() int { return t.left.load() }

// apart is a call whose effector runs on a goroutine of its own.
type apart struct {
	timeout *Timeout
	fork    resilience.Next

	// state decides who has the result: running goes to finished (the goroutine, when the effector ended) or to left (the
	// caller, when it returns without it). The one that comes second sees what the first did.
	state atomic.Uint32
	done  chan struct{} // closed after the goroutine wrote what follows and state became finished

	err      error
	returned bool                   // neither panic nor Goexit
	panicked *resilience.PanicError // nil after Goexit
}

const (
	running uint32 = iota
	finished
	left
)

// runApart runs next on a goroutine of its own and waits for it no longer than ctx and the limit allow.
func (t *Timeout) runApart(ctx context.Context, next resilience.Next) error {
	if n := t.left.load(); int64(n) >= t.abandon {
		return &AbandonedError{t.name, n}
	}
	limited := t.within(ctx)
	inside := ctx
	if limited != nil {
		defer limited.end()
		inside = limited
	}
	a := &apart{timeout: t, fork: next.Fork(), done: make(chan struct{})}
	go a.run(inside)

	select {
	case <-a.done:
	case <-inside.Done():
		if a.state.CompareAndSwap(running, left) {
			t.left.n.Add(1)
			if limited != nil && limited.passed() {
				return &Error{t.name, t.limit, nil}
			}
			return resilience.ContextErr(ctx)
		}
		<-a.done // it ended at the same time
	}

	next.Adopt(a.fork)
	switch {
	case a.panicked != nil:
		panic(a.panicked)
	case !a.returned:
		runtime.Goexit()
	case a.err != nil && limited != nil:
		return t.blame(limited, a.err)
	}
	return a.err
}

func (a *apart) run(ctx context.Context) {
	defer func() {
		if !a.state.CompareAndSwap(running, finished) {
			// Left behind. Nothing is recovered: a panic now has no caller to go to.
			defer a.timeout.left.n.Add(-1)
			a.fork.Discard()
			return
		}
		defer close(a.done)
		if a.returned {
			return
		}
		if value := recover(); value != nil {
			a.panicked = panicError(value)
		}
	}()
	a.err = a.fork.Run(ctx)
	a.returned = true
}

// panicError holds a panic's value with the stack of the goroutine, whose deferred function calls it. A value that comes
// from a policy further in and holds both already stays as it is.
func panicError(value any) *resilience.PanicError {
	if inner, ok := value.(*resilience.PanicError); ok {
		return inner
	}
	return &resilience.PanicError{Value: value, Stack: debug.Stack()}
}
