package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
)

// pipes returns a network in memory, for runs in virtual time: a goroutine that waits for a real
// network would stop the virtual clock.
func pipes() network {
	var mu sync.Mutex
	listeners := map[string]*pipeListener{}
	return network{
		listen: func() (net.Listener, error) {
			mu.Lock()
			defer mu.Unlock()
			address := fmt.Sprintf("server-%d:80", len(listeners)+1)
			l := &pipeListener{address: address, conns: make(chan net.Conn), closed: make(chan struct{})}
			listeners[address] = l
			return l, nil
		},
		dial: func(ctx context.Context, _, address string) (net.Conn, error) {
			mu.Lock()
			l := listeners[address]
			mu.Unlock()
			client, server := net.Pipe()
			select {
			case l.conns <- server:
				return client, nil
			case <-l.closed:
				return nil, errors.New("connection refused")
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
	}
}

// A pipeListener is a net.Listener and its own net.Addr.
type pipeListener struct {
	address string
	conns   chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr  { return l }
func (l *pipeListener) Network() string { return "pipe" }
func (l *pipeListener) String() string  { return l.address }
