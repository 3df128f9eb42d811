package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
)

var errBoom = errors.New("boom")

func fail(context.Context) (int, error) { return 0, errBoom }

// run makes calls on b by a script: s succeeds, f fails, c fails with the caller gone.
func run(t *testing.T, b *breaker.Breaker, script string) {
	t.Helper()
	for i, step := range script {
		ctx, cancel := context.WithCancel(t.Context())
		_, err := breaker.Do(ctx, b, func(context.Context) (int, error) {
			switch step {
			case 's':
				return 1, nil
			case 'c':
				cancel()
			}
			return 0, errBoom
		})
		cancel()
		if errors.Is(err, breaker.ErrOpen) {
			t.Fatalf("call %d of %q was refused: %v", i+1, script, err)
		}
	}
}

func wantState(t *testing.T, b *breaker.Breaker, want breaker.State) {
	t.Helper()
	if got := b.State(); got != want {
		t.Fatalf("state is %v, want %v; %+v", got, want, b.Snapshot())
	}
}

func TestEachRuleOpensAtItsLimitAndNotBefore(t *testing.T) {
	tests := []struct {
		name  string
		c     breaker.Config
		stays string // closed after this
		opens string // open after this too
		cause string
	}{
		{"default is 5 in a row", breaker.Config{}, "ffffsffff", "f", "5 failures in a row"},
		{"consecutive forgets at a success", breaker.Config{Consecutive: 3}, "ffsffsff", "f", "3 failures in a row"},
		{"leaky takes one away for a success", breaker.Config{Leaky: 3}, "fsffsf", "f", "3 failures more than successes"},
		{"leaky never goes below zero", breaker.Config{Leaky: 2}, "sssssf", "f", "2 failures more than successes"},
		{"last calls, not yet full", breaker.Config{Failures: 3, LastCalls: 10}, "ff", "f", "3 failures among the last 10 calls"},
		{"last calls forget", breaker.Config{Failures: 3, LastCalls: 4}, "ffssfsfs", "ff", "3 failures among the last 4 calls"},
		{"rate waits for MinCalls", breaker.Config{FailureRate: 0.5, MinCalls: 4}, "fff", "f", "4 of 4 calls failed in 10s"},
		{"a success that fills MinCalls is judged", breaker.Config{FailureRate: 0.5, MinCalls: 4}, "ffs", "s", "2 of 4 calls failed in 10s"},
		{"rate is exact", breaker.Config{FailureRate: 0.1, MinCalls: 10}, "sssssssss", "f", "1 of 10 calls failed in 10s"},
		{"rate of one", breaker.Config{FailureRate: 1, MinCalls: 3}, "sfffff"[:1] + "ffff", "", ""},
		{"a rule of several is enough", breaker.Config{Consecutive: 9, Leaky: 9, Failures: 9, LastCalls: 20, FailureRate: 0.5, MinCalls: 4}, "sff", "f", "3 of 4 calls failed in 10s"},
		{"another of several", breaker.Config{Consecutive: 3, Leaky: 9, Failures: 9, LastCalls: 20, FailureRate: 0.9}, "fsff", "f", "3 failures in a row"},
		{"in a row, beside a rate", breaker.Config{Consecutive: 3, FailureRate: 0.9, MinCalls: 99}, "ffsff", "f", "3 failures in a row"},
		{"a caller that went away ends no row", breaker.Config{Consecutive: 2}, "fc", "f", "2 failures in a row"},
		{"a caller that went away is no success for leaky", breaker.Config{Leaky: 2}, "fc", "f", "2 failures more than successes"},
		{"a caller that went away is none of the last calls", breaker.Config{Failures: 2, LastCalls: 2}, "fc", "f", "2 failures among the last 2 calls"},
		{"a caller that went away counts in no rule", breaker.Config{Consecutive: 2, Leaky: 2, Failures: 2, LastCalls: 5, FailureRate: 0.9, MinCalls: 2}, "fcccccc", "f", "2 of 2 calls failed in 10s"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var told []breaker.Transition
				test.c.OnStateChange = func(tr breaker.Transition) { told = append(told, tr) }
				b := breaker.New(test.c)
				run(t, b, test.stays)
				wantState(t, b, breaker.Closed)
				if test.opens == "" {
					return
				}
				run(t, b, test.opens)
				wantState(t, b, breaker.Open)
				if len(told) != 1 || !strings.Contains(told[0].Cause, test.cause) && test.name[0] != 'a' {
					t.Errorf("told %v, want one with the cause %q", told, test.cause)
				}
			})
		})
	}
}

func TestWindowForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{FailureRate: 0.5, MinCalls: 4, Window: time.Second})
		run(t, b, "fff")
		time.Sleep(time.Second - 1)
		if s := b.Snapshot(); s.Calls != 3 || s.Failures != 3 {
			t.Errorf("just before the window is over: %+v, want 3 calls, 3 failures", s)
		}
		time.Sleep(time.Nanosecond)
		if s := b.Snapshot(); s.Calls != 0 {
			t.Errorf("after the window: %+v, want no calls", s)
		}
		run(t, b, "fff")
		wantState(t, b, breaker.Closed)
		// Old successes that leave the window raise the share: the next result opens, a success too.
		b.Reset()
		run(t, b, "ssssss")
		time.Sleep(500 * time.Millisecond)
		run(t, b, "ffff")
		wantState(t, b, breaker.Closed)
		time.Sleep(500 * time.Millisecond)
		run(t, b, "s")
		wantState(t, b, breaker.Open)
	})
}

func TestWindowForgetsAfterAnyIdleTime(t *testing.T) {
	for _, idle := range []time.Duration{time.Second, 1100 * time.Millisecond, 1200 * time.Millisecond, 1300 * time.Millisecond, 1600 * time.Millisecond, time.Minute, 30 * 24 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			b := breaker.New(breaker.Config{FailureRate: 0.5, MinCalls: 100, Window: time.Second})
			run(t, b, "ffffff")
			time.Sleep(idle)
			run(t, b, "sf")
			if s := b.Snapshot(); s.Calls != 2 || s.Failures != 1 {
				t.Errorf("after %v: %d calls, %d failures, want 2 and 1", idle, s.Calls, s.Failures)
			}
		})
	}
}

func TestSlowCallsOpen(t *testing.T) {
	slow := func(d time.Duration, err error) func(context.Context) (int, error) {
		return func(context.Context) (int, error) { time.Sleep(d); return 0, err }
	}
	synctest.Test(t, func(t *testing.T) {
		c := breaker.Config{SlowRate: 0.5, SlowCall: 100 * time.Millisecond, MinCalls: 4}
		b := breaker.New(c)
		for _, d := range []time.Duration{0, 99 * time.Millisecond, 100 * time.Millisecond} {
			breaker.Do(t.Context(), b, slow(d, nil))
		}
		wantState(t, b, breaker.Closed)
		breaker.Do(t.Context(), b, slow(100*time.Millisecond, errBoom))
		wantState(t, b, breaker.Open)

		// Failures that are fast are no concern of the rule.
		b = breaker.New(c)
		run(t, b, "ffffffff")
		wantState(t, b, breaker.Closed)
	})
	t.Run("ignored ones too, cancelled ones not", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := breaker.New(breaker.Config{SlowRate: 1, SlowCall: 100 * time.Millisecond, MinCalls: 3})
			for range 5 {
				p, _ := b.Acquire(t.Context())
				time.Sleep(200 * time.Millisecond)
				p.Cancel()
			}
			if s := b.Snapshot(); s.Slow != 0 || s.Calls != 0 || s.Running != 0 || s.State != breaker.Closed {
				t.Fatalf("after cancelled calls: %+v", s)
			}
			for range 3 {
				ctx, cancel := context.WithCancel(t.Context())
				p, _ := b.Acquire(ctx)
				time.Sleep(200 * time.Millisecond)
				cancel()
				p.Done(errBoom)
			}
			wantState(t, b, breaker.Open)
		})
	})
}

func TestHungDependencyOpensWhileItsCallsHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []breaker.Transition
		b := breaker.New(breaker.Config{SlowRate: 0.5, SlowCall: 160 * time.Millisecond, MinCalls: 10, OpenFor: time.Minute,
			OnStateChange: func(tr breaker.Transition) { told = append(told, tr) }})
		release := make(chan struct{})
		var g errgroup.Group
		for range 10 {
			g.Go(func() error {
				_, err := breaker.Do(t.Context(), b, func(context.Context) (int, error) { <-release; return 0, nil })
				return err
			})
		}
		time.Sleep(160*time.Millisecond - 1)
		run(t, b, "s") // not slow yet
		time.Sleep(time.Nanosecond)
		if s := b.Snapshot(); s.Slow != 10 || s.Running != 10 {
			t.Fatalf("%+v, want 10 slow and running", s)
		}
		_, err := breaker.Do(t.Context(), b, func(context.Context) (int, error) { t.Error("called"); return 0, nil })
		if !errors.Is(err, breaker.ErrOpen) || len(told) != 1 {
			t.Fatalf("got %v and %v, want a refusal", err, told)
		}
		close(release)
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		wantState(t, b, breaker.Open)
	})
}

func TestRunningCallsAreSlowAnEighthAfterSlowCallAtTheLatestAndNeverBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{SlowRate: 1, SlowCall: 80 * time.Millisecond, MinCalls: 1000})
		var starts []time.Time
		for i := range 300 {
			b.Acquire(t.Context())
			starts = append(starts, time.Now())
			time.Sleep(time.Duration(i%7) * time.Millisecond)
			least, most := 0, 0
			for _, start := range starts {
				if took := time.Since(start); took >= 90*time.Millisecond {
					least++
					most++
				} else if took >= 80*time.Millisecond {
					most++
				}
			}
			if s := b.Snapshot(); s.Slow < least || s.Slow > most || s.Running != len(starts) {
				t.Fatalf("%d slow of %d, want %d to %d of %d", s.Slow, s.Running, least, most, len(starts))
			}
		}
	})
}

func TestHangingCallIsJudgedAtEveryAdmissionAfterSlowCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{SlowRate: 0.3, SlowCall: 80 * time.Millisecond, MinCalls: 3})
		time.Sleep(5 * time.Millisecond)
		b.Acquire(t.Context())
		b.Acquire(t.Context())
		time.Sleep(76 * time.Millisecond)
		run(t, b, "sss") // judged in the same part of time, and not slow yet
		time.Sleep(4*time.Millisecond - 1)
		run(t, b, "s")
		time.Sleep(time.Nanosecond)
		if _, err := b.Acquire(t.Context()); !errors.Is(err, breaker.ErrOpen) {
			t.Errorf("got %v of %+v", err, b.Snapshot())
		}
	})
}

func TestRunningCallsAreCountedOnceHoweverLongTheyRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{SlowRate: 1, SlowCall: 160 * time.Millisecond, MinCalls: 1000})
		var permits []*breaker.Permit
		for i := range 100 {
			p, err := b.Acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			permits = append(permits, &p)
			time.Sleep(time.Duration(i) * 3 * time.Millisecond) // many rounds of the ring
		}
		time.Sleep(time.Second)
		if s := b.Snapshot(); s.Running != 100 || s.Slow != 100 {
			t.Errorf("%+v, want 100 running and slow", s)
		}
		for _, p := range permits {
			p.Done(nil)
		}
		if s := b.Snapshot(); s.Running != 0 || s.Slow != 100 || s.Calls != 100 {
			t.Errorf("%+v, want 100 calls, all slow, none running", s)
		}
	})
}

func TestOpenRefusesAndTells(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{Name: "payments", Consecutive: 1, OpenFor: 5 * time.Second})
		run(t, b, "f")
		time.Sleep(800 * time.Millisecond)
		_, err := breaker.Do(t.Context(), b, func(context.Context) (int, error) { t.Error("called"); return 0, nil })
		var open *breaker.OpenError
		if !errors.As(err, &open) || open.State != breaker.Open || open.Name != "payments" {
			t.Fatalf("got %#v", err)
		}
		if !errors.Is(err, breaker.ErrOpen) || !errors.Is(err, resilience.ErrRefused) || errors.Is(err, io.EOF) {
			t.Error("the error matches the wrong things")
		}
		if err.Error() != "breaker payments: open, retry in 4.2s" {
			t.Errorf("text %q", err)
		}
		if after, ok := resilience.RetryAfter(err); !ok || after != 4200*time.Millisecond {
			t.Errorf("RetryAfter %v, %v", after, ok)
		}
		if s := b.Snapshot(); s.Until.Sub(s.Since) != 5*time.Second || s.Openings != 1 {
			t.Errorf("%+v", s)
		}
		time.Sleep(10 * time.Second)
		if after, ok := resilience.RetryAfter(err); ok || err.Error() != "breaker payments: open" {
			t.Errorf("later: RetryAfter %v, text %q", after, err)
		}
	})
}

func TestOpenTurnsHalfOpenWithoutTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []breaker.State
		b := breaker.New(breaker.Config{OnStateChange: func(tr breaker.Transition) { told = append(told, tr.To) }})
		run(t, b, "fffff")
		time.Sleep(5*time.Second - 1)
		wantState(t, b, breaker.Open)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if fmt.Sprint(told) != "[open half-open]" {
			t.Errorf("told %v", told)
		}
		wantState(t, b, breaker.HalfOpen)
		run(t, b, "s")
		wantState(t, b, breaker.Closed)
	})
}

func TestHalfOpenLimitsProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{Probes: 2, ProbeSuccesses: 3, Name: "db"})
		b.HalfOpen()
		first, err1 := b.Acquire(t.Context())
		second, err2 := b.Acquire(t.Context())
		_, err3 := b.Acquire(t.Context())
		if err1 != nil || err2 != nil || err3 == nil || err3.Error() != "breaker db: half-open, probing" {
			t.Fatal(err1, err2, err3)
		}
		if _, ok := resilience.RetryAfter(err3); ok {
			t.Error("a time is told that nobody knows")
		}
		first.Done(nil)
		run(t, b, "c") // ignored: gives its place back and decides nothing
		run(t, b, "c")
		third, err := b.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		third.Cancel()
		if s := b.Snapshot(); s.Calls != 1 || s.Running != 1 {
			t.Errorf("%+v", s)
		}
		second.Done(nil)
		wantState(t, b, breaker.HalfOpen)
		run(t, b, "s")
		wantState(t, b, breaker.Closed)
	})
}

func TestFailedProbesOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{ProbeFailures: 2, ProbeSuccesses: 3})
		b.HalfOpen()
		run(t, b, "fss")
		wantState(t, b, breaker.HalfOpen)
		run(t, b, "f")
		wantState(t, b, breaker.Open)
	})
}

func TestLostProbeFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		b := breaker.New(breaker.Config{Probes: 2, ProbeFailures: 2, ProbeTimeout: time.Second,
			OnStateChange: func(tr breaker.Transition) { told = append(told, tr.Cause) }})
		b.HalfOpen()
		lost, _ := b.Acquire(t.Context())
		time.Sleep(300 * time.Millisecond)
		b.Acquire(t.Context())
		time.Sleep(700 * time.Millisecond)
		synctest.Wait()
		lost.Done(nil) // too late
		if s := b.Snapshot(); s.Failures != 1 || s.Calls != 1 || s.Running != 1 || s.State != breaker.HalfOpen {
			t.Errorf("%+v, want one failed, one running", s)
		}
		time.Sleep(300 * time.Millisecond)
		synctest.Wait()
		if fmt.Sprint(told) != "[by hand 2 probes without a result in time]" {
			t.Errorf("told %q", told)
		}
		wantState(t, b, breaker.Open)
	})
}

func TestProbesThatComeAndGoShareOneTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{ProbeTimeout: time.Second})
		b.HalfOpen()
		for range 10 {
			p, _ := b.Acquire(t.Context())
			time.Sleep(150 * time.Millisecond)
			p.Cancel()
		}
		b.Acquire(t.Context())
		time.Sleep(time.Second - 1)
		wantState(t, b, breaker.HalfOpen)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		wantState(t, b, breaker.Open)
	})
}

func TestSlowProbeFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{SlowRate: 0.5, SlowCall: 100 * time.Millisecond})
		b.HalfOpen()
		p, _ := b.Acquire(t.Context())
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		wantState(t, b, breaker.Open)
		p.Done(nil)
		wantState(t, b, breaker.Open)
	})
}

func TestStaleResultChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{Consecutive: 2, Leaky: 2, Failures: 2, LastCalls: 9, FailureRate: 0.5, MinCalls: 2})
		var stale []*breaker.Permit
		acquire := func() {
			p, err := b.Acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			stale = append(stale, &p)
		}
		for range 4 {
			acquire()
		}
		b.HalfOpen()
		stale[0].Done(nil) // no success of a probe
		wantState(t, b, breaker.HalfOpen)
		acquire() // a probe
		b.Reset()
		for _, p := range stale {
			p.Done(errBoom)
		}
		s := b.Snapshot()
		if s.State != breaker.Closed || s.Consecutive+s.Leak+s.Calls+s.Failures != 0 {
			t.Errorf("%+v, want nothing counted", s)
		}
	})
}

func TestOpenTimeGrowsUntilItIsStable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{Consecutive: 1, OpenFor: time.Second, MaxOpenFor: 5 * time.Second})
		openFor := func() time.Duration {
			t.Helper()
			wantState(t, b, breaker.Open)
			s := b.Snapshot()
			time.Sleep(time.Until(s.Until))
			synctest.Wait()
			wantState(t, b, breaker.HalfOpen)
			return s.Until.Sub(s.Since)
		}
		want := func(d time.Duration) {
			t.Helper()
			if got := openFor(); got != d {
				t.Fatalf("open for %v, want %v", got, d)
			}
		}
		run(t, b, "f")
		want(time.Second)
		run(t, b, "f") // failed probe
		want(2 * time.Second)
		run(t, b, "s")
		time.Sleep(2*time.Second - 1) // closed for less than it was open
		run(t, b, "f")
		want(4 * time.Second)
		run(t, b, "f")
		want(5 * time.Second)
		run(t, b, "s")
		if s := b.Snapshot(); s.Openings != 4 {
			t.Errorf("%d openings in a row, want 4", s.Openings)
		}
		time.Sleep(5 * time.Second)
		if s := b.Snapshot(); s.Openings != 0 {
			t.Errorf("%d openings in a row after a long closed phase, want 0", s.Openings)
		}
		run(t, b, "f")
		want(time.Second)
		b.Reset()
		run(t, b, "f")
		want(time.Second)
	})
}

func TestRetryAfterExtendsTheOpenTime(t *testing.T) {
	for _, test := range []struct{ after, want time.Duration }{
		{500 * time.Millisecond, time.Second}, {3 * time.Second, 3 * time.Second}, {time.Hour, 10 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := breaker.New(breaker.Config{Consecutive: 1, OpenFor: time.Second, MaxOpenFor: 10 * time.Second})
			for range 2 { // when closed, and on probe
				breaker.Do(t.Context(), b, func(context.Context) (int, error) {
					return 0, fmt.Errorf("busy: %w", resilience.WithRetryAfter(errBoom, test.after))
				})
				s := b.Snapshot()
				if got := s.Until.Sub(s.Since); got != test.want && s.Openings == 1 {
					t.Errorf("after %v: open for %v, want %v", test.after, got, test.want)
				}
				b.HalfOpen()
			}
		})
	}
}

func TestJitterLengthensByAtMostItsShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := map[time.Duration]bool{}
		for range 200 {
			b := breaker.New(breaker.Config{Consecutive: 1, OpenFor: time.Second, MaxOpenFor: time.Second, Jitter: 0.5})
			run(t, b, "f")
			s := b.Snapshot()
			d := s.Until.Sub(s.Since)
			if d < time.Second || d > 1500*time.Millisecond {
				t.Fatalf("open for %v", d)
			}
			seen[d] = true
			b.Reset()
		}
		if len(seen) < 100 {
			t.Errorf("only %d different open times of 200", len(seen))
		}
	})
}

func TestHugeTimesDoNotOverflow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{Consecutive: 1, OpenFor: math.MaxInt64, Jitter: 1})
		run(t, b, "f")
		time.Sleep(1000 * time.Hour)
		wantState(t, b, breaker.Open)
		b.HalfOpen()
		run(t, b, "f")
		wantState(t, b, breaker.Open)
	})
}

func TestCallerThatWentAwayIsNoFailure(t *testing.T) {
	ends := map[string]func(){"error": func() {}, "panic": func() { panic("x") }, "goexit": runtime.Goexit}
	for name, end := range ends {
		for _, gone := range []bool{true, false} {
			t.Run(fmt.Sprint(name, " gone ", gone), func(t *testing.T) {
				b := breaker.New(breaker.Config{Consecutive: 1})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				var g errgroup.Group
				g.Go(func() error {
					defer func() { recover() }()
					breaker.Do(ctx, b, func(context.Context) (int, error) {
						if gone {
							cancel()
						}
						end()
						return 0, errors.New("write: broken pipe")
					})
					return nil
				})
				done := make(chan struct{})
				go func() { defer close(done); g.Wait() }()
				<-done
				want := breaker.Open
				if gone {
					want = breaker.Closed
				}
				wantState(t, b, want)
			})
		}
	}
	t.Run("an expired deadline is one", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := breaker.New(breaker.Config{Consecutive: 1})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			breaker.Do(ctx, b, func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, ctx.Err() })
			wantState(t, b, breaker.Open)
		})
	})
}

func TestDeadOnArrivalCountsNowhere(t *testing.T) {
	b := breaker.New(breaker.Config{Consecutive: 1})
	b.HalfOpen()
	why := errors.New("shutting down")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	_, err := breaker.Do(ctx, b, func(context.Context) (int, error) { t.Error("called"); return 0, nil })
	p, err2 := b.Acquire(ctx)
	for _, err := range []error{err, err2} {
		if !errors.Is(err, context.Canceled) || !errors.Is(err, why) {
			t.Errorf("got %v", err)
		}
	}
	p.Done(errBoom)
	if s := b.Snapshot(); s.Running != 0 || s.State != breaker.HalfOpen {
		t.Errorf("%+v", s)
	}
}

func TestPanicPassesWithItsStackAndIsAFailure(t *testing.T) {
	b := breaker.New(breaker.Config{Consecutive: 1})
	func() {
		defer func() {
			if v := recover(); v != "x" {
				t.Errorf("recovered %v", v)
			}
			buf := make([]byte, 1<<16)
			if stack := string(buf[:runtime.Stack(buf, false)]); !strings.Contains(stack, "thatPanics") {
				t.Error("the stack of the panic is lost")
			}
		}()
		breaker.Do(t.Context(), b, thatPanics)
	}()
	wantState(t, b, breaker.Open)
}

func thatPanics(context.Context) (int, error) { panic("x") }

func TestPanicOfClassifyLeavesNothingHeld(t *testing.T) {
	for name, call := range map[string]func(*breaker.Breaker){
		"Do":  func(b *breaker.Breaker) { breaker.Do(context.Background(), b, fail) },
		"Run": func(b *breaker.Breaker) { resilience.Do(context.Background(), b, fail) },
		"Acquire": func(b *breaker.Breaker) {
			p, _ := b.Acquire(context.Background())
			p.Done(errBoom)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := breaker.New(breaker.Config{ProbeFailures: 2, Classify: func(context.Context, error) breaker.Outcome { panic("classify") }})
			b.HalfOpen()
			func() {
				defer func() {
					if v := recover(); v != "classify" {
						t.Errorf("recovered %v", v)
					}
				}()
				call(b)
			}()
			if s := b.Snapshot(); s.Running != 0 || s.Failures != 1 {
				t.Errorf("%+v, want the probe failed", s)
			}
		})
	}
}

func TestTurnedAwayFurtherInIsIgnored(t *testing.T) {
	b := breaker.New(breaker.Config{Consecutive: 1, Classify: func(_ context.Context, err error) breaker.Outcome {
		if errors.Is(err, resilience.ErrRefused) {
			t.Error("asked about a call that was not made")
		}
		return breaker.DefaultClassify(context.Background(), err)
	}})
	refuse := resilience.PolicyFunc(func(context.Context, resilience.Next) error { return resilience.ErrRefused })
	resilience.Do(t.Context(), resilience.Pipeline{b, refuse}, fail)
	wantState(t, b, breaker.Closed)
	// An effector's own error that holds another dependency's refusal is a failure.
	b = breaker.New(breaker.Config{Consecutive: 1})
	resilience.Do(t.Context(), b, func(context.Context) (int, error) { return 0, fmt.Errorf("deep: %w", resilience.ErrRefused) })
	wantState(t, b, breaker.Open)
}

func TestDryRunRefusesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []breaker.State
		b := breaker.New(breaker.Config{Consecutive: 2, DryRun: true, OnStateChange: func(tr breaker.Transition) { told = append(told, tr.To) }})
		run(t, b, "ffffff")
		wantState(t, b, breaker.Open)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		first, _ := b.Acquire(t.Context())
		run(t, b, "ffff") // beside the probe: they count nothing
		wantState(t, b, breaker.HalfOpen)
		first.Done(nil)
		wantState(t, b, breaker.Closed)
		b.ForceOpen()
		run(t, b, "s")
		if fmt.Sprint(told) != "[open half-open closed forced open]" {
			t.Errorf("told %v", told)
		}
	})
}

func TestByHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		b := breaker.New(breaker.Config{Name: "db", Consecutive: 1, OnStateChange: func(tr breaker.Transition) { told = append(told, tr.String()) }})
		b.ForceOpen()
		b.ForceOpen()
		time.Sleep(time.Hour)
		_, err := b.Acquire(t.Context())
		if err == nil || err.Error() != "breaker db: forced open" {
			t.Errorf("got %v", err)
		}
		b.Disable()
		run(t, b, "ffff")
		wantState(t, b, breaker.Disabled)
		b.Reset()
		b.Reset()
		b.HalfOpen()
		run(t, b, "f")
		time.Sleep(5 * time.Second)
		b.ForceOpen() // the end of the open time comes first, even if its timer is late
		synctest.Wait()
		want := []string{
			"closed to forced open: by hand", "forced open to disabled: by hand", "disabled to closed: by hand",
			"closed to half-open: by hand", "half-open to open: 1 probe failed", "open to half-open: open time over",
			"half-open to forced open: by hand",
		}
		for i, w := range want {
			if i >= len(told) || told[i] != "breaker db: "+w {
				t.Fatalf("told %q, want %q", told, want)
			}
		}
	})
}

// A breaker that is used in one bubble and then elsewhere has lost its timer.
func TestStateJudgesByTheClockWhereATimerIsDead(t *testing.T) {
	var b *breaker.Breaker
	synctest.Test(t, func(t *testing.T) {
		b = breaker.New(breaker.Config{Consecutive: 1, FailureRate: 0.5, MinCalls: 2})
		run(t, b, "f")
	})
	wantState(t, b, breaker.HalfOpen)
	run(t, b, "s")
	synctest.Test(t, func(t *testing.T) { // where the clock has gone back
		run(t, b, "s")
		if s := b.Snapshot(); s.Calls != 1 {
			t.Errorf("%+v, want one call", s)
		}
		run(t, b, "f")
		wantState(t, b, breaker.Open)
	})
}

func TestFirstOfDoneAndCancelCounts(t *testing.T) {
	b := breaker.New(breaker.Config{Consecutive: 2})
	p, _ := b.Acquire(t.Context())
	p.Cancel()
	p.Done(errBoom)
	p, _ = b.Acquire(t.Context())
	var g errgroup.Group
	for range 20 {
		g.Go(func() error { p.Done(errBoom); return nil })
	}
	g.Wait()
	p.Cancel()
	if s := b.Snapshot(); s.Consecutive != 1 {
		t.Errorf("%+v, want one failure", s)
	}
	var zero breaker.Permit
	zero.Done(errBoom)
	zero.Cancel()
	zero = breaker.Permit{}
	zero.Cancel()
}

func TestOnStateChangeHearsInOrderOneAtATime(t *testing.T) {
	var b *breaker.Breaker
	var inside, told atomic.Int32
	last := breaker.Closed
	b = breaker.New(breaker.Config{Consecutive: 1, OnStateChange: func(tr breaker.Transition) {
		if inside.Add(1) != 1 {
			t.Error("two at a time")
		}
		if tr.From != last {
			t.Errorf("heard %v after one to %v", tr, last)
		}
		last = tr.To
		b.Snapshot() // no lock is held
		told.Add(1)
		inside.Add(-1)
	}})
	var g errgroup.Group
	for i := range 8 {
		g.Go(func() error {
			for range 300 {
				switch i % 4 {
				case 0:
					b.Reset()
				case 1:
					b.HalfOpen()
				case 2:
					b.ForceOpen()
				default:
					breaker.Do(t.Context(), b, fail)
				}
			}
			return nil
		})
	}
	g.Wait()
	if last != b.State() || told.Load() == 0 {
		t.Errorf("last heard %v, state %v", last, b.State())
	}
}

func TestOnStateChangeMayCallTheBreaker(t *testing.T) {
	var b *breaker.Breaker
	var told []string
	b = breaker.New(breaker.Config{Consecutive: 1, OnStateChange: func(tr breaker.Transition) {
		told = append(told, "begin "+tr.To.String())
		if tr.To == breaker.Open {
			b.Reset()
		}
		told = append(told, "end "+tr.To.String())
	}})
	run(t, b, "f")
	if got := strings.Join(told, ", "); got != "begin open, end open, begin closed, end closed" {
		t.Error(got)
	}
}

func TestPanicOfOnStateChangePassesAndTheRestIsTold(t *testing.T) {
	var b *breaker.Breaker
	var told []breaker.State
	b = breaker.New(breaker.Config{Consecutive: 1, OnStateChange: func(tr breaker.Transition) {
		told = append(told, tr.To)
		if tr.To == breaker.Open {
			b.Disable()
			b.ForceOpen()
			panic("hook")
		}
	}})
	func() {
		defer func() {
			if v := recover(); v != "hook" {
				t.Errorf("recovered %v", v)
			}
		}()
		breaker.Do(t.Context(), b, fail)
	}()
	b.Reset()
	if fmt.Sprint(told) != "[open disabled forced open closed]" {
		t.Errorf("told %v", told)
	}
}

func TestNoFailureIsLostAndNoTransitionMadeTwice(t *testing.T) {
	const callers, each = 16, 200
	for name, c := range map[string]breaker.Config{
		"consecutive": {Consecutive: callers * each},
		"leaky":       {Leaky: callers * each},
		"last calls":  {Failures: callers * each, LastCalls: callers*each + 5},
		"rate":        {FailureRate: 1, MinCalls: callers * each, Window: time.Hour},
		"slow":        {FailureRate: 1, SlowRate: 1, SlowCall: time.Hour, MinCalls: callers * each, Window: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			var opened atomic.Int32
			c.OnStateChange = func(breaker.Transition) { opened.Add(1) }
			b := breaker.New(c)
			var g errgroup.Group
			for i := range callers {
				g.Go(func() error {
					for j := range each {
						if i == 0 && j == each-1 {
							break // the last one comes later
						}
						breaker.Do(t.Context(), b, fail)
					}
					return nil
				})
			}
			g.Wait()
			wantState(t, b, breaker.Closed)
			breaker.Do(t.Context(), b, fail)
			wantState(t, b, breaker.Open)
			if opened.Load() != 1 {
				t.Errorf("%d transitions", opened.Load())
			}
		})
	}
}

func TestNoSuccessIsLost(t *testing.T) {
	const callers, each = 8, 5000
	b := breaker.New(breaker.Config{FailureRate: 1, Window: time.Hour})
	var g errgroup.Group
	for range callers {
		g.Go(func() error {
			for range each {
				p, err := b.Acquire(t.Context())
				if err != nil {
					return err
				}
				p.Done(nil)
				if _, err := breaker.Do(t.Context(), b, func(context.Context) (int, error) { return 0, nil }); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if s := b.Snapshot(); s.Calls != 2*callers*each {
		t.Errorf("%d calls, want %d", s.Calls, 2*callers*each)
	}
}

func TestRacingCallersOpenOnce(t *testing.T) {
	for range 50 {
		var opened atomic.Int32
		b := breaker.New(breaker.Config{Consecutive: 3, FailureRate: 0.5, MinCalls: 3, Leaky: 3, Failures: 3, LastCalls: 3,
			OnStateChange: func(breaker.Transition) { opened.Add(1) }})
		var g errgroup.Group
		var gate sync.WaitGroup
		gate.Add(1)
		for range 20 {
			g.Go(func() error { gate.Wait(); breaker.Do(t.Context(), b, fail); return nil })
		}
		gate.Done()
		g.Wait()
		if opened.Load() != 1 {
			t.Fatalf("%d transitions, want 1", opened.Load())
		}
	}
}

func TestHalfOpenNeverRunsMoreThanProbes(t *testing.T) {
	b := breaker.New(breaker.Config{Probes: 3, ProbeSuccesses: math.MaxInt, ProbeFailures: math.MaxInt})
	b.HalfOpen()
	var running, most, made atomic.Int32
	var g errgroup.Group
	for range 12 {
		g.Go(func() error {
			for range 300 {
				breaker.Do(t.Context(), b, func(context.Context) (int, error) {
					n := running.Add(1)
					for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
					}
					made.Add(1)
					runtime.Gosched()
					running.Add(-1)
					return 0, nil
				})
			}
			return nil
		})
	}
	g.Wait()
	if most.Load() > 3 || made.Load() == 0 {
		t.Errorf("%d at once, %d made", most.Load(), made.Load())
	}
	if s := b.Snapshot(); s.Running != 0 || s.Calls != int(made.Load()) {
		t.Errorf("%+v, want %d calls", s, made.Load())
	}
}

// The race test of the book: twenty callers, a threshold of one, and an effector that fails from its sixth call on.
func TestBookRaceOfTwentyCallers(t *testing.T) {
	var calls atomic.Int32
	circuit := breaker.New(breaker.Config{Leaky: 1, OpenFor: 40 * time.Millisecond})
	var g errgroup.Group
	for range 20 {
		g.Go(func() error {
			_, err := breaker.Do(t.Context(), circuit, func(context.Context) (int, error) {
				if calls.Add(1) > 5 {
					return 0, errBoom
				}
				return 0, nil
			})
			if err != nil && !errors.Is(err, errBoom) && !errors.Is(err, breaker.ErrOpen) {
				return err
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

func TestHotPathsAllocateNothing(t *testing.T) {
	ctx := context.Background()
	for _, config := range configs {
		b := breaker.New(config.c)
		if n := testing.AllocsPerRun(100, func() { breaker.Do(ctx, b, succeed) }); n != 0 {
			t.Errorf("%s: %v allocations", config.name, n)
		}
	}
	b := breaker.New(breaker.Config{})
	b.ForceOpen()
	if n := testing.AllocsPerRun(100, func() { breaker.Do(ctx, b, succeed) }); n != 0 {
		t.Errorf("open: %v allocations", n)
	}
}

func TestValidateNamesFieldValueAndRange(t *testing.T) {
	for want, c := range map[string]breaker.Config{
		"Consecutive is -1, must be at least 1":                       {Consecutive: -1},
		"Leaky is -1, must be at least 1":                             {Leaky: -1},
		"Failures is -1, must be":                                     {Failures: -1},
		"Failures is 0, must be set with LastCalls":                   {LastCalls: 3},
		"Failures is 4, must be 1 to LastCalls (3)":                   {Failures: 4, LastCalls: 3},
		"LastCalls is 0, must be set with Failures":                   {Failures: 4},
		"LastCalls is 1000001, must be 1 to 1000000":                  {Failures: 1, LastCalls: 1_000_001},
		"FailureRate is NaN, must be above 0 and at most 1":           {FailureRate: math.NaN()},
		"FailureRate is 1.5, must be":                                 {FailureRate: 1.5},
		"FailureRate is -0.1, must be":                                {FailureRate: -0.1},
		"SlowRate is +Inf, must be":                                   {SlowRate: math.Inf(1), SlowCall: 1},
		"SlowCall is 0s, must be positive with SlowRate":              {SlowRate: 0.5},
		"SlowCall is -1ns, must be positive":                          {SlowRate: 0.5, SlowCall: -1},
		"SlowRate is 0, must be set with SlowCall":                    {SlowCall: 1},
		"Window is -1s, must be at least 1µs":                         {Window: -time.Second},
		"Window is 1ns, must be at least 1µs":                         {Window: 1},
		"MinCalls is -1, must be":                                     {MinCalls: -1},
		"OpenFor is -1ns, must be positive":                           {OpenFor: -1},
		"MaxOpenFor is -1ns, must be positive":                        {MaxOpenFor: -1},
		"MaxOpenFor is 1s, must be at least OpenFor (5s)":             {MaxOpenFor: time.Second},
		"Jitter is 1.1, must be 0 to 1":                               {Jitter: 1.1},
		"Jitter is NaN, must be 0 to 1":                               {Jitter: math.NaN()},
		"Probes is -1, must be":                                       {Probes: -1},
		"ProbeSuccesses is 1, must be at least Probes (2)":            {Probes: 2, ProbeSuccesses: 1},
		"ProbeSuccesses is -1, must be":                               {ProbeSuccesses: -1},
		"ProbeFailures is -1, must be":                                {ProbeFailures: -1},
		"breaker payments: ProbeTimeout is -1ns, must be positive":    {Name: "payments", ProbeTimeout: -1},
		"Jitter is 2, must be 0 to 1\nbreaker: Probes is -1, must be": {Jitter: 2, Probes: -1},
	} {
		err := c.Validate()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
			continue
		}
		func() {
			defer func() {
				if v := recover(); fmt.Sprint(v) != err.Error() {
					t.Errorf("New panics with %v, want %v", v, err)
				}
			}()
			breaker.New(c)
		}()
	}
	if err := (breaker.Config{}).Validate(); err != nil {
		t.Error(err)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add(5, 0, 0, 0, 0.0, 0.0, int64(0), int64(0), 0, int64(0), int64(0), 0.0, 0, 0, 0, int64(0))
	f.Add(0, 1, 3, 10, 0.5, 0.5, int64(time.Second), int64(time.Second), 3, int64(1), int64(math.MaxInt64), 1.0, 2, 3, 2, int64(1))
	f.Add(1, 0, 0, 0, math.SmallestNonzeroFloat64, 1.0, int64(math.MaxInt64), int64(math.MaxInt64), 1, int64(math.MaxInt64), int64(0), 1.0, 1, 1, 1, int64(math.MaxInt64))
	f.Add(-1, -1, -1, -1, math.NaN(), math.Inf(1), int64(-1), int64(-1), -1, int64(-1), int64(-1), -1.0, -1, -1, -1, int64(-1))
	f.Fuzz(func(t *testing.T, consecutive, leaky, failures, lastCalls int, failureRate, slowRate float64, slowCall, window int64,
		minCalls int, openFor, maxOpenFor int64, jitter float64, probes, successes, probeFailures int, probeTimeout int64) {
		c := breaker.Config{
			Consecutive: consecutive, Leaky: leaky, Failures: failures, LastCalls: lastCalls, FailureRate: failureRate,
			SlowRate: slowRate, SlowCall: time.Duration(slowCall), Window: time.Duration(window), MinCalls: minCalls,
			OpenFor: time.Duration(openFor), MaxOpenFor: time.Duration(maxOpenFor), Jitter: jitter,
			Probes: probes, ProbeSuccesses: successes, ProbeFailures: probeFailures, ProbeTimeout: time.Duration(probeTimeout),
		}
		if c.Validate() != nil {
			return
		}
		synctest.Test(t, func(t *testing.T) {
			b := breaker.New(c)
			for i := range 60 {
				breaker.Do(t.Context(), b, func(context.Context) (int, error) {
					time.Sleep(time.Duration(i) * time.Millisecond)
					return 0, []error{nil, errBoom, errBoom}[i%3]
				})
				p, _ := b.Acquire(t.Context())
				time.Sleep(time.Duration(i) * 100 * time.Millisecond)
				p.Done(errBoom)
				if s := b.Snapshot(); s.Calls < 0 || s.Failures < 0 || s.Failures > s.Calls || s.Running != 0 || s.Openings < 0 {
					t.Fatalf("%+v of %+v", s, c)
				}
				if i == 40 {
					b.HalfOpen()
				}
			}
		})
	})
}

// nilAsker is an error whose nil pointer panics when it is asked for a time.
type nilAsker struct{ after time.Duration }

func (e *nilAsker) Error() string             { return "asker" }
func (e *nilAsker) RetryAfter() time.Duration { return e.after }

func TestErrorThatPanicsWhenAskedIsCountedAllTheSame(t *testing.T) {
	call := func(context.Context) (int, error) { return 0, (*nilAsker)(nil) }
	for name, do := range map[string]func(*breaker.Breaker){
		"Do":  func(b *breaker.Breaker) { breaker.Do(context.Background(), b, call) },
		"Run": func(b *breaker.Breaker) { resilience.Do(context.Background(), b, call) },
		"Acquire": func(b *breaker.Breaker) {
			p, _ := b.Acquire(context.Background())
			p.Done((*nilAsker)(nil))
		},
	} {
		for _, state := range []breaker.State{breaker.Closed, breaker.HalfOpen} {
			b := breaker.New(breaker.Config{Consecutive: 1})
			if state == breaker.HalfOpen {
				b.HalfOpen()
			}
			func() {
				defer func() {
					if recover() == nil {
						t.Error("the panic is lost")
					}
				}()
				do(b)
			}()
			if s := b.Snapshot(); s.State != breaker.Open || s.Openings != 1 {
				t.Errorf("%s, %v: %+v, want open", name, state, s)
			}
		}
	}
}

func TestOpeningsAreForgottenBeforeAByHandCallToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{Consecutive: 1})
		for range 3 {
			run(t, b, "f")
			time.Sleep(time.Until(b.Snapshot().Until))
			synctest.Wait()
		}
		run(t, b, "s")
		time.Sleep(time.Hour)
		b.HalfOpen()
		run(t, b, "f")
		if s := b.Snapshot(); s.Until.Sub(s.Since) != 5*time.Second || s.Openings != 1 {
			t.Errorf("%+v, want open for 5s", s)
		}
	})
}

func TestOnlyAFailuresRetryAfterExtendsTheOpenTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{SlowRate: 1, SlowCall: time.Second, MinCalls: 1,
			Classify: func(context.Context, error) breaker.Outcome { return breaker.Success }})
		breaker.Do(t.Context(), b, func(context.Context) (int, error) {
			time.Sleep(2 * time.Second)
			return 0, resilience.WithRetryAfter(errBoom, 50*time.Second)
		})
		if s := b.Snapshot(); s.State != breaker.Open || s.Until.Sub(s.Since) != 5*time.Second {
			t.Errorf("%+v, want open for 5s", s)
		}
	})
}

func TestHungCallsStaySlowHoweverLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{SlowRate: 0.5, SlowCall: time.Millisecond, MinCalls: 30})
		for range 20 {
			b.Acquire(t.Context())
		}
		for range 5 {
			time.Sleep(11 * time.Hour)
			if s := b.Snapshot(); s.Slow != 20 || s.Running != 20 {
				t.Errorf("%+v, want 20 slow", s)
			}
		}
	})
}

// TestFastSuccessSeesWhatHasBecomeSlowSince the window was judged: a result is a time at which hanging calls are judged, whatever it is.
func TestFastSuccessSeesWhatHasBecomeSlowSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{SlowRate: 0.5, SlowCall: 2 * time.Second, Window: 10 * time.Second, MinCalls: 2})
		acquire := func() *breaker.Permit {
			p, err := b.Acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return &p
		}
		for range 5 {
			acquire() // hang from 0 s on, not of one instant
			time.Sleep(time.Millisecond)
		}
		time.Sleep(295 * time.Millisecond)
		first, second, third := acquire(), acquire(), acquire()
		time.Sleep(1700 * time.Millisecond) // 2 s: a new tenth of Window begins
		first.Done(errors.New("fast failure"))
		second.Done(nil)
		time.Sleep(260 * time.Millisecond) // 2.26 s: the five are slow, at the latest since 2.25 s
		third.Done(nil)                    // a fast success: 5 of 8 calls are slow
		if b.State() != breaker.Open {
			t.Fatalf("%+v, want open", b.Snapshot())
		}
	})
}

func TestClassifyIsAskedAboutCallsWithoutErrorToo(t *testing.T) {
	classify := func(context.Context, error) breaker.Outcome { return breaker.Failure } // a dependency that ought to be dead
	succeed := func(context.Context) (int, error) { return 1, nil }
	for _, config := range []breaker.Config{
		{Consecutive: 1, Classify: classify},
		{FailureRate: 1, MinCalls: 1, Classify: classify},
		{FailureRate: 1, SlowRate: 1, SlowCall: time.Hour, MinCalls: 1, Classify: classify},
	} {
		for name, call := range map[string]func(*breaker.Breaker){
			"Do":  func(b *breaker.Breaker) { breaker.Do(t.Context(), b, succeed) },
			"Run": func(b *breaker.Breaker) { resilience.Do(t.Context(), b, succeed) },
			"Acquire": func(b *breaker.Breaker) {
				p, _ := b.Acquire(t.Context())
				p.Done(nil)
			},
		} {
			b := breaker.New(config)
			if call(b); b.State() != breaker.Open {
				t.Errorf("%s, %+v: %v, want open", name, config, b.State())
			}
		}
	}
}

func TestPanicBeforeTheCallWasMadeCountsNothing(t *testing.T) {
	panics := resilience.PolicyFunc(func(context.Context, resilience.Next) error { panic("further in") })
	for _, halfOpen := range []bool{false, true} {
		b := breaker.New(breaker.Config{Consecutive: 1})
		if halfOpen {
			b.HalfOpen()
		}
		want := b.State()
		func() {
			defer func() {
				if v := recover(); v != "further in" {
					t.Errorf("recovered %v", v)
				}
			}()
			resilience.Do(t.Context(), resilience.Pipeline{b, panics}, fail)
		}()
		if s := b.Snapshot(); s.State != want || s.Running+s.Failures+s.Consecutive != 0 {
			t.Errorf("%+v, want %v and nothing counted", s, want)
		}
	}
}

func TestProbeThatWasTurnedAwayFurtherInGivesItsPlaceBack(t *testing.T) {
	b := breaker.New(breaker.Config{})
	b.HalfOpen()
	refuse := resilience.PolicyFunc(func(context.Context, resilience.Next) error { return resilience.ErrRefused })
	resilience.Do(t.Context(), resilience.Pipeline{b, refuse}, fail)
	if s := b.Snapshot(); s.State != breaker.HalfOpen || s.Running+s.Calls != 0 {
		t.Errorf("%+v, want half-open, no probe", s)
	}
	run(t, b, "s")
	wantState(t, b, breaker.Closed)
}

func TestPanicAfterTheCallersDeadlineIsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, test := range []struct {
			name string
			end  func(context.Context) context.Context
			want breaker.State
		}{
			{"deadline", func(ctx context.Context) context.Context {
				ctx, cancel := context.WithTimeout(ctx, time.Second)
				context.AfterFunc(ctx, cancel)
				return ctx
			}, breaker.Open},
			{"cancellation", func(ctx context.Context) context.Context {
				ctx, cancel := context.WithCancel(ctx)
				time.AfterFunc(time.Second, cancel)
				return ctx
			}, breaker.Closed},
		} {
			b := breaker.New(breaker.Config{Consecutive: 1})
			func() {
				defer func() { recover() }()
				breaker.Do(test.end(t.Context()), b, func(ctx context.Context) (int, error) {
					<-ctx.Done()
					panic("late")
				})
			}()
			if b.State() != test.want {
				t.Errorf("%s: %v, want %v", test.name, b.State(), test.want)
			}
		}
	})
}

func TestPermitIsGivenBackOnce(t *testing.T) {
	b := breaker.New(breaker.Config{SlowRate: 1, SlowCall: time.Hour})
	p, _ := b.Acquire(t.Context())
	b.Acquire(t.Context())
	p.Done(nil)
	p.Cancel()
	p.Done(errBoom)
	if s := b.Snapshot(); s.Running != 1 || s.Calls != 1 || s.Failures != 0 {
		t.Errorf("%+v, want one running, one success", s)
	}
}

func TestOfDoneAndDoneAtTheSameTimeOneCounts(t *testing.T) {
	b := breaker.New(breaker.Config{Consecutive: math.MaxInt})
	const rounds = 20_000
	permits := make([]breaker.Permit, rounds)
	for i := range permits {
		permits[i], _ = b.Acquire(t.Context())
	}
	var g errgroup.Group
	var turn [2]atomic.Int32 // each waits for the other before every round
	for me := range turn {
		g.Go(func() error {
			for i := range permits {
				turn[me].Store(int32(i + 1))
				for spins := 0; turn[1-me].Load() < int32(i+1); spins++ {
					if spins > 1000 {
						runtime.Gosched()
					}
				}
				permits[i].Done(errBoom)
			}
			return nil
		})
	}
	g.Wait()
	if s := b.Snapshot(); s.Consecutive != rounds {
		t.Errorf("%d failures, want %d", s.Consecutive, rounds)
	}
}

func TestLeakyLosesNoFailureToASuccess(t *testing.T) {
	const callers, each, before = 8, 5000, 1000
	b := breaker.New(breaker.Config{Leaky: math.MaxInt})
	for range before {
		run(t, b, "f")
	}
	var g errgroup.Group
	for range callers {
		g.Go(func() error {
			for range each {
				fails, _ := b.Acquire(t.Context())
				succeeds, _ := b.Acquire(t.Context())
				fails.Done(errBoom)
				succeeds.Done(nil)
			}
			return nil
		})
	}
	g.Wait()
	if s := b.Snapshot(); s.Leak != before {
		t.Errorf("%d failures more than successes, want %d", s.Leak, before)
	}
}

func TestByHandTwiceChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{ProbeTimeout: 2 * time.Hour})
		for _, byHand := range []func(){b.HalfOpen, b.ForceOpen, b.Disable} {
			byHand()
			before := b.Snapshot()
			b.Acquire(t.Context()) // the probe, where there is one
			time.Sleep(time.Hour)
			byHand()
			if s := b.Snapshot(); s.State != before.State || s.Since != before.Since {
				t.Errorf("%+v, before %+v", s, before)
			}
		}
	})
}

func TestByHandKeepsTheOpenings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{Consecutive: 1})
		run(t, b, "f")
		b.HalfOpen()
		run(t, b, "f")
		if s := b.Snapshot(); s.Until.Sub(s.Since) != 10*time.Second || s.Openings != 2 {
			t.Errorf("%+v, want open for 10s", s)
		}
	})
}

// A breaker that is used in one bubble and then elsewhere has lost the timer of its probes.
func TestProbesAreJudgedByTheClockWhereATimerIsDead(t *testing.T) {
	for name, look := range map[string]func(*breaker.Breaker, *breaker.Permit){
		"State": func(*breaker.Breaker, *breaker.Permit) {},
		"Acquire": func(b *breaker.Breaker, _ *breaker.Permit) {
			if _, err := b.Acquire(context.Background()); err == nil {
				t.Error("a place beside one that is lost")
			}
		},
		"Done": func(_ *breaker.Breaker, p *breaker.Permit) { p.Done(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			var b *breaker.Breaker
			var lost breaker.Permit
			synctest.Test(t, func(t *testing.T) {
				b = breaker.New(breaker.Config{Probes: 2, ProbeSuccesses: 2})
				b.HalfOpen()
				lost, _ = b.Acquire(t.Context())
			})
			look(b, &lost)
			wantState(t, b, breaker.Open)
		})
	}
}

func TestProbesMustAllSucceedByDefault(t *testing.T) {
	b := breaker.New(breaker.Config{Probes: 2})
	b.HalfOpen()
	run(t, b, "s")
	wantState(t, b, breaker.HalfOpen)
	run(t, b, "s")
	wantState(t, b, breaker.Closed)
}

func TestOpenTimeIsDoubledToTheNanosecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{Consecutive: 1, OpenFor: time.Second, MaxOpenFor: 2*time.Second + 1})
		for _, want := range []time.Duration{time.Second, 2 * time.Second, 2*time.Second + 1} {
			run(t, b, "f")
			s := b.Snapshot()
			if got := s.Until.Sub(s.Since); got != want {
				t.Errorf("open for %v, want %v", got, want)
			}
			time.Sleep(want)
			synctest.Wait()
		}
	})
}

func TestRefusalThatIsKeptTellsNoTimeOnceItIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{Consecutive: 1})
		run(t, b, "f")
		_, err := b.Acquire(t.Context())
		time.Sleep(time.Hour)
		if refusal := err.(*breaker.OpenError); refusal.RetryAfter() != 0 || refusal.Error() != "breaker: open" {
			t.Errorf("%v, %v", refusal.RetryAfter(), refusal)
		}
	})
}

func TestSuccessIsSuccessThoughItsCallerHasGone(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := breaker.DefaultClassify(ctx, nil); got != breaker.Success {
		t.Errorf("%v, want success", got)
	}
}

func TestSuccessIsJudgedInEachTenthOfTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{FailureRate: 0.5, MinCalls: 4})
		run(t, b, "ssss")
		time.Sleep(9 * time.Second)
		run(t, b, "fff") // 3 of 7
		time.Sleep(time.Second)
		wantState(t, b, breaker.Closed)
		run(t, b, "s") // 3 of 4: the first four have been forgotten
		wantState(t, b, breaker.Open)
	})
}

func TestSlowCallsCountByTheirOutcomeToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{SlowRate: 1, SlowCall: time.Second, FailureRate: 1, MinCalls: 9})
		for _, end := range []struct {
			cancel bool
			err    error
			want   breaker.Snapshot
		}{
			{true, errBoom, breaker.Snapshot{Slow: 1}}, // ignored
			{false, errBoom, breaker.Snapshot{Slow: 2, Calls: 1, Failures: 1}},
			{false, nil, breaker.Snapshot{Slow: 3, Calls: 2, Failures: 1}},
		} {
			ctx, cancel := context.WithCancel(t.Context())
			p, _ := b.Acquire(ctx)
			time.Sleep(time.Second)
			if end.cancel {
				cancel()
			}
			p.Done(end.err)
			cancel()
			s := b.Snapshot()
			if s.Slow != end.want.Slow || s.Calls != end.want.Calls || s.Failures != end.want.Failures {
				t.Errorf("%+v, want the counts of %+v", s, end.want)
			}
		}
	})
}
