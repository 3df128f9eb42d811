package resiliencegrpc_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/bulkhead"
	"github.com/effector-go/resilience/resiliencegrpc"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// A flaky service answers every second call only.
type flaky struct {
	testpb.UnimplementedTestServiceServer
	calls atomic.Int32
}

func (f *flaky) EmptyCall(ctx context.Context, _ *testpb.Empty) (*testpb.Empty, error) {
	if f.calls.Add(1)%2 == 1 {
		grpc.SetTrailer(ctx, metadata.Pairs("grpc-retry-pushback-ms", "5"))
		return nil, status.Error(codes.ResourceExhausted, "busy")
	}
	return &testpb.Empty{}, nil
}

func Example() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	service := new(flaky)
	server := grpc.NewServer(resiliencegrpc.ServerOptions(resiliencegrpc.ServerConfig{
		Policy: resilience.Pipeline{bulkhead.New(bulkhead.Config{Limit: 100}), timeout.After(time.Second)},
	})...)
	testpb.RegisterTestServiceServer(server, service)
	go server.Serve(listener)
	defer server.Stop()

	options := append(resiliencegrpc.DialOptions(resiliencegrpc.Config{
		Policies: func(key string) resilience.Policy {
			return resilience.Pipeline{
				timeout.After(2 * time.Second),
				retry.New(retry.Config{Budget: budget.New(budget.Config{Ratio: 0.1, MinPerSecond: 10})}),
				breaker.New(breaker.Config{Name: key}),
				timeout.After(500 * time.Millisecond),
			}
		},
	}), grpc.WithTransportCredentials(insecure.NewCredentials()))
	conn, err := grpc.NewClient(listener.Addr().String(), options...)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	client := testpb.NewTestServiceClient(conn)

	_, err = client.EmptyCall(context.Background(), &testpb.Empty{})
	fmt.Println("once:", status.Code(err), service.calls.Load())
	service.calls.Store(0)
	_, err = client.EmptyCall(context.Background(), &testpb.Empty{}, resiliencegrpc.AllowRepeat(true))
	fmt.Println("repeated:", status.Code(err), service.calls.Load())
	// Output:
	// once: ResourceExhausted 1
	// repeated: OK 2
}

func ExampleDialOptions() {
	open := breaker.New(breaker.Config{Name: "orders"})
	open.ForceOpen()
	conn, err := grpc.NewClient("passthrough:///orders", append(
		resiliencegrpc.DialOptions(resiliencegrpc.Config{Policies: func(string) resilience.Policy { return open }}),
		grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	_, err = testpb.NewTestServiceClient(conn).EmptyCall(context.Background(), &testpb.Empty{})
	fmt.Println(status.Code(err), errors.Is(err, breaker.ErrOpen))
	fmt.Println(err)
	// Output:
	// Unavailable true
	// breaker orders: forced open
}
