package main

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/effector-go/resilience/breaker"
)

// A phase is a part of the run.
type phase int

const (
	before  phase = iota // the server is healthy
	trouble              // the server is slow
	after                // the server is healthy again
	phases
)

func (p phase) String() string {
	return [...]string{"healthy", "10x slower", "healthy again"}[p]
}

const beforeLength = 5 * time.Second

// span returns when a phase begins and ends.
func (c config) span(p phase) (begin, end time.Duration) {
	ends := [...]time.Duration{0, beforeLength, beforeLength + c.trouble, c.total()}
	return ends[p], ends[p+1]
}

func (c config) total() time.Duration { return beforeLength + c.trouble + c.after }

func (c config) phaseAt(elapsed time.Duration) phase {
	for p := before; p < after; p++ {
		if _, end := c.span(p); elapsed < end {
			return p
		}
	}
	return after
}

// rate returns the number of calls per second of each client.
func (c config) rate() float64 { return c.load * capacity }

// A result is what a run measured. All times count from its start.
type result struct {
	cfg     config
	end     time.Duration // of the script, or when the run was stopped
	clients []*client
}

// A client calls its own server, and records its calls.
type client struct {
	name     string
	call     effector
	arrivals []time.Duration // of its requests at the server
	restarts []time.Duration // of the server

	mu     sync.Mutex // guards the following: a change may come from the breaker's timer
	calls  []call
	states []change // of its breaker, beginning with the first state; empty without a breaker
}

// A call has ended with an answer or an error.
type call struct {
	at   time.Duration // when it was due
	took time.Duration // from then to the answer or error
	ok   bool
}

// good reports whether the caller got an answer while it still waited for one.
func (c call) good() bool { return c.ok && c.took <= patience }

// A change is a new state of a breaker.
type change struct {
	at    time.Duration
	state breaker.State
}

// A network connects clients to their servers.
type network struct {
	listen func() (net.Listener, error)
	dial   func(ctx context.Context, network, address string) (net.Conn, error)
}

// loopback is the real network of this machine.
var loopback = network{
	listen: func() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") },
	dial:   new(net.Dialer).DialContext,
}

// measure runs the clients until the end of the script or until ctx is done. It calls progress with
// the time since the start.
func measure(ctx context.Context, cfg config, network network, progress func(elapsed time.Duration)) (*result, error) {
	transport := &http.Transport{DialContext: network.dial, MaxIdleConnsPerHost: queueSize}
	defer transport.CloseIdleConnections()
	start := time.Now()
	r := &result{cfg: cfg}
	var servers []*server
	for _, spec := range cfg.clients() {
		listener, err := network.listen()
		if err != nil {
			return nil, err
		}
		s := serve(listener, start, cfg)
		defer s.close()
		servers = append(servers, s)
		c := &client{name: spec.name}
		if spec.breaker {
			c.states = []change{{0, breaker.Closed}}
		}
		get := getter(&http.Client{Transport: transport}, "http://"+listener.Addr().String())
		c.call = spec.new(get, func(t breaker.Transition) { c.changed(t.At.Sub(start), t.To) })
		r.clients = append(r.clients, c)
	}

	r.end = load(ctx, start, cfg, r.clients, progress)
	for i, c := range r.clients {
		r.clients[i] = c.recorded(servers[i].arrived(), servers[i].restarted())
	}
	return r, nil
}

// A spec describes a client.
type spec struct {
	name    string
	new     clientFunc
	breaker bool
}

// clients returns the clients that the flags ask for.
func (c config) clients() []spec {
	specs := []spec{{"naive", naive, false}, {"pipeline", pipeline, true}}
	if c.warmUp > 0 {
		slowStart := func(get effector, onStateChange func(breaker.Transition)) effector {
			return pipelineStarting(c.warmUp, get, onStateChange)
		}
		specs = append(specs, spec{"slow start", slowStart, true})
	}
	if c.parts {
		specs = append(specs, spec{"budget only", budgetOnly, false}, spec{"breaker only", breakerOnly, true}, spec{"limit only", limitOnly, false})
	}
	return specs
}

// changed records a new state of the client's breaker.
func (c *client) changed(at time.Duration, state breaker.State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.states = append(c.states, change{at, state})
}

// recorded returns a copy of the client with its records, which its breaker no longer changes.
func (c *client) recorded(arrivals, restarts []time.Duration) *client {
	c.mu.Lock()
	defer c.mu.Unlock()
	return &client{name: c.name, arrivals: arrivals, restarts: restarts, calls: c.calls, states: c.states}
}

// load starts a call of each client at fixed instants, however long earlier calls take: callers don't
// wait for each other. If ctx ends, it starts no more calls. It returns when the last call has ended:
// the end of the script, or the time at which ctx ended.
func load(ctx context.Context, start time.Time, cfg config, clients []*client, progress func(time.Duration)) time.Duration {
	var calls sync.WaitGroup
	defer calls.Wait()
	// An interrupted call would be neither good nor bad, and long calls are the likely ones to be
	// interrupted. So all calls run to their end.
	uninterrupted := context.WithoutCancel(ctx)
	interval := time.Duration(float64(time.Second) / cfg.rate())
	for at := time.Duration(0); at < cfg.total(); at += interval {
		select {
		case <-time.After(time.Until(start.Add(at))):
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return min(time.Since(start), cfg.total())
		}
		progress(at)
		for _, c := range clients {
			calls.Go(func() { c.do(uninterrupted, start, at) })
		}
	}
	progress(cfg.total())
	return cfg.total()
}

// do makes the call that is due at the given time and records it.
func (c *client) do(ctx context.Context, start time.Time, at time.Duration) {
	_, err := c.call(ctx)
	took := time.Since(start) - at
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, call{at, took, err == nil})
}
