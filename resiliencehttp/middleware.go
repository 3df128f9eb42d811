package resiliencehttp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/detached"
)

// ServerConfig configures [Middleware]. Policy is required.
type ServerConfig struct {
	// Policy is the policy that requests run under. It is required. It runs inside
	// [resilience.AtMostOnce], so a handler is never run twice.
	//
	// A breaker counts a stream (server-sent events, a websocket) as one call, and a stream that is
	// a probe holds its place until it ends. Don't use a breaker for such handlers.
	Policy resilience.Policy

	// Failed reports whether a handler's status is a failure for the policy. It must be safe for
	// concurrent use. The default is 5xx except 501 and 505.
	Failed func(status int) bool

	// Respond, if set, writes the middleware's own responses, for example as JSON. If it doesn't call
	// WriteHeader, the status is sent before the first Write, or when it returns. w has the headers
	// that outer handlers have set, none of the handler's, and Retry-After if a time is known. The
	// request is the server's; if the handler may still be running, it is a copy. The error is the
	// policy's. It is nil if the policy returned no error, although the handler didn't run or wrote
	// nothing.
	//
	// The default is the status's text, as with [http.Error], but a Content-Type that outer handlers
	// have set stays.
	Respond func(w http.ResponseWriter, r *http.Request, status int, err error)

	// DeadlineHeader is the name of a request header that holds the number of milliseconds that the
	// client will wait (see [Config].DeadlineHeader). It sets the deadline of the request's
	// context. A value that isn't a positive number is ignored. The default is no header.
	//
	// At this deadline the context ends with [context.Canceled], and its cause is
	// [context.DeadlineExceeded]: the client is gone, the handler hasn't failed.
	DeadlineHeader string

	// MaxDeadline is the upper bound for the value of DeadlineHeader. The default is no bound. In
	// any case, DeadlineHeader can only shorten the time that the context has.
	MaxDeadline time.Duration
}

// Validate reports all invalid fields of c, or nil if there are none. The errors are joined with
// [errors.Join]. Each names the field, its value, and the allowed range.
func (c ServerConfig) Validate() error {
	var mistakes []error
	if c.Policy == nil {
		mistakes = append(mistakes, errors.New("resiliencehttp: Policy is nil, must be a Policy"))
	}
	if !headerName(c.DeadlineHeader) {
		mistakes = append(mistakes, fmt.Errorf("resiliencehttp: DeadlineHeader is %q, must be a header name, or empty for none", c.DeadlineHeader))
	}
	if c.MaxDeadline < 0 {
		mistakes = append(mistakes, fmt.Errorf("resiliencehttp: MaxDeadline is %v, must be positive, or 0 for no limit", c.MaxDeadline))
	}
	return errors.Join(mistakes...)
}

// Middleware returns a function that wraps a handler with the policy. It panics with the text of
// [ServerConfig.Validate]'s error if the configuration is invalid.
//
//	guard := resiliencehttp.Middleware(resiliencehttp.ServerConfig{Policy: timeout.After(5 * time.Second)})
//	http.Handle("/", guard(handler))
//
// If the handler doesn't run, the client receives:
//
//   - the status that the error's method HTTPStatus() int returns, or 503, if the policy refused
//     the request or the request's time ran out first;
//   - the error's HTTPStatus, or 500, if the policy ended for any other reason.
//
// If the handler runs, the client receives:
//
//   - the handler's response, if the handler returned, however late;
//   - the error's HTTPStatus, or 503, if the handler wrote nothing before its context ended, and then
//     returned or was abandoned (informational statuses, 1xx, don't count as written);
//   - an aborted response, as with [http.ErrAbortHandler], if the handler was abandoned after it
//     had begun to write.
//
// The middleware's own responses (see ServerConfig.Respond) have none of the handler's headers. They
// have a Retry-After header, in whole seconds, rounded up, if the error has a
// [resilience.RetryAfter].
//
// The policy sees a failed status as a [*StatusError]. The following aren't failures: a handler's
// panic with [http.ErrAbortHandler], and a client that went away or whose deadline passed. Other
// panics reach the server; if the policy ran the handler on another goroutine, as a
// [*resilience.PanicError].
//
// A handler that timeout's Abandon has abandoned has a writer of its own. Its writes return
// [http.ErrHandlerTimeout], its reads of the request body fail, and its panic is written to the
// server's log. The writer implements Flush, the methods that [http.ResponseController] calls,
// Unwrap, and, if the server's writer does, Hijack and ReadFrom, so files are still sent by the
// kernel.
func Middleware(config ServerConfig) func(http.Handler) http.Handler {
	if err := config.Validate(); err != nil {
		panic(err.Error())
	}
	if config.Failed == nil {
		config.Failed = serverFailed
	}
	// Compose panics if a policy in the pipeline is nil. Its result isn't needed.
	resilience.Compose(func(context.Context) (struct{}, error) { return struct{}{}, nil }, config.Policy)
	return func(next http.Handler) http.Handler {
		if next == nil {
			panic("resiliencehttp: Middleware: the handler is nil, must be a Handler")
		}
		return &guarded{config, next}
	}
}

// guarded is a handler wrapped with a policy.
type guarded struct {
	config ServerConfig
	next   http.Handler
}

// ServeHTTP calls the handler inside the policy.
func (g *guarded) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := g.withDeadline(r)
	defer cancel()
	s := &serving{guarded: g, request: r, writer: newWriter(w)}
	if r.ProtoMajor == 1 && r.Body != nil && r.Body != http.NoBody {
		s.upload = &upload{ReadCloser: r.Body}
	}
	defer s.writer.leave() // also if a policy panics: it may have abandoned the handler
	err := resilience.Run(ctx, s, s.handle)
	s.finish(ctx, err)
}

// withDeadline returns the request's context with the deadline from the header, if there is one and
// it comes before the context's own.
func (g *guarded) withDeadline(r *http.Request) (ctx context.Context, cancel func()) {
	ctx = r.Context()
	left, ok := g.clientTimeout(r)
	if !ok {
		return ctx, func() {}
	}
	deadline := time.Now().Add(left)
	if own, ok := ctx.Deadline(); ok && !deadline.Before(own) {
		return ctx, func() {}
	}
	ctx, cancelCause := context.WithCancelCause(ctx)
	timer := time.AfterFunc(left, func() { cancelCause(context.DeadlineExceeded) })
	return &clientContext{ctx, deadline}, func() {
		timer.Stop()
		cancelCause(nil)
	}
}

// clientTimeout returns how long the client says it will wait.
func (g *guarded) clientTimeout(r *http.Request) (left time.Duration, ok bool) {
	if g.config.DeadlineHeader == "" {
		return 0, false
	}
	text := r.Header.Get(g.config.DeadlineHeader)
	if !digits(text) || strings.Trim(text, "0") == "" {
		return 0, false
	}
	left = math.MaxInt64
	if ms, err := strconv.ParseInt(text, 10, 64); err == nil && ms <= math.MaxInt64/int64(time.Millisecond) {
		left = time.Duration(ms) * time.Millisecond
	}
	if g.config.MaxDeadline > 0 {
		left = min(left, g.config.MaxDeadline)
	}
	return left, true
}

// A clientContext reports the deadline at which it will be canceled.
type clientContext struct {
	context.Context
	deadline time.Time
}

func (c *clientContext) Deadline() (time.Time, bool) { return c.deadline, true }

// A serving is one request that runs through the policy.
type serving struct {
	*guarded
	request *http.Request
	writer  *writer
	upload  *upload         // nil if the request has no body or came over HTTP/2
	call    resilience.Next // of the outermost policy
	forked  bool            // the handler runs on a fork of the call, on another goroutine, where a panic would crash the program
	pattern string          // set by a ServeMux in the handler; final once the writer has ended
	copied  *http.Request   // for Respond, if forked; the writer's begin sets it under its lock
}

// Run is the outermost policy of the request's call.
func (s *serving) Run(ctx context.Context, next resilience.Next) error {
	s.call = next
	return resilience.Pipeline{resilience.AtMostOnce, s.config.Policy, resilience.PolicyFunc(s.admit)}.Run(ctx, next)
}

// admit is the innermost policy. It prevents policies that don't check Repeatable from running the
// handler again. A fork counts as a start of the call that it was forked from, so the numbers of
// starts differ if next is a fork.
func (s *serving) admit(ctx context.Context, next resilience.Next) error {
	forked := next.Starts() != s.call.Starts()
	began := s.writer.begin(func() {
		if s.forked = forked; forked && s.config.Respond != nil {
			// An abandoned handler may change the request's maps while Respond reads them.
			s.copied = s.request.Clone(s.request.Context())
		}
	})
	if !began {
		return errors.New("resiliencehttp: the handler is never run twice")
	}
	return next.Run(ctx)
}

// handle is the effector of the call: it runs the handler. The policy receives its error.
func (s *serving) handle(ctx context.Context) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = s.panicked(value)
		}
	}()
	s.serve(ctx)
	status := s.writer.end(ctx.Err() != nil)
	switch {
	case status == 0:
		return resilience.ContextErr(ctx)
	case s.config.Failed(status):
		return newStatusError(s.request, &http.Response{StatusCode: status, Header: s.writer.header})
	}
	return nil
}

// serve calls the handler with a copy of the request. It takes over what net/http does with the
// original request only: it copies back the pattern that a ServeMux sets, and removes the files of
// a multipart form.
func (s *serving) serve(ctx context.Context) {
	r := s.request.WithContext(ctx)
	if s.upload != nil {
		r.Body = s.upload
	}
	form := r.MultipartForm
	defer func() {
		s.pattern = r.Pattern
		if !s.forked { // otherwise finish sets it, if the request isn't over
			s.request.Pattern = r.Pattern
		}
		if r.MultipartForm != nil && r.MultipartForm != form {
			r.MultipartForm.RemoveAll()
		}
	}()
	s.next.ServeHTTP(s.writer.forHandler(), r)
}

// An upload is a request body that records whether it has ended.
type upload struct {
	io.ReadCloser
	ended atomic.Bool
}

func (u *upload) Read(p []byte) (n int, err error) {
	n, err = u.ReadCloser.Read(p)
	if err != nil {
		u.ended.Store(true)
	}
	return n, err
}

// panicked handles a panic of the handler. Normally the panic continues, on the stack it came from.
// There are two exceptions, in which finish panics again if the request isn't over:
//
//   - http.ErrAbortHandler isn't a failure, so the policy must not see a panic;
//   - if the handler runs on a fork, it may be abandoned at any time, and then its panic would
//     crash the program.
func (s *serving) panicked(value any) error {
	if value == http.ErrAbortHandler {
		s.writer.panicked(value)
		return nil
	}
	if !s.forked {
		panic(value)
	}
	p := detached.PanicError(value)
	if over := s.writer.panicked(p); over {
		s.log("resiliencehttp: panic serving %v after the handler was abandoned: %v\n%s", s.request.RemoteAddr, p.Value, p.Stack)
	}
	return p
}

// log writes to the server's log.
func (s *serving) log(format string, args ...any) {
	if server, ok := s.request.Context().Value(http.ServerContextKey).(*http.Server); ok && server.ErrorLog != nil {
		server.ErrorLog.Printf(format, args...)
		return
	}
	log.Printf(format, args...)
}

// finish ends the request after the policy has returned err.
func (s *serving) finish(ctx context.Context, err error) {
	fate, panicked := s.writer.leave()
	if s.writer.ended { // the handler no longer changes it
		s.request.Pattern = s.pattern
	}
	status := statusOf(err, http.StatusServiceUnavailable)
	switch {
	case panicked != nil:
		panic(panicked)
	case fate == answered:
		return
	case fate == abandonedWriting:
		panic(http.ErrAbortHandler)
	case fate == abandonedSilent && s.upload != nil && !s.upload.ended.Load():
		// The handler may be waiting for the body of a slow client. To reuse the connection, the
		// server would wait for the body too, before it sends the response.
		s.writer.server.Header().Set("Connection", "close")
	case fate == notRun && !tooLate(ctx, err) && !errors.Is(err, resilience.ErrRefused):
		status = statusOf(err, http.StatusInternalServerError)
	}
	s.answer(status, err)
}

// tooLate reports whether the handler didn't run because there was no time left.
func tooLate(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded)
}

// statusOf returns the error's HTTPStatus if it has a valid one, otherwise fallback.
func statusOf(err error, fallback int) int {
	var withStatus interface{ HTTPStatus() int }
	if errors.As(err, &withStatus) {
		if status := withStatus.HTTPStatus(); 200 <= status && status <= 999 {
			return status
		}
	}
	return fallback
}

// answer writes the middleware's own response.
func (s *serving) answer(status int, err error) {
	w := s.writer.server
	if after, ok := resilience.RetryAfter(err); ok {
		seconds := after / time.Second
		if after%time.Second > 0 {
			seconds++
		}
		w.Header().Set("Retry-After", strconv.FormatInt(int64(seconds), 10))
	}
	if s.config.Respond == nil {
		respondText(w, status)
		return
	}
	request := s.request
	if s.copied != nil {
		request = s.copied
	}
	own := &respondWriter{ResponseWriter: w, status: status}
	s.config.Respond(own, request, status, err)
	own.sendStatus()
}

// A respondWriter is the writer for Respond. It sends the status if Respond doesn't: net/http would
// send 200.
type respondWriter struct {
	http.ResponseWriter
	status int
	sent   bool
}

func (w *respondWriter) sendStatus() {
	if !w.sent {
		w.WriteHeader(w.status)
	}
}

func (w *respondWriter) WriteHeader(status int) {
	w.sent = w.sent || status >= 200 || status == http.StatusSwitchingProtocols
	w.ResponseWriter.WriteHeader(status)
}

func (w *respondWriter) Write(p []byte) (int, error) {
	w.sendStatus()
	return w.ResponseWriter.Write(p)
}

func (w *respondWriter) Flush() { w.FlushError() }

func (w *respondWriter) FlushError() error {
	w.sendStatus()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Unwrap returns the server's writer, for [http.ResponseController].
func (w *respondWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// respondText responds as http.Error does, but keeps the Content-Type.
func respondText(w http.ResponseWriter, status int) {
	header := w.Header()
	header.Del("Content-Length") // of some other content
	if _, ok := header["Content-Type"]; !ok {
		header.Set("Content-Type", "text/plain; charset=utf-8")
	}
	header.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	fmt.Fprintln(w, http.StatusText(status))
}
