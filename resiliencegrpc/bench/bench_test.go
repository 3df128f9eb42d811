// Package bench compares resiliencegrpc with other ways to make gRPC calls again, and tests it
// together with otelgrpc. It is a module of its own, so that users of resiliencegrpc don't depend on
// these libraries.
package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/failsafegrpc"
	failsafetimeout "github.com/failsafe-go/failsafe-go/timeout"
	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/retry"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/resiliencegrpc"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

type service struct {
	testpb.UnimplementedTestServiceServer
	empty  func(ctx context.Context) error
	output func(stream testpb.TestService_StreamingOutputCallServer) error
}

func (s *service) EmptyCall(ctx context.Context, _ *testpb.Empty) (*testpb.Empty, error) {
	return &testpb.Empty{}, s.empty(ctx)
}

func (s *service) StreamingOutputCall(_ *testpb.StreamingOutputCallRequest, stream testpb.TestService_StreamingOutputCallServer) error {
	return s.output(stream)
}

// connect serves s on loopback and connects to it, until the test ends.
func connect(t testing.TB, s *service, serverOptions []grpc.ServerOption, opts ...grpc.DialOption) testpb.TestServiceClient {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(serverOptions...)
	testpb.RegisterTestServiceServer(server, s)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient(listener.Addr().String(), append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return testpb.NewTestServiceClient(conn)
}

// serviceConfig makes up to four attempts, as the service config of a name resolver would.
const serviceConfig = `{"methodConfig":[{"name":[{}],"retryPolicy":{"maxAttempts":4,"initialBackoff":"0.001s",
	"maxBackoff":"0.001s","backoffMultiplier":1,"retryableStatusCodes":["UNAVAILABLE"]}}]}`

// Each way makes up to three attempts, except for gRPC's own retries, which make four.
var ways = []struct {
	name    string
	options func() []grpc.DialOption
}{
	{"resiliencegrpc", func() []grpc.DialOption {
		return resiliencegrpc.DialOptions(resiliencegrpc.Config{
			Repeatable: func(string) bool { return true },
			Policies: func(string) resilience.Policy {
				return retry.New(retry.Config{Backoff: retry.Constant(time.Millisecond)})
			},
		})
	}},
	{"failsafegrpc", func() []grpc.DialOption {
		policy := failsafegrpc.NewRetryPolicyBuilder[any]().WithDelay(time.Millisecond).Build()
		return []grpc.DialOption{grpc.WithUnaryInterceptor(failsafegrpc.NewUnaryClientInterceptor[any](policy))}
	}},
	{"go-grpc-middleware", func() []grpc.DialOption {
		options := []middleware.CallOption{middleware.WithMax(3), middleware.WithBackoff(middleware.BackoffLinear(time.Millisecond)), middleware.WithCodes(codes.Unavailable)}
		return []grpc.DialOption{
			grpc.WithUnaryInterceptor(middleware.UnaryClientInterceptor(options...)),
			grpc.WithStreamInterceptor(middleware.StreamClientInterceptor(options...)),
		}
	}},
	{"service config", func() []grpc.DialOption { return nil }},
}

// TestPeersBehavior records how often each way calls a server that says stop, how often one that is
// down while the service config has retries too, and what it delivers of a stream that breaks after
// its second message. It fails if resiliencegrpc deviates; the others are logged.
func TestPeersBehavior(t *testing.T) {
	for _, way := range ways {
		withConfig := append(way.options(), grpc.WithDefaultServiceConfig(serviceConfig))

		var stopped atomic.Int32
		client := connect(t, &service{empty: func(ctx context.Context) error {
			stopped.Add(1)
			grpc.SetTrailer(ctx, metadata.Pairs("grpc-retry-pushback-ms", "-1"))
			return status.Error(codes.Unavailable, "stop")
		}}, nil, withConfig...)
		client.EmptyCall(t.Context(), &testpb.Empty{})

		var calls atomic.Int32
		client = connect(t, &service{empty: func(ctx context.Context) error {
			calls.Add(1)
			return status.Error(codes.Unavailable, "down")
		}}, nil, withConfig...)
		client.EmptyCall(t.Context(), &testpb.Empty{})

		var streams atomic.Int32
		client = connect(t, &service{output: func(stream testpb.TestService_StreamingOutputCallServer) error {
			first := streams.Add(1) == 1
			for i := range 3 {
				if first && i == 2 {
					return status.Error(codes.Unavailable, "broken")
				}
				stream.Send(&testpb.StreamingOutputCallResponse{Payload: &testpb.Payload{Body: []byte(fmt.Sprint(i + 1))}})
			}
			return nil
		}}, nil, withConfig...)
		var got []string
		stream, err := client.StreamingOutputCall(t.Context(), &testpb.StreamingOutputCallRequest{})
		for err == nil {
			var m *testpb.StreamingOutputCallResponse
			if m, err = stream.Recv(); err == nil {
				got = append(got, string(m.GetPayload().GetBody()))
			}
		}
		if err == io.EOF {
			err = nil
		}
		t.Logf("%-18s calls of a server that says stop: %d; of one that is down: %d; messages of a broken stream: %v, then %v",
			way.name, stopped.Load(), calls.Load(), got, err)
		if way.name == "resiliencegrpc" && (stopped.Load() != 1 || calls.Load() != 3 || !slices.Equal(got, []string{"1", "2"}) || status.Code(err) != codes.Unavailable) {
			t.Errorf("%s: got %d, %d, %v, %v, want 1, 3, [1 2], Unavailable", way.name, stopped.Load(), calls.Load(), got, err)
		}
	}
}

// BenchmarkPeers compares a call that succeeds, in turns, so that all ways see the same load of the
// machine. It reports each median and how much longer it is than that of a bare call.
func BenchmarkPeers(b *testing.B) {
	s := &service{empty: func(context.Context) error { return nil }}
	pipeline := resiliencegrpc.DialOptions(resiliencegrpc.Config{Policies: func(key string) resilience.Policy {
		return resilience.Pipeline{timeout.After(2 * time.Second), retry.New(retry.Config{}), breaker.New(breaker.Config{Name: key}), timeout.After(500 * time.Millisecond)}
	}})
	failsafe := grpc.WithUnaryInterceptor(failsafegrpc.NewUnaryClientInterceptor[any](
		failsafetimeout.New[any](2*time.Second), failsafegrpc.NewRetryPolicyBuilder[any]().Build(),
		circuitbreaker.NewBuilder[any]().Build(), failsafetimeout.New[any](500*time.Millisecond)))
	sides := []struct {
		name   string
		client testpb.TestServiceClient
	}{
		{"bare", connect(b, s, nil, grpc.WithDisableRetry())},
		{"resiliencegrpc", connect(b, s, nil, pipeline...)},
		{"failsafegrpc", connect(b, s, nil, failsafe)},
		{"go-grpc-middleware", connect(b, s, nil, ways[2].options()...)},
		{"service-config", connect(b, s, nil, grpc.WithDefaultServiceConfig(serviceConfig))},
	}
	times := make([][]time.Duration, len(sides))
	in := &testpb.Empty{}
	call := func(i int) {
		ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
		defer cancel()
		if _, err := sides[i].client.EmptyCall(ctx, in); err != nil {
			b.Fatal(err)
		}
	}
	for i := range sides {
		call(i) // connects
	}
	for b.Loop() {
		for i := range sides {
			begun := time.Now()
			call(i)
			times[i] = append(times[i], time.Since(begun))
		}
	}
	medians := make([]float64, len(sides))
	for i := range sides {
		slices.Sort(times[i])
		medians[i] = float64(times[i][len(times[i])/2])
		b.ReportMetric(medians[i], "ns/"+sides[i].name)
		b.ReportMetric(testing.AllocsPerRun(100, func() { call(i) }), "allocs/"+sides[i].name)
	}
}
