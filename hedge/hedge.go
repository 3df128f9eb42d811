// Package hedge starts a call again when it is slow, and takes the first good answer.
//
//	hedges := hedge.New(hedge.Config{Name: "users", Quantile: 0.95, Delay: 50 * time.Millisecond})
//
//	getUser := resilience.Compose(fetchUser, timeout.After(time.Second), hedges)
//
//	user, err := hedge.Do(ctx, hedges, fetchUser) // alone, without a pipeline
//
// Use it for reads of a dependency with many replicas that is fast but for a few calls: one that meets a pause, a full queue or a lost
// packet. The same call made again meets it seldom, so that for a few percent more calls the slowest become as fast as the rest. Do not
// use it for calls that must not happen twice (see [resilience.AtMostOnce]), nor where all calls are slow at the same time, because the
// dependency is overloaded: there a hedge is more of the load that made it slow. The budget bounds that.
//
// The loser's ctx is cancelled when the call returns, and that of any start ends with it: a value must not need its ctx. A streamed body
// does; package resiliencehttp sees to that, other clients' bodies must be read within the effector.
//
// The technique is that of "hedged requests" in Jeffrey Dean and Luiz André Barroso, The Tail at Scale (CACM 56, 2013).
//
// A call that is not hedged costs a microsecond or two, some two and a half times a bare goroutine that is waited for, of which a timer is a fifth, and
// six allocations (BenchmarkDo, BenchmarkGoroutine).
package hedge

import (
	"context"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/clock"
)

// A Hedge is a policy that starts a slow call again beside itself, as often and as soon as its [Config] allows. The first start that
// succeeds is the call's result; the ctx of those still running is cancelled with [ErrLost], their values go to [resilience.Discard], and
// the call returns without waiting for them. If all fail the last one's error is the call's, as it is;
// one that a policy further in refused counts only if all were refused.
//
// A start that fails has the next begin at once, if the budget allows; but not if it was refused by a policy further in, if its error is
// permanent (backoff.Permanent, which is retry.Permanent, anywhere in its tree), or once the caller's ctx has ended. After a permanent error there are no further starts at
// all. A call that must not be made again ([resilience.Next.Repeatable]) is not.
//
// Every start runs on a goroutine of its own. Its panic becomes the call's, with a [*resilience.PanicError], its runtime.Goexit the caller's; the
// panic of one that runs on after the call has returned is the program's, as in any goroutine. When the caller's ctx ends, so do those of the
// starts, and the call returns when they do: package timeout's Abandon, further in, is for effectors that do not heed it.
//
// Most callers give a Hedge to [resilience.Compose]; [Do] uses it alone. A Hedge is made by [New] and safe for concurrent use. It holds no
// goroutine and no timer between calls.
type Hedge struct {
	config Config     // with its defaults
	recent *histogram // of the times of first starts; nil without Quantile
}

// New makes a Hedge. It panics with the text of [Config.Validate] if that finds a mistake.
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

// Do calls fn, again while that is slow, and returns the first good value, or the last one beside the error, as [Hedge] says. If ctx is already done Do makes no call and
// returns [resilience.ContextErr]. The values of losers are lost: where they hold resources, use a pipeline with [resilience.Discard]. fn runs
// on goroutines of its own, several at once. Do panics if h or fn is nil.
func Do[T any](ctx context.Context, h *Hedge, fn func(ctx context.Context) (T, error)) (T, error) {
	if h == nil {
		panic("hedge: Do: h is nil, must be a Hedge made by New")
	}
	if fn == nil {
		panic("hedge: Do: fn is nil, must be a function")
	}
	return resilience.Do(ctx, h, fn)
}

// Run is the policy: see [resilience.Policy].
func (h *Hedge) Run(ctx context.Context, next resilience.Next) error {
	now := clock.Now()
	c := &call{
		hedge:  h,
		ctx:    ctx,
		next:   next,
		begun:  now,
		latest: now,
		delay:  h.delay(now),
		pays:   next.Starts() == 0,
	}
	if c.delay > 0 {
		c.left = h.config.Max
	}
	return c.run()
}

// delay is the time before each further start of a call that begins now, 0 for none.
func (h *Hedge) delay(now int64) time.Duration {
	if h.recent != nil {
		if delay, samples := h.recent.quantile(now); samples >= h.config.MinSamples {
			return delay
		}
	}
	return h.config.Delay
}

// A Snapshot is what a Hedge is like at one instant.
type Snapshot struct {
	Name  string
	Delay time.Duration // before each further start of a call that begins now; 0 while calls are not hedged
}

// Snapshot tells the present delay.
func (h *Hedge) Snapshot() Snapshot {
	return Snapshot{h.config.Name, h.delay(clock.Now())}
}
