package main

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/hedge"
)

// typical is the mean time of a call that isn't slow.
const typical = 10 * time.Millisecond

// A dependency answers a call in half to one and a half of the typical time. One call in a hundred
// takes a hundred times as long, because of a garbage collection, a lost packet, or a lock. Which
// calls are slow doesn't depend on the load, so a second start of a slow call is probably fast.
type dependency struct {
	mu     sync.Mutex // guards the following
	random *rand.Rand
	starts int
	slow   int // the slow one of the current hundred starts
}

// answer is the call: an effector.
func (d *dependency) answer(ctx context.Context) (time.Duration, error) {
	took := d.draw()
	timer := time.NewTimer(took)
	defer timer.Stop()
	select {
	case <-timer.C:
		return took, nil
	case <-ctx.Done(): // the other start has won
		return 0, ctx.Err()
	}
}

// draw returns the time that the next start takes.
func (d *dependency) draw() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.starts%100 == 0 {
		d.slow = d.starts + d.random.IntN(100)
	}
	took := time.Duration((0.5 + d.random.Float64()) * float64(typical))
	if d.starts == d.slow {
		took *= 100
	}
	d.starts++
	return took
}

// A client calls its own dependency, and records its calls.
type client struct {
	name       string
	dependency *dependency
	call       resilience.Effector[time.Duration]

	mu    sync.Mutex // guards calls
	calls []call
}

// A call has ended.
type call struct {
	at   time.Duration // when it was due, since the start
	took time.Duration
}

// A result is what a run measured.
type result struct {
	cfg     config
	end     time.Duration // when the last call started, or the run was stopped
	clients []*client     // the one that waits, the one that hedges
}

// newClients returns the two clients to compare.
func newClients(cfg config) []*client {
	newDependency := func() *dependency { return &dependency{random: rand.New(rand.NewPCG(cfg.seed, 0))} }
	waits, hedges := newDependency(), newDependency()
	return []*client{
		{name: "waits", dependency: waits, call: waits.answer},
		{name: "hedges", dependency: hedges, call: resilience.Compose(hedges.answer,
			hedge.New(hedge.Config{Quantile: cfg.quantile}), // the default budget allows 5% more calls
		)},
	}
}

// measure starts a call of each client at fixed instants, however long earlier calls take, until
// the end of the run or until ctx is done. It calls progress with the time since the start, and
// returns when the last call has ended. The calls don't end with ctx: otherwise the slow ones would
// be missing from the result of an interrupted run.
func measure(ctx context.Context, cfg config, progress func(elapsed time.Duration)) *result {
	r := &result{cfg: cfg, end: cfg.length, clients: newClients(cfg)}
	var calls sync.WaitGroup
	defer calls.Wait()
	start := time.Now()
	uninterrupted := context.WithoutCancel(ctx)
	interval := time.Second / time.Duration(cfg.rate)
	for at := time.Duration(0); at < cfg.length; at += interval {
		select {
		case <-time.After(time.Until(start.Add(at))):
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			r.end = min(time.Since(start), cfg.length)
			return r
		}
		progress(at)
		for _, c := range r.clients {
			calls.Go(func() { c.do(uninterrupted, at) })
		}
	}
	progress(cfg.length)
	return r
}

// do makes the call that is due at the given time and records it.
func (c *client) do(ctx context.Context, at time.Duration) {
	start := time.Now()
	c.call(ctx) // fails only if ctx ends, which it doesn't
	took := time.Since(start)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, call{at, took})
}
