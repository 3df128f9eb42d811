package resilienceotel_test

import (
	"context"
	"errors"
	"io"
	"maps"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	noopmetric "go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/internal/pipelines"
	"github.com/effector-go/resilience/observe"
	"github.com/effector-go/resilience/resilienceotel"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// A backend is what a test sees of OpenTelemetry.
type backend struct {
	*resilienceotel.Telemetry
	*observe.Observer
	spans   *tracetest.SpanRecorder
	tracer  trace.Tracer // of the program itself
	metrics *sdkmetric.ManualReader
}

func newBackend(t *testing.T, spans resilienceotel.Spans) *backend {
	t.Helper()
	b := &backend{spans: tracetest.NewSpanRecorder(), metrics: sdkmetric.NewManualReader()}
	tracing := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(b.spans))
	b.tracer = tracing.Tracer("program")
	var err error
	b.Telemetry, err = resilienceotel.New(resilienceotel.Config{
		MeterProvider:  sdkmetric.NewMeterProvider(sdkmetric.WithReader(b.metrics)),
		TracerProvider: tracing,
		Spans:          spans,
	})
	if err != nil {
		t.Fatal(err)
	}
	b.Observer = observe.New(observe.Config{Listeners: []observe.Listener{b.Telemetry.Listener()}})
	return b
}

// collect returns the metrics by name.
func (b *backend) collect(t *testing.T) map[string]metricdata.Metrics {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := b.metrics.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	byName := map[string]metricdata.Metrics{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			byName[m.Name] = m
		}
	}
	return byName
}

// describe returns the spans in the order in which they ended: "name kind status {attributes}" and
// the names of their events.
func describe(spans []sdktrace.ReadOnlySpan) (described []string) {
	for _, s := range spans {
		var attributes, events []string
		for _, a := range s.Attributes() {
			attributes = append(attributes, string(a.Key)+"="+a.Value.String())
		}
		slices.Sort(attributes)
		for _, e := range s.Events() {
			events = append(events, e.Name)
		}
		status := s.Status().Code.String()
		if s.Status().Description != "" {
			status += " " + s.Status().Description
		}
		described = append(described, strings.Join(append([]string{s.Name(), s.SpanKind().String(), status, "{" + strings.Join(attributes, " ") + "}"}, events...), ", "))
	}
	return described
}

func compareSpans(t *testing.T, b *backend, want ...string) {
	t.Helper()
	if got := describe(b.spans.Ended()); !slices.Equal(got, want) {
		t.Errorf("got spans\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// callTwice makes a call in a span of the program: the first attempt fails, the second succeeds.
func callTwice(t *testing.T, b *backend) {
	t.Helper()
	users := b.Pipeline("users", retry.New(retry.Config{Name: "again", Backoff: retry.Constant(0)}))
	ctx, span := b.tracer.Start(t.Context(), "request")
	err := resilience.Run(ctx, users, func(ctx context.Context) error {
		if retry.Attempt(ctx) == 1 {
			return io.ErrUnexpectedEOF
		}
		return nil
	})
	span.End()
	if err != nil {
		t.Fatal(err)
	}
}

func TestSpanEventsGoToSpanOfContext(t *testing.T) {
	b := newBackend(t, resilienceotel.SpanEvents)
	callTwice(t, b)
	compareSpans(t, b, "request, internal, Unset, {}, resilience.retry")
	attributes := map[string]string{}
	for _, a := range b.spans.Ended()[0].Events()[0].Attributes {
		attributes[string(a.Key)] = a.Value.String()
	}
	want := map[string]string{
		"resilience.pipeline.name": "users", "resilience.layer": "1", "resilience.policy.kind": "retry", "resilience.policy.name": "again",
		"resilience.attempt": "2", "error.type": "*errors.errorString",
	}
	if !maps.Equal(attributes, want) {
		t.Errorf("got attributes %v, want %v", attributes, want)
	}
}

func TestSpanCallsAddsSpanForEachCall(t *testing.T) {
	b := newBackend(t, resilienceotel.SpanCalls)
	callTwice(t, b)
	compareSpans(t, b,
		"users, internal, Unset, {resilience.pipeline.name=users resilience.result=success}, resilience.retry",
		"request, internal, Unset, {}")
	if call, request := b.spans.Ended()[0], b.spans.Ended()[1]; call.Parent().SpanID() != request.SpanContext().SpanID() {
		t.Errorf("got parent %v of the call, want the request", call.Parent().SpanID())
	}
}

func TestSpanAttemptsAddsChildForEachAttempt(t *testing.T) {
	b := newBackend(t, resilienceotel.SpanAttempts)
	callTwice(t, b)
	compareSpans(t, b,
		"users attempt, internal, Error unexpected EOF, {error.type=*errors.errorString resilience.attempt=1 resilience.pipeline.name=users resilience.result=failure}",
		"users attempt, internal, Unset, {resilience.attempt=2 resilience.pipeline.name=users resilience.result=success}",
		"users, internal, Unset, {resilience.pipeline.name=users resilience.result=success}, resilience.retry",
		"request, internal, Unset, {}")
	spans := b.spans.Ended()
	for _, attempt := range spans[:2] {
		if attempt.Parent().SpanID() != spans[2].SpanContext().SpanID() {
			t.Errorf("got parent %v of an attempt, want the call", attempt.Parent().SpanID())
		}
	}
}

func TestSpanNoneAddsNothing(t *testing.T) {
	b := newBackend(t, resilienceotel.SpanNone)
	callTwice(t, b)
	compareSpans(t, b, "request, internal, Unset, {}")
}

func TestSpanHasErrorStatusOnlyIfCallFailed(t *testing.T) {
	b := newBackend(t, resilienceotel.SpanCalls)
	failing := b.Pipeline("db", breaker.New(breaker.Config{Consecutive: 1}))
	fail := func(err error) func(context.Context) error { return func(context.Context) error { return err } }
	resilience.Run(t.Context(), failing, fail(resilience.NotFailure(io.EOF)))
	canceled, cancel := context.WithCancel(t.Context())
	resilience.Run(canceled, failing, func(ctx context.Context) error { cancel(); return ctx.Err() })
	func() {
		defer func() { recover() }()
		resilience.Run(t.Context(), failing, func(context.Context) error { panic("broken") })
	}()
	resilience.Run(t.Context(), failing, fail(io.ErrUnexpectedEOF)) // the breaker has opened
	var got []codes.Code
	for _, span := range b.spans.Ended() {
		got = append(got, span.Status().Code)
	}
	if want := []codes.Code{codes.Unset, codes.Unset, codes.Error, codes.Error}; !slices.Equal(got, want) {
		t.Errorf("got status codes %v, want %v", got, want)
	}
}

// A brokenError panics when its text is needed.
type brokenError struct{}

func (brokenError) Error() string { panic("broken") }

func TestSpanOfErrorThatPanicsDoesNotPanic(t *testing.T) {
	b := newBackend(t, resilienceotel.SpanAttempts)
	if err := resilience.Run(t.Context(), b.Pipeline("users"), func(context.Context) error { return brokenError{} }); !errors.Is(err, brokenError{}) {
		t.Errorf("got an error of type %T, want that of the effector", err)
	}
	for _, span := range b.spans.Ended() {
		if got, want := span.Status().Description, "its method Error panicked"; got != want {
			t.Errorf("got description %q, want %q", got, want)
		}
	}
	if n := len(b.spans.Ended()); n != 2 {
		t.Errorf("got %d spans, want 2", n)
	}
}

func TestSpanStatusIsBoundedAndValid(t *testing.T) {
	b := newBackend(t, resilienceotel.SpanAttempts)
	resilience.Run(t.Context(), b.Pipeline("\xffusers"), func(context.Context) error { return errors.New(strings.Repeat("ä", 400) + "\xff") })
	spans := b.spans.Ended()
	if len(spans) != 2 || spans[1].Name() != "\uFFFDusers" {
		t.Fatalf("got spans %v, want an attempt and a call of \uFFFDusers", describe(spans))
	}
	if got, want := spans[0].Status().Description, strings.Repeat("ä", 250); got != want {
		t.Errorf("got description %q, want %q", got, want)
	}
}

func TestDurationCountsCallsByResultAndErrorType(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend(t, resilienceotel.SpanNone)
		users := b.Pipeline("users", timeout.After(time.Second))
		for _, length := range []time.Duration{time.Millisecond, 30 * time.Millisecond, time.Minute} {
			resilience.Run(t.Context(), users, func(ctx context.Context) error {
				select {
				case <-time.After(length):
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
		}
		duration := b.collect(t)["resilience.call.duration"]
		if duration.Unit != "s" {
			t.Errorf("got unit %q, want s", duration.Unit)
		}
		got := map[string][]uint64{}
		for _, point := range duration.Data.(metricdata.Histogram[float64]).DataPoints {
			got[point.Attributes.Encoded(attribute.DefaultEncoder())] = point.BucketCounts
			if want := []float64{0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10}; !slices.Equal(point.Bounds, want) {
				t.Errorf("got bounds %v, want %v", point.Bounds, want)
			}
		}
		want := map[string][]uint64{
			"resilience.pipeline.name=users,resilience.result=success":                      {1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
			"error.type=timeout,resilience.pipeline.name=users,resilience.result=timed_out": {0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0},
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

func TestObserveExportsEveryValueOfModule(t *testing.T) {
	b := newBackend(t, resilienceotel.SpanNone)
	stop, err := b.Observe(b.Observer)
	if err != nil {
		t.Fatal(err)
	}
	everything := pipelines.EveryKind(b.Observer)
	defer runtime.KeepAlive(everything) // the observer exports the values of live policies
	if err := resilience.Run(t.Context(), everything, func(context.Context) error { return nil }); err != nil {
		t.Fatal(err)
	}
	metrics := b.collect(t)
	exported := 0
	for _, policy := range b.Snapshot().Policies {
		for _, report := range policy.Reports {
			for _, v := range report.Values {
				exported++
				name := "resilience." + report.Kind + "." + v.Name
				if got, ok := metrics[name]; !ok || got.Unit != v.Unit {
					t.Errorf("got %s with unit %q, want unit %q", name, got.Unit, v.Unit)
				}
			}
		}
	}
	if exported < 22 {
		t.Errorf("got %d values, want 22 or more", exported)
	}
	for range 2 {
		if err := stop(); err != nil {
			t.Errorf("stop: got %v", err)
		}
	}
	if metrics := b.collect(t); len(metrics) != 1 {
		t.Errorf("got metrics %v after stop, want only the duration", slices.Sorted(maps.Keys(metrics)))
	}
}

func TestNewUsesGlobalProvidersByDefault(t *testing.T) {
	recorder, reader := tracetest.NewSpanRecorder(), sdkmetric.NewManualReader()
	tracing, metering := otel.GetTracerProvider(), otel.GetMeterProvider()
	defer func() { otel.SetTracerProvider(tracing); otel.SetMeterProvider(metering) }()
	otel.SetTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder)))
	otel.SetMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)))
	telemetry, err := resilienceotel.New(resilienceotel.Config{Spans: resilienceotel.SpanCalls})
	if err != nil {
		t.Fatal(err)
	}
	obs := observe.New(observe.Config{Listeners: []observe.Listener{telemetry.Listener()}})
	resilience.Run(t.Context(), obs.Pipeline("users"), func(context.Context) error { return nil })
	var metrics metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &metrics); err != nil || len(metrics.ScopeMetrics) != 1 || len(recorder.Ended()) != 1 {
		t.Errorf("got error %v, %d scopes, %d spans, want no error, 1, 1", err, len(metrics.ScopeMetrics), len(recorder.Ended()))
	}
}

func TestNewReportsInvalidSpans(t *testing.T) {
	_, err := resilienceotel.New(resilienceotel.Config{Spans: 4})
	if err == nil || err.Error() != "resilienceotel: Spans is 4, must be SpanEvents, SpanCalls, SpanAttempts, or SpanNone" {
		t.Errorf("got error %v, want one that names the field and its range", err)
	}
}

// A brokenProvider has a meter that creates no counters.
type brokenProvider struct{ noopmetric.MeterProvider }

type brokenMeter struct{ noopmetric.Meter }

func (brokenProvider) Meter(string, ...metric.MeterOption) metric.Meter { return brokenMeter{} }

func (brokenMeter) Int64ObservableCounter(name string, _ ...metric.Int64ObservableCounterOption) (metric.Int64ObservableCounter, error) {
	return nil, errors.New("no counter " + name)
}

func TestNewReturnsErrorsOfMeterProvider(t *testing.T) {
	_, err := resilienceotel.New(resilienceotel.Config{MeterProvider: brokenProvider{}})
	if err == nil || !strings.HasPrefix(err.Error(), "resilienceotel: no counter resilience.call.attempts") {
		t.Errorf("got error %v, want that of the counters", err)
	}
}

func TestObserveReportsNilObserver(t *testing.T) {
	b := newBackend(t, resilienceotel.SpanNone)
	if _, err := b.Observe(nil); err == nil || !strings.Contains(err.Error(), "observer is nil") {
		t.Errorf("got error %v, want that the observer is nil", err)
	}
}

func TestSpansString(t *testing.T) {
	for s, want := range map[resilienceotel.Spans]string{
		resilienceotel.SpanEvents: "events", resilienceotel.SpanCalls: "calls", resilienceotel.SpanAttempts: "attempts", resilienceotel.SpanNone: "none", 9: "Spans(9)",
	} {
		text, err := s.MarshalText()
		if s.String() != want || string(text) != want || err != nil {
			t.Errorf("got %q and %q, error %v, want %q", s, text, err, want)
		}
	}
}
