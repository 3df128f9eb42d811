package dashboard

import (
	"fmt"
	"strings"
	"time"

	"github.com/effector-go/resilience/observe"
)

// The states of breakers, and the kinds that have a meaning here.
const (
	closed     = "closed"
	open       = "open"
	halfOpen   = "half-open"
	forcedOpen = "forced open"
	disabled   = "disabled"

	breakerKind  = "breaker"
	timeoutKind  = "timeout"
	pipelineKind = "pipeline"
)

// isManual reports whether a breaker is in the state only if it was set manually.
func isManual(state string) bool { return state == forcedOpen || state == disabled }

// level is how well a pipeline works. Lists are in the order of levels.
type level int

const (
	down level = iota
	degraded
	ok
	idle
)

var levels = [...]string{down: "down", degraded: "degraded", ok: "ok", idle: "idle"}

func (l level) String() string { return levels[l] }

// MarshalText implements encoding.TextMarshaler.
func (l level) MarshalText() ([]byte, error) { return []byte(levels[l]), nil }

func (l level) bad() bool { return l == down || l == degraded }

// reason is why a pipeline has its level.
type reason int

const (
	byNothing   reason = iota
	byStates           // of policies that refuse calls, or do so soon
	byDisabling        // of a breaker, which explains no failure
	byCalls            // that were bad, or did not end
)

// A pipelineView is a pipeline in a snapshot, with what happened in the window.
type pipelineView struct {
	snap   *observe.PipelineSnapshot
	id     string
	delta  *delta
	window float64 // seconds; 0 in the first sample

	level  level
	reason reason
	why    string
	since  time.Time // when the level became bad
}

// judge returns the level, with its reason, as a value and as a text. Of all levels that apply, it is
// the first in this order.
func (v *pipelineView) judge(r *recorder) (level, reason, string) {
	if why := v.blocked(r); why != "" {
		return down, byStates, why
	}
	all, good, bad := v.delta.ended()
	counted := good + bad
	panicked := v.delta.results[observe.Panicked]
	last := "in the last " + seconds(v.window)
	switch {
	case v.snap.Running > 0 && all == 0 && v.window > 0:
		return degraded, byCalls, calls(v.snap.Running, "is", "are") + " running, and none ended " + last
	case bad >= 5 && 2*bad >= counted:
		return down, byCalls, v.badCalls(bad, counted)
	case bad > 0 && 20*bad >= counted:
		return degraded, byCalls, v.badCalls(bad, counted)
	case panicked > 0:
		return degraded, byCalls, calls(int(panicked), "panicked", "panicked") + " " + last
	}
	if why := v.some(r, open, forcedOpen); why != "" {
		return degraded, byStates, why
	}
	if why := v.some(r, disabled); why != "" {
		return degraded, byDisabling, why
	}
	if why := v.some(r, halfOpen); why != "" && v.busy() {
		return degraded, byStates, why
	}
	if all == 0 {
		return idle, byNothing, ""
	}
	return ok, byNothing, ""
}

// blocked returns at which place all policies refuse calls, "" if there is none.
func (v *pipelineView) blocked(r *recorder) string {
	for _, l := range v.snap.Layers {
		total := sum(l.States)
		if refusing := l.States[open] + l.States[forcedOpen]; refusing == 0 || refusing < total {
			continue
		}
		state := open
		if l.States[open] == 0 {
			state = forcedOpen
		}
		return stateText(l.Kind, r.layerName(&l), state, total, total)
	}
	return ""
}

// some returns how many policies at a place are in one of the states, "" if there are none at any place.
// The text names the first state.
func (v *pipelineView) some(r *recorder, states ...string) string {
	for _, l := range v.snap.Layers {
		n := 0
		for _, s := range states {
			n += l.States[s]
		}
		if n > 0 {
			return stateText(l.Kind, r.layerName(&l), states[0], n, sum(l.States))
		}
	}
	return ""
}

// busy reports whether calls come.
func (v *pipelineView) busy() bool {
	all, _, _ := v.delta.ended()
	return all > 0 || v.snap.Running > 0
}

// resultVerbs are how bad results are described, in the order of their importance.
var resultVerbs = []struct {
	result observe.Result
	verb   string
}{
	{observe.Failure, "failed"},
	{observe.TimedOut, "timed out"},
	{observe.Refused, "refused"},
	{observe.Panicked, "panicked"},
}

// badCalls says how many calls were bad, and in which ways.
func (v *pipelineView) badCalls(bad, counted uint64) string {
	var parts []string
	for _, r := range resultVerbs {
		if n := v.delta.results[r.result]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, r.verb))
		}
	}
	last := "in the last " + seconds(v.window)
	if len(parts) > 1 {
		return fmt.Sprintf("%d of %d calls were bad %s: %s", bad, counted, last, strings.Join(parts, ", "))
	}
	_, verb, _ := strings.Cut(parts[0], " ")
	if verb == "refused" {
		verb = "were refused"
	}
	return fmt.Sprintf("%d of %s %s %s", bad, calls(int(counted), "", ""), verb, last)
}

// sum returns the number of policies in any state.
func sum(states map[string]int) int {
	total := 0
	for _, n := range states {
		total += n
	}
	return total
}

// calls returns a number of calls, with the form of a verb for one call or for many.
func calls(n int, one, many string) string {
	if n == 1 {
		return strings.TrimSpace("1 call " + one)
	}
	return strings.TrimSpace(fmt.Sprintf("%d calls %s", n, many))
}

// seconds returns a time for people, such as "10 s".
func seconds(s float64) string {
	if s < 9.95 {
		return strings.TrimSuffix(fmt.Sprintf("%.1f", s), ".0") + " s"
	}
	return fmt.Sprintf("%.0f s", s)
}

// stateText says how many of the policies with a kind and a shown name are in a state, such as "1 of 2
// breakers b is open".
func stateText(kind, name, state string, n, total int) string {
	one, many := printable(kind), printable(kind)+"s"
	if name != several {
		one, many = one+" "+name, many+" "+name
	}
	switch {
	case total == 1:
		return fmt.Sprintf("%s is %s", one, state)
	case n == total:
		return fmt.Sprintf("all %d %s are %s", total, many, state)
	case n == 1:
		return fmt.Sprintf("1 of %d %s is %s", total, many, state)
	default:
		return fmt.Sprintf("%d of %d %s are %s", n, total, many, state)
	}
}

// several is shown for the name of policies whose names differ.
const several = "(several)"

// layerName returns the name of the policies at a place, as it is shown.
func (r *recorder) layerName(l *observe.LayerSnapshot) string {
	if l.Name == "" && r.kinds[l.Kind] && r.policies[key{l.Kind, ""}] == nil {
		return several // of this kind, all policies have names, so these differ
	}
	return display(l.Name)
}

// json returns the pipeline as it is part of the state.
func (v *pipelineView) json(r *recorder, bounds []float64) pipelineJSON {
	all, good, bad := v.delta.ended()
	perSecond := func(n uint64) number {
		if v.window <= 0 {
			return 0
		}
		return number(float64(n) / v.window)
	}
	j := pipelineJSON{
		ID: v.id, Name: display(v.snap.Name), Level: v.level, Why: v.why, Running: v.snap.Running,
		Rate: perSecond(all), Attempts: perSecond(v.delta.attempts),
		Results: map[string]number{}, Total: map[string]uint64{}, Errors: map[string]errorJSON{}, Layers: []layerJSON{},
		Spark: r.pipelines[v.snap.Name].series.spark(r.grid),
	}
	if good+bad > 0 {
		share := float64(good) / float64(good+bad)
		j.Good = &share
	}
	buckets := make([]float64, len(v.delta.buckets))
	for i, n := range v.delta.buckets {
		buckets[i] = float64(n)
	}
	if p50, p99 := quantile(bounds, buckets, 0.5), quantile(bounds, buckets, 0.99); p99 > 0 {
		j.P50, j.P99 = &p50, &p99
	}
	for i, n := range v.delta.results {
		result := observe.Result(i)
		j.Results[result.String()] = perSecond(n)
		j.Total[result.String()] = v.snap.Calls[result].Count
		if e, found := v.snap.Errors[result]; found {
			j.Errors[result.String()] = *sampleJSON(&e)
		}
	}
	for _, l := range v.snap.Layers {
		d := v.delta.layers[place{l.Position, l.Kind}]
		lj := layerJSON{
			Position: l.Position, Kind: printable(l.Kind), Name: r.layerName(&l), States: states(l.States),
			Entered: perSecond(d.entered), Passed: perSecond(d.passed), Events: map[string]number{},
		}
		if m := r.policies[key{l.Kind, l.Name}]; m != nil {
			lj.Policy = m.id
		}
		for e, n := range d.events {
			lj.Events[observe.EventKind(e).String()] = perSecond(n)
		}
		j.Layers = append(j.Layers, lj)
	}
	return j
}
