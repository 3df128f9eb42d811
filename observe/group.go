package observe

import (
	"cmp"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/effector-go/resilience/internal/clock"
	"github.com/effector-go/resilience/internal/errtype"
)

// other is the name of what MaxNames leaves no room for.
const other = "other"

// searched is how many pipelines or policies are looked at for one that has been collected.
const searched = 64

// A pipelineGroup is what is kept for the pipelines of one name. The observer's mutex guards it, except
// errors.
type pipelineGroup struct {
	named *named[string, *pipelineGroup]
	name  string
	live  []*tally
	past  sum // of collected pipelines

	// errors are the latest of each result. Calls write them, and snapshots read them.
	errors [len(results)]atomic.Pointer[sample]
}

func newPipelineGroup(name string) *pipelineGroup {
	return &pipelineGroup{name: name, past: sum{layers: map[place]*layerSum{}}}
}

// add adds the tally of a live pipeline.
func (g *pipelineGroup) add(t *tally) {
	t.group, t.index = g, len(g.live)
	g.live = append(g.live, t)
}

// remove removes the tally of a collected pipeline, and keeps its counts.
func (g *pipelineGroup) remove(t *tally) {
	end := len(g.live) - 1
	last := g.live[end]
	g.live[t.index], last.index = last, t.index
	g.live[end] = nil
	g.live = g.live[:end]
	t.group = nil
	g.past.add(t)
}

// register makes the pipeline part of snapshots, as long as it lives.
func (o *Observer) register(p *pipeline) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p.group = o.pipelineGroup(p.name)
	p.group.add(p.tally)
	whenCollected(p, o, p.tally, (*Observer).retirePipeline)
}

// whenCollected calls f, with the observer's mutex held, after pointer has been collected. Neither the
// observer nor the pointer is kept alive, and of must not refer to the pointer.
func whenCollected[P, T any](pointer *P, o *Observer, of T, f func(o *Observer, of T)) {
	observer := weak.Make(o)
	runtime.AddCleanup(pointer, func(of T) {
		if o := observer.Value(); o != nil {
			o.mu.Lock()
			defer o.mu.Unlock()
			f(o, of)
		}
	}, of)
}

// pipelineGroup returns the group of a name, and adds a user to it.
func (o *Observer) pipelineGroup(name string) *pipelineGroup {
	if o.otherPipelines != nil && name == other {
		return o.otherPipelines.value
	}
	create := func() *pipelineGroup { return newPipelineGroup(name) }
	e := o.pipelines.use(name, create)
	if e == nil && o.retireSomePipelines() {
		e = o.pipelines.use(name, create)
	}
	if e == nil {
		if o.otherPipelines == nil {
			o.otherPipelines = o.newOtherPipelines()
		}
		e = o.otherPipelines
	}
	e.value.named = e
	return e.value
}

// newOtherPipelines returns the group that counts what MaxNames leaves no room for. If pipelines really
// have that name, it is theirs.
func (o *Observer) newOtherPipelines() *named[string, *pipelineGroup] {
	if e := o.pipelines.named[other]; e != nil {
		return e // in use, and from now on no user leaves it: it is never replaced
	}
	return &named[string, *pipelineGroup]{key: other, value: newPipelineGroup(other)}
}

// retirePipeline removes a pipeline that has been collected, and keeps its counts.
func (o *Observer) retirePipeline(t *tally) {
	g := t.group
	if g == nil { // retired already
		return
	}
	g.remove(t)
	if g.named != o.otherPipelines {
		o.pipelines.leave(g.named)
	}
}

// retireSomePipelines retires pipelines whose cleanup hasn't run yet. It looks at a few, so that the
// time it takes doesn't depend on how many there are. It reports whether it found any.
func (o *Observer) retireSomePipelines() (found bool) {
	left := searched
	for _, e := range o.pipelines.named {
		for _, t := range e.value.live {
			if left--; left < 0 {
				return found
			}
			if t.pipeline.Value() == nil {
				o.retirePipeline(t)
				found = true
				break // the list has changed
			}
		}
	}
	return found
}

// allPipelines returns the groups of all names.
func (o *Observer) allPipelines() []*pipelineGroup {
	var all []*pipelineGroup
	for _, e := range o.pipelines.named {
		all = append(all, e.value)
	}
	if o.otherPipelines != nil && o.pipelines.named[other] != o.otherPipelines {
		all = append(all, o.otherPipelines.value)
	}
	return all
}

// sample keeps err as the latest error of a result, unless there is one that is younger than 1 s.
func (g *pipelineGroup) sample(r Result, err error) {
	now := clock.Now()
	latest := g.errors[r].Load()
	if latest != nil && now-latest.clock < int64(time.Second) {
		return
	}
	// If another call keeps its error at the same time, one of the two is lost.
	g.errors[r].CompareAndSwap(latest, &sample{clock: now, at: time.Now(), err: err})
}

// A sample is an error that is formatted when a snapshot needs it.
type sample struct {
	clock int64 // by package clock
	at    time.Time

	once      sync.Once // guards the following
	err       error     // nil once it is formatted
	formatted ErrorSample
}

// format returns the error's description. It calls methods of the error, so no lock may be held.
func (s *sample) format() ErrorSample {
	s.once.Do(func() {
		s.formatted = ErrorSample{s.at, errtype.Of(s.err), errtype.Text(s.err)}
		s.err = nil
	})
	return s.formatted
}

// A place is where policies are counted together.
type place struct {
	position int
	kind     string
}

// A sum is the sum of tallies, whose pipelines may have different policies.
type sum struct {
	running  int
	attempts uint64
	calls    [len(results)]Histogram
	layers   map[place]*layerSum
}

type layerSum struct {
	name            string // empty if the policies' names differ
	entered, passed uint64
	events          [len(eventKinds)]uint64
}

// add adds what t has counted.
func (s *sum) add(t *tally) {
	c := t.load()
	s.running += c.running()
	s.attempts += c.entered[t.layers]
	for r, h := range c.calls {
		s.calls[r].add(h)
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

// add adds the counts of a histogram with the same bounds.
func (h *Histogram) add(more Histogram) {
	if h.Buckets == nil {
		h.Buckets = make([]uint64, len(more.Buckets))
	}
	h.Count += more.Count
	h.Sum += more.Sum
	for i, n := range more.Buckets {
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

// snapshot returns the snapshot of the group, without its errors. States are those of live policies.
func (g *pipelineGroup) snapshot(buckets int, states map[*member]string) PipelineSnapshot {
	s := g.past.clone()
	for _, t := range g.live {
		s.add(t)
	}
	p := PipelineSnapshot{
		Name:     g.name,
		Running:  s.running,
		Attempts: s.attempts,
		Calls:    make(map[Result]Histogram, len(results)),
		Layers:   s.snapshot(g.statesByPlace(states)),
		Errors:   map[Result]ErrorSample{},
	}
	for r, h := range s.calls {
		if h.Buckets == nil {
			h.Buckets = make([]uint64, buckets)
		}
		p.Calls[Result(r)] = h
	}
	return p
}

// statesByPlace counts the policies of live pipelines by their states. In each place, it counts a
// policy once.
func (g *pipelineGroup) statesByPlace(states map[*member]string) map[place]map[string]int {
	type placed struct {
		at place
		m  *member
	}
	counted := map[placed]bool{}
	counts := map[place]map[string]int{}
	for _, t := range g.live {
		if t.pipeline.Value() == nil {
			continue
		}
		for i, m := range t.members {
			at, state := t.places[i], states[m]
			if state == "" || counted[placed{at, m}] {
				continue
			}
			counted[placed{at, m}] = true
			if counts[at] == nil {
				counts[at] = map[string]int{}
			}
			counts[at][state]++
		}
	}
	return counts
}

// snapshot returns the snapshots of the layers, with the counts of policies by state.
func (s *sum) snapshot(states map[place]map[string]int) []LayerSnapshot {
	layers := make([]LayerSnapshot, 0, len(s.layers))
	for at, l := range s.layers {
		layer := LayerSnapshot{
			Position: at.position, Kind: at.kind, Name: l.name,
			Entered: l.entered, Passed: l.passed,
			Events: make(map[EventKind]uint64, len(eventKinds)),
			States: object(states[at]),
		}
		for kind, n := range l.events {
			layer.Events[EventKind(kind)] = n
		}
		layers = append(layers, layer)
	}
	slices.SortFunc(layers, func(a, b LayerSnapshot) int {
		return cmp.Or(cmp.Compare(a.Position, b.Position), cmp.Compare(a.Kind, b.Kind))
	})
	return layers
}
