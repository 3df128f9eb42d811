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
	"sync"
	"sync/atomic"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/internal/clock"
	"github.com/effector-go/resilience/internal/describe"
)

// A Hedge is a policy that starts a slow call again while the earlier starts are still running, as
// often and as soon as its [Config] allows.
//
// The first start that succeeds, or whose error is marked as [resilience.NotFailure], provides the
// call's result. The contexts of the starts that are still running are canceled with the cause
// [ErrLost], their values go to [resilience.Discard], and the call returns without waiting for them.
// If all starts fail, the call returns the error of the last one to end, unchanged; the error of a
// start that an inner policy refused is returned only if all were refused.
//
// When a start fails, the next one begins immediately, unless
//
//   - the budget has no token;
//   - HedgeIf returns false;
//   - an inner policy refused the start that failed;
//   - the caller's context has ended;
//   - the call must not be made again (see [resilience.Next.Repeatable]).
//
// The call has no additional starts at all after an error that
//
//   - is permanent (backoff.Permanent, which is retry.Permanent, anywhere in its tree);
//   - is marked as [resilience.CallerFault];
//   - specifies a time ([resilience.RetryAfter]): waiting is the job of retry.
//
// Starts that are already running continue. Errors that are marked as [resilience.Contention] start
// the next start like unmarked ones.
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
	// settings is written by SetConfig only. Each call loads it once.
	settings atomic.Pointer[settings]

	mu            sync.Mutex     // serializes SetConfig and guards the following
	recent        *histogram     // durations of first starts; nil until Quantile is set
	defaultBudget *budget.Budget // nil until it is needed
}

// settings is what a call needs of the Config that it began with. It is never changed.
type settings struct {
	config Config         // with its defaults, except that of Budget
	budget *budget.Budget // the Config's, or the default
	recent *histogram     // nil without Quantile
}

// New creates a Hedge. It panics with the text of [Config.Validate] if the config is invalid.
func New(config Config) *Hedge {
	h := new(Hedge)
	if err := h.SetConfig(config); err != nil {
		panic(err.Error())
	}
	return h
}

// Name returns the Config's Name.
func (h *Hedge) Name() string { return h.settings.Load().config.Name }

// Config returns the Config in use, with the defaults filled in. Functions and a Budget that weren't
// set are nil.
func (h *Hedge) Config() Config { return h.settings.Load().config }

// SetConfig replaces the Config for calls that begin after it. A call in progress finishes with the
// Config that it began with. If the config is invalid, SetConfig changes nothing and returns the
// error of [Config.Validate]. It is safe for concurrent use.
//
// The recent times remain, even with another Quantile. While Quantile is 0, none are recorded; once
// it is set again, those that are still recent count. The default budget keeps its tokens too, even
// while another Budget is in use.
func (h *Hedge) SetConfig(config Config) error {
	if err := config.Validate(); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &settings{config: config.withDefaults(), budget: config.Budget}
	if s.budget == nil {
		if h.defaultBudget == nil {
			h.defaultBudget = newDefaultBudget()
		}
		s.budget = h.defaultBudget
	}
	if config.Quantile > 0 {
		if h.recent == nil {
			h.recent = newHistogram(config.Quantile)
		}
		s.recent = h.recent
	}
	h.settings.Store(s)
	return nil
}

// Do calls fn, and calls it again while it is slow. It returns the value of the first success; if
// all starts fail, the last value with the error that [Hedge] describes, without
// [resilience.NotMade] marks.
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
	s := h.settings.Load()
	c := &call{
		settings: s,
		ctx:      ctx,
		next:     next,
		begun:    now,
		latest:   now,
		delay:    s.delay(now),
		deposits: next.Starts() == 0,
	}
	if c.delay > 0 {
		c.left = s.config.Max
	}
	return c.run()
}

// delay returns the time before each additional start of a call that begins now; 0 means that the
// call isn't hedged.
func (s *settings) delay(now int64) time.Duration {
	if s.recent != nil {
		if delay, samples := s.recent.quantile(s.config.Quantile, now); samples >= s.config.MinSamples {
			return delay
		}
	}
	return s.config.Delay
}

// A Snapshot is the state of a Hedge at one instant.
type Snapshot struct {
	Name  string
	Delay time.Duration // before each additional start, for a call that begins now; 0: no hedges
}

// Snapshot returns the delay currently in use.
func (h *Hedge) Snapshot() Snapshot {
	s := h.settings.Load()
	return Snapshot{s.config.Name, s.delay(clock.Now())}
}

// Report describes the policy: its value is delay, as in [Snapshot].
func (h *Hedge) Report() resilience.Report {
	s, c := h.Snapshot(), h.Config()
	return resilience.Report{
		Kind: "hedge", Name: c.Name, Config: describe.Config(c),
		Values: []resilience.Value{{Name: "delay", Unit: "s", Value: s.Delay.Seconds()}},
	}
}
