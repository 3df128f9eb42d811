// Package limit limits a context's time, for package timeout: it makes contexts that cost less than those of package context where
// nobody waits for their end, and that share readings of the clock between the timeouts of a pipeline.
package limit

import (
	"context"
	"reflect"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/effector-go/resilience/internal/clock"
	"github.com/effector-go/resilience/internal/ctxkey"
)

// A Ctx is what context.WithDeadline(parent, deadline) would be, but has no timer, channel or place among its parent's
// children before somebody needs them. Then it is armed: it has an inner context made by the standard library, which
// from then on answers for it. Until then it looks at its parent and the clock whenever it is asked.
//
// It ends once, for one of three reasons. The first of makeInner and End that changes state from live decides
// which, so Err and Cause never change once they have been told.
type Ctx struct {
	// outer is the parent if that is a Ctx, else root is; root is the nearest one around that is none, in either case. So what
	// only root can tell, one that ends at once in a deep nest need not ask for through all between.
	outer *Ctx
	root  context.Context

	deadline uint64 // by internal/clock; no later than the parent's. Unsigned, since a limit may be 292 years

	// inner and cancel are written once, by the one that made state publishing, and read by those that saw it armed.
	inner  context.Context
	cancel context.CancelFunc

	state atomic.Uint32

	moment int64 // when it was made, taken, or seen: see prompt.go
	spare  *Ctx  // for one within, made with it
}

// The states: live goes to armed (by makeInner) or to one of the ended states (by End), an ended one to armed (by makeInner,
// with an inner context that has ended for the same reason), and armed stays. The way to armed leads through publishing, which lasts
// for two assignments; that is cheaper than a mutex.
const (
	live        uint32 = iota // nobody needed an inner context, and the call runs
	publishing                // inner and cancel are being written
	armed                     // inner answers
	canceled                  // the call returned
	expired                   // the deadline had passed when the call returned
	parentEnded               // the parent had ended when the call returned
)

// A Limit is how long calls may take. It knows from earlier ones whether another limit stands within it.
type Limit struct {
	After time.Duration // positive
	nests atomic.Bool   // a context was taken for an inner one
}

// Within gives a context that ends with ctx, or when the limit is over from now; nil if ctx has a deadline that is no later.
func (l *Limit) Within(ctx context.Context) *Ctx {
	if outer, ok := ctx.(*Ctx); ok {
		return l.inside(outer)
	}
	var now int64
	if own, ok := ctx.Deadline(); ok {
		at := time.Now()
		if now = clock.Of(at); l.After >= own.Sub(at) {
			return nil
		}
	} else {
		now = clock.Now() // half the cost of time.Now
	}
	var c *Ctx
	if l.nests.Load() {
		both := new([2]Ctx) // costs less than one after the other
		c = &both[0]
		c.spare = &both[1]
	} else {
		c = new(Ctx)
	}
	c.root, c.deadline, c.moment = ctx, uint64(now)+uint64(l.After), now
	return c
}

func (l *Limit) inside(outer *Ctx) *Ctx {
	now := outer.moment
	if now <= 0 {
		now = clock.Now()
	}
	if l.After >= outer.left(now) {
		return nil
	}
	var c *Ctx
	if outer.moment > 0 {
		outer.moment = taken
		c = outer.spare // nobody else can take it
	}
	if c == nil {
		c = new(Ctx)
	}
	c.outer, c.root, c.deadline, c.moment = outer, outer.root, uint64(now)+uint64(l.After), now
	return c
}

// Deadline reads the wall clock too: what it told when the process began may be wrong by now.
func (c *Ctx) Deadline() (deadline time.Time, ok bool) {
	now := time.Now()
	return now.Add(c.left(clock.Of(now))), true
}

// Unlimited makes it a [ctxkey.Limited].
func (c *Ctx) Unlimited(ctxkey.Friend) context.Context { return c.parent() }

func (c *Ctx) parent() context.Context {
	if c.outer != nil {
		return c.outer
	}
	return c.root
}

// left is the time from now to the deadline.
func (c *Ctx) left(now int64) time.Duration { return time.Duration(c.deadline - uint64(now)) }

func (c *Ctx) Done() <-chan struct{} { return c.arm().Done() }

func (c *Ctx) Err() error {
	if c.state.Load() == live && c.left(clock.Now()) > 0 && c.undueErr() == nil {
		return nil
	}
	return c.arm().Err() // armed, so that Done is closed if this is an error
}

// undueErr is the parent's Err for one who knows that no deadline of the parent's has passed, so that the clock need not be read.
func (c *Ctx) undueErr() error {
	for outer := c.outer; outer != nil; outer = outer.outer {
		if outer.state.Load() != live {
			return outer.arm().Err()
		}
	}
	return c.root.Err()
}

func (c *Ctx) Value(key any) any {
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

func (c *Ctx) String() string {
	parent := reflect.TypeOf(c.parent()).String()
	if s, ok := c.parent().(interface{ String() string }); ok {
		parent = s.String()
	}
	deadline, _ := c.Deadline()
	return parent + ".WithDeadline(" + deadline.String() + " [" + time.Until(deadline).String() + "])"
}

// arm gives the inner context, made if need be.
func (c *Ctx) arm() context.Context {
	if c.state.Load() != armed {
		c.makeInner()
	}
	return c.inner
}

// makeInner makes the inner context and publishes it, unless another goroutine does so first, or End changes what it
// must be.
func (c *Ctx) makeInner() {
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
		case state != live:
			inner, cancel = c.ended(state)
		case c.parent().Err() != nil:
			inner, cancel = c.ended(c.parentFate())
		default:
			inner, cancel = context.WithDeadline(c.parent(), c.timerTime()) // has ended if the deadline has passed
		}
		if c.state.CompareAndSwap(state, publishing) {
			c.inner, c.cancel = inner, cancel
			c.state.Store(armed)
			return
		}
		cancel()
	}
}

// timerTime is the deadline for a timer. It reads no clock where there is no other deadline to compare it with.
func (c *Ctx) timerTime() time.Time {
	if _, ok := c.parent().Deadline(); !ok {
		return clock.Monotonic(c.deadline)
	}
	deadline, _ := c.Deadline()
	return deadline
}

// ended gives a context that has ended for the reason.
func (c *Ctx) ended(reason uint32) (context.Context, context.CancelFunc) {
	switch reason {
	case expired:
		return context.WithDeadline(context.Background(), time.Unix(0, 0))
	case parentEnded:
		inner, cancel := context.WithCancel(c.parent())
		if inner.Err() != nil {
			return inner, cancel
		}
		// A parent of another kind, whose end its child has yet to hear of. It must not be told twice, in two ways.
		cancel()
		if c.parent().Err() == context.DeadlineExceeded {
			return context.WithDeadlineCause(context.Background(), time.Unix(0, 0), context.Cause(c.parent()))
		}
		inner, cancelCause := context.WithCancelCause(context.Background())
		cancelCause(context.Cause(c.parent()))
		return inner, func() {}
	}
	inner, cancel := context.WithCancel(context.Background())
	cancel()
	return inner, cancel
}

// End ends c, which l made, with its call, if it has not ended, and releases the timer. It may be called again.
func (l *Limit) End(c *Ctx) {
	if c.moment == taken {
		if !l.nests.Load() {
			l.nests.Store(true)
		}
		if c.state.CompareAndSwap(live, canceled) { // without a look at the clock
			return
		}
	}
	if c.state.Load() == live && c.state.CompareAndSwap(live, c.fate()) {
		return
	}
	for c.state.Load() == publishing {
		runtime.Gosched()
	}
	if c.state.Load() == armed {
		c.cancel()
	}
}

// fate is the reason for which an unarmed context ends now. A parent that has ended goes first: where nobody looked, who
// was first is not known, and a limit is blamed for nothing that may have been the caller's doing.
func (c *Ctx) fate() uint32 {
	if c.left(clock.Now()) > 0 {
		// Whether an outer call has returned meanwhile does not matter: that, too, is a cancellation.
		if c.root.Err() == nil {
			return canceled
		}
		return c.parentFate()
	}
	if c.parent().Err() == nil {
		return expired
	}
	return c.parentFate()
}

// parentFate is the fate under a parent that has ended: expired if the parent's end was a deadline later than ours.
func (c *Ctx) parentFate() uint32 {
	if c.parent().Err() == context.DeadlineExceeded && c.first() {
		return expired
	}
	return parentEnded
}

// first reports whether the parent has a deadline and ours is before it.
func (c *Ctx) first() bool {
	if parents, ok := c.parent().Deadline(); ok {
		own, _ := c.Deadline()
		return own.Before(parents)
	}
	return false
}

// due reports whether the deadline has passed and the inner timer is only late to say so: an effector that keeps the deadline
// by a timer of its own, as a net.Conn does, may return before it.
func (c *Ctx) due() bool {
	return c.state.Load() == armed && c.inner.Err() == nil && c.parent().Err() == nil && c.left(clock.Now()) <= 0
}

// passed reports whether c, which has ended, did so because its own deadline passed.
func (c *Ctx) passed() bool {
	switch c.state.Load() {
	case expired:
		return true
	case canceled, parentEnded:
		return false
	}
	// Either the inner timer fired, or the inner context heard of the parent's deadline: then the parent tells the same.
	return c.arm().Err() == context.DeadlineExceeded && (c.parent().Err() != context.DeadlineExceeded || c.first())
}

// Passed ends c, which l made, with its call and reports whether its own deadline passed before that.
func (l *Limit) Passed(c *Ctx) bool {
	Forget(c) // there is somebody who asks
	due := c.due()
	l.End(c)
	return due || c.passed()
}
