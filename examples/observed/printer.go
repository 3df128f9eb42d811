package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/sdk/trace"

	"github.com/effector-go/resilience/resilienceotel"
)

// A printer is an exporter that prints the spans of calls to which policies did something, at most
// five a second: a terminal is no backend.
type printer struct {
	out io.Writer

	mu      sync.Mutex
	second  time.Time
	printed int
}

// ExportSpans prints spans.
func (p *printer) ExportSpans(_ context.Context, spans []trace.ReadOnlySpan) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, span := range spans {
		if span.InstrumentationScope().Name != resilienceotel.ScopeName || len(span.Events()) == 0 {
			continue
		}
		if second := span.EndTime().Truncate(time.Second); second.After(p.second) {
			p.second, p.printed = second, 0
		}
		if p.printed++; p.printed <= 5 {
			fmt.Fprintln(p.out, line(span))
		}
	}
	return nil
}

// Shutdown does nothing.
func (p *printer) Shutdown(context.Context) error { return nil }

// line describes a span: when it ended, its trace, how long it took, its result, and what the
// policies did after how long.
func line(span trace.ReadOnlySpan) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s trace %s %s %v", span.EndTime().Format(time.TimeOnly), span.SpanContext().TraceID().String()[:8], span.Name(),
		span.EndTime().Sub(span.StartTime()).Round(time.Millisecond))
	for _, a := range span.Attributes() {
		if a.Key == "resilience.result" || a.Key == "error.type" {
			fmt.Fprintf(&b, " %s", a.Value.String())
		}
	}
	b.WriteByte(':')
	for _, e := range span.Events() {
		fmt.Fprintf(&b, " %s", strings.TrimPrefix(e.Name, "resilience."))
		for _, a := range e.Attributes {
			if a.Key == "resilience.policy.kind" {
				fmt.Fprintf(&b, " by %s", a.Value.String())
			}
		}
		fmt.Fprintf(&b, " after %v;", e.Time.Sub(span.StartTime()).Round(time.Millisecond))
	}
	return strings.TrimSuffix(b.String(), ";")
}
