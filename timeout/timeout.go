// Package timeout limits how long a call may take.
//
//	guarded := resilience.Pipeline{
//		timeout.After(3 * time.Second), // the whole call
//		retry.New(retry.Config{MaxAttempts: 3}),
//		timeout.After(time.Second), // each attempt
//	}
//
// Use it around every call that leaves the process and respects its context: the effector receives
// a context with the deadline, and the error states whether this limit passed ([*Error]) or the
// caller ended the call. A call that succeeds late has succeeded.
//
// Nothing in Go can stop an effector that ignores its context. For such effectors, set
// [Config].Abandon: a call then returns at the limit and leaves its effector running, and calls are
// refused while too many effectors are left running. An effector that respects its context is
// better. Don't use a timeout where the caller's own context.WithTimeout does the same: its
// deadline is respected as it is.
//
// The context arms its timer only when something waits for it: Done, a child context,
// context.AfterFunc. A call that never waits costs one allocation and one reading of the clock,
// about a sixth of what context.WithTimeout costs; a call that waits costs about as much as
// context.WithTimeout, and nested timeouts of one pipeline share one timer (BenchmarkTimeout). If
// the caller's deadline is no later than the limit, the call receives the caller's context and
// costs one reading of the clock. With Abandon, a call also costs a goroutine (BenchmarkAbandon).
//
// The context behaves like that of context.WithTimeout, except if nothing looked at it (waited for it
// or asked for its error) between the limit and something else that ends it:
//
//   - After a call that returned without an error, panicked, or called runtime.Goexit after the limit,
//     the context reports Canceled instead of DeadlineExceeded.
//   - If the caller canceled after the limit, while the call ran, the context reports the caller's
//     cancellation, and the call's error is returned unchanged.
package timeout

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/describe"
)

// A Timeout limits how long a call may take: it passes the effector a context whose deadline is the
// limit from now. It is a [resilience.Policy], created by [New] or [After], and safe for concurrent
// use. It has no state except its Config and the count of abandoned calls, so one Timeout may serve
// any number of effectors.
//
// A call that fails after the limit has passed returns [*Error]. The error of any other call is
// returned unchanged, including that of a call that failed after the caller's own deadline had passed,
// or after the caller had canceled, before the limit. If nothing looked at the context between the
// limit and a later cancellation by the caller, the cancellation counts as the earlier one.
type Timeout struct {
	config atomic.Pointer[Config] // written by New and SetConfig, valid; each call loads it once
	left   leftBehind
}

// New returns a Timeout. It panics with the text of [Config.Validate]'s error if config is invalid.
func New(config Config) *Timeout {
	t := new(Timeout)
	if err := t.SetConfig(config); err != nil {
		panic(err.Error())
	}
	return t
}

// After returns New(Config{Limit: limit}): a Timeout without a name that waits for its effectors.
// It panics unless limit is positive.
func After(limit time.Duration) *Timeout {
	return New(Config{Limit: limit})
}

// Name returns the Config's Name.
func (t *Timeout) Name() string { return t.config.Load().Name }

// Config returns the Config in use.
func (t *Timeout) Config() Config { return *t.config.Load() }

// SetConfig replaces the Config for calls that begin after it: a call in progress keeps the Config
// that it began with. The number of abandoned calls stays. If config is invalid, SetConfig changes
// nothing and returns [Config.Validate]'s error. It is safe for concurrent use.
func (t *Timeout) SetConfig(config Config) error {
	if err := config.Validate(); err != nil {
		return err
	}
	t.config.Store(&config)
	return nil
}

// Report describes the policy: its value abandoned is the number of [Timeout.Abandoned].
func (t *Timeout) Report() resilience.Report {
	c := t.Config()
	return resilience.Report{
		Kind: "timeout", Name: c.Name, Config: describe.Config(c),
		Values: []resilience.Value{describe.Calls("abandoned", t.Abandoned())},
	}
}

// Run runs the rest of a pipeline with a context whose deadline is the limit from now, or the
// caller's if that is no later. It returns [*Error] if the call failed after the limit had passed,
// and [*AbandonedError] if it was refused: see [Config].Abandon. Most callers want [Do] or
// [resilience.Compose].
func (t *Timeout) Run(ctx context.Context, next resilience.Next) error {
	config := t.config.Load()
	if config.Abandon > 0 {
		return t.runDetached(ctx, next, config)
	}
	limited := within(ctx, config.Limit)
	if limited == nil {
		return next.Run(ctx)
	}
	defer limited.end() // panics and Goexit too
	err := next.Run(limited)
	if err != nil {
		err = config.claim(limited, err)
	}
	return err
}

// Do makes one call of fn with a context whose deadline is the limit from now, or the caller's if
// that is no later, and returns its value and error. If the call failed after the limit had passed,
// it returns [*Error] and fn's value. If ctx is already done, it makes no call and returns
// [resilience.ContextErr]. With [Config].Abandon, it returns as [Timeout.Run] does. Do panics if t
// or fn is nil.
//
// The context that fn receives ends when Do returns.
func Do[T any](ctx context.Context, t *Timeout, fn func(context.Context) (T, error)) (T, error) {
	if t == nil || fn == nil {
		panicForNil(t)
	}
	if ctx.Err() != nil {
		var zero T
		return zero, resilience.ContextErr(ctx)
	}
	config := t.config.Load()
	if config.Abandon > 0 {
		return resilience.Do(ctx, t, fn)
	}
	limited := within(ctx, config.Limit)
	if limited == nil {
		return fn(ctx)
	}
	defer limited.end() // panics and Goexit too
	value, err := fn(limited)
	if err != nil {
		err = config.claim(limited, err)
	}
	return value, err
}

func panicForNil(t *Timeout) {
	if t == nil {
		panic("timeout: Do: t is nil, must be a Timeout made by New or After")
	}
	panic("timeout: Do: fn is nil, must be a function")
}

// claim returns the error for a call that failed with err: an [*Error] if the limit has passed.
func (c *Config) claim(limited *limitCtx, err error) error {
	if limited.passed() {
		return &Error{c.Name, c.Limit, err}
	}
	return err
}
