package resilienceconfig

import (
	"context"
	"testing"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// BenchmarkHandle compares a pipeline of a Set with the same policies in a Pipeline.
func BenchmarkHandle(b *testing.B) {
	f, err := Parse([]byte("pipelines: {p: [retry: {}, breaker: {}, timeout: {limit: 1s}]}"), Options{})
	if err != nil {
		b.Fatal(err)
	}
	for name, policy := range map[string]resilience.Policy{
		"pipeline": resilience.Pipeline{retry.New(retry.Config{}), breaker.New(breaker.Config{}), timeout.After(time.Second)},
		"handle":   New(f).Pipeline("p"),
	} {
		b.Run(name, func(b *testing.B) {
			fetch := func(context.Context) (int, error) { return 7, nil }
			b.ReportAllocs()
			for b.Loop() {
				if _, err := resilience.Do(context.Background(), policy, fetch); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkParse parses the file of the package's documentation.
func BenchmarkParse(b *testing.B) {
	for b.Loop() {
		if _, err := Parse([]byte(pipelines), Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
