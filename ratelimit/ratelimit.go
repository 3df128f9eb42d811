// Package ratelimit lets through so many calls a second, in bursts.
//
//	mail := ratelimit.New(ratelimit.Config{Name: "mail", Rate: 10, Burst: 20, Wait: time.Second})
//
//	err := resilience.Run(ctx, mail, send)
//	if !mail.Allow() { ... } // alone
//
// Use one to keep to a limit that somebody else has set, or to give each customer a share. Do not use one to protect a dependency from
// overload: how much it takes changes, and only its answers tell (packages breaker and adaptive), nor to limit how many calls run at once
// (package bulkhead).
//
// The algorithm is GCRA, the generic cell rate algorithm (ITU-T I.371; as a leaky bucket also called a meter), which admits what a token bucket
// admits. A decision costs a reading of the clock and one compare-and-swap (BenchmarkAllow).
package ratelimit

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/clock"
	"github.com/effector-go/resilience/internal/fifo"
)

// A Limiter is a token bucket of Burst tokens, full at first, that gets Rate tokens a second; each call takes one. So in any time t no
// more than Rate × t + Burst calls start. It is a [resilience.Policy], made by [New], and safe for concurrent use. It holds no goroutine, and a timer
// only while a call waits. Most callers want [Do] or a pipeline; [Limiter.Allow] is for calls that are made otherwise.
//
// Calls that wait are served first come, first served, also against newcomers.
type Limiter struct {
	name string
	wait time.Duration

	// bucket is replaced by SetRate alone, which holds mu.
	bucket atomic.Pointer[bucket]

	// queued is how many calls wait. It is written with mu held. A newcomer that finds one does not ask the bucket.
	queued atomic.Int32

	mu      sync.Mutex    // guards waiters
	waiters fifo.Queue    // the first one's Ready is closed
	changed chan struct{} // of capacity 1: tells the first in the queue that the rate has changed
}

// New gives a Limiter. It panics with the text of [Config.Validate]'s error if there is one.
func New(config Config) *Limiter {
	if err := config.Validate(); err != nil {
		panic(err.Error())
	}
	config = config.withDefaults()
	l := &Limiter{name: config.Name, wait: config.Wait, changed: make(chan struct{}, 1)}
	l.bucket.Store(newBucket(config.Rate, config.Burst, clock.Now()))
	return l
}

// Do calls fn when it is its turn and returns what fn returns. Its error is [*LimitedError] if the call is refused, and [resilience.ContextErr]
// if ctx is done, before or while it waits. Do panics if fn is nil. It allocates nothing unless it waits or refuses.
func Do[T any](ctx context.Context, l *Limiter, fn func(context.Context) (T, error)) (T, error) {
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

// Run makes the call when it is its turn: see [resilience.Policy]. Its error is as [Do]'s.
func (l *Limiter) Run(ctx context.Context, next resilience.Next) error {
	if err := l.admit(ctx); err != nil {
		return err
	}
	return next.Run(ctx)
}

// Allow takes a token if there is one and nobody waits, and reports whether it did. It never waits.
func (l *Limiter) Allow() bool {
	if l.queued.Load() > 0 {
		return false
	}
	return l.take() == 0
}

// Name gives Config.Name.
func (l *Limiter) Name() string { return l.name }

// SetRate changes the rate and the burst. Tokens that were used stay used: where the bucket lacked three of the old burst it lacks three of the new
// one, and a smaller burst may leave it below empty. Calls that wait go by the new rate at once. It panics if rate or burst is not what [Config]
// allows.
func (l *Limiter) SetRate(rate float64, burst int) {
	if err := checkRate(l.name, "SetRate: rate", rate, "SetRate: burst", burst); err != nil {
		panic(err.Error())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := clock.Now()
	b := newBucket(rate, burst, now)
	b.use(l.bucket.Load().close(now))
	l.bucket.Store(b)
	select {
	case l.changed <- struct{}{}:
	default: // it has yet to hear of an earlier change
	}
}

// A Snapshot is what a limiter is like at one instant.
type Snapshot struct {
	Name      string
	Rate      float64 // calls a second, as of SetRate
	Burst     int
	Available int // how many calls would be admitted at once; 0 while some wait
}

// Snapshot tells the present state.
func (l *Limiter) Snapshot() Snapshot {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.bucket.Load()
	s := Snapshot{Name: l.name, Rate: b.rate, Burst: b.burst}
	if l.waiters.Len() == 0 {
		s.Available = b.available(clock.Now())
	}
	return s
}

// take takes a token, or gives the time until there is one.
func (l *Limiter) take() (wait time.Duration) {
	for {
		b := l.bucket.Load()
		if wait, open := b.take(clock.Now()); open {
			return wait
		}
		for l.bucket.Load() == b { // SetRate is about to replace it
			runtime.Gosched()
		}
	}
}

// admit takes a token for a call, waiting if it may.
func (l *Limiter) admit(ctx context.Context) error {
	if l.queued.Load() == 0 {
		wait := l.take()
		if wait == 0 {
			return nil
		}
		if l.wait == 0 {
			return l.limited(wait)
		}
	}
	return l.admitInTurn(ctx)
}

// admitInTurn waits in the queue until the call is its first, then until there is a token. Nothing is taken before, so one who leaves costs
// nobody anything.
func (l *Limiter) admitInTurn(ctx context.Context) error {
	latest := clock.Add(clock.Now(), l.wait)
	w, err := l.line(ctx)
	if err != nil {
		return err
	}
	defer l.leave(w)
	select {
	case <-w.Ready:
	default:
		timer := time.NewTimer(l.wait)
		defer timer.Stop()
		select {
		case <-w.Ready:
		case <-ctx.Done():
		case <-timer.C:
		}
	}
	for {
		select {
		case <-w.Ready:
		default:
			if ctx.Err() == nil { // another change of the rate has made the queue too slow
				return l.limited(l.turn())
			}
		}
		if ctx.Err() != nil {
			return resilience.ContextErr(ctx)
		}
		wait := l.take()
		switch {
		case wait == 0:
			return nil
		case int64(wait) > latest-clock.Now():
			return l.limited(wait)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-l.changed:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// line puts the caller into the queue, unless its turn would come too late.
func (l *Limiter) line(ctx context.Context) (*fifo.Waiter, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	turn := l.bucket.Load().turn(clock.Now(), l.waiters.Len())
	deadline, ok := ctx.Deadline()
	if turn > l.wait || ok && turn > time.Until(deadline) {
		return nil, l.limited(turn)
	}
	w := l.waiters.Push()
	if l.waiters.First() == w {
		close(w.Ready)
	}
	l.queued.Store(int32(l.waiters.Len()))
	return w, nil
}

// leave takes w out of the queue.
func (l *Limiter) leave(w *fifo.Waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	wasFirst := l.waiters.First() == w
	l.waiters.Remove(w)
	l.queued.Store(int32(l.waiters.Len()))
	if first := l.waiters.First(); wasFirst && first != nil {
		close(first.Ready)
	}
}

// turn is when it would be the turn of a call that came now.
func (l *Limiter) turn() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bucket.Load().turn(clock.Now(), l.waiters.Len())
}

func (l *Limiter) limited(wait time.Duration) *LimitedError {
	return &LimitedError{Name: l.name, until: clock.Add(clock.Now(), wait)}
}
