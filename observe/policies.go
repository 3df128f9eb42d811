package observe

import (
	"cmp"
	"hash/maphash"
	"maps"
	"reflect"
	"runtime"
	"slices"
	"sync/atomic"
	"time"
	"unsafe"
	"weak"

	"github.com/effector-go/resilience"
)

// A registry is what an observer keeps of policies and budgets. The observer's mutex guards it.
type registry struct {
	policies  *names[kindName, *policyGroup]
	others    map[string]*named[kindName, *policyGroup] // by kind: those that MaxNames leaves no room for
	members   map[handle]*member                        // live ones
	seen      uint64                                    // number of members so far
	unsettled []*member                                 // collected by another clock: the next snapshot counts their time in a state

	seed    maphash.Seed
	boxes   map[uint64][]handle // of comparable policies that aren't pointers, by hash
	watched map[*box]bool       // kept alive for Watch
}

func newRegistry(limit int) registry {
	return registry{
		policies: newNames[kindName, *policyGroup](limit),
		others:   map[string]*named[kindName, *policyGroup]{},
		members:  map[handle]*member{},
		seed:     maphash.MakeSeed(),
		boxes:    map[uint64][]handle{},
		watched:  map[*box]bool{},
	}
}

type kindName struct{ kind, name string }

// A handle identifies a policy without keeping it alive.
type handle struct {
	at  weak.Pointer[byte]
	typ reflect.Type // of what at points to; nil for a box
}

// A box holds a policy that isn't a pointer, so that there is something to refer to. The pipelines
// that use the policy keep the box alive.
type box struct {
	reporter resilience.Reporter
	hash     uint64 // 0 if the policy can't be compared
}

// pointerTo returns the handle of what pointer points to.
func pointerTo(pointer unsafe.Pointer, typ reflect.Type) handle {
	return handle{weak.Make((*byte)(pointer)), typ}
}

// reporter returns the policy, nil if it has been collected.
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

// A member is a policy or budget that the observer has seen.
type member struct {
	handle
	number  uint64 // in the order in which the observer saw them first
	group   *policyGroup
	surplus bool // counted as "other"

	state    string
	since    time.Time // the time up to which the group has counted the state
	notifies bool      // the state comes from changes; otherwise from reports
	changed  bool      // a change was received
	gone     bool      // collected
	hash     uint64    // of its box
}

// A policyGroup is what is kept for policies of one kind and name.
type policyGroup struct {
	named   *named[kindName, *policyGroup]
	members map[*member]bool // live ones
	inState map[string]time.Duration
	changes map[string]uint64
	recent  []*change // at most maxRecent, oldest first
	since   time.Time // as PolicySnapshot.Since
}

// maxRecent is the number of changes that are kept for a kind and name.
const maxRecent = 50

// A change is a Change whose error is formatted when a snapshot needs it.
type change struct {
	Change
	err *sample // nil if there is no error
}

// format returns the change with the description of its error. No lock may be held: see
// [sample.format].
func (c *change) format() Change {
	formatted := c.Change
	if c.err != nil {
		sample := c.err.format()
		formatted.Error = &sample
	}
	return formatted
}

// inOrder returns the members in the order in which the observer saw them first.
func (g *policyGroup) inOrder() []*member {
	return slices.SortedFunc(maps.Keys(g.members), func(a, b *member) int { return cmp.Compare(a.number, b.number) })
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

// member returns the member for a policy. If it is new, the observer begins to follow its state. If the
// box isn't nil, the caller keeps it for as long as the policy is in use.
func (o *Observer) member(r resilience.Reporter) (*member, *box) {
	m, b, isNew := o.enroll(r, describe(r))
	if !isNew {
		return m, b
	}
	if notifier, ok := r.(resilience.Notifier); ok {
		o.subscribe(m, b, notifier)
		state := r.Report().State // which may have changed before the subscription
		o.mu.Lock()
		defer o.mu.Unlock()
		if !m.changed {
			m.enter(state, time.Now())
		}
	}
	return m, b
}

// enroll returns the member for a policy and its box, and whether the member is new.
func (o *Observer) enroll(r resilience.Reporter, report resilience.Report) (m *member, b *box, isNew bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	h, b := o.handleOf(r)
	if m := o.members[h]; m != nil {
		return m, b, false
	}
	o.seen++
	m = &member{handle: h, number: o.seen, state: report.State, since: time.Now()}
	_, m.notifies = r.(resilience.Notifier)
	if b != nil {
		m.hash = b.hash
	}
	o.join(m, kindName{report.Kind, report.Name})
	o.members[h] = m
	whenCollected(h.at.Value(), o, m, func(o *Observer, m *member) { o.retireMember(m, time.Now()) })
	return m, b, true
}

// handleOf returns the handle of a policy, and the box if the policy isn't a pointer.
func (o *Observer) handleOf(r resilience.Reporter) (handle, *box) {
	v := reflect.ValueOf(r)
	if v.Kind() == reflect.Pointer {
		return pointerTo(v.UnsafePointer(), v.Type().Elem()), nil
	}
	b := &box{reporter: r}
	if v.Comparable() {
		b.hash = maphash.Comparable(o.seed, r) | 1 // never 0
		for _, h := range o.boxes[b.hash] {
			// The pointer keeps the box alive from here on.
			if known := (*box)(unsafe.Pointer(h.at.Value())); known != nil && known.reporter == r {
				return h, known
			}
		}
	}
	h := pointerTo(unsafe.Pointer(b), nil)
	if b.hash != 0 {
		o.boxes[b.hash] = append(o.boxes[b.hash], h)
	}
	return h, b
}

// join makes m a member of the group of its kind and name.
func (o *Observer) join(m *member, key kindName) {
	create := func() *policyGroup {
		return &policyGroup{members: map[*member]bool{}, inState: map[string]time.Duration{}, changes: map[string]uint64{}, since: m.since}
	}
	e := o.others[key.kind]
	if key.name != other || e == nil {
		e = o.policies.use(key, create)
		if e == nil && o.retireSomeMembers(m.since) {
			e = o.policies.use(key, create)
		}
	}
	if e == nil {
		m.surplus = true
		e = o.otherPolicies(key.kind, create)
	}
	m.group = e.value
	m.group.named = e
	m.group.members[m] = true
}

// otherPolicies returns the group that counts the policies of a kind that MaxNames leaves no room for.
func (o *Observer) otherPolicies(kind string, create func() *policyGroup) *named[kindName, *policyGroup] {
	if o.others[kind] == nil && len(o.others) >= maxOtherKinds {
		kind = other
	}
	e := o.others[kind]
	if e == nil {
		key := kindName{kind, other}
		// If a policy really has that name, it is in use, and from now on no user leaves it: it is
		// never replaced.
		if e = o.policies.named[key]; e == nil {
			e = &named[kindName, *policyGroup]{key: key, value: create()}
		}
		o.others[kind] = e
	}
	return e
}

// maxOtherKinds bounds the number of kinds, which user-written policies choose.
const maxOtherKinds = 100

// lookUp returns the group of a kind and name, nil if there is none.
func (o *Observer) lookUp(kind, name string) *policyGroup {
	if e := o.others[kind]; e != nil && name == other {
		return e.value
	}
	if e := o.policies.named[kindName{kind, name}]; e != nil {
		return e.value
	}
	return nil
}

// retireMember removes a member that has been collected.
func (o *Observer) retireMember(m *member, at time.Time) {
	if m.gone {
		return
	}
	m.gone = true
	delete(o.members, m.handle)
	if m.hash != 0 {
		same := slices.DeleteFunc(o.boxes[m.hash], func(h handle) bool { return h == m.handle })
		if o.boxes[m.hash] = same; len(same) == 0 {
			delete(o.boxes, m.hash)
		}
	}
	if sameClock(at, m.since) {
		m.advance(at)
	} else if len(o.unsettled) < maxUnsettled {
		o.unsettled = append(o.unsettled, m)
	}
	delete(m.group.members, m)
	if m.group.named != o.others[m.group.named.key.kind] {
		o.policies.leave(m.group.named)
	}
}

// sameClock reports whether two times are of the same clock. In a testing/synctest bubble, times have no
// monotonic reading. The goroutine that runs cleanups is not in the bubble.
func sameClock(a, b time.Time) bool {
	isBubbles := func(t time.Time) bool { return t == t.Round(0) }
	return isBubbles(a) == isBubbles(b)
}

// maxUnsettled bounds the number of collected policies in o.unsettled.
const maxUnsettled = 1000

// retireSomeMembers retires policies whose cleanup hasn't run yet. It looks at a few, so that the time
// it takes doesn't depend on how many there are. It reports whether it found any.
func (o *Observer) retireSomeMembers(now time.Time) (found bool) {
	left := searched
	for _, m := range o.members {
		if left--; left < 0 {
			break
		}
		if m.at.Value() == nil {
			o.retireMember(m, now)
			found = true
		}
	}
	return found
}

// subscribe makes the observer receive the changes of a policy's state, until the policy has been
// collected. What reports the changes may live longer: a breaker that is embedded in the policy, for
// example, and in later ones.
func (o *Observer) subscribe(m *member, b *box, notifier resilience.Notifier) {
	// The notifier refers to its listener, and so to stop. Nothing else may: a stop function can refer
	// to the policy.
	var stop atomic.Pointer[func()]
	unsubscribe := notifier.Notify(func(c resilience.Change) {
		if o.countChange(m, c) {
			forwards(o.config.Listeners, func(l Listener) {
				if l.Changed != nil {
					l.Changed(c)
				}
			})
		} else if stop := stop.Load(); stop != nil {
			(*stop)()
		}
	})
	stop.Store(&unsubscribe)
	if b != nil { // no stop function can refer to a box
		runtime.AddCleanup(b, func(stop func()) { stop() }, unsubscribe)
	}
}

// countChange counts a change of m's state. It reports false, and counts nothing, if m has been
// collected.
func (o *Observer) countChange(m *member, c resilience.Change) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if m.gone {
		return false
	}
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
	return true
}

// forwards calls f with each listener, even if a call panics.
func forwards(listeners []Listener, f func(Listener)) {
	if len(listeners) == 0 {
		return
	}
	defer forwards(listeners[1:], f)
	f(listeners[0])
}

// A liveMember is a member whose policy can't be collected meanwhile, because reporter refers to it.
type liveMember struct {
	*member
	reporter resilience.Reporter
	report   resilience.Report
}

// liveMembers returns the live members in the order in which o saw them first, without their reports.
func (o *Observer) liveMembers(now time.Time) []liveMember {
	o.mu.Lock()
	defer o.mu.Unlock()
	live := make([]liveMember, 0, len(o.members))
	for _, m := range o.members {
		if r := m.reporter(); r != nil {
			live = append(live, liveMember{member: m, reporter: r})
		} else {
			o.retireMember(m, now)
		}
	}
	slices.SortFunc(live, func(a, b liveMember) int { return cmp.Compare(a.number, b.number) })
	for _, m := range o.unsettled {
		m.advance(now)
	}
	o.unsettled = nil
	return live
}

// policySnapshots returns the snapshots of all groups without their recent changes, and these changes.
func (o *Observer) policySnapshots(now time.Time, live []liveMember) (all []PolicySnapshot, recent [][]*change) {
	for _, m := range live {
		switch {
		case m.gone: // the reporter of a box does not keep the box alive
		case m.notifies:
			m.advance(now)
		default:
			m.enter(m.report.State, now)
		}
	}
	all = []PolicySnapshot{}
	index := map[*policyGroup]int{}
	for _, e := range o.allPolicies() {
		index[e.value] = len(all)
		all = append(all, e.value.snapshot(e.key))
		recent = append(recent, slices.Clone(e.value.recent))
	}
	for _, m := range live {
		i, ok := index[m.group]
		if !ok {
			continue // collected, and its name replaced, meanwhile
		}
		if m.report.State != "" {
			all[i].States[m.report.State]++
		}
		if !m.surplus {
			all[i].Reports = append(all[i].Reports, m.report)
		}
	}
	return all, recent
}

// allPolicies returns the groups of all kinds and names.
func (o *Observer) allPolicies() []*named[kindName, *policyGroup] {
	all := slices.Collect(maps.Values(o.policies.named))
	for _, e := range o.others {
		if o.policies.named[e.key] != e {
			all = append(all, e)
		}
	}
	return all
}

// snapshot returns the snapshot of the group without its live policies and its recent changes.
func (g *policyGroup) snapshot(key kindName) PolicySnapshot {
	return PolicySnapshot{
		Kind: key.kind, Name: key.name,
		Reports: []resilience.Report{},
		States:  map[string]int{},
		InState: maps.Clone(g.inState),
		Changes: maps.Clone(g.changes),
		Recent:  make([]Change, 0, len(g.recent)),
		Since:   g.since,
	}
}
