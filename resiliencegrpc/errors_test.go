package resiliencegrpc_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/bulkhead"
	"github.com/effector-go/resilience/ratelimit"
	"github.com/effector-go/resilience/resiliencegrpc"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// inner returns a dial option for an interceptor that sees each attempt.
func inner(intercept grpc.UnaryClientInterceptor) grpc.DialOption {
	return grpc.WithChainUnaryInterceptor(intercept)
}

// passed is a policy that does nothing.
var passed = resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error { return next.Run(ctx) })

func detailed(t *testing.T, code codes.Code, text string, details *errdetails.RetryInfo) *status.Status {
	t.Helper()
	s, err := status.New(code, text).WithDetails(details)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Rule 1: an error that no policy wrapped is gRPC's own value, whatever its mark.
func TestDialOptionsReturnsGRPCsOwnError(t *testing.T) {
	for _, code := range []codes.Code{codes.NotFound, codes.Unavailable, codes.Internal, codes.Aborted, codes.Canceled} {
		var own error
		address := loopback(t, &service{empty: func(context.Context) error { return status.Error(code, "no") }})
		conn := dial(t, address, every(retry.New(retry.Config{MaxAttempts: 3}), breaker.New(breaker.Config{}), passed),
			inner(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
				own = invoker(ctx, method, req, reply, cc, opts...)
				return own
			}))
		_, err := testpb.NewTestServiceClient(conn).EmptyCall(t.Context(), &testpb.Empty{})
		if err != own || err == nil {
			t.Errorf("%v: got %#v, want gRPC's own %#v", code, err, own)
		}
	}
}

// Rule 1: an answer is gRPC's own value, even if a timeout has wrapped it because it is late.
func TestDialOptionsReturnsLateAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer := status.Error(codes.NotFound, "no such user")
		var own error
		client, stop := inMemory(t, &service{empty: func(context.Context) error { time.Sleep(2 * time.Second); return answer }}, every(timeout.After(time.Second)),
			inner(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
				own = invoker(context.WithoutCancel(ctx), method, req, reply, cc, opts...)
				return own
			}))
		defer stop()
		if _, err := client.EmptyCall(t.Context(), &testpb.Empty{}); err != own || status.Code(err) != codes.NotFound {
			t.Errorf("got %v, want gRPC's own %v", err, own)
		}
	})
}

// Rule 1: every other error has a status on its outermost value, and unwraps to the policies' error.
func TestDialOptionsGivesPolicyErrorsAStatus(t *testing.T) {
	opened := breaker.New(breaker.Config{Name: "users", OpenFor: time.Minute, MaxOpenFor: time.Minute})
	resilience.Run(t.Context(), opened, func(context.Context) error { return nil })
	for range 5 {
		resilience.Run(t.Context(), opened, func(context.Context) error { return errors.New("down") })
	}
	full := bulkhead.New(bulkhead.Config{Limit: 1})
	hold := make(chan struct{})
	held := make(chan struct{})
	go resilience.Run(context.Background(), full, func(context.Context) error { close(held); <-hold; return nil })
	<-held
	defer close(hold)
	limited := ratelimit.New(ratelimit.Config{Rate: 0.001, Burst: 1})
	resilience.Run(t.Context(), limited, func(context.Context) error { return nil })
	own := errors.New("my policy")
	failing := resilience.PolicyFunc(func(context.Context, resilience.Next) error { return own })
	server := detailed(t, codes.Unavailable, "overloaded", &errdetails.RetryInfo{RetryDelay: durationpb.New(time.Hour)})
	wrapping := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		return fmt.Errorf("wrapped: %w", next.Run(ctx))
	})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()

	for name, c := range map[string]struct {
		policy resilience.Policy
		ctx    context.Context
		inner  error // returned by an inner interceptor instead of the server
		want   codes.Code
		info   bool // has a RetryInfo
		is     func(error) bool
	}{
		"canceled":       {policy: passed, ctx: ended, want: codes.Canceled, is: func(err error) bool { return errors.Is(err, context.Canceled) }},
		"deadline":       {policy: passed, ctx: late, want: codes.DeadlineExceeded, is: func(err error) bool { return errors.Is(err, context.DeadlineExceeded) }},
		"open":           {policy: opened, want: codes.Unavailable, info: true, is: func(err error) bool { var e *breaker.OpenError; return errors.As(err, &e) }},
		"full":           {policy: full, want: codes.Unavailable, is: func(err error) bool { return errors.Is(err, resilience.ErrRefused) }},
		"limited":        {policy: limited, want: codes.ResourceExhausted, info: true, is: func(err error) bool { return errors.Is(err, resilience.ErrRefused) }},
		"own":            {policy: failing, want: codes.Unknown, is: func(err error) bool { return errors.Is(err, own) }},
		"own status":     {policy: resilience.PolicyFunc(func(context.Context, resilience.Next) error { return status.Error(codes.PermissionDenied, "no") }), want: codes.PermissionDenied, is: func(error) bool { return true }},
		"nil":            {policy: resilience.PolicyFunc(func(context.Context, resilience.Next) error { return nil }), want: codes.Internal, is: func(error) bool { return true }},
		"exhausted":      {policy: retry.New(retry.Config{MaxAttempts: 2}), inner: server.Err(), want: codes.Unavailable, info: true, is: func(err error) bool { var e *retry.ExhaustedError; return errors.As(err, &e) }},
		"wrapped":        {policy: wrapping, inner: server.Err(), want: codes.Unavailable, info: true, is: func(err error) bool { return errors.Is(err, server.Err()) }},
		"inside attempt": {policy: wrapping, inner: fmt.Errorf("inner: %w", errors.Join(timeout.ErrTimeout, resilience.ErrRefused)), want: codes.Unknown, is: func(err error) bool { return errors.Is(err, timeout.ErrTimeout) }},
	} {
		config := everyRepeatable(c.policy)
		conn := dial(t, loopback(t, &service{empty: func(context.Context) error { return nil }}), config,
			inner(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
				if c.inner != nil {
					return c.inner
				}
				return invoker(ctx, method, req, reply, cc, opts...)
			}))
		ctx := c.ctx
		if ctx == nil {
			ctx = t.Context()
		}
		_, err := testpb.NewTestServiceClient(conn).EmptyCall(ctx, &testpb.Empty{})
		outermost, ok := err.(interface{ GRPCStatus() *status.Status })
		if !ok {
			t.Errorf("%s: got %T, want an error with GRPCStatus", name, err)
			continue
		}
		s := outermost.GRPCStatus()
		if s.Code() != c.want || !c.is(err) {
			t.Errorf("%s: got %v (%#v), want %v", name, s, err, c.want)
		}
		info := len(s.Details()) == 1
		if info != c.info {
			t.Errorf("%s: got details %v, want RetryInfo %t", name, s.Details(), c.info)
		}
		if (name == "exhausted" || name == "wrapped") && !proto.Equal(s.Proto(), server.Proto()) {
			t.Errorf("%s: got %v, want exactly the server's status %v", name, s.Proto(), server.Proto())
		}
	}
}

// Rule 1: a limit that passes is DeadlineExceeded, and the error is still timeout's.
func TestDialOptionsReportsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, stop := inMemory(t, &service{empty: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}, every(timeout.After(time.Second)))
		defer stop()
		_, err := client.EmptyCall(t.Context(), &testpb.Empty{})
		if status.Code(err) != codes.DeadlineExceeded || !errors.Is(err, timeout.ErrTimeout) {
			t.Errorf("got %v, want a DeadlineExceeded that is ErrTimeout", err)
		}
	})
}

// Rule 1: a policy that returns nil after a failed attempt returns the attempt's error.
func TestDialOptionsReturnsAttemptsErrorForNil(t *testing.T) {
	swallow := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error { next.Run(ctx); return nil })
	forking := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error { next.Fork().Run(ctx); return nil })
	for _, policy := range []resilience.Policy{swallow, forking} {
		conn := dial(t, loopback(t, &service{empty: func(context.Context) error { return unavailable }}), every(policy))
		_, err := testpb.NewTestServiceClient(conn).EmptyCall(t.Context(), &testpb.Empty{})
		if got := status.Convert(err); got.Code() != codes.Unavailable || got.Message() != "overloaded" {
			t.Errorf("got %v, want the attempt's error", err)
		}
	}
}

// The error names the key for which Policies returned nil.
func TestDialOptionsNamesKeyWithoutPolicy(t *testing.T) {
	config := resiliencegrpc.Config{
		Policies: func(string) resilience.Policy { return nil },
		Key:      func(target, method string) string { return "the key of " + method },
	}
	conn := dial(t, "passthrough:///127.0.0.1:1", config)
	var finished []error
	client := testpb.NewTestServiceClient(conn)
	onFinish := grpc.OnFinish(func(err error) { finished = append(finished, err) })
	_, err := client.EmptyCall(t.Context(), &testpb.Empty{}, onFinish)
	want := `resiliencegrpc: Policies returned nil for "the key of /grpc.testing.TestService/EmptyCall", must return a Policy`
	if got := status.Convert(err); got.Code() != codes.Internal || got.Message() != want {
		t.Errorf("got %v, want Internal: %s", err, want)
	}
	_, streamErr := client.StreamingOutputCall(t.Context(), &testpb.StreamingOutputCallRequest{}, onFinish)
	_, duplexErr := client.FullDuplexCall(t.Context(), onFinish)
	if status.Code(streamErr) != codes.Internal || status.Code(duplexErr) != codes.Internal {
		t.Errorf("got %v and %v, want Internal", streamErr, duplexErr)
	}
	if len(finished) != 3 || finished[0] != err || finished[1] != streamErr || finished[2] != duplexErr {
		t.Errorf("OnFinish got %v, want the three errors", finished)
	}
}

// Rule 4: the pushback trailer, otherwise a positive RetryInfo, is the RetryAfter.
func TestRetryAfterIsServersPushback(t *testing.T) {
	const longest = 1<<63 - 1
	info := func(d time.Duration) *errdetails.RetryInfo {
		return &errdetails.RetryInfo{RetryDelay: durationpb.New(d)}
	}
	for _, c := range []struct {
		pushback []string
		info     *errdetails.RetryInfo
		after    time.Duration
		retried  bool // ResourceExhausted is tried again only if the server states when
	}{
		{nil, nil, 0, false},
		{[]string{"0"}, nil, 0, true},
		{[]string{"-0"}, nil, 0, true},
		{[]string{"250"}, nil, 250 * time.Millisecond, true},
		{[]string{"250"}, info(time.Hour), 250 * time.Millisecond, true},
		{[]string{"0"}, info(time.Hour), 0, true},
		{nil, info(time.Second), time.Second, true},
		{nil, info(0), 0, false},
		{nil, info(-time.Second), 0, false},
		{[]string{"-1"}, info(time.Second), 0, false},
		{[]string{"soon"}, info(time.Second), 0, false},
		{[]string{""}, nil, 0, false},
		{[]string{"1.5"}, nil, 0, false},
		{[]string{"5", "5"}, info(time.Second), 0, false},
		{[]string{"9223372036854"}, nil, 9223372036854 * time.Millisecond, true},
		{[]string{"9223372036855"}, nil, longest, true},
		{[]string{"99999999999999999999999"}, nil, longest, true},
		{[]string{"-99999999999999999999999"}, nil, 0, false},
	} {
		var seen []error
		watch := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			err := next.Run(ctx)
			seen = append(seen, err)
			return err
		})
		address := loopback(t, &service{empty: func(ctx context.Context) error {
			for _, value := range c.pushback {
				grpc.SetTrailer(ctx, metadata.Pairs("grpc-retry-pushback-ms", value))
			}
			if c.info == nil {
				return status.Error(codes.ResourceExhausted, "overloaded")
			}
			return detailed(t, codes.ResourceExhausted, "overloaded", c.info).Err()
		}})
		r := retry.New(retry.Config{MaxAttempts: 2, MaxRetryAfter: 250 * time.Millisecond, Backoff: retry.Constant(0)})
		_, err := testpb.NewTestServiceClient(dial(t, address, everyRepeatable(r, watch))).EmptyCall(t.Context(), &testpb.Empty{})
		if after, _ := resilience.RetryAfter(seen[0]); after != c.after {
			t.Errorf("%q, %v: got RetryAfter %v, want %v", c.pushback, c.info, after, c.after)
		}
		var exhausted *retry.ExhaustedError
		if got := errors.As(err, &exhausted); got != c.retried {
			t.Errorf("%q, %v: got %v, want retried %t", c.pushback, c.info, err, c.retried)
		}
	}
}

// Rule 4: pushback on an answer changes nothing.
func TestPushbackOnAnswerChangesNothing(t *testing.T) {
	for _, pushback := range []string{"-1", "100"} {
		for _, answer := range []error{nil, status.Error(codes.NotFound, "no")} {
			calls := 0
			var seen error
			watch := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
				seen = next.Run(ctx)
				return seen
			})
			address := loopback(t, &service{empty: func(ctx context.Context) error {
				calls++
				grpc.SetTrailer(ctx, metadata.Pairs("grpc-retry-pushback-ms", pushback))
				return answer
			}})
			conn := dial(t, address, everyRepeatable(retry.New(retry.Config{}), watch))
			_, err := testpb.NewTestServiceClient(conn).EmptyCall(t.Context(), &testpb.Empty{})
			if status.Code(err) != status.Code(answer) || calls != 1 {
				t.Errorf("pushback %s: got %v after %d calls, want %v after one", pushback, err, calls, answer)
			}
			if after, ok := resilience.RetryAfter(seen); ok {
				t.Errorf("pushback %s: got RetryAfter %v on an answer, want none", pushback, after)
			}
		}
	}
}
