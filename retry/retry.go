// Package retry makes a failed call again, after a wait that gives the dependency time and spreads the callers.
//
//	retries := retry.New(retry.Config{Name: "payments", MaxAttempts: 4, Budget: extra})
//
//	getUser := resilience.Compose(fetchUser, timeout.After(3*time.Second), retries, timeout.After(time.Second))
//
//	conn, err := retry.Do(ctx, retries, dial) // alone, without a pipeline
//
// Retry what fails seldom and briefly: a lost connection, a restarting server, a lock that another transaction holds. Do not
// retry what will fail again (a bad request: see [Permanent] and Config.RetryIf), nor what must not happen twice (see
// [resilience.AtMostOnce]), and retry on one level only: three levels of three attempts are 27 calls. Retries add load
// when a dependency has least to spare; a [budget.Budget] bounds that.
//
// The waits come from a schedule, one of this package's ([FullJitter] and others) or any of github.com/cenkalti/backoff/v4.
//
// A call that succeeds at once costs some nanoseconds, allocates nothing, reads no clock and makes no schedule
// (BenchmarkDo). A failed attempt costs some hundred nanoseconds and a few small allocations beside the wait.
package retry

import (
	"context"
	"math"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/permanent"
)

// A Retry is a policy that makes a call again as long as it fails and its [Config] allows. The wait before an attempt is
// what the error asked for ([resilience.RetryAfter]) plus the schedule's delay: the server's wish is kept, and its callers
// do not come back in the same instant.
//
// An error that is not to be retried comes back as it is, only an outermost [Permanent] mark taken off: a permanent one, one that
// RetryIf rejects, one of a call that must not be repeated, a refusal before any attempt was made, any once the caller's
// ctx is done. An error after which the retrying ended comes back in an [*ExhaustedError].
//
// Most callers give a Retry to [resilience.Compose]; [Do] uses it alone. A Retry is made by [New], keeps nothing between
// calls, and is safe for concurrent use.
type Retry struct {
	config Config // with its defaults
}

// New makes a Retry. It panics with the text of [Config.Validate] if that finds a mistake.
func New(config Config) *Retry {
	if err := config.Validate(); err != nil {
		panic(err.Error())
	}
	return &Retry{config.withDefaults()}
}

// Do calls fn until it succeeds or r gives up, and returns the last call's value and the error as [Retry] says. Every call
// of fn is an attempt, whatever its error. If ctx is already done Do makes no call and returns [resilience.ContextErr].
// The values of attempts that failed are lost: where they hold resources, use a pipeline with [resilience.Discard].
// Do panics if fn is nil.
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
	var value T
	var err error
	if r.config.Budget == nil {
		value, err = fn(numbered(ctx, 1))
	} else {
		value, err = paying(ctx, r, fn)
	}
	if err == nil {
		return value, nil
	}
	return again(ctx, r, fn, value, err)
}

// paying makes the first call and pays for it into the budget, also where it panics.
func paying[T any](ctx context.Context, r *Retry, fn func(ctx context.Context) (T, error)) (T, error) {
	defer r.config.Budget.Deposit()
	return fn(numbered(ctx, 1))
}

// again is Do from the first failure on.
func again[T any](ctx context.Context, r *Retry, fn func(context.Context) (T, error), value T, err error) (T, error) {
	s := series{retry: r}
	for {
		delay, end := s.failed(ctx, err, true, true)
		if end == nil {
			end = s.wait(ctx, delay)
		}
		if end != nil {
			return value, end
		}
		value, err = fn(numbered(ctx, s.attempts+1))
		if err == nil {
			return value, nil
		}
	}
}

// Run is the policy: see [resilience.Policy]. An attempt is a run of next that started the effector; one that a policy further
// in turned away is none. The value of a failed attempt is discarded before the wait ([resilience.Discard]).
func (r *Retry) Run(ctx context.Context, next resilience.Next) error {
	starts := next.Starts()
	err := r.run(ctx, next, starts, 1)
	if err == nil {
		return nil
	}
	return r.again(ctx, next, starts, err)
}

// again is Run from the first failure on. starts is how often the effector had been started before.
func (r *Retry) again(ctx context.Context, next resilience.Next, starts int, err error) error {
	s := series{retry: r}
	for {
		before := starts
		starts = next.Starts()
		delay, end := s.failed(ctx, err, starts != before, next.Repeatable())
		if end != nil {
			return end
		}
		next.Discard()
		if end := s.wait(ctx, delay); end != nil {
			return end
		}
		if err = r.run(ctx, next, starts, s.attempts+1); err == nil {
			return nil
		}
	}
}

// run runs next for attempt n. starts is how often the effector had been started before.
func (r *Retry) run(ctx context.Context, next resilience.Next, starts, n int) error {
	ctx = numbered(ctx, n)
	if r.config.Budget == nil {
		return next.Run(ctx)
	}
	return r.runPaying(ctx, next, starts)
}

func (r *Retry) runPaying(ctx context.Context, next resilience.Next, starts int) error {
	defer r.deposit(next, starts) // panics too
	return next.Run(ctx)
}

// deposit pays into the budget for a call that the last run made for the first time: one that an open breaker refuses gives
// the dependency's retries nothing, and of several policies that share the budget one is enough. before is Starts before the run.
func (r *Retry) deposit(next resilience.Next, before int) {
	if before == 0 && next.Starts() > 0 && next.FirstTime(r.config.Budget) {
		r.config.Budget.Deposit()
	}
}

// series is the state of one call from its first failure on.
type series struct {
	retry    *Retry
	schedule backoff.BackOff // nil until a wait is to be found
	first    time.Time       // of the first failure
	attempts int             // made so far
	last     error           // of the last attempt that was made, or of the last refusal if none was
	refusal  error           // that the run ended with if it was turned away after attempts that were made
}

// failed decides what follows a run of the call that ended with err: the call's end, or another run after the wait.
func (s *series) failed(ctx context.Context, err error, made, repeatable bool) (wait time.Duration, end error) {
	config := &s.retry.config
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
			return 0, s.turnedAway(ctx, err)
		}
	}
	now := time.Now()
	if s.first.IsZero() {
		s.first = now
	}
	if config.MaxAttempts != Unlimited && s.attempts >= config.MaxAttempts {
		return 0, s.exhausted(ReasonAttempts, now, 0, nil)
	}
	if config.RetryIf != nil && !config.RetryIf(err) {
		if made {
			return 0, permanent.Without(err)
		}
		return 0, s.turnedAway(ctx, err)
	}
	if wait, end = s.delay(ctx, err, now); end != nil {
		return 0, end
	}
	if !made {
		wait = max(wait, minRefusedWait)
	} else if config.Budget != nil && !config.Budget.Withdraw() { // an attempt that is refused stays paid for
		return 0, s.exhausted(ReasonBudget, now, wait, nil)
	}
	if config.OnRetry != nil {
		attempt := s.attempts
		if !made {
			attempt++
		}
		config.OnRetry(Event{config.Name, attempt, err, wait, now.Sub(s.first)})
	}
	return wait, nil
}

// minRefusedWait keeps a refusal without RetryAfter and a schedule without delay from being asked again in a busy loop.
const minRefusedWait = time.Millisecond

// delay is how long to wait before the next run, or the call's end if it may not wait so long.
func (s *series) delay(ctx context.Context, err error, now time.Time) (time.Duration, error) {
	config := &s.retry.config
	if s.schedule == nil {
		if s.schedule = config.Backoff(); s.schedule == nil {
			panic(text(config.Name) + "Backoff returned nil, must return a backoff.BackOff")
		}
		s.schedule.Reset()
	}
	wait := s.schedule.NextBackOff()
	if wait < 0 {
		return 0, s.exhausted(ReasonSchedule, now, 0, nil)
	}
	if after, ok := resilience.RetryAfter(err); ok {
		if after > config.MaxRetryAfter {
			return 0, s.exhausted(ReasonRetryAfter, now, after, nil)
		}
		wait = sum(wait, after)
	}
	if config.MaxElapsed > 0 && sum(now.Sub(s.first), wait) > config.MaxElapsed {
		return 0, s.exhausted(ReasonElapsed, now, wait, nil)
	}
	if deadline, ok := ctx.Deadline(); ok && deadline.Sub(now) <= wait {
		return 0, s.exhausted(ReasonDeadline, now, wait, context.DeadlineExceeded)
	}
	return wait, nil
}

// wait waits, and returns the call's end if ctx is done by then.
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
	return s.exhausted(ReasonContext, time.Now(), 0, resilience.ContextErr(ctx))
}

// turnedAway is the call's end after a refusal that is not waited out.
func (s *series) turnedAway(ctx context.Context, err error) error {
	if s.attempts == 0 {
		return permanent.Without(err)
	}
	if ctx.Err() != nil {
		return s.exhausted(ReasonContext, time.Now(), 0, resilience.ContextErr(ctx))
	}
	return s.exhausted(ReasonRefused, time.Now(), 0, nil)
}

func (s *series) exhausted(reason Reason, now time.Time, wait time.Duration, cause error) error {
	e := &ExhaustedError{Name: s.retry.config.Name, Attempts: s.attempts, Reason: reason, Err: s.last, wait: wait, cause: cause}
	if !s.first.IsZero() {
		e.Elapsed = now.Sub(s.first)
	}
	if reason != ReasonContext {
		e.refusal = s.refusal
	}
	return e
}

// sum is a + b for durations that are not negative, held at the largest there is.
func sum(a, b time.Duration) time.Duration {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// Permanent marks an error that is not to be retried: v4's [backoff.Permanent]. It counts anywhere in an error's tree. The
// caller gets the error as it is, without the mark if that is outermost. It is nil if err is.
func Permanent(err error) error { return permanent.New(err) }

type attemptKey struct{}

// Attempt is the number of the attempt that got ctx, in the nearest retry around it, from 1. It is 1 outside of any retry
// too. An attempt that was refused and is made later has the same number.
func Attempt(ctx context.Context) int {
	if n, ok := ctx.Value(attemptKey{}).(int); ok {
		return n
	}
	return 1
}

// numbered is the ctx for attempt n. A first attempt is marked only where the ctx would tell the number of a retry further out.
func numbered(ctx context.Context, n int) context.Context {
	if n == 1 && ctx.Value(attemptKey{}) == nil {
		return ctx
	}
	return context.WithValue(ctx, attemptKey{}, n)
}
