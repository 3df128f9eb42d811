package resiliencegrpc_test

import (
	"context"
	"runtime"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/stats"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/resiliencegrpc"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// page is the pipeline of docs/grpc.md, with limits that a busy machine does not reach.
func page(key string) resilience.Policy {
	return resilience.Pipeline{
		timeout.After(2 * ample),
		retry.New(retry.Config{Budget: budget.New(budget.Config{Ratio: 0.1, MinPerSecond: 1})}),
		breaker.New(breaker.Config{Name: key}),
		timeout.After(ample),
	}
}

// emptyStats is a stats handler that does nothing. gRPC makes events for it.
type emptyStats struct{}

func (emptyStats) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (emptyStats) HandleRPC(context.Context, stats.RPCStats)                         {}
func (emptyStats) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (emptyStats) HandleConn(context.Context, stats.ConnStats)                       {}

// sides returns the two calls that are compared: a bare one with a deadline and a stats handler, and
// one through the page's pipeline.
func sides(b testing.TB) (bare, guarded func()) {
	address := loopback(b, &service{empty: func(context.Context) error { return nil }})
	plain := testpb.NewTestServiceClient(dialOnly(b, address, grpc.WithDisableRetry(), grpc.WithStatsHandler(emptyStats{})))
	policies := testpb.NewTestServiceClient(dial(b, address, resiliencegrpc.Config{Policies: page}))
	in := &testpb.Empty{}
	bare = func() {
		ctx, cancel := context.WithTimeout(context.Background(), ample)
		defer cancel()
		if _, err := plain.EmptyCall(ctx, in); err != nil {
			b.Fatal(err)
		}
	}
	guarded = func() {
		if _, err := policies.EmptyCall(context.Background(), in); err != nil {
			b.Fatal(err)
		}
	}
	bare()
	guarded()
	return bare, guarded
}

// TestUnaryAllocatesLittle checks that a call makes at most 15 allocations more than a bare one.
func TestUnaryAllocatesLittle(t *testing.T) {
	bare, guarded := sides(t)
	fewest := func(call func()) float64 { // the server allocates in the same process
		least := 1e9
		for range 10 {
			least = min(least, testing.AllocsPerRun(200, call))
		}
		return least
	}
	without, with := fewest(bare), fewest(guarded)
	if with-without > 15 {
		t.Errorf("got %v allocations, want at most 15 more than %v", with, without)
	}
	t.Logf("%v allocations, %v without policies", with, without)
}

// BenchmarkUnary compares a call through the page's pipeline with a bare call, in turns. It reports
// the medians and by how many percent they differ.
func BenchmarkUnary(b *testing.B) {
	bare, guarded := sides(b)
	var times [2][]time.Duration
	runtime.GC()
	for b.Loop() {
		for i, call := range [...]func(){bare, guarded} {
			begun := time.Now()
			call()
			times[i] = append(times[i], time.Since(begun))
		}
	}
	median := func(times []time.Duration) float64 {
		slices.Sort(times)
		return float64(times[len(times)/2])
	}
	without, with := median(times[0]), median(times[1])
	b.ReportMetric(without, "ns/bare")
	b.ReportMetric(with, "ns/guarded")
	b.ReportMetric(100*(with-without)/without, "%more")
}

// BenchmarkStream opens a server stream, receives its message, and its end.
func BenchmarkStream(b *testing.B) {
	address := loopback(b, &service{output: func(_ *outputRequest, stream outputStream) error { return stream.Send(body("x")) }})
	for name, conn := range map[string]*grpc.ClientConn{
		"bare":    dialOnly(b, address, grpc.WithDisableRetry(), grpc.WithStatsHandler(emptyStats{})),
		"guarded": dial(b, address, resiliencegrpc.Config{Policies: page}),
	} {
		b.Run(name, func(b *testing.B) {
			client := testpb.NewTestServiceClient(conn)
			b.ReportAllocs()
			for b.Loop() {
				stream, err := client.StreamingOutputCall(context.Background(), &outputRequest{})
				if err != nil {
					b.Fatal(err)
				}
				if _, err := receiveAll(stream); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
