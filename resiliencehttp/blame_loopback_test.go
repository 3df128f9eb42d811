package resiliencehttp_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/internal/mark"
	"github.com/effector-go/resilience/retry"
)

// blamed is who is to blame for an attempt, as the policies see it.
type blamed string

const (
	nobody    blamed = "nobody" // no error
	caller    blamed = "the caller"
	host      blamed = "the host"
	permanent blamed = "the host, permanently"
)

// A judge is a policy that records who is to blame for the last attempt.
type judge struct {
	blamed blamed
	err    error
}

func (j *judge) Run(ctx context.Context, next resilience.Next) error {
	j.err = next.Run(ctx)
	switch {
	case j.err == nil:
		j.blamed = nobody
	case mark.Of(j.err) == mark.CallerFault:
		j.blamed = caller
	case isPermanent(j.err):
		j.blamed = permanent
	default:
		j.blamed = host
	}
	return j.err
}

func isPermanent(err error) bool {
	var p *backoff.PermanentError
	return errors.As(err, &p)
}

// try sends a request through a breaker and a judge. It checks that the caller receives what a plain
// client receives, and that the breaker agrees with the judge.
func try(t *testing.T, base http.RoundTripper, req *http.Request) *judge {
	t.Helper()
	j, b := &judge{}, breaker.New(breaker.Config{Consecutive: 100})
	response, err := through(base, resilience.Pipeline{b, j}).RoundTrip(req)
	if err == nil {
		response.Body.Close()
	} else if mark.Of(err) != mark.None || mark.IsNotMade(err) || isPermanent(err) {
		t.Errorf("the caller's error has marks: %#v", err)
	}
	failures := 0
	if j.blamed == host || j.blamed == permanent {
		failures = 1
	}
	if got := b.Snapshot().Consecutive; got != failures {
		t.Errorf("the breaker counted %d failures, want %d", got, failures)
	}
	return j
}

// A fault is a request and who is to blame for its failure.
type fault struct {
	name    string
	only    int // protocol, 0 for both
	change  func(req *http.Request)
	blamed  blamed
	text    string // the error contains it
	handler http.HandlerFunc
}

func readBody(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }

func setBody(req *http.Request, body io.Reader, length int64) {
	req.Method, req.Body, req.ContentLength = "PUT", io.NopCloser(body), length
}

var errDisk = errors.New("disk error")

// closeFails is a body whose Close fails.
type closeFails struct{ io.Reader }

func (closeFails) Close() error { return errDisk }

// faults are those of one request to a server that works.
var faults = []fault{
	{name: "nothing", blamed: nobody},
	{name: "invalid method", change: func(r *http.Request) { r.Method = "a b" }, blamed: caller, text: "invalid method"},
	{name: "invalid header name", change: func(r *http.Request) { r.Header["a b"] = []string{""} }, blamed: caller, text: "invalid header field name"},
	{name: "invalid header value", change: func(r *http.Request) { r.Header.Set("A", "a\nb") }, blamed: caller, text: "invalid header field value"},
	{name: "no header map", change: func(r *http.Request) { r.Header = nil }, blamed: caller, text: "nil Request.Header"},
	{name: "invalid trailer", change: func(r *http.Request) {
		setBody(r, strings.NewReader("x"), -1)
		r.Trailer = http.Header{"a b": nil}
	}, blamed: caller, text: "invalid trailer field name"},
	{name: "forbidden trailer", change: func(r *http.Request) {
		setBody(r, strings.NewReader("x"), -1)
		r.Trailer = http.Header{"Content-Length": nil}
	}, blamed: caller, text: "invalid Trailer key"},
	{name: "unknown scheme", change: func(r *http.Request) { r.URL.Scheme = "ftp" }, blamed: caller, text: "unsupported protocol scheme"},
	{name: "host that is not a name", change: func(r *http.Request) { r.Host = "xn--é.example" }, blamed: caller, text: "idna: "},
	{name: "body that fails", change: func(r *http.Request) {
		setBody(r, io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(errDisk)), -1)
	}, blamed: caller, text: "disk error", handler: readBody},
	{name: "body of known length that fails", change: func(r *http.Request) {
		setBody(r, io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(errDisk)), 10)
	}, blamed: caller, text: "disk error", handler: readBody},
	{name: "body of a GET that fails", change: func(r *http.Request) {
		setBody(r, iotest.ErrReader(errDisk), -1)
		r.Method = "GET"
	}, blamed: caller, text: "disk error", handler: readBody},
	{name: "body that exceeds a MaxBytesReader", change: func(r *http.Request) {
		setBody(r, nil, -1)
		r.Body = http.MaxBytesReader(nil, io.NopCloser(strings.NewReader("12345")), 3)
	}, blamed: caller, text: "request body too large", handler: readBody},
	{name: "body longer than declared", change: func(r *http.Request) { setBody(r, strings.NewReader("12345"), 3) }, blamed: caller, handler: readBody},
	{name: "stream longer than declared", change: func(r *http.Request) {
		setBody(r, iotest.OneByteReader(strings.NewReader("12345")), 3)
	}, blamed: caller, handler: readBody},
	{name: "body shorter than declared", change: func(r *http.Request) { setBody(r, strings.NewReader("12"), 3) }, blamed: caller, handler: func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			http.Error(w, "", http.StatusInternalServerError)
		}
	}},
	{name: "body whose Close fails", change: func(r *http.Request) {
		setBody(r, nil, 2)
		r.Body = closeFails{strings.NewReader("12")}
	}, only: 1, blamed: caller, text: "disk error", handler: readBody},

	{name: "control character in the URL", only: 1, change: func(r *http.Request) { r.URL.Opaque = "/a\x01" }, blamed: caller, text: "control character"},
	{name: "length without a body", only: 1, change: func(r *http.Request) { r.ContentLength = 3 }, blamed: caller, text: "with nil Body"},
	{name: "https to a plain server", only: 1, change: func(r *http.Request) { r.URL.Scheme = "https" }, blamed: caller, text: "does not look like a TLS handshake"},

	{name: "Upgrade header", only: 2, change: func(r *http.Request) { r.Header.Set("Upgrade", "x") }, blamed: caller, text: "invalid Upgrade request header"},
	{name: "Connection header", only: 2, change: func(r *http.Request) { r.Header.Set("Connection", "x") }, blamed: caller, text: "invalid Connection request header"},
	{name: "Transfer-Encoding header", only: 2, change: func(r *http.Request) { r.Header.Set("Transfer-Encoding", "x") }, blamed: caller, text: "invalid Transfer-Encoding request header"},
	{name: "invalid Host", only: 2, change: func(r *http.Request) { r.Host = "a b" }, blamed: caller, text: "invalid Host header"},
	{name: "invalid path", only: 2, change: func(r *http.Request) { r.URL.Opaque = "a" }, blamed: caller, text: "invalid request :path"},

	{name: "aborted response", blamed: host, handler: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
	{name: "aborted response to a body", blamed: host, change: func(r *http.Request) { setBody(r, strings.NewReader("abc"), 3) }, handler: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
	{name: "failed response", blamed: host, handler: func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) }},
	{name: "response headers too large", blamed: host, handler: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("A", strings.Repeat("a", 11<<20))
	}},
}

// TestTransportBlamesCallerForItsFaults, and only for those, over HTTP/1.1 and HTTP/2. It is the table
// of docs/internals/http-errors.md.
func TestTransportBlamesCallerForItsFaults(t *testing.T) {
	protocols(t, func(t *testing.T, protocol int) {
		for _, f := range faults {
			if f.only != 0 && f.only != protocol {
				continue
			}
			t.Run(f.name, func(t *testing.T) {
				s := newSite(t, protocol, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if f.handler != nil {
						f.handler(w, r)
					}
				}))
				req := newRequest(t, "GET", s.URL, "")
				if f.change != nil {
					f.change(req)
				}
				j := try(t, s.Client().Transport, req)
				if j.blamed != f.blamed || f.text != "" && !strings.Contains(fmt.Sprint(j.err), f.text) {
					t.Errorf("got blamed %s: %v, want %s: %s", j.blamed, j.err, f.blamed, f.text)
				}
				t.Log(j.err)
			})
		}
	})
}

// TestTransportBlamesCallerForTooManyHeaders that an HTTP/2 server doesn't accept.
func TestTransportBlamesCallerForTooManyHeaders(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(readBody))
	s.Config.MaxHeaderBytes, s.Config.ErrorLog, s.EnableHTTP2 = 4<<10, silent, true
	s.StartTLS()
	defer s.Close()
	if j := try(t, s.Client().Transport, newRequest(t, "GET", s.URL, "")); j.err != nil { // receives the limit
		t.Fatal(j.err)
	}
	req := newRequest(t, "GET", s.URL, "")
	req.Header.Set("A", strings.Repeat("a", 64<<10))
	j := try(t, s.Client().Transport, req)
	if j.blamed != caller || !strings.Contains(j.err.Error(), "header list larger") {
		t.Errorf("got blamed %s: %v", j.blamed, j.err)
	}

	req = newRequest(t, "PUT", s.URL, "x")
	req.ContentLength, req.Trailer = -1, http.Header{"A": {strings.Repeat("a", 64<<10)}}
	j = try(t, s.Client().Transport, req)
	if j.blamed != caller || !strings.Contains(j.err.Error(), "header list larger") {
		t.Errorf("trailer: got blamed %s: %v", j.blamed, j.err)
	}
}

// TestTransportBlamesHostForItsCertificate permanently.
func TestTransportBlamesHostForItsCertificate(t *testing.T) {
	protocols(t, func(t *testing.T, protocol int) {
		s := httptest.NewUnstartedServer(http.NotFoundHandler())
		s.Config.ErrorLog, s.EnableHTTP2 = silent, protocol == 2
		s.StartTLS()
		defer s.Close()
		roots := s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
		for name, config := range map[string]*tls.Config{
			"unknown authority": {},
			"another name":      {RootCAs: roots, ServerName: "elsewhere.test"},
			"expired":           {RootCAs: roots, Time: func() time.Time { return time.Now().AddDate(1000, 0, 0) }},
			"own verification": {InsecureSkipVerify: true, VerifyConnection: func(tls.ConnectionState) error {
				return x509.HostnameError{Certificate: s.Certificate(), Host: "x"}
			}},
		} {
			base := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: protocol == 2}
			for _, method := range []string{"GET", "POST"} { // the POST is also NotMade
				if j := try(t, base, newRequest(t, method, s.URL, "")); j.blamed != permanent {
					t.Errorf("%s, %s: got blamed %s: %v", name, method, j.blamed, j.err)
				}
			}
		}
	})
}

// TestTransportBlamesHostForUnverifiedCertificate permanently: each error of a verification is
// enough, with or without the others around it.
func TestTransportBlamesHostForUnverifiedCertificate(t *testing.T) {
	for name, err := range map[string]error{
		"verification":        &tls.CertificateVerificationError{Err: errors.New("boom")},
		"unknown authority":   x509.UnknownAuthorityError{},
		"another name":        x509.HostnameError{Certificate: &x509.Certificate{}, Host: "x"},
		"invalid certificate": x509.CertificateInvalidError{Reason: x509.Expired},
	} {
		base := roundTripper(func(*http.Request) (*http.Response, error) { return nil, fmt.Errorf("handshake: %w", err) })
		if j := try(t, base, newRequest(t, "GET", "https://example.com/", "")); j.blamed != permanent {
			t.Errorf("%s: got blamed %s: %v", name, j.blamed, j.err)
		}
	}
}

// TestTransportBlamesHostForBrokenConnections, and for responses that aren't HTTP.
func TestTransportBlamesHostForBrokenConnections(t *testing.T) {
	for name, script := range map[string]func(net.Conn){
		"closed at once":      func(conn net.Conn) {},
		"closed unanswered":   readThen(func(conn net.Conn) {}),
		"not HTTP":            respond("220 mail.example ESMTP net/http: invalid method \r\n"),
		"malformed status":    respond("HTTP/1.1 net/http: invalid method\r\n\r\n"),
		"malformed header":    respond("HTTP/1.1 200 OK\r\nno colon\r\n\r\n"),
		"bad Content-Length":  respond("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"),
		"unknown encoding":    respond("HTTP/1.1 200 OK\r\nTransfer-Encoding: x\r\n\r\n"),
		"bad trailer":         respond("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Content-Length\r\n\r\n0\r\n\r\n"),
		"headers broken off":  respond("HTTP/1.1 200 OK\r\nA: "),
		"too many 1xx":        respond(strings.Repeat("HTTP/1.1 103 Early Hints\r\nA: "+strings.Repeat("a", 1<<20)+"\r\n\r\n", 12)),
		"two Content-Lengths": respond("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWire(t, script, script, script)
			base := &http.Transport{}
			defer base.CloseIdleConnections()
			req := newRequest(t, "PUT", "http://"+w.Addr().String(), "")
			setBody(req, iotest.OneByteReader(strings.NewReader(strings.Repeat("a", 1000))), 1000)
			if j := try(t, base, req); j.blamed != host {
				t.Errorf("got blamed %s: %v", j.blamed, j.err)
			} else {
				t.Log(j.err)
			}
		})
	}
	t.Run("TLS to something else", func(t *testing.T) {
		w := newWire(t, respond("SSH-2.0-x\r\n"))
		if j := try(t, &http.Transport{}, newRequest(t, "GET", "https://"+w.Addr().String(), "")); j.blamed != host {
			t.Errorf("got blamed %s: %v", j.blamed, j.err)
		}
	})
	t.Run("a proxy that refuses", func(t *testing.T) {
		w := newWire(t, respond("HTTP/1.1 503 Service Unavailable\r\n\r\n"))
		base := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: w.Addr().String()})}
		if j := try(t, base, newRequest(t, "GET", "https://example.test", "")); j.blamed != host {
			t.Errorf("got blamed %s: %v", j.blamed, j.err)
		}
	})
	t.Run("no response in time", func(t *testing.T) {
		release := make(chan struct{})
		s := newSite(t, 1, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
		defer close(release)
		if j := try(t, &http.Transport{ResponseHeaderTimeout: time.Millisecond}, newRequest(t, "GET", s.URL, "")); j.blamed != host {
			t.Errorf("got blamed %s: %v", j.blamed, j.err)
		}
	})
}

// TestTransportBlamesHostIfBodyFailsAfterClose: Base closes the body when the connection breaks, so the
// Read that fails then says nothing about the caller.
func TestTransportBlamesHostIfBodyFailsAfterClose(t *testing.T) {
	reader, writer := io.Pipe()
	w := newWire(t, func(conn net.Conn) {
		bufio.NewReader(conn).ReadString('\n')
	})
	base := &http.Transport{}
	defer base.CloseIdleConnections()
	req := newRequest(t, "PUT", "http://"+w.Addr().String(), "")
	req.Body, req.ContentLength = reader, -1
	go func() {
		for {
			if _, err := writer.Write(make([]byte, 1<<10)); err != nil {
				return
			}
		}
	}()
	if j := try(t, base, req); j.blamed != host {
		t.Errorf("got blamed %s: %v", j.blamed, j.err)
	}

	closes := roundTripper(func(req *http.Request) (*http.Response, error) {
		req.Body.Close()
		_, err := req.Body.Read(make([]byte, 1))
		return nil, fmt.Errorf("connection lost: %w", err)
	})
	reader, _ = io.Pipe()
	req.Body = reader
	if j := try(t, closes, req); j.blamed != host || !errors.Is(j.err, io.ErrClosedPipe) {
		t.Errorf("got blamed %s: %v", j.blamed, j.err)
	}
}

// TestTransportBlamesCallerForItsFile, which isn't watched over plain HTTP so that the kernel can send it.
func TestTransportBlamesCallerForItsFile(t *testing.T) {
	s := newSite(t, 1, http.HandlerFunc(readBody))
	dir, err := os.Open(t.TempDir()) // a directory can't be read
	if err != nil {
		t.Fatal(err)
	}
	req := newRequest(t, "PUT", s.URL, "")
	req.Body, req.ContentLength = dir, -1
	if j := try(t, s.Client().Transport, req); j.blamed != caller {
		t.Errorf("directory: got blamed %s: %v", j.blamed, j.err)
	}

	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte("12"), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	req = newRequest(t, "PUT", s.URL, "")
	req.Body, req.ContentLength = file, 3
	if j := try(t, s.Client().Transport, req); j.blamed != caller {
		t.Errorf("short file: got blamed %s: %v", j.blamed, j.err)
	}

	file, err = os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	req.Body, req.ContentLength = file, 2
	base := roundTripper(func(sent *http.Request) (*http.Response, error) {
		if sent.Body != file {
			t.Errorf("Base received %T, want the file", sent.Body)
		}
		return nil, errors.New("boom")
	})
	if j := try(t, base, req); j.blamed != host {
		t.Errorf("got blamed %s: %v", j.blamed, j.err)
	}
}

// TestTransportBlamesCallerForLengthWithoutText: the length of a body is counted, whatever Base's error
// says.
func TestTransportBlamesCallerForLengthWithoutText(t *testing.T) {
	base := roundTripper(func(req *http.Request) (*http.Response, error) {
		io.Copy(io.Discard, req.Body)
		req.Body.Close()
		return nil, errors.New("boom")
	})
	for length, want := range map[int64]blamed{-1: host, 0: host, 4: caller, 5: host, 6: caller} {
		for name, body := range map[string]io.Reader{"memory": strings.NewReader("12345"), "stream": iotest.OneByteReader(strings.NewReader("12345"))} {
			req := newRequest(t, "PUT", "http://example.com", "")
			setBody(req, body, length)
			if j := try(t, base, req); j.blamed != want {
				t.Errorf("%s of 5 bytes, declared %d: got blamed %s, want %s", name, length, j.blamed, want)
			}
		}
	}
}

// TestTransportBelievesMarksOfBase instead of its own judgment.
func TestTransportBelievesMarksOfBase(t *testing.T) {
	for name, marked := range map[string]error{
		"NotFailure": resilience.NotFailure(errors.New("net/http: invalid method \"x\"")),
		"Contention": resilience.Contention(errors.New("net/http: invalid method \"x\"")),
		"Permanent":  retry.Permanent(errors.New("net/http: invalid method \"x\"")),
	} {
		j := &judge{}
		base := roundTripper(func(*http.Request) (*http.Response, error) { return nil, marked })
		_, err := through(base, j).RoundTrip(newRequest(t, "GET", "http://example.com", ""))
		if j.err != marked || err != marked {
			t.Errorf("%s: the policy got %#v, the caller %#v, want %#v", name, j.err, err, marked)
		}
	}
	base := roundTripper(func(*http.Request) (*http.Response, error) { return nil, errors.New("boom") })
	if j := try(t, base, newRequest(t, "GET", "http://example.com", "")); j.blamed != host {
		t.Errorf("any other error: got blamed %s", j.blamed)
	}
}

// TestTransportSendsUnsendableRequestOnce: neither retry nor the breaker treats it as a failure of the
// host.
func TestTransportSendsUnsendableRequestOnce(t *testing.T) {
	attempts := 0
	s := newSite(t, 1, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	base := roundTripper(func(req *http.Request) (*http.Response, error) {
		attempts++
		return s.Client().Transport.RoundTrip(req)
	})
	b := breaker.New(breaker.Config{Consecutive: 1})
	transport := through(base, resilience.Pipeline{retries(retry.Config{}), b})
	req := newRequest(t, "GET", s.URL, "")
	req.Header.Set("A", "a\nb")
	_, err := transport.RoundTrip(req)
	if _, plain := s.Client().Transport.RoundTrip(req); fmt.Sprint(err) != fmt.Sprint(plain) || attempts != 1 {
		t.Errorf("got %v after %d attempts, a plain client gets %v", err, attempts, plain)
	}
	response, err := transport.RoundTrip(newRequest(t, "GET", s.URL, ""))
	if err != nil {
		t.Fatalf("a healthy host is refused: %v", err)
	}
	response.Body.Close()
}

// hostile are what clients of a proxy send, and must not.
var hostile = map[string]string{
	"chunk that is none":       "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
	"chunk too short":          "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab\r\n0\r\n\r\n",
	"body, cut off":            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc",
	"body too long":            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 40\r\n\r\n" + strings.Repeat("a", 40),
	"trailer that is none":     "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: a b\r\n\r\n0\r\n\r\n",
	"bad trailer value":        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: A\r\n\r\n0\r\nA: \x01\r\n\r\n",
	"upgrade":                  "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
	"upgrade with a body":      "POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\nContent-Length: 3\r\n\r\nabc",
	"many headers":             "GET / HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("a", 100<<10) + "\r\n\r\n",
	"odd method":               "!#$ / HTTP/1.1\r\nHost: x\r\n\r\n",
	"CONNECT":                  "CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n",
	"asterisk":                 "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
	"absolute URL":             "GET ftp://a%20b/ HTTP/1.1\r\nHost: x\r\n\r\n",
	"escaped controls":         "GET /%00%0a?%zz HTTP/1.1\r\nHost: x\r\n\r\n",
	"odd Host":                 "GET / HTTP/1.1\r\nHost: [::1%25eth0]:x\r\n\r\n",
	"Expect, cut off":          "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n",
	"Expect something":         "POST / HTTP/1.1\r\nHost: x\r\nExpect: x\r\nContent-Length: 0\r\n\r\n",
	"TE":                       "GET / HTTP/1.1\r\nHost: x\r\nTE: x\r\nConnection: TE\r\n\r\n",
	"HTTP/1.0, cut off":        "POST / HTTP/1.0\r\nContent-Length: 10\r\n\r\nabc",
	"gone":                     "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
	"Idempotency-Key, cut off": "POST / HTTP/1.1\r\nHost: x\r\nIdempotency-Key: 1\r\nContent-Length: 10\r\n\r\nabc",
}

// TestTransportClientsOfProxyDoNotOpenBreaker of a healthy backend, whatever they send.
func TestTransportClientsOfProxyDoNotOpenBreaker(t *testing.T) {
	protocols(t, func(t *testing.T, protocol int) {
		backend := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
			}
		}))
		backend.Config.ErrorLog, backend.Config.MaxHeaderBytes, backend.EnableHTTP2 = silent, 32<<10, protocol == 2
		if protocol == 2 {
			backend.StartTLS()
		} else {
			backend.Start()
		}
		defer backend.Close()
		target, err := url.Parse(backend.URL)
		if err != nil {
			t.Fatal(err)
		}
		b := breaker.New(breaker.Config{Consecutive: 1, OnStateChange: func(tr breaker.Transition) { t.Errorf("%v", tr) }})
		proxy := &httputil.ReverseProxy{
			Director:  func(r *http.Request) { r.URL.Scheme, r.URL.Host = target.Scheme, target.Host }, // keeps Host
			Transport: through(backend.Client().Transport, resilience.Pipeline{b}),
			ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
				t.Log(err)
				w.WriteHeader(http.StatusBadGateway)
			},
			ErrorLog: silent,
		}
		front := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Body = http.MaxBytesReader(w, r.Body, 30)
			proxy.ServeHTTP(w, r)
		}))
		front.Config.ErrorLog = silent
		front.Start()
		defer front.Close()
		for name, request := range hostile {
			t.Run(name, func(t *testing.T) {
				conn, err := net.Dial("tcp", front.Listener.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				io.WriteString(conn, request)
				if strings.Contains(name, "cut off") {
					conn.(*net.TCPConn).CloseWrite()
				}
				if name != "gone" {
					http.ReadResponse(bufio.NewReader(conn), nil)
				}
				conn.Close()
				if b.State() != breaker.Closed {
					t.Errorf("the breaker is %v", b.State())
					b.Reset()
				}
			})
		}
	})
}

// TestTransportErrorsOfBothKindsReachCaller: with a policy that wraps, the error's tree stays the same.
func TestTransportErrorsOfBothKindsReachCaller(t *testing.T) {
	s := httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	s.Config.ErrorLog = silent
	client := &http.Client{Transport: through(&http.Transport{}, resilience.Pipeline{retries(retry.Config{}), breaker.New(breaker.Config{})})}
	_, err := client.Get(s.URL)
	var verification *tls.CertificateVerificationError
	var urlErr *url.Error
	if !errors.As(err, &urlErr) || !errors.As(urlErr.Err, &verification) || urlErr.Err != error(verification) {
		t.Errorf("got %#v, want the verification error in a url.Error", err)
	}
}
