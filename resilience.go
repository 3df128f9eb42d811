// Package resilience composes policies (circuit breaker, retry, timeout and their companions) around any call that takes
// a context and yields a value or an error.
//
//	payments := breaker.New(breaker.Config{Name: "payments"})
//
//	getUser := resilience.Compose(fetchUser, // Effector[User]; policies outermost first
//		timeout.After(3*time.Second), // the whole call
//		retry.New(retry.Config{MaxAttempts: 3}),
//		payments, // the same breaker guards getOrder, createInvoice, ...
//		timeout.After(time.Second), // each attempt
//	)
//	user, err := getUser(ctx)
//
// Each policy is a package of its own, beside this one: breaker, retry, timeout and budget, and for more special needs hedge, bulkhead,
// adaptive, ratelimit, throttle and shed; share and debounce give many callers one value; resiliencehttp puts them around net/http, and
// resiliencetest is for tests. The usual order, outermost first, is that above: a timeout for the whole call, retry, breaker, a timeout
// for each attempt. The policies are made once and serve any number of calls at the same time.
//
// The [Effector] is typed, the [Policy] is not: a policy decides whether, when, how often and for how long the call is made,
// and hears its error, so that one breaker guards every method of a dependency whatever it returns. A result that means
// failure becomes an error at the edge, by [Effector.Check]; policies then classify errors only.
//
// A call whose ctx is already done is not made and counts nowhere. Whether a call was made is a fact of the call
// ([Next.Starts]), not of its error: an effector's own error may hold another dependency's refusal.
//
// A composed call costs one allocation and a few nanoseconds for each policy beside what the policies do themselves
// (BenchmarkCompose).
package resilience

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// An Effector is a call that has an effect outside the program and may fail: it takes a context and yields a T or an error.
// Whatever [Compose] makes of it may be called by any number of goroutines at once if the effector may.
type Effector[T any] func(ctx context.Context) (T, error)

// With is [Compose] of e and the policies, outermost first.
func (e Effector[T]) With(policies ...Policy) Effector[T] {
	return Compose(e, policies...)
}

// Check gives an effector that runs check on the value of every call of e that ended without error. An error of check
// becomes the call's error; the value is kept beside it. So a result that means failure (a status, an empty page) becomes an
// error once, at the edge, before the policies hear of it. Check panics if e or check is nil.
func (e Effector[T]) Check(check func(T) error) Effector[T] {
	if e == nil {
		panic("resilience: Check: effector is nil, must be a function")
	}
	if check == nil {
		panic("resilience: Check: check is nil, must be a function")
	}
	return func(ctx context.Context) (T, error) {
		value, err := e(ctx)
		if err == nil {
			err = check(value)
		}
		return value, err
	}
}

// OrElse gives an effector that answers with fallback's value and error whenever e fails. The fallback gets the caller's
// ctx, ended or not, and e's error; the value beside that error is lost. OrElse panics if e or fallback is nil.
func (e Effector[T]) OrElse(fallback func(ctx context.Context, err error) (T, error)) Effector[T] {
	if e == nil {
		panic("resilience: OrElse: effector is nil, must be a function")
	}
	if fallback == nil {
		panic("resilience: OrElse: fallback is nil, must be a function")
	}
	return func(ctx context.Context) (T, error) {
		value, err := e(ctx)
		if err != nil {
			return fallback(ctx, err)
		}
		return value, nil
	}
}

// A Policy decides whether, when, how often and for how long a call is made: its Run calls next.Run, which is the rest of
// the pipeline and then the effector, never, once or many times, and returns the error that the caller is to see.
//
// Run may be called by any number of goroutines at once. It lets panics and runtime.Goexit through, having released what
// it held. It need not look whether ctx is done before its first next.Run, but again after it has waited.
type Policy interface {
	Run(ctx context.Context, next Next) error
}

// PolicyFunc is a function as a [Policy].
type PolicyFunc func(ctx context.Context, next Next) error

// Run calls f.
func (f PolicyFunc) Run(ctx context.Context, next Next) error { return f(ctx, next) }

// Next is what a policy runs: the rest of the pipeline, then the effector. It is a small value without a closure, good
// for the one call for which the policy got it. A Next is used by one goroutine at a time; to run the call twice at the same
// time, see [Next.Fork]. The zero Next belongs to no call, and its methods panic.
type Next struct {
	facts    *facts // of the call, which they refer to
	policies []Policy
}

// Run makes the rest of the call and returns its error. The value stays with the call, which gives its caller the value of
// the run that ended last, whether that failed or not.
func (n Next) Run(ctx context.Context) error {
	if len(n.policies) == 0 {
		return n.facts.call.start(ctx)
	}
	return n.policies[0].Run(ctx, Next{n.facts, n.policies[1:]})
}

// Starts is how often the effector has been started in this call so far. A policy that compares it before and after
// [Next.Run] knows whether the call was made or turned away further in. A fork counts from Fork on; in the Next it was
// forked from it counts as one start until it is adopted, then as its own starts.
func (n Next) Starts() int { return int(n.facts.starts) }

// Repeatable reports whether a policy may start the call again. It is true but for calls under [AtMostOnce] that may have
// had an effect.
func (n Next) Repeatable() bool { return n.facts.repeatable() }

// FirstTime reports whether this is the first time that a policy of this call asks with the key: for what is to be done once in a call,
// however many of its policies would do it, such as a deposit into a budget that they share. The key must be comparable and not nil. A
// fork knows of what was asked before it was forked, and the Next that it was forked from knows of the fork's once it is adopted, if the
// effector was started in it.
func (n Next) FirstTime(key any) bool { return n.facts.once(key) }

// Fork gives the same call with a result slot of its own, to run beside n on another goroutine: hedging, abandoning. Every
// fork that ended is best adopted in turn, and one still running discarded when it ends. Fork and Adopt
// belong to the goroutine that holds n.
func (n Next) Fork() Next { return Next{n.facts.call.fork(), n.policies} }

// Adopt takes the result of a fork of n, once its Run has returned, as the result of n's last run, and its starts as n's.
// Adopting a fork again does nothing. It panics if fork was not forked from n.
func (n Next) Adopt(fork Next) { n.facts.call.adopt(fork.facts) }

// Discard gives up the result that n holds, a fork's or n's own: it goes to the call's [Discard] policy. Without one, and
// where there is no result, Discard does nothing. A fork may be discarded on the goroutine that ran it.
func (n Next) Discard() { n.facts.call.discard() }

// ErrRefused is wrapped by the error of a policy that turned the call away. It says nothing of earlier attempts at the same
// call, which may have been made.
var ErrRefused = errors.New("resilience: refused")

// WithRetryAfter marks err with the time after which its sender wishes to be called again. The marked error unwraps to err
// and reads the same. It is nil if err is.
func WithRetryAfter(err error, after time.Duration) error {
	if err == nil {
		return nil
	}
	return &retryAfterError{err, after}
}

type retryAfterError struct {
	error
	after time.Duration
}

func (e *retryAfterError) Unwrap() error             { return e.error }
func (e *retryAfterError) RetryAfter() time.Duration { return e.after }

// RetryAfter asks the first error in err's tree that has a method RetryAfter() time.Duration how long to wait before the
// next call. It reports false if there is none, or if its time is not positive.
func RetryAfter(err error) (time.Duration, bool) {
	var teller interface{ RetryAfter() time.Duration }
	if !errors.As(err, &teller) {
		return 0, false
	}
	if after := teller.RetryAfter(); after > 0 {
		return after, true
	}
	return 0, false
}

// NotMade marks an error of an effector as its word that the call had no effect (a refused dial), so that it may be made
// again under [AtMostOnce]. Only the outermost mark counts. For everything else a marked error is an error like any other:
// it unwraps to err and reads the same. It is nil if err is.
func NotMade(err error) error {
	if err == nil {
		return nil
	}
	return &notMadeError{err}
}

type notMadeError struct{ error }

func (e *notMadeError) Unwrap() error { return e.error }

// ContextErr tells of an ended ctx: nil while ctx lives, then an error that matches both ctx.Err() and context.Cause(ctx)
// under [errors.Is]. Policies return it when ctx ended while they waited, or before the call was made.
func ContextErr(ctx context.Context) error {
	err := ctx.Err()
	if err == nil {
		return nil
	}
	cause := context.Cause(ctx)
	if cause == nil || cause == err {
		return err
	}
	return &contextError{err, cause}
}

type contextError struct{ err, cause error }

func (e *contextError) Error() string   { return e.err.Error() + ": " + e.cause.Error() }
func (e *contextError) Unwrap() []error { return []error{e.err, e.cause} }
func (e *contextError) Timeout() bool   { return e.err == context.DeadlineExceeded }

// A PanicError is the panic of an effector that ran on a goroutine of its own (hedging, abandoning, sharing): the policy panics with it
// on the caller's goroutine.
type PanicError struct {
	Value any    // what the effector panicked with
	Stack []byte // the stack of its goroutine, as runtime/debug.Stack gives it
}

// Error holds the value and the stack of the original panic.
func (e *PanicError) Error() string { return fmt.Sprintf("%v\n\n%s", e.Value, e.Stack) }

// Unwrap gives the value if it is an error, else nil.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}
