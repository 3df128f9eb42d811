// Package share makes one call of what many ask for at the same time, and keeps the answer for a while.
//
//	rates := share.Stale(fetchRates, time.Minute, time.Hour)  // an Effector[Rates], for any number of callers
//	users := share.NewGroup(share.Config{Fresh: time.Minute}, // the same for each of many keys
//		func(ctx context.Context, id int) (User, error) { return fetchUser(ctx, id) })
//
// Use it for reads whose answer is the same for all callers, outside of all policies: what is shared is the whole call, its retries
// included. Do not use it for writes, nor where the answer depends on who asks: the run has the values of one caller's ctx, its
// credentials among them. Nor is it for values that one caller uses up, or closes, such as a response: all callers get the same value, and what it
// points to must not be changed.
//
// A dependency that hangs does not fail, and all callers hang with it: put a timeout inside.
//
//	rates := share.Stale(resilience.Compose(fetchRates, timeout.After(time.Second)), time.Minute, time.Hour)
//
// A value that is fresh costs a reading of the clock and no lock, a run a goroutine (BenchmarkCalls).
package share

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/clock"
	"github.com/effector-go/resilience/internal/shared"
)

// Calls gives an effector whose callers at the same time share one run of e. A result is never shared with a caller that comes
// after it is there.
//
// The run has a ctx of its own, with the values of the first caller's but not its deadline, which is cancelled when every caller has gone; then
// nobody joins it any more. A caller whose ctx ends gets [resilience.ContextErr] at once. The value must not need the ctx, which ends with the run. A panic of
// e reaches every caller as a [*resilience.PanicError], a runtime.Goexit ends every caller's goroutine; a panic after every caller has gone is the program's, as in
// any goroutine.
//
// The effector is safe for concurrent use. It holds a goroutine while a run lasts. Calls panics if e is nil.
func Calls[T any](e resilience.Effector[T]) resilience.Effector[T] {
	if e == nil {
		panic("share: Calls: e is nil, must be a function")
	}
	return (&call[T]{effector: e}).do
}

// Stale gives an effector that returns the last good value of e for as long as fresh after it came, without a run. After that callers
// share a run of e, as by [Calls]; if that returns an error they get the last good value for stale longer, without the error, and e's error from then on. An
// error is never kept, nor is what comes of a run that every caller has left.
//
// It is safe for concurrent use. Stale panics if e is nil, or fresh or stale is negative.
func Stale[T any](e resilience.Effector[T], fresh, stale time.Duration) resilience.Effector[T] {
	if e == nil {
		panic("share: Stale: e is nil, must be a function")
	}
	if err := (Config{Fresh: fresh, Stale: stale}).Validate(); err != nil {
		panic(err.Error())
	}
	return (&call[T]{effector: e, fresh: fresh, stale: stale}).do
}

// A call is what callers share.
type call[T any] struct {
	effector     resilience.Effector[T]
	fresh, stale time.Duration

	// last is the latest good value, nil if there is none. It is written with mu held, before run is given up for another, so that a caller who
	// finds it stale and no run to join may start one.
	last atomic.Pointer[good[T]]

	mu  sync.Mutex     // guards the following, and run's
	run *shared.Run[T] // the latest; nil once it has ended
}

// good is a value of a run that succeeded.
type good[T any] struct {
	value T
	since int64 // on package clock
}

func (c *call[T]) do(ctx context.Context) (T, error) {
	if ctx.Err() != nil {
		var zero T
		return zero, resilience.ContextErr(ctx)
	}
	if kept := c.kept(c.fresh); kept != nil {
		return kept.value, nil
	}
	r, kept := c.join(ctx)
	if kept != nil {
		return kept.value, nil
	}
	return r.Wait(ctx)
}

// join gives the run to wait for, or a value that has become fresh meanwhile.
func (c *call[T]) join(ctx context.Context) (*shared.Run[T], *good[T]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if kept := c.kept(c.fresh); kept != nil {
		return nil, kept
	}
	if c.run == nil || !c.run.Join() {
		c.run = shared.Start(ctx, &c.mu, 1, c.effector, c.settle)
	}
	return c.run, nil
}

// settle takes note that the run has ended: its value is kept, or answers its error if it has become stale only.
func (c *call[T]) settle(r *shared.Run[T]) {
	c.run = nil
	value, err, ok := r.Returned()
	switch {
	case !ok || c.fresh+c.stale == 0:
	case err == nil:
		c.last.Store(&good[T]{value, clock.Now()})
	default:
		if kept := c.kept(c.fresh + c.stale); kept != nil {
			r.Answer(kept.value)
		}
	}
}

// kept is the last good value if it is younger than limit.
func (c *call[T]) kept(limit time.Duration) *good[T] {
	last := c.last.Load()
	if last == nil {
		return nil
	}
	// Below zero where the clock went back, as it does where a package's effector is used in a synctest bubble too: then it is of another time.
	if age := time.Duration(clock.Now() - last.since); age < 0 || age >= limit {
		return nil
	}
	return last
}

// empty reports whether nothing is kept.
func (c *call[T]) empty() bool { return c.kept(c.fresh+c.stale) == nil }
