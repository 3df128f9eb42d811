package ratelimit

import (
	"context"
	"errors"
	"fmt"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/clock"
	"github.com/effector-go/resilience/internal/keyed"
)

// A Keyed limits each key by a limiter of its own: each customer, address or tenant gets Rate calls a second in bursts of Burst, whatever the others
// do. To change the rate make another. It is made by [NewKeyed] and safe for concurrent use. It holds no goroutine, and a timer only while a call waits.
//
//	perCustomer := ratelimit.NewKeyed[string](ratelimit.KeyedConfig{Config: ratelimit.Config{Rate: 10, Burst: 50}})
//
//	guarded := resilience.Pipeline{perCustomer.By(customerOf), payments} // the key is the ctx's
//	if !perCustomer.Allow(customer) { ... }                              // the key is at hand
//
// It forgets a key whose bucket is full again, which changes nothing: a new one is full too. So its memory is bounded by the keys of the
// last Burst/Rate seconds, and by KeyedConfig.MaxKeys. Beyond these the key that was idle longest falls away before its bucket is full, and until that would
// have been full a new key begins with no more tokens than were left in it: nobody gains a burst by making the store forget him. Where strangers come in such numbers they share what is left; those who come often
// enough to be remembered keep their own. So set MaxKeys above the number of keys that come in Burst/Rate seconds.
//
// A decision costs some four times what a [Limiter]'s costs: it looks into the store and reads the clock three times, and the store's lock is one for
// all keys (BenchmarkKeyed). A key takes some 330 bytes.
type Keyed[K comparable] struct {
	config Config // of each key's limiter
	pace   pace

	limiters *keyed.Store[K, *Limiter]
	make     func(K) (*Limiter, bool) // newLimiter: made once, not for each call

	// evicted lacks as much as the emptiest bucket that fell away before its time. Its word only moves on, but where the clock went back.
	evicted bucket
}

// KeyedConfig says what a [Keyed] admits. Config.Rate must be set.
type KeyedConfig struct {
	Config // what each key gets; the Name is that of all

	// MaxKeys is how many keys are remembered. Default 10,000. Keys with a call that waits may exceed it.
	MaxKeys int
}

const defaultMaxKeys = 10_000

// Validate reports all mistakes of c at once, as [Config.Validate] does.
func (c KeyedConfig) Validate() error {
	mistakes := []error{c.Config.Validate()}
	if c.MaxKeys < 0 {
		mistakes = append(mistakes, fmt.Errorf("%s: MaxKeys is %d, must be positive, or 0 for %d", title(c.Name), c.MaxKeys, defaultMaxKeys))
	}
	return errors.Join(mistakes...)
}

// NewKeyed gives a Keyed. It panics with the text of [KeyedConfig.Validate]'s error if there is one.
func NewKeyed[K comparable](config KeyedConfig) *Keyed[K] {
	if err := config.Validate(); err != nil {
		panic(err.Error())
	}
	if config.MaxKeys == 0 {
		config.MaxKeys = defaultMaxKeys
	}
	k := &Keyed[K]{config: config.Config.withDefaults()}
	k.pace = newPace(k.config.Rate, k.config.Burst)
	k.evicted.pace = k.pace
	k.limiters = keyed.New[K, *Limiter](config.MaxKeys, k.pace.fills())
	k.limiters.OnEvict(k.evict)
	k.make = func(K) (*Limiter, bool) { return k.newLimiter(), true }
	return k
}

// DoKey calls fn when it is the turn of a call for the key, and returns what fn returns: see [Do]. It panics if k or fn is nil.
func DoKey[K comparable, T any](ctx context.Context, k *Keyed[K], key K, fn func(context.Context) (T, error)) (T, error) {
	if k == nil {
		panic("ratelimit: DoKey: k is nil, must be a Keyed made by NewKeyed")
	}
	if fn == nil {
		panic("ratelimit: DoKey: fn is nil, must be a function")
	}
	var zero T
	if ctx.Err() != nil {
		return zero, resilience.ContextErr(ctx)
	}
	if err := k.admit(ctx, key); err != nil {
		return zero, err
	}
	return fn(ctx)
}

// By gives a policy that makes each call when it is the turn of its key, which it asks key for. Its error is as [Do]'s. By panics if key is nil.
func (k *Keyed[K]) By(key func(ctx context.Context) K) resilience.Policy {
	if key == nil {
		panic("ratelimit: By: key is nil, must be a function")
	}
	return resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		if err := k.admit(ctx, key(ctx)); err != nil {
			return err
		}
		return next.Run(ctx)
	})
}

// Allow takes a token of the key's if there is one and nobody waits for it, and reports whether it did. It never waits.
func (k *Keyed[K]) Allow(key K) bool {
	e := k.limiters.Acquire(key, k.make)
	defer k.limiters.Release(e)
	return e.Value().Allow()
}

// Name gives Config.Name.
func (k *Keyed[K]) Name() string { return k.config.Name }

// Len is how many keys are remembered.
func (k *Keyed[K]) Len() int { return k.limiters.Len() }

// Snapshot tells the present state of the key's limiter, which for a key that is not there is what it would get.
func (k *Keyed[K]) Snapshot(key K) Snapshot {
	if l, ok := k.limiters.Look(key); ok {
		return l.Snapshot()
	}
	return k.newLimiter().Snapshot()
}

func (k *Keyed[K]) admit(ctx context.Context, key K) error {
	e := k.limiters.Acquire(key, k.make)
	defer k.limiters.Release(e) // a key whose calls wait does not fall away
	return e.Value().admit(ctx)
}

// newLimiter gives a key's limiter, with what a key that fell away could have left.
func (k *Keyed[K]) newLimiter() *Limiter {
	arrive := k.evicted.arrive.Load()
	if arrive > 0 && k.evicted.rewind(arrive) {
		arrive = k.evicted.arrive.Load()
	}
	return newLimiter(k.config, k.pace, arrive)
}

// evict hears of a limiter that falls away before its time.
func (k *Keyed[K]) evict(l *Limiter) {
	now := clock.Now()
	arrive := k.pace.units(now) + l.bucket.Load().lack(now)
	for {
		latest := k.evicted.arrive.Load()
		if arrive <= latest || k.evicted.arrive.CompareAndSwap(latest, arrive) {
			return
		}
	}
}
