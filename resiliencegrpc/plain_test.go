package resiliencegrpc_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	_ "google.golang.org/grpc/encoding/gzip"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/hedge"
	"github.com/effector-go/resilience/resiliencegrpc"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// An observation is what a test sees of one call, on both sides, as lines of text.
type observation struct {
	mu    sync.Mutex
	lines []string
}

func (o *observation) add(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lines = append(o.lines, fmt.Sprintf(format, args...))
}

// formatMD formats metadata, without what differs between connections.
func formatMD(md metadata.MD) string {
	var lines []string
	for _, key := range slices.Sorted(maps.Keys(md)) {
		if key != ":authority" && key != "user-agent" && key != "date" {
			lines = append(lines, fmt.Sprintf("%s=%q", key, md[key]))
		}
	}
	if md == nil {
		return "nil"
	}
	return strings.Join(lines, " ")
}

func formatErr(err error) string {
	if err == nil || err == io.EOF {
		return fmt.Sprint(err)
	}
	s := status.Convert(err)
	message := s.Message()
	if s.Code() == codes.DeadlineExceeded { // the server's reset may arrive first
		message = strings.ReplaceAll(message, "stream terminated by RST_STREAM with error code: CANCEL", "context deadline exceeded")
	}
	return fmt.Sprintf("%v %q %v", s.Code(), message, s.Details())
}

// observed returns a service whose methods do what the metadata says and report what they see.
func observed(o *observation) *service {
	do := func(ctx context.Context) error {
		md, _ := metadata.FromIncomingContext(ctx)
		deadline, limited := ctx.Deadline()
		o.add("server: %s, deadline %t", formatMD(md), limited && time.Until(deadline) <= time.Hour)
		grpc.SetHeader(ctx, metadata.Pairs("header", "1", "header", "2", "bytes-bin", "\x00\xff"))
		grpc.SetTrailer(ctx, metadata.Pairs("trailer", "3"))
		if slices.Contains(md["do"], "hang") {
			<-ctx.Done()
			return ctx.Err()
		}
		for code := codes.OK; code <= codes.Unauthenticated; code++ {
			if slices.Contains(md["do"], code.String()) {
				s, _ := status.New(code, "as asked").WithDetails(&testpb.SimpleRequest{ResponseSize: 7})
				return s.Err()
			}
		}
		return nil
	}
	return &service{
		empty: do,
		unary: func(ctx context.Context, in *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
			return &testpb.SimpleResponse{Payload: in.Payload, Username: "server"}, do(ctx)
		},
		output: func(in *outputRequest, stream outputStream) error {
			for i := range int(in.ResponseType) {
				stream.Send(body(fmt.Sprint(i)))
			}
			return do(stream.Context())
		},
		input: func(stream testpb.TestService_StreamingInputCallServer) error {
			n := int32(0)
			for {
				if _, err := stream.Recv(); err == io.EOF {
					break
				} else if err != nil {
					return err
				}
				n++
			}
			if err := do(stream.Context()); err != nil {
				return err
			}
			return stream.SendAndClose(&testpb.StreamingInputCallResponse{AggregatedPayloadSize: n})
		},
		duplex: func(stream testpb.TestService_FullDuplexCallServer) error {
			for {
				if _, err := stream.Recv(); err == io.EOF {
					return do(stream.Context())
				} else if err != nil {
					return err
				}
				stream.Send(body("echo"))
			}
		},
	}
}

// A recorder is a stats handler of the user's.
type recorder struct{ o *observation }

func (r recorder) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	r.o.add("stats: tag %s", info.FullMethodName)
	return ctx
}
func (r recorder) HandleRPC(_ context.Context, event stats.RPCStats) {
	switch event := event.(type) {
	case *stats.Begin:
		r.o.add("stats: begin %t %t %t", event.FailFast, event.IsClientStream, event.IsServerStream)
	case *stats.OutPayload:
		r.o.add("stats: out %T %d", event.Payload, event.Length)
	case *stats.InPayload:
		r.o.add("stats: in %T %d", event.Payload, event.Length)
	case *stats.End:
		r.o.add("stats: end %s", formatErr(event.Error))
	}
}
func (r recorder) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (r recorder) HandleConn(context.Context, stats.ConnStats)                       {}

type tokenCreds struct{}

func (tokenCreds) GetRequestMetadata(ctx context.Context, uri ...string) (map[string]string, error) {
	return map[string]string{"authorization": "token"}, nil
}
func (tokenCreds) RequireTransportSecurity() bool { return false }

var _ credentials.PerRPCCredentials = tokenCreds{}

// A plainCase is how calls are made, and what the server does.
type plainCase struct {
	do      string // the code that the server answers with, or "hang"
	n       int32  // number of messages in a stream
	size    int    // of the request's payload, in bytes
	timeout time.Duration
	cancel  bool // the caller has left before the call
	options []grpc.CallOption
	dial    []grpc.DialOption
	virtual bool // in virtual time, in memory
	racy    bool // whether the server's trailers arrive before the client's own error is up to gRPC
}

// TestPlainBehavior compares calls with those of a plain client and a plain server: whatever a call
// sees on either side is the same with the policies, as long as they have nothing to do.
func TestPlainBehavior(t *testing.T) {
	policies := func(string) resilience.Policy {
		return resilience.Pipeline{timeout.After(1000 * time.Hour), retry.New(retry.Config{MaxAttempts: 1}), breaker.New(breaker.Config{Consecutive: 1000}), timeout.After(1000 * time.Hour)}
	}
	hedged := func(string) resilience.Policy { return hedge.New(hedge.Config{Delay: time.Hour}) }
	guard := guardedBy(timeout.After(1000*time.Hour), breaker.New(breaker.Config{Consecutive: 1000}))
	plain := []grpc.DialOption{grpc.WithDisableRetry()}

	for name, c := range map[string]plainCase{
		"ok":             {n: 3},
		"empty":          {},
		"not found":      {do: "NotFound", n: 2},
		"internal":       {do: "Internal"},
		"unavailable":    {do: "Unavailable", n: 1},
		"aborted":        {do: "Aborted"},
		"canceled":       {do: "Canceled"},
		"deadline":       {do: "DeadlineExceeded"},
		"limited":        {timeout: time.Hour},
		"expired":        {timeout: -time.Second},
		"expires":        {do: "hang", timeout: time.Minute, virtual: true, racy: true},
		"left":           {cancel: true},
		"gzip":           {options: []grpc.CallOption{grpc.UseCompressor("gzip")}, size: 1000, n: 1},
		"no compressor":  {options: []grpc.CallOption{grpc.UseCompressor("none")}},
		"credentials":    {options: []grpc.CallOption{grpc.PerRPCCredentials(tokenCreds{})}},
		"bad token":      {options: []grpc.CallOption{grpc.PerRPCCredentials(failingCreds{})}},
		"dial creds":     {dial: []grpc.DialOption{grpc.WithPerRPCCredentials(tokenCreds{})}},
		"too large out":  {options: []grpc.CallOption{grpc.MaxCallSendMsgSize(10)}, size: 100},
		"too large in":   {options: []grpc.CallOption{grpc.MaxCallRecvMsgSize(0)}, size: 100, n: 2, racy: true},
		"wait for ready": {options: []grpc.CallOption{grpc.WaitForReady(true)}, n: 1},
		"subtype":        {options: []grpc.CallOption{grpc.CallContentSubtype("none")}},
		"default option": {dial: []grpc.DialOption{grpc.WithDefaultCallOptions(grpc.UseCompressor("gzip"))}, n: 1},
		"retry policy": {do: "Unavailable", dial: []grpc.DialOption{grpc.WithDisableRetry(), grpc.WithDefaultServiceConfig(
			`{"methodConfig":[{"name":[{}],"timeout":"60s","retryPolicy":{"maxAttempts":3,"initialBackoff":"0.001s","maxBackoff":"0.001s","backoffMultiplier":1,"retryableStatusCodes":["UNAVAILABLE"]}}]}`)}},
	} {
		compareAll := func(t *testing.T) {
			want := c.observe(t, nil, plain)
			for column, opts := range map[string]struct {
				server []grpc.ServerOption
				client []grpc.DialOption
			}{
				"client":        {nil, resiliencegrpc.DialOptions(resiliencegrpc.Config{Policies: policies})},
				"hedged client": {nil, resiliencegrpc.DialOptions(resiliencegrpc.Config{Policies: hedged})},
				"server":        {guard, plain},
				"both":          {guard, resiliencegrpc.DialOptions(resiliencegrpc.Config{Policies: policies})},
			} {
				compare(t, name+", "+column, c.observe(t, opts.server, opts.client), want)
			}
		}
		if c.virtual {
			synctest.Test(t, compareAll)
		} else {
			compareAll(t)
		}
	}
}

// observe makes one call of each kind, and returns what was seen.
func (c plainCase) observe(t *testing.T, server []grpc.ServerOption, client []grpc.DialOption) []string {
	t.Helper()
	o := new(observation)
	client = append(slices.Clip(client), grpc.WithStatsHandler(recorder{o}))
	client = append(client, c.dial...)
	if c.virtual {
		memory, stop := inMemoryServer(t, observed(o), server, client...)
		c.callAll(o, clientConn(memory))
		stop()
		return o.lines
	}
	address, running := loopbackServer(t, observed(o), server...)
	conn := dialOnly(t, address, client...)
	c.callAll(o, conn)
	conn.Close()
	running.GracefulStop() // waits for handlers
	return o.lines
}

// callAll makes one call of each kind, and records what its caller sees.
func (c plainCase) callAll(o *observation, conn *grpc.ClientConn) {
	for _, kind := range []struct {
		name string
		call func(context.Context, *grpc.ClientConn, []grpc.CallOption) ([]string, error)
	}{{"unary", c.unary}, {"output", c.output}, {"input", c.input}, {"duplex", c.duplex}, {"unary as stream", c.unaryAsStream}} {
		ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(context.Background(), "do", c.do, "own", "1", "own", "2"))
		if c.timeout != 0 {
			ctx, cancel = context.WithTimeout(ctx, c.timeout)
		}
		if c.cancel {
			cancel()
		}
		var header, trailer metadata.MD
		var p peer.Peer
		finished := make(chan string, 10)
		got, err := kind.call(ctx, conn, append([]grpc.CallOption{grpc.Header(&header), grpc.Trailer(&trailer), grpc.Peer(&p),
			grpc.OnFinish(func(err error) { finished <- formatErr(err) })}, c.options...))
		cancel() // ends whatever is still open
		o.add("%s: %s, %v", kind.name, formatErr(err), got)
		onFinish := <-finished
		o.add("%s: OnFinish %s, header %s, trailer %s, peer %t", kind.name, onFinish, c.format(header), c.format(trailer), p.Addr != nil)
		if len(finished) != 0 {
			o.add("%s: OnFinish was called more than once", kind.name)
		}
	}
}

// The kinds of calls. Each returns what it received, as text, and the error that ended it.

func (c plainCase) unary(ctx context.Context, conn *grpc.ClientConn, options []grpc.CallOption) ([]string, error) {
	out, err := testpb.NewTestServiceClient(conn).UnaryCall(ctx, &testpb.SimpleRequest{Payload: c.payload()}, options...)
	return []string{fmt.Sprint(len(out.GetPayload().GetBody()), out.GetUsername())}, err
}

func (c plainCase) output(ctx context.Context, conn *grpc.ClientConn, options []grpc.CallOption) ([]string, error) {
	in := &outputRequest{Payload: c.payload(), ResponseType: testpb.PayloadType(c.n)}
	stream, err := testpb.NewTestServiceClient(conn).StreamingOutputCall(ctx, in, options...)
	if err != nil {
		return nil, err
	}
	return c.receive(stream)
}

func (c plainCase) input(ctx context.Context, conn *grpc.ClientConn, options []grpc.CallOption) (got []string, err error) {
	stream, err := testpb.NewTestServiceClient(conn).StreamingInputCall(ctx, options...)
	if err != nil {
		return nil, err
	}
	for range c.n {
		got = append(got, formatErr(stream.Send(&testpb.StreamingInputCallRequest{Payload: c.payload()})))
	}
	out, err := stream.CloseAndRecv()
	return append(got, fmt.Sprint(out.GetAggregatedPayloadSize()), c.format(stream.Trailer())), err
}

func (c plainCase) duplex(ctx context.Context, conn *grpc.ClientConn, options []grpc.CallOption) ([]string, error) {
	stream, err := testpb.NewTestServiceClient(conn).FullDuplexCall(ctx, options...)
	if err != nil {
		return nil, err
	}
	stream.CloseSend()
	return c.receive(stream)
}

func (c plainCase) unaryAsStream(ctx context.Context, conn *grpc.ClientConn, options []grpc.CallOption) ([]string, error) {
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{}, testpb.TestService_UnaryCall_FullMethodName, options...)
	if err != nil {
		return nil, err
	}
	if err := stream.SendMsg(&testpb.SimpleRequest{Payload: c.payload()}); err != nil {
		return nil, err
	}
	stream.CloseSend()
	out := new(testpb.SimpleResponse)
	err = stream.RecvMsg(out)
	return []string{fmt.Sprint(len(out.GetPayload().GetBody()), out.GetUsername()), c.format(stream.Trailer())}, err
}

// receive receives all messages of a stream.
func (c plainCase) receive(stream interface {
	Recv() (*testpb.StreamingOutputCallResponse, error)
	Header() (metadata.MD, error)
	Trailer() metadata.MD
}) (got []string, err error) {
	for {
		var m *testpb.StreamingOutputCallResponse
		if m, err = stream.Recv(); err != nil {
			break
		}
		got = append(got, string(m.GetPayload().GetBody()))
	}
	_, again := stream.Recv()
	header, headerErr := stream.Header()
	return append(got, c.format(header), fmt.Sprint(headerErr), c.format(stream.Trailer()), status.Code(again).String()), err
}

func (c plainCase) payload() *testpb.Payload { return &testpb.Payload{Body: make([]byte, c.size)} }

// format formats metadata, unless it is up to gRPC.
func (c plainCase) format(md metadata.MD) string {
	if c.racy {
		return "-"
	}
	return formatMD(md)
}

// compare compares what was seen, without the order of what happens concurrently.
func compare(t *testing.T, name string, got, want []string) {
	t.Helper()
	got, want = slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
	if slices.Equal(got, want) {
		return
	}
	t.Errorf("%s:", name)
	for _, line := range got {
		if !slices.Contains(want, line) {
			t.Errorf("  got  %s", line)
		}
	}
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("  want %s", line)
		}
	}
}
