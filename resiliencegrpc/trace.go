package resiliencegrpc

import (
	"context"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
)

// A trace is what the stats handler has seen of an attempt. An inner interceptor may use another
// connection for the attempt, and then nothing is seen.
type trace struct {
	arrived chan struct{} // of a stream: signals that the response has begun or ended

	mu sync.Mutex // guards the following: events come from several goroutines
	traced
}

// traced are the facts of a trace. A transparent retry is part of the attempt and starts over. A call
// that an inner interceptor repeats doesn't: what the earlier call has sent stays sent.
type traced struct {
	begins   int      // without those of transparent retries
	headers  bool     // the request's headers were sent
	message  bool     // the message was sent
	received bool     // something came from the server
	opened   bool     // the response's headers
	ended    bool     // the trailers
	unsent   bool     // the message could not be encoded, or is too large
	pushback []string // of the trailer
}

// attemptKey is the key of the attempt in its context.
type attemptKey struct{}

// attemptOf returns the attempt that ctx belongs to, or nil.
func attemptOf(ctx context.Context) *attempt {
	a, _ := ctx.Value(attemptKey{}).(*attempt)
	return a
}

// hidden returns ctx without the attempt that it belongs to: a call that bypasses the policies, which
// an interceptor or a credential makes for an attempt, isn't part of that attempt.
func hidden(ctx context.Context) context.Context {
	if attemptOf(ctx) == nil {
		return ctx
	}
	return context.WithValue(ctx, attemptKey{}, (*attempt)(nil))
}

// statsHandler records the events of attempts.
type statsHandler struct{}

func (statsHandler) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (statsHandler) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (statsHandler) HandleConn(context.Context, stats.ConnStats)                       {}

func (statsHandler) HandleRPC(ctx context.Context, event stats.RPCStats) {
	if a := attemptOf(ctx); a != nil {
		a.trace.add(event)
	}
}

func (t *trace) add(event stats.RPCStats) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch event := event.(type) {
	case *stats.Begin:
		t.begin(event.IsTransparentRetryAttempt)
	case *stats.OutHeader:
		t.headers = true
	case *stats.OutPayload:
		t.message = true
	case *stats.InHeader:
		t.received, t.opened = true, true
		t.signal()
	case *stats.InTrailer:
		t.received, t.ended = true, true
		t.pushback = slices.Clone(event.Trailer[pushbackKey])
		t.signal()
	case *stats.End:
		if event.Error != nil {
			t.end(event.Error)
		}
	}
}

func (t *trace) signal() {
	select {
	case t.arrived <- struct{}{}:
	default: // also if nobody waits
	}
}

func (t *trace) begin(transparent bool) {
	if !transparent {
		t.begins++
	}
	t.received, t.opened, t.ended, t.pushback, t.unsent = false, false, false, nil, false
	if transparent && t.begins <= 1 {
		t.headers, t.message = false, false
	}
}

// end recognizes a message that could not be sent: gRPC has no event for that.
func (t *trace) end(err error) {
	if !t.headers || t.message {
		return
	}
	text := status.Convert(err).Message()
	for _, prefix := range unsentTexts {
		t.unsent = t.unsent || strings.HasPrefix(text, prefix)
	}
}

// unsentTexts begin the texts of errors of SendMsg, which gRPC returns after it has opened the stream
// and before it sends the message.
var unsentTexts = [...]string{
	"grpc: error while marshaling",
	"grpc: error while compressing",
	"grpc: message too large",
	"trying to send message larger than max",
}

// seen returns the facts.
func (t *trace) seen() traced {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.traced
}

// resetText begins the text of the error of a stream that the server has reset, for which gRPC has no
// event either.
const resetText = "stream terminated by RST_STREAM"

// neverSent reports whether the attempt began on the connection and sent nothing.
func (t *traced) neverSent() bool { return t.begins > 0 && !t.headers }

// local reports whether the attempt failed before its message was sent, without the server.
func (t *traced) local() bool { return !t.message && !t.received && (!t.headers || t.unsent) }
