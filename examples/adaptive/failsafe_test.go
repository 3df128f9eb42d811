package main

import (
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/failsafe-go/failsafe-go/adaptivelimiter"
	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience/bulkhead"
)

// TestQueueComparedWithFailsafe runs failsafe-go's adaptive limiter, with its defaults, in the
// scenarios of the second table: run with -v, it prints its figures, which differ from run to run. The
// limiter reads the clock itself, so it runs in a bubble rather than in a world. Queue must use nearly
// all of the workers that failsafe-go uses, or more.
func TestQueueComparedWithFailsafe(t *testing.T) {
	for _, d := range share(t, 2, distributions) {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			var refused, busy, wait float64
			synctest.Test(t, func(t *testing.T) { refused, _, _ = failsafe(t, d, endless, healthyCallers) })
			synctest.Test(t, func(t *testing.T) { _, busy, wait = failsafe(t, d, fewWorkers, 4*fewWorkers) })
			t.Logf("failsafe-go: %.1f%% refused; %.1f%% of the workers busy, wait %.2f", 100*refused, 100*busy, wait)
			if _, ours, _ := steady(config{seed: 1, measured: measured}, laws[0], d, fewWorkers, 4*fewWorkers); ours < 0.98*busy {
				t.Errorf("Queue uses %.3f of the workers, failsafe-go %.3f", ours, busy)
			}
		})
	}
}

// failsafe is steady for failsafe-go. Its limit changes once a second, so it has three minutes to
// find it.
func failsafe(t *testing.T, d distribution, workers, callers int) (refused, busy, wait float64) {
	const settle, measured, pace = 3 * time.Minute, 30 * time.Second, 50 * time.Millisecond
	limiter := adaptivelimiter.NewBuilder[any]().Build()
	server := bulkhead.New(bulkhead.Config{Limit: workers, Queue: callers})
	var made, rejected, served, waited atomic.Int64
	var stop atomic.Bool
	var g errgroup.Group
	for i := range callers {
		g.Go(func() error {
			random := rand.New(rand.NewPCG(1, uint64(i)))
			for !stop.Load() {
				made.Add(1)
				permit, ok := limiter.TryAcquirePermit()
				if !ok {
					rejected.Add(1)
					time.Sleep(time.Duration((0.3 + 0.4*random.Float64()) * float64(pace)))
					continue
				}
				began := time.Now()
				place, err := server.Acquire(t.Context())
				if err != nil {
					return err
				}
				waited.Add(int64(time.Since(began)))
				took := time.Duration(d.draw(random) * float64(pace))
				served.Add(int64(took))
				time.Sleep(took)
				place.Release()
				permit.Record()
			}
			return nil
		})
	}
	time.Sleep(settle)
	for _, n := range []*atomic.Int64{&made, &rejected, &served, &waited} {
		n.Store(0)
	}
	time.Sleep(measured)
	refused = float64(rejected.Load()) / float64(made.Load())
	busy = time.Duration(served.Load()).Seconds() / measured.Seconds() / float64(workers)
	wait = float64(waited.Load()) / float64(served.Load())
	stop.Store(true)
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	return refused, busy, wait
}
