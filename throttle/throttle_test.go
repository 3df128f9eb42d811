package throttle_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/resiliencetest"
	"github.com/effector-go/resilience/throttle"
)

// The reference is a plain counter that is refilled at each tick.
func TestThrottleRefillsLikeTicker(t *testing.T) {
	for _, c := range []throttle.Config{
		{Max: 1, Refill: 1, Every: time.Second},
		{Max: 10, Refill: 3, Every: time.Second},
		{Max: 5, Refill: 100, Every: 7 * time.Millisecond},
		{Max: 1e9, Refill: 1e9, Every: time.Microsecond},
		{Max: 100, Refill: 1, Every: time.Hour},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				random := rand.New(rand.NewPCG(1, 2))
				th := throttle.New(c)
				tokens, next := c.Max, time.Now().Add(c.Every)
				call := resilience.Compose(resiliencetest.FailFirst[int](0).Do, th)
				for range 2000 {
					switch random.IntN(10) {
					case 0: // a burst
					case 1:
						time.Sleep(time.Until(next)) // exactly until the refill
					case 2:
						time.Sleep(c.Every * time.Duration(random.IntN(20)))
					default:
						time.Sleep(time.Duration(random.Int64N(int64(c.Every))))
					}
					for !next.After(time.Now()) {
						tokens, next = min(c.Max, tokens+c.Refill), next.Add(c.Every)
					}
					if s := th.Snapshot(); s.Available != tokens || s.Max != c.Max {
						t.Fatalf("got %+v, want %d tokens", s, tokens)
					}
					_, err := call(t.Context())
					if (err == nil) != (tokens > 0) {
						t.Fatalf("got %v with %d tokens", err, tokens)
					}
					if err == nil {
						tokens--
						continue
					}
					if after, ok := resilience.RetryAfter(err); !ok || after != time.Until(next) {
						t.Fatalf("got RetryAfter %v, want %v", after, time.Until(next))
					}
				}
			})
		})
	}
}

func TestErrorMatchesErrRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := throttle.New(throttle.Config{Name: "api", Max: 1, Refill: 1, Every: 2 * time.Second})
		one := resiliencetest.FailFirst[int](0).Returning(1)
		if value, err := throttle.Do(t.Context(), th, one.Do); value != 1 || err != nil {
			t.Error(value, err)
		}
		time.Sleep(800 * time.Millisecond)
		_, err := throttle.Do(t.Context(), th, one.Do)
		var refused *throttle.Error
		if !errors.As(err, &refused) || !errors.Is(err, throttle.ErrThrottled) || !errors.Is(err, resilience.ErrRefused) || refused.HTTPStatus() != 429 {
			t.Fatal(err)
		}
		if err.Error() != "throttle api: no tokens left, retry in 1.2s" || one.Calls() != 1 {
			t.Errorf("got %v after %d calls, want no tokens after 1 call", err, one.Calls())
		}
		time.Sleep(2 * time.Second)
		if err.Error() != "throttle api: no tokens left" || refused.RetryAfter() != 0 {
			t.Errorf("got %v with RetryAfter %v, want no RetryAfter once tokens have come", err, refused.RetryAfter())
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := throttle.Do(ctx, th, one.Do); !errors.Is(err, context.Canceled) || th.Snapshot().Available != 1 {
			t.Error(err)
		}
	})
}

// A call holds nothing besides its token, in a pipeline as well.
func TestThrottleTokenIsTakenHoweverCallEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := throttle.New(throttle.Config{Name: "api", Max: 4, Refill: 1, Every: time.Second})
		fails := resiliencetest.FailAfter[int](0)
		if _, err := throttle.Do(t.Context(), th, fails.Do); !errors.Is(err, resiliencetest.ErrFailed) {
			t.Error(err)
		}
		if _, err := resilience.Do(t.Context(), th, fails.Do); !errors.Is(err, resiliencetest.ErrFailed) {
			t.Error(err)
		}
		for _, call := range []func(){
			func() { throttle.Do(t.Context(), th, resiliencetest.Panic[int]("boom").Do) },
			func() { resilience.Do(t.Context(), th, resiliencetest.Panic[int]("boom").Do) },
		} {
			func() {
				defer func() {
					if value := recover(); value != "boom" {
						t.Errorf("panic value is %v, want boom", value)
					}
				}()
				call()
			}()
		}
		if got, want := th.Snapshot(), (throttle.Snapshot{Name: "api", Max: 4}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if _, err := resilience.Do(t.Context(), th, fails.Do); !errors.Is(err, throttle.ErrThrottled) || fails.Calls() != 2 {
			t.Errorf("got %v after %d calls, want ErrThrottled after 2", err, fails.Calls())
		}
	})
}

func TestThrottleAdmittedCallAllocatesNothing(t *testing.T) {
	th := throttle.New(throttle.Config{Max: 1e9, Refill: 1, Every: time.Hour})
	ctx := t.Context()
	one := func(context.Context) (int, error) { return 1, nil }
	if n := testing.AllocsPerRun(1000, func() { throttle.Do(ctx, th, one) }); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}

// The longest Every is 292 years.
func TestThrottleLongestEvery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := throttle.New(throttle.Config{Max: 1, Refill: 1, Every: math.MaxInt64})
		one := resiliencetest.FailFirst[int](0)
		throttle.Do(t.Context(), th, one.Do)
		time.Sleep(time.Hour)
		_, err := throttle.Do(t.Context(), th, one.Do)
		if after, ok := resilience.RetryAfter(err); !ok || after != math.MaxInt64-time.Hour {
			t.Errorf("got %v with RetryAfter %v, want %v", err, after, math.MaxInt64-time.Hour)
		}
	})
}

func TestThrottleTokensAreTakenOnce(t *testing.T) {
	th := throttle.New(throttle.Config{Max: 5000, Refill: 1, Every: 1 << 62})
	one := resiliencetest.FailFirst[int](0)
	var refused atomic.Int32
	var g errgroup.Group
	for range 8 {
		g.Go(func() error {
			for range 1000 {
				if _, err := throttle.Do(t.Context(), th, one.Do); err != nil {
					refused.Add(1)
				}
			}
			return nil
		})
	}
	g.Wait()
	if one.Calls() != 5000 || refused.Load() != 3000 {
		t.Errorf("got %d calls and %d refusals, want 5000 and 3000", one.Calls(), refused.Load())
	}
}

var global = throttle.New(throttle.Config{Max: 1, Refill: 1, Every: time.Hour})

// A throttle of a package is used in a bubble, then outside, decades later, and then in another
// bubble.
func TestThrottleClockGoingBackBlocksOneRefill(t *testing.T) {
	refusals := 0
	use := func(t *testing.T) {
		for range 2 {
			_, err := throttle.Do(t.Context(), global, resiliencetest.FailFirst[int](0).Do)
			if after, ok := resilience.RetryAfter(err); ok {
				refusals++
				if after > time.Hour {
					t.Errorf("got RetryAfter %v, want at most 1h", after)
				}
			}
		}
	}
	synctest.Test(t, use)
	use(t)
	synctest.Test(t, use)
	if refusals < 3 {
		t.Errorf("got %d refusals of 6 calls, want at least 3", refusals)
	}
}

// The number of tokens in these refills exceeds 64 bits.
func TestThrottleManyRefillsDoNotOverflow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := throttle.New(throttle.Config{Max: 1e9, Refill: 1e9, Every: time.Microsecond})
		throttle.Do(t.Context(), th, resiliencetest.FailFirst[int](0).Do)
		time.Sleep(5 * time.Hour)
		if s := th.Snapshot(); s.Available != 1e9 {
			t.Errorf("got %+v, want 1e9 tokens", s)
		}
	})
}

func TestThrottleSnapshotDuringCalls(t *testing.T) {
	th := throttle.New(throttle.Config{Max: 1000, Refill: 1, Every: time.Microsecond})
	one := resiliencetest.FailFirst[int](0)
	var g errgroup.Group
	for range 4 {
		g.Go(func() error {
			for range 500 {
				throttle.Do(t.Context(), th, one.Do)
				if s := th.Snapshot(); s.Available < 0 || s.Available > 1000 {
					return fmt.Errorf("got %+v, want 0 to 1000 tokens", s)
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

func TestConfigValidateReportsAllErrors(t *testing.T) {
	const want = "throttle api: Max is 0, must be 1 to 1000000000\nthrottle api: Refill is -1, must be 1 to 1000000000\nthrottle api: Every is 1ns, must be at least 1µs"
	bad := throttle.Config{Name: "api", Refill: -1, Every: 1}
	if err := bad.Validate(); err == nil || err.Error() != want {
		t.Error(err)
	}
	for _, c := range []throttle.Config{{Max: 1e9 + 1, Refill: 1, Every: time.Second}, {Max: 1, Refill: 1e9 + 1, Every: time.Second}} {
		if c.Validate() == nil {
			t.Errorf("Validate accepts %+v", c)
		}
	}
	good := throttle.New(throttle.Config{Max: 1, Refill: 1, Every: time.Second})
	for text, mistake := range map[string]func(){
		want: func() { throttle.New(bad) },
		"throttle: Do: fn is nil, must be a function": func() { throttle.Do[int](t.Context(), good, nil) },
		"throttle: Do: t is nil, must be a Throttle made by New": func() {
			throttle.Do(t.Context(), nil, func(context.Context) (int, error) { return 0, nil })
		},
	} {
		func() {
			defer func() {
				if value := recover(); value != text {
					t.Errorf("panic value is %v, want %s", value, text)
				}
			}()
			mistake()
		}()
	}
	if good.Name() != "" {
		t.Error(good.Name())
	}
}

func BenchmarkDo(b *testing.B) {
	th := throttle.New(throttle.Config{Max: 1e9, Refill: 1e9, Every: time.Second})
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		throttle.Do(ctx, th, func(context.Context) (int, error) { return 1, nil })
	}
}
