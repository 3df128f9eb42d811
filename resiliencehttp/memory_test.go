package resiliencehttp_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/resiliencehttp"
	"github.com/effector-go/resilience/timeout"
)

// memory is a net/http server with a transport to it, over connections in memory, so that time is
// virtual in a bubble.
type memory struct {
	base   *http.Transport
	server *http.Server
	dialed chan net.Conn
	closed chan struct{}
}

func newMemory(t *testing.T, handler http.Handler) *memory {
	m := &memory{dialed: make(chan net.Conn), closed: make(chan struct{})}
	m.base = &http.Transport{DialContext: m.dial}
	m.server = &http.Server{Handler: handler, ErrorLog: silent}
	go m.server.Serve(m)
	t.Cleanup(func() {
		m.base.CloseIdleConnections()
		m.server.Close()
	})
	return m
}

func (m *memory) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case m.dialed <- far:
		return near, nil
	case <-m.closed:
		return nil, errors.New("nobody is there")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept, Close, and Addr implement net.Listener.
func (m *memory) Accept() (net.Conn, error) {
	select {
	case conn := <-m.dialed:
		return conn, nil
	case <-m.closed:
		return nil, net.ErrClosed
	}
}

func (m *memory) Close() error   { close(m.closed); return nil }
func (m *memory) Addr() net.Addr { return &net.UnixAddr{Name: "memory", Net: "memory"} }

// TestMiddlewareHonorsTransportDeadlineHeader: the server's context ends at the client's timeout,
// and its breaker stays closed.
func TestMiddlewareHonorsTransportDeadlineHeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{Consecutive: 1})
		began := time.Now()
		m := newMemory(t, guardWithHeader(b, func(w http.ResponseWriter, r *http.Request) {
			if deadline, ok := r.Context().Deadline(); !ok || deadline.Sub(began) != 20*time.Millisecond {
				t.Errorf("got deadline %v, %t, want 20ms, true", deadline.Sub(began), ok)
			}
			<-r.Context().Done()
			if r.Context().Err() != context.Canceled || time.Since(began) != 20*time.Millisecond {
				t.Errorf("got end of the handler's context with %v after %v, want context.Canceled after 20ms", r.Context().Err(), time.Since(began))
			}
		}))
		client := &http.Client{Transport: resiliencehttp.NewTransport(resiliencehttp.Config{
			Base:           m.base,
			Policies:       func(string) resilience.Policy { return timeout.After(20 * time.Millisecond) },
			DeadlineHeader: timeLeftHeader,
		})}
		response, err := client.Get("http://example.com/")
		if err == nil { // the server responded first
			response.Body.Close()
		}
		if time.Since(began) != 20*time.Millisecond {
			t.Errorf("got %v after %v", err, time.Since(began))
		}
		synctest.Wait()
		if b.State() != breaker.Closed {
			t.Errorf("got breaker state %v, want closed", b.State())
		}
	})
}

// TestTransportDeadlineHeaderEndsBody, although the policies' timeouts end with the headers, as
// documented.
func TestTransportDeadlineHeaderEndsBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t, guardWithHeader(resilience.Pipeline{}, func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "begun")
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
			case <-time.After(time.Hour):
				io.WriteString(w, ", ended")
			}
		}))
		for header, want := range map[string]string{"": "begun, ended", timeLeftHeader: "begun"} {
			client := &http.Client{Transport: resiliencehttp.NewTransport(resiliencehttp.Config{
				Base:           m.base,
				Policies:       func(string) resilience.Policy { return timeout.After(time.Second) },
				DeadlineHeader: header,
			})}
			response, err := client.Get("http://example.com/")
			if err != nil {
				t.Fatal(err)
			}
			if text := readAll(t, response); text != want {
				t.Errorf("header %q: got body %q, want %q", header, text, want)
			}
		}
	})
}
