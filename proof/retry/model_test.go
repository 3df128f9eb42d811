// Package retry compares retry with a model: a plain function that computes from the design alone
// when each attempt of a call begins, when the call ends, and with what result.
package retry

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
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
	// ok, failed, rejected (by RetryIf), refused (by an inner policy), panics, exits.
	kind  string
	takes time.Duration
	after time.Duration // RetryAfter
	// Marks of the error, the outermost first: NotFailure, Contention, CallerFault, NotMade,
	// Permanent, and wrapped, which hides the marks after it.
	marks []string
}

// mark returns the outermost of NotFailure, Contention, and CallerFault that counts, or "".
func (o outcome) mark() string {
	for _, m := range o.marks {
		switch m {
		case "wrapped":
			return ""
		case "NotFailure", "Contention", "CallerFault":
			return m
		}
	}
	return ""
}

func (o outcome) notMade() bool {
	for _, m := range o.marks {
		if m == "wrapped" || m == "NotMade" {
			return m == "NotMade"
		}
	}
	return false
}

func (o outcome) permanent() bool { return slices.Contains(o.marks, "Permanent") }

// settings are a retry's configuration.
type settings struct {
	attempts      int
	elapsed       time.Duration
	maxRetryAfter time.Duration
	resetAfter    time.Duration
	delays        []time.Duration // of each series; after them the schedule stops
	retryRefused  bool
	budgeted      bool
}

// A scenario is the calls that are made through a retry one after another, under changing settings.
type scenario struct {
	tokens int // of the budget, which the calls share
	once   bool

	first settings
	calls []call
}

type call struct {
	outcomes []outcome // of the runs; the last one is repeated
	ends     string    // how the context ends: never, canceled, deadline
	endsAt   time.Duration

	changesAt time.Duration // when the settings change, during the call or after it; 0: never
	next      settings      // of the following calls
}

func ms(t *rapid.T, most int, label string) time.Duration {
	return time.Duration(rapid.IntRange(0, most).Draw(t, label)) * time.Millisecond
}

func draw(t *rapid.T) scenario {
	s := scenario{
		tokens: rapid.IntRange(0, 4).Draw(t, "tokens"),
		once:   rapid.IntRange(0, 4).Draw(t, "once") == 0,
		first:  drawSettings(t),
	}
	for range rapid.IntRange(1, 4).Draw(t, "calls") {
		s.calls = append(s.calls, drawCall(t))
	}
	return s
}

const resetAfter = 15 * time.Millisecond

func drawSettings(t *rapid.T) settings {
	s := settings{
		attempts:      rapid.SampledFrom([]int{0, 1, 2, 3, 5, retry.Unlimited}).Draw(t, "MaxAttempts"),
		maxRetryAfter: rapid.SampledFrom([]time.Duration{0, 20 * time.Millisecond}).Draw(t, "MaxRetryAfter"),
		retryRefused:  rapid.Bool().Draw(t, "RetryRefused"),
		budgeted:      rapid.Bool().Draw(t, "Budget"),
	}
	if rapid.Bool().Draw(t, "resets") {
		s.resetAfter = resetAfter
	}
	if s.retryRefused || rapid.Bool().Draw(t, "elapsed") {
		s.elapsed = time.Millisecond + ms(t, 200, "MaxElapsed")
	}
	for range rapid.IntRange(0, 8).Draw(t, "delays") {
		s.delays = append(s.delays, ms(t, 50, "delay"))
	}
	return s
}

func drawCall(t *rapid.T) call {
	kinds := []string{"failed", "failed", "failed", "failed", "failed", "failed", "ok", "rejected", "refused", "panics", "exits"}
	marks := []string{"NotFailure", "Contention", "Contention", "CallerFault", "NotMade", "NotMade", "Permanent", "wrapped"}
	c := call{ends: rapid.SampledFrom([]string{"never", "canceled", "deadline"}).Draw(t, "ends")}
	for range rapid.IntRange(1, 8).Draw(t, "runs") {
		o := outcome{kind: rapid.SampledFrom(kinds).Draw(t, "kind"), takes: ms(t, 30, "takes")}
		if rapid.IntRange(0, 3).Draw(t, "asks") == 0 {
			o.after = ms(t, 30, "after")
		}
		if rapid.IntRange(0, 2).Draw(t, "marked") == 0 {
			o.marks = rapid.SliceOfN(rapid.SampledFrom(marks), 1, 3).Draw(t, "marks")
		}
		c.outcomes = append(c.outcomes, o)
	}
	// The last outcome is repeated: if it began a new series each time, the call would never end.
	c.outcomes[len(c.outcomes)-1].takes %= resetAfter
	// The context ends between the instants at which anything else happens, because the order of
	// two events at the same instant is undefined.
	c.endsAt = ms(t, 300, "endsAt") - time.Millisecond/2
	if rapid.Bool().Draw(t, "changes") {
		c.changesAt = ms(t, 300, "changesAt") + time.Millisecond/4
		c.next = drawSettings(t)
	}
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
	tokens, current := s.tokens, s.first
	for _, c := range s.calls {
		verdicts = append(verdicts, current.expectedOf(c, s.once, &tokens))
		if c.changesAt > 0 {
			current = c.next
		}
	}
	return verdicts
}

func (s settings) expectedOf(c call, once bool, tokens *int) (v verdict) {
	var now, first time.Duration
	starts, attempts, failed, last, refusal := 0, 0, false, -1, -1
	delays := s.delays
	exhausted := func(reason retry.Reason) verdict {
		v.ends = now
		elapsed := time.Duration(0)
		if failed {
			elapsed = now - first
		}
		v.err = fmt.Sprintf("exhausted %v after %d attempts and %v: last %d, refusal %d", reason, attempts, elapsed, last, refusal)
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
		stops := o.mark() == "NotFailure" || o.mark() == "CallerFault"
		if made {
			attempts++
			starts++
			canceled := c.ends != "never" && c.endsAt < now+o.takes
			fault := o.mark() == "CallerFault" && !canceled && (o.kind == "failed" || o.kind == "rejected")
			if starts == 1 && s.budgeted && !fault {
				*tokens++ // the call's deposit
			}
			last, refusal = run, -1
			if canceled {
				now, v.value = max(now, c.endsAt), starts
				// The effector ends with its context, and its error is returned unchanged.
				return end(own)
			}
			now += o.takes
			switch o.kind {
			case "panics", "exits":
				v.value = 0 // the call returns none
				return end(fmt.Sprint(o.kind, " ", run))
			}
			v.value = starts
			if o.kind == "ok" {
				return end("nil")
			}
			if stops || c.over(now) || o.permanent() || once && !o.notMade() {
				return end(own)
			}
			if s.resetAfter > 0 && o.takes >= s.resetAfter {
				attempts, failed, delays = 1, false, s.delays
			}
		} else {
			if attempts == 0 {
				last = run
			} else {
				refusal = run
			}
			ends := !s.retryRefused || o.permanent()
			switch {
			case stops || attempts == 0 && (c.over(now) || ends):
				return end(own)
			case ends:
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
		if len(delays) == 0 {
			return exhausted(retry.ReasonSchedule)
		}
		wait := delays[0]
		delays = delays[1:]
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
		} else if s.budgeted {
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
	retry  *retry.Retry
	budget *budget.Budget
	policy resilience.Policy

	call     call // the current call; the following fields belong to it
	began    time.Time
	run      int
	starts   int
	v        verdict
	errs     []error // of the runs
	returned error   // by the retry
	gaveUp   []*retry.ExhaustedError
}

func (s scenario) actual() (verdicts []verdict) {
	p := &player{scenario: s}
	p.policy = p.newPolicy()
	for _, p.call = range s.calls {
		p.began, p.run, p.starts, p.v = time.Now(), -1, 0, verdict{}
		p.errs, p.returned, p.gaveUp = nil, nil, nil
		if p.call.changesAt > 0 {
			next := p.config(p.call.next) // made here: the timer's goroutine must not read p.call
			time.AfterFunc(p.call.changesAt, func() {
				if err := p.retry.SetConfig(next); err != nil {
					panic(err)
				}
			})
		}
		p.play()
		verdicts = append(verdicts, p.v)
		time.Sleep(time.Second)
	}
	return verdicts
}

func (p *player) config(s settings) retry.Config {
	config := retry.Config{
		MaxAttempts: s.attempts, MaxElapsed: s.elapsed, MaxRetryAfter: s.maxRetryAfter, RetryRefused: s.retryRefused,
		ResetAfter: s.resetAfter,
		Backoff:    func() backoff.BackOff { return &listed{delays: s.delays} },
		RetryIf:    func(err error) bool { return runOf(err) < 0 || p.call.outcome(runOf(err)).kind != "rejected" },
		OnRetry: func(_ context.Context, e retry.Event) {
			p.v.events = append(p.v.events, fmt.Sprintf("attempt %d at %v, wait %v, elapsed %v, error %d",
				e.Attempt, time.Since(p.began), e.Delay, e.Elapsed, runOf(e.Err)))
		},
		OnGiveUp: func(_ context.Context, err *retry.ExhaustedError) { p.gaveUp = append(p.gaveUp, err) },
	}
	if s.budgeted {
		config.Budget = p.budget
	}
	return config
}

func (p *player) newPolicy() resilience.Policy {
	p.budget = budget.New(budget.Config{Ratio: 1, TTL: 10 * time.Hour})
	for range p.tokens {
		p.budget.Deposit()
	}
	p.retry = retry.New(p.config(p.first))
	outer := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		p.returned = next.Run(ctx)
		return p.returned
	})
	inner := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		p.run++
		p.v.begins = append(p.v.begins, fmt.Sprint(time.Since(p.began), " attempt ", retry.Attempt(ctx)))
		var err error
		if p.call.outcome(p.run).kind == "refused" {
			err = p.call.errorOf(p.run)
		} else {
			err = next.Run(ctx)
		}
		p.errs = append(p.errs, err)
		return err
	})
	policies := resilience.Pipeline{outer, p.retry, inner}
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
		text = fmt.Sprintf("exhausted %v after %d attempts and %v: last %d, refusal %d",
			exhausted.Reason, exhausted.Attempts, exhausted.Elapsed, runOf(exhausted.Err), refusalOf(exhausted))
		if len(p.gaveUp) != 1 || error(p.gaveUp[0]) != err {
			text += fmt.Sprintf(", OnGiveUp was called with %v", p.gaveUp)
		}
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
		want := p.errs[len(p.errs)-1]
		if permanent, ok := want.(*backoff.PermanentError); ok {
			want = permanent.Err
		}
		if p.returned != want || p.gaveUp != nil {
			text += fmt.Sprintf(", not unchanged, or OnGiveUp was called with %v", p.gaveUp)
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
	if o.kind == "refused" {
		err = refused{err}
	}
	for _, m := range slices.Backward(o.marks) {
		err = markers[m](err)
	}
	return err
}

var markers = map[string]func(error) error{
	"NotFailure":  resilience.NotFailure,
	"Contention":  resilience.Contention,
	"CallerFault": resilience.CallerFault,
	"NotMade":     resilience.NotMade,
	"Permanent":   retry.Permanent,
	"wrapped":     func(err error) error { return fmt.Errorf("wrapped: %w", err) },
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
