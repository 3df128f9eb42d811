package resiliencegrpc_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/hedge"
	"github.com/effector-go/resilience/observe"
	"github.com/effector-go/resilience/resiliencegrpc"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// Observed pipelines on both sides count the calls, the attempts, and what the policies did.
func TestObservedPipelines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clients, servers := observe.New(observe.Config{}), observe.New(observe.Config{})
		calls, empty := failFirst(2, unavailable)
		s := &service{empty: empty, output: func(_ *outputRequest, stream outputStream) error {
			if calls.Add(1) == 4 {
				<-stream.Context().Done() // until the attempt's limit passes
				return nil
			}
			return stream.Send(body("x"))
		}}
		serving := servers.Pipeline("server", breaker.New(breaker.Config{Name: "handlers"}))
		client, stop := inMemoryServer(t, s, resiliencegrpc.ServerOptions(resiliencegrpc.ServerConfig{Policy: serving}),
			resiliencegrpc.DialOptions(resiliencegrpc.Config{
				Repeatable: func(string) bool { return true },
				Policies: func(key string) resilience.Policy {
					return clients.Pipeline("client", retry.New(retry.Config{Backoff: retry.Constant(time.Second)}),
						breaker.New(breaker.Config{Name: key}), hedge.New(hedge.Config{Delay: time.Hour}), timeout.After(time.Second))
				},
			})...)
		if _, err := client.EmptyCall(t.Context(), &testpb.Empty{}); err != nil {
			t.Fatal(err)
		}
		stream, err := client.StreamingOutputCall(t.Context(), &outputRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := receiveAll(stream); err != nil {
			t.Fatal(err)
		}
		stop()
		synctest.Wait()
		p := clients.Snapshot().Pipelines[0]
		if p.Name != "client" || p.Calls[observe.Success].Count != 2 || p.Attempts != 5 || p.Running != 0 {
			t.Errorf("client: got %+v, want 2 successes after 5 attempts", p)
		}
		if retries, limits := p.Layers[0].Events[observe.Retry], p.Layers[3].Events[observe.Timeout]; retries != 3 || limits != 1 {
			t.Errorf("client: got %d retries and %d timeouts, want 3 and 1", retries, limits)
		}
		p = servers.Snapshot().Pipelines[0]
		failed := p.Errors[observe.Failure]
		if p.Attempts != 5 || p.Calls[observe.Failure].Count != 2 || failed.Type != "UNAVAILABLE" {
			t.Errorf("server: got %+v, want 5 handlers, 2 of them failed with UNAVAILABLE", p)
		}
	})
}

// The listener's contexts reach the attempts, and from there inner interceptors and the metadata.
func TestObservedAttemptsHaveListenersContext(t *testing.T) {
	obs := observe.New(observe.Config{Listeners: []observe.Listener{{
		Attempt: func(ctx context.Context, _ *observe.Call, number int) (context.Context, func(observe.Result, error)) {
			return context.WithValue(ctx, contextKey{}, number), nil
		},
	}}})
	var numbers []any
	_, empty := failFirst(1, unavailable)
	conn := dial(t, loopback(t, &service{empty: empty}), everyRepeatable(obs.Pipeline("client", retries())),
		inner(seeContext(&numbers)))
	if _, err := testpb.NewTestServiceClient(conn).EmptyCall(t.Context(), &testpb.Empty{}); err != nil {
		t.Fatal(err)
	}
	if len(numbers) != 2 || numbers[0] != 1 || numbers[1] != 2 {
		t.Errorf("got attempts %v, want 1 and 2", numbers)
	}
}
