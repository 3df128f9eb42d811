package resiliencehttp_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/resiliencehttp"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// designed is the pipeline of docs/http.md, without waits and with timeouts that no loaded machine
// reaches.
func designed(key string) resilience.Policy {
	return resilience.Pipeline{
		timeout.After(10 * time.Minute),
		retry.New(retry.Config{Backoff: retry.Constant(0)}),
		breaker.New(breaker.Config{Name: key, Consecutive: 1000}),
		timeout.After(2 * time.Minute),
	}
}

func wrapped(base http.RoundTripper, policies func(string) resilience.Policy) http.RoundTripper {
	return resiliencehttp.NewTransport(resiliencehttp.Config{Base: base, Policies: policies})
}

// A place is a loopback server with a transport to it, either bare or wrapped.
type place struct {
	t         *testing.T
	url       string
	base      *http.Transport
	transport http.RoundTripper
	requests  atomic.Int32 // number of requests that reached the server
	release   chan struct{}
}

func (p *place) client() *http.Client { return &http.Client{Transport: p.transport} }

func (p *place) request(method, path string, body io.Reader) *http.Request {
	req, err := http.NewRequestWithContext(p.t.Context(), method, p.url+path, body)
	if err != nil {
		p.t.Fatal(err)
	}
	return req
}

// describe returns the result of a request as text, including the body.
func (p *place) describe(response *http.Response, err error) string {
	if err != nil {
		return "error: " + p.strip(err.Error())
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return fmt.Sprintf("%s %q %v length %d %v, trailer %v", response.Status, p.strip(string(body)), err, response.ContentLength, response.TransferEncoding, response.Trailer)
}

// cancelable returns a request that its field Cancel cancels.
func (p *place) cancelable(path string) (req *http.Request, cancel func()) {
	req = p.request("GET", path, nil)
	channel := make(chan struct{})
	//lint:ignore SA1019 deprecated, and kept
	req.Cancel = channel
	return req, func() { close(channel) }
}

// reached waits until a request has reached the server.
func (p *place) reached() {
	eventually(p.t, "the server has the request", func() bool { return p.requests.Load() > 0 })
}

// strip removes what differs between places.
func (p *place) strip(text string) string {
	text = strings.ReplaceAll(text, strings.TrimPrefix(strings.TrimPrefix(p.url, "https://"), "http://"), "HOST")
	if before, after, ok := strings.Cut(text, "127.0.0.1:"); ok {
		text = before + "PEER" + strings.TrimLeft(after, "0123456789")
		return p.strip(text)
	}
	return text
}

// serve is the server's handler. The path selects what it does.
func (p *place) serve(w http.ResponseWriter, r *http.Request) {
	p.requests.Add(1)
	switch r.URL.Path {
	case "/echo":
		body, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %v expect %q", r.Method, body, err, r.Header.Get("Expect"))
	case "/500", "/404":
		var status int
		fmt.Sscan(r.URL.Path[1:], &status)
		w.Header().Set("X-Own", "1")
		w.WriteHeader(status)
		io.WriteString(w, "sorry")
	case "/empty":
		w.WriteHeader(http.StatusNoContent)
	case "/hang":
		<-p.release
	case "/headers-then-hang":
		io.WriteString(w, "begun ")
		w.(http.Flusher).Flush()
		<-p.release
	case "/trailer":
		w.Header().Set("Trailer", "X-Sum")
		io.WriteString(w, "text")
		w.Header().Set("X-Sum", "7")
	case "/early":
		w.Header().Set("Link", "</style.css>")
		w.WriteHeader(http.StatusEarlyHints)
		io.WriteString(w, "late")
	case "/cookie":
		cookie, err := r.Cookie("c")
		http.SetCookie(w, &http.Cookie{Name: "c", Value: "1"})
		fmt.Fprint(w, cookie, err)
	case "/303":
		http.Redirect(w, r, "/echo", http.StatusSeeOther)
	case "/307":
		http.Redirect(w, r, "/echo", http.StatusTemporaryRedirect)
	case "/loop":
		http.Redirect(w, r, "/loop", http.StatusFound)
	case "/upgrade":
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			p.t.Error(err)
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		text, _ := io.ReadAll(buffered) // until the client closes its half
		fmt.Fprintf(conn, "got %s", text)
	case "/truncated":
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			p.t.Error(err)
			return
		}
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")
		conn.Close()
	case "/gzip":
		fmt.Fprint(w, r.Header.Get("Accept-Encoding"))
	case "/large-header":
		w.Header().Set("X-Large", strings.Repeat("x", 100_000))
	}
}

// promises are what net/http documents of a Transport, and what clients rely on. Each is observed
// as text. The names of those that apply only to HTTP/1 begin with HTTP/1.
var promises = []struct {
	name    string
	observe func(p *place) string
}{
	{"GET", func(p *place) string { return p.describe(p.client().Get(p.url + "/echo")) }},
	{"POST", func(p *place) string {
		return p.describe(p.client().Post(p.url+"/echo", "text/plain", strings.NewReader("body")))
	}},
	{"POST of unknown length", func(p *place) string {
		return p.describe(p.client().Do(p.request("POST", "/echo", io.MultiReader(strings.NewReader("a"), strings.NewReader("b")))))
	}},
	{"HEAD", func(p *place) string { return p.describe(p.client().Head(p.url + "/echo")) }},
	{"failed status with its headers", func(p *place) string {
		response, err := p.client().Get(p.url + "/500")
		if err != nil {
			return err.Error()
		}
		return fmt.Sprint(response.Header["X-Own"], p.describe(response, err))
	}},
	{"a POST answered 500 is sent once", func(p *place) string {
		got := p.describe(p.client().Post(p.url+"/500", "", strings.NewReader("body")))
		return fmt.Sprint(got, " requests: ", p.requests.Load())
	}},
	{"not found", func(p *place) string { return p.describe(p.client().Get(p.url + "/404")) }},
	{"no content has NoBody", func(p *place) string {
		response, err := p.client().Get(p.url + "/empty")
		return fmt.Sprint(err, response.Body == http.NoBody)
	}},
	{"the response's request", func(p *place) string {
		req := p.request("GET", "/echo", nil)
		response, err := p.transport.RoundTrip(req)
		if err == nil {
			response.Body.Close()
		}
		return fmt.Sprint(err, response.Request == req)
	}},
	{"a request can be cloned and sent again", func(p *place) string {
		req := p.request("GET", "/echo", nil)
		return p.describe(p.client().Do(req)) + p.describe(p.client().Do(req.Clone(p.t.Context())))
	}},
	{"trailers", func(p *place) string { return p.describe(p.client().Get(p.url + "/trailer")) }},
	{"1xx hooks", func(p *place) string {
		var codes []int
		ctx := httptrace.WithClientTrace(p.t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
			codes = append(codes, code)
			return nil
		}})
		got := p.describe(p.client().Do(p.request("GET", "/early", nil).WithContext(ctx)))
		return fmt.Sprint(codes, got)
	}},
	{"a 1xx hook's error", func(p *place) string {
		ctx := httptrace.WithClientTrace(p.t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(int, textproto.MIMEHeader) error {
			return errors.New("hook")
		}})
		return p.describe(p.client().Do(p.request("POST", "/early", nil).WithContext(ctx)))
	}},
	{"trace hooks in their order", func(p *place) string {
		var mu sync.Mutex
		var hooks []string
		wrote := make(chan error, 10)
		seen := func(hook string) {
			mu.Lock()
			defer mu.Unlock()
			hooks = append(hooks, hook)
		}
		ctx := httptrace.WithClientTrace(p.t.Context(), &httptrace.ClientTrace{
			GetConn:              func(string) { seen("GetConn") },
			ConnectStart:         func(string, string) { seen("ConnectStart") },
			ConnectDone:          func(_, _ string, err error) { seen(fmt.Sprint("ConnectDone ", err)) },
			GotConn:              func(info httptrace.GotConnInfo) { seen(fmt.Sprint("GotConn ", info.Reused)) },
			WroteHeaders:         func() { seen("WroteHeaders") },
			WroteRequest:         func(info httptrace.WroteRequestInfo) { wrote <- info.Err }, // over HTTP/2, at any time relative to the others
			GotFirstResponseByte: func() { seen("GotFirstResponseByte") },
		})
		send := func() (got string) {
			mu.Lock()
			hooks = nil
			mu.Unlock()
			p.describe(p.client().Do(p.request("POST", "/echo", strings.NewReader("x")).WithContext(ctx)))
			wroteErr := <-wrote
			mu.Lock()
			defer mu.Unlock()
			return fmt.Sprint(hooks, wroteErr, len(wrote))
		}
		first, second := send(), ""
		eventually(p.t, "the connection is used again", func() bool {
			second = send()
			return strings.Contains(second, "GotConn true")
		})
		return first + second
	}},
	{"Expect: 100-continue", func(p *place) string {
		req := p.request("POST", "/echo", strings.NewReader("body"))
		req.Header.Set("Expect", "100-continue")
		return p.describe(p.client().Do(req))
	}},
	{"cookies", func(p *place) string {
		client := p.client()
		client.Jar, _ = cookiejar.New(nil)
		return p.describe(client.Get(p.url+"/cookie")) + p.describe(client.Get(p.url+"/cookie"))
	}},
	{"303 after POST", func(p *place) string {
		return p.describe(p.client().Post(p.url+"/303", "", strings.NewReader("body")))
	}},
	{"307 after POST sends the body again", func(p *place) string {
		return p.describe(p.client().Post(p.url+"/307", "", strings.NewReader("body")))
	}},
	{"the redirected response's request", func(p *place) string {
		response, err := p.client().Get(p.url + "/303")
		if err != nil {
			return err.Error()
		}
		response.Body.Close()
		return fmt.Sprint(response.Request.URL.Path, response.Request.Response.StatusCode)
	}},
	{"too many redirects", func(p *place) string { return p.describe(p.client().Get(p.url + "/loop")) }},
	{"HTTP/1 101: a body to write and to half-close", func(p *place) string {
		req := p.request("GET", "/upgrade", nil)
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", "echo")
		response, err := p.transport.RoundTrip(req)
		if err != nil {
			return err.Error()
		}
		conn, ok := response.Body.(io.ReadWriteCloser)
		half, closes := response.Body.(interface{ CloseWrite() error })
		if !ok || !closes {
			return fmt.Sprintf("%d, writes: %v, half-closes: %v", response.StatusCode, ok, closes)
		}
		_, werr := io.WriteString(conn, "hello")
		cerr := half.CloseWrite()
		text, rerr := io.ReadAll(conn)
		return fmt.Sprint(response.StatusCode, werr, cerr, string(text), rerr, conn.Close())
	}},
	{"HTTP/1 truncated body", func(p *place) string { return p.describe(p.client().Get(p.url + "/truncated")) }},
	{"gzip is requested", func(p *place) string { return p.describe(p.client().Get(p.url + "/gzip")) }},
	{"headers beyond the limit", func(p *place) string {
		p.base.MaxResponseHeaderBytes = 1000
		return p.describe(p.client().Post(p.url+"/large-header", "", nil))
	}},
	{"canceled before", func(p *place) string {
		ctx, cancel := context.WithCancel(p.t.Context())
		cancel()
		_, err := p.client().Do(p.request("GET", "/echo", nil).WithContext(ctx))
		return fmt.Sprint(errors.Is(err, context.Canceled), p.requests.Load())
	}},
	{"canceled while dialing", func(p *place) string {
		ctx, cancel := context.WithCancel(p.t.Context())
		p.base.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			cancel()
			<-ctx.Done()
			return nil, ctx.Err()
		}
		_, err := p.client().Do(p.request("GET", "/echo", nil).WithContext(ctx))
		return fmt.Sprint(errors.Is(err, context.Canceled), p.strip(err.Error()))
	}},
	{"canceled in the TLS handshake", func(p *place) string {
		ctx, cancel := context.WithCancel(p.t.Context())
		w := newWire(p.t, func(conn net.Conn) {
			conn.Read(make([]byte, 1)) // the client's hello
			cancel()
			io.Copy(io.Discard, conn)
		})
		req := p.request("GET", "", nil).WithContext(ctx)
		req.URL.Scheme, req.URL.Host = "https", w.Addr().String()
		_, err := p.client().Do(req)
		return fmt.Sprint(errors.Is(err, context.Canceled), p.strip(err.Error()))
	}},
	{"canceled while sending the body", func(p *place) string {
		ctx, cancel := context.WithCancel(p.t.Context())
		body, client := io.Pipe()
		go func() {
			io.WriteString(client, "begun")
			p.reached()
			cancel()
			client.CloseWithError(ctx.Err()) // net/http waits for a Read in progress
		}()
		_, err := p.client().Do(p.request("POST", "/echo", body).WithContext(ctx))
		_, closed := client.Write([]byte("x"))
		return fmt.Sprint(errors.Is(err, context.Canceled), p.strip(err.Error()), closed)
	}},
	{"canceled while waiting for headers", func(p *place) string {
		ctx, cancel := context.WithCancel(p.t.Context())
		go func() {
			p.reached()
			cancel()
		}()
		_, err := p.client().Do(p.request("GET", "/hang", nil).WithContext(ctx))
		return fmt.Sprint(errors.Is(err, context.Canceled), p.strip(err.Error()))
	}},
	{"canceled while reading the body", func(p *place) string {
		ctx, cancel := context.WithCancel(p.t.Context())
		defer cancel()
		response, err := p.client().Do(p.request("GET", "/headers-then-hang", nil).WithContext(ctx))
		if err != nil {
			return err.Error()
		}
		begun := make([]byte, 6)
		_, err = io.ReadFull(response.Body, begun)
		cancel()
		_, after := io.ReadAll(response.Body)
		return fmt.Sprint(string(begun), err, errors.Is(after, context.Canceled), after)
	}},
	{"canceled with a cause", func(p *place) string {
		ctx, cancel := context.WithCancelCause(p.t.Context())
		defer cancel(nil)
		response, err := p.client().Do(p.request("GET", "/headers-then-hang", nil).WithContext(ctx))
		if err != nil {
			return err.Error()
		}
		cancel(errors.New("cause"))
		_, err = io.ReadAll(response.Body)
		return fmt.Sprint(err)
	}},
	{"the deadline passes while waiting for headers", func(p *place) string {
		p.describe(p.client().Get(p.url + "/echo")) // opens a connection: a dial may report the deadline differently
		ctx, cancel := context.WithTimeout(p.t.Context(), 20*time.Millisecond)
		defer cancel()
		_, err := p.client().Do(p.request("GET", "/hang", nil).WithContext(ctx))
		timeoutErr, ok := err.(interface{ Timeout() bool })
		return fmt.Sprint(errors.Is(err, context.DeadlineExceeded), ok && timeoutErr.Timeout(), p.strip(err.Error()))
	}},
	{"Client.Timeout before the headers", func(p *place) string {
		client := p.client()
		client.Timeout = 20 * time.Millisecond
		_, err := client.Get(p.url + "/hang")
		timeoutErr, ok := err.(interface{ Timeout() bool })
		return fmt.Sprint(ok && timeoutErr.Timeout(), errors.Is(err, context.DeadlineExceeded)) // the text depends on which of two timers is first
	}},
	{"Client.Timeout while reading the body", func(p *place) string {
		client := p.client()
		client.Timeout = 200 * time.Millisecond
		response, err := client.Get(p.url + "/headers-then-hang")
		if err == nil { // otherwise the machine stalled for too long
			_, err = io.ReadAll(response.Body)
		}
		timeoutErr, ok := err.(interface{ Timeout() bool })
		return fmt.Sprint(ok && timeoutErr.Timeout())
	}},
	{"Request.Cancel while waiting for headers", func(p *place) string {
		req, cancel := p.cancelable("/hang")
		go func() {
			p.reached()
			cancel()
		}()
		_, err := p.transport.RoundTrip(req)
		return fmt.Sprint(err, p.requests.Load())
	}},
	{"Request.Cancel while reading the body", func(p *place) string {
		req, cancel := p.cancelable("/headers-then-hang")
		response, err := p.client().Do(req)
		if err != nil {
			return err.Error()
		}
		defer response.Body.Close()
		begun := make([]byte, 6)
		_, err = io.ReadFull(response.Body, begun)
		cancel()
		_, after := io.ReadAll(response.Body)
		return fmt.Sprint(string(begun), err, after)
	}},
	{"Request.Cancel under Client.Timeout", func(p *place) string {
		client := p.client()
		client.Timeout = time.Hour
		req, cancel := p.cancelable("/hang")
		go func() {
			p.reached()
			cancel()
		}()
		_, err := client.Do(req)
		timeoutErr, ok := err.(interface{ Timeout() bool })
		return fmt.Sprint(p.strip(err.Error()), ok && timeoutErr.Timeout(), p.requests.Load())
	}},
	{"CloseIdleConnections", func(p *place) string {
		reused := func() (reused bool) {
			ctx := httptrace.WithClientTrace(p.t.Context(), &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused }})
			p.describe(p.client().Do(p.request("GET", "/echo", nil).WithContext(ctx)))
			return reused
		}
		eventually(p.t, "the connection is used again", reused)
		eventually(p.t, "a new connection is made", func() bool { // over HTTP/2, the connection becomes idle only some time after the end of the body
			p.client().CloseIdleConnections()
			return !reused()
		})
		return ""
	}},
	{"a body that fails", func(p *place) string {
		boom := errors.New("boom")
		_, err := p.client().Do(p.request("POST", "/echo", io.MultiReader(strings.NewReader("x"), failingReader{boom})))
		return fmt.Sprint(errors.Is(err, boom), p.strip(err.Error()))
	}},
	{"a refused dial", func(p *place) string {
		p.base.DialContext = func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Err: errors.New("refused")}
		}
		_, err := p.client().Do(p.request("PATCH", "/echo", io.MultiReader(strings.NewReader("x"))))
		var op *net.OpError
		return fmt.Sprint(errors.As(err, &op), p.strip(err.Error()))
	}},
	{"a dial that times out", func(p *place) string {
		p.base.DialContext = func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Err: &net.DNSError{IsTimeout: true}}
		}
		_, err := p.client().Do(p.request("GET", "/echo", nil))
		timeoutErr, ok := err.(interface{ Timeout() bool })
		return fmt.Sprint(ok && timeoutErr.Timeout())
	}},
	{"HTTP/1 spoken to https", func(p *place) string {
		_, err := p.client().Do(p.request("PATCH", "/echo", io.MultiReader(strings.NewReader("x"))).WithContext(p.t.Context()))
		got := fmt.Sprint(err == nil)
		_, err = p.client().Get(strings.Replace(p.url, "http:", "https:", 1) + "/echo")
		return fmt.Sprint(got, errors.Is(err, http.ErrSchemeMismatch))
	}},
	{"no host", func(p *place) string { return p.describe(p.client().Get("http:///echo")) }},
	{"an unknown scheme", func(p *place) string {
		_, err := p.client().Get("gopher://host/echo")
		return fmt.Sprint(strings.HasSuffix(err.Error(), `unsupported protocol scheme "gopher"`))
	}},
	{"no URL", func(p *place) string {
		_, err := p.transport.RoundTrip(&http.Request{Header: http.Header{}})
		return fmt.Sprint(err)
	}},
	{"a bad method", func(p *place) string {
		req := p.request("GET", "/echo", nil)
		req.Method = "a b"
		_, err := p.transport.RoundTrip(req)
		return fmt.Sprint(err)
	}},
	{"a bad header", func(p *place) string {
		req := p.request("GET", "/echo", nil)
		req.Header["a b"] = []string{"x"}
		_, err := p.transport.RoundTrip(req)
		return fmt.Sprint(strings.HasSuffix(err.Error(), `net/http: invalid header field name "a b"`))
	}},
}

type failingReader struct{ err error }

func (r failingReader) Read([]byte) (int, error) { return 0, r.err }

// observe starts a server and observes a promise through the transport that wrap returns.
func observe(t *testing.T, protocol int, promise func(*place) string, wrap func(http.RoundTripper) http.RoundTripper) string {
	p := &place{t: t, release: make(chan struct{})}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != protocol {
			t.Errorf("got %s", r.Proto)
		}
		p.serve(w, r)
	}))
	server.Config.ErrorLog = silent
	if protocol == 2 {
		server.EnableHTTP2 = true
		server.StartTLS()
	} else {
		server.Start()
	}
	defer server.Close()
	defer close(p.release)
	p.base = server.Client().Transport.(*http.Transport)
	defer p.base.CloseIdleConnections()
	p.url, p.transport = server.URL, wrap(p.base)
	return promise(p)
}

// TestTransportMatchesNetHTTP observes the same as with a bare http.Transport, with HTTP/1.1 and
// with HTTP/2 over TLS.
func TestTransportMatchesNetHTTP(t *testing.T) {
	protocols(t, func(t *testing.T, protocol int) {
		for _, promise := range promises {
			if protocol == 2 && strings.HasPrefix(promise.name, "HTTP/1") {
				continue
			}
			t.Run(promise.name, func(t *testing.T) {
				bare := observe(t, protocol, promise.observe, func(base http.RoundTripper) http.RoundTripper { return base })
				for name, policies := range map[string]func(string) resilience.Policy{"empty": empty, "designed": designed} {
					got := observe(t, protocol, promise.observe, func(base http.RoundTripper) http.RoundTripper { return wrapped(base, policies) })
					if got != bare {
						t.Errorf("%s pipeline:\n\t%s\nbare:\n\t%s", name, got, bare)
					}
				}
				t.Log(bare)
			})
		}
	})
}

// TestTransportReportsSchemeMismatchUnderRetry: the caller receives the error that net/http looks for,
// without marks, and after a policy has wrapped it, an error that matches http.ErrSchemeMismatch.
func TestTransportReportsSchemeMismatchUnderRetry(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go http.Serve(listener, http.NotFoundHandler())
	base := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer base.CloseIdleConnections()
	target := "https://" + listener.Addr().String()
	_, bare := (&http.Client{Transport: base}).Get(target)
	if _, err := (&http.Client{Transport: wrapped(base, empty)}).Get(target); err == nil || err.Error() != bare.Error() {
		t.Errorf("got %v, bare %v", err, bare)
	}
	if _, err := (&http.Client{Transport: wrapped(base, designed)}).Get(target); !errors.Is(err, http.ErrSchemeMismatch) {
		t.Errorf("got %v", err)
	}
	wrapping := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		return fmt.Errorf("wrapped: %w", next.Run(ctx))
	})
	if _, err := (&http.Client{Transport: through(base, wrapping)}).Get(target); !errors.Is(err, http.ErrSchemeMismatch) || !strings.Contains(err.Error(), "wrapped") {
		t.Errorf("got %v", err)
	}
}
