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

// check compares the number of running calls.
func check(t *testing.T, l *adaptive.Limiter, running int) {
	t.Helper()
	if s := l.Snapshot(); s.Running != running {
		t.Errorf("%d running, want %d", s.Running, running)
	}
}

// hold starts n calls that run until the test ends or release is called.
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

func TestLimiterAdmitsNoMoreThanItsLimit(t *testing.T) {
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
					t.Errorf("got %#v, want a LimitError of search, 7, 4", err)
				}
				if _, ok := resilience.RetryAfter(err); ok {
					t.Error("got a RetryAfter, want none: the time is not known")
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
			t.Errorf("got %d calls, %d of them concurrent, %d refused; want 7, 7, 13", slow.Calls(), slow.MaxConcurrent(), refused.Load())
		}
		check(t, l, 0)
	})
}

// TestLimiterAdmitsByPriority checks that calls of priority p are admitted while fewer run than
// limit × (0.6 + 0.1 p). Priorities out of range count as 0 or 4.
func TestLimiterAdmitsByPriority(t *testing.T) {
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
						t.Errorf("limit %d, %d running, priority %d: admitted %v, want %v", limit, running, c.priority, admitted, want)
					}
					var refusal *adaptive.LimitError
					if errors.As(err, &refusal) && (refusal.Priority != c.level || refusal.Limit != limit) {
						t.Errorf("got %+v, want priority %d and limit %d", refusal, c.level, limit)
					}
					if running < limit {
						hold(t, l, 1)
					}
				}
			})
		}
	}
}

// TestLimiterGrowsForLowPriorityAlone checks that no worker is kept idle for important calls that
// don't come.
func TestLimiterGrowsForLowPriorityAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const workers = 60
		l := adaptive.New(adaptive.Config{Priority: func(context.Context) int { return 0 }})
		d := newDependency(workers, roundTrip, fixed)
		simulate(t, workers*3/2, l, d, func() {
			time.Sleep(200 * roundTrip)
			if s := l.Snapshot(); s.Running < workers*9/10 {
				t.Errorf("got %+v: workers are idle while calls are refused", s)
			}
		})
	})
}

// classified returns a limiter for which every call has the outcome.
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
		{"success after the caller's cancel", canceled, nil, adaptive.Sample},
		{"error", t.Context(), errBoom, adaptive.Drop},
		{"inner deadline", t.Context(), context.DeadlineExceeded, adaptive.Drop},
		{"the caller's deadline", expired, context.DeadlineExceeded, adaptive.Drop},
		{"the caller's cancel", canceled, context.Canceled, adaptive.Ignored},
		{"any error after the caller's cancel", canceled, errBoom, adaptive.Ignored},
		{"inner cancel", t.Context(), context.Canceled, adaptive.Drop},
	} {
		if got := adaptive.DefaultClassify(c.ctx, c.err); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// TestAIMDShrinksOnceForConcurrentDrops checks that the drops of calls that ran concurrently count
// once, and that each later one counts.
func TestAIMDShrinksOnceForConcurrentDrops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := adaptive.New(adaptive.Config{Algorithm: adaptive.AIMD, Initial: 100})
		failing := resiliencetest.Slow[int](time.Second).Failing(errBoom)
		var g errgroup.Group
		for range 100 {
			g.Go(func() error { adaptive.Do(t.Context(), l, failing.Do); return nil })
		}
		g.Wait()
		if l.Limit() != 90 {
			t.Errorf("limit %d after the drops of 100 concurrent calls, want 90", l.Limit())
		}
		for _, want := range []int{81, 72, 64, 57} {
			adaptive.Do(t.Context(), l, fail)
			if l.Limit() != want {
				t.Errorf("limit %d, want %d", l.Limit(), want)
			}
		}
	})
}

// TestAIMDCountsDropFromBeforeItGrew checks a call that began before the limit grew, but after it
// last shrank.
func TestAIMDCountsDropFromBeforeItGrew(t *testing.T) {
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

// TestAIMDGrowsByOnePerRoundTrip checks that each round trip that meets the limit counts, and no
// other.
func TestAIMDGrowsByOnePerRoundTrip(t *testing.T) {
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
			round(9) // there is room for one more
		}
		if l.Limit() != 10 {
			t.Errorf("limit %d, want 10: no call met it", l.Limit())
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
			t.Errorf("limit %d, want Max, 15", l.Limit())
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

func TestLimiterIgnoresIgnoredCalls(t *testing.T) {
	for _, algorithm := range []adaptive.Algorithm{adaptive.Queue, adaptive.AIMD} {
		synctest.Test(t, func(t *testing.T) {
			for _, outcome := range []adaptive.Outcome{adaptive.Ignored, 17} {
				l := classified(algorithm, outcome)
				d := newDependency(5, roundTrip, exponential)
				simulate(t, 50, l, d, func() {
					if limit := worst(l, 20, 200); limit != 20 {
						t.Errorf("%v, %v: limit %d, want 20", algorithm, outcome, limit)
					}
				})
				if s := l.Snapshot(); s.RoundTrip != 0 {
					t.Errorf("got %+v, want no round trip", s)
				}
			}
		})
	}
}

// TestLimiterIgnoresCallersCancel checks that a canceled call is ignored, whatever its error.
func TestLimiterIgnoresCallersCancel(t *testing.T) {
	l := adaptive.New(adaptive.Config{Algorithm: adaptive.AIMD})
	for range 100 {
		ctx, cancel := context.WithCancel(t.Context())
		adaptive.Do(ctx, l, func(context.Context) (int, error) { cancel(); return 0, errBoom })
	}
	if l.Limit() != 20 {
		t.Errorf("limit %d, want 20", l.Limit())
	}
}

// TestLimiterIgnoresRefusalOfInnerPolicy checks that Classify isn't called for such a call. A call
// that was made counts, even if its error is a refusal.
func TestLimiterIgnoresRefusalOfInnerPolicy(t *testing.T) {
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
		t.Errorf("limit %d, Classify called %d times", l.Limit(), asked)
	}
	check(t, l, 0)
	resilience.Do(t.Context(), l, func(context.Context) (int, error) { return 0, resilience.ErrRefused })
	if l.Limit() != 18 || asked != 1 {
		t.Errorf("limit %d, Classify called %d times", l.Limit(), asked)
	}
}

// calls are the ways to make a call.
var calls = map[string]func(ctx context.Context, l *adaptive.Limiter, fn func(context.Context) (int, error)) (int, error){
	"Do": adaptive.Do[int],
	"Run": func(ctx context.Context, l *adaptive.Limiter, fn func(context.Context) (int, error)) (int, error) {
		return resilience.Compose(fn, l)(ctx)
	},
}

// caught runs fn on a new goroutine and returns the value of its panic.
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

func TestLimiterReleasesOnPanicAndGoexit(t *testing.T) {
	for name, call := range calls {
		l := adaptive.New(adaptive.Config{Algorithm: adaptive.AIMD})
		if value := caught(func() { call(t.Context(), l, resiliencetest.Panic[int](errBoom).Do) }); value != errBoom {
			t.Errorf("%s: panic with %v, want %v", name, value, errBoom)
		}
		check(t, l, 0)
		caught(func() {
			call(t.Context(), l, func(context.Context) (int, error) { runtime.Goexit(); return 0, nil })
			t.Errorf("%s: Goexit did not end the goroutine", name)
		})
		check(t, l, 0)
		if l.Limit() != 20 {
			t.Errorf("%s: limit %d, want 20", name, l.Limit())
		}
		l = adaptive.New(adaptive.Config{})
		for range 100 {
			caught(func() { call(t.Context(), l, resiliencetest.Panic[int](errBoom).Do) })
		}
		if s := l.Snapshot(); s.RoundTrip != 0 || s.Limit != 20 {
			t.Errorf("%s: got %+v after panics alone, want no round trip and limit 20", name, s)
		}
	}
}

func TestLimiterReleasesWhenHookPanics(t *testing.T) {
	for name, call := range calls {
		for what, config := range map[string]adaptive.Config{
			"Priority": {Priority: func(context.Context) int { panic(errBoom) }},
			"Classify": {Classify: func(context.Context, error) adaptive.Outcome { panic(errBoom) }},
		} {
			l := adaptive.New(config)
			if value := caught(func() { call(t.Context(), l, succeed) }); value != errBoom {
				t.Errorf("%s, %s: panic with %v, want %v", name, what, value, errBoom)
			}
			check(t, l, 0)
		}
	}
}

func TestLimiterMakesNoCallIfContextIsDone(t *testing.T) {
	cause := errors.New("cause")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	for name, call := range calls {
		l := adaptive.New(adaptive.Config{Priority: func(context.Context) int { t.Error("Priority called"); return 0 }})
		_, err := call(ctx, l, func(context.Context) (int, error) { t.Error("called"); return 0, nil })
		if !errors.Is(err, context.Canceled) || !errors.Is(err, cause) {
			t.Errorf("%s: got %v, want the context's error and its cause", name, err)
		}
	}
}

func TestLimiterReturnsWhatCallReturns(t *testing.T) {
	for name, call := range calls {
		l := adaptive.New(adaptive.Config{})
		if value, err := call(t.Context(), l, func(context.Context) (int, error) { return 7, errBoom }); value != 7 || err != errBoom {
			t.Errorf("%s: got %v, %v, want 7, %v", name, value, err, errBoom)
		}
	}
}

// TestLimiterStaysBetweenMinAndMax checks the limit, and what is admitted during a drain.
func TestLimiterStaysBetweenMinAndMax(t *testing.T) {
	for _, c := range []struct{ least, most, workers int }{{30, 40, 10}, {5, 25, 100}, {7, 7, 1}, {1, 1, 1}} {
		synctest.Test(t, func(t *testing.T) {
			l := adaptive.New(adaptive.Config{Min: c.least, Max: c.most})
			d := newDependency(c.workers, roundTrip, tenth)
			simulate(t, 100, l, d, func() {
				time.Sleep(20 * roundTrip)
				for range 600 {
					time.Sleep(roundTrip / 2)
					if s := l.Snapshot(); s.Limit < c.least || s.Limit > c.most || s.Running < min(c.least, 100) || s.Running > c.most {
						t.Fatalf("got %+v, want a limit from %d to %d", s, c.least, c.most)
					}
				}
			})
		})
	}
}

// TestQueueSmallLimitRests checks that a small limit settles one call above the number of workers,
// and doesn't oscillate.
func TestQueueSmallLimitRests(t *testing.T) {
	for _, workers := range []int{1, 2, 3, 5, 10} {
		synctest.Test(t, func(t *testing.T) {
			l := adaptive.New(adaptive.Config{Initial: 1})
			d := newDependency(workers, roundTrip, fixed)
			simulate(t, 3*workers+3, l, d, func() {
				time.Sleep(500 * roundTrip)
				if limit := worst(l, workers, 300); limit != workers+1 {
					t.Errorf("limit %d for %d workers, want one more", limit, workers)
				}
			})
		})
	}
}

// TestQueueDrainsNowAndThen checks that half of the limit is admitted now and then, for two round
// trips (one until half of the calls have left, and one that is measured), and that at no other
// time fewer than all are admitted.
func TestQueueDrainsNowAndThen(t *testing.T) {
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
			if drained == 0 || drained > look/50 || longest > 4*3 {
				t.Errorf("half of the limit or less was running at %d of %d instants, at most %d in a row", drained, look, longest)
			}
		})
	})
}

func TestLimitErrorText(t *testing.T) {
	for want, err := range map[string]error{
		"adaptive search: at the limit of 20":        &adaptive.LimitError{Name: "search", Limit: 20, Priority: 4},
		"adaptive: at the limit of 1 for priority 0": &adaptive.LimitError{Limit: 1},
	} {
		if err.Error() != want {
			t.Errorf("got %s, want %s", err, want)
		}
	}
}

func TestStringNamesAlgorithmsAndOutcomes(t *testing.T) {
	for want, value := range map[string]fmt.Stringer{
		"queue": adaptive.Queue, "AIMD": adaptive.AIMD, "Algorithm(7)": adaptive.Algorithm(7),
		"sample": adaptive.Sample, "drop": adaptive.Drop, "ignored": adaptive.Ignored, "Outcome(7)": adaptive.Outcome(7),
	} {
		if value.String() != want {
			t.Errorf("got %v, want %s", value, want)
		}
	}
	if name := adaptive.New(adaptive.Config{Name: "search"}).Name(); name != "search" {
		t.Errorf("got the name %q, want search", name)
	}
}

func TestConfigDefaultsFitOtherFields(t *testing.T) {
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

func TestConfigValidateReportsAllErrors(t *testing.T) {
	good := adaptive.New(adaptive.Config{})
	for want, mistake := range map[string]func(){
		"adaptive a: Initial is -1, must be 1 to 1000000, or 0 for 20\nadaptive a: Min is -2, must be 1 to 1000000, or 0 for 1\n" +
			"adaptive a: Max is 1000001, must be 1 to 1000000, or 0 for 1000\nadaptive a: Algorithm is Algorithm(2), must be Queue or AIMD": func() {
			adaptive.New(adaptive.Config{Name: "a", Initial: -1, Min: -2, Max: 1_000_001, Algorithm: 2})
		},
		"adaptive: Initial is 30, must be from Min (1) to Max (29)":    func() { adaptive.New(adaptive.Config{Initial: 30, Max: 29}) },
		"adaptive: Initial is 30, must be from Min (31) to Max (1000)": func() { adaptive.New(adaptive.Config{Initial: 30, Min: 31}) },
		"adaptive: Initial is -1, must be 1 to 1000000, or 0 for 20":   func() { adaptive.New(adaptive.Config{Initial: -1}) },
		"adaptive: Max is -1, must be 1 to 1000000, or 0 for 1000":     func() { adaptive.New(adaptive.Config{Max: -1}) },
		"adaptive: Min is 5, must be at most Max (4)":                  func() { adaptive.New(adaptive.Config{Min: 5, Max: 4}) },
		"adaptive: Min is -1, must be 1 to 1000000, or 0 for 1":        func() { adaptive.New(adaptive.Config{Min: -1}) },
		"adaptive: Do: fn is nil, must be a function":                  func() { adaptive.Do[int](t.Context(), good, nil) },
		"adaptive: Do: l is nil, must be a Limiter made by New":        func() { adaptive.Do(t.Context(), nil, func(context.Context) (int, error) { return 0, nil }) },
	} {
		if value := caught(mistake); value != want {
			t.Errorf("panic with %v, want %s", value, want)
		}
	}
}

func TestLimiterSetConfigKeepsConfigAndLimitTogether(t *testing.T) {
	l := adaptive.New(adaptive.Config{})
	for range 1000 {
		var g errgroup.Group
		for _, limit := range []int{10, 20} {
			g.Go(func() error { return l.SetConfig(adaptive.Config{Initial: limit, Min: limit, Max: limit}) })
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		if l.Limit() != l.Config().Max {
			t.Fatalf("limit %d after two concurrent calls, want the %d of the last one", l.Limit(), l.Config().Max)
		}
	}
}

func TestLimiterLosesNoCallUnderContention(t *testing.T) {
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
						return fmt.Errorf("got %+v, want a limit from 2 to %d", s, most)
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
			t.Errorf("%d concurrent of %d calls, want at most %d", highest.Load(), made.Load(), most)
		}
	}
}

func TestDoAllocatesNothing(t *testing.T) {
	for _, algorithm := range []adaptive.Algorithm{adaptive.Queue, adaptive.AIMD} {
		l := adaptive.New(adaptive.Config{Algorithm: algorithm})
		ctx := t.Context()
		if n := testing.AllocsPerRun(1000, func() { adaptive.Do(ctx, l, succeed) }); n != 0 {
			t.Errorf("%v: %v allocations, want 0", algorithm, n)
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
