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
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/resiliencegrpc"
	"github.com/effector-go/resilience/timeout"
)

func TestConfigValidateNamesAllMistakes(t *testing.T) {
	err := resiliencegrpc.Config{MaxKeys: -1, IdleAfter: -time.Second}.Validate()
	want := "resiliencegrpc: Policies is nil, must be a function\n" +
		"resiliencegrpc: MaxKeys is -1, must be at least 1, or 0 for 10000\n" +
		"resiliencegrpc: IdleAfter is -1s, must be positive, or 0 for 15m"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if err := every().Validate(); err != nil {
		t.Errorf("got %v for a valid Config, want nil", err)
	}
}

func TestServerConfigValidateNamesMistake(t *testing.T) {
	err := resiliencegrpc.ServerConfig{}.Validate()
	if want := "resiliencegrpc: Policy is nil, must be a Policy"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestOptionsPanicIfInvalid(t *testing.T) {
	for want, construct := range map[string]func(){
		"resiliencegrpc: Policies is nil, must be a function": func() { resiliencegrpc.DialOptions(resiliencegrpc.Config{}) },
		"resiliencegrpc: Policy is nil, must be a Policy":     func() { resiliencegrpc.ServerOptions(resiliencegrpc.ServerConfig{}) },
		"resilience: Compose: policies[0][1] is nil (<nil>), must be a Policy": func() {
			resiliencegrpc.ServerOptions(resiliencegrpc.ServerConfig{Policy: resilience.Pipeline{passed, nil}})
		},
	} {
		func() {
			defer func() {
				if got := fmt.Sprint(recover()); got != want {
					t.Errorf("got panic %q, want %q", got, want)
				}
			}()
			construct()
		}()
	}
}

func TestDefaultFailed(t *testing.T) {
	want := map[codes.Code]bool{
		codes.Unknown: true, codes.DeadlineExceeded: true, codes.Internal: true, codes.Unavailable: true, codes.DataLoss: true, codes.ResourceExhausted: true,
	}
	for code := codes.OK; code <= codes.Unauthenticated+1; code++ {
		if got := resiliencegrpc.DefaultFailed(code); got != want[code] {
			t.Errorf("%v: got %t, want %t", code, got, want[code])
		}
	}
}

func TestDefaultRetryable(t *testing.T) {
	info := func(code codes.Code) error {
		return detailed(t, code, "later", &errdetails.RetryInfo{RetryDelay: durationpb.New(time.Second)}).Err()
	}
	for _, c := range []struct {
		err  error
		want bool
	}{
		{nil, false}, {unavailable, true}, {fmt.Errorf("wrapped: %w", unavailable), true}, {errors.New("plain"), false},
		{status.Error(codes.ResourceExhausted, "busy"), false}, {info(codes.ResourceExhausted), true},
		{status.Error(codes.Aborted, "conflict"), false}, {info(codes.Aborted), true}, {info(codes.Internal), false},
		{resilience.WithRetryAfter(status.Error(codes.Aborted, "conflict"), time.Second), true},
		{context.DeadlineExceeded, false},
	} {
		if got := resiliencegrpc.DefaultRetryable(c.err); got != c.want {
			t.Errorf("%v: got %t, want %t", c.err, got, c.want)
		}
	}
}

// The code of a call's error is that of its status, even if it wraps an attempt's error with another.
func TestDefaultRetryableUsesStatusOfCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, stop := inMemory(t, &service{}, every(timeout.After(time.Second)),
			inner(func(context.Context, string, any, any, *grpc.ClientConn, grpc.UnaryInvoker, ...grpc.CallOption) error {
				time.Sleep(2 * time.Second) // ignores its context
				return unavailable
			}))
		defer stop()
		_, err := client.EmptyCall(t.Context(), &testpb.Empty{})
		if status.Code(err) != codes.DeadlineExceeded || !errors.Is(err, unavailable) {
			t.Fatalf("got %v, want a DeadlineExceeded that wraps %v", err, unavailable)
		}
		if resiliencegrpc.DefaultRetryable(err) {
			t.Errorf("%v: got true, want false", err)
		}
	})
}

// A pushback that forbids retries is found in the error of a call too, for retries outside the call.
func TestDefaultRetryableObeysPushbackOfCall(t *testing.T) {
	wrapping := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		return fmt.Errorf("policy: %w", next.Run(ctx))
	})
	for _, c := range []struct {
		code     codes.Code
		pushback string
		want     bool
	}{{codes.Unavailable, "-1", false}, {codes.Unavailable, "0", true}, {codes.Aborted, "-1", false}, {codes.Aborted, "0", true}} {
		address := loopback(t, &service{empty: func(ctx context.Context) error {
			grpc.SetTrailer(ctx, metadata.Pairs("grpc-retry-pushback-ms", c.pushback))
			return status.Error(c.code, "busy")
		}})
		_, err := testpb.NewTestServiceClient(dial(t, address, every(wrapping))).EmptyCall(t.Context(), &testpb.Empty{})
		if got := resiliencegrpc.DefaultRetryable(err); got != c.want {
			t.Errorf("pushback %s, %v: got %t, want %t", c.pushback, err, got, c.want)
		}
	}
}

// A key whose breaker is open is kept beyond MaxKeys; a healthy one is evicted.
func TestPoliciesOfUnhealthyKeysAreKept(t *testing.T) {
	made := map[string]int{}
	address := loopback(t, &service{empty: func(context.Context) error { return unavailable }})
	conn := dial(t, address, resiliencegrpc.Config{
		MaxKeys: 1,
		Key:     func(_, method string) string { return method },
		Policies: func(key string) resilience.Policy {
			made[key]++
			return resilience.Pipeline{resilience.Pipeline{breaker.New(breaker.Config{Name: key, Consecutive: 1, OpenFor: time.Hour, MaxOpenFor: time.Hour})}}
		},
	})
	client := testpb.NewTestServiceClient(conn)
	for range 3 {
		client.EmptyCall(t.Context(), &testpb.Empty{})         // opens
		client.UnimplementedCall(t.Context(), &testpb.Empty{}) // healthy
	}
	if got := made[testpb.TestService_EmptyCall_FullMethodName]; got != 1 {
		t.Errorf("got the policy of the unhealthy key made %d times, want once", got)
	}
}
