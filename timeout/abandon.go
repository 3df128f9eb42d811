package timeout

import (
	"context"
	"sync/atomic"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/detached"
)

// leftBehind counts the effectors that run though their callers have gone. The caller adds one after it has left, and the
// effector's goroutine takes one away when it ends, which may come first; so it may be one too low for a moment, but
// counts the call from when it returns.
type leftBehind struct{ n atomic.Int64 }

func (l *leftBehind) load() int { return int(max(0, l.n.Load())) }

// Abandoned is how many effectors that were left behind are still running: see [Config].Abandon.
func (t *Timeout) Abandoned() int { return t.left.load() }

// apartCall is a call whose effector runs on a goroutine of its own.
type apartCall struct {
	detached.Run
	timeout *Timeout

	// state decides who has the result: running goes to finished (the goroutine, when the effector ended) or to left (the
	// caller, when it returns without it). The one that comes second sees what the first did.
	state atomic.Uint32
	done  chan struct{} // closed after state became finished and the result is there
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
	limited := within(ctx, t.limit)
	inside := ctx
	if limited != nil {
		defer limited.end()
		inside = limited
	}
	a := &apartCall{Run: detached.Run{Fork: next.Fork()}, timeout: t, done: make(chan struct{})}
	go a.Do(inside, a)

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

	next.Adopt(a.Fork)
	err := a.Result()
	if err != nil && limited != nil {
		return t.blame(limited, err)
	}
	return err
}

// Ended is [detached.Owner]'s.
func (a *apartCall) Ended(bool, error) (awaited bool) {
	return a.state.CompareAndSwap(running, finished)
}

// Done is [detached.Owner]'s.
func (a *apartCall) Done(awaited bool) {
	if awaited {
		close(a.done)
	} else {
		a.timeout.left.n.Add(-1)
	}
}
