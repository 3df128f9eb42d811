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

// run makes calls through b as a script says: s succeeds, f fails, c fails after the caller has
// canceled.
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

func TestBreakerOpensExactlyAtRuleLimit(t *testing.T) {
	tests := []struct {
		name  string
		c     breaker.Config
		stays string // the breaker is still closed after these calls
		opens string // and open after these
		cause string
	}{
		{"default", breaker.Config{}, "ffffsffff", "f", "5 failures in a row"},
		{"consecutive starts again after success", breaker.Config{Consecutive: 3}, "ffsffsff", "f", "3 failures in a row"},
		{"consecutive of one", breaker.Config{Consecutive: 1}, "s", "f", "1 failure in a row"},
		{"leaky subtracts success", breaker.Config{Leaky: 3}, "fsffsf", "f", "3 failures more than successes"},
		{"leaky never below zero", breaker.Config{Leaky: 2}, "sssssf", "f", "2 failures more than successes"},
		{"leaky of one", breaker.Config{Leaky: 1}, "s", "f", "1 failure more than successes"},
		{"last calls not full", breaker.Config{Failures: 3, LastCalls: 10}, "ff", "f", "3 failures among the last 10 calls"},
		{"last calls forget", breaker.Config{Failures: 3, LastCalls: 4}, "ffssfsfs", "ff", "3 failures among the last 4 calls"},
		{"last call", breaker.Config{Failures: 1, LastCalls: 1}, "s", "f", "1 failure among the last 1 call"},
		{"rate waits for MinCalls", breaker.Config{FailureRate: 0.5, MinCalls: 4}, "fff", "f", "4 of 4 calls failed in 10s"},
		{"rate judges success that completes MinCalls", breaker.Config{FailureRate: 0.5, MinCalls: 4}, "ffs", "s", "2 of 4 calls failed in 10s"},
		{"rate is exact", breaker.Config{FailureRate: 0.1, MinCalls: 10}, "sssssssss", "f", "1 of 10 calls failed in 10s"},
		{"rate of one call", breaker.Config{FailureRate: 1, MinCalls: 1}, "", "f", "1 of 1 call failed in 10s"},
		{"rate of 1", breaker.Config{FailureRate: 1, MinCalls: 3}, "sffff", "", ""},
		{"one of several rules", breaker.Config{Consecutive: 9, Leaky: 9, Failures: 9, LastCalls: 20, FailureRate: 0.5, MinCalls: 4}, "sff", "f", "3 of 4 calls failed in 10s"},
		{"another of several rules", breaker.Config{Consecutive: 3, Leaky: 9, Failures: 9, LastCalls: 20, FailureRate: 0.9}, "fsff", "f", "3 failures in a row"},
		{"consecutive with rate", breaker.Config{Consecutive: 3, FailureRate: 0.9, MinCalls: 99}, "ffsff", "f", "3 failures in a row"},
		{"consecutive ignores canceled caller", breaker.Config{Consecutive: 2}, "fc", "f", "2 failures in a row"},
		{"leaky ignores canceled caller", breaker.Config{Leaky: 2}, "fc", "f", "2 failures more than successes"},
		{"last calls ignore canceled caller", breaker.Config{Failures: 2, LastCalls: 2}, "fc", "f", "2 failures among the last 2 calls"},
		{"all rules ignore canceled caller", breaker.Config{Consecutive: 2, Leaky: 2, Failures: 2, LastCalls: 5, FailureRate: 0.9, MinCalls: 2}, "fcccccc", "f", "2 failures in a row"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var got []breaker.Transition
				test.c.OnStateChange = func(tr breaker.Transition) { got = append(got, tr) }
				b := breaker.New(test.c)
				run(t, b, test.stays)
				wantState(t, b, breaker.Closed)
				if test.opens == "" {
					return
				}
				run(t, b, test.opens)
				wantState(t, b, breaker.Open)
				if len(got) != 1 || got[0].Cause != test.cause {
					t.Errorf("got transitions %v, want one with cause %q", got, test.cause)
				}
			})
		})
	}
}

func TestWindowForgetsOldCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{FailureRate: 0.5, MinCalls: 4, Window: time.Second})
		run(t, b, "fff")
		time.Sleep(time.Second - 1)
		if s := b.Snapshot(); s.Calls != 3 || s.Failures != 3 {
			t.Errorf("just before the window ends: got %+v, want 3 calls, 3 failures", s)
		}
		time.Sleep(time.Nanosecond)
		if s := b.Snapshot(); s.Calls != 0 {
			t.Errorf("after the window: got %+v, want no calls", s)
		}
		run(t, b, "fff")
		wantState(t, b, breaker.Closed)
		// When old successes leave the window, the failure rate rises: the next result opens the
		// breaker, even a success.
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

func TestWindowForgetsCallsAfterAnyIdleTime(t *testing.T) {
	for _, idle := range []time.Duration{time.Second, 1100 * time.Millisecond, 1200 * time.Millisecond, 1300 * time.Millisecond, 1600 * time.Millisecond, time.Minute, 30 * 24 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			b := breaker.New(breaker.Config{FailureRate: 0.5, MinCalls: 100, Window: time.Second})
			run(t, b, "ffffff")
			time.Sleep(idle)
			run(t, b, "sf")
			if s := b.Snapshot(); s.Calls != 2 || s.Failures != 1 {
				t.Errorf("after %v: got %d calls, %d failures, want 2 and 1", idle, s.Calls, s.Failures)
			}
		})
	}
}

func TestBreakerOpensOnSlowCalls(t *testing.T) {
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

		// The rule ignores failures that are fast.
		b = breaker.New(c)
		run(t, b, "ffffffff")
		wantState(t, b, breaker.Closed)
	})
	t.Run("counts ignored calls but not canceled permits", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := breaker.New(breaker.Config{SlowRate: 1, SlowCall: 100 * time.Millisecond, MinCalls: 3})
			for range 5 {
				p, _ := b.Acquire(t.Context())
				time.Sleep(200 * time.Millisecond)
				p.Cancel()
			}
			if s := b.Snapshot(); s.Slow != 0 || s.Calls != 0 || s.Running != 0 || s.State != breaker.Closed {
				t.Fatalf("after canceled permits: got %+v, want no calls", s)
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

func TestBreakerOpensWhileCallsHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []breaker.Transition
		b := breaker.New(breaker.Config{SlowRate: 0.5, SlowCall: 160 * time.Millisecond, MinCalls: 10, OpenFor: time.Minute,
			OnStateChange: func(tr breaker.Transition) { got = append(got, tr) }})
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
			t.Fatalf("got %+v, want 10 slow and running", s)
		}
		_, err := breaker.Do(t.Context(), b, func(context.Context) (int, error) { t.Error("called"); return 0, nil })
		if !errors.Is(err, breaker.ErrOpen) || len(got) != 1 {
			t.Fatalf("got %v and transitions %v, want a refusal and one transition", err, got)
		}
		close(release)
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		wantState(t, b, breaker.Open)
	})
}

func TestSlowCallNoticesRunningCallsWithinAnEighth(t *testing.T) {
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
				t.Fatalf("got %d slow of %d running, want %d to %d of %d", s.Slow, s.Running, least, most, len(starts))
			}
		}
	})
}

func TestBreakerJudgesHangingCallsAtEveryAdmission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{SlowRate: 0.3, SlowCall: 80 * time.Millisecond, MinCalls: 3})
		time.Sleep(5 * time.Millisecond)
		b.Acquire(t.Context())
		b.Acquire(t.Context())
		time.Sleep(76 * time.Millisecond)
		run(t, b, "sss") // judged in the same fine epoch; the calls aren't slow yet
		time.Sleep(4*time.Millisecond - 1)
		run(t, b, "s")
		time.Sleep(time.Nanosecond)
		if _, err := b.Acquire(t.Context()); !errors.Is(err, breaker.ErrOpen) {
			t.Errorf("got %v, want a refusal; %+v", err, b.Snapshot())
		}
	})
}

func TestSnapshotCountsRunningCallsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{SlowRate: 1, SlowCall: 160 * time.Millisecond, MinCalls: 1000})
		var permits []*breaker.Permit
		for i := range 100 {
			p, err := b.Acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			permits = append(permits, &p)
			time.Sleep(time.Duration(i) * 3 * time.Millisecond) // the ring goes around many times
		}
		time.Sleep(time.Second)
		if s := b.Snapshot(); s.Running != 100 || s.Slow != 100 {
			t.Errorf("got %+v, want 100 running and slow", s)
		}
		for _, p := range permits {
			p.Done(nil)
		}
		if s := b.Snapshot(); s.Running != 0 || s.Slow != 100 || s.Calls != 100 {
			t.Errorf("got %+v, want 100 calls, all slow, none running", s)
		}
	})
}

func TestOpenErrorReportsNameStateAndRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{Name: "payments", Consecutive: 1, OpenFor: 5 * time.Second})
		run(t, b, "f")
		time.Sleep(800 * time.Millisecond)
		_, err := breaker.Do(t.Context(), b, func(context.Context) (int, error) { t.Error("called"); return 0, nil })
		var open *breaker.OpenError
		if !errors.As(err, &open) || open.State != breaker.Open || open.Name != "payments" {
			t.Fatalf("got %#v, want an OpenError of payments", err)
		}
		if !errors.Is(err, breaker.ErrOpen) || !errors.Is(err, resilience.ErrRefused) || errors.Is(err, io.EOF) {
			t.Errorf("%v must match ErrOpen and ErrRefused only", err)
		}
		if err.Error() != "breaker payments: open, retry in 4.2s" {
			t.Errorf("got text %q", err)
		}
		if after, ok := resilience.RetryAfter(err); !ok || after != 4200*time.Millisecond {
			t.Errorf("got RetryAfter %v, %v, want 4.2s", after, ok)
		}
		if s := b.Snapshot(); s.Until.Sub(s.Since) != 5*time.Second || s.Openings != 1 {
			t.Errorf("got %+v, want open for 5s, 1 opening", s)
		}
		time.Sleep(10 * time.Second)
		if after, ok := resilience.RetryAfter(err); ok || err.Error() != "breaker payments: open" {
			t.Errorf("after the open time: got RetryAfter %v, text %q, want none", after, err)
		}
	})
}

func TestBreakerBecomesHalfOpenWithoutTraffic(t *testing.T) {
	for _, openFor := range []time.Duration{time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 5 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			var got []breaker.State
			b := breaker.New(breaker.Config{OpenFor: openFor, OnStateChange: func(tr breaker.Transition) { got = append(got, tr.To) }})
			run(t, b, "fffff")
			time.Sleep(openFor - 1)
			wantState(t, b, breaker.Open)
			time.Sleep(time.Nanosecond)
			synctest.Wait()
			if fmt.Sprint(got) != "[open half-open]" {
				t.Errorf("open for %v: got transitions to %v, want open, half-open", openFor, got)
			}
			wantState(t, b, breaker.HalfOpen)
			run(t, b, "s")
			wantState(t, b, breaker.Closed)
		})
	}
}

func TestBreakerLimitsProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{Probes: 2, ProbeSuccesses: 3, Name: "db"})
		b.HalfOpen()
		first, err1 := b.Acquire(t.Context())
		second, err2 := b.Acquire(t.Context())
		_, err3 := b.Acquire(t.Context())
		if err1 != nil || err2 != nil || err3 == nil || err3.Error() != "breaker db: half-open, probing" {
			t.Fatalf("got %v, %v, %v, want two probes and a refusal", err1, err2, err3)
		}
		if _, ok := resilience.RetryAfter(err3); ok {
			t.Error("got a RetryAfter from a half-open breaker, want none")
		}
		first.Done(nil)
		run(t, b, "c") // ignored: releases its probe and decides nothing
		run(t, b, "c")
		third, err := b.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		third.Cancel()
		if s := b.Snapshot(); s.Calls != 1 || s.Running != 1 {
			t.Errorf("got %+v, want 1 ended and 1 running probe", s)
		}
		second.Done(nil)
		wantState(t, b, breaker.HalfOpen)
		run(t, b, "s")
		wantState(t, b, breaker.Closed)
	})
}

func TestBreakerOpensAfterProbeFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{ProbeFailures: 2, ProbeSuccesses: 3})
		b.HalfOpen()
		run(t, b, "fss")
		wantState(t, b, breaker.HalfOpen)
		run(t, b, "f")
		wantState(t, b, breaker.Open)
	})
}

func TestProbeTimeoutFailsLostProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []string
		b := breaker.New(breaker.Config{Probes: 2, ProbeFailures: 2, ProbeTimeout: time.Second,
			OnStateChange: func(tr breaker.Transition) { got = append(got, tr.Cause) }})
		b.HalfOpen()
		lost, _ := b.Acquire(t.Context())
		time.Sleep(300 * time.Millisecond)
		b.Acquire(t.Context())
		time.Sleep(700 * time.Millisecond)
		synctest.Wait()
		lost.Done(nil) // too late
		if s := b.Snapshot(); s.Failures != 1 || s.Calls != 1 || s.Running != 1 || s.State != breaker.HalfOpen {
			t.Errorf("got %+v, want one failed, one running", s)
		}
		time.Sleep(300 * time.Millisecond)
		synctest.Wait()
		if fmt.Sprint(got) != "[manual 2 probes without a result in time]" {
			t.Errorf("got causes %q", got)
		}
		wantState(t, b, breaker.Open)
	})
}

func TestProbeTimeoutSharesOneTimer(t *testing.T) {
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

func TestBreakerFailsSlowProbe(t *testing.T) {
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

func TestBreakerIgnoresStaleResult(t *testing.T) {
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
		stale[0].Done(nil) // not the success of a probe
		wantState(t, b, breaker.HalfOpen)
		acquire() // a probe
		b.Reset()
		for _, p := range stale {
			p.Done(errBoom)
		}
		s := b.Snapshot()
		if s.State != breaker.Closed || s.Consecutive+s.Leak+s.Calls+s.Failures != 0 {
			t.Errorf("got %+v, want closed with nothing counted", s)
		}
	})
}

func TestOpenTimeDoublesUntilStable(t *testing.T) {
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
				t.Fatalf("got open time %v, want %v", got, d)
			}
		}
		run(t, b, "f")
		want(time.Second)
		run(t, b, "f") // a failed probe
		want(2 * time.Second)
		run(t, b, "s")
		time.Sleep(2*time.Second - 1) // closed for less than the previous open time
		run(t, b, "f")
		want(4 * time.Second)
		run(t, b, "f")
		want(5 * time.Second)
		run(t, b, "s")
		if s := b.Snapshot(); s.Openings != 4 {
			t.Errorf("got %d consecutive openings, want 4", s.Openings)
		}
		time.Sleep(5 * time.Second)
		if s := b.Snapshot(); s.Openings != 0 {
			t.Errorf("after a long closed phase: got %d consecutive openings, want 0", s.Openings)
		}
		run(t, b, "f")
		want(time.Second)
		b.Reset()
		run(t, b, "f")
		want(time.Second)
	})
}

func TestRetryAfterExtendsOpenTime(t *testing.T) {
	for _, test := range []struct{ after, want time.Duration }{
		{500 * time.Millisecond, time.Second}, {3 * time.Second, 3 * time.Second}, {time.Hour, 10 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := breaker.New(breaker.Config{Consecutive: 1, OpenFor: time.Second, MaxOpenFor: 10 * time.Second})
			for range 2 { // the first failure is counted closed, the second is a probe
				breaker.Do(t.Context(), b, func(context.Context) (int, error) {
					return 0, fmt.Errorf("busy: %w", resilience.WithRetryAfter(errBoom, test.after))
				})
				s := b.Snapshot()
				if got := s.Until.Sub(s.Since); got != test.want && s.Openings == 1 {
					t.Errorf("RetryAfter %v: got open time %v, want %v", test.after, got, test.want)
				}
				b.HalfOpen()
			}
		})
	}
}

func TestJitterLengthensOpenTimeWithinShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := map[time.Duration]bool{}
		for range 200 {
			b := breaker.New(breaker.Config{Consecutive: 1, OpenFor: time.Second, MaxOpenFor: time.Second, Jitter: 0.5})
			run(t, b, "f")
			s := b.Snapshot()
			d := s.Until.Sub(s.Since)
			if d < time.Second || d > 1500*time.Millisecond {
				t.Fatalf("got open time %v, want 1s to 1.5s", d)
			}
			seen[d] = true
			b.Reset()
		}
		if len(seen) < 100 {
			t.Errorf("got only %d different open times of 200", len(seen))
		}
	})
}

func TestOpenTimeDoesNotOverflow(t *testing.T) {
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

func TestBreakerIgnoresCanceledCaller(t *testing.T) {
	ends := map[string]func(){"error": func() {}, "panic": func() { panic("x") }, "goexit": runtime.Goexit}
	for name, end := range ends {
		for _, gone := range []bool{true, false} {
			t.Run(fmt.Sprint(name, " canceled ", gone), func(t *testing.T) {
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
	t.Run("expired deadline is a failure", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := breaker.New(breaker.Config{Consecutive: 1})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			breaker.Do(ctx, b, func(ctx context.Context) (int, error) { <-ctx.Done(); return 0, ctx.Err() })
			wantState(t, b, breaker.Open)
		})
	})
}

func TestBreakerIgnoresCallWithDoneContext(t *testing.T) {
	b := breaker.New(breaker.Config{Consecutive: 1})
	b.HalfOpen()
	why := errors.New("shutting down")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	_, err := breaker.Do(ctx, b, func(context.Context) (int, error) { t.Error("called"); return 0, nil })
	p, err2 := b.Acquire(ctx)
	for _, err := range []error{err, err2} {
		if !errors.Is(err, context.Canceled) || !errors.Is(err, why) {
			t.Errorf("got %v, want Canceled and the cause", err)
		}
	}
	p.Done(errBoom)
	if s := b.Snapshot(); s.Running != 0 || s.State != breaker.HalfOpen {
		t.Errorf("got %+v, want half-open with no probe", s)
	}
}

func TestDoCountsPanicAsFailureAndKeepsStack(t *testing.T) {
	b := breaker.New(breaker.Config{Consecutive: 1})
	func() {
		defer func() {
			if v := recover(); v != "x" {
				t.Errorf("recovered %v, want x", v)
			}
			buf := make([]byte, 1<<16)
			if stack := string(buf[:runtime.Stack(buf, false)]); !strings.Contains(stack, "thatPanics") {
				t.Error("the panic's stack is lost")
			}
		}()
		breaker.Do(t.Context(), b, thatPanics)
	}()
	wantState(t, b, breaker.Open)
}

func thatPanics(context.Context) (int, error) { panic("x") }

func TestRunCountsPanicAndGoexitAsFailure(t *testing.T) {
	for name, end := range map[string]func(){"panic": func() { panic("x") }, "Goexit": runtime.Goexit} {
		b := breaker.New(breaker.Config{Consecutive: 1})
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			defer func() { recover() }()
			resilience.Run(t.Context(), b, func(context.Context) error { end(); return nil })
		}()
		<-ended
		if s := b.State(); s != breaker.Open {
			t.Errorf("%s: got %v, want open", name, s)
		}
	}
}

func TestClassifyPanicReleasesProbe(t *testing.T) {
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
						t.Errorf("recovered %v, want classify", v)
					}
				}()
				call(b)
			}()
			if s := b.Snapshot(); s.Running != 0 || s.Failures != 1 {
				t.Errorf("got %+v, want one failed probe", s)
			}
		})
	}
}

func TestRunIgnoresInnerRefusal(t *testing.T) {
	b := breaker.New(breaker.Config{Consecutive: 1, Classify: func(_ context.Context, err error) breaker.Outcome {
		if errors.Is(err, resilience.ErrRefused) {
			t.Error("Classify called for a call that was not made")
		}
		return breaker.DefaultClassify(context.Background(), err)
	}})
	refuse := resilience.PolicyFunc(func(context.Context, resilience.Next) error { return resilience.ErrRefused })
	resilience.Do(t.Context(), resilience.Pipeline{b, refuse}, fail)
	wantState(t, b, breaker.Closed)
	// If the effector's own error wraps another dependency's refusal, it is a failure.
	b = breaker.New(breaker.Config{Consecutive: 1})
	resilience.Do(t.Context(), b, func(context.Context) (int, error) { return 0, fmt.Errorf("deep: %w", resilience.ErrRefused) })
	wantState(t, b, breaker.Open)
}

func TestDryRunNeverRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []breaker.State
		b := breaker.New(breaker.Config{Consecutive: 2, DryRun: true, OnStateChange: func(tr breaker.Transition) { got = append(got, tr.To) }})
		run(t, b, "ffffff")
		wantState(t, b, breaker.Open)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		first, _ := b.Acquire(t.Context())
		run(t, b, "ffff") // not counted while the probe runs
		wantState(t, b, breaker.HalfOpen)
		first.Done(nil)
		wantState(t, b, breaker.Closed)
		b.ForceOpen()
		run(t, b, "s")
		if fmt.Sprint(got) != "[open half-open closed forced open]" {
			t.Errorf("got transitions to %v", got)
		}
	})
}

func TestBreakerReportsManualTransitions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []string
		b := breaker.New(breaker.Config{Name: "db", Consecutive: 1, OnStateChange: func(tr breaker.Transition) { got = append(got, tr.String()) }})
		b.ForceOpen()
		b.ForceOpen()
		time.Sleep(time.Hour)
		_, err := b.Acquire(t.Context())
		if err == nil || err.Error() != "breaker db: forced open" {
			t.Errorf("got %v, want forced open", err)
		}
		b.Disable()
		run(t, b, "ffff")
		wantState(t, b, breaker.Disabled)
		b.Reset()
		b.Reset()
		b.HalfOpen()
		run(t, b, "f")
		time.Sleep(5 * time.Second)
		b.ForceOpen() // the open time ends first, even if its timer is late
		synctest.Wait()
		want := []string{
			"closed to forced open: manual", "forced open to disabled: manual", "disabled to closed: manual",
			"closed to half-open: manual", "half-open to open: 1 probe failed", "open to half-open: open time over",
			"half-open to forced open: manual",
		}
		for i, w := range want {
			if i >= len(got) || got[i] != "breaker db: "+w {
				t.Fatalf("got %q, want %q", got, want)
			}
		}
	})
}

// A breaker that is used in one bubble and then elsewhere loses its timer.
func TestStateChecksClockIfTimerIsLost(t *testing.T) {
	var b *breaker.Breaker
	synctest.Test(t, func(t *testing.T) {
		b = breaker.New(breaker.Config{Consecutive: 1, FailureRate: 0.5, MinCalls: 2})
		run(t, b, "f")
	})
	wantState(t, b, breaker.HalfOpen)
	run(t, b, "s")
	synctest.Test(t, func(t *testing.T) { // here the clock has gone back
		run(t, b, "s")
		if s := b.Snapshot(); s.Calls != 1 {
			t.Errorf("got %+v, want one call", s)
		}
		run(t, b, "f")
		wantState(t, b, breaker.Open)
	})
}

func TestPermitCountsOnlyFirstDoneOrCancel(t *testing.T) {
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
		t.Errorf("got %+v, want one failure", s)
	}
	var zero breaker.Permit
	zero.Done(errBoom)
	zero.Cancel()
	zero = breaker.Permit{}
	zero.Cancel()
}

func TestOnStateChangeIsCalledInOrderNeverConcurrently(t *testing.T) {
	var b *breaker.Breaker
	var inside, got atomic.Int32
	last := breaker.Closed
	b = breaker.New(breaker.Config{Consecutive: 1, OnStateChange: func(tr breaker.Transition) {
		if inside.Add(1) != 1 {
			t.Error("OnStateChange runs concurrently")
		}
		if tr.From != last {
			t.Errorf("got %v after a transition to %v", tr, last)
		}
		last = tr.To
		b.Snapshot() // no lock is held
		got.Add(1)
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
	if last != b.State() || got.Load() == 0 {
		t.Errorf("got last transition to %v, want the state %v", last, b.State())
	}
}

func TestOnStateChangeMayCallBreaker(t *testing.T) {
	var b *breaker.Breaker
	var got []string
	b = breaker.New(breaker.Config{Consecutive: 1, OnStateChange: func(tr breaker.Transition) {
		got = append(got, "begin "+tr.To.String())
		if tr.To == breaker.Open {
			b.Reset()
		}
		got = append(got, "end "+tr.To.String())
	}})
	run(t, b, "f")
	if got := strings.Join(got, ", "); got != "begin open, end open, begin closed, end closed" {
		t.Errorf("got %s", got)
	}
}

func TestOnStateChangePanicKeepsLaterTransitions(t *testing.T) {
	var b *breaker.Breaker
	var got []breaker.State
	b = breaker.New(breaker.Config{Consecutive: 1, OnStateChange: func(tr breaker.Transition) {
		got = append(got, tr.To)
		if tr.To == breaker.Open {
			b.Disable()
			b.ForceOpen()
			panic("hook")
		}
	}})
	func() {
		defer func() {
			if v := recover(); v != "hook" {
				t.Errorf("recovered %v, want hook", v)
			}
		}()
		breaker.Do(t.Context(), b, fail)
	}()
	b.Reset()
	if fmt.Sprint(got) != "[open disabled forced open closed]" {
		t.Errorf("got transitions to %v", got)
	}
}

func TestBreakerLosesNoFailureAndOpensOnce(t *testing.T) {
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
							break // the last failure comes later
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
				t.Errorf("got %d transitions, want 1", opened.Load())
			}
		})
	}
}

func TestWindowLosesNoSuccess(t *testing.T) {
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
		t.Errorf("got %d calls, want %d", s.Calls, 2*callers*each)
	}
}

func TestBreakerOpensOnceForRacingCallers(t *testing.T) {
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
			t.Fatalf("got %d transitions, want 1", opened.Load())
		}
	}
}

func TestBreakerNeverExceedsProbes(t *testing.T) {
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
		t.Errorf("got %d concurrent probes of %d, want at most 3", most.Load(), made.Load())
	}
	if s := b.Snapshot(); s.Running != 0 || s.Calls != int(made.Load()) {
		t.Errorf("got %+v, want %d calls", s, made.Load())
	}
}

// This is the race test of the book: twenty callers, a threshold of one, and an effector that fails
// from its sixth call on.
func TestLeakyPassesBookRaceOfTwentyCallers(t *testing.T) {
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

func TestDoAllocatesNothing(t *testing.T) {
	ctx := context.Background()
	for _, config := range configs {
		b := breaker.New(config.c)
		if n := testing.AllocsPerRun(100, func() { breaker.Do(ctx, b, succeed) }); n != 0 {
			t.Errorf("%s: got %v allocations, want 0", config.name, n)
		}
	}
	b := breaker.New(breaker.Config{})
	b.ForceOpen()
	if n := testing.AllocsPerRun(100, func() { breaker.Do(ctx, b, succeed) }); n != 0 {
		t.Errorf("open: got %v allocations, want 0", n)
	}
}

func TestConfigValidateNamesFieldValueAndRange(t *testing.T) {
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
		"SlowStart is -1ns, must be positive, or 0 for none":          {SlowStart: -1},
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
		t.Errorf("zero Config: got %v, want nil", err)
	}
}

func TestConfigValidateAcceptsLimits(t *testing.T) {
	for _, c := range []breaker.Config{
		{Consecutive: 1}, {Leaky: 1}, {Failures: 1, LastCalls: 1}, {Failures: 1_000_000, LastCalls: 1_000_000},
		{FailureRate: math.SmallestNonzeroFloat64}, {FailureRate: 1}, {SlowRate: 1, SlowCall: 1}, {Window: time.Microsecond},
		{MinCalls: 1}, {OpenFor: 1, MaxOpenFor: 1}, {Jitter: 1}, {Probes: 2, ProbeSuccesses: 2}, {ProbeFailures: 1, ProbeTimeout: 1}, {SlowStart: 1},
	} {
		if err := c.Validate(); err != nil {
			t.Errorf("got %v, want nil", err)
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Add(5, 0, 0, 0, 0.0, 0.0, int64(0), int64(0), 0, int64(0), int64(0), 0.0, 0, 0, 0, int64(0), int64(0))
	f.Add(0, 1, 3, 10, 0.5, 0.5, int64(time.Second), int64(time.Second), 3, int64(1), int64(math.MaxInt64), 1.0, 2, 3, 2, int64(1), int64(time.Second))
	f.Add(1, 0, 0, 0, math.SmallestNonzeroFloat64, 1.0, int64(math.MaxInt64), int64(math.MaxInt64), 1, int64(math.MaxInt64), int64(0), 1.0, 1, 1, 1, int64(math.MaxInt64), int64(math.MaxInt64))
	f.Add(-1, -1, -1, -1, math.NaN(), math.Inf(1), int64(-1), int64(-1), -1, int64(-1), int64(-1), -1.0, -1, -1, -1, int64(-1), int64(-1))
	f.Fuzz(func(t *testing.T, consecutive, leaky, failures, lastCalls int, failureRate, slowRate float64, slowCall, window int64,
		minCalls int, openFor, maxOpenFor int64, jitter float64, probes, successes, probeFailures int, probeTimeout, slowStart int64) {
		c := breaker.Config{
			Consecutive: consecutive, Leaky: leaky, Failures: failures, LastCalls: lastCalls, FailureRate: failureRate,
			SlowRate: slowRate, SlowCall: time.Duration(slowCall), Window: time.Duration(window), MinCalls: minCalls,
			OpenFor: time.Duration(openFor), MaxOpenFor: time.Duration(maxOpenFor), Jitter: jitter,
			Probes: probes, ProbeSuccesses: successes, ProbeFailures: probeFailures, ProbeTimeout: time.Duration(probeTimeout),
			SlowStart: time.Duration(slowStart),
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
					t.Fatalf("got %+v with %+v", s, c)
				}
				if i == 40 {
					b.HalfOpen()
				}
				if i%20 == 7 {
					if err := b.SetConfig(b.Config()); err != nil {
						t.Fatalf("got %v for the Config in use", err)
					}
				}
			}
		})
	})
}

// nilAsker is an error type whose RetryAfter panics on a nil pointer.
type nilAsker struct{ after time.Duration }

func (e *nilAsker) Error() string             { return "asker" }
func (e *nilAsker) RetryAfter() time.Duration { return e.after }

func TestBreakerCountsErrorWhoseRetryAfterPanics(t *testing.T) {
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
				t.Errorf("%s, %v: got %+v, want open", name, state, s)
			}
		}
	}
}

// asking is an error that calls ask when a breaker asks for its RetryAfter. At that time, the failure
// has been counted and meets a rule, but the breaker hasn't opened yet.
type asking struct{ ask func() }

func (*asking) Error() string { return "asking" }
func (e *asking) RetryAfter() time.Duration {
	e.ask()
	return 7 * time.Second
}

// A failure meets the rule, and a call succeeds before the breaker has opened. The opening is the
// failure's, with its error and RetryAfter.
func TestBreakerOpensForFailureNotForLaterSuccess(t *testing.T) {
	const slowCall = 800 * time.Millisecond
	for rules, c := range map[string]breaker.Config{
		"rate":                {},
		"rate and another":    {Consecutive: 99},
		"rate and slow calls": {SlowRate: 1, SlowCall: slowCall},
	} {
		for calls, before := range map[string]func(*testing.T, *breaker.Breaker){
			"first": func(t *testing.T, b *breaker.Breaker) { run(t, b, "fff") },
			"SlowCall after another": func(t *testing.T, b *breaker.Breaker) {
				run(t, b, "s")
				time.Sleep(slowCall)
				run(t, b, "ff")
			},
			"after older ones were forgotten": func(t *testing.T, b *breaker.Breaker) {
				run(t, b, "sssss")
				time.Sleep(8 * time.Second)
				run(t, b, "fff")
				time.Sleep(2 * time.Second)
			},
		} {
			t.Run(rules+", "+calls, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var got []breaker.Transition
					c.FailureRate, c.MinCalls = 0.5, 4
					c.OnStateChange = func(tr breaker.Transition) { got = append(got, tr) }
					b := breaker.New(c)
					before(t, b)
					wantState(t, b, breaker.Closed)
					err := &asking{func() { run(t, b, "s") }}
					breaker.Do(t.Context(), b, func(context.Context) (int, error) { return 0, err })
					if len(got) != 1 || got[0].Err != err {
						t.Fatalf("got %+v, want one transition with the failure's error", got)
					}
					if s := b.Snapshot(); s.State != breaker.Open || s.Until.Sub(s.Since) != 7*time.Second {
						t.Errorf("got %+v, want open for the failure's RetryAfter", s)
					}
				})
			})
		}
	}
}

func TestHalfOpenForgetsOldOpenings(t *testing.T) {
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
			t.Errorf("got %+v, want open for 5s", s)
		}
	})
}

func TestRetryAfterOfSuccessIsIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{SlowRate: 1, SlowCall: time.Second, MinCalls: 1,
			Classify: func(context.Context, error) breaker.Outcome { return breaker.Success }})
		breaker.Do(t.Context(), b, func(context.Context) (int, error) {
			time.Sleep(2 * time.Second)
			return 0, resilience.WithRetryAfter(errBoom, 50*time.Second)
		})
		if s := b.Snapshot(); s.State != breaker.Open || s.Until.Sub(s.Since) != 5*time.Second {
			t.Errorf("got %+v, want open for 5s", s)
		}
	})
}

// A hanging call is slow exactly SlowCall after it began, even if another call began and ended
// shortly before.
func TestSnapshotCountsLoneHangingCallAsSlowOnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{SlowRate: 1, SlowCall: 800 * time.Millisecond, MinCalls: 99})
		run(t, b, "s")
		time.Sleep(50 * time.Millisecond)
		acquire(b, 1)
		time.Sleep(800*time.Millisecond - 1)
		if s := b.Snapshot(); s.Running != 1 || s.Slow != 0 {
			t.Errorf("got %+v before SlowCall, want one running and none slow", s)
		}
		time.Sleep(time.Nanosecond)
		if s := b.Snapshot(); s.Running != 1 || s.Slow != 1 {
			t.Errorf("got %+v after SlowCall, want one running and slow", s)
		}
	})
}

func TestSnapshotKeepsHangingCallsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{SlowRate: 0.5, SlowCall: time.Millisecond, MinCalls: 30})
		for range 20 {
			b.Acquire(t.Context())
		}
		for range 5 {
			time.Sleep(11 * time.Hour)
			if s := b.Snapshot(); s.Slow != 20 || s.Running != 20 {
				t.Errorf("got %+v, want 20 slow and running", s)
			}
		}
	})
}

// Hanging calls are judged at every result, including a fast success.
func TestBreakerJudgesHangingCallsAtFastSuccess(t *testing.T) {
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
			acquire() // hangs from 0 s on; the five differ in their instant
			time.Sleep(time.Millisecond)
		}
		time.Sleep(295 * time.Millisecond)
		first, second, third := acquire(), acquire(), acquire()
		time.Sleep(1700 * time.Millisecond) // 2 s: a new tenth of Window begins
		first.Done(errors.New("fast failure"))
		second.Done(nil)
		time.Sleep(260 * time.Millisecond) // 2.26 s: the five are slow, since 2.25 s at the latest
		third.Done(nil)                    // a fast success: 5 of 8 calls are slow
		if b.State() != breaker.Open {
			t.Fatalf("got %+v, want open", b.Snapshot())
		}
	})
}

func TestClassifyIsCalledForNilError(t *testing.T) {
	classify := func(context.Context, error) breaker.Outcome { return breaker.Failure }
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
				t.Errorf("%s, %+v: got %v, want open", name, config, b.State())
			}
		}
	}
}

func TestRunIgnoresPanicBeforeCall(t *testing.T) {
	panics := resilience.PolicyFunc(func(context.Context, resilience.Next) error { panic("inner policy") })
	for _, halfOpen := range []bool{false, true} {
		b := breaker.New(breaker.Config{Consecutive: 1})
		if halfOpen {
			b.HalfOpen()
		}
		want := b.State()
		func() {
			defer func() {
				if v := recover(); v != "inner policy" {
					t.Errorf("recovered %v, want inner policy", v)
				}
			}()
			resilience.Do(t.Context(), resilience.Pipeline{b, panics}, fail)
		}()
		if s := b.Snapshot(); s.State != want || s.Running+s.Failures+s.Consecutive != 0 {
			t.Errorf("got %+v, want %v and nothing counted", s, want)
		}
	}
}

func TestRunReleasesProbeAfterInnerRefusal(t *testing.T) {
	b := breaker.New(breaker.Config{})
	b.HalfOpen()
	refuse := resilience.PolicyFunc(func(context.Context, resilience.Next) error { return resilience.ErrRefused })
	resilience.Do(t.Context(), resilience.Pipeline{b, refuse}, fail)
	if s := b.Snapshot(); s.State != breaker.HalfOpen || s.Running+s.Calls != 0 {
		t.Errorf("got %+v, want half-open with no probe", s)
	}
	run(t, b, "s")
	wantState(t, b, breaker.Closed)
}

func TestDoCountsPanicAfterDeadlineAsFailure(t *testing.T) {
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
				t.Errorf("%s: got %v, want %v", test.name, b.State(), test.want)
			}
		}
	})
}

func TestPermitReleasesOnce(t *testing.T) {
	b := breaker.New(breaker.Config{SlowRate: 1, SlowCall: time.Hour})
	p, _ := b.Acquire(t.Context())
	b.Acquire(t.Context())
	p.Done(nil)
	p.Cancel()
	p.Done(errBoom)
	if s := b.Snapshot(); s.Running != 1 || s.Calls != 1 || s.Failures != 0 {
		t.Errorf("got %+v, want one running, one success", s)
	}
}

func TestLeakyLosesNoFailure(t *testing.T) {
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
		t.Errorf("got %d failures more than successes, want %d", s.Leak, before)
	}
}

func TestBreakerIgnoresRepeatedManualState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{ProbeTimeout: 2 * time.Hour})
		for _, force := range []func(){b.HalfOpen, b.ForceOpen, b.Disable} {
			force()
			before := b.Snapshot()
			b.Acquire(t.Context()) // a probe if half-open
			time.Sleep(time.Hour)
			force()
			if s := b.Snapshot(); s.State != before.State || s.Since != before.Since {
				t.Errorf("got %+v, want unchanged from %+v", s, before)
			}
		}
	})
}

func TestHalfOpenKeepsOpenings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{Consecutive: 1})
		run(t, b, "f")
		b.HalfOpen()
		run(t, b, "f")
		if s := b.Snapshot(); s.Until.Sub(s.Since) != 10*time.Second || s.Openings != 2 {
			t.Errorf("got %+v, want open for 10s", s)
		}
	})
}

// A breaker that is used in one bubble and then elsewhere loses the timer of its probes.
func TestProbeTimeoutChecksClockIfTimerIsLost(t *testing.T) {
	for name, look := range map[string]func(*breaker.Breaker, *breaker.Permit){
		"State": func(b *breaker.Breaker, _ *breaker.Permit) { b.State() },
		"Acquire": func(b *breaker.Breaker, _ *breaker.Permit) {
			if _, err := b.Acquire(context.Background()); err == nil {
				t.Error("got a probe, want the lost one to have failed")
			}
		},
		"Done": func(_ *breaker.Breaker, p *breaker.Permit) { p.Done(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			var b *breaker.Breaker
			var lost breaker.Permit
			var got []breaker.State
			synctest.Test(t, func(t *testing.T) {
				b = breaker.New(breaker.Config{Probes: 2, ProbeSuccesses: 2, OnStateChange: func(tr breaker.Transition) { got = append(got, tr.To) }})
				b.HalfOpen()
				lost, _ = b.Acquire(t.Context())
			})
			look(b, &lost)
			if fmt.Sprint(got) != "[half-open open]" {
				t.Errorf("got transitions to %v, want half-open, open", got)
			}
			wantState(t, b, breaker.Open)
		})
	}
}

func TestProbeSuccessesDefaultsToProbes(t *testing.T) {
	b := breaker.New(breaker.Config{Probes: 2})
	b.HalfOpen()
	run(t, b, "s")
	wantState(t, b, breaker.HalfOpen)
	run(t, b, "s")
	wantState(t, b, breaker.Closed)
}

func TestOpenTimeDoublesExactly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{Consecutive: 1, OpenFor: time.Second, MaxOpenFor: 2*time.Second + 1})
		for _, want := range []time.Duration{time.Second, 2 * time.Second, 2*time.Second + 1} {
			run(t, b, "f")
			s := b.Snapshot()
			if got := s.Until.Sub(s.Since); got != want {
				t.Errorf("got open time %v, want %v", got, want)
			}
			time.Sleep(want)
			synctest.Wait()
		}
	})
}

func TestOpenErrorHasNoRetryAfterOnceOpenTimeIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{Consecutive: 1})
		run(t, b, "f")
		_, err := b.Acquire(t.Context())
		time.Sleep(time.Hour)
		if refusal := err.(*breaker.OpenError); refusal.RetryAfter() != 0 || refusal.Error() != "breaker: open" {
			t.Errorf("got RetryAfter %v, text %q, want none", refusal.RetryAfter(), refusal)
		}
	})
}

func TestDefaultClassifyKeepsSuccessOfCanceledCaller(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := breaker.DefaultClassify(ctx, nil); got != breaker.Success {
		t.Errorf("got %v, want success", got)
	}
}

func TestWindowJudgesSuccessInEachTenth(t *testing.T) {
	for _, c := range []breaker.Config{{}, {Consecutive: 99}, {SlowRate: 1, SlowCall: time.Minute}} {
		c.FailureRate, c.MinCalls = 0.5, 4
		for _, idle := range []time.Duration{time.Second, 2 * time.Second, 3 * time.Second} {
			synctest.Test(t, func(t *testing.T) {
				b := breaker.New(c)
				run(t, b, "ssss")
				time.Sleep(10*time.Second - idle)
				run(t, b, "fff") // 3 of 7
				time.Sleep(idle)
				wantState(t, b, breaker.Closed)
				run(t, b, "s") // 3 of 4: the first four have been forgotten
				wantState(t, b, breaker.Open)
			})
		}
	}
}

func TestSnapshotCountsSlowCallsByOutcome(t *testing.T) {
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
				t.Errorf("got %+v, want the counts of %+v", s, end.want)
			}
		}
	})
}
