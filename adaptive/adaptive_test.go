package adaptive_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/adaptive"
	"github.com/effector-go/resilience/resiliencetest"
)

var errBoom = errors.New("boom")

func succeed(context.Context) (int, error) { return 1, nil }
func fail(context.Context) (int, error)    { return 0, errBoom }

// check compares how many calls run.
func check(t *testing.T, l *adaptive.Limiter, running int) {
	t.Helper()
	if s := l.Snapshot(); s.Running != running {
		t.Errorf("%d running, want %d", s.Running, running)
	}
}

// hold makes n calls that run until the test ends or release is called.
func hold(t *testing.T, l *adaptive.Limiter, n int) (release func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	for range n {
		g.Go(func() error {
			adaptive.Do(ctx, l, resiliencetest.Hang[int]().Do)
			return nil
		})
	}
	synctest.Wait()
	release = func() {
		cancel()
		g.Wait()
	}
	t.Cleanup(release)
	return release
}

func TestNoMoreRunThanTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := adaptive.New(adaptive.Config{Name: "search", Initial: 7})
		slow := resiliencetest.Slow[int](time.Second)
		var refused atomic.Int32
		var g errgroup.Group
		for range 20 {
			g.Go(func() error {
				_, err := adaptive.Do(t.Context(), l, slow.Do)
				if !errors.Is(err, adaptive.ErrLimit) {
					return err
				}
				var limit *adaptive.LimitError
				if !errors.As(err, &limit) || *limit != (adaptive.LimitError{Name: "search", Limit: 7, Priority: 4}) || !errors.Is(err, resilience.ErrRefused) {
					t.Errorf("%#v", err)
				}
				if _, ok := resilience.RetryAfter(err); ok {
					t.Error("a time is told that nobody knows")
				}
				refused.Add(1)
				return nil
			})
		}
		synctest.Wait()
		check(t, l, 7)
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		if slow.Calls() != 7 || slow.MaxConcurrent() != 7 || refused.Load() != 13 {
			t.Errorf("%d calls, %d at once, %d refused", slow.Calls(), slow.MaxConcurrent(), refused.Load())
		}
		check(t, l, 0)
	})
}

// TestPrioritiesAreAdmittedByTheirShareOfTheLimit: while fewer run than limit × (0.6 + 0.1 p), with what is out of range held to 0 and 4.
func TestPrioritiesAreAdmittedByTheirShareOfTheLimit(t *testing.T) {
	type key struct{}
	for _, limit := range []int{1, 2, 3, 10, 15, 20, 33} {
		for _, c := range []struct{ priority, level int }{{-1, 0}, {0, 0}, {1, 1}, {2, 2}, {3, 3}, {4, 4}, {5, 4}} {
			synctest.Test(t, func(t *testing.T) {
				l := adaptive.New(adaptive.Config{Min: limit, Max: limit, Priority: func(ctx context.Context) int {
					if p, ok := ctx.Value(key{}).(int); ok {
						return p
					}
					return 4
				}})
				ctx := context.WithValue(t.Context(), key{}, c.priority)
				for running := range limit + 1 {
					_, err := adaptive.Do(ctx, l, succeed)
					// limit × (0.6 + 0.1 p), in tenths
					if admitted, want := err == nil, running*10 < limit*(6+c.level); admitted != want {
						t.Errorf("limit %d, %d running: priority %d: admitted %v, want %v", limit, running, c.priority, admitted, want)
					}
					var refusal *adaptive.LimitError
					if errors.As(err, &refusal) && (refusal.Priority != c.level || refusal.Limit != limit) {
						t.Errorf("%+v", refusal)
					}
					if running < limit {
						hold(t, l, 1)
					}
				}
			})
		}
	}
}

// TestCallsOfLowPriorityAloneRaiseTheLimit: no worker idles for the sake of important calls that do not come.
func TestCallsOfLowPriorityAloneRaiseTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const workers = 60
		l := adaptive.New(adaptive.Config{Priority: func(context.Context) int { return 0 }})
		d := newDependency(workers, roundTrip, fixed)
		simulate(t, workers*3/2, l, d, func() {
			time.Sleep(200 * roundTrip)
			if s := l.Snapshot(); s.Running < workers*9/10 {
				t.Errorf("%+v: workers idle while calls are refused", s)
			}
		})
	})
}

// classified makes a limiter that takes every call for the outcome.
func classified(algorithm adaptive.Algorithm, outcome adaptive.Outcome) *adaptive.Limiter {
	return adaptive.New(adaptive.Config{Algorithm: algorithm, Classify: func(context.Context, error) adaptive.Outcome { return outcome }})
}

func TestDefaultClassify(t *testing.T) {
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	expired, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	for _, c := range []struct {
		name string
		ctx  context.Context
		err  error
		want adaptive.Outcome
	}{
		{"success", t.Context(), nil, adaptive.Sample},
		{"success of a caller who has gone", canceled, nil, adaptive.Sample},
		{"error", t.Context(), errBoom, adaptive.Drop},
		{"deadline further in", t.Context(), context.DeadlineExceeded, adaptive.Drop},
		{"the caller's deadline", expired, context.DeadlineExceeded, adaptive.Drop},
		{"the caller's cancel", canceled, context.Canceled, adaptive.Ignored},
		{"any error after the caller's cancel", canceled, errBoom, adaptive.Ignored},
		{"a cancel that is not the caller's", t.Context(), context.Canceled, adaptive.Drop},
	} {
		if got := adaptive.DefaultClassify(c.ctx, c.err); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// TestAIMDFallsByATenthOnceForTheCallsThatRanThen, a drop at a time.
func TestAIMDFallsByATenthOnceForTheCallsThatRanThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := adaptive.New(adaptive.Config{Algorithm: adaptive.AIMD, Initial: 100})
		failing := resiliencetest.Slow[int](time.Second).Failing(errBoom)
		var g errgroup.Group
		for range 100 {
			g.Go(func() error { adaptive.Do(t.Context(), l, failing.Do); return nil })
		}
		g.Wait()
		if l.Limit() != 90 {
			t.Errorf("limit %d after the drops of 100 calls that ran at once", l.Limit())
		}
		for _, want := range []int{81, 72, 64, 57} {
			adaptive.Do(t.Context(), l, fail)
			if l.Limit() != want {
				t.Errorf("limit %d, want %d", l.Limit(), want)
			}
		}
	})
}

// TestAIMDHearsOfADropOfACallThatBeganBeforeItGrew, as long as it began after the limit last fell.
func TestAIMDHearsOfADropOfACallThatBeganBeforeItGrew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := adaptive.New(adaptive.Config{Algorithm: adaptive.AIMD, Initial: 2})
		var g errgroup.Group
		g.Go(func() error {
			adaptive.Do(t.Context(), l, resiliencetest.Slow[int](time.Hour).Failing(errBoom).Do)
			return nil
		})
		synctest.Wait()
		for l.Limit() < 4 {
			release := hold(t, l, l.Limit()-2)
			for range l.Limit() {
				adaptive.Do(t.Context(), l, succeed)
			}
			release()
		}
		g.Wait()
		if l.Limit() != 3 {
			t.Errorf("limit %d, want 3", l.Limit())
		}
	})
}

// TestAIMDGrowsByOneWithEachRoundTripThatMetIt, and not without.
func TestAIMDGrowsByOneWithEachRoundTripThatMetIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := adaptive.New(adaptive.Config{Algorithm: adaptive.AIMD, Initial: 10, Max: 15})
		round := func(n int) {
			var g errgroup.Group
			for range n {
				g.Go(func() error { adaptive.Do(t.Context(), l, resiliencetest.Slow[int](time.Second).Do); return nil })
			}
			g.Wait()
		}
		for range 20 {
			round(9) // one is free
		}
		if l.Limit() != 10 {
			t.Errorf("limit %d, which no call met", l.Limit())
		}
		l = adaptive.New(adaptive.Config{Algorithm: adaptive.AIMD, Initial: 10, Max: 15})
		for want := 11; want <= 15; want++ {
			round(100)
			if l.Limit() != want {
				t.Errorf("limit %d, want %d", l.Limit(), want)
			}
		}
		round(100)
		if l.Limit() != 15 {
			t.Errorf("limit %d above Max", l.Limit())
		}
	})
}

func TestAIMDStaysAboveMin(t *testing.T) {
	l := adaptive.New(adaptive.Config{Algorithm: adaptive.AIMD, Initial: 5, Min: 3})
	for range 10 {
		adaptive.Do(t.Context(), l, fail)
	}
	if l.Limit() != 3 {
		t.Errorf("limit %d, want 3", l.Limit())
	}
}

func TestIgnoredCallsChangeNothing(t *testing.T) {
	for _, algorithm := range []adaptive.Algorithm{adaptive.Queue, adaptive.AIMD} {
		synctest.Test(t, func(t *testing.T) {
			for _, outcome := range []adaptive.Outcome{adaptive.Ignored, 17} {
				l := classified(algorithm, outcome)
				d := newDependency(5, roundTrip, exponential)
				simulate(t, 50, l, d, func() {
					if limit := worst(l, 20, 200); limit != 20 {
						t.Errorf("%v, %v: limit %d", algorithm, outcome, limit)
					}
				})
				if s := l.Snapshot(); s.RoundTrip != 0 {
					t.Errorf("%+v", s)
				}
			}
		})
	}
}

// TestTheCallersCancelIsIgnored, whatever error comes of it.
func TestTheCallersCancelIsIgnored(t *testing.T) {
	l := adaptive.New(adaptive.Config{Algorithm: adaptive.AIMD})
	for range 100 {
		ctx, cancel := context.WithCancel(t.Context())
		adaptive.Do(ctx, l, func(context.Context) (int, error) { cancel(); return 0, errBoom })
	}
	if l.Limit() != 20 {
		t.Errorf("limit %d", l.Limit())
	}
}

// TestACallTurnedAwayFurtherInIsIgnored, without asking Classify; a call that was made is not, though its own error is another's refusal.
func TestACallTurnedAwayFurtherInIsIgnored(t *testing.T) {
	asked := 0
	l := adaptive.New(adaptive.Config{Algorithm: adaptive.AIMD, Classify: func(context.Context, error) adaptive.Outcome {
		asked++
		return adaptive.Drop
	}})
	refuse := resilience.PolicyFunc(func(context.Context, resilience.Next) error { return resilience.ErrRefused })
	for range 100 {
		if _, err := resilience.Do(t.Context(), resilience.Pipeline{l, refuse}, succeed); !errors.Is(err, resilience.ErrRefused) {
			t.Fatal(err)
		}
	}
	if l.Limit() != 20 || asked != 0 {
		t.Errorf("limit %d, asked %d times", l.Limit(), asked)
	}
	check(t, l, 0)
	resilience.Do(t.Context(), l, func(context.Context) (int, error) { return 0, resilience.ErrRefused })
	if l.Limit() != 18 || asked != 1 {
		t.Errorf("limit %d, asked %d times", l.Limit(), asked)
	}
}

// calls are the ways to make one.
var calls = map[string]func(ctx context.Context, l *adaptive.Limiter, fn func(context.Context) (int, error)) (int, error){
	"Do": adaptive.Do[int],
	"Run": func(ctx context.Context, l *adaptive.Limiter, fn func(context.Context) (int, error)) (int, error) {
		return resilience.Compose(fn, l)(ctx)
	},
}

// caught runs fn on a goroutine of its own and gives what it panicked with.
func caught(fn func()) (value any) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { value = recover() }()
		fn()
	}()
	<-done
	return value
}

func TestACallLeavesUnderPanicAndGoexitAndTellsNothing(t *testing.T) {
	for name, call := range calls {
		l := adaptive.New(adaptive.Config{Algorithm: adaptive.AIMD})
		if value := caught(func() { call(t.Context(), l, resiliencetest.Panic[int](errBoom).Do) }); value != errBoom {
			t.Errorf("%s panicked with %v", name, value)
		}
		check(t, l, 0)
		caught(func() {
			call(t.Context(), l, func(context.Context) (int, error) { runtime.Goexit(); return 0, nil })
			t.Errorf("%s: Goexit was stopped", name)
		})
		check(t, l, 0)
		if l.Limit() != 20 {
			t.Errorf("%s: limit %d", name, l.Limit())
		}
		l = adaptive.New(adaptive.Config{})
		for range 100 {
			caught(func() { call(t.Context(), l, resiliencetest.Panic[int](errBoom).Do) })
		}
		if s := l.Snapshot(); s.RoundTrip != 0 || s.Limit != 20 {
			t.Errorf("%s: %+v by panics alone", name, s)
		}
	}
}

func TestAPanicOfAFunctionOfTheUsersLeavesNothingHeld(t *testing.T) {
	for name, call := range calls {
		for what, config := range map[string]adaptive.Config{
			"Priority": {Priority: func(context.Context) int { panic(errBoom) }},
			"Classify": {Classify: func(context.Context, error) adaptive.Outcome { panic(errBoom) }},
		} {
			l := adaptive.New(config)
			if value := caught(func() { call(t.Context(), l, succeed) }); value != errBoom {
				t.Errorf("%s, %s: %v", name, what, value)
			}
			check(t, l, 0)
		}
	}
}

func TestACtxThatIsDoneMakesNoCall(t *testing.T) {
	cause := errors.New("cause")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	for name, call := range calls {
		l := adaptive.New(adaptive.Config{Priority: func(context.Context) int { t.Error("asked"); return 0 }})
		_, err := call(ctx, l, func(context.Context) (int, error) { t.Error("called"); return 0, nil })
		if !errors.Is(err, context.Canceled) || !errors.Is(err, cause) {
			t.Error(name, err)
		}
	}
}

func TestWhatTheCallReturnsComesBack(t *testing.T) {
	for name, call := range calls {
		l := adaptive.New(adaptive.Config{})
		if value, err := call(t.Context(), l, func(context.Context) (int, error) { return 7, errBoom }); value != 7 || err != errBoom {
			t.Error(name, value, err)
		}
	}
}

// TestTheLimitStaysFromMinToMax, also while it is halved for a measurement.
func TestTheLimitStaysFromMinToMax(t *testing.T) {
	for _, c := range []struct{ least, most, workers int }{{30, 40, 10}, {5, 25, 100}, {7, 7, 1}, {1, 1, 1}} {
		synctest.Test(t, func(t *testing.T) {
			l := adaptive.New(adaptive.Config{Min: c.least, Max: c.most})
			d := newDependency(c.workers, roundTrip, tenth)
			simulate(t, 100, l, d, func() {
				time.Sleep(20 * roundTrip)
				for range 600 {
					time.Sleep(roundTrip / 2)
					if s := l.Snapshot(); s.Limit < c.least || s.Limit > c.most || s.Running < min(c.least, 100) || s.Running > c.most {
						t.Fatalf("%+v of a limit from %d to %d", s, c.least, c.most)
					}
				}
			})
		})
	}
}

// TestASmallLimitRests: the least that a dependency can be asked beside its workers is one call, and the limit does not go to and fro about it.
func TestASmallLimitRests(t *testing.T) {
	for _, workers := range []int{1, 2, 3, 5, 10} {
		synctest.Test(t, func(t *testing.T) {
			l := adaptive.New(adaptive.Config{Initial: 1})
			d := newDependency(workers, roundTrip, fixed)
			simulate(t, 3*workers+3, l, d, func() {
				time.Sleep(500 * roundTrip)
				if limit := worst(l, workers, 300); limit != workers+1 {
					t.Errorf("limit %d for %d workers", limit, workers)
				}
			})
		})
	}
}

// TestHalfOfTheLimitIsAdmittedNowAndThen, for three round trips (one until half have left, one until none of the others can be left, and one that is
// measured), and at no other time fewer than all.
func TestHalfOfTheLimitIsAdmittedNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const workers = 100
		l := adaptive.New(adaptive.Config{})
		d := newDependency(workers, roundTrip, tenth)
		simulate(t, workers*3/2, l, d, func() {
			time.Sleep(400 * roundTrip)
			drained, longest, now := 0, 0, 0
			const look = 1600
			for range look {
				time.Sleep(roundTrip / 4)
				if s := l.Snapshot(); s.Running < s.Limit*6/10 {
					drained++
					now++
					longest = max(longest, now)
				} else {
					now = 0
				}
			}
			if drained == 0 || drained > look/25 || longest > 4*4 {
				t.Errorf("%d of %d looks met half of the limit or less, %d in a row", drained, look, longest)
			}
		})
	})
}

func TestErrorsAreReadable(t *testing.T) {
	for want, err := range map[string]error{
		"adaptive search: at the limit of 20":        &adaptive.LimitError{Name: "search", Limit: 20, Priority: 4},
		"adaptive: at the limit of 1 for priority 0": &adaptive.LimitError{Limit: 1},
	} {
		if err.Error() != want {
			t.Errorf("%s, want %s", err, want)
		}
	}
}

func TestNamesAreReadable(t *testing.T) {
	for want, value := range map[string]fmt.Stringer{
		"queue": adaptive.Queue, "AIMD": adaptive.AIMD, "Algorithm(7)": adaptive.Algorithm(7),
		"sample": adaptive.Sample, "drop": adaptive.Drop, "ignored": adaptive.Ignored, "Outcome(7)": adaptive.Outcome(7),
	} {
		if value.String() != want {
			t.Errorf("%v, want %s", value, want)
		}
	}
	if name := adaptive.New(adaptive.Config{Name: "search"}).Name(); name != "search" {
		t.Error(name)
	}
}

func TestTheDefaultsFitWhatIsSet(t *testing.T) {
	for _, c := range []struct {
		config  adaptive.Config
		initial int
	}{
		{adaptive.Config{}, 20},
		{adaptive.Config{Max: 10}, 10},
		{adaptive.Config{Min: 50}, 50},
		{adaptive.Config{Min: 5000}, 5000},
		{adaptive.Config{Initial: 5000}, 5000},
		{adaptive.Config{Initial: 3, Min: 3, Max: 3}, 3},
		{adaptive.Config{Initial: 1_000_000}, 1_000_000},
	} {
		if l := adaptive.New(c.config); l.Limit() != c.initial {
			t.Errorf("%+v: limit %d, want %d", c.config, l.Limit(), c.initial)
		}
	}
}

func TestMistakesAreToldAllAtOnce(t *testing.T) {
	good := adaptive.New(adaptive.Config{})
	for want, mistake := range map[string]func(){
		"adaptive a: Initial is -1, must be 1 to 1000000, or 0 for 20\nadaptive a: Min is -2, must be 1 to 1000000, or 0 for 1\n" +
			"adaptive a: Max is 1000001, must be 1 to 1000000, or 0 for 1000\nadaptive a: Algorithm is Algorithm(2), must be Queue or AIMD": func() {
			adaptive.New(adaptive.Config{Name: "a", Initial: -1, Min: -2, Max: 1_000_001, Algorithm: 2})
		},
		"adaptive: Initial is 30, must be from Min (1) to Max (29)":    func() { adaptive.New(adaptive.Config{Initial: 30, Max: 29}) },
		"adaptive: Initial is 30, must be from Min (31) to Max (1000)": func() { adaptive.New(adaptive.Config{Initial: 30, Min: 31}) },
		"adaptive: Min is 5, must be at most Max (4)":                  func() { adaptive.New(adaptive.Config{Min: 5, Max: 4}) },
		"adaptive: Do: fn is nil, must be a function":                  func() { adaptive.Do[int](t.Context(), good, nil) },
		"adaptive: Do: l is nil, must be a Limiter made by New":        func() { adaptive.Do(t.Context(), nil, func(context.Context) (int, error) { return 0, nil }) },
	} {
		if value := caught(mistake); value != want {
			t.Errorf("panicked with %v, want %s", value, want)
		}
	}
}

func TestNothingIsLostUnderContention(t *testing.T) {
	for _, algorithm := range []adaptive.Algorithm{adaptive.Queue, adaptive.AIMD} {
		const most = 6
		l := adaptive.New(adaptive.Config{Algorithm: algorithm, Initial: 4, Min: 2, Max: most})
		var inside, highest, made atomic.Int32
		var g errgroup.Group
		for i := range 16 {
			g.Go(func() error {
				for n := range 2000 {
					_, err := adaptive.Do(t.Context(), l, func(context.Context) (int, error) {
						made.Add(1)
						now := inside.Add(1)
						for h := highest.Load(); now > h && !highest.CompareAndSwap(h, now); h = highest.Load() {
						}
						runtime.Gosched()
						inside.Add(-1)
						if (i+n)%50 == 0 {
							return 0, errBoom
						}
						return 0, nil
					})
					if err != nil && err != errBoom && !errors.Is(err, adaptive.ErrLimit) {
						return err
					}
					if s := l.Snapshot(); s.Limit < 2 || s.Limit > most {
						return fmt.Errorf("%+v", s)
					}
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		check(t, l, 0)
		if highest.Load() > most || made.Load() == 0 {
			t.Errorf("%d at once of %d calls", highest.Load(), made.Load())
		}
	}
}

func TestACallThatIsAdmittedAllocatesNothing(t *testing.T) {
	for _, algorithm := range []adaptive.Algorithm{adaptive.Queue, adaptive.AIMD} {
		l := adaptive.New(adaptive.Config{Algorithm: algorithm})
		ctx := t.Context()
		if n := testing.AllocsPerRun(1000, func() { adaptive.Do(ctx, l, succeed) }); n != 0 {
			t.Errorf("%v: %v allocations", algorithm, n)
		}
	}
}

func BenchmarkDo(b *testing.B) {
	ctx := b.Context()
	for _, algorithm := range []adaptive.Algorithm{adaptive.Queue, adaptive.AIMD} {
		b.Run(algorithm.String()+"/serial", func(b *testing.B) {
			l := adaptive.New(adaptive.Config{Algorithm: algorithm})
			b.ReportAllocs()
			for b.Loop() {
				adaptive.Do(ctx, l, succeed)
			}
		})
		b.Run(algorithm.String()+"/parallel", func(b *testing.B) {
			l := adaptive.New(adaptive.Config{Algorithm: algorithm, Initial: 1000})
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					adaptive.Do(ctx, l, succeed)
				}
			})
		})
	}
	b.Run("refused", func(b *testing.B) {
		l := adaptive.New(adaptive.Config{Initial: 1, Max: 1})
		adaptive.Do(ctx, l, func(ctx context.Context) (int, error) {
			b.ReportAllocs()
			for b.Loop() {
				adaptive.Do(ctx, l, succeed)
			}
			return 0, nil
		})
	})
}
