// Package observe counts and reports what policies do, for logs, metrics, and traces.
//
//	obs := observe.New(observe.Config{Listeners: []observe.Listener{observe.Log(slog.Default())}})
//	users := obs.Pipeline("users", retry.New(retry.Config{}), breaker.New(breaker.Config{Name: "users"}))
//
//	getUser := resilience.Compose(fetchUser, users)
//
// [Observer.Pipeline] returns a policy that runs the given ones, and observes both sides of each: what
// enters it and what it does with the rest of the pipeline. So policies need not know of the observer,
// and user-written ones are observed like those of this module. Nothing is global; code that uses no
// observer pays nothing.
//
// Views and metrics read [Observer.Snapshot]. A [Listener] is called during calls, for logs ([Log])
// and traces.
//
// Names of pipelines and policies are for people and become labels of metrics, so there should be few:
// no user IDs, no URLs. [Config].MaxNames bounds them.
//
// Observing a call that succeeds at the first attempt costs two clock readings, four atomic operations,
// two or three nanoseconds for each policy, and rarely an allocation (BenchmarkObserve in folder bench).
// Listeners cost what they do, a few allocations, and, with Event, two clock readings for each run of a
// policy.
package observe

import (
	"fmt"
	"reflect"
	"sync"
	"time"
	"weak"

	"github.com/effector-go/resilience"
)

// An Observer counts the calls of its pipelines and what their policies do, and calls its
// listeners. It keeps no pipeline alive, and no policy that is a pointer. Create an Observer with
// [New]; it is safe for concurrent use.
type Observer struct {
	config               Config     // with its defaults
	listeners            []Listener // of the config; nil if none is called during calls
	hasAttempt, hasEvent bool       // a listener has the function

	mu             sync.Mutex // guards the following and what it refers to, except tallies and errors
	pipelines      *names[string, *pipelineGroup]
	otherPipelines *named[string, *pipelineGroup] // those that MaxNames leaves no room for; nil until needed
	registry
}

// New creates an Observer. It panics with the text of [Config.Validate] if the config is invalid.
func New(config Config) *Observer {
	if err := config.Validate(); err != nil {
		panic(err.Error())
	}
	config = config.withDefaults()
	o := &Observer{
		config:    config,
		pipelines: newNames[string, *pipelineGroup](config.MaxNames),
		registry:  newRegistry(config.MaxNames),
	}
	for _, l := range config.Listeners {
		o.hasAttempt = o.hasAttempt || l.Attempt != nil
		o.hasEvent = o.hasEvent || l.Event != nil
		if l.Begin != nil || l.Attempt != nil || l.Event != nil || l.End != nil {
			o.listeners = config.Listeners
		}
	}
	return o
}

// Pipeline returns a policy that runs the given ones, outermost first, and counts what they do
// under the name. Pipelines of one name are counted together. The list is copied, with nested
// [resilience.Pipeline] values flattened. An observed pipeline among the policies is one layer; its
// policies are layers of their own pipeline. The result is a [resilience.Reporter] of kind "pipeline".
// Pipeline panics if a policy is nil, at any depth.
//
// Create each pipeline once, like its policies. When it is garbage-collected, its counts stay.
func (o *Observer) Pipeline(name string, policies ...resilience.Policy) resilience.Policy {
	flat := flatten(nil, "policies", policies)
	p := &pipeline{observer: o, name: name, tally: newTally(o.config.Buckets, len(flat))}
	t := p.tally
	t.pipeline = weak.Make(p)
	for _, policy := range flat {
		l := p.add(policy)
		t.places = append(t.places, place{l.position, l.kind})
		t.names = append(t.names, l.name)
		var m *member
		if reporter, ok := policy.(resilience.Reporter); ok {
			m, l.box = o.member(reporter)
		}
		t.members = append(t.members, m)
	}
	p.add(nil)
	o.register(p)
	return p
}

// add adds a layer for a policy, or, if that is nil, for what is inside the pipeline.
func (p *pipeline) add(policy resilience.Policy) *layer {
	l := &layer{pipeline: p, policy: policy, position: len(p.layers) + 1}
	if l.position > 1 {
		l.above = p.layers[l.position-2]
	}
	if policy != nil {
		_, l.nested = policy.(*pipeline)
		r := describe(policy)
		l.kind, l.name = r.Kind, r.Name
	}
	p.layers = append(p.layers, l)
	p.list = append(p.list, calls.Layer(l.position, policy, l))
	return l
}

// describe returns the report of a policy, an empty one if it isn't a Reporter. The kind is never
// empty: without one, it is the policy's type.
func describe(policy any) (r resilience.Report) {
	if reporter, ok := policy.(resilience.Reporter); ok {
		r = reporter.Report()
	}
	if r.Kind == "" {
		r.Kind = reflect.TypeOf(policy).String()
	}
	return r
}

// flatten appends the policies to flat, with those of nested pipelines in their place. It panics for
// a nil policy, which it names by its path.
func flatten(flat []resilience.Policy, path string, policies []resilience.Policy) []resilience.Policy {
	for i, policy := range policies {
		here := fmt.Sprintf("%s[%d]", path, i)
		if nested, ok := policy.(resilience.Pipeline); ok {
			flat = flatten(flat, here, nested)
			continue
		}
		if isNil(policy) {
			panic(fmt.Sprintf("observe: Pipeline: %s is nil (%T), must be a Policy", here, policy))
		}
		flat = append(flat, policy)
	}
	return flat
}

// isNil reports whether v is nil, or a nil pointer or function in an interface.
func isNil(v any) bool {
	r := reflect.ValueOf(v)
	return !r.IsValid() || (r.Kind() == reflect.Pointer || r.Kind() == reflect.Func) && r.IsNil()
}

// Watch adds policies and budgets that are used outside pipelines of o, so that snapshots contain
// them and listeners receive their changes. Watching one again changes nothing. Watch keeps no pointer
// alive, but keeps other values for as long as o lives. It panics if a reporter is nil.
func (o *Observer) Watch(reporters ...resilience.Reporter) {
	for i, r := range reporters {
		if isNil(r) {
			panic(fmt.Sprintf("observe: Watch: reporters[%d] is nil (%T), must be a Reporter", i, r))
		}
	}
	for _, r := range reporters {
		if _, b := o.member(r); b != nil {
			o.mu.Lock()
			o.watched[b] = true
			o.mu.Unlock()
		}
	}
}

// Live returns the live policies and budgets of the kind and name, in the order in which o first
// saw them. It returns nil for those that are counted as "other" because of Config.MaxNames.
func (o *Observer) Live(kind, name string) []resilience.Reporter {
	o.mu.Lock()
	defer o.mu.Unlock()
	g := o.lookUp(kind, name)
	if g == nil {
		return nil
	}
	var live []resilience.Reporter
	for _, m := range g.inOrder() {
		if r := m.reporter(); r != nil && !m.surplus {
			live = append(live, r)
		}
	}
	return live
}

// Snapshot returns what o has counted, and a report of each live policy. The caller owns it. A panic
// of a policy's Report is Snapshot's panic. Snapshot formats the errors that it contains; a panic of
// an error's method only shows in its text.
func (o *Observer) Snapshot() Snapshot {
	now := time.Now()
	live := o.liveMembers(now)
	for i := range live {
		live[i].report = live[i].reporter.Report() // under no lock
	}
	return o.snapshot(now, live)
}
