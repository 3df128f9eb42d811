// Package retry compares retry with a model: a plain function that computes from the design alone
// when each attempt of a call begins, when the call ends, and with what result.
package retry

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cenkalti/backoff/v4"
	"pgregory.net/rapid"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/proof/internal/cases"
	"github.com/effector-go/resilience/retry"
)

func TestMain(m *testing.M) { cases.Main(m, 4000, 0) }

// An outcome is the result of one run of a call.
type outcome struct {
	// ok, failed, not made, permanent, rejected (by RetryIf), refused (by an inner policy), panics,
	// exits.
	kind  string
	takes time.Duration
	after time.Duration // RetryAfter
}

// A scenario is a retry's configuration, and the calls that are made through it one after another.
type scenario struct {
	attempts      int
	elapsed       time.Duration
	maxRetryAfter time.Duration
	delays        []time.Duration // of each call; after them the schedule stops
	retryRefused  bool
	tokens        int // of the budget, which the calls share; negative: no budget
	once          bool

	calls []call
}

type call struct {
	outcomes []outcome // of the runs; the last one is repeated
	ends     string    // how the context ends: never, canceled, deadline
	endsAt   time.Duration
}

func ms(t *rapid.T, most int, label string) time.Duration {
	return time.Duration(rapid.IntRange(0, most).Draw(t, label)) * time.Millisecond
}

func draw(t *rapid.T) scenario {
	s := scenario{
		attempts:      rapid.SampledFrom([]int{0, 1, 2, 3, 5, retry.Unlimited}).Draw(t, "MaxAttempts"),
		maxRetryAfter: rapid.SampledFrom([]time.Duration{0, 20 * time.Millisecond}).Draw(t, "MaxRetryAfter"),
		retryRefused:  rapid.Bool().Draw(t, "RetryRefused"),
		tokens:        rapid.IntRange(-3, 4).Draw(t, "tokens"),
		once:          rapid.IntRange(0, 4).Draw(t, "once") == 0,
	}
	if s.retryRefused || rapid.Bool().Draw(t, "elapsed") {
		s.elapsed = time.Millisecond + ms(t, 200, "MaxElapsed")
	}
	for range rapid.IntRange(0, 8).Draw(t, "delays") {
		s.delays = append(s.delays, ms(t, 50, "delay"))
	}
	for range rapid.IntRange(1, 4).Draw(t, "calls") {
		s.calls = append(s.calls, drawCall(t))
	}
	return s
}

func drawCall(t *rapid.T) call {
	kinds := []string{"failed", "failed", "failed", "failed", "ok", "not made", "permanent", "rejected", "refused", "panics", "exits"}
	c := call{ends: rapid.SampledFrom([]string{"never", "canceled", "deadline"}).Draw(t, "ends")}
	for range rapid.IntRange(1, 8).Draw(t, "runs") {
		o := outcome{kind: rapid.SampledFrom(kinds).Draw(t, "kind"), takes: ms(t, 30, "takes")}
		if rapid.IntRange(0, 3).Draw(t, "asks") == 0 {
			o.after = ms(t, 30, "after")
		}
		c.outcomes = append(c.outcomes, o)
	}
	// The context ends between the instants at which anything else happens, because the order of
	// two events at the same instant is undefined.
	c.endsAt = ms(t, 300, "endsAt") - time.Millisecond/2
	return c
}

// A verdict is the result of a call. Times count from its start.
type verdict struct {
	begins []string // of runs: when, and as which attempt
	ends   time.Duration
	// nil, bare N (the error of run N), context, panics N, exits N, or exhausted REASON after N
	// attempts: ERRORS.
	err    string
	value  int // the number of the last start, from 1
	events []string
}

func (c call) outcome(run int) outcome { return c.outcomes[min(run, len(c.outcomes)-1)] }

// over reports whether the context has ended.
func (c call) over(now time.Duration) bool { return c.ends != "never" && c.endsAt <= now }

// expected is the model: the rules of retry, one after another.
func (s scenario) expected() (verdicts []verdict) {
	tokens := s.tokens
	for _, c := range s.calls {
		verdicts = append(verdicts, s.expectedOf(c, &tokens))
	}
	return verdicts
}

func (s scenario) expectedOf(c call, tokens *int) (v verdict) {
	var now, first time.Duration
	attempts, failed, last, refusal := 0, false, -1, -1
	exhausted := func(reason retry.Reason) verdict {
		v.ends = now
		v.err = fmt.Sprintf("exhausted %v after %d attempts: last %d, refusal %d", reason, attempts, last, refusal)
		return v
	}
	end := func(err string) verdict {
		v.ends, v.err = now, err
		return v
	}
	if c.over(0) {
		return end("context")
	}
	for run := 0; ; run++ {
		v.begins = append(v.begins, fmt.Sprint(now, " attempt ", attempts+1))
		o := c.outcome(run)
		made := o.kind != "refused"
		own := fmt.Sprint("bare ", run)
		if made {
			attempts++
			if attempts == 1 {
				*tokens++ // the call's deposit
			}
			last, refusal = run, -1
			if c.ends != "never" && c.endsAt < now+o.takes {
				now, v.value = max(now, c.endsAt), attempts
				// The effector ends with its context, and its error is returned unchanged.
				return end(own)
			}
			now += o.takes
			switch o.kind {
			case "panics", "exits":
				v.value = 0 // the call returns none
				return end(fmt.Sprint(o.kind, " ", run))
			}
			v.value = attempts
			if o.kind == "ok" {
				return end("nil")
			}
			if c.over(now) || o.kind == "permanent" || s.once && o.kind != "not made" {
				return end(own)
			}
		} else {
			if attempts == 0 {
				last = run
			} else {
				refusal = run
			}
			switch {
			case attempts == 0 && (c.over(now) || !s.retryRefused):
				return end(own)
			case !s.retryRefused:
				return exhausted(retry.ReasonRefused)
			}
		}
		if !failed {
			failed, first = true, now
		}
		limit := s.attempts
		if limit == 0 {
			limit = 3
		}
		if limit != retry.Unlimited && attempts >= limit {
			return exhausted(retry.ReasonAttempts)
		}
		if o.kind == "rejected" {
			return end(own)
		}
		if len(v.events) >= len(s.delays) {
			return exhausted(retry.ReasonSchedule)
		}
		wait := s.delays[len(v.events)]
		most := s.maxRetryAfter
		if most == 0 {
			most = time.Minute
		}
		if o.after > most {
			return exhausted(retry.ReasonRetryAfter)
		}
		wait += o.after
		if s.elapsed > 0 && now-first+wait > s.elapsed {
			return exhausted(retry.ReasonElapsed)
		}
		if c.ends == "deadline" && c.endsAt-now <= wait {
			return exhausted(retry.ReasonDeadline)
		}
		if !made {
			wait = max(wait, time.Millisecond)
		} else if s.tokens >= 0 {
			if *tokens < 1 {
				return exhausted(retry.ReasonBudget)
			}
			*tokens--
		}
		attempt := attempts
		if !made {
			attempt++
		}
		v.events = append(v.events, fmt.Sprintf("attempt %d at %v, wait %v, elapsed %v, error %d", attempt, now, wait, now-first, run))
		if c.ends != "never" && c.endsAt < now+wait {
			now, refusal = c.endsAt, -1 // the context ended the call, not the refusal
			return exhausted(retry.ReasonContext)
		}
		now += wait
	}
}

// A runError is the error of one run.
type runError struct{ run int }

func (e *runError) Error() string { return fmt.Sprint("run ", e.run) }

// A player plays a scenario with the real retry, in a bubble.
type player struct {
	scenario
	policy resilience.Policy
	call   call // the current call; the following fields belong to it
	began  time.Time
	run    int
	starts int
	v      verdict
}

func (s scenario) actual() (verdicts []verdict) {
	p := &player{scenario: s}
	p.policy = p.newPolicy()
	for _, p.call = range s.calls {
		p.began, p.run, p.starts, p.v = time.Now(), -1, 0, verdict{}
		p.play()
		verdicts = append(verdicts, p.v)
		time.Sleep(time.Second)
	}
	return verdicts
}

func (p *player) newPolicy() resilience.Policy {
	config := retry.Config{
		MaxAttempts: p.attempts, MaxElapsed: p.elapsed, MaxRetryAfter: p.maxRetryAfter, RetryRefused: p.retryRefused,
		Backoff: func() backoff.BackOff { return &listed{delays: p.delays} },
		RetryIf: func(err error) bool { return runOf(err) < 0 || p.call.outcome(runOf(err)).kind != "rejected" },
		OnRetry: func(_ context.Context, e retry.Event) {
			p.v.events = append(p.v.events, fmt.Sprintf("attempt %d at %v, wait %v, elapsed %v, error %d",
				e.Attempt, time.Since(p.began), e.Delay, e.Elapsed, runOf(e.Err)))
		},
	}
	if p.tokens >= 0 {
		config.Budget = budget.New(budget.Config{Ratio: 1, TTL: 10 * time.Hour})
		for range p.tokens {
			config.Budget.Deposit()
		}
	}
	inner := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		p.run++
		p.v.begins = append(p.v.begins, fmt.Sprint(time.Since(p.began), " attempt ", retry.Attempt(ctx)))
		if p.call.outcome(p.run).kind == "refused" {
			return p.call.errorOf(p.run)
		}
		return next.Run(ctx)
	})
	policies := resilience.Pipeline{retry.New(config), inner}
	if p.once {
		policies = append(resilience.Pipeline{resilience.AtMostOnce}, policies...)
	}
	return policies
}

func (p *player) effector(ctx context.Context) (int, error) {
	p.starts++
	o := p.call.outcome(p.run)
	timer := time.NewTimer(o.takes)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return p.starts, &runError{p.run}
	}
	switch o.kind {
	case "ok":
		return p.starts, nil
	case "panics":
		panic(&runError{p.run})
	case "exits":
		runtime.Goexit()
	}
	return p.starts, p.call.errorOf(p.run)
}

var errCause = errors.New("cause")

// play makes the call on its own goroutine, because runtime.Goexit ends that.
func (p *player) play() {
	ctx := context.Background()
	switch p.call.ends {
	case "canceled":
		c, cancel := context.WithCancelCause(ctx)
		ctx = c
		timer := time.AfterFunc(p.call.endsAt, func() { cancel(errCause) })
		defer timer.Stop()
		if p.call.endsAt <= 0 {
			cancel(errCause)
		}
	case "deadline":
		c, cancel := context.WithDeadlineCause(ctx, p.began.Add(p.call.endsAt), errCause)
		defer cancel()
		ctx = c
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		returned := false
		defer func() {
			p.v.ends = time.Since(p.began)
			if value := recover(); value != nil {
				p.v.err = fmt.Sprint("panics ", value.(*runError).run)
			} else if !returned {
				p.v.err = fmt.Sprint("exits ", p.run)
			}
		}()
		value, err := resilience.Do(ctx, p.policy, p.effector)
		p.v.value, p.v.err, returned = value, p.text(ctx, err), true
	}()
	<-ended
}

// text describes an error in the way of verdict.err.
func (p *player) text(ctx context.Context, err error) (text string) {
	var exhausted *retry.ExhaustedError
	switch {
	case err == nil:
		return "nil"
	case errors.As(err, &exhausted):
		text = fmt.Sprintf("exhausted %v after %d attempts: last %d, refusal %d", exhausted.Reason, exhausted.Attempts, runOf(exhausted.Err), refusalOf(exhausted))
		if ended := errors.Is(err, errCause) && errors.Is(err, ctx.Err()); ended != (exhausted.Reason == retry.ReasonContext) {
			text += ", with the wrong error for the context's end"
		}
		if errors.Is(err, context.DeadlineExceeded) != (exhausted.Reason == retry.ReasonDeadline || exhausted.Reason == retry.ReasonContext && p.call.ends == "deadline") {
			text += ", with the wrong error for the deadline"
		}
	case errors.Is(err, errCause):
		return "context"
	default:
		text = fmt.Sprint("bare ", runOf(err))
		var mark *backoff.PermanentError
		if errors.As(err, &mark) {
			text += ", marked"
		}
	}
	return text
}

func (c call) errorOf(run int) error {
	o := c.outcome(run)
	var err error = &runError{run}
	if o.after > 0 {
		err = resilience.WithRetryAfter(err, o.after)
	}
	switch o.kind {
	case "permanent":
		err = retry.Permanent(err)
	case "not made":
		err = resilience.NotMade(err)
	case "refused":
		err = refused{err}
	}
	return err
}

type refused struct{ error }

func (r refused) Unwrap() []error { return []error{r.error, resilience.ErrRefused} }

// runOf returns the run that err comes from, -1 if it comes from none.
func runOf(err error) int {
	var own *runError
	if errors.As(err, &own) {
		return own.run
	}
	return -1
}

// refusalOf returns the run of the refusal that ended the call after attempts that were made, -1 if
// there is none.
func refusalOf(e *retry.ExhaustedError) int {
	found := -1
	for _, err := range e.Unwrap() {
		if err != e.Err && errors.Is(err, resilience.ErrRefused) {
			found = runOf(err)
		}
	}
	return found
}

// listed is a schedule of the given delays.
type listed struct {
	delays []time.Duration
	next   int
}

func (l *listed) Reset() { l.next = 0 }
func (l *listed) NextBackOff() time.Duration {
	if l.next >= len(l.delays) {
		return backoff.Stop
	}
	l.next++
	return l.delays[l.next-1]
}

func TestRetryMatchesModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := draw(rt)
		var got []verdict
		synctest.Test(t, func(*testing.T) { got = s.actual() })
		if want := s.expected(); fmt.Sprint(got) != fmt.Sprint(want) {
			rt.Fatalf("%+v: got\n\t%+v, want\n\t%+v", s, got, want)
		}
	})
}
