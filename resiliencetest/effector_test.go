package resiliencetest_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/resiliencetest"
)

var errOwn = errors.New("own")

// outcomes makes n calls and tells each: a value or an error.
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
	if e.Calls() != n || e.Running() != 0 || e.MostAtOnce() != min(n, 1) {
		t.Errorf("%d calls, %d running, %d at once after %d in turn", e.Calls(), e.Running(), e.MostAtOnce(), n)
	}
	return strings.Join(texts, ", ")
}

func TestCallsSucceedAndFailByTheirNumber(t *testing.T) {
	failed := resiliencetest.ErrFailed.Error()
	for _, c := range []struct {
		name string
		e    *resiliencetest.Effector[string]
		want []string
	}{
		{"FailAfter", resiliencetest.FailAfter[string](2).Returning("v"), []string{"v", "v", failed, failed}},
		{"FailAfter 0", resiliencetest.FailAfter[string](0), []string{failed, failed}},
		{"FailFirst", resiliencetest.FailFirst[string](2).Returning("v"), []string{failed, failed, "v", "v"}},
		{"FailFirst 0", resiliencetest.FailFirst[string](0), []string{"", ""}},
		{"own error", resiliencetest.FailFirst[string](1).Failing(errOwn), []string{"own", ""}},
		{"Flaky 0", resiliencetest.Flaky[string](0, 1).Returning("v"), []string{"v", "v", "v"}},
		{"Flaky 1", resiliencetest.Flaky[string](1, 1), []string{failed, failed, failed}},
	} {
		if got, want := outcomes(t, c.e, len(c.want)), strings.Join(c.want, ", "); got != want {
			t.Errorf("%s: %s, want %s", c.name, got, want)
		}
	}
}

func TestFlakyFailsTheShareAndTheSameCallsForTheSameSeed(t *testing.T) {
	const n = 20_000
	fates := func(seed uint64) (text string, failures int) {
		e := resiliencetest.Flaky[int](0.3, seed)
		fate := make([]byte, n)
		for i := range fate {
			fate[i] = '+'
			if _, err := e.Do(t.Context()); err != nil {
				fate[i] = '-'
				failures++
			}
		}
		return string(fate), failures
	}
	one, failures := fates(1)
	if again, _ := fates(1); again != one {
		t.Error("the same seed chose other calls")
	}
	if two, _ := fates(2); two == one {
		t.Error("another seed chose the same calls")
	}
	// Five standard deviations of a binomial distribution.
	if want, off := 0.3*n, 5*math.Sqrt(n*0.3*0.7); math.Abs(float64(failures)-want) > off {
		t.Errorf("%d of %d calls failed", failures, n)
	}
}

func TestSlowTakesItsTimeUnlessCtxIsDoneBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := resiliencetest.Slow[string](time.Second).Returning("v")
		began := time.Now()
		if value, err := e.Do(t.Context()); value != "v" || err != nil || time.Since(began) != time.Second {
			t.Errorf("%q, %v after %v", value, err, time.Since(began))
		}
		cause := errors.New("cause")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Millisecond, cause)
		defer cancel()
		began = time.Now()
		value, err := e.Do(ctx)
		if value != "" || !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, cause) || time.Since(began) != time.Millisecond {
			t.Errorf("%q, %v after %v", value, err, time.Since(began))
		}
	})
}

func TestHangReturnsWhenCtxIsDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		began := time.Now()
		if _, err := resiliencetest.Hang[int]().Do(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Hour {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

func TestDeafTakesItsTimeWhateverBecomesOfCtx(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		value, err := resiliencetest.Deaf[int](time.Minute).Returning(7).Do(ctx)
		if value != 7 || err != nil || time.Since(began) != time.Minute {
			t.Errorf("%v, %v after %v", value, err, time.Since(began))
		}
	})
}

func TestPanicPanicsAndIsCounted(t *testing.T) {
	e := resiliencetest.Panic[int]("boom")
	func() {
		defer func() {
			if value := recover(); value != "boom" {
				t.Errorf("panicked with %v", value)
			}
		}()
		e.Do(t.Context())
	}()
	if e.Calls() != 1 || e.Running() != 0 {
		t.Errorf("%d calls, %d running", e.Calls(), e.Running())
	}
}

func TestScriptTakesItsStepsInTurnAndStaysAtTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		steps := []resiliencetest.Step[string]{
			{Value: "a"},
			{Err: errOwn, Times: 2},
			{Value: "b", Delay: time.Second},
			{Value: "both", Err: errOwn},
		}
		e := resiliencetest.Script(steps...)
		steps[0].Value = "changed by the caller"
		began := time.Now()
		if got := outcomes(t, e, 6); got != "a, own, own, b, own, own" || time.Since(began) != time.Second {
			t.Errorf("%s after %v", got, time.Since(began))
		}
		if value, err := e.Do(t.Context()); value != "both" || err != errOwn {
			t.Errorf("%q, %v", value, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		long := resiliencetest.Script(resiliencetest.Step[string]{Value: "v", Delay: time.Hour})
		if value, err := long.Do(ctx); value != "" || !errors.Is(err, context.Canceled) {
			t.Errorf("%q, %v", value, err)
		}
	})
}

// TestAnyNumberOfCallersAreCounted exactly: 100 at once, then 10 at once, and a script hands each of its steps out once.
func TestAnyNumberOfCallersAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		steps := make([]resiliencetest.Step[int], 110)
		for i := range steps {
			steps[i] = resiliencetest.Step[int]{Value: i, Delay: time.Second}
		}
		e := resiliencetest.Script(steps...)
		values := make(chan int, len(steps))
		for _, n := range []int{100, 10} {
			var g errgroup.Group
			for range n {
				g.Go(func() error {
					value, err := e.Do(t.Context())
					values <- value
					return err
				})
			}
			synctest.Wait()
			if e.Running() != n {
				t.Errorf("%d running, want %d", e.Running(), n)
			}
			if err := g.Wait(); err != nil {
				t.Error(err)
			}
		}
		if e.Calls() != 110 || e.MostAtOnce() != 100 || e.Running() != 0 {
			t.Errorf("%d calls, %d at once, %d running", e.Calls(), e.MostAtOnce(), e.Running())
		}
		close(values)
		seen := map[int]bool{}
		for value := range values {
			if seen[value] {
				t.Errorf("step %d was taken twice", value)
			}
			seen[value] = true
		}
	})
}

func TestMistakesPanicAndNameTheValue(t *testing.T) {
	for want, make := range map[string]func(){
		"resiliencetest: FailAfter: n is -1, must be 0 or more":             func() { resiliencetest.FailAfter[int](-1) },
		"resiliencetest: FailFirst: n is -1, must be 0 or more":             func() { resiliencetest.FailFirst[int](-1) },
		"resiliencetest: Flaky: share is 1.5, must be 0 to 1":               func() { resiliencetest.Flaky[int](1.5, 0) },
		"resiliencetest: Flaky: share is NaN, must be 0 to 1":               func() { resiliencetest.Flaky[int](math.NaN(), 0) },
		"resiliencetest: Slow: d is -1s, must be 0 or more":                 func() { resiliencetest.Slow[int](-time.Second) },
		"resiliencetest: Deaf: d is -1s, must be 0 or more":                 func() { resiliencetest.Deaf[int](-time.Second) },
		"resiliencetest: Script: there are no steps, must be at least 1":    func() { resiliencetest.Script[int]() },
		"resiliencetest: Script: steps[1].Times is -1, must be 0 or more":   func() { resiliencetest.Script(resiliencetest.Step[int]{}, resiliencetest.Step[int]{Times: -1}) },
		"resiliencetest: Script: steps[0].Delay is -1ns, must be 0 or more": func() { resiliencetest.Script(resiliencetest.Step[int]{Delay: -1}) },
		"resiliencetest: Failing: err is nil, must be an error":             func() { resiliencetest.FailAfter[int](0).Failing(nil) },
	} {
		func() {
			defer func() {
				if value := recover(); value != want {
					t.Errorf("panicked with %v, want %s", value, want)
				}
			}()
			make()
		}()
	}
}

func TestEffectorsFitAPipeline(t *testing.T) {
	call := resilience.Compose(resiliencetest.FailFirst[string](0).Returning("v").Do, &resiliencetest.Recorder{})
	if value, err := call(t.Context()); value != "v" || err != nil {
		t.Errorf("%q, %v", value, err)
	}
}
