package ratelimit_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/ratelimit"
	"github.com/effector-go/resilience/resiliencetest"
)

type costKey struct{}

func costing(ctx context.Context, cost int) context.Context {
	return context.WithValue(ctx, costKey{}, cost)
}

func costOf(ctx context.Context) int { return ctx.Value(costKey{}).(int) }

func TestCostTakesThatManyTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.New(ratelimit.Config{Rate: 10, Burst: 100, Cost: costOf})
		one := resiliencetest.FailFirst[int](0)
		for _, step := range []struct{ cost, left int }{{30, 70}, {0, 70}, {-5, 70}, {70, 0}, {0, 0}} {
			if _, err := ratelimit.Do(costing(t.Context(), step.cost), l, one.Do); err != nil || l.Snapshot().Available != step.left {
				t.Errorf("cost %d: got %v with %+v, want %d tokens left", step.cost, err, l.Snapshot(), step.left)
			}
		}
		_, err := resilience.Do(costing(t.Context(), 25), l, one.Do)
		if after, ok := resilience.RetryAfter(err); !errors.Is(err, ratelimit.ErrLimited) || !ok || after != 2500*time.Millisecond {
			t.Errorf("got %v with RetryAfter %v, want 2.5s", err, after)
		}
		time.Sleep(2500*time.Millisecond - 1)
		if err := l.Wait(costing(t.Context(), 25)); !errors.Is(err, ratelimit.ErrLimited) {
			t.Errorf("a nanosecond early: got %v, want ErrLimited", err)
		}
		time.Sleep(time.Nanosecond)
		if err := l.Wait(costing(t.Context(), 25)); err != nil || l.Snapshot().Available != 0 {
			t.Errorf("got %v with %+v, want no error and 0 tokens", err, l.Snapshot())
		}
	})
}

func TestCostAboveBurstReturnsCostError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, wait := range []time.Duration{0, time.Hour} {
			l := ratelimit.New(ratelimit.Config{Name: "mail", Rate: 10, Burst: 50, Wait: wait, Cost: costOf})
			l.Allow() // 1 token is missing, which makes no difference
			one := resiliencetest.FailFirst[int](0)
			_, err := ratelimit.Do(costing(t.Context(), 70), l, one.Do)
			var costly *ratelimit.CostError
			if !errors.As(err, &costly) || *costly != (ratelimit.CostError{Name: "mail", Cost: 70, Burst: 50}) || costly.HTTPStatus() != 413 {
				t.Fatalf("got %#v, want a *CostError", err)
			}
			if !errors.Is(err, ratelimit.ErrCost) || !errors.Is(err, resilience.ErrRefused) || errors.Is(err, ratelimit.ErrLimited) {
				t.Errorf("%v must match ErrCost and ErrRefused, not ErrLimited", err)
			}
			if _, ok := resilience.RetryAfter(err); ok || err.Error() != "ratelimit mail: a cost of 70 is above the burst of 50" || one.Calls() != 0 {
				t.Errorf("got %q after %d calls, want no RetryAfter and no call", err, one.Calls())
			}
			if s := l.Snapshot(); s.Available != 49 {
				t.Errorf("got %+v, want 49 tokens", s)
			}
		}
	})
}

// A waiting call whose cost SetRate has made too high is refused, and the next one is served.
func TestSetRateRefusesWaiterWithCostAboveBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.New(ratelimit.Config{Rate: 1, Burst: 10, Wait: time.Hour, Cost: costOf})
		l.AllowN(10)
		var g errgroup.Group
		g.Go(func() error {
			if err := l.Wait(costing(t.Context(), 8)); !errors.Is(err, ratelimit.ErrCost) {
				return fmt.Errorf("the costly call got %v, want ErrCost", err)
			}
			return nil
		})
		synctest.Wait()
		g.Go(func() error { return l.Wait(costing(t.Context(), 2)) })
		synctest.Wait()
		began := time.Now()
		l.SetRate(1, 5)
		if err := g.Wait(); err != nil || time.Since(began) != 2*time.Second {
			t.Errorf("got %v after %v, want the cheap call's turn after 2s", err, time.Since(began))
		}
	})
}

// Waiting calls are served in order, whatever they cost, and each turn takes the costs before it
// into account.
func TestCostWaitersAreServedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.New(ratelimit.Config{Rate: 1, Burst: 10, Wait: 20 * time.Second, Cost: costOf})
		l.AllowN(10)
		began := time.Now()
		var mu sync.Mutex
		var got []string
		var g errgroup.Group
		for _, cost := range []int{5, 1, 10, 4, 1} { // due after 5, 6, 16, 20, and 21 s
			g.Go(func() error {
				err := l.Wait(costing(t.Context(), cost))
				how := "admitted"
				if err != nil {
					after, _ := resilience.RetryAfter(err)
					how = fmt.Sprint("refused, retry in ", after, ",")
				}
				mu.Lock()
				defer mu.Unlock()
				got = append(got, fmt.Sprint(cost, " ", how, " at ", time.Since(began)))
				return nil
			})
			synctest.Wait()
		}
		if l.AllowN(1) || !l.AllowN(0) || l.Wait(costing(t.Context(), 0)) != nil {
			t.Error("a newcomer overtook the queue, or one that takes nothing was refused")
		}
		time.Sleep(2 * time.Second)
		if l.AllowN(1) || l.Allow() {
			t.Error("a newcomer took tokens that the first waiter still collects")
		}
		g.Wait()
		want := []string{"1 refused, retry in 21s, at 0s", "5 admitted at 5s", "1 admitted at 6s", "10 admitted at 16s", "4 admitted at 20s"}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestLimiterAllowN(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.New(ratelimit.Config{Rate: 2, Burst: 10})
		for _, step := range []struct {
			n, left int
			ok      bool
		}{{11, 10, false}, {4, 6, true}, {0, 6, true}, {-1, 6, true}, {7, 6, false}, {6, 0, true}, {1, 0, false}, {0, 0, true}} {
			if ok := l.AllowN(step.n); ok != step.ok || l.Snapshot().Available != step.left {
				t.Errorf("AllowN(%d): got %v with %+v, want %v with %d tokens", step.n, ok, l.Snapshot(), step.ok, step.left)
			}
		}
		time.Sleep(2500*time.Millisecond - 1)
		if l.AllowN(5) {
			t.Error("five tokens came a nanosecond early")
		}
		if time.Sleep(time.Nanosecond); !l.AllowN(5) {
			t.Error("five tokens haven't come in 2.5s")
		}
	})
}

func TestLimiterWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.New(ratelimit.Config{Rate: 1, Wait: time.Second})
		began := time.Now()
		for i := range 3 {
			if err := l.Wait(t.Context()); err != nil || time.Since(began) != time.Duration(i)*time.Second {
				t.Errorf("wait %d: got %v after %v", i, err, time.Since(began))
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		if err := l.Wait(ctx); !errors.Is(err, ratelimit.ErrLimited) {
			t.Errorf("a turn after the deadline: got %v, want ErrLimited", err)
		}
		cancel()
		if err := l.Wait(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("an ended context: got %v, want context.Canceled", err)
		}
	})
}

// lateContext makes goroutines that wait with it late, as if their timers fired late: each look at
// its error takes a while.
type lateContext struct {
	context.Context
	late time.Duration
}

func (c lateContext) Err() error {
	time.Sleep(c.late)
	return c.Context.Err()
}

// With a burst of 1, a full bucket can't hold what comes until a late timer fires.
func TestLimiterLateTimersLoseNoRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const calls = 20
		l := ratelimit.New(ratelimit.Config{Rate: 1000, Wait: time.Second})
		ctx := lateContext{t.Context(), 700 * time.Microsecond} // in units of a millisecond per token
		l.Allow()
		began := time.Now()
		var mu sync.Mutex
		var starts []time.Duration
		var g errgroup.Group
		for range calls {
			g.Go(func() error {
				_, err := resilience.Do(ctx, l, func(context.Context) (int, error) {
					mu.Lock()
					defer mu.Unlock()
					starts = append(starts, time.Since(began))
					return 0, nil
				})
				return err
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		for i, start := range starts {
			due := time.Duration(i+1) * time.Millisecond
			if start < due || start > due+3*time.Millisecond {
				t.Errorf("call %d started after %v, want %v and at most a few delays", i, start, due)
			}
		}
		// The last call took its token as of its due time, so the next one is due a millisecond
		// later.
		time.Sleep(time.Until(began.Add((calls+1)*time.Millisecond - 1)))
		if l.Allow() {
			t.Error("a token came early")
		}
	})
}

// The first waiter, due at 1 s, is late until 5 s. The next two come at 4 s and 4.5 s, so they are
// due at 4 s and 5 s, not at 2 s and 3 s when no call waited: a token that the full bucket couldn't
// hold isn't earned afterward.
func TestLimiterWaiterIsNotDueBeforeItComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := ratelimit.New(ratelimit.Config{Rate: 1, Wait: time.Minute})
		l.Allow()
		began := time.Now()
		var g errgroup.Group
		wait := func(comes, starts time.Duration, late time.Duration) {
			g.Go(func() error {
				time.Sleep(comes)
				// Run, unlike Wait, doesn't look at the context before the call comes.
				err := resilience.Run(t.Context(), resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
					return l.Run(lateContext{ctx, late}, next)
				}), func(context.Context) error { return nil })
				if at := time.Since(began); at != starts {
					t.Errorf("the call that came at %v started at %v, want %v", comes, at, starts)
				}
				return err
			})
		}
		wait(0, 5*time.Second, 5*time.Second)
		wait(4*time.Second, 5*time.Second, 0)
		wait(4500*time.Millisecond, 5*time.Second, 0)
		wait(4800*time.Millisecond, 6*time.Second, 0)
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
}

// BenchmarkWait reports how much of the rate calls that wait get with a burst of 1, in real time.
func BenchmarkWait(b *testing.B) {
	for _, rate := range []float64{2000, 5000} {
		b.Run(fmt.Sprint("rate=", rate), func(b *testing.B) {
			l := ratelimit.New(ratelimit.Config{Rate: rate, Wait: time.Minute})
			ctx := b.Context()
			b.SetParallelism(2)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					l.Wait(ctx)
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds()/rate, "of-rate")
		})
	}
}

func BenchmarkCost(b *testing.B) {
	l := ratelimit.New(ratelimit.Config{Rate: 1e6, Burst: 1e9, Cost: func(context.Context) int { return 1 }})
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		l.Wait(ctx)
	}
}
