package resiliencegrpc

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/timeout"
)

// ServerConfig configures [ServerOptions]. Policy is required. All functions must be safe for
// concurrent use.
type ServerConfig struct {
	// Policy is the policy that handlers run under. It is required. It runs inside
	// [resilience.AtMostOnce], and a handler never runs twice, whatever the policy does.
	//
	// A stream's handler runs inside the policy from beginning to end. Long-lived streams belong
	// behind a limit on their number, such as a bulkhead, not behind a breaker or an adaptive limit.
	Policy resilience.Policy

	// Failed reports whether a code is a failure of the handler. The default is Unknown,
	// DeadlineExceeded, Internal, Unavailable, and DataLoss.
	Failed func(codes.Code) bool

	// Skip reports whether a method, such as "/package.Service/Method", bypasses the policy. The
	// default is true for the services in the packages grpc.health.v1 and grpc.reflection.
	Skip func(method string) bool
}

// Validate reports all invalid fields of c, or nil if there are none. The errors are joined with
// [errors.Join]. Each names the field, its value, and the allowed range.
func (c ServerConfig) Validate() error {
	if c.Policy == nil {
		return errors.Join(errors.New("resiliencegrpc: Policy is nil, must be a Policy"))
	}
	return nil
}

// ServerOptions returns the options for [grpc.NewServer] with which every handler runs inside the
// policy. It panics with the text of [ServerConfig.Validate]'s error if the configuration is invalid.
//
// The client receives:
//
//   - the handler's reply or error, unchanged. A reply and an error that isn't a failure count even if
//     they are late;
//   - DeadlineExceeded, if a limit of package timeout has passed, and for a failure that is late;
//   - Unavailable, if the policy refused the call, or ResourceExhausted if the refusal has an
//     HTTPStatus of 429. If it is known when to retry, the status has a RetryInfo detail, and the
//     trailer grpc-retry-pushback-ms states it in milliseconds, rounded up. The message doesn't name
//     the policies;
//   - Internal, if the policy returned nil without making the call;
//   - what gRPC makes of the policy's error, in any other case.
//
// For the policy, an error is a failure if Failed reports its code, otherwise a
// [resilience.NotFailure]. An error after the request's context has ended, because the client left or
// its deadline passed, is a [resilience.CallerFault].
//
// Panics pass. A timeout with Abandon runs the handler on its own goroutine: a panic reaches the server
// as a [*resilience.PanicError] or, if the handler has already been abandoned, crashes the program. So
// an interceptor that recovers belongs inside, after these options. After the call is over, SendMsg
// and RecvMsg of an abandoned stream's handler return an error.
func ServerOptions(config ServerConfig) []grpc.ServerOption {
	if err := config.Validate(); err != nil {
		panic(err.Error())
	}
	if config.Failed == nil {
		config.Failed = serverFailed
	}
	if config.Skip == nil {
		config.Skip = defaultSkip
	}
	resilience.Compose(func(context.Context) (any, error) { return nil, nil }, config.Policy) // panics if Policy contains nil
	s := &server{config, flattened(resilience.Pipeline{resilience.AtMostOnce}, config.Policy)}
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(s.unary),
		grpc.ChainStreamInterceptor(s.stream),
	}
}

type server struct {
	config ServerConfig // with defaults
	policy resilience.Pipeline
}

// A serving is one call that runs through the policy.
type serving struct {
	server  *server
	ctx     context.Context // the request's
	handler func(ctx context.Context) (reply any, err error)

	started atomic.Bool                   // the handler has run or is running
	ended   atomic.Pointer[handlerResult] // nil until the handler has returned
}

type handlerResult struct {
	reply  any
	err    *handlerError // nil if the handler succeeded
	marked error         // err as the policy receives it
}

// A handlerError is the error of a handler, as the policy receives it, except for its mark. It hides
// the marks of the handler's own error: only outer marks count.
type handlerError struct {
	err    error
	failed bool
}

func (e *handlerError) Error() string { return e.err.Error() }
func (e *handlerError) Unwrap() error { return e.err }

// ErrorType returns the code, as that of an attempt's error.
func (e *handlerError) ErrorType() string { return errorType(statusOf(e.err)) }

// unary is a grpc.UnaryServerInterceptor.
func (s *server) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if s.config.Skip(info.FullMethod) {
		return handler(ctx, request)
	}
	call := &serving{server: s, ctx: ctx, handler: func(ctx context.Context) (any, error) { return handler(ctx, request) }}
	return call.run(func(trailer metadata.MD) { grpc.SetTrailer(ctx, trailer) })
}

// stream is a grpc.StreamServerInterceptor.
func (s *server) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if s.config.Skip(info.FullMethod) {
		return handler(srv, stream)
	}
	var over atomic.Bool
	defer over.Store(true)
	call := &serving{server: s, ctx: stream.Context(), handler: func(ctx context.Context) (any, error) {
		return nil, handler(srv, &serverStream{stream, ctx, &over})
	}}
	_, err := call.run(stream.SetTrailer)
	return err
}

// run runs the handler inside the policy.
func (s *serving) run(setTrailer func(metadata.MD)) (reply any, err error) {
	err = resilience.Run(s.ctx, s.server.policy, s.handle)
	result := s.ended.Load()
	switch {
	case err == nil && result == nil:
		return nil, status.Error(codes.Internal, "resiliencegrpc: the policy returned nil without making the call")
	case err == nil && result.err == nil:
		return result.reply, nil
	case err == nil:
		return nil, result.err.err
	}
	late := policyIs(err, timeout.ErrTimeout)
	if result != nil && result.err != nil && contains(err, result.err) && !(late && result.err.failed) {
		return nil, result.err.err
	}
	return nil, s.policyError(err, late, setTrailer)
}

// contains reports whether err is the handler's error or wraps it.
func contains(err error, handlers *handlerError) bool {
	return walk(err, func(err error) bool { return err == handlers })
}

// policyError returns the client's error for an error of the policy. late states that a limit passed.
func (s *serving) policyError(err error, late bool, setTrailer func(metadata.MD)) error {
	ended := s.ctx.Err()
	switch {
	case late:
		return status.Error(codes.DeadlineExceeded, "the call took too long")
	case policyIs(err, resilience.ErrRefused):
		refused, after := refusal(err, "the server refuses the call for now")
		if after > 0 {
			ms := after / time.Millisecond
			if after%time.Millisecond > 0 {
				ms++
			}
			setTrailer(metadata.Pairs(pushbackKey, strconv.FormatInt(int64(ms), 10)))
		}
		return refused.Err()
	case ended != nil:
		return status.FromContextError(ended).Err()
	}
	return err
}

// handle runs the handler. The policy receives its error. A policy that runs it again, although it
// must not, receives the same result.
func (s *serving) handle(ctx context.Context) error {
	if !s.started.CompareAndSwap(false, true) {
		if result := s.ended.Load(); result != nil {
			return result.marked
		}
		return errTwice
	}
	reply, err := s.handler(ctx)
	result := &handlerResult{reply: reply}
	if err != nil {
		result.err = &handlerError{err, s.server.config.Failed(statusOf(err).Code())}
		result.marked = s.mark(result.err)
	}
	s.ended.Store(result)
	return result.marked
}

// errTwice is the error of another run while the handler is running, or after it has panicked.
var errTwice = status.Error(codes.Internal, "resiliencegrpc: a handler is never run twice")

func (s *serving) mark(e *handlerError) error {
	switch {
	case over(s.ctx):
		return resilience.CallerFault(e)
	case !e.failed:
		return resilience.NotFailure(e)
	}
	return e
}

// A serverStream is the stream that a handler receives. It has the policy's context.
type serverStream struct {
	grpc.ServerStream
	ctx  context.Context
	over *atomic.Bool // the call is over
}

func (s *serverStream) Context() context.Context { return s.ctx }

var errOver = status.Error(codes.Canceled, "resiliencegrpc: the call is over")

func (s *serverStream) SendMsg(m any) error {
	if s.over.Load() {
		return errOver
	}
	return s.ServerStream.SendMsg(m)
}

func (s *serverStream) RecvMsg(m any) error {
	if s.over.Load() {
		return errOver
	}
	return s.ServerStream.RecvMsg(m)
}

func (s *serverStream) SetHeader(md metadata.MD) error {
	if s.over.Load() {
		return errOver
	}
	return s.ServerStream.SetHeader(md)
}

func (s *serverStream) SendHeader(md metadata.MD) error {
	if s.over.Load() {
		return errOver
	}
	return s.ServerStream.SendHeader(md)
}

func (s *serverStream) SetTrailer(md metadata.MD) {
	if !s.over.Load() {
		s.ServerStream.SetTrailer(md)
	}
}
