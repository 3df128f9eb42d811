// Package resilienceotel exports what policies do to OpenTelemetry, as metrics and traces.
//
//	telemetry, err := resilienceotel.New(resilienceotel.Config{})
//	...
//	obs := observe.New(observe.Config{Listeners: []observe.Listener{telemetry.Listener()}})
//	stop, err := telemetry.Observe(obs)
//
// The listener records the histogram resilience.call.duration (s) and, depending on [Spans], span
// events or spans. Observe adds what the observer counts; it costs calls nothing:
//
//   - resilience.call.running: calls in progress, by pipeline.
//   - resilience.call.attempts: runs of what is inside the pipeline.
//   - resilience.events: what policies did, by pipeline, layer, policy, and event.
//   - resilience.policy.state: live policies, by state.
//   - resilience.policy.state.time (s): how long policies were in a state.
//   - resilience.policy.changes: changes of state, by the new state.
//   - resilience.<kind>.<value>: what policies of this module report, by the name of the policy,
//     such as resilience.bulkhead.running. If several policies have one name, values that count
//     something add up; of others, the largest counts.
//
// Attributes are resilience.pipeline.name, resilience.result, resilience.layer, resilience.event,
// resilience.policy.kind, resilience.policy.name, resilience.policy.state, resilience.attempt (on
// spans and their events only), and error.type (not on success).
//
// Error.type is the first ErrorType in the tree of the error, such as "breaker_open", otherwise the
// first Go type that isn't just a wrapper. For a retry.ExhaustedError, it is that of the last
// attempt's error.
package resilienceotel

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/effector-go/resilience/internal/errtype"
	"github.com/effector-go/resilience/observe"
)

const (
	// ScopeName is the name of the instrumentation scope of all metrics and spans.
	ScopeName = "github.com/effector-go/resilience/resilienceotel"
	// Version is the version of the instrumentation scope.
	Version = "0.1.0"
)

// Config is the configuration of a [Telemetry]. The zero Config uses the global providers.
type Config struct {
	MeterProvider  metric.MeterProvider // default otel.GetMeterProvider()
	TracerProvider trace.TracerProvider // default otel.GetTracerProvider()
	Spans          Spans                // default SpanEvents
}

// Spans is what the listener adds to traces.
type Spans int

// What the listener adds to traces. With each except SpanNone, events of policies become span events
// with the names resilience.retry, resilience.refusal, and so on.
const (
	SpanEvents   Spans = iota // events on the span of the call's context
	SpanCalls                 // also a span for each call
	SpanAttempts              // also a child of it for each attempt, with resilience.attempt
	SpanNone                  // nothing
)

var spans = [...]string{SpanEvents: "events", SpanCalls: "calls", SpanAttempts: "attempts", SpanNone: "none"}

// String returns "events", "calls", "attempts", or "none".
func (s Spans) String() string {
	if s < 0 || int(s) >= len(spans) {
		return fmt.Sprintf("Spans(%d)", int(s))
	}
	return spans[s]
}

// MarshalText returns String.
func (s Spans) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// A Telemetry exports to OpenTelemetry. Create it with [New]; it is safe for concurrent use.
type Telemetry struct {
	spans    Spans
	tracer   trace.Tracer
	duration metric.Float64Histogram
	observed *instruments
	sets     sets
}

// New returns a Telemetry, whose instruments it creates. It returns an error if Spans is invalid, or if
// the MeterProvider returns one.
func New(c Config) (*Telemetry, error) {
	if c.Spans < 0 || int(c.Spans) >= len(spans) {
		return nil, fmt.Errorf("resilienceotel: Spans is %d, must be SpanEvents, SpanCalls, SpanAttempts, or SpanNone", int(c.Spans))
	}
	if c.MeterProvider == nil {
		c.MeterProvider = otel.GetMeterProvider()
	}
	if c.TracerProvider == nil {
		c.TracerProvider = otel.GetTracerProvider()
	}
	meter := c.MeterProvider.Meter(ScopeName, metric.WithInstrumentationVersion(Version))
	duration, err := meter.Float64Histogram("resilience.call.duration",
		metric.WithUnit("s"),
		metric.WithDescription("Duration of calls through a pipeline."),
		// The semantic conventions recommend these for HTTP.
		metric.WithExplicitBucketBoundaries(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10))
	observed, err2 := newInstruments(meter)
	if err := errors.Join(err, err2); err != nil {
		return nil, fmt.Errorf("resilienceotel: %w", err)
	}
	return &Telemetry{
		spans:    c.Spans,
		tracer:   c.TracerProvider.Tracer(ScopeName, trace.WithInstrumentationVersion(Version)),
		duration: duration,
		observed: observed,
	}, nil
}

// Listener returns a listener that records calls. Several observers can use it.
func (t *Telemetry) Listener() observe.Listener {
	l := observe.Listener{End: t.end}
	if t.spans != SpanNone {
		l.Event = event
	}
	if t.spans == SpanCalls || t.spans == SpanAttempts {
		l.Begin = t.begin
	}
	if t.spans == SpanAttempts {
		l.Attempt = t.attempt
	}
	return l
}

const (
	pipelineKey = attribute.Key("resilience.pipeline.name")
	resultKey   = attribute.Key("resilience.result")
	layerKey    = attribute.Key("resilience.layer")
	eventKey    = attribute.Key("resilience.event")
	kindKey     = attribute.Key("resilience.policy.kind")
	nameKey     = attribute.Key("resilience.policy.name")
	stateKey    = attribute.Key("resilience.policy.state")
	attemptKey  = attribute.Key("resilience.attempt")
	errorKey    = attribute.Key("error.type")
)

// text returns an attribute. Its value is valid UTF-8: otherwise exporters refuse the whole batch.
func text(key attribute.Key, value string) attribute.KeyValue { return key.String(valid(value)) }

func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// begin starts the span of a call.
func (t *Telemetry) begin(ctx context.Context, call *observe.Call) context.Context {
	ctx, _ = t.start(ctx, spanName(call.Pipeline), text(pipelineKey, call.Pipeline))
	return ctx
}

// attempt starts the span of an attempt.
func (t *Telemetry) attempt(ctx context.Context, call *observe.Call, number int) (context.Context, func(observe.Result, error)) {
	ctx, span := t.start(ctx, spanName(call.Pipeline)+" attempt", text(pipelineKey, call.Pipeline), attemptKey.Int(number))
	return ctx, func(result observe.Result, err error) { end(span, result, err) }
}

func (t *Telemetry) start(ctx context.Context, name string, attributes ...attribute.KeyValue) (context.Context, trace.Span) {
	return t.tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindInternal), trace.WithAttributes(attributes...))
}

func spanName(pipeline string) string {
	if pipeline == "" {
		return "resilience"
	}
	return valid(pipeline)
}

// end records the duration of a call, and ends its span.
func (t *Telemetry) end(ctx context.Context, call *observe.Call) {
	if t.duration.Enabled(ctx) {
		t.duration.Record(ctx, call.Duration.Seconds(), t.sets.options(call)...)
	}
	if t.spans == SpanCalls || t.spans == SpanAttempts { // the context is that of begin
		end(trace.SpanFromContext(ctx), call.Result, call.Err)
	}
}

// end ends the span of a call or of an attempt.
func end(span trace.Span, result observe.Result, err error) {
	defer span.End()
	if !span.IsRecording() {
		return
	}
	span.SetAttributes(resultKey.String(result.String()))
	if result == observe.Success {
		return
	}
	span.SetAttributes(text(errorKey, errorType(result, err)))
	if result == observe.Canceled { // by the caller, or by a hedge that another start won
		return
	}
	description := result.String()
	if err != nil {
		description = strings.ToValidUTF8(errtype.Text(err), "")
	}
	span.SetStatus(codes.Error, description)
}

// event adds an event to the span of the context.
func event(ctx context.Context, call *observe.Call, e observe.Event) {
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return
	}
	attributes := []attribute.KeyValue{
		text(pipelineKey, call.Pipeline),
		layerKey.Int(e.Layer),
		text(kindKey, e.Policy),
		text(nameKey, e.Name),
	}
	if e.Attempt > 0 {
		attributes = append(attributes, attemptKey.Int(e.Attempt))
	}
	if e.Err != nil {
		attributes = append(attributes, text(errorKey, errorType(observe.Failure, e.Err)))
	}
	span.AddEvent("resilience."+e.Kind.String(), trace.WithAttributes(attributes...))
}
