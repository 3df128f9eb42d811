package resiliencegrpc

import (
	"testing"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
)

// Rule 3: a transparent retry starts over; a call that an inner interceptor repeats doesn't take back
// what was sent.
func TestTraceStartsOverForTransparentRetry(t *testing.T) {
	sent := []stats.RPCStats{
		&stats.Begin{}, &stats.OutHeader{}, &stats.OutPayload{}, &stats.InHeader{},
		&stats.InTrailer{Trailer: metadata.Pairs(pushbackKey, "5")},
	}
	for name, c := range map[string]struct {
		then            []stats.RPCStats
		begins          int
		headers, answer bool
	}{
		"nothing":                 {nil, 1, true, true},
		"transparent":             {[]stats.RPCStats{&stats.Begin{IsTransparentRetryAttempt: true}}, 1, false, false},
		"repeated":                {[]stats.RPCStats{&stats.Begin{}}, 2, true, false},
		"repeated, transparently": {[]stats.RPCStats{&stats.Begin{}, &stats.Begin{IsTransparentRetryAttempt: true}}, 2, true, false},
	} {
		var trace trace
		for _, event := range append(sent[:len(sent):len(sent)], c.then...) {
			trace.add(event)
		}
		got := trace.seen()
		if got.begins != c.begins || got.headers != c.headers || got.message != c.headers {
			t.Errorf("%s: got %d begins, headers %t, message %t, want %d, %t, %t", name, got.begins, got.headers, got.message, c.begins, c.headers, c.headers)
		}
		if got.received != c.answer || got.opened != c.answer || got.ended != c.answer || (got.pushback != nil) != c.answer {
			t.Errorf("%s: got an answer %+v, want one: %t", name, got, c.answer)
		}
		if got.neverSent() == c.headers {
			t.Errorf("%s: got neverSent %t, want %t", name, got.neverSent(), !c.headers)
		}
	}
}
