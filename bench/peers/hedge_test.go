package peers

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cristalhq/hedgedhttp"
	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/failsafehttp"
	"github.com/failsafe-go/failsafe-go/hedgepolicy"
	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/hedge"
	"github.com/effector-go/resilience/resiliencehttp"
)

// hedging returns policies that start a call again if it hasn't returned after the delay. In the
// rows that end in -quantile, the delay is the time that 95% of recent calls take, as soon as this
// many are known.
func hedging(fn effector, delay time.Duration, known int) []side {
	const quantile, age = 0.95, 1000
	ours := hedge.New(hedge.Config{Delay: delay})
	oursQuantile := hedge.New(hedge.Config{Delay: delay, Quantile: quantile, MinSamples: known})
	executor := failsafe.With(hedgepolicy.NewWithDelay[int](delay))
	executorQuantile := failsafe.With(hedgepolicy.NewWithDelayQuantile[int](quantile, age, uint(known)))
	call := func(e failsafe.Execution[int]) (int, error) { return fn(e.Context()) }
	return []side{
		{"ours", func() error { _, err := hedge.Do(ctx, ours, fn); return err }},
		{"ours-quantile", func() error { _, err := hedge.Do(ctx, oursQuantile, fn); return err }},
		{"failsafe", func() error { _, err := executor.GetWithExecution(call); return err }},
		{"failsafe-quantile", func() error { _, err := executorQuantile.GetWithExecution(call); return err }},
	}
}

// hedgingRequests returns the ways to send a GET over base, and to send it again if there is no
// response after the delay.
func hedgingRequests(ctx context.Context, base http.RoundTripper, delay time.Duration) []side {
	ours := resiliencehttp.NewTransport(resiliencehttp.Config{
		Base:     base,
		Policies: func(string) resilience.Policy { return hedge.New(hedge.Config{Delay: delay}) },
	})
	theirs := failsafehttp.NewRoundTripper(base, hedgepolicy.NewWithDelay[*http.Response](delay))
	hedged, err := hedgedhttp.NewRoundTripper(delay, 2, base)
	if err != nil {
		panic(err) // of two attempts and a positive delay
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://site.test/", nil)
	if err != nil {
		panic(err) // the URL is good
	}
	way := func(name string, transport http.RoundTripper) side {
		return side{name, func() error { return get(transport, request.WithContext(ctx)) }}
	}
	return []side{way("ours", ours), way("bare", base), way("failsafe", theirs), way("hedgedhttp", hedged)}
}

const never = 1 << 40 // calls are known

// BenchmarkHedge is a call that returns before it would be started again. The rows that end in
// -quantile record the times of calls, but never have enough of them to use.
func BenchmarkHedge(b *testing.B) { run(b, hedging(succeed, time.Minute, never)) }

// BenchmarkHedgeHTTP is a request whose response arrives immediately.
func BenchmarkHedgeHTTP(b *testing.B) {
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	run(b, hedgingRequests(ctx, immediate{}, time.Minute))
}

// heavyTail returns an effector that takes 100 times as long at 1 call in 100. It counts its
// starts.
func heavyTail(usual time.Duration, starts *atomic.Int64) effector {
	return func(ctx context.Context) (int, error) {
		takes := usual
		if starts.Add(1)%100 == 0 {
			takes *= 100
		}
		timer := time.NewTimer(takes)
		defer timer.Stop()
		select {
		case <-timer.C:
			return 1, nil
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// asTransport responds when the effector has returned.
type asTransport struct{ fn effector }

func (t asTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if _, err := t.fn(r.Context()); err != nil {
		return nil, err
	}
	return immediate{}.RoundTrip(r)
}

// BenchmarkTail measures what hedging is for: the times of 1000 calls by 50 concurrent callers,
// where 1 call in 100 takes 100 times as long. It reports the number of starts per call too.
func BenchmarkTail(b *testing.B) {
	const usual, delay = time.Millisecond, 3 * time.Millisecond
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	var starts atomic.Int64
	fn := heavyTail(usual, &starts)
	sides := append([]side{{"bare", func() error { _, err := fn(ctx); return err }}}, hedging(fn, delay, 100)...)
	for _, s := range hedgingRequests(ctx, asTransport{fn}, delay) {
		if s.name == "hedgedhttp" {
			sides = append(sides, s)
		}
	}
	for _, s := range sides {
		b.Run(s.name, func(b *testing.B) {
			var times []time.Duration
			starts.Store(0)
			for b.Loop() {
				times = append(times, timesOf(b, s, 50, 20)...)
			}
			slices.Sort(times)
			// 1% of the calls take at least as long as the second of these.
			b.ReportMetric(float64(times[len(times)/2]), "p50-ns")
			b.ReportMetric(float64(times[len(times)*99/100]), "p99-ns")
			b.ReportMetric(float64(starts.Load())/float64(len(times)), "starts/call")
		})
	}
}

// timesOf makes calls by concurrent callers and returns how long each call took.
func timesOf(tb testing.TB, s side, callers, calls int) []time.Duration {
	times := make([]time.Duration, callers*calls)
	var group errgroup.Group
	for caller := range callers {
		group.Go(func() error {
			for i := range calls {
				start := time.Now()
				if err := s.call(); err != nil {
					return fmt.Errorf("%s: %w", s.name, err)
				}
				times[caller*calls+i] = time.Since(start)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		tb.Fatal(err)
	}
	return times
}
