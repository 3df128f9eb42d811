// Package debounce makes one call of a burst of them.
//
//	search := debounce.Last(query, 200*time.Millisecond, time.Second) // when the user has stopped typing, or after a second
//	reload := debounce.First(readConfig, time.Second, 0)              // at once, and not again while signals keep coming
//
// Debounce is of Cloud Native Go (Matthew A. Titmus, O'Reilly, 2021), which has both forms. Here callers get a result whoever made the run, the runs do not
// block callers out, and nobody's ctx ends another's call. Use it where calls come in bursts and one of them is enough. To share calls that happen
// to come at the same time see package share.
package debounce

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/clock"
	"github.com/effector-go/resilience/internal/shared"
)

// First gives an effector that runs e for the first call of a burst. The others get its result, error or not, until quiet has passed since the later
// of the burst's last call and the end of the run, but no longer than for most after the result came; a most of 0 sets no such bound. The call after that begins
// a new burst.
//
// The run has a ctx of its own, with the values of the first caller's but not its deadline, which is cancelled when every caller who waits for it has
// gone; then the next call begins a new burst. A caller whose ctx ends gets [resilience.ContextErr] at once. The value must not need the ctx, which ends with the run. A
// panic of e reaches every caller of the burst as a [*resilience.PanicError], a runtime.Goexit ends every caller's goroutine; a panic after every caller has gone is the
// program's, as in any goroutine.
//
// The effector is safe for concurrent use. It holds a goroutine while a run lasts, and the last result until the next burst. First panics if e is nil, or quiet
// or most is negative.
func First[T any](e resilience.Effector[T], quiet, most time.Duration) resilience.Effector[T] {
	check("First", e == nil, quiet, most)
	return (&first[T]{effector: e, quiet: quiet, most: most}).do
}

// Last gives an effector that runs e once for a burst, when quiet has passed since the burst's last call, or most since its first; a most of 0 sets no such
// bound. The run has the values of the ctx of the last call until then. All callers of the burst get its result, error or not, unless
// their own ctx ends first; when every caller has gone the run is cancelled, or not begun.
//
// What [First] says of ctxs and panics holds here too. The effector is safe for concurrent use. It holds a timer while a burst waits, and a goroutine while a run
// lasts. Last panics if e is nil, or quiet or most is negative.
func Last[T any](e resilience.Effector[T], quiet, most time.Duration) resilience.Effector[T] {
	check("Last", e == nil, quiet, most)
	return (&last[T]{effector: e, quiet: quiet, most: most}).do
}

func check(name string, isNil bool, quiet, most time.Duration) {
	switch {
	case isNil:
		panic("debounce: " + name + ": e is nil, must be a function")
	case quiet < 0:
		panic(fmt.Sprintf("debounce: %s: quiet is %v, must be 0 or more", name, quiet))
	case most < 0:
		panic(fmt.Sprintf("debounce: %s: most is %v, must be positive, or 0 for no bound", name, most))
	}
}

type first[T any] struct {
	effector    resilience.Effector[T]
	quiet, most time.Duration

	mu   sync.Mutex     // guards the following, and run's
	run  *shared.Run[T] // of the present burst; nil before the first
	came int64          // the burst's last call, on package clock
}

func (f *first[T]) do(ctx context.Context) (T, error) {
	if ctx.Err() != nil {
		var zero T
		return zero, resilience.ContextErr(ctx)
	}
	return f.join(ctx).Wait(ctx)
}

// join gives the burst's run, which is a new one if the burst is over.
func (f *first[T]) join(ctx context.Context) *shared.Run[T] {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := clock.Now() // under mu, so that no run ends later than now
	if f.run == nil || !f.run.Join() && f.over(now) {
		f.run = shared.Start(ctx, &f.mu, 1, f.effector, nil)
	}
	f.came = now
	return f.run
}

// over reports whether the burst is over, whose run is not under way.
func (f *first[T]) over(now int64) bool {
	ended, ok := f.run.Ended()
	if !ok {
		return true // every caller has left
	}
	last := max(f.came, ended)
	// Before it where the clock went back, as it does where a package's effector is used in a synctest bubble too.
	return now < last || time.Duration(now-last) >= f.quiet || f.most > 0 && time.Duration(now-ended) >= f.most
}

type last[T any] struct {
	effector    resilience.Effector[T]
	quiet, most time.Duration

	mu    sync.Mutex // guards the following, the burst, and its run's
	burst *burst[T]  // that still waits; nil if none does
}

// A burst is calls that wait for one run.
type burst[T any] struct {
	callers int             // that wait until it begins
	latest  int64           // when it must run, on package clock
	due     int64           // when it is to run
	values  context.Context // the last call's

	begun chan struct{} // closed when run is there
	run   *shared.Run[T]
}

func (l *last[T]) do(ctx context.Context) (T, error) {
	if ctx.Err() != nil {
		var zero T
		return zero, resilience.ContextErr(ctx)
	}
	b := l.join(ctx)
	select {
	case <-b.begun:
	case <-ctx.Done():
		if l.leave(b) {
			var zero T
			return zero, resilience.ContextErr(ctx)
		}
	}
	return b.run.Wait(ctx)
}

func (l *last[T]) join(ctx context.Context) *burst[T] {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := clock.Now()
	b := l.burst
	fresh := b == nil
	if fresh {
		b = &burst[T]{latest: math.MaxInt64, begun: make(chan struct{})}
		if l.most > 0 {
			b.latest = clock.Add(now, l.most)
		}
		l.burst = b
	}
	b.callers++
	b.values = ctx
	b.due = min(clock.Add(now, l.quiet), b.latest)
	if fresh {
		l.await(b, now)
	}
	return b
}

// await has the burst looked at when it is due as things stand. The timer is not stopped: one that finds that more calls came waits on, and one whose burst was given up does
// nothing.
func (l *last[T]) await(b *burst[T], now int64) {
	time.AfterFunc(time.Duration(b.due-now), func() { l.runIfDue(b) })
}

func (l *last[T]) runIfDue(b *burst[T]) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.burst != b {
		return
	}
	if now := clock.Now(); now < b.due {
		l.await(b, now)
		return
	}
	l.burst = nil // who comes from now on begins another
	b.run = shared.Start(b.values, &l.mu, b.callers, l.effector, nil)
	close(b.begun)
}

// leave takes a caller off the burst, and gives it up if nobody waits for it any more. It is too late once the burst's run has begun.
func (l *last[T]) leave(b *burst[T]) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b.run != nil {
		return false
	}
	if b.callers--; b.callers == 0 {
		l.burst = nil
	}
	return true
}
