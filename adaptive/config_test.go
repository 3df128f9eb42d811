package adaptive_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/adaptive"
	"github.com/effector-go/resilience/resiliencetest"
)

// settings returns what can be compared of a Config.
func settings(c adaptive.Config) string {
	return fmt.Sprint(c.Name, c.Initial, c.Min, c.Max, c.Algorithm, c.Priority == nil, c.Classify == nil)
}

// set changes the Config of a limiter.
func set(t *testing.T, l *adaptive.Limiter, c adaptive.Config) {
	t.Helper()
	if err := l.SetConfig(c); err != nil {
		t.Fatal(err)
	}
}

func TestLimiterConfigHasDefaultsButNoFunctions(t *testing.T) {
	l := adaptive.New(adaptive.Config{Name: "search"})
	want := settings(adaptive.Config{Name: "search", Initial: 20, Min: 1, Max: 1000})
	if got := settings(l.Config()); got != want || l.Name() != "search" {
		t.Errorf("got %s, want %s", got, want)
	}
	set(t, l, adaptive.Config{Name: "find", Max: 10})
	want = settings(adaptive.Config{Name: "find", Initial: 10, Min: 1, Max: 10})
	if got := settings(l.Config()); got != want || l.Name() != "find" || l.Snapshot().Name != "find" {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestLimiterSetConfigChangesNothingOnError(t *testing.T) {
	l := adaptive.New(adaptive.Config{Initial: 30})
	before := settings(l.Config())
	for _, invalid := range []adaptive.Config{{Min: 5, Max: 4}, {Max: -1}, {Initial: 30, Max: 29}, {Algorithm: 2}} {
		err, want := l.SetConfig(invalid), invalid.Validate()
		if err == nil || err.Error() != want.Error() || settings(l.Config()) != before || l.Limit() != 30 {
			t.Errorf("got %v, %s, limit %d; want %v, %s, limit 30", err, settings(l.Config()), l.Limit(), want, before)
		}
	}
}

// TestLimiterSetConfigMovesLimitIntoBounds checks that Initial has no effect, that more calls than
// the new limit go on, and that the new limit holds.
func TestLimiterSetConfigMovesLimitIntoBounds(t *testing.T) {
	for _, algorithm := range []adaptive.Algorithm{adaptive.Queue, adaptive.AIMD} {
		synctest.Test(t, func(t *testing.T) {
			l := adaptive.New(adaptive.Config{Algorithm: algorithm})
			hold(t, l, 20)
			for _, c := range []struct{ initial, least, most, limit int }{
				{500, 0, 0, 20}, {0, 0, 5, 5}, {7, 0, 0, 5}, {0, 25, 0, 25}, {40, 22, 40, 25},
			} {
				set(t, l, adaptive.Config{Name: "new", Algorithm: algorithm, Initial: c.initial, Min: c.least, Max: c.most})
				if s := l.Snapshot(); s.Limit != c.limit || s.Running != 20 {
					t.Errorf("%v, %+v: got %+v, want limit %d and 20 running", algorithm, c, s, c.limit)
				}
				_, err := adaptive.Do(t.Context(), l, succeed)
				var refusal *adaptive.LimitError
				if refused := errors.As(err, &refusal); refused != (c.limit <= 20) || refused && (refusal.Limit != c.limit || refusal.Name != "new") {
					t.Errorf("%v, %+v: got %v", algorithm, c, err)
				}
			}
		})
	}
}

// TestLimiterSetConfigKeepsRoundTripUnlessAlgorithmChanges checks what was learned, and that the limit
// stays in any case.
func TestLimiterSetConfigKeepsRoundTripUnlessAlgorithmChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := adaptive.New(adaptive.Config{Initial: 10})
		slow := resiliencetest.Slow[int](time.Second)
		learn := func() {
			for range 100 {
				adaptive.Do(t.Context(), l, slow.Do)
			}
		}
		learn()
		want := l.Snapshot()
		if want.RoundTrip != time.Second {
			t.Fatalf("got %+v, want a round trip of 1s", want)
		}
		set(t, l, l.Config())
		set(t, l, adaptive.Config{Min: 2, Max: 500})
		if s := l.Snapshot(); s != want {
			t.Errorf("got %+v, want %+v", s, want)
		}
		set(t, l, adaptive.Config{Algorithm: adaptive.AIMD})
		set(t, l, adaptive.Config{Algorithm: adaptive.Queue})
		if s := l.Snapshot(); s.RoundTrip != 0 || s.Limit != want.Limit {
			t.Errorf("got %+v, want no round trip and limit %d", s, want.Limit)
		}
		if learn(); l.Snapshot().RoundTrip != time.Second {
			t.Errorf("got %+v, want a round trip of 1s", l.Snapshot())
		}
	})
}

// TestLimiterSetConfigCountsCallByConfigAtItsEnd changes Classify and Algorithm during a call.
func TestLimiterSetConfigCountsCallByConfigAtItsEnd(t *testing.T) {
	for name, call := range calls {
		l := adaptive.New(adaptive.Config{Classify: func(context.Context, error) adaptive.Outcome {
			t.Error("the old Classify was called")
			return adaptive.Ignored
		}})
		asked := 0
		call(t.Context(), l, func(context.Context) (int, error) {
			set(t, l, adaptive.Config{Algorithm: adaptive.AIMD, Classify: func(context.Context, error) adaptive.Outcome {
				asked++
				return adaptive.Drop
			}})
			return 0, nil
		})
		if asked != 1 || l.Limit() != 18 {
			t.Errorf("%s: Classify called %d times, limit %d; want 1 and 18", name, asked, l.Limit())
		}
	}
}

// TestQueueIgnoresCallsThatBeganUnderAIMD checks that calls whose beginning wasn't timed don't count as
// calls that took no time: running ones, and one that is admitted just after the change.
func TestQueueIgnoresCallsThatBeganUnderAIMD(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := resiliencetest.Slow[int](time.Second)
		var l *adaptive.Limiter
		config := adaptive.Config{Algorithm: adaptive.AIMD, Priority: func(context.Context) int {
			set(t, l, adaptive.Config{})
			return 4
		}}
		l = adaptive.New(adaptive.Config{Algorithm: adaptive.AIMD})
		var g errgroup.Group
		for range 10 {
			g.Go(func() error { adaptive.Do(t.Context(), l, slow.Do); return nil })
		}
		synctest.Wait()
		set(t, l, config)
		for range 100 {
			adaptive.Do(t.Context(), l, slow.Do)
		}
		g.Wait()
		if s := l.Snapshot(); s.RoundTrip != time.Second || s.Running != 0 {
			t.Errorf("got %+v, want a round trip of 1s and none running", s)
		}
	})
}

func TestLimiterSetConfigOfOwnConfigChangesNothing(t *testing.T) {
	l := adaptive.New(adaptive.Config{})
	before := settings(l.Config())
	set(t, l, l.Config())
	if got := settings(l.Config()); got != before {
		t.Errorf("got %s, want %s", got, before)
	}
	ctx := t.Context()
	if n := testing.AllocsPerRun(1000, func() { adaptive.Do(ctx, l, succeed) }); n != 0 {
		t.Errorf("got %v allocations per call, want 0", n)
	}
}

func TestLimiterSetConfigIsSafeForConcurrentUse(t *testing.T) {
	l := adaptive.New(adaptive.Config{})
	var g errgroup.Group
	for worker := range 8 {
		g.Go(func() error {
			for i := range 300 {
				if worker < 2 {
					c := adaptive.Config{Algorithm: adaptive.Algorithm(i / 2 % 2), Min: 1 + i%3, Max: 20 + i%7}
					if err := l.SetConfig(c); err != nil {
						return err
					}
				}
				if s := l.Snapshot(); s.Limit < 1 || s.Limit > 26 {
					return fmt.Errorf("got %+v, want a limit from 1 to 26", s)
				}
				adaptive.Do(t.Context(), l, []func(context.Context) (int, error){succeed, fail}[i%2])
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	check(t, l, 0)
}

// shows returns what a call shows that returns err: by AIMD, a drop lowers the limit of 10 to 9, and a
// sample raises the limit of 1, which the call itself meets, to 2.
func shows(ctx context.Context, call func(context.Context, *adaptive.Limiter, func(context.Context) (int, error)) (int, error), err func() error) adaptive.Outcome {
	ten := adaptive.New(adaptive.Config{Algorithm: adaptive.AIMD, Initial: 10})
	call(ctx, ten, func(context.Context) (int, error) { return 0, err() })
	one := adaptive.New(adaptive.Config{Algorithm: adaptive.AIMD, Initial: 1})
	call(context.WithoutCancel(ctx), one, succeed)
	if one.Limit() != 2 {
		panic("a sample does not raise the limit")
	}
	one = adaptive.New(adaptive.Config{Algorithm: adaptive.AIMD, Initial: 1})
	call(ctx, one, func(context.Context) (int, error) { return 0, err() })
	switch {
	case ten.Limit() < 10:
		return adaptive.Drop
	case one.Limit() > 1:
		return adaptive.Sample
	}
	return adaptive.Ignored
}

// TestLimiterCountsMarks checks every mark, each way to make a call, and callers that have left.
func TestLimiterCountsMarks(t *testing.T) {
	for _, c := range []struct {
		name       string
		err        error
		want, gone adaptive.Outcome // gone: of a caller that has left
	}{
		{"none", errBoom, adaptive.Drop, adaptive.Ignored},
		{"NotFailure", resilience.NotFailure(errBoom), adaptive.Sample, adaptive.Sample},
		{"Contention", resilience.Contention(errBoom), adaptive.Sample, adaptive.Sample},
		{"CallerFault", resilience.CallerFault(errBoom), adaptive.Ignored, adaptive.Ignored},
		{"NotMade", resilience.NotMade(errBoom), adaptive.Drop, adaptive.Ignored},
		{"WithRetryAfter", resilience.WithRetryAfter(errBoom, time.Second), adaptive.Drop, adaptive.Ignored},
		{"NotMade of Contention", resilience.NotMade(resilience.Contention(errBoom)), adaptive.Sample, adaptive.Sample},
		{"CallerFault of NotFailure", resilience.CallerFault(resilience.NotFailure(errBoom)), adaptive.Ignored, adaptive.Ignored},
		{"NotFailure of CallerFault", resilience.NotFailure(resilience.CallerFault(errBoom)), adaptive.Sample, adaptive.Sample},
		{"wrapped NotFailure", fmt.Errorf("get user: %w", resilience.NotFailure(errBoom)), adaptive.Drop, adaptive.Ignored},
		{"joined CallerFault", errors.Join(resilience.CallerFault(errBoom)), adaptive.Drop, adaptive.Ignored},
	} {
		for way, call := range calls {
			if got := shows(t.Context(), call, func() error { return c.err }); got != c.want {
				t.Errorf("%s, %s: got %v, want %v", c.name, way, got, c.want)
			}
		}
		canceled, cancel := context.WithCancel(t.Context())
		cancel()
		if got := adaptive.DefaultClassify(canceled, c.err); got != c.gone {
			t.Errorf("%s, caller has left: got %v, want %v", c.name, got, c.gone)
		}
	}
}

// TestLimiterClassifyReceivesMarks checks that a custom Classify is called with the marked error and
// decides alone, except for a caller's fault.
func TestLimiterClassifyReceivesMarks(t *testing.T) {
	for way, call := range calls {
		var got []error
		l := adaptive.New(adaptive.Config{Algorithm: adaptive.AIMD, Classify: func(_ context.Context, err error) adaptive.Outcome {
			got = append(got, err)
			return adaptive.Drop
		}})
		notFailure := resilience.NotFailure(errBoom)
		for _, err := range []error{notFailure, resilience.CallerFault(errBoom)} {
			call(t.Context(), l, func(context.Context) (int, error) { return 0, err })
		}
		if len(got) != 1 || got[0] != notFailure || l.Limit() != 18 {
			t.Errorf("%s: Classify was called with %v, limit %d; want one call and 18", way, got, l.Limit())
		}
	}
}

func TestMarshalTextEqualsString(t *testing.T) {
	got, err := json.Marshal([]any{adaptive.Queue, adaptive.AIMD, adaptive.Algorithm(7), adaptive.Sample, adaptive.Drop, adaptive.Ignored, adaptive.Outcome(7)})
	if want := `["queue","AIMD","Algorithm(7)","sample","drop","ignored","Outcome(7)"]`; err != nil || string(got) != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
}

// acquire returns a permit.
func acquire(t *testing.T, ctx context.Context, l *adaptive.Limiter) *adaptive.Permit {
	t.Helper()
	p, err := l.Acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return &p
}

func init() {
	calls["Acquire"] = func(ctx context.Context, l *adaptive.Limiter, fn func(context.Context) (int, error)) (int, error) {
		p, err := l.Acquire(ctx)
		if err != nil {
			return 0, err
		}
		defer p.Cancel()
		value, err := fn(ctx)
		p.Done(err)
		return value, err
	}
}

func TestPermitCountsOnlyFirstDoneOrCancel(t *testing.T) {
	l := adaptive.New(adaptive.Config{Algorithm: adaptive.AIMD})
	kept := acquire(t, t.Context(), l)
	p := acquire(t, t.Context(), l)
	p.Cancel()
	p.Done(errBoom)
	p.Cancel()
	check(t, l, 1)
	if l.Limit() != 20 {
		t.Errorf("limit %d, want 20: the permit was canceled", l.Limit())
	}
	kept.Done(errBoom)
	kept.Done(errBoom)
	kept.Cancel()
	check(t, l, 0)
	if l.Limit() != 18 {
		t.Errorf("limit %d, want 18", l.Limit())
	}
	var zero adaptive.Permit
	zero.Done(errBoom)
	zero.Cancel()
	zero = adaptive.Permit{}
	zero.Cancel()
	check(t, l, 0)
}

func TestPermitReleasesOnceIfUsedConcurrently(t *testing.T) {
	l := adaptive.New(adaptive.Config{})
	for range 200 {
		p := acquire(t, t.Context(), l)
		var g errgroup.Group
		g.Go(func() error { p.Done(nil); return nil })
		g.Go(func() error { p.Done(errBoom); return nil })
		g.Go(func() error { p.Cancel(); return nil })
		g.Wait()
		check(t, l, 0)
	}
}

func TestLimiterAcquireRefusesAtLimit(t *testing.T) {
	l := adaptive.New(adaptive.Config{Name: "search", Initial: 1})
	p := acquire(t, t.Context(), l)
	if _, err := l.Acquire(t.Context()); !errors.Is(err, adaptive.ErrLimit) || !errors.Is(err, resilience.ErrRefused) {
		t.Errorf("got %v, want a LimitError", err)
	}
	p.Cancel()
	acquire(t, t.Context(), l).Cancel()
}

// TestPermitCountsTimeUntilDone checks the time from Acquire to Done.
func TestPermitCountsTimeUntilDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := adaptive.New(adaptive.Config{})
		for range 100 {
			p := acquire(t, t.Context(), l)
			time.Sleep(time.Second)
			p.Done(nil)
		}
		if s := l.Snapshot(); s.RoundTrip != time.Second {
			t.Errorf("got %+v, want a round trip of 1s", s)
		}
	})
}

func TestLimiterAcquireAllocatesNothing(t *testing.T) {
	l := adaptive.New(adaptive.Config{})
	ctx := t.Context()
	if n := testing.AllocsPerRun(1000, func() {
		p, _ := l.Acquire(ctx)
		p.Done(nil)
	}); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}
