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
// A call that succeeds at the first attempt costs two readings of the clock, four atomic operations, and
// two or three nanoseconds for each policy, and rarely an allocation (BenchmarkObserve in folder bench).
// Listeners cost what they do, a few allocations, and, with Event, two readings of the clock for each
// run of a policy.
package observe

import (
	"fmt"
	"reflect"
	"runtime"
	"sync"
	"time"
	"weak"

	"github.com/effector-go/resilience"
)

// An Observer counts the calls of its pipelines and what their policies do, and calls its
// listeners. It keeps no pipeline alive, and no policy that is a pointer. Create an Observer with
// [New]; it is safe for concurrent use.
type Observer struct {
	config               Config // with its defaults
	listeners            []Listener
	hasAttempt, hasEvent bool // a listener has the function
	flows                *names[string, *flow]
	otherFlow            *named[string, *flow] // nil until needed

	mu sync.Mutex // guards the following, flows, policies, and what they contain, except tallies
	policyBook
}

// New creates an Observer. It panics with the text of [Config.Validate] if the config is invalid.
func New(config Config) *Observer {
	if err := config.Validate(); err != nil {
		panic(err.Error())
	}
	config = config.withDefaults()
	o := &Observer{
		config:     config,
		flows:      newNames[string, *flow](config.MaxNames),
		policyBook: newPolicyBook(config.MaxNames),
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

// other is the name of what MaxNames leaves no place for.
const other = "other"

// Pipeline returns a policy that runs the given ones, outermost first, and counts what they do
// under the name. Pipelines of one name are counted together. The list is copied, with nested
// [resilience.Pipeline] values flattened. An observed pipeline among the policies is one layer; its
// policies are layers of their own pipeline. The result is a [resilience.Reporter] of kind "pipeline".
// Pipeline panics if a policy is nil, at any depth.
//
// Create each pipeline once, as policies. Its name and that of its policies are kept when it is
// collected.
func (o *Observer) Pipeline(name string, policies ...resilience.Policy) resilience.Policy {
	flat := flatten(nil, "policies", policies)
	p := &pipeline{observer: o, name: name}
	p.tally = newTally(o.config.Buckets, len(flat))
	p.tally.pipeline = weak.Make(p)
	for i, policy := range flat {
		p.add(policy)
		l := p.layers[i]
		p.tally.places = append(p.tally.places, place{i + 1, l.kind})
		p.tally.names = append(p.tally.names, l.name)
		var m *member
		if reporter, ok := policy.(resilience.Reporter); ok {
			m, l.keep = o.meet(reporter)
		}
		p.tally.members = append(p.tally.members, m)
	}
	p.add(nil)
	o.register(p)
	return p
}

// add adds a layer.
func (p *pipeline) add(policy resilience.Policy) {
	l := &layer{pipeline: p, policy: policy, position: len(p.layers) + 1}
	if l.position > 1 {
		l.above = p.layers[l.position-2]
	}
	if policy != nil {
		_, l.nested = policy.(*pipeline)
		l.kind, l.name = describe(policy)
	}
	p.layers = append(p.layers, l)
	p.list = append(p.list, calls.Layer(l.position, policy, l))
}

// describe returns the kind and the name of a policy.
func describe(policy any) (kind, name string) {
	if reporter, ok := policy.(resilience.Reporter); ok {
		report := reporter.Report()
		kind, name = report.Kind, report.Name
	}
	if kind == "" {
		kind = reflect.TypeOf(policy).String()
	}
	return kind, name
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

// register makes the pipeline part of snapshots, as long as it lives.
func (o *Observer) register(p *pipeline) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p.flow = o.flow(p.name)
	p.flow.add(p.tally)
	runtime.AddCleanup(p, func(c cleanup[*tally]) {
		if o := c.observer.Value(); o != nil {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.retire(c.of)
		}
	}, cleanup[*tally]{weak.Make(o), p.tally})
}

// A cleanup is what is necessary when something is collected.
type cleanup[T any] struct {
	observer weak.Pointer[Observer]
	of       T
}

// flow returns what is kept for a pipeline's name, and adds a user to it.
func (o *Observer) flow(name string) *flow {
	create := func() *flow { return newFlow(name) }
	if o.otherFlow != nil && name == other {
		return o.otherFlow.value
	}
	e := o.flows.use(name, create)
	if e == nil && o.retireSome() {
		e = o.flows.use(name, create)
	}
	if e == nil {
		e = o.otherFlow
	}
	if e == nil {
		if e = o.flows.named[other]; e == nil { // otherwise, a pipeline really has that name
			e = &named[string, *flow]{key: other, value: newFlow(other)}
		}
		e.users++ // it stays
		o.otherFlow = e
	}
	e.value.named = e
	return e.value
}

// retire removes a pipeline that is collected, and keeps its counts.
func (o *Observer) retire(t *tally) {
	f := t.flow
	if f == nil {
		return
	}
	f.remove(t)
	if o.otherFlow == nil || f.named != o.otherFlow {
		o.flows.leave(f.named)
	}
}

// retireSome retires pipelines whose cleanup hasn't run yet. It looks at a few, so that the time it
// takes doesn't depend on how many there are. It reports whether it found any.
func (o *Observer) retireSome() (found bool) {
	left := searched
	for _, e := range o.flows.named {
		for _, t := range e.value.live {
			if left--; left < 0 {
				return found
			}
			if t.pipeline.Value() == nil {
				o.retire(t)
				found = true
				break // the list has changed
			}
		}
	}
	return found
}

// searched is how many pipelines or policies are looked at for one that is gone.
const searched = 64

// Watch adds policies and budgets that are used outside pipelines of o, so that snapshots contain
// them and listeners receive their changes. Watching one again changes nothing. What isn't a pointer
// is kept. Watch panics if a reporter is nil.
func (o *Observer) Watch(reporters ...resilience.Reporter) {
	for i, r := range reporters {
		if isNil(r) {
			panic(fmt.Sprintf("observe: Watch: reporters[%d] is nil (%T), must be a Reporter", i, r))
		}
	}
	for _, r := range reporters {
		if _, keep := o.meet(r); keep != nil {
			o.mu.Lock()
			o.kept[keep] = true
			o.mu.Unlock()
		}
	}
}

// Live returns the live policies and budgets of the kind and name, in the order in which o first
// saw them. It returns nil for those that are counted as "other" because of Config.MaxNames.
func (o *Observer) Live(kind, name string) []resilience.Reporter {
	o.mu.Lock()
	defer o.mu.Unlock()
	g := o.group(kind, name)
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
	live := o.lively(now)
	reports := make(map[*member]resilience.Report, len(live))
	for _, m := range live {
		reports[m.member] = m.reporter.Report() // under no lock
	}
	return o.snapshot(now, live, reports)
}
