// Package resiliencetest helps test pipelines. It has effectors with scripted behavior, and a
// policy that records what passes through it.
//
//	fetch := resiliencetest.FailFirst[string](2).Returning("hello")
//	call := resilience.Compose(fetch.Do, retry.New(retry.Config{MaxAttempts: 3}))
//	value, err := call(ctx) // "hello", nil
//	fetch.Calls()           // 3
//
// Everything in this package is safe for concurrent use and starts no goroutine. It works both
// inside a testing/synctest bubble, where waits are exact and take no real time, and outside.
package resiliencetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/effector-go/resilience"
)

// ErrFailed is the error that [FailAfter], [FailFirst], and [Flaky] return, unless
// [Effector.Failing] sets another.
var ErrFailed = errors.New("resiliencetest: failed")

// An Effector behaves as documented at the function that created it, and counts its calls. Its
// method Do is the effector to test with: resilience.Compose(e.Do, policies...). It is safe for
// concurrent use.
type Effector[T any] struct {
	maker  string
	behave func(ctx context.Context, call int) (T, error) // call counts from 1

	takesValue, takesError bool // whether Returning and Failing are allowed

	mu      sync.Mutex // guards the following
	value   T
	err     error // nil if calls fail only after Failing
	calls   int
	running int
	most    int
}

// Returning sets the value that successful calls return, and returns e. The default is the zero T.
// It panics for effectors that don't use such a value: [Hang], [Panic], and [Script].
func (e *Effector[T]) Returning(value T) *Effector[T] {
	if !e.takesValue {
		panic(fmt.Sprintf("resiliencetest: Returning: a %s takes no value", e.maker))
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.value = value
	return e
}

// Failing sets the error that failing calls return, and returns e. After Failing, [Slow] and
// [IgnoresContext] fail at the end of their delay, and [Hang] fails with err instead of the
// context's error. Failing panics if err is nil, and for effectors that don't use such an error:
// [Panic] and [Script].
func (e *Effector[T]) Failing(err error) *Effector[T] {
	if !e.takesError {
		panic(fmt.Sprintf("resiliencetest: Failing: a %s takes no error", e.maker))
	}
	if err == nil {
		panic("resiliencetest: Failing: err is nil, must be an error")
	}
	e.mu.Lock()
	defer e.mu.Unlock()
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

// Calls returns the number of calls that have begun.
func (e *Effector[T]) Calls() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.calls
}

// Running returns the number of calls that have begun and not ended.
func (e *Effector[T]) Running() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.running
}

// MaxConcurrent returns the maximum number of calls that have run concurrently so far.
func (e *Effector[T]) MaxConcurrent() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.most
}

// FailAfter returns an effector that succeeds n times and fails from then on. It panics if n is
// negative. It is failAfter from Titmus, Cloud Native Go, 2021, made safe for concurrent use.
func FailAfter[T any](n int) *Effector[T] {
	mustNotBeNegative("FailAfter: n", n)
	return failing[T]("FailAfter", func(call int) bool { return call > n })
}

// FailFirst returns an effector that fails n times and succeeds from then on. It panics if n is
// negative.
func FailFirst[T any](n int) *Effector[T] {
	mustNotBeNegative("FailFirst: n", n)
	return failing[T]("FailFirst", func(call int) bool { return call <= n })
}

// Flaky returns an effector whose calls fail at random, each with the probability rate, from 0 to
// 1. It panics if rate is out of range. Only a call's number and the seed determine whether it
// fails: the same calls fail in every run of a test, however many callers there are.
func Flaky[T any](rate float64, seed uint64) *Effector[T] {
	if !(rate >= 0 && rate <= 1) { // NaN too
		panic(fmt.Sprintf("resiliencetest: Flaky: rate is %v, must be 0 to 1", rate))
	}
	return failing[T]("Flaky", func(call int) bool { return rand.New(rand.NewPCG(seed, uint64(call))).Float64() < rate })
}

// failing returns an effector whose calls fail if fails reports true for their number.
func failing[T any](maker string, fails func(call int) bool) *Effector[T] {
	e := &Effector[T]{maker: maker, takesValue: true, takesError: true, err: ErrFailed}
	e.behave = func(_ context.Context, call int) (T, error) {
		if fails(call) {
			return e.fail()
		}
		return e.succeed()
	}
	return e
}

// Slow returns an effector that succeeds after d. It fails with [resilience.ContextErr] as soon as
// its context is done. If the context's deadline is at the end of d exactly, the deadline wins.
// Slow panics if d is negative.
func Slow[T any](d time.Duration) *Effector[T] {
	mustNotBeNegative("Slow: d", d)
	e := &Effector[T]{maker: "Slow", takesValue: true, takesError: true}
	e.behave = func(ctx context.Context, _ int) (zero T, err error) {
		if err := wait(ctx, d); err != nil {
			return zero, err
		}
		return e.answer()
	}
	return e
}

// Hang returns an effector that fails with [resilience.ContextErr] when its context is done. With a
// context that is never done, a call never returns.
func Hang[T any]() *Effector[T] {
	e := &Effector[T]{maker: "Hang", takesError: true}
	e.behave = func(ctx context.Context, _ int) (zero T, err error) {
		<-ctx.Done()
		if _, err := e.fail(); err != nil {
			return zero, err
		}
		return zero, resilience.ContextErr(ctx)
	}
	return e
}

// IgnoresContext returns an effector that succeeds after d, even if its context ends before. It
// panics if d is negative.
func IgnoresContext[T any](d time.Duration) *Effector[T] {
	mustNotBeNegative("IgnoresContext: d", d)
	e := &Effector[T]{maker: "IgnoresContext", takesValue: true, takesError: true}
	e.behave = func(context.Context, int) (T, error) {
		time.Sleep(d)
		return e.answer()
	}
	return e
}

// Panic returns an effector that panics with v.
func Panic[T any](v any) *Effector[T] {
	return &Effector[T]{maker: "Panic", behave: func(context.Context, int) (T, error) { panic(v) }}
}

// A Step describes one call of a [Script], or several consecutive calls.
type Step[T any] struct {
	// Value and Err are what the call returns.
	Value T
	Err   error

	// Delay is how long the call takes. If the context is done before, the call fails as with
	// [Slow]. A step without a Delay ignores the context. The default is no delay.
	Delay time.Duration

	// Times is how many calls the step applies to. The default is 1.
	Times int
}

// Script returns an effector that takes its steps one after another, in the order in which calls
// begin, and repeats the last one. It panics if there is no step, or if a Delay or Times is
// negative.
func Script[T any](steps ...Step[T]) *Effector[T] {
	if len(steps) == 0 {
		panic("resiliencetest: Script: there are 0 steps, must be at least 1")
	}
	for i, step := range steps {
		mustNotBeNegative(fmt.Sprintf("Script: steps[%d].Delay", i), step.Delay)
		mustNotBeNegative(fmt.Sprintf("Script: steps[%d].Times", i), step.Times)
	}
	steps = slices.Clone(steps)
	return &Effector[T]{maker: "Script", behave: func(ctx context.Context, call int) (zero T, err error) {
		step := stepOf(steps, call)
		if step.Delay > 0 { // otherwise ctx is ignored
			if err := wait(ctx, step.Delay); err != nil {
				return zero, err
			}
		}
		return step.Value, step.Err
	}}
}

// stepOf returns the step of a call. Calls count from 1.
func stepOf[T any](steps []Step[T], call int) Step[T] {
	for _, step := range steps {
		call -= max(1, step.Times)
		if call <= 0 {
			return step
		}
	}
	return steps[len(steps)-1]
}

// succeed returns the value, fail the error, and answer the error if there is one, otherwise the
// value.

func (e *Effector[T]) succeed() (T, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.value, nil
}

func (e *Effector[T]) fail() (zero T, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return zero, e.err
}

func (e *Effector[T]) answer() (T, error) {
	if zero, err := e.fail(); err != nil {
		return zero, err
	}
	return e.succeed()
}

// wait waits for d. If ctx is done before, it returns the context's error.
func wait(ctx context.Context, d time.Duration) error {
	// Two timers that expire at the same instant fire in any order. To make the deadline win, the
	// second timer isn't started.
	var over <-chan time.Time
	deadline, ok := ctx.Deadline()
	if !ok || ctx.Done() == nil || time.Until(deadline) > d {
		timer := time.NewTimer(d)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-over:
	case <-ctx.Done():
	}
	return resilience.ContextErr(ctx)
}

func mustNotBeNegative[N int | time.Duration](field string, value N) {
	if value < 0 {
		panic(fmt.Sprintf("resiliencetest: %s is %v, must be 0 or more", field, value))
	}
}
