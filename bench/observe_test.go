package bench

import (
	"context"
	"runtime"
	"testing"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/observe"
)

// BenchmarkObserve measures a call through the pipeline of the root package's documentation: bare,
// observed without listeners, and observed with a listener that does nothing. The effector succeeds
// immediately, or fails, or an open breaker refuses the call.
func BenchmarkObserve(b *testing.B) {
	counted := observe.New(observe.Config{})
	heard := observe.New(observe.Config{Listeners: []observe.Listener{{
		Begin: func(ctx context.Context, _ *observe.Call) context.Context { return ctx },
		Attempt: func(context.Context, *observe.Call, int) (context.Context, func(observe.Result, error)) {
			return nil, nil
		},
		Event: func(context.Context, *observe.Call, observe.Event) {},
		End:   func(context.Context, *observe.Call) {},
	}}})
	observers := []struct {
		name    string
		observe func(resilience.Pipeline) resilience.Policy
	}{
		{"none", func(p resilience.Pipeline) resilience.Policy { return p }},
		{"counts", func(p resilience.Pipeline) resilience.Policy { return counted.Pipeline("users", p...) }},
		{"listener", func(p resilience.Pipeline) resilience.Policy { return heard.Pipeline("users", p...) }},
	}
	refusing := resilience.Pipeline{forcedOpen()}
	disabled := breaker.New(breaker.Config{})
	disabled.Disable()
	failing := resilience.Pipeline{disabled}
	for _, calls := range []struct {
		name     string
		effector effector
		pipeline resilience.Pipeline
	}{
		{"succeeds", succeed, whole()}, {"passes", succeed, resilience.Pipeline{resilience.PolicyFunc(pass)}},
		{"fails", fail, failing}, {"refused", succeed, refusing},
	} {
		for _, o := range observers {
			serialAndParallel(b, "call="+calls.name+"/observer="+o.name, always(resilience.Compose(calls.effector, o.observe(calls.pipeline))))
		}
	}
}

// BenchmarkObserveSnapshot measures a snapshot of 100 pipelines.
func BenchmarkObserveSnapshot(b *testing.B) {
	o := observe.New(observe.Config{})
	var pipelines []resilience.Policy
	for range 100 {
		p := o.Pipeline("users", whole()...)
		resilience.Do(ctx, p, succeed)
		pipelines = append(pipelines, p)
	}
	b.ReportAllocs()
	for b.Loop() {
		o.Snapshot()
	}
	runtime.KeepAlive(pipelines)
}

// BenchmarkObservePipeline measures the creation of a pipeline.
func BenchmarkObservePipeline(b *testing.B) {
	o := observe.New(observe.Config{})
	policies := whole()
	b.ReportAllocs()
	for b.Loop() {
		o.Pipeline("users", policies...)
	}
}
