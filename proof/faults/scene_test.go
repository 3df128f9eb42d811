// Package faults puts every policy, alone and in every order of three, in front of what goes wrong: effectors and callbacks that panic,
// exit, return errors that panic when they are asked, or call back. Afterwards nothing may be held, every call must have been
// counted once, and the next healthy call must succeed.
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
	consecutive kind = "consecutive" // breakers that count by one rule, with limits out of reach, so that what they count can be seen
	leaky       kind = "leaky"
	lastCalls   kind = "last-calls"
	rate        kind = "rate"
	slow        kind = "slow"
	tripping    kind = "tripping" // a breaker that the first failure opens
	probe       kind = "probe"    // a half-open breaker with two places that stays half-open
	deciding    kind = "deciding" // a half-open breaker whose only probe decides
	retrying    kind = "retry"    // three attempts
	budgeted    kind = "budget"   // three attempts, but a call pays for one beside the first
	limited     kind = "timeout"  // cooperative
	abandoning  kind = "abandon"  // leaves two effectors behind at most
	atMostOnce  kind = "at-most-once"
	discarding  kind = "discard"
	bulkheading kind = "bulkhead"  // with two places, and two more to wait
	rateLimited kind = "ratelimit" // with more tokens than any test takes, which come back in weeks
	throttled   kind = "throttle"  // likewise
	shedding    kind = "shed"      // that counts and refuses nothing
	adapting    kind = "adaptive"  // that drops make smaller
	hedging     kind = "hedge"     // a further start when the first has failed, never beside it
)

var kinds = []kind{
	consecutive, leaky, lastCalls, rate, slow, tripping, probe, deciding, retrying, budgeted, limited, abandoning, atMostOnce, discarding,
	bulkheading, rateLimited, throttled, shedding, adapting, hedging,
}

func (k kind) breaks() bool  { return k.breakerConfig() != nil }
func (k kind) retries() bool { return k == retrying || k == budgeted }

// gates reports whether the policy has a gate for a witness.
func (k kind) gates() bool {
	switch k {
	case bulkheading, rateLimited, throttled, shedding, adapting, hedging:
		return true
	}
	return false
}

// classifies reports whether the policy asks a Classify of the user's.
func (k kind) classifies() bool { return k.breaks() || k == shedding || k == adapting }

// What the policies are set to: limits of hours, for effectors that take hours, and an open time that none of them outlasts.
const (
	limit     = time.Hour
	openFor   = 1000 * time.Hour
	outOfHand = 1_000_000 // more than any test counts
)

func (k kind) breakerConfig() *breaker.Config {
	c := breaker.Config{
		Name: string(k), OpenFor: openFor, MaxOpenFor: openFor, ProbeTimeout: openFor,
		Probes: 2, ProbeSuccesses: outOfHand, ProbeFailures: outOfHand,
	}
	switch k {
	case consecutive, probe:
		c.Consecutive = outOfHand
	case leaky:
		c.Leaky = outOfHand
	case lastCalls:
		c.Failures, c.LastCalls = 1000, 1000
	case rate:
		c.FailureRate, c.Window, c.MinCalls = 1, 10*openFor, outOfHand
	case slow:
		c.SlowRate, c.SlowCall, c.Window, c.MinCalls = 1, limit, 10*openFor, outOfHand
	case tripping, deciding:
		c.Consecutive, c.Probes, c.ProbeSuccesses, c.ProbeFailures = 1, 1, 1, 1
	default:
		return nil
	}
	return &c
}

// A site is a place at which something goes wrong: the effector, or a function that the user gave to a policy.
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

// A scene is one pipeline, made anew, with what goes wrong in it and everything that was seen.
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
	healed   bool       // nothing goes wrong any more
	nested   bool       // a call that came from within is under way
	starts   int        // of the effector
	faulty   int        // those of them in the call at fault
	struck   int        // how often the fault happened
	thrown   func(value any) bool
	exited   bool // by runtime.Goexit
	touchy   bool // whoever asks the error for its RetryAfter panics by a mistake of the error's
	depth    int  // how many policies were around the fault; -1 where that is not known
	contexts []context.Context
	yielded  map[int]int // values of the effector, each with how often it was returned to a caller or dropped
}

func newScene(t *testing.T, order []kind, f fault) *scene {
	s := &scene{t: t, fault: f, order: order, yielded: map[int]int{}, healed: true}
	for depth, k := range order {
		s.policy = append(s.policy, s.newPolicies(k, depth)...)
	}
	s.healed = false
	return s
}

// newPolicies gives the policy, and its witness inside it.
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
			s.pass(atDrop, -1) // it runs wherever a value is given up
		})}
	}
	panic(k)
}

func (s *scene) newLedger(k kind, depth int) *ledger {
	c := k.breakerConfig()
	l := &ledger{}
	if s.fault.at == atClassify { // else a breaker's own, which takes shorter ways
		l.classifies = true
		c.Classify = func(ctx context.Context, err error) breaker.Outcome {
			defer l.takePending()()
			s.pass(atClassify, depth)
			return breaker.DefaultClassify(ctx, err)
		}
	}
	if s.fault.at == atOnStateChange {
		c.OnStateChange = func(tr breaker.Transition) {
			if tr.From != l.told {
				s.t.Errorf("the breaker %s told %v after it had become %v", k, tr, l.told)
			}
			l.told = tr.To
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
		OnRetry: func(retry.Event) {
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

// A schedule waits for a second, or what the fault says, and is a place where things go wrong.
type schedule struct {
	s     *scene
	depth int
}

func (b *schedule) NextBackOff() time.Duration {
	b.s.pass(atNextBackOff, b.depth)
	return cmp.Or(b.s.fault.delay, time.Second)
}

func (b *schedule) Reset() { b.s.pass(atReset, b.depth) }

// pass is called wherever a fault may be placed.
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

// effect is the effector: healthy, or at fault.
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
	s.yielded[value] = 0
	s.mu.Unlock()
	return value, err
}

// answer notes that value was returned to a caller, or dropped.
func (s *scene) answer(value int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.yielded[value]++
}

// hit notes that the effector is about to do what is wrong.
func (s *scene) hit(depth int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.struck++
	s.depth = depth
}

// throws notes what the caller is to recover.
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
	stack    string // of the panic, as a deferred function of the caller sees it
}

// call makes a call in the given shape, on a goroutine of its own, as runtime.Goexit ends it.
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

// The ways into the policies: a pipeline laid flat by Compose, nested at the head, nested at the tail; and for a policy alone the Do of its
// package, and the two steps of a permit.
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

// alone makes a call by the Do of the only policy's package.
func (s *scene) alone(ctx context.Context) (int, error) {
	switch {
	case len(s.ledgers) > 0:
		l := s.ledgers[0]
		return breaker.Do(ctx, l.breaker, func(ctx context.Context) (int, error) { return resilience.Do(ctx, l, s.effect) })
	case len(s.accounts) > 0:
		if a := s.accounts[0]; ctx.Err() == nil {
			a.paid.Add(1) // there is no pipeline in which it could see for itself
		}
		return retry.Do(ctx, s.accounts[0].retry, s.effect)
	case len(s.gates) > 0:
		g := s.gates[0]
		return g.do(ctx, func(ctx context.Context) (int, error) { return resilience.Do(ctx, g, s.effect) })
	}
	return timeout.Do(ctx, s.timeouts[0], s.effect)
}

// inTwoSteps makes a call by a permit, as users are told to.
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

// callFromWithin is what a callback does that calls back: it asks the policies and makes a healthy call through all of them.
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
			s.t.Error("State and Snapshot differ")
		}
	}
	for _, t := range s.timeouts {
		t.Abandoned()
	}
	value, err := resilience.Do(context.Background(), s.policy, s.effect)
	if err == nil {
		s.answer(value)
	} else if !errors.Is(err, resilience.ErrRefused) {
		s.t.Errorf("a healthy call from within: %v", err)
	}
}

// byHand does the same by hand to every breaker.
func (s *scene) byHand(state breaker.State) {
	for _, l := range s.ledgers {
		l.force(state)
	}
}

// run makes the call at fault in a bubble, and then looks for whatever it left.
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
	time.Sleep(100 * time.Hour) // effectors that were left behind end
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
			s.t.Errorf("%d effectors are left behind", n)
		}
	}
	s.checkValues(end)
	s.checkStarts()
	s.checkHealth(shape, goroutines)
}

// checkEnding says whether the caller learned what happened.
func (s *scene) checkEnding(ctx context.Context, end ending) {
	if s.touchy && !end.returned {
		s.thrown = isMistake
	}
	switch {
	case s.thrown != nil:
		s.checkPanic(end)
	case s.exited:
		if end.returned || end.panicked != nil {
			s.t.Errorf("the call ended with %v, %v, panic %v, want runtime.Goexit", end.value, end.err, end.panicked)
		}
	case !end.returned:
		s.t.Errorf("the call did not return, panic %v\n%s", end.panicked, end.stack)
	case s.fault.dead:
		if !errors.Is(end.err, ctx.Err()) || !errors.Is(end.err, context.Cause(ctx)) {
			s.t.Errorf("%v is not %v and %v", end.err, ctx.Err(), context.Cause(ctx))
		}
	case s.fault.want != nil:
		s.fault.want(s, end)
	}
}

func isMistake(value any) bool { _, ok := value.(runtime.Error); return ok }

// checkPanic looks for the value as it was, and for the stack at its origin: the panic's own, or kept beside the value where the effector
// had a goroutine of its own.
func (s *scene) checkPanic(end ending) {
	value, stack := end.panicked, end.stack
	moved, ok := value.(*resilience.PanicError)
	if ok {
		stack += string(moved.Stack)
	}
	if ok && !s.thrown(value) {
		value = moved.Value
		if s.depth >= 0 && !s.apart(s.depth) {
			s.t.Error("a panic of the caller's own goroutine came as a PanicError")
		}
	} else if s.depth >= 0 && s.apart(s.depth) && !ok {
		s.t.Errorf("a panic of another goroutine came as %v, want a PanicError", value)
	}
	if end.returned || !s.thrown(value) {
		s.t.Errorf("the call ended with %v, %v, panic %v, want the panic of the %s", end.value, end.err, value, s.fault.at)
	}
	if !strings.Contains(stack, "goWrong") {
		s.t.Errorf("the stack of the panic is lost:\n%s", stack)
	}
}

// apart reports whether what is so deep in the pipeline runs on a goroutine of its own.
func (s *scene) apart(depth int) bool {
	for _, k := range s.order[:depth] {
		if k == abandoning || k == hedging {
			return true
		}
	}
	return false
}

// checkContexts asks, right after the call, the contexts that the effector got: a limit's has ended with the call, so that its timer is
// stopped and what hangs on it let go.
func (s *scene) checkContexts() {
	if len(s.timeouts) == 0 || s.fault.nearer {
		return
	}
	for _, ctx := range s.contexts {
		select {
		case <-ctx.Done():
		default:
			s.t.Error("the context of an effector outlives its call")
		}
		if ctx.Err() == nil || context.Cause(ctx) == nil {
			s.t.Errorf("the context of an effector tells %v, %v", ctx.Err(), context.Cause(ctx))
		}
	}
}

// checkGoroutines looks at their stacks if there seem to be more than before: one that has just ended may still be counted.
func (s *scene) checkGoroutines(before int) {
	if runtime.NumGoroutine() <= before {
		return
	}
	stacks := make([]byte, 1<<20)
	for stack := range strings.SplitSeq(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
		state, frames, _ := strings.Cut(stack, "\n")
		ours := strings.Contains(state, "synctest bubble") && !strings.Contains(state, "[running") // this one runs
		if ours && !strings.Contains(state, "synctest.Run") && !strings.HasPrefix(frames, "testing/synctest.") {
			s.t.Errorf("left behind: %s", stack)
		}
	}
}

// checkStarts says whether the effector was started as often as it may be.
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
		s.t.Errorf("the effector was started %d times, want %d at most", s.faulty, most)
	}
}

// checkValues says whether every value is the caller's or was dropped, once.
func (s *scene) checkValues(end ending) {
	if !s.holds(discarding) {
		return
	}
	if end.returned && end.err != nil && end.value != 0 {
		s.t.Errorf("the caller got %d, which was dropped, beside %v", end.value, end.err)
	}
	if !end.returned && s.fault.at == atOnStateChange && s.order[0] != discarding {
		return // Discard, which belongs outermost, had answered before a policy around it panicked
	}
	for value, n := range s.yielded {
		if n != 1 {
			s.t.Errorf("value %d was returned or dropped %d times", value, n)
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

// checkHealth makes a healthy call, after the time for which breakers may be open.
func (s *scene) checkHealth(shape, goroutines int) {
	s.healed = true
	for _, l := range s.ledgers {
		l.checkProbes(s.t)
		if l.byHand {
			l.breaker.Reset()
		}
	}
	time.Sleep(openFor)
	synctest.Wait()
	for range 2 {
		before := s.starts
		end := s.call(context.Background(), shape)
		if end.err != nil || !end.returned || s.starts != before+1 || end.value != s.starts {
			s.t.Errorf("a healthy call afterwards: %+v after %d starts", end, s.starts-before)
		}
	}
	for _, l := range s.ledgers {
		if got := l.breaker.Snapshot(); got.State == breaker.Open || got.Running != 0 {
			s.t.Errorf("after healthy calls: %+v", got)
		}
		if s.fault.at == atOnStateChange && l.told != l.breaker.State() {
			s.t.Errorf("the breaker %s is %v and last told of %v", l.config.Name, l.breaker.State(), l.told)
		}
	}
	synctest.Wait()
	s.checkGoroutines(goroutines)
}
