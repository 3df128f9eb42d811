package main

import (
	"container/heap"
	"math/rand/v2"
	"time"
)

// A phase of the script.
type phase struct {
	name    string
	workers func(first int) int
	pace    time.Duration // mean service time
	clients int
}

// phaseLength is 500 round trips of the first phase.
const phaseLength = 5 * time.Second

var script = []phase{
	{"all workers", func(first int) int { return first }, 10 * time.Millisecond, 1},
	{"half of them", func(first int) int { return first / 2 }, 10 * time.Millisecond, 1},
	{"twice as slow", func(first int) int { return first / 2 }, 20 * time.Millisecond, 1},
	{"a second client", func(first int) int { return first / 2 }, 20 * time.Millisecond, 2},
}

func total() time.Duration { return time.Duration(len(script)) * phaseLength }

// span returns when a phase begins and ends.
func span(i int) (begin, end time.Duration) {
	return time.Duration(i) * phaseLength, time.Duration(i+1) * phaseLength
}

// A result is what happened with one law.
type result struct {
	law   law
	looks []look
	trips []trip
}

// A look is what was seen at one instant.
type look struct {
	at     time.Duration
	limits []int // of all clients
}

// A trip is a call that ended.
type trip struct{ at, took time.Duration }

const lookEvery = 20 * time.Millisecond

// simulate runs the script with the law.
func simulate(cfg config, l law) *result {
	w := &world{random: rand.New(rand.NewPCG(cfg.seed, 1))}
	s := &server{world: w, spread: withinTenth}
	r := &result{law: l}

	var limits []limiter
	for i, p := range script {
		begin, _ := span(i)
		w.after(begin, func() {
			s.workers, s.pace = p.workers(cfg.workers), p.pace
			for len(limits) < p.clients {
				c := &client{world: w, server: s, limiter: l.make(w.random), result: r}
				limits = append(limits, c.limiter)
				for range 4 * cfg.workers { // callers
					w.after(0, c.call)
				}
			}
		})
	}
	for at := time.Duration(0); at < total(); at += lookEvery {
		w.after(at, func() {
			seen := look{at: w.now}
			for _, one := range limits {
				seen.limits = append(seen.limits, one.limit())
			}
			r.looks = append(r.looks, seen)
		})
	}
	w.run(total())
	return r
}

// A client has callers, each of which makes one call after the other. After a refusal it pauses.
type client struct {
	world   *world
	server  *server
	limiter limiter
	result  *result
	refused int
}

func (c *client) call() {
	leave, ok := c.limiter.enter()
	if !ok {
		c.refused++
		c.world.after(time.Duration((0.3+0.4*c.world.random.Float64())*float64(10*time.Millisecond)), c.call)
		return
	}
	began := c.world.now
	c.server.serve(func() {
		took := c.world.now - began
		leave(took)
		c.result.trips = append(c.result.trips, trip{c.world.now, took})
		c.world.after(0, c.call)
	})
}

// A server has workers and a queue, which is first come, first served.
type server struct {
	world   *world
	workers int
	pace    time.Duration
	spread  func(*rand.Rand) float64 // of the service times; its mean is 1
	busy    int
	queue   []func()
	served  time.Duration // sum of the service times
}

func (s *server) serve(done func()) {
	s.queue = append(s.queue, done)
	s.work()
}

func (s *server) work() {
	for s.busy < s.workers && len(s.queue) > 0 {
		done := s.queue[0]
		s.queue = s.queue[1:]
		s.busy++
		took := time.Duration(s.spread(s.world.random) * float64(s.pace))
		s.served += took
		s.world.after(took, func() {
			s.busy--
			s.work()
			done()
		})
	}
}

// A world has a virtual time, which jumps from event to event.
type world struct {
	now    time.Duration
	random *rand.Rand
	events events
	made   int
}

// after schedules do. Events of the same instant run in the order in which they were scheduled.
func (w *world) after(d time.Duration, do func()) {
	w.made++
	heap.Push(&w.events, event{w.now + d, w.made, do})
}

func (w *world) run(until time.Duration) {
	for len(w.events) > 0 && w.events[0].at < until {
		next := heap.Pop(&w.events).(event)
		w.now = next.at
		next.do()
	}
}

type event struct {
	at     time.Duration
	number int
	do     func()
}

// events is a heap. The next one comes first.
type events []event

func (e events) Len() int      { return len(e) }
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }

func (e events) Less(i, j int) bool {
	if e[i].at != e[j].at {
		return e[i].at < e[j].at
	}
	return e[i].number < e[j].number
}

func (e *events) Pop() any {
	all := *e
	last := all[len(all)-1]
	*e = all[:len(all)-1]
	return last
}
