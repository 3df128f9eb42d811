package resiliencehttp

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"reflect"
	"strings"
	"sync"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/mark"
	"github.com/effector-go/resilience/internal/permanent"
)

// blame marks the error of an attempt that ended without a response. Unmarked errors are the host's
// failures. docs/internals/http-errors.md lists net/http's errors.
func (x *exchange) blame(a *answer, err error) error {
	plain := err
	switch {
	case mark.Of(err) != mark.None || permanent.Is(err): // by Base
	case a.badBody(err) || unsendable(err):
		err = x.mark(resilience.CallerFault(err), err)
	case unverified(err):
		err = x.mark(permanent.New(err), err)
	}
	if a.conn.neverConnected() {
		err = x.mark(resilience.NotMade(err), err)
	}
	x.mu.Lock()
	x.lastErr = plain
	x.mu.Unlock()
	return err
}

// blameStatus marks the StatusError of an attempt.
func (x *exchange) blameStatus(a *answer) (err error) {
	err = a.failure
	notServed := x.transport.config.NotServed(a.response)
	switch {
	case a.badBody(nil):
		err = x.mark(resilience.CallerFault(err), err)
	case x.needsBody(notServed) && !x.fetchBody():
		err = x.mark(permanent.New(err), err) // no attempt can follow
	}
	if notServed && x.marksNotMade() {
		err = x.mark(resilience.NotMade(err), err)
	}
	x.mu.Lock()
	x.lastErr = a.failure
	x.mu.Unlock()
	return err
}

// A markedError is an error that this exchange marked, and the same error without the mark.
type markedError struct{ marked, plain error }

// mark records that marked is plain with a mark, so that forCaller can remove it.
func (x *exchange) mark(marked, plain error) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.marks = append(x.marks, markedError{marked, plain})
	return marked
}

// unmark returns err without the outer marks of this exchange, which are for its own policies only.
func (x *exchange) unmark(err error) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i := len(x.marks) - 1; i >= 0; i-- { // outer marks were added later
		if err == x.marks[i].marked {
			err = x.marks[i].plain
		}
	}
	return err
}

// unsendableTexts are the beginnings of net/http's errors for a request that it can't send. Most of
// them have no type.
var unsendableTexts = []string{
	// Both protocols.
	"net/http: invalid header ",
	"net/http: invalid trailer ",
	"net/http: invalid method ",
	"http: nil Request.Header",
	"http: no Host in request URL",
	"unsupported protocol scheme ",
	"invalid Trailer key ",
	"idna: ",

	// HTTP/1.1.
	"net/http: can't write control character in Request.URL",
	"http: Request.Write on Request with no Host or URL set",
	"http: invalid Host header",
	"http: Request.ContentLength=", // ... with nil Body
	"http: ContentLength=",         // ... with Body length

	// HTTP/2.
	"http2: invalid HTTP header ",
	"http2: invalid HTTP trailer ",
	"http2: invalid Upgrade request header",
	"http2: invalid Transfer-Encoding request header",
	"http2: invalid Connection request header",
	"http2: invalid Host header",
	"http2: invalid :protocol header",
	"http2: invalid request :path ",
	"http2: request body larger than specified content length",
	"http2: unsupported scheme",
	"http2: unencrypted HTTP/2 not enabled",
	"request header list larger than peer's advertised limit",
}

// unsendable reports whether err means that the request can't be sent, or not to this port.
func unsendable(err error) bool {
	return inTree(err, func(err error) bool {
		if err == http.ErrSchemeMismatch || schemeMismatch(err) {
			return true
		}
		text := err.Error()
		for _, beginning := range unsendableTexts {
			if strings.HasPrefix(text, beginning) {
				return true
			}
		}
		return false
	})
}

// schemeMismatch reports whether err is that of a TLS handshake that was answered in HTTP.
func schemeMismatch(err error) bool {
	record, ok := err.(tls.RecordHeaderError)
	return ok && string(record.RecordHeader[:]) == "HTTP/"
}

// unverified reports whether the host's certificate did not verify.
func unverified(err error) bool {
	var (
		verification *tls.CertificateVerificationError
		authority    x509.UnknownAuthorityError
		hostname     x509.HostnameError
		invalid      x509.CertificateInvalidError
	)
	return errors.As(err, &verification) || errors.As(err, &authority) || errors.As(err, &hostname) || errors.As(err, &invalid)
}

// A sentBody is the body of one attempt's request. It records what the caller did wrong: a Read that
// fails, or a length that isn't the declared one. What happens after Base has closed the body says
// nothing about it: Base closes it when the connection breaks.
type sentBody struct {
	io.ReadCloser
	declared int64 // 0 or less if unknown

	mu       sync.Mutex // guards the following: Base may close the body during a Read
	length   int64      // of what was read
	ended    bool
	failed   bool
	closed   bool
	closeErr error
}

func (b *sentBody) Read(p []byte) (n int, err error) {
	n, err = b.ReadCloser.Read(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return n, err
	}
	b.length += int64(n)
	switch err {
	case nil:
	case io.EOF:
		b.ended = true
	default:
		b.failed = true
	}
	return n, err
}

func (b *sentBody) Close() error {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	err := b.ReadCloser.Close()
	b.mu.Lock()
	b.closeErr = err
	b.mu.Unlock()
	return err
}

// bad reports whether the body is the reason why an attempt failed with err.
func (b *sentBody) bad(err error) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failed || b.closeErr != nil && errors.Is(err, b.closeErr) {
		return true
	}
	return b.declared > 0 && (b.length > b.declared || b.ended && b.length < b.declared)
}

// badBody reports whether a request body, or the GetBody that Base called, is the reason why the
// attempt failed with err.
func (a *answer) badBody(err error) bool {
	a.exchange.mu.Lock()
	defer a.exchange.mu.Unlock()
	for _, body := range a.sent {
		if body.bad(err) {
			return true
		}
	}
	if file := a.file; file != nil && err != nil {
		var read *fs.PathError
		return errors.As(err, &read) && read.Op == "read" && read.Path == file.Name()
	}
	return a.getBodyErr != nil && errors.Is(err, a.getBodyErr)
}

// watchBody returns the body as Base receives it. A body in memory that has the declared length can't
// go wrong, so it stays as it is, and so does a file for which the kernel may send the bytes.
func (a *answer) watchBody(body io.ReadCloser) io.ReadCloser {
	if body == nil || body == http.NoBody {
		return body
	}
	req := a.exchange.request
	reader := withoutNopCloser(body)
	if memory, ok := reader.(interface{ Len() int }); ok && inMemory(reader) {
		if req.ContentLength <= 0 || int64(memory.Len()) == req.ContentLength {
			return body
		}
	}
	x := a.exchange
	x.mu.Lock()
	defer x.mu.Unlock()
	if file, ok := reader.(*os.File); ok && req.URL.Scheme == "http" {
		a.file = file
		return body
	}
	sent := &sentBody{ReadCloser: body, declared: req.ContentLength}
	a.sent = append(a.sent, sent)
	return sent
}

// watchGetBody returns the GetBody that Base receives. Base calls it to send the request again on
// another connection.
func (a *answer) watchGetBody(getBody func() (io.ReadCloser, error)) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) {
		body, err := getBody()
		if err != nil {
			a.exchange.mu.Lock()
			a.getBodyErr = err
			a.exchange.mu.Unlock()
			return body, err
		}
		return a.watchBody(body), nil
	}
}

func inMemory(reader io.Reader) bool {
	switch reader.(type) {
	case *bytes.Buffer, *bytes.Reader, *strings.Reader:
		return true
	}
	return false
}

var (
	nopCloser         = reflect.TypeOf(io.NopCloser(nil))
	nopCloserWriterTo = reflect.TypeOf(io.NopCloser(new(bytes.Buffer)))
)

// withoutNopCloser returns the reader inside [io.NopCloser], or body itself.
func withoutNopCloser(body io.ReadCloser) io.Reader {
	if t := reflect.TypeOf(body); t == nopCloser || t == nopCloserWriterTo {
		if reader, ok := reflect.ValueOf(body).Field(0).Interface().(io.Reader); ok {
			return reader
		}
	}
	return body
}
