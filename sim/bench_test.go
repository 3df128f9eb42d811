package sim

import (
	"testing"
	"time"

	"github.com/effector-go/resilience"
)

// BenchmarkRun simulates 24,000 calls through the guide's pipeline, on all processors.
func BenchmarkRun(b *testing.B) {
	s := Scenario{Rate: Constant(200), Runs: 2, Length: time.Minute}
	for b.Loop() {
		if _, err := Run(b.Context(), s, map[string]func() resilience.Policy{"guide": guide}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*24_000/b.Elapsed().Seconds(), "calls/s")
}
