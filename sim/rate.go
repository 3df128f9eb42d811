package sim

import (
	"math"
	"slices"
	"strings"
	"time"
)

// A Rate is how many calls per second all clients make together, over time. Create it with
// [Constant], [Steps], [Ramp], or [Replay]; the zero Rate is invalid. As text, and in JSON, it is
//
//	200
//	steps(0s: 100, 30s: 400)
//	ramp(100, 400, 1m)
//	replay(0s, 12ms, 15ms)
//
// A Rate is never changed, so it is safe for concurrent use.
type Rate struct {
	kind     string // "", "constant", "steps", "ramp", or "replay"
	steps    []Step // one for a constant
	from, to float64
	over     time.Duration
	times    []time.Duration // ascending
}

// A Step is a rate from a time on, until the next step.
type Step struct {
	At        time.Duration // since the beginning of the run
	PerSecond float64       // calls per second of all clients, 0 to 100,000
}

const maxRate = 100_000 // calls per second

// Constant returns a rate that doesn't change. [Scenario.Validate] reports a rate that isn't above
// 0, or above 100,000.
func Constant(perSecond float64) Rate {
	return Rate{kind: "constant", steps: []Step{{0, perSecond}}}
}

// Steps returns a rate that changes at the times of the steps, which must ascend. Before the first
// step, there are no calls.
func Steps(steps ...Step) Rate { return Rate{kind: "steps", steps: slices.Clone(steps)} }

// Ramp returns a rate that changes linearly from one value to another over a time, and stays there.
func Ramp(from, to float64, over time.Duration) Rate {
	return Rate{kind: "ramp", from: from, to: to, over: over}
}

// Replay returns a rate that makes calls at exactly these times since the beginning of a run, in any
// order. Of several calls at the same time, each is a nanosecond later than the one before. During an
// [Incident.Surge], calls are repeated.
func Replay(times []time.Duration) Rate {
	times = slices.Clone(times)
	slices.Sort(times)
	return Rate{kind: "replay", times: times}
}

// problem returns what is wrong with r and what it must be, or "" if r is valid.
func (r Rate) problem() (is, must string) {
	perSecond := func(v float64) (string, string) {
		if v >= 0 && v <= maxRate { // not NaN
			return "", ""
		}
		return decimal(v) + " calls per second", "0 to 100000"
	}
	switch r.kind {
	case "constant":
		if v := r.steps[0].PerSecond; !(v > 0 && v <= maxRate) {
			return decimal(v) + " calls per second", "above 0, at most 100000"
		}
	case "steps":
		last, highest := time.Duration(-1), 0.0
		for _, step := range r.steps {
			if is, must := perSecond(step.PerSecond); is != "" {
				return is, must
			}
			if step.At <= last {
				return "a step at " + short(step.At), "at 0s or later, and after the step before"
			}
			last, highest = step.At, max(highest, step.PerSecond)
		}
		if highest == 0 {
			return "steps without calls", "above 0 calls per second in some step"
		}
	case "ramp":
		for _, v := range []float64{r.from, r.to} {
			if is, must := perSecond(v); is != "" {
				return is, must
			}
		}
		if r.from == 0 && r.to == 0 {
			return "a ramp without calls", "above 0 calls per second at its beginning or end"
		}
		if r.over <= 0 {
			return "a ramp over " + short(r.over), "over a positive time"
		}
	case "replay":
		if len(r.times) == 0 {
			return "a replay without calls", "of at least one call"
		}
		if r.times[0] < 0 {
			return "a call at " + short(r.times[0]), "at 0s or later"
		}
	default:
		return "not set", "set, for example to Constant(200)"
	}
	return "", ""
}

// last returns the time of a replay's last call.
func (r Rate) last() time.Duration {
	if len(r.times) == 0 {
		return 0
	}
	return r.times[len(r.times)-1]
}

// mean returns the mean rate from the beginning to length, without surges.
func (r Rate) mean(length time.Duration) float64 {
	if r.kind == "replay" {
		calls, _ := slices.BinarySearch(r.times, length)
		return float64(calls) / length.Seconds()
	}
	calls := 0.0
	for _, s := range r.segments(length) {
		calls += s.area(s.end - s.begin)
	}
	return calls / length.Seconds()
}

// A segment is a time in which the rate is linear. Its times are in seconds.
type segment struct {
	begin, end  float64
	rate, slope float64 // at begin
}

// area returns the expected number of calls in the first d seconds.
func (s segment) area(d float64) float64 { return d * (s.rate + s.slope*d/2) }

// reach returns how many seconds after a time in the segment the next area calls are expected.
func (s segment) reach(after, area float64) float64 {
	rate := s.rate + s.slope*after
	root := rate*rate + 2*s.slope*area
	if root < 0 {
		return math.Inf(1)
	}
	if sum := rate + math.Sqrt(root); sum > 0 {
		return 2 * area / sum
	}
	return math.Inf(1)
}

// segments returns the segments of a rate that isn't a replay, from 0 to length without gaps.
func (r Rate) segments(length time.Duration) []segment {
	end := length.Seconds()
	if r.kind == "ramp" {
		over := r.over.Seconds()
		return []segment{
			{0, min(over, end), r.from, (r.to - r.from) / over},
			{min(over, end), end, r.to, 0},
		}
	}
	segments := []segment{{0, end, 0, 0}}
	for _, step := range r.steps {
		at := min(step.At.Seconds(), end)
		segments[len(segments)-1].end = at
		segments = append(segments, segment{at, end, step.PerSecond, 0})
	}
	return segments
}

// String returns the rate's text. Of a replay, it returns only how many calls there are.
func (r Rate) String() string {
	if r.kind == "replay" {
		return "replay of " + counted(len(r.times), "call")
	}
	return r.text()
}

// text returns the rate in full.
func (r Rate) text() string {
	switch r.kind {
	case "constant":
		return decimal(r.steps[0].PerSecond)
	case "steps":
		return call("steps", len(r.steps), func(i int) string {
			return short(r.steps[i].At) + ": " + decimal(r.steps[i].PerSecond)
		})
	case "ramp":
		return "ramp(" + decimal(r.from) + ", " + decimal(r.to) + ", " + short(r.over) + ")"
	case "replay":
		return call("replay", len(r.times), func(i int) string { return short(r.times[i]) })
	}
	return ""
}

// MarshalText returns the rate's text in full: see [Rate]. It fails for an invalid rate.
func (r Rate) MarshalText() ([]byte, error) {
	if is, must := r.problem(); is != "" {
		return nil, mistake("Rate", is, must)
	}
	return []byte(r.text()), nil
}

// UnmarshalText reads a rate: see [Rate]. If it fails, r doesn't change.
func (r *Rate) UnmarshalText(text []byte) error {
	parsed, err := parseRate(string(text))
	if err != nil {
		return err
	}
	if is, must := parsed.problem(); is != "" {
		return mistake("Rate", is, must)
	}
	*r = parsed
	return nil
}

func parseRate(text string) (r Rate, err error) {
	name, args, err := parseCall(text)
	if err != nil {
		return r, err
	}
	switch name {
	case "":
		perSecond, err := parseDecimal(strings.TrimSpace(text))
		return Constant(perSecond), err
	case "steps":
		for _, arg := range args {
			at, rate, _ := strings.Cut(arg, ":")
			step := Step{}
			if step.At, err = parseDuration(strings.TrimSpace(at)); err != nil {
				return r, err
			}
			if step.PerSecond, err = parseDecimal(strings.TrimSpace(rate)); err != nil {
				return r, err
			}
			r.steps = append(r.steps, step)
		}
		return Steps(r.steps...), nil
	case "ramp":
		if len(args) != 3 {
			return r, mistake("Rate", quoted(text), "ramp with three values, such as ramp(100, 400, 1m)")
		}
		if r.from, err = parseDecimal(args[0]); err != nil {
			return r, err
		}
		if r.to, err = parseDecimal(args[1]); err != nil {
			return r, err
		}
		r.over, err = parseDuration(args[2])
		return Ramp(r.from, r.to, r.over), err
	case "replay":
		times, err := parseDurations(args)
		return Replay(times), err
	}
	return r, mistake("Rate", quoted(text), "a number of calls per second, steps, ramp, or replay")
}
