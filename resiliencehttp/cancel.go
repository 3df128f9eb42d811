package resiliencehttp

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"
)

// requestContext returns the request's context as the policies see it, and a function that releases
// it when the call has returned.
func requestContext(req *http.Request) (ctx context.Context, end func()) {
	//lint:ignore SA1019 deprecated, but http.Client.Timeout sets it for transports other than net/http's own
	channel := req.Cancel
	if channel == nil {
		return req.Context(), func() {}
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	return &cancelContext{Context: ctx, cancel: cancel, channel: channel}, func() { cancel(nil) }
}

var errCancelClosed = errors.New("resiliencehttp: Request.Cancel was closed")

// A cancelContext ends with its parent context or when the channel is closed. Err checks the
// channel itself, so that a policy that calls it after an attempt sees the cancellation without
// delay. A goroutine waits for the channel only once Done has been called.
type cancelContext struct {
	context.Context // cancel cancels it
	cancel          context.CancelCauseFunc
	channel         <-chan struct{}
	watch           sync.Once
}

func (c *cancelContext) Done() <-chan struct{} {
	c.watch.Do(func() {
		go func() {
			select {
			case <-c.channel:
				c.check()
			case <-c.Context.Done():
			}
		}()
	})
	return c.Context.Done()
}

func (c *cancelContext) Err() error {
	c.check()
	return c.Context.Err()
}

// check cancels the context if the channel is closed. Client.Timeout closes the channel at the
// context's deadline. In this case the context ends at the same instant by itself, and it must end
// with DeadlineExceeded, which policies treat differently from a caller that canceled.
func (c *cancelContext) check() {
	select {
	case <-c.channel:
		if deadline, ok := c.Deadline(); !ok || time.Until(deadline) > 0 {
			c.cancel(errCancelClosed)
		}
	default:
	}
}
