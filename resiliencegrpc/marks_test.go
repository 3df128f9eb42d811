package resiliencegrpc_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/hedge"
	"github.com/effector-go/resilience/internal/mark"
	"github.com/effector-go/resilience/internal/permanent"
	"github.com/effector-go/resilience/timeout"
)

// marks returns the names of err's marks.
func marks(err error) string {
	var names []string
	switch mark.Of(err) {
	case mark.NotFailure:
		names = append(names, "NotFailure")
	case mark.Contention:
		names = append(names, "Contention")
	case mark.CallerFault:
		names = append(names, "CallerFault")
	}
	if mark.IsNotMade(err) {
		names = append(names, "NotMade")
	}
	if permanent.Is(err) {
		names = append(names, "Permanent")
	}
	return strings.Join(names, "+")
}

// A watcher is a policy that records the errors that it sees.
type watcher struct{ errs []error }

func (w *watcher) Run(ctx context.Context, next resilience.Next) error {
	err := next.Run(ctx)
	w.errs = append(w.errs, err)
	return err
}

// Rule 2: Failed and Retryable decide together.
func TestMarksFollowFailedAndRetryable(t *testing.T) {
	for _, c := range []struct {
		failed, retryable bool
		want              string
	}{{true, true, ""}, {true, false, "Permanent"}, {false, true, "Contention"}, {false, false, "NotFailure"}} {
		var w watcher
		config := every(&w)
		config.Failed = func(code codes.Code) bool { return c.failed }
		config.Retryable = func(err error) bool {
			s, ok := err.(interface{ GRPCStatus() *status.Status })
			after, ok2 := err.(interface{ RetryAfter() time.Duration })
			if !ok || !ok2 || s.GRPCStatus().Code() != codes.OutOfRange || after.RetryAfter() != 7*time.Millisecond {
				t.Errorf("Retryable got %#v, want an error with status and RetryAfter", err)
			}
			return c.retryable
		}
		conn := dial(t, loopback(t, &service{empty: func(ctx context.Context) error {
			grpc.SetTrailer(ctx, metadata.Pairs("grpc-retry-pushback-ms", "7"))
			return status.Error(codes.OutOfRange, "no")
		}}), config)
		testpb.NewTestServiceClient(conn).EmptyCall(t.Context(), &testpb.Empty{})
		if got := marks(w.errs[0]); got != c.want {
			t.Errorf("failed %t, retryable %t: got %q, want %q", c.failed, c.retryable, got, c.want)
		}
	}
}

// Rule 2: the defaults, for every code.
func TestMarksByDefault(t *testing.T) {
	for code, want := range map[codes.Code]string{
		codes.Canceled: "NotFailure", codes.Unknown: "Permanent", codes.InvalidArgument: "NotFailure",
		codes.DeadlineExceeded: "Permanent", codes.NotFound: "NotFailure", codes.AlreadyExists: "NotFailure",
		codes.PermissionDenied: "NotFailure", codes.ResourceExhausted: "Permanent", codes.FailedPrecondition: "NotFailure",
		codes.Aborted: "NotFailure", codes.OutOfRange: "NotFailure", codes.Unimplemented: "NotFailure",
		codes.Internal: "Permanent", codes.Unavailable: "", codes.DataLoss: "Permanent", codes.Unauthenticated: "NotFailure",
	} {
		var w watcher
		conn := dial(t, loopback(t, &service{empty: func(context.Context) error { return status.Error(code, "no") }}), every(&w))
		testpb.NewTestServiceClient(conn).EmptyCall(t.Context(), &testpb.Empty{})
		if got := marks(w.errs[0]); got != want {
			t.Errorf("%v: got %q, want %q", code, got, want)
		}
	}
}

// Rule 2: with pushback, Aborted is Contention and ResourceExhausted is tried again.
func TestMarksWithPushback(t *testing.T) {
	for _, c := range []struct {
		code     codes.Code
		pushback string
		want     string
	}{
		{codes.Aborted, "0", "Contention"}, {codes.ResourceExhausted, "0", ""},
		{codes.Aborted, "-1", "NotFailure"}, {codes.ResourceExhausted, "-1", "Permanent"}, {codes.Unavailable, "-1", "Permanent"},
		{codes.Internal, "5", "Permanent"},
	} {
		var w watcher
		conn := dial(t, loopback(t, &service{empty: func(ctx context.Context) error {
			grpc.SetTrailer(ctx, metadata.Pairs("grpc-retry-pushback-ms", c.pushback))
			return status.Error(c.code, "no")
		}}), every(&w))
		testpb.NewTestServiceClient(conn).EmptyCall(t.Context(), &testpb.Empty{})
		if got := marks(w.errs[0]); got != c.want {
			t.Errorf("%v, pushback %s: got %q, want %q", c.code, c.pushback, got, c.want)
		}
	}
}

// Rule 4: Retryable isn't asked if the pushback forbids retries.
func TestMarksForbiddenRetry(t *testing.T) {
	var w watcher
	config := every(&w)
	config.Retryable = func(err error) bool {
		t.Errorf("Retryable was called with %v", err)
		return true
	}
	conn := dial(t, loopback(t, &service{empty: func(ctx context.Context) error {
		grpc.SetTrailer(ctx, metadata.Pairs("grpc-retry-pushback-ms", "-1"))
		return unavailable
	}}), config)
	testpb.NewTestServiceClient(conn).EmptyCall(t.Context(), &testpb.Empty{})
	if got := marks(w.errs[0]); got != "Permanent" {
		t.Errorf("got %q, want Permanent", got)
	}
}

// Rule 2: Canceled is the caller's fault if the caller has left.
func TestMarksCanceledCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w watcher
		client, stop := inMemory(t, &service{empty: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}, every(&w))
		defer stop()
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Hour, nil)
		time.AfterFunc(time.Second, cancel)
		client.EmptyCall(ctx, &testpb.Empty{})
		if got := marks(w.errs[0]); got != "CallerFault" {
			t.Errorf("got %q, want CallerFault", got)
		}
	})
}

// Rule 2: Canceled is the caller's fault if the attempt is a hedge's loser.
func TestMarksCanceledLoser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lost := make(chan error, 1)
		watch := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			err := next.Run(ctx)
			if err != nil {
				lost <- err
			}
			return err
		})
		var calls atomic.Int32
		client, stop := inMemory(t, &service{empty: func(ctx context.Context) error {
			if calls.Add(1) == 1 {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}}, everyRepeatable(hedge.New(hedge.Config{Delay: time.Second, Budget: plenty()}), watch))
		defer stop()
		if _, err := client.EmptyCall(t.Context(), &testpb.Empty{}); err != nil {
			t.Fatal(err)
		}
		if got := marks(<-lost); got != "CallerFault" {
			t.Errorf("got %q, want CallerFault", got)
		}
	})
}

// A headerSignal is a stats handler that signals that response headers have arrived.
type headerSignal chan struct{}

func (headerSignal) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (headerSignal) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (headerSignal) HandleConn(context.Context, stats.ConnStats)                       {}
func (s headerSignal) HandleRPC(_ context.Context, event stats.RPCStats) {
	if _, ok := event.(*stats.InHeader); ok {
		s <- struct{}{}
	}
}

// Rule 2: Canceled is the caller's fault if the connection was closed, even if something has come from
// the server.
func TestMarksCanceledByClose(t *testing.T) {
	var w watcher
	opened := make(headerSignal, 1)
	conn := dial(t, loopback(t, &service{empty: func(ctx context.Context) error {
		grpc.SendHeader(ctx, nil)
		<-ctx.Done()
		return ctx.Err()
	}}), every(&w), grpc.WithStatsHandler(opened))
	go func() {
		<-opened
		conn.Close()
	}()
	client := testpb.NewTestServiceClient(conn)
	client.EmptyCall(t.Context(), &testpb.Empty{})
	client.EmptyCall(t.Context(), &testpb.Empty{})
	for _, err := range w.errs {
		if got := marks(err); got != "CallerFault" || status.Code(err) != codes.Canceled {
			t.Errorf("got %v marked %q, want Canceled marked CallerFault", err, got)
		}
	}
}

// Rule 2: DeadlineExceeded of an attempt whose context has ended has no mark.
func TestMarksDeadlineOfAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w watcher
		client, stop := inMemory(t, &service{empty: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}, every(timeout.After(time.Second), &w))
		defer stop()
		client.EmptyCall(t.Context(), &testpb.Empty{})
		if got := marks(w.errs[0]); status.Code(w.errs[0]) != codes.DeadlineExceeded || got != "" {
			t.Errorf("got %v marked %q, want DeadlineExceeded without a mark", w.errs[0], got)
		}
	})
}

type failingCreds struct{}

func (failingCreds) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return nil, errors.New("no token")
}
func (failingCreds) RequireTransportSecurity() bool { return false }

// Rule 2: what fails before the message was sent, without the server, is the caller's fault.
func TestMarksUnsentMessage(t *testing.T) {
	for name, c := range map[string]struct {
		option grpc.CallOption
		in     *testpb.SimpleRequest
		md     metadata.MD
		want   codes.Code
	}{
		"too large":          {option: grpc.MaxCallSendMsgSize(10), in: &testpb.SimpleRequest{Payload: &testpb.Payload{Body: make([]byte, 100)}}, want: codes.ResourceExhausted},
		"invalid UTF-8":      {option: grpc.EmptyCallOption{}, in: &testpb.SimpleRequest{ResponseStatus: &testpb.EchoStatus{Message: "\xff"}}, want: codes.Internal},
		"unknown compressor": {option: grpc.UseCompressor("none such"), in: &testpb.SimpleRequest{}, want: codes.Internal},
		"credentials":        {option: grpc.PerRPCCredentials(failingCreds{}), in: &testpb.SimpleRequest{}, want: codes.Internal},
		"metadata":           {option: grpc.EmptyCallOption{}, in: &testpb.SimpleRequest{}, md: metadata.MD{"key": {"\x00"}}, want: codes.Internal},
		"codec":              {option: grpc.CallContentSubtype("none such"), in: &testpb.SimpleRequest{}, want: codes.Internal},
	} {
		var w watcher
		conn := dial(t, loopback(t, &service{}), every(&w))
		ctx := metadata.NewOutgoingContext(t.Context(), c.md)
		_, err := testpb.NewTestServiceClient(conn).UnaryCall(ctx, c.in, c.option)
		if got := marks(w.errs[0]); got != "CallerFault" || status.Code(err) != c.want {
			t.Errorf("%s: got %v marked %q, want %v marked CallerFault", name, err, got, c.want)
		}
	}
}

// Rule 3: an attempt that began and sent no headers was not made, whatever the method.
func TestMarksNotMadeWithoutConnection(t *testing.T) {
	var w watcher
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close() // nobody listens there now
	conn := dial(t, listener.Addr().String(), every(&w))
	_, err = testpb.NewTestServiceClient(conn).EmptyCall(t.Context(), &testpb.Empty{})
	if got := marks(w.errs[0]); got != "NotMade" || status.Code(err) != codes.Unavailable {
		t.Errorf("got %v marked %q, want Unavailable marked NotMade", err, got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = testpb.NewTestServiceClient(conn).EmptyCall(ctx, &testpb.Empty{}, grpc.WaitForReady(true))
	if got := marks(w.errs[1]); got != "NotMade" || status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v marked %q, want DeadlineExceeded marked NotMade", err, got)
	}
}

// Rule 3: without a Begin, nothing is known.
func TestMarksNothingWithoutBegin(t *testing.T) {
	var w watcher
	conn := dial(t, loopback(t, &service{}), every(&w),
		inner(func(context.Context, string, any, any, *grpc.ClientConn, grpc.UnaryInvoker, ...grpc.CallOption) error {
			return unavailable // perhaps of another connection
		}))
	testpb.NewTestServiceClient(conn).EmptyCall(t.Context(), &testpb.Empty{})
	if got := marks(w.errs[0]); got != "" {
		t.Errorf("got %q, want no mark", got)
	}
}

// Rule 3: a skipped call that an inner interceptor makes isn't part of the attempt.
func TestMarksIgnoreSkippedCalls(t *testing.T) {
	var w watcher
	address, server := loopbackServer(t, &service{})
	conn := dial(t, address, every(&w),
		inner(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			if method == testpb.TestService_EmptyCall_FullMethodName {
				err := cc.Invoke(ctx, "/grpc.health.v1.Health/Check", &testpb.Empty{}, &testpb.Empty{})
				if status.Code(err) != codes.Unimplemented {
					t.Errorf("got %v, want Unimplemented from the server", err)
				}
				server.Stop()
				cc.WaitForStateChange(ctx, connectivity.Ready)
			}
			return invoker(ctx, method, req, reply, cc, opts...)
		}))
	_, err := testpb.NewTestServiceClient(conn).EmptyCall(t.Context(), &testpb.Empty{})
	if got := marks(w.errs[0]); got != "NotMade" || status.Code(err) != codes.Unavailable {
		t.Errorf("got %v marked %q, want Unavailable marked NotMade", err, got)
	}
}

// Rule 3: what an inner interceptor has sent stays sent, even if it tries again without success.
func TestMarksInnerRetryAsMade(t *testing.T) {
	var w watcher
	address := loopback(t, &service{empty: func(context.Context) error { return unavailable }})
	conn := dial(t, address, every(&w),
		inner(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			invoker(ctx, method, req, reply, cc, opts...)
			cc.Close()
			return status.Error(codes.Unavailable, status.Convert(invoker(ctx, method, req, reply, cc, opts...)).Message())
		}))
	testpb.NewTestServiceClient(conn).EmptyCall(t.Context(), &testpb.Empty{})
	if got := marks(w.errs[0]); got != "" {
		t.Errorf("got %q, want no mark", got)
	}
}
