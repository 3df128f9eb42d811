package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/retry"
)

// A kind is how the caller of a call behaves.
type kind int

const (
	waits   kind = iota
	hurries      // has a deadline
	cancels      // cancels its context
	dead         // calls with a context that has ended
	panics       // its effector panics
	exits        // its effector calls runtime.Goexit
)

// A call is one call through the pipeline, as seen by its caller and its effector.
type call struct {
	id    uint64
	kind  kind
	write bool // at most once

	// ignoresContext makes the effector ignore its context, so that Abandon leaves it behind.
	ignoresContext bool

	attempts atomic.Int64  // starts of the effector; several may run concurrently if ignoresContext
	sends    atomic.Uint32 // requests
	last     *attemptError // of the latest failed attempt, unless ignoresContext
	rejected bool          // an attempt had a permanent error, unless ignoresContext
	starts   int           // Next.Starts after the call
}

type callKey struct{}

func callOf(ctx context.Context) *call { return ctx.Value(callKey{}).(*call) }

// draw returns a call with random behavior.
func (r *rig) draw(random *rand.Rand) *call {
	c := &call{id: uint64(r.ledger.calls.Add(1)), write: random.IntN(5) == 0, ignoresContext: random.IntN(4) == 0}
	if r.client.quiet.Load() {
		return c
	}
	switch luck := random.IntN(1000); {
	case luck < 150:
		c.kind = hurries
	case luck < 300:
		c.kind = cancels
	case luck < 320:
		c.kind = dead
	case luck < 325 && !c.ignoresContext: // a panic of an abandoned effector would crash the program
		c.kind = panics
	case luck < 330:
		c.kind = exits
	}
	return c
}

// caller makes one call after the other until stop is closed.
func (r *rig) caller(random *rand.Rand, stop <-chan struct{}) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-stop:
			return
		case <-pause.C:
		}
		c := r.draw(random)
		if c.kind == exits {
			gone := make(chan struct{})
			go func() {
				defer close(gone)
				r.call(c, random)
			}()
			<-gone
		} else {
			r.call(c, random)
		}
		pause.Reset(upTo(random, 2*thinkTime))
	}
}

// context returns the caller's context.
func (c *call) context(random *rand.Rand) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), callKey{}, c))
	after := time.Millisecond + upTo(random, wholeLimit/4)
	switch c.kind {
	case dead:
		cancel()
	case hurries:
		limited, end := context.WithTimeout(ctx, after)
		return limited, func() { end(); cancel() }
	case cancels:
		timer := time.AfterFunc(after, cancel)
		return ctx, func() { timer.Stop(); cancel() }
	}
	return ctx, cancel
}

// call makes the call and counts how it ended.
func (r *rig) call(c *call, random *rand.Rand) {
	ctx, end := c.context(random)
	defer end()
	ending := exited // unless changed below
	defer func() {
		if value := recover(); value != nil {
			ending = panicked
			if value != errBlown {
				r.ledger.violated(unexplained, "call %d panicked with %v", c.id, value)
			}
		}
		r.ledger.ended[ending].Add(1)
		r.ledger.answered.Add(1)
	}()
	l, err := r.routes[route(c)](ctx)
	ending = r.judge(ctx, c, l, err)
}

// judge returns how a returned call ended. It checks that the call returned what was promised.
func (r *rig) judge(ctx context.Context, c *call, l *lease, err error) ending {
	if l != nil {
		r.ledger.take(l, &r.ledger.got)
		if l.call != c {
			r.ledger.violated(foreignAnswer, "call %d got the value of call %d", c.id, l.call.id)
		}
	}
	if (err == nil) != (l != nil) {
		r.ledger.violated(unexplained, "call %d returned value %v with error %v", c.id, l, err)
	}
	if c.kind == dead && (c.attempts.Load() > 0 || !errors.Is(err, context.Canceled)) {
		r.ledger.violated(deadMade, "call %d with an ended context: %d attempts, error %v", c.id, c.attempts.Load(), err)
	}
	if err != nil && c.starts > 0 && !c.ignoresContext && (c.last == nil || !errors.Is(err, c.last)) {
		r.ledger.violated(unexplained, "call %d: error %v does not wrap the last attempt's: %v", c.id, err, c.last)
	}
	var exhausted *retry.ExhaustedError
	if errors.As(err, &exhausted) && exhausted.Attempts != c.starts {
		r.ledger.violated(unexplained, "call %d made %d attempts, error %v", c.id, c.starts, err)
	}
	switch {
	case err == nil:
		return succeeded
	case ctx.Err() == context.Canceled:
		return canceled
	case ctx.Err() != nil:
		return late
	case c.starts > 0:
		return failed
	case !errors.Is(err, resilience.ErrRefused):
		r.ledger.violated(unexplained, "call %d was neither made nor refused: %v", c.id, err)
	}
	return refused
}
