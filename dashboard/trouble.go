package dashboard

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/observe"
)

// troubles returns what is wrong. Each breaker name that is not closed is one trouble; each bad
// pipeline that no breaker explains is another.
func (r *recorder) troubles(snap *observe.Snapshot, views []*pipelineView) []trouble {
	list, explained := r.breakerTroubles(snap, views)
	for _, v := range views {
		if v.level.bad() && !explained[v] {
			list = append(list, r.pipelineTrouble(snap, v))
		}
	}
	slices.SortStableFunc(list, func(a, b trouble) int {
		if a.Level != b.Level {
			return int(a.Level - b.Level)
		}
		return a.Since.Compare(b.Since)
	})
	return list
}

// breakerTroubles returns the troubles of breakers, and the bad pipelines that they explain.
func (r *recorder) breakerTroubles(snap *observe.Snapshot, views []*pipelineView) (list []trouble, explained map[*pipelineView]bool) {
	list, explained = []trouble{}, map[*pipelineView]bool{}
	var explains [][]*pipelineView // by trouble
	for i := range snap.Policies {
		p := &snap.Policies[i]
		if p.Kind != breakerKind || p.States[closed] == sum(p.States) {
			continue
		}
		affected := affectedBy(p, snap, views)
		state := worstState(p, affected)
		if state == "" {
			continue
		}
		t := r.breakerTrouble(p, state, affected)
		var bad []*pipelineView
		for _, v := range affected {
			t.Pipelines = append(t.Pipelines, v.id)
			if v.level.bad() && (state != disabled || v.reason == byDisabling) {
				bad = append(bad, v)
				explained[v] = true
			}
		}
		list, explains = append(list, t), append(explains, bad)
	}
	raiseLevels(list, explains)
	return list, explained
}

// raiseLevels ensures that each pipeline that is down is explained by a trouble that is down: if it has
// none, all that explain it become down.
func raiseLevels(list []trouble, explains [][]*pipelineView) {
	shown := map[*pipelineView]bool{}
	for i, pipelines := range explains {
		for _, v := range pipelines {
			shown[v] = shown[v] || list[i].Level == down
		}
	}
	for i, pipelines := range explains {
		for _, v := range pipelines {
			if v.level == down && !shown[v] {
				list[i].Level = down
			}
		}
	}
}

// affectedBy returns the pipelines with a breaker of p's name, also those that contain one of them.
// Where breakers of different names have the same place, their names are unknown: those in no named
// place may be in any place with a breaker in the same state.
func affectedBy(p *observe.PolicySnapshot, snap *observe.Snapshot, views []*pipelineView) []*pipelineView {
	var affected []*pipelineView
	find := func(has func(l *observe.LayerSnapshot) bool) {
		for _, v := range views {
			layers := v.snap.Layers
			for i := range layers {
				if has(&layers[i]) && !slices.Contains(affected, v) {
					affected = append(affected, v)
				}
			}
		}
	}
	find(func(l *observe.LayerSnapshot) bool { return l.Kind == p.Kind && l.Name == p.Name })
	if len(affected) == 0 && !slices.ContainsFunc(snap.Policies, func(o observe.PolicySnapshot) bool { return o.Kind == p.Kind && o.Name == "" }) {
		find(func(l *observe.LayerSnapshot) bool {
			if l.Kind != p.Kind || l.Name != "" {
				return false
			}
			for state, n := range p.States {
				if n > 0 && state != closed && l.States[state] > 0 {
					return true
				}
			}
			return false
		})
	}
	for before := -1; before != len(affected); {
		before = len(affected)
		find(func(l *observe.LayerSnapshot) bool {
			return l.Kind == pipelineKind && slices.ContainsFunc(affected, func(v *pipelineView) bool { return v.snap.Name == l.Name })
		})
	}
	return affected
}

// worstState returns the state that makes a breaker name a trouble, or "".
func worstState(p *observe.PolicySnapshot, affected []*pipelineView) string {
	for _, state := range []string{open, forcedOpen, disabled} {
		if p.States[state] > 0 {
			return state
		}
	}
	if p.States[halfOpen] == 0 {
		return ""
	}
	if slices.ContainsFunc(affected, (*pipelineView).busy) {
		return halfOpen
	}
	for _, report := range p.Reports { // used outside of pipelines
		for _, v := range report.Values {
			if report.State == halfOpen && len(affected) == 0 && (v.Name == "calls" || v.Name == "running") && v.Value > 0 {
				return halfOpen
			}
		}
	}
	return ""
}

// breakerTrouble returns the trouble of a breaker name, without its pipelines.
func (r *recorder) breakerTrouble(p *observe.PolicySnapshot, state string, affected []*pipelineView) trouble {
	m := r.policies[key{p.Kind, p.Name}]
	total, refusing := sum(p.States), p.States[open]+p.States[forcedOpen]
	n := p.States[state]
	if state == open || state == forcedOpen {
		n = refusing
	}
	t := trouble{
		Level: degraded, What: stateText(p.Kind, display(p.Name), state, n, total), Since: m.left.since.UTC(), Why: redact(m.left.cause), Error: sampleJSON(m.left.err),
		Pipelines: []string{}, Policy: m.id,
	}
	if refusing == total {
		t.Level = down
	}
	if t.Why == "" {
		t.Why = "it was " + state + " when it was first seen"
	}
	var advice []string
	say := func(format string, args ...any) { advice = append(advice, fmt.Sprintf(format, args...)) }
	if slices.ContainsFunc(p.Reports, func(r resilience.Report) bool { return r.Config["DryRun"] == "true" }) {
		say("It is a dry run: it refuses no call.")
	} else if p.States[open] > 0 {
		if wait := nextProbe(p); wait > 0 {
			say("It refuses calls without making them. It lets a probe through in %s.", probeTime(wait))
		} else {
			say("It refuses calls without making them. The next call is a probe.")
		}
	}
	if p.States[forcedOpen] > 0 {
		say("It was forced open manually, and refuses all calls until it is reset.")
	}
	if p.States[disabled] > 0 {
		say("It was disabled manually: it admits all calls, even if all fail, until it is reset.")
	}
	if state == halfOpen {
		say("It admits a few probes, which decide whether it closes, and refuses other calls.")
	}
	advice = append(advice, amplification(affected)...)
	t.Advice = strings.Join(advice, " ")
	return t
}

// nextProbe returns the seconds until the first open breaker becomes half-open, or 0.
func nextProbe(p *observe.PolicySnapshot) float64 {
	first := math.Inf(1)
	for _, report := range p.Reports {
		for _, v := range report.Values {
			if v.Name == "retry_after" && report.State == open && v.Value >= 0 {
				first = min(first, v.Value)
			}
		}
	}
	if math.IsInf(first, 1) {
		return 0
	}
	return first
}

// probeTime returns the seconds until a probe for people. It never says "0 s".
func probeTime(wait float64) string {
	if wait < 1 {
		return fmt.Sprintf("%.0f ms", max(1, wait*1000))
	}
	return seconds(wait)
}

// amplification says in which pipelines retries and hedges multiply the load.
func amplification(views []*pipelineView) []string {
	var advice []string
	for _, v := range views {
		all, _, _ := v.delta.ended()
		made := all - v.delta.results[observe.Refused]
		var again uint64
		for _, l := range v.delta.layers {
			again += l.events[observe.Retry] + l.events[observe.Hedge]
		}
		if again == 0 || made == 0 || 2*v.delta.attempts < 3*made {
			continue
		}
		advice = append(advice, fmt.Sprintf("Retries multiply the load of %s: %.1f attempts for each call.", display(v.snap.Name), float64(v.delta.attempts)/float64(made)))
		if len(advice) == 3 {
			break
		}
	}
	return advice
}

// pipelineTrouble returns the trouble of a bad pipeline that no breaker explains.
func (r *recorder) pipelineTrouble(snap *observe.Snapshot, v *pipelineView) trouble {
	t := trouble{
		Level: v.level, What: "Pipeline " + display(v.snap.Name) + " is " + v.level.String(), Since: v.since.UTC(), Why: v.why,
		Error: v.worstError(), Pipelines: []string{v.id},
	}
	if v.reason != byCalls {
		return t
	}
	advice := amplification([]*pipelineView{v})
	kinds := map[string]bool{}
	addKinds(kinds, snap, v.snap, map[string]bool{})
	if !kinds[breakerKind] {
		advice = append(advice, "It has no breaker, so it goes on calling a dependency that fails.")
	}
	if !kinds[timeoutKind] {
		advice = append(advice, "It has no timeout, so a call can take forever.")
	}
	t.Advice = strings.Join(advice, " ")
	return t
}

// addKinds adds the kinds of the policies of a pipeline, and of the pipelines that it contains.
func addKinds(kinds map[string]bool, snap *observe.Snapshot, p *observe.PipelineSnapshot, visited map[string]bool) {
	visited[p.Name] = true
	for _, l := range p.Layers {
		kinds[l.Kind] = true
		if l.Kind != pipelineKind || visited[l.Name] {
			continue
		}
		for i := range snap.Pipelines {
			if inner := &snap.Pipelines[i]; inner.Name == l.Name {
				addKinds(kinds, snap, inner, visited)
			}
		}
	}
}

// worstError returns the latest error of the bad result that is most frequent in the window.
func (v *pipelineView) worstError() *errorJSON {
	var worst *errorJSON
	var most uint64
	for _, r := range resultVerbs {
		if e, found := v.snap.Errors[r.result]; found && (worst == nil || v.delta.results[r.result] > most) {
			worst, most = sampleJSON(&e), v.delta.results[r.result]
		}
	}
	return worst
}
