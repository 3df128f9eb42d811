//go:build !race

// These tests make too many calls for the race detector.

package adaptive_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
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

type distribution struct {
	name   string
	spread func(*rand.Rand) float64
}

// share returns the first of the scenarios, which always runs, or all of them if PROOF_TIMES is set.
// Package concurrency simulates the same scenarios without goroutines, all of them in each run.
func share[S any](t *testing.T, scenarios []S) []S {
	t.Helper()
	if os.Getenv("PROOF_TIMES") != "" {
		return scenarios
	}
	t.Logf("1 of %d scenarios: PROOF_TIMES=1 runs the others as well", len(scenarios))
	return scenarios[:1]
}

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
	for _, c := range share(t, []struct {
		name    string
		callers int
		spread  func(*rand.Rand) float64
	}{
		{"lognormal, sigma 1", 30, wide},
		{"lognormal, sigma 1", 100, wide},
		{"exponential", 30, exponential},
		{"exponential", 100, exponential},
		{"5% take 20 times as long", 300, cached},
		{"1% take 100 times as long", 100, rare},
		{"fixed", 100, fixed},
	}) {
		t.Run(fmt.Sprintf("%s, %d callers", c.name, c.callers), func(t *testing.T) {
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
	for _, c := range share(t, []distribution{
		{"exponential", exponential},
		{"fixed", fixed},
		{"within a tenth", tenth},
		{"lognormal, sigma 1", wide},
		{"5% take 20 times as long", cached},
		{"1% take 100 times as long", rare},
	}) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := adaptive.New(adaptive.Config{})
				d := newDependency(workers, roundTrip, c.spread)
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
	for _, c := range share(t, []distribution{
		{"exponential", exponential},
		{"lognormal, sigma 1", wide},
		{"5% take 20 times as long", cached},
	}) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const callers = 100
				l := adaptive.New(adaptive.Config{})
				d := newDependency(math.MaxInt32, roundTrip, c.spread)
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
