package main

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/effector-go/resilience/internal/concurrency"
)

// A limiter decides about each call of a client.
type limiter interface {
	limit() int
	// enter reports whether a call is admitted. Leave must be called when the call has ended.
	enter() (leave func(took time.Duration), ok bool)
}

// A law is an algorithm that finds the limit.
type law struct {
	name string
	make func(*rand.Rand) limiter
}

// All laws begin at 20 and may go up to 1000.
const initial, most = 20, 1000

var laws = []law{
	{"adaptive.Queue", func(*rand.Rand) limiter { return queue{concurrency.NewQueue(initial, 1, most)} }},
	{"Gradient2", func(*rand.Rand) limiter { return &published{rule: &gradient2{limit: initial}} }},
	{"Vegas", func(r *rand.Rand) limiter { return &published{rule: newVegas(r)} }},
}

// queue is the limit of package adaptive.
type queue struct{ *concurrency.Limit }

func (q queue) limit() int { return q.Limit.Limit() }

func (q queue) enter() (leave func(time.Duration), ok bool) {
	pass, ok := q.Enter(concurrency.Highest)
	return func(took time.Duration) { q.Leave(pass, took, concurrency.Sample) }, ok
}

// published is a limiter as in Netflix's concurrency-limits. Its rule learns from each call that
// ends: how long it took, and how many calls ran when it began.
type published struct {
	rule interface {
		sample(took float64, running int)
		now() float64
	}
	running int
}

func (p *published) limit() int { return int(p.rule.now()) }

func (p *published) enter() (leave func(time.Duration), ok bool) {
	if p.running >= p.limit() {
		return nil, false
	}
	p.running++
	began := p.running
	return func(took time.Duration) {
		p.running--
		p.rule.sample(float64(took), began)
	}, true
}

// gradient2 is Gradient2Limit of github.com/Netflix/concurrency-limits with its defaults. The limit
// follows the quotient of a long and a short average of the round trips, and some queue is always
// allowed.
type gradient2 struct {
	limit   float64
	long    float64 // average round trip
	samples int
}

func (g *gradient2) now() float64 { return g.limit }

func (g *gradient2) sample(took float64, running int) {
	const (
		window, warmUp = 600, 10 // calls
		tolerance      = 1.5     // of the short average above the long one
		queue          = 4
		smoothing      = 0.2
	)
	if g.samples < warmUp {
		g.long = (g.long*float64(g.samples) + took) / float64(g.samples+1)
		g.samples++
	} else {
		g.long += (took - g.long) * 2 / (window + 1)
	}
	if g.long > 2*took { // after a long overload, to recover sooner
		g.long *= 0.95
	}
	if float64(running) < g.limit/2 {
		return
	}
	gradient := max(0.5, min(1, tolerance*g.long/took))
	next := g.limit*gradient + queue
	g.limit = max(initial, min((1-smoothing)*g.limit+smoothing*next, most))
}

// vegas is VegasLimit of github.com/Netflix/concurrency-limits with its defaults. It estimates the
// queue from the shortest round trip, and keeps it between two bounds. After a number of calls, it
// replaces the shortest round trip by that of the next call.
type vegas struct {
	random *rand.Rand
	limit  float64
	least  float64 // round trip
	calls  int     // since least was replaced
	jitter float64
}

func newVegas(random *rand.Rand) *vegas {
	return &vegas{random: random, limit: initial, jitter: 0.5 + random.Float64()/2}
}

func (v *vegas) now() float64 { return v.limit }

func (v *vegas) sample(took float64, running int) {
	const probe = 30 // times the limit, in calls
	v.calls++
	switch {
	case float64(v.calls) >= v.jitter*probe*v.limit:
		v.calls, v.jitter = 0, 0.5+v.random.Float64()/2
		v.least = took
		return
	case v.least == 0 || took < v.least:
		v.least = took
		return
	case float64(2*running) < v.limit:
		return
	}
	unit := math.Max(1, math.Floor(math.Log10(v.limit)))
	switch queue := math.Ceil(v.limit * (1 - v.least/took)); {
	case queue <= unit:
		v.limit += 6 * unit
	case queue < 3*unit:
		v.limit += unit
	case queue > 6*unit:
		v.limit -= unit
	}
	v.limit = max(1, min(v.limit, most))
}
