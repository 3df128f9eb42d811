package resiliencehttp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/ctxkey"
)

// drainTime is how long a dropped body is read for, so that its connection can be reused.
const drainTime = 100 * time.Millisecond

// attempt sends the request once. ctx is the policies' context.
func (x *exchange) attempt(ctx context.Context) (*answer, error) {
	number, body, err := x.take()
	if err != nil {
		return nil, err
	}
	a := &answer{exchange: x, number: number}
	sent := a.watch(ctx)
	returned := false
	defer func() {
		if !returned { // Base or Failed panics
			a.giveUp()
		}
	}()
	response, err := x.transport.config.Base.RoundTrip(x.copyFor(ctx, sent, a, body))
	switch {
	case response == nil && err == nil:
		err = fmt.Errorf("resiliencehttp: Base (%T) returned neither a response nor an error", x.transport.config.Base)
	case err == nil:
		a.hold(response)
		if !a.unwatch() {
			err = resilience.ContextErr(ctx) // it ended as the headers arrived
		} else if x.transport.config.Failed(response) {
			x.fail(a)
			err = x.blameStatus(a)
		}
	case response != nil && response.Body != nil:
		response.Body.Close()
	}
	if a.failure == nil && err != nil {
		a.giveUp()
		err = x.blame(a, err)
		a = nil
	}
	returned = true
	return a, err
}

// watch returns the context for Base. Until unwatch is called, the end of the policies' context
// cancels it too.
func (a *answer) watch(ctx context.Context) context.Context {
	own := a.exchange.ctx
	sent := &baseContext{a.exchange.request.Context(), ctx} // Base looks at Request.Cancel itself
	left, limited := ctxkey.Unlimited(ctx, own)
	ends := left != own && left.Done() != own.Done()
	if !limited && !ends {
		return sent
	}
	cancelable, cancel := context.WithCancelCause(sent)
	a.cancel = cancel
	if ends {
		a.stop = context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	} else {
		deadline, _ := ctx.Deadline()
		a.timer = time.AfterFunc(time.Until(deadline), func() { cancel(context.DeadlineExceeded) })
	}
	return cancelable
}

// unwatch detaches Base's context from the policies' context, and reports whether it did so before
// the policies' context ended.
func (a *answer) unwatch() bool {
	switch {
	case a.stop != nil:
		return a.stop()
	case a.timer != nil:
		return a.timer.Stop()
	}
	return true
}

// release cancels Base's context.
func (a *answer) release() {
	if a.cancel != nil {
		a.cancel(nil)
	}
}

// giveUp releases everything that an attempt without an answer holds.
func (a *answer) giveUp() {
	a.unwatch()
	a.release()
	a.drop()
}

// take returns the number of the attempt that begins and its body: the request's own for the first
// attempt, a new one from GetBody for the others.
func (x *exchange) take() (number int, body io.ReadCloser, err error) {
	x.mu.Lock()
	x.starts++
	number = x.starts
	body, x.nextBody = x.nextBody, nil
	err, last := x.getBodyErr, x.lastErr
	x.mu.Unlock()
	switch own := x.request.Body; {
	case body != nil:
		return number, body, nil
	case number == 1 || own == nil || own == http.NoBody:
		return number, own, nil
	case x.request.GetBody == nil:
		err = errors.New("resiliencehttp: a policy repeated a request whose body cannot be replayed: it has no GetBody")
		return 0, nil, x.mark(resilience.CallerFault(err), err)
	}
	if err == nil {
		body, err = x.request.GetBody()
	}
	if err != nil {
		x.mu.Lock()
		x.getBodyErr = err
		x.mu.Unlock()
		err = &getBodyError{number, err, last}
		return 0, nil, x.mark(resilience.CallerFault(err), err)
	}
	return number, body, nil
}

// needsBody reports whether another attempt may follow a failed response, and needs a body.
func (x *exchange) needsBody(notServed bool) bool {
	body := x.request.Body
	return body != nil && body != http.NoBody && x.request.GetBody != nil && !x.noPolicies && (notServed || !x.atMostOnce)
}

// fetchBody gets the body for the next attempt, unless there is one already. It reports whether
// GetBody has failed. It is called while the failed response is still open: if no attempt can follow,
// the caller receives that response.
func (x *exchange) fetchBody() bool {
	x.mu.Lock()
	have, failed := x.nextBody != nil || x.ended, x.getBodyErr != nil
	x.mu.Unlock()
	if have || failed {
		return !failed
	}
	body, err := x.request.GetBody()
	x.mu.Lock()
	unneeded := body
	if err != nil {
		x.getBodyErr, unneeded = err, nil
	} else if x.nextBody == nil && !x.ended {
		x.nextBody, unneeded = body, nil
	}
	x.mu.Unlock()
	if unneeded != nil {
		unneeded.Close()
	}
	return err == nil
}

// copyFor returns the copy of the request that is passed to Base.
func (x *exchange) copyFor(ctx, sent context.Context, a *answer, body io.ReadCloser) *http.Request {
	if x.marksNotMade() {
		sent = a.conn.attach(sent)
	}
	req := x.request.WithContext(sent)
	req.Header = req.Header.Clone() // Bases and their hooks add headers, though they must not
	req.Body = a.watchBody(body)
	if body != nil && req.GetBody != nil {
		req.GetBody = a.watchGetBody(req.GetBody)
	}
	name := x.transport.config.DeadlineHeader
	deadline, limited := ctx.Deadline()
	if name != "" && limited {
		if req.Header == nil {
			req.Header = make(http.Header)
		}
		req.Header.Set(name, strconv.FormatInt(max(1, time.Until(deadline).Milliseconds()), 10))
	}
	return req
}

// marksNotMade reports whether errors are marked as NotMade. It is only necessary under AtMostOnce,
// and wrong if the body cannot be replayed, because Base has closed it.
func (x *exchange) marksNotMade() bool { return x.atMostOnce && x.replayable() && !x.noPolicies }

// connTrace records whether a connection was requested and obtained for an attempt.
type connTrace struct{ asked, got atomic.Bool }

func (t *connTrace) attach(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { t.asked.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { t.got.Store(true) },
	})
}

// neverConnected reports whether a connection was requested and none was obtained: then the request
// was not sent. A Base that doesn't call the hooks proves nothing.
func (t *connTrace) neverConnected() bool { return t.asked.Load() && !t.got.Load() }

// fail records that a's response is a failure.
func (x *exchange) fail(a *answer) {
	a.failure = newStatusError(x.request, a.response)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.failed = append(x.failed, a)
}

// A baseContext has the cancellation and the deadline of the request's own context, and the values
// of the policies' context, such as an attempt number or a trace span.
type baseContext struct {
	context.Context // the request's
	policies        context.Context
}

func (c *baseContext) Value(key any) any {
	switch {
	case key == repeatKey{}:
		return nil // AllowRepeat applies to this request, not to requests that Base sends for it
	case key == ctxkey.Cancel && key != nil:
		return c.Context.Value(key) // cancellation comes from the request
	}
	return c.policies.Value(key)
}

// An answer is a response with the resources that it holds.
type answer struct {
	exchange *exchange
	number   int // the attempt's
	conn     connTrace

	// The exchange's mu guards these: Base may get another body from GetBody.
	sent       []*sentBody
	file       *os.File // the body, if it isn't watched
	getBodyErr error

	// All three are nil if only the request's own context ends Base's context.
	cancel context.CancelCauseFunc
	timer  *time.Timer // timer or stop watches the policies' context
	stop   func() bool

	response *http.Response
	failure  *StatusError  // nil if the response is not a failure
	body     io.ReadCloser // nil if there is nothing to read
	closing  sync.Once
	closed   error // what Close returned; written within closing
}

// hold stores the response in a and wraps its body, so that the end of the body releases Base's
// context.
func (a *answer) hold(response *http.Response) {
	a.response = response
	switch body := response.Body.(type) {
	case nil:
		a.release()
	case io.Writer: // 101 Switching Protocols
		a.body = response.Body
		response.Body = upgraded(a, body)
	default:
		if response.Body == http.NoBody {
			a.release()
			return
		}
		a.body = body
		response.Body = (*answerBody)(a)
	}
}

// drop drains the body within limits and closes it. a may be nil.
func (a *answer) drop() {
	if a == nil || a.response == nil {
		return
	}
	x := a.exchange
	x.mu.Lock()
	x.failed = slices.DeleteFunc(x.failed, func(failed *answer) bool { return failed == a })
	latest := a.number == x.starts
	x.mu.Unlock()
	switch {
	case a.body == nil:
	case latest:
		a.drain()
	default: // a later attempt may be running on this goroutine, under its own timeout
		go a.drain()
	}
}

func (a *answer) drain() {
	defer a.close()
	limit := a.exchange.transport.config.DrainLimit
	if _, upgraded := a.body.(io.Writer); upgraded || a.response.ContentLength > limit {
		return
	}
	// Each of the two ends a Read of net/http's body. Another Base's body may react to only one.
	timer := time.AfterFunc(drainTime, func() {
		a.release()
		a.close()
	})
	defer timer.Stop()
	io.CopyN(io.Discard, a.body, limit)
}

// close closes the body, once, and then releases Base's context.
func (a *answer) close() error {
	a.closing.Do(func() {
		a.closed = a.body.Close()
		a.release()
	})
	return a.closed
}

// answerBody is the response body that the caller receives.
type answerBody answer

func (b *answerBody) Read(p []byte) (n int, err error) {
	n, err = b.body.Read(p)
	if err != nil {
		(*answer)(b).release()
	}
	return n, err
}

func (b *answerBody) Close() error { return (*answer)(b).close() }

// upgraded returns the body of a response that switched protocols: a connection that stays open
// until it is closed.
func upgraded(a *answer, conn io.Writer) io.ReadCloser {
	b := upgradedBody{a, conn}
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		return struct {
			upgradedBody
			closeWriter
		}{b, half}
	}
	return b
}

type closeWriter interface{ CloseWrite() error }

type upgradedBody struct {
	a *answer
	io.Writer
}

func (b upgradedBody) Read(p []byte) (int, error) { return b.a.body.Read(p) }
func (b upgradedBody) Close() error               { return b.a.close() }
