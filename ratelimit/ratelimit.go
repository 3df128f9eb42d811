// Package ratelimit lets through so many calls a second, in bursts.
//
//	mail := ratelimit.New(ratelimit.Config{Name: "mail", Rate: 10, Burst: 20, Wait: time.Second})
//
//	err := resilience.Run(ctx, mail, send)
//	if !mail.Allow() { ... } // alone
//
// Use one to keep to a limit that somebody else has set, or to give each customer a share. Do not use one to protect a dependency from
// overload: how much it takes changes, and only its answers tell (packages breaker and adaptive), nor to limit how many calls run at once
// (package bulkhead). For a limit to each of many keys, customers or addresses, see [Keyed].
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

	mu      sync.Mutex    // guards the following
	waiters fifo.Queue    // the first one's Ready is closed
	changed chan struct{} // the first one's, of capacity 1: tells it that the rate has changed; nil until it asks the bucket
}

// New gives a Limiter. It panics with the text of [Config.Validate]'s error if there is one.
func New(config Config) *Limiter {
	if err := config.Validate(); err != nil {
		panic(err.Error())
	}
	config = config.withDefaults()
	return newLimiter(config, newPace(config.Rate, config.Burst), 0)
}

// newLimiter gives a limiter whose bucket is full at arrive.
func newLimiter(config Config, p pace, arrive uint64) *Limiter {
	l := &Limiter{name: config.Name, wait: config.Wait}
	b := &bucket{pace: p}
	b.arrive.Store(arrive)
	l.bucket.Store(b)
	return l
}

// Do calls fn when it is its turn and returns what fn returns. Its error is [*LimitedError] if the call is refused, and [resilience.ContextErr]
// if ctx is done, before or while it waits. Do panics if l or fn is nil. It allocates nothing unless it waits or refuses.
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

// Run makes the call when it is its turn: see [resilience.Policy]. Its error is as [Do]'s.
func (l *Limiter) Run(ctx context.Context, next resilience.Next) error {
	if err := l.admit(ctx); err != nil {
		return err
	}
	return next.Run(ctx)
}

// Allow takes a token if there is one and nobody waits, and reports whether it did. It never waits.
func (l *Limiter) Allow() bool { return l.queued.Load() == 0 && l.take() == 0 }

// Name gives Config.Name.
func (l *Limiter) Name() string { return l.name }

// SetRate changes the rate and the burst. Tokens that were used stay used: where the bucket lacked three of the old burst it lacks three of the new
// one, at most all. Calls that wait go by the new rate at once; one whose turn has become too late is refused when it is the first of
// them. SetRate panics if rate is not what [Config] allows, or burst is below 1: there is no default here.
func (l *Limiter) SetRate(rate float64, burst int) {
	if err := checkRate(l.name, "SetRate: rate", rate, "SetRate: burst", burst); err != nil {
		panic(err.Error())
	}
	b := &bucket{pace: newPace(rate, burst)}
	l.mu.Lock()
	defer l.mu.Unlock()
	b.replace(l.bucket.Load())
	l.bucket.Store(b)
	select {
	case l.changed <- struct{}{}:
	default: // nobody waits for a token, or the one who does has yet to hear of an earlier change
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

// take takes a token, and gives 0, or gives the time at which there will be one.
func (l *Limiter) take() (at int64) {
	for {
		b := l.bucket.Load()
		if at, open := b.take(clock.Now()); open {
			return at
		}
		for l.bucket.Load() == b { // SetRate is about to replace it
			runtime.Gosched()
		}
	}
}

// admit takes a token for a call, waiting if it may.
func (l *Limiter) admit(ctx context.Context) error {
	if l.queued.Load() == 0 {
		at := l.take()
		if at == 0 {
			return nil
		}
		if l.wait == 0 {
			return l.limited(at)
		}
	}
	return l.admitInTurn(ctx)
}

// admitInTurn waits in the queue until the call is its first, then until there is a token. Nothing is taken before, so one who leaves costs
// nobody anything.
func (l *Limiter) admitInTurn(ctx context.Context) error {
	w, latest, err := l.line(ctx)
	if err != nil {
		return err
	}
	defer l.leave(w)
	// Whoever is before this call came earlier, and goes when its own turn comes too late: nobody waits here for longer than l.wait.
	select {
	case <-w.Ready:
	case <-ctx.Done():
		return resilience.ContextErr(ctx)
	}
	changed := l.lead()
	for {
		if ctx.Err() != nil {
			return resilience.ContextErr(ctx)
		}
		at := l.take()
		if at == 0 {
			return nil
		}
		if late(ctx, at, latest) {
			return l.limited(at)
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

// line puts the caller into the queue, unless its turn would come too late, and gives the latest time for it.
func (l *Limiter) line(ctx context.Context) (w *fifo.Waiter, latest int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := clock.Now()
	latest = clock.Add(now, l.wait)
	if turn := l.bucket.Load().turn(now, l.waiters.Len()); late(ctx, turn, latest) {
		return nil, 0, l.limited(turn)
	}
	w = l.waiters.Push()
	if l.waiters.First() == w {
		close(w.Ready)
	}
	l.queued.Store(int32(l.waiters.Len()))
	return w, latest, nil
}

// late reports whether a turn at that time comes too late: after the latest time, or when the ctx's deadline will have ended the call.
func late(ctx context.Context, at, latest int64) bool {
	if at > latest {
		return true
	}
	deadline, ok := ctx.Deadline()
	return ok && time.Duration(at-clock.Now()) >= time.Until(deadline)
}

// lead gives the first in the queue what tells it that the rate has changed. It must ask the bucket after that.
func (l *Limiter) lead() <-chan struct{} {
	// Made here, not by New: in a synctest bubble time stands still while somebody waits for a channel from outside.
	changed := make(chan struct{}, 1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changed = changed
	return changed
}

// leave takes w out of the queue.
func (l *Limiter) leave(w *fifo.Waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	wasFirst := l.waiters.First() == w
	l.waiters.Remove(w)
	l.queued.Store(int32(l.waiters.Len()))
	if !wasFirst {
		return
	}
	l.changed = nil
	if first := l.waiters.First(); first != nil {
		close(first.Ready)
	}
}

func (l *Limiter) limited(at int64) *LimitedError { return &LimitedError{Name: l.name, until: at} }
