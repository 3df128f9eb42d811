package resiliencehttp_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/resiliencehttp"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// A wire is a listener that runs the next of its scripts for each connection, and repeats the last.
type wire struct {
	net.Listener
	conns atomic.Int32
}

// newWire returns a wire that listens until the test ends.
func newWire(t *testing.T, scripts ...func(net.Conn)) *wire {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{Listener: listener}
	var g errgroup.Group
	t.Cleanup(func() {
		listener.Close()
		g.Wait()
	})
	g.Go(func() error {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return nil
			}
			script := scripts[min(int(w.conns.Add(1)), len(scripts))-1]
			g.Go(func() error {
				defer conn.Close()
				script(conn)
				return nil
			})
		}
	})
	return w
}

func (w *wire) url() string { return "http://" + w.Addr().String() }

// readThen reads one request, then calls then.
func readThen(then func(net.Conn)) func(net.Conn) {
	return func(conn net.Conn) {
		req, err := http.ReadRequest(bufio.NewReader(conn))
		if err != nil {
			return
		}
		io.Copy(io.Discard, req.Body)
		then(conn)
	}
}

func respond(text string) func(net.Conn) {
	return readThen(func(conn net.Conn) { io.WriteString(conn, text) })
}

var (
	hangUp    = func(net.Conn) {}
	fine      = respond("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nfine")
	midHeader = respond("HTTP/1.1 200 OK\r\nContent-Le")
	truncated = respond("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")
)

// retryingClient returns a client that makes three attempts, through its own transport.
func retryingClient(t *testing.T, change func(*http.Transport)) *http.Client {
	base := &http.Transport{}
	if change != nil {
		change(base)
	}
	t.Cleanup(base.CloseIdleConnections)
	return &http.Client{Transport: wrapped(base, designed)}
}

// TestTransportRetriesLostConnection if the request is repeatable, and only then.
func TestTransportRetriesLostConnection(t *testing.T) {
	for name, lost := range map[string]func(net.Conn){
		"before the request was read": hangUp,
		"before the headers":          readThen(hangUp),
		"in the headers":              midHeader,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWire(t, lost, lost, fine)
			response, err := retryingClient(t, nil).Get(w.url())
			if err != nil || readAll(t, response) != "fine" || w.conns.Load() != 3 {
				t.Errorf("GET: got %v, %v after %d connections", response, err, w.conns.Load())
			}
			w = newWire(t, lost, fine)
			response, err = retryingClient(t, nil).Post(w.url(), "", strings.NewReader("body"))
			if err == nil || w.conns.Load() != 1 {
				t.Errorf("POST: got %v, %v after %d connections, want an error after 1", response, err, w.conns.Load())
			}
		})
	}
}

// TestTransportReturnsTruncatedBody: the headers arrived, so the attempt has succeeded.
func TestTransportReturnsTruncatedBody(t *testing.T) {
	w := newWire(t, truncated, fine)
	response, err := retryingClient(t, nil).Get(w.url())
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if text, err := io.ReadAll(response.Body); string(text) != "short" || !errors.Is(err, io.ErrUnexpectedEOF) || w.conns.Load() != 1 {
		t.Errorf("got %q, %v after %d connections", text, err, w.conns.Load())
	}
}

// TestTransportRetriesRequestWithoutConnection, whatever its method: after a refused dial, an
// incomplete TLS handshake, or a refusal of a proxy. The exception is a request whose body can't be
// replayed.
func TestTransportRetriesRequestWithoutConnection(t *testing.T) {
	refused := func(fails int) (func(*http.Transport), *atomic.Int32) {
		dials := new(atomic.Int32)
		return func(base *http.Transport) {
			base.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
				if int(dials.Add(1)) <= fails {
					return nil, &net.OpError{Op: "dial", Err: errors.New("connection refused")}
				}
				return new(net.Dialer).DialContext(ctx, network, address)
			}
		}, dials
	}
	post := func(client *http.Client, url string, body io.Reader) (*http.Response, error) {
		return client.Post(url, "", body)
	}
	t.Run("refused dial", func(t *testing.T) {
		change, dials := refused(2)
		response, err := post(retryingClient(t, change), newWire(t, fine).url(), strings.NewReader("body"))
		if err != nil || readAll(t, response) != "fine" || dials.Load() != 3 {
			t.Errorf("got %v, %v after %d dials", response, err, dials.Load())
		}
	})
	t.Run("refused dial, a body that cannot be replayed", func(t *testing.T) {
		change, dials := refused(2)
		_, err := post(retryingClient(t, change), newWire(t, fine).url(), io.MultiReader(strings.NewReader("body")))
		var op *net.OpError
		if !errors.As(err, &op) || dials.Load() != 1 {
			t.Errorf("got %v after %d dials", err, dials.Load())
		}
	})
	t.Run("the error carries no mark", func(t *testing.T) {
		change, _ := refused(100)
		base := &http.Transport{}
		change(base)
		transport := wrapped(base, func(string) resilience.Policy { return resilience.Pipeline{} })
		again := resilience.Compose(func(context.Context) (*http.Response, error) {
			return transport.RoundTrip(newRequest(t, "POST", "http://127.0.0.1:1/", "x"))
		}, resilience.AtMostOnce, retry.New(retry.Config{Backoff: retry.Constant(0)}))
		var exhausted *retry.ExhaustedError
		if _, err := again(t.Context()); err == nil || errors.As(err, &exhausted) {
			t.Errorf("%v: a retry around the transport took the mark as its own", err)
		}
	})
	t.Run("unfinished TLS handshake", func(t *testing.T) {
		var conns atomic.Int32
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "fine") }))
		server.Config.ErrorLog = silent
		server.Listener = &hangingUp{server.Listener, &conns, 2}
		server.StartTLS()
		defer server.Close()
		client := retryingClient(t, func(base *http.Transport) { base.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} })
		response, err := post(client, server.URL, strings.NewReader("body"))
		if err != nil || readAll(t, response) != "fine" || conns.Load() != 3 {
			t.Errorf("got %v, %v after %d connections", response, err, conns.Load())
		}
	})
	t.Run("refusing proxy", func(t *testing.T) {
		var asked atomic.Int32
		proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			w.WriteHeader(http.StatusBadGateway)
		}))
		defer proxy.Close()
		client := retryingClient(t, func(base *http.Transport) {
			base.Proxy = func(*http.Request) (*url.URL, error) { return url.Parse(proxy.URL) }
		})
		if _, err := post(client, "https://example.com/", strings.NewReader("body")); err == nil || asked.Load() != 3 {
			t.Errorf("got %v after %d requests to the proxy, want an error after 3", err, asked.Load())
		}
	})
	t.Run("a Base without hooks proves nothing", func(t *testing.T) {
		calls := 0
		base := roundTripper(func(*http.Request) (*http.Response, error) {
			calls++
			return nil, &net.OpError{Op: "dial", Err: errors.New("connection refused")}
		})
		if _, err := wrapped(base, designed).RoundTrip(newRequest(t, "POST", "http://example.com/", "x")); err == nil || calls != 1 {
			t.Errorf("got %v after %d calls", err, calls)
		}
	})
}

// hangingUp is a listener that closes its first connections immediately.
type hangingUp struct {
	net.Listener
	conns *atomic.Int32
	first int32
}

func (l *hangingUp) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil || l.conns.Add(1) > l.first {
			return conn, err
		}
		conn.Close()
	}
}

// TestTransportReusesConnectionsOfDroppedResponses: three attempts use one connection, as counted
// by the server.
func TestTransportReusesConnectionsOfDroppedResponses(t *testing.T) {
	protocols(t, func(t *testing.T, protocol int) {
		var requests atomic.Int32
		s := newSite(t, protocol, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if requests.Add(1)%3 != 0 {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			io.WriteString(w, strings.Repeat("x", 50_000))
		}))
		client := &http.Client{Transport: wrapped(s.Client().Transport, designed)}
		reuses(t, &s.opened, func() {
			requests.Store(0)
			response, err := client.Get(s.URL)
			if err != nil || len(readAll(t, response)) != 50_000 || requests.Load() != 3 {
				t.Errorf("got %v, %v after %d requests", response, err, requests.Load())
			}
		})
	})
}

// TestTransportSlowBodyOutlivesTimeouts: the body arrives after the attempt's timeout has expired.
func TestTransportSlowBodyOutlivesTimeouts(t *testing.T) {
	limit := 50 * time.Millisecond
	written := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-written
		io.WriteString(w, "slow")
	}))
	defer server.Close()
	base := &http.Transport{}
	defer base.CloseIdleConnections()
	// The timeout is raised until this machine answers within it.
	for {
		client := &http.Client{Transport: wrapped(base, func(string) resilience.Policy { return timeout.After(limit) })}
		response, err := client.Get(server.URL)
		if err != nil {
			limit *= 2
			continue
		}
		time.AfterFunc(2*limit, func() { close(written) })
		if text := readAll(t, response); text != "slow" {
			t.Errorf("got %q", text)
		}
		return
	}
}

// TestTransportTwoHundredClientsDuringOutage: no goroutine, connection, or body is left, and each
// call ends.
func TestTransportTwoHundredClientsDuringOutage(t *testing.T) {
	protocols(t, func(t *testing.T, protocol int) {
		var calls, aborted atomic.Int32
		s := newSite(t, protocol, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch n := calls.Add(1); {
			case n < 400 || n >= 600: // healthy
			case r.Method == "POST" && aborted.Add(1) <= 5 || n%3 == 0:
				panic(http.ErrAbortHandler)
			default:
				w.Header().Set("Retry-After", "0")
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			io.WriteString(w, "body")
		}))
		before := goroutines()
		var bodies atomic.Int32
		base := s.Client().Transport
		client := &http.Client{Transport: resiliencehttp.NewTransport(resiliencehttp.Config{
			Base: roundTripper(func(req *http.Request) (*http.Response, error) {
				response, err := base.RoundTrip(req)
				if err == nil && response.Body != http.NoBody {
					bodies.Add(1)
					response.Body = &countedBody{ReadCloser: response.Body, open: &bodies}
				}
				return response, err
			}),
			Policies: func(key string) resilience.Policy {
				return resilience.Pipeline{
					timeout.After(10 * time.Minute),
					retry.New(retry.Config{Backoff: retry.FullJitter(time.Millisecond, 10*time.Millisecond)}),
					breaker.New(breaker.Config{Name: key, Consecutive: 20, OpenFor: 5 * time.Millisecond, MaxOpenFor: 20 * time.Millisecond}),
					timeout.After(5 * time.Minute),
				}
			},
		})}
		var g errgroup.Group
		var answered, refused, failed atomic.Int32
		for i := range 200 {
			g.Go(func() error {
				for j := range 10 {
					var body io.Reader
					method := "GET"
					if (i+j)%2 == 0 {
						method, body = "POST", strings.NewReader("x")
					}
					req, err := http.NewRequest(method, s.URL, body)
					if err != nil {
						return err
					}
					response, err := client.Do(req)
					switch {
					case errors.Is(err, resilience.ErrRefused):
						refused.Add(1)
					case err != nil:
						failed.Add(1)
					default:
						text, err := io.ReadAll(response.Body)
						response.Body.Close()
						if err != nil || string(text) != "body" {
							return fmt.Errorf("%s %q, %w", response.Status, text, err)
						}
						answered.Add(1)
					}
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		t.Logf("%d answered, %d refused, %d failed, %d requests reached the server", answered.Load(), refused.Load(), failed.Load(), calls.Load())
		if sum := answered.Load() + refused.Load() + failed.Load(); sum != 2000 || answered.Load() == 0 || refused.Load() == 0 || failed.Load() == 0 {
			t.Errorf("%d calls were answered, want 2000, in each of the three ways", sum)
		}
		if n := bodies.Load(); n != 0 {
			t.Errorf("%d bodies are open", n)
		}
		s.Client().CloseIdleConnections() // the counting Base hides it from client
		s.Close()
		if n := s.open.Load(); n != 0 {
			t.Errorf("%d connections are open", n)
		}
		eventually(t, "all goroutines have ended", func() bool { return noneSince(before) })
	})
}

type countedBody struct {
	io.ReadCloser
	open   *atomic.Int32
	closed atomic.Bool
}

func (b *countedBody) Close() error {
	if b.closed.CompareAndSwap(false, true) {
		b.open.Add(-1)
	}
	return b.ReadCloser.Close()
}

// TestTransportClosesResponseOfHedgeLoser: of two concurrent attempts, the loser's response arrives
// late.
func TestTransportClosesResponseOfHedgeLoser(t *testing.T) {
	late, dropped := make(chan struct{}), make(chan struct{})
	body := &trackedBody{Reader: strings.NewReader("x")}
	var attempts atomic.Int32
	base := roundTripper(func(req *http.Request) (*http.Response, error) {
		if attempts.Add(1) == 1 {
			<-late
			return &http.Response{StatusCode: 200, Body: &signalingBody{closed: dropped}, ContentLength: -1}, nil
		}
		return &http.Response{StatusCode: 200, Body: body, ContentLength: -1}, nil
	})
	var g errgroup.Group
	hedge := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		loser, winner := next.Fork(), next.Fork()
		g.Go(func() error {
			err := loser.Run(ctx)
			loser.Discard()
			return err
		})
		for attempts.Load() == 0 {
			runtime.Gosched()
		}
		err := winner.Run(ctx)
		next.Adopt(winner)
		return err
	})
	response, err := through(base, hedge).RoundTrip(newRequest(t, "PUT", "http://example.com/", "body"))
	if err != nil || readAll(t, response) != "x" {
		t.Fatalf("got %v, %v", response, err)
	}
	close(late)
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	<-dropped
	checkClosed(t, []*trackedBody{body})
}

// TestTransportDropsResponseOfAbandonedAttempt when it arrives.
func TestTransportDropsResponseOfAbandonedAttempt(t *testing.T) {
	late := make(chan struct{})
	closed := make(chan struct{})
	base := roundTripper(func(*http.Request) (*http.Response, error) { // ignores its context
		<-late
		return &http.Response{StatusCode: 200, Body: &signalingBody{closed: closed}, ContentLength: -1}, nil
	})
	policy := timeout.New(timeout.Config{Limit: time.Millisecond, Abandon: 10})
	response, err := through(base, policy).RoundTrip(newRequest(t, "GET", "http://example.com/", ""))
	if response != nil || !errors.Is(err, timeout.ErrTimeout) || policy.Abandoned() != 1 {
		t.Fatalf("got %v, %v", response, err)
	}
	close(late)
	<-closed
}

type signalingBody struct{ closed chan struct{} }

func (*signalingBody) Read([]byte) (int, error) { return 0, io.EOF }
func (b *signalingBody) Close() error {
	close(b.closed)
	return nil
}
