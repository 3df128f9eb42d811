// Package share lets concurrent callers of the same thing share one run, and keeps the result for a
// while.
//
//	rates := share.Stale(fetchRates, time.Minute, time.Hour)  // an Effector[Rates], for any number of callers
//	users := share.NewGroup(share.Config{Fresh: time.Minute}, // the same for each of many keys
//		func(ctx context.Context, id int) (User, error) { return fetchUser(ctx, id) })
//
// Use it for reads whose result is the same for all callers. Put it outside all policies, so that
// the whole call is shared, including its retries. Don't use it
//
//   - for writes
//   - if the result depends on the caller: the run has the values of one caller's context,
//     including its credentials
//   - for values that a caller consumes or closes, such as a response: all callers receive the same
//     value, and what it points to must not be changed
//
// A dependency that hangs doesn't fail, and all callers hang with it. Put a timeout inside:
//
//	rates := share.Stale(resilience.Compose(fetchRates, timeout.After(time.Second)), time.Minute, time.Hour)
//
// A fresh value costs a reading of the clock and no lock; a run costs a goroutine (BenchmarkCalls).
package share

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/clock"
	"github.com/effector-go/resilience/internal/detached"
	"github.com/effector-go/resilience/internal/shared"
)

// ErrCycle is the error of a call that would make a run wait for its own result. The call was made
// with the context of a run, or with one derived from it, while that run lasts. It asks for the
// result of that run, or of a run that waits for it, directly or through others. A run that passes
// another context isn't recognized, and waits until its callers' contexts end.
var ErrCycle error = shared.Cycle("share")

// Calls returns an effector whose concurrent callers share one run of e. A result is never shared
// with a caller that arrives after the result was available.
//
// The run has its own context, with the values of the first caller's context but not its deadline.
// It is canceled when every caller has left; after that, no caller joins the run. A caller whose
// context ends receives [resilience.ContextErr] immediately. The value must not need the run's
// context, which ends with the run. A call made by the run itself returns [ErrCycle] if it would
// wait for the run's own result.
//
// A panic of e reaches every caller as a [*resilience.PanicError]; a runtime.Goexit ends the
// goroutine of every caller. A panic after every caller has left crashes the program, as in any
// goroutine.
//
// The effector is safe for concurrent use. It holds a goroutine while a run lasts. Calls panics if
// e is nil.
func Calls[T any](e resilience.Effector[T]) resilience.Effector[T] {
	if e == nil {
		panic("share: Calls: e is nil, must be a function")
	}
	return newCall(Config{}, e).effect
}

// Stale returns an effector that keeps the last good value of e:
//
//   - While the value is younger than fresh, it is returned without a run.
//   - After that, callers share a run of e, as with [Calls]. If the run returns an error, its
//     callers receive the last good value instead, while it is younger than fresh + stale.
//
// An error is never kept, and neither is the result of a run that every caller has left. To return
// an old value immediately and refresh it in the background, see [New].
//
// The effector is safe for concurrent use. Stale panics if e is nil, or if fresh or stale is
// negative.
func Stale[T any](e resilience.Effector[T], fresh, stale time.Duration) resilience.Effector[T] {
	if e == nil {
		panic("share: Stale: e is nil, must be a function")
	}
	return New(Config{Fresh: fresh, Stale: stale}, e)
}

// New returns an effector that keeps the last good value of e as config says. It is [Stale] with
// all options; config.MaxKeys has no effect. The effector is safe for concurrent use. New panics if
// e is nil, or with the text of [Config.Validate]'s error if there is one.
func New[T any](config Config, e resilience.Effector[T]) resilience.Effector[T] {
	if e == nil {
		panic("share: New: e is nil, must be a function")
	}
	if err := config.Validate(); err != nil {
		panic(err.Error())
	}
	return newCall(config, e).effect
}

// A call is what callers share.
type call[T any] struct {
	effector   resilience.Effector[T]
	fresh      time.Duration // age until which a value is returned without a run
	revalidate time.Duration // age until which it is returned during a run, at least fresh
	keep       time.Duration // age until which it is kept, at least revalidate
	onError    func(ctx context.Context, err error)

	// last is the latest good value, or nil. It is written with mu held, before run is cleared, so
	// that a caller that finds no fresh value and no run may start a run.
	last atomic.Pointer[good[T]]

	mu         sync.Mutex     // guards the following, and run's fields
	run        *shared.Run[T] // the latest; nil once it has ended
	node       *shared.Node   // of run
	refreshing bool           // a caller is about to start a run in the background
	broken     bool           // the latest run panicked or called runtime.Goexit
}

// good is the value of a run that succeeded.
type good[T any] struct {
	value T
	since int64 // on package clock
}

func newCall[T any](config Config, e resilience.Effector[T]) *call[T] {
	return &call[T]{
		effector:   e,
		fresh:      config.Fresh,
		revalidate: config.Fresh + config.Revalidate,
		keep:       config.keep(),
		onError:    config.OnError,
	}
}

func (c *call[T]) effect(ctx context.Context) (T, error) {
	value, refresh, err := c.do(ctx)
	if refresh {
		c.refresh(ctx, nil)
	}
	return value, err
}

// do returns a kept value or the result of a run. If it reports refresh, the caller must call
// refresh.
func (c *call[T]) do(ctx context.Context) (value T, refresh bool, err error) {
	if ctx.Err() != nil {
		return value, false, resilience.ContextErr(ctx)
	}
	if kept, age := c.latest(); age < c.fresh {
		return kept.value, false, nil
	}
	waiter := shared.NodeOf(ctx)
	j, err := c.join(ctx, waiter)
	if err != nil {
		return value, false, err
	}
	if j.kept != nil {
		return j.kept.value, j.refresh, nil
	}
	defer waiter.Done(j.node)
	value, err = j.run.Wait(ctx)
	return value, false, err
}

// joined is either a value or a run to wait for.
type joined[T any] struct {
	kept    *good[T]
	refresh bool // the caller must call refresh

	run  *shared.Run[T]
	node *shared.Node
}

// join finds a value that may be returned now, joins the run, or starts one. The waiter is the run
// that the caller belongs to; it is registered as waiting for the run that join returns.
func (c *call[T]) join(ctx context.Context, waiter *shared.Node) (joined[T], error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if kept, age := c.latest(); age < c.revalidate && !c.broken {
		// It may have become fresh since the caller looked.
		refresh := age >= c.fresh && !c.running() && !c.refreshing
		c.refreshing = c.refreshing || refresh
		return joined[T]{kept: kept, refresh: refresh}, nil
	}
	if c.running() {
		if !waiter.Await(c.node) {
			return joined[T]{}, ErrCycle
		}
		c.run.Join()
		return joined[T]{run: c.run, node: c.node}, nil
	}
	c.start(ctx, waiter, c.foreground, c.settle)
	return joined[T]{run: c.run, node: c.node}, nil
}

// running reports whether there is a run that can be joined. It is called with mu held.
func (c *call[T]) running() bool { return c.run != nil && c.run.Running() }

// start starts a run for which the waiter waits, if it isn't nil. It is called with mu held.
func (c *call[T]) start(ctx context.Context, waiter *shared.Node, e resilience.Effector[T], settle func(*shared.Run[T])) {
	ctx, c.node = shared.NewNode(ctx)
	waiter.Await(c.node) // no cycle: the run hasn't begun
	c.run = shared.Start(ctx, c.node, &c.mu, 1, e, settle)
}

// refresh starts a run that no caller waits for, but which callers may join. If release isn't nil,
// it is called when the run has ended. The run counts as its own caller, so it is never given up.
func (c *call[T]) refresh(ctx context.Context, release func()) {
	settle := c.settle
	if release != nil {
		settle = func(r *shared.Run[T]) {
			c.settle(r)
			release()
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refreshing = false
	if c.running() { // the value has expired since, and a caller has started a run
		if release != nil {
			release()
		}
		return
	}
	c.start(ctx, nil, c.background, settle)
}

// foreground is a run that callers wait for. It reports an error that they won't receive.
func (c *call[T]) foreground(ctx context.Context) (T, error) {
	value, err := c.effector(ctx)
	if err != nil && c.onError != nil && ctx.Err() == nil && !c.empty() {
		c.onError(ctx, err)
	}
	return value, err
}

// background is a run that refreshes a value. It reports every error.
func (c *call[T]) background(ctx context.Context) (T, error) {
	if c.onError == nil {
		return c.effector(ctx)
	}
	defer func() {
		if value := recover(); value != nil {
			p := detached.PanicError(value)
			c.onError(ctx, p)
			panic(p)
		}
	}()
	value, err := c.effector(ctx)
	if err != nil {
		c.onError(ctx, err)
	}
	return value, err
}

// settle records that the run has ended. A good value is kept; an error is replaced by a kept
// value.
func (c *call[T]) settle(r *shared.Run[T]) {
	c.run, c.node = nil, nil
	value, err, ok := r.Returned()
	c.broken = !ok
	switch {
	case !ok || c.keep == 0:
	case err == nil:
		c.last.Store(&good[T]{value, clock.Now()})
	default:
		if kept, age := c.latest(); age < c.keep {
			r.Answer(kept.value)
		}
	}
}

// latest returns the last good value and its age. Without a value, the age is the largest duration,
// which is below no limit.
func (c *call[T]) latest() (*good[T], time.Duration) {
	last := c.last.Load()
	if last == nil {
		return nil, math.MaxInt64
	}
	// The age is negative if the clock went back, which happens when a package-level effector is
	// used in a synctest bubble. The value belongs to another time then.
	age := time.Duration(clock.Now() - last.since)
	if age < 0 {
		return nil, math.MaxInt64
	}
	return last, age
}

// empty reports whether no value is kept.
func (c *call[T]) empty() bool {
	_, age := c.latest()
	return age >= c.keep
}
