package concurrency

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"
)

// times are distributions of service times, with a mean of 1.
var times = []struct {
	name string
	draw func(*rand.Rand) float64
}{
	{"fixed", func(*rand.Rand) float64 { return 1 }},
	{"within a tenth", func(r *rand.Rand) float64 { return 0.9 + 0.2*r.Float64() }},
	{"5% take 20 times as long", longer(0.05, 20)},
	{"lognormal, sigma 0.5", func(r *rand.Rand) float64 { return math.Exp(0.5*r.NormFloat64() - 0.125) }},
	{"lognormal, sigma 1", func(r *rand.Rand) float64 { return math.Exp(r.NormFloat64() - 0.5) }},
	{"exponential", (*rand.Rand).ExpFloat64},
	{"1% take 100 times as long", longer(0.01, 100)},
}

// longer returns a distribution of two times. A part of the calls takes by times as long as the
// others.
func longer(part, by float64) func(*rand.Rand) float64 {
	mean := 1 + part*(by-1)
	return func(r *rand.Rand) float64 {
		if r.Float64() < part {
			return by / mean
		}
		return 1 / mean
	}
}

// seeds returns the seeds of the simulations: 1, with PROOF_TIMES=12 those from 1 to 12, and with
// PROOF_SEED=101 as well those from 101 to 112.
func seeds(t *testing.T) (seeds []uint64) {
	t.Helper()
	number := func(name string, standard int) int {
		n, err := strconv.Atoi(cmp.Or(os.Getenv(name), strconv.Itoa(standard)))
		if err != nil || n < 1 {
			t.Fatalf("%s is %q, must be a number, at least 1", name, os.Getenv(name))
		}
		return n
	}
	first := number("PROOF_SEED", 1)
	for i := range number("PROOF_TIMES", 1) {
		seeds = append(seeds, uint64(first+i))
	}
	return seeds
}

// fewScenarios reports whether all scenarios would take too long.
func fewScenarios() bool { return raceDetector || testing.Short() }

// TestQueueAdmitsHealthyCalls checks that nearly no call is refused if the dependency takes any
// number of calls: at most 3% in any scenario, and 1% on the average.
func TestQueueAdmitsHealthyCalls(t *testing.T) {
	var sum, scenarios float64
	seeds := seeds(t)
	for _, d := range times {
		for _, load := range []struct {
			callers int
			poisson float64
		}{{10, 0}, {30, 0}, {100, 0}, {0, 10}, {0, 30}, {0, 100}, {300, 0}} {
			if fewScenarios() && load.callers != 10 {
				continue
			}
			for _, seed := range seeds {
				r := simulate(scenario{times: d.draw, callers: load.callers, poisson: load.poisson, seed: seed})
				name := fmt.Sprintf("seed %d, %s, %d callers", seed, d.name, load.callers)
				if load.poisson > 0 {
					name = fmt.Sprintf("seed %d, %s, Poisson arrivals, %v concurrent calls", seed, d.name, load.poisson)
				}
				t.Logf("%s: %.2f%% refused", name, 100*r.refused)
				if r.refused > 0.03 {
					t.Errorf("%s: %.2f%% refused, want at most 3%%", name, 100*r.refused)
				}
				sum += r.refused
				scenarios++
			}
		}
	}
	if mean := sum / scenarios; mean > 0.01 {
		t.Errorf("%.2f%% refused on the average, want at most 1%%", 100*mean)
	}
}

// TestQueueKeepsWorkersBusy checks that a dependency with few workers is used, and that calls don't
// wait for long.
func TestQueueKeepsWorkersBusy(t *testing.T) {
	seeds := seeds(t)
	for _, d := range times {
		for _, load := range []struct {
			workers, callers int
			poisson          float64
			longestWait      float64
		}{{50, 0, 75, 0.5}, {50, 200, 0, 0.5}, {100, 400, 0, 0.5}, {10, 40, 0, 0.6}, {10, 0, 15, 0.6}, {20, 80, 0, 0.6}} {
			if fewScenarios() && d.name != "exponential" {
				continue
			}
			for _, seed := range seeds {
				r := simulate(scenario{times: d.draw, workers: load.workers, callers: load.callers, poisson: load.poisson, seed: seed})
				name := fmt.Sprintf("seed %d, %s, %+v", seed, d.name, load)
				t.Logf("%s: %.3f of the workers busy, calls wait %.3f of their service time", name, r.busy, r.wait)
				if r.busy < 0.9 || r.wait > load.longestWait {
					t.Errorf("%s: %.3f of the workers busy, want at least 0.9; calls wait %.3f of their service time", name, r.busy, r.wait)
				}
			}
		}
	}
}

// TestQueueSeesQueueOfLongCallsOnly checks a cache before a dependency with few workers: the 5% of
// the calls that aren't answered by the cache wait, and the others don't.
func TestQueueSeesQueueOfLongCallsOnly(t *testing.T) {
	for _, seed := range seeds(t) {
		r := simulate(scenario{times: times[2].draw, workers: 20, long: true, callers: 400, seed: seed})
		t.Logf("seed %d: %.3f of the workers busy, limit %.1f, calls wait %.3f of their service time", seed, r.busy, r.limit, r.wait)
		if r.busy < 0.9 || r.wait > 1 || r.highest > 100 {
			t.Errorf("seed %d: %.3f of the workers busy, want 0.9; limit %d, want at most 100; calls wait %.3f of their service time, want at most 1", seed, r.busy, r.highest, r.wait)
		}
	}
}

// TestQueueSharesFairlyInTheLongRun checks that a client that comes later gets as much as the first
// one. Where 1% of the calls take 100 times as long, that takes hours.
func TestQueueSharesFairlyInTheLongRun(t *testing.T) {
	for _, d := range times[:6] {
		if fewScenarios() && d.name != "fixed" {
			continue
		}
		for _, seed := range seeds(t) {
			r := simulate(scenario{times: d.draw, workers: 40, callers: 80, second: true, length: 10 * time.Minute, seed: seed})
			t.Logf("seed %d, %s: limits %.1f and %.1f, %.3f of the workers busy", seed, d.name, r.limit, r.second, r.busy)
			if share := r.second / (r.limit + r.second); share < 0.25 || share > 0.75 || r.busy < 0.98 {
				t.Errorf("seed %d, %s: limits %.1f and %.1f for 40 workers, %.3f of them busy", seed, d.name, r.limit, r.second, r.busy)
			}
		}
	}
}

// TestQueueStopsDraining checks that a limit that is right doesn't lead to one drain after the
// other. In its large steps, the limit meets a number of workers at which 2 to 6% of it queue.
func TestQueueStopsDraining(t *testing.T) {
	for workers := 110; workers <= 117; workers++ {
		r := simulate(scenario{times: times[0].draw, workers: workers, callers: 400, seed: 1})
		if r.busy < 0.98 || r.limit > 1.1*float64(workers) {
			t.Errorf("%d workers: %.3f busy, want 0.98; limit %.1f", workers, r.busy, r.limit)
		}
	}
}

// TestQueueStaysBoundedInLongOverload checks the limit over five minutes in which there are always
// twice as many calls as the dependency can take.
func TestQueueStaysBoundedInLongOverload(t *testing.T) {
	seeds := seeds(t)
	for _, d := range times {
		if fewScenarios() && d.name != "exponential" {
			continue
		}
		for _, seed := range seeds {
			r := simulate(scenario{times: d.draw, workers: 20, poisson: 40, length: 5 * time.Minute, seed: seed})
			t.Logf("seed %d, %s: limit %.1f, at most %d", seed, d.name, r.limit, r.highest)
			if r.limit > 1.5*20 || r.highest > 2*20 {
				t.Errorf("seed %d, %s: limit %.1f on the average, and up to %d, for 20 workers", seed, d.name, r.limit, r.highest)
			}
		}
	}
}

// meanTime is how long calls take a worker on the average.
const meanTime = 20 * time.Millisecond

// A scenario is a dependency and its callers.
type scenario struct {
	times   func(*rand.Rand) float64
	workers int           // 0 if the dependency takes any number of calls
	long    bool          // only calls that take longer than the mean need a worker
	callers int           // each of which makes one call after the other; after a refusal it waits
	poisson float64       // if there are no callers: calls arrive at random, this many per meanTime
	length  time.Duration // measured, after the minute in which the limit is found; default a minute
	seed    uint64
	second  bool // another client with as many callers comes after 20 s, with a limit of its own
}

// A result says what happened in the measured time.
type result struct {
	refused float64 // part of the calls
	busy    float64 // part of the workers
	wait    float64 // mean time that a call waited for a worker, in units of the mean service time
	limit   float64 // on the average
	second  float64 // that of the second client
	highest int
}

// simulate runs a scenario, with the limit at its defaults.
func simulate(s scenario) result {
	const settle = time.Minute
	if s.length == 0 {
		s.length = time.Minute
	}
	w := &world{scenario: s, limit: NewQueue(20, 1, 1000), random: rand.New(rand.NewPCG(s.seed, 7))}
	for range s.callers {
		w.after(w.random.Float64(), event{kind: callerCalls, limit: w.limit})
	}
	if s.second {
		w.second = NewQueue(20, 1, 1000)
		for range s.callers {
			w.after(1000+w.random.Float64(), event{kind: callerCalls, limit: w.second})
		}
	}
	if s.callers == 0 {
		w.after(0, event{kind: arrival})
	}
	w.run(settle)
	w.made, w.refused, w.served, w.busyTime, w.limitTime, w.secondTime, w.waited, w.highest = 0, 0, 0, 0, 0, 0, 0, 0
	w.run(settle + s.length)
	return result{
		refused: w.refused / w.made,
		busy:    w.busyTime / (s.length.Seconds() * float64(max(1, s.workers))),
		wait:    w.waited / w.served / meanTime.Seconds(),
		limit:   w.limitTime / s.length.Seconds(),
		second:  w.secondTime / s.length.Seconds(),
		highest: w.highest,
	}
}

// A world is a scenario at one instant. Its time is virtual.
type world struct {
	scenario
	limit  *Limit
	second *Limit // nil if there is no second client
	random *rand.Rand
	now    time.Duration
	events events
	busy   int
	queue  []simulatedCall

	made, refused, served, busyTime, limitTime, secondTime, waited float64
	highest                                                        int
}

// after schedules an event after a number of mean service times.
func (w *world) after(times float64, e event) {
	e.at = w.now + time.Duration(times*float64(meanTime))
	w.events.push(e)
}

func (w *world) run(until time.Duration) {
	for w.events[0].at < until {
		e := w.events.pop()
		passed := (e.at - w.now).Seconds()
		w.busyTime += passed * float64(w.busy)
		w.limitTime += passed * float64(w.limit.Limit())
		if w.second != nil {
			w.secondTime += passed * float64(w.second.Limit())
		}
		w.highest = max(w.highest, w.limit.Limit())
		w.now = e.at
		switch e.kind {
		case callerCalls:
			w.call(e.limit, true)
		case arrival:
			w.call(w.limit, false)
			w.after(w.random.ExpFloat64()/w.poisson, event{kind: arrival})
		case answer:
			e.call.limit.Leave(e.call.pass, w.now-e.call.began, Sample)
			if e.call.needsWorker {
				w.busy--
			}
			if w.busy < w.workers && len(w.queue) > 0 {
				next := w.queue[0]
				w.queue = w.queue[1:]
				w.serve(next)
			}
			if e.call.again {
				w.call(e.call.limit, true)
			}
		}
	}
}

func (w *world) call(limit *Limit, again bool) {
	w.made++
	pass, ok := limit.Enter(Highest)
	takes := w.times(w.random)
	needsWorker := w.workers > 0 && (!w.long || takes > 1)
	switch c := (simulatedCall{limit, pass, w.now, takes, needsWorker, again}); {
	case !ok:
		w.refused++
		if again {
			w.after(0.5+w.random.Float64(), event{kind: callerCalls, limit: limit})
		}
	case !needsWorker || w.busy < w.workers:
		w.serve(c)
	default:
		w.queue = append(w.queue, c)
	}
}

func (w *world) serve(c simulatedCall) {
	if c.needsWorker {
		w.busy++
	}
	w.served++
	w.waited += (w.now - c.began).Seconds()
	w.after(c.takes, event{kind: answer, call: c})
}

type simulatedCall struct {
	limit       *Limit
	pass        Pass
	began       time.Duration
	takes       float64 // mean service times
	needsWorker bool
	again       bool // its caller makes another one afterwards
}

type event struct {
	at    time.Duration
	kind  int
	limit *Limit // of the caller
	call  simulatedCall
}

// The kinds of events.
const (
	callerCalls = iota
	arrival
	answer
)

// events is a binary heap. The earliest comes first. It does without container/heap, which
// allocates.
type events []event

func (e *events) push(added event) {
	*e = append(*e, added)
	all := *e
	for i := len(all) - 1; i > 0 && all[i].at < all[(i-1)/2].at; i = (i - 1) / 2 {
		all[i], all[(i-1)/2] = all[(i-1)/2], all[i]
	}
}

func (e *events) pop() event {
	all := *e
	first := all[0]
	all[0] = all[len(all)-1]
	all = all[:len(all)-1]
	for i := 0; 2*i+1 < len(all); {
		next := 2*i + 1
		if next+1 < len(all) && all[next+1].at < all[next].at {
			next++
		}
		if all[i].at <= all[next].at {
			break
		}
		all[i], all[next] = all[next], all[i]
		i = next
	}
	*e = all
	return first
}
