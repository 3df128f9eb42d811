// Package throttle lets calls through while there are tokens, which come back a handful at a time.
//
//	api := throttle.New(throttle.Config{Name: "api", Max: 100, Refill: 100, Every: time.Minute})
//
// It is the throttle of Cloud Native Go (Matthew A. Titmus, O'Reilly, 2021), a token bucket that is refilled in steps, without the goroutine that the
// book's needs for it. Use one where somebody else counts so: 100 calls in each minute. Where the limit is yours, package ratelimit spreads the
// calls and can let them wait.
package throttle

import (
	"context"
	"sync"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/clock"
)

// A Throttle is a bucket of Max tokens, full at first, that gets Refill tokens every Every since New, up to Max. Each call takes one, and one that finds
// none is refused with [*Error]. It is a [resilience.Policy], made by [New], and safe for concurrent use. It holds no goroutine and no timer.
type Throttle struct {
	config Config
	began  int64 // on package clock

	mu      sync.Mutex // guards the following
	tokens  int        // as of refills
	refills int64      // that have come since began
}

// New gives a Throttle. It panics with the text of [Config.Validate]'s error if there is one.
func New(config Config) *Throttle {
	if err := config.Validate(); err != nil {
		panic(err.Error())
	}
	return &Throttle{config: config, began: clock.Now(), tokens: config.Max}
}

// Do calls fn if there is a token and returns what fn returns. Its error is [*Error] if there is none, and [resilience.ContextErr] if ctx is
// already done. Do panics if t or fn is nil. A call that is let through allocates nothing.
func Do[T any](ctx context.Context, t *Throttle, fn func(context.Context) (T, error)) (T, error) {
	if t == nil {
		panic("throttle: Do: t is nil, must be a Throttle made by New")
	}
	if fn == nil {
		panic("throttle: Do: fn is nil, must be a function")
	}
	var zero T
	if ctx.Err() != nil {
		return zero, resilience.ContextErr(ctx)
	}
	if err := t.take(); err != nil {
		return zero, err
	}
	return fn(ctx)
}

// Run makes the call if there is a token: see [resilience.Policy].
func (t *Throttle) Run(ctx context.Context, next resilience.Next) error {
	if err := t.take(); err != nil {
		return err
	}
	return next.Run(ctx)
}

// Name gives Config.Name.
func (t *Throttle) Name() string { return t.config.Name }

// A Snapshot is what a throttle is like at one instant.
type Snapshot struct {
	Name      string
	Max       int
	Available int // tokens
}

// Snapshot tells the present state.
func (t *Throttle) Snapshot() Snapshot {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refill(clock.Now())
	return Snapshot{t.config.Name, t.config.Max, t.tokens}
}

func (t *Throttle) take() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := clock.Now()
	t.refill(now)
	if t.tokens == 0 {
		return &Error{Name: t.config.Name, until: t.began + (t.refills+1)*int64(t.config.Every)}
	}
	t.tokens--
	return nil
}

// refill puts the tokens into the bucket that came since it was last looked at. Where the clock went back, as it does when a throttle is used in a
// synctest bubble and then outside of it, the refills count from then on.
func (t *Throttle) refill(now int64) {
	refills := (now - t.began) / int64(t.config.Every)
	if now < t.began || refills < t.refills {
		t.began, t.refills = now, 0
		return
	}
	missing := int64(t.config.Max - t.tokens)
	if come := refills - t.refills; come >= missing { // each brings one at least
		t.tokens = t.config.Max
	} else {
		t.tokens += int(min(missing, come*int64(t.config.Refill)))
	}
	t.refills = refills
}

// maxTokens keeps missing * Refill within 64 bits.
const maxTokens = 1e9

// earliest is how often tokens may come at most.
const earliest = time.Microsecond
