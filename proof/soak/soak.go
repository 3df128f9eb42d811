package main

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/goleak"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

const (
	wholeLimit   = 1200 * time.Millisecond // of a call
	attemptLimit = 400 * time.Millisecond
	thinkTime    = 30 * time.Millisecond // between the calls of a caller, on average

	maxAttempts    = 3
	retryRatio     = 0.05 // less than what fails in the best of times, so that the budget is always what binds
	retryPerSecond = 2
	budgetTTL      = 10 * time.Second
	probes         = 3
	probeSuccesses = 5
	probeFailures  = 2
	patience       = 2 * time.Minute // with what comes soon, or never: all waits of a run together
)

// A rig is the pipelines, the server, and what counts between them.
type rig struct {
	cfg     config
	ledger  *ledger
	server  *server
	client  *client
	journal *journal
	waited  time.Duration // of the patience

	guard   *breaker.Breaker // the one under test: all routes share it
	tallies [2]*tally
	apart   *timeout.Timeout // that abandons
	routes  map[routing]resilience.Effector[*lease]
}

// soak runs the load and fills a ledger. It ends early, with all its counts, when ctx is done. show hears how far it is.
func soak(ctx context.Context, cfg config, show func(elapsed time.Duration, doing string)) (*ledger, error) {
	before := goleak.IgnoreCurrent()
	start := time.Now()
	r, err := newRig(cfg)
	if err != nil {
		return nil, err
	}
	l := r.ledger
	warmUp := min(cfg.length/5, 10*time.Second)
	r.load(ctx, 0, warmUp, start, show)
	r.settle()
	l.heapWarm = heap()
	r.load(ctx, 1, cfg.length-warmUp, start, show)
	show(cfg.length, "settling")
	r.settle()
	l.closedAgain = l.answered.Load() == l.calls.Load() && r.heal() // with calls that hang, further ones might
	r.settle()
	l.heapEnd = heap()
	l.elapsed = time.Since(start)
	r.server.close()
	r.enter()
	show(cfg.length, "")
	r.wait(func() bool { l.goroutines = goleak.Find(before); return l.goroutines == nil })
	return l, nil
}

func newRig(cfg config) (*rig, error) {
	unit := min(max(cfg.length/20, 20*time.Millisecond), time.Second)
	server, err := serve(cfg.seed, unit)
	if err != nil {
		return nil, err
	}
	l := newLedger(cfg)
	r := &rig{cfg: cfg, ledger: l, server: server, journal: &journal{ledger: l}}
	r.client = &client{ledger: l, address: server.listener.Addr().String(), seed: cfg.seed, idle: make(chan net.Conn, 2*cfg.workers)}
	r.guard = breaker.New(breaker.Config{
		Name:        "guard",
		Consecutive: 20,
		FailureRate: 0.5, SlowRate: 0.5, SlowCall: attemptLimit / 2,
		Window: 400 * time.Millisecond, MinCalls: 20,
		OpenFor: 30 * time.Millisecond, MaxOpenFor: 200 * time.Millisecond, Jitter: 0.2,
		Probes: probes, ProbeSuccesses: probeSuccesses, ProbeFailures: probeFailures, ProbeTimeout: 2 * time.Second,
		OnStateChange: r.journal.heard,
	})
	r.tallies = [2]*tally{newTally(false), newTally(true)}
	r.apart = timeout.New(timeout.Config{Name: "apart", Limit: attemptLimit, Abandon: cfg.workers/60 + 1})
	r.build()
	return r, nil
}

// A routing is which pipeline a call takes.
type routing struct{ write, deaf, cancels bool }

func route(c *call) routing { return routing{c.write, c.deaf, c.kind == cancels} }

// build makes the pipelines. They share their policies but for the innermost ones.
func (r *rig) build() {
	discard := resilience.Discard(func(l *lease) {
		if l != nil {
			r.ledger.take(l, &r.ledger.dropped)
		}
	})
	whole := timeout.New(timeout.Config{Name: "whole", Limit: wholeLimit})
	retries := retry.New(retry.Config{
		Name:        "retries",
		MaxAttempts: maxAttempts,
		Backoff:     retry.FullJitter(5*time.Millisecond, 50*time.Millisecond),
		Budget:      budget.New(budget.Config{Ratio: retryRatio, MinPerSecond: retryPerSecond, TTL: budgetTTL}),
		OnRetry:     func(context.Context, retry.Event) { r.ledger.decided.Add(1) },
	})
	effector := r.client.effector()
	r.routes = map[routing]resilience.Effector[*lease]{}
	for _, deaf := range []bool{false, true} {
		for i, tally := range r.tallies {
			var attempt resilience.Policy = timeout.After(attemptLimit)
			if deaf {
				attempt = r.apart
			}
			guarded := resilience.Pipeline{
				discard, resilience.PolicyFunc(r.atTheEdge), whole, retries,
				resilience.PolicyFunc(r.beforeGuard), r.guard, resilience.PolicyFunc(r.behindGuard),
				tally, tally.breaker, attempt,
			}
			cancels := i == 1
			r.routes[routing{false, deaf, cancels}] = effector.With(guarded)
			once := resilience.Pipeline{resilience.AtMostOnce, guarded}
			r.routes[routing{true, deaf, cancels}] = func(ctx context.Context) (*lease, error) {
				return resilience.Do(ctx, once, effector)
			}
		}
	}
}

// atTheEdge counts what Next tells of a call that has ended.
func (r *rig) atTheEdge(ctx context.Context, next resilience.Next) error {
	defer func() {
		c := callOf(ctx)
		c.starts = next.Starts()
		r.ledger.starts.Add(int64(c.starts))
		if c.starts > 0 {
			r.ledger.made.Add(1)
		}
		if c.starts > maxAttempts {
			r.ledger.odd(tooMany, "call %d made %d attempts", c.id, c.starts)
		}
	}()
	return next.Run(ctx)
}

func (r *rig) beforeGuard(ctx context.Context, next resilience.Next) error {
	r.ledger.asked.Add(1)
	err := next.Run(ctx)
	if open, ok := err.(*breaker.OpenError); ok && open.Name == "guard" {
		r.ledger.refusals.Add(1)
	}
	return err
}

func (r *rig) behindGuard(ctx context.Context, next resilience.Next) error {
	r.ledger.admitted.Add(1)
	return next.Run(ctx)
}

// A tally is a breaker that never opens and whose window never ends, so that its Snapshot must tell of every call there was.
// As a policy, outside of that breaker, it counts what the breaker should.
type tally struct {
	breaker  *breaker.Breaker
	classify bool // the breaker's own Classify counts; else Run does, as DefaultClassify would

	made                     atomic.Int64 // runs that started the effector
	calls, failures, ignored atomic.Int64
}

// newTally makes the tally for callers who cancel, or that for those who do not. Only the breaker itself knows whether it saw a
// call before or after its caller went away, so for the former its Classify counts.
func newTally(cancels bool) *tally {
	t := &tally{classify: cancels}
	c := breaker.Config{FailureRate: 1, Window: 10 * 8760 * time.Hour, MinCalls: math.MaxInt}
	if cancels {
		c.Classify = t.count
		c.SlowRate, c.SlowCall = 1, 50*time.Millisecond
	}
	t.breaker = breaker.New(c)
	return t
}

func (t *tally) count(ctx context.Context, err error) breaker.Outcome {
	outcome := breaker.DefaultClassify(ctx, err)
	switch outcome {
	case breaker.Ignored:
		t.ignored.Add(1)
		return outcome
	case breaker.Failure:
		t.failures.Add(1)
	}
	t.calls.Add(1)
	return outcome
}

// Run counts a run of next.
func (t *tally) Run(ctx context.Context, next resilience.Next) (err error) {
	starts, returned := next.Starts(), false
	defer func() {
		if next.Starts() == starts {
			return // turned away further in
		}
		t.made.Add(1)
		if t.classify {
			return
		}
		t.calls.Add(1)
		if !returned || err != nil {
			t.failures.Add(1)
		}
	}()
	err = next.Run(ctx)
	returned = true
	return err
}

// load has the callers make calls for a time, and waits for their ends.
func (r *rig) load(ctx context.Context, round uint64, length time.Duration, start time.Time, show func(time.Duration, string)) {
	stop := make(chan struct{})
	var callers sync.WaitGroup
	for i := range r.cfg.workers {
		random := rand.New(rand.NewPCG(r.cfg.seed, round<<32|uint64(i)))
		callers.Go(func() { r.caller(random, stop) })
	}
	over := time.After(length)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for running := true; running; {
		select {
		case <-over:
			running = false
		case <-ctx.Done():
			running = false
		case <-tick.C:
			show(time.Since(start), fmt.Sprintf("%d calls, %v", r.ledger.calls.Load(), r.guard.State()))
		}
	}
	close(stop)
	var ended atomic.Bool
	go func() { callers.Wait(); ended.Store(true) }()
	r.wait(ended.Load)
}

// settle waits for what may outlast the calls: effectors that were left behind, and the server's reading.
func (r *rig) settle() {
	l := r.ledger
	r.wait(func() bool {
		return l.attempts.Load() == l.attemptsEnded.Load() && r.apart.Abandoned() == 0 && r.server.received.Load() >= l.sent.Load()
	})
	r.client.closeIdle()
	r.wait(func() bool { return r.server.open() == 0 })
}

// heal ends all faults and calls until the breaker has closed by itself and a call has succeeded.
func (r *rig) heal() bool {
	r.server.healed.Store(true)
	r.client.quiet.Store(true)
	random := rand.New(rand.NewPCG(r.cfg.seed, math.MaxUint64))
	return r.wait(func() bool {
		before := r.ledger.ended[succeeded].Load()
		r.call(r.draw(random), random)
		return r.ledger.ended[succeeded].Load() > before && r.guard.State() == breaker.Closed
	})
}

// wait waits until it is so, and reports whether it came to be while the patience lasted. What did not the checks will find.
func (r *rig) wait(so func() bool) bool {
	start := time.Now()
	defer func() { r.waited += time.Since(start) }()
	for !so() {
		if r.waited+time.Since(start) > patience {
			return false
		}
		<-time.After(5 * time.Millisecond)
	}
	return true
}

// heap is how much memory is in use when all garbage is gone.
func heap() int64 {
	runtime.GC()
	runtime.GC() // what sync.Pools held, and what had finalizers
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// enter fills in what others than the ledger have counted.
func (r *rig) enter() {
	l := r.ledger
	l.received.Store(r.server.received.Load())
	l.receivedSum.Store(r.server.sum.Load())
	l.repeated.Store(r.server.repeated.Load())
	l.leftBehind = r.apart.Abandoned()
	for i, t := range r.tallies {
		l.tallies[i] = tallied{
			made: t.made.Load(), calls: t.calls.Load(), failures: t.failures.Load(), ignored: t.ignored.Load(),
			told: t.breaker.Snapshot(),
		}
	}
	l.guard = r.guard.Snapshot()
	l.transitions, l.lastHeard = r.journal.sum()
}

// A journal follows the transitions of the guard as OnStateChange tells them.
type journal struct {
	ledger  *ledger
	telling atomic.Bool

	mu   sync.Mutex // guards what follows; the hook is to be called by one goroutine at a time, which is what telling checks
	last breaker.Transition
	n    int
}

func (j *journal) heard(t breaker.Transition) {
	if !j.telling.CompareAndSwap(false, true) {
		j.ledger.odd(wrongTransition, "%v: told while another is being told", t)
	}
	defer j.telling.Store(false)
	j.mu.Lock()
	defer j.mu.Unlock()
	if wrong := j.judge(t); wrong != "" {
		j.ledger.odd(wrongTransition, "%v: %s: %+v", t, wrong, t.Snapshot)
	}
	j.last = t
	j.n++
}

// judge says what is wrong with a transition, "" if nothing is.
func (j *journal) judge(t breaker.Transition) string {
	s := t.Snapshot
	switch {
	case t.From != j.last.To: // a new breaker is Closed, which is zero
		return fmt.Sprintf("the state was %v", j.last.To)
	case j.n > 0 && (t.At.Before(j.last.At) || !s.Since.Equal(j.last.At)):
		return "the phase did not begin with the transition before"
	case s.State != t.From || t.Cause == "":
		return "it tells of another phase, or no cause"
	case s.Failures > s.Calls || s.Failures < 0 || s.Slow < 0 || s.Running < 0:
		return "its counts cannot be"
	}
	switch [2]breaker.State{t.From, t.To} {
	case [2]breaker.State{breaker.Closed, breaker.Open}, [2]breaker.State{breaker.Open, breaker.HalfOpen}:
		return ""
	case [2]breaker.State{breaker.HalfOpen, breaker.Open}:
		if s.Failures == probeFailures && s.Running < probes && s.Calls-s.Failures < probeSuccesses {
			return ""
		}
		return "not the probes that open"
	case [2]breaker.State{breaker.HalfOpen, breaker.Closed}:
		if s.Failures < probeFailures && s.Running < probes && s.Calls-s.Failures == probeSuccesses {
			return ""
		}
		return "not the probes that close"
	}
	return "there is no such transition"
}

// sum is how many transitions there were, and the state after the last.
func (j *journal) sum() (n int, state breaker.State) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.n, j.last.To
}
