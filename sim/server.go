package sim

import (
	"container/heap"
	"errors"
	"time"

	"github.com/effector-go/resilience"
)

// The answers of a simulated server that aren't good.
var (
	// ErrFailed is the answer to a call that failed: by Server.Fail or Incident.Fail, or because the
	// server went down while it held the call.
	ErrFailed = errors.New("sim: the server answered with an error")
	// ErrFull is the answer to a call for which there was no place in the server's queue.
	ErrFull = errors.New("sim: the server's queue is full")
	// ErrDown is the answer while the server is down. It arrives marked with [resilience.NotMade].
	ErrDown = errors.New("sim: the server refused the connection")
)

// An attempt is one start of the effector.
type attempt struct {
	call   *simCall
	number int        // within the call, from 1
	result chan error // the answer, or errLeft
	left   bool       // the caller has left

	// What chance decides, before anything else happens.
	replica     int
	there, back time.Duration // half a round trip each
	service     time.Duration
	failLate    float64 // a random number: below Server.Fail, the call fails after its service
	failFast    float64 // the same for Incident.Fail, without service
	hang        float64 // the same for Incident.Hang

	state attemptState
	slot  int           // in replica.running
	began time.Duration // of the service
	work  time.Duration // that a worker has done for it
}

type attemptState int

const (
	traveling attemptState = iota
	queued
	serving
	answered // also if it will never be
)

// An event happens at one moment of the run.
type event struct {
	at      time.Duration
	order   int // events at the same time happen in this order
	kind    eventKind
	attempt *attempt
	err     error // of an answer
}

type eventKind int

const (
	incidentChanges eventKind = iota
	arrives                   // an attempt, at the server
	served
	leaves // news that the caller has left, at the server
	answer // arrives at the caller
)

// events is a heap.
type events []event

func (h events) Len() int { return len(h) }
func (h events) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].order < h[j].order
}
func (h events) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *events) Push(x any)   { *h = append(*h, x.(event)) }
func (h *events) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = event{}
	*h = (*h)[:last]
	return e
}

// popEvent removes the next event.
func popEvent(h *events) event { return heap.Pop(h).(event) }

// A server answers attempts. It is a simulation of discrete events without goroutines or a clock:
// all methods are called with the time of the event, which never decreases.
type server struct {
	scenario *Scenario
	seed     uint64
	replicas []replica
	events   events
	order    int // of the last event
	waiting  level
	busy     time.Duration // the workers' time
	wasted   time.Duration // the part of it that served no caller
}

type replica struct {
	effect
	running []*attempt
	queue   []*attempt // also those that have been given up
	waiting int        // without those
}

func newServer(s *Scenario, seed uint64) *server {
	v := &server{scenario: s, seed: seed, replicas: make([]replica, s.Server.Replicas), waiting: newLevel(s.Length)}
	v.schedule(event{kind: incidentChanges})
	for _, i := range s.Incidents {
		v.schedule(event{at: i.From, kind: incidentChanges})
		v.schedule(event{at: i.end(), kind: incidentChanges})
	}
	return v
}

func (v *server) schedule(e event) {
	v.order++
	e.order = v.order
	if e.kind == incidentChanges {
		e.order -= 1 << 40 // before everything else at that time
	}
	heap.Push(&v.events, e)
}

// send draws what chance decides for the attempt, and sends it to the server.
func (v *server) send(a *attempt, now time.Duration) {
	s := &v.scenario.Server
	random := sourceOf(v.seed, a.call.number, a.number)
	a.replica = min(int(random.float()*float64(len(v.replicas))), len(v.replicas)-1)
	network := s.Network.at(random.float())
	a.there = network / 2
	a.back = network - a.there
	a.service = s.Service.at(random.float())
	a.failLate, a.failFast, a.hang = random.float(), random.float(), random.float()
	v.schedule(event{at: now + a.there, kind: arrives, attempt: a})
}

// happen makes an event happen, except an answer.
func (v *server) happen(e event, now time.Duration) {
	switch a := e.attempt; e.kind {
	case incidentChanges:
		v.change(now)
	case arrives:
		v.arrive(a, now)
	case served:
		if a.state != serving { // stopped
			return
		}
		v.stop(a, now)
		var err error
		if a.failLate < v.scenario.Server.Fail {
			err = ErrFailed
		}
		v.reply(a, err, now)
		v.startNext(&v.replicas[a.replica], now)
	case leaves:
		v.giveUp(a, now)
	}
}

func (v *server) arrive(a *attempt, now time.Duration) {
	r := &v.replicas[a.replica]
	switch {
	case r.down:
		v.reply(a, resilience.NotMade(ErrDown), now)
	case a.failFast < r.fail:
		v.reply(a, ErrFailed, now)
	case a.hang < r.hang:
		a.state = answered
	case len(r.running) < r.workers:
		v.start(a, now)
	case r.waiting < v.scenario.Server.Queue:
		a.state = queued
		r.queue = append(r.queue, a)
		r.waiting++
		v.waiting.add(1, now)
	default:
		v.reply(a, ErrFull, now)
	}
}

// start lets a worker begin with the attempt.
func (v *server) start(a *attempt, now time.Duration) {
	r := &v.replicas[a.replica]
	a.state, a.began, a.slot = serving, now, len(r.running)
	r.running = append(r.running, a)
	v.schedule(event{at: now + duration(float64(a.service)*r.slow), kind: served, attempt: a})
}

// startNext lets free workers take attempts from the queue.
func (v *server) startNext(r *replica, now time.Duration) {
	for len(r.running) < r.workers && len(r.queue) > 0 {
		a := r.queue[0]
		r.queue[0] = nil
		r.queue = r.queue[1:]
		if a.state == queued {
			r.waiting--
			v.waiting.add(-1, now)
			v.start(a, now)
		}
	}
}

// stop frees the worker that serves the attempt.
func (v *server) stop(a *attempt, now time.Duration) {
	r := &v.replicas[a.replica]
	last := len(r.running) - 1
	r.running[a.slot] = r.running[last]
	r.running[a.slot].slot = a.slot
	r.running[last] = nil
	r.running = r.running[:last]
	a.state = answered
	a.work = now - a.began
}

// reply sends the attempt's answer. Answers to different calls arrive at different times: see
// [simCall.align].
func (v *server) reply(a *attempt, err error, now time.Duration) {
	a.state = answered
	v.schedule(event{at: a.call.align(now + a.back), kind: answer, attempt: a, err: err})
}

// account counts the work for the attempt, once it is known whether it served a caller.
func (v *server) account(a *attempt, useful bool) {
	v.busy += a.work
	if !useful {
		v.wasted += a.work
	}
	a.work = 0
}

// leave is called when the caller of the attempt leaves.
func (v *server) leave(a *attempt, now time.Duration) {
	a.left = true
	if v.scenario.Server.GivesUp {
		v.schedule(event{at: now + a.there, kind: leaves, attempt: a})
	}
}

func (v *server) giveUp(a *attempt, now time.Duration) {
	r := &v.replicas[a.replica]
	switch a.state {
	case queued:
		a.state = answered
		r.waiting--
		v.waiting.add(-1, now)
		if len(r.queue) > 2*r.waiting+64 { // keep the memory in proportion to what waits
			kept := make([]*attempt, 0, r.waiting)
			for _, a := range r.queue {
				if a.state == queued {
					kept = append(kept, a)
				}
			}
			r.queue = kept
		}
	case serving:
		v.stop(a, now)
		v.account(a, false)
		v.startNext(r, now)
	}
}

// change applies what the incidents do from now on.
func (v *server) change(now time.Duration) {
	for i := range v.replicas {
		r := &v.replicas[i]
		wasDown := r.down
		r.effect = v.scenario.effect(i, now)
		if r.down && !wasDown {
			v.fall(r, now)
		}
		v.startNext(r, now)
	}
}

// fall fails everything that the replica holds.
func (v *server) fall(r *replica, now time.Duration) {
	running, queue := r.running, r.queue
	r.running, r.queue, r.waiting = nil, nil, 0
	for _, a := range running {
		a.state, a.work = answered, now-a.began
		v.account(a, false)
		v.reply(a, ErrFailed, now)
	}
	for _, a := range queue {
		if a.state == queued {
			v.waiting.add(-1, now)
			v.reply(a, ErrFailed, now)
		}
	}
}
