package sim

import (
	"math"
	"time"
)

// Calls of one client that are in progress concurrently get different last three digits of their
// nanoseconds: see [simCall.align].
const grid = time.Microsecond

// arrivals are the calls of a run, which depend only on the scenario and the seed.
type arrivals struct {
	scenario *Scenario
	seed     uint64
	number   int           // of the next call, from 1
	last     time.Duration // the latest call
	digits   []int         // by client: the last digits of its next call
	next     *simCall      // nil after the last call

	segments []segment // with surges; nil for a replay
	at       float64   // how far segments[0] is used up, in seconds from its beginning

	index   int // of a replay's next time
	repeats int // of that time
}

func newArrivals(s *Scenario, seed uint64) *arrivals {
	a := &arrivals{scenario: s, seed: seed, digits: make([]int, s.Clients), last: -1}
	if s.Rate.kind != "replay" {
		a.segments = surged(s)
	} else {
		a.repeats = a.copies()
	}
	a.advance()
	return a
}

// surged returns the segments of the scenario's rate, multiplied by its surges.
func surged(s *Scenario) []segment {
	cuts := []time.Duration{}
	for _, i := range s.Incidents {
		if i.Surge > 0 {
			cuts = append(cuts, i.From, i.end())
		}
	}
	var result []segment
	for _, rest := range s.Rate.segments(s.Length) {
		for rest.begin < rest.end {
			end := rest.end
			for _, cut := range cuts {
				if at := cut.Seconds(); at > rest.begin && at < end {
					end = at
				}
			}
			factor := s.surge(time.Duration((rest.begin + end) / 2 * 1e9))
			result = append(result, segment{rest.begin, end, rest.rate * factor, rest.slope * factor})
			rest.rate += rest.slope * (end - rest.begin)
			rest.begin = end
		}
	}
	return result
}

// advance computes the next call.
func (a *arrivals) advance() {
	a.next = nil
	a.number++
	random := sourceOf(a.seed, a.number, 0)
	interval := -math.Log(random.float())
	client := min(int(random.float()*float64(a.scenario.Clients)), a.scenario.Clients-1)
	var at time.Duration
	if a.scenario.Rate.kind == "replay" {
		for a.repeats == 0 {
			if a.index++; a.index >= len(a.scenario.Rate.times) {
				return
			}
			a.repeats = a.copies()
		}
		a.repeats--
		at = max(a.scenario.Rate.times[a.index], a.last+1)
	} else {
		seconds, ok := a.poisson(interval)
		if !ok {
			return
		}
		at = time.Duration(seconds*1e9) / grid * grid
		at += time.Duration(a.digits[client])
		for at <= a.last {
			at += grid
		}
		a.digits[client] = (a.digits[client] + 1) % int(grid)
	}
	if at >= a.scenario.Length {
		return
	}
	a.last = at
	a.next = &simCall{number: a.number, client: client, made: at}
}

// poisson returns the time of the next call, in seconds. The expected number of calls until then is
// area.
func (a *arrivals) poisson(area float64) (at float64, ok bool) {
	for len(a.segments) > 0 {
		s := a.segments[0]
		if x := s.reach(a.at, area); a.at+x < s.end-s.begin {
			a.at += x
			return s.begin + a.at, true
		}
		area -= s.area(s.end-s.begin) - s.area(a.at)
		a.segments, a.at = a.segments[1:], 0
	}
	return 0, false
}

// copies returns how often the replay's next time is called.
func (a *arrivals) copies() int {
	at := a.scenario.Rate.times[a.index]
	surge := a.scenario.surge(at)
	random := sourceOf(a.seed, a.index, -1)
	whole := math.Floor(surge)
	if random.float() < surge-whole {
		whole++
	}
	return int(whole)
}
