package resiliencehttp

import (
	"bufio"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A writer is the handler's side of the server's writer. It has a header map of its own, so that a handler that was left behind
// shares nothing with the server, and locks, so that nothing reaches the server's writer once the request is over.
type writer struct {
	server http.ResponseWriter
	header http.Header // the handler's

	// over is set, once, by leave before it takes mu: a write that holds mu is then the last one.
	over    atomic.Bool
	control sync.Mutex // guards that over does not become true while a deadline is being set; a write may hold mu meanwhile

	mu       sync.Mutex   // guards the following, and every use of server by the handler but for deadlines
	told     http.Header  // what header was when the server was last told
	started  bool         // the handler runs, or has returned
	ended    bool         // it has returned
	status   atomic.Int32 // written; 0: none. leave reads it without mu, to see whether a write in progress may last
	hijacked bool
	panic    any
}

// A fate is how a request stands when its policy has returned.
type fate int

const (
	notRun     fate = iota
	silent          // the handler wrote nothing until its ctx ended
	leftSilent      // it has written nothing and was left behind
	answered        // what it wrote stands, or the connection is its own
	cutOff          // it has begun to write, and was left behind
)

// past is a deadline that ends what is in progress.
var past = time.Unix(1, 0)

func newWriter(server http.ResponseWriter) *writer {
	header := server.Header().Clone()
	if header == nil {
		header = make(http.Header)
	}
	return &writer{server: server, header: header, told: header.Clone()}
}

// face is the writer for the handler, with Hijack if the server's has it.
func (w *writer) face() http.ResponseWriter {
	if has[http.Hijacker](w.server) {
		return hijackWriter{w}
	}
	return w
}

// has reports whether server is an I, or wraps one in the manner of [http.ResponseController].
func has[I any](server http.ResponseWriter) bool {
	for {
		if _, ok := server.(I); ok {
			return true
		}
		wrapper, ok := server.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return false
		}
		server = wrapper.Unwrap()
	}
}

// begin notes that the handler starts, and reports whether it may: not a second time, nor when the request is over.
func (w *writer) begin() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.started || w.over.Load() {
		return false
	}
	w.started = true
	return true
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
	status = int(w.status.Load())
	switch {
	case w.hijacked:
		return http.StatusSwitchingProtocols
	case status == 0 && late:
		return 0
	case status == 0:
		status = http.StatusOK
		w.status.Store(http.StatusOK)
	}
	w.tellHeader() // trailers, if the status was written
	return status
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

// leave ends the request: nothing that the handler writes from now on reaches the server's writer. Only the first call tells.
func (w *writer) leave() (f fate, panicked any) {
	if w.over.Load() {
		return f, nil
	}
	w.control.Lock()
	w.over.Store(true)
	w.control.Unlock()
	cut := w.lockAfterLastWrite()
	defer w.mu.Unlock()
	status := w.status.Load()
	switch {
	case w.hijacked:
		f = answered
	case cut || status != 0 && !w.ended:
		f = cutOff
	case status != 0:
		f = answered
	case w.ended:
		f = silent
	case w.started:
		f = leftSilent
	}
	return f, w.panic
}

// lockAfterLastWrite locks mu. Where the handler is writing, to a slow client perhaps, the write is cut by a deadline: at once if the
// answer has begun, since it will not be whole; else after a while, since 503 can still be sent after a header or a 1xx. A server's
// writer that has no deadlines is waited for.
func (w *writer) lockAfterLastWrite() (cut bool) {
	if w.mu.TryLock() {
		return false
	}
	end := func() { http.NewResponseController(w.server).SetWriteDeadline(past) }
	if w.status.Load() != 0 {
		end()
		w.mu.Lock()
		return true
	}
	timer := time.AfterFunc(time.Second, end)
	w.mu.Lock()
	return !timer.Stop()
}

// Header is the handler's own. It reaches the client when the handler writes the status.
func (w *writer) Header() http.Header { return w.header }

// tellHeader tells the server's header what the handler changed on its own since it was last told. The rest is the server's, and
// that of other middleware.
func (w *writer) tellHeader() {
	server := w.server.Header()
	for key := range w.told {
		if _, ok := w.header[key]; !ok {
			delete(server, key)
		}
	}
	for key, values := range w.header {
		if told, ok := w.told[key]; !ok || !slices.Equal(values, told) {
			server[key] = slices.Clone(values)
		}
	}
	w.told = w.header.Clone()
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
	case w.status.Load() != 0 || status < 100 || status > 999:
		w.server.WriteHeader(status) // says that it is superfluous, or panics
	case status <= 199 && status != http.StatusSwitchingProtocols:
		// Informational: the server's header is told, and then what it was.
		told, before := w.told, w.server.Header().Clone()
		w.tellHeader()
		w.server.WriteHeader(status)
		server := w.server.Header()
		clear(server)
		maps.Copy(server, before)
		w.told = told
	default:
		w.tellHeader()
		w.status.Store(int32(status))
		w.server.WriteHeader(status)
	}
}

// Write writes to the client. Its error is [http.ErrHandlerTimeout] once the request is over.
func (w *writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over.Load() {
		return 0, http.ErrHandlerTimeout
	}
	w.writeDefaultHeader()
	return w.server.Write(p)
}

func (w *writer) writeDefaultHeader() {
	if w.status.Load() == 0 && !w.hijacked {
		w.writeHeader(http.StatusOK)
	}
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
	if has[http.Flusher](w.server) || has[interface{ FlushError() error }](w.server) {
		w.writeDefaultHeader()
	}
	return http.NewResponseController(w.server).Flush()
}

// SetReadDeadline is the server's, for [http.ResponseController]. Its error is [http.ErrHandlerTimeout] once the request is over.
func (w *writer) SetReadDeadline(deadline time.Time) error {
	return w.set(func(server *http.ResponseController) error { return server.SetReadDeadline(deadline) })
}

// SetWriteDeadline is the server's, for [http.ResponseController]. Its error is [http.ErrHandlerTimeout] once the request is over.
func (w *writer) SetWriteDeadline(deadline time.Time) error {
	return w.set(func(server *http.ResponseController) error { return server.SetWriteDeadline(deadline) })
}

// EnableFullDuplex is the server's, for [http.ResponseController]. Its error is [http.ErrHandlerTimeout] once the request is over.
func (w *writer) EnableFullDuplex() error {
	return w.set((*http.ResponseController).EnableFullDuplex)
}

// set does what need not wait for a write. The connection may serve another request once this one is over.
func (w *writer) set(do func(server *http.ResponseController) error) error {
	w.control.Lock()
	defer w.control.Unlock()
	if w.over.Load() {
		return http.ErrHandlerTimeout
	}
	return do(http.NewResponseController(w.server))
}

// Unwrap gives the server's writer, for what else it can do, until the request is over. It must not be used after that.
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
