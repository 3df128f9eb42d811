package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
)

// slowly returns a breaker whose slow start of 10 s has just begun, and the transitions after that.
func slowly(t *testing.T, c breaker.Config) (b *breaker.Breaker, got func() []breaker.Transition) {
	t.Helper()
	var mu sync.Mutex
	var all []breaker.Transition
	c.SlowStart = 10 * time.Second
	c.OnStateChange = func(tr breaker.Transition) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, tr)
	}
	b = breaker.New(c)
	b.HalfOpen()
	for range max(1, c.Probes, c.ProbeSuccesses) {
		run(t, b, "s")
	}
	if s := b.Snapshot(); s.State != breaker.HalfOpen || s.Share != 0.1 || len(all) != 1 {
		t.Fatalf("got %+v, %v, want a slow start and no transition", s, all)
	}
	return b, func() []breaker.Transition {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all[1:])
	}
}

// acquire makes n calls and returns the permits of those that were admitted.
func acquire(b *breaker.Breaker, n int) (permits []*breaker.Permit) {
	for range n {
		if permit, err := b.Acquire(context.Background()); err == nil {
			permits = append(permits, &permit)
		}
	}
	return permits
}

func TestSlowStartAdmitsGrowingShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, probes := range []int{1, 5} {
			b, _ := slowly(t, breaker.Config{Probes: probes})
			acquire(b, probes) // run until the end
			for second, want := range []float64{0.1, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9} {
				if s := b.Snapshot(); math.Abs(s.Share-want) > 1e-9 {
					t.Errorf("after %d s: got share %v, want %v", second, s.Share, want)
				}
				if got := len(acquire(b, 1000)); math.Abs(float64(got)-1000*want) > 2 {
					t.Errorf("after %d s: got %d of 1000 admitted, want %v", second, got, 1000*want)
				}
				time.Sleep(time.Second)
			}
			wantState(t, b, breaker.Closed)
			if s := b.Snapshot(); s.Share != 0 {
				t.Errorf("got share %v of a closed breaker, want 0", s.Share)
			}
		}
	})
}

// Among calls that are alternately of two kinds, both kinds are admitted equally often.
func TestSlowStartIsFairToTrafficWithRhythm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := slowly(t, breaker.Config{})
		acquire(b, 1)
		time.Sleep(5 * time.Second)
		var admitted [2]int
		for i := range 40_000 {
			admitted[i%2] += len(acquire(b, 1))
		}
		if admitted[0] < 8000 || admitted[1] < 8000 {
			t.Errorf("got %d of 20000 and %d of 20000, want about 10000 of each", admitted[0], admitted[1])
		}
	})
}

// The calls that are admitted because few run are a part of the share, not in addition to it.
func TestSlowStartCountsEveryCallInShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := slowly(t, breaker.Config{})
		admitted := 0
		for range 1000 { // each runs for as long as ten more arrive
			time.Sleep(time.Millisecond)
			if permit, err := b.Acquire(t.Context()); err == nil {
				admitted++
				time.AfterFunc(10*time.Millisecond, func() { permit.Done(nil) })
			}
		}
		if admitted < 95 || admitted > 105 {
			t.Errorf("got %d of 1000 admitted, want 100", admitted)
		}
	})
}

func TestSlowStartAdmitsAnyCallWhileFewerThanProbesRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, probes := range []int{1, 3} {
			b, _ := slowly(t, breaker.Config{Probes: probes})
			for range 100 {
				permits := acquire(b, probes)
				if len(permits) != probes {
					t.Fatalf("got %d of %d admitted, want all", len(permits), probes)
				}
				if s := b.Snapshot(); s.Running != probes {
					t.Fatalf("got %+v, want %d running", s, probes)
				}
				for i, permit := range permits {
					[]func(){func() { permit.Done(nil) }, permit.Cancel, func() { permit.Done(resilience.CallerFault(errBoom)) }}[i]()
				}
			}
		}
	})
}

func TestSlowStartRefusesWithoutRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := slowly(t, breaker.Config{Name: "db"})
		acquire(b, 1)
		var err error
		for err == nil {
			_, err = b.Acquire(t.Context())
		}
		var refusal *breaker.OpenError
		if !errors.As(err, &refusal) || refusal.State != breaker.HalfOpen || refusal.RetryAfter() != 0 ||
			err.Error() != "breaker db: half-open, slow start" {
			t.Errorf("got %v, want a refusal by the slow start", err)
		}
	})
}

func TestSlowStartClosesWithoutTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, got := slowly(t, breaker.Config{})
		since := b.Snapshot().Since
		time.Sleep(10*time.Second - 1)
		synctest.Wait()
		if s := b.Snapshot(); s.State != breaker.HalfOpen || !s.Since.Equal(since) || len(got()) != 0 {
			t.Errorf("got %+v, %v before the end, want half-open", s, got())
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if len(got()) != 1 || got()[0].To != breaker.Closed || got()[0].Cause != "slow start over" || got()[0].Err != nil {
			t.Errorf("got %+v, want one transition to closed", got())
		}
	})
}

// A call that begins or ends at the end of the slow start doesn't wait for the timer.
func TestSlowStartEndsExactlyForCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for i := range 100 {
			b, _ := slowly(t, breaker.Config{Consecutive: 1})
			old := acquire(b, 1)[0]
			time.Sleep(10 * time.Second)
			if i%2 == 0 {
				old.Done(errBoom) // belongs to the state that has ended
			}
			permits := acquire(b, 100)
			if len(permits) != 100 {
				t.Fatalf("got %d of 100 admitted, want all", len(permits))
			}
			old.Done(errBoom)
			wantState(t, b, breaker.Closed)
			permits[0].Done(errBoom) // belongs to the closed breaker
			wantState(t, b, breaker.Open)
		}
	})
}

func TestSlowStartOpensByRulesOfClosedBreaker(t *testing.T) {
	for script, c := range map[string]breaker.Config{
		"ffsff|f":     {Consecutive: 3},
		"fsffsfs|ff":  {Leaky: 3},
		"fsfs|f":      {Failures: 3, LastCalls: 5},
		"sfsfsfsfs|f": {FailureRate: 0.5, MinCalls: 10},
	} {
		synctest.Test(t, func(t *testing.T) {
			b, got := slowly(t, c)
			for _, step := range script {
				if step == '|' {
					wantState(t, b, breaker.HalfOpen)
					continue
				}
				time.Sleep(time.Millisecond)
				run(t, b, string(step))
			}
			if len(got()) != 1 || got()[0].From != breaker.HalfOpen || got()[0].To != breaker.Open || got()[0].Err != errBoom {
				t.Errorf("%q: got %+v, want one opening", script, got())
			}
		})
	}
}

func TestSlowStartOpensOnSlowCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, got := slowly(t, breaker.Config{SlowRate: 0.5, SlowCall: time.Second, MinCalls: 2, Probes: 2})
		acquire(b, 2)
		time.Sleep(time.Second * 9 / 8)
		if permits := acquire(b, 1); len(permits) != 0 { // it finds that both hang
			t.Error("got an admission by the open breaker, want a refusal")
		}
		if len(got()) != 1 || got()[0].To != breaker.Open {
			t.Errorf("got %+v, want one opening", got())
		}
	})
}

// The first call counts for all of Window, as in a closed breaker, however long the probes took.
func TestSlowStartBeginsItsWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{FailureRate: 1, MinCalls: 9, Window: time.Second, SlowStart: time.Minute})
		b.HalfOpen()
		time.Sleep(30 * time.Millisecond)
		run(t, b, "s") // the probe
		run(t, b, "f")
		time.Sleep(time.Second - 1)
		if s := b.Snapshot(); s.Share == 0 || s.Calls != 1 || s.Failures != 1 {
			t.Errorf("got %+v just before the window ends, want a slow start with one failure", s)
		}
		time.Sleep(time.Nanosecond)
		if s := b.Snapshot(); s.Calls != 0 {
			t.Errorf("got %+v after the window, want no calls", s)
		}
	})
}

// ProbeFailures is for the probes alone, and what the probes counted doesn't count.
func TestSlowStartToleratesUsualErrorRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, got := slowly(t, breaker.Config{Consecutive: 3, Probes: 2, ProbeFailures: 1})
		for range 50 {
			run(t, b, "ffs")
			time.Sleep(time.Millisecond)
		}
		if len(got()) != 0 {
			t.Errorf("got %+v, want no transition", got())
		}
	})
}

func TestSlowStartOpeningIsConsecutive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{Consecutive: 1, OpenFor: time.Second, SlowStart: time.Hour, MaxOpenFor: time.Hour})
		for opening := range 6 {
			if opening > 0 {
				run(t, b, "s") // the probe
				time.Sleep(59 * time.Minute)
			}
			run(t, b, "f")
			s := b.Snapshot()
			if open := s.Until.Sub(s.Since); s.Openings != opening+1 || open != time.Second<<opening {
				t.Errorf("got %+v, open for %v, want opening %d", s, open, opening+1)
			}
			time.Sleep(time.Second << opening)
		}
	})
}

func TestSlowStartIsNotEndedByTimerOfEarlierOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, got := slowly(t, breaker.Config{Consecutive: 1, OpenFor: time.Second})
		time.Sleep(5 * time.Second)
		run(t, b, "f")
		time.Sleep(time.Second)
		synctest.Wait()
		run(t, b, "s") // the second slow start, from 6 s to 16 s
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if s := b.Snapshot(); s.Share != 0.4 || len(got()) != 2 {
			t.Errorf("got %+v, %v, want a share of 0.4", s, got())
		}
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if len(got()) != 3 {
			t.Errorf("got %v, want three transitions", got())
		}
	})
}

// A probe that is still running when the others have succeeded is one of the calls of the slow
// start: it takes a place, and its result counts by the rules of a closed breaker.
func TestSlowStartKeepsRunningProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{Consecutive: 2, Probes: 2, SlowStart: time.Hour, ProbeTimeout: time.Second})
		b.HalfOpen()
		late := acquire(b, 1)[0]
		run(t, b, "ss")
		if s := b.Snapshot(); s.Share == 0 || s.Running != 1 || s.Calls != 0 {
			t.Errorf("got %+v, want a slow start with one running call", s)
		}
		time.Sleep(time.Minute) // far longer than ProbeTimeout
		wantState(t, b, breaker.HalfOpen)
		late.Done(errBoom)
		late.Done(errBoom)
		if s := b.Snapshot(); s.Running != 0 || s.Consecutive != 1 || s.State != breaker.HalfOpen {
			t.Errorf("got %+v, want one failure", s)
		}
		run(t, b, "f")
		wantState(t, b, breaker.Open)
	})
}

// While the breaker asks the error of a failed probe for its RetryAfter, other probes succeed.
func TestSlowStartKeepsProbeThatEndsAsItBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{Consecutive: 2, Probes: 2, SlowStart: time.Hour})
		b.HalfOpen()
		acquire(b, 1)[0].Done(&asking{func() { run(t, b, "ss") }})
		if s := b.Snapshot(); s.Share == 0 || s.Running != 0 || s.Consecutive != 1 {
			t.Errorf("got %+v, want a slow start with one failure", s)
		}
		run(t, b, "f")
		wantState(t, b, breaker.Open)
	})
}

// A breaker that is used in one bubble and then elsewhere loses the timer of its slow start.
func TestSlowStartChecksClockIfTimerIsLost(t *testing.T) {
	for name, look := range map[string]func(*breaker.Breaker, *breaker.Permit){
		"State": func(b *breaker.Breaker, _ *breaker.Permit) { b.State() },
		"Acquire": func(b *breaker.Breaker, _ *breaker.Permit) {
			if permits := acquire(b, 9); len(permits) != 9 {
				t.Errorf("got %d of 9 admitted, want all", len(permits))
			}
		},
		"Done": func(_ *breaker.Breaker, p *breaker.Permit) { p.Done(errBoom) },
	} {
		t.Run(name, func(t *testing.T) {
			var b *breaker.Breaker
			var old *breaker.Permit
			var got []breaker.State
			synctest.Test(t, func(t *testing.T) {
				b = breaker.New(breaker.Config{Consecutive: 1, SlowStart: time.Hour, OnStateChange: func(tr breaker.Transition) { got = append(got, tr.To) }})
				b.HalfOpen()
				run(t, b, "s")
				old = acquire(b, 1)[0]
			})
			look(b, old)
			if fmt.Sprint(got) != "[half-open closed]" {
				t.Errorf("got transitions to %v, want half-open, closed", got)
			}
			old.Done(errBoom) // belongs to the state that has ended
			wantState(t, b, breaker.Closed)
		})
	}
}

// A probe that has failed by its deadline is none of the slow start's calls.
func TestSlowStartIgnoresOverdueProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{Consecutive: 1, ProbeFailures: 2, SlowStart: time.Hour, ProbeTimeout: time.Second})
		b.HalfOpen()
		late := acquire(b, 1)[0]
		time.Sleep(time.Second)
		synctest.Wait()
		run(t, b, "s")
		late.Done(errBoom)
		if s := b.Snapshot(); s.Share == 0 || s.Running != 0 || s.Consecutive != 0 {
			t.Errorf("got %+v, want a slow start without calls", s)
		}
	})
}

func TestSlowStartInDryRunRefusesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, got := slowly(t, breaker.Config{DryRun: true, Consecutive: 200})
		permits := acquire(b, 1001)
		if len(permits) != 1001 {
			t.Errorf("got %d of 1001 admitted, want all", len(permits))
		}
		if s := b.Snapshot(); s.Running < 99 || s.Running > 103 {
			t.Errorf("got %d running, want a tenth: the others are not counted", s.Running)
		}
		for _, permit := range permits {
			permit.Done(errBoom)
		}
		if s := b.Snapshot(); s.State != breaker.HalfOpen || s.Consecutive > 103 {
			t.Errorf("got %+v, want a tenth counted", s)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if len(got()) != 1 {
			t.Errorf("got %v, want one transition", got())
		}
	})
}

func TestSlowStartIsKeptByHalfOpenAndEndedByOtherManualCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, force := range []func(*breaker.Breaker){(*breaker.Breaker).Reset, (*breaker.Breaker).ForceOpen, (*breaker.Breaker).Disable} {
			b, got := slowly(t, breaker.Config{})
			b.HalfOpen()
			if s := b.Snapshot(); s.Share == 0 || len(got()) != 0 {
				t.Errorf("got %+v, want the slow start", s)
			}
			force(b)
			state := b.State()
			time.Sleep(time.Minute)
			synctest.Wait()
			if s := b.Snapshot(); s.Share != 0 || s.State != state || len(got()) != 1 {
				t.Errorf("got %+v, %v, want no slow start and %v", s, got(), state)
			}
		}
	})
}

func TestSlowStartLimitHoldsForRacingCallers(t *testing.T) {
	b := breaker.New(breaker.Config{SlowStart: 100 * time.Hour, Probes: 3})
	b.HalfOpen()
	for range 3 {
		run(t, b, "s")
	}
	var admitted [8]int
	var g errgroup.Group
	for i := range admitted {
		g.Go(func() error {
			admitted[i] = len(acquire(b, 5000))
			return nil
		})
	}
	g.Wait()
	sum := 0
	for _, n := range admitted {
		sum += n
	}
	if sum < 3998 || sum > 4002 || b.Snapshot().Running != sum {
		t.Errorf("got %d of 40000 admitted, %d running, want a tenth", sum, b.Snapshot().Running)
	}
}

// warming is a server that recovers with a tenth of its capacity and warms up over 10 s. Calls queue.
// If a call would wait for longer than 500 ms, the server is overrun: it is down for 2 s, and cold
// again.
type warming struct {
	sync.Mutex
	since    time.Time // begins to warm up; before, it is down
	free     time.Time // the queue is empty
	overruns int
	served   int
}

const warmCapacity = 1000 // calls/s

func (w *warming) call() error {
	now := time.Now()
	wait, ok := w.queue(now)
	time.Sleep(wait)
	w.Lock()
	defer w.Unlock()
	if !ok || w.since.After(now) { // it went down meanwhile
		return errBoom
	}
	w.served++
	return nil
}

func (w *warming) queue(now time.Time) (wait time.Duration, ok bool) {
	w.Lock()
	defer w.Unlock()
	if w.since.After(now) {
		return 0, false
	}
	if w.free.Before(now) {
		w.free = now
	}
	if w.free.Sub(now) > 500*time.Millisecond {
		w.overruns++
		w.since, w.free = now.Add(2*time.Second), now
		return 0, false
	}
	warmth := max(0.1, min(1, now.Sub(w.since).Seconds()/10))
	w.free = w.free.Add(time.Duration(float64(time.Second) / warmCapacity / warmth))
	return w.free.Sub(now), true
}

// The calls are half of what the warm server can take, and five times what it can take when cold.
func TestSlowStartSavesServerThatWarmsUp(t *testing.T) {
	for _, slowStart := range []time.Duration{0, 10 * time.Second} {
		t.Run(fmt.Sprint(slowStart), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := breaker.New(breaker.Config{Consecutive: 5, OpenFor: time.Second, SlowStart: slowStart})
				run(t, b, "fffff") // an outage
				time.Sleep(time.Second)
				server := &warming{since: time.Now()}
				var g errgroup.Group
				for range 30 * warmCapacity / 2 {
					g.Go(func() error {
						breaker.Do(t.Context(), b, func(context.Context) (int, error) { return 0, server.call() })
						return nil
					})
					time.Sleep(time.Second / (warmCapacity / 2))
				}
				g.Wait()
				overruns, served := server.overruns, server.served
				t.Logf("%d overruns, %d of 15000 calls served", overruns, served)
				if slowStart == 0 && (overruns < 3 || served > 9000) {
					t.Errorf("got %d overruns, %d of 15000 served without a slow start, want one overrun after the other", overruns, served)
				}
				if slowStart > 0 && (overruns > 0 || served < 12_000 || b.State() != breaker.Closed) {
					t.Errorf("got %d overruns, %d of 15000 served, %v, want no overrun and closed", overruns, served, b.State())
				}
			})
		})
	}
}
