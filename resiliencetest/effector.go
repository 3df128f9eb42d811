// Package resiliencetest holds effectors that behave on a script, and a policy that records what passes through it, for
// tests of pipelines.
//
//	fetch := resiliencetest.FailFirst[string](2).Returning("hello")
//	call := resilience.Compose(fetch.Do, retry.New(retry.Config{MaxAttempts: 3}))
//	value, err := call(ctx) // "hello", nil
//	fetch.Calls()           // 3
//
// Everything here is safe for any number of callers, starts no goroutine, and works inside a testing/synctest bubble, where
// times are exact and cost nothing, as well as outside.
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

// ErrFailed is the error of [FailAfter], [FailFirst] and [Flaky], unless [Effector.Failing] gives another.
var ErrFailed = errors.New("resiliencetest: failed")

// An Effector behaves as the function that made it says, and counts its calls. Its method Do is the effector for a test:
// resilience.Compose(e.Do, policies...). It is safe for concurrent use.
type Effector[T any] struct {
	maker  string
	behave func(ctx context.Context, call int) (T, error) // call counts from 1

	takesValue, takesError bool // whether a value, an error that somebody sets would come back from behave

	mu      sync.Mutex // guards the following
	value   T
	err     error // nil for makers whose calls fail only if Failing says so
	calls   int
	running int
	most    int
}

// Returning sets the value of calls that succeed, by default the zero T, and returns e. It panics for effectors that have no
// use for it: [Hang], [Panic] and [Script].
func (e *Effector[T]) Returning(value T) *Effector[T] {
	if !e.takesValue {
		panic(fmt.Sprintf("resiliencetest: Returning: a %s takes no value", e.maker))
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.value = value
	return e
}

// Failing sets the error of calls that fail, and returns e. A [Slow] or [IgnoresContext] then fails when its time is over, a [Hang]
// fails with err in place of ctx's error. It panics if err is nil, and for effectors that have no use for it: [Panic] and
// [Script].
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

// Calls is how many calls have begun.
func (e *Effector[T]) Calls() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.calls
}

// Running is how many calls have begun and not ended.
func (e *Effector[T]) Running() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.running
}

// MaxConcurrent is how many calls were running at the same time, at most.
func (e *Effector[T]) MaxConcurrent() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.most
}

// FailAfter succeeds n times and fails from then on: failAfter of Titmus, Cloud Native Go, 2021, but for any number of callers.
// It panics if n is negative.
func FailAfter[T any](n int) *Effector[T] {
	mustNotBeNegative("FailAfter: n", n)
	return failing[T]("FailAfter", func(call int) bool { return call > n })
}

// FailFirst fails n times and succeeds from then on. It panics if n is negative.
func FailFirst[T any](n int) *Effector[T] {
	mustNotBeNegative("FailFirst: n", n)
	return failing[T]("FailFirst", func(call int) bool { return call <= n })
}

// Flaky fails at random, each call with the probability rate, from 0 to 1. Which calls fail is a matter of their numbers and
// the seed alone: the same ones in every run of a test, however many callers there are. It panics if rate is out of range.
func Flaky[T any](rate float64, seed uint64) *Effector[T] {
	if !(rate >= 0 && rate <= 1) { // NaN too
		panic(fmt.Sprintf("resiliencetest: Flaky: rate is %v, must be 0 to 1", rate))
	}
	return failing[T]("Flaky", func(call int) bool { return rand.New(rand.NewPCG(seed, uint64(call))).Float64() < rate })
}

// failing makes an effector whose calls fail by their numbers.
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

// Slow succeeds after d, or fails with [resilience.ContextErr] when ctx is done before. Where both are due in the same
// instant, a deadline of ctx goes first. It panics if d is negative.
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

// Hang fails with [resilience.ContextErr] when ctx is done. With a ctx that is never done it never returns.
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

// IgnoresContext succeeds after d, whatever becomes of ctx. It panics if d is negative.
func IgnoresContext[T any](d time.Duration) *Effector[T] {
	mustNotBeNegative("IgnoresContext: d", d)
	e := &Effector[T]{maker: "IgnoresContext", takesValue: true, takesError: true}
	e.behave = func(context.Context, int) (T, error) {
		time.Sleep(d)
		return e.answer()
	}
	return e
}

// Panic panics with v.
func Panic[T any](v any) *Effector[T] {
	return &Effector[T]{maker: "Panic", behave: func(context.Context, int) (T, error) { panic(v) }}
}

// A Step is what one call of a [Script] does, or several in turn.
type Step[T any] struct {
	Value T     // what the call returns ...
	Err   error // ... beside this

	Delay time.Duration // how long the call takes, as with [Slow], of which it then has the error if ctx is done before. Default none
	Times int           // for how many calls the step is, default 1
}

// Script takes its steps in turn, in the order in which calls begin, and stays at the last. It panics if there is no step, or if
// a Delay or Times is negative.
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
		if step.Delay > 0 { // else ctx is not asked
			if err := wait(ctx, step.Delay); err != nil {
				return zero, err
			}
		}
		return step.Value, step.Err
	}}
}

// stepOf is the step of a call, which counts from 1.
func stepOf[T any](steps []Step[T], call int) Step[T] {
	for _, step := range steps {
		call -= max(1, step.Times)
		if call <= 0 {
			return step
		}
	}
	return steps[len(steps)-1]
}

// succeed, fail and answer are how calls end: with the value, with the error, with the error if there is one.

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

// wait waits for d. If ctx is done before, it returns the error that tells so.
func wait(ctx context.Context, d time.Duration) error {
	// Two timers of one instant wake their goroutines in any order: which goes first is decided beforehand.
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
