package timeout

import (
	"context"
	"sync/atomic"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/detached"
)

// leftBehind counts the effectors that run although their callers have left. The caller adds one
// after it has left, and the effector's goroutine subtracts one when it ends, which may happen
// first. So the count may be one too low for a moment, but it includes the call from when the call
// returns.
type leftBehind struct{ n atomic.Int64 }

func (l *leftBehind) load() int { return int(max(0, l.n.Load())) }

// Abandoned returns how many abandoned effectors are still running: see [Config].Abandon.
func (t *Timeout) Abandoned() int { return t.left.load() }

// A detachedCall is a call whose effector runs on its own goroutine.
type detachedCall struct {
	detached.Run
	timeout *Timeout

	// state decides who owns the result: from running to finished (the goroutine, when the effector
	// has ended) or to left (the caller, when it returns without the result). The second one sees
	// what the first one did.
	state atomic.Uint32
	done  chan struct{} // closed after state has become finished and the result is there
}

const (
	running uint32 = iota
	finished
	left
)

// runDetached runs next on its own goroutine and waits for it as long as ctx and the limit allow.
func (t *Timeout) runDetached(ctx context.Context, next resilience.Next, config *Config) error {
	if n := t.left.load(); n >= config.Abandon {
		return &AbandonedError{config.Name, n}
	}
	limited := within(ctx, config.Limit)
	inside := ctx
	if limited != nil {
		defer limited.end()
		inside = limited
	}
	c := &detachedCall{Run: detached.Run{Fork: next.Fork()}, timeout: t, done: make(chan struct{})}
	go c.Do(inside, c)

	select {
	case <-c.done:
	case <-inside.Done():
		if c.state.CompareAndSwap(running, left) {
			t.left.n.Add(1)
			if limited != nil && limited.passed() {
				return &Error{config.Name, config.Limit, nil}
			}
			return resilience.ContextErr(ctx)
		}
		<-c.done // it ended at the same time
	}

	next.Adopt(c.Fork)
	err := c.Result()
	if err != nil && limited != nil {
		return config.claim(limited, err)
	}
	return err
}

// Ended implements [detached.Owner].
func (c *detachedCall) Ended(bool, error) (awaited bool) {
	return c.state.CompareAndSwap(running, finished)
}

// Done implements [detached.Owner].
func (c *detachedCall) Done(awaited bool) {
	if awaited {
		close(c.done)
	} else {
		c.timeout.left.n.Add(-1)
	}
}
