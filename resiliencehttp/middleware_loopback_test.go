package resiliencehttp_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/timeout"
)

// A site is a loopback server with its log and the number of its connections.
type site struct {
	*httptest.Server
	log          lockedLog
	opened, open atomic.Int32
}

func newSite(t *testing.T, protocol int, handler http.Handler) *site {
	t.Helper()
	s := &site{Server: httptest.NewUnstartedServer(handler)}
	s.Config.ErrorLog = s.log.logger()
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			s.opened.Add(1)
			s.open.Add(1)
		case http.StateClosed, http.StateHijacked:
			s.open.Add(-1)
		}
	}
	if protocol == 2 {
		s.EnableHTTP2 = true
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s
}

// do sends a request, checks the protocol of the response, and returns it.
func (s *site) do(t *testing.T, protocol int, req *http.Request) *http.Response {
	t.Helper()
	response, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if response.ProtoMajor != protocol {
		t.Fatalf("got %s, want HTTP/%d", response.Proto, protocol)
	}
	t.Cleanup(func() { response.Body.Close() })
	return response
}

// protocols runs a test with HTTP/1.1 and with HTTP/2.
func protocols(t *testing.T, test func(t *testing.T, protocol int)) {
	for _, protocol := range []int{1, 2} {
		t.Run(fmt.Sprintf("HTTP%d", protocol), func(t *testing.T) { test(t, protocol) })
	}
}

// reuses checks that a connection is reused after do. It calls do several times, since net/http's
// client closes a reusable connection if the machine stalls for 50 ms.
func reuses(t *testing.T, opened *atomic.Int32, do func()) {
	t.Helper()
	do()
	for range 5 {
		before := opened.Load()
		do()
		if opened.Load() == before {
			return
		}
	}
	t.Error("each request opened its own connection")
}

// eventually waits until another goroutine has made happened report true.
func eventually(t *testing.T, what string, happened func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for limit := time.After(time.Minute); !happened(); {
		select {
		case <-tick.C:
		case <-limit:
			stacks := make([]byte, 1<<20)
			t.Fatalf("timed out after a minute waiting until %s\n%s", what, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// goroutines returns the numbers of all goroutines; inside a bubble, only those of the bubble.
func goroutines() map[string]bool {
	stacks := make([]byte, 1<<24)
	numbers := map[string]bool{}
	bubble := ""
	for line := range strings.Lines(string(stacks[:runtime.Stack(stacks, true)])) {
		after, ok := strings.CutPrefix(line, "goroutine ")
		if !ok {
			continue
		}
		_, in, _ := strings.Cut(after, "synctest bubble ")
		if len(numbers) == 0 { // the caller's goroutine is the first
			bubble = in
		}
		if in == bubble || bubble == "" {
			number, _, _ := strings.Cut(after, " ")
			numbers[number] = true
		}
	}
	return numbers
}

// noneSince reports whether every goroutine that is running was already running at before.
func noneSince(before map[string]bool) bool {
	for number := range goroutines() {
		if !before[number] {
			return false
		}
	}
	return true
}

// TestMiddlewareAbortsPartialResponse: the client receives the headers and notices that the body is
// incomplete. With HTTP/1.1, the connection is closed.
func TestMiddlewareAbortsPartialResponse(t *testing.T) {
	protocols(t, func(t *testing.T, protocol int) {
		leave, end, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		s := newSite(t, protocol, guard(abandonOn(leave, abandonedErr), func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "begun")
			w.(http.Flusher).Flush()
			<-end
			_, err := io.WriteString(w, "too late")
			ended <- err
		}))
		response := s.do(t, protocol, newRequest(t, "GET", s.URL, ""))
		text := make([]byte, 5)
		if _, err := io.ReadFull(response.Body, text); string(text) != "begun" {
			t.Errorf("got %q, %v", text, err)
		}
		leave <- struct{}{}
		if rest, err := io.ReadAll(response.Body); len(rest) != 0 || err == nil {
			t.Errorf("got %q, %v, want an unexpected end", rest, err)
		}
		if protocol == 1 {
			eventually(t, "the connection is closed", func() bool { return s.open.Load() == 0 })
		}
		close(end)
		if err := <-ended; err != http.ErrHandlerTimeout {
			t.Errorf("got %v from a write after the end, want http.ErrHandlerTimeout", err)
		}
		if text := s.log.String(); text != "" {
			t.Errorf("got log %q", text)
		}
	})
}

// TestMiddlewareReusesConnectionAfter503, whether the handler was refused, abandoned, or late, with
// and without a body.
func TestMiddlewareReusesConnectionAfter503(t *testing.T) {
	protocols(t, func(t *testing.T, protocol int) {
		leave, end := make(chan struct{}, 1), make(chan struct{})
		defer close(end)
		policies := map[string]resilience.Policy{
			"/refused": returning(resilience.ErrRefused),
			"/late":    timeout.After(time.Microsecond),
			"/left":    abandonOn(leave, abandonedErr),
			"/well":    resilience.Pipeline{},
		}
		mux := http.NewServeMux()
		for path, policy := range policies {
			mux.Handle(path, guard(policy, func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				switch path {
				case "/late":
					<-r.Context().Done()
				case "/left":
					leave <- struct{}{}
					<-end
				}
			}))
		}
		s := newSite(t, protocol, mux)
		for _, body := range []string{"", "a body"} {
			for path := range policies {
				reuses(t, &s.opened, func() {
					response := s.do(t, protocol, newRequest(t, "POST", s.URL+path, body))
					readAll(t, response)
					if (response.StatusCode == 503) == (path == "/well") {
						t.Errorf("%s: got %d", path, response.StatusCode)
					}
				})
			}
		}
	})
}

// TestMiddlewareEarlyHintsAreNotResponse: a 503 without their headers can still follow.
func TestMiddlewareEarlyHintsAreNotResponse(t *testing.T) {
	protocols(t, func(t *testing.T, protocol int) {
		leave := make(chan struct{})
		for name, policy := range map[string]resilience.Policy{"waiting": timeout.After(time.Millisecond), "leaving": abandonOn(leave, abandonedErr)} {
			end := make(chan struct{})
			s := newSite(t, protocol, guard(policy, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Link", "</style.css>")
				w.WriteHeader(103)
				if name == "leaving" {
					leave <- struct{}{}
					<-end
				}
				<-r.Context().Done()
			}))
			hints := make(chan string, 1)
			req := newRequest(t, "GET", s.URL, "")
			req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
				Got1xxResponse: func(status int, header textproto.MIMEHeader) error {
					hints <- fmt.Sprint(status, header.Get("Link"))
					return nil
				},
			}))
			response := s.do(t, protocol, req)
			if response.StatusCode != 503 || response.Header.Get("Link") != "" || readAll(t, response) != "Service Unavailable\n" {
				t.Errorf("%s: got %s, %v", name, response.Status, response.Header)
			}
			select {
			case hint := <-hints:
				if hint != "103</style.css>" {
					t.Errorf("%s: got hint %s", name, hint)
				}
			default:
				t.Errorf("%s: no hint came", name)
			}
			close(end)
		}
	})
}

// TestMiddlewareEndsLoopOfHintsWith503: the writer is almost always in use when the handler is
// abandoned.
func TestMiddlewareEndsLoopOfHintsWith503(t *testing.T) {
	protocols(t, func(t *testing.T, protocol int) {
		leave, end := make(chan struct{}), make(chan struct{})
		hints := 0
		s := newSite(t, protocol, guard(abandonOn(leave, abandonedErr), func(w http.ResponseWriter, r *http.Request) {
			for range 20 {
				w.WriteHeader(103)
			}
			close(leave)
			for {
				w.WriteHeader(103)
				select {
				case <-end:
					return
				default:
				}
			}
		}))
		defer close(end)
		req := newRequest(t, "GET", s.URL, "")
		req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(int, textproto.MIMEHeader) error { hints++; return nil },
		}))
		if response := s.do(t, protocol, req); response.StatusCode != 503 || hints < 20 {
			t.Errorf("got %s after %d hints", response.Status, hints)
		}
	})
}

// TestMiddlewareEndsWriteToStalledClient, and the request, once the handler is abandoned.
func TestMiddlewareEndsWriteToStalledClient(t *testing.T) {
	protocols(t, func(t *testing.T, protocol int) {
		leave, over, ended := make(chan struct{}), make(chan any, 1), make(chan error, 1)
		inner := guard(abandonOn(leave, abandonedErr), func(w http.ResponseWriter, r *http.Request) {
			chunk := make([]byte, 1<<20)
			if _, err := w.Write(chunk); err != nil {
				t.Error(err)
			}
			time.AfterFunc(100*time.Millisecond, func() { leave <- struct{}{} }) // the client's buffers hold a few MB: by then a write blocks
			for {
				if _, err := w.Write(chunk); err != nil {
					ended <- err
					return
				}
			}
		})
		s := newSite(t, protocol, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer func() {
				value := recover()
				over <- value
				panic(value)
			}()
			inner.ServeHTTP(w, r)
		}))
		if protocol == 1 {
			conn, err := net.Dial("tcp", s.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		} else {
			s.do(t, protocol, newRequest(t, "GET", s.URL, ""))
		}
		if value := <-over; value != http.ErrAbortHandler {
			t.Errorf("got panic %v, want http.ErrAbortHandler", value)
		}
		if err := <-ended; err == nil {
			t.Error("the handler's write returned no error")
		}
	})
}

// TestMiddlewareResponseDoesNotWaitForSlowUpload: a handler that is abandoned while it reads the
// body doesn't delay the 503.
func TestMiddlewareResponseDoesNotWaitForSlowUpload(t *testing.T) {
	protocols(t, func(t *testing.T, protocol int) {
		leave, ended := make(chan struct{}), make(chan error, 1)
		s := newSite(t, protocol, guard(abandonOn(leave, abandonedErr), func(w http.ResponseWriter, r *http.Request) {
			io.ReadFull(r.Body, make([]byte, 5))
			leave <- struct{}{}
			_, err := io.ReadAll(r.Body)
			ended <- err
		}))
		upload, client := io.Pipe()
		defer client.Close()
		var g errgroup.Group
		g.Go(func() error { _, err := io.WriteString(client, "half "); return err })
		req := newRequest(t, "POST", s.URL, "")
		req.Body, req.ContentLength = upload, 1000
		if response := s.do(t, protocol, req); response.StatusCode != 503 {
			t.Errorf("got %s, want 503", response.Status)
		}
		if err := <-ended; err == nil {
			t.Error("the handler's read returned no error")
		}
		client.Close()
		g.Wait()
	})
}

// TestMiddlewarePassesPanicToServer: net/http logs the value and the handler's stack, and ends the
// request.
func TestMiddlewarePassesPanicToServer(t *testing.T) {
	protocols(t, func(t *testing.T, protocol int) {
		for name, policy := range map[string]resilience.Policy{"same goroutine": resilience.Pipeline{}, "other goroutine": abandoning(time.Hour)} {
			s := newSite(t, protocol, guard(policy, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/abort" {
					panic(http.ErrAbortHandler)
				}
				panicInFunction("thrown")
			}))
			if response, err := s.Client().Get(s.URL + "/abort"); err == nil {
				t.Errorf("%s: aborted: %s", name, response.Status)
			}
			if text := s.log.String(); text != "" {
				t.Errorf("%s: an abort is logged: %s", name, text)
			}
			if response, err := s.Client().Get(s.URL); err == nil {
				t.Errorf("%s: got %s", name, response.Status)
			}
			eventually(t, "the panic is logged", func() bool { return s.log.String() != "" })
			text := s.log.String()
			if !strings.Contains(text, "panic serving") || !strings.Contains(text, "thrown") || !strings.Contains(text, "panicInFunction") {
				t.Errorf("%s: got log %q, want the value and the handler's stack", name, text)
			}
		}
	})
}

func TestMiddlewareLogsPanicOfAbandonedHandlerToServerLog(t *testing.T) {
	protocols(t, func(t *testing.T, protocol int) {
		leave, end := make(chan struct{}), make(chan struct{})
		s := newSite(t, protocol, guard(abandonOn(leave, abandonedErr), func(http.ResponseWriter, *http.Request) {
			leave <- struct{}{}
			<-end
			panicInFunction("thrown")
		}))
		if response := s.do(t, protocol, newRequest(t, "GET", s.URL, "")); response.StatusCode != 503 {
			t.Errorf("got %s, want 503", response.Status)
		}
		close(end)
		eventually(t, "the panic is logged", func() bool { return s.log.String() != "" })
		if text := s.log.String(); !strings.Contains(text, "thrown") || !strings.Contains(text, "panicInFunction") {
			t.Errorf("got log %q, want the value and the handler's stack", text)
		}
	})
}

func TestMiddlewareGoexitClosesConnection(t *testing.T) {
	for name, policy := range map[string]resilience.Policy{"same goroutine": resilience.Pipeline{}, "other goroutine": abandoning(time.Hour)} {
		s := newSite(t, 1, guard(policy, func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "begun")
			runtime.Goexit()
		}))
		if response, err := s.Client().Get(s.URL); err == nil {
			t.Errorf("%s: got %s", name, response.Status)
		}
		eventually(t, "the connection is closed", func() bool { return s.open.Load() == 0 })
	}
}

func TestMiddlewareSendsTrailers(t *testing.T) {
	protocols(t, func(t *testing.T, protocol int) {
		for name, policy := range map[string]resilience.Policy{"same goroutine": resilience.Pipeline{}, "other goroutine": abandoning(time.Hour)} {
			s := newSite(t, protocol, guard(policy, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Trailer", "X-Sum")
				io.WriteString(w, "body")
				w.(http.Flusher).Flush()
				w.Header().Set("X-Sum", "4")
				w.Header().Set(http.TrailerPrefix+"X-Late", "1")
				w.Header().Set("X-No-Trailer", "1")
			}))
			response := s.do(t, protocol, newRequest(t, "GET", s.URL, ""))
			if text := readAll(t, response); text != "body" {
				t.Errorf("%s: got %q", name, text)
			}
			if len(response.Trailer) != 2 || response.Trailer.Get("X-Sum") != "4" || response.Trailer.Get("X-Late") != "1" {
				t.Errorf("%s: got trailer %v", name, response.Trailer)
			}
		}
	})
}

// TestMiddlewareFlushSendsDataImmediately, with http.Flusher and with http.ResponseController.
func TestMiddlewareFlushSendsDataImmediately(t *testing.T) {
	protocols(t, func(t *testing.T, protocol int) {
		seen := make(chan struct{})
		s := newSite(t, protocol, guard(abandoning(time.Hour), func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "one\n")
			w.(http.Flusher).Flush()
			<-seen
			io.WriteString(w, "two\n")
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
			<-seen
		}))
		response := s.do(t, protocol, newRequest(t, "GET", s.URL, ""))
		lines := bufio.NewReader(response.Body)
		for _, want := range []string{"one\n", "two\n"} {
			if line, err := lines.ReadString('\n'); line != want {
				t.Errorf("got %q, %v, want %q", line, err, want)
			}
			seen <- struct{}{}
		}
	})
}

func TestMiddlewareHEADHasHeadersOfGET(t *testing.T) {
	protocols(t, func(t *testing.T, protocol int) {
		s := newSite(t, protocol, guard(timeout.After(time.Hour), func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/fails" {
				w.WriteHeader(500)
			}
			if n, err := io.WriteString(w, "body"); n != 4 || err != nil && err != http.ErrBodyNotAllowed {
				t.Errorf("got %d, %v from Write", n, err)
			}
		}))
		for path, want := range map[string]int{"/": 200, "/fails": 500} {
			response := s.do(t, protocol, newRequest(t, "HEAD", s.URL+path, ""))
			if response.StatusCode != want || response.ContentLength != 4 || readAll(t, response) != "" {
				t.Errorf("got %s, length %d", response.Status, response.ContentLength)
			}
		}
	})
}

func TestMiddlewareLogsSuperfluousStatus(t *testing.T) {
	s := newSite(t, 1, guard(resilience.Pipeline{}, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(201)
		w.WriteHeader(500)
	}))
	if response := s.do(t, 1, newRequest(t, "GET", s.URL, "")); response.StatusCode != 201 {
		t.Errorf("got %s", response.Status)
	}
	if text := s.log.String(); !strings.Contains(text, "superfluous") {
		t.Errorf("got log %q", text)
	}
}

// TestMiddlewareLeavesHijackedConnectionToHandler: it echoes like a websocket, holds the half-open
// breaker's probe until it ends, and isn't affected by a policy that abandons its handler.
func TestMiddlewareLeavesHijackedConnectionToHandler(t *testing.T) {
	for name, apart := range map[string]bool{"in time": false, "left behind": true} {
		b := breaker.New(breaker.Config{Name: "echo"})
		b.HalfOpen()
		leave, over := make(chan struct{}), make(chan struct{})
		inner := guard(resilience.Pipeline{b, abandonOn(leave, abandonedErr)}, func(w http.ResponseWriter, r *http.Request) {
			conn, buffered, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
			if _, err := io.WriteString(w, "x"); err != http.ErrHijacked && err != http.ErrHandlerTimeout {
				t.Errorf("got %v from a write after Hijack", err)
			}
			io.Copy(conn, buffered)
		})
		s := newSite(t, 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Upgrade") != "" {
				defer close(over)
			}
			inner.ServeHTTP(w, r)
		}))
		req := newRequest(t, "GET", s.URL, "")
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "echo")
		response := s.do(t, 1, req)
		if response.StatusCode != 101 {
			t.Fatalf("%s: got %s", name, response.Status)
		}
		echo := response.Body.(io.ReadWriteCloser)
		say := func(text string) {
			io.WriteString(echo, text)
			got := make([]byte, len(text))
			if _, err := io.ReadFull(echo, got); err != nil || string(got) != text {
				t.Errorf("%s: got echo %q, %v", name, got, err)
			}
		}
		say("hello")
		if refused := s.do(t, 1, newRequest(t, "GET", s.URL, "")); refused.StatusCode != 503 {
			t.Errorf("%s: got %s next to the probe, want 503", name, refused.Status)
		}
		if apart {
			leave <- struct{}{}
			<-over
			say("still there")
		}
		echo.Close()
		<-over
		if want := map[bool]breaker.State{false: breaker.Closed, true: breaker.Open}[apart]; b.State() != want {
			t.Errorf("%s: got breaker state %v, want %v", name, b.State(), want)
		}
	}
}

// TestMiddlewareResponseControllerReachesConnection through the writer, and through that of another
// middleware.
func TestMiddlewareResponseControllerReachesConnection(t *testing.T) {
	protocols(t, func(t *testing.T, protocol int) {
		for name, wrap := range map[string]func(http.ResponseWriter) http.ResponseWriter{
			"directly":  func(w http.ResponseWriter) http.ResponseWriter { return w },
			"by Unwrap": func(w http.ResponseWriter) http.ResponseWriter { return wrappedWriter{w} },
		} {
			writeErr := make(chan error, 1)
			// On another goroutine, but never abandoned: over HTTP/1, a failed read ends the
			// request's context, and Abandon reacts.
			inner := guard(abandonOn(nil, abandonedErr), func(w http.ResponseWriter, r *http.Request) {
				controller := http.NewResponseController(w)
				if err := controller.EnableFullDuplex(); err != nil {
					t.Errorf("%s: got %v from EnableFullDuplex", name, err)
				}
				if err := controller.SetReadDeadline(time.Now().Add(-time.Hour)); err != nil {
					t.Errorf("%s: got %v from SetReadDeadline", name, err)
				}
				if _, err := io.ReadAll(r.Body); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("%s: got read: %v, want a deadline's error", name, err)
				}
				if err := controller.SetWriteDeadline(time.Now().Add(-time.Hour)); err != nil {
					t.Errorf("%s: got %v from SetWriteDeadline", name, err)
				}
				io.WriteString(w, "x")
				writeErr <- controller.Flush()
			})
			s := newSite(t, protocol, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { inner.ServeHTTP(wrap(w), r) }))
			upload, client := io.Pipe()
			var g errgroup.Group
			g.Go(func() error {
				if response, err := s.Client().Post(s.URL, "text/plain", upload); err == nil {
					t.Errorf("%s: got %s after the write deadline", name, response.Status)
				}
				return nil
			})
			if err := <-writeErr; err == nil {
				t.Errorf("%s: the write returned no error", name)
			}
			client.Close() // the client waits for the end of its own body
			g.Wait()
		}
	})
}

// TestMiddlewareDeadlinesOfAbandonedHandlerDoNotRace: handlers of streams set a deadline before
// each write. The race detector makes this test useful.
func TestMiddlewareDeadlinesOfAbandonedHandlerDoNotRace(t *testing.T) {
	protocols(t, func(t *testing.T, protocol int) {
		leave, ended := make(chan struct{}, 1), make(chan error, 1)
		s := newSite(t, protocol, guard(abandonOn(leave, abandonedErr), func(w http.ResponseWriter, r *http.Request) {
			controller := http.NewResponseController(w)
			for i := 0; ; i++ {
				if err := controller.SetWriteDeadline(time.Now().Add(time.Hour)); err != nil {
					ended <- err
					return
				}
				if i == 100 {
					leave <- struct{}{}
				}
			}
		}))
		for range 10 {
			if response := s.do(t, protocol, newRequest(t, "GET", s.URL, "")); response.StatusCode != 503 {
				t.Errorf("got %s, want 503", response.Status)
			}
			if err := <-ended; err != http.ErrHandlerTimeout {
				t.Errorf("got %v, want http.ErrHandlerTimeout", err)
			}
		}
	})
}

// TestMiddlewareDisconnectIsNotFailure, whether the client waits for the response, reads it, or
// sends its body.
func TestMiddlewareDisconnectIsNotFailure(t *testing.T) {
	protocols(t, func(t *testing.T, protocol int) {
		b := breaker.New(breaker.Config{Consecutive: 1})
		running, served := make(chan struct{}), make(chan struct{})
		inner := guard(resilience.Pipeline{b, timeout.After(time.Hour)}, func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/reads":
				io.WriteString(w, "begun")
				w.(http.Flusher).Flush()
				close(running)
				<-r.Context().Done()
			case "/sends":
				close(running)
				if _, err := io.ReadAll(r.Body); err != nil {
					w.WriteHeader(500)
				}
			case "/waits":
				close(running)
				<-r.Context().Done()
				w.WriteHeader(500)
			}
		})
		s := newSite(t, protocol, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer func() { served <- struct{}{} }()
			inner.ServeHTTP(w, r)
		}))
		for _, path := range []string{"/waits", "/reads", "/sends"} {
			running = make(chan struct{})
			ctx, cancel := context.WithCancel(t.Context())
			req := newRequest(t, "POST", s.URL+path, "").WithContext(ctx)
			upload, client := io.Pipe()
			if path == "/sends" {
				req.Body, req.ContentLength = upload, 1000
			}
			var g errgroup.Group
			g.Go(func() error {
				response, err := s.Client().Do(req)
				if err == nil {
					defer response.Body.Close()
					_, err = io.ReadAll(response.Body)
				}
				return err
			})
			<-running
			cancel()
			client.CloseWithError(context.Canceled)
			if err := g.Wait(); !errors.Is(err, context.Canceled) {
				t.Errorf("%s: the client got %v", path, err)
			}
			<-served
			if b.State() != breaker.Closed {
				t.Errorf("%s: got breaker state %v, want closed", path, b.State())
				b.Reset()
			}
		}
	})
}

// TestMiddlewareHundredClientsOfAbandonedHandlers: each receives the handler's response or the
// middleware's, never a mix, and all goroutines end.
func TestMiddlewareHundredClientsOfAbandonedHandlers(t *testing.T) {
	protocols(t, func(t *testing.T, protocol int) {
		before := goroutines()
		end := make(chan struct{})
		limit := timeout.New(timeout.Config{Limit: 5 * time.Millisecond, Abandon: 10000})
		var n atomic.Int32
		s := newSite(t, protocol, guard(limit, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Handler", "1")
			switch n.Add(1) % 5 {
			case 0: // hangs without writing
				<-end
			case 1: // hangs after it has begun to respond
				io.WriteString(w, "answer")
				w.(http.Flusher).Flush()
				<-end
				io.WriteString(w, "too late")
			case 2: // ends at about the limit
				<-r.Context().Done()
			case 3: // goes on writing
				for _, err := io.WriteString(w, "answer\n"); err == nil; {
					w.Header().Set("X-Handler", "2")
					_, err = io.WriteString(w, "answer\n")
				}
				<-end
				panic("left behind")
			}
			io.WriteString(w, "answer")
		}))
		client := s.Client()
		var g errgroup.Group
		var answered, unavailable, aborted atomic.Int32
		for range 100 {
			g.Go(func() error {
				for range 5 {
					response, err := client.Post(s.URL, "text/plain", strings.NewReader("a body"))
					if err != nil {
						aborted.Add(1)
						continue
					}
					text, err := io.ReadAll(response.Body)
					response.Body.Close()
					handlers := response.Header.Get("X-Handler") != ""
					switch {
					case response.StatusCode == 503 && !handlers && string(text) == "Service Unavailable\n" && err == nil:
						unavailable.Add(1)
					case response.StatusCode == 200 && handlers && strings.HasPrefix(string(text), "answer") && err == nil:
						answered.Add(1)
					case response.StatusCode == 200 && handlers && err != nil:
						aborted.Add(1)
					default:
						return fmt.Errorf("%s, %v, %.100q, %w", response.Status, response.Header, text, err)
					}
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		t.Logf("%d answered, %d with 503, %d aborted, %d are still running", answered.Load(), unavailable.Load(), aborted.Load(), limit.Abandoned())
		if unavailable.Load() == 0 || aborted.Load() == 0 || limit.Abandoned() == 0 {
			t.Error("some of the cases didn't occur")
		}
		close(end)
		client.CloseIdleConnections()
		s.Close()
		eventually(t, "all goroutines have ended", func() bool { return noneSince(before) })
		if n := limit.Abandoned(); n != 0 {
			t.Errorf("got %d abandoned handlers, want 0", n)
		}
	})
}

// sendfileListener's connections record what is passed to their ReadFrom, from which the kernel sends
// files.
type sendfileListener struct {
	net.Listener
	sources chan string
}

func (l sendfileListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return sendfileConn{conn.(*net.TCPConn), l.sources}, nil
}

type sendfileConn struct {
	*net.TCPConn
	sources chan string
}

func (c sendfileConn) ReadFrom(src io.Reader) (int64, error) {
	if limited, ok := src.(*io.LimitedReader); ok {
		c.sources <- fmt.Sprintf("%T", limited.R)
	}
	return c.TCPConn.ReadFrom(src)
}

// TestMiddlewareSendsFilesByKernel: a real server's connection receives the file itself, and the client
// receives its content.
func TestMiddlewareSendsFilesByKernel(t *testing.T) {
	file, content := newFile(t, 10<<20)
	sources := make(chan string, 100)
	for name, handler := range map[string]http.HandlerFunc{
		"ServeFile": func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, file.Name()) },
		"Copy": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(content)))
			opened, err := os.Open(file.Name())
			if err != nil {
				t.Error(err)
				return
			}
			defer opened.Close()
			io.Copy(w, opened)
		},
	} {
		s := httptest.NewUnstartedServer(guard(resilience.Pipeline{abandoning(time.Minute)}, handler))
		s.Listener = sendfileListener{s.Listener, sources}
		s.Start()
		response, err := s.Client().Get(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		if response.ContentLength != int64(len(content)) || !strings.HasPrefix(response.Header.Get("Content-Type"), "text/plain") || readAll(t, response) != string(content) {
			t.Errorf("%s: got %v", name, response.Header)
		}
		s.Close()
		if n := len(sources); n != 3 {
			t.Errorf("%s: %d chunks were passed to the connection, want 3", name, n)
		}
		for len(sources) > 0 {
			if source := <-sources; !strings.HasPrefix(source, "*os.File") && source != "os.fileWithoutWriteTo" {
				t.Errorf("%s: the connection received a %s", name, source)
			}
		}
	}
}
