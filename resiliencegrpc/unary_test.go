package resiliencegrpc_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/hedge"
	"github.com/effector-go/resilience/resiliencegrpc"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// retries is a policy that tries three times without waiting.
func retries() resilience.Policy { return retry.New(retry.Config{Backoff: retry.Constant(0)}) }

// Rule 3: a call is repeated only if AllowRepeat, Repeatable, or the idempotency level allows it.
func TestUnaryRepeatsOnlyWhatIsAllowed(t *testing.T) {
	for _, c := range []struct {
		name       string
		repeatable bool
		options    []grpc.CallOption
		want       int32
	}{
		{"default", false, nil, 1},
		{"Repeatable", true, nil, 3},
		{"AllowRepeat", false, []grpc.CallOption{resiliencegrpc.AllowRepeat(true)}, 3},
		{"AllowRepeat against Repeatable", true, []grpc.CallOption{resiliencegrpc.AllowRepeat(false)}, 1},
		{"last AllowRepeat", false, []grpc.CallOption{resiliencegrpc.AllowRepeat(false), resiliencegrpc.AllowRepeat(true)}, 3},
		{"last AllowRepeat is false", true, []grpc.CallOption{resiliencegrpc.AllowRepeat(true), resiliencegrpc.AllowRepeat(false)}, 1},
	} {
		calls, empty := failFirst(10, unavailable)
		config := every(retries())
		if c.repeatable {
			config = everyRepeatable(retries())
		}
		conn := dial(t, loopback(t, &service{empty: empty}), config)
		testpb.NewTestServiceClient(conn).EmptyCall(t.Context(), &testpb.Empty{}, c.options...)
		if got := calls.Load(); got != c.want {
			t.Errorf("%s: got %d attempts, want %d", c.name, got, c.want)
		}
	}
}

// registerLevels registers a service whose methods have idempotency levels.
var registerLevels = sync.OnceValue(func() error {
	method := func(name string, level *descriptorpb.MethodOptions_IdempotencyLevel) *descriptorpb.MethodDescriptorProto {
		return &descriptorpb.MethodDescriptorProto{
			Name: proto.String(name), InputType: proto.String(".levels.M"), OutputType: proto.String(".levels.M"),
			Options: &descriptorpb.MethodOptions{IdempotencyLevel: level},
		}
	}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("levels.proto"), Package: proto.String("levels"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String("M")}},
		Service: []*descriptorpb.ServiceDescriptorProto{{Name: proto.String("S"), Method: []*descriptorpb.MethodDescriptorProto{
			method("Get", descriptorpb.MethodOptions_NO_SIDE_EFFECTS.Enum()),
			method("Put", descriptorpb.MethodOptions_IDEMPOTENT.Enum()),
			method("Post", descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN.Enum()),
			method("Plain", nil),
		}}},
	}, protoregistry.GlobalFiles)
	if err != nil {
		return err
	}
	return protoregistry.GlobalFiles.RegisterFile(file)
})

// Rule 3: the idempotency level of the registered descriptor is the default of Repeatable.
func TestUnaryRepeatsByIdempotencyLevel(t *testing.T) {
	if err := registerLevels(); err != nil {
		t.Fatal(err)
	}
	for method, want := range map[string]int32{
		"/levels.S/Get": 3, "/levels.S/Put": 3, "/levels.S/Post": 1, "/levels.S/Plain": 1,
		"/levels.S/None": 1, "/levels.None/Get": 1, "/levels.M/Get": 1, "levels.S/Get": 3, "/levels.S": 1, "": 1,
	} {
		var calls atomic.Int32
		conn := dial(t, loopback(t, &service{}), every(retries()),
			inner(func(context.Context, string, any, any, *grpc.ClientConn, grpc.UnaryInvoker, ...grpc.CallOption) error {
				calls.Add(1)
				return unavailable
			}))
		conn.Invoke(t.Context(), method, &testpb.Empty{}, &testpb.Empty{})
		if got := calls.Load(); got != want {
			t.Errorf("%s: got %d attempts, want %d", method, got, want)
		}
	}
}

// Rule 5: the caller's Header, Trailer, and Peer are those of the attempt whose reply or error it
// receives, and OnFinish is called once with the caller's error.
func TestUnaryHandsOverLastAttempt(t *testing.T) {
	for _, failures := range []int32{0, 1, 2, 3} {
		var calls atomic.Int32
		address := loopback(t, &service{empty: func(ctx context.Context) error {
			n := calls.Add(1)
			grpc.SetHeader(ctx, metadata.Pairs("attempt", strconv.Itoa(int(n))))
			grpc.SetTrailer(ctx, metadata.Pairs("attempt", strconv.Itoa(int(n))))
			if n <= failures {
				return unavailable
			}
			return nil
		}})
		var first, second, trailer metadata.MD
		var p peer.Peer
		var finished []error
		_, err := testpb.NewTestServiceClient(dial(t, address, everyRepeatable(retries()))).EmptyCall(t.Context(), &testpb.Empty{},
			grpc.Header(&first), grpc.Header(&second), grpc.Trailer(&trailer), grpc.Peer(&p),
			grpc.OnFinish(func(err error) { finished = append(finished, err) }))
		if (err != nil) != (failures == 3) {
			t.Fatalf("%d failures: got %v", failures, err)
		}
		want := []string{strconv.Itoa(int(min(failures+1, 3)))}
		if !slices.Equal(trailer["attempt"], want) || p.Addr.String() != address {
			t.Errorf("%d failures: got trailer %v and peer %v, want attempt %v and %s", failures, trailer, p, want, address)
		}
		if !slices.Equal(first["attempt"], want) || !slices.Equal(second["attempt"], want) {
			t.Errorf("%d failures: got headers %v and %v, want attempt %v", failures, first, second, want)
		}
		first["attempt"][0] = "changed"
		if second["attempt"][0] != want[0] {
			t.Error("got headers that share memory, want separate ones")
		}
		if len(finished) != 1 || finished[0] != err {
			t.Errorf("%d failures: OnFinish got %v, want %v once", failures, finished, err)
		}
	}
}

// Rule 5: the caller's targets stay untouched if it receives no attempt's error or reply.
func TestUnaryLeavesTargetsUntouched(t *testing.T) {
	refusing := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		return errors.Join(next.Run(ctx), resilience.ErrRefused)
	})
	header, trailer, p := metadata.Pairs("mine", "1"), metadata.Pairs("mine", "2"), peer.Peer{}
	conn := dial(t, loopback(t, &service{empty: func(ctx context.Context) error {
		grpc.SetTrailer(ctx, metadata.Pairs("server", "1"))
		return unavailable
	}}), every(refusing))
	_, err := testpb.NewTestServiceClient(conn).EmptyCall(t.Context(), &testpb.Empty{}, grpc.Header(&header), grpc.Trailer(&trailer), grpc.Peer(&p))
	if !errors.Is(err, resilience.ErrRefused) {
		t.Fatalf("got %v, want a refusal", err)
	}
	if header["mine"] == nil || trailer["mine"] == nil || p.Addr != nil {
		t.Errorf("got %v, %v, %v, want them untouched", header, trailer, p)
	}
}

// Rule 5: an attempt on a fork has its own messages. After the call has returned, the caller may
// change its request and its reply while attempts are still running. Run it with -race.
func TestUnaryForksShareNoMemory(t *testing.T) {
	var calls atomic.Int32
	release := make(chan struct{})
	address := loopback(t, &service{unary: func(ctx context.Context, in *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
		if calls.Add(1)%2 == 1 {
			<-release // ignores its context
		}
		return &testpb.SimpleResponse{Username: in.GetResponseStatus().GetMessage()}, nil
	}})
	slow := inner(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		err := invoker(context.WithoutCancel(ctx), method, req, reply, cc, opts...)
		_ = req.(*testpb.SimpleRequest).GetResponseStatus().GetMessage() // reads its request to the end
		return err
	})
	conn := dial(t, address, everyRepeatable(hedge.New(hedge.Config{Delay: time.Millisecond, Budget: plenty()})), slow)
	in := &testpb.SimpleRequest{ResponseStatus: &testpb.EchoStatus{}}
	var header, trailer metadata.MD
	var p peer.Peer
	options := []grpc.CallOption{grpc.Header(&header), grpc.Trailer(&trailer), grpc.Peer(&p)}
	for i := range 20 {
		in.ResponseStatus.Message = fmt.Sprint(i)
		out := &testpb.SimpleResponse{Username: "old", OauthScope: "old"}
		if err := conn.Invoke(t.Context(), testpb.TestService_UnaryCall_FullMethodName, in, out, options...); err != nil {
			t.Fatal(err)
		}
		if out.Username != fmt.Sprint(i) || out.OauthScope != "" {
			t.Errorf("call %d: got %v, want the server's reply", i, out)
		}
		out.Username, header, trailer, p = "changed", nil, nil, peer.Peer{}
		options[0] = grpc.Header(&header)
	}
	close(release)
}

// Rule 5: a start that begins after the call has returned touches nothing of the caller's.
func TestUnaryForkAfterReturnIsNotMade(t *testing.T) {
	begin, began := make(chan struct{}), make(chan error)
	late := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		fork := next.Fork()
		go func() {
			<-begin
			began <- fork.Run(ctx)
		}()
		return next.Run(ctx)
	})
	calls, empty := failFirst(0, nil)
	conn := dial(t, loopback(t, &service{empty: empty}), everyRepeatable(late))
	in := &testpb.Empty{}
	if _, err := testpb.NewTestServiceClient(conn).EmptyCall(context.Background(), in); err != nil {
		t.Fatal(err)
	}
	in.ProtoReflect().SetUnknown(nil) // a write
	close(begin)
	if err := <-began; status.Code(err) != codes.Canceled || marks(err) != "CallerFault" {
		t.Errorf("got %v marked %q, want Canceled marked CallerFault", err, marks(err))
	}
	if got := calls.Load(); got != 1 {
		t.Errorf("got %d calls, want 1", got)
	}
}

// Rule 5: an error leaves the reply of a hedged call alone.
func TestUnaryErrorLeavesReplyAlone(t *testing.T) {
	conn := dial(t, loopback(t, &service{unary: func(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
		return nil, status.Error(codes.NotFound, "no")
	}}), every(hedge.New(hedge.Config{Delay: time.Hour})))
	out := &testpb.SimpleResponse{Username: "mine"}
	err := conn.Invoke(t.Context(), testpb.TestService_UnaryCall_FullMethodName, &testpb.SimpleRequest{}, out)
	if status.Code(err) != codes.NotFound || out.Username != "mine" {
		t.Errorf("got %v and reply %v, want NotFound and the reply untouched", err, out)
	}
}

// Rule 5: without forks, attempts use the caller's messages.
func TestUnaryCopiesNothingWithoutForks(t *testing.T) {
	var request, reply any
	conn := dial(t, loopback(t, &service{empty: func(context.Context) error { return nil }}), every(retries(), timeout.After(ample)),
		inner(func(ctx context.Context, method string, req, rep any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			request, reply = req, rep
			return invoker(ctx, method, req, rep, cc, opts...)
		}))
	in, out := &testpb.Empty{}, &testpb.Empty{}
	if err := conn.Invoke(t.Context(), testpb.TestService_EmptyCall_FullMethodName, in, out); err != nil {
		t.Fatal(err)
	}
	if request != any(in) || reply != any(out) {
		t.Error("got copies, want the caller's messages")
	}
}

type jsonMessage struct {
	Name string `json:"name,omitempty"`
	More int    `json:"more,omitempty"`
}

type jsonCodec struct{}

func (jsonCodec) Marshal(v any) ([]byte, error)      { return json.Marshal(v) }
func (jsonCodec) Unmarshal(data []byte, v any) error { return json.Unmarshal(data, v) }
func (jsonCodec) Name() string                       { return "json" }

// Rule 5: if a message isn't a proto.Message, the reply of an attempt on a fork is a new value of its
// type, and the request is shared.
func TestUnaryHedgesOtherMessages(t *testing.T) {
	var request, reply any
	conn := dial(t, loopback(t, &service{empty: func(context.Context) error { return nil }}), every(hedge.New(hedge.Config{Delay: time.Hour})),
		inner(func(ctx context.Context, method string, req, rep any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			request, reply = req, rep
			return json.Unmarshal([]byte(`{"name":"new"}`), rep)
		}))
	in, out := &jsonMessage{}, &jsonMessage{Name: "old", More: 1}
	if err := conn.Invoke(t.Context(), "/s/m", in, out, grpc.ForceCodec(jsonCodec{})); err != nil {
		t.Fatal(err)
	}
	if request != any(in) || reply == any(out) || *out != (jsonMessage{Name: "new"}) {
		t.Errorf("got request %p, reply %p with %v, want the caller's %p, another than %p, and a new message", request, reply, *out, in, out)
	}
	err := conn.Invoke(t.Context(), "/s/m", in, jsonMessage{}, grpc.ForceCodec(jsonCodec{}))
	if status.Code(err) != codes.Internal {
		t.Errorf("got %v for a reply that isn't a pointer, want Internal", err)
	}
}

// Rule 6: from the second attempt on, the metadata has grpc-previous-rpc-attempts; it is otherwise
// the caller's.
func TestUnaryNumbersAttempts(t *testing.T) {
	var previous, own []string
	conn := dial(t, loopback(t, &service{empty: func(ctx context.Context) error {
		md, _ := metadata.FromIncomingContext(ctx)
		previous = append(previous, fmt.Sprint(md["grpc-previous-rpc-attempts"]))
		own = append(own, fmt.Sprint(md["own"], md["more"]))
		return unavailable
	}}), everyRepeatable(retries()))
	client := testpb.NewTestServiceClient(conn)
	client.EmptyCall(t.Context(), &testpb.Empty{})
	md := metadata.Pairs("own", "1", "own", "2", "grpc-previous-rpc-attempts", "7")
	ctx := metadata.AppendToOutgoingContext(metadata.NewOutgoingContext(t.Context(), md), "more", "3")
	client.EmptyCall(ctx, &testpb.Empty{})
	want := []string{"[]", "[1]", "[2]", "[7]", "[1]", "[2]"}
	if !slices.Equal(previous, want) {
		t.Errorf("got %v, want %v", previous, want)
	}
	if want := "[1 2] [3]"; own[3] != want || own[4] != want || own[5] != want {
		t.Errorf("got %q, want %q each time", own[3:], want)
	}
	if len(md) != 2 || len(md["grpc-previous-rpc-attempts"]) != 1 {
		t.Errorf("got the caller's metadata changed to %v", md)
	}
}

// Rule 6: an attempt's deadline, policies included, reaches the server.
func TestUnarySendsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var left []time.Duration
		client, stop := inMemory(t, &service{empty: func(ctx context.Context) error {
			deadline, _ := ctx.Deadline()
			left = append(left, time.Until(deadline))
			return unavailable
		}}, everyRepeatable(timeout.After(10*time.Second), retry.New(retry.Config{Backoff: retry.Constant(4 * time.Second)}), timeout.After(5*time.Second)))
		defer stop()
		client.EmptyCall(t.Context(), &testpb.Empty{})
		if want := []time.Duration{5 * time.Second, 5 * time.Second, 2 * time.Second}; !slices.Equal(left, want) {
			t.Errorf("got %v, want %v", left, want)
		}
	})
}

// Rule 4: a pushback delays the next attempt, and a negative one prevents it.
func TestUnaryObeysPushback(t *testing.T) {
	for pushback, want := range map[string][]time.Duration{"3000": {0, 3 * time.Second, 6 * time.Second}, "-1": {0}, "x": {0}} {
		synctest.Test(t, func(t *testing.T) {
			begun := time.Now()
			var at []time.Duration
			client, stop := inMemory(t, &service{empty: func(ctx context.Context) error {
				at = append(at, time.Since(begun))
				grpc.SetTrailer(ctx, metadata.Pairs("grpc-retry-pushback-ms", pushback))
				return unavailable
			}}, everyRepeatable(retries()))
			defer stop()
			client.EmptyCall(t.Context(), &testpb.Empty{})
			if !slices.Equal(at, want) {
				t.Errorf("pushback %s: got attempts at %v, want %v", pushback, at, want)
			}
		})
	}
}

// A skipped method bypasses the policies: by default, health checks and reflection.
func TestSkipBypassesPolicies(t *testing.T) {
	var keys []string
	conn := dial(t, loopback(t, &service{}), resiliencegrpc.Config{Policies: func(key string) resilience.Policy {
		keys = append(keys, key)
		return resilience.Pipeline{}
	}, Key: func(_, method string) string { return method }})
	for _, method := range []string{
		"/grpc.health.v1.Health/Check", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
		"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "/grpc.health.v2.Health/Check", "/grpc.healthy/Check",
	} {
		conn.Invoke(t.Context(), method, &testpb.Empty{}, &testpb.Empty{})
		conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true}, method)
	}
	if want := []string{"/grpc.health.v2.Health/Check", "/grpc.healthy/Check"}; !slices.Equal(keys, want) {
		t.Errorf("got policies for %v, want %v", keys, want)
	}
}

// Unary calls and streams of one key share a policy.
func TestPoliciesAreMadeOncePerKey(t *testing.T) {
	var keys []string
	address := loopback(t, &service{})
	conn := dial(t, address, resiliencegrpc.Config{Policies: func(key string) resilience.Policy {
		keys = append(keys, key)
		return resilience.Pipeline{}
	}})
	client := testpb.NewTestServiceClient(conn)
	client.UnimplementedCall(t.Context(), &testpb.Empty{})
	client.UnimplementedCall(t.Context(), &testpb.Empty{})
	client.FullDuplexCall(t.Context())
	client.StreamingOutputCall(t.Context(), &testpb.StreamingOutputCallRequest{})
	if want := []string{address}; !slices.Equal(keys, want) {
		t.Errorf("got policies for %v, want %v", keys, want)
	}
}

// A panic of a policy passes, and the key is released.
func TestUnaryPanicPasses(t *testing.T) {
	conn := dial(t, loopback(t, &service{}), every(resilience.PolicyFunc(func(context.Context, resilience.Next) error { panic("mine") })))
	defer func() {
		if got := recover(); got != "mine" {
			t.Errorf("got panic %v, want mine", got)
		}
	}()
	testpb.NewTestServiceClient(conn).EmptyCall(t.Context(), &testpb.Empty{})
}

// With Abandon, the call returns at the limit, although the attempt goes on.
func TestUnaryIsAbandoned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, stop := inMemory(t, &service{empty: func(context.Context) error { return nil }},
			every(timeout.New(timeout.Config{Limit: time.Second, Abandon: 10})),
			inner(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
				time.Sleep(time.Minute) // ignores its context
				return invoker(context.WithoutCancel(ctx), method, req, reply, cc, opts...)
			}))
		defer stop()
		begun := time.Now()
		_, err := client.EmptyCall(t.Context(), &testpb.Empty{})
		if status.Code(err) != codes.DeadlineExceeded || time.Since(begun) != time.Second {
			t.Errorf("got %v after %v, want DeadlineExceeded after 1s", err, time.Since(begun))
		}
		time.Sleep(2 * time.Minute)
	})
}

// seeContext returns an interceptor that records the contextKey's values of its contexts.
func seeContext(values *[]any) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		*values = append(*values, ctx.Value(contextKey{}))
		return invoker(ctx, method, req, reply, cc, opts...)
	}
}
