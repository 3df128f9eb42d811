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

	// stream is the established attempt, nil before. It is written under the call's mu, as the fields
	// below are, and read with or without it.
	stream atomic.Pointer[streamAttempt]

	// The call's mu guards the following. Every change closes changed and replaces it.
	changed chan struct{}

	// What the caller has asked for.
	state        requestState
	request      any  // the message, if state is given
	wantsHeader  bool // it has called Header
	wantsMessage bool // it waits in RecvMsg
	message      any  // that RecvMsg fills

	// What the policies and their attempts have done.
	opened bool // an attempt is open
	sent   bool // an attempt has sent the request
	done   bool // the policies have ended without a stream

	// Final once done is set.
	outcome outcome        // of the policies
	last    *streamAttempt // the attempt that the error comes from, nil if it comes from the policies
}

// A requestState is what the caller has done to send its request.
type requestState int

const (
	awaited requestState = iota // nothing yet
	given                       // called SendMsg
	omitted                     // called CloseSend without SendMsg
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
	var policies outcome
	defer func() { r.finish(a, policies) }()
	defer policies.capture()
	last, err := r.runInside(entry)
	if a, err = r.settle(last, err); err != nil {
		r.options.finished(err)
	}
	policies.set(err)
}

func (r *requestStream) runInside(entry *keyed.Entry[string, guard]) (*streamAttempt, error) {
	defer r.end()
	defer r.client.guards.Release(entry)
	policies := append(resilience.Pipeline{discardStreams}, r.pipeline(entry.Value())...)
	return resilience.Do(r.ctx, policies, r.attempt)
}

// finish publishes how the policies have ended: with the stream of a, or without a stream.
func (r *requestStream) finish(a *streamAttempt, policies outcome) {
	unclosed := false
	r.update(func() {
		if policies.returned && policies.err == nil {
			unclosed = r.state == omitted && !a.sent
			r.stream.Store(a)
		} else {
			r.outcome, r.last, r.done = policies, a, true
		}
	})
	if unclosed { // the caller's CloseSend has returned
		a.inner.CloseSend()
	}
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
func (r *requestStream) failure() error { return r.outcome.get() }

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
		if done, err := a.await(changed); done {
			return err
		}
	}
}

// await waits until the stream is established, or the attempt fails, or changed is closed. It reports
// whether the attempt is done, and the error if it has failed.
func (a *streamAttempt) await(changed <-chan struct{}) (done bool, err error) {
	seen := a.trace.seen()
	switch {
	case a.headers != nil && (seen.opened || seen.begins == 0): // without a Begin, nothing is known
		return true, nil
	case a.first == nil && seen.ended && !seen.opened:
		return true, a.endWithoutMessage()
	}
	// The channel that is set here is ready when the stream has ended.
	var received, headers, over <-chan struct{}
	switch {
	case a.first != nil:
		received = a.first.done
	case a.headers != nil:
		headers = a.headers.done
	default:
		over = a.over
	}
	select {
	case <-changed:
	case <-a.trace.arrived:
	case <-received:
		return true, a.first.failure()
	case <-headers:
		if err := a.headers.failure(); err != nil {
			return true, err
		}
		if !a.trace.seen().opened {
			return true, a.endWithoutMessage()
		}
	case <-over:
		return true, a.ended()
	case <-a.Context.Done():
		if a.limitEstablishes() {
			return true, nil
		}
		return true, a.canceled()
	}
	return false, nil
}

// canceled cancels the stream, because the policies' context has ended, and returns gRPC's error. By
// then, gRPC has filled the attempt's targets.
func (a *streamAttempt) canceled() (err error) {
	a.cancel(context.Cause(a.Context))
	switch {
	case a.first != nil:
		<-a.first.done
		err = a.first.failure()
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
	request, state, changed := r.request, r.state, r.changed
	if err == nil && state == given && !a.sent && a.forked {
		if r.ended {
			err = status.FromContextError(context.Canceled).Err()
		} else {
			request = copyOf(request)
		}
	}
	r.mu.Unlock()
	if err == nil && state != awaited && !a.sent {
		err = r.send(a, request, state)
	}
	return changed, err
}

// send sends the request. Until it is sent, the end of the policies' context ends the stream.
func (r *requestStream) send(a *streamAttempt, request any, state requestState) error {
	a.sent = true
	if state == given {
		stop := context.AfterFunc(a.Context, func() {
			if !a.limitEstablishes() {
				a.cancel(context.Cause(a.Context))
			}
		})
		err := a.inner.SendMsg(request)
		stop()
		if err != nil && err != io.EOF { // all other errors come from RecvMsg
			a.sendFailed = true
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
	if r.wantsHeader && a.headers == nil {
		a.headers = newReception(nil, func(any) error {
			_, err := a.inner.Header()
			return err
		})
	}
	if !r.wantsMessage || a.first != nil {
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
	a.first = newReception(message, a.inner.RecvMsg)
	return nil
}

// endWithoutMessage returns the error of a stream that has ended without headers, and so without
// messages, or nil if its status is OK.
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

// A reception receives the headers or the first message of an attempt's stream. It has a goroutine of
// its own, because a limit that passes doesn't end it.
type reception struct {
	message any  // the caller's, or, on a fork, one of its own
	taken   bool // by the caller

	done    chan struct{}
	outcome // final once done is closed
}

// newReception begins a reception.
func newReception(message any, receive func(any) error) *reception {
	f := &reception{message: message, done: make(chan struct{})}
	go func() {
		defer close(f.done)
		defer f.capture()
		f.set(receive(f.message))
	}()
	return f
}

// failure returns the error of the reception, which must be done, or nil if the stream has ended
// with OK. A panic or Goexit continues.
func (f *reception) failure() error {
	if err := f.get(); err != io.EOF {
		return err
	}
	return nil
}

// An outcome is how a function ended that ran on a goroutine of its own. The zero outcome is that of
// runtime.Goexit.
type outcome struct {
	err      error
	returned bool
	panicked *resilience.PanicError
}

// set records what the function returned.
func (o *outcome) set(err error) { o.err, o.returned = err, true }

// capture recovers from a panic of the function. It must be deferred.
func (o *outcome) capture() {
	if o.returned {
		return
	}
	if value := recover(); value != nil {
		o.panicked = detached.PanicError(value)
	}
}

// get returns the error of the function. If it panicked or called Goexit, get does the same.
func (o *outcome) get() error {
	switch {
	case o.panicked != nil:
		panic(o.panicked)
	case !o.returned:
		runtime.Goexit()
	}
	return o.err
}

// SendMsg sends the request, and returns when an attempt has sent it.
func (r *requestStream) SendMsg(m any) error {
	if a := r.stream.Load(); a != nil {
		return a.inner.SendMsg(m)
	}
	again := false
	r.update(func() {
		if again = r.state != awaited; again {
			r.wantsHeader = true
		} else {
			r.request, r.state = m, given
		}
	})
	if again { // gRPC ends an established stream with an error
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
	unsent := r.done && !r.sent && (!r.outcome.returned || r.last != nil && r.last.sendFailed)
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
	var established *streamAttempt // meanwhile
	r.update(func() {
		if established = r.stream.Load(); established == nil && r.state == awaited {
			r.state = omitted
		}
	})
	if established != nil {
		return established.inner.CloseSend()
	}
	return nil
}

// RecvMsg receives a message. The first one, or the end, establishes the stream.
func (r *requestStream) RecvMsg(m any) error {
	a := r.stream.Load()
	if a == nil {
		r.update(func() { r.message, r.wantsMessage = m, true })
		a = r.established()
		r.mu.Lock()
		r.message, r.wantsMessage = nil, false
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
	err := first.get()
	if err == nil && a.forked {
		replace(m, first.message)
	}
	return err
}

// Header returns the response headers. It establishes the stream when they arrive. If there are none,
// RecvMsg returns the error.
func (r *requestStream) Header() (metadata.MD, error) {
	if r.stream.Load() == nil {
		r.update(func() { r.wantsHeader = true })
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
