package dashboard

import (
	"sync"
	"testing"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/observe"
)

// fakeSource is a source whose snapshots a test sets.
type fakeSource struct {
	mu     sync.Mutex
	snap   observe.Snapshot
	taken  int
	during func() // while a snapshot is taken
	live   map[key][]resilience.Reporter
}

func (f *fakeSource) Snapshot() observe.Snapshot {
	f.mu.Lock()
	f.taken++
	snap, during := f.snap, f.during
	f.mu.Unlock()
	snap.At = time.Now()
	if snap.Bounds == nil {
		snap.Bounds = bounds
	}
	if during != nil {
		during()
	}
	return snap
}

func (f *fakeSource) Live(kind, name string) []resilience.Reporter { return f.live[key{kind, name}] }

func (f *fakeSource) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.taken
}

var bounds = []time.Duration{time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond, time.Second, 10 * time.Second}

// pipelineOf returns a pipeline with that many ended calls of each result, all of them in the second
// bucket, 1 to 10 ms.
func pipelineOf(name string, calls map[observe.Result]uint64, layers ...observe.LayerSnapshot) observe.PipelineSnapshot {
	p := observe.PipelineSnapshot{Name: name, Calls: map[observe.Result]observe.Histogram{}, Layers: layers}
	for r := range observe.Result(resultCount) {
		h := observe.Histogram{Count: calls[r], Buckets: make([]uint64, len(bounds)+1)}
		h.Buckets[1] = calls[r]
		p.Calls[r] = h
		if r != observe.Refused {
			p.Attempts += calls[r]
		}
	}
	return p
}

func layerOf(position int, kind, name string, states map[string]int) observe.LayerSnapshot {
	return observe.LayerSnapshot{Position: position, Kind: kind, Name: name, States: states}
}

func breakerOf(name string, state ...string) observe.PolicySnapshot {
	p := observe.PolicySnapshot{Kind: breakerKind, Name: name, States: map[string]int{}}
	for _, s := range state {
		p.States[s]++
		p.Reports = append(p.Reports, resilience.Report{Kind: breakerKind, Name: name, State: s})
	}
	return p
}

// record adds an empty snapshot, then the given one 10 s later, and returns the state of the latter.
func record(t *testing.T, pipelines []observe.PipelineSnapshot, policies ...observe.PolicySnapshot) *state {
	t.Helper()
	r := newRecorder(begin, time.Hour, time.Second)
	r.add(&observe.Snapshot{At: begin, Bounds: bounds})
	return r.add(&observe.Snapshot{At: begin.Add(10 * time.Second), Bounds: bounds, Pipelines: pipelines, Policies: policies})
}

var begin = time.Date(2026, 11, 30, 3, 0, 0, 0, time.UTC)
