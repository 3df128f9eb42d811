package resiliencegrpc

import (
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
)

// A closeCounter is a stream that counts the calls of CloseSend.
type closeCounter struct {
	grpc.ClientStream
	calls atomic.Int32
}

func (c *closeCounter) CloseSend() error {
	c.calls.Add(1)
	return nil
}

// A CloseSend that is called while the stream becomes established reaches the established stream.
func TestStreamPassesCloseSendOn(t *testing.T) {
	for range 50_000 {
		inner := new(closeCounter)
		r := &requestStream{changed: make(chan struct{})}
		var policies outcome
		policies.set(nil)
		var both errgroup.Group
		both.Go(r.CloseSend)
		both.Go(func() error {
			r.finish(&streamAttempt{inner: inner}, policies)
			return nil
		})
		if err := both.Wait(); err != nil {
			t.Fatal(err)
		}
		if got := inner.calls.Load(); got != 1 {
			t.Fatalf("got %d calls of the stream's CloseSend, want 1", got)
		}
	}
}
