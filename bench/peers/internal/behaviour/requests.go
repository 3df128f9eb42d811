package behaviour

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

// A site is a server and what a subject's client reaches it by: net/http's own, over connections in memory, so that their time
// is virtual too.
type site struct {
	refused int64        // so many dials, the first ones
	dials   atomic.Int64 // tried
	client  http.Client
	base    *http.Transport
	server  *http.Server
	accepts chan net.Conn
	closed  chan struct{}
}

// visit starts a server of the handler's, for the subject as wanted. It must be left.
func (s Subject) visit(w want, handler http.HandlerFunc) *site {
	at := &site{accepts: make(chan net.Conn), closed: make(chan struct{})}
	at.server = &http.Server{Handler: handler, ErrorLog: log.New(io.Discard, "", 0)}
	at.base = &http.Transport{DialContext: at.dial}
	at.client.Transport = s.over(at.base, w)
	go at.server.Serve(at)
	return at
}

// leave ends the server and all connections.
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
	return nil, errors.New("nobody is there")
}

// Accept makes the site the server's net.Listener, as Close and Addr do.
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

// An outcome is what a caller gets.
type outcome struct {
	status int
	body   string
	err    error         // of the request or of reading the body
	took   time.Duration // until the headers or the error
}

// send sends a request and reads the answer to its end. A POST has a body that can be replayed.
func (at *site) send(ctx context.Context, method string) (o outcome) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends what the subject leaves open
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

// patient is what the probes of clients set, but for what each is about.
var patient = want{attempts: 4, delay: 10 * time.Millisecond, limit: 24 * time.Hour}

var sparesPost = Probe{
	ID: "post", Name: "send a POST once that was answered 500",
	Asks: "A POST is answered 500, whenever it is sent; 4 attempts are allowed. Yes if the server got it once.",
	tell: func(s Subject) (string, bool) {
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

var handsOnAnswer = Probe{
	ID: "answer", Name: "hand on the server's last answer",
	Asks: "A GET is answered 503 by each of 4 attempts, with a body that tells which. Yes if the caller gets the fourth, " +
		"status and body.",
	tell: func(s Subject) (string, bool) {
		var sent atomic.Int64
		at := s.visit(patient, func(w http.ResponseWriter, _ *http.Request) {
			n := sent.Add(1)
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintf(w, "answer %d", n)
		})
		defer at.leave()
		switch o := at.send(context.Background(), http.MethodGet); {
		case o.status == 0:
			return "an error", false
		case o.status == http.StatusServiceUnavailable && o.body == "answer 4" && o.err == nil:
			return "status and body", true
		default:
			return fmt.Sprintf("status %d, body %q, error %v", o.status, o.body, o.err), false
		}
	},
}

var sparesVainRetryAfter = Probe{
	ID: "deadline", Name: "avoid sleeping past the deadline",
	Asks: "A GET is answered 503 with a Retry-After of a year, the caller's deadline is in 2 s. Yes if the caller is " +
		"told at once; else how long it slept.",
	tell: func(s Subject) (string, bool) {
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

var repeatsRefusedPost = Probe{
	ID: "refused", Name: "send a POST again whose dial was refused",
	Asks: "The first dial for a POST is refused, the next is not. Yes if the server gets it, once, and the caller the answer.",
	ask: func(s Subject) bool {
		var sent atomic.Int64
		at := s.visit(patient, func(http.ResponseWriter, *http.Request) { sent.Add(1) })
		defer at.leave()
		at.refused = 1
		o := at.send(context.Background(), http.MethodPost)
		return o.status == http.StatusOK && o.err == nil && sent.Load() == 1
	},
}

var leavesBody = Probe{
	ID: "body", Name: "let a body outlive the attempt's limit",
	Asks: "An attempt may take 1 s. The headers come at once, the rest of the body after 3 s. Yes if the caller can read " +
		"it to its end. (go-retryablehttp's limit is the Timeout of its http.Client.)",
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

var keepsErrorOfAttempt = Probe{
	ID: "last-error", Name: "keep the last error when cancelled while waiting",
	Asks: "Dials are refused, and the caller cancels 1 s into a wait of 10 s. Yes if the error comes at once and is, for " +
		"errors.Is, the refused dial's.",
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

var reusesConnection = Probe{
	ID: "reuse", Name: "reuse the connection after a retried 503",
	Asks: "A GET is answered 503 with a body of 2 KiB, and 200 when it is sent again. Yes if both came over one connection.",
	tell: func(s Subject) (string, bool) {
		var sent atomic.Int64
		at := s.visit(patient, func(w http.ResponseWriter, _ *http.Request) {
			if sent.Add(1) == 1 {
				w.WriteHeader(http.StatusServiceUnavailable)
				w.Write(make([]byte, 2<<10))
			}
		})
		defer at.leave()
		o := at.send(context.Background(), http.MethodGet)
		return fmt.Sprintf("%d dialled", at.dials.Load()), o.status == http.StatusOK && at.dials.Load() == 1
	},
}
