package observe

import (
	"cmp"
	"slices"
	"time"

	"github.com/effector-go/resilience"
)

// A Snapshot is what an [Observer] has counted so far. As JSON, its names are in snake case and its
// durations in seconds; no list or map is null, and numbers that JSON lacks are null.
type Snapshot struct {
	At        time.Time
	Bounds    []time.Duration    // of the histograms: Config.Buckets
	Pipelines []PipelineSnapshot // by name
	Policies  []PolicySnapshot   // by kind, then name
}

// A PipelineSnapshot contains what was counted for the pipelines of one name.
type PipelineSnapshot struct {
	Name     string
	Running  int                    // calls that have not ended; abandoned starts are not calls
	Attempts uint64                 // runs of what is inside the pipeline
	Calls    map[Result]Histogram   // durations of ended calls, of every result
	Layers   []LayerSnapshot        // by position, then kind
	Errors   map[Result]ErrorSample // the latest of each result; a newer one replaces it after 1 s
}

// A Histogram counts durations in seconds.
type Histogram struct {
	Count   uint64   // the sum of Buckets
	Sum     float64  // of the durations
	Buckets []uint64 // one for each of Snapshot.Bounds, inclusive and not cumulative, and one for longer durations
}

// A LayerSnapshot contains what the policies at one position of the pipelines of one name did.
type LayerSnapshot struct {
	Position int                  // from 1, the outermost
	Kind     string               // as [Event].Policy
	Name     string               // empty if the policies' names differ
	Entered  uint64               // runs of the policy
	Passed   uint64               // runs of the rest of the pipeline that the policy made
	Events   map[EventKind]uint64 // of every kind
	States   map[string]int       // live policies at this position by state; without those that have no states
}

// A PolicySnapshot contains what is known of the policies and budgets of one kind and name.
type PolicySnapshot struct {
	Kind, Name string
	Reports    []resilience.Report      // of the live ones
	States     map[string]int           // live ones by state
	InState    map[string]time.Duration // since they were first seen, including collected ones
	Changes    map[string]uint64        // by new state, including collected ones
	Recent     []Change                 // the latest 50, oldest first, including collected ones
	Since      time.Time                // of the latest change, or when the first of them was seen
}

// A Change is a change of a policy's state.
type Change struct {
	At       time.Time
	From, To string
	Cause    string       // in words
	Error    *ErrorSample // of the call that caused the change; nil if no error did
}

// An ErrorSample describes an error. It does not keep the error.
type ErrorSample struct {
	At   time.Time
	Type string // ErrorType of the first error in the chain that has it, otherwise a Go type
	Text string // at most 500 bytes
}

// snapshot returns the snapshot of the pipelines, and of the policies with their reports.
func (o *Observer) snapshot(now time.Time, live []liveMember) Snapshot {
	s := Snapshot{At: now, Bounds: slices.Clone(o.config.Buckets), Pipelines: []PipelineSnapshot{}}
	states := make(map[*member]string, len(live))
	for _, m := range live {
		states[m.member] = m.report.State
	}
	o.mu.Lock()
	groups := o.allPipelines()
	for _, g := range groups {
		s.Pipelines = append(s.Pipelines, g.snapshot(len(o.config.Buckets)+1, states))
	}
	policies, recent := o.policySnapshots(now, live)
	o.mu.Unlock()

	// Formatting calls methods of errors, so it is done without the lock.
	for i, g := range groups {
		for r := range g.errors {
			if latest := g.errors[r].Load(); latest != nil {
				s.Pipelines[i].Errors[Result(r)] = latest.format()
			}
		}
	}
	for i := range policies {
		for _, c := range recent[i] {
			policies[i].Recent = append(policies[i].Recent, c.format())
		}
	}
	slices.SortFunc(s.Pipelines, func(a, b PipelineSnapshot) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(policies, func(a, b PolicySnapshot) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	s.Policies = policies
	return s
}
