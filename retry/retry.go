// Package retry repeats failed calls, after a wait that gives the dependency time to recover and
// spreads out the retries of many callers.
//
//	retries := retry.New(retry.Config{Name: "payments", MaxAttempts: 4, Budget: extra})
//
//	getUser := resilience.Compose(fetchUser, timeout.After(3*time.Second), retries, timeout.After(time.Second))
//
//	conn, err := retry.Do(ctx, retries, dial) // alone, without a pipeline
//
// Retry failures that are rare and short: a lost connection, a restarting server, a lock that
// another transaction holds. Don't retry
//
//   - what will fail again, such as a bad request: see [resilience.NotFailure], [Permanent], and
//     Config.RetryIf;
//   - what must not happen twice: see [resilience.AtMostOnce];
//   - on more than one level: three levels of three attempts are 27 calls.
//
// Retries add load when a dependency can least afford it; a [budget.Budget] bounds the added load.
//
// The waits come from a schedule: one of this package ([FullJitter] and others), or any schedule of
// github.com/cenkalti/backoff/v4.
//
// A call that succeeds at the first attempt costs a few nanoseconds, allocates nothing, reads no
// clock, and creates no schedule (BenchmarkDo). In addition to the wait, a failed attempt costs a
// few hundred nanoseconds and a few small allocations.
package retry

import (
	"context"
	"math"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/internal/clock"
	"github.com/effector-go/resilience/internal/describe"
	"github.com/effector-go/resilience/internal/mark"
	"github.com/effector-go/resilience/internal/permanent"
)

// A Retry is a policy that repeats a call as long as it fails and the [Config] allows another
// attempt. The wait before an attempt is the error's RetryAfter ([resilience.RetryAfter]) plus the
// schedule's delay: the server's requested delay is honored, and its clients don't return all at
// the same instant.
//
// Errors that aren't retried are returned unchanged, except that an outermost [Permanent] mark is
// removed. These are
//
//   - errors that are marked as [resilience.NotFailure] or [resilience.CallerFault];
//   - permanent errors;
//   - errors that RetryIf rejects;
//   - errors of calls that must not be repeated;
//   - refusals before the first attempt was made;
//   - any error once the caller's context is done.
//
// Errors that are marked as [resilience.Contention] are retried like unmarked ones. If retrying ends
// for any other reason, the call returns an [*ExhaustedError].
//
// Most callers pass a Retry to [resilience.Compose]; [Do] uses it alone. Create a Retry with [New].
// It keeps no state between calls and is safe for concurrent use.
type Retry struct {
	// config is valid and has its defaults, except that of Backoff. New and SetConfig write it, and
	// what it points to never changes. Each call loads it once.
	config atomic.Pointer[Config]
}

// New creates a Retry. It panics with the text of [Config.Validate] if the config is invalid.
func New(config Config) *Retry {
	r := new(Retry)
	if err := r.SetConfig(config); err != nil {
		panic(err.Error())
	}
	return r
}

// Name returns the Config's Name.
func (r *Retry) Name() string { return r.config.Load().Name }

// Config returns the Config in use, with the defaults filled in. Functions and a Budget that weren't
// set are nil.
func (r *Retry) Config() Config { return *r.config.Load() }

// SetConfig replaces the Config for calls that begin after it. A call in progress finishes with the
// Config that it began with. If the config is invalid, SetConfig changes nothing and returns the
// error of [Config.Validate]. It is safe for concurrent use.
func (r *Retry) SetConfig(config Config) error {
	if err := config.Validate(); err != nil {
		return err
	}
	config = config.withDefaults()
	r.config.Store(&config)
	return nil
}

// Report describes the policy. It has no values.
func (r *Retry) Report() resilience.Report {
	c := r.Config()
	return resilience.Report{Kind: "retry", Name: c.Name, Config: describe.Config(c)}
}

// Do calls fn until it succeeds or r gives up. It returns the value of the last call, and the error
// that [Retry] describes. Every call of fn is an attempt, whatever its error. If an earlier attempt
// may have had an effect, [resilience.NotMade] marks are removed from the last attempt's error.
//
// If ctx is already done, Do makes no call and returns [resilience.ContextErr]. The values of
// failed attempts are lost: if they hold resources, use a pipeline with [resilience.Discard]. Do
// panics if r or fn is nil.
func Do[T any](ctx context.Context, r *Retry, fn func(ctx context.Context) (T, error)) (T, error) {
	if r == nil {
		panic("retry: Do: r is nil, must be a Retry made by New")
	}
	if fn == nil {
		panic("retry: Do: fn is nil, must be a function")
	}
	if ctx.Err() != nil {
		var zero T
		return zero, resilience.ContextErr(ctx)
	}
	config := r.config.Load()
	begun := config.now()
	var value T
	var err error
	if config.Budget == nil {
		value, err = fn(numbered(ctx, 1))
	} else {
		value, err = firstWithDeposit(ctx, config.Budget, fn)
	}
	if err == nil {
		return value, nil
	}
	return again(ctx, config, fn, begun, value, err)
}

// firstWithDeposit makes the first call and then deposits into the budget, even if the call panics.
func firstWithDeposit[T any](ctx context.Context, b *budget.Budget, fn func(ctx context.Context) (T, error)) (value T, err error) {
	defer func() {
		if mark.Of(err) != mark.CallerFault {
			b.Deposit()
		}
	}()
	return fn(numbered(ctx, 1))
}

// again continues Do after the first failure, of an attempt that began at the given time.
func again[T any](ctx context.Context, config *Config, fn func(context.Context) (T, error), begun int64, value T, err error) (T, error) {
	s := series{config: config}
	effect := false // an earlier attempt may have had an effect
	for {
		delay, end := s.failed(ctx, err, begun, true, true)
		if end == nil {
			end = s.wait(ctx, delay)
		}
		if end != nil {
			if effect {
				end = mark.WithoutNotMade(end)
			}
			return value, end
		}
		effect = effect || !mark.IsNotMade(err)
		begun = config.now()
		value, err = fn(numbered(ctx, s.attempts+1))
		if err == nil {
			return value, nil
		}
	}
}

// Run implements [resilience.Policy]. A run of next counts as an attempt if it started the
// effector, and doesn't if an inner policy refused it. The value of a failed attempt is discarded
// before the wait (see [resilience.Discard]).
func (r *Retry) Run(ctx context.Context, next resilience.Next) error {
	config := r.config.Load()
	starts := next.Starts()
	begun := config.now()
	err := config.run(ctx, next, starts, 1)
	if err == nil {
		return nil
	}
	return config.again(ctx, next, starts, begun, err)
}

// again continues Run after the first failure, of a run that began at the given time. starts is how
// often the effector had been started before.
func (c *Config) again(ctx context.Context, next resilience.Next, starts int, begun int64, err error) error {
	s := series{config: c}
	for {
		before := starts
		starts = next.Starts()
		delay, end := s.failed(ctx, err, begun, starts != before, next.Repeatable())
		if end != nil {
			return end
		}
		next.Discard()
		if end := s.wait(ctx, delay); end != nil {
			return end
		}
		begun = c.now()
		if err = c.run(ctx, next, starts, s.attempts+1); err == nil {
			return nil
		}
	}
}

// run runs next for attempt n. starts is how often the effector had been started before.
func (c *Config) run(ctx context.Context, next resilience.Next, starts, n int) error {
	ctx = numbered(ctx, n)
	if c.Budget == nil {
		return next.Run(ctx)
	}
	return c.runWithDeposit(ctx, next, starts)
}

func (c *Config) runWithDeposit(ctx context.Context, next resilience.Next, starts int) (err error) {
	// Deferred, so that a run that panics deposits too.
	defer func() { c.deposit(next, starts, err) }()
	return next.Run(ctx)
}

// deposit deposits into the budget if the last run, which returned err, made the call for the first
// time. A call that an open breaker refuses deposits nothing, and neither does one that ended by the
// caller's fault. If several policies share the budget, only one of them deposits. before is Starts
// before the run.
func (c *Config) deposit(next resilience.Next, before int, err error) {
	if before == 0 && next.Starts() > 0 && mark.Of(err) != mark.CallerFault && next.FirstTime(c.Budget) {
		c.Budget.Deposit()
	}
}

// series is the state of one call after its first failure.
type series struct {
	config   *Config
	schedule backoff.BackOff // nil until the first delay is needed
	first    time.Time       // time of the first failure
	attempts int             // number of attempts made so far
	last     error           // of the last attempt that was made; the last refusal if none was made
	refusal  error           // of the last run, if it was refused after attempts that were made
}

// failed decides what follows a run that began at the given time and failed with err: either end,
// the error that the call returns, or another run after the wait. made reports whether the run was
// an attempt.
func (s *series) failed(ctx context.Context, err error, begun int64, made, repeatable bool) (wait time.Duration, end error) {
	config := s.config
	if kind := mark.Of(err); kind == mark.NotFailure || kind == mark.CallerFault {
		return 0, permanent.Without(err)
	}
	if made {
		s.attempts++
		s.last, s.refusal = err, nil
		if ctx.Err() != nil || permanent.Is(err) || !repeatable {
			return 0, permanent.Without(err)
		}
	} else {
		if s.attempts == 0 {
			s.last = err
		} else {
			s.refusal = err
		}
		if ctx.Err() != nil || !repeatable || !config.RetryRefused || permanent.Is(err) {
			return 0, s.refused(ctx, err)
		}
	}
	now := time.Now()
	if made && config.ResetAfter > 0 && time.Duration(clock.Of(now)-begun) >= config.ResetAfter {
		s.restart()
	}
	if s.first.IsZero() {
		s.first = now
	}
	if config.MaxAttempts != Unlimited && s.attempts >= config.MaxAttempts {
		return 0, s.exhausted(ctx, ReasonAttempts, now, 0, nil)
	}
	if config.RetryIf != nil && !config.RetryIf(err) {
		if made {
			return 0, permanent.Without(err)
		}
		return 0, s.refused(ctx, err)
	}
	if wait, end = s.delay(ctx, err, now); end != nil {
		return 0, end
	}
	if !made {
		wait = max(wait, minRefusedWait)
	} else if config.Budget != nil && !config.Budget.Withdraw() { // not returned if the next run is refused
		return 0, s.exhausted(ctx, ReasonBudget, now, wait, nil)
	}
	if config.OnRetry != nil {
		attempt := s.attempts
		if !made {
			attempt++
		}
		config.OnRetry(ctx, Event{config.Name, attempt, err, wait, now.Sub(s.first)})
	}
	return wait, nil
}

// restart begins a new series with the attempt that has just failed as its first one.
func (s *series) restart() {
	s.attempts, s.first = 1, time.Time{}
	if s.schedule != nil {
		s.schedule.Reset()
	}
}

// minRefusedWait prevents a busy loop if refusals have no RetryAfter and the schedule has no delay.
const minRefusedWait = time.Millisecond

// delay returns the wait before the next run, or the call's final error if that wait isn't allowed.
func (s *series) delay(ctx context.Context, err error, now time.Time) (time.Duration, error) {
	config := s.config
	if s.schedule == nil {
		s.schedule = config.newSchedule()
		s.schedule.Reset()
	}
	wait := s.schedule.NextBackOff()
	if wait < 0 {
		return 0, s.exhausted(ctx, ReasonSchedule, now, 0, nil)
	}
	if after, ok := resilience.RetryAfter(err); ok {
		if after > config.MaxRetryAfter {
			return 0, s.exhausted(ctx, ReasonRetryAfter, now, after, nil)
		}
		wait = sum(wait, after)
	}
	if config.MaxElapsed > 0 && sum(now.Sub(s.first), wait) > config.MaxElapsed {
		return 0, s.exhausted(ctx, ReasonElapsed, now, wait, nil)
	}
	if deadline, ok := ctx.Deadline(); ok && deadline.Sub(now) <= wait {
		return 0, s.exhausted(ctx, ReasonDeadline, now, wait, context.DeadlineExceeded)
	}
	return wait, nil
}

// wait waits for delay, and returns the call's final error if ctx is done by then.
func (s *series) wait(ctx context.Context, delay time.Duration) error {
	if delay > 0 {
		timer := time.NewTimer(delay)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
	if ctx.Err() == nil {
		return nil
	}
	return s.exhausted(ctx, ReasonContext, time.Now(), 0, resilience.ContextErr(ctx))
}

// refused returns the call's final error after a refusal that isn't retried.
func (s *series) refused(ctx context.Context, err error) error {
	if s.attempts == 0 {
		return permanent.Without(err)
	}
	if ctx.Err() != nil {
		return s.exhausted(ctx, ReasonContext, time.Now(), 0, resilience.ContextErr(ctx))
	}
	return s.exhausted(ctx, ReasonRefused, time.Now(), 0, nil)
}

// exhausted creates the error that the call is about to return.
func (s *series) exhausted(ctx context.Context, reason Reason, now time.Time, wait time.Duration, cause error) error {
	e := &ExhaustedError{Name: s.config.Name, Attempts: s.attempts, Reason: reason, Err: s.last, wait: wait, cause: cause}
	if !s.first.IsZero() {
		e.Elapsed = now.Sub(s.first)
	}
	if reason != ReasonContext {
		e.refusal = s.refusal
	}
	if s.config.OnGiveUp != nil {
		s.config.OnGiveUp(ctx, e)
	}
	return e
}

// sum returns a + b for durations that aren't negative, capped at the largest duration.
func sum(a, b time.Duration) time.Duration {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// Permanent marks an error that must not be retried. It is v4's [backoff.Permanent]. The mark
// counts anywhere in an error's tree. The call returns the error unchanged, except that an
// outermost mark is removed. Permanent returns nil if err is nil.
func Permanent(err error) error { return permanent.New(err) }

type attemptKey struct{}

// Attempt returns the number, from 1, of the attempt that ctx belongs to, in the nearest enclosing
// retry. Outside any retry it returns 1. An attempt that is refused and made later keeps its
// number. With Config.ResetAfter, the number is that in the current series.
func Attempt(ctx context.Context) int {
	if n, ok := ctx.Value(attemptKey{}).(int); ok {
		return n
	}
	return 1
}

// numbered returns the context for attempt n. A first attempt is marked only if ctx carries the
// number of an outer retry.
func numbered(ctx context.Context, n int) context.Context {
	if n == 1 && ctx.Value(attemptKey{}) == nil {
		return ctx
	}
	return context.WithValue(ctx, attemptKey{}, n)
}
