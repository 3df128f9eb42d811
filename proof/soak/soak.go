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
	"github.com/effector-go/resilience/observe"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

const (
	wholeLimit   = 1200 * time.Millisecond // for a call
	attemptLimit = 400 * time.Millisecond
	thinkTime    = 30 * time.Millisecond // a caller's average pause between calls

	maxAttempts    = 3
	retryRatio     = 0.05 // always below the share of failures, so that the budget is what limits retries
	retryPerSecond = 2
	budgetTTL      = 10 * time.Second
	probes         = 3
	probeSuccesses = 5
	probeFailures  = 2
	patience       = 2 * time.Minute // the sum of all waits of a run for what comes soon or never
)

// A rig holds the pipelines, the server, and what counts between them.
type rig struct {
	cfg     config
	ledger  *ledger
	server  *server
	client  *client
	journal *journal
	waited  time.Duration // how much of patience is used

	observer   *observe.Observer
	witnesses  [2]*witness
	guard      *breaker.Breaker // the one under test; all routes share it
	tallies    [2]*tally
	abandoning *timeout.Timeout // with Abandon
	routes     map[routing]resilience.Effector[*lease]
}

// soak runs the load and returns its ledger. If ctx is done it ends early, with all counts. It
// calls show with its progress.
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
	l.closedAgain = l.answered.Load() == l.calls.Load() && r.heal() // if calls hang, more calls might hang too
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
		OnStateChange: r.journal.report,
	})
	r.observer, r.witnesses = newObserver(l)
	r.tallies = [2]*tally{newTally(false), newTally(true)}
	r.abandoning = timeout.New(timeout.Config{Name: "abandoning", Limit: attemptLimit, Abandon: cfg.workers/60 + 1})
	r.build()
	return r, nil
}

// A routing selects the pipeline of a call.
type routing struct{ write, ignoresContext, cancels bool }

func route(c *call) routing { return routing{c.write, c.ignoresContext, c.kind == cancels} }

// build creates the pipelines. They share all policies except the innermost ones.
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
	for _, ignoresContext := range []bool{false, true} {
		for i, tally := range r.tallies {
			var attempt resilience.Policy = timeout.After(attemptLimit)
			if ignoresContext {
				attempt = r.abandoning
			}
			guarded := r.observer.Pipeline("soak",
				discard, resilience.PolicyFunc(r.outermost), whole, retries,
				resilience.PolicyFunc(r.outsideGuard), r.guard, resilience.PolicyFunc(r.insideGuard),
				tally, tally.breaker, attempt,
			)
			cancels := i == 1
			r.routes[routing{false, ignoresContext, cancels}] = effector.With(guarded)
			once := resilience.Pipeline{resilience.AtMostOnce, guarded}
			r.routes[routing{true, ignoresContext, cancels}] = func(ctx context.Context) (*lease, error) {
				return resilience.Do(ctx, once, effector)
			}
		}
	}
}

// outermost counts what Next reports about a call that has ended.
func (r *rig) outermost(ctx context.Context, next resilience.Next) error {
	r.ledger.runs.Add(1)
	defer func() {
		c := callOf(ctx)
		c.starts = next.Starts()
		r.ledger.starts.Add(int64(c.starts))
		if c.starts > 0 {
			r.ledger.made.Add(1)
		}
		if c.starts > maxAttempts {
			r.ledger.violated(tooMany, "call %d made %d attempts", c.id, c.starts)
		}
	}()
	return next.Run(ctx)
}

func (r *rig) outsideGuard(ctx context.Context, next resilience.Next) error {
	r.ledger.asked.Add(1)
	err := next.Run(ctx)
	if open, ok := err.(*breaker.OpenError); ok && open.Name == "guard" {
		r.ledger.refusals.Add(1)
	}
	return err
}

func (r *rig) insideGuard(ctx context.Context, next resilience.Next) error {
	r.ledger.admitted.Add(1)
	return next.Run(ctx)
}

// A tally is a breaker that never opens and whose window never ends, so its Snapshot must include
// every call. The tally is also a policy outside that breaker, which counts what the breaker should
// count.
type tally struct {
	breaker  *breaker.Breaker
	classify bool // the breaker's own Classify counts; otherwise Run does, as DefaultClassify would

	made                     atomic.Int64 // runs that started the effector
	calls, failures, ignored atomic.Int64
}

// newTally returns the tally for callers that cancel, or the one for those that don't. Only the
// breaker knows whether it saw a call before or after its caller canceled, so for the former its
// Classify counts.
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

// Run counts one run of next.
func (t *tally) Run(ctx context.Context, next resilience.Next) (err error) {
	starts, returned := next.Starts(), false
	defer func() {
		if next.Starts() == starts {
			return // refused by an inner policy
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

// load makes the callers call for a time, and waits until their calls have ended.
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

// settle waits for what may outlast the calls: abandoned effectors, and the server reading
// requests.
func (r *rig) settle() {
	l := r.ledger
	r.wait(func() bool {
		return l.attempts.Load() == l.attemptsEnded.Load() && r.abandoning.Abandoned() == 0 && r.server.received.Load() >= l.sent.Load()
	})
	r.client.closeIdle()
	r.wait(func() bool { return r.server.open() == 0 })
}

// heal ends all faults and makes calls until the breaker has closed by itself and a call has
// succeeded.
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

// wait waits for a condition and reports whether it came true before the patience ran out. If not,
// a check will fail.
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

// heap returns the memory in use after garbage collection.
func heap() int64 {
	runtime.GC()
	runtime.GC() // for the contents of sync.Pools and what had finalizers
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// enter copies the counts of the other parties into the ledger.
func (r *rig) enter() {
	l := r.ledger
	l.received.Store(r.server.received.Load())
	l.receivedSum.Store(r.server.sum.Load())
	l.repeated.Store(r.server.repeated.Load())
	l.leftBehind = r.abandoning.Abandoned()
	for i, t := range r.tallies {
		l.tallies[i] = tallied{
			made: t.made.Load(), calls: t.calls.Load(), failures: t.failures.Load(), ignored: t.ignored.Load(),
			snapshot: t.breaker.Snapshot(),
		}
	}
	l.guard = r.guard.Snapshot()
	l.transitions, l.lastReported = r.journal.sum()
	l.observed = newObserved(r.observer.Snapshot(), r.witnesses)
}

// A journal checks the guard's transitions as they are reported to OnStateChange.
type journal struct {
	ledger    *ledger
	reporting atomic.Bool

	mu   sync.Mutex // guards the fields below; reporting checks that OnStateChange isn't called concurrently
	last breaker.Transition
	n    int
}

func (j *journal) report(t breaker.Transition) {
	if !j.reporting.CompareAndSwap(false, true) {
		j.ledger.violated(wrongTransition, "%v: reported concurrently with another one", t)
	}
	defer j.reporting.Store(false)
	j.mu.Lock()
	defer j.mu.Unlock()
	if wrong := j.judge(t); wrong != "" {
		j.ledger.violated(wrongTransition, "%v: %s: %+v", t, wrong, t.Snapshot)
	}
	j.last = t
	j.n++
}

// judge returns what is wrong with a transition, or "".
func (j *journal) judge(t breaker.Transition) string {
	s := t.Snapshot
	switch {
	case t.From != j.last.To: // a new breaker is Closed, which is the zero State
		return fmt.Sprintf("the state was %v", j.last.To)
	case j.n > 0 && (t.At.Before(j.last.At) || !s.Since.Equal(j.last.At)):
		return "the phase didn't begin with the previous transition"
	case s.State != t.From || t.Cause == "":
		return "the snapshot is of another phase, or there is no cause"
	case s.Failures > s.Calls || s.Failures < 0 || s.Slow < 0 || s.Running < 0:
		return "the counts are impossible"
	}
	switch [2]breaker.State{t.From, t.To} {
	case [2]breaker.State{breaker.Closed, breaker.Open}, [2]breaker.State{breaker.Open, breaker.HalfOpen}:
		return ""
	case [2]breaker.State{breaker.HalfOpen, breaker.Open}:
		if s.Failures == probeFailures && s.Running < probes && s.Calls-s.Failures < probeSuccesses {
			return ""
		}
		return "wrong counts of probes for opening"
	case [2]breaker.State{breaker.HalfOpen, breaker.Closed}:
		if s.Failures < probeFailures && s.Running < probes && s.Calls-s.Failures == probeSuccesses {
			return ""
		}
		return "wrong counts of probes for closing"
	}
	return "there is no such transition"
}

// sum returns the number of transitions, and the state after the last.
func (j *journal) sum() (n int, state breaker.State) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.n, j.last.To
}
