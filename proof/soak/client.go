package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/retry"
)

// A lease is the value of a call: a resource that must be given back exactly once, by the caller
// that gets it or by the Discard policy.
type lease struct {
	call    *call
	attempt int64
	status  byte // of the reply
	back    atomic.Bool
}

// An attemptError is the error of an attempt. Each attempt has its own, so that callers can
// recognize it.
type attemptError struct {
	call    uint64
	attempt int64
	err     error
}

func (e *attemptError) Error() string {
	return fmt.Sprintf("attempt %d of call %d: %v", e.attempt, e.call, e.err)
}

func (e *attemptError) Unwrap() error { return e.err }

var (
	errBlown   = errors.New("soak: a panic on purpose")
	errRefused = errors.New("connection refused on purpose")
)

// A client makes attempts at the server.
type client struct {
	ledger  *ledger
	address string
	seed    uint64
	quiet   atomic.Bool   // set when it must cause no more faults
	idle    chan net.Conn // connections for the next attempts
}

// effector returns the effector of all pipelines. Check turns an unsuccessful reply into an error,
// so there are values with errors, which no caller gets.
func (cl *client) effector() resilience.Effector[*lease] {
	ask := resilience.Effector[*lease](cl.attempt).Check(cl.check)
	return func(ctx context.Context) (*lease, error) {
		cl.ledger.attempts.Add(1)
		defer cl.ledger.attemptsEnded.Add(1) // also after a panic or Goexit
		return ask(ctx)
	}
}

func (cl *client) attempt(ctx context.Context) (*lease, error) {
	c := callOf(ctx)
	n := c.attempts.Add(1)
	if !c.ignoresContext && retry.Attempt(ctx) != int(n) {
		cl.ledger.violated(wrongNumber, "call %d: attempt %d has the number %d in retry.Attempt", c.id, n, retry.Attempt(ctx))
	}
	if c.rejected {
		cl.ledger.violated(afterPermanent, "call %d: attempt %d after a permanent error", c.id, n)
	}
	random := rand.New(rand.NewPCG(cl.seed^c.id, uint64(n)<<32))
	late := random.IntN(2) == 0
	if !late {
		c.blowUp()
	}
	if !cl.quiet.Load() && random.Float64() < 0.02 {
		return nil, resilience.NotMade(c.failed(n, errRefused))
	}
	l, err := cl.ask(ctx, c, n)
	if err == nil && late {
		c.blowUp()
	}
	if err == nil {
		cl.ledger.handed.Add(1)
	}
	return l, err
}

// blowUp ends the call's goroutine if the call's kind says so.
func (c *call) blowUp() {
	switch c.kind {
	case panics:
		panic(errBlown)
	case exits:
		runtime.Goexit()
	}
}

func (cl *client) check(l *lease) error {
	if l.status == statusOK {
		return nil
	}
	err := error(l.call.failed(l.attempt, fmt.Errorf("status %d", l.status)))
	switch l.status {
	case statusBusy:
		return resilience.WithRetryAfter(err, 20*time.Millisecond)
	case statusReject:
		if !l.call.ignoresContext {
			l.call.rejected = true
		}
		return retry.Permanent(err)
	}
	return err
}

// failed returns the error of an attempt. It becomes the call's last error if the caller always
// waits for the effector.
func (c *call) failed(attempt int64, err error) *attemptError {
	e := &attemptError{c.id, attempt, err}
	if !c.ignoresContext {
		c.last = e
	}
	return e
}

// ask sends a request and reads the reply. The server reads every request that was written
// completely, even if the connection is then closed. Only unread bytes could make closing it lose
// others, and there are none before the server has read the request.
func (cl *client) ask(ctx context.Context, c *call, attempt int64) (*lease, error) {
	if c.ignoresContext {
		ctx = context.WithoutCancel(ctx)
	}
	conn, err := cl.connect(ctx)
	if err != nil {
		return nil, resilience.NotMade(c.failed(attempt, err))
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	reply, err := cl.exchange(conn, request{c.id, c.sends.Add(1), c.write})
	if !stop() || err != nil {
		conn.Close()
	} else {
		cl.keep(conn)
	}
	if err != nil {
		return nil, c.failed(attempt, err)
	}
	if got := binary.BigEndian.Uint64(reply[1:]); got != c.id {
		cl.ledger.violated(foreignAnswer, "call %d got the server's reply to call %d", c.id, got)
	}
	return &lease{call: c, attempt: attempt, status: reply[0]}, nil
}

func (cl *client) exchange(conn net.Conn, r request) (reply [replySize]byte, err error) {
	n, err := conn.Write(r.encode())
	if n == requestSize {
		cl.ledger.sent.Add(1)
		cl.ledger.sentSum.Add(r.mix())
	}
	if err == nil {
		_, err = io.ReadFull(conn, reply[:])
	}
	return reply, err
}

func (cl *client) connect(ctx context.Context) (net.Conn, error) {
	select {
	case conn := <-cl.idle:
		return conn, nil
	default:
		return new(net.Dialer).DialContext(ctx, "tcp", cl.address)
	}
}

func (cl *client) keep(conn net.Conn) {
	select {
	case cl.idle <- conn:
	default:
		conn.Close()
	}
}

func (cl *client) closeIdle() {
	for {
		select {
		case conn := <-cl.idle:
			conn.Close()
		default:
			return
		}
	}
}
