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
	clients []*client     // the naive one, the guarded one, and that with the companions if there is one
}

// A change is a new state of a breaker.
type change struct {
	at    time.Duration
	state breaker.State
}

// A client makes calls to a server of its own, and records them.
type client struct {
	name     string
	do       func(context.Context) error
	requests []time.Duration // when each arrived at the server

	mu      sync.Mutex // guards what follows: a change may come from the breaker's timer
	calls   []call
	breaker []change // beginning with its first state; none if it has no breaker
}

// A call is one that ended, with an answer or with an error.
type call struct {
	at   time.Duration // when it was due
	took time.Duration // from then to the answer or error
	ok   bool
}

// makers are those of the clients, by their names.
func makers(cfg config) (names []string, makes []maker) {
	names, makes = []string{"naive", "pipeline"}, []maker{nil, guarded}
	if cfg.companions {
		names, makes = append(names, "companions"), append(makes, companions)
	}
	return names, makes
}

// A maker makes a client with a breaker that tells what it does.
type maker func(transport http.RoundTripper, url string, unit time.Duration, onStateChange func(breaker.Transition)) func(context.Context) error

// measure runs the script against the clients until its end, or until ctx is done. It tells progress how far it is.
func measure(ctx context.Context, cfg config, progress func(elapsed time.Duration)) (*result, error) {
	start := time.Now()
	transport := &http.Transport{MaxIdleConnsPerHost: maxRate}
	defer transport.CloseIdleConnections()
	r := &result{cfg: cfg}
	var servers []*server
	names, makes := makers(cfg)
	for i, name := range names {
		s, err := serve(start, cfg)
		if err != nil {
			return nil, err
		}
		defer s.close()
		servers = append(servers, s)
		c := &client{name: name}
		if makes[i] == nil {
			c.do = naive(transport, s.url, cfg.unit)
		} else {
			c.breaker = []change{{0, breaker.Closed}}
			c.do = makes[i](transport, s.url, cfg.unit, func(t breaker.Transition) { c.changed(t.At.Sub(start), t.To) })
		}
		r.clients = append(r.clients, c)
	}

	r.end = load(ctx, start, cfg, r.clients, progress)
	for i, c := range r.clients {
		r.clients[i] = c.done(servers[i].arrivals())
	}
	return r, nil
}

// changed records a new state of the client's breaker.
func (c *client) changed(at time.Duration, state breaker.State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.breaker = append(c.breaker, change{at, state})
}

// done gives the client as it is when its run is over: its breaker may go on to tell, and nobody looks there any more.
func (c *client) done(requests []time.Duration) *client {
	c.mu.Lock()
	defer c.mu.Unlock()
	return &client{name: c.name, requests: requests, calls: c.calls, breaker: c.breaker}
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
