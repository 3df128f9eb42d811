package resiliencehttp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/bulkhead"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// The recipes of docs/http.md, as the page shows them.

// A readingBase reads bodies of at most limit bytes before it returns the response.
// Longer bodies are streamed.
type readingBase struct {
	http.RoundTripper
	limit int64
}

func (b readingBase) RoundTrip(req *http.Request) (*http.Response, error) {
	response, err := b.RoundTripper.RoundTrip(req)
	if err != nil || response.ContentLength > b.limit || response.StatusCode == http.StatusSwitchingProtocols {
		return response, err
	}
	read, err := io.ReadAll(io.LimitReader(response.Body, b.limit+1))
	if err != nil {
		response.Body.Close()
		return nil, err
	}
	if int64(len(read)) > b.limit {
		response.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(read), response.Body), response.Body}
		return response, nil
	}
	response.Body.Close()
	response.Body = io.NopCloser(bytes.NewReader(read))
	return response, nil
}

// keepBody reads a body of at most limit bytes, so that the request can be sent again.
// Longer bodies are streamed, and the request is sent once.
func keepBody(req *http.Request, limit int64) {
	if req.Body == nil || req.Body == http.NoBody || req.GetBody != nil || req.ContentLength > limit {
		return
	}
	read, err := io.ReadAll(io.LimitReader(req.Body, limit+1))
	if err != nil || int64(len(read)) > limit {
		req.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(read), req.Body), req.Body}
		return
	}
	req.Body.Close()
	req.ContentLength = int64(len(read))
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(read)), nil }
	req.Body, _ = req.GetBody()
}

// TestRecipesMatchHTTPPage compares the two recipes with the page.
func TestRecipesMatchHTTPPage(t *testing.T) {
	page, err := os.ReadFile("../docs/http.md")
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile("recipes_loopback_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, begin := range []string{"// A readingBase", "// keepBody"} {
		_, recipe, _ := strings.Cut(string(file), "\n"+begin)
		recipe, _, _ = strings.Cut(begin+recipe, "\n\n// ")
		if !strings.Contains(string(page), recipe) {
			t.Errorf("docs/http.md doesn't show\n%s", recipe)
		}
	}
}

// TestRecipeBudgetPerHost: while one host is down, the other host's failures are still retried,
// which they aren't if the hosts share a budget.
func TestRecipeBudgetPerHost(t *testing.T) {
	newBudget := func() *budget.Budget { return budget.New(budget.Config{Ratio: 0.1, TTL: time.Hour}) }
	shared := newBudget()
	for name, c := range map[string]struct {
		budget func() *budget.Budget
		want   int
	}{
		"per host": {newBudget, 200},
		"shared":   {func() *budget.Budget { return shared }, 503},
	} {
		t.Run(name, func(t *testing.T) {
			down := newSite(t, 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) }))
			var fail atomic.Bool // the next request only
			up := newSite(t, 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if fail.CompareAndSwap(true, false) {
					w.WriteHeader(503)
				}
			}))
			base := &http.Transport{}
			t.Cleanup(base.CloseIdleConnections)
			client := &http.Client{Transport: wrapped(base, func(string) resilience.Policy {
				return retries(retry.Config{Budget: c.budget()})
			})}
			status := func(url string) int {
				response, err := client.Get(url)
				if err != nil {
					t.Fatal(err)
				}
				response.Body.Close()
				return response.StatusCode
			}
			for range 20 {
				status(up.URL) // collects two tokens
			}
			for range 50 {
				status(down.URL) // spends all tokens that it can get
			}
			fail.Store(true)
			if got := status(up.URL); got != c.want {
				t.Errorf("got status %d from the host with one failure, want %d", got, c.want)
			}
		})
	}
}

// TestRecipeReadingBaseRetriesTruncatedBody: an error in the body is an attempt's error, unless the
// body is too long.
func TestRecipeReadingBaseRetriesTruncatedBody(t *testing.T) {
	client := func(t *testing.T, limit int64) *http.Client {
		base := &http.Transport{}
		t.Cleanup(base.CloseIdleConnections)
		return &http.Client{Transport: wrapped(readingBase{base, limit}, designed)}
	}
	t.Run("GET", func(t *testing.T) {
		w := newWire(t, truncated, truncated, fine)
		response, err := client(t, 1000).Get(w.url())
		if err != nil {
			t.Fatal(err)
		}
		if text := readAll(t, response); text != "fine" || w.conns.Load() != 3 {
			t.Errorf("got %q after %d connections, want %q after 3", text, w.conns.Load(), "fine")
		}
	})
	t.Run("POST", func(t *testing.T) {
		w := newWire(t, truncated, fine)
		if _, err := client(t, 1000).Post(w.url(), "", strings.NewReader("x")); !errors.Is(err, io.ErrUnexpectedEOF) || w.conns.Load() != 1 {
			t.Errorf("got %v after %d connections, want %v after 1", err, w.conns.Load(), io.ErrUnexpectedEOF)
		}
	})
	for name, script := range map[string]func(net.Conn){
		"declared length above the limit": truncated,
		"body above the limit":            respond("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWire(t, script, fine)
			response, err := client(t, 4).Get(w.url())
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			if text, err := io.ReadAll(response.Body); string(text) != "short" || !errors.Is(err, io.ErrUnexpectedEOF) || w.conns.Load() != 1 {
				t.Errorf("got %q, %v after %d connections, want %q, %v after 1", text, err, w.conns.Load(), "short", io.ErrUnexpectedEOF)
			}
		})
	}
}

// TestRecipeReadingBaseTimeoutCoversBody: an attempt whose body hangs is canceled at its timeout
// and retried.
func TestRecipeReadingBaseTimeoutCoversBody(t *testing.T) {
	var requests atomic.Int32
	s := newSite(t, 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		if requests.Add(1) == 1 {
			<-r.Context().Done()
		}
		io.WriteString(w, "fine")
	}))
	client := &http.Client{Transport: wrapped(readingBase{s.Client().Transport, 1000}, func(string) resilience.Policy {
		return resilience.Pipeline{retries(retry.Config{MaxAttempts: retry.Unlimited}), timeout.After(100 * time.Millisecond)}
	})}
	response, err := client.Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	if text := readAll(t, response); text != "fine" || requests.Load() < 2 {
		t.Errorf("got %q after %d requests, want %q after at least 2", text, requests.Load(), "fine")
	}
}

// TestRecipeProxyReplaysSmallBodies: behind a ReverseProxy, a small body is sent again, a long one
// is streamed and sent once. Without the recipe, no body is sent again.
func TestRecipeProxyReplaysSmallBodies(t *testing.T) {
	const limit = 1000
	for name, c := range map[string]struct {
		keep     int64
		length   int
		chunked  bool
		requests int32
		status   int
	}{
		"small":                    {limit, limit, false, 2, 200},
		"small, without a length":  {limit, limit, true, 2, 200},
		"long":                     {limit, limit + 1, false, 1, 503},
		"long, without a length":   {limit, limit + 1, true, 1, 503},
		"small without the recipe": {-1, limit, false, 1, 503},
	} {
		t.Run(name, func(t *testing.T) {
			var requests atomic.Int32
			body := strings.Repeat("x", c.length)
			backend := newSite(t, 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if got, err := io.ReadAll(r.Body); string(got) != body || err != nil {
					t.Errorf("got a body of %d bytes, %v, want %d bytes", len(got), err, len(body))
				}
				if requests.Add(1) == 1 {
					w.WriteHeader(503)
				}
			}))
			target, err := url.Parse(backend.URL)
			if err != nil {
				t.Fatal(err)
			}
			proxy := newSite(t, 1, &httputil.ReverseProxy{
				Rewrite: func(r *httputil.ProxyRequest) {
					r.SetURL(target)
					if c.keep >= 0 {
						keepBody(r.Out, c.keep)
					}
				},
				Transport: wrapped(backend.Client().Transport, designed),
			})
			var reader io.Reader = strings.NewReader(body)
			if c.chunked {
				reader = io.MultiReader(reader) // hides the length
			}
			req, err := http.NewRequestWithContext(t.Context(), "PUT", proxy.URL, reader)
			if err != nil {
				t.Fatal(err)
			}
			response := proxy.do(t, 1, req)
			if response.StatusCode != c.status || requests.Load() != c.requests {
				t.Errorf("got status %d after %d requests, want %d after %d", response.StatusCode, requests.Load(), c.status, c.requests)
			}
		})
	}
}

// TestMiddlewareMaxBytesReaderKeepsConnection: net/http closes the connection after a body that is
// too long only if MaxBytesReader has the server's own writer, as with MaxBytesHandler outside the
// middleware.
func TestMiddlewareMaxBytesReaderKeepsConnection(t *testing.T) {
	const limit = 10
	respond := func(t *testing.T, w http.ResponseWriter, body io.Reader) {
		var tooLong *http.MaxBytesError
		if _, err := io.ReadAll(body); !errors.As(err, &tooLong) {
			t.Errorf("got read error %v, want a MaxBytesError", err)
		}
		w.WriteHeader(http.StatusRequestEntityTooLarge)
	}
	for name, c := range map[string]struct {
		handler http.Handler
		closes  bool
	}{
		"MaxBytesReader inside": {guard(timeout.After(time.Hour), func(w http.ResponseWriter, r *http.Request) {
			respond(t, w, http.MaxBytesReader(w, r.Body, limit))
		}), false},
		"MaxBytesHandler outside": {http.MaxBytesHandler(guard(timeout.After(time.Hour), func(w http.ResponseWriter, r *http.Request) {
			respond(t, w, r.Body)
		}), limit), true},
	} {
		s := newSite(t, 1, c.handler)
		response := s.do(t, 1, newRequest(t, "POST", s.URL, strings.Repeat("x", limit+1)))
		if response.StatusCode != http.StatusRequestEntityTooLarge || response.Close != c.closes {
			t.Errorf("%s: got %s, closes the connection: %t, want 413, %t", name, response.Status, response.Close, c.closes)
		}
	}
}

// TestMiddlewareStalledClientHoldsBulkhead: a client that doesn't read blocks the handler's write,
// which doesn't notice a cooperative timeout. A write deadline, or Abandon, which sets one, frees
// the place.
func TestMiddlewareStalledClientHoldsBulkhead(t *testing.T) {
	const limit = 10 * time.Millisecond
	for name, c := range map[string]struct {
		timeout  resilience.Policy
		deadline bool // the handler sets a write deadline
		holds    bool
	}{
		"cooperative timeout":                    {timeout.After(limit), false, true},
		"cooperative timeout and write deadline": {timeout.After(limit), true, false},
		"abandoning timeout":                     {abandoning(limit), false, false},
	} {
		t.Run(name, func(t *testing.T) {
			room := bulkhead.New(bulkhead.Config{Name: "room", Limit: 1})
			expired := make(chan struct{})
			s := newSite(t, 1, guard(resilience.Pipeline{c.timeout, room}, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/stalled" {
					return
				}
				context.AfterFunc(r.Context(), func() { close(expired) })
				if c.deadline {
					deadline, _ := r.Context().Deadline()
					if err := http.NewResponseController(w).SetWriteDeadline(deadline); err != nil {
						t.Error(err)
					}
				}
				chunk := make([]byte, 1<<20)
				for {
					if _, err := w.Write(chunk); err != nil {
						return
					}
				}
			}))
			conn, err := net.Dial("tcp", s.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprint(conn, "GET /stalled HTTP/1.1\r\nHost: x\r\n\r\n")
			<-expired
			if c.holds {
				if response := s.do(t, 1, newRequest(t, "GET", s.URL, "")); response.StatusCode != 503 || room.Snapshot().Running != 1 {
					t.Errorf("got %s with %d running, want 503 with 1", response.Status, room.Snapshot().Running)
				}
				conn.Close() // only this ends the write
			}
			eventually(t, "the place in the bulkhead is free", func() bool { return room.Snapshot().Running == 0 })
		})
	}
}
