package observe

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/clock"
	"github.com/effector-go/resilience/internal/errtype"
)

// A flow is what is kept for the pipelines of one name. The observer's mutex guards it, except errors.
type flow struct {
	named *named[string, *flow]
	name  string
	live  []*tally
	past  sum // of collected pipelines

	errors [len(results)]atomic.Pointer[sample]
}

func newFlow(name string) *flow { return &flow{name: name, past: sum{layers: map[place]*layerSum{}}} }

func (f *flow) add(t *tally) {
	t.flow, t.index = f, len(f.live)
	f.live = append(f.live, t)
}

func (f *flow) remove(t *tally) {
	last := f.live[len(f.live)-1]
	f.live[t.index], last.index = last, t.index
	f.live[len(f.live)-1] = nil
	f.live = f.live[:len(f.live)-1]
	t.flow = nil
	f.past.add(t)
}

// sample keeps err as the latest error of a result, unless there is one that is not older than 1 s.
func (f *flow) sample(r Result, err error) {
	now := clock.Now()
	latest := f.errors[r].Load()
	if latest != nil && now-latest.clock < int64(time.Second) {
		return
	}
	f.errors[r].CompareAndSwap(latest, &sample{clock: now, at: time.Now(), err: err})
}

// A sample is an error that is formatted when a snapshot needs it.
type sample struct {
	clock int64
	at    time.Time

	once      sync.Once
	err       error // nil once it is formatted
	formatted ErrorSample
}

func (s *sample) format() ErrorSample {
	s.once.Do(func() {
		s.formatted = ErrorSample{s.at, errtype.Of(s.err), text(s.err)}
		s.err = nil
	})
	return s.formatted
}

const maxText = 500

func text(err error) (text string) {
	defer func() {
		if recover() != nil {
			text = "its method Error panicked"
		}
	}()
	text = err.Error()
	if len(text) <= maxText {
		return text
	}
	end := maxText
	for end > maxText-utf8.UTFMax+1 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end]
}

// A place is where policies are counted together.
type place struct {
	position int
	kind     string
}

// A sum is the sum of tallies of different shape.
type sum struct {
	running  int
	attempts uint64
	calls    [len(results)]Histogram
	layers   map[place]*layerSum
}

type layerSum struct {
	name            string
	entered, passed uint64
	events          [len(eventKinds)]uint64
}

func (s *sum) add(t *tally) {
	c := t.load()
	s.running += c.running()
	s.attempts += c.entered[t.layers]
	for r, h := range c.calls {
		s.calls[r].sum(h)
	}
	for i, at := range t.places {
		l := s.layers[at]
		if l == nil {
			l = &layerSum{name: t.names[i]}
			s.layers[at] = l
		} else if l.name != t.names[i] {
			l.name = ""
		}
		l.entered += c.entered[i]
		l.passed += c.entered[i+1]
		for kind, n := range c.events[i] {
			l.events[kind] += n
		}
	}
}

func (h *Histogram) sum(other Histogram) {
	if h.Buckets == nil {
		h.Buckets = make([]uint64, len(other.Buckets))
	}
	h.Count += other.Count
	h.Sum += other.Sum
	for i, n := range other.Buckets {
		h.Buckets[i] += n
	}
}

// clone returns a copy that shares nothing with s.
func (s *sum) clone() sum {
	c := sum{s.running, s.attempts, s.calls, map[place]*layerSum{}}
	for r := range c.calls {
		c.calls[r].Buckets = slices.Clone(c.calls[r].Buckets)
	}
	for at, l := range s.layers {
		copied := *l
		c.layers[at] = &copied
	}
	return c
}

// snapshot returns the snapshot of a name, without its errors. states are those of live policies.
func (f *flow) snapshot(buckets int, states map[*member]string) PipelineSnapshot {
	s := f.past.clone()
	used := map[place]map[*member]bool{}
	for _, t := range f.live {
		s.add(t)
		if t.pipeline.Value() == nil {
			continue
		}
		for i, m := range t.members {
			if m == nil || states[m] == "" {
				continue
			}
			if used[t.places[i]] == nil {
				used[t.places[i]] = map[*member]bool{}
			}
			used[t.places[i]][m] = true
		}
	}
	p := PipelineSnapshot{
		Name:     f.name,
		Running:  s.running,
		Attempts: s.attempts,
		Calls:    make(map[Result]Histogram, len(results)),
		Layers:   make([]LayerSnapshot, 0, len(s.layers)),
		Errors:   map[Result]ErrorSample{},
	}
	for r, h := range s.calls {
		if h.Buckets == nil {
			h.Buckets = make([]uint64, buckets)
		}
		p.Calls[Result(r)] = h
	}
	for at, l := range s.layers {
		layer := LayerSnapshot{
			Position: at.position, Kind: at.kind, Name: l.name,
			Entered: l.entered, Passed: l.passed,
			Events: make(map[EventKind]uint64, len(eventKinds)),
			States: map[string]int{},
		}
		for kind, n := range l.events {
			layer.Events[EventKind(kind)] = n
		}
		for m := range used[at] {
			layer.States[states[m]]++
		}
		p.Layers = append(p.Layers, layer)
	}
	slices.SortFunc(p.Layers, func(a, b LayerSnapshot) int {
		return cmp.Or(cmp.Compare(a.Position, b.Position), cmp.Compare(a.Kind, b.Kind))
	})
	return p
}

// allFlows returns the flows of all names.
func (o *Observer) allFlows() []*flow {
	var all []*flow
	for _, e := range o.flows.named {
		all = append(all, e.value)
	}
	if o.otherFlow != nil && o.flows.named[other] != o.otherFlow {
		all = append(all, o.otherFlow.value)
	}
	return all
}

// snapshot returns the snapshot with the reports of the live policies.
func (o *Observer) snapshot(now time.Time, live []liveMember, reports map[*member]resilience.Report) Snapshot {
	s := Snapshot{At: now, Bounds: slices.Clone(o.config.Buckets), Pipelines: []PipelineSnapshot{}}
	states := make(map[*member]string, len(live))
	for m, report := range reports {
		states[m] = report.State
	}
	o.mu.Lock()
	flows := o.allFlows()
	for _, f := range flows {
		s.Pipelines = append(s.Pipelines, f.snapshot(len(o.config.Buckets)+1, states))
	}
	policies, recent := o.policySnapshots(now, live, reports)
	o.mu.Unlock()

	// Formatting calls methods of errors, under no lock.
	for i, f := range flows {
		for r := range f.errors {
			if sample := f.errors[r].Load(); sample != nil {
				s.Pipelines[i].Errors[Result(r)] = sample.format()
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
