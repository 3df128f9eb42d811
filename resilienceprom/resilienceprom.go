// Package resilienceprom exports what an [observe.Observer] counts to Prometheus.
//
//	obs := observe.New(observe.Config{})
//	prometheus.MustRegister(resilienceprom.New(obs))
//	http.Handle("/metrics", promhttp.Handler())
//
// The metrics are:
//
//   - resilience_call_duration_seconds{pipeline,result}: a histogram of the duration of calls, with
//     the observer's buckets. Its _count is the number of calls.
//   - resilience_calls_running{pipeline}: calls in progress.
//   - resilience_attempts_total{pipeline}: runs of what is inside the pipeline.
//   - resilience_events_total{pipeline,layer,policy,name,event}: what policies did. Layer is the
//     position in the pipeline, 1 is the outermost.
//   - resilience_policy_state{policy,name,state}: how many live policies are in the state.
//   - resilience_policy_state_seconds_total{policy,name,state}: how long policies were in the state.
//   - resilience_policy_changes_total{policy,name,to}: changes of state.
//   - resilience_<policy>_<value>{name}: each value of the policies' reports, such as
//     resilience_bulkhead_running and resilience_adaptive_round_trip_seconds. A name ends in _seconds
//     for values in seconds and in _ratio for shares. If several policies have one name, values that
//     count something (calls, tokens) add up; of others, the largest counts.
//
// The label policy is the kind of a policy, such as "breaker"; name is the Name of its Config.
// Labels come from the names in the program, so their number is bounded by Config.MaxNames of the
// observer. Don't put users or requests into names.
//
// The folder has a dashboard for Grafana (grafana.json) and alerting rules (alerts.yaml).
package resilienceprom

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/observe"
)

// New returns a collector of what o counts. It panics if o is nil.
//
// The collector is unchecked: its metrics depend on the policies that run. It keeps nothing itself;
// each scrape takes one snapshot. It is safe for concurrent use. Register it once per observer and
// registry. For several observers in one registry, distinguish their metrics by a label, with
// [prometheus.WrapRegistererWith].
func New(o *observe.Observer) prometheus.Collector {
	if o == nil {
		panic("resilienceprom: New: observer is nil, must be created with observe.New")
	}
	return collector{o}
}

type collector struct{ observer *observe.Observer }

// Describe sends nothing, which makes the collector unchecked.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect sends the metrics of one snapshot.
func (c collector) Collect(metrics chan<- prometheus.Metric) {
	collect(c.observer.Snapshot()).send(metrics)
}

// collect returns the metrics of a snapshot.
func collect(s observe.Snapshot) exporter {
	e := exporter{}
	for _, p := range s.Pipelines {
		e.pipeline(p, s.Bounds)
	}
	for _, p := range s.Policies {
		e.policy(p)
	}
	return e
}

// A family is the description of a metric.
type family struct {
	name, help string
	labels     []string
	kind       prometheus.ValueType
	largest    bool // of several values with the same labels, the largest counts; otherwise they add up
}

var (
	callDuration = &family{name: "resilience_call_duration_seconds", help: "Duration of calls through a pipeline.", labels: []string{"pipeline", "result"}}
	callsRunning = &family{name: "resilience_calls_running", help: "Calls in progress.", labels: []string{"pipeline"}, kind: prometheus.GaugeValue}
	attempts     = &family{name: "resilience_attempts_total", help: "Runs of what is inside the pipeline.", labels: []string{"pipeline"}, kind: prometheus.CounterValue}
	events       = &family{name: "resilience_events_total", help: "What the policies of a pipeline did.", labels: []string{"pipeline", "layer", "policy", "name", "event"}, kind: prometheus.CounterValue}
	policyState  = &family{name: "resilience_policy_state", help: "Live policies in a state.", labels: []string{"policy", "name", "state"}, kind: prometheus.GaugeValue}
	stateTime    = &family{name: "resilience_policy_state_seconds_total", help: "Time that policies spent in a state.", labels: []string{"policy", "name", "state"}, kind: prometheus.CounterValue}
	changes      = &family{name: "resilience_policy_changes_total", help: "Changes of the state of policies.", labels: []string{"policy", "name", "to"}, kind: prometheus.CounterValue}

	// fixed are the families that don't depend on what policies report.
	fixed = []*family{callDuration, callsRunning, attempts, events, policyState, stateTime, changes}
)

// An exporter collects one scrape: series by the name of their family and by their labels. Names
// that are different in the program may be the same in Prometheus, which has only valid UTF-8, and
// the same series twice would fail the whole scrape. So they are merged here.
type exporter map[string]*collected

// A collected is a family with its series.
type collected struct {
	*family
	series map[string]*series // by labels
}

// A series is a value or, of callDuration, a histogram.
type series struct {
	labels    []string
	value     float64
	histogram *observe.Histogram
	bounds    []float64 // in seconds
}

// at returns the series with the labels, and whether it is new.
func (e exporter) at(f *family, labels ...string) (_ *series, created bool) {
	c := e[f.name]
	if c == nil {
		c = &collected{f, map[string]*series{}}
		e[f.name] = c
	}
	for i := range labels {
		labels[i] = strings.ToValidUTF8(labels[i], "\uFFFD")
	}
	key := strings.Join(labels, "\xff") // in no valid UTF-8
	s := c.series[key]
	if s == nil {
		s = &series{labels: labels}
		c.series[key] = s
		return s, true
	}
	return s, false
}

// add adds a value to the series with the labels.
func (e exporter) add(f *family, value float64, labels ...string) {
	switch s, created := e.at(f, labels...); {
	case created:
		s.value = value
	case f.largest:
		s.value = max(s.value, value)
	default:
		s.value += value
	}
}

// addHistogram adds a histogram to the series of callDuration with the labels.
func (e exporter) addHistogram(h observe.Histogram, bounds []float64, labels ...string) {
	s, created := e.at(callDuration, labels...)
	if created {
		s.histogram, s.bounds = &h, bounds
		return
	}
	s.histogram.Count += h.Count
	s.histogram.Sum += h.Sum
	for i, n := range h.Buckets {
		s.histogram.Buckets[i] += n
	}
}

// pipeline adds the metrics of a pipeline.
func (e exporter) pipeline(p observe.PipelineSnapshot, bounds []time.Duration) {
	seconds := make([]float64, len(bounds))
	for i, b := range bounds {
		seconds[i] = b.Seconds()
	}
	for result, h := range p.Calls {
		e.addHistogram(h, seconds, p.Name, result.String())
	}
	e.add(callsRunning, float64(p.Running), p.Name)
	e.add(attempts, float64(p.Attempts), p.Name)
	for _, l := range p.Layers {
		for kind, n := range l.Events {
			e.add(events, float64(n), p.Name, strconv.Itoa(l.Position), l.Kind, l.Name, kind.String())
		}
	}
}

// policy adds the metrics of the policies of one kind and name.
func (e exporter) policy(p observe.PolicySnapshot) {
	for state, n := range p.States {
		e.add(policyState, float64(n), p.Kind, p.Name, state)
	}
	for state, d := range p.InState {
		e.add(policyState, 0, p.Kind, p.Name, state) // a former state is 0, not missing
		e.add(stateTime, d.Seconds(), p.Kind, p.Name, state)
	}
	for to, n := range p.Changes {
		e.add(policyState, 0, p.Kind, p.Name, to)
		e.add(changes, float64(n), p.Kind, p.Name, to)
	}
	for _, r := range p.Reports {
		for _, v := range r.Values {
			e.add(valueFamily(r.Kind, v), v.Value, p.Name)
		}
	}
}

// valueFamily returns the family of a value that policies of a kind report.
func valueFamily(kind string, v resilience.Value) *family {
	name := "resilience_" + identifier(kind) + "_" + identifier(v.Name)
	switch v.Unit {
	case "s":
		name += "_seconds"
	case "1":
		name += "_ratio"
	}
	if reserved(name) {
		name += "_value"
	}
	return &family{
		name:    name,
		help:    strings.ToValidUTF8(fmt.Sprintf("Value %s of policies of kind %s, in %s.", v.Name, kind, v.Unit), "\uFFFD"),
		labels:  []string{"name"},
		kind:    prometheus.GaugeValue,
		largest: !strings.HasPrefix(v.Unit, "{"),
	}
}

// identifier replaces the characters that a metric's name must not contain.
func identifier(name string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r
		}
		return '_'
	}, name)
}

// reserved reports whether a name is one of the fixed families, or a part of their histogram.
func reserved(name string) bool {
	for _, suffix := range []string{"", "_bucket", "_count", "_sum"} {
		base := strings.TrimSuffix(name, suffix)
		if slices.ContainsFunc(fixed, func(f *family) bool { return f.name == base && (suffix == "" || f == callDuration) }) {
			return true
		}
	}
	return false
}

// send sends everything that was added.
func (e exporter) send(metrics chan<- prometheus.Metric) {
	for _, c := range e {
		desc := prometheus.NewDesc(c.name, c.help, c.labels, nil)
		for _, s := range c.series {
			if s.histogram != nil {
				metrics <- histogram(desc, s)
				continue
			}
			metrics <- prometheus.MustNewConstMetric(desc, c.kind, s.value, s.labels...)
		}
	}
}

// histogram returns a series of callDuration as Prometheus has it: with cumulative buckets.
func histogram(desc *prometheus.Desc, s *series) prometheus.Metric {
	buckets := make(map[float64]uint64, len(s.bounds))
	var below uint64
	for i, bound := range s.bounds {
		below += s.histogram.Buckets[i]
		buckets[bound] = below
	}
	return prometheus.MustNewConstHistogram(desc, s.histogram.Count, s.histogram.Sum, buckets, s.labels...)
}
