package resilienceotel

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/metric/metricdata/metricdatatest"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/observe"
)

// collectMetrics returns what the reader collects, by name.
func collectMetrics(t *testing.T, reader *sdkmetric.ManualReader) map[string]metricdata.Metrics {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &all); err != nil {
		t.Fatal(err)
	}
	byName := map[string]metricdata.Metrics{}
	for _, scope := range all.ScopeMetrics {
		if scope.Scope.Name != ScopeName || scope.Scope.Version != Version {
			t.Errorf("got scope %v, want %s %s", scope.Scope, ScopeName, Version)
		}
		for _, m := range scope.Metrics {
			byName[m.Name] = m
		}
	}
	return byName
}

func newTelemetry(t *testing.T, s Spans) (*Telemetry, *sdkmetric.ManualReader) {
	t.Helper()
	reader := sdkmetric.NewManualReader()
	telemetry, err := New(Config{
		MeterProvider:  sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)),
		TracerProvider: sdktrace.NewTracerProvider(),
		Spans:          s,
	})
	if err != nil {
		t.Fatal(err)
	}
	return telemetry, reader
}

// snapshotMetrics returns what is exported of a snapshot.
func snapshotMetrics(t *testing.T, s observe.Snapshot) map[string]metricdata.Metrics {
	t.Helper()
	telemetry, reader := newTelemetry(t, SpanNone)
	_, err := telemetry.observed.meter.RegisterCallback(func(_ context.Context, to metric.Observer) error {
		telemetry.observed.observe(to, s)
		return nil
	}, telemetry.observed.all...)
	if err != nil {
		t.Fatal(err)
	}
	return collectMetrics(t, reader)
}

func set(keyValues ...string) attribute.Set {
	var attributes []attribute.KeyValue
	for i := 0; i < len(keyValues); i += 2 {
		attributes = append(attributes, attribute.String(keyValues[i], keyValues[i+1]))
	}
	return attribute.NewSet(attributes...)
}

func assertEqual(t *testing.T, got, want metricdata.Metrics) {
	t.Helper()
	metricdatatest.AssertEqual(t, want, got, metricdatatest.IgnoreTimestamp(), metricdatatest.IgnoreExemplars())
}

func TestObserveExportsPipelines(t *testing.T) {
	got := snapshotMetrics(t, observe.Snapshot{Pipelines: []observe.PipelineSnapshot{
		{Name: "users", Running: 3, Attempts: 7, Layers: []observe.LayerSnapshot{
			{Position: 2, Kind: "breaker", Name: "db", Events: map[observe.EventKind]uint64{observe.Refusal: 5}},
		}},
		{Name: "\xff", Running: 1},
		{Name: "\xfe", Running: 2}, // the same in valid UTF-8
	}})
	assertEqual(t, got["resilience.call.running"], metricdata.Metrics{
		Name: "resilience.call.running", Unit: "{call}", Description: "Calls in progress.",
		Data: metricdata.Sum[int64]{Temporality: metricdata.CumulativeTemporality, DataPoints: []metricdata.DataPoint[int64]{
			{Attributes: set("resilience.pipeline.name", "users"), Value: 3},
			{Attributes: set("resilience.pipeline.name", "\uFFFD"), Value: 3},
		}},
	})
	assertEqual(t, got["resilience.events"], metricdata.Metrics{
		Name: "resilience.events", Unit: "{event}", Description: "What the policies of a pipeline did.",
		Data: metricdata.Sum[int64]{Temporality: metricdata.CumulativeTemporality, IsMonotonic: true, DataPoints: []metricdata.DataPoint[int64]{
			{Value: 5, Attributes: attribute.NewSet(
				attribute.String("resilience.pipeline.name", "users"), attribute.Int("resilience.layer", 2), attribute.String("resilience.policy.kind", "breaker"),
				attribute.String("resilience.policy.name", "db"), attribute.String("resilience.event", "refusal"))},
		}},
	})
	attempts, ok := got["resilience.call.attempts"].Data.(metricdata.Sum[int64])
	if !ok || !attempts.IsMonotonic || len(attempts.DataPoints) != 2 {
		t.Errorf("got attempts %+v, want a monotonic sum of two pipelines", got["resilience.call.attempts"])
	}
}

func TestObserveExportsFormerStatesAsZero(t *testing.T) {
	got := snapshotMetrics(t, observe.Snapshot{Policies: []observe.PolicySnapshot{{
		Kind: "breaker", Name: "db",
		States:  map[string]int{"open": 2},
		InState: map[string]time.Duration{"open": time.Second, "closed": 1500 * time.Millisecond},
		Changes: map[string]uint64{"open": 3},
	}}})
	in := func(state string) attribute.Set {
		return set("resilience.policy.kind", "breaker", "resilience.policy.name", "db", "resilience.policy.state", state)
	}
	assertEqual(t, got["resilience.policy.state"], metricdata.Metrics{
		Name: "resilience.policy.state", Unit: "{policy}", Description: "Live policies in a state.",
		Data: metricdata.Sum[int64]{Temporality: metricdata.CumulativeTemporality, DataPoints: []metricdata.DataPoint[int64]{
			{Attributes: in("open"), Value: 2}, {Attributes: in("closed"), Value: 0},
		}},
	})
	assertEqual(t, got["resilience.policy.state.time"], metricdata.Metrics{
		Name: "resilience.policy.state.time", Unit: "s", Description: "Time that policies spent in a state.",
		Data: metricdata.Sum[float64]{Temporality: metricdata.CumulativeTemporality, IsMonotonic: true, DataPoints: []metricdata.DataPoint[float64]{
			{Attributes: in("open"), Value: 1}, {Attributes: in("closed"), Value: 1.5},
		}},
	})
	assertEqual(t, got["resilience.policy.changes"], metricdata.Metrics{
		Name: "resilience.policy.changes", Unit: "{change}", Description: "Changes of the state of policies.",
		Data: metricdata.Sum[int64]{Temporality: metricdata.CumulativeTemporality, IsMonotonic: true, DataPoints: []metricdata.DataPoint[int64]{
			{Attributes: in("open"), Value: 3},
		}},
	})
}

func TestObserveAddsUpCountsAndTakesLargestOfOthers(t *testing.T) {
	report := func(limit, roundTrip float64) resilience.Report {
		return resilience.Report{Kind: "adaptive", Name: "db", Values: []resilience.Value{
			{Name: "limit", Unit: "{call}", Value: limit}, {Name: "round_trip", Unit: "s", Value: roundTrip},
		}}
	}
	got := snapshotMetrics(t, observe.Snapshot{Policies: []observe.PolicySnapshot{
		{Kind: "adaptive", Name: "db", Reports: []resilience.Report{report(3, 0.5), report(4, 0.25)}},
		{Kind: "mine", Name: "db", Reports: []resilience.Report{{Kind: "mine", Values: []resilience.Value{{Name: "limit", Unit: "{call}", Value: 1}}}}},
	}})
	assertEqual(t, got["resilience.adaptive.limit"], metricdata.Metrics{
		Name: "resilience.adaptive.limit", Unit: "{call}", Description: "Value limit of policies of kind adaptive.",
		Data: metricdata.Sum[float64]{Temporality: metricdata.CumulativeTemporality, DataPoints: []metricdata.DataPoint[float64]{
			{Attributes: set("resilience.policy.name", "db"), Value: 7},
		}},
	})
	assertEqual(t, got["resilience.adaptive.round_trip"], metricdata.Metrics{
		Name: "resilience.adaptive.round_trip", Unit: "s", Description: "Value round_trip of policies of kind adaptive.",
		Data: metricdata.Gauge[float64]{DataPoints: []metricdata.DataPoint[float64]{
			{Attributes: set("resilience.policy.name", "db"), Value: 0.5},
		}},
	})
	if len(got) != 2 {
		t.Errorf("got metrics %v, want two", got)
	}
}

type statedError struct{}

func (statedError) Error() string     { return "stated" }
func (statedError) ErrorType() string { return "stated" }

func TestErrorTypeOfPanic(t *testing.T) {
	if got := errorType(observe.Panicked, nil); got != "panic" {
		t.Errorf("got %q, want panic", got)
	}
}

func TestSetsAreCached(t *testing.T) {
	var s sets
	call := &observe.Call{Pipeline: "users", Result: observe.Failure, Err: statedError{}}
	s.options(call)
	if n := testing.AllocsPerRun(100, func() { s.options(call) }); n > 1 { // the key
		t.Errorf("got %v allocations, want at most 1", n)
	}
}

func TestSetsAreBounded(t *testing.T) {
	var s sets
	var callers sync.WaitGroup
	for caller := range 4 {
		callers.Go(func() {
			for i := range maxSets/4 + 100 {
				s.options(&observe.Call{Pipeline: fmt.Sprint(caller, i), Result: observe.Failure, Err: statedError{}})
			}
		})
	}
	callers.Wait()
	n := 0
	s.byKey.Range(func(any, any) bool { n++; return true })
	if want := maxSets + 1; n != want {
		t.Errorf("got %d sets, want %d", n, want)
	}
	other, _ := s.byKey.Load(setKey{"other", observe.Failure, "_OTHER"})
	if other == nil {
		t.Error("got no set for the calls beyond the bound")
	}
}
