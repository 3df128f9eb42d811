// Package timeout limits how long a call may take.
//
//	guarded := resilience.Pipeline{
//		timeout.After(3 * time.Second), // the whole call
//		retry.New(retry.Config{MaxAttempts: 3}),
//		timeout.After(time.Second), // each attempt
//	}
//
// Use it around every call that leaves the process and heeds its ctx: the effector gets a ctx with the deadline, and the
// error says whether this limit passed ([*Error]) or something of the caller's. A call that succeeds late has succeeded.
//
// An effector that ignores its ctx is not stopped by this, nor by anything else in Go. For such a one [Config].Abandon returns
// at the limit and leaves it running, and refuses calls while too many are; better is an effector that heeds its ctx. Do not use
// a timeout where a plain context.WithTimeout in the caller says the same: its deadline is kept here as it is.
//
// The ctx arms its timer only when somebody waits for it: Done, a child context, context.AfterFunc. A call that never does
// pays for one allocation and one look at the clock, about a sixth of what context.WithTimeout costs; one that does pays
// about a tenth more than there (BenchmarkTimeout). Where the caller's deadline is no later than the limit, the call gets the
// caller's ctx and pays for one look at the clock. With Abandon a call pays for a goroutine as well (BenchmarkAbandon).
package timeout

import (
	"context"
	"time"

	"github.com/effector-go/resilience"
)

// A Timeout limits how long a call may take: it gives the effector a ctx whose deadline is the limit from now. It is a
// [resilience.Policy], made by [New] or [After], and safe for concurrent use. It has no state but the count of abandoned
// calls, so one may serve any number of effectors.
//
// A call that fails after the limit passed returns [*Error]. The error of any other call is left as it is: one that
// failed when the caller's own deadline had passed, or the caller had canceled, before the limit did.
type Timeout struct {
	name    string
	limit   time.Duration
	abandon int64
	left    leftBehind
}

// New gives a Timeout. It panics with the text of [Config.Validate]'s error if there is one.
func New(config Config) *Timeout {
	if err := config.Validate(); err != nil {
		panic(err.Error())
	}
	return &Timeout{name: config.Name, limit: config.Limit, abandon: int64(config.Abandon)}
}

// After is New(Config{Limit: limit}): a Timeout without name that waits for its effectors. It panics unless limit is positive.
func After(limit time.Duration) *Timeout {
	return New(Config{Limit: limit})
}

// Run runs the rest of a pipeline with a ctx whose deadline is the limit from now, or the caller's if that is no later.
// It returns [*Error] if the call failed after the limit had passed, [*AbandonedError] if it was refused: see
// [Config].Abandon. Most callers want [Do] or [resilience.Compose].
func (t *Timeout) Run(ctx context.Context, next resilience.Next) error {
	if t.abandon > 0 {
		return t.runApart(ctx, next)
	}
	limited := within(ctx, t.limit)
	if limited == nil {
		return next.Run(ctx)
	}
	defer limited.end() // panics and Goexit too
	err := next.Run(limited)
	if err != nil {
		err = t.blame(limited, err)
	}
	return err
}

// Do makes one call of fn with a ctx whose deadline is the limit from now, or the caller's if that is no later, and returns its
// value and error. It returns [*Error] if the call failed after the limit had passed, the value then being fn's. If ctx is
// already done it makes no call and returns [resilience.ContextErr]. With [Config].Abandon it returns as [Timeout.Run]
// does. Do panics if t or fn is nil.
//
// The ctx that fn gets ends when Do returns.
func Do[T any](ctx context.Context, t *Timeout, fn func(context.Context) (T, error)) (T, error) {
	if t == nil || fn == nil {
		panicForNil(t)
	}
	if ctx.Err() != nil {
		var zero T
		return zero, resilience.ContextErr(ctx)
	}
	if t.abandon > 0 {
		return resilience.Do(ctx, t, fn)
	}
	limited := within(ctx, t.limit)
	if limited == nil {
		return fn(ctx)
	}
	defer limited.end() // panics and Goexit too
	value, err := fn(limited)
	if err != nil {
		err = t.blame(limited, err)
	}
	return value, err
}

func panicForNil(t *Timeout) {
	if t == nil {
		panic("timeout: Do: t is nil, must be a Timeout made by New or After")
	}
	panic("timeout: Do: fn is nil, must be a function")
}

// blame gives the error to return for a call that failed with err.
func (t *Timeout) blame(limited *limitCtx, err error) error {
	if limited.passed() {
		return &Error{t.name, t.limit, err}
	}
	return err
}
