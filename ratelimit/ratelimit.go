// Package ratelimit limits how many calls start per second, with bursts.
//
//	mail := ratelimit.New(ratelimit.Config{Name: "mail", Rate: 10, Burst: 20, Wait: time.Second})
//
//	err := resilience.Run(ctx, mail, send)
//	if !mail.Allow() { ... } // without a call
//
// Use it to keep to a limit that someone else has set, or to give each customer a share. Don't use
// it to protect a dependency from overload: how many calls it can handle changes, and only its
// answers show that (see packages breaker and adaptive). Don't use it to limit how many calls run
// concurrently (see package bulkhead). To limit each of many keys, such as customers or addresses,
// see [Keyed]. To limit tokens, bytes, or points instead of calls, set Config.Cost.
//
// The algorithm is GCRA, the generic cell rate algorithm (ITU-T I.371; also known as the leaky
// bucket as a meter), which admits what a token bucket admits. A decision costs a reading of the
// clock and one compare-and-swap (BenchmarkAllow).
package ratelimit

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/clock"
	"github.com/effector-go/resilience/internal/describe"
	"github.com/effector-go/resilience/internal/fifo"
)

// A Limiter is a token bucket that holds Burst tokens, is full at first, and gains Rate tokens per
// second. Each call takes one token, or as many as Config.Cost says. In any interval t, at most
// Rate × t + Burst calls are due. A call is due when it arrives, or, if it waits, when its tokens
// are available; it starts then, or as soon as its timer fires and its goroutine runs. It takes its
// tokens as of the time when it was due, so that late timers don't lower the rate.
//
// A Limiter is a [resilience.Policy]; create it with [New]. It is safe for concurrent use. It holds
// no goroutine, and a timer only while a call waits. Most callers want [Do] or a pipeline.
// [Limiter.Wait] and [Limiter.Allow] are for work that isn't a function call.
//
// Waiting calls are served first come, first served. New calls don't overtake them, even if they
// cost less.
type Limiter struct {
	// bucket holds the tokens and the Config. It is replaced only by SetConfig and SetRate, which
	// hold mu and close the old one, so that no token is taken from it afterward.
	bucket atomic.Pointer[bucket]

	// queued is the number of waiting calls. It is written with mu held. A newcomer that finds any
	// doesn't ask the bucket.
	queued atomic.Int32

	// shortened is set if SetConfig has shortened Wait since the queue was last empty. A call that
	// comes after that must not rely on those before it to leave in time. Guarded by mu.
	shortened bool

	mu      sync.Mutex    // guards the following
	waiters fifo.Queue    // the first one's Ready is closed
	waiting int           // the total cost of the waiters; their turns within Config.Wait keep it small
	changed chan struct{} // for the first waiter, capacity 1: the bucket was replaced; nil until it asks the bucket
}

// New returns a Limiter with a full bucket. It panics with the text of [Config.Validate]'s error if
// there is one.
func New(config Config) *Limiter {
	if err := config.Validate(); err != nil {
		panic(err.Error())
	}
	config = config.withDefaults()
	return newLimiter(config, newPace(config.Rate, config.Burst))
}

// newLimiter returns a limiter with a full bucket.
func newLimiter(config Config, p pace) *Limiter {
	l := new(Limiter)
	l.bucket.Store(&bucket{config: config, pace: p})
	return l
}

// Do calls fn when it is its turn, and returns fn's result. It returns a [*LimitedError] if the
// call is refused, a [*CostError] if its cost is above the burst, and [resilience.ContextErr] if
// ctx ends before the call starts. Do panics if l or fn is nil. It allocates nothing unless the
// call waits or is refused.
func Do[T any](ctx context.Context, l *Limiter, fn func(context.Context) (T, error)) (T, error) {
	if l == nil {
		panic("ratelimit: Do: l is nil, must be a Limiter made by New")
	}
	if fn == nil {
		panic("ratelimit: Do: fn is nil, must be a function")
	}
	var zero T
	if ctx.Err() != nil {
		return zero, resilience.ContextErr(ctx)
	}
	if err := l.admit(ctx); err != nil {
		return zero, err
	}
	return fn(ctx)
}

// Run makes the call when it is its turn: see [resilience.Policy]. It returns the same errors as
// [Do].
func (l *Limiter) Run(ctx context.Context, next resilience.Next) error {
	if err := l.admit(ctx); err != nil {
		return err
	}
	return next.Run(ctx)
}

// Allow takes one token if there is one and no call waits, and reports whether it did. It never
// waits, and doesn't call Config.Cost.
func (l *Limiter) Allow() bool { return l.AllowN(1) }

// AllowN takes n tokens if there are as many and no call waits, and reports whether it did. It
// never waits, and doesn't call Config.Cost. If n is 0 or less, it takes nothing and returns true.
// If n is above the burst, it returns false.
func (l *Limiter) AllowN(n int) bool {
	if n <= 0 {
		return true
	}
	if l.queued.Load() > 0 {
		return false
	}
	at, _ := l.take(0, n)
	return at == 0
}

// Wait takes the tokens of a call, without making one: for streams, callbacks, and loops. Like
// [Do], it waits for at most Config.Wait, and returns the same errors.
func (l *Limiter) Wait(ctx context.Context) error {
	if ctx.Err() != nil {
		return resilience.ContextErr(ctx)
	}
	return l.admit(ctx)
}

// Name returns the Config's Name.
func (l *Limiter) Name() string { return l.bucket.Load().config.Name }

// Config returns the Config in use, with defaults filled in, as changed by [Limiter.SetConfig] and
// [Limiter.SetRate]. Cost is nil if it wasn't set.
func (l *Limiter) Config() Config { return l.bucket.Load().config }

// SetConfig replaces the Config while calls arrive and wait. Used tokens stay used: if the bucket
// lacked three tokens of the old Burst, it lacks three of the new one, or all of them if the new
// Burst is smaller than that.
//
// Waiting calls keep their places, their cost, and their Wait, and follow the new Rate immediately.
// A waiting call whose turn now comes too late, or whose cost is above the new Burst, is refused
// when it is the first in the queue, or at the end of its Wait if that comes first.
//
// If config is invalid, SetConfig changes nothing and returns [Config.Validate]'s error.
func (l *Limiter) SetConfig(config Config) error {
	if err := config.Validate(); err != nil {
		return err
	}
	l.replaceBucket(func(Config) Config { return config.withDefaults() })
	return nil
}

// SetRate is [Limiter.SetConfig] for Rate and Burst alone. It panics if rate is outside the range
// that [Config] allows, or if burst is below 1: it has no default here.
func (l *Limiter) SetRate(rate float64, burst int) {
	if err := checkRate(l.Name(), "SetRate: rate", rate, "SetRate: burst", burst); err != nil {
		panic(err.Error())
	}
	l.replaceBucket(func(config Config) Config {
		config.Rate, config.Burst = rate, burst
		return config
	})
}

// replaceBucket replaces the bucket by one with the changed Config.
func (l *Limiter) replaceBucket(change func(Config) Config) {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.bucket.Load()
	b := &bucket{config: change(old.config), pace: old.pace}
	if b.config.Rate != old.config.Rate || b.config.Burst != old.config.Burst {
		b.pace = newPace(b.config.Rate, b.config.Burst)
	}
	b.replace(old)
	l.bucket.Store(b)
	if b.config.Wait < old.config.Wait {
		l.shortened = true // until a call comes to an empty queue
	}
	select {
	case l.changed <- struct{}{}:
	default: // no call waits for a token, or it hasn't yet received an earlier notification
	}
}

// A Snapshot is the state of a limiter at one instant.
type Snapshot struct {
	Name      string
	Rate      float64 // tokens per second
	Burst     int
	Available int // tokens that a call would get without waiting; 0 while calls wait
}

// Snapshot returns the current state.
func (l *Limiter) Snapshot() Snapshot {
	s, _ := l.snapshot()
	return s
}

// snapshot also returns the number of waiting calls.
func (l *Limiter) snapshot() (s Snapshot, waiting int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.bucket.Load()
	s = Snapshot{Name: b.config.Name, Rate: b.config.Rate, Burst: b.config.Burst}
	if waiting = l.waiters.Len(); waiting == 0 {
		s.Available = b.available(clock.Now())
	}
	return s, waiting
}

// Report describes the limiter: its values are rate and available, as in [Snapshot], and waiting, the
// number of waiting calls.
func (l *Limiter) Report() resilience.Report {
	s, waiting := l.snapshot()
	return newReport(l.Config(), s.Name, s.Rate, s.Available, waiting)
}

func newReport(config any, name string, rate float64, available, waiting int) resilience.Report {
	return resilience.Report{
		Kind: "ratelimit", Name: name, Config: describe.Config(config),
		Values: []resilience.Value{
			{Name: "rate", Unit: "{call}/s", Value: rate},
			describe.Calls("available", available),
			describe.Calls("waiting", waiting),
		},
	}
}

// unaffordable is the time of a turn that never comes: the cost is above the burst.
const unaffordable = -1

// take takes cost tokens for a call that has waited since came; 0 for one that hasn't waited. It
// returns 0, or the time at which there will be enough tokens, and the bucket that it asked.
func (l *Limiter) take(came int64, cost int) (at int64, asked *bucket) {
	for {
		b := l.bucket.Load()
		if cost > b.config.Burst {
			return unaffordable, b
		}
		if at, open := b.take(came, clock.Now(), cost); open {
			return at, b
		}
		for l.bucket.Load() == b { // it is about to be replaced
			runtime.Gosched()
		}
	}
}

// admit takes the tokens of a call, and waits for them if it may.
func (l *Limiter) admit(ctx context.Context) error {
	cost := 1
	if costOf := l.bucket.Load().config.Cost; costOf != nil {
		if cost = costOf(ctx); cost <= 0 {
			return nil
		}
	}
	if l.queued.Load() == 0 {
		at, b := l.take(0, cost)
		if at == 0 {
			return nil
		}
		if b.config.Wait == 0 {
			return b.refuse(at, cost)
		}
	}
	return l.admitInTurn(ctx, cost)
}

// admitInTurn waits in the queue until the call is the first, then until there are enough tokens.
// Nothing is taken before that, so a call that leaves the queue costs the others nothing.
func (l *Limiter) admitInTurn(ctx context.Context, cost int) error {
	c, err := l.enqueue(ctx, cost)
	if err != nil {
		return err
	}
	defer l.dequeue(c.Waiter)
	if err := l.becomeFirst(ctx, c); err != nil {
		return err
	}
	changed := l.watch()
	for {
		if ctx.Err() != nil {
			return resilience.ContextErr(ctx)
		}
		at, b := l.take(c.came, cost)
		if at == 0 {
			return nil
		}
		if at == unaffordable || late(ctx, at, c.latest) {
			return b.refuse(at, cost)
		}
		timer := time.NewTimer(time.Duration(at - clock.Now()))
		select {
		case <-timer.C:
		case <-changed:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// A queuedCall is a waiting call. Its Weight is its cost.
type queuedCall struct {
	*fifo.Waiter
	came   int64
	latest int64 // when it must have its turn
	behind bool  // a call before this one may wait for longer
}

// enqueue puts the caller into the queue, unless its turn would come too late.
func (l *Limiter) enqueue(ctx context.Context, cost int) (queuedCall, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.bucket.Load()
	if cost > b.config.Burst {
		return queuedCall{}, b.refuse(unaffordable, cost)
	}
	now := clock.Now()
	latest := clock.Add(now, b.config.Wait)
	if at := b.turn(now, now, l.waiting+cost); b.config.Wait == 0 || late(ctx, at, latest) {
		return queuedCall{}, b.refuse(at, cost)
	}
	w := l.waiters.Push()
	w.Weight = cost
	if l.waiters.First() == w {
		close(w.Ready)
		l.shortened = false
	}
	l.waiting += cost
	l.queued.Store(int32(l.waiters.Len()))
	return queuedCall{w, now, latest, l.shortened}, nil
}

// late reports whether a turn comes too late: after the latest time, or not before the context's
// deadline.
func late(ctx context.Context, at, latest int64) bool {
	if at > latest {
		return true
	}
	deadline, ok := ctx.Deadline()
	return ok && time.Duration(at-clock.Now()) >= time.Until(deadline)
}

// becomeFirst waits until c is the first in the queue. It returns an error if the context ends
// before that, or if c can't have its turn in time.
func (l *Limiter) becomeFirst(ctx context.Context, c queuedCall) error {
	// The calls before this one leave when their own turn comes too late. Unless c is behind, that
	// is no later than c.latest, so it needs no timer.
	var tooLong <-chan time.Time
	if c.behind {
		timer := time.NewTimer(time.Duration(c.latest - clock.Now()))
		defer timer.Stop()
		tooLong = timer.C
	}
	for {
		select {
		case <-c.Ready:
			return nil
		case <-ctx.Done():
			return resilience.ContextErr(ctx)
		case <-tooLong:
			if err := l.overdue(c); err != nil {
				return err
			}
		}
	}
}

// overdue returns the error of a call whose latest time has come, or nil if there are enough tokens
// for it and for the calls before it, so that it is about to become the first.
func (l *Limiter) overdue(c queuedCall) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.bucket.Load()
	if c.Weight > b.config.Burst {
		return b.refuse(unaffordable, c.Weight)
	}
	now := clock.Now()
	if at := b.turn(c.came, now, l.waiters.Ahead(c.Waiter)+c.Weight); at > now {
		return b.refuse(at, c.Weight)
	}
	return nil
}

// watch returns a channel on which the first in the queue is notified that the bucket was replaced.
// The caller must ask the bucket after that.
func (l *Limiter) watch() <-chan struct{} {
	// The channel is created here, not by New: in a synctest bubble, time doesn't advance while a
	// goroutine waits for a channel from outside.
	changed := make(chan struct{}, 1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changed = changed
	return changed
}

// dequeue removes w from the queue.
func (l *Limiter) dequeue(w *fifo.Waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	wasFirst := l.waiters.First() == w
	l.waiters.Remove(w)
	l.waiting -= w.Weight
	l.queued.Store(int32(l.waiters.Len()))
	if !wasFirst {
		return
	}
	l.changed = nil
	if first := l.waiters.First(); first != nil {
		close(first.Ready)
	}
}

// refuse returns the error of a call that the bucket refuses and whose turn would come at the given
// time.
func (b *bucket) refuse(at int64, cost int) error {
	if at == unaffordable {
		return &CostError{Name: b.config.Name, Cost: cost, Burst: b.config.Burst}
	}
	return &LimitedError{Name: b.config.Name, until: at}
}
