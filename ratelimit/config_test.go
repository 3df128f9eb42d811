package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/ratelimit"
	"github.com/effector-go/resilience/resiliencetest"
)

// settings returns the fields of a Config that can be compared.
func settings(c ratelimit.Config) string { return fmt.Sprint(c.Name, c.Rate, c.Burst, c.Wait) }

// set sets the Config, which must be valid.
func set(t *testing.T, l *ratelimit.Limiter, config ratelimit.Config) {
	t.Helper()
	if err := l.SetConfig(config); err != nil {
		t.Fatal(err)
	}
}

// comes starts a call in g, which must end with an error like want after the given time, and
// returns when it waits or has ended.
func comes(ctx context.Context, t *testing.T, g *errgroup.Group, l *ratelimit.Limiter, after time.Duration, want error) {
	began := time.Now()
	g.Go(func() error {
		if err := l.Wait(ctx); !errors.Is(err, want) || time.Since(began) != after {
			t.Errorf("got %v after %v, want %v after %v", err, time.Since(began), want, after)
		}
		return nil
	})
	synctest.Wait()
}

// starts starts a call in g, which must be admitted after the given time. Each time the limiter looks
// at the call's context, it is that late: its timers seem to fire late.
func starts(t *testing.T, g *errgroup.Group, l *ratelimit.Limiter, late, after time.Duration) {
	began := time.Now()
	g.Go(func() error {
		policy := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			return l.Run(lateContext{ctx, late}, next) // unlike Wait, looks at the context only after the call has come
		})
		err := resilience.Run(t.Context(), policy, func(context.Context) error { return nil })
		if err != nil || time.Since(began) != after {
			t.Errorf("got %v after %v, want a start after %v", err, time.Since(began), after)
		}
		return nil
	})
	synctest.Wait()
}

func TestLimiterConfigReturnsWhatWasSet(t *testing.T) {
	l := ratelimit.New(ratelimit.Config{Name: "mail", Rate: 10})
	want := ratelimit.Config{Name: "mail", Rate: 10, Burst: 1}
	if got := l.Config(); settings(got) != settings(want) || got.Cost != nil || l.Name() != "mail" {
		t.Errorf("got %+v, %q, want %+v", got, l.Name(), want)
	}
	l.SetRate(20, 5)
	want.Rate, want.Burst = 20, 5
	if got := l.Config(); settings(got) != settings(want) {
		t.Errorf("got %+v after SetRate, want %+v", got, want)
	}
	want = ratelimit.Config{Name: "upload", Rate: 1000, Burst: 50, Wait: time.Minute, Cost: costOf}
	set(t, l, want)
	if got := l.Config(); settings(got) != settings(want) || got.Cost == nil || l.Name() != "upload" {
		t.Errorf("got %+v, %q, want %+v", got, l.Name(), want)
	}
	set(t, l, ratelimit.Config{Rate: 1})
	if got := l.Config(); got.Burst != 1 || got.Cost != nil || got.Wait != 0 {
		t.Errorf("got %+v, want the defaults and no Cost", got)
	}
}

func TestLimiterSetConfigRejectsInvalidConfig(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.New(ratelimit.Config{Name: "mail", Rate: 10, Burst: 5, Wait: time.Second})
		l.AllowN(3)
		before := settings(l.Config())
		invalid := ratelimit.Config{Name: "other", Rate: -1, Burst: 10, Wait: -1}
		if err := l.SetConfig(invalid); err == nil || err.Error() != invalid.Validate().Error() {
			t.Errorf("got %v, want %v", err, invalid.Validate())
		}
		if got := settings(l.Config()); got != before || l.Snapshot().Available != 2 {
			t.Errorf("got %s with %+v after an error, want %s and 2 tokens", got, l.Snapshot(), before)
		}
	})
}

// The bucket lacks 6 of 10 tokens, then 6 of 20, 6 of 8, all of 4, and 4 of 5.
func TestLimiterSetConfigKeepsUsedTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.New(ratelimit.Config{Rate: 10, Burst: 10})
		l.AllowN(6)
		for _, step := range []struct{ burst, available int }{{20, 14}, {8, 2}, {4, 0}, {5, 1}} {
			set(t, l, ratelimit.Config{Rate: 1, Burst: step.burst})
			if got := l.Snapshot(); got.Available != step.available || got.Burst != step.burst || got.Rate != 1 {
				t.Errorf("got %+v, want %d tokens of %d", got, step.available, step.burst)
			}
		}
		if time.Sleep(4*time.Second - time.Microsecond); l.AllowN(5) {
			t.Error("the four missing tokens came early")
		}
		if time.Sleep(2 * time.Microsecond); !l.AllowN(5) {
			t.Errorf("got %+v, want 5 tokens after 4s", l.Snapshot())
		}
	})
}

// Waiting calls keep their Wait of 10 s. The newcomer's turn would come later than its Wait of 1 s
// allows.
func TestLimiterSetConfigWaitersKeepPlacesAndWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.New(ratelimit.Config{Name: "old", Rate: 0.5, Wait: 10 * time.Second})
		l.Allow()
		var g errgroup.Group
		comes(t.Context(), t, &g, l, 2*time.Second, nil)
		comes(t.Context(), t, &g, l, 4*time.Second, nil)
		set(t, l, ratelimit.Config{Name: "new", Rate: 0.5, Wait: time.Second})
		err := l.Wait(t.Context())
		var limited *ratelimit.LimitedError
		if !errors.As(err, &limited) || limited.Name != "new" || limited.RetryAfter() != 6*time.Second {
			t.Errorf("got %v, want a refusal by the new Config with RetryAfter 6s", err)
		}
		set(t, l, ratelimit.Config{Rate: 0.5})
		if err := l.Wait(t.Context()); !errors.Is(err, ratelimit.ErrLimited) || l.Allow() {
			t.Errorf("got %v for a newcomer that may not wait, want ErrLimited", err)
		}
		g.Wait()
	})
}

// The waiting call, due after 2 s, is late. There is another token for the newcomer, which may not
// wait until its turn.
func TestLimiterSetConfigWithoutWaitRefusesNewcomers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.New(ratelimit.Config{Rate: 1, Burst: 2, Wait: time.Minute})
		l.AllowN(2)
		var g errgroup.Group
		starts(t, &g, l, 5*time.Second, 5*time.Second)
		set(t, l, ratelimit.Config{Rate: 1, Burst: 2})
		time.Sleep(4 * time.Second)
		began := time.Now()
		if err := l.Wait(t.Context()); !errors.Is(err, ratelimit.ErrLimited) || time.Since(began) != 0 {
			t.Errorf("got %v after %v, want an immediate refusal", err, time.Since(began))
		}
		g.Wait()
	})
}

// The first waiting call may wait for 3 s, also after a longer Wait was set.
func TestLimiterSetConfigWaiterKeepsShorterWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.New(ratelimit.Config{Rate: 1, Wait: 3 * time.Second})
		l.Allow()
		var g errgroup.Group
		comes(t.Context(), t, &g, l, 0, ratelimit.ErrLimited)
		set(t, l, ratelimit.Config{Rate: 0.1, Wait: time.Hour})
		comes(t.Context(), t, &g, l, 10*time.Second, nil)
		g.Wait()
	})
}

// Cost is called without a lock. The call has the cost that the old function returned, and is
// judged by the new Burst.
func TestLimiterSetConfigMayBeCalledByCost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l *ratelimit.Limiter
		l = ratelimit.New(ratelimit.Config{Rate: 1, Burst: 2, Cost: func(context.Context) int {
			set(t, l, ratelimit.Config{Rate: 1, Burst: 7})
			return 5
		}})
		if err := l.Wait(t.Context()); err != nil || l.Snapshot().Available != 2 {
			t.Errorf("got %v with %+v, want a call that took 5 of 7 tokens", err, l.Snapshot())
		}
	})
}

var movedClock = ratelimit.New(ratelimit.Config{Rate: 1, Burst: 2})

// The limiter is used in a bubble, outside, decades later, and in another bubble, and its Config is
// set each time. A call is never blocked for longer than a full bucket takes.
func TestLimiterSetConfigAfterClockWentBack(t *testing.T) {
	use := func(t *testing.T) {
		set(t, movedClock, movedClock.Config())
		movedClock.AllowN(2)
		set(t, movedClock, ratelimit.Config{Rate: 1 + movedClock.Config().Rate, Burst: 2})
		err := movedClock.Wait(t.Context())
		if after, ok := resilience.RetryAfter(err); ok && after > time.Second {
			t.Errorf("got %v with RetryAfter %v, want at most 1s", err, after)
		}
	}
	synctest.Test(t, use)
	use(t)
	synctest.Test(t, use)
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(2 * time.Second)
		if got := movedClock.Snapshot().Available; got != 2 {
			t.Errorf("got %d tokens, want a full bucket", got)
		}
	})
}

func TestLimiterSetConfigWaitersFollowNewRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.New(ratelimit.Config{Rate: 0.1, Wait: time.Hour})
		l.Allow()
		var g errgroup.Group
		comes(t.Context(), t, &g, l, 5*time.Second+500*time.Millisecond, nil) // half of a token, then half of one at the new rate
		comes(t.Context(), t, &g, l, 6*time.Second+500*time.Millisecond, nil)
		time.Sleep(5 * time.Second)
		set(t, l, ratelimit.Config{Rate: 1, Burst: 1, Wait: time.Hour})
		g.Wait()
	})
}

// The first waiting call is refused immediately, the second one when it is the first. The third
// one, which costs less, is served.
func TestLimiterSetConfigRefusesWaiterWithCostAboveBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.New(ratelimit.Config{Rate: 1, Burst: 10, Wait: time.Hour, Cost: costOf})
		l.AllowN(10)
		var g errgroup.Group
		comes(costing(t.Context(), 8), t, &g, l, 0, ratelimit.ErrCost)
		comes(costing(t.Context(), 2), t, &g, l, 2*time.Second, nil)
		comes(costing(t.Context(), 7), t, &g, l, 2*time.Second, ratelimit.ErrCost)
		comes(costing(t.Context(), 5), t, &g, l, 7*time.Second, nil)
		set(t, l, ratelimit.Config{Rate: 1, Burst: 5, Wait: time.Hour})
		g.Wait()
	})
}

// Waiting calls keep the cost that they had; newcomers have the new one.
func TestLimiterSetConfigCostAppliesToNewcomers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.New(ratelimit.Config{Rate: 1, Burst: 10, Wait: time.Hour})
		l.AllowN(10)
		var g errgroup.Group
		comes(t.Context(), t, &g, l, time.Second, nil)
		set(t, l, ratelimit.Config{Rate: 1, Burst: 10, Wait: time.Hour, Cost: func(context.Context) int { return 6 }})
		comes(t.Context(), t, &g, l, 7*time.Second, nil)
		set(t, l, ratelimit.Config{Rate: 1, Burst: 10, Wait: time.Hour})
		comes(t.Context(), t, &g, l, 8*time.Second, nil)
		g.Wait()
	})
}

// The first call may wait for an hour, the others for 5 s. When the rate drops, the first one goes
// on waiting, and the others leave after 5 s all the same.
func TestLimiterSetConfigWaiterLeavesAfterOwnWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.New(ratelimit.Config{Rate: 1, Burst: 3, Wait: time.Hour, Cost: costOf})
		l.AllowN(3)
		var g errgroup.Group
		comes(costing(t.Context(), 1), t, &g, l, 100*time.Second, nil)
		set(t, l, ratelimit.Config{Name: "mail", Rate: 1, Burst: 3, Wait: 5 * time.Second, Cost: costOf})
		comes(costing(t.Context(), 3), t, &g, l, 5*time.Second, ratelimit.ErrCost)
		g.Go(func() error {
			began := time.Now()
			err := l.Wait(costing(t.Context(), 1)) // behind costs of 1 and 3
			var limited *ratelimit.LimitedError
			if !errors.As(err, &limited) || limited.Name != "mail" || time.Since(began) != 5*time.Second {
				t.Errorf("got %v after %v, want a refusal after 5s", err, time.Since(began))
				return nil
			}
			// The costly call leaves in the same instant, before or after.
			if after := limited.RetryAfter(); after != 195*time.Second && after != 495*time.Second {
				t.Errorf("got RetryAfter %v, want 195s or 495s", after)
			}
			return nil
		})
		synctest.Wait()
		l.SetRate(0.01, 2)
		if err := l.Wait(costing(t.Context(), 1)); !errors.Is(err, ratelimit.ErrLimited) {
			t.Errorf("got %v for a newcomer, want ErrLimited", err)
		}
		g.Wait()
	})
}

// The first call wakes late. The second one, whose Wait is shorter, was due in time, so it is
// admitted as well.
func TestLimiterSetConfigWaiterMayFollowLateCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.New(ratelimit.Config{Rate: 1, Wait: time.Hour})
		l.Allow()
		var g errgroup.Group
		starts(t, &g, l, 5*time.Second, 5*time.Second) // due after 1 s
		set(t, l, ratelimit.Config{Rate: 1, Wait: 2 * time.Second})
		starts(t, &g, l, 0, 5*time.Second) // due after 2 s
		g.Wait()
	})
}

// While calls wait, the first of them holds a timer. Those behind it hold none, unless Wait was
// shortened since the queue was last empty.
func TestLimiterWaiterBehindFirstHoldsNoTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		long, short := ratelimit.Config{Rate: 1, Wait: time.Hour}, ratelimit.Config{Rate: 1, Wait: time.Minute}
		l := ratelimit.New(long)
		l.Allow()
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		// allocations returns how many a call behind another one makes, after the Config was set.
		allocations := func(config ratelimit.Config) float64 {
			var g errgroup.Group
			defer g.Wait()
			comes(t.Context(), t, &g, l, time.Second, nil)
			set(t, l, config)
			return testing.AllocsPerRun(100, func() { l.Run(ended, resilience.Next{}) })
		}
		before, shortened, after := allocations(long), allocations(short), allocations(short)
		if before >= shortened || after != before {
			t.Errorf("got %v allocations before, %v after Wait was shortened, and %v later, want more after it was shortened", before, shortened, after)
		}
	})
}

// SetConfig neither rounds what the bucket lacks nor forgets what a late call has earned.
func TestLimiterSetConfigOfOwnConfigChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, rate := range []float64{1, 3, 0.7, 999_983} {
			l := ratelimit.New(ratelimit.Config{Name: "mail", Rate: rate, Burst: 2, Wait: 0})
			twin := ratelimit.New(ratelimit.Config{Rate: rate, Burst: 2})
			before := settings(l.Config())
			random := rand.New(rand.NewPCG(1, 2))
			for call := range 2000 {
				time.Sleep(time.Duration(1e9 / rate * random.Float64()))
				if err := l.SetConfig(l.Config()); err != nil {
					t.Fatal(err)
				}
				if got, want := l.Allow(), twin.Allow(); got != want {
					t.Fatalf("rate %v, call %d: got %v, want %v", rate, call, got, want)
				}
			}
			if got := settings(l.Config()); got != before {
				t.Errorf("got %s, want %s", got, before)
			}
		}
		l := ratelimit.New(ratelimit.Config{Rate: 1e6, Burst: 1e6})
		set(t, l, l.Config())
		one := func(context.Context) (int, error) { return 1, nil }
		ctx := t.Context()
		if n := testing.AllocsPerRun(1000, func() { ratelimit.Do(ctx, l, one) }); n != 0 {
			t.Errorf("got %v allocations per call, want 0", n)
		}
	})
}

// As TestLimiterLateTimersLoseNoRate, with the limiter's own Config set between the due time and
// the late wake-up.
func TestLimiterSetConfigOfOwnConfigKeepsDueTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.New(ratelimit.Config{Rate: 1, Wait: time.Minute})
		l.Allow()
		var g errgroup.Group
		starts(t, &g, l, 5*time.Second, 5*time.Second) // due after 1 s
		starts(t, &g, l, 0, 5*time.Second)             // due after 2 s
		time.Sleep(4500 * time.Millisecond)
		set(t, l, l.Config())
		g.Wait()
	})
}

// No token comes meanwhile, so all calls together take as many as the smallest Burst has.
func TestLimiterSetConfigIsSafeForConcurrentUse(t *testing.T) {
	const rate = 1e-5
	configs := []ratelimit.Config{{Name: "a", Rate: rate, Burst: 4000}, {Name: "b", Rate: rate, Burst: 5000}}
	l := ratelimit.New(configs[0])
	one := resiliencetest.FailFirst[int](0)
	var g errgroup.Group
	for worker := range 8 {
		g.Go(func() error {
			for i := range 400 {
				switch worker {
				case 0, 1:
					if err := l.SetConfig(configs[i%2]); err != nil {
						return err
					}
				case 2:
					c := l.Config()
					l.SetRate(c.Rate, c.Burst)
				}
				if got := l.Config(); got.Rate != rate || got.Burst != 4000 && got.Burst != 5000 {
					t.Errorf("got %+v, want a Config that was set", got)
				}
				if _, err := ratelimit.Do(t.Context(), l, one.Do); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	set(t, l, configs[1])
	if got := l.Snapshot(); got.Available != 5000-3200 {
		t.Errorf("got %+v, want %d tokens", got, 5000-3200)
	}
}

// Calls of any cost wait while others change everything. Each of them ends, and the queue is empty.
func TestLimiterSetConfigLosesNoWaiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.New(ratelimit.Config{Rate: 1000, Burst: 5, Wait: 20 * time.Millisecond, Cost: costOf})
		var admitted, refused atomic.Int32
		var g errgroup.Group
		for worker := range 8 {
			g.Go(func() error {
				random := rand.New(rand.NewPCG(uint64(worker), 1))
				for range 300 {
					switch {
					case worker < 2:
						if err := l.SetConfig(ratelimit.Config{
							Rate: 100 + 1000*random.Float64(), Burst: 1 + random.IntN(6), Wait: time.Duration(random.IntN(30)) * time.Millisecond, Cost: costOf,
						}); err != nil {
							return err
						}
					case worker < 3:
						l.SetRate(100+1000*random.Float64(), 1+random.IntN(6))
					}
					ctx, cancel := context.WithTimeout(costing(t.Context(), random.IntN(7)), time.Duration(1+random.IntN(30))*time.Millisecond)
					began := time.Now()
					err := l.Wait(ctx)
					cancel()
					switch {
					case err == nil:
						admitted.Add(1)
					case errors.Is(err, resilience.ErrRefused):
						refused.Add(1)
					case !errors.Is(err, context.DeadlineExceeded):
						return err
					}
					if waited := time.Since(began); waited > 30*time.Millisecond {
						t.Errorf("a call waited for %v, want at most 30ms", waited)
					}
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		if admitted.Load() < 100 || refused.Load() < 100 {
			t.Errorf("got %d admitted and %d refused calls, want at least 100 of each", admitted.Load(), refused.Load())
		}
		time.Sleep(time.Minute)
		if got := l.Snapshot(); got.Available != got.Burst {
			t.Errorf("got %+v, want a full bucket and no waiting call", got)
		}
	})
}
