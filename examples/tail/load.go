package main

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/hedge"
)

// typical is about what a call takes.
const typical = 10 * time.Millisecond

// A dependency answers calls in half to one and a half of the typical time, but for one in a hundred, which takes a hundred times as long: it
// met a pause of the garbage collector, a lost packet, a lock. Which calls are slow has nothing to do with how many there are, so
// one that is made again is most probably fast.
type dependency struct {
	mu     sync.Mutex // guards what follows
	random *rand.Rand
	starts int
	slow   int // which of the present hundred starts is
}

// answer is the call: an effector.
func (d *dependency) answer(ctx context.Context) (time.Duration, error) {
	takes := d.draw()
	timer := time.NewTimer(takes)
	defer timer.Stop()
	select {
	case <-timer.C:
		return takes, nil
	case <-ctx.Done(): // it lost
		return 0, ctx.Err()
	}
}

func (d *dependency) draw() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.starts%100 == 0 {
		d.slow = d.starts + d.random.IntN(100)
	}
	takes := time.Duration((0.5 + d.random.Float64()) * float64(typical))
	if d.starts == d.slow {
		takes *= 100
	}
	d.starts++
	return takes
}

// A client makes calls to a dependency of its own, and records them.
type client struct {
	name       string
	dependency *dependency
	do         resilience.Effector[time.Duration]

	mu    sync.Mutex // guards calls
	calls []call
}

// A call is one that ended.
type call struct {
	at   time.Duration // when it was due, since the start
	took time.Duration
}

// A result is what a run measured.
type result struct {
	cfg     config
	end     time.Duration // when the last call was started, or the run was stopped
	clients []*client     // the one that waits, the one that hedges
}

// clients are the two that are compared.
func clients(cfg config) []*client {
	fresh := func() *dependency { return &dependency{random: rand.New(rand.NewPCG(cfg.seed, 0))} }
	waits, hedges := fresh(), fresh()
	return []*client{
		{name: "waits", dependency: waits, do: waits.answer},
		{name: "hedges", dependency: hedges, do: resilience.Compose(hedges.answer,
			hedge.New(hedge.Config{Quantile: cfg.quantile}), // with the default budget, for 5 % more calls
		)},
	}
}

// measure has both clients start a call at fixed instants, however long earlier calls take, until the run's end or until ctx is done. It tells
// progress how far it is, and returns when the last call has ended.
func measure(ctx context.Context, cfg config, progress func(elapsed time.Duration)) *result {
	r := &result{cfg: cfg, end: cfg.length, clients: clients(cfg)}
	var calls sync.WaitGroup
	defer calls.Wait()
	start := time.Now()
	every := time.Second / time.Duration(cfg.rate)
	for at := time.Duration(0); at < cfg.length; at += every {
		select {
		case <-time.After(time.Until(start.Add(at))):
		case <-ctx.Done():
			r.end = time.Since(start)
			return r
		}
		progress(at)
		for _, c := range r.clients {
			calls.Go(func() { c.call(ctx, start, at) })
		}
	}
	progress(cfg.length)
	return r
}

// call makes the call that is due at the given time and records it, unless the run was stopped meanwhile.
func (c *client) call(ctx context.Context, start time.Time, at time.Duration) {
	began := time.Now()
	if _, err := c.do(ctx); err != nil {
		return // only of ctx
	}
	took := time.Since(began)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, call{at, took})
}
