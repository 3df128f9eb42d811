package hedge_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/cenkalti/backoff/v4"
	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/bulkhead"
	"github.com/effector-go/resilience/hedge"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// TestMain fails a run that leaves a goroutine of this package's tests behind.
func TestMain(m *testing.M) {
	code := m.Run()
	// Goroutines of the tests are about to end, but may need a moment on a busy machine.
	behind := leftBehind()
	for start := time.Now(); behind != "" && time.Since(start) < 10*time.Second; behind = leftBehind() {
		runtime.Gosched()
	}
	if behind != "" {
		fmt.Fprintf(os.Stderr, "left behind after the tests:\n%s\n", behind)
		code = 1
	}
	os.Exit(code)
}

// leftBehind returns the stack of a goroutine that a test left behind, "" if there is none.
func leftBehind() string {
	if runtime.NumGoroutine() == 1 {
		return ""
	}
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	for _, stack := range strings.Split(string(stacks), "\n\n")[1:] {
		if strings.Contains(stack, "resilience/hedge") || strings.Contains(stack, "context.") {
			return stack
		}
	}
	return ""
}

var (
	errDown   = errors.New("down")
	errCaller = errors.New("caller's cause")
)

// plenty returns a budget that no test here empties.
func plenty() *budget.Budget { return budget.New(budget.Config{MinPerSecond: 1e5}) }

// after returns a Hedge with a delay of a second that adds up to max starts to a call.
func after(max int) *hedge.Hedge {
	return hedge.New(hedge.Config{Name: "users", Delay: time.Second, Max: max, Budget: plenty()})
}

// An answer is the result of one start.
type answer struct {
	takes          time.Duration
	err            error
	ignoresContext bool
}

// A script is an effector whose starts have the given answers; the last one is repeated. The value
// is the start's number, from 1.
type script struct {
	answers []answer

	mu       sync.Mutex
	begun    time.Time
	begins   []time.Duration
	contexts []context.Context
}

func scripted(answers ...answer) *script { return &script{answers: answers, begun: time.Now()} }

func (s *script) call(ctx context.Context) (int, error) {
	s.mu.Lock()
	s.begins = append(s.begins, time.Since(s.begun))
	s.contexts = append(s.contexts, ctx)
	n := len(s.begins)
	s.mu.Unlock()
	a := s.answers[min(n, len(s.answers))-1]
	if a.ignoresContext {
		time.Sleep(a.takes)
		return n, a.err
	}
	timer := time.NewTimer(a.takes)
	defer timer.Stop()
	select {
	case <-timer.C:
		return n, a.err
	case <-ctx.Done():
		return n, fmt.Errorf("start %d: %w", n, ctx.Err())
	}
}

// started returns when the starts so far began.
func (s *script) started() []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.begins)
}

func (s *script) ctx(start int) context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.contexts[start-1]
}

func (s *script) want(t *testing.T, begins ...time.Duration) {
	t.Helper()
	if got := s.started(); !slices.Equal(got, begins) {
		t.Errorf("got starts after %v, want %v", got, begins)
	}
}

func TestHedgeLeavesFastCallAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := scripted(answer{takes: time.Second - 1})
		value, err := hedge.Do(t.Context(), after(1), s.call)
		if value != 1 || err != nil {
			t.Errorf("got %d, %v, want 1, nil", value, err)
		}
		time.Sleep(time.Minute)
		s.want(t, 0)
	})
}

func TestHedgeStartsSlowCallAgainAndFirstSuccessWins(t *testing.T) {
	for _, test := range []struct {
		name          string
		first, second time.Duration
		winner        int
		took          time.Duration
	}{
		{"the hedge", time.Minute, time.Second, 2, 2 * time.Second},
		{"the first start", 1500 * time.Millisecond, time.Minute, 1, 1500 * time.Millisecond},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := scripted(answer{takes: test.first}, answer{takes: test.second})
				value, err := hedge.Do(t.Context(), after(1), s.call)
				if took := time.Since(s.begun); value != test.winner || err != nil || took != test.took {
					t.Errorf("got %d, %v after %v, want %d, nil after %v", value, err, took, test.winner, test.took)
				}
				s.want(t, 0, time.Second)
			})
		})
	}
}

func TestHedgeStartsMaxTimesEachAfterDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := scripted(answer{takes: time.Minute})
		value, err := hedge.Do(t.Context(), after(3), s.call)
		if value != 1 || err != nil {
			t.Errorf("got %d, %v, want 1, nil", value, err)
		}
		s.want(t, 0, time.Second, 2*time.Second, 3*time.Second)
	})
}

func TestHedgeAddsOneStartByDefault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := scripted(answer{takes: time.Minute})
		hedge.Do(t.Context(), hedge.New(hedge.Config{Delay: time.Second, Budget: plenty()}), s.call)
		s.want(t, 0, time.Second)
	})
}

func TestHedgeRunsEveryStartOnNewGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := after(1)
		var stacks [2]string
		n := 0
		hedge.Do(t.Context(), h, func(context.Context) (int, error) {
			stack := make([]byte, 1<<16)
			stacks[n] = string(stack[:runtime.Stack(stack, false)])
			n++
			return 0, errDown
		})
		for _, stack := range stacks {
			if !strings.Contains(stack, "created by github.com/effector-go/resilience/hedge") {
				t.Errorf("got a start on a goroutine that hedge didn't create:\n%s", stack)
			}
		}
		if head := func(stack string) string { return strings.SplitN(stack, "[", 2)[0] }; head(stacks[0]) == head(stacks[1]) {
			t.Error("got both starts on one goroutine, want two")
		}
	})
}

func TestHedgeReturnsWithoutWaitingForLosers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := scripted(answer{takes: time.Hour, ignoresContext: true}, answer{takes: time.Second})
		value, err := hedge.Do(t.Context(), after(1), s.call)
		if took := time.Since(s.begun); value != 2 || err != nil || took != 2*time.Second {
			t.Errorf("got %d, %v after %v, want 2, nil after 2s", value, err, took)
		}
		time.Sleep(time.Hour)
	})
}

func TestHedgeCancelsLosersWithErrLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := scripted(answer{takes: time.Hour, ignoresContext: true}, answer{takes: time.Hour}, answer{takes: time.Second})
		hedge.Do(t.Context(), after(2), s.call)
		// The winner's context is canceled without that cause.
		for n, want := range []error{hedge.ErrLost, hedge.ErrLost, context.Canceled} {
			ctx := s.ctx(n + 1)
			if ctx.Err() != context.Canceled || context.Cause(ctx) != want {
				t.Errorf("start %d: got %v, cause %v, want canceled, %v", n+1, ctx.Err(), context.Cause(ctx), want)
			}
			select {
			case <-ctx.Done():
			default:
				t.Errorf("start %d: Done is not closed", n+1)
			}
		}
		time.Sleep(time.Hour)
	})
}

func TestHedgeDiscardsLosersValueWhenItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var dropped []int
		drops := func() []int {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(dropped)
		}
		s := scripted(answer{takes: time.Hour, ignoresContext: true}, answer{takes: time.Second})
		call := resilience.Compose(s.call, resilience.Discard(func(n int) {
			mu.Lock()
			defer mu.Unlock()
			dropped = append(dropped, n)
		}), after(1))
		if value, err := call(t.Context()); value != 2 || err != nil {
			t.Errorf("got %d, %v, want 2, nil", value, err)
		}
		if got := drops(); got != nil {
			t.Errorf("dropped %v, want nothing while the loser is running", got)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := drops(); !slices.Equal(got, []int{1}) {
			t.Errorf("dropped %v, want 1", got)
		}
	})
}

// TestHedgeDiscardsLosersValueWhileCallGoesOn has an outer policy that is still busy after the
// hedge has returned.
func TestHedgeDiscardsLosersValueWhileCallGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dropped atomic.Int32
		goOn := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			err := next.Run(ctx)
			time.Sleep(2 * time.Minute)
			if n := dropped.Load(); n != 1 {
				t.Errorf("%d values dropped before the call's end, want 1", n)
			}
			return err
		})
		s := scripted(answer{takes: time.Minute, ignoresContext: true}, answer{takes: time.Second})
		resilience.Do(t.Context(), resilience.Pipeline{resilience.Discard(func(int) { dropped.Add(1) }), goOn, after(1)}, s.call)
	})
}

// observed runs the rest of the pipeline and then stores Starts and Repeatable.
func observed(starts *int, repeatable *bool) resilience.Policy {
	return resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		err := next.Run(ctx)
		*starts, *repeatable = next.Starts(), next.Repeatable()
		return err
	})
}

// TestHedgeAdoptsEndedForks checks that Starts counts the starts of failed forks too, and nothing
// for refused ones.
func TestHedgeAdoptsEndedForks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var starts int
		var repeatable bool
		twice := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			next.Run(ctx)
			return next.Run(ctx)
		})
		call := func(inner resilience.Policy, answers ...answer) (int, error) {
			return resilience.Do(t.Context(), resilience.Pipeline{observed(&starts, &repeatable), after(2), inner}, scripted(answers...).call)
		}
		// The first two fail, each after starting the effector twice; the third wins.
		call(twice, answer{err: errDown}, answer{err: errDown}, answer{err: errDown}, answer{err: errDown}, answer{})
		if starts != 6 {
			t.Errorf("got Starts %d after three starts with two each, want 6", starts)
		}
		_, err := call(resilience.PolicyFunc(func(context.Context, resilience.Next) error { return resilience.ErrRefused }), answer{})
		if starts != 0 || err != resilience.ErrRefused {
			t.Errorf("got Starts %d and %v after a refusal, want 0 and the refusal", starts, err)
		}
	})
}

func TestHedgeCountsRunningForkAsOneStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var starts int
		var repeatable bool
		s := scripted(answer{takes: time.Hour}, answer{takes: time.Second})
		resilience.Do(t.Context(), resilience.Pipeline{observed(&starts, &repeatable), after(1)}, s.call)
		if starts != 2 {
			t.Errorf("got Starts %d, want 2", starts)
		}
	})
}

func TestHedgeReturnsLastErrorWithValueIfAllFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		errFirst, errLast := errors.New("first"), errors.New("last")
		// The second start fails before the first.
		s := scripted(answer{takes: time.Minute, err: errLast}, answer{takes: time.Second, err: errFirst})
		value, err := hedge.Do(t.Context(), after(1), s.call)
		if value != 1 || err != errLast || time.Since(s.begun) != time.Minute {
			t.Errorf("got %d, %v after %v, want 1, last after 1m", value, err, time.Since(s.begun))
		}
	})
}

// TestHedgeLastErrorIsThatOfLastStartToEnd has the caller see several ends together, because
// OnHedge takes long.
func TestHedgeLastErrorIsThatOfLastStartToEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		errFirst, errLast := errors.New("first"), errors.New("last")
		s := scripted(answer{takes: 3 * time.Second, err: errFirst}, answer{takes: 3 * time.Second, err: errLast})
		h := hedge.New(hedge.Config{Delay: time.Second, Max: 2, Budget: plenty(), OnHedge: func(_ context.Context, e hedge.Event) {
			if e.Start == 3 {
				time.Sleep(time.Minute)
				cancel()
			}
		}})
		if value, err := hedge.Do(ctx, h, s.call); value != 2 || err != errLast {
			t.Errorf("got %d, %v, want 2, last", value, err)
		}
		s.want(t, 0, time.Second)
	})
}

func TestHedgeStartsNextImmediatelyAfterFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := scripted(answer{takes: time.Millisecond, err: errDown}, answer{takes: 2 * time.Millisecond, err: errDown}, answer{takes: time.Hour}, answer{takes: time.Second})
		value, err := hedge.Do(t.Context(), after(3), s.call)
		if value != 4 || err != nil {
			t.Errorf("got %d, %v, want 4, nil", value, err)
		}
		// The last one a delay after the previous start.
		s.want(t, 0, time.Millisecond, 3*time.Millisecond, time.Second+3*time.Millisecond)
	})
}

// TestHedgeStartsNextAfterFailureWhileAnotherRuns checks that the delay counts from the start that
// followed the failure.
func TestHedgeStartsNextAfterFailureWhileAnotherRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := scripted(answer{takes: time.Hour}, answer{takes: 500 * time.Millisecond, err: errDown}, answer{takes: time.Hour}, answer{takes: time.Millisecond})
		value, err := hedge.Do(t.Context(), after(3), s.call)
		if value != 4 || err != nil {
			t.Errorf("got %d, %v, want 4, nil", value, err)
		}
		s.want(t, 0, time.Second, 1500*time.Millisecond, 2500*time.Millisecond)
	})
}

// TestHedgeIgnoresTimerOfFailedStart has the timer run while HedgeIf is deciding. The delay counts
// from the start that follows.
func TestHedgeIgnoresTimerOfFailedStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := scripted(answer{takes: 500 * time.Millisecond, err: errDown}, answer{takes: time.Hour}, answer{takes: time.Millisecond})
		h := hedge.New(hedge.Config{Delay: time.Second, Max: 5, Budget: plenty(), HedgeIf: func(error) bool {
			time.Sleep(600 * time.Millisecond)
			return true
		}})
		if value, err := hedge.Do(t.Context(), h, s.call); value != 3 || err != nil {
			t.Errorf("got %d, %v, want 3, nil", value, err)
		}
		s.want(t, 0, 1100*time.Millisecond, 2100*time.Millisecond)
	})
}

// TestHedgeStartsNothingOnceAnswerIsThere has the answer arrive while HedgeIf is deciding about
// another failure.
func TestHedgeStartsNothingOnceAnswerIsThere(t *testing.T) {
	for _, want := range []error{nil, resilience.NotFailure(errDown)} {
		synctest.Test(t, func(t *testing.T) {
			b := budget.New(budget.Config{Ratio: 2})
			s := scripted(answer{takes: 3 * time.Second, err: want}, answer{takes: 500 * time.Millisecond, err: errDown})
			h := hedge.New(hedge.Config{Delay: time.Second, Max: 5, Budget: b, HedgeIf: func(error) bool {
				time.Sleep(2 * time.Second)
				return true
			}})
			if value, err := hedge.Do(t.Context(), h, s.call); value != 1 || err != want {
				t.Errorf("got %d, %v, want 1, %v", value, err, want)
			}
			s.want(t, 0, time.Second)
			if !b.Withdraw() {
				t.Error("a token was taken although nothing was started")
			}
		})
	}
}

func TestHedgeMaxCountsStartsAfterFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := scripted(answer{err: errDown})
		if _, err := hedge.Do(t.Context(), after(2), s.call); err != errDown {
			t.Errorf("got %v, want errDown unchanged", err)
		}
		s.want(t, 0, 0, 0)
	})
}

func TestHedgeStartsNothingAfterRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runs := 0
		refuse := resilience.PolicyFunc(func(context.Context, resilience.Next) error {
			runs++
			return resilience.ErrRefused
		})
		b := budget.New(budget.Config{Ratio: 1})
		h := hedge.New(hedge.Config{Delay: time.Second, Budget: b, HedgeIf: func(error) bool {
			t.Error("HedgeIf called with a refusal")
			return true
		}})
		began := time.Now()
		err := resilience.Run(t.Context(), resilience.Pipeline{h, refuse}, func(context.Context) error { return nil })
		if runs != 1 || err != resilience.ErrRefused || time.Since(began) != 0 {
			t.Errorf("got %v after %d runs and %v, want the refusal immediately after one", err, runs, time.Since(began))
		}
		if b.Withdraw() {
			t.Error("a call that was not made deposited into the budget")
		}
	})
}

// TestHedgeRefusalNeverHidesError has a breaker that opens at the first start's failure and refuses
// the second start. The dependency's error is more useful to the caller, and to an outer retry.
func TestHedgeRefusalNeverHidesError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hedge.New(hedge.Config{Delay: time.Second, Budget: plenty()})
		b := breaker.New(breaker.Config{Consecutive: 1})
		_, err := resilience.Do(t.Context(), resilience.Pipeline{h, b}, func(context.Context) (int, error) { return 0, errDown })
		if err != errDown {
			t.Errorf("got %v, want the dependency's error", err)
		}
		if _, err = resilience.Do(t.Context(), resilience.Pipeline{h, b}, func(context.Context) (int, error) { return 0, errDown }); !errors.Is(err, breaker.ErrOpen) {
			t.Errorf("got %v, want the refusal if all starts were refused", err)
		}
	})
}

func TestHedgeReturnsLastRefusalIfAllStartsAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var refusals atomic.Int32
		refuse := resilience.PolicyFunc(func(context.Context, resilience.Next) error {
			n := refusals.Add(1)
			time.Sleep(3 * time.Second)
			return fmt.Errorf("refusal %d: %w", n, resilience.ErrRefused)
		})
		err := resilience.Run(t.Context(), resilience.Pipeline{after(1), refuse}, func(context.Context) error { return nil })
		if want := "refusal 2: " + resilience.ErrRefused.Error(); fmt.Sprint(err) != want {
			t.Errorf("got %v, want %s", err, want)
		}
	})
}

// TestHedgeTreatsEffectorsOwnRefusalAsFailure has an effector whose error contains another
// dependency's refusal.
func TestHedgeTreatsEffectorsOwnRefusalAsFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := scripted(answer{err: fmt.Errorf("my own dependency: %w", resilience.ErrRefused)}, answer{})
		if value, err := hedge.Do(t.Context(), after(1), s.call); value != 2 || err != nil {
			t.Errorf("got %d, %v, want 2, nil", value, err)
		}
	})
}

func TestHedgeReturnsPermanentErrorUnchanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, mark := range []error{backoff.Permanent(errDown), retry.Permanent(errDown), fmt.Errorf("wrapped: %w", retry.Permanent(errDown))} {
			s := scripted(answer{err: mark})
			// With the mark, for an outer retry.
			if _, err := hedge.Do(t.Context(), after(1), s.call); err != mark {
				t.Errorf("got %v, want %v unchanged", err, mark)
			}
			s.want(t, 0)
		}
	})
}

func TestHedgeOnlyWaitsForRunningStartsAfterPermanentError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := scripted(answer{takes: time.Minute}, answer{takes: time.Millisecond, err: retry.Permanent(errDown)})
		if value, err := hedge.Do(t.Context(), after(5), s.call); value != 1 || err != nil {
			t.Errorf("got %d, %v, want 1, nil", value, err)
		}
		s.want(t, 0, time.Second)
	})
}

func TestHedgeIfNarrowsWhichFailuresStartNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		errBad := errors.New("bad request")
		b := budget.New(budget.Config{Ratio: 1})
		var asked []error
		h := hedge.New(hedge.Config{Delay: time.Second, Max: 2, Budget: b, HedgeIf: func(err error) bool {
			asked = append(asked, err)
			return err != errBad
		}})
		s := scripted(answer{err: errBad})
		if _, err := hedge.Do(t.Context(), h, s.call); err != errBad {
			t.Errorf("got %v, want errBad unchanged", err)
		}
		s.want(t, 0)
		if !b.Withdraw() || b.Withdraw() {
			t.Error("a token was taken for a start that HedgeIf rejected")
		}
		hedge.Do(t.Context(), h, scripted(answer{err: retry.Permanent(errDown)}).call)
		b.Withdraw()
		if !slices.Equal(asked, []error{errBad}) {
			t.Errorf("HedgeIf called with %v, want errBad only", asked)
		}
		// It isn't called if a start is slow.
		s = scripted(answer{takes: time.Minute}, answer{takes: time.Second, err: errBad})
		hedge.Do(t.Context(), h, s.call)
		s.want(t, 0, time.Second)
	})
}

func TestHedgeIfIsNotCalledIfNothingFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		h := hedge.New(hedge.Config{Delay: time.Second, Budget: plenty(), HedgeIf: func(error) bool { asked++; return true }})
		hedge.Do(t.Context(), h, scripted(answer{err: errDown}).call)
		if asked != 1 {
			t.Errorf("HedgeIf called %d times for two failures of which one can be followed by a start, want once", asked)
		}
		resilience.Do(t.Context(), resilience.Pipeline{resilience.AtMostOnce, h}, scripted(answer{err: errDown}).call)
		if asked != 1 {
			t.Error("HedgeIf called for a call that must not be made again")
		}
	})
}

func TestHedgeStartsNothingOnceContextEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(500*time.Millisecond, func() { cancel(errCaller) })
		s := scripted(answer{takes: time.Minute})
		_, err := hedge.Do(ctx, after(1), s.call)
		if err == nil || err.Error() != "start 1: context canceled" || time.Since(s.begun) != 500*time.Millisecond {
			t.Errorf("got %v after %v, want the effector's own error after 500ms", err, time.Since(s.begun))
		}
		s.want(t, 0)

		// The hedge waits for a start that ignores its context, and the timer triggers no other.
		s = scripted(answer{takes: time.Minute, ignoresContext: true})
		ctx, stop := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer stop()
		if value, err := hedge.Do(ctx, after(1), s.call); value != 1 || err != nil {
			t.Errorf("got %d, %v, want the late success", value, err)
		}
		s.want(t, 0)
	})
}

func TestHedgeEndsEveryStartWithCallersCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(90*time.Second, func() { cancel(errCaller) })
		s := scripted(answer{takes: time.Hour})
		_, err := hedge.Do(ctx, after(3), s.call)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want canceled", err)
		}
		for n := range 4 {
			if cause := context.Cause(s.ctx(n + 1)); cause != errCaller {
				t.Errorf("start %d: got cause %v, want the caller's", n+1, cause)
			}
		}
	})
}

func TestHedgeStartsInheritValuesAndDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, "value"), time.Minute)
		defer cancel()
		s := scripted(answer{err: errDown})
		hedge.Do(ctx, after(1), s.call)
		for n := range 2 {
			deadline, ok := s.ctx(n + 1).Deadline()
			if want, _ := ctx.Deadline(); s.ctx(n+1).Value(key{}) != "value" || !ok || !deadline.Equal(want) {
				t.Errorf("start %d: got value %v, deadline %v, %t, want the caller's", n+1, s.ctx(n+1).Value(key{}), deadline, ok)
			}
		}
	})
}

func TestHedgeMakesNoCallWithEndedContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errCaller)
		b := budget.New(budget.Config{Ratio: 1})
		s := scripted(answer{})
		value, err := hedge.Do(ctx, hedge.New(hedge.Config{Delay: time.Second, Budget: b}), s.call)
		if value != 0 || !errors.Is(err, context.Canceled) || !errors.Is(err, errCaller) || len(s.started()) > 0 {
			t.Errorf("got %d, %v after %d starts, want 0 and an error that is Canceled and the cause", value, err, len(s.started()))
		}
		if b.Withdraw() {
			t.Error("the call deposited into the budget")
		}
	})
}

func TestHedgeNeverRepeatsAtMostOnceCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		once := resilience.Pipeline{resilience.AtMostOnce, after(3)}
		for _, test := range []struct {
			answer answer
			starts int
		}{
			{answer{takes: time.Minute}, 1}, // slow: it may have had an effect
			{answer{err: errDown}, 1},
			{answer{err: fmt.Errorf("write: %w", resilience.NotMade(errDown))}, 1},
			{answer{err: resilience.NotMade(errDown)}, 4},
			// Not while another is running.
			{answer{takes: 1500 * time.Millisecond, err: resilience.NotMade(errDown)}, 4},
		} {
			s := scripted(test.answer)
			resilience.Do(t.Context(), once, s.call)
			if got := len(s.started()); got != test.starts {
				t.Errorf("%+v: got %d starts, want %d", test.answer, got, test.starts)
			}
		}
	})
}

func TestHedgeReportsRepeatableToOuterPolicies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var starts int
		var repeatable bool
		for err, want := range map[error]bool{errDown: false, resilience.NotMade(errDown): true} {
			resilience.Do(t.Context(), resilience.Pipeline{resilience.AtMostOnce, observed(&starts, &repeatable), after(2)}, scripted(answer{err: err}).call)
			if repeatable != want {
				t.Errorf("%v: got Repeatable %t, want %t", err, repeatable, want)
			}
		}
	})
}

func TestHedgePassesPanicWithStackToCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var starts int
		var repeatable bool
		defer func() {
			panicked, ok := recover().(*resilience.PanicError)
			if !ok || panicked.Value != errDown || !strings.Contains(string(panicked.Stack), "whereItHappened") {
				t.Errorf("panicked with %v, want a *PanicError of errDown with the effector's stack", panicked)
			}
		}()
		// Two hedges, each with its own goroutine: the value isn't wrapped twice.
		resilience.Do(t.Context(), resilience.Pipeline{observed(&starts, &repeatable), after(1), after(1)}, whereItHappened)
	})
}

//go:noinline
func whereItHappened(context.Context) (int, error) { panic(errDown) }

// TestHedgeAdoptsStartThatPanics checks that Starts is right in an outer policy that the panic
// passes.
func TestHedgeAdoptsStartThatPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looks := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			defer func() {
				if n := next.Starts(); n != 2 {
					t.Errorf("got Starts %d after a start that ran the effector twice, want 2", n)
				}
			}()
			return next.Run(ctx)
		})
		twice := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			next.Run(ctx)
			return next.Run(ctx)
		})
		defer func() { recover() }()
		n := 0
		resilience.Do(t.Context(), resilience.Pipeline{looks, after(1), twice}, func(context.Context) (int, error) {
			if n++; n == 2 {
				panic("oops")
			}
			return n, nil
		})
	})
}

func TestHedgePanicEndsCallAndOtherStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := scripted(answer{takes: time.Hour})
		b := budget.New(budget.Config{Ratio: 1})
		h := hedge.New(hedge.Config{Delay: time.Second, Budget: b})
		var n atomic.Int32
		func() {
			defer func() {
				if panicked, ok := recover().(*resilience.PanicError); !ok || panicked.Value != "oops" {
					t.Errorf("panicked with %v, want oops", panicked)
				}
			}()
			hedge.Do(t.Context(), h, func(ctx context.Context) (int, error) {
				if n.Add(1) == 2 {
					panic("oops")
				}
				return s.call(ctx)
			})
		}()
		if took := time.Since(s.begun); took != time.Second || context.Cause(s.ctx(1)) != hedge.ErrLost {
			t.Errorf("ended after %v, with the other start's cause %v, want 1s and ErrLost", took, context.Cause(s.ctx(1)))
		}
	})
}

func TestHedgeDepositsForCallThatPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(budget.Config{Ratio: 1})
		func() {
			defer func() { recover() }()
			hedge.Do(t.Context(), hedge.New(hedge.Config{Delay: time.Second, Budget: b}), whereItHappened)
		}()
		if !b.Withdraw() || b.Withdraw() {
			t.Error("want exactly one deposit")
		}
	})
}

func TestHedgePassesGoexitToCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan bool)
		go func() {
			returned := false
			defer func() { ended <- returned || recover() != nil }()
			hedge.Do(context.Background(), after(1), func(context.Context) (int, error) {
				runtime.Goexit()
				return 0, nil
			})
			returned = true
		}()
		if <-ended {
			t.Error("Do returned or panicked, want Goexit")
		}
	})
}

// TestHedgePanicOfLoserCrashesProgram runs itself in a process that must crash.
func TestHedgePanicOfLoserCrashesProgram(t *testing.T) {
	if os.Getenv("HEDGE_TEST_CRASH") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestHedgePanicOfLoserCrashesProgram$")
		cmd.Env = append(os.Environ(), "HEDGE_TEST_CRASH=1")
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "panic: no caller is left") || strings.Contains(string(out), "recovered") {
			t.Errorf("process ended with %v, want a crash:\n%s", err, out)
		}
		return
	}
	returned := make(chan bool)
	var n atomic.Int32
	hedge.Do(t.Context(), hedge.New(hedge.Config{Delay: 1, Budget: plenty()}), func(ctx context.Context) (int, error) {
		if n.Add(1) == 1 {
			<-returned
			panic("no caller is left")
		}
		return 0, nil
	})
	close(returned)
	select {}
}

func TestHedgeNeverStartsOnEmptyBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(budget.Config{Ratio: 1.0 / 3})
		h := hedge.New(hedge.Config{Delay: time.Second, Max: 5, Budget: b})
		for call := 1; call <= 6; call++ {
			s := scripted(answer{takes: 10 * time.Second})
			hedge.Do(t.Context(), h, s.call)
			time.Sleep(time.Hour) // the deposit expires before the next call
			if got := len(s.started()); got != 1 {
				t.Errorf("call %d: got %d starts with a third of a token, want 1", call, got)
			}
		}
		for call, want := range []int{1, 1, 2, 1, 1, 2} {
			s := scripted(answer{err: errDown})
			hedge.Do(t.Context(), h, s.call)
			if got := len(s.started()); got != want {
				t.Errorf("call %d: got %d starts, want %d", call+1, got, want)
			}
		}
	})
}

func TestHedgeAddsFivePercentByDefault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hedge.New(hedge.Config{Delay: time.Millisecond})
		var starts atomic.Int32
		for range 1000 { // within two seconds
			hedge.Do(t.Context(), h, func(context.Context) (int, error) {
				starts.Add(1)
				time.Sleep(2 * time.Millisecond)
				return 0, nil
			})
		}
		if n := starts.Load(); n != 1050 {
			t.Errorf("got %d starts for 1000 slow calls, want 1050", n)
		}
		time.Sleep(time.Second) // until the last loser has ended
	})
}

func TestHedgeAndRetrySharingBudgetDepositOncePerCall(t *testing.T) {
	for _, test := range []struct {
		name     string
		pipeline func(h *hedge.Hedge, r *retry.Retry) resilience.Pipeline
	}{
		{"inside", func(h *hedge.Hedge, r *retry.Retry) resilience.Pipeline { return resilience.Pipeline{r, h} }},
		{"outside", func(h *hedge.Hedge, r *retry.Retry) resilience.Pipeline { return resilience.Pipeline{h, r} }},
		{"twice", func(h *hedge.Hedge, r *retry.Retry) resilience.Pipeline { return resilience.Pipeline{h, r, h} }},
	} {
		for name, answers := range map[string][]answer{
			"fast":    {{}},
			"slow":    {{takes: time.Minute}, {takes: time.Second}},
			"failing": {{err: errDown}},
		} {
			t.Run(test.name+"/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := budget.New(budget.Config{Ratio: 100, TTL: time.Hour})
					var extra atomic.Int32
					h := hedge.New(hedge.Config{Delay: time.Second, Budget: b, OnHedge: func(context.Context, hedge.Event) { extra.Add(1) }})
					r := retry.New(retry.Config{Backoff: retry.Constant(0), Budget: b, OnRetry: func(context.Context, retry.Event) { extra.Add(1) }})
					resilience.Do(t.Context(), test.pipeline(h, r), scripted(answers...).call)
					left := 0
					for b.Withdraw() {
						left++
					}
					if taken := int(extra.Load()); left+taken != 100 {
						t.Errorf("got %d tokens left and %d taken, want 100 from one deposit in total", left, taken)
					}
				})
			})
		}
	}
}

// TestHedgeDepositsOnceRefusedCallIsMade checks that one of the policies that share the budget
// deposits.
func TestHedgeDepositsOnceRefusedCallIsMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(budget.Config{Ratio: 1})
		opened := breaker.New(breaker.Config{Consecutive: 1, OpenFor: time.Second})
		fail := func(context.Context) (int, error) { return 0, errDown }
		breaker.Do(t.Context(), opened, fail)
		p := resilience.Pipeline{
			retry.New(retry.Config{RetryRefused: true, MaxElapsed: time.Minute, Budget: b, Backoff: retry.Constant(0)}),
			hedge.New(hedge.Config{Delay: time.Hour, Budget: b}),
			opened,
		}
		if err := resilience.Run(t.Context(), p, func(context.Context) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if first, second := b.Withdraw(), b.Withdraw(); !first || second {
			t.Errorf("got withdrawals %v and %v, want one deposit", first, second)
		}
	})
}

// TestHedgeMarksDepositIfInnerPolicyAnswers: a cache answers the second start while the first is
// running. Then the outer retry, which shares the budget, doesn't deposit again.
func TestHedgeMarksDepositIfInnerPolicyAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(budget.Config{Ratio: 1, TTL: time.Hour})
		b.Deposit() // for the second start
		var runs atomic.Int32
		cache := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			if runs.Add(1) == 2 {
				return nil
			}
			return next.Run(ctx)
		})
		p := resilience.Pipeline{retry.New(retry.Config{Budget: b}), hedge.New(hedge.Config{Delay: time.Second, Budget: b}), cache}
		if _, err := resilience.Do(t.Context(), p, scripted(answer{takes: time.Minute}).call); err != nil || runs.Load() != 2 {
			t.Fatalf("got %v after %d starts, want nil after 2", err, runs.Load())
		}
		if first, second := b.Withdraw(), b.Withdraw(); !first || second {
			t.Errorf("got withdrawals %t and %t, want one deposit", first, second)
		}
	})
}

func TestHedgeDepositsOnceForAllAttemptsOfRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(budget.Config{Ratio: 100, TTL: time.Hour})
		h := hedge.New(hedge.Config{Delay: time.Second, Budget: b, HedgeIf: func(error) bool { return false }})
		resilience.Do(t.Context(), resilience.Pipeline{retry.New(retry.Config{MaxAttempts: 5}), h}, scripted(answer{err: errDown}).call)
		left := 0
		for b.Withdraw() {
			left++
		}
		if left != 100 {
			t.Errorf("got %d tokens, want 100 from one deposit", left)
		}
	})
}

func TestHedgeCallsOnHedgeForEveryAdditionalStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events []hedge.Event
		var s *script
		h := hedge.New(hedge.Config{Name: "users", Delay: time.Second, Max: 2, Budget: plenty(), OnHedge: func(_ context.Context, e hedge.Event) {
			if started := len(s.started()); started != e.Start-1 {
				t.Errorf("OnHedge called for start %d after %d starts", e.Start, started)
			}
			events = append(events, e)
		}})
		s = scripted(answer{takes: time.Minute}, answer{takes: time.Millisecond, err: errDown}, answer{})
		hedge.Do(t.Context(), h, s.call)
		want := []hedge.Event{{"users", 2, time.Second, nil}, {"users", 3, time.Second + time.Millisecond, errDown}}
		if !slices.Equal(events, want) {
			t.Errorf("got events %v, want %v", events, want)
		}
	})
}

func TestHedgeStartsNothingIfOnHedgeEndsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := scripted(answer{err: errDown})
		_, err := hedge.Do(ctx, hedge.New(hedge.Config{Delay: time.Second, Budget: plenty(), OnHedge: func(context.Context, hedge.Event) { cancel() }}), s.call)
		if err != errDown {
			t.Errorf("got %v, want errDown unchanged", err)
		}
		s.want(t, 0)
	})
}

func TestHedgePassesPanicOfHookAndHoldsNothing(t *testing.T) {
	for name, config := range map[string]hedge.Config{
		"OnHedge": {OnHedge: func(context.Context, hedge.Event) { panic("oops") }},
		"HedgeIf": {HedgeIf: func(error) bool { panic("oops") }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var dropped atomic.Int32
				config.Delay, config.Budget, config.Max = time.Second, plenty(), 2
				s := scripted(answer{takes: time.Hour}, answer{takes: 0, err: errDown})
				h := hedge.New(config)
				func() {
					defer func() {
						if got := recover(); got != "oops" {
							t.Errorf("recovered %v, want oops", got)
						}
					}()
					resilience.Do(t.Context(), resilience.Pipeline{resilience.Discard(func(int) { dropped.Add(1) }), h}, s.call)
				}()
				if cause := context.Cause(s.ctx(1)); cause != hedge.ErrLost {
					t.Errorf("got cause %v of the running start, want ErrLost", cause)
				}
				synctest.Wait()
				if n := int(dropped.Load()); n != len(s.started()) {
					t.Errorf("dropped %d of %d values, want all", n, len(s.started()))
				}
			})
		})
	}
}

// TestHedgeDiscardsAnswerArrivedDuringHookPanic checks that an answer that no caller receives is
// dropped.
func TestHedgeDiscardsAnswerArrivedDuringHookPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dropped := 0
		s := scripted(answer{takes: 2 * time.Second})
		h := hedge.New(hedge.Config{Delay: time.Second, Budget: plenty(), OnHedge: func(context.Context, hedge.Event) {
			time.Sleep(time.Minute)
			panic("oops")
		}})
		later := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			defer func() {
				if dropped != 1 {
					t.Errorf("%d values dropped when the hedge had panicked, want 1", dropped)
				}
			}()
			return next.Run(ctx)
		})
		defer func() { recover() }()
		resilience.Do(t.Context(), resilience.Pipeline{resilience.Discard(func(int) { dropped++ }), later, h}, s.call)
	})
}

// TestHedgeRunningStartsLoseAfterHookPanic checks that a running start's value is dropped when it
// ends, even if an outer policy goes on.
func TestHedgeRunningStartsLoseAfterHookPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dropped atomic.Int32
		goOn := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			defer func() {
				recover()
				time.Sleep(2 * time.Minute)
				if n := dropped.Load(); n != 1 {
					t.Errorf("%d values dropped before the call's end, want 1", n)
				}
			}()
			return next.Run(ctx)
		})
		h := hedge.New(hedge.Config{Delay: time.Second, Budget: plenty(), OnHedge: func(context.Context, hedge.Event) { panic("oops") }})
		s := scripted(answer{takes: time.Minute, ignoresContext: true})
		resilience.Do(t.Context(), resilience.Pipeline{resilience.Discard(func(int) { dropped.Add(1) }), goOn, h}, s.call)
	})
}

// TestHedgeDropsAllValuesThoughDropPanics checks the values that arrived while a hook was about to
// panic.
func TestHedgeDropsAllValuesThoughDropPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dropped := 0
		looks := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			defer func() {
				if dropped != 2 {
					t.Errorf("%d values dropped when the hedge had panicked, want 2", dropped)
				}
			}()
			return next.Run(ctx)
		})
		h := hedge.New(hedge.Config{Delay: time.Second, Max: 2, Budget: plenty(), OnHedge: func(_ context.Context, e hedge.Event) {
			if e.Start == 3 {
				time.Sleep(time.Minute)
				panic("oops")
			}
		}})
		s := scripted(answer{takes: 3 * time.Second, err: errDown})
		defer func() { recover() }()
		resilience.Do(t.Context(), resilience.Pipeline{resilience.Discard(func(int) { dropped++; panic("drop") }), looks, h}, s.call)
	})
}

func TestHedgeInsideRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := scripted(answer{err: errDown})
		var exhausted *retry.ExhaustedError
		_, err := resilience.Do(t.Context(), resilience.Pipeline{retry.New(retry.Config{Backoff: retry.Constant(time.Second)}), after(1)}, s.call)
		if !errors.As(err, &exhausted) || exhausted.Attempts != 3 {
			t.Errorf("got %v, want an error after three attempts", err)
		}
		s.want(t, 0, 0, time.Second, time.Second, 2*time.Second, 2*time.Second)
	})
}

func TestHedgeOutsideRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := scripted(answer{err: errDown}, answer{takes: time.Hour}, answer{takes: time.Millisecond})
		pipeline := resilience.Pipeline{after(1), retry.New(retry.Config{Backoff: retry.Constant(100 * time.Millisecond)})}
		if value, err := resilience.Do(t.Context(), pipeline, s.call); value != 3 || err != nil {
			t.Errorf("got %d, %v, want 3, nil", value, err)
		}
		s.want(t, 0, 100*time.Millisecond, time.Second)
	})
}

func TestHedgeInsideHedge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		outer := hedge.New(hedge.Config{Delay: 1500 * time.Millisecond, Budget: plenty()})
		s := scripted(answer{takes: time.Hour}, answer{takes: time.Hour}, answer{takes: time.Hour}, answer{takes: time.Second})
		if value, err := resilience.Do(t.Context(), resilience.Pipeline{outer, after(1)}, s.call); value != 4 || err != nil {
			t.Errorf("got %d, %v, want 4, nil", value, err)
		}
		s.want(t, 0, time.Second, 1500*time.Millisecond, 2500*time.Millisecond)
		synctest.Wait()
		for n := range 3 {
			if cause := context.Cause(s.ctx(n + 1)); cause != hedge.ErrLost {
				t.Errorf("start %d: got cause %v, want ErrLost", n+1, cause)
			}
		}
	})
}

func TestHedgeLosersReleaseBulkheadPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		places := bulkhead.New(bulkhead.Config{Limit: 2})
		s := scripted(answer{takes: time.Hour}, answer{takes: time.Second})
		resilience.Do(t.Context(), resilience.Pipeline{after(1), places}, s.call)
		synctest.Wait()
		if running := places.Snapshot().Running; running != 0 {
			t.Errorf("got %d places taken after the call, want 0", running)
		}
	})
}

func TestHedgeLoserReleasesBreakerProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{Probes: 2})
		b.HalfOpen()
		s := scripted(answer{takes: time.Hour}, answer{takes: time.Second})
		if value, err := resilience.Do(t.Context(), resilience.Pipeline{after(1), b}, s.call); value != 2 || err != nil {
			t.Errorf("got %d, %v, want 2, nil", value, err)
		}
		synctest.Wait()
		if b.State() != breaker.HalfOpen {
			t.Errorf("got state %v, want half-open: the loser's probe must not count", b.State())
		}
		// One more success closes it. The loser's probe must be free for that.
		if _, err := resilience.Do(t.Context(), b, scripted(answer{}).call); err != nil || b.State() != breaker.Closed {
			t.Errorf("got %v, state %v, want nil and closed", err, b.State())
		}
	})
}

func TestHedgeLoserIsLeftBehindByInnerAbandon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := timeout.New(timeout.Config{Limit: time.Minute, Abandon: 5})
		s := scripted(answer{takes: time.Hour, ignoresContext: true}, answer{takes: time.Second})
		if value, err := resilience.Do(t.Context(), resilience.Pipeline{after(1), limit}, s.call); value != 2 || err != nil {
			t.Errorf("got %d, %v, want 2, nil", value, err)
		}
		synctest.Wait()
		if n := limit.Abandoned(); n != 1 {
			t.Errorf("got %d abandoned, want 1", n)
		}
		time.Sleep(time.Hour)
	})
}

func TestHedgeInsideTimeoutEndsAllStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := scripted(answer{takes: time.Hour})
		_, err := resilience.Do(t.Context(), resilience.Pipeline{timeout.After(3 * time.Second), after(1)}, s.call)
		if !errors.Is(err, timeout.ErrTimeout) || time.Since(s.begun) != 3*time.Second {
			t.Errorf("got %v after %v, want ErrTimeout after 3s", err, time.Since(s.begun))
		}
		s.want(t, 0, time.Second)
	})
}

func TestHedgeOutsideTimeoutLimitsEachStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := scripted(answer{takes: time.Hour}, answer{takes: 1500 * time.Millisecond})
		value, err := resilience.Do(t.Context(), resilience.Pipeline{after(1), timeout.After(2 * time.Second)}, s.call)
		if value != 2 || err != nil || time.Since(s.begun) != 2500*time.Millisecond {
			t.Errorf("got %d, %v after %v, want 2, nil after 2.5s", value, err, time.Since(s.begun))
		}
	})
}

// TestHedgeServesConcurrentCallers checks that every value is returned to its caller or dropped. It
// is meant for the race detector.
func TestHedgeServesConcurrentCallers(t *testing.T) {
	h := hedge.New(hedge.Config{Quantile: 0.5, Delay: time.Nanosecond, Max: 3, MinSamples: 10, Budget: plenty()})
	var made, dropped, got atomic.Int64
	var running sync.WaitGroup
	call := resilience.Compose(func(context.Context) (int64, error) {
		running.Add(1)
		defer running.Done()
		n := made.Add(1)
		for range n % 50 {
			runtime.Gosched()
		}
		if n%7 == 0 {
			return n, errDown
		}
		return n, nil
	}, resilience.Discard(func(int64) { dropped.Add(1) }), h)
	var group errgroup.Group
	for range 8 {
		group.Go(func() error {
			for range 500 {
				if _, err := call(context.Background()); err == nil {
					got.Add(1)
				} else if err != errDown {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	// Until the losers have ended; if the test hangs here, a value is lost.
	for dropped.Load()+got.Load() != made.Load() {
		runtime.Gosched()
	}
}

// TestHedgeHoldsNoTimerAfterCall: otherwise each call would stay in memory until its delay has passed.
func TestHedgeHoldsNoTimerAfterCall(t *testing.T) {
	h := hedge.New(hedge.Config{Delay: time.Hour})
	value := new([1024]byte)
	held := weak.Make(value)
	if _, err := hedge.Do(context.WithValue(t.Context(), requestKey{}, value), h, succeed); err != nil {
		t.Fatal(err)
	}
	for n := 0; held.Value() != nil; n++ { // the runtime may keep a stopped timer for a while
		if n == 1000 {
			t.Fatal("the call is still in use")
		}
		runtime.GC()
	}
	runtime.KeepAlive(h)
}

func TestHedgeCallNotHedgedAllocatesAtMostSixTimes(t *testing.T) {
	for name, config := range map[string]hedge.Config{
		"delay":    {Delay: time.Hour},
		"quantile": {Delay: time.Hour, Quantile: 0.95},
	} {
		h := hedge.New(config)
		if n := testing.AllocsPerRun(1000, func() { hedge.Do(context.Background(), h, succeed) }); n > 6 {
			t.Errorf("%s: got %v allocations, want at most 6", name, n)
		}
	}
}

func TestHedgePanicsOnInvalidArguments(t *testing.T) {
	fn := func(context.Context) (int, error) { return 0, nil }
	for want, call := range map[string]func(){
		"hedge: Delay and Quantile are both 0, one of them must be positive": func() { hedge.New(hedge.Config{}) },
		"hedge users: Delay is -1ns, must be positive, or 0 with Quantile":   func() { hedge.New(hedge.Config{Name: "users", Delay: -1}) },
		"hedge: Do: fn is nil, must be a function":                           func() { hedge.Do[int](t.Context(), after(1), nil) },
		"hedge: Do: h is nil, must be a Hedge made by New":                   func() { hedge.Do(t.Context(), nil, fn) },
	} {
		func() {
			defer func() {
				if got := recover(); got != want {
					t.Errorf("got panic %v, want %s", got, want)
				}
			}()
			call()
		}()
	}
}
