package resiliencegrpc_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/resiliencegrpc"
)

// A service answers with its functions, and with Unimplemented where it has none.
type service struct {
	testpb.UnimplementedTestServiceServer
	empty  func(ctx context.Context) error
	unary  func(ctx context.Context, in *testpb.SimpleRequest) (*testpb.SimpleResponse, error)
	output func(in *testpb.StreamingOutputCallRequest, stream testpb.TestService_StreamingOutputCallServer) error
	input  func(stream testpb.TestService_StreamingInputCallServer) error
	duplex func(stream testpb.TestService_FullDuplexCallServer) error
}

func (s *service) EmptyCall(ctx context.Context, _ *testpb.Empty) (*testpb.Empty, error) {
	if s.empty == nil {
		return s.UnimplementedTestServiceServer.EmptyCall(ctx, &testpb.Empty{})
	}
	return &testpb.Empty{}, s.empty(ctx)
}

func (s *service) UnaryCall(ctx context.Context, in *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	if s.unary == nil {
		return s.UnimplementedTestServiceServer.UnaryCall(ctx, in)
	}
	return s.unary(ctx, in)
}

func (s *service) StreamingOutputCall(in *testpb.StreamingOutputCallRequest, stream testpb.TestService_StreamingOutputCallServer) error {
	if s.output == nil {
		return s.UnimplementedTestServiceServer.StreamingOutputCall(in, stream)
	}
	return s.output(in, stream)
}

func (s *service) StreamingInputCall(stream testpb.TestService_StreamingInputCallServer) error {
	if s.input == nil {
		return s.UnimplementedTestServiceServer.StreamingInputCall(stream)
	}
	return s.input(stream)
}

func (s *service) FullDuplexCall(stream testpb.TestService_FullDuplexCallServer) error {
	if s.duplex == nil {
		return s.UnimplementedTestServiceServer.FullDuplexCall(stream)
	}
	return s.duplex(stream)
}

// loopback serves s on a TCP port of the loopback interface until the test ends, and returns the
// address.
func loopback(t testing.TB, s *service, opts ...grpc.ServerOption) string {
	t.Helper()
	address, _ := loopbackServer(t, s, opts...)
	return address
}

func loopbackServer(t testing.TB, s *service, opts ...grpc.ServerOption) (string, *grpc.Server) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(opts...)
	testpb.RegisterTestServiceServer(server, s)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	return listener.Addr().String(), server
}

// dial connects to address with the policy for every key, until the test ends.
func dial(t testing.TB, address string, config resiliencegrpc.Config, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	return dialOnly(t, address, append(resiliencegrpc.DialOptions(config), opts...)...)
}

func dialOnly(t testing.TB, address string, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	opts = append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, opts...)
	conn, err := grpc.NewClient(address, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// inMemory serves s and connects to it in memory, for tests in a synctest bubble. stop ends both.
func inMemory(t testing.TB, s *service, config resiliencegrpc.Config, opts ...grpc.DialOption) (client testpb.TestServiceClient, stop func()) {
	t.Helper()
	return inMemoryServer(t, s, nil, append(resiliencegrpc.DialOptions(config), opts...)...)
}

func inMemoryServer(t testing.TB, s *service, serverOpts []grpc.ServerOption, opts ...grpc.DialOption) (client testpb.TestServiceClient, stop func()) {
	t.Helper()
	listener := bufconn.Listen(1 << 16)
	server := grpc.NewServer(serverOpts...)
	testpb.RegisterTestServiceServer(server, s)
	go server.Serve(listener)
	opts = append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
	}, opts...)
	conn, err := grpc.NewClient("passthrough:///memory", opts...)
	if err != nil {
		t.Fatal(err)
	}
	return memoryClient{testpb.NewTestServiceClient(conn), conn}, func() {
		conn.Close()
		server.Stop()
	}
}

// A memoryClient is a client with its connection.
type memoryClient struct {
	testpb.TestServiceClient
	conn *grpc.ClientConn
}

func clientConn(client testpb.TestServiceClient) *grpc.ClientConn { return client.(memoryClient).conn }

// every returns a Config with one policy for all keys.
func every(policies ...resilience.Policy) resiliencegrpc.Config {
	return resiliencegrpc.Config{Policies: func(string) resilience.Policy { return resilience.Pipeline(policies) }}
}

// everyRepeatable is every for methods that may run twice.
func everyRepeatable(policies ...resilience.Policy) resiliencegrpc.Config {
	config := every(policies...)
	config.Repeatable = func(string) bool { return true }
	return config
}

// failFirst returns a function for a service that fails n times with err, then succeeds.
func failFirst(n int32, err error) (calls *atomic.Int32, empty func(context.Context) error) {
	calls = new(atomic.Int32)
	return calls, func(context.Context) error {
		if calls.Add(1) <= n {
			return err
		}
		return nil
	}
}

// unavailable is the error of a server that is overloaded.
var unavailable = status.Error(codes.Unavailable, "overloaded")

// ample is a limit that no test reaches in real time.
const ample = time.Minute

// plenty returns a budget for as many additional starts as a test needs.
func plenty() *budget.Budget { return budget.New(budget.Config{MinPerSecond: 1000}) }
