package resiliencegrpc_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/hedge"
	"github.com/effector-go/resilience/resiliencegrpc"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// TestOutageLeavesNothing runs 200 concurrent clients against a server that goes down and comes back
// twice, over TCP. Every call ends with a status, every stream delivers each of its messages once and
// in order, and no goroutine and no stream is left. Run it with -race.
func TestOutageLeavesNothing(t *testing.T) {
	before := grpcGoroutines()
	var open atomic.Int32
	s := &service{
		empty: func(ctx context.Context) error { return ctx.Err() },
		output: func(in *outputRequest, stream outputStream) error {
			open.Add(1)
			defer open.Add(-1)
			for i := range 10 {
				if err := stream.Send(body(fmt.Sprint(i))); err != nil {
					return err
				}
			}
			return nil
		},
		duplex: func(stream testpb.TestService_FullDuplexCallServer) error {
			open.Add(1)
			defer open.Add(-1)
			for {
				if _, err := stream.Recv(); err == io.EOF {
					return nil
				} else if err != nil {
					return err
				}
				if err := stream.Send(body("echo")); err != nil {
					return err
				}
			}
		},
	}
	guard := resiliencegrpc.ServerOptions(resiliencegrpc.ServerConfig{Policy: timeout.New(timeout.Config{Limit: ample, Abandon: 1000})})
	var address atomic.Value // a string: each server has a port of its own, as others may take one that is free
	serve := func() *grpc.Server {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server := grpc.NewServer(guard...)
		testpb.RegisterTestServiceServer(server, s)
		go server.Serve(listener)
		address.Store(listener.Addr().String())
		return server
	}
	dialer := grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", address.Load().(string))
	})
	server := serve()
	dialed := make([]*grpc.ClientConn, 4)
	for i := range dialed {
		dialed[i] = dial(t, "passthrough:///outage", everyRepeatable(
			timeout.After(ample),
			retry.New(retry.Config{Backoff: retry.FullJitter(time.Millisecond, 10*time.Millisecond)}),
			breaker.New(breaker.Config{Name: fmt.Sprint(i), Consecutive: 20, OpenFor: 10 * time.Millisecond, MaxOpenFor: 20 * time.Millisecond}),
			hedge.New(hedge.Config{Delay: 5 * time.Millisecond, Budget: plenty()}),
			timeout.After(ample)), dialer)
	}
	var calls, failures atomic.Int64
	var done atomic.Bool
	defer done.Store(true) // also if the test fails
	var clients errgroup.Group
	for i := range 200 {
		client := testpb.NewTestServiceClient(dialed[i%len(dialed)])
		clients.Go(func() error {
			for n := 0; !done.Load(); n++ {
				calls.Add(1)
				ctx, cancel := context.WithCancel(t.Context())
				err := useOnce(ctx, client, n+i)
				cancel()
				switch status.Code(err) {
				case codes.OK:
				case codes.Unavailable, codes.Canceled:
					failures.Add(1)
				default:
					return fmt.Errorf("client %d, call %d: %w", i, n, err)
				}
			}
			return nil
		})
	}
	for range 2 {
		waitFor(&calls, calls.Load()+1000)
		server.Stop()
		waitFor(&failures, failures.Load()+100)
		server = serve()
	}
	waitFor(&calls, calls.Load()+1000)
	done.Store(true)
	if err := clients.Wait(); err != nil {
		t.Error(err)
	}
	for _, conn := range dialed {
		conn.Close()
	}
	server.Stop()
	for range 1000 { // abandoned handlers and gRPC's own goroutines end a little later
		if open.Load() == 0 && grpcGoroutines() <= before {
			return
		}
		time.Sleep(time.Millisecond)
	}
	buffer := make([]byte, 1<<20)
	t.Errorf("got %d open streams and %d goroutines, want 0 and %d\n%s", open.Load(), grpcGoroutines(), before, buffer[:runtime.Stack(buffer, true)])
}

// useOnce makes one call, and checks what it receives.
func useOnce(ctx context.Context, client testpb.TestServiceClient, n int) error {
	switch n % 4 {
	case 0:
		_, err := client.EmptyCall(ctx, &testpb.Empty{})
		return err
	case 1, 2:
		stream, err := client.StreamingOutputCall(ctx, &outputRequest{})
		if err != nil {
			return err
		}
		for i := 0; ; i++ {
			m, err := stream.Recv()
			switch {
			case err == io.EOF && i == 10:
				return nil
			case err == io.EOF:
				return status.Errorf(codes.DataLoss, "got %d messages, want 10", i)
			case err != nil:
				return err
			case string(m.GetPayload().GetBody()) != fmt.Sprint(i):
				return status.Errorf(codes.DataLoss, "got %s, want message %d", m.GetPayload().GetBody(), i)
			case n%4 == 2:
				return nil // and leaves the stream to its context
			}
		}
	}
	stream, err := client.FullDuplexCall(ctx)
	if err != nil {
		return err
	}
	for range 3 {
		if err := stream.Send(&outputRequest{}); err != nil && err != io.EOF {
			return err
		}
		if _, err := stream.Recv(); err != nil {
			return err
		}
	}
	stream.CloseSend()
	if _, err := stream.Recv(); err != io.EOF {
		return err
	}
	return nil
}

// waitFor waits until the counter has reached n.
func waitFor(counter *atomic.Int64, n int64) {
	for counter.Load() < n {
		time.Sleep(time.Millisecond)
	}
}

// grpcGoroutines returns the number of goroutines that run code of gRPC or of this module.
func grpcGoroutines() (n int) {
	buffer := make([]byte, 16<<20)
	for _, stack := range strings.Split(string(buffer[:runtime.Stack(buffer, true)]), "\n\n") {
		if strings.Contains(stack, "google.golang.org/grpc") {
			n++
		}
	}
	return n
}

// A slow reader isn't punished: it receives all messages, however long it takes, while the limit
// passes again and again.
func TestStreamSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, stop := inMemory(t, &service{output: func(_ *outputRequest, stream outputStream) error {
			for range 100 {
				if err := stream.Send(body(strings.Repeat("x", 10_000))); err != nil { // blocks: the window is full
					return err
				}
			}
			return nil
		}}, everyRepeatable(retries(), timeout.After(time.Second)))
		defer stop()
		stream, err := client.StreamingOutputCall(t.Context(), &outputRequest{})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for ; ; n++ {
			time.Sleep(time.Minute)
			if _, err = stream.Recv(); err != nil {
				break
			}
		}
		if err != io.EOF || n != 100 {
			t.Errorf("got %d messages and %v, want 100 and EOF", n, err)
		}
	})
}
