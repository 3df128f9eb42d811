package hedge

import (
	"context"
	"errors"
	"sync"

	"github.com/effector-go/resilience/internal/ctxkey"
)

// ErrLost is the cause ([context.Cause]) with which a start's context is canceled if the start was
// still running when its call returned, because another start won.
var ErrLost = errors.New("hedge: another start of the call won")

// A startContext behaves like context.WithCancelCause(parent), but creates its channel and joins
// its parent's children only when they are needed. From then on it delegates to an inner context of
// the standard library; until then it asks its parent. So a start that never waits for its context
// doesn't pay for one, and the timeouts around it arm no timer.
type startContext struct {
	context.Context // the parent

	mu     sync.Mutex // guards the following
	inner  context.Context
	cancel context.CancelCauseFunc
	over   bool  // end was called before the parent ended
	cause  error // set if over
}

func (c *startContext) Done() <-chan struct{} { return c.arm().Done() }

func (c *startContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.inner != nil:
		return c.inner.Err()
	case c.over:
		return context.Canceled
	}
	return c.Context.Err()
}

// Value returns the inner context's answer when package context looks for a context of its own
// kind, to add a child to it or to find the cause.
func (c *startContext) Value(key any) any {
	if key == ctxkey.Cancel && key != nil {
		return c.arm().Value(key)
	}
	return c.Context.Value(key)
}

// arm returns the inner context and creates it if necessary.
func (c *startContext) arm() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.makeInner()
	return c.inner
}

// makeInner creates the inner context if there is none. mu must be held.
func (c *startContext) makeInner() {
	if c.inner != nil {
		return
	}
	parent := c.Context
	if c.over {
		// The parent may have ended since then, for another reason.
		parent = context.WithoutCancel(parent)
	}
	c.inner, c.cancel = context.WithCancelCause(parent)
	if c.over {
		c.cancel(c.cause)
	}
}

// end cancels the context with cause, unless it has already ended. A nil cause means
// context.Canceled.
func (c *startContext) end(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.inner != nil:
		c.cancel(cause)
	// Otherwise it ended with its parent and keeps reporting that.
	case !c.over && c.Context.Err() == nil:
		c.over, c.cause = true, cause
	}
}
