package main

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/effector-go/resilience/breaker"
)

// A result is what a run measured. All times count from its start.
type result struct {
	cfg     config
	end     time.Duration // when the last call was started, or the run was stopped
	clients []*client     // the naive one, the guarded one
	breaker []change      // the guarded one's breaker, beginning with its first state
}

// A change is a new state of the breaker.
type change struct {
	at    time.Duration
	state breaker.State
}

// A client makes calls to a server of its own, and records them.
type client struct {
	name     string
	do       func(context.Context) error
	requests []time.Duration // when each arrived at the server

	mu    sync.Mutex // guards calls
	calls []call
}

// A call is one that ended, with an answer or with an error.
type call struct {
	at   time.Duration // when it was due
	took time.Duration // from then to the answer or error
	ok   bool
}

// measure runs the script against both clients until its end, or until ctx is done. It tells progress how far it is.
func measure(ctx context.Context, cfg config, progress func(elapsed time.Duration)) (*result, error) {
	start := time.Now()
	var servers []*server
	for range 2 {
		s, err := serve(start, cfg)
		if err != nil {
			return nil, err
		}
		defer s.close()
		servers = append(servers, s)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: maxRate}
	defer transport.CloseIdleConnections()

	r := &result{cfg: cfg, breaker: []change{{0, breaker.Closed}}}
	var mu sync.Mutex // guards r.breaker: a change may come from the breaker's timer
	heard := func(t breaker.Transition) {
		mu.Lock()
		defer mu.Unlock()
		r.breaker = append(r.breaker, change{t.At.Sub(start), t.To})
	}
	r.clients = []*client{
		{name: "naive", do: naive(transport, servers[0].url, cfg.unit)},
		{name: "pipeline", do: guarded(transport, servers[1].url, cfg.unit, heard)},
	}

	r.end = load(ctx, start, cfg, r.clients, progress)
	for i, c := range r.clients {
		c.requests = servers[i].arrivals()
	}
	mu.Lock()
	defer mu.Unlock()
	done := *r // the breaker may go on to tell; nobody looks at r any more
	return &done, nil
}

// load starts a call of each client at fixed instants, however long earlier calls take: users do not wait for one another. It
// returns when the last call has ended: the time of the last start, or of ctx's end.
func load(ctx context.Context, start time.Time, cfg config, clients []*client, progress func(time.Duration)) time.Duration {
	var calls sync.WaitGroup
	defer calls.Wait()
	every := time.Second / time.Duration(cfg.rate)
	for at := time.Duration(0); at < total(cfg.unit); at += every {
		select {
		case <-time.After(time.Until(start.Add(at))):
		case <-ctx.Done():
			return time.Since(start)
		}
		progress(at)
		for _, c := range clients {
			calls.Go(func() { c.call(ctx, start, at) })
		}
	}
	progress(total(cfg.unit))
	return total(cfg.unit)
}

// call makes the call that is due at the given time and records it, unless the run was stopped meanwhile.
func (c *client) call(ctx context.Context, start time.Time, at time.Duration) {
	err := c.do(ctx)
	took := time.Since(start) - at
	if err != nil && ctx.Err() != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, call{at, took, err == nil})
}
