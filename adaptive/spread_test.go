package adaptive_test

import (
	"context"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience/adaptive"
)

// Distributions of service times that vary more than those of the other simulations. Their mean is
// 1.

func wide(r *rand.Rand) float64   { return math.Exp(r.NormFloat64() - 0.5) } // lognormal, sigma 1
func cached(r *rand.Rand) float64 { return longer(r, 0.05, 20) }
func rare(r *rand.Rand) float64   { return longer(r, 0.01, 100) }

// longer returns a time that is by times as long for a part of the calls.
func longer(r *rand.Rand, part, by float64) float64 {
	unit := 1 / (1 + part*(by-1))
	if r.Float64() < part {
		return by * unit
	}
	return unit
}

// TestLimiterAdmitsHealthyCalls checks that at most 1% of the calls are refused if the dependency
// could take any number of them.
func TestLimiterAdmitsHealthyCalls(t *testing.T) {
	for _, c := range []struct {
		name    string
		callers int
		spread  func(*rand.Rand) float64
	}{
		{"5% take 20 times as long", 300, cached},
		{"lognormal, sigma 1", 30, wide},
		{"lognormal, sigma 1", 100, wide},
		{"exponential", 30, exponential},
		{"exponential", 100, exponential},
		{"1% take 100 times as long", 100, rare},
		{"fixed", 100, fixed},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := adaptive.New(adaptive.Config{})
				d := newDependency(math.MaxInt32, roundTrip, c.spread)
				var made, refused atomic.Int64
				counted := func(ctx context.Context) (int, error) { made.Add(1); return d.serve(ctx) }
				var g errgroup.Group
				ctx, cancel := context.WithCancel(t.Context())
				for range c.callers {
					g.Go(func() error {
						for ctx.Err() == nil {
							if _, err := adaptive.Do(ctx, l, counted); err != nil {
								refused.Add(1)
								time.Sleep(roundTrip)
							}
						}
						return nil
					})
				}
				time.Sleep(30 * time.Second) // 3000 round trips
				made.Store(0)
				refused.Store(0)
				time.Sleep(30 * time.Second)
				part := float64(refused.Load()) / float64(made.Load()+refused.Load())
				t.Logf("%.2f%% refused, limit %d", 100*part, l.Limit())
				if part > 0.01 {
					t.Errorf("%.2f%% refused, want at most 1%%; limit %d for %d callers", 100*part, l.Limit(), c.callers)
				}
				cancel()
				g.Wait()
			})
		})
	}
}

// TestLimiterKeepsWorkersBusy checks that 50 workers with 200 callers are used, and that calls wait
// for at most half of their service time.
func TestLimiterKeepsWorkersBusy(t *testing.T) {
	const workers = 50
	for name, spread := range map[string]func(*rand.Rand) float64{
		"fixed": fixed, "within a tenth": tenth, "5% take 20 times as long": cached, "lognormal, sigma 1": wide,
		"exponential": exponential, "1% take 100 times as long": rare,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := adaptive.New(adaptive.Config{})
				d := newDependency(workers, roundTrip, spread)
				simulate(t, 4*workers, l, d, func() {
					time.Sleep(30 * time.Second)
					var busy, waiting float64
					const looks = 30_000
					for range looks {
						time.Sleep(time.Millisecond)
						s := d.workers.Snapshot()
						busy += float64(s.Running)
						waiting += float64(s.Waiting)
					}
					used, wait := busy/looks/workers, waiting/busy // by Little's law
					t.Logf("%.3f of the workers busy, calls wait %.3f of their service time", used, wait)
					if used < 0.9 || wait > 0.5 {
						t.Errorf("%.3f of the workers busy, want 0.9; calls wait %.3f of their service time, want at most 0.5", used, wait)
					}
				})
			})
		})
	}
}

// TestQueueLearnsSlowerDependencyIfTimesVary checks that a dependency of any capacity isn't refused
// calls for long because it has become twice as slow.
func TestQueueLearnsSlowerDependencyIfTimesVary(t *testing.T) {
	for name, spread := range map[string]func(*rand.Rand) float64{"exponential": exponential, "lognormal, sigma 1": wide, "5% take 20 times as long": cached} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const callers = 100
				l := adaptive.New(adaptive.Config{})
				d := newDependency(math.MaxInt32, roundTrip, spread)
				simulate(t, callers, l, d, func() {
					time.Sleep(20 * time.Second)
					d.pace.Store(int64(2 * roundTrip))
					lowest := callers
					for range 4000 {
						time.Sleep(10 * time.Millisecond)
						lowest = min(lowest, l.Limit())
					}
					s := l.Snapshot()
					t.Logf("at least %d, then %+v", lowest, s)
					if lowest < callers/2 || s.Limit < callers || !within(int(s.RoundTrip), int(2*roundTrip), 0.25) {
						t.Errorf("limit at least %d, then %+v, want %d, %d, and a round trip of %v", lowest, s, callers/2, callers, 2*roundTrip)
					}
				})
			})
		})
	}
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
