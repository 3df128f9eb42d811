package main

import (
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// The server has a fixed number of workers. At its normal pace it handles capacity requests per second.
const (
	workers   = 4
	pace      = 20 * time.Millisecond // mean time that a worker spends on a request
	slowdown  = 10                    // factor by which a request takes longer in the trouble
	coldest   = 0.1                   // share of its capacity with which a cold server begins
	queueSize = 500                   // requests that may wait for a worker; the server answers 503 to the rest
	coldQueue = 50                    // requests that may wait while the server warms up; one more, and it restarts
	capacity  = float64(workers) * float64(time.Second) / float64(pace)
)

// A server handles requests as many servers do: each request waits for a worker, first come, first
// served. No worker notices that a client has gone, so the server also works on requests that nobody
// waits for anymore. That is what keeps an overloaded server down.
type server struct {
	cfg     config
	start   time.Time
	http    http.Server
	workers chan struct{}  // holds an element per busy worker
	closing chan struct{}  // closed by close
	running sync.WaitGroup // Serve and the handlers

	mu       sync.Mutex // guards the following
	random   *rand.Rand
	waiting  int
	arrivals []time.Duration // of requests, since start
	restart  chan struct{}   // closed when the server restarts, and replaced
	restarts []time.Duration // since start
}

// newServer returns a server that isn't connected to a network.
func newServer(start time.Time, cfg config) *server {
	return &server{
		cfg:     cfg,
		start:   start,
		workers: make(chan struct{}, workers),
		closing: make(chan struct{}),
		restart: make(chan struct{}),
		random:  rand.New(rand.NewPCG(cfg.seed, 0)),
	}
}

// serve starts a server on the listener.
func serve(listener net.Listener, start time.Time, cfg config) *server {
	s := newServer(start, cfg)
	s.http.Handler = s
	s.running.Go(func() { s.http.Serve(listener) }) // returns ErrServerClosed
	if cfg.warmUp > 0 {
		begin, _ := cfg.span(after)
		s.running.Go(func() {
			select {
			case <-time.After(time.Until(start.Add(begin))):
				s.mu.Lock()
				defer s.mu.Unlock()
				s.restartCold()
			case <-s.closing:
			}
		})
	}
	return s
}

// close ends all requests and waits for their handlers.
func (s *server) close() {
	close(s.closing)
	s.http.Close()
	s.running.Wait()
}

// ServeHTTP waits for a worker, works, and answers. It ignores the request's context.
func (s *server) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	s.running.Add(1)
	defer s.running.Done()
	luck, restart, ok := s.enqueue()
	if !ok {
		http.Error(w, "queue full", http.StatusServiceUnavailable)
		return
	}
	select {
	case s.workers <- struct{}{}:
		s.dequeue()
		defer func() { <-s.workers }()
	case <-restart:
		s.dequeue()
		http.Error(w, "restart", http.StatusServiceUnavailable)
		return
	case <-s.closing:
		return
	}

	work := time.Duration((0.5 + luck) * float64(pace) / s.warmth()) // half the pace to one and a half of it
	if s.cfg.phaseAt(time.Since(s.start)) == trouble {
		work *= slowdown
	}
	select {
	case <-time.After(work):
		io.WriteString(w, "done\n")
	case <-restart:
		http.Error(w, "restart", http.StatusServiceUnavailable)
	case <-s.closing:
	}
}

// enqueue counts a request and returns its random number, and a channel that is closed at the next
// restart. It reports false if the queue is full.
func (s *server) enqueue() (luck float64, restart chan struct{}, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.arrivals = append(s.arrivals, time.Since(s.start))
	if s.waiting >= coldQueue && s.warmthLocked() < 1 {
		s.restartCold()
		return 0, nil, false
	}
	if s.waiting >= queueSize {
		return 0, nil, false
	}
	s.waiting++
	return s.random.Float64(), s.restart, true
}

// restartCold fails all requests and makes the server cold. Its caller holds mu.
func (s *server) restartCold() {
	s.restarts = append(s.restarts, time.Since(s.start))
	close(s.restart)
	s.restart = make(chan struct{})
}

// warmth returns the share of its capacity that the server has.
func (s *server) warmth() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.warmthLocked()
}

func (s *server) warmthLocked() float64 {
	if len(s.restarts) == 0 {
		return 1
	}
	since := time.Since(s.start) - s.restarts[len(s.restarts)-1]
	return min(1, max(coldest, float64(since)/float64(s.cfg.warmUp)))
}

func (s *server) dequeue() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting--
}

// arrived returns the arrival times of all requests so far.
func (s *server) arrived() []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.arrivals)
}

// restarted returns the times of all restarts so far.
func (s *server) restarted() []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.restarts)
}
