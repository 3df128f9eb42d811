package faults

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/adaptive"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/bulkhead"
	"github.com/effector-go/resilience/hedge"
	"github.com/effector-go/resilience/ratelimit"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/shed"
	"github.com/effector-go/resilience/throttle"
)

// A ledger is placed directly inside a breaker. It computes what the breaker must count, by the
// rules of the breaker's documentation, from the calls that pass through, which are also the
// breaker's only source.
type ledger struct {
	breaker *breaker.Breaker
	config  breaker.Config
	// By the latest event; written by OnStateChange, whose calls are never concurrent.
	reported breaker.State

	mu     sync.Mutex // guards the following
	forced bool
	state  breaker.State
	phase  int // number of the current phase: a call that began in another phase counts nothing

	calls, failures, slow, streak, leak int

	// classifies is set if the breaker calls a Classify function. Other calls may end during that
	// function: they count before the call being classified, which is pending until then.
	classifies bool
	pending    func()

	cancels bool // the permit of a call that doesn't return is canceled, so the call counts nothing
}

func (l *ledger) Run(ctx context.Context, next resilience.Next) error {
	l.mu.Lock()
	phase := l.phase
	l.mu.Unlock()
	starts, began := next.Starts(), time.Now()
	failed, returned := true, false // panics and Goexit fail too
	defer func() {
		outcome := breaker.Success
		switch {
		case next.Starts() == starts: // refused by an inner policy
			return
		case l.cancels && !returned:
			return
		case failed && ctx.Err() == context.Canceled:
			outcome = breaker.Ignored
		case failed:
			outcome = breaker.Failure
		}
		took := time.Since(began)
		if l.classifies && returned {
			l.pending = func() { l.book(phase, outcome, took) }
		} else {
			l.book(phase, outcome, took)
		}
	}()
	err := next.Run(ctx)
	failed, returned = err != nil, true
	return err
}

// takePending returns the pending booking, or a function that does nothing.
func (l *ledger) takePending() func() {
	book := l.pending
	l.pending = nil
	if book == nil {
		return func() {}
	}
	return book
}

func (l *ledger) book(phase int, outcome breaker.Outcome, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if phase != l.phase || l.state == breaker.Disabled {
		return
	}
	if l.config.SlowRate > 0 && l.state == breaker.Closed && took >= l.config.SlowCall {
		l.slow++
	}
	switch outcome {
	case breaker.Success:
		l.calls++
		l.streak, l.leak = 0, max(0, l.leak-1)
	case breaker.Failure:
		l.calls++
		l.failures++
		l.streak++
		l.leak++
	}
	switch {
	case l.state == breaker.Closed && l.config.Consecutive > 0 && l.streak >= l.config.Consecutive:
		l.enter(breaker.Open)
	case l.state == breaker.HalfOpen && l.failures >= l.config.ProbeFailures:
		l.enter(breaker.Open)
	case l.state == breaker.HalfOpen && l.calls-l.failures >= l.config.ProbeSuccesses:
		l.enter(breaker.Closed)
	}
}

func (l *ledger) enter(state breaker.State) {
	l.phase++
	l.state = state
	l.calls, l.failures, l.slow, l.streak, l.leak = 0, 0, 0, 0, 0
}

// force puts the breaker into the state manually.
func (l *ledger) force(state breaker.State) {
	l.mu.Lock()
	l.forced = true
	if l.state != state || state == breaker.Closed {
		l.enter(state)
	}
	l.mu.Unlock()
	switch state {
	case breaker.Closed:
		l.breaker.Reset()
	case breaker.ForcedOpen:
		l.breaker.ForceOpen()
	case breaker.HalfOpen:
		l.breaker.HalfOpen()
	case breaker.Disabled:
		l.breaker.Disable()
	}
}

// check compares the breaker with the ledger.
func (l *ledger) check(t *testing.T) {
	l.takePending()()
	got := l.breaker.Snapshot()
	want := breaker.Snapshot{Name: l.config.Name, State: l.state, Since: got.Since, Until: got.Until, Openings: got.Openings}
	counts := l.config.LastCalls > 0 || l.config.FailureRate > 0 || l.config.SlowRate > 0
	if l.state == breaker.HalfOpen || l.state == breaker.Closed && counts {
		want.Calls, want.Failures = l.calls, l.failures
	}
	if l.state == breaker.Closed {
		if l.config.Consecutive > 0 {
			want.Consecutive = l.streak
		}
		if l.config.Leaky > 0 {
			want.Leak = l.leak
		}
		want.Slow = l.slow
	}
	if got != want {
		t.Errorf("breaker %s: got\n%+v, want\n%+v", l.config.Name, got, want)
	}
}

// checkSums compares the counts that don't depend on the order in which concurrent calls end.
func (l *ledger) checkSums(t *testing.T) {
	got := l.breaker.Snapshot()
	if got.Running != 0 {
		t.Errorf("breaker %s: got %+v, want no running calls", l.config.Name, got)
	}
	if l.config.LastCalls == 0 && l.config.FailureRate == 0 && l.config.SlowRate == 0 && l.config.Name != string(probe) {
		return
	}
	if got.Calls != l.calls || got.Failures != l.failures || got.Slow != l.slow {
		t.Errorf("breaker %s: got\n%+v, want %d calls, %d failed, %d slow", l.config.Name, got, l.calls, l.failures, l.slow)
	}
}

// checkProbes acquires all probes of a half-open breaker, which shows that none is held, and
// releases them.
func (l *ledger) checkProbes(t *testing.T) {
	if l.breaker.State() != breaker.HalfOpen {
		return
	}
	permits := make([]breaker.Permit, l.config.Probes)
	for i := range permits {
		var err error
		if permits[i], err = l.breaker.Acquire(context.Background()); err != nil {
			t.Errorf("probe %d of %d: got %v, want a permit", i+1, len(permits), err)
		}
	}
	if _, err := l.breaker.Acquire(context.Background()); err == nil {
		t.Errorf("got a permit after %d probes, want a refusal", len(permits))
	}
	for i := range permits {
		permits[i].Cancel()
	}
}

// An account is placed directly inside a retry and computes what its budget must hold.
type account struct {
	retry  *retry.Retry
	budget *budget.Budget // nil without one
	// Calls, each of which deposits once, however its first attempt ends and however many policies
	// surround it.
	paid    atomic.Int64
	decided atomic.Int64 // additional attempts that were decided on, each for a token
}

func (a *account) Run(ctx context.Context, next resilience.Next) error {
	first := next.Starts() == 0
	defer func() {
		if first && next.Starts() > 0 && next.FirstTime(a) {
			a.paid.Add(1)
		}
	}()
	return next.Run(ctx)
}

// check withdraws all tokens and compares their number.
func (a *account) check(t *testing.T) {
	if a.budget == nil {
		return
	}
	tokens, want := int64(0), a.paid.Load()-a.decided.Load()
	for a.budget.Withdraw() {
		tokens++
	}
	if tokens != want {
		t.Errorf("got %d tokens, want %d: %d calls deposited one, %d attempts took one", tokens, want, a.paid.Load(), a.decided.Load())
	}
}

// A gate is placed directly inside a policy that limits calls by concurrency, rate, or failures,
// and counts the calls that it admits.
type gate struct {
	policy  resilience.Policy
	do      func(ctx context.Context, e resilience.Effector[int]) (int, error)
	acquire func(ctx context.Context) (*bulkhead.Permit, error)
	// Checks that nothing is held, and that the calls that passed were counted.
	check func(t *testing.T)

	passed              atomic.Int64
	succeeded, failures atomic.Int64 // calls that started the effector and weren't canceled
}

func (g *gate) Run(ctx context.Context, next resilience.Next) error {
	g.passed.Add(1)
	starts, failed := next.Starts(), true // panics and Goexit fail too
	defer func() {
		switch {
		case next.Starts() == starts: // refused by an inner policy
		case !failed:
			g.succeeded.Add(1)
		case ctx.Err() != context.Canceled:
			g.failures.Add(1)
		}
	}()
	err := next.Run(ctx)
	failed = err != nil
	return err
}

// tokens is the number of tokens of a rate limiter or a throttle: more than any test takes. None is
// refilled during a scene.
const tokens = 1000

func (s *scene) newGate(k kind, depth int) *gate {
	g := new(gate)
	switch k {
	case bulkheading:
		g.limitRunning(bulkhead.New(bulkhead.Config{Limit: 2, Queue: 2}))
	case rateLimited:
		const refillAfter = 36 * 24 * time.Hour
		l := ratelimit.New(ratelimit.Config{Rate: 1 / refillAfter.Seconds(), Burst: tokens})
		g.policy = l
		g.do = func(ctx context.Context, e resilience.Effector[int]) (int, error) { return ratelimit.Do(ctx, l, e) }
		g.check = func(t *testing.T) { g.checkTokens(t, l.Snapshot().Available) }
	case throttled:
		l := throttle.New(throttle.Config{Max: tokens, Refill: tokens, Every: 10 * openFor})
		g.policy = l
		g.do = func(ctx context.Context, e resilience.Effector[int]) (int, error) { return throttle.Do(ctx, l, e) }
		g.check = func(t *testing.T) { g.checkTokens(t, l.Snapshot().Available) }
	case shedding:
		c := shed.Config{Window: 10 * openFor, MaxShare: 1e-12}
		if s.fault.at == atClassify {
			c.Classify = func(ctx context.Context, err error) shed.Outcome {
				s.pass(atClassify, depth)
				return shed.DefaultClassify(ctx, err)
			}
		}
		g.limitFailing(shed.New(c))
	case adapting:
		c := adaptive.Config{Algorithm: adaptive.AIMD, Priority: func(context.Context) int { s.pass(atPriority, depth); return 4 }}
		if s.fault.at == atClassify {
			c.Classify = func(ctx context.Context, err error) adaptive.Outcome {
				s.pass(atClassify, depth)
				return adaptive.DefaultClassify(ctx, err)
			}
		}
		l := adaptive.New(c)
		g.policy = l
		g.do = func(ctx context.Context, e resilience.Effector[int]) (int, error) { return adaptive.Do(ctx, l, e) }
		g.check = func(t *testing.T) {
			if got := l.Snapshot(); got.Running != 0 {
				t.Errorf("got %+v, want no places held", got)
			}
		}
	case hedging:
		h := hedge.New(hedge.Config{
			// Earlier than a breaker's timer: the runtime holds a stopped timer while earlier ones
			// are pending.
			Delay:  openFor / 2,
			Budget: budget.New(budget.Config{Ratio: 1, TTL: 8760 * time.Hour}),

			HedgeIf: func(error) bool { s.pass(atHedgeIf, depth); return true },
			OnHedge: func(context.Context, hedge.Event) { s.pass(atOnHedge, depth) },
		})
		g.policy = h
		g.do = func(ctx context.Context, e resilience.Effector[int]) (int, error) { return hedge.Do(ctx, h, e) }
		g.check = func(*testing.T) {} // a hedge holds only goroutines and timers
	default:
		panic(k)
	}
	return g
}

func (g *gate) checkTokens(t *testing.T, available int) {
	if passed := int(g.passed.Load()); available != tokens-passed {
		t.Errorf("got %d tokens left of %d, want %d fewer", available, tokens, passed)
	}
}

func (g *gate) limitRunning(b *bulkhead.Bulkhead) {
	g.policy = b
	g.do = func(ctx context.Context, e resilience.Effector[int]) (int, error) { return bulkhead.Do(ctx, b, e) }
	g.acquire = func(ctx context.Context) (*bulkhead.Permit, error) {
		place, err := b.Acquire(ctx)
		return &place, err
	}
	g.check = func(t *testing.T) {
		if got := b.Snapshot(); got.Running != 0 || got.Waiting != 0 {
			t.Errorf("got %+v, want no places held", got)
		}
	}
}

func (g *gate) limitFailing(s *shed.Shedder) {
	g.policy = s
	g.do = func(ctx context.Context, e resilience.Effector[int]) (int, error) { return shed.Do(ctx, s, e) }
	g.check = func(t *testing.T) {
		succeeded, failed := int(g.succeeded.Load()), int(g.failures.Load())
		if got := s.Snapshot(); got.Accepts != succeeded || got.Requests != succeeded+failed {
			t.Errorf("got %+v, want %d calls succeeded and %d failed", got, succeeded, failed)
		}
	}
}
