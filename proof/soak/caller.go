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
	cancels      // goes away
	dead         // calls with a ctx that has ended
	panics       // its effector does
	exits        // its effector calls runtime.Goexit
)

// A call is one call through the pipeline, as its caller and its effector know it.
type call struct {
	id    uint64
	kind  kind
	write bool // at most once
	deaf  bool // its effector ignores ctx, and Abandon leaves it behind

	attempts atomic.Int64  // starts of the effector; of a deaf one several may run at a time
	sends    atomic.Uint32 // requests
	last     *attemptError // of the latest attempt that failed, unless deaf
	rejected bool          // an attempt had a permanent error, unless deaf
	starts   int           // by Next.Starts when the call had ended
}

type callKey struct{}

func callOf(ctx context.Context) *call { return ctx.Value(callKey{}).(*call) }

// draw makes a call with a behaviour by chance.
func (r *rig) draw(random *rand.Rand) *call {
	c := &call{id: uint64(r.ledger.calls.Add(1)), write: random.IntN(5) == 0, deaf: random.IntN(4) == 0}
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
	case luck < 325 && !c.deaf: // a panic of an effector that was left behind is the program's
		c.kind = panics
	case luck < 330:
		c.kind = exits
	}
	return c
}

// caller makes one call after another until stop is closed.
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

// context gives the caller's ctx.
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

// call makes the call and enters how it ended.
func (r *rig) call(c *call, random *rand.Rand) {
	ctx, end := c.context(random)
	defer end()
	ending := exited // unless something else happens
	defer func() {
		if value := recover(); value != nil {
			ending = panicked
			if value != errBlown {
				r.ledger.odd(unexplained, "call %d panicked with %v", c.id, value)
			}
		}
		r.ledger.ended[ending].Add(1)
		r.ledger.answered.Add(1)
	}()
	l, err := r.routes[route(c)](ctx)
	ending = r.judge(ctx, c, l, err)
}

// judge says how a call ended that returned, and checks that what it returned is what it was promised.
func (r *rig) judge(ctx context.Context, c *call, l *lease, err error) ending {
	if l != nil {
		r.ledger.take(l, &r.ledger.got)
		if l.call != c {
			r.ledger.odd(foreignAnswer, "call %d got the value of call %d", c.id, l.call.id)
		}
	}
	if (err == nil) != (l != nil) {
		r.ledger.odd(unexplained, "call %d returned value %v beside error %v", c.id, l, err)
	}
	if c.kind == dead && (c.attempts.Load() > 0 || !errors.Is(err, context.Canceled)) {
		r.ledger.odd(deadMade, "call %d, dead on arrival: %d attempts, error %v", c.id, c.attempts.Load(), err)
	}
	if err != nil && c.starts > 0 && !c.deaf && (c.last == nil || !errors.Is(err, c.last)) {
		r.ledger.odd(unexplained, "call %d: error %v does not hold the last attempt's: %v", c.id, err, c.last)
	}
	var exhausted *retry.ExhaustedError
	if errors.As(err, &exhausted) && exhausted.Attempts != c.starts {
		r.ledger.odd(unexplained, "call %d made %d attempts: %v", c.id, c.starts, err)
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
		r.ledger.odd(unexplained, "call %d was not made and not refused: %v", c.id, err)
	}
	return refused
}
