package resilienceotel_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/pipelines"
	"github.com/effector-go/resilience/observe"
	"github.com/effector-go/resilience/resilienceotel"
)

func answer(context.Context) (int, error) { return 1, nil }

// BenchmarkCall compares what a call costs bare, observed, with the listener of OpenTelemetry, and
// instrumented manually with attributes that are built for each call.
func BenchmarkCall(b *testing.B) {
	metering := sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader()))
	tracing := sdktrace.NewTracerProvider()
	b.Run("bare", func(b *testing.B) { call(b, resilience.Compose(answer, pipelines.Usual())) })
	b.Run("observed", func(b *testing.B) {
		call(b, resilience.Compose(answer, observe.New(observe.Config{}).Pipeline("users", pipelines.Usual()...)))
	})
	for _, spans := range []resilienceotel.Spans{resilienceotel.SpanEvents, resilienceotel.SpanCalls, resilienceotel.SpanAttempts, resilienceotel.SpanNone} {
		b.Run("spans="+spans.String(), func(b *testing.B) {
			telemetry, err := resilienceotel.New(resilienceotel.Config{MeterProvider: metering, TracerProvider: tracing, Spans: spans})
			if err != nil {
				b.Fatal(err)
			}
			obs := observe.New(observe.Config{Listeners: []observe.Listener{telemetry.Listener()}})
			call(b, resilience.Compose(answer, obs.Pipeline("users", pipelines.Usual()...)))
		})
	}
	b.Run("manual", func(b *testing.B) {
		meter := metering.Meter("manual")
		duration, err := meter.Float64Histogram("duration")
		running, err2 := meter.Int64UpDownCounter("running")
		attempts, err3 := meter.Int64Counter("attempts")
		if err := errors.Join(err, err2, err3); err != nil {
			b.Fatal(err)
		}
		pipeline := attribute.String("pipeline", "users")
		guarded := resilience.Compose(func(ctx context.Context) (int, error) {
			attempts.Add(ctx, 1, metric.WithAttributes(pipeline))
			return answer(ctx)
		}, pipelines.Usual())
		call(b, func(ctx context.Context) (int, error) {
			start := time.Now()
			running.Add(ctx, 1, metric.WithAttributes(pipeline))
			defer running.Add(ctx, -1, metric.WithAttributes(pipeline))
			v, err := guarded(ctx)
			result := "success"
			switch {
			case errors.Is(err, resilience.ErrRefused):
				result = "refused"
			case err != nil:
				result = "failure"
			}
			duration.Record(ctx, time.Since(start).Seconds(), metric.WithAttributes(pipeline, attribute.String("result", result)))
			return v, err
		})
	})
}

func call(b *testing.B, effector resilience.Effector[int]) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := effector(ctx); err != nil {
			b.Fatal(err)
		}
	}
}
