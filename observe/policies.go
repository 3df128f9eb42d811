package observe

import (
	"cmp"
	"hash/maphash"
	"maps"
	"reflect"
	"runtime"
	"slices"
	"time"
	"unsafe"
	"weak"

	"github.com/effector-go/resilience"
)

// A policyBook is what an observer keeps of policies and budgets. The observer's mutex guards it.
type policyBook struct {
	policies  *names[kindName, *group]
	others    map[string]*named[kindName, *group] // by kind: what MaxNames leaves no place for
	members   map[handle]*member
	seen      uint64    // members, so far
	unsettled []*member // collected ones whose last time in a state isn't known

	seed  maphash.Seed
	boxes map[uint64][]handle // of comparable policies that aren't pointers, by hash
	kept  map[*box]bool       // of Watch
}

func newPolicyBook(limit int) policyBook {
	return policyBook{
		policies: newNames[kindName, *group](limit),
		others:   map[string]*named[kindName, *group]{},
		members:  map[handle]*member{},
		seed:     maphash.MakeSeed(),
		boxes:    map[uint64][]handle{},
		kept:     map[*box]bool{},
	}
}

type kindName struct{ kind, name string }

// A handle identifies a policy without keeping it alive.
type handle struct {
	at  weak.Pointer[byte]
	typ reflect.Type // of what at points to; nil for a box
}

// A box holds a policy that isn't a pointer. The pipelines that use the policy keep the box alive.
type box struct {
	reporter resilience.Reporter
	hash     uint64 // 0 if the policy can't be compared
}

// pointerTo returns the handle of what pointer points to.
func pointerTo(pointer unsafe.Pointer, typ reflect.Type) handle {
	return handle{weak.Make((*byte)(pointer)), typ}
}

// reporter returns the policy, nil if it is collected.
func (h handle) reporter() resilience.Reporter {
	at := h.at.Value()
	switch {
	case at == nil:
		return nil
	case h.typ == nil:
		return (*box)(unsafe.Pointer(at)).reporter
	}
	return reflect.NewAt(h.typ, unsafe.Pointer(at)).Interface().(resilience.Reporter)
}

// A member is a policy or budget.
type member struct {
	handle
	number  uint64 // in the order in which the observer saw them first
	group   *group
	surplus bool // counted as "other"

	state    string
	since    time.Time // the time up to which the group has counted the state
	notifies bool      // the state comes from changes; otherwise from reports
	changed  bool      // a change was received
	gone     bool
	hash     uint64 // of its box
}

// A group is what is kept for policies of one kind and name.
type group struct {
	named   *named[kindName, *group]
	members map[*member]bool // live ones
	inState map[string]time.Duration
	changes map[string]uint64
	recent  []*change
	since   time.Time
}

const maxRecent = 50

// A change is a Change whose error is formatted when a snapshot needs it.
type change struct {
	Change
	err *sample // nil if there is no error
}

func (c *change) format() Change {
	formatted := c.Change
	if c.err != nil {
		sample := c.err.format()
		formatted.Error = &sample
	}
	return formatted
}

// inOrder returns the members in the order in which the observer saw them first.
func (g *group) inOrder() []*member {
	members := make([]*member, 0, len(g.members))
	for m := range g.members {
		members = append(members, m)
	}
	slices.SortFunc(members, func(a, b *member) int { return cmp.Compare(a.number, b.number) })
	return members
}

// advance counts the time in m's state up to at.
func (m *member) advance(at time.Time) {
	if d := at.Sub(m.since); d > 0 {
		if m.state != "" {
			m.group.inState[m.state] += d
		}
		m.since = at
	}
}

// enter counts the time in m's state up to at, when it enters another one, or the same one.
func (m *member) enter(state string, at time.Time) {
	m.advance(at)
	m.state = state
}

// handleOf returns the handle of a policy, and the box if the policy isn't a pointer.
func (o *Observer) handleOf(r resilience.Reporter) (handle, *box) {
	v := reflect.ValueOf(r)
	if v.Kind() == reflect.Pointer {
		return pointerTo(v.UnsafePointer(), v.Type().Elem()), nil
	}
	b := &box{reporter: r}
	if v.Comparable() {
		b.hash = maphash.Comparable(o.seed, r) | 1
		for _, h := range o.boxes[b.hash] {
			// The pointer keeps the box alive from here on.
			if at := h.at.Value(); at != nil && (*box)(unsafe.Pointer(at)).reporter == r {
				return h, (*box)(unsafe.Pointer(at))
			}
		}
	}
	h := pointerTo(unsafe.Pointer(b), nil)
	if b.hash != 0 {
		o.boxes[b.hash] = append(o.boxes[b.hash], h)
	}
	return h, b
}

// meet returns the member for a policy, and begins to follow its state if it is new. If the box isn't
// nil, it must be kept as long as the policy is in use.
func (o *Observer) meet(r resilience.Reporter) (*member, *box) {
	report := r.Report()
	m, keep, isNew := o.enroll(r, report)
	if !isNew {
		return m, keep
	}
	if notifier, ok := r.(resilience.Notifier); ok {
		notifier.Notify(func(c resilience.Change) { o.changed(m, c) })
		report = r.Report() // the state may have changed before Notify
		o.mu.Lock()
		if !m.changed {
			m.enter(report.State, time.Now())
		}
		o.mu.Unlock()
	}
	return m, keep
}

// enroll returns the member for a policy, and whether it is new.
func (o *Observer) enroll(r resilience.Reporter, report resilience.Report) (m *member, keep *box, isNew bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	h, keep := o.handleOf(r)
	if m := o.members[h]; m != nil {
		return m, keep, false
	}
	o.seen++
	m = &member{handle: h, number: o.seen, state: report.State, since: time.Now()}
	_, m.notifies = r.(resilience.Notifier)
	kind := report.Kind
	if kind == "" {
		kind = reflect.TypeOf(r).String()
	}
	o.join(m, kindName{kind, report.Name})
	o.members[h] = m
	at := h.at.Value()
	runtime.AddCleanup(at, func(c cleanup[*member]) {
		if o := c.observer.Value(); o != nil {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.bury(c.of, time.Now())
		}
	}, cleanup[*member]{weak.Make(o), m})
	if keep != nil {
		m.hash = keep.hash
	}
	return m, keep, true
}

// join makes m a member of the group of its kind and name.
func (o *Observer) join(m *member, key kindName) {
	create := func() *group {
		return &group{members: map[*member]bool{}, inState: map[string]time.Duration{}, changes: map[string]uint64{}, since: m.since}
	}
	e := o.others[key.kind]
	if key.name != other || e == nil {
		e = o.policies.use(key, create)
		if e == nil && o.burySome(m.since) {
			e = o.policies.use(key, create)
		}
	}
	if e == nil {
		m.surplus = true
		e = o.otherGroup(key.kind, create)
	}
	m.group = e.value
	m.group.named = e
	m.group.members[m] = true
}

// otherGroup returns what is kept for all policies of a kind that MaxNames leaves no place for.
func (o *Observer) otherGroup(kind string, create func() *group) *named[kindName, *group] {
	if o.others[kind] == nil && len(o.others) >= maxOtherKinds {
		kind = other
	}
	e := o.others[kind]
	if e == nil {
		key := kindName{kind, other}
		if e = o.policies.named[key]; e == nil { // otherwise, a policy really has that name
			e = &named[kindName, *group]{key: key, value: create()}
		}
		e.users++ // it stays
		o.others[kind] = e
	}
	return e
}

// maxOtherKinds bounds the kinds, which user-written policies choose.
const maxOtherKinds = 100

// group returns the group of a kind and name, nil if there is none.
func (o *Observer) group(kind, name string) *group {
	if e := o.others[kind]; e != nil && name == other {
		return e.value
	}
	if e := o.policies.named[kindName{kind, name}]; e != nil {
		return e.value
	}
	return nil
}

// bury removes a member that is collected.
func (o *Observer) bury(m *member, at time.Time) {
	if m.gone {
		return
	}
	m.gone = true
	delete(o.members, m.handle)
	if same := o.boxes[m.hash]; m.hash != 0 && m.typ == nil {
		same = slices.DeleteFunc(same, func(h handle) bool { return h == m.handle })
		if o.boxes[m.hash] = same; len(same) == 0 {
			delete(o.boxes, m.hash)
		}
	}
	if at.Before(m.since) && len(o.unsettled) < maxUnsettled {
		o.unsettled = append(o.unsettled, m)
	}
	m.advance(at)
	delete(m.group.members, m)
	if m.group.named != o.others[m.group.named.key.kind] {
		o.policies.leave(m.group.named)
	}
}

// maxUnsettled bounds how many collected policies may wait for the next snapshot. Only those wait
// that have another clock than the goroutine that runs cleanups, as in a testing/synctest bubble.
const maxUnsettled = 1000

// burySome buries policies whose cleanup hasn't run yet. It looks at a few, so that the time it takes
// doesn't depend on how many there are. It reports whether it found any.
func (o *Observer) burySome(now time.Time) (found bool) {
	left := searched
	for _, m := range o.members {
		if left--; left < 0 {
			break
		}
		if m.at.Value() == nil {
			o.bury(m, now)
			found = true
		}
	}
	return found
}

// changed counts a change of m's state, and passes it to the listeners.
func (o *Observer) changed(m *member, c resilience.Change) {
	o.mu.Lock()
	g := m.group
	m.changed = true
	m.enter(c.To, c.At)
	g.changes[c.To]++
	if c.At.After(g.since) {
		g.since = c.At
	}
	recent := &change{Change: Change{At: c.At, From: c.From, To: c.To, Cause: c.Cause}}
	if c.Err != nil {
		recent.err = &sample{at: c.At, err: c.Err}
	}
	if len(g.recent) == maxRecent {
		g.recent = slices.Delete(g.recent, 0, 1)
	}
	g.recent = append(g.recent, recent)
	o.mu.Unlock()
	forwards(o.config.Listeners, func(l Listener) {
		if l.Changed != nil {
			l.Changed(c)
		}
	})
}

// forwards calls f for each listener, even if it panics for another one.
func forwards(listeners []Listener, f func(Listener)) {
	if len(listeners) == 0 {
		return
	}
	defer forwards(listeners[1:], f)
	f(listeners[0])
}

// A liveMember is a member that can't be collected meanwhile.
type liveMember struct {
	*member
	reporter resilience.Reporter
}

// lively returns the live members in the order in which o saw them first.
func (o *Observer) lively(now time.Time) []liveMember {
	o.mu.Lock()
	defer o.mu.Unlock()
	live := make([]liveMember, 0, len(o.members))
	for _, m := range o.members {
		if r := m.reporter(); r != nil {
			live = append(live, liveMember{m, r})
		} else {
			o.bury(m, now)
		}
	}
	slices.SortFunc(live, func(a, b liveMember) int { return cmp.Compare(a.number, b.number) })
	for _, m := range o.unsettled {
		m.advance(now)
	}
	o.unsettled = nil
	return live
}

// policySnapshots returns the snapshots of all groups, and their recent changes.
func (o *Observer) policySnapshots(now time.Time, live []liveMember, reports map[*member]resilience.Report) (all []PolicySnapshot, recent [][]*change) {
	all = []PolicySnapshot{}
	index := map[*group]int{}
	add := func(e *named[kindName, *group]) {
		g := e.value
		index[g] = len(all)
		all = append(all, PolicySnapshot{
			Kind: e.key.kind, Name: e.key.name,
			Reports: []resilience.Report{}, States: map[string]int{}, Recent: make([]Change, 0, len(g.recent)),
			Since: g.since,
		})
		recent = append(recent, slices.Clone(g.recent))
	}
	for _, e := range o.policies.named {
		add(e)
	}
	for _, e := range o.others {
		if _, ok := index[e.value]; !ok {
			add(e)
		}
	}
	for _, m := range live {
		report := reports[m.member]
		if !m.gone && m.notifies {
			m.advance(now)
		} else if !m.gone {
			m.enter(report.State, now)
		}
		i, ok := index[m.group]
		if !ok {
			continue // collected and replaced meanwhile
		}
		if report.State != "" {
			all[i].States[report.State]++
		}
		if !m.surplus {
			all[i].Reports = append(all[i].Reports, report)
		}
	}
	for g, i := range index {
		all[i].InState, all[i].Changes = maps.Clone(g.inState), maps.Clone(g.changes)
	}
	return all, recent
}
