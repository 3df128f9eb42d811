package main

import (
	"context"
	"fmt"
	"net"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// faultKey is the metadata that names the fault of a call.
const faultKey = "fault"

// newServer starts a server on loopback.
func newServer() (server *grpc.Server, address string, err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", err
	}
	server = grpc.NewServer()
	testpb.RegisterTestServiceServer(server, &flaky{calls: map[string]int{}})
	go server.Serve(listener)
	return server, listener.Addr().String(), nil
}

// flaky is a service that has the fault that its caller asks for.
type flaky struct {
	testpb.UnimplementedTestServiceServer

	mu    sync.Mutex
	calls map[string]int // by fault
}

// count returns the call's fault and how often it was asked for.
func (f *flaky) count(ctx context.Context) (fault string, n int) {
	if values := metadata.ValueFromIncomingContext(ctx, faultKey); len(values) > 0 {
		fault = values[0]
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls[fault]++
	return fault, f.calls[fault]
}

func (f *flaky) EmptyCall(ctx context.Context, _ *testpb.Empty) (*testpb.Empty, error) {
	switch fault, n := f.count(ctx); fault {
	case "busy":
		if n < 3 {
			grpc.SetTrailer(ctx, metadata.Pairs("grpc-retry-pushback-ms", "300"))
			return nil, status.Error(codes.ResourceExhausted, "busy")
		}
	case "order":
		return nil, status.Errorf(codes.Unavailable, "order %d may have been placed", n)
	case "missing":
		return nil, status.Error(codes.NotFound, "no such user")
	case "overloaded":
		grpc.SetTrailer(ctx, metadata.Pairs("grpc-retry-pushback-ms", "-1"))
		return nil, status.Error(codes.Unavailable, "go away")
	case "hang":
		if n == 1 {
			<-ctx.Done()
			return nil, ctx.Err()
		}
	case "down":
		return nil, status.Error(codes.Unavailable, "down")
	}
	return &testpb.Empty{}, nil
}

func (f *flaky) StreamingOutputCall(_ *testpb.StreamingOutputCallRequest, stream testpb.TestService_StreamingOutputCallServer) error {
	if _, n := f.count(stream.Context()); n < 3 {
		return status.Error(codes.Unavailable, "restarting")
	}
	for i := range 3 {
		message := &testpb.StreamingOutputCallResponse{Payload: &testpb.Payload{Body: []byte(fmt.Sprint(i))}}
		if err := stream.Send(message); err != nil {
			return err
		}
	}
	return nil
}
