package resilienceprom_test

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/pipelines"
	"github.com/effector-go/resilience/observe"
	"github.com/effector-go/resilience/resilienceprom"
)

func answer(context.Context) (int, error) { return 1, nil }

// BenchmarkCall compares what a call costs bare, observed, and instrumented manually: with a
// histogram, a gauge, and a counter of Prometheus, which count less than the observer does. Exporting
// costs calls nothing.
func BenchmarkCall(b *testing.B) {
	b.Run("bare", func(b *testing.B) { call(b, resilience.Compose(answer, pipelines.Usual())) })
	b.Run("observed", func(b *testing.B) {
		call(b, resilience.Compose(answer, observe.New(observe.Config{}).Pipeline("users", pipelines.Usual()...)))
	})
	b.Run("manual", func(b *testing.B) {
		running := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "running"}, []string{"pipeline"})
		duration := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "duration"}, []string{"pipeline", "result"})
		attempts := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "attempts"}, []string{"pipeline"})
		guarded := resilience.Compose(func(ctx context.Context) (int, error) {
			attempts.WithLabelValues("users").Inc()
			return answer(ctx)
		}, pipelines.Usual())
		call(b, func(ctx context.Context) (int, error) {
			start := time.Now()
			running.WithLabelValues("users").Inc()
			defer running.WithLabelValues("users").Dec()
			v, err := guarded(ctx)
			result := "success"
			switch {
			case errors.Is(err, resilience.ErrRefused):
				result = "refused"
			case err != nil:
				result = "failure"
			}
			duration.WithLabelValues("users", result).Observe(time.Since(start).Seconds())
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

// BenchmarkCollect measures a scrape of 100 pipelines.
func BenchmarkCollect(b *testing.B) {
	obs := observe.New(observe.Config{})
	var keep []resilience.Policy
	for i := range 100 {
		p := obs.Pipeline(string(rune('A'+i)), pipelines.Usual()...)
		keep = append(keep, p)
		if _, err := resilience.Do(b.Context(), p, answer); err != nil {
			b.Fatal(err)
		}
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(resilienceprom.New(obs))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := registry.Gather(); err != nil {
			b.Fatal(err)
		}
	}
	runtime.KeepAlive(keep)
}
