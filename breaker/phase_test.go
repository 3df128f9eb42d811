package breaker

import (
	"context"
	"math"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/clock"
)

// Several callers may have seen that a probe may start when the last one starts.
func TestAdmitProbeNeverExceedsProbes(t *testing.T) {
	b := New(Config{Probes: 2})
	b.HalfOpen()
	p := b.phase.Load()
	for i, want := range []bool{true, true, false} {
		if probe, ok := p.admitProbe(); !ok || (probe != nil) != want {
			t.Errorf("caller %d: got probe %v, ok %v, want %v, true", i+1, probe != nil, ok, want)
		}
	}
}

// The probe's call has seen that its phase is the current one, and waits for the lock.
func TestBookProbeIgnoresEndedPhase(t *testing.T) {
	for _, outcome := range []Outcome{Success, Failure} {
		b := New(Config{})
		b.HalfOpen()
		p := b.phase.Load()
		probe, _ := p.admitProbe()
		b.ForceOpen()
		p.bookProbe(probe, outcome, nil, 0, clock.Now())
		if s := b.State(); s != ForcedOpen {
			t.Errorf("%v: got %v, want forced open", outcome, s)
		}
	}
}

// A refusal looks at full alone, so it takes no lock.
func TestProbesAreFullWhileMaximumRuns(t *testing.T) {
	b := New(Config{Probes: 2})
	b.HalfOpen()
	want := func(full bool) {
		t.Helper()
		if got := b.phase.Load().probes.full.Load(); got != full {
			t.Errorf("got full %v with %d probes running, want %v", got, b.Snapshot().Running, full)
		}
	}
	want(false)
	first, _ := b.Acquire(t.Context())
	want(false)
	second, _ := b.Acquire(t.Context())
	want(true)
	first.Cancel()
	want(false)
	b.SetConfig(Config{Probes: 1})
	want(true)
	second.Cancel()
	want(false)
}

func TestProbeAllocatesNoSecondTimer(t *testing.T) {
	for _, later := range []time.Duration{0, time.Millisecond} { // than the probe before
		synctest.Test(t, func(t *testing.T) {
			b := New(Config{})
			b.HalfOpen()
			// Two allocations: the probe and its place in the list.
			if n := testing.AllocsPerRun(100, func() {
				p, _ := b.Acquire(context.Background())
				p.Cancel()
				time.Sleep(later)
			}); n > 2 {
				t.Errorf("%v later: got %v allocations, want at most 2", later, n)
			}
		})
	}
}

// Refusals read the clock in the last 50 ms of the open time, or in all of it if it is at most
// 100 ms.
func TestOpenPhaseReadsClockOnlyNearEnd(t *testing.T) {
	for openFor, early := range map[time.Duration]time.Duration{
		time.Millisecond: 0, 100 * time.Millisecond: 0, 100*time.Millisecond + 1: 50*time.Millisecond + 1,
		5 * time.Second: 4950 * time.Millisecond, math.MaxInt64: 1000 * time.Hour,
	} {
		for _, changed := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				b := New(Config{Consecutive: 1, OpenFor: openFor})
				countCalls(b, 1, errCounted)
				want := func(refusesAll bool) {
					t.Helper()
					synctest.Wait()
					if changed {
						b.SetConfig(b.Config())
					}
					if p := b.phase.Load(); p.state != Open || p.refusesAll.Load() != refusesAll {
						t.Errorf("open for %v: got %v, refusesAll %v, want open, %v", openFor, p.state, p.refusesAll.Load(), refusesAll)
					}
				}
				if early == 0 {
					want(false)
					return
				}
				want(true)
				time.Sleep(early - 1)
				want(true)
				if openFor < math.MaxInt64 {
					time.Sleep(time.Nanosecond)
					want(false)
					time.Sleep(openFor - early - 1)
					want(false)
				}
			})
		}
	}
	b := New(Config{})
	b.ForceOpen()
	b.SetConfig(b.Config())
	if !b.phase.Load().refusesAll.Load() {
		t.Error("forced open: refusals read the clock, want them not to")
	}
}

// The timer of the breaker is lost, so only the call can make the transition.
func TestFirstCallAfterOpenTimeBecomesProbe(t *testing.T) {
	for name, call := range map[string]func(b *Breaker) error{
		"Do": func(b *Breaker) error {
			_, err := Do(context.Background(), b, func(context.Context) (int, error) { return 0, nil })
			return err
		},
		"Acquire": func(b *Breaker) error {
			permit, err := b.Acquire(context.Background())
			permit.Done(nil)
			return err
		},
	} {
		var got []State
		var b *Breaker
		synctest.Test(t, func(t *testing.T) {
			b = New(Config{Consecutive: 1, OpenFor: 100 * time.Millisecond, OnStateChange: func(tr Transition) { got = append(got, tr.To) }})
			countCalls(b, 1, errCounted)
			time.Sleep(100*time.Millisecond - 1)
			if err := call(b); err == nil {
				t.Errorf("%s: got no refusal before the end", name)
			}
		})
		if err := call(b); err != nil || len(got) != 3 || got[1] != HalfOpen || got[2] != Closed {
			t.Errorf("%s: got %v, %v, want a probe that closes", name, err, got)
		}
	}
}

// The timers of an open time must not change what follows it.
func TestOpenTimeTimersIgnoreLaterStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{Consecutive: 1})
		countCalls(b, 1, errCounted)
		time.Sleep(time.Second)
		b.ForceOpen()
		time.Sleep(time.Minute)
		synctest.Wait()
		if p := b.phase.Load(); p.state != ForcedOpen || !p.refusesAll.Load() {
			t.Errorf("got %v, want forced open", p.state)
		}
		b.Reset()
		countCalls(b, 1, errCounted)
		time.Sleep(2 * time.Second)
		b.Reset()
		countCalls(b, 1, errCounted) // open for 3 s longer than the time before
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if p := b.phase.Load(); p.state != Open || !p.refusesAll.Load() {
			t.Errorf("got %v, want open, without a clock for refusals", p.state)
		}
	})
}

// SetConfig begins while refusals need no clock yet, and replaces the phase after the timer has fired.
func TestOpenTimeEndsForPhaseThatSetConfigIsMaking(t *testing.T) {
	b := New(Config{Consecutive: 1, OpenFor: time.Hour, MaxOpenFor: time.Hour})
	countCalls(b, 1, errCounted)
	p := b.phase.Load()
	ended := make(chan struct{})
	b.mu.Lock() // as SetConfig
	go func() {
		defer close(ended)
		p.openTimeEnds()
	}()
	for range 100 {
		runtime.Gosched()
	}
	next := newPhase(b, p.stay, p.cfg, p)
	p.replace(next)
	b.mu.Unlock()
	<-ended
	if next.refusesAll.Load() {
		t.Error("refusals by the new Config never read the clock, want them to near the end")
	}
}

// The phase of a breaker changes, and its lock is shared by all calls, so a success through a closed
// breaker needs neither.
func TestTicketDoneOfSuccessUsesOnlyItsPhase(t *testing.T) {
	for _, c := range []Config{{}, {Leaky: 9}, {Failures: 9, LastCalls: 9}, {FailureRate: 1}} {
		p := New(c).phase.Load()
		p.b = nil
		func() {
			defer func() {
				if v := recover(); v != nil {
					t.Errorf("%+v: got %v, want no use of the breaker", c, v)
				}
			}()
			call := ticket{phase: p}
			call.done(t.Context(), nil)
		}()
	}
}

// The path of a call depends on these.
func TestSetConfigKeepsPathOfCall(t *testing.T) {
	for want, c := range map[uint32]Config{
		streakOnly: {}, windowOnly: {FailureRate: 1}, counts: {Leaky: 1}, anything: {Classify: DefaultClassify},
	} {
		b := New(c)
		for range 3 {
			if p := b.phase.Load(); !p.admitsAll || p.success.Load() != want {
				t.Errorf("got admitsAll %v, success %d, want true, %d", p.admitsAll, p.success.Load(), want)
			}
			old := b.phase.Load()
			if err := b.SetConfig(b.Config()); err != nil {
				t.Fatal(err)
			}
			if old.success.Load() != anything {
				t.Error("a call that runs meanwhile doesn't look for the new phase")
			}
		}
	}
}

func TestNotifyForgetsStoppedListeners(t *testing.T) {
	b := New(Config{})
	stop := b.Notify(func(resilience.Change) {})
	for range 1000 {
		b.Notify(func(resilience.Change) {})()
	}
	if n := len(b.listeners); n > 2 {
		t.Errorf("got %d listeners after all but one have stopped, want no more than that and the latest", n)
	}
	b.ForceOpen()
	if n := len(b.listeners); n != 1 {
		t.Errorf("got %d listeners at a transition, want 1", n)
	}
	stop()
	b.Reset()
	if n := len(b.listeners) + len(b.deliveries); n != 0 {
		t.Errorf("got %d listeners and deliveries after all have stopped, want 0", n)
	}
}
