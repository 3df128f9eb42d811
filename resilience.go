// Package resilience composes policies (circuit breaker, retry, timeout, and their companions)
// around any call that takes a context and returns a value or an error.
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
// Each policy has its own package: breaker, retry, timeout, and budget; for more specialized
// needs hedge, bulkhead, adaptive, ratelimit, throttle, and shed. Packages share and debounce serve
// many callers with one value, resiliencehttp puts policies around net/http, and resiliencetest and
// chaos help to test pipelines. The usual order, outermost first, is the one above: a timeout for
// the whole call, retry, breaker, a timeout for each attempt. Create each policy once; it serves
// any number of concurrent calls.
//
// The [Effector] is typed, the [Policy] is not: a policy decides whether, when, how often, and for
// how long the call is made, and it receives the call's error. So one breaker guards every method
// of a dependency, whatever the method returns. A result that signals failure becomes an error at
// the edge, with [Effector.Check], so policies classify only errors. An effector can state what its
// error means with a mark, such as [NotFailure] or [Contention].
//
// A call whose context is already done is not made and counts nowhere. Whether a call was made is a
// fact of the call ([Next.Starts]), not of its error: an effector's own error may contain another
// dependency's refusal.
//
// A composed call costs one allocation and a few nanoseconds for each policy, in addition to what
// the policies themselves do (BenchmarkCompose).
package resilience

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/effector-go/resilience/internal/mark"
)

// An Effector is a call that has an effect outside the program and may fail: it takes a context and
// returns a T or an error. An effector that [Compose] returns is as safe for concurrent use as the
// one inside it.
type Effector[T any] func(ctx context.Context) (T, error)

// With returns [Compose] of e and the policies, outermost first. A second With goes around the
// first: in e.With(a).With(b), b is the outer policy. e.With(b, a) has the same order in one list,
// and costs one allocation per call instead of two.
func (e Effector[T]) With(policies ...Policy) Effector[T] {
	return Compose(e, policies...)
}

// Check returns an effector that calls check with the value of every call of e that ended without
// an error. An error of check becomes the call's error; the value is returned with it. So a result
// that signals failure (a status, an empty page) becomes an error once, before the policies see it.
// Check panics if e or check is nil.
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

// OrElse returns an effector that returns fallback's value and error whenever e fails. The fallback
// receives the caller's context, ended or not, and e's error; the value that e returned with the
// error is lost. OrElse panics if e or fallback is nil.
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

// A Policy decides whether, when, how often, and for how long a call is made. Its Run calls
// next.Run never, once, or many times, and returns the error for the caller; next.Run runs the rest
// of the pipeline and then the effector.
//
// Run must be safe for concurrent use. It lets panics and runtime.Goexit pass, after it has
// released what it holds. It need not check whether ctx is done before its first next.Run, but must
// check again after it has waited.
type Policy interface {
	Run(ctx context.Context, next Next) error
}

// PolicyFunc is a function as a [Policy].
type PolicyFunc func(ctx context.Context, next Next) error

// Run calls f.
func (f PolicyFunc) Run(ctx context.Context, next Next) error { return f(ctx, next) }

// Next is what a policy runs: the rest of the pipeline, then the effector. It is a small value
// without a closure, valid only in the call for which the policy received it. Its methods must not
// be called concurrently; to run the call twice concurrently, use [Next.Fork]. The zero Next
// belongs to no call, and its methods panic.
type Next struct {
	facts    *facts // of the call
	policies []Policy
}

// Run makes the rest of the call and returns its error. The value stays with the call: the caller
// receives the value of the run that ended last, whether that run failed or not.
func (n Next) Run(ctx context.Context) error {
	if len(n.policies) == 0 {
		return n.facts.call.start(ctx)
	}
	return n.policies[0].Run(ctx, Next{n.facts, n.policies[1:]})
}

// Starts returns how often the effector has been started in this call so far. A policy that
// compares it before and after [Next.Run] knows whether the call was made or refused by an inner
// policy. In a fork, it counts from Fork on. In the Next that was forked, the fork counts as one
// start until it is adopted, then as its own starts.
func (n Next) Starts() int { return int(n.facts.starts) }

// CountStart counts a start of the effector that this policy has made up instead of calling Run, as
// fault injection does: one that ended with err, and that may have had its effect unless err is
// marked with [NotMade].
func (n Next) CountStart(err error) { n.facts.countStart(err) }

// Repeatable reports whether a policy may start the call again. It is false only for calls under
// [AtMostOnce] that may have had an effect.
func (n Next) Repeatable() bool { return n.facts.repeatable() }

// FirstTime reports whether no policy of this call has called FirstTime with the key before. It is
// for actions that must happen once per call, however many of its policies would do them, such as a
// deposit into a budget that they share. The key must be comparable and not nil. A fork knows the
// keys that were used before Fork. The Next that was forked knows the keys that were used in the
// fork once it is adopted, if the fork started the effector.
func (n Next) FirstTime(key any) bool { return n.facts.firstTime(key) }

// Fork returns the same call with a result slot of its own, to run concurrently with n on another
// goroutine, for hedging or abandoning. It is best to adopt every fork that has ended, one after
// another; a fork that is still running is discarded when it ends. Only the goroutine that holds n
// may call Fork and Adopt.
func (n Next) Fork() Next { return Next{n.facts.call.fork(n.policies), n.policies} }

// Forked reports whether n belongs to a fork, so that the call may go on after its caller has
// returned, and concurrently with other runs of the same call.
func (n Next) Forked() bool { return n.facts.forked }

// Adopt takes the result of a fork of n, after the fork's Run has returned, as the result of n's
// last run, and its starts as n's. Adopting a fork again does nothing. Adopt panics if fork was not
// forked from n.
func (n Next) Adopt(fork Next) { n.facts.call.adopt(fork.facts) }

// Discard gives up the result that n holds, a fork's or n's own: the call's [Discard] policy drops
// it. Without such a policy or without a result, it does nothing. A fork may be discarded on the
// goroutine that ran it.
func (n Next) Discard() { n.facts.call.discard() }

// ErrRefused is wrapped by the error of a policy that refused the call. It doesn't mean that
// nothing was called: earlier attempts may have been made, and an effector's own error may contain
// another dependency's refusal.
var ErrRefused = errors.New("resilience: refused")

// NotFailure marks an error that isn't the dependency's failure: not found, an invalid argument, a
// violated constraint. Breaker, shed, and adaptive count the call as a success; retry and hedge
// return the error instead of trying again.
//
// Marks ([NotFailure], [Contention], [CallerFault], [NotMade], [WithRetryAfter], retry.Permanent)
// unwrap to err, keep its text, and are nil for nil. They stack in any order; of NotFailure,
// Contention, and CallerFault, the outermost counts. Only outer marks count: an error that wraps a
// marked one, for example with fmt.Errorf, is not marked. So wrap first and mark last.
func NotFailure(err error) error { return mark.New(mark.NotFailure, err) }

// Contention marks the error of a call that lost to a concurrent one: a serialization failure,
// a deadlock, a lost optimistic lock. Breaker, shed, and adaptive count the call as a success;
// retry and hedge try again. [NotFailure] describes how marks combine.
//
// It is not for overload (a 503 or 429), which the breaker must see; unmarked errors are tried
// again anyway.
func Contention(err error) error { return mark.New(mark.Contention, err) }

// CallerFault marks an error that the caller caused and that the dependency never saw: a request
// that can't be sent, a body that can't be read. Breaker, shed, and adaptive treat the call as
// never made; retry and hedge return the error instead of trying again. [NotFailure] describes how
// marks combine.
func CallerFault(err error) error { return mark.New(mark.CallerFault, err) }

// NotMade marks an error of a call that had no effect (a refused dial, a rolled-back transaction),
// so that the call may be made again even under [AtMostOnce]. For everything else, the error counts
// as if it weren't marked. [Do], [Run], and composed effectors remove the mark from the error that
// they return, because they may have started the effector more than once. [NotFailure] describes
// how marks combine.
func NotMade(err error) error { return mark.New(mark.NotMade, err) }

// WithRetryAfter marks err with the time after which its sender wants to be called again.
// [NotFailure] describes how marks combine.
func WithRetryAfter(err error, after time.Duration) error { return mark.NewDelay(err, after) }

// RetryAfter returns the longest time that any error in err's tree specifies with a method
// RetryAfter() time.Duration. It returns 0 and false if no time is positive.
func RetryAfter(err error) (time.Duration, bool) {
	after := longestRetryAfter(err)
	return after, after > 0
}

func longestRetryAfter(err error) (longest time.Duration) {
	for err != nil {
		if e, ok := err.(interface{ RetryAfter() time.Duration }); ok {
			longest = max(longest, e.RetryAfter())
		}
		switch e := err.(type) {
		case interface{ Unwrap() error }:
			err = e.Unwrap()
		case interface{ Unwrap() []error }:
			for _, inner := range e.Unwrap() {
				longest = max(longest, longestRetryAfter(inner))
			}
			return longest
		default:
			return longest
		}
	}
	return longest
}

// ContextErr returns nil until ctx is done, then an error that matches both ctx.Err() and
// context.Cause(ctx) under [errors.Is]. Policies return it if ctx ended while they waited, or
// before the call was made.
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

// A PanicError is the panic of an effector that ran on its own goroutine (hedging, abandoning,
// sharing): the policy panics with it on the caller's goroutine.
type PanicError struct {
	Value any    // what the effector panicked with
	Stack []byte // the stack of its goroutine, as runtime/debug.Stack formats it
}

// Error contains the value and the stack of the original panic.
func (e *PanicError) Error() string { return fmt.Sprintf("%v\n\n%s", e.Value, e.Stack) }

// Unwrap returns the value if it is an error, otherwise nil.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}
