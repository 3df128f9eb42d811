package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/ratelimit"
	"github.com/effector-go/resilience/resiliencetest"
)

// exact is a token bucket in fractions of any size.
type exact struct {
	rate, tokens, burst *big.Rat
	last                time.Time
}

func newExact(rate float64, burst int) *exact {
	full := new(big.Rat).SetInt64(int64(burst))
	return &exact{new(big.Rat).SetFloat64(rate), new(big.Rat).Set(full), full, time.Now()}
}

// allow takes a token. It also returns how far from a whole token the bucket was, in nanoseconds:
// at the boundary, either answer is right.
func (e *exact) allow(admitted bool) (ok bool, nanoseconds float64) {
	elapsed := big.NewRat(int64(time.Since(e.last)), 1e9)
	e.last = time.Now()
	e.tokens.Add(e.tokens, elapsed.Mul(elapsed, e.rate))
	if e.tokens.Cmp(e.burst) > 0 {
		e.tokens.Set(e.burst)
	}
	left := new(big.Rat).Sub(e.tokens, big.NewRat(1, 1))
	off, _ := new(big.Rat).Quo(left, e.rate).Float64()
	if admitted {
		e.tokens.Set(left)
	}
	return left.Sign() >= 0, math.Abs(off) * 1e9
}

// The limiter agrees call by call, over years and at any rate, except for the nanosecond at the
// boundary.
func TestLimiterAdmitsLikeTokenBucket(t *testing.T) {
	for _, c := range []struct {
		rate  float64
		burst int
	}{{1, 1}, {3, 1}, {0.7, 5}, {1e6, 1}, {999_983, 1000}, {1.0 / 3600, 2}, {1.0 / (365 * 24 * 3600), 1}, {1.0 / (365 * 24 * 3600), 100}, {1e-8, 3}, {7, 1_000_000}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				random := rand.New(rand.NewPCG(1, 2))
				l := ratelimit.New(ratelimit.Config{Rate: c.rate, Burst: c.burst})
				e := newExact(c.rate, c.burst)
				between := 1e9 / c.rate
				admitted, refused := 0, 0
				calls := min(8_000, int(50*365*24*3600*c.rate/0.15)) // at most half a century
				for i := range calls {
					switch random.IntN(8) {
					case 0: // a burst
					case 1:
						if i%100 == 1 && between < 1e14 { // idle
							time.Sleep(time.Duration(between * float64(min(c.burst, 50)) * random.Float64()))
						}
					default:
						time.Sleep(time.Duration(between * 0.3 * random.Float64()))
					}
					if i%2000 == 0 { // and then for months
						time.Sleep(100 * 24 * time.Hour)
					}
					ok := l.Allow()
					if want, off := e.allow(ok); ok != want && off > 1 {
						t.Fatalf("call %d: got %v, want %v, %v ns off the boundary", i, ok, want, off)
					}
					if ok {
						admitted++
					} else {
						refused++
					}
				}
				if admitted < 3 || refused < 3 && c.burst < 1000 {
					t.Errorf("got %d admitted and %d refused calls, want at least 3 of each", admitted, refused)
				}
			})
		})
	}
}

func TestLimiterTokenComesWhenDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, rate := range []float64{1, 10, 4, 1000, 1e6, 0.001} {
			l := ratelimit.New(ratelimit.Config{Rate: rate, Burst: 3})
			for range 3 {
				if !l.Allow() {
					t.Fatal("a full bucket refused a call")
				}
			}
			for range 100 {
				time.Sleep(time.Duration(1e9/rate) - 1)
				if l.Allow() {
					t.Fatalf("rate %v: a token came a nanosecond early", rate)
				}
				time.Sleep(time.Nanosecond)
				if !l.Allow() {
					t.Fatalf("rate %v: a token was late", rate)
				}
			}
		}
	})
}

func TestLimitedErrorRetryAfterIsExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.New(ratelimit.Config{Name: "mail", Rate: 0.5, Burst: 2})
		send := resiliencetest.FailFirst[int](0)
		call := resilience.Compose(send.Do, l)
		for range 2 {
			if _, err := call(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(800 * time.Millisecond)
		_, err := call(t.Context())
		var limited *ratelimit.LimitedError
		if !errors.As(err, &limited) || !errors.Is(err, ratelimit.ErrLimited) || !errors.Is(err, resilience.ErrRefused) || limited.HTTPStatus() != 429 {
			t.Fatal(err)
		}
		if after, ok := resilience.RetryAfter(err); after != 1200*time.Millisecond || !ok || err.Error() != "ratelimit mail: rate exceeded, retry in 1.2s" {
			t.Errorf("got %v with RetryAfter %v, %v, want 1.2s", err, after, ok)
		}
		time.Sleep(limited.RetryAfter())
		if _, err := call(t.Context()); err != nil || limited.RetryAfter() != 0 || limited.Error() != "ratelimit mail: rate exceeded" {
			t.Error(err, limited)
		}
		time.Sleep(time.Second)
		if after := limited.RetryAfter(); after != 0 {
			t.Errorf("got RetryAfter %v a second after the turn, want 0", after)
		}
		if send.Calls() != 3 {
			t.Errorf("got %d calls, want 3", send.Calls())
		}
	})
}

// Newcomers don't overtake them either.
func TestLimiterServesWaitersInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.New(ratelimit.Config{Rate: 1, Wait: 5 * time.Second})
		began := time.Now()
		var mu sync.Mutex
		var started []string
		var refused atomic.Int32
		start := func(i int) func(context.Context) (int, error) {
			return func(context.Context) (int, error) {
				mu.Lock()
				defer mu.Unlock()
				started = append(started, fmt.Sprint(i, " at ", time.Since(began)))
				return 0, nil
			}
		}
		var g errgroup.Group
		for i := range 8 {
			g.Go(func() error {
				_, err := ratelimit.Do(t.Context(), l, start(i))
				if errors.Is(err, ratelimit.ErrLimited) {
					refused.Add(1)
					if after, _ := resilience.RetryAfter(err); after != 6*time.Second {
						t.Errorf("got RetryAfter %v, want 6s", after)
					}
					return nil
				}
				return err
			})
			synctest.Wait()
		}
		time.Sleep(2500 * time.Millisecond)
		if l.Allow() || l.Snapshot().Available != 0 {
			t.Error("a newcomer has overtaken the waiting calls")
		}
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		if want := []string{"0 at 0s", "1 at 1s", "2 at 2s", "3 at 3s", "4 at 4s", "5 at 5s"}; !slices.Equal(started, want) || refused.Load() != 2 {
			t.Errorf("got %v and %d refused, want %v and 2", started, refused.Load(), want)
		}
	})
}

// The newcomer comes in the instant of the turn. Either goroutine may wake first.
func TestLimiterNewcomerTakesNoWaitersTurn(t *testing.T) {
	for _, allow := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			for range 30 { // which one wakes first is random
				l := ratelimit.New(ratelimit.Config{Rate: 1, Wait: time.Minute})
				l.Allow()
				began := time.Now()
				var g errgroup.Group
				g.Go(func() error {
					_, err := ratelimit.Do(t.Context(), l, resiliencetest.FailFirst[int](0).Do)
					if took := time.Since(began); took != time.Second {
						t.Errorf("the waiter had its turn after %v, want 1s", took)
					}
					return err
				})
				g.Go(func() error {
					time.Sleep(time.Second)
					if allow {
						if l.Allow() {
							t.Error("Allow has overtaken the waiter")
						}
						return nil
					}
					_, err := ratelimit.Do(t.Context(), l, resiliencetest.FailFirst[int](0).Do)
					return err
				})
				if err := g.Wait(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// The first and the third of five waiters leave.
func TestLimiterWaiterThatLeavesTakesNoToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.New(ratelimit.Config{Rate: 1, Wait: time.Minute})
		l.Allow()
		began := time.Now()
		cause := errors.New("cause")
		ctx, cancel := context.WithCancelCause(t.Context())
		var mu sync.Mutex
		var started []time.Duration
		var g errgroup.Group
		for i := range 5 {
			own := t.Context()
			if i == 0 || i == 2 {
				own = ctx
			}
			g.Go(func() error {
				_, err := ratelimit.Do(own, l, func(context.Context) (int, error) {
					mu.Lock()
					defer mu.Unlock()
					started = append(started, time.Since(began))
					return 0, nil
				})
				if own == ctx && errors.Is(err, context.Canceled) && errors.Is(err, cause) && !errors.Is(err, ratelimit.ErrLimited) {
					return nil
				}
				return err
			})
			synctest.Wait()
		}
		time.Sleep(time.Second / 2)
		cancel(cause)
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		if want := []time.Duration{1e9, 2e9, 3e9}; !slices.Equal(started, want) {
			t.Errorf("got starts %v, want %v", started, want)
		}
	})
}

// This holds for the first in the queue and for the others.
func TestLimiterWaiterLeavesWhenContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.New(ratelimit.Config{Rate: 1, Wait: time.Minute})
		l.Allow()
		began := time.Now()
		var g errgroup.Group
		for i := range 3 { // the third leaves, then the first
			g.Go(func() error {
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				after := []time.Duration{500, 0, 250}[i] * time.Millisecond
				if after > 0 {
					time.AfterFunc(after, cancel)
				}
				_, err := ratelimit.Do(ctx, l, resiliencetest.FailFirst[int](0).Do)
				if after == 0 {
					return err
				}
				if left := time.Since(began); !errors.Is(err, context.Canceled) || left != after {
					t.Errorf("waiter %d: got %v after %v, want context.Canceled after %v", i+1, err, left, after)
				}
				return nil
			})
			synctest.Wait()
		}
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
}

func TestLimiterRefusesTurnAfterDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.New(ratelimit.Config{Rate: 1, Wait: time.Minute})
		l.Allow()
		ctx, cancel := context.WithTimeout(t.Context(), 999*time.Millisecond)
		defer cancel()
		began := time.Now()
		_, err := ratelimit.Do(ctx, l, resiliencetest.FailFirst[int](0).Do)
		if !errors.Is(err, ratelimit.ErrLimited) || time.Since(began) != 0 {
			t.Errorf("got %v after %v", err, time.Since(began))
		}
	})
}

// The call would begin in the instant in which its context ends.
func TestLimiterRefusesTurnAtDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 20 { // which of two timers fires first is random
			l := ratelimit.New(ratelimit.Config{Rate: 1, Wait: time.Minute})
			l.Allow()
			began := time.Now()
			for limit, want := range map[time.Duration]error{time.Second: ratelimit.ErrLimited, time.Second + 1: nil} {
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				_, err := ratelimit.Do(ctx, l, resiliencetest.FailFirst[int](0).Do)
				cancel()
				if !errors.Is(err, want) {
					t.Fatalf("deadline in %v, turn in 1s: got %v, want %v", limit, err, want)
				}
				if want != nil && time.Since(began) > 0 && time.Since(began) != time.Second {
					t.Fatalf("refused after %v", time.Since(began))
				}
				time.Sleep(time.Until(began.Add(time.Second)))
				l.SetRate(1, 1)
				began = time.Now()
			}
		}
	})
}

// atDeadline is a context whose deadline has come, but whose timer hasn't fired yet.
type atDeadline struct{ context.Context }

func (atDeadline) Deadline() (time.Time, bool) { return time.Now(), true }

// The waiting call, due after 1 s, is late. There is another token for the newcomer.
func TestLimiterRefusesNewcomerAtDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.New(ratelimit.Config{Rate: 1, Burst: 2, Wait: time.Minute})
		l.AllowN(2)
		var g errgroup.Group
		starts(t, &g, l, 5*time.Second, 5*time.Second)
		time.Sleep(4 * time.Second)
		comes(atDeadline{t.Context()}, t, &g, l, 0, ratelimit.ErrLimited)
		g.Wait()
	})
}

// The turn of the third call would come in 300 years.
func TestLimiterRefusesTurnBeyondLargestTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const year = 365 * 24 * time.Hour
		l := ratelimit.New(ratelimit.Config{
			Rate: 1 / year.Seconds(), Burst: 100, Wait: 210 * year,
			Cost: func(context.Context) int { return 100 },
		})
		l.AllowN(100)
		ctx, cancel := context.WithCancel(t.Context())
		var g errgroup.Group
		comes(ctx, t, &g, l, 0, context.Canceled)
		comes(ctx, t, &g, l, 0, context.Canceled)
		comes(ctx, t, &g, l, 0, ratelimit.ErrLimited)
		cancel()
		g.Wait()
	})
}

// The waiter is refused immediately, as a newcomer would be.
func TestSetRateRefusesWaiterPastDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.New(ratelimit.Config{Rate: 1, Wait: time.Hour})
		l.Allow()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		began := time.Now()
		var g errgroup.Group
		g.Go(func() error {
			_, err := ratelimit.Do(ctx, l, resiliencetest.FailFirst[int](0).Do)
			if after, _ := resilience.RetryAfter(err); !errors.Is(err, ratelimit.ErrLimited) || time.Since(began) != time.Second/2 || after.Round(time.Microsecond) != 50*time.Second {
				t.Errorf("got %v after %v with RetryAfter %v, want a refusal after 500ms with 50s", err, time.Since(began), after)
			}
			return nil
		})
		time.Sleep(time.Second / 2)
		l.SetRate(0.01, 1) // the bucket holds half a token
		g.Wait()
	})
}

// The reported time doesn't count the waiter itself as one that comes before.
func TestSetRateRefusalReportsWaitersOwnTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.New(ratelimit.Config{Rate: 1, Wait: 10 * time.Second})
		l.Allow()
		var g errgroup.Group
		for i := range 2 {
			g.Go(func() error {
				_, err := ratelimit.Do(t.Context(), l, resiliencetest.FailFirst[int](0).Do)
				if i == 0 {
					return err
				}
				if after, _ := resilience.RetryAfter(err); !errors.Is(err, ratelimit.ErrLimited) || after != 10*time.Second {
					t.Errorf("got %v with RetryAfter %v, want 10s", err, after)
				}
				return nil
			})
			synctest.Wait()
		}
		l.SetRate(0.1, 1) // the first one's turn is in 10s, the second one's in 20s
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
}

func TestSetRateMovesWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.New(ratelimit.Config{Rate: 0.001, Wait: time.Hour})
		l.Allow()
		began := time.Now()
		var mu sync.Mutex
		var started []time.Duration
		var g errgroup.Group
		for range 3 {
			g.Go(func() error {
				_, err := ratelimit.Do(t.Context(), l, func(context.Context) (int, error) {
					mu.Lock()
					defer mu.Unlock()
					started = append(started, time.Since(began))
					return 0, nil
				})
				return err
			})
		}
		synctest.Wait()
		l.SetRate(10, 1) // the one token is used, and the next one comes after a tenth of a second
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		if want := []time.Duration{1e8, 2e8, 3e8}; !slices.Equal(started, want) {
			t.Errorf("got starts %v, want %v", started, want)
		}
	})
}

func TestSetRateRefusesWaiterPastWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.New(ratelimit.Config{Rate: 1, Wait: 3 * time.Second})
		l.Allow()
		var errs [2]error
		var took [2]time.Duration
		began := time.Now()
		var g errgroup.Group
		for i := range errs {
			g.Go(func() error {
				_, errs[i] = ratelimit.Do(t.Context(), l, resiliencetest.FailFirst[int](0).Do)
				took[i] = time.Since(began)
				return nil
			})
			synctest.Wait()
		}
		l.SetRate(0.01, 1)
		g.Wait()
		for i, err := range errs {
			if !errors.Is(err, ratelimit.ErrLimited) || took[i] > 3*time.Second {
				t.Errorf("got %v after %v", err, took[i])
			}
		}
		if s := l.Snapshot(); s.Available != 0 || s.Rate != 0.01 {
			t.Errorf("got %+v", s)
		}
		time.Sleep(100 * time.Second)
		if !l.Allow() {
			t.Error("the refused waiters took a token")
		}
	})
}

func TestSetRateKeepsUsedTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			used, burst, want int
		}{{0, 10, 10}, {3, 10, 7}, {3, 5, 2}, {5, 5, 0}, {10, 5, 0}, {3, 1000, 997}} {
			l := ratelimit.New(ratelimit.Config{Rate: 3, Burst: 10})
			for range c.used {
				l.Allow()
			}
			l.SetRate(0.7, c.burst)
			if s := l.Snapshot(); s.Available != c.want || s.Burst != c.burst || s.Rate != 0.7 {
				t.Errorf("%+v: got %+v", c, s)
			}
			time.Sleep(1428571429)
			if s := l.Snapshot(); s.Available != min(c.want+1, c.burst) {
				t.Errorf("%+v, a token later: got %+v", c, s)
			}
		}
	})
}

// The bound holds in any interval, with SetRate, waiters, and waiters that leave.
func TestLimiterNeverExceedsRateUnderContention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate, burst = 1000, 10
		l := ratelimit.New(ratelimit.Config{Rate: rate, Burst: burst, Wait: 20 * time.Millisecond})
		var mu sync.Mutex
		var starts []time.Time
		var g errgroup.Group
		for i := range 50 {
			g.Go(func() error {
				random := rand.New(rand.NewPCG(uint64(i), 1))
				for range 100 {
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(random.IntN(40))*time.Millisecond)
					ratelimit.Do(ctx, l, func(context.Context) (int, error) {
						mu.Lock()
						defer mu.Unlock()
						starts = append(starts, time.Now())
						return 0, nil
					})
					cancel()
					if i == 0 {
						l.SetRate(rate, burst)
					}
					time.Sleep(time.Duration(random.IntN(10)) * time.Millisecond)
				}
				return nil
			})
		}
		g.Wait()
		slices.SortFunc(starts, time.Time.Compare)
		for i := range starts {
			for j := i; j < len(starts); j++ {
				if most := starts[j].Sub(starts[i]).Seconds()*rate + burst; float64(j-i+1) > most+1e-6 {
					t.Fatalf("got %d starts in %v, want at most %.1f", j-i+1, starts[j].Sub(starts[i]), most)
				}
			}
		}
		if len(starts) < 500 {
			t.Errorf("got %d starts, want at least 500", len(starts))
		}
	})
}

// The test uses real threads.
func TestLimiterTokensAreTakenOnceUnderContention(t *testing.T) {
	l := ratelimit.New(ratelimit.Config{Rate: 1e-5, Burst: 10_000})
	var admitted atomic.Int32
	var g errgroup.Group
	for range 8 {
		g.Go(func() error {
			for i := range 5000 {
				if l.Allow() {
					admitted.Add(1)
				}
				if i%1000 == 0 {
					l.SetRate(1e-5, 10_000)
				}
			}
			return nil
		})
	}
	g.Wait()
	if admitted.Load() != 10_000 {
		t.Errorf("got %d admitted calls with 10000 tokens", admitted.Load())
	}
}

// global gains a token per hour: outside a bubble, none comes while a test runs.
var global = ratelimit.New(ratelimit.Config{Rate: 1.0 / 3600, Burst: 3})

// A limiter of a package is used in a bubble, then outside, decades later, and then in another
// bubble.
func TestLimiterClockGoingBackBlocksOneFill(t *testing.T) {
	empty := func(t *testing.T) {
		for range 4 {
			global.Allow()
		}
		_, err := ratelimit.Do(t.Context(), global, resiliencetest.FailFirst[int](0).Do)
		if after, ok := resilience.RetryAfter(err); !ok || after > time.Hour {
			t.Errorf("got %v with RetryAfter %v, want at most 1h", err, after)
		}
	}
	bubble := func(t *testing.T) {
		if s := global.Snapshot(); s.Available != 0 || global.Allow() {
			t.Errorf("got %+v after the clock went back, want no tokens", s)
		}
		time.Sleep(time.Hour - 1)
		if global.Allow() {
			t.Error("a token came early")
		}
		time.Sleep(time.Nanosecond)
		if !global.Allow() || global.Allow() {
			t.Error("an hour didn't bring exactly one token")
		}
		time.Sleep(3 * time.Hour)
		if s := global.Snapshot(); s.Available != 3 {
			t.Errorf("got %d tokens after the time in which a bucket fills, want 3", s.Available)
		}
		empty(t)
	}
	empty(t)
	synctest.Test(t, bubble)
	empty(t)
	synctest.Test(t, bubble)
	synctest.Test(t, func(t *testing.T) { // SetRate and waiters after the clock went back
		global.SetRate(1.0/3600, 3)
		if s := global.Snapshot(); s.Available != 0 {
			t.Errorf("got %+v", s)
		}
		bubble(t)
	})
}

// The bucket is empty as of the time to which the clock went back. One of the buckets takes a
// century to fill.
func TestLimitedErrorRetryAfterWhenClockWentBack(t *testing.T) {
	const year = 365 * 24 * time.Hour
	for _, c := range []struct {
		token time.Duration
		burst int
	}{{time.Second, 3}, {year, 100}} {
		l := ratelimit.New(ratelimit.Config{Rate: 1 / c.token.Seconds(), Burst: c.burst})
		l.AllowN(c.burst)
		synctest.Test(t, func(t *testing.T) {
			err := l.Wait(t.Context())
			if after, _ := resilience.RetryAfter(err); after.Round(time.Microsecond) != c.token {
				t.Errorf("burst %d: got %v with RetryAfter %v, want %v", c.burst, err, after, c.token)
			}
		})
	}
}

var globalWaiting = ratelimit.New(ratelimit.Config{Rate: 1, Wait: time.Minute})

// A waiter must not wait for anything that was created outside its bubble.
func TestLimiterOfPackageWaitsInBubble(t *testing.T) {
	for range 2 {
		synctest.Test(t, func(t *testing.T) {
			globalWaiting.Allow()
			began := time.Now()
			for range 2 {
				if _, err := ratelimit.Do(t.Context(), globalWaiting, resiliencetest.FailFirst[int](0).Do); err != nil {
					t.Error(err)
				}
			}
			if took := time.Since(began); took != 2*time.Second {
				t.Errorf("two turns took %v, want 2s", took)
			}
		})
	}
}

// SetRate must not notify anything that was created in a bubble.
func TestSetRateOutsideBubbleAfterWaits(t *testing.T) {
	l := ratelimit.New(ratelimit.Config{Rate: 1, Wait: time.Minute})
	synctest.Test(t, func(t *testing.T) {
		l.Allow()
		if err := l.Wait(t.Context()); err != nil {
			t.Error(err)
		}
	})
	l.SetRate(2, 1)
	if got := l.Snapshot().Rate; got != 2 {
		t.Errorf("got rate %v, want 2", got)
	}
}

func TestLimiterEndedContextTakesNoToken(t *testing.T) {
	l := ratelimit.New(ratelimit.Config{Rate: 1e-6})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ratelimit.Do(ctx, l, resiliencetest.FailFirst[int](0).Do); !errors.Is(err, context.Canceled) || !l.Allow() {
		t.Error(err)
	}
}

func TestConfigValidateReportsAllErrors(t *testing.T) {
	for _, c := range []struct {
		config ratelimit.Config
		want   string
	}{
		{ratelimit.Config{Name: "mail", Burst: -1, Wait: -1}, "ratelimit mail: Rate is 0, must be above 0 and at most 1000000\nratelimit mail: Burst is -1, must be at least 1\nratelimit mail: Wait is -1ns, must be positive, or 0 for none"},
		{ratelimit.Config{Rate: math.NaN()}, "ratelimit: Rate is NaN, must be above 0 and at most 1000000"},
		{ratelimit.Config{Rate: math.Inf(1)}, "ratelimit: Rate is +Inf, must be above 0 and at most 1000000"},
		{ratelimit.Config{Rate: 1e6 + 1}, "ratelimit: Rate is 1.000001e+06, must be above 0 and at most 1000000"},
		{ratelimit.Config{Rate: 1e-9, Burst: 4}, "ratelimit: Burst is 4, must be at most 100 years of Rate (1e-09)"},
		{ratelimit.Config{Rate: math.SmallestNonzeroFloat64}, "ratelimit: Burst is 1, must be at most 100 years of Rate (5e-324)"},
	} {
		if err := c.config.Validate(); err == nil || err.Error() != c.want {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
	l := ratelimit.New(ratelimit.Config{Name: "mail", Rate: 1})
	for want, mistake := range map[string]func(){
		"ratelimit: Rate is 0, must be above 0 and at most 1000000":               func() { ratelimit.New(ratelimit.Config{}) },
		"ratelimit mail: SetRate: rate is 0, must be above 0 and at most 1000000": func() { l.SetRate(0, 1) },
		"ratelimit mail: SetRate: burst is 0, must be at least 1":                 func() { l.SetRate(1, 0) },
		"ratelimit: Do: fn is nil, must be a function":                            func() { ratelimit.Do[int](t.Context(), l, nil) },
		"ratelimit: Do: l is nil, must be a Limiter made by New":                  func() { ratelimit.Do(t.Context(), nil, resiliencetest.FailFirst[int](0).Do) },
	} {
		func() {
			defer func() {
				if value := recover(); value != want {
					t.Errorf("panic value is %v, want %s", value, want)
				}
			}()
			mistake()
		}()
	}
	if s := l.Snapshot(); s != (ratelimit.Snapshot{Name: "mail", Rate: 1, Burst: 1, Available: 1}) || l.Name() != "mail" {
		t.Errorf("got %+v", s)
	}
}

func TestLimiterAdmittedCallAllocatesNothing(t *testing.T) {
	l := ratelimit.New(ratelimit.Config{Rate: 1, Burst: 1e6})
	ctx := t.Context()
	if n := testing.AllocsPerRun(1000, func() { ratelimit.Do(ctx, l, func(context.Context) (int, error) { return 1, nil }) }); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}

func BenchmarkAllow(b *testing.B) {
	b.Run("serial", func(b *testing.B) {
		l := ratelimit.New(ratelimit.Config{Rate: 1e6, Burst: 1e9})
		for b.Loop() {
			l.Allow()
		}
	})
	b.Run("parallel", func(b *testing.B) {
		l := ratelimit.New(ratelimit.Config{Rate: 1e6, Burst: 1e9})
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				l.Allow()
			}
		})
	})
	b.Run("refused", func(b *testing.B) {
		l := ratelimit.New(ratelimit.Config{Rate: 1e-6})
		l.Allow()
		for b.Loop() {
			l.Allow()
		}
	})
}
