// Package share makes one call of what many ask for at the same time, and keeps the answer for a while.
//
//	rates := share.Stale(fetchRates, time.Minute, time.Hour)  // an Effector[Rates], for any number of callers
//	users := share.NewGroup(share.Config{Fresh: time.Minute}, // the same for each of many keys
//		func(ctx context.Context, id int) (User, error) { return fetchUser(ctx, id) })
//
// Use it for reads whose answer is the same for all callers, outside of all policies: what is shared is the whole call, its retries
// included. Do not use it for writes, nor where the answer depends on who asks: the run has the values of one caller's ctx, its
// credentials among them.
//
// A dependency that hangs does not fail, and all callers hang with it: put a timeout inside.
//
//	rates := share.Stale(resilience.Compose(fetchRates, timeout.After(time.Second)), time.Minute, time.Hour)
package share

import (
	"context"
	"sync"
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
// e reaches every caller as a [*resilience.PanicError], a runtime.Goexit ends every caller's goroutine.
//
// The effector is safe for concurrent use. It holds a goroutine while a run lasts. Calls panics if e is nil.
func Calls[T any](e resilience.Effector[T]) resilience.Effector[T] {
	if e == nil {
		panic("share: Calls: e is nil, must be a function")
	}
	return (&call[T]{effector: e}).do
}

// Stale gives an effector that returns the last good value of e for as long as fresh after it came, without a run. After that callers
// share a run of e, as by [Calls]; if that fails they get the last good value for stale longer, without an error, and e's error from then on. An
// error is never kept.
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

	mu   sync.Mutex     // guards the following, and the count of run's callers
	run  *shared.Run[T] // that callers may join; nil if there is none
	last *good[T]
}

// good is a value of a run that succeeded.
type good[T any] struct {
	value T
	since int64 // on package clock
}

func (c *call[T]) do(ctx context.Context) (T, error) {
	var zero T
	if ctx.Err() != nil {
		return zero, resilience.ContextErr(ctx)
	}
	r, kept := c.join(ctx)
	if r == nil {
		return kept.value, nil
	}
	select {
	case <-r.Done():
	case <-ctx.Done():
		c.leave(r)
		return zero, resilience.ContextErr(ctx)
	}
	if r.Err() != nil {
		if kept := c.kept(c.fresh + c.stale); kept != nil {
			return kept.value, nil
		}
	}
	return r.Result()
}

// join gives the run to wait for, or a value that is fresh.
func (c *call[T]) join(ctx context.Context) (*shared.Run[T], *good[T]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last != nil && c.last.age() < c.fresh {
		return nil, c.last
	}
	if c.run == nil {
		c.run = shared.Start(ctx, c.effector, c.ended)
	}
	c.run.Callers++
	return c.run, nil
}

// leave takes a caller off the run, and gives it up if it was the last.
func (c *call[T]) leave(r *shared.Run[T]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.Callers--; r.Callers > 0 {
		return
	}
	r.GiveUp()
	if c.run == r {
		c.run = nil
	}
}

// ended takes note that r has ended: nobody is to join it any more.
func (c *call[T]) ended(r *shared.Run[T]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.run == r {
		c.run = nil
	}
	if c.fresh+c.stale > 0 && r.Good() {
		value, _ := r.Result()
		c.last = &good[T]{value, clock.Now()}
	}
}

// kept is the last good value if it is younger than limit.
func (c *call[T]) kept(limit time.Duration) *good[T] {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last == nil || c.last.age() >= limit {
		return nil
	}
	return c.last
}

func (g *good[T]) age() time.Duration { return time.Duration(clock.Now() - g.since) }

// idle reports whether nothing is kept and nothing runs.
func (c *call[T]) idle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.run == nil && (c.last == nil || c.last.age() >= c.fresh+c.stale)
}
