package resiliencehttp

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"
)

// callersContext gives the request's ctx as policies see it, and what releases it when the call has returned.
func callersContext(req *http.Request) (ctx context.Context, end func()) {
	//lint:ignore SA1019 deprecated, but http.Client.Timeout sets it for transports other than net/http's own
	channel := req.Cancel
	if channel == nil {
		return req.Context(), func() {}
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	return &cancelContext{Context: ctx, cancel: cancel, channel: channel}, func() { cancel(nil) }
}

var errCancelClosed = errors.New("resiliencehttp: Request.Cancel was closed")

// A cancelContext ends with the ctx that it was made from, or when the channel is closed. Err looks at the channel itself, so
// that a policy that asks after an attempt is not told of the end too late. A goroutine waits for it only once somebody waits for Done.
type cancelContext struct {
	context.Context // canceled by cancel
	cancel          context.CancelCauseFunc
	channel         <-chan struct{}
	watch           sync.Once
}

func (c *cancelContext) Done() <-chan struct{} {
	c.watch.Do(func() {
		go func() {
			select {
			case <-c.channel:
				c.look()
			case <-c.Context.Done():
			}
		}()
	})
	return c.Context.Done()
}

func (c *cancelContext) Err() error {
	c.look()
	return c.Context.Err()
}

// look ends the ctx if the channel is closed. Client.Timeout closes it at the ctx's deadline: then the ctx ends in this instant
// too, and what ended it is the deadline, which for policies is another thing than a caller who went away.
func (c *cancelContext) look() {
	select {
	case <-c.channel:
		if deadline, ok := c.Deadline(); !ok || time.Until(deadline) > 0 {
			c.cancel(errCancelClosed)
		}
	default:
	}
}
