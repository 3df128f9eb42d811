package resiliencegrpc

import (
	"context"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/ctxkey"
)

// A streamCall is a call that opens a stream.
type streamCall struct {
	call
	desc     *grpc.StreamDesc
	streamer grpc.Streamer
}

// stream is a grpc.StreamClientInterceptor.
func (c *client) stream(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	if c.config.Skip(method) {
		return streamer(hidden(ctx), desc, conn, method, opts...)
	}
	r := &requestStream{streamCall: streamCall{
		// The slice may be the caller's, and attempts may begin after NewStream has returned.
		call: call{client: c, ctx: ctx, method: method, conn: conn, options: newOptions(slices.Clone(opts))},
		desc: desc, streamer: streamer,
	}}
	if desc.ClientStreams {
		return r.openOnly()
	}
	r.changed = make(chan struct{})
	return r.start()
}

// discardStreams gives up the streams that no caller will receive.
var discardStreams = resilience.Discard((*streamAttempt).drop)

// openOnly opens a stream on which the client sends many messages.
func (s *streamCall) openOnly() (grpc.ClientStream, error) {
	defer s.end()
	stream, err := s.openInside()
	if err != nil {
		s.options.finished(err)
		return nil, err
	}
	return stream, nil
}

func (s *streamCall) openInside() (grpc.ClientStream, error) {
	entry, err := s.acquire()
	if err != nil {
		return nil, err
	}
	defer s.client.guards.Release(entry)
	policies := append(resilience.Pipeline{discardStreams}, s.pipeline(entry.Value())...)
	last, err := resilience.Do(s.ctx, policies, func(ctx context.Context) (*streamAttempt, error) {
		a, err := s.open(ctx)
		if err == nil && !a.stop() {
			err = a.giveUp(status.FromContextError(a.Context.Err()).Err())
		}
		return a, err
	})
	a, err := s.settle(last, err)
	if err != nil {
		return nil, err
	}
	return a.inner, nil
}

// settle returns the attempt whose result the caller receives, nil if there is none, and the caller's
// error. It makes the attempt's stream the caller's or, after an error, fills the caller's targets.
func (s *streamCall) settle(last *streamAttempt, err error) (*streamAttempt, error) {
	var made *attempt
	if last != nil {
		made = &last.attempt
	}
	from, err := s.result(made, err)
	switch {
	case from == nil:
		return nil, err
	case err == nil:
		from.stream.choose()
	case from.stream.hasFinished(): // otherwise gRPC may still fill the targets
		s.options.handOver(from.targets)
	}
	return from.stream, err
}

// A streamAttempt is one attempt to establish a stream.
type streamAttempt struct {
	attempt
	inner grpc.ClientStream // nil if it could not be opened

	cancel context.CancelCauseFunc // ends the stream
	stop   func() bool             // detaches the stream from the policies' context
	over   chan struct{}           // closed when gRPC has ended the stream

	// The goroutine that makes the attempt owns the following. The caller reads them when it has the
	// stream, or when the policies have ended.
	sent       bool       // the request was sent
	sendFailed bool       // SendMsg has returned an error
	first      *reception // of the first message, nil until the caller waits for it
	headers    *reception // of the headers, nil until the caller waits for them

	mu       sync.Mutex // guards the following: gRPC calls onFinish on any goroutine
	finished bool       // over is closed
	end      error      // what the stream ended with
	isChosen bool       // the caller has the stream
}

// A streamContext is the context of a stream: it ends with the caller's context, and has the values of
// the policies' context.
type streamContext struct {
	context.Context // the caller's
	values          *attempt
}

func (c *streamContext) Value(key any) any {
	if key == ctxkey.Cancel && key != nil {
		return c.Context.Value(key) // cancellation comes from the caller
	}
	return c.values.Value(key)
}

// open opens a stream. Until the attempt is detached with stop, the end of the policies' context ends
// the stream too.
func (s *streamCall) open(ctx context.Context) (*streamAttempt, error) {
	a := &streamAttempt{over: make(chan struct{})}
	a.trace.arrived = make(chan struct{}, 1)
	a.begin(&s.call, ctx)
	a.stream = a
	var rest []grpc.CallOption
	rest, a.targets = s.options.forAttempt(s.options.rest)
	rest = append(slices.Clip(rest), grpc.OnFinish(a.onFinish))
	ctx = a.Context
	inside, cancel := context.WithCancelCause(&streamContext{s.ctx, &a.attempt})
	a.cancel = cancel
	a.stop = context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	returned := false
	defer func() {
		if !returned { // an inner interceptor panics
			a.drop()
		}
	}()
	var err error
	a.inner, err = s.streamer(inside, s.desc, s.conn, s.method, rest...)
	returned = true
	if err != nil {
		return a, a.giveUp(err)
	}
	return a, nil
}

// giveUp ends the stream, and returns the error for the policies. If a deadline of the policies has
// ended the stream, gRPC's error is Canceled, because the stream's own context was canceled. It becomes
// DeadlineExceeded, as for a unary call.
func (a *streamAttempt) giveUp(err error) error {
	if status.Code(err) == codes.Canceled && a.Context.Err() == context.DeadlineExceeded && a.call.ctx.Err() == nil {
		err = status.FromContextError(context.DeadlineExceeded).Err()
	}
	err = a.fail(err)
	a.drop()
	return err
}

// drop ends the stream. a may be nil.
func (a *streamAttempt) drop() {
	if a != nil {
		a.stop()
		a.cancel(nil)
	}
}

// onFinish is called when gRPC has ended the stream.
func (a *streamAttempt) onFinish(err error) {
	a.mu.Lock()
	first, chosen := !a.finished, a.isChosen
	if first {
		a.finished, a.end = true, err
	}
	a.mu.Unlock()
	if !first { // an inner interceptor has opened more than one stream
		return
	}
	if chosen {
		a.report(err)
	}
	a.cancel(nil)
	close(a.over)
}

// choose makes the stream the caller's.
func (a *streamAttempt) choose() {
	a.mu.Lock()
	finished, err := a.finished, a.end
	a.isChosen = true
	a.mu.Unlock()
	if finished {
		a.report(err)
	}
}

// hasFinished reports whether gRPC has ended the stream.
func (a *streamAttempt) hasFinished() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.finished
}

// report fills the caller's targets and calls its OnFinish functions, at the end of the stream.
func (a *streamAttempt) report(err error) {
	a.call.options.handOver(a.targets)
	a.call.options.finished(err)
}
