// Package debounce turns a burst of calls into one run.
//
//	search := debounce.Last(query, 200*time.Millisecond, time.Second) // when the user has stopped typing, or after a second
//	reload := debounce.First(readConfig, time.Second, 0)              // immediately, and not again while signals keep coming
//
// Debounce is from Cloud Native Go (Matthew A. Titmus, O'Reilly, 2021), which has both forms. Here
// every caller receives a result whichever call started the run, runs don't block other callers,
// and the end of one caller's context doesn't end another's call. Use it where calls come in bursts
// and one of them is enough. To share calls that merely overlap, see package share.
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

// ErrCycle is the error of a call that would make a run of [First] wait for its own result. It
// matches share.ErrCycle, and share.ErrCycle matches it: runs of both packages may wait for each
// other.
var ErrCycle error = shared.Cycle("debounce")

// First returns an effector that runs e for the first call of a burst. The other calls receive the
// result of that run, whether a value or an error. The burst ends, and the next call begins a new
// one, as soon as
//
//   - quiet has passed since the later of the burst's last call and the end of the run, or
//   - most has passed since the end of the run. A most of 0 sets no such bound.
//
// The run has its own context, with the values of the first caller's context but not its deadline.
// It is canceled when every caller that waits for the run has left; then the next call begins a new
// burst. A caller whose context ends receives [resilience.ContextErr] immediately. The value must
// not need the run's context, which ends with the run. A panic of e reaches every caller of the
// burst as a [*resilience.PanicError]; a runtime.Goexit ends the goroutine of every caller. A panic
// after every caller has left crashes the program, as in any goroutine.
//
// A run that asks for its own result through its context receives [ErrCycle] instead of waiting for
// itself.
//
// The effector is safe for concurrent use. It holds a goroutine while a run lasts, and the last
// result until the next burst. First panics if e is nil, or if quiet or most is negative.
func First[T any](e resilience.Effector[T], quiet, most time.Duration) resilience.Effector[T] {
	check("First", e == nil, quiet, most)
	return (&first[T]{effector: e, quiet: quiet, most: most}).do
}

// Last returns an effector that runs e once per burst: when quiet has passed since the burst's last
// call, or most since its first. A most of 0 sets no such bound. The run has the values of the
// context of the burst's last call. All callers of the burst receive its result, whether a value or
// an error, unless their own context ends first. When every caller has left, the run is canceled,
// or not started.
//
// Contexts and panics are handled as for [First]. The effector is safe for
// concurrent use. It holds a timer while a burst waits, and a goroutine while a run lasts. Last
// panics if e is nil, or if quiet or most is negative.
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
	run  *shared.Run[T] // of the current burst; nil before the first
	node *shared.Node   // of run
	came int64          // time of the burst's last call, on package clock
}

func (f *first[T]) do(ctx context.Context) (T, error) {
	if ctx.Err() != nil {
		var zero T
		return zero, resilience.ContextErr(ctx)
	}
	waiter := shared.NodeOf(ctx)
	run, node, err := f.join(ctx, waiter)
	if err != nil {
		var zero T
		return zero, err
	}
	defer waiter.Done(node)
	return run.Wait(ctx)
}

// join returns the run of the burst, and starts a new one if the burst is over. The waiter is the
// run that the caller belongs to; it is registered as waiting for the returned run while that
// lasts.
func (f *first[T]) join(ctx context.Context, waiter *shared.Node) (*shared.Run[T], *shared.Node, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := clock.Now() // under mu, so that no run ends later than now
	switch {
	case f.run != nil && f.run.Running():
		if !waiter.Await(f.node) {
			return nil, nil, ErrCycle
		}
		f.run.Join()
	case f.run == nil || f.over(now):
		ctx, f.node = shared.NewNode(ctx)
		waiter.Await(f.node) // no cycle: the run hasn't begun
		f.run = shared.Start(ctx, f.node, &f.mu, 1, f.effector, nil)
	}
	f.came = now
	return f.run, f.node, nil
}

// over reports whether the burst is over, given that its run has ended or was given up.
func (f *first[T]) over(now int64) bool {
	ended, ok := f.run.Ended()
	if !ok {
		return true // given up: every caller has left
	}
	last := max(f.came, ended)
	// now is before last if the clock went back, which happens when a package-level effector is
	// used in a synctest bubble.
	return now < last || time.Duration(now-last) >= f.quiet || f.most > 0 && time.Duration(now-ended) >= f.most
}

type last[T any] struct {
	effector    resilience.Effector[T]
	quiet, most time.Duration

	mu    sync.Mutex // guards the following, the burst, and its run's
	burst *burst[T]  // the one that waits; nil if none does
}

// A burst is a set of calls that wait for one run.
type burst[T any] struct {
	callers int             // that wait for the run to begin
	latest  int64           // latest start of the run, on package clock
	due     int64           // planned start of the run
	values  context.Context // context of the last call

	begun chan struct{} // closed when run is set
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

// await starts a timer for the time when the burst is due as of now. The timer is never stopped: if
// more calls came, it is started again, and if the burst was given up, it does nothing.
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
	l.burst = nil // a later call begins another burst
	b.run = shared.Start(b.values, nil, &l.mu, b.callers, l.effector, nil)
	close(b.begun)
}

// leave removes a caller from the burst, and gives up the burst if it was the last caller. It
// returns false if the run has begun already.
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
