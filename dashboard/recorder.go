package dashboard

import (
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/observe"
)

const (
	resultCount = int(observe.Panicked) + 1
	eventCount  = int(observe.GiveUp) + 1
	maxChanges  = 50               // that are shown of a policy, and of all
	window      = 10 * time.Second // of rates, shares, and quantiles
)

// A recorder turns snapshots into states. It keeps what a snapshot lacks: the counts at the beginning
// of the window, the history, and since when a pipeline has been bad. It reads no clock and is not safe
// for concurrent use.
type recorder struct {
	grid      grid
	tallies   []tally // of the window and one before it, oldest first
	pipelines map[string]*pipelineMemory
	policies  map[key]*policyMemory
	kinds     map[string]bool // of policies
	changes   []changeOfJSON  // the latest of all policies, newest first
}

type key struct{ kind, name string }

// A pipelineMemory is what is kept of a pipeline between samples.
type pipelineMemory struct {
	id     string
	series series
	since  time.Time // when the level became bad; zero if it is not
}

// A policyMemory is what is kept of the policies of one kind and name between samples.
type policyMemory struct {
	id      string
	changes []changeJSON    // newest first, at most maxChanges; replaced, never modified
	encoded json.RawMessage // changes in JSON
	count   uint64          // of the changes so far
	latest  time.Time       // of the changes
	left    episode         // of states other than closed
	manual  episode         // of states that were set manually
}

// A tally is what the counters were at one moment.
type tally struct {
	at        time.Time
	pipelines map[string]*counts // by name
}

func tallyOf(snap *observe.Snapshot) tally {
	t := tally{at: snap.At, pipelines: make(map[string]*counts, len(snap.Pipelines))}
	for i := range snap.Pipelines {
		p := &snap.Pipelines[i]
		t.pipelines[p.Name] = count(p, len(snap.Bounds))
	}
	return t
}

// secondsSince returns the time since an earlier tally, 0 if the clock was set back meanwhile.
func (t tally) secondsSince(earlier tally) float64 {
	return max(0, t.at.Sub(earlier.at).Seconds())
}

// counts are the counters of one pipeline.
type counts struct {
	results  [resultCount]uint64
	buckets  []uint64 // of calls that were not refused
	attempts uint64
	layers   map[place]layerCounts
}

// A place is where the policies of pipelines of one name are counted together.
type place struct {
	position int
	kind     string
}

type layerCounts struct {
	entered, passed uint64
	events          [eventCount]uint64
}

// A delta is the difference of two counts.
type delta = counts

// count returns the counters of a pipeline whose histograms have that many bounds.
func count(p *observe.PipelineSnapshot, bounds int) *counts {
	c := &counts{attempts: p.Attempts, buckets: make([]uint64, bounds+1), layers: make(map[place]layerCounts, len(p.Layers))}
	for r := range c.results {
		h := p.Calls[observe.Result(r)]
		c.results[r] = h.Count
		if observe.Result(r) != observe.Refused {
			for i, n := range h.Buckets[:min(len(h.Buckets), bounds+1)] {
				c.buckets[i] += n
			}
		}
	}
	for _, l := range p.Layers {
		lc := layerCounts{entered: l.Entered, passed: l.Passed}
		for e := range lc.events {
			lc.events[e] = l.Events[observe.EventKind(e)]
		}
		c.layers[place{l.Position, l.Kind}] = lc
	}
	return c
}

// since returns what was counted after before, which may be nil. A counter that decreased began again
// at zero: the observer had replaced the name meanwhile.
func (c *counts) since(before *counts) *delta {
	if before == nil {
		return c
	}
	minus := func(now, before uint64) uint64 {
		if now < before {
			return now
		}
		return now - before
	}
	d := &delta{attempts: minus(c.attempts, before.attempts), buckets: make([]uint64, len(c.buckets)), layers: make(map[place]layerCounts, len(c.layers))}
	for r := range d.results {
		d.results[r] = minus(c.results[r], before.results[r])
	}
	for i := range d.buckets {
		d.buckets[i] = minus(c.buckets[i], before.buckets[i])
	}
	for at, now := range c.layers {
		then := before.layers[at]
		l := layerCounts{entered: minus(now.entered, then.entered), passed: minus(now.passed, then.passed)}
		for e := range l.events {
			l.events[e] = minus(now.events[e], then.events[e])
		}
		d.layers[at] = l
	}
	return d
}

// ended returns how many calls ended, and how many of them count for and against the pipeline:
// canceled calls do neither.
func (c *counts) ended() (all, good, bad uint64) {
	for r, n := range c.results {
		all += n
		switch observe.Result(r) {
		case observe.Success:
			good += n
		case observe.Canceled:
		default:
			bad += n
		}
	}
	return all, good, bad
}

func newRecorder(start time.Time, history, interval time.Duration) *recorder {
	return &recorder{
		grid:      newGrid(start, history, interval),
		pipelines: map[string]*pipelineMemory{},
		policies:  map[key]*policyMemory{},
	}
}

// add records a snapshot and returns the state, without what belongs to the process.
func (r *recorder) add(snap *observe.Snapshot) *state {
	now := tallyOf(snap)
	base, last := r.push(now)
	s := &state{
		At:        snap.At.UTC(),
		Window:    now.secondsSince(base),
		Bounds:    make([]float64, len(snap.Bounds)),
		Pipelines: make([]pipelineJSON, 0, len(snap.Pipelines)),
	}
	for i, b := range snap.Bounds {
		s.Bounds[i] = b.Seconds()
	}
	r.rememberPolicies(snap)
	s.Changes = r.changes

	views := make([]*pipelineView, len(snap.Pipelines))
	for i := range snap.Pipelines {
		views[i] = r.view(&snap.Pipelines[i], base, last, now, s.Bounds)
	}
	maps.DeleteFunc(r.pipelines, func(name string, _ *pipelineMemory) bool { return now.pipelines[name] == nil })

	s.Troubles = r.troubles(snap, views)
	for _, v := range views {
		s.Pipelines = append(s.Pipelines, v.json(r, s.Bounds))
	}
	slices.SortStableFunc(s.Pipelines, func(a, b pipelineJSON) int {
		if a.Level != b.Level {
			return int(a.Level - b.Level)
		}
		return strings.Compare(a.Name, b.Name)
	})
	s.Policies = r.policyList(snap, views)
	return s
}

// push adds a tally. It returns the one with which the window begins, and the one before now. If now is
// the first, it is both, and nothing is known of the time before it.
func (r *recorder) push(now tally) (base, last tally) {
	n := len(r.tallies)
	if n == 0 {
		r.tallies = append(r.tallies, now)
		return now, now
	}
	last = r.tallies[n-1]
	// The window begins with the latest tally that is at least as old as the window. If there is none,
	// it begins with the oldest tally. Those before it are no longer needed.
	first := 0
	for first+1 < n && now.at.Sub(r.tallies[first+1].at) >= window {
		first++
	}
	base = r.tallies[first]
	r.tallies = append(slices.Delete(r.tallies, 0, first), now)
	return base, last
}

// view records what a pipeline did between the last two tallies, and returns what it did since base.
func (r *recorder) view(p *observe.PipelineSnapshot, base, last, now tally, bounds []float64) *pipelineView {
	memory := r.pipelines[p.Name]
	if memory == nil {
		memory = &pipelineMemory{id: id(pipelineKind, p.Name)}
		r.pipelines[p.Name] = memory
	}
	c := now.pipelines[p.Name]
	memory.series.add(r.grid, last.at, now.at, c.since(last.pipelines[p.Name]), p.Running, bounds)
	v := &pipelineView{snap: p, id: memory.id, delta: c.since(base.pipelines[p.Name]), window: now.secondsSince(base)}
	v.level, v.reason, v.why = v.judge(r)
	switch {
	case !v.level.bad():
		memory.since = time.Time{}
	case memory.since.IsZero():
		memory.since = now.at
	}
	v.since = memory.since
	return v
}

// rememberPolicies updates what is known of policies. Their texts are redacted only when there are
// new changes, since that takes the most time of a sample.
func (r *recorder) rememberPolicies(snap *observe.Snapshot) {
	changed := false
	seen := make(map[key]bool, len(snap.Policies))
	r.kinds = map[string]bool{}
	for i := range snap.Policies {
		p := &snap.Policies[i]
		k := key{p.Kind, p.Name}
		seen[k], r.kinds[p.Kind] = true, true
		memory := r.policies[k]
		if memory == nil {
			memory = &policyMemory{id: id(p.Kind, p.Name), encoded: json.RawMessage("[]")}
			r.policies[k] = memory
			changed = true
		}
		var total uint64
		for _, n := range p.Changes {
			total += n
		}
		var latest time.Time
		if n := len(p.Recent); n > 0 {
			latest = p.Recent[n-1].At
		}
		if total != memory.count || len(memory.changes) != min(len(p.Recent), maxChanges) || !latest.Equal(memory.latest) {
			memory.count, memory.latest = total, latest
			memory.setChanges(p.Recent)
			changed = true
		}
		left, manual := 0, 0
		for s, n := range p.States {
			if s != closed {
				left += n
			}
			if isManual(s) {
				manual += n
			}
		}
		memory.left.update(p, left, func(s string) bool { return s != closed })
		memory.manual.update(p, manual, isManual)
	}
	for k := range r.policies {
		if !seen[k] {
			delete(r.policies, k)
			changed = true
		}
	}
	if changed || r.changes == nil {
		r.changes = r.latestChanges()
	}
}

// setChanges keeps the latest changes, redacted.
func (m *policyMemory) setChanges(recent []observe.Change) {
	recent = recent[max(0, len(recent)-maxChanges):]
	m.changes = make([]changeJSON, 0, len(recent))
	for _, c := range slices.Backward(recent) {
		m.changes = append(m.changes, changeJSON{
			At: c.At.UTC(), From: printable(c.From), To: printable(c.To), Cause: redact(c.Cause), Error: sampleJSON(c.Error),
		})
	}
	encoded, err := json.Marshal(m.changes)
	if err != nil { // times beyond the year 9999
		encoded = []byte("[]")
	}
	m.encoded = encoded
}

// latestChanges returns the latest changes of all policies, newest first.
func (r *recorder) latestChanges() []changeOfJSON {
	all := []changeOfJSON{}
	for k, m := range r.policies {
		for _, c := range m.changes {
			all = append(all, changeOfJSON{Policy: m.id, Kind: printable(k.kind), Name: display(k.name), changeJSON: c})
		}
	}
	slices.SortFunc(all, func(a, b changeOfJSON) int {
		if c := b.At.Compare(a.At); c != 0 {
			return c
		}
		return strings.Compare(a.Policy, b.Policy)
	})
	return slices.Clip(all[:min(len(all), maxChanges)])
}

// sampleJSON returns the error as it is shown, nil for nil.
func sampleJSON(e *observe.ErrorSample) *errorJSON {
	if e == nil {
		return nil
	}
	return &errorJSON{At: e.At.UTC(), Type: printable(e.Type), Text: redact(e.Text)}
}

// An episode is the time since policies of one name have been in some of their states.
type episode struct {
	since time.Time // zero if none is in them
	cause string
	err   *observe.ErrorSample
}

// update finds the change with which the episode began, given that n policies are in its states now:
// backwards from now, the change before which none was.
func (e *episode) update(p *observe.PolicySnapshot, n int, in func(state string) bool) {
	if n == 0 {
		*e = episode{}
		return
	}
	for _, c := range slices.Backward(p.Recent) {
		switch from, to := in(c.From), in(c.To); {
		case from && !to:
			n++
		case to && !from:
			n--
		}
		if n == 0 {
			*e = episode{since: c.At, cause: c.Cause, err: c.Error}
			return
		}
	}
	if !e.since.IsZero() {
		return // it began before the changes that are kept
	}
	*e = episode{since: p.Since}
	if len(p.Recent) > 0 {
		e.since = p.Recent[0].At
	}
}

// policyList returns the policies and budgets of a snapshot.
func (r *recorder) policyList(snap *observe.Snapshot, views []*pipelineView) []policyJSON {
	in := make(map[string][]string, len(snap.Policies)) // IDs of pipelines by the policy's ID
	for _, v := range views {
		for _, l := range v.snap.Layers {
			m := r.policies[key{l.Kind, l.Name}]
			if m == nil {
				continue
			}
			if ids := in[m.id]; len(ids) == 0 || ids[len(ids)-1] != v.id { // once for each pipeline
				in[m.id] = append(ids, v.id)
			}
		}
	}
	list := make([]policyJSON, 0, len(snap.Policies))
	for i := range snap.Policies {
		p := &snap.Policies[i]
		m := r.policies[key{p.Kind, p.Name}]
		j := policyJSON{
			ID: m.id, Kind: printable(p.Kind), Name: display(p.Name), Live: len(p.Reports), States: states(p.States), Since: p.Since.UTC(),
			Controls:  p.Kind == breakerKind && p.Name != "" && len(p.Reports) > 0,
			Pipelines: orEmpty(in[m.id]), Values: values(p.Reports), Config: config(p.Reports), Changes: m.encoded,
		}
		if since := m.manual.since; !since.IsZero() {
			since = since.UTC()
			j.Manual = &since
		}
		list = append(list, j)
	}
	return list
}

func orEmpty(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

// states returns the counts of policies by state as they are shown.
func states(counts map[string]int) map[string]int {
	shown := make(map[string]int, len(counts))
	for s, n := range counts {
		if n > 0 && s != "" {
			shown[printable(s)] += n
		}
	}
	return shown
}

// values adds up the values of reports by name, in the order of the first report.
func values(reports []resilience.Report) []valueJSON {
	list := []valueJSON{}
	for i, r := range reports {
		for _, v := range r.Values {
			at := slices.IndexFunc(list, func(j valueJSON) bool { return j.Name == v.Name })
			x := number(v.Value)
			switch {
			case at >= 0:
				list[at].Min = number(math.Min(float64(list[at].Min), v.Value))
				list[at].Max = number(math.Max(float64(list[at].Max), v.Value))
				list[at].Total += x
			case i == 0:
				list = append(list, valueJSON{Name: v.Name, Unit: v.Unit, Min: x, Max: x, Total: x})
			}
		}
	}
	for i := range list {
		list[i].Name, list[i].Unit = printable(list[i].Name), printable(list[i].Unit)
	}
	return list
}

// config returns the configuration that all reports share, or nil.
func config(reports []resilience.Report) map[string]string {
	if len(reports) == 0 {
		return nil
	}
	for _, r := range reports[1:] {
		if !maps.Equal(r.Config, reports[0].Config) {
			return nil
		}
	}
	shown := make(map[string]string, len(reports[0].Config))
	for field, value := range reports[0].Config {
		shown[printable(field)] = redact(value)
	}
	return shown
}
