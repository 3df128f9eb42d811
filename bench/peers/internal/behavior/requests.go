package behavior

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"time"
)

// A site is a server together with a client that uses the subject. Both are those of net/http,
// connected in memory so that their time is virtual too.
type site struct {
	refused int64 // how many dials are refused, the first ones
	dials   atomic.Int64
	client  http.Client
	base    *http.Transport
	server  *http.Server
	accepts chan net.Conn
	closed  chan struct{}
}

// visit starts a server with this handler, and a client that uses the subject with this setup. The
// caller must leave it.
func (s Subject) visit(w setup, handler http.HandlerFunc) *site {
	at := &site{accepts: make(chan net.Conn), closed: make(chan struct{})}
	at.server = &http.Server{Handler: handler, ErrorLog: log.New(io.Discard, "", 0)}
	at.base = &http.Transport{DialContext: at.dial}
	at.client.Transport = s.over(at.base, w)
	go at.server.Serve(at)
	return at
}

// leave closes the server and all connections.
func (at *site) leave() {
	at.base.CloseIdleConnections()
	at.server.Close()
}

func (at *site) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if at.dials.Add(1) <= at.refused {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	near, far := net.Pipe()
	select {
	case at.accepts <- far:
		return near, nil
	case <-at.closed:
	case <-ctx.Done():
	}
	return nil, errors.New("the server is closed")
}

// Accept, Close, and Addr make the site the server's net.Listener.
func (at *site) Accept() (net.Conn, error) {
	select {
	case conn := <-at.accepts:
		return conn, nil
	case <-at.closed:
		return nil, net.ErrClosed
	}
}

func (at *site) Close() error   { close(at.closed); return nil }
func (at *site) Addr() net.Addr { return &net.UnixAddr{Name: "site", Net: "memory"} }

// An outcome is what the caller of a request gets.
type outcome struct {
	status int
	body   string
	err    error         // of the request, or of reading the body
	took   time.Duration // until the headers or the error arrived
}

// send sends a request and reads the whole response. A POST has a body that can be replayed.
func (at *site) send(ctx context.Context, method string) (o outcome) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends what the subject left open
	var body io.Reader
	if method == http.MethodPost {
		body = bytes.NewReader([]byte("an order"))
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://site.test/", body)
	if err != nil {
		return outcome{err: err}
	}
	start := time.Now()
	response, err := at.client.Do(request)
	o.err, o.took = err, time.Since(start)
	if err != nil {
		return o
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	o.status, o.body, o.err = response.StatusCode, string(text), err
	return o
}

// patient is the setup of the questions about clients, apart from what each one is about.
var patient = setup{attempts: 4, delay: 10 * time.Millisecond, limit: 24 * time.Hour}

var sendsPostOnce = Question{
	ID: "post", Name: "sends a POST once if the response is 500",
	Text: "The response to a POST is always 500, and 4 attempts are allowed. Yes if the server gets it once.",
	detail: func(s Subject) (string, bool) {
		var sent atomic.Int64
		at := s.visit(patient, func(w http.ResponseWriter, _ *http.Request) {
			sent.Add(1)
			w.WriteHeader(http.StatusInternalServerError)
		})
		defer at.leave()
		at.send(context.Background(), http.MethodPost)
		return fmt.Sprintf("sent %d×", sent.Load()), sent.Load() == 1
	},
}

var returnsLastResponse = Question{
	ID: "response", Name: "returns the last response",
	Text: "The response to each of 4 attempts of a GET is 503, with the number of the attempt as body. Yes if the caller gets the " +
		"fourth, status and body.",
	detail: func(s Subject) (string, bool) {
		var sent atomic.Int64
		at := s.visit(patient, func(w http.ResponseWriter, _ *http.Request) {
			n := sent.Add(1)
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintf(w, "response %d", n)
		})
		defer at.leave()
		switch o := at.send(context.Background(), http.MethodGet); {
		case o.status == 0:
			return "an error", false
		case o.status == http.StatusServiceUnavailable && o.body == "response 4" && o.err == nil:
			return "status and body", true
		default:
			return fmt.Sprintf("status %d, body %q, error %v", o.status, o.body, o.err), false
		}
	},
}

var neverSleepsPastDeadlineHTTP = Question{
	ID: "deadline", Name: "never sleeps past the deadline",
	Text: "The response to a GET is 503 with a Retry-After of a year, and the caller's deadline is in 2 s. Yes if the caller gets " +
		"an error immediately; otherwise how long it slept.",
	detail: func(s Subject) (string, bool) {
		at := s.visit(patient, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "31536000")
			w.WriteHeader(http.StatusServiceUnavailable)
		})
		defer at.leave()
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		o := at.send(ctx, http.MethodGet)
		return fmt.Sprintf("%g s", o.took.Seconds()), o.took == 0
	},
}

var repeatsUnsentPost = Question{
	ID: "refused", Name: "repeats a POST whose dial was refused",
	Text: "The first dial for a POST is refused, the next is accepted. Yes if the server gets the POST once and the caller gets " +
		"the response.",
	ask: func(s Subject) bool {
		var sent atomic.Int64
		at := s.visit(patient, func(http.ResponseWriter, *http.Request) { sent.Add(1) })
		defer at.leave()
		at.refused = 1
		o := at.send(context.Background(), http.MethodPost)
		return o.status == http.StatusOK && o.err == nil && sent.Load() == 1
	},
}

var leavesBody = Question{
	ID: "body", Name: "lets a body outlive the attempt's limit",
	Text: "An attempt may take 1 s. The headers arrive immediately, the rest of the body after 3 s. Yes if the caller can read all " +
		"of it. (The limit of go-retryablehttp is the Timeout of its http.Client.)",
	ask: func(s Subject) bool {
		w := patient
		w.limit = time.Second
		at := s.visit(w, func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "slow ")
			w.(http.Flusher).Flush()
			time.Sleep(3 * time.Second)
			io.WriteString(w, "body")
		})
		defer at.leave()
		o := at.send(context.Background(), http.MethodGet)
		return o.status == http.StatusOK && o.body == "slow body" && o.err == nil
	},
}

var keepsLastErrorHTTP = Question{
	ID: "last-error", Name: "keeps the last error if canceled during a wait",
	Text: "Dials are refused, and the caller cancels 1 s into a wait of 10 s. Yes if an error is returned immediately, and " +
		"errors.Is finds the error of the refused dial in it.",
	ask: func(s Subject) bool {
		w := patient
		w.delay = 10 * time.Second
		at := s.visit(w, func(http.ResponseWriter, *http.Request) {})
		defer at.leave()
		at.refused = int64(w.attempts)
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(time.Second, cancel)
		o := at.send(ctx, http.MethodGet)
		return errors.Is(o.err, syscall.ECONNREFUSED) && o.took == time.Second
	},
}

var reusesConnection = Question{
	ID: "reuse", Name: "reuses the connection after a retried 503",
	Text: "The response to a GET is 503 with a body of 2 KiB, then 200. Yes if both arrive over one connection.",
	detail: func(s Subject) (string, bool) {
		var sent atomic.Int64
		at := s.visit(patient, func(w http.ResponseWriter, _ *http.Request) {
			if sent.Add(1) == 1 {
				w.WriteHeader(http.StatusServiceUnavailable)
				w.Write(make([]byte, 2<<10))
			}
		})
		defer at.leave()
		o := at.send(context.Background(), http.MethodGet)
		return fmt.Sprintf("%d dialed", at.dials.Load()), o.status == http.StatusOK && at.dials.Load() == 1
	},
}
