package resiliencegrpc_test

import (
	"context"
	"testing"

	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/effector-go/resilience/retry"
)

func TestUnaryRetriesUnavailable(t *testing.T) {
	calls, empty := failFirst(2, unavailable)
	conn := dial(t, loopback(t, &service{empty: empty}), everyRepeatable(retry.New(retry.Config{Backoff: retry.Constant(0)})))
	if _, err := testpb.NewTestServiceClient(conn).EmptyCall(context.Background(), &testpb.Empty{}); err != nil {
		t.Fatal(err)
	}
	if got := calls.Load(); got != 3 {
		t.Errorf("got %d calls, want 3", got)
	}
}
