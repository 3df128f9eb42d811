package dbtest

import (
	"bytes"
	"context"
	"database/sql/driver"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// cuts decide which connections break, and when.
type cuts struct {
	mu     sync.Mutex // guards random
	random *rand.Rand

	off                            atomic.Bool
	before, during, after, between atomic.Int64 // how many there were, by their place
}

type place int

const (
	nowhere place = iota
	before        // COMMIT doesn't arrive
	during        // COMMIT arrives, and the connection breaks while the server commits
	after         // COMMIT is answered, and the answer is lost
	between       // another statement doesn't arrive
)

// next returns where to break a connection that carries a COMMIT, or another statement.
func (c *cuts) next(commit bool) place {
	if c.off.Load() {
		return nowhere
	}
	c.mu.Lock()
	n := c.random.IntN(100)
	c.mu.Unlock()
	switch {
	case commit && n < 10:
		c.before.Add(1)
		return before
	case commit && n < 20:
		c.during.Add(1)
		return during
	case commit && n < 30:
		c.after.Add(1)
		return after
	case !commit && n < 2:
		c.between.Add(1)
		return between
	}
	return nowhere
}

// A proxy forwards connections to a server and breaks some.
type proxy struct {
	net.Listener
	to   string
	cuts *cuts
	wait sync.WaitGroup
}

func newProxy(t *testing.T, to string, c *cuts) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{Listener: listener, to: to, cuts: c}
	p.wait.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			p.wait.Go(func() { p.serve(client) })
		}
	})
	return p
}

// Close stops the proxy after its clients have left.
func (p *proxy) Close() error {
	err := p.Listener.Close()
	p.wait.Wait()
	return err
}

func (p *proxy) serve(client net.Conn) {
	defer client.Close()
	server, err := net.DialTimeout("tcp", p.to, 5*time.Second)
	if err != nil {
		return
	}
	defer server.Close()
	var silent atomic.Bool // answers are lost
	answered := make(chan struct{}, 1)
	p.wait.Go(func() {
		defer client.Close()
		buffer := make([]byte, 64<<10)
		for {
			n, err := server.Read(buffer)
			if silent.Load() && n > 0 {
				answered <- struct{}{}
				return
			}
			if n > 0 {
				if _, err := client.Write(buffer[:n]); err != nil {
					return
				}
			}
			if err != nil {
				if silent.Load() {
					answered <- struct{}{}
				}
				return
			}
		}
	})
	buffer := make([]byte, 64<<10)
	for {
		n, err := client.Read(buffer)
		if err != nil {
			return
		}
		where := p.cuts.next(bytes.Contains(bytes.ToUpper(buffer[:n]), []byte("COMMIT")))
		if where == before || where == between {
			return
		}
		if where == after {
			silent.Store(true)
		}
		if _, err := server.Write(buffer[:n]); err != nil || where == during {
			return
		}
		if where == after {
			select {
			case <-answered:
			case <-time.After(5 * time.Second):
			}
			return
		}
	}
}

// lossy is a connector for SQLite that breaks as a connection through a proxy does.
type lossy struct {
	dsn  string
	base driver.Driver
	cuts *cuts
}

// inProcess holds the cuts of lossy connectors, by a name that takes the place of an address.
var inProcess sync.Map

func cutsOf(name string) *cuts {
	c, _ := inProcess.Load(name)
	return c.(*cuts)
}

func (l *lossy) Driver() driver.Driver { return l.base }

func (l *lossy) Connect(context.Context) (driver.Conn, error) {
	conn, err := l.base.Open(l.dsn)
	if err != nil {
		return nil, err
	}
	return &lossyConn{Conn: conn, cuts: l.cuts}, nil
}

type lossyConn struct {
	driver.Conn
	cuts   *cuts
	broken bool
}

func (c *lossyConn) statement() error {
	if c.broken || c.cuts.next(false) == between {
		c.broken = true
		return io.ErrUnexpectedEOF
	}
	return nil
}

func (c *lossyConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	if err := c.statement(); err != nil {
		return nil, err
	}
	tx, err := c.Conn.(driver.ConnBeginTx).BeginTx(ctx, opts)
	if err != nil {
		return nil, err
	}
	return &lossyTx{tx, c}, nil
}

func (c *lossyConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if err := c.statement(); err != nil {
		return nil, err
	}
	return c.Conn.(driver.ExecerContext).ExecContext(ctx, query, args)
}

func (c *lossyConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if err := c.statement(); err != nil {
		return nil, err
	}
	return c.Conn.(driver.QueryerContext).QueryContext(ctx, query, args)
}

type lossyTx struct {
	driver.Tx
	conn *lossyConn
}

func (t *lossyTx) Commit() error {
	if t.conn.broken {
		return io.ErrUnexpectedEOF
	}
	switch t.conn.cuts.next(true) {
	case before:
		t.conn.broken = true
		return driver.ErrBadConn
	case during, after:
		t.conn.broken = true
		if err := t.Tx.Commit(); err != nil {
			_ = t.Tx.Rollback()
		}
		return driver.ErrBadConn
	}
	return t.Tx.Commit()
}

func (t *lossyTx) Rollback() error {
	if t.conn.broken {
		return io.ErrUnexpectedEOF
	}
	return t.Tx.Rollback()
}
