package resiliencehttp_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/timeout"
)

// serverPromises are what net/http's server does for handlers. Behind the middleware, clients and
// logs must see no difference. The names of those that apply only to HTTP/1 begin with HTTP/1.
var serverPromises = []struct {
	name    string
	request string // method, path, and body if there is one
	handler http.HandlerFunc
}{
	{"nothing is 200", "GET /", func(http.ResponseWriter, *http.Request) {}},
	{"headers alone", "GET /", func(w http.ResponseWriter, r *http.Request) { w.Header().Set("X-Own", "1") }},
	{"a body", "GET /", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "body") }},
	{"a type is detected", "GET /", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "<html>") }},
	{"a type is kept", "GET /", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/x-own")
		io.WriteString(w, "<html>")
	}},
	{"no type, no date", "GET /", func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Content-Type"] = nil
		w.Header()["Date"] = nil
		io.WriteString(w, "<html>")
	}},
	{"an empty write", "GET /", func(w http.ResponseWriter, r *http.Request) { w.Write(nil) }},
	{"a long body", "GET /", func(w http.ResponseWriter, r *http.Request) {
		for range 100 {
			io.WriteString(w, strings.Repeat("x", 1000))
		}
	}},
	{"a length", "GET /", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "4")
		io.WriteString(w, "body")
	}},
	{"a length that is too long", "GET /", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		io.WriteString(w, "body")
	}},
	{"a length that is too short", "GET /", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "2")
		n, err := io.WriteString(w, "body")
		panic(fmt.Sprint("got ", n, err))
	}},
	{"an invalid length", "GET /", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "x")
		io.WriteString(w, "body")
	}},
	{"no content", "GET /", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) }},
	{"a body where there is none", "GET /", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(204)
		n, err := io.WriteString(w, "body")
		panic(fmt.Sprint("got ", n, err))
	}},
	{"not modified", "GET /", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"1"`)
		w.WriteHeader(304)
	}},
	{"a redirect", "GET /", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/there", http.StatusMovedPermanently)
	}},
	{"an error's headers", "GET /", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Etag", `"1"`)
		http.Error(w, "sorry", 500)
	}},
	{"a range of a file", "GET /range", func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("Range", "bytes=2-5")
		http.ServeContent(w, r, "name.txt", time.Unix(1e9, 0), strings.NewReader("0123456789"))
	}},
	{"HEAD", "HEAD /", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "body") }},
	{"HEAD of a length", "HEAD /", func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Content-Length", "1000") }},
	{"HEAD that fails", "HEAD /", func(w http.ResponseWriter, r *http.Request) { http.Error(w, "sorry", 500) }},
	{"a status twice", "GET /", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(201)
		w.WriteHeader(500)
	}},
	{"a status after the body", "GET /", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "body")
		w.WriteHeader(500)
	}},
	{"headers after the status", "GET /", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		w.Header().Set("X-Late", "1")
		io.WriteString(w, "body")
	}},
	{"an invalid status", "GET /", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(42) }},
	{"hints", "GET /", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>")
		w.WriteHeader(103)
		w.WriteHeader(103)
		w.Header().Del("Link")
		w.WriteHeader(201)
	}},
	{"hints with lasting headers", "GET /", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>")
		w.WriteHeader(103)
		io.WriteString(w, "body")
	}},
	{"hints and nothing", "GET /", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(103) }},
	{"hints after the status", "GET /", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "body")
		w.WriteHeader(103)
	}},
	{"100 continue written manually", "POST / body", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(100)
		io.Copy(w, r.Body)
	}},
	{"a body is expected", "POST /expect body", func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) }},
	{"a body is expected and left unread", "POST /expect body", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(417) }},
	{"a body is left unread", "POST / body", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "left") }},
	{"a body is closed", "POST / body", func(w http.ResponseWriter, r *http.Request) {
		r.Body.Close()
		_, err := io.ReadAll(r.Body)
		fmt.Fprint(w, err)
	}},
	{"a body is too long", "POST / body", func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, 2))
		fmt.Fprint(w, string(text), err)
	}},
	{"a form", "POST /form a=1&b=2", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.FormValue("a"), r.FormValue("b")) }},
	{"trailers", "GET /", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum, X-Missing")
		io.WriteString(w, "body")
		w.Header().Set("X-Sum", "4")
		w.Header().Set(http.TrailerPrefix+"X-Late", "1")
		w.Header().Set("X-No-Trailer", "1")
	}},
	{"trailers after a flush", "GET /", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		w.(http.Flusher).Flush()
		w.Header().Set("X-Sum", "4")
	}},
	{"a flush alone", "GET /", func(w http.ResponseWriter, r *http.Request) { w.(http.Flusher).Flush() }},
	{"a flush by the controller", "GET /", func(w http.ResponseWriter, r *http.Request) {
		err := http.NewResponseController(w).Flush()
		fmt.Fprint(w, err)
	}},
	{"an abort", "GET /", func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }},
	{"an abort in the body", "GET /", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "begun")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}},
	{"a panic", "GET /", func(w http.ResponseWriter, r *http.Request) { panic("thrown") }},
	{"a panic before the body is sent", "GET /", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Own", "1")
		io.WriteString(w, "begun")
		panic("thrown")
	}},
	{"a panic in the body", "GET /", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "begun")
		w.(http.Flusher).Flush()
		panic("thrown")
	}},
	{"bad header values", "GET /", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Own", "a\nb")
		w.Header()["X-Empty"] = []string{}
		w.Header().Add("X-Two", "1")
		w.Header().Add("X-Two", "2")
	}},
	{"HTTP/1 the connection is to close", "GET /", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		io.WriteString(w, "body")
	}},
	{"HTTP/1 identity", "GET /", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Transfer-Encoding", "identity")
		io.WriteString(w, "body")
	}},
	{"HTTP/1 a hijacked connection", "GET /", func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		_, again, werr := http.NewResponseController(w).Hijack()
		_, err = io.WriteString(w, "x")
		fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: 20\r\nX-Got: %v, %v, %v\r\n\r\n", again == nil, werr, err)
		io.WriteString(conn, "by the handler's own")
	}},
	{"HTTP/1 reading while writing", "POST / body", func(w http.ResponseWriter, r *http.Request) {
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			panic(err)
		}
		w.(http.Flusher).Flush()
		io.Copy(w, r.Body)
	}},
	{"values of the server", "GET /", func(w http.ResponseWriter, r *http.Request) {
		server, addr := r.Context().Value(http.ServerContextKey), r.Context().Value(http.LocalAddrContextKey)
		fmt.Fprint(w, server.(*http.Server) != nil, addr.(net.Addr).Network(), r.TLS != nil, r.RequestURI, r.Host != "", r.RemoteAddr != "")
	}},
}

// visit sends a promise's request to a handler. It returns what the client received, what the
// server logged, and the panic.
func visit(t *testing.T, protocol int, request string, handler http.Handler) string {
	over := make(chan any, 1)
	s := newSite(t, protocol, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			value := recover()
			if p, ok := value.(*resilience.PanicError); ok {
				value = p.Value
			}
			over <- value
			if value != nil {
				panic(http.ErrAbortHandler) // over HTTP/2, its log entry would come too late
			}
		}()
		handler.ServeHTTP(w, r)
	}))
	defer s.Close()
	parts := append(strings.SplitN(request, " ", 3), "")
	req := newRequest(t, parts[0], s.URL+parts[1], parts[2])
	switch parts[1] {
	case "/expect":
		req.Header.Set("Expect", "100-continue")
	case "/form":
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	var hints []string
	req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(status int, header textproto.MIMEHeader) error {
			hints = append(hints, fmt.Sprint(status, header))
			return nil
		},
	}))
	// The transport itself, so that no redirect is followed. It sends a request once over a new
	// connection.
	response, err := s.Client().Transport.RoundTrip(req)
	var got string
	if err != nil {
		got = fmt.Sprint("no response: ", strings.ReplaceAll(err.Error(), s.Listener.Addr().String(), "HOST"))
	} else {
		text, err := io.ReadAll(response.Body)
		response.Body.Close()
		if date, ok := response.Header["Date"]; ok {
			response.Header["Date"] = []string{fmt.Sprint(len(date))}
		}
		got = fmt.Sprint(response.Status, response.Header, response.ContentLength, response.TransferEncoding, response.Close, response.Trailer, len(text), err)
		got += fmt.Sprintf(" %.50q", text)
	}
	panicked := <-over
	var logged []string
	for line := range strings.Lines(s.log.String()) {
		line, _, _ = strings.Cut(line, " from ") // removes the caller, which is the middleware
		logged = append(logged, line)
	}
	return fmt.Sprintf("%v %s; logged %q; panicked %v", hints, got, logged, panicked)
}

// TestMiddlewareMatchesNetHTTP observes the same at the client and in the log as with the bare
// handler.
func TestMiddlewareMatchesNetHTTP(t *testing.T) {
	protocols(t, func(t *testing.T, protocol int) {
		for _, promise := range serverPromises {
			if protocol == 2 && strings.HasPrefix(promise.name, "HTTP/1") {
				continue
			}
			t.Run(promise.name, func(t *testing.T) {
				bare := visit(t, protocol, promise.request, promise.handler)
				for name, policy := range map[string]resilience.Policy{
					"empty": resilience.Pipeline{}, "limited": timeout.After(time.Hour), "other goroutine": abandoning(time.Hour),
				} {
					if got := visit(t, protocol, promise.request, guard(policy, promise.handler)); got != bare {
						t.Errorf("%s:\n\t%s\nbare:\n\t%s", name, got, bare)
					}
				}
				twice := guard(resilience.Pipeline{}, guard(resilience.Pipeline{}, promise.handler).ServeHTTP)
				if got := visit(t, protocol, promise.request, twice); got != bare {
					t.Errorf("twice:\n\t%s\nbare:\n\t%s", got, bare)
				}
				t.Log(bare)
			})
		}
	})
}
