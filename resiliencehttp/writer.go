package resiliencehttp

import (
	"bufio"
	"io"
	"io/fs"
	"maps"
	"math"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A writer is the ResponseWriter that the handler receives. It has its own header map, so that an
// abandoned handler shares nothing with the server. Its locks ensure that nothing reaches the
// server's writer once the request is over.
type writer struct {
	server http.ResponseWriter
	header http.Header // the handler's

	// over reports that the request is over. leave sets it, once, before it locks mu: a write that
	// holds mu at that time is the last one.
	over atomic.Bool

	// control is held while a deadline is set, and while over is set, so that no deadline is set
	// once the request is over. It is separate from mu because a blocked write may hold mu.
	control sync.Mutex

	// mu guards the following fields and every use of server by the handler, except for deadlines.
	mu       sync.Mutex
	synced   http.Header  // a copy of header as of the last syncHeader
	started  bool         // the handler is running or has returned
	ended    bool         // the handler has returned
	status   atomic.Int32 // the status written, 0 if none; leave reads it without mu to decide whether to cut a write in progress
	hijacked bool
	panic    any
}

// A fate is the state of a request when its policy has returned.
type fate int

const (
	notRun           fate = iota // the handler didn't run
	silent                       // it wrote nothing before its context ended, and has returned
	abandonedSilent              // it was abandoned before it had written anything
	answered                     // it has responded, or has hijacked the connection
	abandonedWriting             // it was abandoned after it had begun to write
)

// past is a deadline that ends a write in progress.
var past = time.Unix(1, 0)

func newWriter(server http.ResponseWriter) *writer {
	header := server.Header().Clone()
	if header == nil {
		header = make(http.Header)
	}
	return &writer{server: server, header: header, synced: header.Clone()}
}

// forHandler returns the writer for the handler, with Hijack and ReadFrom if the server's writer has
// them. A writer that the server's writer wraps isn't asked for ReadFrom: the wrapper may change what is
// written.
func (w *writer) forHandler() http.ResponseWriter {
	_, file := w.server.(io.ReaderFrom)
	switch hijack := has[http.Hijacker](w.server); {
	case hijack && file:
		return struct {
			hijackWriter
			fileWriter
		}{hijackWriter{w}, fileWriter{w}}
	case hijack:
		return hijackWriter{w}
	case file:
		return struct {
			*writer
			fileWriter
		}{w, fileWriter{w}}
	}
	return w
}

// has reports whether server is an I, or wraps one with Unwrap (see [http.ResponseController]).
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

// begin reports whether the handler may start, and records that it did. It may not start twice, nor
// once the request is over. If it may, begin first calls prepare, during which the request isn't over.
func (w *writer) begin(prepare func()) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.started || w.over.Load() {
		return false
	}
	prepare()
	w.started = true
	return true
}

// end records that the handler has returned, and returns the status that it wrote. If it wrote
// none, end returns 200, as net/http does, or 0 if its context had ended (late). It returns 0 if
// the request is over.
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
	w.syncHeader() // trailers, if the status was written
	return status
}

// panicked records a panic for ServeHTTP to repeat. It reports whether the request is over, in
// which case ServeHTTP will not.
func (w *writer) panicked(value any) (over bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over.Load() {
		return true
	}
	w.ended, w.panic = true, value
	return false
}

// leave ends the request: from now on, nothing that the handler writes reaches the server's writer.
// Only the first call returns a result.
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
		f = abandonedWriting
	case status != 0:
		f = answered
	case w.ended:
		f = silent
	case w.started:
		f = abandonedSilent
	}
	return f, w.panic
}

// lockAfterLastWrite locks mu. If the handler is in a write, perhaps to a slow client, a write
// deadline ends it: immediately if the response has begun, since it will be incomplete anyway;
// otherwise after a second, since 503 can still be sent after a 1xx. If the server's writer doesn't
// support deadlines, lockAfterLastWrite waits.
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

// Header returns the handler's own header map. It is sent when the handler writes the status.
func (w *writer) Header() http.Header { return w.header }

// syncHeader applies to the server's header the changes that the handler has made to its own since
// the last syncHeader. All other entries belong to the server and to other middleware.
func (w *writer) syncHeader() {
	server := w.server.Header()
	for key := range w.synced {
		if _, ok := w.header[key]; !ok {
			delete(server, key)
		}
	}
	for key, values := range w.header {
		if old, ok := w.synced[key]; !ok || !slices.Equal(values, old) {
			server[key] = slices.Clone(values)
		}
	}
	w.synced = w.header.Clone()
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
		w.server.WriteHeader(status) // logs that it is superfluous, or panics
	case status <= 199 && status != http.StatusSwitchingProtocols:
		// Informational: the handler's header is sent, then the server's header is restored.
		synced, before := w.synced, w.server.Header().Clone()
		w.syncHeader()
		w.server.WriteHeader(status)
		server := w.server.Header()
		clear(server)
		maps.Copy(server, before)
		w.synced = synced
	default:
		w.syncHeader()
		w.status.Store(int32(status))
		w.server.WriteHeader(status)
	}
}

// Write writes to the client. Once the request is over, it returns [http.ErrHandlerTimeout].
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

// Flush sends buffered data to the client.
func (w *writer) Flush() { w.FlushError() }

// FlushError sends buffered data to the client. Once the request is over, it returns
// [http.ErrHandlerTimeout]. If the server's writer can't flush, it returns [http.ErrNotSupported].
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

// SetReadDeadline sets the connection's read deadline, for [http.ResponseController]. Once the
// request is over, it returns [http.ErrHandlerTimeout].
func (w *writer) SetReadDeadline(deadline time.Time) error {
	return w.set(func(server *http.ResponseController) error { return server.SetReadDeadline(deadline) })
}

// SetWriteDeadline sets the connection's write deadline, for [http.ResponseController]. Once the
// request is over, it returns [http.ErrHandlerTimeout].
func (w *writer) SetWriteDeadline(deadline time.Time) error {
	return w.set(func(server *http.ResponseController) error { return server.SetWriteDeadline(deadline) })
}

// EnableFullDuplex enables full duplex, for [http.ResponseController]. Once the request is over, it
// returns [http.ErrHandlerTimeout].
func (w *writer) EnableFullDuplex() error {
	return w.set((*http.ResponseController).EnableFullDuplex)
}

// set calls do, without waiting for a write in progress, unless the request is over: then the
// connection may be serving another one.
func (w *writer) set(do func(server *http.ResponseController) error) error {
	w.control.Lock()
	defer w.control.Unlock()
	if w.over.Load() {
		return http.ErrHandlerTimeout
	}
	return do(http.NewResponseController(w.server))
}

// Unwrap returns the server's writer, for its other methods. It must not be used once the request
// is over; from then on, Unwrap returns a writer whose writes fail.
func (w *writer) Unwrap() http.ResponseWriter {
	if w.over.Load() {
		return closedWriter{}
	}
	return w.server
}

// closedWriter takes the place of the server's writer once the request is over.
type closedWriter struct{}

func (closedWriter) Header() http.Header       { return make(http.Header) }
func (closedWriter) Write([]byte) (int, error) { return 0, http.ErrHandlerTimeout }
func (closedWriter) WriteHeader(int)           {}

// A fileWriter adds ReadFrom to a writer.
type fileWriter struct{ w *writer }

// fileChunk is how many bytes of a file are sent under one lock.
const fileChunk = 4 << 20

// ReadFrom writes to the client what it reads from src. A regular file is passed to the server's
// writer, which may have the kernel send it. For other sources, ReadFrom calls Write: a Read that blocks
// must not hold the lock, because only a blocked write can be ended. Once the request is over, ReadFrom
// returns [http.ErrHandlerTimeout].
func (f fileWriter) ReadFrom(src io.Reader) (n int64, err error) {
	file, limit := regularFile(src)
	if file == nil {
		return io.Copy(writerOnly{f.w}, src)
	}
	if f.w.status.Load() == 0 {
		// The first bytes decide whether there is anything to send, and the Content-Type.
		n, err = io.Copy(writerOnly{f.w}, &io.LimitedReader{R: file, N: min(limit.N, sniffed)})
		if limit.N -= n; err != nil || n < sniffed {
			return n, err
		}
	}
	for limit.N > 0 {
		chunk := min(limit.N, fileChunk)
		sent, err := f.w.sendFile(&io.LimitedReader{R: file, N: chunk})
		n += sent
		if limit.N -= sent; err != nil || sent < chunk {
			return n, err
		}
	}
	return n, nil
}

// sniffed is how many bytes net/http reads to determine the Content-Type.
const sniffed = 512

// sendFile passes a part of a file to the server's writer.
func (w *writer) sendFile(part *io.LimitedReader) (int64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.over.Load():
		return 0, http.ErrHandlerTimeout
	case w.hijacked:
		return 0, http.ErrHijacked
	}
	w.writeDefaultHeader()
	return w.server.(io.ReaderFrom).ReadFrom(part)
}

// regularFile returns the regular file that src reads from, and how much of it is to be read: src's own
// limit if it has one. It returns nil if src isn't a regular file.
func regularFile(src io.Reader) (file io.Reader, limit *io.LimitedReader) {
	file = src
	limit, ok := src.(*io.LimitedReader)
	if ok {
		file = limit.R
	} else {
		limit = &io.LimitedReader{N: math.MaxInt64}
	}
	// Not *os.File, because its method WriteTo passes a wrapper without that method.
	f, ok := file.(interface {
		fs.File
		syscall.Conn
	})
	if !ok {
		return nil, nil
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, nil
	}
	return file, limit
}

// A writerOnly hides ReadFrom.
type writerOnly struct{ io.Writer }

// A hijackWriter is a writer whose connection the handler can take over.
type hijackWriter struct{ *writer }

// Hijack passes the connection to the handler, which owns it from then on, even if it is abandoned.
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
