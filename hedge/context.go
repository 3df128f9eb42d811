package hedge

import (
	"context"
	"errors"
	"sync"

	"github.com/effector-go/resilience/internal/ctxkey"
)

// ErrLost is the cause ([context.Cause]) of the ctx of a start that was still running when its call returned: another start won.
var ErrLost = errors.New("hedge: another start of the call won")

// A startCtx is what context.WithCancelCause(parent) would be, but has neither channel nor place among its parent's children before
// somebody needs them. Then it has an inner context made by the standard library, which from then on answers for it. Until then it looks at its
// parent. So a start that never waits for its ctx pays for none, and the limits around it arm no timer.
type startCtx struct {
	context.Context // the parent

	mu     sync.Mutex // guards the following
	inner  context.Context
	cancel context.CancelCauseFunc
	over   bool  // ended, and the parent had not
	cause  error // if over
}

func (c *startCtx) Done() <-chan struct{} { return c.arm().Done() }

func (c *startCtx) Err() error {
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

// Value gives the inner context where package context asks for one of its kind, to join a child to it or to find the cause.
func (c *startCtx) Value(key any) any {
	if key == ctxkey.Cancel && key != nil {
		return c.arm().Value(key)
	}
	return c.Context.Value(key)
}

// arm gives the inner context, made if need be.
func (c *startCtx) arm() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.makeInner()
	return c.inner
}

// makeInner is called with mu held.
func (c *startCtx) makeInner() {
	if c.inner != nil {
		return
	}
	parent := c.Context
	if c.over {
		parent = context.WithoutCancel(parent) // which may have ended since, for another reason
	}
	c.inner, c.cancel = context.WithCancelCause(parent)
	if c.over {
		c.cancel(c.cause)
	}
}

// end ends the context, if it has not ended. A nil cause is that of a plain cancellation.
func (c *startCtx) end(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.inner != nil:
		c.cancel(cause)
	case !c.over && c.Context.Err() == nil: // else it ended with its parent, and goes on to say so
		c.over, c.cause = true, cause
	}
}
