// Package throttle admits calls while there are tokens in a bucket that is refilled at fixed
// intervals.
//
//	api := throttle.New(throttle.Config{Name: "api", Max: 100, Refill: 100, Every: time.Minute})
//
// It is the throttle of Cloud Native Go (Matthew A. Titmus, O'Reilly, 2021), a token bucket that is
// refilled in steps, without the goroutine that the book's version needs. Use it to keep to a limit
// that someone else counts this way, such as 100 calls per minute. If the limit is your own, use
// package ratelimit, which spreads the calls and can let them wait.
package throttle

import (
	"context"
	"sync"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/clock"
	"github.com/effector-go/resilience/internal/describe"
)

// A Throttle is a bucket of Max tokens, full at first. Refill tokens are added, up to Max, at every
// multiple of Every after New, or after a SetConfig that changed Every. Each call takes one token;
// a call that finds none is refused with an [*Error]. A Throttle is a [resilience.Policy]; create
// it with [New]. It is safe for concurrent use. It holds no goroutine and no timer.
type Throttle struct {
	mu      sync.Mutex // guards the following
	config  Config
	began   int64 // on package clock: when the time between refills began to count
	tokens  int   // after the refills counted in refills
	refills int64 // since began
}

// New returns a Throttle with a full bucket. It panics with the text of [Config.Validate]'s error
// if there is one.
func New(config Config) *Throttle {
	if err := config.Validate(); err != nil {
		panic(err.Error())
	}
	return &Throttle{config: config, began: clock.Now(), tokens: config.Max}
}

// Do takes a token, calls fn, and returns fn's result. It returns an [*Error] if there is no token,
// and [resilience.ContextErr] if ctx has already ended. Do panics if t or fn is nil. An admitted
// call allocates nothing.
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

// Name returns the Config's Name.
func (t *Throttle) Name() string { return t.Config().Name }

// Config returns the Config in use.
func (t *Throttle) Config() Config {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.config
}

// SetConfig replaces the Config while calls arrive. Used tokens stay used: if the bucket lacked
// three tokens of the old Max, it lacks three of the new one, or all of them if the new Max is
// smaller than that. A new Every counts from now; with the same Every, refills come when they would
// have come. If config is invalid, SetConfig changes nothing and returns [Config.Validate]'s error.
func (t *Throttle) SetConfig(config Config) error {
	if err := config.Validate(); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now := clock.Now()
	t.refill(now)
	lack := t.config.Max - t.tokens
	t.tokens = max(0, config.Max-lack)
	if config.Every != t.config.Every {
		t.began, t.refills = now, 0
	}
	t.config = config
	return nil
}

// A Snapshot is the state of a throttle at one instant.
type Snapshot struct {
	Name      string
	Max       int
	Available int // tokens
}

// Snapshot returns the current state.
func (t *Throttle) Snapshot() Snapshot {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refill(clock.Now())
	return Snapshot{t.config.Name, t.config.Max, t.tokens}
}

// Report describes the throttle: its value is available, as in [Snapshot].
func (t *Throttle) Report() resilience.Report {
	s, c := t.Snapshot(), t.Config()
	return resilience.Report{
		Kind: "throttle", Name: c.Name, Config: describe.Config(c),
		Values: []resilience.Value{{Name: "available", Unit: "{token}", Value: float64(s.Available)}},
	}
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

// refill adds the tokens that are due since the last call of refill. If the clock went back, which
// happens when a throttle is used inside a synctest bubble and then outside, refills are counted
// from now on.
func (t *Throttle) refill(now int64) {
	refills := (now - t.began) / int64(t.config.Every)
	if now < t.began || refills < t.refills {
		t.began, t.refills = now, 0
		return
	}
	missing := int64(t.config.Max - t.tokens)
	if come := refills - t.refills; come >= missing { // each adds at least one
		t.tokens = t.config.Max
	} else {
		t.tokens += int(min(missing, come*int64(t.config.Refill)))
	}
	t.refills = refills
}

// maxTokens keeps missing * Refill within 64 bits.
const maxTokens = 1e9

// minEvery is the shortest Every.
const minEvery = time.Microsecond
