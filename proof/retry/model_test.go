// Package retry holds the real retry against a plain function that says, from the design alone, what a call comes to: when each attempt begins, when the call
// ends, and with what.
package retry

import (
	"context"
	"errors"
	"fmt"
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

// An outcome is what a run of the call comes to.
type outcome struct {
	kind  string // ok, failed, permanent, rejected (by RetryIf), refused (by a policy further in)
	takes time.Duration
	after time.Duration // RetryAfter
}

// A scenario is a retry, a call and a ctx.
type scenario struct {
	attempts      int
	elapsed       time.Duration
	maxRetryAfter time.Duration
	delays        []time.Duration // then the schedule stops
	retryRefused  bool
	tokens        int // of the budget; negative: no budget
	once          bool

	outcomes []outcome // of the runs; the last one again and again
	ends     string    // the ctx: never, canceled, deadline
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
		ends:          rapid.SampledFrom([]string{"never", "canceled", "deadline"}).Draw(t, "ends"),
	}
	if s.retryRefused || rapid.Bool().Draw(t, "elapsed") {
		s.elapsed = time.Millisecond + ms(t, 200, "MaxElapsed")
	}
	for range rapid.IntRange(0, 8).Draw(t, "delays") {
		s.delays = append(s.delays, ms(t, 50, "delay"))
	}
	for range rapid.IntRange(1, 8).Draw(t, "runs") {
		o := outcome{kind: rapid.SampledFrom([]string{"ok", "failed", "failed", "failed", "permanent", "rejected", "refused"}).Draw(t, "kind"), takes: ms(t, 30, "takes")}
		if rapid.IntRange(0, 3).Draw(t, "asks") == 0 {
			o.after = ms(t, 30, "after")
		}
		s.outcomes = append(s.outcomes, o)
	}
	// The ctx ends between the instants at which anything else happens: which of two is first in one instant is not said.
	s.endsAt = ms(t, 300, "endsAt") - time.Millisecond/2
	return s
}

// A verdict is what a call comes to.
type verdict struct {
	begins []time.Duration // of runs
	ends   time.Duration
	err    string // nil, bare N (the error of run N), ctx, or exhausted REASON after N attempts: ERRORS
	events []string
}

func (s scenario) outcome(run int) outcome { return s.outcomes[min(run, len(s.outcomes)-1)] }

// over reports whether the ctx has ended.
func (s scenario) over(now time.Duration) bool { return s.ends != "never" && s.endsAt <= now }

// expected is the reference: the rules of retry, one after another.
func (s scenario) expected() (v verdict) {
	var now, first time.Duration
	attempts, started, failed, last, refusal := 0, false, false, -1, -1
	tokens := s.tokens
	exhausted := func(reason retry.Reason) verdict {
		v.ends = now
		v.err = fmt.Sprintf("exhausted %v after %d attempts: last %d, refusal %d", reason, attempts, last, refusal)
		return v
	}
	bare := func(err string) verdict {
		v.ends, v.err = now, err
		return v
	}
	if s.over(0) {
		return bare("ctx")
	}
	for run := 0; ; run++ {
		v.begins = append(v.begins, now)
		o := s.outcome(run)
		made := o.kind != "refused"
		own := fmt.Sprint("bare ", run)
		if made {
			if !started {
				started = true
				tokens++ // the call has paid
			}
			attempts++
			last, refusal = run, -1
			if s.ends != "never" && s.endsAt < now+o.takes {
				now = max(now, s.endsAt)
				return bare(own) // the effector heeds its ctx, and its error comes back as it is
			}
			now += o.takes
			if o.kind == "ok" {
				return bare("nil")
			}
			if s.over(now) || o.kind == "permanent" || s.once {
				return bare(own)
			}
		} else {
			if attempts == 0 {
				last = run
			} else {
				refusal = run
			}
			switch {
			case s.over(now) && attempts == 0, attempts == 0 && !(s.retryRefused && !(s.once && started)):
				return bare(own)
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
			return bare(own)
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
		if s.ends == "deadline" && s.endsAt-now <= wait {
			return exhausted(retry.ReasonDeadline)
		}
		if !made {
			wait = max(wait, time.Millisecond)
		} else if s.tokens >= 0 {
			if tokens < 1 {
				return exhausted(retry.ReasonBudget)
			}
			tokens--
		}
		attempt := attempts
		if !made {
			attempt++
		}
		v.events = append(v.events, fmt.Sprintf("attempt %d at %v, wait %v, elapsed %v, error %d", attempt, now, wait, now-first, run))
		if s.ends != "never" && s.endsAt < now+wait {
			now, refusal = s.endsAt, -1 // what ended it is the ctx
			return exhausted(retry.ReasonContext)
		}
		now += wait
	}
}

// A runError is the error of one run.
type runError struct{ run int }

func (e *runError) Error() string { return fmt.Sprint("run ", e.run) }

// actual plays the scenario with the real retry, in a bubble.
func (s scenario) actual() (v verdict) {
	began := time.Now()
	ctx := context.Background()
	cause := errors.New("cause")
	switch {
	case s.ends == "canceled":
		c, cancel := context.WithCancelCause(ctx)
		ctx = c
		time.AfterFunc(s.endsAt, func() { cancel(cause) })
		if s.endsAt <= 0 {
			cancel(cause)
		}
	case s.ends == "deadline":
		c, cancel := context.WithDeadlineCause(ctx, began.Add(s.endsAt), cause)
		defer cancel()
		ctx = c
	}
	config := retry.Config{
		MaxAttempts: s.attempts, MaxElapsed: s.elapsed, MaxRetryAfter: s.maxRetryAfter, RetryRefused: s.retryRefused,
		Backoff: func() backoff.BackOff { return &listed{delays: s.delays} },
		RetryIf: func(err error) bool { return runOf(err) < 0 || s.outcome(runOf(err)).kind != "rejected" },
		OnRetry: func(e retry.Event) {
			v.events = append(v.events, fmt.Sprintf("attempt %d at %v, wait %v, elapsed %v, error %d", e.Attempt, time.Since(began), e.Delay, e.Elapsed, runOf(e.Err)))
		},
	}
	if s.tokens >= 0 {
		config.Budget = budget.New(budget.Config{Ratio: 1, TTL: time.Hour})
		for range s.tokens {
			config.Budget.Deposit()
		}
	}
	run := -1
	inner := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		run++
		v.begins = append(v.begins, time.Since(began))
		if o := s.outcome(run); o.kind == "refused" {
			return s.errorOf(run)
		}
		return next.Run(ctx)
	})
	effector := func(ctx context.Context) (int, error) {
		o := s.outcome(run)
		timer := time.NewTimer(o.takes)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return 0, &runError{run}
		}
		if o.kind == "ok" {
			return run, nil
		}
		return run, s.errorOf(run)
	}
	policies := resilience.Pipeline{retry.New(config), inner}
	if s.once {
		policies = append(resilience.Pipeline{resilience.AtMostOnce}, policies...)
	}
	_, err := resilience.Do(ctx, policies, effector)
	v.ends = time.Since(began)
	var exhausted *retry.ExhaustedError
	switch {
	case err == nil:
		v.err = "nil"
	case errors.As(err, &exhausted):
		v.err = fmt.Sprintf("exhausted %v after %d attempts: last %d, refusal %d", exhausted.Reason, exhausted.Attempts, runOf(exhausted.Err), refusalOf(exhausted))
		if ended := errors.Is(err, cause) && errors.Is(err, ctx.Err()); ended != (exhausted.Reason == retry.ReasonContext) {
			v.err += ", and the ctx's end is not told as it should"
		}
		if errors.Is(err, context.DeadlineExceeded) != (exhausted.Reason == retry.ReasonDeadline || exhausted.Reason == retry.ReasonContext && s.ends == "deadline") {
			v.err += ", and the deadline is not told as it should"
		}
	case errors.Is(err, cause):
		v.err = "ctx"
	default:
		v.err = fmt.Sprint("bare ", runOf(err))
		var mark *backoff.PermanentError
		if errors.As(err, &mark) {
			v.err += ", marked"
		}
	}
	return v
}

func (s scenario) errorOf(run int) error {
	o := s.outcome(run)
	var err error = &runError{run}
	if o.after > 0 {
		err = resilience.WithRetryAfter(err, o.after)
	}
	switch o.kind {
	case "permanent":
		err = retry.Permanent(err)
	case "refused":
		err = refused{err}
	}
	return err
}

type refused struct{ error }

func (r refused) Unwrap() []error { return []error{r.error, resilience.ErrRefused} }

// runOf is the run whose error err is; -1 if it is none's.
func runOf(err error) int {
	var own *runError
	if errors.As(err, &own) {
		return own.run
	}
	return -1
}

// refusalOf is the run of the refusal that ended the call after attempts that were made.
func refusalOf(e *retry.ExhaustedError) int {
	found := -1
	for _, err := range e.Unwrap() {
		if err != e.Err && errors.Is(err, resilience.ErrRefused) {
			found = runOf(err)
		}
	}
	return found
}

// listed is a schedule of given delays.
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

func TestRetryIsAsDesigned(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := draw(rt)
		var got verdict
		synctest.Test(t, func(*testing.T) { got = s.actual() })
		if want := s.expected(); fmt.Sprint(got) != fmt.Sprint(want) {
			rt.Fatalf("%+v:\n\t%+v, want\n\t%+v", s, got, want)
		}
	})
}

func TestMain(m *testing.M) { cases.Main(m, 3000, 0) }
