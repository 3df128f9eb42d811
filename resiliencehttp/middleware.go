package resiliencehttp

import (
	"context"
	"errors"
	"fmt"
	"log"
	"math"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/effector-go/resilience"
)

// ServerConfig says how [Middleware] serves. Policy must be set.
type ServerConfig struct {
	// Policy is what requests run under, inside [resilience.AtMostOnce]: a handler is never run twice. It must be set.
	//
	// A breaker counts a stream (server-sent events, a websocket) as one call, and as a trial holds its place until the
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
// A request that the policy refuses is answered 503, or with what the error's HTTPStatus() int says, and with Retry-After where the
// error has a [resilience.RetryAfter], in whole seconds, rounded up. Another error of a policy that did not run the handler is answered 500,
// or with its HTTPStatus. What a handler has written and returned from stands. A handler that wrote nothing until its ctx ended, and
// returned or was abandoned, is answered for with 503; one that was abandoned after it had begun to write is aborted, as by
// [http.ErrAbortHandler].
//
// A failed status is a [*StatusError] for the policy. A handler's panic with [http.ErrAbortHandler] is no failure, nor is a client that went
// away or whose deadline passed.
//
// A handler that timeout's Abandon left behind keeps a writer of its own, whose writes return [http.ErrHandlerTimeout]; its panic is
// logged by the server, as any handler's is. The writer has Flush, Hijack where the server's has it, and Unwrap for
// [http.ResponseController].
func Middleware(config ServerConfig) func(http.Handler) http.Handler {
	if err := config.Validate(); err != nil {
		panic(err.Error())
	}
	if config.Failed == nil {
		config.Failed = serverFailed
	}
	// The pipeline is flat and whole, or this panics.
	resilience.Compose(func(context.Context) (struct{}, error) { return struct{}{}, nil }, config.Policy)
	pipeline := resilience.Pipeline{resilience.AtMostOnce, config.Policy}
	return func(next http.Handler) http.Handler {
		if next == nil {
			panic("resiliencehttp: Middleware: the handler is nil, must be a Handler")
		}
		return &guarded{config, pipeline, next}
	}
}

// guarded is a handler inside a policy.
type guarded struct {
	config   ServerConfig
	pipeline resilience.Policy
	next     http.Handler
}

// ServeHTTP makes one call of the handler inside the policy.
func (g *guarded) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if ctx, cancel := g.withDeadline(r); cancel != nil {
		defer cancel()
		r = r.WithContext(ctx)
	}
	s := &serving{g, r, newWriter(w)}
	err := resilience.Run(r.Context(), g.pipeline, s.handle)
	s.finish(err)
}

// withDeadline gives the request's ctx with the deadline of its header; a nil cancel if there is none, or an earlier one.
func (g *guarded) withDeadline(r *http.Request) (ctx context.Context, cancel func()) {
	left, ok := g.clientWaits(r)
	if !ok {
		return nil, nil
	}
	deadline := time.Now().Add(left)
	if own, ok := r.Context().Deadline(); ok && !deadline.Before(own) {
		return nil, nil
	}
	ctx, cancelCause := context.WithCancelCause(r.Context())
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

// A serving is one request with its writer.
type serving struct {
	*guarded
	request *http.Request
	writer  *writer
}

// handle runs the handler: the effector of the call. Its error is what the policy hears.
func (s *serving) handle(ctx context.Context) (err error) {
	s.writer.begin()
	defer func() {
		if value := recover(); value != nil {
			err = s.panicked(ctx, value)
		}
	}()
	s.next.ServeHTTP(s.writer.face(), s.request.WithContext(ctx))
	status := s.writer.end(ctx.Err() != nil)
	switch {
	case status == 0:
		return resilience.ContextErr(ctx)
	case s.config.Failed(status):
		return newStatusError(s.request, &http.Response{StatusCode: status, Header: s.writer.header})
	}
	return nil
}

// panicked decides on a panic of the handler. It goes on as it is, on top of the stack it came from, unless it is
// http.ErrAbortHandler, which is no failure, or the ctx has ended: then the policy may have left the handler behind, on a
// goroutine where nobody would recover.
func (s *serving) panicked(ctx context.Context, value any) error {
	if value == http.ErrAbortHandler {
		s.writer.panicked(value)
		return nil
	}
	if ctx.Err() == nil {
		panic(value)
	}
	p, ok := value.(*resilience.PanicError)
	if !ok {
		p = &resilience.PanicError{Value: value, Stack: debug.Stack()}
	}
	if left := s.writer.panicked(p); left {
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
func (s *serving) finish(err error) {
	fate, panicked := s.writer.leave()
	switch {
	case panicked != nil:
		panic(panicked)
	case fate == answered:
	case fate == cutOff:
		panic(http.ErrAbortHandler)
	case fate == silent || s.request.Context().Err() != nil:
		s.refuse(http.StatusServiceUnavailable, err)
	case errors.Is(err, resilience.ErrRefused):
		s.refuse(statusOf(err, http.StatusServiceUnavailable), err)
	default:
		s.refuse(statusOf(err, http.StatusInternalServerError), err)
	}
}

// statusOf is what the error says, or else the status given.
func statusOf(err error, status int) int {
	var told interface{ HTTPStatus() int }
	if errors.As(err, &told) && told.HTTPStatus() >= 200 && told.HTTPStatus() <= 999 {
		return told.HTTPStatus()
	}
	return status
}

// refuse answers in the handler's place.
func (s *serving) refuse(status int, err error) {
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
