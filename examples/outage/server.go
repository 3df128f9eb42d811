package main

import (
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"
)

// script is the health of the servers over time.
var script = []phase{
	{"healthy", healthy, 3},
	{"slow", slow, 4},
	{"hanging and failing", down, 8},
	{"healthy again", healthy, 5},
}

type phase struct {
	name   string
	health health
	units  int // its length
}

type health int

const (
	healthy health = iota // answers in about 40 ms (times are those of the full run)
	slow                  // answers in 1 to 3 s
	down                  // every other request hangs for 3 s, all fail
)

// total is the length of the script.
func total(unit time.Duration) time.Duration {
	_, end := span(len(script)-1, unit)
	return end
}

// span is when a phase begins and ends.
func span(i int, unit time.Duration) (begin, end time.Duration) {
	for _, p := range script[:i] {
		begin += time.Duration(p.units) * unit
	}
	return begin, begin + time.Duration(script[i].units)*unit
}

// phaseAt is the index of the phase at that time; the last phase goes on for ever.
func phaseAt(elapsed, unit time.Duration) int {
	for i := range script {
		if _, end := span(i, unit); elapsed < end {
			return i
		}
	}
	return len(script) - 1
}

// A server answers by the script. Like a real one it can do only so much at a time: it has a number of workers (database
// connections, say), a request waits for a free one, and a worker that hangs does not notice that its client is gone. So
// retries of a slow request make the server slower.
type server struct {
	url      string
	start    time.Time
	unit     time.Duration
	http     http.Server
	workers  chan struct{} // as many places as there are workers
	closing  chan struct{} // closed by close
	handlers sync.WaitGroup

	mu       sync.Mutex // guards what follows
	random   *rand.Rand
	requests []time.Duration // when each arrived, since start
}

// serve starts a server on a free port of the loopback interface.
func serve(start time.Time, cfg config) (*server, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &server{
		url:     "http://" + listener.Addr().String(),
		start:   start,
		unit:    cfg.unit,
		workers: make(chan struct{}, max(2, int(1.2*float64(cfg.rate)*cfg.unit.Seconds()))), // 30 times what health needs
		closing: make(chan struct{}),
		random:  rand.New(rand.NewPCG(cfg.seed, 0)),
	}
	s.http.Handler = s
	s.handlers.Go(func() { s.http.Serve(listener) }) // returns ErrServerClosed
	return s, nil
}

// close ends all requests and waits for their handlers.
func (s *server) close() {
	close(s.closing)
	s.http.Close()
	s.handlers.Wait()
}

// ServeHTTP waits for a worker and lets it answer.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.handlers.Add(1)
	defer s.handlers.Done()
	luck := s.arrived()
	select {
	case s.workers <- struct{}{}:
		defer func() { <-s.workers }()
	case <-r.Context().Done(): // the client gave up while it waited
		return
	}

	status, work := s.health(luck)
	select {
	case <-time.After(work):
	case <-s.closing:
	}
	w.WriteHeader(status)
	io.WriteString(w, http.StatusText(status)+"\n")
}

// arrived counts a request and gives it its random number.
func (s *server) arrived() (luck float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, time.Since(s.start))
	return s.random.Float64()
}

// health says how a request that gets its worker now will fare.
func (s *server) health(luck float64) (status int, work time.Duration) {
	about := func(units float64) time.Duration { // half of it to one and a half
		return time.Duration((0.5 + luck) * units * float64(s.unit))
	}
	switch script[phaseAt(time.Since(s.start), s.unit)].health {
	case slow:
		return http.StatusOK, about(2)
	case down:
		if luck < 0.5 {
			return http.StatusServiceUnavailable, 3 * s.unit
		}
		return http.StatusServiceUnavailable, about(0.02)
	}
	return http.StatusOK, about(0.04)
}

// arrivals is when requests arrived so far.
func (s *server) arrivals() []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]time.Duration(nil), s.requests...)
}
