package resiliencehttp_test

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
)

// lockedLog is a log that can be read while it is written.
type lockedLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *lockedLog) logger() *log.Logger { return log.New(l, "", 0) }

// bare is a server's writer without optional methods.
type bare struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func newBare() *bare                            { return &bare{header: make(http.Header)} }
func (b *bare) Header() http.Header             { return b.header }
func (b *bare) WriteHeader(status int)          { b.status = status }
func (b *bare) Write(p []byte) (n int, e error) { return b.body.Write(p) }

// wrappedWriter is another middleware's writer, which hides all optional methods of the server's
// except for Unwrap.
type wrappedWriter struct{ server http.ResponseWriter }

func (w wrappedWriter) Header() http.Header         { return w.server.Header() }
func (w wrappedWriter) WriteHeader(status int)      { w.server.WriteHeader(status) }
func (w wrappedWriter) Write(p []byte) (int, error) { return w.server.Write(p) }
func (w wrappedWriter) Unwrap() http.ResponseWriter { return w.server }

// able is a server's writer with all optional methods, which records their calls.
type able struct {
	*bare
	did []string
}

func (a *able) Flush()                           { a.did = append(a.did, "flush") }
func (a *able) SetReadDeadline(time.Time) error  { a.did = append(a.did, "read deadline"); return nil }
func (a *able) SetWriteDeadline(time.Time) error { a.did = append(a.did, "write deadline"); return nil }
func (a *able) EnableFullDuplex() error          { a.did = append(a.did, "full duplex"); return nil }
func (a *able) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	a.did = append(a.did, "hijack")
	return nil, nil, nil
}

// callAll calls all methods of a writer and returns their errors.
func callAll(w http.ResponseWriter) map[string]error {
	controller := http.NewResponseController(w)
	_, written := io.WriteString(w, "x")
	_, _, hijacked := controller.Hijack()
	return map[string]error{
		"Write":            written,
		"Flush":            controller.Flush(),
		"SetReadDeadline":  controller.SetReadDeadline(time.Now().Add(time.Hour)),
		"SetWriteDeadline": controller.SetWriteDeadline(time.Now().Add(time.Hour)),
		"EnableFullDuplex": controller.EnableFullDuplex(),
		"Hijack":           hijacked,
	}
}

func TestWriterOfAbandonedHandlerReachesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &able{bare: newBare()}
		guard(abandoning(time.Second), func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Hour)
			for name, err := range callAll(w) {
				if err != http.ErrHandlerTimeout {
					t.Errorf("%s: got %v, want http.ErrHandlerTimeout", name, err)
				}
			}
			w.WriteHeader(200)
			w.Header().Set("X-Handler", "1")
			w.(http.Flusher).Flush()
			unwrapped := w.(interface{ Unwrap() http.ResponseWriter }).Unwrap()
			unwrapped.Header().Set("X-Handler", "1")
			unwrapped.WriteHeader(200)
			if _, err := io.WriteString(unwrapped, "x"); err != http.ErrHandlerTimeout {
				t.Errorf("got %v from the unwrapped writer, want http.ErrHandlerTimeout", err)
			}
		}).ServeHTTP(server, get())
		server.did = nil
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if server.did != nil || server.header.Get("X-Handler") != "" {
			t.Errorf("got calls %v and header %v at the server, want none", server.did, server.header)
		}
		if server.status != 503 || server.body.String() != "Service Unavailable\n" {
			t.Errorf("got %d, %q", server.status, server.body.String())
		}
	})
}

// TestWriterHeaderMapIsSeparate: an abandoned handler may use its map while the server uses its
// own.
func TestWriterHeaderMapIsSeparate(t *testing.T) {
	leave, end, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	recorder := httptest.NewRecorder()
	recorder.Header()["X-Outer"] = []string{"1"}
	guard(abandonOn(leave, abandonedErr), func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		leave <- struct{}{}
		for {
			w.Header().Set("X-Handler", "1")
			w.Header()["X-Outer"][0] = "2" // the values are separate too
			select {
			case <-end:
				return
			default:
			}
		}
	}).ServeHTTP(recorder, get())
	for range 1000 {
		recorder.Header().Set("X-After", "1")
		if got := recorder.Header(); got.Get("X-Outer") != "1" || got.Get("X-Handler") != "" {
			t.Fatalf("got header %v", got)
		}
	}
	close(end)
	<-ended
}

// TestWriterHeaderValuesAreSeparate, even after they were passed to the server.
func TestWriterHeaderValuesAreSeparate(t *testing.T) {
	server := newBare()
	guard(resilience.Pipeline{}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Handler", "1")
		w.WriteHeader(200)
		w.Header()["X-Handler"][0] = "2"
		if got := server.header.Get("X-Handler"); got != "1" {
			t.Errorf("got %q at the server", got)
		}
	}).ServeHTTP(server, get())
}

func TestWriterReachesServerWriter(t *testing.T) {
	for name, wrap := range map[string]func(http.ResponseWriter) http.ResponseWriter{
		"directly":    func(w http.ResponseWriter) http.ResponseWriter { return w },
		"by Unwrap":   func(w http.ResponseWriter) http.ResponseWriter { return wrappedWriter{wrappedWriter{w}} },
		"through two": func(w http.ResponseWriter) http.ResponseWriter { return nil },
	} {
		server := &able{bare: newBare()}
		handler := guard(resilience.Pipeline{}, func(w http.ResponseWriter, r *http.Request) {
			if _, ok := w.(http.Hijacker); !ok {
				t.Errorf("%s: the writer isn't a Hijacker", name)
			}
			for method, err := range callAll(w) {
				if err != nil {
					t.Errorf("%s: got %s: %v", name, method, err)
				}
			}
		})
		if w := wrap(server); w != nil {
			handler.ServeHTTP(w, get())
		} else {
			guard(resilience.Pipeline{}, handler.ServeHTTP).ServeHTTP(server, get())
		}
		if len(server.did) != 5 {
			t.Errorf("%s: got calls %q", name, server.did)
		}
	}
}

func TestWriterHasNoMoreThanServerWriter(t *testing.T) {
	server := newBare()
	guard(resilience.Pipeline{}, func(w http.ResponseWriter, r *http.Request) {
		if _, ok := w.(http.Hijacker); ok {
			t.Error("the writer is a Hijacker")
		}
		w.Header().Set("X-Handler", "1")
		controller := http.NewResponseController(w)
		for name, err := range map[string]error{
			"Flush":            controller.Flush(),
			"SetReadDeadline":  controller.SetReadDeadline(time.Time{}),
			"SetWriteDeadline": controller.SetWriteDeadline(time.Time{}),
			"EnableFullDuplex": controller.EnableFullDuplex(),
		} {
			if !errors.Is(err, http.ErrNotSupported) {
				t.Errorf("%s: got %v, want http.ErrNotSupported", name, err)
			}
		}
		if server.status != 0 || len(server.header) != 0 {
			t.Errorf("unsupported methods wrote %d, %v", server.status, server.header)
		}
		if unwrapped := w.(interface{ Unwrap() http.ResponseWriter }).Unwrap(); unwrapped != server {
			t.Errorf("Unwrap returned %v", unwrapped)
		}
	}).ServeHTTP(server, get())
}

func TestWriterInvalidStatusPanics(t *testing.T) {
	for _, status := range []int{-1, 0, 99, 1000} {
		recorder := httptest.NewRecorder()
		var server any = panicOf(func() { recorder.WriteHeader(status) })
		recorder = httptest.NewRecorder()
		value := panicOf(func() {
			guard(resilience.Pipeline{}, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-Handler", "1")
				w.WriteHeader(status)
			}).ServeHTTP(recorder, get())
		})
		if value == nil || value != server || len(recorder.Header()) != 0 {
			t.Errorf("%d: got panic %v, want %v; header %v", status, value, server, recorder.Header())
		}
	}
	answer := record(guard(resilience.Pipeline{}, func(w http.ResponseWriter, r *http.Request) {
		panicOf(func() { w.WriteHeader(0) })
		w.WriteHeader(204) // no lock is held
	}), get())
	if answer.StatusCode != 204 {
		t.Errorf("got %d after a recovered panic", answer.StatusCode)
	}
}

// hooking is another middleware's writer, which changes headers when the status is written.
type hooking struct{ *httptest.ResponseRecorder }

func (h hooking) WriteHeader(status int) {
	h.Header().Set("X-Hook", "1")
	h.Header().Del("Content-Length")
	h.ResponseRecorder.WriteHeader(status)
}

func TestWriterKeepsHeadersOfOtherMiddleware(t *testing.T) {
	recorder := httptest.NewRecorder()
	guard(resilience.Pipeline{}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		w.Header().Set("Content-Length", "4")
		w.WriteHeader(200)
		io.WriteString(w, "body")
		w.Header().Set("X-Sum", "1")
		w.Header().Del("Trailer")
	}).ServeHTTP(hooking{recorder}, get())
	header := recorder.Header()
	if header.Get("X-Hook") != "1" || header.Get("Content-Length") != "" || header.Get("X-Sum") != "1" || header.Get("Trailer") != "" {
		t.Errorf("got header %v", header)
	}
}

// informed is a server's writer with hooks: it calls inform for a 1xx, and deadline when a write
// deadline is set.
type informed struct {
	*bare
	inform   func(header http.Header)
	deadline func()
}

func (i *informed) WriteHeader(status int) {
	if status < 200 {
		i.inform(i.header)
		return
	}
	i.bare.WriteHeader(status)
}

func (i *informed) SetWriteDeadline(time.Time) error {
	i.deadline()
	return nil
}

func TestWriterRemovesInformationalHeaders(t *testing.T) {
	hints := 0
	server := &informed{bare: newBare(), inform: func(header http.Header) {
		hints++
		if header.Get("Link") != "style" || header.Get("X-Outer") != "1" {
			t.Errorf("got header %v with the 1xx", header)
		}
	}}
	server.header.Set("X-Outer", "1")
	guard(resilience.Pipeline{}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "style")
		w.WriteHeader(103)
		w.WriteHeader(103)
		if server.header.Get("Link") != "" {
			t.Errorf("got header %v, want it without Link", server.header)
		}
		w.WriteHeader(200)
	}).ServeHTTP(server, get())
	if hints != 2 || server.header.Get("Link") != "style" || server.header.Get("X-Outer") != "1" {
		t.Errorf("got %d informational responses, finally header %v", hints, server.header)
	}
}

// TestWriterMayFinishInformationalWrite: if a handler is abandoned while it writes a 1xx, 503 can
// still be sent.
func TestWriterMayFinishInformationalWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // the time that a write may take doesn't pass, however slow the machine is
		leave, informing, release := make(chan struct{}), make(chan struct{}), make(chan struct{})
		var handlerWriter http.ResponseWriter
		server := &informed{bare: newBare(), inform: func(http.Header) { close(informing); <-release }, deadline: func() { t.Error("the write was cut") }}
		handler := guard(abandonOn(leave, abandonedErr), func(w http.ResponseWriter, r *http.Request) {
			handlerWriter = w
			w.WriteHeader(103)
		})
		var g errgroup.Group
		g.Go(func() error {
			handler.ServeHTTP(server, get())
			return nil
		})
		<-informing
		leave <- struct{}{}
		for http.NewResponseController(handlerWriter).SetReadDeadline(time.Time{}) != http.ErrHandlerTimeout { // until the request is over
			runtime.Gosched()
		}
		close(release)
		g.Wait()
		if server.status != 503 {
			t.Errorf("got %d, want 503", server.status)
		}
	})
}

// TestWriterCutsBlockedWrite with a write deadline, in the response and before it.
func TestWriterCutsBlockedWrite(t *testing.T) {
	for name, write := range map[string]func(w http.ResponseWriter){
		"a 1xx":  func(w http.ResponseWriter) { w.WriteHeader(103) },
		"a body": func(w http.ResponseWriter) { io.WriteString(w, "body") },
		"a flush": func(w http.ResponseWriter) {
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
		},
	} {
		leave, writing, cut := make(chan struct{}), make(chan struct{}), make(chan struct{})
		block := func() { close(writing); <-cut }
		server := &blocking{informed{newBare(), func(http.Header) { block() }, func() { close(cut) }}, block}
		handler := guard(abandonOn(leave, abandonedErr), func(w http.ResponseWriter, r *http.Request) { write(w) })
		var g errgroup.Group
		var value any
		g.Go(func() error {
			value = panicOf(func() { handler.ServeHTTP(server, get()) })
			return nil
		})
		<-writing
		leave <- struct{}{}
		g.Wait()
		if value != http.ErrAbortHandler {
			t.Errorf("%s: got panic %v, want http.ErrAbortHandler", name, value)
		}
	}
}

type blocking struct {
	informed
	block func()
}

func (b *blocking) Write(p []byte) (int, error) { b.block(); return 0, io.ErrShortWrite }
func (b *blocking) Flush()                      { b.block() }

// TestWriterSetsDeadlineDuringWrite, as on the server's writer, so that one goroutine of a handler
// can end another's write.
func TestWriterSetsDeadlineDuringWrite(t *testing.T) {
	writing, cut := make(chan struct{}), make(chan struct{})
	server := &blocking{informed{bare: newBare(), deadline: func() { close(cut) }}, func() { close(writing); <-cut }}
	guard(resilience.Pipeline{}, func(w http.ResponseWriter, r *http.Request) {
		var g errgroup.Group
		g.Go(func() error { _, err := io.WriteString(w, "body"); return err })
		<-writing
		if err := http.NewResponseController(w).SetWriteDeadline(time.Now()); err != nil {
			t.Error(err)
		}
		if err := g.Wait(); err != io.ErrShortWrite {
			t.Errorf("got %v from Write, want io.ErrShortWrite", err)
		}
	}).ServeHTTP(server, get())
}

// TestWriterAllowsConcurrentWrites: the writer is safe for concurrent use, and each write is
// contiguous.
func TestWriterAllowsConcurrentWrites(t *testing.T) {
	var calls atomic.Int32
	answer := record(guard(resilience.Pipeline{}, func(w http.ResponseWriter, r *http.Request) {
		var g errgroup.Group
		for range 10 {
			g.Go(func() error {
				for range 100 {
					calls.Add(1)
					if _, err := io.WriteString(w, "ab"); err != nil {
						return err
					}
					w.(http.Flusher).Flush()
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	}), get())
	text := readAll(t, answer)
	if text != string(bytes.Repeat([]byte("ab"), int(calls.Load()))) {
		t.Errorf("got a body of %d bytes", len(text))
	}
}

// sending is a server's writer that sends files.
type sending struct {
	*able
	sources []string
}

func (s *sending) ReadFrom(src io.Reader) (int64, error) {
	if limited, ok := src.(*io.LimitedReader); ok {
		s.sources = append(s.sources, fmt.Sprintf("%T", limited.R))
	} else {
		s.sources = append(s.sources, fmt.Sprintf("%T", src))
	}
	return io.Copy(s.bare, src)
}

// newFile returns a file of a size, and its content.
func newFile(t *testing.T, size int) (*os.File, []byte) {
	t.Helper()
	content := bytes.Repeat([]byte("0123456789abcde\n"), size/16+1)[:size]
	name := filepath.Join(t.TempDir(), "file.txt")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return file, content
}

// TestWriterPassesFilesToServerWriter, all of a file or a part, however it is copied, and nothing else.
func TestWriterPassesFilesToServerWriter(t *testing.T) {
	file, content := newFile(t, 10<<20)
	for _, row := range []struct {
		name  string
		src   io.Reader
		want  []byte
		files int // chunks that reach the server's ReadFrom
	}{
		{"a file", file, content, 3},
		{"a part", io.LimitReader(file, 5<<20), content[:5<<20], 2},
		{"a part beyond the end", io.LimitReader(file, 20<<20), content, 3},
		{"a small part", io.LimitReader(file, 100), content[:100], 0},
		{"an empty part", io.LimitReader(file, 0), nil, 0},
		{"a part without length", io.LimitReader(file, -1), nil, 0},
		{"a reader", strings.NewReader("hello"), []byte("hello"), 0},
		{"a reader of a file", bufio.NewReader(file), content, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			if _, err := file.Seek(0, io.SeekStart); err != nil {
				t.Fatal(err)
			}
			server := &sending{able: &able{bare: newBare()}}
			guard(resilience.Pipeline{}, func(w http.ResponseWriter, r *http.Request) {
				if _, ok := w.(http.Hijacker); !ok {
					t.Error("the writer isn't a Hijacker")
				}
				n, err := w.(io.ReaderFrom).ReadFrom(row.src)
				if err != nil || n != int64(len(row.want)) {
					t.Errorf("got %d, %v, want %d", n, err, len(row.want))
				}
				if limited, ok := row.src.(*io.LimitedReader); ok && row.name != "a part beyond the end" && limited.N > 0 {
					t.Errorf("%d bytes of the limit are left", limited.N)
				}
			}).ServeHTTP(server, get())
			if !bytes.Equal(server.body.Bytes(), row.want) || len(server.sources) != row.files {
				t.Errorf("got %d bytes, %v passed on, want %d, %d", server.body.Len(), server.sources, len(row.want), row.files)
			}
			for _, source := range server.sources {
				if !strings.HasPrefix(source, "*os.File") {
					t.Errorf("got %v", server.sources)
				}
			}
		})
	}
}

// TestWriterHasReadFromOnlyIfServerWriterDoes: what a wrapper hides may have to be changed on its way.
func TestWriterHasReadFromOnlyIfServerWriterDoes(t *testing.T) {
	sends := &sending{able: &able{bare: newBare()}}
	for name, row := range map[string]struct {
		server http.ResponseWriter
		want   bool
	}{
		"bare": {newBare(), false}, "able": {&able{bare: newBare()}, false}, "sending": {sends, true}, "wrapped": {wrappedWriter{sends}, false},
		"without Hijack": {struct {
			http.ResponseWriter
			io.ReaderFrom
		}{newBare(), sends}, true},
	} {
		guard(resilience.Pipeline{}, func(w http.ResponseWriter, r *http.Request) {
			if _, ok := w.(io.ReaderFrom); ok != row.want {
				t.Errorf("%s: got ReadFrom %t, want %t", name, ok, row.want)
			}
			_, hijack := row.server.(http.Hijacker)
			if _, ok := w.(http.Hijacker); ok != hijack && name != "wrapped" {
				t.Errorf("%s: got Hijack %t", name, ok)
			}
		}).ServeHTTP(row.server, get())
	}
}

// TestWriterEmptyFileIsNotResponse: the handler may still send another status.
func TestWriterEmptyFileIsNotResponse(t *testing.T) {
	file, _ := newFile(t, 0)
	server := &sending{able: &able{bare: newBare()}}
	guard(resilience.Pipeline{}, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(w, file)
		w.WriteHeader(404)
	}).ServeHTTP(server, get())
	if server.status != 404 || server.sources != nil {
		t.Errorf("got %d, %v passed on, want 404, none", server.status, server.sources)
	}
}

// TestWriterReadFromEndsWithRequest: an abandoned handler's ReadFrom returns http.ErrHandlerTimeout.
func TestWriterReadFromEndsWithRequest(t *testing.T) {
	file, _ := newFile(t, 1<<20)
	for _, begun := range []string{"", "begun"} {
		synctest.Test(t, func(t *testing.T) {
			server := &sending{able: &able{bare: newBare()}}
			handler := guard(abandoning(time.Second), func(w http.ResponseWriter, r *http.Request) {
				if begun != "" {
					io.WriteString(w, begun)
				}
				time.Sleep(time.Hour)
				for _, src := range []io.Reader{file, strings.NewReader("x")} {
					if n, err := w.(io.ReaderFrom).ReadFrom(src); n != 0 || err != http.ErrHandlerTimeout {
						t.Errorf("got %d, %v, want http.ErrHandlerTimeout", n, err)
					}
				}
			})
			value := panicOf(func() { handler.ServeHTTP(server, get()) })
			time.Sleep(2 * time.Hour)
			if want := cmp.Or(begun, "Service Unavailable\n"); server.sources != nil || server.body.String() != want || (value != nil) != (begun != "") {
				t.Errorf("got %v, %q, panic %v", server.sources, server.body.String(), value)
			}
		})
	}
}

// TestWriterReadFromHoldsNoLockWhileReading: a source that blocks delays neither other writes nor the end
// of the request.
func TestWriterReadFromHoldsNoLockWhileReading(t *testing.T) {
	reader, source := io.Pipe()
	leave, reading := make(chan struct{}), make(chan struct{})
	server := &sending{able: &able{bare: newBare()}}
	var g errgroup.Group
	handler := guard(abandonOn(leave, abandonedErr), func(w http.ResponseWriter, r *http.Request) {
		g.Go(func() error {
			io.WriteString(source, "x")
			io.WriteString(w, "y") // while ReadFrom waits for more
			close(reading)
			return nil
		})
		if _, err := w.(io.ReaderFrom).ReadFrom(reader); err != http.ErrHandlerTimeout {
			t.Errorf("got %v, want http.ErrHandlerTimeout", err)
		}
		close(leave)
	})
	var value any
	g.Go(func() error {
		value = panicOf(func() { handler.ServeHTTP(server, get()) })
		io.WriteString(source, "z") // only now does the source return
		return nil
	})
	<-reading
	leave <- struct{}{}
	g.Wait()
	<-leave
	if value != http.ErrAbortHandler || server.body.Len() != 2 {
		t.Errorf("got panic %v, body %q", value, server.body.String())
	}
}

// TestWriterCutsBlockedFile: a file that goes to a slow client is ended by a write deadline.
func TestWriterCutsBlockedFile(t *testing.T) {
	file, _ := newFile(t, 1<<20)
	leave, writing, cut := make(chan struct{}), make(chan struct{}), make(chan struct{})
	server := &blockingFile{informed{bare: newBare(), deadline: func() { close(cut) }}, func() { close(writing); <-cut }}
	handler := guard(abandonOn(leave, abandonedErr), func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(w, file); err != io.ErrShortWrite {
			t.Errorf("got %v from Copy, want io.ErrShortWrite", err)
		}
	})
	var g errgroup.Group
	var value any
	g.Go(func() error {
		value = panicOf(func() { handler.ServeHTTP(server, get()) })
		return nil
	})
	<-writing
	leave <- struct{}{}
	g.Wait()
	if value != http.ErrAbortHandler {
		t.Errorf("got panic %v, want http.ErrAbortHandler", value)
	}
}

type blockingFile struct {
	informed
	block func()
}

func (b *blockingFile) ReadFrom(io.Reader) (int64, error) { b.block(); return 0, io.ErrShortWrite }
