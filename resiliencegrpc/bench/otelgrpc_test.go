package bench

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/observe"
	"github.com/effector-go/resilience/resiliencegrpc"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// signaling is a recorder that signals the end of each span.
type signaling struct {
	*tracetest.SpanRecorder
	ended chan struct{}
}

func (s *signaling) OnEnd(span sdktrace.ReadOnlySpan) {
	s.SpanRecorder.OnEnd(span)
	s.ended <- struct{}{}
}

// TestOtelgrpcSeesAttempts checks that with otelgrpc's stats handlers on both sides, in either order
// with the policies' options, each attempt has a span of its own on the client, a child of the caller's
// span, and one on the server, a child of the attempt's. An observed pipeline counts the same attempts.
func TestOtelgrpcSeesAttempts(t *testing.T) {
	for _, order := range []string{"before", "after"} {
		recorder := &signaling{tracetest.NewSpanRecorder(), make(chan struct{}, 100)}
		provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
		options := []otelgrpc.Option{otelgrpc.WithTracerProvider(provider), otelgrpc.WithPropagators(propagation.TraceContext{})}
		obs := observe.New(observe.Config{})
		policies := resiliencegrpc.DialOptions(resiliencegrpc.Config{
			Repeatable: func(string) bool { return true },
			Policies: func(key string) resilience.Policy {
				return obs.Pipeline("client", retry.New(retry.Config{Backoff: retry.Constant(time.Millisecond)}),
					breaker.New(breaker.Config{Name: key}), timeout.After(time.Minute))
			},
		})
		handler := grpc.WithStatsHandler(otelgrpc.NewClientHandler(options...))
		dial := append([]grpc.DialOption{handler}, policies...)
		if order == "after" {
			dial = append(policies, handler)
		}
		var calls, streams atomic.Int32
		fail := func(n *atomic.Int32) error {
			if n.Add(1) < 3 {
				return status.Error(codes.Unavailable, "overloaded")
			}
			return nil
		}
		server := append(resiliencegrpc.ServerOptions(resiliencegrpc.ServerConfig{Policy: breaker.New(breaker.Config{})}),
			grpc.StatsHandler(otelgrpc.NewServerHandler(options...)))
		client := connect(t, &service{
			empty:  func(context.Context) error { return fail(&calls) },
			output: func(testpb.TestService_StreamingOutputCallServer) error { return fail(&streams) },
		}, server, dial...)

		ctx, span := provider.Tracer("test").Start(t.Context(), "caller")
		if _, err := client.EmptyCall(ctx, &testpb.Empty{}); err != nil {
			t.Fatal(err)
		}
		stream, err := client.StreamingOutputCall(ctx, &testpb.StreamingOutputCallRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, err = stream.Recv()
		}
		span.End()
		for range 1 + 6 + 6 { // the caller's span, the attempts', and the server's, which end a little later
			<-recorder.ended
		}
		ended := recorder.Ended()
		attempts := map[string]bool{}
		for _, s := range ended {
			if s.SpanKind().String() == "client" {
				attempts[s.SpanContext().SpanID().String()] = true
				if s.Parent().SpanID() != span.SpanContext().SpanID() {
					t.Errorf("%s: the span of an attempt is no child of the caller's span", order)
				}
			}
		}
		servers := 0
		for _, s := range ended {
			if s.SpanKind().String() == "server" {
				servers++
				if !attempts[s.Parent().SpanID().String()] || !strings.HasPrefix(s.Name(), "grpc.testing.TestService/") {
					t.Errorf("%s: the server's span %s is no child of an attempt's", order, s.Name())
				}
			}
		}
		counted := obs.Snapshot().Pipelines[0].Attempts
		if len(attempts) != 6 || servers != 6 || counted != 6 {
			t.Errorf("%s: got %d client spans, %d server spans, and %d attempts, want 6 of each", order, len(attempts), servers, counted)
		}
	}
}
