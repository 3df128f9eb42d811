package resiliencehttp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/ctxkey"
)

// drainTime is how long a dropped body may take to its end, so that its connection can be used again.
const drainTime = 100 * time.Millisecond

// attempt sends the request once. Its ctx is the policies'.
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
			err = resilience.ContextErr(ctx) // it ended in the instant in which the headers came
		} else if x.transport.config.Failed(response) {
			x.fail(a)
			err = a.failure
		}
	case response != nil && response.Body != nil:
		response.Body.Close()
	}
	if a.failure == nil && err != nil {
		a.giveUp()
		if a.conn.none() {
			err = x.notMade(err)
		}
		a = nil
	}
	returned = true
	return a, err
}

// watch gives the ctx for Base, which ends with the policies' ctx too, until unwatch.
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

// unwatch lets Base's ctx live on when the policies' ctx ends, and reports whether it had not ended.
func (a *answer) unwatch() bool {
	switch {
	case a.stop != nil:
		return a.stop()
	case a.timer != nil:
		return a.timer.Stop()
	}
	return true
}

// release ends Base's ctx.
func (a *answer) release() {
	if a.cancel != nil {
		a.cancel(nil)
	}
}

// giveUp ends everything of an attempt that gave no answer.
func (a *answer) giveUp() {
	a.unwatch()
	a.release()
	a.drop()
}

// take gives the number of the attempt that begins, and its body: the request's own for the first, else a new one.
func (x *exchange) take() (number int, body io.ReadCloser, err error) {
	x.mu.Lock()
	x.starts++
	number = x.starts
	x.mu.Unlock()
	body = x.request.Body
	if number == 1 || body == nil || body == http.NoBody {
		return number, body, nil
	}
	if x.request.GetBody == nil {
		return 0, nil, errors.New("resiliencehttp: a policy sent a request again whose body cannot be replayed: it has no GetBody")
	}
	if body, err = x.request.GetBody(); err != nil {
		return 0, nil, fmt.Errorf("resiliencehttp: GetBody for attempt %d: %w", number, err)
	}
	return number, body, nil
}

// copyFor gives the copy of the request that Base gets.
func (x *exchange) copyFor(ctx, sent context.Context, a *answer, body io.ReadCloser) *http.Request {
	if x.once && x.replayable() && !x.unguarded { // else nobody asks whether it was sent
		sent = a.conn.attach(sent)
	}
	req := x.request.WithContext(sent)
	req.Body = body
	name := x.transport.config.DeadlineHeader
	deadline, limited := ctx.Deadline()
	tell := name != "" && limited
	if tell || a.number > 1 {
		req.Header = req.Header.Clone()
	}
	if tell {
		if req.Header == nil {
			req.Header = make(http.Header)
		}
		req.Header.Set(name, strconv.FormatInt(max(1, time.Until(deadline).Milliseconds()), 10))
	}
	return req
}

// connTrace hears what became of the connection for a request.
type connTrace struct{ asked, got atomic.Bool }

func (t *connTrace) attach(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { t.asked.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { t.got.Store(true) },
	})
}

// none reports whether a connection was asked for and not got: then the request has not been sent. A Base that calls no hooks
// proves nothing.
func (t *connTrace) none() bool { return t.asked.Load() && !t.got.Load() }

// notMade marks the error of an attempt whose request was not sent.
func (x *exchange) notMade(err error) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.unmade, x.unmarks = resilience.NotMade(err), err
	return x.unmade
}

// fail notes that a's response has failed.
func (x *exchange) fail(a *answer) {
	a.failure = newStatusError(x.request, a.response)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.failed = append(x.failed, a)
}

// A baseContext ends with the request's own ctx and has its deadline, and the values of the policies' ctx, such as the number
// of an attempt or a trace span.
type baseContext struct {
	context.Context // the request's
	policies        context.Context
}

func (c *baseContext) Value(key any) any {
	switch {
	case key == repeatKey{}:
		return nil // it was said for this request, not for what Base sends in turn
	case key == ctxkey.Cancel && key != nil:
		return c.Context.Value(key) // the end is the request's
	}
	return c.policies.Value(key)
}

// An answer is a response and what it holds.
type answer struct {
	exchange *exchange
	number   int // of the attempt
	conn     connTrace

	// What ends Base's ctx, all nil if nothing but the request's own ctx does.
	cancel context.CancelCauseFunc
	timer  *time.Timer // one of these two watches the policies' ctx
	stop   func() bool

	response *http.Response
	failure  *StatusError  // nil if the response has not failed
	body     io.ReadCloser // nil if there is nothing to read
	closing  sync.Once
	closed   error // by closing
}

// hold makes the response a's, and its body one that ends ctx with itself.
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

// drop reads some of the body, if there is one, and closes it. A nil answer has none.
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
	default: // a later attempt runs on this goroutine perhaps, under a limit of its own
		go a.drain()
	}
}

func (a *answer) drain() {
	defer a.close()
	limit := a.exchange.transport.config.DrainLimit
	if _, upgraded := a.body.(io.Writer); upgraded || a.response.ContentLength > limit {
		return
	}
	// Either is enough for a Read of net/http's to return; another's may heed one of them only.
	timer := time.AfterFunc(drainTime, func() {
		a.release()
		a.close()
	})
	defer timer.Stop()
	io.CopyN(io.Discard, a.body, limit)
}

// close closes the body, once, and then ends ctx.
func (a *answer) close() error {
	a.closing.Do(func() {
		a.closed = a.body.Close()
		a.release()
	})
	return a.closed
}

// answerBody is a response's body as the caller gets it.
type answerBody answer

func (b *answerBody) Read(p []byte) (n int, err error) {
	n, err = b.body.Read(p)
	if err != nil {
		(*answer)(b).release()
	}
	return n, err
}

func (b *answerBody) Close() error { return (*answer)(b).close() }

// upgraded gives the body of a response that switched protocols: a connection, which lives until it is closed.
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
