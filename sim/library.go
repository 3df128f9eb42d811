package sim

import "time"

// Library returns incidents to begin with, by name. Each call returns a new map. The incidents are
// over after 70 s at the latest, so the default Length of 2 min shows whether a pipeline recovers.
// docs/simulation.md describes each of them, and what helps.
//
//   - calm: none
//   - slow: the server is ten times slower for 20 s
//   - errors-20, errors-100: it answers a fifth of the calls, or all, with an error
//   - hang: it answers half of the calls never
//   - down: it refuses connections
//   - brownout: half of its workers are left, and it is twice as slow
//   - one-of-many: the first replica fails all calls immediately; set Replicas, for example to 3
//   - surge: three times as many calls
//   - cold-start: down for 10 s, then a tenth and a third of the workers, each for 10 s
//   - flapping: four times down for 5 s, with 5 s between
func Library() map[string][]Incident {
	const from, length = 30 * time.Second, 20 * time.Second
	one := func(i Incident) []Incident {
		i.From, i.For = from, length
		return []Incident{i}
	}
	var flapping []Incident
	for i := range 4 {
		flapping = append(flapping, Incident{From: from + time.Duration(i)*10*time.Second, For: 5 * time.Second, Down: true})
	}
	return map[string][]Incident{
		"calm":        nil,
		"slow":        one(Incident{SlowBy: 10}),
		"errors-20":   one(Incident{Fail: 0.2}),
		"errors-100":  one(Incident{Fail: 1}),
		"hang":        one(Incident{Hang: 0.5}),
		"down":        one(Incident{Down: true}),
		"brownout":    one(Incident{Capacity: 0.5, SlowBy: 2}),
		"one-of-many": one(Incident{Replica: 1, Fail: 1}),
		"surge":       one(Incident{Surge: 3}),
		"cold-start": {
			{From: from, For: 10 * time.Second, Down: true},
			{From: from + 10*time.Second, For: 10 * time.Second, Capacity: 0.1},
			{From: from + 20*time.Second, For: 10 * time.Second, Capacity: 0.3},
		},
		"flapping": flapping,
	}
}
