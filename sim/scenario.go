package sim

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// A Scenario is what [Run] simulates: who calls, the server that answers, and what happens to it.
// Only Rate must be set. A Scenario has a strict JSON form; see [Scenario.UnmarshalJSON].
type Scenario struct {
	// Name is the report's title. Default none.
	Name string
	// Seed is the seed of the first run; the others use Seed+1, Seed+2, and so on.
	Seed uint64
	// Runs is the number of runs of each pipeline. 1 to 1000; default 5.
	Runs int
	// Length is the time in which calls are made. 1 s to 24 h; default 2 min, or 1 s after the last
	// call of a Replay.
	Length time.Duration
	// Clients is the number of processes that call, each with its own pipeline. 1 to 10,000; default
	// 1.
	Clients int
	// Rate is the number of calls per second of all clients together. Calls arrive at random
	// (a Poisson process), each from a random client. Required.
	Rate Rate
	// Server answers the calls.
	Server Server
	// Incidents are what happens to the server, and surges. Default none.
	Incidents []Incident
	// GoodWithin is the time within which an answer is good; a later one is late. After Length, it
	// is also the time for which remaining calls are awaited. Above 0, at most 24 h; default 1 s.
	GoodWithin time.Duration
	// OnProgress, if set, is called several times a second, never concurrently, with the share of the
	// work that is done, and with 1 at the end of a Run that succeeds.
	OnProgress func(share float64)
}

// A Server is a simulated dependency: replicas, each with a queue in front of its workers.
type Server struct {
	// Replicas is the number of servers. Each attempt goes to a random one. 1 to 1000; default 1.
	Replicas int
	// Workers is how many calls a replica serves concurrently. 1 to 1,000,000; by default, the mean
	// Rate uses 60% of all workers, rounded up for each replica.
	Workers int
	// Queue is how many calls can wait at each replica, first come, first served. Others fail with
	// [ErrFull]. 1 to 1,000,000, or -1 for none; default 1000.
	Queue int
	// Service is the time for which a call occupies a worker. Default LogNormal(20ms, 100ms).
	Service Distribution
	// Network is the time of a round trip, half of it each way. Default Fixed(1ms).
	Network Distribution
	// Fail is the share of the calls that fail with [ErrFailed] after they were served, also outside
	// incidents. 0 to 1; default 0.
	Fail float64
	// GivesUp makes the server stop work whose caller has left, half a round trip later. Most servers
	// don't notice, and serve it.
	GivesUp bool
}

// An Incident is a time in which something is wrong. Fields that are zero change nothing. Where
// incidents overlap, factors multiply and shares are independent: 0.5 and 0.5 make 0.75.
type Incident struct {
	// From is when the incident begins, since the beginning of the run. At least 0.
	From time.Duration
	// For is how long it lasts. Above 0.
	For time.Duration
	// Replica is the only one that is concerned, 1 to Replicas. Default 0: all. Surge concerns
	// callers, whatever Replica is.
	Replica int
	// SlowBy multiplies the service time of work that begins in this time. 0 to 10,000.
	SlowBy float64
	// Fail is the share of the calls that are answered immediately with [ErrFailed], without a worker.
	// 0 to 1.
	Fail float64
	// Hang is the share of the calls that are never answered, and occupy no worker. 0 to 1.
	Hang float64
	// Down makes the server refuse connections, with [ErrDown]. The calls that it holds fail when the
	// incident begins.
	Down bool
	// Capacity is the share of the workers that remain, rounded up; calls in service continue. 0 to
	// 1.
	Capacity float64
	// Surge multiplies the rate of calls. 0 to 1000.
	Surge float64
}

// end returns when the incident ends.
func (i Incident) end() time.Duration {
	if i.From > math.MaxInt64-i.For {
		return math.MaxInt64
	}
	return i.From + i.For
}

func (i Incident) active(t time.Duration) bool { return i.From <= t && t < i.end() }

// The limits of a scenario.
const (
	maxRuns     = 1000
	maxClients  = 10_000
	maxReplicas = 1000
	maxWorkers  = 1_000_000
	maxLength   = 24 * time.Hour
	maxSlowBy   = 10_000
	maxSurge    = 1000
)

// Validate returns an error that lists every invalid field of s with its value and range, or nil if
// there is none. After the first 100, it states how many more there are.
func (s Scenario) Validate() error {
	v := new(mistakes)
	v.between("Scenario.Runs", s.Runs, 1, maxRuns, "5")
	validLength := s.Length >= time.Second && s.Length <= maxLength
	v.check(s.Length == 0 || validLength, "Scenario.Length", short(s.Length), "1s to 24h, or 0s for the default")
	v.between("Scenario.Clients", s.Clients, 1, maxClients, "1")
	if is, must := s.Rate.problem(); is != "" {
		v.report("Scenario.Rate", is, must)
	} else if s.Length == 0 && s.Rate.last() > maxLength-time.Second {
		v.report("Scenario.Rate", "a call at "+short(s.Rate.last()), "before 23h59m59s, or Length set")
	} else if length := s.lengthOrDefault(); s.Length == 0 || validLength {
		v.check(s.Rate.mean(length) > 0,
			"Scenario.Rate", "no calls within "+short(length), "above 0 calls per second before Length")
	}
	s.Server.validate(v)
	for i, incident := range s.Incidents {
		incident.validate(v, fmt.Sprintf("Scenario.Incidents[%d].", i), max(s.Server.Replicas, 1))
	}
	v.check(s.GoodWithin >= 0 && s.GoodWithin <= maxLength,
		"Scenario.GoodWithin", short(s.GoodWithin), "positive, at most 24h, or 0s for 1s")
	return v.err()
}

func (s Server) validate(v *mistakes) {
	v.between("Scenario.Server.Replicas", s.Replicas, 1, maxReplicas, "1")
	v.between("Scenario.Server.Workers", s.Workers, 1, maxWorkers, "the default")
	v.check(s.Queue >= -1 && s.Queue <= maxWorkers,
		"Scenario.Server.Queue", s.Queue, "1 to 1000000, 0 for 1000, or -1 for none")
	v.distribution("Scenario.Server.Service", s.Service)
	v.distribution("Scenario.Server.Network", s.Network)
	v.number("Scenario.Server.Fail", s.Fail, 1)
}

func (i Incident) validate(v *mistakes, path string, replicas int) {
	v.check(i.From >= 0, path+"From", short(i.From), "at least 0s")
	v.check(i.For > 0, path+"For", short(i.For), "positive")
	v.check(i.Replica >= 0 && i.Replica <= replicas,
		path+"Replica", i.Replica, fmt.Sprintf("1 to Replicas (%d), or 0 for all", replicas))
	v.number(path+"SlowBy", i.SlowBy, maxSlowBy)
	v.number(path+"Fail", i.Fail, 1)
	v.number(path+"Hang", i.Hang, 1)
	v.number(path+"Capacity", i.Capacity, 1)
	v.number(path+"Surge", i.Surge, maxSurge)
}

// mistakes are what is wrong with a scenario: the first ones, and how many more there are.
type mistakes struct {
	first []error
	more  int
}

const maxMistakes = 100

func (m *mistakes) report(field string, is any, must string) {
	if len(m.first) == maxMistakes {
		m.more++
		return
	}
	m.first = append(m.first, mistake(field, fmt.Sprint(is), must))
}

// err returns all mistakes as one error, or nil if there is none.
func (m *mistakes) err() error {
	if m.more > 0 {
		return errors.Join(append(m.first, fmt.Errorf("sim: Scenario: %s", counted(m.more, "more error")))...)
	}
	return errors.Join(m.first...)
}

func (m *mistakes) check(ok bool, field string, is any, must string) {
	if !ok {
		m.report(field, is, must)
	}
}

// between checks a whole number. 0 is valid, too.
func (m *mistakes) between(field string, is, least, most int, byDefault string) {
	m.check(is == 0 || is >= least && is <= most, field, is, fmt.Sprintf("%d to %d, or 0 for %s", least, most, byDefault))
}

// number checks a number from 0. NaN is invalid.
func (m *mistakes) number(field string, is, most float64) {
	m.check(is >= 0 && is <= most, field, is, "0 to "+decimal(most))
}

func (m *mistakes) distribution(field string, d Distribution) {
	if is, must := d.problem(); is != "" && !d.isZero() {
		m.report(field, is, must)
	}
}

// lengthOrDefault returns Length, or its default.
func (s Scenario) lengthOrDefault() time.Duration {
	switch {
	case s.Length != 0:
		return s.Length
	case s.Rate.kind == "replay":
		return s.Rate.last() + time.Second
	}
	return 2 * time.Minute
}

// withDefaults returns a valid scenario with its defaults filled in.
func (s Scenario) withDefaults() Scenario {
	orDefault(&s.Runs, 5)
	s.Length = s.lengthOrDefault()
	orDefault(&s.Clients, 1)
	orDefault(&s.GoodWithin, time.Second)
	orDefault(&s.Server.Replicas, 1)
	orDefault(&s.Server.Queue, 1000)
	if s.Server.Service.isZero() {
		s.Server.Service = LogNormal(20*time.Millisecond, 100*time.Millisecond)
	}
	if s.Server.Network.isZero() {
		s.Server.Network = Fixed(time.Millisecond)
	}
	if s.Server.Workers == 0 {
		const load = 0.6
		busy := s.Rate.mean(s.Length) * s.Server.Service.Mean().Seconds()
		s.Server.Workers = int(min(max(ceil(busy/load/float64(s.Server.Replicas)), 1), maxWorkers))
	}
	return s
}

func orDefault[N int | time.Duration](field *N, value N) {
	if *field == 0 {
		*field = value
	}
}

// ceil rounds up, except for a number that is above a whole one only by an error of rounding.
func ceil(v float64) float64 { return math.Ceil(v - 1e-9) }

// firstIncident returns when the first incident begins: at most Length, and Length if there is none.
func (s *Scenario) firstIncident() time.Duration {
	first := s.Length
	for _, i := range s.Incidents {
		first = min(first, i.From)
	}
	return first
}

// lastIncident returns when the last of the incidents before Length ends: at most Length, and Length
// if there is none.
func (s *Scenario) lastIncident() time.Duration {
	last := time.Duration(-1)
	for _, i := range s.Incidents {
		if i.From < s.Length {
			last = max(last, i.end())
		}
	}
	if last < 0 {
		return s.Length
	}
	return min(last, s.Length)
}

// surge returns the factor for the load at time t.
func (s *Scenario) surge(t time.Duration) float64 {
	factor := 1.0
	for _, i := range s.Incidents {
		if i.Surge > 0 && i.active(t) {
			factor *= i.Surge
		}
	}
	return factor
}

// effect is what the incidents do to a replica at one moment.
type effect struct {
	slow, fail, hang float64
	down             bool
	workers          int
}

// effect returns what happens to a replica, from 0, at time t.
func (s *Scenario) effect(replica int, t time.Duration) effect {
	pass, answer, capacity := 1.0, 1.0, 1.0
	e := effect{slow: 1}
	for _, i := range s.Incidents {
		if !i.active(t) || i.Replica != 0 && i.Replica != replica+1 {
			continue
		}
		if i.SlowBy > 0 {
			e.slow *= i.SlowBy
		}
		if i.Capacity > 0 {
			capacity *= i.Capacity
		}
		pass *= 1 - i.Fail
		answer *= 1 - i.Hang
		e.down = e.down || i.Down
	}
	e.fail, e.hang = 1-pass, 1-answer
	e.workers = max(1, int(ceil(float64(s.Server.Workers)*capacity)))
	return e
}

// capacity returns how many attempts per second the server can serve at time t.
func (s *Scenario) capacity(t time.Duration) float64 {
	mean := s.Server.Service.Mean().Seconds()
	if mean == 0 {
		return math.Inf(1)
	}
	sum := 0.0
	for replica := range s.Server.Replicas {
		if e := s.effect(replica, t); !e.down {
			sum += float64(e.workers) / (mean * e.slow)
		}
	}
	return sum
}
