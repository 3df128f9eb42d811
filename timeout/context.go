package timeout

import (
	"context"
	"reflect"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/effector-go/resilience/internal/clock"
	"github.com/effector-go/resilience/internal/ctxkey"
)

// A limitCtx is what context.WithDeadline(parent, deadline) would be, but has no timer, channel or place among its parent's
// children before somebody needs them. Then it is armed: it has an inner context made by the standard library, which
// from then on answers for it. Until then it looks at its parent and the clock whenever it is asked.
//
// It ends once. The first of arm and end that sets inner decides how, so Err and Cause never change once they have been told.
type limitCtx struct {
	// outer is the parent if that is a limitCtx, else root is; root is the nearest one around that is none, in either case. So what
	// only root can tell, one that ends at once in a deep nest need not ask for through all between.
	outer *limitCtx
	root  context.Context

	deadline uint64 // by internal/clock; no later than the parent's. Unsigned, since a limit may be 292 years

	// inner and cancel are written once, by the one that made state publishing, and read by those that saw it armed.
	inner  context.Context
	cancel context.CancelFunc

	state atomic.Uint32
}

// The states: live goes to armed (by arm) or to returned (by end), returned to armed, and armed stays. The way to armed leads through
// publishing, which lasts for two assignments; that is cheaper than a mutex.
const (
	live       uint32 = iota // nobody needed an inner context, and the call runs
	publishing               // inner and cancel are being written
	armed                    // inner answers
	returned                 // nobody needed an inner context before the call returned
)

// within gives a context with the limit, nil if ctx has a deadline that is no later.
func within(ctx context.Context, limit time.Duration) *limitCtx {
	now := clock.Now()
	if outer, ok := ctx.(*limitCtx); ok {
		if limit >= outer.left(now) {
			return nil
		}
		return &limitCtx{outer: outer, root: outer.root, deadline: uint64(now) + uint64(limit)}
	}
	if own, ok := ctx.Deadline(); ok && limit >= clock.Until(own, now) {
		return nil
	}
	return &limitCtx{root: ctx, deadline: uint64(now) + uint64(limit)}
}

// Deadline reads the wall clock too: what it told when the process began may be wrong by now.
func (c *limitCtx) Deadline() (deadline time.Time, ok bool) {
	now := time.Now()
	return now.Add(c.left(clock.Of(now))), true
}

// Unlimited makes it a [ctxkey.Limited].
func (c *limitCtx) Unlimited(ctxkey.Friend) context.Context { return c.parent() }

func (c *limitCtx) parent() context.Context {
	if c.outer != nil {
		return c.outer
	}
	return c.root
}

// left is the time from now to the deadline.
func (c *limitCtx) left(now int64) time.Duration { return time.Duration(c.deadline - uint64(now)) }

func (c *limitCtx) Done() <-chan struct{} { return c.arm().Done() }

func (c *limitCtx) Err() error {
	if c.state.Load() == live && c.left(clock.Now()) > 0 && c.seenErr() == nil {
		return nil
	}
	return c.arm().Err() // armed, so that Done is closed if this is an error
}

// seenErr is the parent's Err as far as that was seen: the clock is not read to find whether a limit around c has passed, since c's own
// passes before.
func (c *limitCtx) seenErr() error {
	for outer := c.outer; outer != nil; outer = outer.outer {
		if outer.state.Load() != live {
			return outer.arm().Err()
		}
	}
	return c.root.Err()
}

func (c *limitCtx) Value(key any) any {
	if key != ctxkey.Cancel || key == nil {
		return c.root.Value(key) // a limit has no values
	}
	// A child asks after Done, which armed. Cause asks also while nothing has ended; with nil it gives Err, nil too. The
	// parent's answer would be wrong: our end is not the parent's.
	if c.Err() == nil && c.state.Load() != armed {
		return nil
	}
	return c.arm().Value(key)
}

func (c *limitCtx) String() string {
	parent := reflect.TypeOf(c.parent()).String()
	if s, ok := c.parent().(interface{ String() string }); ok {
		parent = s.String()
	}
	deadline, _ := c.Deadline()
	return parent + ".WithDeadline(" + deadline.String() + " [" + time.Until(deadline).String() + "])"
}

// arm gives the inner context, made if need be.
func (c *limitCtx) arm() context.Context {
	if c.state.Load() != armed {
		c.makeInner()
	}
	return c.inner
}

// makeInner makes the inner context and publishes it, unless another goroutine does so first, or the call returns meanwhile.
func (c *limitCtx) makeInner() {
	for {
		state := c.state.Load()
		var inner context.Context
		var cancel context.CancelFunc
		switch {
		case state == armed:
			return
		case state == publishing:
			runtime.Gosched()
			continue
		case state == returned:
			inner, cancel = context.WithCancel(context.Background())
			cancel()
		default:
			inner, cancel = c.standard()
		}
		if c.state.CompareAndSwap(state, publishing) {
			c.inner, c.cancel = inner, cancel
			c.state.Store(armed)
			return
		}
		cancel()
	}
}

// standard gives a context of the standard library's that is what c is while its call runs.
func (c *limitCtx) standard() (context.Context, context.CancelFunc) {
	parent := c.root
	if c.outer != nil {
		parent = c.outer.arm() // which it would be by its child
	}
	switch err := parent.Err(); {
	case err == nil:
		return context.WithDeadline(parent, c.timerTime()) // has ended if the deadline has passed
	case err == context.DeadlineExceeded && c.first():
		return context.WithDeadline(context.Background(), time.Unix(0, 0))
	}
	// The parent has ended. It goes first: where nobody looked, who was first is not known, and a limit is blamed for nothing that may have
	// been the caller's doing.
	inner, cancel := context.WithCancel(parent)
	if inner.Err() != nil {
		return inner, cancel
	}
	// A parent of another kind, whose end its child has yet to hear of. It must not be told twice, in two ways.
	cancel()
	if parent.Err() == context.DeadlineExceeded {
		return context.WithDeadlineCause(context.Background(), time.Unix(0, 0), context.Cause(parent))
	}
	inner, cancelCause := context.WithCancelCause(context.Background())
	cancelCause(context.Cause(parent))
	return inner, func() {}
}

// timerTime is the deadline for a timer. It reads no clock where there is no other deadline to compare it with but those of limits.
func (c *limitCtx) timerTime() time.Time {
	if _, ok := c.root.Deadline(); !ok {
		return clock.Monotonic(c.deadline)
	}
	deadline, _ := c.Deadline()
	return deadline
}

// first reports whether the parent has a deadline and ours is before it.
func (c *limitCtx) first() bool {
	if parents, ok := c.parent().Deadline(); ok {
		own, _ := c.Deadline()
		return own.Before(parents)
	}
	return false
}

// end ends the context with its call, if it has not ended, and releases the timer. Where nobody needed an inner context that is a
// cancellation, be the deadline past or not: the clock is not read, and one who asks afterwards may have come too late either way.
func (c *limitCtx) end() {
	// Whether an outer call has returned meanwhile does not matter: that, too, is a cancellation.
	if c.state.Load() == live && c.root.Err() == nil && c.state.CompareAndSwap(live, returned) {
		return
	}
	c.makeInner()
	c.cancel()
}

// passed reports whether the deadline has passed and nothing else had ended the context before.
func (c *limitCtx) passed() bool {
	if c.left(clock.Now()) > 0 {
		return false
	}
	switch c.Err() {
	case nil:
		// The inner timer is only late to say so: an effector that keeps the deadline by a timer of its own, as a net.Conn does, may
		// return before it.
		return c.parent().Err() == nil
	case context.DeadlineExceeded:
		// Either the inner timer fired, or the inner context heard of the parent's deadline: then the parent tells the same.
		return c.parent().Err() != context.DeadlineExceeded || c.first()
	}
	return false
}
