// Command grpc calls a flaky server through resiliencegrpc and prints what happens, attempt by attempt.
// It takes about two seconds.
//
//	go run ./examples/grpc
//
// The client is in client.go, the server and its faults are in server.go.
package main

import (
	"context"
	"fmt"
	"io"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"

	"github.com/effector-go/resilience/examples/internal/program"
	"github.com/effector-go/resilience/resiliencegrpc"
)

func main() { program.Main("grpc", run) }

// A scene is a call and what it shows. The fault is the server's.
type scene struct {
	title  string
	fault  string
	stream bool
	repeat bool // the call may be made twice
	times  int  // default 1
}

var scenes = []scene{
	{title: "A call that may be repeated is made again, after the server's pushback.", fault: "busy", repeat: true},
	{title: "A call that must not be repeated is made once: the caller gets the server's error.", fault: "order"},
	{title: "NotFound is an answer: it isn't made again, and the breaker counts a success.", fault: "missing", repeat: true},
	{title: "A pushback of -1 forbids another attempt.", fault: "overloaded", repeat: true},
	{title: "An attempt that hangs ends with its own limit.", fault: "hang", repeat: true},
	{title: "A stream is opened again until its first message; each message is delivered once.", fault: "stream", stream: true, repeat: true},
	{title: "A server that is down opens the breaker: calls are refused without an attempt.", fault: "down", repeat: true, times: 3},
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if err := program.NewFlags("grpc").Parse(args, stderr); err != nil {
		return err
	}
	server, address, err := newServer()
	if err != nil {
		return err
	}
	defer server.Stop()
	conn, err := newClient(address, stdout)
	if err != nil {
		return err
	}
	defer conn.Close()
	client := testpb.NewTestServiceClient(conn)
	for i, s := range scenes {
		fmt.Fprintf(stdout, "\n%d. %s\n", i+1, s.title)
		for range max(1, s.times) {
			s.play(ctx, client, stdout)
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	return nil
}

// play makes a call.
func (s scene) play(ctx context.Context, client testpb.TestServiceClient, out io.Writer) {
	ctx = metadata.AppendToOutgoingContext(ctx, faultKey, s.fault)
	var options []grpc.CallOption
	if s.repeat {
		options = append(options, resiliencegrpc.AllowRepeat(true))
	}
	fmt.Fprintf(out, "   call %s\n", s.fault)
	if s.stream {
		receive(ctx, client, out, options)
		return
	}
	if _, err := client.EmptyCall(ctx, &testpb.Empty{}, options...); err != nil {
		fmt.Fprintf(out, "   the caller gets the error: %v\n", err)
		return
	}
	fmt.Fprintln(out, "   the caller gets the reply")
}

// receive opens a stream and receives all of its messages.
func receive(ctx context.Context, client testpb.TestServiceClient, out io.Writer, options []grpc.CallOption) {
	stream, err := client.StreamingOutputCall(ctx, &testpb.StreamingOutputCallRequest{}, options...)
	for err == nil {
		var m *testpb.StreamingOutputCallResponse
		if m, err = stream.Recv(); err == nil {
			fmt.Fprintf(out, "   the caller gets message %s\n", m.GetPayload().GetBody())
		}
	}
	if err == io.EOF {
		fmt.Fprintln(out, "   the caller gets the end of the stream")
		return
	}
	fmt.Fprintf(out, "   the caller gets the error: %v\n", err)
}
