// Package throttle compares the throttle with the one in the book: a counter that is refilled at
// each tick of a clock.
package throttle

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/proof/internal/cases"
	"github.com/effector-go/resilience/throttle"
)

func TestMain(m *testing.M) { cases.Main(m, 2000, 0) }

// A counter is the book's throttle. It processes its ticks one by one.
type counter struct {
	max, refill, tokens int
	every               time.Duration
	next                time.Time // tick
}

func newCounter(c throttle.Config) *counter {
	return &counter{max: c.Max, refill: c.Refill, tokens: c.Max, every: c.Every, next: time.Now().Add(c.Every)}
}

func (c *counter) tick() {
	for !time.Now().Before(c.next) {
		c.tokens = min(c.max, c.tokens+c.refill)
		c.next = c.next.Add(c.every)
	}
}

func draw(t *rapid.T) throttle.Config {
	return throttle.Config{
		Max:    rapid.IntRange(1, 12).Draw(t, "Max"),
		Refill: rapid.IntRange(1, 15).Draw(t, "Refill"),
		Every:  rapid.SampledFrom([]time.Duration{time.Microsecond, 7 * time.Millisecond, time.Second, time.Hour}).Draw(t, "Every"),
	}
}

var errOwn = errors.New("own")

// Each call is admitted or refused as by the counter, however it ends, and a refusal reports the
// time of the next tick.
func TestThrottleMatchesModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		config := draw(rt)
		steps := rapid.SliceOfN(rapid.IntRange(0, 29), 1, 200).Draw(rt, "steps")
		synctest.Test(t, func(*testing.T) {
			real, plain := throttle.New(config), newCounter(config)
			for n, s := range steps {
				if s < 10 { // up to three ticks, and times between them
					time.Sleep(config.Every * time.Duration(s) / 3)
					continue
				}
				plain.tick()
				if got := real.Snapshot(); got.Available != plain.tokens || got.Max != config.Max {
					rt.Fatalf("step %d: got %+v, want %d tokens", n, got, plain.tokens)
				}
				made, err := call(real, s%5)
				if made != (plain.tokens > 0) || made == errors.Is(err, throttle.ErrThrottled) {
					rt.Fatalf("step %d: got made %v, %v with %d tokens", n, made, err, plain.tokens)
				}
				if made {
					plain.tokens--
				} else if after, ok := resilience.RetryAfter(err); !ok || after != time.Until(plain.next) {
					rt.Fatalf("step %d: got RetryAfter %v, want %v", n, after, time.Until(plain.next))
				}
			}
		})
	})
}

// call makes a call in one of several ways and reports whether its effector ran.
func call(th *throttle.Throttle, way int) (made bool, err error) {
	ctx := context.Background()
	effector := func(context.Context) (int, error) {
		made = true
		switch way {
		case 1:
			return 0, errOwn
		case 2:
			panic(errOwn)
		case 3:
			return 0, resilience.ErrRefused // another policy's
		}
		return 1, nil
	}
	defer func() {
		if value := recover(); value != nil {
			err = value.(error)
		}
	}()
	if way%2 == 0 {
		_, err = throttle.Do(ctx, th, effector)
	} else {
		_, err = resilience.Do(ctx, th, effector)
	}
	return made, err
}

// Any number of callers in the same instant receive exactly the existing tokens.
func TestThrottleMakesNoTokenByRacing(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		config := draw(rt)
		callers := rapid.IntRange(1, 8).Draw(rt, "callers")
		ticks := rapid.SliceOfN(rapid.IntRange(0, 3), 1, 5).Draw(rt, "ticks")
		synctest.Test(t, func(*testing.T) {
			real, plain := throttle.New(config), newCounter(config)
			for n, wait := range ticks {
				time.Sleep(config.Every * time.Duration(wait))
				plain.tick()
				var made atomic.Int64
				var g errgroup.Group
				for range callers {
					g.Go(func() error {
						for range 4 {
							if ok, _ := call(real, 0); ok {
								made.Add(1)
							}
						}
						return nil
					})
				}
				g.Wait()
				if want := min(plain.tokens, 4*callers); int(made.Load()) != want {
					rt.Fatalf("round %d: got %d calls with %d tokens", n, made.Load(), plain.tokens)
				}
				plain.tokens -= int(made.Load())
			}
		})
	})
}
