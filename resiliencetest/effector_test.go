package resiliencetest_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/resiliencetest"
)

var (
	errOwn   = errors.New("own")
	errCause = errors.New("cause")
)

// outcomes makes n calls, one after the other, and returns the value or the error of each.
func outcomes[T any](t *testing.T, e *resiliencetest.Effector[T], n int) string {
	t.Helper()
	var texts []string
	for range n {
		if value, err := e.Do(t.Context()); err != nil {
			texts = append(texts, err.Error())
		} else {
			texts = append(texts, fmt.Sprint(value))
		}
	}
	return strings.Join(texts, ", ")
}

// wantCounts checks e's counts once no call is running.
func wantCounts[T any](t *testing.T, e *resiliencetest.Effector[T], calls, most int) {
	t.Helper()
	if e.Calls() != calls || e.Running() != 0 || e.MaxConcurrent() != most {
		t.Errorf("got %d calls, %d running, at most %d concurrently, want %d, 0, %d", e.Calls(), e.Running(), e.MaxConcurrent(), calls, most)
	}
}

func TestEffectorFailsByCallNumber(t *testing.T) {
	const failed = "resiliencetest: failed"
	for _, test := range []struct {
		name string
		e    *resiliencetest.Effector[string]
		want []string
	}{
		{"FailAfter", resiliencetest.FailAfter[string](2).Returning("v"), []string{"v", "v", failed, failed}},
		{"FailAfter none", resiliencetest.FailAfter[string](0).Returning("v"), []string{failed, failed}},
		{"FailAfter with its own error", resiliencetest.FailAfter[string](1).Failing(errOwn), []string{"", "own", "own"}},
		{"FailFirst", resiliencetest.FailFirst[string](2).Returning("v"), []string{failed, failed, "v", "v"}},
		{"FailFirst none", resiliencetest.FailFirst[string](0), []string{"", ""}},
		{"FailFirst with its own error", resiliencetest.FailFirst[string](1).Failing(errOwn), []string{"own", ""}},
		{"Flaky never", resiliencetest.Flaky[string](0, 1).Returning("v"), []string{"v", "v", "v"}},
		{"Flaky always", resiliencetest.Flaky[string](1, 1).Returning("v"), []string{failed, failed, failed}},
		{"Flaky with its own error", resiliencetest.Flaky[string](1, 1).Failing(errOwn), []string{"own"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got, want := outcomes(t, test.e, len(test.want)), strings.Join(test.want, ", "); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			wantCounts(t, test.e, len(test.want), 1)
		})
	}
}

func TestEffectorFailureReturnsZeroValueAndError(t *testing.T) {
	value, err := resiliencetest.FailFirst[string](1).Returning("v").Do(t.Context())
	if value != "" || err != resiliencetest.ErrFailed {
		t.Errorf("got %q, %v", value, err)
	}
}

// pattern makes n calls, one after the other, and returns which of them failed.
func pattern(ctx context.Context, e *resiliencetest.Effector[int], n int) (text string, failures int) {
	marks := make([]byte, n)
	for i := range marks {
		marks[i] = '+'
		if _, err := e.Do(ctx); err != nil {
			marks[i] = '-'
			failures++
		}
	}
	return string(marks), failures
}

func TestFlakyIsDeterministicPerSeed(t *testing.T) {
	// Tests of users depend on this order: it must not change between releases.
	if got, _ := pattern(t.Context(), resiliencetest.Flaky[int](0.5, 1), 32); got != "-+++------++-++++++-+++---+-----" {
		t.Errorf("got %s for seed 1: the order must never change", got)
	}
	one, _ := pattern(t.Context(), resiliencetest.Flaky[int](0.3, 1), 1000)
	if again, _ := pattern(t.Context(), resiliencetest.Flaky[int](0.3, 1), 1000); again != one {
		t.Error("different calls failed with the same seed")
	}
	if other, _ := pattern(t.Context(), resiliencetest.Flaky[int](0.3, 2), 1000); other == one {
		t.Error("the same calls failed with another seed")
	}
}

func TestFlakyFailsIndependentlyAtRate(t *testing.T) {
	const n = 20_000
	for _, rate := range []float64{0.01, 0.3, 0.9} {
		marks, failures := pattern(t.Context(), resiliencetest.Flaky[int](rate, 1), n)
		pairs := 0 // failures that follow a failure
		for i := range n - 1 {
			if marks[i:i+2] == "--" {
				pairs++
			}
		}
		// Five standard deviations; adjacent pairs share a call, hence the second term.
		if off := 5 * math.Sqrt(n*rate*(1-rate)); math.Abs(float64(failures)-n*rate) > off {
			t.Errorf("rate %v: %d of %d calls failed, want %v ± %v", rate, failures, n, n*rate, off)
		}
		two := rate * rate
		if off := 5 * math.Sqrt(n*(two*(1-two)+2*two*rate*(1-rate))); math.Abs(float64(pairs)-n*two) > off {
			t.Errorf("rate %v: %d failures followed a failure, want %v ± %v", rate, pairs, n*two, off)
		}
	}
}

// The first call with this seed draws 0, the lowest number there is.
func TestFlakyNeverFailsAtRateZero(t *testing.T) {
	const seed = 14872824182927586531
	if drawn := rand.New(rand.NewPCG(seed, 1)).Float64(); drawn != 0 {
		t.Fatalf("the first call draws %v, want 0: the test needs another seed", drawn)
	}
	if _, err := resiliencetest.Flaky[int](0, seed).Do(t.Context()); err != nil {
		t.Errorf("got %v, want nil", err)
	}
}

func TestSlowTakesFullDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := resiliencetest.Slow[string](time.Second).Returning("v")
		for range 2 {
			began := time.Now()
			if value, err := e.Do(t.Context()); value != "v" || err != nil || time.Since(began) != time.Second {
				t.Errorf("got %q, %v after %v, want \"v\", nil after 1s", value, err, time.Since(began))
			}
		}
		wantCounts(t, e, 2, 1)
	})
}

// ended makes a call and returns how it ended and how long it took.
func ended(ctx context.Context, e *resiliencetest.Effector[string]) (value string, took time.Duration, err error) {
	began := time.Now()
	value, err = e.Do(ctx)
	return value, time.Since(began), err
}

func TestEffectorContextEndsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, e := range map[string]*resiliencetest.Effector[string]{
			"Slow":   resiliencetest.Slow[string](time.Hour).Returning("v"),
			"Hang":   resiliencetest.Hang[string](),
			"Script": resiliencetest.Script(resiliencetest.Step[string]{Value: "v", Err: errOwn, Delay: time.Hour}),
		} {
			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errCause)
			value, took, err := ended(ctx, e)
			cancel()
			if value != "" || !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errCause) || took != time.Second {
				t.Errorf("%s at a deadline: got %q, %v after %v, want an error after 1s", name, value, err, took)
			}

			canceled, cancelCause := context.WithCancelCause(t.Context())
			time.AfterFunc(time.Minute, func() { cancelCause(errCause) })
			value, took, err = ended(canceled, e)
			if value != "" || !errors.Is(err, context.Canceled) || !errors.Is(err, errCause) || took != time.Minute {
				t.Errorf("%s, canceled: got %q, %v after %v, want an error after 1m", name, value, err, took)
			}

			value, took, err = ended(canceled, e)
			if value != "" || !errors.Is(err, context.Canceled) || took != 0 {
				t.Errorf("%s with a context done before: got %q, %v after %v, want an error after 0s", name, value, err, took)
			}
			wantCounts(t, e, 3, 1)
		}
	})
}

// TestSlowDeadlineAtSameInstantWins would fail in half the rounds if both timers were started:
// timers that expire at the same instant fire in any order.
func TestSlowDeadlineAtSameInstantWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := resiliencetest.Slow[int](time.Second)
		step := resiliencetest.Script(resiliencetest.Step[int]{Delay: time.Second})
		for range 100 {
			for _, e := range []*resiliencetest.Effector[int]{slow, step} {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				if _, err := e.Do(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Fatalf("got %v, want DeadlineExceeded", err)
				}
				cancel()
				later, cancel := context.WithTimeout(t.Context(), time.Second+1)
				if _, err := e.Do(later); err != nil {
					t.Fatalf("got %v with a later deadline, want nil", err)
				}
				cancel()
			}
		}
	})
}

// neverDone has a deadline but is never done.
type neverDone struct{ context.Context }

func (neverDone) Deadline() (time.Time, bool) { return time.Now(), true }
func (neverDone) Done() <-chan struct{}       { return nil }

func TestSlowEndsWithContextThatIsNeverDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := resiliencetest.Slow[string](time.Second).Returning("v")
		if value, took, err := ended(neverDone{context.Background()}, e); value != "v" || err != nil || took != time.Second {
			t.Errorf("got %q, %v after %v", value, err, took)
		}
	})
}

func TestIgnoresContextTakesFullDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := resiliencetest.IgnoresContext[string](time.Minute).Returning("v")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for range 2 { // first the context ends during the call, then before it
			if value, took, err := ended(ctx, e); value != "v" || err != nil || took != time.Minute {
				t.Errorf("got %q, %v after %v", value, err, took)
			}
		}
		wantCounts(t, e, 2, 1)
	})
}

func TestEffectorFailingSetsError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, e := range map[string]*resiliencetest.Effector[string]{
			"Slow":           resiliencetest.Slow[string](time.Second).Returning("v").Failing(errOwn),
			"IgnoresContext": resiliencetest.IgnoresContext[string](time.Second).Returning("v").Failing(errOwn),
			"Hang":           resiliencetest.Hang[string]().Failing(errOwn),
		} {
			ctx, cancel := context.WithCancel(t.Context())
			if name == "Hang" {
				time.AfterFunc(time.Second, cancel)
			}
			if value, took, err := ended(ctx, e); value != "" || err != errOwn || took != time.Second {
				t.Errorf("%s: got %q, %v after %v, want %v after 1s", name, value, err, took, errOwn)
			}
			cancel()
		}
		slow := resiliencetest.Slow[string](time.Hour).Failing(errOwn)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := slow.Do(ctx); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errOwn) {
			t.Errorf("got %v from Slow whose context ended, want DeadlineExceeded", err)
		}
	})
}

func TestPanicCountsCall(t *testing.T) {
	e := resiliencetest.Panic[int](errOwn)
	for range 2 {
		func() {
			defer func() {
				if value := recover(); value != errOwn {
					t.Errorf("got panic %v", value)
				}
			}()
			e.Do(t.Context())
		}()
	}
	wantCounts(t, e, 2, 1)
}

func TestScriptRepeatsLastStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := resiliencetest.Script(
			resiliencetest.Step[string]{Value: "a"},
			resiliencetest.Step[string]{Err: errOwn, Times: 2},
			resiliencetest.Step[string]{Value: "b", Delay: time.Second},
			resiliencetest.Step[string]{Value: "c", Times: 2},
		)
		began := time.Now()
		if got := outcomes(t, e, 8); got != "a, own, own, b, c, c, c, c" || time.Since(began) != time.Second {
			t.Errorf("got %s after %v", got, time.Since(began))
		}
		wantCounts(t, e, 8, 1)
	})
}

func TestScriptStepReturnsValueWithError(t *testing.T) {
	e := resiliencetest.Script(resiliencetest.Step[string]{Value: "half", Err: errOwn})
	if value, err := e.Do(t.Context()); value != "half" || err != errOwn {
		t.Errorf("got %q, %v", value, err)
	}
}

func TestScriptStepWithoutDelayIgnoresContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	e := resiliencetest.Script(resiliencetest.Step[string]{Value: "v"})
	if value, err := e.Do(ctx); value != "v" || err != nil {
		t.Errorf("got %q, %v", value, err)
	}
}

func TestScriptCopiesSteps(t *testing.T) {
	steps := []resiliencetest.Step[string]{{Value: "v"}}
	e := resiliencetest.Script(steps...)
	steps[0].Value = "changed"
	if got := outcomes(t, e, 1); got != "v" {
		t.Errorf("got %v", got)
	}
}

func TestScriptTimesRepeatsStep(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var steps []resiliencetest.Step[int]
		var want []string
		for i := range 1 + random.IntN(5) {
			times := random.IntN(4)
			steps = append(steps, resiliencetest.Step[int]{Value: i, Times: times})
			for range max(times, 1) {
				want = append(want, fmt.Sprint(i))
			}
		}
		for range 3 {
			want = append(want, want[len(want)-1])
		}
		if got, want := outcomes(t, resiliencetest.Script(steps...), len(want)), strings.Join(want, ", "); got != want {
			t.Errorf("%+v: got %s, want %s", steps, got, want)
		}
	}
	endless := resiliencetest.Script(
		resiliencetest.Step[int]{Value: 1, Times: math.MaxInt},
		resiliencetest.Step[int]{Value: 2, Times: math.MaxInt},
	)
	if got := outcomes(t, endless, 3); got != "1, 1, 1" {
		t.Errorf("got %s, want the first step forever", got)
	}
}

func TestEffectorSettingsApplyToLaterCalls(t *testing.T) {
	e := resiliencetest.FailFirst[string](2)
	got := outcomes(t, e, 1)
	e.Failing(errOwn)
	got += ", " + outcomes(t, e, 1)
	e.Returning("v")
	got += ", " + outcomes(t, e, 1)
	e.Returning("w")
	got += ", " + outcomes(t, e, 1)
	if want := "resiliencetest: failed, own, v, w"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestEffectorCountsConcurrentCallers checks that of n concurrent calls as many fail as of n
// consecutive ones.
func TestEffectorCountsConcurrentCallers(t *testing.T) {
	const callers, each, n = 16, 250, 16 * 250
	_, flaky := pattern(t.Context(), resiliencetest.Flaky[int](0.3, 7), n)
	for name, test := range map[string]struct {
		e        *resiliencetest.Effector[int]
		failures int
	}{
		"FailAfter":      {resiliencetest.FailAfter[int](1000), n - 1000},
		"FailFirst":      {resiliencetest.FailFirst[int](1000), 1000},
		"Flaky":          {resiliencetest.Flaky[int](0.3, 7), flaky},
		"Script":         {resiliencetest.Script(resiliencetest.Step[int]{Err: errOwn, Times: 999}, resiliencetest.Step[int]{}), 999},
		"Slow":           {resiliencetest.Slow[int](0), 0},
		"IgnoresContext": {resiliencetest.IgnoresContext[int](0), 0},
	} {
		t.Run(name, func(t *testing.T) {
			var failures atomic.Int64
			var g errgroup.Group
			for range callers {
				g.Go(func() error {
					for range each {
						if name != "Script" {
							test.e.Returning(1) // may be called at any time
						}
						if _, err := test.e.Do(t.Context()); err != nil {
							failures.Add(1)
						}
						if running := test.e.Running(); running < 0 || running > callers || test.e.MaxConcurrent() > callers {
							return fmt.Errorf("got %d running, at most %d concurrently", running, test.e.MaxConcurrent())
						}
					}
					return nil
				})
			}
			if err := g.Wait(); err != nil {
				t.Error(err)
			}
			if int(failures.Load()) != test.failures || test.e.Calls() != n || test.e.Running() != 0 || test.e.MaxConcurrent() < 1 {
				t.Errorf("%d of %d calls failed, want %d; %d running, at most %d concurrently",
					failures.Load(), test.e.Calls(), test.failures, test.e.Running(), test.e.MaxConcurrent())
			}
		})
	}
}

// The race detector must find no access to the error without the lock: most calls fail after the
// error was set, and only the lock orders the two.
func TestEffectorFailingIsSafeWhileCallsFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := resiliencetest.Hang[int]().Failing(errCause)
		ctx, cancel := context.WithCancel(t.Context())
		var g errgroup.Group
		for range 100 {
			g.Go(func() error {
				if _, err := e.Do(ctx); err != errCause && err != errOwn {
					return fmt.Errorf("got %v, want an error that was set", err)
				}
				return nil
			})
		}
		synctest.Wait()
		cancel()
		e.Failing(errOwn)
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
}

func TestEffectorMaxConcurrentIsExact(t *testing.T) {
	for name, e := range map[string]*resiliencetest.Effector[int]{
		"Slow":           resiliencetest.Slow[int](time.Second),
		"IgnoresContext": resiliencetest.IgnoresContext[int](time.Second),
		"Hang":           resiliencetest.Hang[int](),
		"Script":         resiliencetest.Script(resiliencetest.Step[int]{Delay: time.Second}),
	} {
		synctest.Test(t, func(t *testing.T) {
			most, calls := 0, 0
			for _, n := range []int{3, 100, 10} { // fewer than before don't change the maximum
				ctx, cancel := context.WithCancel(t.Context())
				var g errgroup.Group
				for range n {
					g.Go(func() error {
						e.Do(ctx)
						return nil
					})
				}
				synctest.Wait()
				if e.Running() != n {
					t.Errorf("%s: got %d running, want %d", name, e.Running(), n)
				}
				cancel() // for Hang
				g.Wait()
				calls, most = calls+n, max(most, n)
				wantCounts(t, e, calls, most)
			}
		})
	}
}

// meeting is a context that is done once all callers of Done have arrived: by then, their calls
// have begun.
type meeting struct {
	context.Context
	wait   *sync.WaitGroup
	cancel context.CancelFunc
}

func (m meeting) Done() <-chan struct{} {
	m.wait.Done()
	m.wait.Wait()
	m.cancel()
	return m.Context.Done()
}

func TestEffectorMaxConcurrentIsExactOutsideBubble(t *testing.T) {
	const n = 100
	e := resiliencetest.Hang[int]()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wait sync.WaitGroup
	wait.Add(n)
	var g errgroup.Group
	for range n {
		g.Go(func() error {
			_, err := e.Do(meeting{ctx, &wait, cancel})
			return err
		})
	}
	if err := g.Wait(); err != context.Canceled {
		t.Error(err)
	}
	wantCounts(t, e, n, n)
}

func TestScriptConcurrentCallsTakeEachStepOnce(t *testing.T) {
	steps := make([]resiliencetest.Step[int], 1000)
	for i := range steps {
		steps[i].Value = i
	}
	e := resiliencetest.Script(steps...)
	taken := make([]atomic.Int32, len(steps))
	var g errgroup.Group
	for range 10 {
		g.Go(func() error {
			for range 100 {
				step, err := e.Do(t.Context())
				if err != nil {
					return err
				}
				taken[step].Add(1)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	for i := range taken {
		if taken[i].Load() != 1 {
			t.Errorf("step %d was taken %d times, want once", i, taken[i].Load())
		}
	}
}

func TestEffectorGoexitEndsCall(t *testing.T) {
	e := resiliencetest.Hang[int]()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		e.Do(exiting{t.Context()})
	}()
	<-ended
	wantCounts(t, e, 1, 1)
}

// exiting is a context whose Done ends the calling goroutine.
type exiting struct{ context.Context }

func (exiting) Done() <-chan struct{} {
	runtime.Goexit()
	return nil
}

func TestEffectorPanicsOnInvalidArguments(t *testing.T) {
	type step = resiliencetest.Step[int]
	for want, mistake := range map[string]func(){
		"resiliencetest: FailAfter: n is -1, must be 0 or more":             func() { resiliencetest.FailAfter[int](-1) },
		"resiliencetest: FailFirst: n is -1, must be 0 or more":             func() { resiliencetest.FailFirst[int](-1) },
		"resiliencetest: Flaky: rate is 1.5, must be 0 to 1":                func() { resiliencetest.Flaky[int](1.5, 0) },
		"resiliencetest: Flaky: rate is -0.1, must be 0 to 1":               func() { resiliencetest.Flaky[int](-0.1, 0) },
		"resiliencetest: Flaky: rate is NaN, must be 0 to 1":                func() { resiliencetest.Flaky[int](math.NaN(), 0) },
		"resiliencetest: Slow: d is -1s, must be 0 or more":                 func() { resiliencetest.Slow[int](-time.Second) },
		"resiliencetest: IgnoresContext: d is -1s, must be 0 or more":       func() { resiliencetest.IgnoresContext[int](-time.Second) },
		"resiliencetest: Script: there are 0 steps, must be at least 1":     func() { resiliencetest.Script[int]() },
		"resiliencetest: Script: steps[1].Times is -1, must be 0 or more":   func() { resiliencetest.Script(step{}, step{Times: -1}) },
		"resiliencetest: Script: steps[0].Delay is -1ns, must be 0 or more": func() { resiliencetest.Script(step{Delay: -1}) },
		"resiliencetest: Failing: err is nil, must be an error":             func() { resiliencetest.FailAfter[int](0).Failing(nil) },
		"resiliencetest: Failing: a Panic takes no error":                   func() { resiliencetest.Panic[int](1).Failing(errOwn) },
		"resiliencetest: Failing: a Script takes no error":                  func() { resiliencetest.Script(step{}).Failing(errOwn) },
		"resiliencetest: Returning: a Hang takes no value":                  func() { resiliencetest.Hang[int]().Returning(1) },
		"resiliencetest: Returning: a Panic takes no value":                 func() { resiliencetest.Panic[int](1).Returning(1) },
		"resiliencetest: Returning: a Script takes no value":                func() { resiliencetest.Script(step{}).Returning(1) },
	} {
		t.Run(want, func(t *testing.T) {
			defer func() {
				if value := recover(); value != want {
					t.Errorf("got panic %v", value)
				}
			}()
			mistake()
		})
	}
}

func TestEffectorDoFitsComposeAndDo(t *testing.T) {
	e := resiliencetest.FailFirst[string](0).Returning("v")
	var policy resilience.Policy = &resiliencetest.Recorder{}
	outcomes := map[string]resilience.Effector[string]{
		"Effector": e.Do,
		"Compose":  resilience.Compose(e.Do, policy),
		"With":     resilience.Effector[string](e.Do).With(policy),
		"Do":       func(ctx context.Context) (string, error) { return resilience.Do(ctx, policy, e.Do) },
	}
	for name, call := range outcomes {
		if value, err := call(t.Context()); value != "v" || err != nil {
			t.Errorf("%s: got %q, %v, want \"v\", nil", name, value, err)
		}
	}
	wantCounts(t, e, len(outcomes), 1)
}
