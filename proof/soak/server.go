package main

import (
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A request is sent on a connection after the reply to the previous request.
type request struct {
	call  uint64
	send  uint32 // number of the request within the call, from 1
	write bool   // the call must be made at most once
}

const requestSize, replySize = 16, 9

func (r request) encode() []byte {
	b := make([]byte, requestSize)
	binary.BigEndian.PutUint64(b, r.call)
	binary.BigEndian.PutUint32(b[8:], r.send)
	if r.write {
		b[12] = 1
	}
	return b
}

func decode(b []byte) request {
	return request{binary.BigEndian.Uint64(b), binary.BigEndian.Uint32(b[8:]), b[12] == 1}
}

// mix returns a number that depends on all of the request. Sums of it reveal differences that
// counts don't.
func (r request) mix() uint64 { return rand.NewPCG(r.call, uint64(r.send)).Uint64() }

// The server's replies: the status, then the call's number.
const (
	statusOK byte = iota
	statusError
	statusBusy   // retry a little later
	statusReject // don't retry
)

// A server reads requests from its connections, counts them, and answers according to its current
// health.
type server struct {
	listener net.Listener
	seed     uint64
	start    time.Time
	unit     time.Duration // duration of one entry of the script
	healed   atomic.Bool   // the script is over: there are no more faults
	ended    sync.WaitGroup

	received atomic.Int64
	sum      atomic.Uint64 // of all requests' mix
	repeated atomic.Int64  // requests of an at-most-once call after its first

	closing     chan struct{} // closed by close, with mu held
	mu          sync.Mutex    // guards connections
	connections map[net.Conn]struct{}
}

// health holds the probability of each fault. All other requests are answered immediately.
type health struct{ errors, slow, hang, drop float64 }

// script is repeated by the server; each entry lasts one unit. It always contains more failures
// than the budget allows retries for.
var script = [...]health{
	{errors: 0.12, slow: 0.002, hang: 0.001, drop: 0.01},
	{errors: 0.08, slow: 0.01, drop: 0.002},
	{errors: 0.05, slow: 0.6, hang: 0.02},
	{errors: 0.10},
	{errors: 0.7, hang: 0.2, drop: 0.1},
	{errors: 0.2, slow: 0.05, hang: 0.01, drop: 0.1},
}

const slowest, longestHang = 500 * time.Millisecond, 900 * time.Millisecond

func serve(seed uint64, unit time.Duration) (*server, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &server{
		listener: listener, seed: seed, start: time.Now(), unit: unit,
		closing: make(chan struct{}), connections: map[net.Conn]struct{}{},
	}
	s.ended.Go(s.accept)
	return s, nil
}

func (s *server) accept() {
	for {
		conn, err := s.listener.Accept()
		if err == nil {
			s.ended.Go(func() { s.handle(conn) })
			continue
		}
		select {
		case <-s.closing:
			return
		case <-time.After(10 * time.Millisecond): // for example, too many open files: clients wait in the queue
		}
	}
}

func (s *server) handle(conn net.Conn) {
	defer conn.Close()
	if !s.enter(conn) {
		return
	}
	defer s.leave(conn)
	b := make([]byte, requestSize)
	for {
		if _, err := io.ReadFull(conn, b); err != nil {
			return // the client closed it; everything written before has been read
		}
		r := decode(b)
		s.received.Add(1)
		s.sum.Add(r.mix())
		if r.write && r.send > 1 {
			s.repeated.Add(1)
		}
		if !s.answer(conn, r) {
			return
		}
	}
}

func (s *server) enter(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.closing:
		return false
	default:
		s.connections[conn] = struct{}{}
		return true
	}
}

func (s *server) leave(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.connections, conn)
}

// open returns the number of connections.
func (s *server) open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.connections)
}

// close ends the server and all its goroutines.
func (s *server) close() {
	s.mu.Lock()
	close(s.closing)
	s.listener.Close()
	for conn := range s.connections {
		conn.Close()
	}
	s.mu.Unlock()
	s.ended.Wait()
}

// answer replies to a request or not. It reports whether to keep the connection.
func (s *server) answer(conn net.Conn, r request) (keep bool) {
	random := rand.New(rand.NewPCG(s.seed^r.call, uint64(r.send)))
	status := statusOK
	if !s.healed.Load() {
		h := script[int(time.Since(s.start)/s.unit)%len(script)]
		switch luck := random.Float64(); {
		case luck < h.drop:
			conn.Write(make([]byte, random.IntN(replySize))) // sometimes a part of a reply
			return false
		case luck < h.drop+h.hang:
			if !s.wait(conn, longestHang) {
				return false
			}
		case luck < h.drop+h.hang+h.slow:
			if !s.wait(conn, slowest/2+upTo(random, slowest/2)) {
				return false
			}
		case luck < h.drop+h.hang+h.slow+h.errors:
			status = [...]byte{statusError, statusError, statusError, statusError, statusBusy, statusReject}[random.IntN(6)]
		}
	}
	reply := append([]byte{status}, r.encode()[:replySize-1]...)
	_, err := conn.Write(reply)
	return err == nil
}

// wait waits, and reports false if the client closes the connection meanwhile. The client sends
// nothing before it has the reply.
func (s *server) wait(conn net.Conn, d time.Duration) bool {
	conn.SetReadDeadline(time.Now().Add(d))
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		panic("soak: a request came before the last one was answered")
	} else if nerr, ok := err.(net.Error); !ok || !nerr.Timeout() {
		return false
	}
	conn.SetReadDeadline(time.Time{})
	return true
}

// upTo returns a random duration below max.
func upTo(random *rand.Rand, max time.Duration) time.Duration {
	return time.Duration(random.Int64N(int64(max)))
}
