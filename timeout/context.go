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

// A limitCtx behaves like context.WithDeadline(parent, deadline), but it has no timer, no channel,
// and no place among its parent's children until something needs them. Then it is armed: it gets an
// inner context from the standard library, which answers for it from then on. Until then, it looks
// at its parent and at the clock whenever it is asked.
//
// It ends once. The first of arm and end that changes state decides how, so Err and Cause never
// change after they have been returned.
//
// Of nested limits, only the earliest can pass while the innermost call runs. So arming a limit
// doesn't arm the ones around it: its inner context is a child of the nearest armed one, or of root,
// and the unarmed limits in between hold it, to end it if their calls return first (a fork or an
// abandoned effector may outlive them). A limit holds one at most. If another one is armed inside it
// meanwhile, it is armed too, and lets the standard library keep the children.
type limitCtx struct {
	// outer is the parent if the parent is a limitCtx, otherwise root is the parent. In either
	// case, root is the nearest context around c that isn't a limitCtx.
	outer *limitCtx
	root  context.Context

	deadline uint64 // by internal/clock, earlier than outer's; unsigned, since a limit may be 292 years

	// inner and cancel are written once, by the goroutine that set state to publishing, and read by
	// those that have seen state armed.
	inner  context.Context
	cancel context.CancelFunc

	// nested is the limit inside this one that an end of its call must end, or nil. It is set by join
	// and cleared by the end of that limit. A goroutine that arms a limit after its end may set it once
	// more; then an ended limit stays, which costs the next one inside this one a second timer.
	nested atomic.Pointer[limitCtx]

	state atomic.Uint32
}

// The states: from live to armed (by arm) or returned (by end), from returned to armed, and no
// further. The path to armed leads through publishing, which lasts for two assignments; that is
// cheaper than a mutex.
const (
	live       uint32 = iota // nothing has needed an inner context, and the call runs
	publishing               // inner and cancel are being written
	armed                    // inner answers
	returned                 // nothing needed an inner context before the call returned
)

// within returns a context with the limit, or nil if ctx has a deadline that is no later.
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

// Deadline reads the wall clock too, because the wall clock may have been set since the process
// began.
func (c *limitCtx) Deadline() (deadline time.Time, ok bool) {
	now := time.Now()
	return now.Add(c.left(clock.Of(now))), true
}

// Unlimited implements [ctxkey.Limited].
func (c *limitCtx) Unlimited(ctxkey.Friend) context.Context { return c.parent() }

func (c *limitCtx) parent() context.Context {
	if c.outer != nil {
		return c.outer
	}
	return c.root
}

// left returns the time from now to the deadline.
func (c *limitCtx) left(now int64) time.Duration { return time.Duration(c.deadline - uint64(now)) }

func (c *limitCtx) Done() <-chan struct{} { return c.arm().Done() }

func (c *limitCtx) Err() error {
	if c.state.Load() == live && c.left(clock.Now()) > 0 && c.seenErr() == nil {
		return nil
	}
	return c.arm().Err() // armed, so that Done is closed if this is an error
}

// seenErr returns the parent's error as far as something has seen it. It doesn't read the clock for
// the limits around c, because c's own limit passes before theirs.
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
	// A child calls Done first, which arms. Cause asks also while nothing has ended; for nil, it
	// returns Err, which is nil too. The parent's answer would be wrong: its end isn't this one's.
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

// arm returns the inner context, which it makes if necessary.
func (c *limitCtx) arm() context.Context {
	if c.state.Load() != armed {
		c.makeInner()
	}
	return c.inner
}

// makeInner makes the inner context and publishes it, unless another goroutine does so first or the
// call returns in the meantime.
func (c *limitCtx) makeInner() {
	for {
		state := c.state.Load()
		var inner context.Context
		var cancel context.CancelFunc
		switch state {
		case armed:
			return
		case publishing:
			runtime.Gosched()
			continue
		case returned:
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

// standard returns a context of the standard library that ends as c does while c's call runs.
func (c *limitCtx) standard() (context.Context, context.CancelFunc) {
	parent := c.join()
	switch err := parent.Err(); {
	case err == nil:
		return context.WithDeadline(parent, c.timerTime()) // has ended if the deadline has passed
	case err == context.DeadlineExceeded && c.first():
		return context.WithDeadline(context.Background(), time.Unix(0, 0))
	}
	// The parent has ended and takes precedence: if nothing looked, it isn't known which ended
	// first, and a limit isn't blamed for what may have been the caller's doing.
	inner, cancel := context.WithCancel(parent)
	if inner.Err() != nil {
		return inner, cancel
	}
	// A parent of another kind, whose end its child hasn't noticed yet. It must not end twice, in
	// two ways.
	cancel()
	if parent.Err() == context.DeadlineExceeded {
		return context.WithDeadlineCause(context.Background(), time.Unix(0, 0), context.Cause(parent))
	}
	inner, cancelCause := context.WithCancelCause(context.Background())
	cancelCause(context.Cause(parent))
	return inner, func() {}
}

// join returns the parent for an inner context of c: root, if each limit around c can hold the next
// inner one, otherwise the nearest limit that can't, armed, or that isn't live.
//
// A limit's end changes its state before it looks at nested, and join looks at the state after it
// has set nested. So either the end finds the limit, or join finds the end.
func (c *limitCtx) join() (parent context.Context) {
	for inner, outer := c, c.outer; outer != nil; inner, outer = outer, outer.outer {
		if !outer.hold(inner) || outer.state.Load() != live {
			return outer.arm()
		}
	}
	return c.root
}

// hold sets nested to inner and reports whether it could: there may be another one.
func (c *limitCtx) hold(inner *limitCtx) bool {
	return c.nested.CompareAndSwap(nil, inner) || c.nested.Load() == inner
}

// timerTime returns the deadline for a timer. It reads no clock if there is no deadline to compare
// it with except those of limits.
func (c *limitCtx) timerTime() time.Time {
	if _, ok := c.root.Deadline(); !ok {
		return clock.Monotonic(c.deadline)
	}
	deadline, _ := c.Deadline()
	return deadline
}

// first reports whether the parent has a deadline and c's is earlier.
func (c *limitCtx) first() bool {
	if parents, ok := c.parent().Deadline(); ok {
		own, _ := c.Deadline()
		return own.Before(parents)
	}
	return false
}

// end ends the context together with its call, if it hasn't ended, and releases the timer. Without
// an inner context, that is a cancellation, whether the deadline has passed or not: the clock isn't
// read, and code that asks after that may have come too late either way. It may be called
// repeatedly and concurrently: by the call and by the end of a call around it.
func (c *limitCtx) end() {
	// Whether an outer call has returned in the meantime doesn't matter: that is a cancellation
	// too.
	if c.state.Load() != live || c.root.Err() != nil || !c.state.CompareAndSwap(live, returned) {
		c.makeInner()
		c.cancel()
	}
	if nested := c.nested.Load(); nested != nil {
		nested.end()
	}
	if c.outer != nil && c.outer.nested.Load() == c {
		c.outer.nested.CompareAndSwap(c, nil)
	}
}

// passed reports whether the deadline has passed and nothing had ended the context before.
func (c *limitCtx) passed() bool {
	if c.left(clock.Now()) > 0 {
		return false
	}
	err, parents := c.Err(), c.parent().Err()
	switch {
	case parents == context.DeadlineExceeded:
		// Both deadlines have passed, or the parent of another kind ended early.
		return (err == nil || err == context.DeadlineExceeded) && c.first()
	case err == nil:
		// The inner timer is only late: an effector that keeps the deadline with its own timer, as
		// a net.Conn does, may return before it.
		return parents == nil
	}
	return err == context.DeadlineExceeded
}
