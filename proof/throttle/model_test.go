// Package throttle compares the throttle with the one in the book: a counter that is refilled at
// each tick of a clock.
package throttle

import (
	"context"
	"errors"
	"math/rand/v2"
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
	throttle.Config
	tokens int
	next   time.Time // tick
}

func newCounter(c throttle.Config) *counter {
	return &counter{c, c.Max, time.Now().Add(c.Every)}
}

func (c *counter) tick() {
	for !time.Now().Before(c.next) {
		c.tokens = min(c.Max, c.tokens+c.Refill)
		c.next = c.next.Add(c.Every)
	}
}

// set changes the Config: used tokens stay used, and a new Every counts from now.
func (c *counter) set(config throttle.Config) {
	c.tick()
	c.tokens = max(0, c.tokens+config.Max-c.Max)
	if config.Every != c.Every {
		c.next = time.Now().Add(config.Every)
	}
	c.Config = config
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
// time of the next tick. The Config changes meanwhile.
func TestThrottleMatchesModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		config := draw(rt)
		others := []throttle.Config{draw(rt), draw(rt), draw(rt)}
		others = append(others, throttle.Config{Name: "other", Max: config.Max, Refill: config.Refill, Every: config.Every})
		seed := rapid.Uint64().Draw(rt, "seed") // of the steps
		synctest.Test(t, func(*testing.T) {
			real, plain := throttle.New(config), newCounter(config)
			random := rand.New(rand.NewPCG(seed, 1))
			for n := range 100 {
				s := random.IntN(34)
				if s < 10 { // up to three ticks, and times between them
					time.Sleep(plain.Every * time.Duration(s) / 3)
					continue
				}
				if s >= 30 {
					plain.set(others[s-30])
					if err := real.SetConfig(others[s-30]); err != nil {
						rt.Fatal(err)
					}
				}
				plain.tick()
				if got, want := real.Snapshot(), (throttle.Snapshot{Name: plain.Name, Max: plain.Max, Available: plain.tokens}); got != want || real.Config() != plain.Config {
					rt.Fatalf("step %d: got %+v of %+v, want %+v of %+v", n, got, real.Config(), want, plain.Config)
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
