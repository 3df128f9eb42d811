package resilience_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
)

// named is a policy that appends its name to log when it runs.
func named(log *[]string, name string) resilience.Policy {
	return resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		*log = append(*log, name)
		return next.Run(ctx)
	})
}

func TestComposeRunsOutermostFirst(t *testing.T) {
	var log []string
	effector := resilience.Effector[int](func(context.Context) (int, error) {
		log = append(log, "effector")
		return 1, nil
	})
	a, b, c := named(&log, "a"), named(&log, "b"), named(&log, "c")
	want := []string{"a", "b", "c", "effector"}
	for name, call := range map[string]resilience.Effector[int]{
		"Compose": resilience.Compose(effector, a, b, c),
		"With":    effector.With(a, b, c),
		"chained": effector.With(c).With(a, b),
		"Do": func(ctx context.Context) (int, error) {
			return resilience.Do(ctx, resilience.Pipeline{a, b, c}, effector)
		},
		"nested":  effector.With(resilience.Pipeline{a, resilience.Pipeline{}, resilience.Pipeline{b}}, c),
		"nested2": effector.With(a, resilience.Pipeline{resilience.Pipeline{resilience.Pipeline{b}, c}}),
		"Do, nested": func(ctx context.Context) (int, error) {
			return resilience.Do(ctx, resilience.Pipeline{resilience.Pipeline{a, resilience.Pipeline{b}}, nilPipeline(), c}, effector)
		},
		"a pipeline behind a function": effector.With(resilience.PolicyFunc(resilience.Pipeline{a, b}.Run), c),
	} {
		log = nil
		if value, err := call(t.Context()); value != 1 || err != nil {
			t.Errorf("%s: got %d, %v; want 1, nil", name, value, err)
		}
		if !slices.Equal(log, want) {
			t.Errorf("%s: ran %v, want %v", name, log, want)
		}
	}
}

// nilPipeline adds nothing and is valid.
func nilPipeline() resilience.Pipeline { return nil }

func TestPipelineNestsToAnyDepth(t *testing.T) {
	var log []string
	var want []string
	pipeline := resilience.Pipeline{}
	for i := range 100 {
		name := fmt.Sprint(i)
		pipeline = resilience.Pipeline{pipeline, named(&log, name)}
		want = append(want, name)
	}
	if _, err := resilience.Do(t.Context(), pipeline, one); err != nil || !slices.Equal(log, want) {
		t.Errorf("Do: ran %v (%v), want %v", log, err, want)
	}
	log = nil
	if _, err := resilience.Compose(one, pipeline)(t.Context()); err != nil || !slices.Equal(log, want) {
		t.Errorf("Compose: ran %v (%v), want %v", log, err, want)
	}
}

func TestPipelineRunsSeveralTimesInCall(t *testing.T) {
	var log []string
	inner := resilience.Pipeline{named(&log, "a"), named(&log, "b")}
	policy := resilience.Pipeline{twice, inner, named(&log, "c")}
	if _, err := resilience.Do(t.Context(), policy, one); err != nil {
		t.Fatal(err)
	}
	if want := []string{"a", "b", "c", "a", "b", "c"}; !slices.Equal(log, want) {
		t.Errorf("ran %v, want %v", log, want)
	}
}

func TestComposeWithoutPoliciesReturnsEffector(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // only a plain effector runs with an ended context
	for _, call := range []resilience.Effector[int]{
		resilience.Compose(one),
		resilience.Compose(one, resilience.Pipeline{}, resilience.Pipeline{resilience.Pipeline{}}),
	} {
		if value, err := call(ctx); value != 1 || err != nil {
			t.Errorf("got %d, %v; want 1, nil", value, err)
		}
		if allocs := testing.AllocsPerRun(100, func() { _, _ = call(ctx) }); allocs != 0 {
			t.Errorf("%v allocations, want 0", allocs)
		}
	}
}

func TestComposeRunMakesCallInsidePolicies(t *testing.T) {
	var order []string
	policy := func(name string) resilience.Policy {
		return resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			order = append(order, name)
			return next.Run(ctx)
		})
	}
	fail := func(context.Context) error { order = append(order, "call"); return errDown }
	if err := resilience.ComposeRun(fail, policy("outer"), policy("inner"))(t.Context()); err != errDown {
		t.Errorf("got %v, want %v", err, errDown)
	}
	if err := resilience.ComposeRun(fail)(t.Context()); err != errDown {
		t.Errorf("without policies: got %v, want %v", err, errDown)
	}
	if want := []string{"outer", "inner", "call", "call"}; !slices.Equal(order, want) {
		t.Errorf("order %v, want %v", order, want)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := resilience.ComposeRun(fail, policy("outer"))(ended); err != context.Canceled || len(order) != 4 {
		t.Errorf("with an ended context: got %v after %v", err, order[4:])
	}
}

func TestWithNestsAroundEarlierWith(t *testing.T) {
	var order []string
	policy := func(name string) resilience.Policy {
		return resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			order = append(order, name)
			return next.Run(ctx)
		})
	}
	answer := resilience.Effector[int](func(context.Context) (int, error) { return 42, nil })
	answer.With(policy("a")).With(policy("b"))(t.Context())
	answer.With(policy("b"), policy("a"))(t.Context())
	if want := []string{"b", "a", "b", "a"}; !slices.Equal(order, want) {
		t.Errorf("order %v, want %v", order, want)
	}
}

func TestComposeCopiesList(t *testing.T) {
	var log []string
	inner := resilience.Pipeline{named(&log, "b"), named(&log, "c")}
	list := []resilience.Policy{named(&log, "a"), inner}
	call := resilience.Compose(one, list...)
	list[0], inner[0] = nil, nil
	if _, err := call(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := []string{"a", "b", "c"}; !slices.Equal(log, want) {
		t.Errorf("ran %v, want %v", log, want)
	}
}

func TestPipelineLeavesListUnchanged(t *testing.T) {
	var log []string
	a, b, c, spare := named(&log, "a"), named(&log, "b"), named(&log, "c"), named(&log, "spare")
	inner := resilience.Pipeline{a, spare}[:1] // room for one more, which a careless append would overwrite
	outer := resilience.Pipeline{inner, b, c}
	for range 2 {
		log = nil
		if _, err := resilience.Do(t.Context(), outer, one); err != nil {
			t.Fatal(err)
		}
		if want := []string{"a", "b", "c"}; !slices.Equal(log, want) {
			t.Errorf("ran %v, want %v", log, want)
		}
	}
	log = nil
	if _, err := resilience.Do(t.Context(), inner[:2], one); err != nil || !slices.Equal(log, []string{"a", "spare"}) {
		t.Errorf("the list has changed: ran %v (%v)", log, err)
	}
}

func TestPipelineServesConcurrentCalls(t *testing.T) {
	inner := resilience.Pipeline{pass, pass, pass}[:2]
	pipeline := resilience.Pipeline{twice, inner, pass}
	call := resilience.Compose(one, pipeline)
	var g errgroup.Group
	for i := range 8 {
		g.Go(func() error {
			for range 100 {
				got, err := resilience.Do(t.Context(), pipeline, func(context.Context) (int, error) { return i, nil })
				if got != i || err != nil {
					return fmt.Errorf("got %d, %v; want %d, nil", got, err, i)
				}
				if got, err := call(t.Context()); got != 1 || err != nil {
					return fmt.Errorf("got %d, %v; want 1, nil", got, err)
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

func TestComposeReturnsLastValueWithError(t *testing.T) {
	n := 0
	count := func(context.Context) (int, error) { n++; return n, errDown }
	wrap := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		return fmt.Errorf("wrapped: %w", next.Run(ctx))
	})
	if value, err := resilience.Do(t.Context(), resilience.Pipeline{wrap, twice}, count); value != 2 || !errors.Is(err, errDown) {
		t.Errorf("got %d, %v; want 2, %v", value, err, errDown)
	}
}

func TestComposeReturnsZeroIfNotMade(t *testing.T) {
	refuse := resilience.PolicyFunc(func(context.Context, resilience.Next) error { return resilience.ErrRefused })
	if value, err := resilience.Do(t.Context(), refuse, one); value != 0 || err != resilience.ErrRefused {
		t.Errorf("got %d, %v; want 0, %v", value, err, resilience.ErrRefused)
	}
}

func TestRunReturnsError(t *testing.T) {
	if err := resilience.Run(t.Context(), pass, func(context.Context) error { return errDown }); err != errDown {
		t.Errorf("got %v, want %v", err, errDown)
	}
	if err := resilience.Run(t.Context(), resilience.Pipeline{}, func(context.Context) error { return nil }); err != nil {
		t.Errorf("got %v, want nil", err)
	}
}

func TestDoRefusesEndedContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errCause)
	policy := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		t.Error("a policy ran")
		return next.Run(ctx)
	})
	effector := func(context.Context) (int, error) { t.Error("the effector ran"); return 1, nil }

	_, composed := resilience.Compose(effector, policy)(ctx)
	value, done := resilience.Do(ctx, policy, effector)
	run := resilience.Run(ctx, policy, func(ctx context.Context) error { _, err := effector(ctx); return err })
	for _, err := range []error{composed, done, run} {
		if !errors.Is(err, context.Canceled) || !errors.Is(err, errCause) {
			t.Errorf("%v does not match both context.Canceled and the cause", err)
		}
	}
	if value != 0 {
		t.Errorf("got value %d, want 0", value)
	}
}

func TestEffectorReceivesInnermostContext(t *testing.T) {
	type key struct{}
	set := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		return next.Run(context.WithValue(ctx, key{}, "set"))
	})
	_ = resilience.Run(t.Context(), set, func(ctx context.Context) error {
		if ctx.Value(key{}) != "set" {
			t.Error("the effector did not get the policy's context")
		}
		return nil
	})
}

// checked runs the function as a policy around an effector that counts its calls and returns the
// count.
func checked(t *testing.T, outer resilience.Policy, policy func(ctx context.Context, next resilience.Next) error) (int, error) {
	t.Helper()
	var mu sync.Mutex
	n := 0
	return resilience.Do(t.Context(), resilience.Pipeline{outer, resilience.PolicyFunc(policy)}, func(context.Context) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		n++
		return n, errDown
	})
}

func wantStarts(t *testing.T, what string, n resilience.Next, want int) {
	t.Helper()
	if got := n.Starts(); got != want {
		t.Errorf("%s: Starts() = %d, want %d", what, got, want)
	}
}

func TestNextStartsCountsStarts(t *testing.T) {
	_, _ = checked(t, pass, func(ctx context.Context, next resilience.Next) error {
		wantStarts(t, "before", next, 0)
		_ = next.Run(ctx)
		wantStarts(t, "after one", next, 1)
		_ = next.Run(ctx)
		wantStarts(t, "after two", next, 2)
		return nil
	})
}

func TestNextStartsCountsPanic(t *testing.T) {
	policy := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		_ = panicOf(func() { _ = next.Run(ctx) })
		wantStarts(t, "after the panic", next, 1)
		return nil
	})
	_, _ = resilience.Do(t.Context(), policy, panicker)
}

func TestForkCountsAsOneStartUntilAdopted(t *testing.T) {
	_, _ = checked(t, pass, func(ctx context.Context, next resilience.Next) error {
		_ = next.Run(ctx)
		refused, run := next.Fork(), next.Fork()
		wantStarts(t, "with two forks", next, 3)
		wantStarts(t, "the fork before it ran", run, 0)

		_ = run.Run(ctx)
		_ = run.Run(ctx)
		_ = run.Run(ctx)
		wantStarts(t, "the fork", run, 3)
		wantStarts(t, "before the fork is adopted", next, 3)

		next.Adopt(run)
		wantStarts(t, "with a fork of three adopted", next, 5)
		next.Adopt(run)
		wantStarts(t, "adopted again", next, 5)
		next.Adopt(refused)
		wantStarts(t, "with a fork adopted that never started", next, 4)
		return nil
	})
}

func TestForkStartsAddUp(t *testing.T) {
	_, _ = checked(t, pass, func(ctx context.Context, next resilience.Next) error {
		outer := next.Fork()
		inner := outer.Fork()
		_ = inner.Run(ctx)
		_ = inner.Run(ctx)
		outer.Adopt(inner)
		next.Adopt(outer)
		wantStarts(t, "in all", next, 2)
		return nil
	})
}

func TestAdoptTakesForkValue(t *testing.T) {
	value, err := checked(t, pass, func(ctx context.Context, next resilience.Next) error {
		first, second := next.Fork(), next.Fork()
		_ = first.Run(ctx)
		_ = second.Run(ctx)
		next.Adopt(second)
		next.Adopt(first)
		return nil
	})
	if value != 1 || err != nil {
		t.Errorf("got %d, %v; want 1, nil: the value of the fork adopted last", value, err)
	}
}

func TestAdoptOfUnusedForkKeepsValue(t *testing.T) {
	value, _ := checked(t, pass, func(ctx context.Context, next resilience.Next) error {
		_ = next.Run(ctx)
		next.Adopt(next.Fork())
		return nil
	})
	if value != 1 {
		t.Errorf("got %d, want 1", value)
	}
}

func TestForkRunsRestOfPipeline(t *testing.T) {
	var log []string
	fork := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		f := next.Fork()
		err := f.Run(ctx)
		next.Adopt(f)
		return err
	})
	policy := resilience.Pipeline{named(&log, "outside"), fork, named(&log, "inside")}
	if value, err := resilience.Do(t.Context(), policy, one); value != 1 || err != nil {
		t.Errorf("got %d, %v; want 1, nil", value, err)
	}
	if want := []string{"outside", "inside"}; !slices.Equal(log, want) {
		t.Errorf("ran %v, want %v", log, want)
	}
}

func TestAdoptPanicsOnForeignFork(t *testing.T) {
	const want = "resilience: Adopt: fork is not a fork of this call"
	_, _ = checked(t, pass, func(ctx context.Context, next resilience.Next) error {
		for name, other := range map[string]resilience.Next{
			"itself": next, "a fork of a fork": next.Fork().Fork(), "no call": {},
		} {
			if got := panicOf(func() { next.Adopt(other) }); got != want {
				t.Errorf("%s: got panic %v, want %q", name, got, want)
			}
		}
		return nil
	})
}

func TestNextDiscardWithoutPolicyDoesNothing(t *testing.T) {
	value, _ := checked(t, pass, func(ctx context.Context, next resilience.Next) error {
		next.Discard()
		_ = next.Run(ctx)
		next.Discard()
		return nil
	})
	if value != 1 {
		t.Errorf("got %d, want 1", value)
	}
}

// both runs the rest of the call twice concurrently and adopts both results, in order.
var both = resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
	forks := [2]resilience.Next{next.Fork(), next.Fork()}
	var errs [2]error
	var g errgroup.Group
	for i, fork := range forks {
		g.Go(func() error { errs[i] = fork.Run(ctx); return nil })
	}
	_ = g.Wait()
	for _, fork := range forks {
		next.Adopt(fork)
	}
	return errs[1]
})

func TestForkRunsConcurrently(t *testing.T) {
	for name, policy := range map[string]resilience.Policy{
		"plain":                  resilience.Pipeline{both, pass},
		"in a fork":              resilience.Pipeline{both, both},
		"under Discard":          resilience.Pipeline{resilience.Discard(func(int) {}), both, both},
		"Discard within":         resilience.Pipeline{both, resilience.Discard(func(int) {}), both},
		"Discard inside and out": resilience.Pipeline{resilience.Discard(func(int) {}), both, resilience.Discard(func(int) {}), pass},
		"AtMostOnce within":      resilience.Pipeline{both, resilience.AtMostOnce},
	} {
		for range 20 {
			if value, err := resilience.Do(t.Context(), policy, one); value != 1 || err != nil {
				t.Errorf("%s: got %d, %v; want 1, nil", name, value, err)
			}
		}
	}
}

func TestRepeatableIsFalseOnlyUnderAtMostOnce(t *testing.T) {
	_, _ = checked(t, pass, func(ctx context.Context, next resilience.Next) error {
		_ = next.Run(ctx)
		if !next.Repeatable() {
			t.Error("a plain call is not repeatable")
		}
		return nil
	})
	_, _ = checked(t, resilience.AtMostOnce, func(ctx context.Context, next resilience.Next) error {
		if !next.Repeatable() {
			t.Error("a call that was not started is not repeatable")
		}
		_ = next.Run(ctx)
		if next.Repeatable() {
			t.Error("a call that was started is repeatable")
		}
		return nil
	})
}

func TestAtMostOnceHoldsInNestedPipelines(t *testing.T) {
	n := 0
	count := func(context.Context) error { n++; return errDown }
	reads := resilience.Pipeline{pass, resilience.Pipeline{again}}
	writes := resilience.Pipeline{resilience.AtMostOnce, reads}
	if err := resilience.Run(t.Context(), writes, count); err != errDown || n != 1 {
		t.Errorf("a write: %v after %d starts, want %v after 1", err, n, errDown)
	}
	n = 0
	if err := resilience.Run(t.Context(), reads, count); err != errDown || n != 2 {
		t.Errorf("a read: %v after %d starts, want %v after 2", err, n, errDown)
	}
}

func TestAtMostOnceIsNotPassedByContext(t *testing.T) {
	inner := 0
	_ = resilience.Run(t.Context(), resilience.AtMostOnce, func(ctx context.Context) error {
		return resilience.Run(ctx, again, func(context.Context) error { inner++; return errDown })
	})
	if inner != 2 {
		t.Errorf("the inner call was made %d times, want 2", inner)
	}
}

func TestNotMadeCountsOnlyAsOuterMark(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		want int
	}{
		{"plain", errDown, 1},
		{"success", nil, 1},
		{"not made", resilience.NotMade(errDown), 2},
		{"not made, of an error that wraps", resilience.NotMade(fmt.Errorf("dial: %w", errDown)), 2},
		{"wrapped", fmt.Errorf("dial: %w", resilience.NotMade(errDown)), 1},
		{"joined", errors.Join(resilience.NotMade(errDown)), 1},
	} {
		n := 0
		run := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			err := next.Run(ctx)
			if next.Repeatable() {
				err = next.Run(ctx)
			}
			return err
		})
		_ = resilience.Run(t.Context(), resilience.Pipeline{resilience.AtMostOnce, run}, func(context.Context) error { n++; return c.err })
		if n != c.want {
			t.Errorf("%s: started %d times, want %d", c.name, n, c.want)
		}
	}
}

func TestAtMostOnceCountsOneEffect(t *testing.T) {
	n := 0
	policy := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		for next.Repeatable() {
			_ = next.Run(ctx)
		}
		_ = next.Run(ctx) // not made: the earlier effect stays
		if next.Repeatable() {
			t.Error("repeatable after an effect")
		}
		return nil
	})
	_ = resilience.Run(t.Context(), resilience.Pipeline{resilience.AtMostOnce, policy}, func(context.Context) error {
		n++
		if n == 3 {
			return errDown
		}
		return resilience.NotMade(errDown)
	})
	if n != 4 {
		t.Errorf("started %d times, want 4", n)
	}
}

func TestAtMostOnceCountsPanicAsEffect(t *testing.T) {
	policy := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		_ = panicOf(func() { _ = next.Run(ctx) })
		if next.Repeatable() {
			t.Error("repeatable after a panic")
		}
		return nil
	})
	_, _ = resilience.Do(t.Context(), resilience.Pipeline{resilience.AtMostOnce, policy}, panicker)
}

func TestAtMostOnceCountsRunningForkAsEffect(t *testing.T) {
	_, _ = checked(t, resilience.AtMostOnce, func(ctx context.Context, next resilience.Next) error {
		fork := next.Fork()
		if !fork.Repeatable() {
			t.Error("the first fork may not start the call")
		}
		if next.Repeatable() {
			t.Error("repeatable while a fork may run")
		}
		if next.Fork().Repeatable() {
			t.Error("a second fork may start the call while the first one runs")
		}
		_ = fork.Run(ctx)
		if fork.Repeatable() {
			t.Error("the fork may start the call again")
		}
		next.Adopt(fork)
		if next.Repeatable() {
			t.Error("repeatable after a fork that ran")
		}
		return nil
	})
}

func TestForkOfForkInheritsEarlierEffects(t *testing.T) {
	_, _ = checked(t, resilience.AtMostOnce, func(ctx context.Context, next resilience.Next) error {
		_ = next.Run(ctx)
		if next.Fork().Fork().Repeatable() {
			t.Error("a fork of a fork may start the call again")
		}
		return nil
	})
}

func TestForkOfForkInheritsCallEffects(t *testing.T) {
	var repeatable []bool
	forks := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		err := next.Run(ctx)
		fork := next.Fork()
		repeatable = append(repeatable, fork.Repeatable(), fork.Fork().Repeatable())
		return err
	})
	resilience.Do(t.Context(), resilience.Pipeline{resilience.AtMostOnce, forks}, one)
	if slices.Contains(repeatable, true) || len(repeatable) != 2 {
		t.Errorf("a fork and its fork may be repeated: %v, though the call was made", repeatable)
	}
}

func TestForkWithoutEffectKeepsCallRepeatable(t *testing.T) {
	policy := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		refused, notMade := next.Fork(), next.Fork()
		_ = notMade.Run(ctx)
		next.Adopt(refused)
		next.Adopt(notMade)
		if !next.Repeatable() {
			t.Error("not repeatable, though neither fork had an effect")
		}
		return nil
	})
	_ = resilience.Run(t.Context(), resilience.Pipeline{resilience.AtMostOnce, policy}, func(context.Context) error {
		return resilience.NotMade(errDown)
	})
}

func TestAdoptTakesAtMostOnceOfFork(t *testing.T) {
	fork := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		f := next.Fork()
		_ = f.Run(ctx)
		next.Adopt(f)
		if next.Repeatable() {
			t.Error("repeatable after AtMostOnce in a fork")
		}
		return nil
	})
	_, _ = resilience.Do(t.Context(), resilience.Pipeline{fork, resilience.AtMostOnce}, one)
}

func TestFirstTimeIsTrueOncePerKey(t *testing.T) {
	policy := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		for _, key := range []any{"a", 1, "b", new(int)} {
			if !next.FirstTime(key) {
				t.Errorf("%v: false at first", key)
			}
			_ = next.Run(ctx)
			if next.FirstTime(key) {
				t.Errorf("%v: true again", key)
			}
		}
		for _, key := range []any{"a", 1, "b"} {
			if next.FirstTime(key) {
				t.Errorf("%v: true again after others", key)
			}
		}
		return nil
	})
	for range 2 { // another call starts over
		_, _ = resilience.Do(t.Context(), policy, one)
	}
	inner := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		if next.FirstTime("a") {
			t.Error("an inner policy does not know")
		}
		return next.Run(ctx)
	})
	_, _ = resilience.Do(t.Context(), resilience.Pipeline{policy, inner}, one)
}

func TestFirstTimeIsInheritedByFork(t *testing.T) {
	_ = resilience.Run(t.Context(), resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		for _, key := range []any{1, 2, 3} {
			next.FirstTime(key)
			fork := next.Fork()
			if fork.FirstTime(key) {
				t.Errorf("a fork does not know of %v", key)
			}
		}
		return nil
	}), func(context.Context) error { return nil })
}

// TestFirstTimeIsNotSharedByForks: both forks would write to a list with spare capacity.
func TestFirstTimeIsNotSharedByForks(t *testing.T) {
	_ = resilience.Run(t.Context(), resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		for key := range 8 {
			next.FirstTime(key)
			left, right := next.Fork(), next.Fork()
			left.FirstTime("left")
			right.FirstTime("right")
			if left.FirstTime("left") || right.FirstTime("right") || !left.FirstTime("right") {
				t.Errorf("after %d keys, a fork's key is in its sibling", key+1)
			}
		}
		return nil
	}), func(context.Context) error { return nil })
}

func TestFirstTimeIsAdoptedFromFork(t *testing.T) {
	_ = resilience.Run(t.Context(), resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		next.FirstTime("before")
		none, single, several, refused := next.Fork(), next.Fork(), next.Fork(), next.Fork()
		single.FirstTime(1)
		several.FirstTime(2)
		several.FirstTime(3)
		refused.FirstTime(4)
		for _, fork := range []resilience.Next{none, single, several} {
			_ = fork.Run(ctx)
			next.Adopt(fork)
		}
		if next.Adopt(refused); !next.FirstTime(4) {
			t.Error("a fork in which the effector was not started has done something once")
		}
		for _, key := range []any{"before", 1, 2, 3} {
			if next.FirstTime(key) {
				t.Errorf("%v: true again", key)
			}
		}
		return nil
	}), func(context.Context) error { return nil })
}

func TestFirstTimeIsAdoptedFromForkWithOneKey(t *testing.T) {
	_ = resilience.Run(t.Context(), resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		fork := next.Fork()
		fork.FirstTime("key")
		_ = fork.Run(ctx)
		if next.Adopt(fork); next.FirstTime("key") {
			t.Error("got true for a key that the adopted fork was asked for, want false")
		}
		return nil
	}), func(context.Context) error { return nil })
}

func TestCountStartCountsLikeRun(t *testing.T) {
	for _, c := range []struct {
		err        error
		repeatable bool
	}{{nil, false}, {errDown, false}, {resilience.NotMade(errDown), true}} {
		_ = resilience.Run(t.Context(), resilience.Pipeline{resilience.AtMostOnce, resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			if next.CountStart(c.err); next.Starts() != 1 || next.Repeatable() != c.repeatable {
				t.Errorf("%v: got %d starts, repeatable %t, want 1, %t", c.err, next.Starts(), next.Repeatable(), c.repeatable)
			}
			err := next.Run(ctx)
			if next.Starts() != 2 || next.Repeatable() {
				t.Errorf("%v: got %d starts, repeatable %t after Run, want 2, false", c.err, next.Starts(), next.Repeatable())
			}
			return err
		})}, func(context.Context) error { return nil })
	}
}

// A ledger has a drop function that records values and an effector that returns 1, 2, 3, and so on.
type ledger struct {
	mu      sync.Mutex
	made    int
	dropped []int
}

func (l *ledger) drop(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropped = append(l.dropped, n)
}

func (l *ledger) next() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.made++
	return l.made
}

func (l *ledger) fail(context.Context) (int, error)    { return l.next(), errDown }
func (l *ledger) succeed(context.Context) (int, error) { return l.next(), nil }

func (l *ledger) want(t *testing.T, dropped ...int) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	got := slices.Sorted(slices.Values(l.dropped))
	if !slices.Equal(got, dropped) {
		t.Errorf("dropped %v, want %v", got, dropped)
	}
}

func TestDiscardKeepsReturnedValue(t *testing.T) {
	var l ledger
	value, err := resilience.Do(t.Context(), resilience.Discard(l.drop), l.succeed)
	if value != 1 || err != nil {
		t.Errorf("got %d, %v; want 1, nil", value, err)
	}
	l.want(t)
}

func TestDiscardDropsOverwrittenValue(t *testing.T) {
	var l ledger
	value, err := resilience.Do(t.Context(), resilience.Pipeline{resilience.Discard(l.drop), twice, twice}, l.succeed)
	if value != 4 || err != nil {
		t.Errorf("got %d, %v; want 4, nil", value, err)
	}
	l.want(t, 1, 2, 3)
}

func TestDiscardDropsValueWithError(t *testing.T) {
	var l ledger
	value, err := resilience.Do(t.Context(), resilience.Discard(l.drop), l.fail)
	if value != 0 || err != errDown {
		t.Errorf("got %d, %v; want 0, %v", value, err, errDown)
	}
	l.want(t, 1)
}

func TestDiscardDropsValueWithPolicyError(t *testing.T) {
	fail := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		_ = next.Run(ctx)
		return errDown
	})
	for _, inside := range []bool{true, false} {
		var l ledger
		policy := resilience.Pipeline{fail, resilience.Discard(l.drop)}
		if inside {
			slices.Reverse(policy)
		}
		if value, err := resilience.Do(t.Context(), policy, l.succeed); value != 0 || err != errDown {
			t.Errorf("got %d, %v; want 0, %v", value, err, errDown)
		}
		l.want(t, 1)
	}
}

func TestDiscardDropsNothingIfNotMade(t *testing.T) {
	var l ledger
	refuse := resilience.PolicyFunc(func(context.Context, resilience.Next) error { return resilience.ErrRefused })
	_, _ = resilience.Do(t.Context(), resilience.Pipeline{resilience.Discard(l.drop), refuse}, l.succeed)
	l.want(t)
}

func TestDiscardDropsValueBeforeWait(t *testing.T) {
	var l ledger
	waits := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		_ = next.Run(ctx)
		next.Discard()
		l.want(t, 1) // retry would sleep here
		next.Discard()
		l.want(t, 1)
		return next.Run(ctx)
	})
	value, err := resilience.Do(t.Context(), resilience.Pipeline{resilience.Discard(l.drop), waits}, l.succeed)
	if value != 2 || err != nil {
		t.Errorf("got %d, %v; want 2, nil", value, err)
	}
	l.want(t, 1)
}

func TestNextDiscardTakesValueFromCaller(t *testing.T) {
	var l ledger
	gives := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		err := next.Run(ctx)
		next.Discard()
		return err
	})
	if value, err := resilience.Do(t.Context(), resilience.Pipeline{resilience.Discard(l.drop), gives}, l.succeed); value != 0 || err != nil {
		t.Errorf("got %d, %v; want 0, nil", value, err)
	}
	l.want(t, 1)
}

func TestDiscardDropsLoserOfTwoForks(t *testing.T) {
	for range 50 {
		var l ledger
		value, err := resilience.Do(t.Context(), resilience.Pipeline{resilience.Discard(l.drop), both}, l.succeed)
		if err != nil || value != 1 && value != 2 {
			t.Errorf("got %d, %v; want 1 or 2, nil", value, err)
		}
		l.want(t, 3-value)
	}
}

func TestDiscardDropsDiscardedFork(t *testing.T) {
	var l ledger
	policy := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		loser, winner := next.Fork(), next.Fork()
		_, err := loser.Run(ctx), winner.Run(ctx)
		next.Adopt(winner)
		loser.Discard()
		l.want(t, 1)
		return err
	})
	value, err := resilience.Do(t.Context(), resilience.Pipeline{resilience.Discard(l.drop), policy}, l.succeed)
	if value != 2 || err != nil {
		t.Errorf("got %d, %v; want 2, nil", value, err)
	}
	l.want(t, 1)
}

func TestAdoptOfDiscardedForkReturnsZero(t *testing.T) {
	var l ledger
	policy := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		_ = next.Run(ctx)
		fork := next.Fork()
		err := fork.Run(ctx)
		fork.Discard()
		next.Adopt(fork)
		return err
	})
	value, err := resilience.Do(t.Context(), resilience.Pipeline{resilience.Discard(l.drop), policy}, l.succeed)
	if value != 0 || err != nil {
		t.Errorf("got %d, %v; want 0, nil", value, err)
	}
	l.want(t, 1, 2)
}

func TestDiscardDropsForkNotAdopted(t *testing.T) {
	var l ledger
	policy := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		fork := next.Fork()
		_ = fork.Fork().Run(ctx)
		_ = fork.Run(ctx)
		return next.Run(ctx)
	})
	value, err := resilience.Do(t.Context(), resilience.Pipeline{resilience.Discard(l.drop), policy}, l.succeed)
	if value != 3 || err != nil {
		t.Errorf("got %d, %v; want 3, nil", value, err)
	}
	l.want(t, 1, 2)
}

// leaves runs the rest of the call on a fork, waits until it has started, and returns without it.
func leaves(started <-chan struct{}) resilience.Policy {
	return resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		fork := next.Fork()
		go func() {
			_ = fork.Run(ctx)
			fork.Discard()
		}()
		<-started
		return errDown
	})
}

func TestDiscardDropsForkThatOutlivesCall(t *testing.T) {
	for name, policies := range map[string]func(l *ledger, started chan struct{}) resilience.Pipeline{
		"outside": func(l *ledger, started chan struct{}) resilience.Pipeline {
			return resilience.Pipeline{resilience.Discard(l.drop), leaves(started)}
		},
		"inside": func(l *ledger, started chan struct{}) resilience.Pipeline {
			return resilience.Pipeline{leaves(started), resilience.Discard(l.drop)}
		},
		"outside, with a second one inside": func(l *ledger, started chan struct{}) resilience.Pipeline {
			return resilience.Pipeline{resilience.Discard(l.drop), leaves(started), resilience.Discard(l.drop)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var l ledger
				started, end := make(chan struct{}), make(chan struct{})
				value, err := resilience.Do(t.Context(), policies(&l, started), func(context.Context) (int, error) {
					close(started)
					<-end
					return l.next(), nil
				})
				if value != 0 || err != errDown {
					t.Errorf("got %d, %v; want 0, %v", value, err, errDown)
				}
				l.want(t)
				close(end)
				synctest.Wait()
				l.want(t, 1)
			})
		})
	}
}

// A fork that starts an inner Discard policy just when its caller leaves shares no unguarded state
// with the caller, as the race detector verifies.
func TestDiscardStartsInForkWhileCallEnds(t *testing.T) {
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			var l ledger
			policy := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
				fork := next.Fork()
				go func() {
					_ = fork.Run(ctx)
					fork.Discard()
				}()
				return errDown
			})
			_, _ = resilience.Do(t.Context(), resilience.Pipeline{resilience.Discard(l.drop), policy, resilience.Discard(l.drop)}, l.succeed)
			synctest.Wait()
			l.want(t, 1)
		})
	}
}

// Under an outermost Discard, even a policy that forgets to discard its abandoned fork leaks
// nothing.
func TestDiscardDropsForgottenFork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l ledger
		end := make(chan struct{})
		forgets := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			fork := next.Fork()
			go func() { _ = fork.Run(ctx) }()
			synctest.Wait()
			return nil
		})
		value, err := resilience.Do(t.Context(), resilience.Pipeline{resilience.Discard(l.drop), forgets, twice}, func(context.Context) (int, error) {
			<-end
			return l.next(), nil
		})
		if value != 0 || err != nil {
			t.Errorf("got %d, %v; want 0, nil", value, err)
		}
		close(end)
		synctest.Wait()
		l.want(t, 1, 2)
	})
}

func TestDiscardStartsOverAfterAdoptedFork(t *testing.T) {
	var l ledger
	outside := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		fork := next.Fork()
		_ = fork.Run(ctx)
		next.Adopt(fork)
		return next.Run(ctx)
	})
	runs := 0
	breaks := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		err := next.Run(ctx)
		if runs++; runs == 2 {
			panic(errDown)
		}
		return err
	})
	policy := resilience.Pipeline{outside, resilience.Discard(l.drop), breaks}
	if got := panicOf(func() { _, _ = resilience.Do(t.Context(), policy, l.succeed) }); got != errDown {
		t.Errorf("got panic %v, want %v", got, errDown)
	}
	l.want(t, 1, 2)
}

func TestDiscardDropsReplacedValue(t *testing.T) {
	var l ledger
	policy := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		_ = next.Run(ctx)
		fork := next.Fork()
		err := fork.Run(ctx)
		next.Adopt(fork)
		return err
	})
	inner := resilience.Discard(l.drop)
	first := true
	bypass := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		if first {
			first = false
			return inner.Run(ctx, next)
		}
		return next.Run(ctx)
	})
	value, err := resilience.Do(t.Context(), resilience.Pipeline{policy, bypass}, l.succeed)
	if value != 2 || err != nil {
		t.Errorf("got %d, %v; want 2, nil", value, err)
	}
	l.want(t, 1)
}

func TestDiscardSlowDropDelaysNoOtherFork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l ledger
		release := make(chan struct{})
		drop := func(n int) {
			if n == 1 {
				<-release
			}
			l.drop(n)
		}
		policy := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			slow, quick := next.Fork(), next.Fork()
			var g errgroup.Group
			g.Go(func() error {
				_ = slow.Run(ctx)
				return slow.Run(ctx) // replaces 1
			})
			synctest.Wait()
			err := quick.Run(ctx)
			close(release)
			_ = g.Wait()
			next.Adopt(slow)
			next.Adopt(quick)
			return err
		})
		value, err := resilience.Do(t.Context(), resilience.Pipeline{resilience.Discard(drop), policy}, l.succeed)
		if value != 3 || err != nil {
			t.Errorf("got %d, %v; want 3, nil", value, err)
		}
		l.want(t, 1, 2)
	})
}

func TestDiscardDropsValueOfPanickedCall(t *testing.T) {
	for _, inside := range []bool{true, false} {
		var l ledger
		breaks := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			_ = next.Run(ctx)
			panic(errDown)
		})
		policy := resilience.Pipeline{resilience.Discard(l.drop), twice, breaks}
		if !inside {
			policy = resilience.Pipeline{resilience.Discard(l.drop), breaks, twice}
		}
		if got := panicOf(func() { _, _ = resilience.Do(t.Context(), policy, l.succeed) }); got != errDown {
			t.Errorf("got panic %v, want %v", got, errDown)
		}
		if inside {
			l.want(t, 1)
		} else {
			l.want(t, 1, 2)
		}
	}
}

func TestDiscardDropsValueBeforePanic(t *testing.T) {
	var l ledger
	_ = panicOf(func() {
		_, _ = resilience.Do(t.Context(), resilience.Pipeline{resilience.Discard(l.drop), twice}, func(context.Context) (int, error) {
			if l.made > 0 {
				panic(errDown)
			}
			return l.next(), nil
		})
	})
	l.want(t, 1)
}

func TestDiscardDropsValueAtGoexit(t *testing.T) {
	var l ledger
	done := make(chan struct{})
	go func() {
		defer close(done)
		exits := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			_ = next.Run(ctx)
			runtime.Goexit()
			return nil
		})
		_, _ = resilience.Do(context.Background(), resilience.Pipeline{resilience.Discard(l.drop), exits}, l.succeed)
	}()
	<-done
	l.want(t, 1)
}

func TestDiscardPanicInDropHoldsNothing(t *testing.T) {
	var l ledger
	drop := func(n int) {
		l.drop(n)
		panic(errDown)
	}
	policy := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		_ = next.Fork().Run(ctx)
		_ = next.Fork().Run(ctx)
		_ = next.Run(ctx)
		return io.EOF
	})
	got := panicOf(func() {
		_, _ = resilience.Do(t.Context(), resilience.Pipeline{resilience.Discard(drop), policy}, l.succeed)
	})
	if got != errDown {
		t.Errorf("got panic %v, want %v", got, errDown)
	}
	l.want(t, 1, 2, 3)
}

type closer struct{ closed int }

func (c *closer) Close() error { c.closed++; return nil }

func TestDiscardOfInterfaceDropsImplementations(t *testing.T) {
	closing := resilience.Discard(func(c io.Closer) { _ = c.Close() })
	c := new(closer)
	got, err := resilience.Do(t.Context(), closing, func(context.Context) (*closer, error) { return c, errDown })
	if got != nil || err != errDown || c.closed != 1 {
		t.Errorf("a pointer: got %v, %v, closed %d times; want nil, %v, closed once", got, err, c.closed, errDown)
	}
	rc := &struct {
		io.Reader
		*closer
	}{strings.NewReader(""), new(closer)}
	_, _ = resilience.Do(t.Context(), closing, func(context.Context) (io.ReadCloser, error) { return rc, errDown })
	if rc.closed != 1 {
		t.Errorf("a wider interface: closed %d times, want once", rc.closed)
	}
	_, _ = resilience.Do(t.Context(), closing, func(context.Context) (io.Closer, error) { return c, errDown })
	if c.closed != 2 {
		t.Errorf("the interface itself: closed %d times in all, want 2", c.closed)
	}
}

func TestDiscardDropsZeroValues(t *testing.T) {
	var dropped []any
	anything := resilience.Discard(func(c io.Closer) { dropped = append(dropped, c) })
	_, _ = resilience.Do(t.Context(), anything, func(context.Context) (io.ReadCloser, error) { return nil, errDown })
	numbers := resilience.Discard(func(n int) { dropped = append(dropped, n) })
	_, _ = resilience.Do(t.Context(), numbers, func(context.Context) (int, error) { return 0, errDown })
	if want := []any{nil, 0}; !slices.Equal(dropped, want) {
		t.Errorf("dropped %v, want %v", dropped, want)
	}
}

func TestDiscardKeepsValueWhenUnstartedForkIsAdopted(t *testing.T) {
	var l ledger
	value, err := resilience.Do(t.Context(), resilience.Pipeline{resilience.Discard(l.drop), resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		err := next.Run(ctx)
		next.Adopt(next.Fork())
		return err
	})}, one)
	if value != 1 || err != nil || len(l.dropped) > 0 {
		t.Errorf("got %d, %v, dropped %v, want 1, nil and nothing dropped", value, err, l.dropped)
	}
}

func TestDiscardIgnoresOtherTypes(t *testing.T) {
	for name, policy := range map[string]resilience.Policy{
		"another type":            resilience.Discard(func(string) { t.Error("drop was called with a string") }),
		"an interface not met":    resilience.Discard(func(io.Closer) { t.Error("drop was called with a Closer") }),
		"a type of the same form": resilience.Discard(func(otherInt) { t.Error("drop was called with an otherInt") }),
	} {
		value, err := resilience.Do(t.Context(), resilience.Pipeline{policy, twice}, func(context.Context) (int, error) { return 7, errDown })
		if value != 7 || err != errDown {
			t.Errorf("%s: got %d, %v; want 7, %v", name, value, err, errDown)
		}
	}
	concrete := resilience.Discard(func(int) { t.Error("drop of an int was called for an any") })
	if value, _ := resilience.Do(t.Context(), concrete, func(context.Context) (any, error) { return 7, errDown }); value != 7 {
		t.Errorf("got %v, want 7", value)
	}
}

type otherInt int

func TestDiscardOutermostOfTypeDrops(t *testing.T) {
	var outer, inner ledger
	other := resilience.Discard(func(string) { t.Error("drop was called with a string") })
	policy := resilience.Pipeline{other, resilience.Discard(outer.drop), twice, resilience.Discard(inner.drop)}
	if value, err := resilience.Do(t.Context(), policy, inner.succeed); value != 2 || err != nil {
		t.Errorf("got %d, %v; want 2, nil", value, err)
	}
	outer.want(t, 1)
	inner.want(t)
}

func TestDiscardInsideRetryDropsEachValueOnce(t *testing.T) {
	var l ledger
	drop := resilience.Discard(l.drop)
	if value, err := resilience.Do(t.Context(), resilience.Pipeline{twice, drop, twice}, l.succeed); value != 4 || err != nil {
		t.Errorf("got %d, %v; want 4, nil", value, err)
	}
	l.want(t, 1, 2, 3)
}

func TestDiscardHoldsForkAfterInnerDiscardEnded(t *testing.T) {
	var l ledger
	policy := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		_ = next.Run(ctx)
		fork := next.Fork()
		err := fork.Run(ctx)
		next.Adopt(fork)
		return err
	})
	value, err := resilience.Do(t.Context(), resilience.Pipeline{policy, resilience.Discard(l.drop), pass}, l.succeed)
	if value != 2 || err != nil {
		t.Errorf("got %d, %v; want 2, nil", value, err)
	}
	l.want(t, 1)
}

// Each value is returned or dropped once, in whatever order values are made, replaced, adopted, and
// given up.
func TestDiscardDropsOrReturnsEachValueOnce(t *testing.T) {
	left := func(wg *sync.WaitGroup) resilience.Policy {
		return resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			abandoned, kept := next.Fork(), next.Fork()
			wg.Go(func() {
				_ = abandoned.Run(ctx)
				abandoned.Discard()
			})
			err := kept.Run(ctx)
			next.Adopt(kept)
			return err
		})
	}
	for _, fails := range []bool{false, true} {
		for i := range 99 {
			var l ledger
			var wg sync.WaitGroup
			order := []resilience.Policy{both, twice, left(&wg), both, twice}[i%3:][:3]
			policy := append(resilience.Pipeline{resilience.Discard(l.drop)}, order...)
			effector := l.succeed
			if fails {
				effector = l.fail
			}
			value, _ := resilience.Do(context.Background(), policy, effector)
			wg.Wait()
			got := slices.Sorted(slices.Values(l.dropped))
			if value != 0 {
				got = slices.Sorted(slices.Values(append(got, value)))
			}
			if fails != (value == 0) {
				t.Errorf("fails %t: the caller got %d", fails, value)
			}
			if len(got) != l.made {
				t.Errorf("%d values made, accounted for %v", l.made, got)
			}
			for k, n := range got {
				if n != k+1 {
					t.Errorf("%d values made, accounted for %v", l.made, got)
					break
				}
			}
		}
	}
}

func TestComposeAllocatesOnce(t *testing.T) {
	ctx := t.Context()
	call := resilience.Compose(one, pass)
	if allocs := testing.AllocsPerRun(1000, func() { _, _ = call(ctx) }); allocs != 1 {
		t.Errorf("%v allocations, want 1", allocs)
	}
	deep := resilience.Compose(one, resilience.Pipeline{pass, resilience.Pipeline{pass, pass}}, pass, pass)
	if allocs := testing.AllocsPerRun(1000, func() { _, _ = deep(ctx) }); allocs != 1 {
		t.Errorf("five policies: %v allocations, want 1", allocs)
	}
}

func TestPipelineWithoutInnerOnesIsNotCopied(t *testing.T) {
	for name, p := range map[string]resilience.Policy{
		"flat":              resilience.Pipeline{pass, pass, pass},
		"nested at the end": resilience.Pipeline{pass, pass, resilience.Pipeline{pass, pass}},
	} {
		if allocs := testing.AllocsPerRun(1000, func() { _, _ = resilience.Do(t.Context(), p, one) }); allocs != 1 {
			t.Errorf("%s: got %v allocations, want 1", name, allocs)
		}
	}
	two := resilience.Pipeline{pass, pass}
	var nested resilience.Policy = resilience.Pipeline{two, two, two, pass}
	if allocs := testing.AllocsPerRun(1000, func() { _, _ = resilience.Do(t.Context(), nested, one) }); allocs != 2 {
		t.Errorf("nested before another policy: got %v allocations, want 2: the call and one list", allocs)
	}
}

func TestPipelineBeforeLongerListRunsAll(t *testing.T) {
	var log []string
	short := resilience.Pipeline{named(&log, "a")}
	_, err := resilience.Compose(one, resilience.PolicyFunc(short.Run), named(&log, "b"), named(&log, "c"))(t.Context())
	if want := []string{"a", "b", "c"}; err != nil || !slices.Equal(log, want) {
		t.Errorf("got %v, %v, want %v, nil", log, err, want)
	}
}

// TestPipelineFlattensInOneStep: copies at each level would grow with the square of the depth.
func TestPipelineFlattensInOneStep(t *testing.T) {
	allocations := func(depth int) float64 {
		nested := resilience.Pipeline{pass}
		for range depth {
			nested = resilience.Pipeline{nested, pass}
		}
		return testing.AllocsPerRun(100, func() { _, _ = resilience.Do(t.Context(), nested, one) })
	}
	if ten, hundred := allocations(10), allocations(100); ten != hundred {
		t.Errorf("%v allocations for 10 levels, %v for 100", ten, hundred)
	}
}

func BenchmarkCompose(b *testing.B) {
	nested := resilience.Pipeline{pass}
	for range 9 {
		nested = resilience.Pipeline{pass, nested}
	}
	for _, c := range []struct {
		name     string
		policies []resilience.Policy
	}{
		{"empty", nil},
		{"one", []resilience.Policy{pass}},
		{"nested10", []resilience.Policy{nested}},
	} {
		b.Run(c.name, func(b *testing.B) {
			ctx := b.Context()
			call := resilience.Compose(one, c.policies...)
			b.ReportAllocs()
			for b.Loop() {
				_, _ = call(ctx)
			}
		})
	}
}
