// Package hedge starts a slow call again, concurrently, and returns the first success.
//
//	hedges := hedge.New(hedge.Config{Name: "users", Quantile: 0.95, Delay: 50 * time.Millisecond})
//
//	getUser := resilience.Compose(fetchUser, timeout.After(time.Second), hedges)
//
//	user, err := hedge.Do(ctx, hedges, fetchUser) // alone, without a pipeline
//
// Use it for reads from a dependency with many replicas that answers quickly except for a few
// calls: a call that runs into a pause, a full queue, or a lost packet. The same call rarely runs
// into that twice, so for a few percent more calls, the slowest calls become as fast as the others.
//
// Don't use it
//
//   - for calls that must not happen twice: see [resilience.AtMostOnce];
//   - if all calls are slow at the same time because the dependency is overloaded: a hedge adds to
//     the load that made it slow. The budget bounds the added load.
//
// A start's context is canceled when the start ends, and a loser's when the call returns, so a
// value must not need its context. The body of a streamed response does need it: package
// resiliencehttp handles that; bodies of other clients must be read within the effector.
//
// The technique is that of "hedged requests" in Jeffrey Dean and Luiz André Barroso, The Tail at
// Scale (CACM 56, 2013).
//
// A call that isn't hedged costs one or two microseconds and six allocations (BenchmarkDo). That is
// about two and a half times the cost of starting a bare goroutine and waiting for it
// (BenchmarkGoroutine); a fifth of it is a timer.
package hedge

import (
	"context"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/clock"
)

// A Hedge is a policy that starts a slow call again while the earlier starts are still running, as
// often and as soon as its [Config] allows.
//
// The first start that succeeds provides the call's result. The contexts of the starts that are
// still running are canceled with the cause [ErrLost], their values go to [resilience.Discard], and
// the call returns without waiting for them. If all starts fail, the call returns the error of the
// last one to end, unchanged; the error of a start that an inner policy refused is returned only if
// all were refused.
//
// When a start fails, the next one begins immediately, unless
//
//   - the budget has no token;
//   - HedgeIf returns false;
//   - an inner policy refused the start that failed;
//   - its error is permanent (backoff.Permanent, which is retry.Permanent, anywhere in its tree):
//     then the call has no additional starts at all;
//   - the caller's context has ended;
//   - the call must not be made again (see [resilience.Next.Repeatable]).
//
// Every start runs on its own goroutine. Its panic becomes a panic of the call, with a
// [*resilience.PanicError]; its runtime.Goexit becomes the caller's. A panic of a start that is
// still running after the call has returned crashes the program, as in any goroutine.
//
// When the caller's context ends, the contexts of all starts end, and the call returns when the
// starts do. For effectors that ignore their context, use Abandon of package timeout inside the
// hedge.
//
// Most callers pass a Hedge to [resilience.Compose]; [Do] uses it alone. Create a Hedge with [New].
// It is safe for concurrent use, and holds no goroutine and no timer between calls.
type Hedge struct {
	config Config     // with its defaults
	recent *histogram // durations of first starts; nil without Quantile
}

// New creates a Hedge. It panics with the text of [Config.Validate] if the config is invalid.
func New(config Config) *Hedge {
	if err := config.Validate(); err != nil {
		panic(err.Error())
	}
	h := &Hedge{config: config.withDefaults()}
	if config.Quantile > 0 {
		h.recent = newHistogram(config.Quantile)
	}
	return h
}

// Do calls fn, and calls it again while it is slow. It returns the value of the first success; if
// all starts fail, the last value with the error that [Hedge] describes.
//
// Each call of fn runs on its own goroutine; several run concurrently. If ctx is already done, Do
// makes no call and returns [resilience.ContextErr]. The values of losers are lost: if they hold
// resources, use a pipeline with [resilience.Discard]. Do panics if h or fn is nil.
func Do[T any](ctx context.Context, h *Hedge, fn func(ctx context.Context) (T, error)) (T, error) {
	if h == nil {
		panic("hedge: Do: h is nil, must be a Hedge made by New")
	}
	if fn == nil {
		panic("hedge: Do: fn is nil, must be a function")
	}
	return resilience.Do(ctx, h, fn)
}

// Run implements [resilience.Policy].
func (h *Hedge) Run(ctx context.Context, next resilience.Next) error {
	now := clock.Now()
	c := &call{
		hedge:    h,
		ctx:      ctx,
		next:     next,
		begun:    now,
		latest:   now,
		delay:    h.delay(now),
		deposits: next.Starts() == 0,
	}
	if c.delay > 0 {
		c.left = h.config.Max
	}
	return c.run()
}

// delay returns the time before each additional start of a call that begins now; 0 means that the
// call isn't hedged.
func (h *Hedge) delay(now int64) time.Duration {
	if h.recent != nil {
		if delay, samples := h.recent.quantile(now); samples >= h.config.MinSamples {
			return delay
		}
	}
	return h.config.Delay
}

// A Snapshot is the state of a Hedge at one instant.
type Snapshot struct {
	Name  string
	Delay time.Duration // before each additional start, for a call that begins now; 0: no hedges
}

// Snapshot returns the delay currently in use.
func (h *Hedge) Snapshot() Snapshot {
	return Snapshot{h.config.Name, h.delay(clock.Now())}
}
