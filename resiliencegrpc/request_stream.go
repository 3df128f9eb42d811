package resiliencegrpc

import (
	"context"
	"io"
	"runtime"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/detached"
	"github.com/effector-go/resilience/internal/keyed"
)

// A requestStream is a stream on which the client sends one message. Until an attempt is established,
// the policies run on a goroutine of their own, and the caller's methods wait for what they need.
// From then on, the methods are those of the attempt's stream.
type requestStream struct {
	streamCall

	// stream is the established attempt, nil before. It is also set under the call's mu.
	stream atomic.Pointer[streamAttempt]

	// The call's mu guards the following. Every change closes changed and replaces it.
	changed chan struct{}

	opened   bool   // an attempt is open
	request  any    // what the caller has sent
	asked    asking // whether the caller has sent it
	sent     bool   // an attempt has sent the request
	header   bool   // the caller has asked for the headers
	message  any    // for which the caller waits in RecvMsg
	receives bool   // the caller waits in RecvMsg
	done     bool   // the policies have ended without a stream

	// Written before done is set.
	err      error
	last     *streamAttempt // the attempt that err comes from, nil if from the policies
	panicked *resilience.PanicError
	exited   bool // by runtime.Goexit
}

// asking is how far the caller is with its request.
type asking int

const (
	nothing asking = iota
	message        // SendMsg was called
	closed         // CloseSend was called instead
)

// update changes the state and notifies those who wait.
func (r *requestStream) update(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
	close(r.changed)
	r.changed = make(chan struct{})
}

// start runs the policies, and returns when an attempt is open or the policies have ended.
func (r *requestStream) start() (grpc.ClientStream, error) {
	entry, err := r.acquire()
	if err != nil {
		r.options.finished(err)
		return nil, err
	}
	go r.run(entry)
	r.wait(func() bool { return r.opened })
	r.mu.Lock()
	failed := r.done
	r.mu.Unlock()
	if failed {
		return nil, r.failure()
	}
	return r, nil
}

// run runs the policies until a stream is established or they give up.
func (r *requestStream) run(entry *keyed.Entry[string, guard]) {
	var a *streamAttempt
	var err error
	returned := false
	defer func() {
		r.end()
		if !returned {
			if value := recover(); value != nil {
				r.panicked = detached.PanicError(value)
			} else {
				r.exited = true
			}
		}
		unclosed := false
		r.update(func() {
			if returned && err == nil {
				unclosed = r.asked == closed && !a.sent
				r.stream.Store(a)
			} else {
				r.err, r.last, r.done = err, a, true
			}
		})
		if unclosed { // CloseSend has returned
			a.inner.CloseSend()
		}
	}()
	var last *streamAttempt
	last, err = r.runInside(entry)
	if a, err = r.settle(last, err); err != nil {
		r.options.finished(err)
	}
	returned = true
}

func (r *requestStream) runInside(entry *keyed.Entry[string, guard]) (*streamAttempt, error) {
	defer r.client.guards.Release(entry)
	policies := append(resilience.Pipeline{discardStreams}, r.pipeline(entry.Value())...)
	return resilience.Do(r.ctx, policies, r.attempt)
}

// wait waits until ready, which it calls under mu, returns true, or the policies have ended.
func (r *requestStream) wait(ready func() bool) {
	for {
		r.mu.Lock()
		ended, changed := r.done || r.stream.Load() != nil || ready(), r.changed
		r.mu.Unlock()
		if ended {
			return
		}
		<-changed
	}
}

// failure returns the caller's error once done is set. A panic or Goexit of the policies becomes the
// caller's.
func (r *requestStream) failure() error {
	switch {
	case r.panicked != nil:
		panic(r.panicked)
	case r.exited:
		runtime.Goexit()
	}
	return r.err
}

// established waits for the stream. It returns nil if there will be none.
func (r *requestStream) established() *streamAttempt {
	r.wait(func() bool { return false })
	return r.stream.Load()
}

// attempt opens a stream, sends the request, and returns when the stream is established.
func (r *requestStream) attempt(ctx context.Context) (*streamAttempt, error) {
	a, err := r.open(ctx)
	if err != nil {
		return a, err
	}
	returned := false
	defer func() {
		if !returned {
			a.drop()
		}
	}()
	r.update(func() { r.opened = true })
	if err = r.establish(a); err != nil {
		err = a.giveUp(err)
	}
	returned = true
	return a, err
}

// establish sends the request when the caller has sent it, and waits until the stream is established.
// The first message can be received only when the caller waits for it: until then, its type isn't
// known. Header isn't called unless the caller calls it, because it can end a stream that gRPC has
// repeated.
func (r *requestStream) establish(a *streamAttempt) error {
	if !a.stop() {
		return status.FromContextError(a.Context.Err()).Err()
	}
	for {
		changed, err := r.serve(a)
		if err != nil {
			return err
		}
		seen := a.trace.seen()
		switch {
		case a.headers != nil && seen.begins == 0:
			return nil // on another connection: nothing is known
		case a.headers != nil && seen.opened:
			return nil
		case a.first == nil && seen.ended && !seen.opened:
			return a.endWithoutMessage()
		}
		// A nil channel is never ready. A reception ends with the stream.
		var received, headers <-chan struct{}
		over := a.over
		if a.headers != nil {
			headers, over = a.headers.done, nil
		}
		if a.first != nil {
			received, headers, over = a.first.done, nil, nil
		}
		select {
		case <-changed:
		case <-a.trace.arrived:
		case <-received:
			return a.first.failure()
		case <-headers:
			if err := a.headers.failure(); err != nil {
				return err
			}
			if !a.trace.seen().opened {
				return a.endWithoutMessage()
			}
		case <-over:
			return a.ended()
		case <-a.Context.Done():
			if a.limitEstablishes() {
				return nil
			}
			return a.canceled()
		}
	}
}

// canceled cancels the stream, because the policies' context has ended, and returns gRPC's error. By
// then, gRPC has filled the attempt's targets.
func (a *streamAttempt) canceled() (err error) {
	a.cancel(context.Cause(a.Context))
	switch {
	case a.first != nil:
		<-a.first.done
		err = a.first.err
	case a.trace.seen().begins > 0:
		err = a.inner.RecvMsg(new(emptypb.Empty))
	}
	if err == nil || err == io.EOF {
		err = status.FromContextError(a.Context.Err()).Err()
	}
	return err
}

// limitEstablishes reports whether the end of the policies' context establishes the stream: a limit
// has passed, and the server has sent its headers.
func (a *streamAttempt) limitEstablishes() bool {
	return a.trace.seen().opened && a.Context.Err() == context.DeadlineExceeded && a.call.ctx.Err() == nil
}

// ended returns the error of a stream that gRPC has ended.
func (a *streamAttempt) ended() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.end == nil {
		return status.Error(codes.Internal, "resiliencegrpc: the stream has ended without a message")
	}
	return a.end
}

// serve does what the caller waits for. It returns a channel that is closed when the caller waits for
// something else.
func (r *requestStream) serve(a *streamAttempt) (changed <-chan struct{}, err error) {
	r.mu.Lock()
	err = r.receive(a)
	request, asked, changed := r.request, r.asked, r.changed
	send := err == nil && asked != nothing && !a.sent
	if send && asked == message && a.forked {
		if request = copyOf(request); r.ended {
			err = status.FromContextError(context.Canceled).Err()
		}
	}
	r.mu.Unlock()
	if err == nil && send {
		err = r.send(a, request, asked)
	}
	return changed, err
}

// send sends the request. Until it is sent, the end of the policies' context ends the stream.
func (r *requestStream) send(a *streamAttempt, request any, asked asking) error {
	a.sent = true
	if asked == message {
		stop := context.AfterFunc(a.Context, func() {
			if !a.limitEstablishes() {
				a.cancel(context.Cause(a.Context))
			}
		})
		err := a.inner.SendMsg(request)
		stop()
		if err != nil && err != io.EOF { // all other errors come from RecvMsg
			a.unsent = true
			return err
		}
	}
	a.inner.CloseSend()
	r.update(func() { r.sent = true })
	return nil
}

// receive begins to receive what the caller waits for: the headers, and the first message. mu must be
// held.
func (r *requestStream) receive(a *streamAttempt) error {
	if r.header && a.headers == nil {
		a.headers = begin(nil, func(any) error {
			_, err := a.inner.Header()
			return err
		})
	}
	if !r.receives || a.first != nil {
		return nil
	}
	message := r.message
	if a.forked {
		own, err := newLike(message)
		if err != nil {
			return err
		}
		message = own
	}
	a.first = begin(message, a.inner.RecvMsg)
	return nil
}

// endWithoutMessage returns the error of a stream that has ended without headers, and so without
// messages; nil if it has ended well.
func (a *streamAttempt) endWithoutMessage() error {
	switch err := a.inner.RecvMsg(new(emptypb.Empty)); err {
	case io.EOF:
		return nil
	case nil:
		return status.Error(codes.Internal, "resiliencegrpc: the stream has a message but no headers")
	default:
		return err
	}
}

// A reception receives something of an attempt's stream on a goroutine of its own, because a limit
// that passes doesn't end it.
type reception struct {
	message any // the caller's, or, on a fork, one of its own
	taken   bool

	done     chan struct{} // closed when the following are final
	err      error
	panicked *resilience.PanicError
	returned bool
}

func begin(message any, receive func(any) error) *reception {
	f := &reception{message: message, done: make(chan struct{})}
	go f.run(receive)
	return f
}

func (f *reception) run(receive func(any) error) {
	defer func() {
		if !f.returned {
			if value := recover(); value != nil {
				f.panicked = detached.PanicError(value)
			}
		}
		close(f.done)
	}()
	f.err = receive(f.message)
	f.returned = true
}

// failure returns the error of the reception, which must be done, or nil if the stream has ended
// well. A panic or Goexit continues.
func (f *reception) failure() error {
	switch {
	case f.panicked != nil:
		panic(f.panicked)
	case !f.returned:
		runtime.Goexit()
	case f.err == io.EOF:
		return nil
	}
	return f.err
}

// SendMsg sends the request, and returns when an attempt has sent it.
func (r *requestStream) SendMsg(m any) error {
	if a := r.stream.Load(); a != nil {
		return a.inner.SendMsg(m)
	}
	again := false
	r.update(func() {
		if again = r.asked != nothing; again {
			r.header = true
		} else {
			r.request, r.asked = m, message
		}
	})
	if again { // gRPC ends the stream with an error
		if a := r.established(); a != nil {
			return a.inner.SendMsg(m)
		}
		return r.failure()
	}
	r.wait(func() bool { return r.sent })
	if a := r.stream.Load(); a != nil && !a.sent { // established without the request
		return a.inner.SendMsg(m)
	}
	r.mu.Lock()
	unsent := r.done && !r.sent && (r.panicked != nil || r.exited || r.last != nil && r.last.unsent)
	r.mu.Unlock()
	if unsent {
		return r.failure()
	}
	return nil // RecvMsg returns the error
}

// CloseSend does nothing after SendMsg, which sends the end as well.
func (r *requestStream) CloseSend() error {
	if a := r.stream.Load(); a != nil {
		return a.inner.CloseSend()
	}
	r.update(func() {
		if r.asked == nothing {
			r.asked = closed
		}
	})
	return nil
}

// RecvMsg receives a message. The first one, or the end, establishes the stream.
func (r *requestStream) RecvMsg(m any) error {
	a := r.stream.Load()
	if a == nil {
		r.update(func() { r.message, r.receives = m, true })
		a = r.established()
		r.mu.Lock()
		r.message, r.receives = nil, false
		r.mu.Unlock()
		if a == nil {
			return r.failure()
		}
	}
	first := a.first
	if first == nil || first.taken {
		return a.inner.RecvMsg(m)
	}
	<-first.done
	first.taken = true
	if err := first.failure(); err != nil {
		return err
	}
	if first.err == nil && a.forked {
		replace(m, first.message)
	}
	return first.err
}

// Header returns the response headers. It establishes the stream when they arrive. If there are none,
// RecvMsg returns the error.
func (r *requestStream) Header() (metadata.MD, error) {
	if r.stream.Load() == nil {
		r.update(func() { r.header = true })
		if r.established() == nil {
			r.failure() // a panic
		}
	}
	if a := r.final(); a != nil {
		return a.inner.Header()
	}
	return nil, nil
}

// final returns the attempt whose result the caller receives, or nil if there is none yet, or none
// with a stream.
func (r *requestStream) final() *streamAttempt {
	if a := r.stream.Load(); a != nil {
		return a
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == nil || r.last.inner == nil {
		return nil
	}
	return r.last
}

// Trailer returns the trailer. It must be called only after RecvMsg has returned an error.
func (r *requestStream) Trailer() metadata.MD {
	if a := r.final(); a != nil {
		return a.inner.Trailer()
	}
	return nil
}

// Context returns the context of the stream, or the caller's until the stream is established.
func (r *requestStream) Context() context.Context {
	if a := r.stream.Load(); a != nil {
		return a.inner.Context()
	}
	return r.ctx
}
