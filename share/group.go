package share

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/keyed"
)

// Config says what a [Group] keeps. The zero Config keeps no values: callers at the same time share a run.
type Config struct {
	// Fresh is how long a good value is returned without a run. Default 0: not at all.
	Fresh time.Duration

	// Stale is how much longer a good value is returned where a run fails. Default 0: not at all.
	Stale time.Duration

	// MaxKeys is how many keys a Group keeps values for: beyond it the one that was asked for longest ago falls away. Keys in use may exceed it.
	// At least 1; default 10,000.
	MaxKeys int
}

// Validate reports all mistakes of c at once, joined by [errors.Join], each naming the field, its value and the allowed range;
// nil if there is none.
func (c Config) Validate() error {
	var mistakes []error
	mistake := func(ok bool, field string, value any, allowed string) {
		if !ok {
			mistakes = append(mistakes, fmt.Errorf("share: %s is %v, must be %s", field, value, allowed))
		}
	}
	mistake(c.Fresh >= 0, "Fresh", c.Fresh, "0 or more")
	mistake(c.Stale >= 0, "Stale", c.Stale, "0 or more")
	if c.Fresh >= 0 && c.Stale >= 0 {
		mistake(c.Fresh+c.Stale >= 0, "Fresh + Stale", fmt.Sprint(c.Fresh, " + ", c.Stale), "at most 292 years")
	}
	mistake(c.MaxKeys >= 0, "MaxKeys", c.MaxKeys, "at least 1, or 0 for 10000")
	return errors.Join(mistakes...)
}

// A Group shares calls by key: for each key it is what [Stale] gives, or [Calls]. It is made by [NewGroup] and safe for concurrent use. It holds a goroutine
// for each run, and no timer: a key falls away at a later call, once nobody has asked for it for Fresh and Stale together.
type Group[K comparable, T any] struct {
	calls *keyed.Store[K, *call[T]]
	make  func(key K) (*call[T], bool)
}

// NewGroup gives a Group whose runs call fn. It panics if fn is nil, or with the text of [Config.Validate]'s error if there is one.
func NewGroup[K comparable, T any](config Config, fn func(ctx context.Context, key K) (T, error)) *Group[K, T] {
	if fn == nil {
		panic("share: NewGroup: fn is nil, must be a function")
	}
	if err := config.Validate(); err != nil {
		panic(err.Error())
	}
	if config.MaxKeys == 0 {
		config.MaxKeys = 10_000
	}
	return &Group[K, T]{
		calls: keyed.New[K, *call[T]](config.MaxKeys, config.Fresh+config.Stale),
		make: func(key K) (*call[T], bool) {
			one := func(ctx context.Context) (T, error) { return fn(ctx, key) }
			return &call[T]{effector: one, fresh: config.Fresh, stale: config.Stale}, true
		},
	}
}

// Do gives the value for the key: one that is kept, or the result of a run that is shared with all who ask for the key meanwhile. Errors, and what becomes of
// a panic, are as with [Calls] and [Stale].
func (g *Group[K, T]) Do(ctx context.Context, key K) (T, error) {
	if ctx.Err() != nil { // before it has another key fall away
		var zero T
		return zero, resilience.ContextErr(ctx)
	}
	e := g.calls.Acquire(key, g.make)
	defer g.calls.ReleaseUnneeded(e, (*call[T]).empty) // a run has users, who wait for it
	return e.Value().do(ctx)
}

// Forget drops what is kept for the key. Those who wait for a run get its result, which is not kept, and the next one who asks starts another.
func (g *Group[K, T]) Forget(key K) { g.calls.Forget(key) }

// Len is how many keys are in use or have a value that is kept. A value is kept until nobody has asked for it for Fresh and Stale together.
func (g *Group[K, T]) Len() int { return g.calls.Len() }
