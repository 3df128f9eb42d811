// Package resiliencetest holds effectors that behave on a script, and a policy that records what passes through it, for
// tests of pipelines.
//
//	flaky := resiliencetest.FailFirst[string](2).Returning("hello")
//	call := resilience.Compose(flaky.Do, retry.New(retry.Config{MaxAttempts: 3}))
//	value, err := call(ctx) // "hello", nil
//	flaky.Calls()           // 3
//
// Everything here is safe for any number of callers, works inside a testing/synctest bubble, where times cost nothing, and
// outside of one, and leaves no goroutine behind.
package resiliencetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/effector-go/resilience"
)

// ErrFailed is the error of effectors that fail, unless [Effector.Failing] gives another.
var ErrFailed = errors.New("resiliencetest: failed")

// An Effector behaves as its maker says, and counts its calls. Its method Do is the effector for a test:
// resilience.Compose(e.Do, policies...). It is made by one of this package's functions, set up by [Effector.Returning] and
// [Effector.Failing] before its first call, and safe for concurrent use from then on.
type Effector[T any] struct {
	behave func(ctx context.Context, call int) (T, error) // call counts from 1

	value T
	err   error

	mu      sync.Mutex // guards the following
	calls   int
	running int
	most    int
}

func newEffector[T any]() *Effector[T] { return &Effector[T]{err: ErrFailed} }

// Returning sets the value of calls that succeed, by default the zero T, and returns e. A [Script] has values of its own.
func (e *Effector[T]) Returning(value T) *Effector[T] {
	e.value = value
	return e
}

// Failing sets the error of calls that fail, by default [ErrFailed], and returns e. It panics if err is nil. A [Script] has
// errors of its own; [Hang] and [Slow] fail with ctx's.
func (e *Effector[T]) Failing(err error) *Effector[T] {
	if err == nil {
		panic("resiliencetest: Failing: err is nil, must be an error")
	}
	e.err = err
	return e
}

// Do makes one call.
func (e *Effector[T]) Do(ctx context.Context) (T, error) {
	e.mu.Lock()
	e.calls++
	e.running++
	e.most = max(e.most, e.running)
	call := e.calls
	e.mu.Unlock()
	defer func() { // panics too
		e.mu.Lock()
		defer e.mu.Unlock()
		e.running--
	}()
	return e.behave(ctx, call)
}

// Calls is how many calls were begun.
func (e *Effector[T]) Calls() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.calls
}

// Running is how many calls run now.
func (e *Effector[T]) Running() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.running
}

// MostAtOnce is how many calls have run at the same time, at most.
func (e *Effector[T]) MostAtOnce() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.most
}

// failing gives what behaves by whether a call fails.
func failing[T any](fails func(call int) bool) *Effector[T] {
	e := newEffector[T]()
	e.behave = func(_ context.Context, call int) (T, error) {
		if fails(call) {
			var zero T
			return zero, e.err
		}
		return e.value, nil
	}
	return e
}

// FailAfter succeeds n times and fails from then on: the book's failAfter (Titmus, Cloud Native Go, 2021), without its race. It
// panics if n is negative.
func FailAfter[T any](n int) *Effector[T] {
	mustNotBeNegative("FailAfter: n", n)
	return failing[T](func(call int) bool { return call > n })
}

// FailFirst fails n times and succeeds from then on. It panics if n is negative.
func FailFirst[T any](n int) *Effector[T] {
	mustNotBeNegative("FailFirst: n", n)
	return failing[T](func(call int) bool { return call <= n })
}

// Flaky fails a share of its calls, which the seed chooses: the same calls, by number, for the same seed. It panics unless the
// share is from 0 to 1.
func Flaky[T any](share float64, seed uint64) *Effector[T] {
	if !(share >= 0 && share <= 1) {
		panic(fmt.Sprintf("resiliencetest: Flaky: share is %v, must be 0 to 1", share))
	}
	return failing[T](func(call int) bool { return rand.New(rand.NewPCG(seed, uint64(call))).Float64() < share })
}

// Slow succeeds after d, or fails with [resilience.ContextErr] when ctx is done before. It panics if d is negative.
func Slow[T any](d time.Duration) *Effector[T] {
	mustNotBeNegative("Slow: d", d)
	e := newEffector[T]()
	e.behave = func(ctx context.Context, _ int) (T, error) {
		if !wait(ctx, d) {
			var zero T
			return zero, resilience.ContextErr(ctx)
		}
		return e.value, nil
	}
	return e
}

// Hang returns when ctx is done, with [resilience.ContextErr].
func Hang[T any]() *Effector[T] {
	e := newEffector[T]()
	e.behave = func(ctx context.Context, _ int) (T, error) {
		<-ctx.Done()
		var zero T
		return zero, resilience.ContextErr(ctx)
	}
	return e
}

// Deaf succeeds after d, whatever becomes of ctx. It panics if d is negative.
func Deaf[T any](d time.Duration) *Effector[T] {
	mustNotBeNegative("Deaf: d", d)
	e := newEffector[T]()
	e.behave = func(context.Context, int) (T, error) {
		time.Sleep(d)
		return e.value, nil
	}
	return e
}

// Panic panics with v.
func Panic[T any](v any) *Effector[T] {
	e := newEffector[T]()
	e.behave = func(context.Context, int) (T, error) { panic(v) }
	return e
}

// A Step is what a call, or some calls, of a [Script] do.
type Step[T any] struct {
	Value T
	Err   error

	// Delay is how long the call takes; ctx may end it before, with [resilience.ContextErr] and no value. Default none.
	Delay time.Duration

	// Times is for how many calls the step is. Default 1.
	Times int
}

// Script takes its steps in turn, and stays at the last. Calls at the same time take steps in the order in which they begin. It panics
// if there is no step, or if a Delay or Times is negative.
func Script[T any](steps ...Step[T]) *Effector[T] {
	if len(steps) == 0 {
		panic("resiliencetest: Script: there are no steps, must be at least 1")
	}
	for i, step := range steps {
		mustNotBeNegative(fmt.Sprintf("Script: steps[%d].Delay", i), step.Delay)
		mustNotBeNegative(fmt.Sprintf("Script: steps[%d].Times", i), step.Times)
	}
	steps = append([]Step[T](nil), steps...)
	e := newEffector[T]()
	e.behave = func(ctx context.Context, call int) (T, error) {
		step := stepOf(steps, call)
		if step.Delay > 0 && !wait(ctx, step.Delay) {
			var zero T
			return zero, resilience.ContextErr(ctx)
		}
		return step.Value, step.Err
	}
	return e
}

// stepOf is the step of a call, which counts from 1.
func stepOf[T any](steps []Step[T], call int) Step[T] {
	for _, step := range steps {
		if call -= max(1, step.Times); call <= 0 {
			return step
		}
	}
	return steps[len(steps)-1]
}

// wait waits for d and reports whether ctx was not done before. Where both are in one instant, ctx goes first.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

func mustNotBeNegative[N int | time.Duration](field string, value N) {
	if value < 0 {
		panic(fmt.Sprintf("resiliencetest: %s is %v, must be 0 or more", field, value))
	}
}
