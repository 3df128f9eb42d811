package adaptive_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience/adaptive"
	"github.com/effector-go/resilience/bulkhead"
)

// roundTrip is how long the simulated dependency takes for a call that doesn't queue, unless a test
// says otherwise.
const roundTrip = 10 * time.Millisecond

// A dependency has workers, each of which serves one call after the other, and an unbounded queue.
type dependency struct {
	workers *bulkhead.Bulkhead
	pace    atomic.Int64 // mean service time

	mu     sync.Mutex // guards random
	random *rand.Rand
	spread func(*rand.Rand) float64 // of the service times; its mean is 1
}

func newDependency(workers int, pace time.Duration, spread func(*rand.Rand) float64) *dependency {
	d := &dependency{
		workers: bulkhead.New(bulkhead.Config{Limit: workers, Queue: math.MaxInt32}),
		random:  rand.New(rand.NewPCG(1, uint64(workers))),
		spread:  spread,
	}
	d.pace.Store(int64(pace))
	return d
}

func (d *dependency) serve(ctx context.Context) (int, error) {
	return bulkhead.Do(ctx, d.workers, func(ctx context.Context) (int, error) {
		d.mu.Lock()
		took := float64(d.pace.Load()) * d.spread(d.random)
		d.mu.Unlock()
		time.Sleep(time.Duration(took))
		return 0, ctx.Err()
	})
}

// The distributions of service times.
func fixed(*rand.Rand) float64         { return 1 }
func tenth(r *rand.Rand) float64       { return 0.9 + 0.2*r.Float64() }
func half(r *rand.Rand) float64        { return 0.5 + r.Float64() }
func exponential(r *rand.Rand) float64 { return r.ExpFloat64() }
func lognormal(r *rand.Rand) float64   { return math.Exp(0.5*r.NormFloat64() - 0.125) }

// clients starts n clients. Each calls through the limiter again and again, after a refusal with a
// pause.
func clients(ctx context.Context, g *errgroup.Group, n int, l *adaptive.Limiter, fn func(context.Context) (int, error)) {
	for i := range n {
		g.Go(func() error {
			random := rand.New(rand.NewPCG(uint64(i), 2))
			for ctx.Err() == nil {
				if _, err := adaptive.Do(ctx, l, fn); errors.Is(err, adaptive.ErrLimit) {
					time.Sleep(time.Duration((0.5 + random.Float64()) * float64(roundTrip)))
				}
			}
			return nil
		})
	}
}

// simulate runs script, in virtual time, while n clients make calls.
func simulate(t *testing.T, n int, l *adaptive.Limiter, d *dependency, script func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var g errgroup.Group
	defer g.Wait()
	defer cancel()
	clients(ctx, &g, n, l, d.serve)
	script()
}

// worst watches the limit for a number of round trips, and returns the value that was furthest from
// right.
func worst(l *adaptive.Limiter, right, roundTrips int) (limit int) {
	limit = right
	for range 2 * roundTrips {
		time.Sleep(roundTrip / 2)
		if now := l.Limit(); math.Abs(float64(now-right)) > math.Abs(float64(limit-right)) {
			limit = now
		}
	}
	return limit
}

func within(limit, right int, share float64) bool {
	return math.Abs(float64(limit-right)) <= share*float64(right)
}

// TestQueueFindsLimitWithin50RoundTrips checks that the limit is within a fifth of the right one 50
// round trips after the start, and after half of the workers have gone, and stays there.
func TestQueueFindsLimitWithin50RoundTrips(t *testing.T) {
	for _, workers := range []int{40, 100, 200} {
		for name, spread := range map[string]func(*rand.Rand) float64{"fixed": fixed, "within a tenth": tenth} {
			t.Run(fmt.Sprint(workers, " ", name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l := adaptive.New(adaptive.Config{})
					d := newDependency(workers, roundTrip, spread)
					simulate(t, workers*3/2, l, d, func() {
						time.Sleep(50 * roundTrip)
						if limit := worst(l, workers, 120); !within(limit, workers, 0.2) {
							t.Errorf("limit %d for %d workers", limit, workers)
						}
						d.workers.Resize(workers / 2)
						time.Sleep(50 * roundTrip)
						if limit := worst(l, workers/2, 120); !within(limit, workers/2, 0.2) {
							t.Errorf("limit %d after the workers fell from %d to %d", limit, workers, workers/2)
						}
					})
				})
			})
		}
	}
}

// TestQueueLearnsThatDependencyIsSlower checks that the limit shrinks by no more than a fifth, and
// comes back.
func TestQueueLearnsThatDependencyIsSlower(t *testing.T) {
	for _, slower := range []time.Duration{roundTrip * 12 / 10, 2 * roundTrip, 10 * roundTrip} {
		t.Run(slower.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const workers = 100
				l := adaptive.New(adaptive.Config{})
				d := newDependency(workers, roundTrip, tenth)
				simulate(t, workers*3/2, l, d, func() {
					time.Sleep(100 * roundTrip)
					d.pace.Store(int64(slower))
					for range 100 {
						if limit := l.Limit(); !within(limit, workers, 0.2) {
							t.Fatalf("limit %d for %d workers", limit, workers)
						}
						time.Sleep(slower)
					}
					if s := l.Snapshot(); !within(int(s.RoundTrip), int(slower), 0.05) || !within(s.Limit, workers, 0.1) {
						t.Errorf("got %+v, want a round trip of %v and a limit of %d", s, slower, workers)
					}
				})
			})
		})
	}
}

func TestQueueLearnsThatDependencyIsFaster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const workers = 100
		l := adaptive.New(adaptive.Config{})
		d := newDependency(workers, 10*roundTrip, tenth)
		simulate(t, workers*3/2, l, d, func() {
			time.Sleep(1000 * roundTrip)
			d.pace.Store(int64(roundTrip))
			time.Sleep(50 * roundTrip)
			if limit := worst(l, workers, 100); !within(limit, workers, 0.2) {
				t.Errorf("limit %d for %d workers", limit, workers)
			}
		})
	})
}

// TestQueueIsHeldAtFewPercent checks the length of the queue: with a few percent of the limit,
// calls wait for a short time, and workers never do.
func TestQueueIsHeldAtFewPercent(t *testing.T) {
	for _, workers := range []int{40, 100, 200} {
		synctest.Test(t, func(t *testing.T) {
			l := adaptive.New(adaptive.Config{})
			d := newDependency(workers, roundTrip, fixed)
			simulate(t, workers*3/2, l, d, func() {
				time.Sleep(100 * roundTrip)
				var queue []int
				for range 200 {
					time.Sleep(roundTrip)
					queue = append(queue, l.Limit()-workers)
				}
				slices.Sort(queue)
				if q := float64(queue[100]) / float64(workers); q < 0.02 || q > 0.1 {
					t.Errorf("a queue of %.3f of %d workers, want 0.02 to 0.1", q, workers)
				}
			})
		})
	}
}

// TestQueueSharesDependencyFairly checks that two clients are right together, and that neither
// starves, whichever came first.
func TestQueueSharesDependencyFairly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const workers = 100
		d := newDependency(workers, roundTrip, tenth)
		first, second := adaptive.New(adaptive.Config{}), adaptive.New(adaptive.Config{})
		simulate(t, workers*3/2, first, d, func() {
			time.Sleep(100 * roundTrip)
			simulate(t, workers*3/2, second, d, func() {
				time.Sleep(100 * roundTrip)
				for range 300 {
					time.Sleep(roundTrip)
					a, b := first.Limit(), second.Limit()
					if !within(a+b, workers, 0.2) || min(a, b) < workers/8 {
						t.Fatalf("limits %d and %d for %d workers", a, b, workers)
					}
				}
			})
		})
	})
}

// TestQueueStaysNearLimitIfTimesVary checks the median of the limit. Each round shows less then, so
// the limit moves about.
func TestQueueStaysNearLimitIfTimesVary(t *testing.T) {
	for name, c := range map[string]struct {
		spread func(*rand.Rand) float64
		share  float64
	}{"half": {half, 0.2}, "lognormal": {lognormal, 0.25}, "exponential": {exponential, 0.5}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const workers = 100
				l := adaptive.New(adaptive.Config{})
				d := newDependency(workers, roundTrip, c.spread)
				simulate(t, workers*3/2, l, d, func() {
					for _, right := range []int{workers, workers / 2} {
						d.workers.Resize(right)
						time.Sleep(50 * roundTrip)
						var limits []int
						for range 301 {
							time.Sleep(roundTrip)
							limits = append(limits, l.Limit())
						}
						slices.Sort(limits)
						if limit := limits[150]; !within(limit, right, c.share) {
							t.Errorf("median limit %d for %d workers, from %d to %d", limit, right, limits[0], limits[300])
						}
					}
				})
			})
		})
	}
}

// TestQueueFindsLimitForAnyRoundTrip checks round trips of a microsecond and of an hour.
func TestQueueFindsLimitForAnyRoundTrip(t *testing.T) {
	for _, pace := range []time.Duration{time.Microsecond, time.Hour} {
		t.Run(pace.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const workers = 50
				l := adaptive.New(adaptive.Config{})
				d := newDependency(workers, pace, fixed)
				ctx, cancel := context.WithCancel(t.Context())
				var g errgroup.Group
				defer g.Wait()
				defer cancel()
				for range 3 * workers / 2 {
					g.Go(func() error {
						for ctx.Err() == nil {
							if _, err := adaptive.Do(ctx, l, d.serve); err != nil {
								time.Sleep(pace / 2)
							}
						}
						return nil
					})
				}
				time.Sleep(50 * pace)
				for range 100 {
					if time.Sleep(pace); !within(l.Limit(), workers, 0.2) {
						t.Fatalf("limit %d for %d workers", l.Limit(), workers)
					}
				}
			})
		})
	}
}

// TestQueueHandlesCallsThatTakeNoTime checks such calls at the start, and between calls that take
// some.
func TestQueueHandlesCallsThatTakeNoTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const workers = 50
		l := adaptive.New(adaptive.Config{})
		for range 3 {
			for range 1000 {
				adaptive.Do(t.Context(), l, succeed)
			}
			if s := l.Snapshot(); s.Limit < 20 || s.RoundTrip > time.Microsecond {
				t.Errorf("got %+v after calls that took no time, want a limit of at least 20", s)
			}
			d := newDependency(workers, roundTrip, fixed)
			simulate(t, workers*3/2, l, d, func() {
				time.Sleep(300 * roundTrip)
				if limit := worst(l, workers, 50); !within(limit, workers, 0.2) {
					t.Errorf("limit %d for %d workers", limit, workers)
				}
			})
		}
	})
}

// TestQueueKeepsLimitThatIsNotMet checks calls below the limit, and idle hours.
func TestQueueKeepsLimitThatIsNotMet(t *testing.T) {
	for _, callers := range []int{1, 5, 15, 19} {
		synctest.Test(t, func(t *testing.T) {
			l := adaptive.New(adaptive.Config{})
			d := newDependency(100, roundTrip, tenth)
			simulate(t, callers, l, d, func() {
				if limit := worst(l, 20, 500); limit != 20 {
					t.Errorf("limit %d with %d callers, want 20", limit, callers)
				}
			})
			time.Sleep(10 * time.Hour)
			if limit := l.Limit(); limit != 20 {
				t.Errorf("limit %d, want 20", limit)
			}
		})
	}
}

// TestQueueKeepsLimitIfFewCallsBecomeSlow checks that calls below half of the limit don't lower it:
// a queue isn't of their making.
func TestQueueKeepsLimitIfFewCallsBecomeSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := adaptive.New(adaptive.Config{})
		d := newDependency(100, roundTrip, exponential)
		simulate(t, 8, l, d, func() {
			for i := range 10 {
				d.pace.Store(int64(roundTrip) << i)
				if limit := worst(l, 20, 100); limit != 20 {
					t.Errorf("limit %d, want 20", limit)
				}
			}
		})
	})
}

// TestQueueFindsLimitByBursts makes a thousand concurrent calls every second, most of which are
// refused.
func TestQueueFindsLimitByBursts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const workers = 100
		l := adaptive.New(adaptive.Config{})
		d := newDependency(workers, roundTrip, fixed)
		for burst := range 100 {
			var g errgroup.Group
			for range 1000 {
				g.Go(func() error { adaptive.Do(t.Context(), l, d.serve); return nil })
			}
			g.Wait()
			if limit := l.Limit(); burst >= 50 && !within(limit, workers, 0.25) {
				t.Fatalf("burst %d: limit %d for %d workers", burst, limit, workers)
			}
			time.Sleep(time.Second)
		}
	})
}

// TestQueueKeepsLimitIfCallsFailFast checks that the limit is still right when the dependency is
// back after an outage.
func TestQueueKeepsLimitIfCallsFailFast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const workers = 100
		l := adaptive.New(adaptive.Config{})
		d := newDependency(workers, roundTrip, tenth)
		var down atomic.Bool
		ctx, cancel := context.WithCancel(t.Context())
		var g errgroup.Group
		clients(ctx, &g, workers*3/2, l, func(ctx context.Context) (int, error) {
			if down.Load() {
				time.Sleep(roundTrip / 20)
				return 0, errors.New("connection refused")
			}
			return d.serve(ctx)
		})
		time.Sleep(100 * roundTrip)
		down.Store(true)
		if limit := worst(l, workers, 100); !within(limit, workers, 0.2) {
			t.Errorf("limit %d for %d workers during the outage", limit, workers)
		}
		down.Store(false)
		if limit := worst(l, workers, 100); !within(limit, workers, 0.2) {
			t.Errorf("limit %d for %d workers after the outage", limit, workers)
		}
		cancel()
		g.Wait()
	})
}

// TestQueueShrinksIfAllCallsTimeOut checks that the limit shrinks until callers get answers in
// time, though there is no answer to learn from.
func TestQueueShrinksIfAllCallsTimeOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const patience = 3 * roundTrip
		l := adaptive.New(adaptive.Config{})
		d := newDependency(80, roundTrip, tenth)
		var answers, calls atomic.Int64
		ctx, cancel := context.WithCancel(t.Context())
		var g errgroup.Group
		clients(ctx, &g, 120, l, func(ctx context.Context) (int, error) {
			// The dependency goes on with a call that its caller has given up.
			began := time.Now()
			done := make(chan struct{})
			go func() { d.serve(context.WithoutCancel(ctx)); close(done) }()
			calls.Add(1)
			select {
			case <-done:
				answers.Add(1)
				return 0, nil
			case <-time.After(patience - time.Since(began)):
				return 0, context.DeadlineExceeded
			}
		})
		time.Sleep(100 * roundTrip)
		d.workers.Resize(8)
		time.Sleep(1000 * roundTrip)
		answers.Store(0)
		calls.Store(0)
		time.Sleep(300 * roundTrip)
		if share := float64(answers.Load()) / float64(calls.Load()); share < 0.9 {
			t.Errorf("%.2f of the calls are answered in time, want 0.9; limit %d", share, l.Limit())
		}
		cancel()
		g.Wait()
		time.Sleep(time.Hour) // for the calls that were given up to end
	})
}

// TestQueueShrinksIfColdStartTimesOut checks a start at which no call is answered in time. The
// limit must shrink until calls are, and the workers be used.
func TestQueueShrinksIfColdStartTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const workers = 4
		l := adaptive.New(adaptive.Config{Initial: 200})
		d := newDependency(workers, roundTrip, tenth)
		var answers, calls atomic.Int64
		ctx, cancel := context.WithCancel(t.Context())
		var g errgroup.Group
		clients(ctx, &g, 200, l, func(ctx context.Context) (int, error) {
			done := make(chan struct{})
			go func() { d.serve(context.WithoutCancel(ctx)); close(done) }()
			calls.Add(1)
			select {
			case <-done:
				answers.Add(1)
				return 0, nil
			case <-time.After(3 * roundTrip):
				return 0, context.DeadlineExceeded
			}
		})
		time.Sleep(1000 * roundTrip)
		answers.Store(0)
		calls.Store(0)
		time.Sleep(300 * roundTrip)
		if share := float64(answers.Load()) / float64(calls.Load()); share < 0.9 || answers.Load() < 300*workers*8/10 {
			t.Errorf("%.2f of the calls are answered in time, %d answers; want 0.9 and %d; limit %d", share, answers.Load(), 300*workers*8/10, l.Limit())
		}
		cancel()
		g.Wait()
		time.Sleep(time.Hour) // for the calls that were given up to end
	})
}
