package resiliencegrpc

import (
	"context"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
)

// A trace records what the stats handler observes of an attempt. An inner interceptor may use another
// connection for the attempt; then the trace stays empty.
type trace struct {
	arrived chan struct{} // of a stream: signals that the response has begun or ended

	mu sync.Mutex // guards the following: events come from several goroutines
	facts
}

// facts are what a trace has recorded. A transparent retry is part of the attempt and
// starts over. A call that an inner interceptor repeats doesn't: what the earlier call has sent stays
// sent.
type facts struct {
	begins   int      // calls that have begun, without transparent retries
	headers  bool     // the request's headers were sent
	message  bool     // the message was sent
	unsent   bool     // the message could not be encoded, or is too large
	received bool     // something came from the server
	opened   bool     // the response's headers have arrived
	ended    bool     // the response's trailers have arrived
	pushback []string // values of the trailer with pushbackKey
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

// signal signals arrived. A unary call has no such channel.
func (t *trace) signal() {
	select {
	case t.arrived <- struct{}{}:
	default: // a signal is pending
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

// end recognizes, by the text of err, a message that could not be sent: gRPC has no event for that.
func (t *trace) end(err error) {
	if !t.headers || t.message {
		return
	}
	text := status.Convert(err).Message()
	for _, prefix := range unsentTexts {
		t.unsent = t.unsent || strings.HasPrefix(text, prefix)
	}
}

// unsentTexts are the beginnings of the errors that SendMsg returns after gRPC has opened the stream
// and before it sends the message.
var unsentTexts = [...]string{
	"grpc: error while marshaling",
	"grpc: error while compressing",
	"grpc: message too large",
	"trying to send message larger than max",
}

// seen returns the facts so far.
func (t *trace) seen() facts {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.facts
}

// resetText is the beginning of the error of a stream that the server has reset. gRPC has no event for
// that either.
const resetText = "stream terminated by RST_STREAM"

// neverSent reports whether the attempt began on the connection and sent nothing.
func (f *facts) neverSent() bool { return f.begins > 0 && !f.headers }

// local reports whether the attempt failed before its message was sent, without the server.
func (f *facts) local() bool { return !f.message && !f.received && (!f.headers || f.unsent) }
