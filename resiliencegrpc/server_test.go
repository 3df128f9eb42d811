package resiliencegrpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/ratelimit"
	"github.com/effector-go/resilience/resiliencegrpc"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// guardedBy returns server options with the policies.
func guardedBy(policies ...resilience.Policy) []grpc.ServerOption {
	return resiliencegrpc.ServerOptions(resiliencegrpc.ServerConfig{Policy: resilience.Pipeline(policies)})
}

// callBoth calls a unary method and a server stream of s, and returns their errors and trailers.
func callBoth(t *testing.T, client testpb.TestServiceClient) (errs [2]error, trailers [2]metadata.MD) {
	t.Helper()
	_, errs[0] = client.EmptyCall(t.Context(), &testpb.Empty{}, grpc.Trailer(&trailers[0]))
	stream, err := client.StreamingOutputCall(t.Context(), &outputRequest{}, grpc.Trailer(&trailers[1]))
	if err != nil {
		t.Fatal(err)
	}
	_, errs[1] = receiveAll(stream)
	return errs, trailers
}

// both returns a service whose unary and streaming methods run the handler.
func both(handler func(ctx context.Context) error) *service {
	return &service{empty: handler, output: func(_ *outputRequest, stream outputStream) error { return handler(stream.Context()) }}
}

// Rule 11: a refusal is Unavailable, or ResourceExhausted for 429, and states when to retry.
func TestServerRefuses(t *testing.T) {
	open := breaker.New(breaker.Config{Name: "secret", OpenFor: time.Minute, MaxOpenFor: time.Minute, Consecutive: 1})
	resilience.Run(t.Context(), open, func(context.Context) error { return errors.New("down") })
	limited := ratelimit.New(ratelimit.Config{Name: "secret", Rate: 0.01, Burst: 1})
	resilience.Run(t.Context(), limited, func(context.Context) error { return nil })
	forced := breaker.New(breaker.Config{Name: "secret"})
	forced.ForceOpen()
	exact := resilience.PolicyFunc(func(context.Context, resilience.Next) error {
		return resilience.WithRetryAfter(fmt.Errorf("secret: %w", resilience.ErrRefused), 1500*time.Microsecond)
	})
	for name, c := range map[string]struct {
		policy resilience.Policy
		want   codes.Code
		known  bool
		ms     string
	}{
		"open": {policy: open, want: codes.Unavailable, known: true}, "limited": {policy: limited, want: codes.ResourceExhausted, known: true},
		"forced": {policy: forced, want: codes.Unavailable}, "exact": {policy: exact, want: codes.Unavailable, known: true, ms: "2"},
	} {
		ran := false
		s := both(func(context.Context) error { ran = true; return nil })
		client := testpb.NewTestServiceClient(dialOnly(t, loopback(t, s, guardedBy(c.policy)...)))
		errs, trailers := callBoth(t, client)
		for i, err := range errs {
			got := status.Convert(err)
			if got.Code() != c.want || ran {
				t.Errorf("%s: got %v, handler ran %t, want %v before the handler", name, err, ran, c.want)
			}
			if message := got.Message(); message == "" || strings.Contains(message, "secret") {
				t.Errorf("%s: got message %q, want one that names no policy", name, message)
			}
			pushback := trailers[i]["grpc-retry-pushback-ms"]
			if !c.known {
				if len(got.Details()) != 0 || pushback != nil {
					t.Errorf("%s: got details %v and pushback %v, want none", name, got.Details(), pushback)
				}
				continue
			}
			if len(got.Details()) != 1 || len(pushback) != 1 || c.ms != "" && pushback[0] != c.ms {
				t.Errorf("%s: got details %v and pushback %v, want both, %s", name, got.Details(), pushback, c.ms)
				continue
			}
			if info, ok := got.Details()[0].(*errdetails.RetryInfo); !ok || info.RetryDelay.AsDuration() <= 0 {
				t.Errorf("%s: got %v, want a positive RetryInfo", name, got.Details()[0])
			}
		}
	}
}

// Rule 11: a timeout of the policy is DeadlineExceeded. Rule 12: a late failure too; a late reply and
// a late answer count.
func TestServerLateResults(t *testing.T) {
	answer := status.Error(codes.NotFound, "no such user")
	for name, c := range map[string]struct {
		err  error
		want codes.Code
	}{"reply": {nil, codes.OK}, "answer": {answer, codes.NotFound}, "failure": {status.Error(codes.Internal, "bug"), codes.DeadlineExceeded}} {
		synctest.Test(t, func(t *testing.T) {
			client, stop := inMemoryServer(t, both(func(context.Context) error { time.Sleep(2 * time.Second); return c.err }),
				guardedBy(timeout.New(timeout.Config{Name: "secret", Limit: time.Second})))
			defer stop()
			errs, _ := callBoth(t, client)
			for _, err := range errs {
				if status.Code(err) != c.want {
					t.Errorf("late %s: got %v, want %v", name, err, c.want)
				}
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		client, stop := inMemoryServer(t, both(func(context.Context) error { time.Sleep(time.Minute); return nil }),
			guardedBy(timeout.New(timeout.Config{Name: "secret", Limit: time.Second, Abandon: 10})))
		defer stop()
		errs, _ := callBoth(t, client)
		for _, err := range errs {
			if got := status.Convert(err); got.Code() != codes.DeadlineExceeded || got.Message() != "the call took too long" {
				t.Errorf("abandoned: got %v, want DeadlineExceeded", err)
			}
		}
		time.Sleep(2 * time.Minute)
	})
}

// Rule 11: a handler never runs twice, whatever the policy does and whatever marks its error has, and
// its error passes.
func TestServerNeverRunsHandlerTwice(t *testing.T) {
	thrice := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) (err error) {
		for range 3 {
			err = next.Run(ctx)
		}
		return err
	})
	forking := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		forks := []resilience.Next{next.Fork(), next.Fork()}
		var err error
		for _, fork := range forks {
			err = fork.Run(ctx)
			next.Adopt(fork)
		}
		return err
	})
	for _, policy := range []resilience.Policy{thrice, forking, retries()} {
		for _, own := range []error{
			nil, unavailable, resilience.NotMade(unavailable), resilience.Contention(unavailable), errors.New("plain"),
		} {
			var calls atomic.Int32
			client := testpb.NewTestServiceClient(dialOnly(t, loopback(t, both(func(context.Context) error { calls.Add(1); return own }), guardedBy(policy)...)))
			errs, _ := callBoth(t, client)
			for _, err := range errs {
				if got, want := status.Convert(err), status.Convert(own); got.Code() != want.Code() || got.Message() != want.Message() {
					t.Errorf("%T: got %v, want the handler's %v", policy, err, own)
				}
			}
			if got := calls.Load(); got != 2 {
				t.Errorf("%T, %v: got %d calls of 2 handlers, want 2", policy, own, got)
			}
		}
	}
}

// Rule 11: a policy that runs the handler again while it is running gets an error that is Internal,
// wrapped or not.
func TestServerRefusesConcurrentRun(t *testing.T) {
	for _, format := range []string{"", "policy: %w"} {
		started, release := make(chan struct{}), make(chan struct{})
		twice := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			fork := next.Fork()
			var first errgroup.Group
			first.Go(func() error { return fork.Run(ctx) })
			<-started
			err := next.Run(ctx)
			release <- struct{}{}
			if err := first.Wait(); err != nil {
				t.Errorf("got %v from the first run, want nil", err)
			}
			if format != "" {
				err = fmt.Errorf(format, err)
			}
			return err
		})
		handler := func(context.Context) error {
			started <- struct{}{}
			<-release
			return nil
		}
		errs, _ := callBoth(t, testpb.NewTestServiceClient(dialOnly(t, loopback(t, both(handler), guardedBy(twice)...))))
		for _, err := range errs {
			if got := status.Convert(err); got.Code() != codes.Internal || !strings.Contains(got.Message(), "never run twice") {
				t.Errorf("format %q: got %v, want an Internal that says that a handler is never run twice", format, err)
			}
		}
	}
}

// Rule 11: a policy that returns nil without a call.
func TestServerPolicyReturnsNilWithoutCall(t *testing.T) {
	nothing := resilience.PolicyFunc(func(context.Context, resilience.Next) error { return nil })
	errs, _ := callBoth(t, testpb.NewTestServiceClient(dialOnly(t, loopback(t, both(func(context.Context) error { return nil }), guardedBy(nothing)...))))
	for _, err := range errs {
		if status.Code(err) != codes.Internal {
			t.Errorf("got %v, want Internal", err)
		}
	}
}

// Rule 12: a policy can't turn the handler's error into a success.
func TestServerHandlersErrorPassesIfPolicyReturnsNil(t *testing.T) {
	swallowing := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		next.Run(ctx)
		return nil
	})
	s := both(func(context.Context) error { return unavailable })
	errs, _ := callBoth(t, testpb.NewTestServiceClient(dialOnly(t, loopback(t, s, guardedBy(swallowing)...))))
	for _, err := range errs {
		if got := status.Convert(err); got.Code() != codes.Unavailable || got.Message() != "overloaded" {
			t.Errorf("got %v, want the handler's error", err)
		}
	}
}

// Rule 12: the handler's error passes unchanged, even if a policy wraps it or it is another
// dependency's refusal; what it is to the policy follows from the code that gRPC assigns to it.
func TestServerHandlersErrorPasses(t *testing.T) {
	withDetails, err := status.New(codes.Aborted, "conflict").WithDetails(&testpb.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	open := breaker.New(breaker.Config{Name: "downstream"})
	open.ForceOpen()
	refusal := resilience.Run(t.Context(), open, func(context.Context) error { return nil })
	for name, c := range map[string]struct {
		err  error
		mark string
	}{
		"details":    {withDetails.Err(), "NotFailure"},
		"wrapped":    {fmt.Errorf("handler: %w", withDetails.Err()), "NotFailure"},
		"plain":      {errors.New("plain"), ""},
		"canceled":   {context.Canceled, "NotFailure"},
		"deadline":   {context.DeadlineExceeded, ""},
		"refusal":    {refusal, ""},
		"timeout":    {&timeout.Error{Name: "downstream"}, ""},
		"exhausted":  {status.Error(codes.ResourceExhausted, "quota"), "NotFailure"},
		"not found":  {status.Error(codes.NotFound, "no"), "NotFailure"},
		"not marked": {resilience.CallerFault(status.Error(codes.DataLoss, "lost")), ""},
	} {
		s := both(func(context.Context) error { return c.err })
		want, _ := callBoth(t, testpb.NewTestServiceClient(dialOnly(t, loopback(t, s))))
		var w watcher
		wrap := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			if err := next.Run(ctx); err != nil {
				return fmt.Errorf("policy: %w", err)
			}
			return nil
		})
		for _, policies := range [][]resilience.Policy{{&w}, {wrap, &w}} {
			got, _ := callBoth(t, testpb.NewTestServiceClient(dialOnly(t, loopback(t, s, guardedBy(policies...)...))))
			for i := range got {
				if !proto.Equal(status.Convert(got[i]).Proto(), status.Convert(want[i]).Proto()) {
					t.Errorf("%s: got %v, want %v as from a plain server", name, got[i], want[i])
				}
			}
		}
		for _, err := range w.errs {
			if got := marks(err); got != c.mark {
				t.Errorf("%s: got %q, want %q", name, got, c.mark)
			}
		}
	}
}

// Rule 13: an error after the request's context has ended is the caller's fault.
func TestServerErrorAfterClientLeft(t *testing.T) {
	for name, failure := range map[string]error{"failure": status.Error(codes.Internal, "x"), "answer": status.Error(codes.NotFound, "x")} {
		synctest.Test(t, func(t *testing.T) {
			errs := make(chan error, 4)
			watch := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
				err := next.Run(ctx)
				errs <- err
				return err
			})
			client, stop := inMemoryServer(t, both(func(ctx context.Context) error { <-ctx.Done(); return failure }), guardedBy(watch))
			defer stop()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			client.EmptyCall(ctx, &testpb.Empty{})
			left, leave := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, leave)
			stream, err := client.StreamingOutputCall(left, &outputRequest{})
			if err != nil {
				t.Fatal(err)
			}
			stream.Recv()
			for range 2 {
				if err := <-errs; marks(err) != "CallerFault" {
					t.Errorf("%s: got %v marked %q, want CallerFault", name, err, marks(err))
				}
			}
		})
	}
}

// Rule 14: panics pass, with Abandon as a *resilience.PanicError, to a recovery interceptor outside
// or inside.
func TestServerPanicsPass(t *testing.T) {
	for _, abandon := range []int{0, 10} {
		for _, inside := range []bool{false, true} {
			got := make(chan any, 1)
			recovery := grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (_ any, err error) {
				defer func() {
					if value := recover(); value != nil {
						got <- value
						err = status.Error(codes.Internal, "recovered")
					}
				}()
				return handler(ctx, req)
			})
			options := append([]grpc.ServerOption{recovery}, guardedBy(timeout.New(timeout.Config{Limit: ample, Abandon: abandon}))...)
			if inside {
				options = append(guardedBy(timeout.New(timeout.Config{Limit: ample, Abandon: abandon})), recovery)
			}
			client := testpb.NewTestServiceClient(dialOnly(t, loopback(t, &service{empty: func(context.Context) error { panic("mine") }}, options...)))
			client.EmptyCall(t.Context(), &testpb.Empty{})
			value := <-got
			p, ok := value.(*resilience.PanicError)
			if ok {
				value = p.Value
			}
			if want := abandon > 0 && !inside; value != "mine" || ok != want {
				t.Errorf("abandon %d, inside %t: got %v, a PanicError %t, want mine, %t", abandon, inside, value, ok, want)
			}
		}
	}
}

// Rule 14: an interceptor inside covers an abandoned handler too.
func TestServerRecoveryInsideCoversAbandonedHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		recovered := make(chan any, 1)
		options := append(guardedBy(timeout.New(timeout.Config{Limit: time.Second, Abandon: 10})),
			grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
				defer func() { recovered <- recover() }()
				return handler(ctx, req)
			}))
		client, stop := inMemoryServer(t, &service{empty: func(context.Context) error { time.Sleep(time.Minute); panic("late") }}, options)
		defer stop()
		client.EmptyCall(t.Context(), &testpb.Empty{})
		if got := <-recovered; got != "late" {
			t.Errorf("got %v, want the late panic", got)
		}
	})
}

// Rule 15: a stream's handler has the policy's context and runs inside the policy to its end.
func TestServerStreamRunsInsidePolicy(t *testing.T) {
	inside := false
	policy := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		inside = true
		defer func() { inside = false }()
		return next.Run(context.WithValue(ctx, contextKey{}, "value"))
	})
	client := testpb.NewTestServiceClient(dialOnly(t, loopback(t, &service{duplex: func(stream testpb.TestService_FullDuplexCallServer) error {
		stream.SetTrailer(metadata.Pairs("key", "trailer"))
		if err := errors.Join(stream.SetHeader(metadata.Pairs("key", "set")), stream.SendHeader(metadata.Pairs("key", "sent"))); err != nil {
			t.Errorf("got %v from SetHeader and SendHeader, want nil", err)
		}
		for {
			if !inside || stream.Context().Value(contextKey{}) != "value" {
				t.Errorf("got inside %t and value %v, want the policy's context", inside, stream.Context().Value(contextKey{}))
			}
			if _, err := stream.Recv(); err != nil {
				return nil
			}
			stream.Send(body("x"))
		}
	}}, guardedBy(policy)...)))
	stream, err := client.FullDuplexCall(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		stream.Send(&outputRequest{})
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	stream.CloseSend()
	if _, err := stream.Recv(); err != io.EOF {
		t.Errorf("got %v, want EOF", err)
	}
	header, err := stream.Header()
	if got := header["key"]; !slices.Equal(got, []string{"set", "sent"}) || err != nil {
		t.Errorf("got header %v, %v, want set and sent", got, err)
	}
	if got := stream.Trailer()["key"]; !slices.Equal(got, []string{"trailer"}) {
		t.Errorf("got trailer %v, want trailer", got)
	}
}

// Rule 15: after the call is over, the stream of an abandoned handler returns errors.
func TestServerStreamOfAbandonedHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		errs := make(chan []error, 1)
		client, stop := inMemoryServer(t, &service{duplex: func(stream testpb.TestService_FullDuplexCallServer) error {
			stream.Send(body("early"))
			time.Sleep(time.Minute)
			_, err := stream.Recv()
			stream.SetTrailer(metadata.Pairs("late", "1"))
			errs <- []error{stream.Send(body("late")), err, stream.SetHeader(metadata.Pairs("late", "1")), stream.SendHeader(nil)}
			return nil
		}}, guardedBy(timeout.New(timeout.Config{Limit: time.Second, Abandon: 10})))
		defer stop()
		stream, err := client.FullDuplexCall(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("got %v, want DeadlineExceeded", err)
		}
		for i, err := range <-errs {
			if err == nil {
				t.Errorf("method %d of an abandoned stream returned nil, want an error", i)
			}
		}
	})
}

// Health checks bypass the policy by default.
func TestServerSkips(t *testing.T) {
	b := breaker.New(breaker.Config{})
	b.ForceOpen()
	calls, empty := failFirst(0, nil)
	skip := resiliencegrpc.ServerOptions(resiliencegrpc.ServerConfig{Policy: b, Skip: func(method string) bool {
		return method == testpb.TestService_EmptyCall_FullMethodName
	}})
	client := testpb.NewTestServiceClient(dialOnly(t, loopback(t, &service{empty: empty}, skip...)))
	if _, err := client.EmptyCall(t.Context(), &testpb.Empty{}); err != nil || calls.Load() != 1 {
		t.Errorf("got %v, want the skipped method to be called", err)
	}
	if _, err := client.UnaryCall(t.Context(), &testpb.SimpleRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v, want a refusal of the other method", err)
	}
	for method, want := range map[string]codes.Code{
		"/grpc.health.v1.Health/Watch":                   codes.Unimplemented,
		testpb.TestService_FullDuplexCall_FullMethodName: codes.Unavailable,
	} {
		conn := dialOnly(t, loopback(t, &service{}, guardedBy(b)...))
		stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.RecvMsg(&testpb.Empty{}); status.Code(err) != want {
			t.Errorf("%s: got %v, want %v", method, err, want)
		}
	}
}

// A client and a server of this module agree on when to retry.
func TestServerRefusalIsRetriedByClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{Consecutive: 1, OpenFor: 10 * time.Second})
		calls, empty := failFirst(1, unavailable)
		client, stop := inMemoryServer(t, &service{empty: empty}, guardedBy(b),
			resiliencegrpc.DialOptions(everyRepeatable(retry.New(retry.Config{Backoff: retry.Constant(0)})))...)
		defer stop()
		begun := time.Now()
		if _, err := client.EmptyCall(t.Context(), &testpb.Empty{}); err != nil {
			t.Fatal(err)
		}
		if got := time.Since(begun); calls.Load() != 2 || got < 9*time.Second || got > 11*time.Second {
			t.Errorf("got %d calls after %v, want the second one when the breaker is open no longer", calls.Load(), got)
		}
	})
}
