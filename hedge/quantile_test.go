package hedge_test

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/hedge"
)

// sleep returns a function that takes d, or until its context ends.
func sleep(d time.Duration) func(context.Context) (time.Duration, error) {
	return func(ctx context.Context) (time.Duration, error) {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			return d, nil
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// near reports whether got is above want by at most 5%.
func near(got, want time.Duration) bool { return got > want && float64(got) <= 1.05*float64(want) }

func TestHedgeUsesDelayUntilMinSamples(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hedge.New(hedge.Config{Name: "users", Quantile: 0.9, Delay: time.Minute, MinSamples: 20, Budget: plenty()})
		for n := range 20 {
			if got, want := h.Snapshot(), (hedge.Snapshot{Name: "users", Delay: time.Minute}); got != want {
				t.Fatalf("after %d calls: got %+v, want %+v", n, got, want)
			}
			hedge.Do(t.Context(), h, sleep(time.Duration(n+1)*time.Millisecond))
		}
		if got := h.Snapshot().Delay; !near(got, 18*time.Millisecond) {
			t.Errorf("got delay %v after calls of 1 to 20 ms, want 18ms and up to 5%% more", got)
		}
		time.Sleep(4 * time.Minute)
		if got := h.Snapshot().Delay; got != time.Minute {
			t.Errorf("got delay %v after all calls were forgotten, want the 1m of Delay", got)
		}
	})
}

func TestHedgeWithoutDelayStartsNothingUntilMinSamples(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hedge.New(hedge.Config{Quantile: 0.9, Budget: plenty()})
		s := scripted(answer{takes: time.Hour})
		hedge.Do(t.Context(), h, s.call)
		s.want(t, 0)
		s = scripted(answer{err: errDown})
		hedge.Do(t.Context(), h, s.call)
		s.want(t, 0)
		if got := h.Snapshot().Delay; got != 0 {
			t.Errorf("got delay %v, want 0 without samples", got)
		}
		for range 100 {
			hedge.Do(t.Context(), h, sleep(10*time.Millisecond))
		}
		s = scripted(answer{takes: time.Hour}, answer{})
		if value, err := hedge.Do(t.Context(), h, s.call); value != 2 || err != nil {
			t.Errorf("got %d, %v, want 2, nil", value, err)
		}
	})
}

// TestHedgeQuantileLeavesEquallyFastCallsAlone has calls of which none is slower than the others.
func TestHedgeQuantileLeavesEquallyFastCallsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hedge.New(hedge.Config{Quantile: 0.5, Budget: plenty(), OnHedge: func(context.Context, hedge.Event) { t.Error("hedged") }})
		for range 1000 {
			hedge.Do(t.Context(), h, sleep(10*time.Millisecond))
		}
	})
}

// TestHedgeQuantileIgnoresFailuresAndRefusals also checks that it ignores the durations of hedges.
func TestHedgeQuantileIgnoresFailuresAndRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hedge.New(hedge.Config{Quantile: 0.5, Delay: time.Minute, MinSamples: 4, Budget: plenty()})
		hedge.Do(t.Context(), h, sleep(time.Second))
		hedge.Do(t.Context(), h, sleep(time.Second))
		hedge.Do(t.Context(), h, sleep(time.Second))
		// The first start fails, once before its hedge begins and once while the hedge is running,
		// which wins.
		hedge.Do(t.Context(), h, scripted(answer{err: errDown}, answer{takes: time.Millisecond}).call)
		hedge.Do(t.Context(), h, scripted(answer{takes: 61 * time.Second, err: errDown}, answer{takes: 2 * time.Second}).call)
		hedge.Do(t.Context(), h, scripted(answer{err: errDown}).call)
		resilience.Run(t.Context(), resilience.Pipeline{h, resilience.PolicyFunc(func(context.Context, resilience.Next) error {
			return resilience.ErrRefused
		})}, func(context.Context) error { return nil })
		if got := h.Snapshot().Delay; got != time.Minute {
			t.Errorf("got delay %v after three successes, want the 1m for too few samples", got)
		}
		hedge.Do(t.Context(), h, sleep(time.Second))
		if got := h.Snapshot().Delay; !near(got, time.Second) {
			t.Errorf("got delay %v, want 1s and up to 5%% more", got)
		}
	})
}

func TestHedgeQuantileRecordsWhenFirstStartLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hedge.New(hedge.Config{Quantile: 0.5, Delay: time.Second, MinSamples: 1, Budget: plenty()})
		s := scripted(answer{takes: time.Hour, ignoresContext: true}, answer{takes: 2 * time.Second})
		hedge.Do(t.Context(), h, s.call)
		if got := h.Snapshot().Delay; !near(got, 3*time.Second) {
			t.Errorf("got delay %v, want 3s and up to 5%% more", got)
		}
		time.Sleep(time.Hour)
	})
}

// TestHedgedShareIsOneMinusQuantile allows a difference of 0.03, for several distributions.
func TestHedgedShareIsOneMinusQuantile(t *testing.T) {
	for name, draw := range map[string]func(r *rand.Rand) time.Duration{
		"exponential": func(r *rand.Rand) time.Duration { return time.Duration(r.ExpFloat64() * float64(10*time.Millisecond)) },
		"uniform":     func(r *rand.Rand) time.Duration { return time.Duration(r.Int64N(int64(20 * time.Millisecond))) },
		"heavy": func(r *rand.Rand) time.Duration {
			return time.Duration(float64(time.Millisecond) / math.Pow(1-r.Float64(), 0.7))
		},
	} {
		for _, quantile := range []float64{0.5, 0.8, 0.95} {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				random := rand.New(rand.NewPCG(1, 2))
				hedged := 0
				h := hedge.New(hedge.Config{Quantile: quantile, Budget: budget.New(budget.Config{Ratio: 1}), OnHedge: func(context.Context, hedge.Event) { hedged++ }})
				call := func(ctx context.Context) (time.Duration, error) {
					mu.Lock()
					d := draw(random)
					mu.Unlock()
					return sleep(d)(ctx)
				}
				for range 100 {
					hedge.Do(t.Context(), h, call)
				}
				hedged = 0
				const calls = 3000
				for range calls {
					hedge.Do(t.Context(), h, call)
				}
				if share := float64(hedged) / calls; math.Abs(share-(1-quantile)) > 0.03 {
					t.Errorf("%s, quantile %v: got %.3f of calls hedged, want %.3f within 0.03", name, quantile, share, 1-quantile)
				}
			})
		}
	}
}

func TestHedgeQuantileFollowsSlowingDependency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hedge.New(hedge.Config{Quantile: 0.9})
		for range 1000 {
			hedge.Do(t.Context(), h, sleep(10*time.Millisecond))
		}
		for began := time.Now(); time.Since(began) < 5*time.Minute; {
			hedge.Do(t.Context(), h, sleep(100*time.Millisecond))
		}
		if got := h.Snapshot().Delay; !near(got, 100*time.Millisecond) {
			t.Errorf("got delay %v, want 100ms and up to 5%% more", got)
		}
	})
}

// TestHedgeCutsTailTenfoldForThreePercentMoreCalls has a dependency of which one call in a hundred
// takes a hundred times as long, the case that hedging is for.
func TestHedgeCutsTailTenfoldForThreePercentMoreCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const calls, callers = 10_000, 8
		run := func(call func(ctx context.Context) (time.Duration, error)) (p50, p99 time.Duration) {
			var mu sync.Mutex
			var took []time.Duration
			var group errgroup.Group
			for range callers {
				group.Go(func() error {
					for range calls / callers {
						began := time.Now()
						if _, err := call(t.Context()); err != nil {
							return err
						}
						mu.Lock()
						took = append(took, time.Since(began))
						mu.Unlock()
					}
					return nil
				})
			}
			if err := group.Wait(); err != nil {
				t.Fatal(err)
			}
			slices.Sort(took)
			return took[len(took)/2], took[len(took)*99/100]
		}
		var mu sync.Mutex
		starts, slow := 0, 0
		random := rand.New(rand.NewPCG(1, 2))
		dependency := func(ctx context.Context) (time.Duration, error) {
			mu.Lock()
			if starts%100 == 0 {
				slow = starts + random.IntN(100)
			}
			d := time.Duration((0.5 + random.Float64()) * float64(time.Millisecond))
			if starts == slow {
				d *= 100
			}
			starts++
			mu.Unlock()
			return sleep(d)(ctx)
		}
		_, before := run(dependency)
		starts = 0
		hedged := resilience.Compose(dependency, hedge.New(hedge.Config{Quantile: 0.98}))
		p50, after := run(hedged)
		more := float64(starts)/calls - 1
		t.Logf("p50 %v, p99 %v without hedges, %v with them, for %.1f%% more calls", p50, before, after, 100*more)
		if after > before/10 || more > 0.03 {
			t.Errorf("got p99 %v without hedges, %v with them, for %.1f%% more calls; want a tenth, for at most 3%%", before, after, 100*more)
		}
	})
}
