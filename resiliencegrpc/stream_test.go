package resiliencegrpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/bulkhead"
	"github.com/effector-go/resilience/hedge"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// body returns a message of a server stream.
func body(text string) *testpb.StreamingOutputCallResponse {
	return &testpb.StreamingOutputCallResponse{Payload: &testpb.Payload{Body: []byte(text)}}
}

// receiveAll returns the bodies of all messages and the error that ends the stream, nil for io.EOF.
func receiveAll(stream testpb.TestService_StreamingOutputCallClient) (bodies []string, err error) {
	for {
		m, err := stream.Recv()
		if err == io.EOF {
			return bodies, nil
		}
		if err != nil {
			return bodies, err
		}
		bodies = append(bodies, string(m.GetPayload().GetBody()))
	}
}

type outputStream = testpb.TestService_StreamingOutputCallServer
type outputRequest = testpb.StreamingOutputCallRequest

// Rule 8: until its first message, a stream is opened again with the same request; afterwards, no
// message is delivered twice and none is lost.
func TestStreamRetriesUntilFirstMessage(t *testing.T) {
	var calls atomic.Int32
	var requests []string
	client := testpb.NewTestServiceClient(dial(t, loopback(t, &service{output: func(in *outputRequest, stream outputStream) error {
		requests = append(requests, in.GetPayload().String())
		switch calls.Add(1) {
		case 1:
			return unavailable
		case 2:
			stream.SendHeader(nil)
			return unavailable
		}
		for i := range 3 {
			stream.Send(body(fmt.Sprint(i)))
		}
		return unavailable
	}}), everyRepeatable(retries())))
	stream, err := client.StreamingOutputCall(t.Context(), &outputRequest{Payload: &testpb.Payload{Body: []byte("request")}})
	if err != nil {
		t.Fatal(err)
	}
	bodies, err := receiveAll(stream)
	if want := []string{"0", "1", "2"}; !slices.Equal(bodies, want) || status.Code(err) != codes.Unavailable {
		t.Errorf("got %v and %v, want %v and Unavailable", bodies, err, want)
	}
	if len(requests) != 3 || requests[0] == "" || requests[1] != requests[0] || requests[2] != requests[0] {
		t.Errorf("got requests %q, want the same one three times", requests)
	}
	if _, again := stream.Recv(); status.Code(again) != codes.Unavailable {
		t.Errorf("got %v from another Recv, want Unavailable again", again)
	}
}

// Rule 8: a stream that ends without a message is established by its end.
func TestStreamIsEstablishedByItsEnd(t *testing.T) {
	for name, output := range map[string]func(*outputRequest, outputStream) error{
		"trailers only": func(*outputRequest, outputStream) error { return nil },
		"headers":       func(_ *outputRequest, stream outputStream) error { return stream.SendHeader(nil) },
	} {
		var w watcher
		client := testpb.NewTestServiceClient(dial(t, loopback(t, &service{output: output}), everyRepeatable(retries(), &w)))
		stream, err := client.StreamingOutputCall(t.Context(), &outputRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if bodies, err := receiveAll(stream); len(bodies) != 0 || err != nil || len(w.errs) != 1 || w.errs[0] != nil {
			t.Errorf("%s: got %v, %v, and attempts %v, want an empty stream and one attempt", name, bodies, err, w.errs)
		}
	}
}

// Rule 8: the policies see the end of a stream that has no message before the caller receives.
func TestStreamEndsPoliciesBeforeRecv(t *testing.T) {
	for end, want := range map[error]int{nil: 1, unavailable: 3} {
		synctest.Test(t, func(t *testing.T) {
			var w watcher
			client, stop := inMemory(t, &service{output: func(*outputRequest, outputStream) error { return end }}, everyRepeatable(retries(), &w))
			defer stop()
			stream, err := client.StreamingOutputCall(t.Context(), &outputRequest{})
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if len(w.errs) != want {
				t.Errorf("end with %v: got attempts %v before Recv, want %d", end, w.errs, want)
			}
			if bodies, err := receiveAll(stream); len(bodies) != 0 || status.Code(err) != status.Code(end) {
				t.Errorf("got %v, %v, want no message and %v", bodies, err, end)
			}
		})
	}
}

// Nothing is known of a stream that an inner interceptor opens on another connection, so a request for
// the headers establishes it.
func TestStreamOnOtherConnection(t *testing.T) {
	other := dialOnly(t, loopback(t, &service{output: func(_ *outputRequest, stream outputStream) error {
		stream.SendHeader(metadata.Pairs("key", "value"))
		for i := range 3 {
			stream.Send(body(fmt.Sprint(i)))
		}
		return nil
	}}))
	client := testpb.NewTestServiceClient(dial(t, "passthrough:///none", everyRepeatable(retries()), grpc.WithChainStreamInterceptor(
		func(ctx context.Context, desc *grpc.StreamDesc, _ *grpc.ClientConn, method string, _ grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			return other.NewStream(ctx, desc, method, opts...)
		})))
	for _, withHeader := range []bool{false, true} {
		stream, err := client.StreamingOutputCall(t.Context(), &outputRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if withHeader {
			if header, err := stream.Header(); err != nil || !slices.Equal(header["key"], []string{"value"}) {
				t.Errorf("got header %v, %v, want the server's", header, err)
			}
		}
		if bodies, err := receiveAll(stream); !slices.Equal(bodies, []string{"0", "1", "2"}) || err != nil {
			t.Errorf("with Header %t: got %v, %v, want 0, 1, 2, and the end", withHeader, bodies, err)
		}
	}
}

// Rule 8: once Header was requested, the response headers establish the stream, so a later failure
// is the caller's.
func TestStreamIsEstablishedByRequestedHeaders(t *testing.T) {
	calls := 0
	client := testpb.NewTestServiceClient(dial(t, loopback(t, &service{output: func(_ *outputRequest, stream outputStream) error {
		if calls++; calls == 1 {
			return unavailable
		}
		stream.SendHeader(metadata.Pairs("call", fmt.Sprint(calls)))
		return unavailable
	}}), everyRepeatable(retries())))
	stream, err := client.StreamingOutputCall(t.Context(), &outputRequest{})
	if err != nil {
		t.Fatal(err)
	}
	header, err := stream.Header()
	if err != nil || !slices.Equal(header["call"], []string{"2"}) {
		t.Errorf("got headers %v, %v, want those of the second call", header, err)
	}
	if bodies, err := receiveAll(stream); len(bodies) != 0 || status.Code(err) != codes.Unavailable || calls != 2 {
		t.Errorf("got %v, %v after %d calls, want Unavailable after 2", bodies, err, calls)
	}
}

// Header returns nothing if the stream fails; RecvMsg returns the error, and Trailer the last
// attempt's trailer.
func TestStreamReportsFailureInRecv(t *testing.T) {
	calls := 0
	client := testpb.NewTestServiceClient(dial(t, loopback(t, &service{output: func(_ *outputRequest, stream outputStream) error {
		calls++
		stream.SetTrailer(metadata.Pairs("call", fmt.Sprint(calls)))
		return unavailable
	}}), everyRepeatable(retries())))
	var trailer metadata.MD
	var finished []error
	stream, err := client.StreamingOutputCall(t.Context(), &outputRequest{}, grpc.Trailer(&trailer), grpc.OnFinish(func(err error) { finished = append(finished, err) }))
	if err != nil {
		t.Fatal(err)
	}
	if header, err := stream.Header(); header != nil || err != nil {
		t.Errorf("got %v, %v from Header, want nothing", header, err)
	}
	_, err = stream.Recv()
	var exhausted *retry.ExhaustedError
	if got := status.Convert(err); got.Code() != codes.Unavailable || got.Message() != "overloaded" || !errors.As(err, &exhausted) {
		t.Errorf("got %v, want the server's status in an ExhaustedError", err)
	}
	if want := []string{"3"}; !slices.Equal(stream.Trailer()["call"], want) || !slices.Equal(trailer["call"], want) {
		t.Errorf("got trailers %v and %v, want those of call 3", stream.Trailer(), trailer)
	}
	if len(finished) != 1 || finished[0] != err {
		t.Errorf("OnFinish got %v, want %v once", finished, err)
	}
}

// Rule 8: a limit that passes before the response headers ends the attempt.
func TestStreamLimitEndsSilentAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int32
		client, stop := inMemory(t, &service{output: func(_ *outputRequest, stream outputStream) error {
			if calls.Add(1) == 1 {
				<-stream.Context().Done()
				return stream.Context().Err()
			}
			return stream.Send(body("second"))
		}}, everyRepeatable(retries(), timeout.After(time.Second)))
		defer stop()
		begun := time.Now()
		stream, err := client.StreamingOutputCall(t.Context(), &outputRequest{})
		if err != nil {
			t.Fatal(err)
		}
		bodies, err := receiveAll(stream)
		if !slices.Equal(bodies, []string{"second"}) || err != nil || time.Since(begun) != time.Second {
			t.Errorf("got %v, %v after %v, want the second attempt's message after 1s", bodies, err, time.Since(begun))
		}
	})
}

// Rule 8: a limit that passes while SendMsg waits for another connection ends the attempt.
func TestStreamLimitEndsBlockedSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w watcher
		var streams, connections atomic.Int32
		refuseAndClose := fault(func(w *wire, stream uint32) {
			refuse(w, stream)
			w.Close()
		})
		conn := dial(t, "passthrough:///blocked", everyRepeatable(timeout.After(2*time.Second), &w),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
				if connections.Add(1) > 1 {
					<-ctx.Done()
					return nil, ctx.Err()
				}
				client, server := net.Pipe()
				go serveWire(server, &streams, 1, refuseAndClose, nil)
				return client, nil
			}))
		begun := time.Now()
		stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, testpb.TestService_StreamingOutputCall_FullMethodName)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // the stream is refused, which SendMsg finds out
		if err = stream.SendMsg(&outputRequest{}); err == nil {
			err = stream.RecvMsg(body(""))
		}
		if got := time.Since(begun); status.Code(err) != codes.DeadlineExceeded || got != 2*time.Second || connections.Load() != 2 {
			t.Errorf("got %v after %v and %d connections, want DeadlineExceeded after 2s and 2", err, got, connections.Load())
		}
		if marks(w.errs[0]) != "NotMade" || status.Code(w.errs[0]) != codes.DeadlineExceeded {
			t.Errorf("got %v marked %q, want DeadlineExceeded marked NotMade", w.errs[0], marks(w.errs[0]))
		}
	})
}

// Header ends when the connection is closed, and RecvMsg returns the error.
func TestStreamHeaderEndsWithConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, stop := inMemory(t, &service{output: func(_ *outputRequest, stream outputStream) error {
			<-stream.Context().Done()
			return nil
		}}, everyRepeatable(retries()))
		stream, err := client.StreamingOutputCall(t.Context(), &outputRequest{})
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Second, stop)
		if header, err := stream.Header(); header != nil || err != nil {
			t.Errorf("got %v, %v from Header, want nothing", header, err)
		}
		if _, err := stream.Recv(); status.Code(err) != codes.Canceled {
			t.Errorf("got %v, want Canceled", err)
		}
	})
}

// Before a stream is established, its context is the caller's, and it has no trailer.
func TestStreamBeforeItIsEstablished(t *testing.T) {
	client := testpb.NewTestServiceClient(dial(t, loopback(t, &service{output: func(_ *outputRequest, stream outputStream) error {
		<-stream.Context().Done()
		return nil
	}}), every()))
	ctx := context.WithValue(t.Context(), contextKey{}, "caller's")
	stream, err := client.StreamingOutputCall(ctx, &outputRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if got := stream.Context(); got != ctx {
		t.Errorf("got the context %v, want the caller's", got)
	}
	if got := stream.Trailer(); got != nil {
		t.Errorf("got the trailer %v, want nil", got)
	}
}

// Rule 8: the error of a stream whose limit has passed.
func TestStreamReportsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w watcher
		client, stop := inMemory(t, &service{output: func(_ *outputRequest, stream outputStream) error {
			<-stream.Context().Done()
			return stream.Context().Err()
		}}, every(timeout.After(time.Second), &w))
		defer stop()
		stream, err := client.StreamingOutputCall(t.Context(), &outputRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); status.Code(err) != codes.DeadlineExceeded || !errors.Is(err, timeout.ErrTimeout) {
			t.Errorf("got %v, want a DeadlineExceeded that is ErrTimeout", err)
		}
		if status.Code(w.errs[0]) != codes.DeadlineExceeded || marks(w.errs[0]) != "" {
			t.Errorf("got %v marked %q, want DeadlineExceeded without a mark", w.errs[0], marks(w.errs[0]))
		}
	})
}

// Rule 8: a limit that passes after the response headers establishes the stream, whether the server is
// slow to send or the caller is slow to receive.
func TestStreamLimitEstablishesAfterHeaders(t *testing.T) {
	for _, slow := range []string{"server", "caller"} {
		synctest.Test(t, func(t *testing.T) {
			var w watcher
			client, stop := inMemory(t, &service{output: func(_ *outputRequest, stream outputStream) error {
				stream.SendHeader(nil)
				if slow == "server" {
					time.Sleep(time.Minute)
				}
				stream.Send(body("late"))
				return unavailable
			}}, everyRepeatable(retries(), timeout.After(time.Second), &w))
			defer stop()
			stream, err := client.StreamingOutputCall(t.Context(), &outputRequest{})
			if err != nil {
				t.Fatal(err)
			}
			if slow == "caller" {
				time.Sleep(time.Minute)
			}
			bodies, err := receiveAll(stream)
			if !slices.Equal(bodies, []string{"late"}) || status.Code(err) != codes.Unavailable || len(w.errs) != 1 || w.errs[0] != nil {
				t.Errorf("slow %s: got %v, %v, attempts %v, want the message, Unavailable, and one attempt without error", slow, bodies, err, w.errs)
			}
		})
	}
}

// Rule 9: a place in a bulkhead, and a breaker's probe, are released when the stream is established.
func TestStreamReleasesPlacesWhenEstablished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full := bulkhead.New(bulkhead.Config{Limit: 1})
		b := breaker.New(breaker.Config{})
		b.HalfOpen()
		client, stop := inMemory(t, &service{output: func(_ *outputRequest, stream outputStream) error {
			stream.Send(body("first"))
			<-stream.Context().Done()
			return nil
		}, duplex: func(stream testpb.TestService_FullDuplexCallServer) error {
			<-stream.Context().Done()
			return nil
		}}, every(full, b, timeout.After(time.Second)))
		defer stop()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for range 3 {
			stream, err := client.StreamingOutputCall(ctx, &outputRequest{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Recv(); err != nil {
				t.Fatal(err)
			}
			if _, err := client.FullDuplexCall(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if got := full.Snapshot().Running; got != 0 {
			t.Errorf("got %d places in use, want 0", got)
		}
		if got := b.State(); got != breaker.Closed {
			t.Errorf("got the breaker %v, want closed", got)
		}
		time.Sleep(time.Hour) // no limit applies
		if ctx.Err() != nil {
			t.Error("the streams' context has ended")
		}
	})
}

type contextKey struct{}

// Rule 9: the stream's context has the caller's end and deadline and the values of the policies'
// context, and the server sees only the caller's deadline.
func TestStreamContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		serverLeft := make(chan time.Duration, 10)
		see := func(ctx context.Context) {
			if deadline, ok := ctx.Deadline(); ok {
				serverLeft <- time.Until(deadline)
			} else {
				serverLeft <- 0
			}
		}
		value := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			return next.Run(context.WithValue(ctx, contextKey{}, "value"))
		})
		client, stop := inMemory(t, &service{output: func(_ *outputRequest, stream outputStream) error {
			see(stream.Context())
			return stream.Send(body("x"))
		}, duplex: func(stream testpb.TestService_FullDuplexCallServer) error {
			see(stream.Context())
			<-stream.Context().Done()
			return nil
		}}, every(timeout.After(time.Second), value))
		defer stop()
		for _, limit := range []time.Duration{0, time.Hour} {
			ctx, cancel := context.WithCancel(t.Context())
			if limit > 0 {
				ctx, cancel = context.WithTimeout(ctx, limit)
			}
			output, err := client.StreamingOutputCall(ctx, &outputRequest{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := output.Recv(); err != nil {
				t.Fatal(err)
			}
			duplex, err := client.FullDuplexCall(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for _, stream := range []grpc.ClientStream{output, duplex} {
				inside := stream.Context()
				deadline, ok := inside.Deadline()
				want, wantOK := ctx.Deadline()
				if !deadline.Equal(want) || ok != wantOK || inside.Value(contextKey{}) != "value" || inside.Err() != nil {
					t.Errorf("got deadline %v %t, value %v, error %v, want the caller's deadline %v %t, value, nil",
						deadline, ok, inside.Value(contextKey{}), inside.Err(), want, wantOK)
				}
			}
			time.Sleep(time.Minute)
			if err := duplex.Context().Err(); err != nil {
				t.Errorf("got %v after the policies' limit, want the stream to go on", err)
			}
			cancel()
			if _, err := duplex.Recv(); status.Code(err) != codes.Canceled {
				t.Errorf("got %v after the caller's cancellation, want Canceled", err)
			}
		}
		for _, want := range []time.Duration{0, 0, time.Hour, time.Hour} {
			if got := <-serverLeft; got != want {
				t.Errorf("the server saw %v left, want %v", got, want)
			}
		}
	})
}

// Rule 7: for a stream on which the client sends many messages, the policies cover the opening only.
func TestStreamPoliciesCoverOpeningOnly(t *testing.T) {
	var w watcher
	goroutines := []string{}
	where := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		goroutines = append(goroutines, goroutine())
		return next.Run(ctx)
	})
	var finished []error
	client := testpb.NewTestServiceClient(dial(t, loopback(t, &service{duplex: func(stream testpb.TestService_FullDuplexCallServer) error {
		return unavailable
	}, input: func(stream testpb.TestService_StreamingInputCallServer) error {
		return stream.SendAndClose(&testpb.StreamingInputCallResponse{AggregatedPayloadSize: 3})
	}}), everyRepeatable(retries(), where, &w)))
	onFinish := grpc.OnFinish(func(err error) { finished = append(finished, err) })
	stream, err := client.FullDuplexCall(t.Context(), onFinish)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v, want Unavailable", err)
	}
	var trailer metadata.MD
	input, err := client.StreamingInputCall(t.Context(), onFinish, grpc.Trailer(&trailer))
	if err != nil {
		t.Fatal(err)
	}
	if reply, err := input.CloseAndRecv(); err != nil || reply.AggregatedPayloadSize != 3 || trailer == nil {
		t.Errorf("got %v, %v, trailer %v, want the reply and a trailer", reply, err, trailer)
	}
	if len(w.errs) != 2 || w.errs[0] != nil || w.errs[1] != nil {
		t.Errorf("policies saw %v, want two successes", w.errs)
	}
	if got := goroutine(); goroutines[0] != got || goroutines[1] != got {
		t.Errorf("policies ran on goroutines %v, want the caller's %s", goroutines, got)
	}
	if len(finished) != 2 || status.Code(finished[0]) != codes.Unavailable || finished[1] != nil {
		t.Errorf("OnFinish got %v, want Unavailable and nil", finished)
	}
}

// goroutine returns the number of the goroutine.
func goroutine() string {
	buffer := make([]byte, 64)
	return strings.Fields(string(buffer[:runtime.Stack(buffer, false)]))[1]
}

// Rule 7: the opening is retried while nothing was sent.
func TestStreamOpeningIsRetried(t *testing.T) {
	var w watcher
	conn := dial(t, "passthrough:///127.0.0.1:1", every(retries(), &w))
	client := testpb.NewTestServiceClient(conn)
	_, err := client.FullDuplexCall(t.Context())
	if status.Code(err) != codes.Unavailable || len(w.errs) != 3 || marks(w.errs[0]) != "NotMade" {
		t.Errorf("got %v after %d attempts marked %q, want Unavailable after 3 marked NotMade", err, len(w.errs), marks(w.errs[0]))
	}
	_, err = client.StreamingOutputCall(t.Context(), &outputRequest{})
	if status.Code(err) != codes.Unavailable || len(w.errs) != 6 {
		t.Errorf("got %v after %d attempts, want Unavailable after 6", err, len(w.errs))
	}
}

// Rule 8: an open breaker refuses the stream in NewStream.
func TestStreamIsRefused(t *testing.T) {
	b := breaker.New(breaker.Config{})
	b.ForceOpen()
	client := testpb.NewTestServiceClient(dial(t, loopback(t, &service{}), every(b)))
	_, err := client.FullDuplexCall(t.Context())
	_, err2 := client.StreamingOutputCall(t.Context(), &outputRequest{})
	for _, err := range []error{err, err2} {
		if status.Code(err) != codes.Unavailable || !errors.Is(err, breaker.ErrOpen) {
			t.Errorf("got %v, want an Unavailable that is ErrOpen", err)
		}
	}
}

// Rule 8: a panic or Goexit of the policies becomes the caller's, in NewStream or later.
func TestStreamPanicBecomesCallers(t *testing.T) {
	for _, when := range []string{"before", "after, in Recv", "after, in Header"} {
		for _, how := range []string{"panic", "Goexit"} {
			fail := func() {
				if how == "panic" {
					panic("mine")
				}
				runtime.Goexit()
			}
			policy := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
				if when == "before" {
					fail()
				}
				err := next.Run(ctx)
				fail()
				return err
			})
			client := testpb.NewTestServiceClient(dial(t, loopback(t, &service{output: func(*outputRequest, outputStream) error { return unavailable }}), every(policy)))
			ended := make(chan string)
			go func() {
				result := "Goexit"
				defer func() {
					if value := recover(); value != nil {
						result = fmt.Sprintf("%T", value)
					}
					ended <- result
				}()
				stream, err := client.StreamingOutputCall(context.Background(), &outputRequest{})
				if err == nil && when == "after, in Header" {
					stream.Header()
				} else if err == nil {
					stream.Recv()
				}
				result = "returned"
			}()
			want := map[string]string{"panic": "*resilience.PanicError", "Goexit": "Goexit"}[how]
			if got := <-ended; got != want {
				t.Errorf("%s %s: got %s, want %s", how, when, got, want)
			}
		}
	}
}

// SendMsg returns the error of a request that can't be sent, as on a plain stream.
func TestStreamSendMsgReturnsLocalError(t *testing.T) {
	var w watcher
	client := testpb.NewTestServiceClient(dial(t, loopback(t, &service{}), everyRepeatable(retries(), &w)))
	var finished []error
	_, err := client.StreamingOutputCall(t.Context(), &outputRequest{Payload: &testpb.Payload{Body: make([]byte, 100)}},
		grpc.MaxCallSendMsgSize(10), grpc.OnFinish(func(err error) { finished = append(finished, err) }))
	if status.Code(err) != codes.ResourceExhausted || len(w.errs) != 1 || marks(w.errs[0]) != "CallerFault" {
		t.Errorf("got %v and attempts %v, want ResourceExhausted and one CallerFault", err, w.errs)
	}
	if len(finished) != 1 || finished[0] != err {
		t.Errorf("OnFinish got %v, want %v once", finished, err)
	}
}

// Rule 9: a hedged stream delivers the winner's messages; the loser is canceled.
func TestStreamHedges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int32
		canceled := make(chan error, 1)
		client, stop := inMemory(t, &service{output: func(in *outputRequest, stream outputStream) error {
			if calls.Add(1) == 1 {
				stream.SendHeader(nil)
				<-stream.Context().Done()
				canceled <- stream.Context().Err()
				return nil
			}
			for i := range 3 {
				stream.Send(body(string(in.GetPayload().GetBody()) + fmt.Sprint(i)))
			}
			return nil
		}}, everyRepeatable(hedge.New(hedge.Config{Delay: time.Second, Budget: plenty()})))
		defer stop()
		stream, err := client.StreamingOutputCall(t.Context(), &outputRequest{Payload: &testpb.Payload{Body: []byte("in")}})
		if err != nil {
			t.Fatal(err)
		}
		bodies, err := receiveAll(stream)
		if want := []string{"in0", "in1", "in2"}; !slices.Equal(bodies, want) || err != nil || calls.Load() != 2 {
			t.Errorf("got %v, %v after %d calls, want %v after 2", bodies, err, calls.Load(), want)
		}
		if err := <-canceled; err != context.Canceled {
			t.Errorf("the loser's context ended with %v, want Canceled", err)
		}
	})
}

// Rule 9: no goroutine or child context is left once the stream has ended, its context has ended, or
// the connection is closed, even if the caller never received. synctest fails if one is left.
func TestStreamLeavesNothing(t *testing.T) {
	for _, send := range []string{"nothing", "headers", "message", "end", "error"} {
		for _, end := range []string{"received", "canceled", "closed"} {
			for name, policies := range map[string][]resilience.Policy{
				"none":  {},
				"all":   {timeout.After(time.Hour), retries(), breaker.New(breaker.Config{Consecutive: 1000}), timeout.After(time.Minute)},
				"hedge": {hedge.New(hedge.Config{Delay: time.Second, Budget: plenty()})},
			} {
				if end == "received" && (send == "nothing" || send == "headers" || send == "message") {
					continue
				}
				synctest.Test(t, func(t *testing.T) {
					client, stop := inMemory(t, &service{output: func(_ *outputRequest, stream outputStream) error {
						switch send {
						case "nothing":
						case "headers":
							stream.SendHeader(nil)
						case "message":
							stream.Send(body("x"))
						case "end":
							return nil
						case "error":
							return unavailable
						}
						<-stream.Context().Done()
						return nil
					}}, everyRepeatable(policies...))
					parent := &countingContext{Context: context.Background(), done: make(chan struct{})}
					stream, err := client.StreamingOutputCall(parent, &outputRequest{})
					if err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
					switch end {
					case "received":
						receiveAll(stream)
					case "canceled":
						parent.cancel()
					}
					synctest.Wait()
					if end != "closed" {
						if n := parent.children.Load(); n != 0 {
							t.Errorf("server sends %s, %s, policies %s: got %d child contexts, want 0", send, end, name, n)
						}
					}
					stop()
				})
			}
		}
	}
}

// A countingContext counts its children.
type countingContext struct {
	context.Context
	children atomic.Int32
	done     chan struct{}
	ended    atomic.Bool
}

func (c *countingContext) Done() <-chan struct{} { return c.done }
func (c *countingContext) Err() error {
	if c.ended.Load() {
		return context.Canceled
	}
	return nil
}
func (c *countingContext) cancel() {
	c.ended.Store(true)
	close(c.done)
}

// AfterFunc is what package context calls for a child.
func (c *countingContext) AfterFunc(f func()) (stop func() bool) {
	c.children.Add(1)
	stopped := make(chan struct{})
	var once atomic.Bool
	go func() {
		select {
		case <-c.done:
			if once.CompareAndSwap(false, true) {
				c.children.Add(-1)
				f()
			}
		case <-stopped:
		}
	}()
	return func() bool {
		if once.CompareAndSwap(false, true) {
			c.children.Add(-1)
			close(stopped)
			return true
		}
		return false
	}
}

// A unary method that is called as a stream has its options filled at the first RecvMsg.
func TestStreamOfUnaryMethod(t *testing.T) {
	calls, empty := failFirst(2, unavailable)
	conn := dial(t, loopback(t, &service{empty: empty}), everyRepeatable(retries()))
	var header, trailer metadata.MD
	var finished []error
	stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{}, testpb.TestService_EmptyCall_FullMethodName,
		grpc.Header(&header), grpc.Trailer(&trailer), grpc.OnFinish(func(err error) { finished = append(finished, err) }))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.SendMsg(&testpb.Empty{}); err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(&testpb.Empty{}); err != nil || calls.Load() != 3 {
		t.Fatalf("got %v after %d calls, want nil after 3", err, calls.Load())
	}
	if header == nil || trailer == nil || len(finished) != 1 || finished[0] != nil {
		t.Errorf("got header %v, trailer %v, OnFinish %v, want all filled at the first RecvMsg", header, trailer, finished)
	}
}

// Rule 8: an attempt without a request ends with its limit, and with the connection.
func TestStreamWaitsForRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w watcher
		client, stop := inMemory(t, &service{output: func(_ *outputRequest, stream outputStream) error { return stream.Send(body("x")) }},
			everyRepeatable(retries(), timeout.After(time.Second), &w))
		conn := clientConn(client)
		open := func() grpc.ClientStream {
			stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, testpb.TestService_StreamingOutputCall_FullMethodName)
			if err != nil {
				t.Fatal(err)
			}
			return stream
		}
		stream := open()
		time.Sleep(1500 * time.Millisecond) // the first attempt's limit passes, and the second is open
		if err := stream.SendMsg(&outputRequest{}); err != nil {
			t.Fatal(err)
		}
		stream.CloseSend()
		if err := stream.RecvMsg(body("")); err != nil || len(w.errs) != 2 || status.Code(w.errs[0]) != codes.DeadlineExceeded {
			t.Errorf("got %v after attempts %v, want a message at the second attempt", err, w.errs)
		}
		waiting := open()
		stop()
		if err := waiting.RecvMsg(body("")); status.Code(err) != codes.Canceled {
			t.Errorf("got %v after the connection was closed, want Canceled", err)
		}
	})
}

// A second SendMsg and a SendMsg after CloseSend fail as on a plain stream.
func TestStreamSendsOnce(t *testing.T) {
	for _, dialed := range []*grpc.ClientConn{
		dial(t, loopback(t, &service{output: func(_ *outputRequest, stream outputStream) error { return stream.Send(body("x")) }}), every(retries())),
		dialOnly(t, loopback(t, &service{output: func(_ *outputRequest, stream outputStream) error { return stream.Send(body("x")) }})),
	} {
		stream, err := dialed.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, testpb.TestService_StreamingOutputCall_FullMethodName)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.SendMsg(&outputRequest{}); err != nil {
			t.Fatal(err)
		}
		if err := stream.SendMsg(&outputRequest{}); status.Code(err) != codes.Internal {
			t.Errorf("got %v from the second SendMsg, want Internal", err)
		}
		stream, err = dialed.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, testpb.TestService_StreamingOutputCall_FullMethodName)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if err := stream.RecvMsg(body("")); status.Code(err) != codes.Internal {
			t.Errorf("got %v from a stream without a request, want Internal", err)
		}
	}
}

// A countedRequest counts how often its content is read.
type countedRequest struct {
	*outputRequest
	reads *atomic.Int32
}

func (r countedRequest) ProtoReflect() protoreflect.Message {
	r.reads.Add(1)
	return r.outputRequest.ProtoReflect()
}

// Rule 5: an attempt on a fork that begins after the policies have ended doesn't read the request.
func TestStreamForkAfterEndReadsNoRequest(t *testing.T) {
	begin, ended := make(chan struct{}), make(chan error)
	late := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		fork := next.Fork()
		go func() {
			<-begin
			ended <- fork.Run(ctx)
		}()
		return next.Run(ctx)
	})
	conn := dial(t, loopback(t, &service{output: func(_ *outputRequest, stream outputStream) error { return stream.Send(body("x")) }}), everyRepeatable(late))
	stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, testpb.TestService_StreamingOutputCall_FullMethodName)
	if err != nil {
		t.Fatal(err)
	}
	request := countedRequest{&outputRequest{}, new(atomic.Int32)}
	if err := stream.SendMsg(request); err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(body("")); err != nil {
		t.Fatal(err)
	}
	before := request.reads.Load()
	close(begin)
	if err := <-ended; marks(err) != "CallerFault" {
		t.Errorf("got %v marked %q, want CallerFault", err, marks(err))
	}
	if got := request.reads.Load(); before == 0 || got != before {
		t.Errorf("got %d reads of the request, want the %d of the attempt in time", got, before)
	}
}

// Headers that the server sends before it has the request establish the stream, if the caller asks for
// them or if a limit passes. The request is sent by the caller then.
func TestStreamIsEstablishedBeforeRequest(t *testing.T) {
	early := fault(func(w *wire, stream uint32) {
		w.open(stream)
		w.sent = func(w *wire, stream uint32) {
			w.message(stream)
			w.end(stream, "0")
		}
	})
	for _, by := range []string{"header", "limit"} {
		synctest.Test(t, func(t *testing.T) {
			var w watcher
			var streams atomic.Int32
			conn := dial(t, "passthrough:///early", everyRepeatable(retries(), timeout.After(time.Second), &w),
				grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
					client, server := net.Pipe()
					go serveWire(server, &streams, 1, early, nil)
					return client, nil
				}))
			stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, testpb.TestService_StreamingOutputCall_FullMethodName)
			if err != nil {
				t.Fatal(err)
			}
			if by == "limit" {
				time.Sleep(time.Minute)
			} else if header, err := stream.Header(); header == nil || err != nil {
				t.Errorf("got headers %v, %v before the request, want the server's", header, err)
			}
			if err := stream.SendMsg(&outputRequest{}); err != nil {
				t.Errorf("%s: got %v from SendMsg, want nil", by, err)
			}
			if err := stream.CloseSend(); err != nil {
				t.Errorf("%s: got %v from CloseSend, want nil", by, err)
			}
			if err := stream.RecvMsg(body("")); err != nil {
				t.Errorf("%s: got %v, want the message", by, err)
			}
			if err := stream.RecvMsg(body("")); err != io.EOF || streams.Load() != 1 || len(w.errs) != 1 || w.errs[0] != nil {
				t.Errorf("%s: got %v after %d streams and attempts %v, want the end of the only one", by, err, streams.Load(), w.errs)
			}
		})
	}
}
