package observe

import (
	"encoding/json"
	"math"
	"time"

	"github.com/effector-go/resilience"
)

// A number is null in JSON if JSON can't express it.
type number float64

func (n number) MarshalJSON() ([]byte, error) {
	if f := float64(n); math.IsNaN(f) || math.IsInf(f, 0) {
		return []byte("null"), nil
	}
	return json.Marshal(float64(n))
}

// array returns a list that isn't null in JSON.
func array[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}

// object returns a map that isn't null in JSON.
func object[K comparable, V any](m map[K]V) map[K]V {
	if m == nil {
		return map[K]V{}
	}
	return m
}

// MarshalJSON implements [json.Marshaler].
func (s Snapshot) MarshalJSON() ([]byte, error) {
	bounds := make([]number, 0, len(s.Bounds))
	for _, bound := range s.Bounds {
		bounds = append(bounds, number(bound.Seconds()))
	}
	return json.Marshal(struct {
		At        time.Time          `json:"at"`
		Bounds    []number           `json:"bounds"`
		Pipelines []PipelineSnapshot `json:"pipelines"`
		Policies  []PolicySnapshot   `json:"policies"`
	}{s.At, bounds, array(s.Pipelines), array(s.Policies)})
}

// MarshalJSON implements [json.Marshaler].
func (p PipelineSnapshot) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Name     string                 `json:"name"`
		Running  int                    `json:"running"`
		Attempts uint64                 `json:"attempts"`
		Calls    map[Result]Histogram   `json:"calls"`
		Layers   []LayerSnapshot        `json:"layers"`
		Errors   map[Result]ErrorSample `json:"errors"`
	}{p.Name, p.Running, p.Attempts, object(p.Calls), array(p.Layers), object(p.Errors)})
}

// MarshalJSON implements [json.Marshaler].
func (h Histogram) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Count   uint64   `json:"count"`
		Sum     number   `json:"sum"`
		Buckets []uint64 `json:"buckets"`
	}{h.Count, number(h.Sum), array(h.Buckets)})
}

// MarshalJSON implements [json.Marshaler].
func (l LayerSnapshot) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Position int                  `json:"position"`
		Kind     string               `json:"kind"`
		Name     string               `json:"name"`
		Entered  uint64               `json:"entered"`
		Passed   uint64               `json:"passed"`
		Events   map[EventKind]uint64 `json:"events"`
		States   map[string]int       `json:"states"`
	}{l.Position, l.Kind, l.Name, l.Entered, l.Passed, object(l.Events), object(l.States)})
}

// MarshalJSON implements [json.Marshaler].
func (p PolicySnapshot) MarshalJSON() ([]byte, error) {
	reports := make([]report, 0, len(p.Reports))
	for _, r := range p.Reports {
		reports = append(reports, reportOf(r))
	}
	inState := make(map[string]number, len(p.InState))
	for state, d := range p.InState {
		inState[state] = number(d.Seconds())
	}
	return json.Marshal(struct {
		Kind    string            `json:"kind"`
		Name    string            `json:"name"`
		Reports []report          `json:"reports"`
		States  map[string]int    `json:"states"`
		InState map[string]number `json:"in_state"`
		Changes map[string]uint64 `json:"changes"`
		Recent  []Change          `json:"recent"`
		Since   time.Time         `json:"since"`
	}{p.Kind, p.Name, reports, object(p.States), inState, object(p.Changes), array(p.Recent), p.Since})
}

// A report is a resilience.Report for JSON.
type report struct {
	Kind   string            `json:"kind"`
	Name   string            `json:"name"`
	State  string            `json:"state"`
	Values []value           `json:"values"`
	Config map[string]string `json:"config"`
}

type value struct {
	Name  string `json:"name"`
	Unit  string `json:"unit"`
	Value number `json:"value"`
}

func reportOf(r resilience.Report) report {
	values := make([]value, 0, len(r.Values))
	for _, v := range r.Values {
		values = append(values, value{v.Name, v.Unit, number(v.Value)})
	}
	return report{r.Kind, r.Name, r.State, values, object(r.Config)}
}

// MarshalJSON implements [json.Marshaler].
func (c Change) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		At    time.Time    `json:"at"`
		From  string       `json:"from"`
		To    string       `json:"to"`
		Cause string       `json:"cause"`
		Error *ErrorSample `json:"error"`
	}{c.At, c.From, c.To, c.Cause, c.Error})
}

// MarshalJSON implements [json.Marshaler].
func (e ErrorSample) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		At   time.Time `json:"at"`
		Type string    `json:"type"`
		Text string    `json:"text"`
	}{e.At, e.Type, e.Text})
}
