package share

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/keyed"
)

// Config configures how long values are kept, for [NewGroup] and [New]. The zero Config keeps no
// values: concurrent callers share a run, as with [Calls].
//
// Fresh, Revalidate, and Stale are what RFC 5861 calls max-age, stale-while-revalidate, and
// stale-if-error. Revalidate and Stale both begin when a value is no longer fresh, and may overlap.
// A value is kept for Fresh plus the longer of them.
type Config struct {
	// Fresh is how long a good value is returned without a run. Default 0: not at all.
	Fresh time.Duration

	// Revalidate is how much longer a good value is returned immediately, while one run refreshes
	// it in the background. Default 0: callers wait for the run.
	//
	// The background run has the values of the context of the caller that started it, but neither
	// its deadline nor its cancellation; put a timeout inside. If it returns an error, the value is
	// kept and the next caller starts another run, one at a time. If it panics or calls
	// runtime.Goexit, the next callers wait for a run, so that the panic reaches a caller if it
	// happens again; a run that returns ends that.
	Revalidate time.Duration

	// Stale is how much longer than Fresh a good value is returned if a run fails. Default 0: not
	// at all.
	Stale time.Duration

	// MaxKeys is how many keys a Group keeps values for. Beyond it, the key that was used least
	// recently is evicted. Keys in use may exceed it, and a key is in use while its value is
	// refreshed. At least 1; default 10,000.
	MaxKeys int

	// OnError, if set, is called with errors that callers may never receive: every error of a
	// background run, including a panic as a [*resilience.PanicError], and every error that a kept
	// value replaces. It receives the context of the run. It is called on the run's goroutine
	// before the run ends, concurrently for different keys, and must not wait for the run's result.
	OnError func(ctx context.Context, err error)
}

// Validate reports all invalid fields of c, joined by [errors.Join]. Each error names the field,
// its value, and the allowed range. Validate returns nil if c is valid.
func (c Config) Validate() error {
	var mistakes []error
	mistake := func(ok bool, field string, value any, allowed string) {
		if !ok {
			mistakes = append(mistakes, fmt.Errorf("share: %s is %v, must be %s", field, value, allowed))
		}
	}
	longer := func(field string, d time.Duration) {
		mistake(d >= 0, field, d, "0 or more")
		mistake(max(c.Fresh, 0)+max(d, 0) >= 0, "Fresh + "+field, fmt.Sprint(c.Fresh, " + ", d), "at most 292 years")
	}
	mistake(c.Fresh >= 0, "Fresh", c.Fresh, "0 or more")
	longer("Revalidate", c.Revalidate)
	longer("Stale", c.Stale)
	mistake(c.MaxKeys >= 0, "MaxKeys", c.MaxKeys, "at least 1, or 0 for 10000")
	return errors.Join(mistakes...)
}

// keep is how long a value is kept.
func (c Config) keep() time.Duration { return c.Fresh + max(c.Revalidate, c.Stale) }

// A Group shares calls by key: each key has its own run and its own value, as with [New]. Create it
// with [NewGroup]. It is safe for concurrent use. It holds a goroutine for each run, and no timer:
// a key that hasn't been used for as long as values are kept is evicted by a later call.
type Group[K comparable, T any] struct {
	calls *keyed.Store[K, *call[T]]
	make  func(key K) (*call[T], bool)
}

// NewGroup returns a Group whose runs call fn. It panics if fn is nil, or with the text of
// [Config.Validate]'s error if there is one.
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
		calls: keyed.New[K, *call[T]](config.MaxKeys, config.keep()),
		make: func(key K) (*call[T], bool) {
			return newCall(config, func(ctx context.Context) (T, error) { return fn(ctx, key) }), true
		},
	}
}

// Do returns the value for the key: a kept one, or the result of a run that is shared with all
// concurrent callers that ask for the key. It returns the same errors as the effectors of [Calls]
// and [Stale], and handles panics as they do. A run that asks for its own key through its context
// receives [ErrCycle].
func (g *Group[K, T]) Do(ctx context.Context, key K) (T, error) {
	if ctx.Err() != nil { // before it evicts another key
		var zero T
		return zero, resilience.ContextErr(ctx)
	}
	e := g.calls.Acquire(key, g.make)
	held := false
	defer func() { // a run has callers, which hold the key
		if !held {
			g.release(e)
		}
	}()
	value, refresh, err := e.Value().do(ctx)
	if refresh {
		held = true // until the run has ended
		e.Value().refresh(ctx, func() { g.release(e) })
	}
	return value, err
}

// release ends one use of a key. It takes the store's lock, under which no lock of a call is taken.
func (g *Group[K, T]) release(e *keyed.Entry[K, *call[T]]) {
	g.calls.ReleaseUnneeded(e, (*call[T]).empty)
}

// Forget drops the value of the key. Callers that wait for a run receive its result, which isn't
// kept, and neither is the result of a background run. The next caller starts another run.
func (g *Group[K, T]) Forget(key K) { g.calls.Forget(key) }

// Len returns how many keys are in use or have a kept value. A value is kept until its key hasn't
// been used for Fresh plus the longer of Revalidate and Stale.
func (g *Group[K, T]) Len() int { return g.calls.Len() }
