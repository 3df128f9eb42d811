package sim

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
)

// near reports whether got is within a share of want.
func near(got, want, share float64) bool { return math.Abs(got-want) <= share*want }

// seriesMean returns the mean of a number over the series, without its first ten seconds, in which
// the server fills up.
func seriesMean(r *Result, of func(Second) float64) float64 {
	sum := 0.0
	for _, s := range r.Series[10:] {
		sum += of(s)
	}
	return sum / float64(len(r.Series)-10)
}

// erlangC returns the probability that a call has to wait for one of c workers, at the load a.
func erlangC(c int, a float64) float64 {
	term, sum := 1.0, 0.0
	for k := range c {
		sum += term
		term *= a / float64(k+1)
	}
	waiting := term * float64(c) / (float64(c) - a)
	return waiting / (sum + waiting)
}

// The next tests hold rules 7 to 10: the simulation.

func TestServerAgreesWithErlangC(t *testing.T) {
	const rate, workers, service = 300.0, 4, 10 * time.Millisecond
	r := Test(t, Scenario{
		Rate: Constant(rate), Length: time.Minute, Runs: 4, GoodWithin: 10 * time.Second,
		Server: Server{Workers: workers, Queue: 100_000, Service: Exponential(service), Network: Fixed(0)},
	}, one(none)).Pipelines["users"]
	load := rate * service.Seconds()
	queue := erlangC(workers, load) * load / (workers - load)
	if got := seriesMean(r, func(s Second) float64 { return s.Queue }); !near(got, queue, 0.05) {
		t.Errorf("got %.3f calls in the queue, want %.3f by Erlang C", got, queue)
	}
	if got := seriesMean(r, func(s Second) float64 { return s.Waiting }); !near(got, queue+load, 0.05) {
		t.Errorf("got %.3f calls in progress, want %.3f by Erlang C", got, queue+load)
	}
}

func TestServerAgreesWithMD1(t *testing.T) {
	const rate, service = 50.0, 10 * time.Millisecond
	r := Test(t, Scenario{
		Rate: Constant(rate), Length: 4 * time.Minute, Runs: 3, GoodWithin: 10 * time.Second,
		Server: Server{Workers: 1, Queue: 100_000, Service: Fixed(service), Network: Fixed(0)},
	}, one(none)).Pipelines["users"]
	load := rate * service.Seconds()
	queue := load * load / (2 * (1 - load)) // Pollaczek and Khinchine
	if got := seriesMean(r, func(s Second) float64 { return s.Queue }); !near(got, queue, 0.05) {
		t.Errorf("got %.3f calls in the queue, want %.3f", got, queue)
	}
}

func TestServerAgreesWithLittlesLaw(t *testing.T) {
	var mu sync.Mutex
	var calls int
	var took time.Duration
	r := Test(t, Scenario{
		Rate: Constant(300), Length: time.Minute, Runs: 1, Server: Server{Workers: 10},
	}, one(policy(func(ctx context.Context, next resilience.Next) error {
		begun := time.Now()
		err := next.Run(ctx)
		mu.Lock()
		defer mu.Unlock()
		calls++
		took += time.Since(begun)
		return err
	}))).Pipelines["users"]
	want := 300 * took.Seconds() / float64(calls)
	if got := seriesMean(r, func(s Second) float64 { return s.Waiting }); !near(got, want, 0.05) {
		t.Errorf("got %.3f calls in progress, want %.3f", got, want)
	}
}

func TestClosedBreakerChangesNothing(t *testing.T) {
	s := Scenario{Rate: Constant(200), Length: 20 * time.Second, Runs: 2, Server: Server{Fail: 0.1}}
	r := Test(t, s, map[string]func() resilience.Policy{
		"without": naive,
		"with":    func() resilience.Policy { return retrying(breaker.New(breaker.Config{Consecutive: 1000})) },
	})
	with, without := r.Pipelines["with"], r.Pipelines["without"]
	for i := range with.Series {
		if with.Series[i] != without.Series[i] {
			t.Fatalf("second %d: got %+v, want %+v", i, with.Series[i], without.Series[i])
		}
	}
	if with.P99 != without.P99 || with.Failed != without.Failed {
		t.Errorf("got %v and %v, want %v and %v", with.P99, with.Failed, without.P99, without.Failed)
	}
}

func TestNaiveRetriesAreMetastable(t *testing.T) {
	s := Scenario{
		Rate: Constant(100), Length: 36 * time.Second, Runs: 3, Clients: 5,
		Incidents: []Incident{{From: 8 * time.Second, For: 10 * time.Second, SlowBy: 10}},
	}
	r := Test(t, s, map[string]func() resilience.Policy{"naive": naive, "budget": budgeted, "breaker": broken})
	for name, metastable := range map[string]int{"naive": 3, "budget": 0, "breaker": 0} {
		got := r.Pipelines[name]
		if got.Metastable != metastable || got.Recovery.Runs != 3-metastable {
			t.Errorf("%s: got %d metastable runs and %d that recovered, want %d and %d", name, got.Metastable, got.Recovery.Runs, metastable, 3-metastable)
		}
	}
}

// callTimes returns the times since the beginning of the run at which calls of a scenario are made.
func callTimes(t *testing.T, s Scenario) []time.Duration {
	t.Helper()
	s.Runs, s.Clients = 1, 1
	var mu sync.Mutex
	var times []time.Duration
	var begun time.Time
	Test(t, s, one(func() resilience.Policy {
		begun = time.Now()
		return resilience.PolicyFunc(func(context.Context, resilience.Next) error {
			mu.Lock()
			defer mu.Unlock()
			times = append(times, time.Since(begun))
			return nil
		})
	}))
	return times
}

func TestArrivalsArePoisson(t *testing.T) {
	times := callTimes(t, Scenario{Rate: Constant(100), Length: 200 * time.Second})
	if !near(float64(len(times)), 20_000, 0.03) {
		t.Errorf("got %d calls, want about 20000", len(times))
	}
	// Intervals of a Poisson process have a standard deviation as large as their mean.
	sum, squares, last := 0.0, 0.0, time.Duration(0)
	for _, at := range times {
		interval := (at - last).Seconds()
		sum += interval
		squares += interval * interval
		last = at
	}
	mean := sum / float64(len(times))
	deviation := math.Sqrt(squares/float64(len(times)) - mean*mean)
	if !near(mean, 0.01, 0.03) || !near(deviation, 0.01, 0.03) {
		t.Errorf("got intervals of %v ± %v s, want 0.01 ± 0.01", mean, deviation)
	}
	if last >= 200*time.Second {
		t.Errorf("got a call at %v, want none at Length or later", last)
	}
}

func TestArrivalsDoNotWaitForAnswers(t *testing.T) {
	s := brief()
	s.Incidents = []Incident{{For: time.Minute, Hang: 1}}
	r := Test(t, s, one(none)).Pipelines["users"]
	if r.Waiting.Max != r.Calls.Max || r.Late.Min != 1 {
		t.Errorf("got at most %v of %v calls in progress, and a share of %v late, want all", r.Waiting.Max, r.Calls.Max, r.Late.Min)
	}
}

func TestArrivalsComeFromRandomClients(t *testing.T) {
	s := Scenario{Rate: Constant(200), Length: 10 * time.Second, Runs: 1, Clients: 4}
	var mu sync.Mutex
	calls := map[int]int{}
	clients := 0
	Test(t, s, one(func() resilience.Policy {
		client := clients
		clients++
		return resilience.PolicyFunc(func(context.Context, resilience.Next) error {
			mu.Lock()
			defer mu.Unlock()
			calls[client]++
			return nil
		})
	}))
	for client := range 4 {
		if !near(float64(calls[client]), 500, 0.2) {
			t.Errorf("client %d: got %d calls, want about 500", client, calls[client])
		}
	}
	if calls[4] != 0 {
		t.Errorf("got %d calls through the last result, want none", calls[4])
	}
}

func TestArrivalsFollowRate(t *testing.T) {
	for name, test := range map[string]struct {
		rate      Rate
		incidents []Incident
		want      [3]float64 // calls in each third of 30 s
	}{
		"steps":      {Steps(Step{5 * time.Second, 200}, Step{10 * time.Second, 0}, Step{20 * time.Second, 400}), nil, [3]float64{1000, 0, 4000}},
		"ramp up":    {Ramp(0, 300, 30*time.Second), nil, [3]float64{500, 1500, 2500}},
		"ramp down":  {Ramp(300, 100, 20*time.Second), nil, [3]float64{2500, 1500, 1000}},
		"surge":      {Constant(100), []Incident{{From: 10 * time.Second, For: 10 * time.Second, Surge: 3}}, [3]float64{1000, 3000, 1000}},
		"two surges": {Constant(100), []Incident{{From: 10 * time.Second, For: 10 * time.Second, Surge: 4}, {From: 0, For: 20 * time.Second, Surge: 0.5}}, [3]float64{500, 2000, 1000}},
	} {
		var got [3]float64
		for _, at := range callTimes(t, Scenario{Rate: test.rate, Length: 30 * time.Second, Incidents: test.incidents}) {
			got[at/(10*time.Second)]++
		}
		for i := range got {
			if !near(got[i], test.want[i], 0.1) {
				t.Errorf("%s: got %v calls, want about %v", name, got, test.want)
			}
		}
	}
}

func TestReplayMakesCallsAtExactTimes(t *testing.T) {
	times := []time.Duration{1500 * time.Millisecond, 0, 20*time.Millisecond + 3, 20*time.Millisecond + 3, time.Hour}
	want := []time.Duration{0, 20*time.Millisecond + 3, 20*time.Millisecond + 4, 1500 * time.Millisecond}
	got := callTimes(t, Scenario{Rate: Replay(times), Length: 2 * time.Second})
	if len(got) != len(want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}

func TestReplayRepeatsCallsInSurge(t *testing.T) {
	times := make([]time.Duration, 1000)
	for i := range times {
		times[i] = time.Duration(i) * 10 * time.Millisecond
	}
	calls := len(callTimes(t, Scenario{Rate: Replay(times), Incidents: []Incident{{For: 5 * time.Second, Surge: 2.5}}}))
	if !near(float64(calls), 2.5*500+500, 0.05) {
		t.Errorf("got %d calls, want about 1750", calls)
	}
}

// leaving is a policy that leaves its call after a time.
func leaving(after time.Duration) func() resilience.Policy {
	return policy(func(ctx context.Context, next resilience.Next) error {
		ctx, cancel := context.WithTimeout(ctx, after)
		defer cancel()
		return next.Run(ctx)
	})
}

func TestServerServesCallsWhoseCallerHasLeft(t *testing.T) {
	// One worker, half of whose time is used. Every caller leaves before its answer.
	s := Scenario{Rate: Constant(10), Length: time.Minute, Runs: 1, Server: Server{Workers: 1, Service: Fixed(50 * time.Millisecond)}}
	deaf := Test(t, s, one(leaving(10*time.Millisecond))).Pipelines["users"]
	if deaf.Wasted.Min != 1 || seriesMean(deaf, func(s Second) float64 { return s.Queue }) < 0.1 {
		t.Errorf("got a share of %v wasted, want all, and others that wait for it", deaf.Wasted.Min)
	}
	s.Server.GivesUp = true
	polite := Test(t, s, one(leaving(10*time.Millisecond))).Pipelines["users"]
	if got, less := seriesMean(polite, func(s Second) float64 { return s.Queue }), seriesMean(deaf, func(s Second) float64 { return s.Queue })/5; got > less || polite.Wasted.Min != 1 {
		t.Errorf("with GivesUp: got %v calls in the queue, want at most %v", got, less)
	}
}

func TestIncidentsCombine(t *testing.T) {
	s := Scenario{Rate: Constant(1), Server: Server{Replicas: 2, Workers: 10}, Incidents: []Incident{
		{From: 0, For: 10 * time.Second, SlowBy: 2, Fail: 0.5, Hang: 0.5, Capacity: 0.5, Surge: 2},
		{From: 5 * time.Second, For: 10 * time.Second, SlowBy: 3, Fail: 0.5, Hang: 0.2, Capacity: 0.3, Surge: 3, Replica: 1},
	}}
	if got, want := s.effect(0, 7*time.Second), (effect{slow: 6, fail: 0.75, hang: 0.6, workers: 2}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got, want := s.effect(1, 7*time.Second), (effect{slow: 2, fail: 0.5, hang: 0.5, workers: 5}); got != want {
		t.Errorf("another replica: got %+v, want %+v", got, want)
	}
	if got := s.surge(7 * time.Second); got != 6 {
		t.Errorf("got a surge of %v, want 6", got)
	}
	if got, want := s.effect(0, 15*time.Second), (effect{slow: 1, workers: 10}); got != want {
		t.Errorf("at its end: got %+v, want %+v", got, want)
	}
}

// received is what a call received, and after which time.
type received struct {
	err  error
	took time.Duration
}

// answers returns what the calls of a run receive, in the order of arrival.
func answers(t *testing.T, s Scenario) (all []received) {
	t.Helper()
	s.Runs = 1
	var mu sync.Mutex
	Test(t, s, one(policy(func(ctx context.Context, next resilience.Next) error {
		begun := time.Now()
		err := next.Run(ctx)
		mu.Lock()
		defer mu.Unlock()
		all = append(all, received{err, time.Since(begun)})
		return err
	})))
	return all
}

func TestServerAnswers(t *testing.T) {
	const ms = time.Millisecond
	server := func(change func(s *Server)) Server {
		s := Server{Workers: 1, Queue: -1, Service: Fixed(20 * ms), Network: Fixed(2 * ms)}
		if change != nil {
			change(&s)
		}
		return s
	}
	one := server(nil)
	queueing := server(func(s *Server) { s.Queue = 1 })
	for name, test := range map[string]struct {
		server   Server
		calls    []time.Duration
		incident Incident
		want     []received
	}{
		"healthy":   {one, []time.Duration{0, 100 * ms}, Incident{}, []received{{nil, 22 * ms}, {nil, 22 * ms}}},
		"no queue":  {one, []time.Duration{0, 10 * ms}, Incident{}, []received{{ErrFull, 2 * ms}, {nil, 22 * ms}}},
		"a queue":   {queueing, []time.Duration{0, 10 * ms, 15 * ms}, Incident{}, []received{{ErrFull, 2 * ms}, {nil, 22 * ms}, {nil, 32 * ms}}},
		"slow":      {one, []time.Duration{0}, Incident{For: time.Second, SlowBy: 3}, []received{{nil, 62 * ms}}},
		"slow soon": {one, []time.Duration{0}, Incident{From: 10 * ms, For: time.Second, SlowBy: 3}, []received{{nil, 22 * ms}}},
		"fails":     {one, []time.Duration{0}, Incident{For: time.Second, Fail: 1}, []received{{ErrFailed, 2 * ms}}},
		"always fails": {
			server(func(s *Server) { s.Fail = 1 }), []time.Duration{0}, Incident{}, []received{{ErrFailed, 22 * ms}},
		},
		"down": {one, []time.Duration{0}, Incident{For: time.Second, Down: true}, []received{{ErrDown, 2 * ms}}},
		"goes down": {
			one, []time.Duration{0, 50 * ms}, Incident{From: 10 * ms, For: 5 * ms, Down: true},
			[]received{{ErrFailed, 11 * ms}, {nil, 22 * ms}},
		},
		"goes down with a queue": {
			queueing, []time.Duration{0, 5 * ms}, Incident{From: 10 * ms, For: 5 * ms, Down: true},
			[]received{{ErrFailed, 11 * ms}, {ErrFailed, 6 * ms}},
		},
		"hangs": { // until the end, 1 s after the last call, and 1 s later
			one, []time.Duration{0, 50 * ms}, Incident{For: 10 * ms, Hang: 1},
			[]received{{nil, 22 * ms}, {context.Canceled, 2050 * ms}},
		},
		"fewer workers": {
			server(func(s *Server) { s.Workers, s.Queue = 3, 1 }), []time.Duration{0, 1 * ms}, Incident{For: 10 * ms, Capacity: 0.1},
			[]received{{nil, 22 * ms}, {nil, 30 * ms}},
		},
	} {
		s := Scenario{Rate: Replay(test.calls), Server: test.server}
		if test.incident != (Incident{}) {
			s.Incidents = []Incident{test.incident}
		}
		same := func(got, want received) bool { return errors.Is(got.err, want.err) && got.took == want.took }
		if got := answers(t, s); !slices.EqualFunc(got, test.want, same) {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}

func TestServerEmptiesItsQueueWhenItGoesDown(t *testing.T) {
	const ms = time.Millisecond
	// The second call waits from 11 ms on, until the server goes down. Its caller leaves just before,
	// and the server learns it later.
	s := Scenario{
		Rate: Replay([]time.Duration{0, ms}), Length: 2 * time.Second, Runs: 1,
		Server:    Server{Workers: 1, Queue: 1, Service: Fixed(100 * ms), Network: Fixed(20 * ms), GivesUp: true},
		Incidents: []Incident{{From: 50 * ms, For: 5 * ms, Down: true}},
	}
	r := Test(t, s, one(leaving(45*ms))).Pipelines["users"]
	if !near(r.Series[0].Queue, 0.039, 1e-9) || r.Series[1].Queue != 0 {
		t.Errorf("got means of %v and %v calls in the queue, want 0.039 and 0", r.Series[0].Queue, r.Series[1].Queue)
	}
}

func TestErrDownIsNotMade(t *testing.T) {
	s := Scenario{Rate: Replay([]time.Duration{0}), Length: time.Second, Runs: 1, Incidents: []Incident{{For: 50 * time.Millisecond, Down: true}}}
	again := func(ctx context.Context, next resilience.Next) error {
		for next.Run(ctx) != nil {
			if !next.Repeatable() {
				return errors.New("not repeatable")
			}
			time.Sleep(10 * time.Millisecond)
		}
		return nil
	}
	create := func() resilience.Policy {
		return resilience.Pipeline{resilience.AtMostOnce, resilience.PolicyFunc(again)}
	}
	if r := Test(t, s, one(create)).Pipelines["users"]; r.Good.Min != 1 || r.Attempts.Min < 5 {
		t.Errorf("got a share of %v good and %v attempts, want 1 and at least 5", r.Good.Min, r.Attempts.Min)
	}
	s.Incidents = []Incident{{For: 50 * time.Millisecond, Fail: 1}}
	if r := Test(t, s, one(create)).Pipelines["users"]; r.Failed.Min != 1 || r.Attempts.Min != 1 {
		t.Errorf("ErrFailed: got a share of %v failed and %v attempts, want 1 and 1", r.Failed.Min, r.Attempts.Min)
	}
}

func TestServerSpreadsAttemptsOverReplicas(t *testing.T) {
	// The replica that is down gets a third of the calls.
	s := Scenario{Rate: Constant(300), Length: 10 * time.Second, Runs: 1, Server: Server{Replicas: 3}, Incidents: []Incident{{For: time.Minute, Down: true, Replica: 2}}}
	if r := Test(t, s, one(none)).Pipelines["users"]; !near(r.Failed.Mean, 1.0/3, 0.1) {
		t.Errorf("got a share of %v failed, want a third", r.Failed.Mean)
	}
}

func TestServerHasDefaultsByLoad(t *testing.T) {
	s := Scenario{Rate: Constant(240), Server: Server{Service: LogNormal(18*time.Millisecond, 60*time.Millisecond)}}.withDefaults()
	if s.Server.Workers != 9 { // 240/s × 20.6 ms / 0.6 = 8.2
		t.Errorf("got %d workers, want 9", s.Server.Workers)
	}
	s = Scenario{Rate: Steps(Step{0, 100}, Step{time.Minute, 300}), Server: Server{Replicas: 2, Service: Fixed(30 * time.Millisecond)}}.withDefaults()
	if s.Server.Workers != 5 { // 200/s × 30 ms / 0.6 = 10
		t.Errorf("got %d workers, want 5", s.Server.Workers)
	}
	s = Scenario{Rate: Replay([]time.Duration{0, 90 * time.Second})}.withDefaults()
	if s.Length != 91*time.Second || s.Runs != 5 || s.Clients != 1 || s.GoodWithin != time.Second || s.Server.Queue != 1000 || s.Server.Workers != 1 {
		t.Errorf("got %+v, want a length of 91s and the other defaults", s)
	}
}

func TestRunOrdersWhatHappensAtTheSameTimeByCall(t *testing.T) {
	times := []time.Duration{}
	for i := range 50 {
		times = append(times, time.Duration(i)*time.Millisecond)
	}
	s := Scenario{Rate: Replay(times), Length: 2 * time.Second, Runs: 1, Server: Server{Workers: 1, Service: Fixed(time.Minute)}}
	for range 5 { // the scheduler may happen to keep the order
		var begun time.Time
		var returned []int // needs no lock: the simulation lets one call continue after another
		calls := 0
		Test(t, s, one(func() resilience.Policy {
			begun = time.Now()
			return resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
				calls++
				call := calls
				ctx, cancel := context.WithDeadline(ctx, begun.Add(time.Second)) // of all calls
				defer cancel()
				err := next.Run(ctx)
				returned = append(returned, call)
				return err
			})
		}))
		for i, call := range returned {
			if call != i+1 {
				t.Fatalf("got calls in the order %v, want ascending", returned)
			}
		}
		if len(returned) != 50 {
			t.Fatalf("got %d calls, want 50", len(returned))
		}
	}
	// All attempts begin at the same time: the first call's is served.
	s.Server = Server{Workers: 1, Queue: -1}
	served := 0
	var mu sync.Mutex
	for range 5 {
		calls := 0
		var begun time.Time
		Test(t, s, one(func() resilience.Policy {
			begun = time.Now()
			return resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
				calls++
				call := calls
				time.Sleep(time.Until(begun.Add(time.Second)))
				err := next.Run(ctx)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					served = call
				}
				return err
			})
		}))
		if served != 1 {
			t.Fatalf("got an answer to call %d, want to the first", served)
		}
	}
}
