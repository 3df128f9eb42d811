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

// ServerConfig says how [Middleware] serves. Policy must be set.
type ServerConfig struct {
	// Policy is what requests run under, inside [resilience.AtMostOnce]: a handler is never run twice. It must be set.
	//
	// A breaker counts a stream (server-sent events, a websocket) as one call, and as a probe holds its place until the
	// stream ends: leave it off such handlers.
	Policy resilience.Policy

	// Failed says which statuses of a handler are failures for the policy. It must be safe for concurrent use. Default 5xx except 501
	// and 505.
	Failed func(status int) bool

	// DeadlineHeader is the name of a request header that holds how many milliseconds the client will wait
	// ([Config].DeadlineHeader). They become the deadline of the request's ctx, which then ends with [context.Canceled] and the cause
	// [context.DeadlineExceeded]: the client went away, and the handler has not failed. What is not a positive number is ignored. Default none.
	DeadlineHeader string

	// MaxDeadline is the most that DeadlineHeader is taken for. Default no limit: it can only shorten the time that the ctx has.
	MaxDeadline time.Duration
}

// Validate reports all mistakes of c at once, joined by [errors.Join], each naming the field, its value and the allowed range;
// nil if there is none.
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

// Middleware gives what puts the policy around a handler. It panics with the text of [ServerConfig.Validate]'s error if there is one.
//
//	guard := resiliencehttp.Middleware(resiliencehttp.ServerConfig{Policy: timeout.After(5 * time.Second)})
//	http.Handle("/", guard(handler))
//
// A request that the policy refuses is answered 503, or with what the error's HTTPStatus() int says, and with Retry-After where the
// error has a [resilience.RetryAfter], in whole seconds, rounded up. So is one whose time passed before the handler ran. If the policy
// ends without the handler having run for any other reason, the answer is its error's HTTPStatus, or 500. Such answers have none of
// the handler's headers.
//
// What a handler has written and returned from stands, however late. A handler that wrote nothing until its ctx ended, and returned or
// was abandoned, is answered for with 503; informational statuses (1xx) are not counted as written. One that was abandoned after
// it had begun to write is aborted, as by [http.ErrAbortHandler].
//
// A failed status is a [*StatusError] for the policy. A handler's panic with [http.ErrAbortHandler] is no failure, nor is a client that went
// away or whose deadline passed. Other panics go on to the server, where the policy ran the handler on a goroutine of its own as
// [*resilience.PanicError].
//
// A handler that timeout's Abandon left behind keeps a writer of its own, whose writes return [http.ErrHandlerTimeout]; its panic is
// logged where the server logs. Reads of the body fail by then. The writer has Flush, Hijack where the server's has it, what
// [http.ResponseController] sets, and Unwrap.
func Middleware(config ServerConfig) func(http.Handler) http.Handler {
	if err := config.Validate(); err != nil {
		panic(err.Error())
	}
	if config.Failed == nil {
		config.Failed = serverFailed
	}
	// Compose panics where a policy in a pipeline is nil; what it gives is not needed.
	resilience.Compose(func(context.Context) (struct{}, error) { return struct{}{}, nil }, config.Policy)
	return func(next http.Handler) http.Handler {
		if next == nil {
			panic("resiliencehttp: Middleware: the handler is nil, must be a Handler")
		}
		return &guarded{config, next}
	}
}

// guarded is a handler inside a policy.
type guarded struct {
	config ServerConfig
	next   http.Handler
}

// ServeHTTP makes one call of the handler inside the policy.
func (g *guarded) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := g.withDeadline(r)
	defer cancel()
	s := &serving{guarded: g, request: r, writer: newWriter(w)}
	if r.ProtoMajor == 1 && r.Body != nil && r.Body != http.NoBody {
		s.upload = &upload{ReadCloser: r.Body}
	}
	defer s.writer.leave() // also when a policy panics: it may have left the handler behind
	err := resilience.Run(ctx, s, s.handle)
	s.finish(ctx, err)
}

// withDeadline gives the request's ctx, with the deadline of its header if that has one, and it is the first.
func (g *guarded) withDeadline(r *http.Request) (ctx context.Context, cancel func()) {
	ctx = r.Context()
	left, ok := g.clientWaits(r)
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

// clientWaits is how long the client says it will wait.
func (g *guarded) clientWaits(r *http.Request) (left time.Duration, ok bool) {
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

// A clientContext tells the deadline at which it will be canceled.
type clientContext struct {
	context.Context
	deadline time.Time
}

func (c *clientContext) Deadline() (time.Time, bool) { return c.deadline, true }

// A serving is one request on its way through the policy.
type serving struct {
	*guarded
	request *http.Request
	writer  *writer
	upload  *upload         // nil if the request has no body, or if HTTP/2 brings it
	call    resilience.Next // as the outermost policy has it
	apart   bool            // the handler runs on a fork of the call, on a goroutine of its own: nobody would recover its panic
	pattern string          // that a ServeMux in the handler noted, once the writer has ended
}

// Run is the outermost policy of the request's own call.
func (s *serving) Run(ctx context.Context, next resilience.Next) error {
	s.call = next
	return resilience.Pipeline{resilience.AtMostOnce, s.config.Policy, resilience.PolicyFunc(s.admit)}.Run(ctx, next)
}

// admit is the innermost policy. It keeps policies that do not ask Repeatable from running the handler again. A fork counts as a
// start where it was forked from, so the numbers differ if next is one.
func (s *serving) admit(ctx context.Context, next resilience.Next) error {
	if !s.writer.begin() {
		return errors.New("resiliencehttp: the handler is not run again")
	}
	s.apart = next.Starts() != s.call.Starts()
	return next.Run(ctx)
}

// handle runs the handler: the effector of the call. Its error is what the policy hears.
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

// serve gives the handler a copy of the request, and sees to what net/http would find on its own: the pattern that a ServeMux
// notes, and the files of a form.
func (s *serving) serve(ctx context.Context) {
	r := s.request.WithContext(ctx)
	if s.upload != nil {
		r.Body = s.upload
	}
	form := r.MultipartForm
	defer func() {
		s.pattern = r.Pattern
		if !s.apart { // else finish does it, if the request is still there
			s.request.Pattern = r.Pattern
		}
		if r.MultipartForm != nil && r.MultipartForm != form {
			r.MultipartForm.RemoveAll()
		}
	}()
	s.next.ServeHTTP(s.writer.face(), r)
}

// An upload is a request's body that knows whether there is more to read.
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

// panicked decides on a panic of the handler. It goes on as it is, on top of the stack it came from, unless it is
// http.ErrAbortHandler, which is no failure, or the handler runs apart: its caller may leave it at any instant, and the panic would
// be the program's end. Then finish goes on with it, if the request is not over.
func (s *serving) panicked(value any) error {
	if value == http.ErrAbortHandler {
		s.writer.panicked(value)
		return nil
	}
	if !s.apart {
		panic(value)
	}
	p := detached.PanicError(value)
	if over := s.writer.panicked(p); over {
		s.log("resiliencehttp: panic serving %v after the handler was left behind: %v\n%s", s.request.RemoteAddr, p.Value, p.Stack)
	}
	return p
}

// log writes to where the server would.
func (s *serving) log(format string, args ...any) {
	if server, ok := s.request.Context().Value(http.ServerContextKey).(*http.Server); ok && server.ErrorLog != nil {
		server.ErrorLog.Printf(format, args...)
		return
	}
	log.Printf(format, args...)
}

// finish ends the request after the policy returned err.
func (s *serving) finish(ctx context.Context, err error) {
	fate, panicked := s.writer.leave()
	if s.writer.ended { // it changes no more
		s.request.Pattern = s.pattern
	}
	status := http.StatusServiceUnavailable
	switch {
	case panicked != nil:
		panic(panicked)
	case fate == answered:
		return
	case fate == cutOff:
		panic(http.ErrAbortHandler)
	case fate == leftSilent && s.upload != nil && !s.upload.ended.Load():
		// The handler may be waiting for the body of a slow client. To use the connection again the server would wait, too, before it
		// sends the answer.
		s.writer.server.Header().Set("Connection", "close")
	case fate == notRun && !tooLate(ctx, err) && !errors.Is(err, resilience.ErrRefused):
		status = statusOf(err, http.StatusInternalServerError)
	case fate == notRun:
		status = statusOf(err, status)
	}
	s.answer(status, err)
}

// tooLate reports whether a handler was not run because there was no time left.
func tooLate(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded)
}

// statusOf is what the error says, or else the status given.
func statusOf(err error, status int) int {
	var teller interface{ HTTPStatus() int }
	if errors.As(err, &teller) {
		if told := teller.HTTPStatus(); 200 <= told && told <= 999 {
			return told
		}
	}
	return status
}

// answer answers in the handler's place.
func (s *serving) answer(status int, err error) {
	w := s.writer.server
	if after, ok := resilience.RetryAfter(err); ok {
		seconds := after / time.Second
		if after%time.Second > 0 {
			seconds++
		}
		w.Header().Set("Retry-After", strconv.FormatInt(int64(seconds), 10))
	}
	http.Error(w, http.StatusText(status), status)
}
