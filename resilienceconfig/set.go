package resilienceconfig

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"weak"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/budget"
)

// A Set has the pipelines of a file, and changes them to those of another. It is safe for concurrent
// use. The Options are those of the File that New was called with.
type Set struct {
	options Options

	// updating is held by Update from beginning to end, also while it calls Wrap. It guards the
	// fields below.
	updating sync.Mutex
	gone     gone

	// registering guards made, and every write of state. It is held only for moments, and never
	// while functions of the user run, so that Make doesn't wait for Update.
	registering sync.Mutex
	made        []weak.Pointer[handle]
	live        int // of made, when it was last cleaned up

	// state is what the current file has created. Update replaces it while it holds registering, once
	// it has found no other handle in made, and Make registers a handle only if it was created from
	// the current state. So no handle misses an update.
	state atomic.Pointer[state]
}

// A state is what a file has created. It doesn't change.
type state struct {
	file     *File
	budgets  map[string]*budget.Budget
	policies map[string]*instance
	handles  map[string]*handle
}

// gone are things that the file no longer has. The handles of callers keep what they use; if the file
// has it again, it continues.
type gone struct {
	budgets  map[string]weak.Pointer[budget.Budget]
	policies map[string]weak.Pointer[instance]
	handles  map[string]weak.Pointer[handle]
}

// An instance is a policy that was created. Update changes its spec and its Config. The Config keeps
// the budget alive, so a spec that is the same has the same budget, even after a time in which the file
// had neither.
type instance struct {
	policy resilience.Policy
	spec   *spec
}

// once is the instance of atMostOnce.
var once = &instance{policy: resilience.AtMostOnce}

// A handle is a pipeline that callers have. Its policy is replaced by Update and read by every call.
type handle struct {
	current atomic.Pointer[current]

	// Guarded by Set.updating once the handle is registered.
	name   string
	list   []*instance // flattened
	inline inlines     // of this pipeline; for Make, also of the pipelines that it uses
}

// current is what a call through a handle runs.
type current struct {
	policy   resilience.Policy
	breakers []*breaker.Breaker
}

// inlines are the policies that are written in pipelines.
type inlines map[place]*instance

// Run runs the rest of a call inside the pipeline as it is now.
func (h *handle) Run(ctx context.Context, next resilience.Next) error {
	return h.current.Load().policy.Run(ctx, next)
}

// State returns the state of the first breaker that isn't closed, so that resiliencehttp doesn't evict
// the pipeline of a host whose breaker is open.
func (h *handle) State() breaker.State {
	for _, b := range h.current.Load().breakers {
		if state := b.State(); state != breaker.Closed {
			return state
		}
	}
	return breaker.Closed
}

// New creates the policies and pipelines of a file. It panics if f is nil, or if Options.Wrap returns
// nil.
func New(f *File) *Set {
	if f == nil {
		panic("resilienceconfig: New: f is nil, must be a File that Parse has returned")
	}
	s := &Set{options: f.options, gone: gone{
		map[string]weak.Pointer[budget.Budget]{}, map[string]weak.Pointer[instance]{}, map[string]weak.Pointer[handle]{},
	}}
	s.state.Store(&state{file: new(File)})
	s.apply(f)
	return s
}

// Pipeline returns the pipeline with the name. It is always the same value, whatever the file
// changes, and as cheap to get as from a map. It panics if the file has no pipeline with the name;
// [Set.Lookup] doesn't.
func (s *Set) Pipeline(name string) resilience.Policy {
	p, ok := s.Lookup(name)
	if !ok {
		panic("resilienceconfig: Pipeline: " + s.noPipeline(name))
	}
	return p
}

// Lookup returns the pipeline with the name, and whether the file has it. A pipeline that was removed
// from the file remains usable, as it was, for callers that have it. When the file has it again, it
// changes with the file again.
func (s *Set) Lookup(name string) (resilience.Policy, bool) {
	h := s.state.Load().handles[name]
	if h == nil {
		return nil, false
	}
	return h, true
}

func (s *Set) noPipeline(name string) string {
	return fmt.Sprintf("name is %s, must be one of the file's pipelines: %q", quote(name), s.Names())
}

// Names returns the names of the pipelines, in file order.
func (s *Set) Names() []string {
	pipelines := s.state.Load().file.pipelines
	names := make([]string, len(pipelines))
	for i, p := range pipelines {
		names[i] = p.name
	}
	return names
}

// Effective returns the file as it applies, with every default, as YAML. Parsed with the same
// Options, it is the same file: to update with it changes nothing. What the program has changed with
// SetConfig, Resize, or SetRate isn't in it. The caller owns the result.
func (s *Set) Effective() []byte { return slices.Clone(s.state.Load().file.effective) }

// Make returns a separate pipeline, for example for one host. What is written inline in the pipeline,
// and in pipelines that it uses, is created for it; what it uses from policies and budgets is shared.
// Updates reach it. The Set holds it weakly, so that it can be collected once nothing else refers to
// it. Make panics if the file has no pipeline with the name. It never waits for an update.
func (s *Set) Make(name string) resilience.Policy {
	for {
		st := s.state.Load()
		if st.file.byName[name] == nil {
			panic("resilienceconfig: Make: " + s.noPipeline(name))
		}
		h := &handle{name: name}
		s.prepare(h, st, nil).commit()
		if s.register(h, st) {
			return h
		}
	}
}

// register adds a handle that was created from st, unless st has been replaced.
func (s *Set) register(h *handle, st *state) bool {
	s.registering.Lock()
	defer s.registering.Unlock()
	if s.state.Load() != st {
		return false
	}
	if len(s.made) >= 2*s.live+16 {
		s.cleanUp()
	}
	s.made = append(s.made, weak.Make(h))
	return true
}

// cleanUp removes handles that were collected.
func (s *Set) cleanUp() {
	s.made = slices.DeleteFunc(s.made, func(w weak.Pointer[handle]) bool { return w.Value() == nil })
	s.live = len(s.made)
}

// Update changes the pipelines to those of f and returns what has changed. It can't fail: [Parse] has
// checked everything. It panics if f is nil, or if Options.Wrap panics or returns nil; nothing has
// changed then.
//
// A policy stays the same if it has the same name under policies, or if it is the n-th of its kind in
// its pipeline, and so does a budget with the same name. If its Config has changed, SetConfig changes
// it, and it keeps what it has counted. Only a policy of another kind under the same name is created
// again, and a note in the Diff says so.
//
// A call runs through the list of policies from before the update, or through the new one. No call
// waits for an update. Updates wait for each other.
func (s *Set) Update(f *File) Diff {
	if f == nil {
		panic("resilienceconfig: Update: f is nil, must be a File that Parse has returned")
	}
	return s.apply(f)
}

// A transition takes a Set from one state to the next. It prepares everything before it changes
// something, because Wrap may panic.
type transition struct {
	set       *Set
	old, next *state
	changes   []func()       // of budgets, policies, and what handles refer to
	handles   []handleChange // of handles that calls may use
}

func (s *Set) apply(f *File) Diff {
	s.updating.Lock()
	defer s.updating.Unlock()
	t := &transition{set: s, old: s.state.Load(), next: &state{
		file: f, budgets: map[string]*budget.Budget{}, policies: map[string]*instance{}, handles: map[string]*handle{},
	}}
	t.prepareShared()
	t.prepareHandles(t.prepareInline())
	t.replaceState()
	for _, change := range t.changes {
		change()
	}
	for _, h := range t.handles {
		h.commit()
	}
	s.remember(t.old, t.next)
	return diff(t.old.file, f)
}

// prepareShared prepares what is under budgets and policies.
func (t *transition) prepareShared() {
	before := specs(t.old.file.budgets)
	for _, n := range t.next.file.budgets {
		b := earlier(t.old.budgets, t.set.gone.budgets, n.name)
		if b == nil {
			b = budgetKind.create(n.spec.configWith(nil)).(*budget.Budget)
		} else if was := before[n.name]; was == nil || !was.equal(n.spec) {
			t.changes = append(t.changes, func() { budgetKind.change(b, n.spec.configWith(nil)) })
		}
		t.next.budgets[n.name] = b
	}
	for _, n := range t.next.file.policies {
		before := earlier(t.old.policies, t.set.gone.policies, n.name)
		t.next.policies[n.name] = t.next.instance(n.spec, before, &t.changes)
	}
}

// prepareInline prepares what is written in pipelines, and returns it.
func (t *transition) prepareInline() inlines {
	all := inlines{}
	for _, p := range t.next.file.pipelines {
		h := earlier(t.old.handles, t.set.gone.handles, p.name)
		if h == nil {
			h = &handle{name: p.name}
		}
		t.next.handles[p.name] = h
		own := inlines{}
		for _, i := range p.items {
			if i.spec != nil {
				own[i.place] = t.next.instance(i.spec, h.inline[i.place], &t.changes)
			}
		}
		maps.Copy(all, own)
		t.changes = append(t.changes, func() { h.inline = own })
	}
	return all
}

// prepareHandles prepares the pipelines of the file, and completes new ones: Lookup must not find an
// unfinished one.
func (t *transition) prepareHandles(shared inlines) {
	for _, p := range t.next.file.pipelines {
		c := t.set.prepare(t.next.handles[p.name], t.next, shared)
		if c.handle.current.Load() == nil {
			c.commit()
		} else {
			t.handles = append(t.handles, c)
		}
	}
}

// replaceState prepares the pipelines that Make has returned: those that exist now, and then those that
// Make registers meanwhile. When there are no more, it replaces the Set's state, with which Make
// continues.
func (t *transition) replaceState() {
	s := t.set
	prepared := map[*handle]bool{}
	for {
		var more []*handle
		s.registering.Lock()
		s.cleanUp()
		for _, w := range s.made {
			if h := w.Value(); h != nil && !prepared[h] {
				more = append(more, h)
			}
		}
		if len(more) == 0 {
			s.state.Store(t.next)
			s.registering.Unlock()
			return
		}
		s.registering.Unlock()
		for _, h := range more {
			prepared[h] = true
			if t.next.file.byName[h.name] != nil {
				t.handles = append(t.handles, s.prepare(h, t.next, nil))
			}
		}
	}
}

// earlier returns what had the name in the previous file, or before, if something still refers to it;
// otherwise nil.
func earlier[T any](current map[string]*T, gone map[string]weak.Pointer[T], name string) *T {
	if v := current[name]; v != nil {
		return v
	}
	if w, ok := gone[name]; ok {
		return w.Value()
	}
	return nil
}

// remember notes what the new state no longer has.
func (s *Set) remember(old, next *state) {
	leave(s.gone.budgets, old.budgets, next.budgets)
	leave(s.gone.policies, old.policies, next.policies)
	leave(s.gone.handles, old.handles, next.handles)
}

func leave[T any](gone map[string]weak.Pointer[T], old, next map[string]*T) {
	for name, w := range gone {
		if next[name] != nil || w.Value() == nil {
			delete(gone, name)
		}
	}
	for name, v := range old {
		if next[name] == nil {
			gone[name] = weak.Make(v)
		}
	}
}

// instance returns before, to be changed to the spec, or a new instance if before is nil or of
// another kind.
func (st *state) instance(sp *spec, before *instance, changes *[]func()) *instance {
	b := st.budgets[sp.budget]
	if before == nil || before.spec.kind != sp.kind {
		return &instance{sp.kind.create(sp.configWith(b)).(resilience.Policy), sp}
	}
	*changes = append(*changes, func() {
		if !before.spec.equal(sp) {
			sp.kind.change(before.policy, sp.configWith(b))
		}
		before.spec = sp
	})
	return before
}

// A handleChange is what an update changes in a handle.
type handleChange struct {
	handle  *handle
	current *current // nil if the list of policies stays
	list    []*instance
	inline  inlines // of a handle of Make
	changes []func()
}

func (c handleChange) commit() {
	for _, change := range c.changes {
		change()
	}
	if c.inline != nil {
		c.handle.inline = c.inline
	}
	if c.current != nil {
		c.handle.list = c.list
		c.handle.current.Store(c.current)
	}
}

// prepare returns the change of a handle to st. Shared are the inline policies of all pipelines, or nil
// for a handle of Make, which has its own.
func (s *Set) prepare(h *handle, st *state, shared inlines) handleChange {
	c := handleChange{handle: h}
	if shared == nil {
		c.inline = inlines{}
		shared = c.inline
	}
	for _, p := range st.file.flatten(st.file.byName[h.name]) {
		switch {
		case p.spec == nil:
			c.list = append(c.list, once)
			continue
		case p.place.name != "":
			c.list = append(c.list, st.policies[p.place.name])
			continue
		case c.inline != nil && c.inline[p.place] == nil:
			c.inline[p.place] = st.instance(p.spec, h.inline[p.place], &c.changes)
		}
		c.list = append(c.list, shared[p.place])
	}
	if h.current.Load() != nil && slices.Equal(h.list, c.list) {
		return c
	}
	policies := make(resilience.Pipeline, len(c.list))
	c.current = new(current)
	for n, i := range c.list {
		policies[n] = i.policy
		if b, ok := i.policy.(*breaker.Breaker); ok {
			c.current.breakers = append(c.current.breakers, b)
		}
	}
	c.current.policy = policies
	if s.options.Wrap != nil {
		c.current.policy = s.options.Wrap(h.name, policies)
		if c.current.policy == nil {
			panic(fmt.Sprintf("resilienceconfig: Options.Wrap returned nil for the pipeline %s, must return a Policy", quote(h.name)))
		}
	}
	return c
}
