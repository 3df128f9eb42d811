package resiliencehttp

import (
	"bufio"
	"maps"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// A writer is the handler's side of the server's writer. It has a header map of its own, so that a handler that was left behind
// shares nothing with the server, and a lock, so that nothing reaches the server's writer once the request is over.
type writer struct {
	server http.ResponseWriter
	header http.Header // the handler's

	// over is set, once, by leave before it takes the lock: a write that holds it is then the last one.
	over atomic.Bool

	mu       sync.Mutex // guards the following, and every use of server by the handler
	started  bool       // the handler runs, or has returned
	ended    bool       // it has returned
	status   int        // written; 0: none
	hijacked bool
	panic    any
}

// A fate is how a request stands when its policy has returned.
type fate int

const (
	notRun   fate = iota
	silent        // the handler wrote nothing until its ctx ended
	answered      // what it wrote stands, or the connection is its own
	cutOff        // it has begun to write, and was left behind
)

func newWriter(server http.ResponseWriter) *writer {
	header := server.Header().Clone()
	if header == nil {
		header = make(http.Header)
	}
	return &writer{server: server, header: header}
}

// face is the writer for the handler, with Hijack if the server's has it.
func (w *writer) face() http.ResponseWriter {
	for server := w.server; ; {
		if _, ok := server.(http.Hijacker); ok {
			return hijackWriter{w}
		}
		wrapped, ok := server.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return w
		}
		server = wrapped.Unwrap()
	}
}

// begin notes that the handler starts.
func (w *writer) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.started = true
}

// end notes that the handler has returned, and gives the status that it wrote: 200 if it wrote none, as net/http would say, or 0 if its
// ctx had ended by then, or the request is over.
func (w *writer) end(late bool) (status int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over.Load() {
		return 0
	}
	w.ended = true
	if w.hijacked {
		return http.StatusSwitchingProtocols
	}
	if w.status == 0 && late {
		return 0
	}
	if w.status == 0 {
		w.status = http.StatusOK
	}
	w.tellHeader() // trailers, if it was told before
	return w.status
}

// panicked notes a panic that is to go on from ServeHTTP, and reports whether the request is over: then it is not.
func (w *writer) panicked(value any) (over bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over.Load() {
		return true
	}
	w.ended, w.panic = true, value
	return false
}

// leave ends the request: nothing that the handler writes from now on reaches the server's writer.
func (w *writer) leave() (f fate, panicked any) {
	w.over.Store(true)
	if !w.mu.TryLock() {
		// The handler is writing, to a slow client perhaps. If this cannot be ended it must be waited for.
		http.NewResponseController(w.server).SetWriteDeadline(time.Unix(1, 0))
		w.mu.Lock()
	}
	defer w.mu.Unlock()
	switch {
	case w.hijacked || w.ended && w.status != 0:
		f = answered
	case w.status != 0:
		f = cutOff
	case w.started:
		f = silent
	}
	return f, w.panic
}

// Header is the handler's own. It reaches the client when the handler writes the status.
func (w *writer) Header() http.Header { return w.header }

// tellHeader makes the server's header what the handler's is.
func (w *writer) tellHeader() {
	header := w.server.Header()
	clear(header)
	maps.Copy(header, w.header.Clone())
}

// WriteHeader writes the status. It does nothing once the request is over.
func (w *writer) WriteHeader(status int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.over.Load() {
		w.writeHeader(status)
	}
}

func (w *writer) writeHeader(status int) {
	switch {
	case w.status != 0:
		w.server.WriteHeader(status) // which is superfluous, as the server says
	case 100 <= status && status <= 199 && status != http.StatusSwitchingProtocols:
		// Informational: the server's header is told, and then what it was.
		before := w.server.Header().Clone()
		w.tellHeader()
		w.server.WriteHeader(status)
		header := w.server.Header()
		clear(header)
		maps.Copy(header, before)
	default:
		w.tellHeader()
		w.server.WriteHeader(status)
		w.status = status
	}
}

// Write writes to the client. Its error is [http.ErrHandlerTimeout] once the request is over.
func (w *writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over.Load() {
		return 0, http.ErrHandlerTimeout
	}
	if w.status == 0 && !w.hijacked {
		w.writeHeader(http.StatusOK)
	}
	return w.server.Write(p)
}

// Flush sends what was written.
func (w *writer) Flush() { w.FlushError() }

// FlushError sends what was written. Its error is [http.ErrHandlerTimeout] once the request is over, and
// [http.ErrNotSupported] if the server's writer cannot.
func (w *writer) FlushError() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over.Load() {
		return http.ErrHandlerTimeout
	}
	if w.status == 0 && !w.hijacked {
		w.writeHeader(http.StatusOK)
	}
	return http.NewResponseController(w.server).Flush()
}

// Unwrap gives the server's writer to [http.ResponseController], until the request is over: the connection may serve
// another one then.
func (w *writer) Unwrap() http.ResponseWriter {
	if w.over.Load() {
		return nobody{}
	}
	return w.server
}

// nobody is the server's writer of a request that is over.
type nobody struct{}

func (nobody) Header() http.Header       { return make(http.Header) }
func (nobody) Write([]byte) (int, error) { return 0, http.ErrHandlerTimeout }
func (nobody) WriteHeader(int)           {}

// A hijackWriter is a writer whose connection the handler may take over.
type hijackWriter struct{ *writer }

// Hijack gives the connection to the handler, whose it is from then on, left behind or not.
func (w hijackWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over.Load() {
		return nil, nil, http.ErrHandlerTimeout
	}
	conn, buffered, err := http.NewResponseController(w.server).Hijack()
	if err == nil {
		w.hijacked = true
	}
	return conn, buffered, err
}
