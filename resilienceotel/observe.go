package resilienceotel

import (
	"context"
	"errors"
	"strings"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/effector-go/resilience/observe"
)

// values lists what the policies of this module report. Instruments must exist before the first
// policy does, so their names can't be taken from reports. A test compares the two.
var values = []struct{ kind, name, unit string }{
	{"adaptive", "limit", "{call}"},
	{"adaptive", "round_trip", "s"},
	{"adaptive", "running", "{call}"},
	{"breaker", "calls", "{call}"},
	{"breaker", "failures", "{call}"},
	{"breaker", "retry_after", "s"},
	{"breaker", "running", "{call}"},
	{"breaker", "slow", "{call}"},
	{"budget", "tokens", "{token}"},
	{"bulkhead", "limit", "{call}"},
	{"bulkhead", "running", "{call}"},
	{"bulkhead", "waiting", "{call}"},
	{"hedge", "delay", "s"},
	{"pipeline", "running", "{call}"},
	{"ratelimit", "available", "{call}"},
	{"ratelimit", "rate", "{call}/s"},
	{"ratelimit", "waiting", "{call}"},
	{"shed", "accepts", "{call}"},
	{"shed", "requests", "{call}"},
	{"shed", "share", "1"},
	{"throttle", "available", "{token}"},
	{"timeout", "abandoned", "{call}"},
}

// instruments are those that Observe's callback observes.
type instruments struct {
	meter            metric.Meter
	running, state   metric.Int64ObservableUpDownCounter
	attempts, events metric.Int64ObservableCounter
	changes          metric.Int64ObservableCounter
	stateTime        metric.Float64ObservableCounter
	values           map[valueKey]metric.Float64Observable
	all              []metric.Observable
}

type valueKey struct{ kind, name string }

func newInstruments(meter metric.Meter) (*instruments, error) {
	i := &instruments{meter: meter, values: map[valueKey]metric.Float64Observable{}}
	var errs [6]error
	i.running, errs[0] = meter.Int64ObservableUpDownCounter("resilience.call.running",
		metric.WithUnit("{call}"), metric.WithDescription("Calls in progress."))
	i.attempts, errs[1] = meter.Int64ObservableCounter("resilience.call.attempts",
		metric.WithUnit("{attempt}"), metric.WithDescription("Runs of what is inside the pipeline."))
	i.events, errs[2] = meter.Int64ObservableCounter("resilience.events",
		metric.WithUnit("{event}"), metric.WithDescription("What the policies of a pipeline did."))
	i.state, errs[3] = meter.Int64ObservableUpDownCounter("resilience.policy.state",
		metric.WithUnit("{policy}"), metric.WithDescription("Live policies in a state."))
	i.stateTime, errs[4] = meter.Float64ObservableCounter("resilience.policy.state.time",
		metric.WithUnit("s"), metric.WithDescription("Time that policies spent in a state."))
	i.changes, errs[5] = meter.Int64ObservableCounter("resilience.policy.changes",
		metric.WithUnit("{change}"), metric.WithDescription("Changes of the state of policies."))
	i.all = []metric.Observable{i.running, i.attempts, i.events, i.state, i.stateTime, i.changes}
	err := errors.Join(errs[:]...)
	for _, v := range values {
		name := "resilience." + v.kind + "." + v.name
		description := "Value " + v.name + " of policies of kind " + v.kind + "."
		var instrument metric.Float64Observable
		var failed error
		if addsUp(v.unit) {
			instrument, failed = meter.Float64ObservableUpDownCounter(name, metric.WithUnit(v.unit), metric.WithDescription(description))
		} else {
			instrument, failed = meter.Float64ObservableGauge(name, metric.WithUnit(v.unit), metric.WithDescription(description))
		}
		err = errors.Join(err, failed)
		i.values[valueKey{v.kind, v.name}] = instrument
		i.all = append(i.all, instrument)
	}
	return i, err
}

// addsUp reports whether values in the unit count something, so that those of several policies add up.
func addsUp(unit string) bool { return strings.HasPrefix(unit, "{") }

// Observe exports what o counts, whenever a reader of the MeterProvider collects. Stop ends that; it
// can be called repeatedly, and returns the same result each time. Observe returns an error if o is nil,
// or if the MeterProvider returns one.
//
// Each observer needs its own Telemetry and MeterProvider, unless the names of their pipelines and
// policies differ: of two equal names, only one observer's would be exported.
func (t *Telemetry) Observe(o *observe.Observer) (stop func() error, err error) {
	if o == nil {
		return nil, errors.New("resilienceotel: Observe: observer is nil, must be created with observe.New")
	}
	registration, err := t.observed.meter.RegisterCallback(func(_ context.Context, to metric.Observer) error {
		t.observed.observe(to, o.Snapshot())
		return nil
	}, t.observed.all...)
	if err != nil {
		return nil, err
	}
	return sync.OnceValue(registration.Unregister), nil
}

// observe exports a snapshot.
func (i *instruments) observe(to metric.Observer, s observe.Snapshot) {
	p := points{}
	for _, pipeline := range s.Pipelines {
		name := text(pipelineKey, pipeline.Name)
		p.add(i.running, float64(pipeline.Running), name)
		p.add(i.attempts, float64(pipeline.Attempts), name)
		for _, l := range pipeline.Layers {
			for kind, n := range l.Events {
				p.add(i.events, float64(n), name, layerKey.Int(l.Position), text(kindKey, l.Kind), text(nameKey, l.Name), eventKey.String(kind.String()))
			}
		}
	}
	for _, policy := range s.Policies {
		kind, name := text(kindKey, policy.Kind), text(nameKey, policy.Name)
		for state, n := range policy.States {
			p.add(i.state, float64(n), kind, name, text(stateKey, state))
		}
		for state, d := range policy.InState {
			p.add(i.state, 0, kind, name, text(stateKey, state)) // a former state is 0, not missing
			p.add(i.stateTime, d.Seconds(), kind, name, text(stateKey, state))
		}
		for state, n := range policy.Changes {
			p.add(i.state, 0, kind, name, text(stateKey, state))
			p.add(i.changes, float64(n), kind, name, text(stateKey, state))
		}
		for _, r := range policy.Reports {
			for _, v := range r.Values {
				switch instrument := i.values[valueKey{policy.Kind, v.Name}]; {
				case instrument == nil: // of a kind that isn't this module's
				case addsUp(v.Unit):
					p.add(instrument, v.Value, name)
				default:
					p.largest(instrument, v.Value, name)
				}
			}
		}
	}
	p.send(to)
}

// points are the values of one collection. They are merged here because an instrument takes one value
// for a set of attributes: names that differ in the program may be equal once they are valid UTF-8, and
// several policies may have one name.
type points map[pointKey]float64

type pointKey struct {
	instrument metric.Observable
	attributes attribute.Set
}

// add adds value to that of the instrument and the attributes.
func (p points) add(instrument metric.Observable, value float64, attributes ...attribute.KeyValue) {
	p[pointKey{instrument, attribute.NewSet(attributes...)}] += value
}

// largest keeps the largest value of the instrument and the attributes.
func (p points) largest(instrument metric.Observable, value float64, attributes ...attribute.KeyValue) {
	key := pointKey{instrument, attribute.NewSet(attributes...)}
	if before, ok := p[key]; ok {
		value = max(before, value)
	}
	p[key] = value
}

func (p points) send(to metric.Observer) {
	for key, value := range p {
		attributes := metric.WithAttributeSet(key.attributes)
		switch instrument := key.instrument.(type) {
		case metric.Int64Observable:
			to.ObserveInt64(instrument, int64(value), attributes)
		case metric.Float64Observable:
			to.ObserveFloat64(instrument, value, attributes)
		}
	}
}
