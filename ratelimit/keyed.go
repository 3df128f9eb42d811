package ratelimit

import (
	"context"
	"errors"
	"fmt"

	"github.com/effector-go/resilience"
)

// A Keyed has its own [Limiter] for each key: each customer, address, or tenant gets Rate calls per
// second in bursts of Burst, whatever the others do. Create it with [NewKeyed]. It is safe for
// concurrent use. It holds no goroutine, and a timer only while a call waits.
//
//	perCustomer := ratelimit.NewKeyed(ratelimit.KeyedConfig[string]{Config: ratelimit.Config{Rate: 10, Burst: 50}})
//
//	guarded := resilience.Pipeline{perCustomer.By(customerOf), payments} // the key is in the context
//	if !perCustomer.Allow(customer) { ... }                              // the key is at hand
//
// A key is forgotten only when its bucket is full and none of its calls waits. Forgetting such a
// key changes nothing, because a new bucket is full as well. So the number of keys that are used
// within Burst/Rate seconds bounds the memory. KeyedConfig.MaxKeys bounds how many full buckets are
// among them.
//
// A decision costs about four times as much as that of a [Limiter]: it looks up the key under a
// lock that all keys share, and reads the clock once more (BenchmarkKeyed). A key takes about 240
// bytes.
type Keyed[K comparable] struct {
	config   Config // for keys without their own
	pace     pace   // of config
	configOf func(key K) Config
	keys     keys[K]
}

// KeyedConfig configures a [Keyed]. Config.Rate must be set, unless For is.
type KeyedConfig[K comparable] struct {
	// Config is the configuration of each key. Its Name is that of the Keyed.
	Config

	// For, if set, returns the configuration of a key, such as a customer's plan. If its Rate is 0,
	// the key gets Config. If its Name is empty, the errors of the key have Config's. For is called
	// when a key that isn't remembered is used, so it is called again for a key that was forgotten.
	// It may be called concurrently, even for the same key. An invalid configuration panics in the
	// call that uses the key.
	For func(key K) Config

	// MaxKeys is how many keys may be remembered before keys with a full bucket are forgotten
	// early. By default they are forgotten once they haven't been used for the time in which an
	// empty bucket fills. Keys whose bucket isn't full, or with a waiting call, may exceed MaxKeys.
	// At least 1; default 10,000.
	MaxKeys int
}

const defaultMaxKeys = 10_000

// Validate reports all invalid fields of c, as [Config.Validate] does.
func (c KeyedConfig[K]) Validate() error {
	config := c.Config
	if c.For != nil && config.Rate == 0 {
		config.Rate = maxRate // For sets it
	}
	mistakes := []error{config.Validate()}
	if c.MaxKeys < 0 {
		mistakes = append(mistakes, fmt.Errorf("%s: MaxKeys is %d, must be positive, or 0 for %d", title(c.Name), c.MaxKeys, defaultMaxKeys))
	}
	return errors.Join(mistakes...)
}

// NewKeyed returns a Keyed that remembers no keys. It panics with the text of
// [KeyedConfig.Validate]'s error if there is one.
func NewKeyed[K comparable](config KeyedConfig[K]) *Keyed[K] {
	if err := config.Validate(); err != nil {
		panic(err.Error())
	}
	if config.MaxKeys == 0 {
		config.MaxKeys = defaultMaxKeys
	}
	k := &Keyed[K]{config: config.Config.withDefaults(), configOf: config.For}
	if k.config.Rate > 0 {
		k.pace = newPace(k.config.Rate, k.config.Burst)
	}
	k.keys.init(config.MaxKeys)
	return k
}

// DoKey calls fn when it is the turn of a call for the key, and returns fn's result: see [Do]. It
// panics if k or fn is nil.
func DoKey[K comparable, T any](ctx context.Context, k *Keyed[K], key K, fn func(context.Context) (T, error)) (T, error) {
	if k == nil {
		panic("ratelimit: DoKey: k is nil, must be a Keyed made by NewKeyed")
	}
	if fn == nil {
		panic("ratelimit: DoKey: fn is nil, must be a function")
	}
	if err := k.Wait(ctx, key); err != nil {
		var zero T
		return zero, err
	}
	return fn(ctx)
}

// By returns a policy that makes each call when it is the turn of its key, which the function key
// returns. It returns the same errors as [Do]. Its Name and Report are those of k. By panics if key is
// nil.
func (k *Keyed[K]) By(key func(ctx context.Context) K) resilience.Policy {
	if key == nil {
		panic("ratelimit: By: key is nil, must be a function")
	}
	return &byKey[K]{k, key}
}

// byKey is the policy that By returns.
type byKey[K comparable] struct {
	keyed *Keyed[K]
	key   func(ctx context.Context) K
}

// Run makes the call when it is the turn of its key.
func (b *byKey[K]) Run(ctx context.Context, next resilience.Next) error {
	if err := b.keyed.admit(ctx, b.key(ctx)); err != nil {
		return err
	}
	return next.Run(ctx)
}

// Name and Report are those of the Keyed.

func (b *byKey[K]) Name() string              { return b.keyed.Name() }
func (b *byKey[K]) Report() resilience.Report { return b.keyed.Report() }

// Allow takes one token of the key, as [Limiter.Allow] does.
func (k *Keyed[K]) Allow(key K) bool { return k.AllowN(key, 1) }

// AllowN takes n tokens of the key, as [Limiter.AllowN] does.
func (k *Keyed[K]) AllowN(key K, n int) bool {
	e := k.acquire(key)
	defer e.release()
	return e.limiter.AllowN(n)
}

// Wait takes the tokens of a call for the key, as [Limiter.Wait] does.
func (k *Keyed[K]) Wait(ctx context.Context, key K) error {
	if ctx.Err() != nil {
		return resilience.ContextErr(ctx)
	}
	return k.admit(ctx, key)
}

// Name returns Config.Name.
func (k *Keyed[K]) Name() string { return k.config.Name }

// Len returns how many keys are remembered.
func (k *Keyed[K]) Len() int { return k.keys.len() }

// Snapshot returns the current state of the key's limiter. For a key that isn't remembered, it is
// the state of a new one.
func (k *Keyed[K]) Snapshot(key K) Snapshot {
	if e := k.keys.peek(key); e != nil {
		defer e.release()
		return e.limiter.Snapshot()
	}
	return k.newLimiter(key).Snapshot()
}

// Report describes all keys: its values are rate, that of a key without its own Config (0 if all have
// one); available, the fewest tokens of a remembered key, or those of a new one if none is remembered;
// and waiting, the number of waiting calls of all keys. It looks at every remembered key, which takes
// a fraction of a millisecond for 10,000 of them.
func (k *Keyed[K]) Report() resilience.Report {
	available, waiting := k.config.Burst, 0
	for i, l := range k.keys.limiters() {
		s, n := l.snapshot()
		if i == 0 {
			available = s.Available
		}
		available = min(available, s.Available)
		waiting += n
	}
	config := KeyedConfig[K]{Config: k.config, MaxKeys: k.keys.max}
	return newReport(config, k.config.Name, k.config.Rate, available, waiting)
}

func (k *Keyed[K]) admit(ctx context.Context, key K) error {
	e := k.acquire(key)
	defer e.release() // until then, the key isn't forgotten
	return e.limiter.admit(ctx)
}

// acquire returns the entry of the key, which the caller must release.
func (k *Keyed[K]) acquire(key K) *keyEntry[K] {
	if e := k.keys.acquire(key); e != nil {
		return e
	}
	return k.keys.add(key, k.newLimiter(key)) // made without a lock, because For is the user's
}

func (k *Keyed[K]) newLimiter(key K) *Limiter {
	if k.configOf == nil {
		return newLimiter(k.config, k.pace)
	}
	config := k.configOf(key)
	if config.Name == "" {
		config.Name = k.config.Name
	}
	if config.Rate == 0 && k.config.Rate > 0 {
		return newLimiter(k.config, k.pace)
	}
	if err := config.Validate(); err != nil {
		panic(fmt.Sprintf("%s: For(%v): %v", title(k.config.Name), key, err))
	}
	config = config.withDefaults()
	return newLimiter(config, newPace(config.Rate, config.Burst))
}
