// Package faults confronts every policy, alone and in every order of up to three, with faults:
// effectors and callbacks that panic, exit, return errors whose methods panic, or call back.
// Afterwards, nothing may be held, every call must have been counted once, and the next healthy
// call must succeed.
package faults

import (
	"cmp"
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cenkalti/backoff/v4"
	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// A kind is a policy, in one of its modes.
type kind string

const (
	// Breakers that count by one rule, with thresholds out of reach, so that their counts can be
	// checked.
	consecutive kind = "consecutive"
	leaky       kind = "leaky"
	lastCalls   kind = "last-calls"
	rate        kind = "rate"
	slow        kind = "slow"
	tripping    kind = "tripping" // a breaker that opens at the first failure
	probe       kind = "probe"    // a half-open breaker with two probes that stays half-open
	deciding    kind = "deciding" // a half-open breaker whose only probe decides
	retrying    kind = "retry"    // three attempts
	// Three attempts, but a call's deposit pays for only one after the first.
	budgeted    kind = "budget"
	limited     kind = "timeout" // cooperative
	abandoning  kind = "abandon" // leaves at most two effectors running
	atMostOnce  kind = "at-most-once"
	discarding  kind = "discard"
	bulkheading kind = "bulkhead"  // with two places and a queue of two
	rateLimited kind = "ratelimit" // with more tokens than any test takes, refilled in weeks
	throttled   kind = "throttle"  // with as many tokens, refilled in weeks
	shedding    kind = "shed"      // counts and refuses nothing
	adapting    kind = "adaptive"  // whose limit shrinks with failures
	// Starts again when the first start has failed, never while it is running.
	hedging kind = "hedge"
)

var kinds = []kind{
	consecutive, leaky, lastCalls, rate, slow, tripping, probe, deciding, retrying, budgeted, limited, abandoning, atMostOnce, discarding,
	bulkheading, rateLimited, throttled, shedding, adapting, hedging,
}

func (k kind) breaks() bool  { return k.breakerConfig() != nil }
func (k kind) retries() bool { return k == retrying || k == budgeted }

// gates reports whether the policy's witness is a gate.
func (k kind) gates() bool {
	switch k {
	case bulkheading, rateLimited, throttled, shedding, adapting, hedging:
		return true
	}
	return false
}

// classifies reports whether the policy calls a Classify function of the user.
func (k kind) classifies() bool { return k.breaks() || k == shedding || k == adapting }

// The policies' settings: limits of hours, for effectors that take hours, and an open time that
// exceeds all of them.
const (
	limit      = time.Hour
	openFor    = 1000 * time.Hour
	outOfReach = 1_000_000 // more than any test counts
)

func (k kind) breakerConfig() *breaker.Config {
	c := breaker.Config{
		Name: string(k), OpenFor: openFor, MaxOpenFor: openFor, ProbeTimeout: openFor,
		Probes: 2, ProbeSuccesses: outOfReach, ProbeFailures: outOfReach,
	}
	switch k {
	case consecutive, probe:
		c.Consecutive = outOfReach
	case leaky:
		c.Leaky = outOfReach
	case lastCalls:
		c.Failures, c.LastCalls = 1000, 1000
	case rate:
		c.FailureRate, c.Window, c.MinCalls = 1, 10*openFor, outOfReach
	case slow:
		c.SlowRate, c.SlowCall, c.Window, c.MinCalls = 1, limit, 10*openFor, outOfReach
	case tripping, deciding:
		c.Consecutive, c.Probes, c.ProbeSuccesses, c.ProbeFailures = 1, 1, 1, 1
	default:
		return nil
	}
	return &c
}

// A site is a place where a fault happens: the effector, or a function that the user passed to a
// policy.
type site string

const (
	atEffector      site = "effector"
	atClassify      site = "Classify"
	atOnStateChange site = "OnStateChange"
	atRetryIf       site = "RetryIf"
	atOnRetry       site = "OnRetry"
	atBackoff       site = "Backoff"
	atNextBackOff   site = "NextBackOff"
	atReset         site = "Reset"
	atDrop          site = "drop"
	atPriority      site = "Priority"
	atHedgeIf       site = "HedgeIf"
	atOnHedge       site = "OnHedge"
)

// A scene is a new pipeline with one fault, and everything that is observed of it.
type scene struct {
	t      *testing.T
	fault  fault
	order  []kind
	policy resilience.Pipeline

	ledgers  []*ledger
	accounts []*account
	timeouts []*timeout.Timeout
	gates    []*gate

	mu       sync.Mutex // guards the following
	healed   bool       // the fault doesn't happen any more
	nested   bool       // a call from within the call is running
	starts   int        // of the effector
	faulty   int        // starts in the faulty call
	struck   int        // how often the fault happened
	thrown   func(value any) bool
	exited   bool // by runtime.Goexit
	touchy   bool // the error's RetryAfter method panics with a runtime error
	depth    int  // number of policies around the fault; -1 if unknown
	contexts []context.Context
	// Values of the effector, with how often each was returned to a caller or dropped.
	values map[int]int
}

func newScene(t *testing.T, order []kind, f fault) *scene {
	s := &scene{t: t, fault: f, order: order, values: map[int]int{}, healed: true}
	for depth, k := range order {
		s.policy = append(s.policy, s.newPolicies(k, depth)...)
	}
	s.healed = false
	return s
}

// newPolicies returns the policy and the witness inside it.
func (s *scene) newPolicies(k kind, depth int) []resilience.Policy {
	switch {
	case k.breaks():
		l := s.newLedger(k, depth)
		return []resilience.Policy{l.breaker, l}
	case k.retries():
		a := s.newAccount(k, depth)
		return []resilience.Policy{a.retry, a}
	case k.gates():
		g := s.newGate(k, depth)
		s.gates = append(s.gates, g)
		return []resilience.Policy{g.policy, g}
	}
	switch k {
	case limited, abandoning:
		c := timeout.Config{Limit: limit}
		if k == abandoning {
			c.Abandon = 2
		}
		s.timeouts = append(s.timeouts, timeout.New(c))
		return []resilience.Policy{s.timeouts[len(s.timeouts)-1]}
	case atMostOnce:
		return []resilience.Policy{resilience.AtMostOnce}
	case discarding:
		return []resilience.Policy{resilience.Discard(func(value int) {
			s.answer(value)
			s.pass(atDrop, -1) // called wherever a value is given up
		})}
	}
	panic(k)
}

func (s *scene) newLedger(k kind, depth int) *ledger {
	c := k.breakerConfig()
	l := &ledger{}
	if s.fault.at == atClassify { // otherwise the breaker uses its own, which takes a faster path
		l.classifies = true
		c.Classify = func(ctx context.Context, err error) breaker.Outcome {
			defer l.takePending()()
			s.pass(atClassify, depth)
			return breaker.DefaultClassify(ctx, err)
		}
	}
	if s.fault.at == atOnStateChange {
		c.OnStateChange = func(tr breaker.Transition) {
			if tr.From != l.reported {
				s.t.Errorf("breaker %s: got the event %v, want one from %v", k, tr, l.reported)
			}
			l.reported = tr.To
			s.pass(atOnStateChange, depth)
		}
	}
	l.breaker, l.config = breaker.New(*c), *c
	if k == probe || k == deciding {
		l.breaker.HalfOpen()
		l.state = breaker.HalfOpen
	}
	s.ledgers = append(s.ledgers, l)
	return l
}

func (s *scene) newAccount(k kind, depth int) *account {
	a := &account{}
	c := retry.Config{
		Backoff: func() backoff.BackOff {
			s.pass(atBackoff, depth)
			return &schedule{s, depth}
		},
		RetryIf: func(error) bool { s.pass(atRetryIf, depth); return true },
		OnRetry: func(context.Context, retry.Event) {
			a.decided.Add(1)
			s.pass(atOnRetry, depth)
		},
	}
	if k == budgeted {
		a.budget = budget.New(budget.Config{Ratio: 1, TTL: 8760 * time.Hour})
		c.Budget = a.budget
	}
	a.retry = retry.New(c)
	s.accounts = append(s.accounts, a)
	return a
}

// A schedule returns a second or the fault's delay, and is a site of faults.
type schedule struct {
	s     *scene
	depth int
}

func (b *schedule) NextBackOff() time.Duration {
	b.s.pass(atNextBackOff, b.depth)
	return cmp.Or(b.s.fault.delay, time.Second)
}

func (b *schedule) Reset() { b.s.pass(atReset, b.depth) }

// pass is called at every site. It triggers the fault if this is its site.
func (s *scene) pass(at site, depth int) {
	s.mu.Lock()
	here := s.fault.at == at && at != atEffector && !s.healed && !s.nested
	if here {
		s.struck++
		s.depth = depth
	}
	s.mu.Unlock()
	if here {
		s.fault.strike(s)
	}
}

// effect is the effector: healthy or faulty.
func (s *scene) effect(ctx context.Context) (int, error) {
	s.mu.Lock()
	s.starts++
	value := s.starts
	healthy := s.healed || s.nested
	if !healthy {
		s.faulty++
	}
	s.contexts = append(s.contexts, ctx)
	s.mu.Unlock()
	var err error
	if !healthy {
		err = s.fault.effect(s, ctx, value)
	}
	s.mu.Lock()
	s.values[value] = 0
	s.mu.Unlock()
	return value, err
}

// answer records that value was returned to a caller or dropped.
func (s *scene) answer(value int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values[value]++
}

// hit records that the effector's fault is about to happen.
func (s *scene) hit(depth int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.struck++
	s.depth = depth
}

// throws records which panic the caller must recover.
func (s *scene) throws(is func(value any) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.thrown = is
}

func (s *scene) exits() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.exited = true
}

// An ending is how a call ended for its caller.
type ending struct {
	returned bool
	value    int
	err      error
	panicked any
	stack    string // of the panic, as seen by the caller's deferred function
}

// call makes a call in the given shape on its own goroutine, because runtime.Goexit ends that.
func (s *scene) call(ctx context.Context, shape int) (end ending) {
	call := s.shaped(shape)
	var g errgroup.Group
	g.Go(func() error {
		defer func() {
			if end.returned {
				return
			}
			if end.panicked = recover(); end.panicked != nil {
				stack := make([]byte, 1<<16)
				end.stack = string(stack[:runtime.Stack(stack, false)])
			}
		}()
		end.value, end.err = call(ctx)
		end.returned = true
		return nil
	})
	g.Wait()
	if end.returned && end.err == nil {
		s.answer(end.value)
	}
	return end
}

// The shapes of a call: a pipeline that is flat, nested at the head, or nested at the tail; and for
// a single policy, the Do of its package, or a permit.
const (
	flat = iota
	nestedAtHead
	nestedAtTail
	byDo
	byPermit

	shapes = byDo // of a pipeline
)

func (s *scene) shaped(shape int) resilience.Effector[int] {
	switch shape {
	case flat:
		return resilience.Compose(s.effect, s.policy...)
	case byDo:
		return s.alone
	case byPermit:
		return s.inTwoSteps
	}
	nest := resilience.Pipeline{}
	for i := range s.policy {
		if shape == nestedAtHead {
			nest = resilience.Pipeline{nest, s.policy[i]}
		} else {
			nest = resilience.Pipeline{s.policy[len(s.policy)-1-i], nest}
		}
	}
	return func(ctx context.Context) (int, error) { return resilience.Do(ctx, nest, s.effect) }
}

// alone makes a call with the Do of the only policy's package.
func (s *scene) alone(ctx context.Context) (int, error) {
	switch {
	case len(s.ledgers) > 0:
		l := s.ledgers[0]
		return breaker.Do(ctx, l.breaker, func(ctx context.Context) (int, error) { return resilience.Do(ctx, l, s.effect) })
	case len(s.accounts) > 0:
		if a := s.accounts[0]; ctx.Err() == nil {
			a.paid.Add(1) // without a pipeline, the account isn't called
		}
		return retry.Do(ctx, s.accounts[0].retry, s.effect)
	case len(s.gates) > 0:
		g := s.gates[0]
		return g.do(ctx, func(ctx context.Context) (int, error) { return resilience.Do(ctx, g, s.effect) })
	}
	return timeout.Do(ctx, s.timeouts[0], s.effect)
}

// inTwoSteps makes a call with a permit, as the documentation describes.
func (s *scene) inTwoSteps(ctx context.Context) (int, error) {
	if len(s.gates) > 0 {
		place, err := s.gates[0].acquire(ctx)
		if err != nil {
			return 0, err
		}
		defer place.Release()
		return resilience.Do(ctx, s.gates[0], s.effect)
	}
	l := s.ledgers[0]
	permit, err := l.breaker.Acquire(ctx)
	if err != nil {
		return 0, err
	}
	defer permit.Cancel()
	l.cancels = true
	value, err := resilience.Do(ctx, l, s.effect)
	permit.Done(err)
	return value, err
}

// callFromWithin reads the policies' states and makes a healthy call through all of them, as a
// callback might.
func (s *scene) callFromWithin() {
	s.mu.Lock()
	s.nested = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.nested = false
		s.mu.Unlock()
	}()
	for _, l := range s.ledgers {
		if l.breaker.State() != l.breaker.Snapshot().State || l.breaker.Name() != l.config.Name {
			s.t.Error("State or Name differs from Snapshot or Config")
		}
	}
	for _, t := range s.timeouts {
		t.Abandoned()
	}
	value, err := resilience.Do(context.Background(), s.policy, s.effect)
	if err == nil {
		s.answer(value)
	} else if !errors.Is(err, resilience.ErrRefused) {
		s.t.Errorf("healthy call from within: got %v, want nil or a refusal", err)
	}
}

// force puts every breaker into the state manually.
func (s *scene) force(state breaker.State) {
	for _, l := range s.ledgers {
		l.force(state)
	}
}

// run makes the faulty call in a bubble and then checks everything that it may have left behind.
func (s *scene) run(shape int) {
	goroutines := runtime.NumGoroutine()
	ctx, cancel := s.fault.context()
	defer cancel()
	end := s.call(ctx, shape)
	synctest.Wait()
	s.checkEnding(ctx, end)
	s.checkContexts()
	if !s.fault.leaves || !s.holds(abandoning) {
		s.checkGoroutines(goroutines)
	}
	time.Sleep(100 * time.Hour) // until effectors that were left running have ended
	synctest.Wait()
	s.checkGoroutines(goroutines)
	for _, l := range s.ledgers {
		l.check(s.t)
	}
	for _, a := range s.accounts {
		a.check(s.t)
	}
	for _, g := range s.gates {
		g.check(s.t)
	}
	for _, limit := range s.timeouts {
		if n := limit.Abandoned(); n != 0 {
			s.t.Errorf("got %d effectors left running, want 0", n)
		}
	}
	s.checkValues(end)
	s.checkStarts()
	s.checkHealth(shape, goroutines)
}

// checkEnding checks that the call ended for its caller as the fault requires.
func (s *scene) checkEnding(ctx context.Context, end ending) {
	if s.touchy && !end.returned {
		s.thrown = isRuntimeError
	}
	switch {
	case s.thrown != nil:
		s.checkPanic(end)
	case s.exited:
		if end.returned || end.panicked != nil {
			s.t.Errorf("got %v, %v, panic %v, want runtime.Goexit", end.value, end.err, end.panicked)
		}
	case !end.returned:
		s.t.Errorf("got panic %v or Goexit, want the call to return\n%s", end.panicked, end.stack)
	case s.fault.dead:
		if !errors.Is(end.err, ctx.Err()) || !errors.Is(end.err, context.Cause(ctx)) {
			s.t.Errorf("got %v, want an error that is %v and %v", end.err, ctx.Err(), context.Cause(ctx))
		}
	case s.fault.want != nil:
		s.fault.want(s, end)
	}
}

func isRuntimeError(value any) bool { _, ok := value.(runtime.Error); return ok }

// checkPanic checks that the panic's value is unchanged and that the stack of its origin is
// available: the panic's own stack, or the one stored with the value if the effector ran on its own
// goroutine.
func (s *scene) checkPanic(end ending) {
	value, stack := end.panicked, end.stack
	moved, ok := value.(*resilience.PanicError)
	if ok {
		stack += string(moved.Stack)
	}
	if ok && !s.thrown(value) {
		value = moved.Value
		if s.depth >= 0 && !s.detached(s.depth) {
			s.t.Error("got a PanicError for a panic on the caller's own goroutine, want the value itself")
		}
	} else if s.depth >= 0 && s.detached(s.depth) && !ok {
		s.t.Errorf("got %v for a panic on another goroutine, want a PanicError", value)
	}
	if end.returned || !s.thrown(value) {
		s.t.Errorf("got %v, %v, panic %v, want the panic of the %s", end.value, end.err, value, s.fault.at)
	}
	if !strings.Contains(stack, "goWrong") {
		s.t.Errorf("got the stack\n%s\nwant that of the panic's origin", stack)
	}
}

// detached reports whether the policy at depth runs on another goroutine than the caller's.
func (s *scene) detached(depth int) bool {
	for _, k := range s.order[:depth] {
		if k == abandoning || k == hedging {
			return true
		}
	}
	return false
}

// checkContexts checks, right after the call, the contexts that the effector received: a timeout's
// context must have ended with the call, so that its timer is stopped and its children are
// released.
func (s *scene) checkContexts() {
	if len(s.timeouts) == 0 || s.fault.nearer {
		return
	}
	for _, ctx := range s.contexts {
		select {
		case <-ctx.Done():
		default:
			s.t.Error("the context of an effector outlives the call")
		}
		if ctx.Err() == nil || context.Cause(ctx) == nil {
			s.t.Errorf("got %v, cause %v from the context of an effector, want it ended", ctx.Err(), context.Cause(ctx))
		}
	}
}

// checkGoroutines checks the goroutines' stacks if there are more than before: one that has just
// ended may still be counted.
func (s *scene) checkGoroutines(before int) {
	if runtime.NumGoroutine() <= before {
		return
	}
	stacks := make([]byte, 1<<20)
	for stack := range strings.SplitSeq(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
		state, frames, _ := strings.Cut(stack, "\n")
		// This one runs.
		ours := strings.Contains(state, "synctest bubble") && !strings.Contains(state, "[running")
		if ours && !strings.Contains(state, "synctest.Run") && !strings.HasPrefix(frames, "testing/synctest.") {
			s.t.Errorf("left behind: %s", stack)
		}
	}
}

// checkStarts checks that the effector wasn't started more often than allowed.
func (s *scene) checkStarts() {
	most := 1
	for _, k := range s.order {
		if k.retries() {
			most *= 3
		}
		if k == hedging {
			most *= 2
		}
	}
	if s.fault.dead {
		most = 0
	} else if s.order[0] == atMostOnce && !s.fault.notMade {
		most = 1
	}
	if s.faulty > most {
		s.t.Errorf("got %d starts of the effector, want at most %d", s.faulty, most)
	}
}

// checkValues checks that every value was either returned to the caller or dropped, once.
func (s *scene) checkValues(end ending) {
	if !s.holds(discarding) {
		return
	}
	if end.returned && end.err != nil && end.value != 0 {
		s.t.Errorf("got %d, which was dropped, with %v, want the zero value", end.value, end.err)
	}
	if !end.returned && s.fault.at == atOnStateChange && s.order[0] != discarding {
		return // Discard, which belongs outermost, had returned before a policy around it panicked
	}
	for value, n := range s.values {
		if n != 1 {
			s.t.Errorf("got value %d returned or dropped %d times, want once", value, n)
		}
	}
}

func (s *scene) holds(k kind) bool {
	for _, other := range s.order {
		if other == k {
			return true
		}
	}
	return false
}

// checkHealth makes healthy calls, after the time for which breakers may be open.
func (s *scene) checkHealth(shape, goroutines int) {
	s.healed = true
	for _, l := range s.ledgers {
		l.checkProbes(s.t)
		if l.forced {
			l.breaker.Reset()
		}
	}
	time.Sleep(openFor)
	synctest.Wait()
	for range 2 {
		before := s.starts
		end := s.call(context.Background(), shape)
		if end.err != nil || !end.returned || s.starts != before+1 || end.value != s.starts {
			s.t.Errorf("healthy call afterwards: got %+v after %d starts, want success after 1", end, s.starts-before)
		}
	}
	for _, l := range s.ledgers {
		if got := l.breaker.Snapshot(); got.State == breaker.Open || got.Running != 0 {
			s.t.Errorf("got %+v after healthy calls, want a breaker that isn't open", got)
		}
		if s.fault.at == atOnStateChange && l.reported != l.breaker.State() {
			s.t.Errorf("breaker %s: got state %v, but the last event reported %v", l.config.Name, l.breaker.State(), l.reported)
		}
	}
	synctest.Wait()
	s.checkGoroutines(goroutines)
}
