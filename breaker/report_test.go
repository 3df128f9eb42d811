package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
)

var (
	_ resilience.Reporter = (*breaker.Breaker)(nil)
	_ resilience.Notifier = (*breaker.Breaker)(nil)
)

// valuesOf formats a report's values, such as "calls 2 {call}".
func valuesOf(r resilience.Report) string {
	var list []string
	for _, v := range r.Values {
		list = append(list, fmt.Sprintf("%s %v %s", v.Name, v.Value, v.Unit))
	}
	return strings.Join(list, ", ")
}

func TestBreakerReportHasStateAndValues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{Name: "db", FailureRate: 0.5, SlowRate: 1, SlowCall: time.Second, MinCalls: 4, OpenFor: 10 * time.Second})
		expect := func(state, want string) {
			t.Helper()
			r := b.Report()
			if r.Kind != "breaker" || r.Name != "db" || r.State != state || valuesOf(r) != want {
				t.Errorf("got %s %q, %s, %s, want breaker \"db\", %s, %s", r.Kind, r.Name, r.State, valuesOf(r), state, want)
			}
		}
		expect("closed", "calls 0 {call}, failures 0 {call}, slow 0 {call}, running 0 {call}, retry_after 0 s")
		slow, _ := b.Acquire(t.Context())
		time.Sleep(2 * time.Second)
		slow.Done(nil)
		run(t, b, "sf")
		running, _ := b.Acquire(t.Context())
		expect("closed", "calls 3 {call}, failures 1 {call}, slow 1 {call}, running 1 {call}, retry_after 0 s")
		running.Cancel()
		run(t, b, "f")
		time.Sleep(2500 * time.Millisecond)
		expect("open", "calls 0 {call}, failures 0 {call}, slow 0 {call}, running 0 {call}, retry_after 7.5 s")
		time.Sleep(7500 * time.Millisecond)
		expect("half-open", "calls 0 {call}, failures 0 {call}, slow 0 {call}, running 0 {call}, retry_after 0 s")
		b.ForceOpen()
		expect("forced open", "calls 0 {call}, failures 0 {call}, slow 0 {call}, running 0 {call}, retry_after 0 s")
		b.Disable()
		expect("disabled", "calls 0 {call}, failures 0 {call}, slow 0 {call}, running 0 {call}, retry_after 0 s")
	})
}

func TestBreakerReportHasConfigWithDefaults(t *testing.T) {
	b := breaker.New(breaker.Config{Name: "db", Jitter: 0.2, Classify: breaker.DefaultClassify, OnStateChange: func(breaker.Transition) {}})
	want := map[string]string{
		"Consecutive": "5", "Leaky": "0", "Failures": "0", "LastCalls": "0", "FailureRate": "0", "SlowRate": "0", "SlowCall": "0s",
		"Window": "10s", "MinCalls": "20", "OpenFor": "5s", "MaxOpenFor": "1m0s", "Jitter": "0.2", "Probes": "1",
		"ProbeSuccesses": "1", "ProbeFailures": "1", "ProbeTimeout": "1m0s", "SlowStart": "0s", "DryRun": "false",
	}
	if got := b.Report().Config; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	b.SetConfig(breaker.Config{Name: "renamed", OpenFor: time.Second})
	if r := b.Report(); r.Name != "renamed" || r.Config["OpenFor"] != "1s" {
		t.Errorf("got name %q and OpenFor %s after SetConfig, want renamed and 1s", r.Name, r.Config["OpenFor"])
	}
}

func TestNotifyListensToEveryLaterChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin, boom := time.Now(), errors.New("boom")
		b := breaker.New(breaker.Config{Name: "db", Consecutive: 2, OpenFor: time.Second})
		b.ForceOpen()
		b.Reset() // earlier than Notify
		var got []resilience.Change
		b.Notify(func(c resilience.Change) { got = append(got, c) })
		b.Reset() // not a change
		for range 2 {
			breaker.Do(t.Context(), b, func(context.Context) (int, error) { return 0, boom })
		}
		time.Sleep(time.Second)
		synctest.Wait()
		run(t, b, "s")
		b.Disable()
		want := []resilience.Change{
			{Kind: "breaker", Name: "db", From: "closed", To: "open", At: begin, Cause: "2 failures in a row", Err: boom},
			{Kind: "breaker", Name: "db", From: "open", To: "half-open", At: begin.Add(time.Second), Cause: "open time over"},
			{Kind: "breaker", Name: "db", From: "half-open", To: "closed", At: begin.Add(time.Second), Cause: "1 probe succeeded"},
			{Kind: "breaker", Name: "db", From: "closed", To: "disabled", At: begin.Add(time.Second), Cause: "manual"},
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got  %v\nwant %v", got, want)
		}
	})
}

func TestNotifyComesAfterOnStateChangeInOrderOfNotify(t *testing.T) {
	var got []string
	note := func(who string) func(resilience.Change) {
		return func(c resilience.Change) { got = append(got, who+" "+c.To) }
	}
	var b *breaker.Breaker
	b = breaker.New(breaker.Config{OnStateChange: func(tr breaker.Transition) {
		got = append(got, "hook "+tr.To.String())
		if tr.To == breaker.ForcedOpen {
			b.Disable() // delivered after the first one
		}
	}})
	b.Notify(note("first"))
	b.Notify(note("second"))
	b.ForceOpen()
	want := "hook forced open, first forced open, second forced open, hook disabled, first disabled, second disabled"
	if got := strings.Join(got, ", "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestNotifyIsCalledInOrderNeverConcurrentlyUnderNoLock(t *testing.T) {
	b := breaker.New(breaker.Config{Consecutive: 1})
	var inside, calls atomic.Int32
	last := "closed"
	b.Notify(func(c resilience.Change) {
		if inside.Add(1) != 1 {
			t.Error("listeners run concurrently")
		}
		if c.From != last {
			t.Errorf("got a change from %s, want one from %s", c.From, last)
		}
		last = c.To
		b.Report() // no lock is held
		b.Notify(func(resilience.Change) {})()
		calls.Add(1)
		inside.Add(-1)
	})
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
	if last != b.State().String() || calls.Load() == 0 {
		t.Errorf("got a last change to %s, want the state %v", last, b.State())
	}
}

func TestNotifyIsCalledEvenIfAnotherPanics(t *testing.T) {
	for name, test := range map[string]struct{ hook, first bool }{"OnStateChange": {hook: true}, "another listener": {first: true}, "both": {true, true}} {
		t.Run(name, func(t *testing.T) {
			var got []string
			var b *breaker.Breaker
			b = breaker.New(breaker.Config{OnStateChange: func(tr breaker.Transition) {
				if tr.To == breaker.ForcedOpen && test.hook {
					b.Disable()
					panic("hook")
				}
			}})
			b.Notify(func(c resilience.Change) {
				if c.To == "forced open" && test.first {
					panic("listener")
				}
			})
			b.Notify(func(c resilience.Change) { got = append(got, c.To) })
			func() {
				defer func() {
					if recover() == nil {
						t.Error("got no panic, want that of the hook or the listener")
					}
				}()
				b.ForceOpen()
			}()
			b.Reset()
			want := "forced open, closed"
			if test.hook {
				want = "forced open, disabled, closed"
			}
			if got := strings.Join(got, ", "); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

func TestNotifyIsCalledEvenIfAnotherCallsGoexit(t *testing.T) {
	b := breaker.New(breaker.Config{})
	var got []string
	b.Notify(func(resilience.Change) { runtime.Goexit() })
	b.Notify(func(c resilience.Change) { got = append(got, c.To) })
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.ForceOpen()
	}()
	<-done
	if len(got) != 1 {
		t.Errorf("got changes to %v, want one to forced open", got)
	}
}

func TestNotifyStopDropsLaterChangesAndIsRepeatable(t *testing.T) {
	b := breaker.New(breaker.Config{})
	var first, second []string
	stop := b.Notify(func(c resilience.Change) { first = append(first, c.To) })
	b.Notify(func(c resilience.Change) { second = append(second, c.To) })
	b.ForceOpen()
	stop()
	stop()
	b.Reset()
	stop()
	b.Disable()
	if fmt.Sprint(first) != "[forced open]" || fmt.Sprint(second) != "[forced open closed disabled]" {
		t.Errorf("got %v and %v, want [forced open] and [forced open closed disabled]", first, second)
	}
}

func TestNotifyStopInListenerDropsQueuedChanges(t *testing.T) {
	b := breaker.New(breaker.Config{})
	var got, other []string
	var stop, stopOther func()
	stop = b.Notify(func(c resilience.Change) {
		got = append(got, c.To)
		b.Reset() // waits for delivery
		stop()
		stop()
		stopOther() // before its own delivery of this change
	})
	stopOther = b.Notify(func(c resilience.Change) { other = append(other, c.To) })
	b.ForceOpen()
	b.Disable()
	if len(got) != 1 || len(other) != 0 {
		t.Errorf("got %v and %v, want [forced open] and none", got, other)
	}
}

func TestNotifyInListenerListensToLaterChangesOnly(t *testing.T) {
	b := breaker.New(breaker.Config{})
	var got []string
	added := false
	b.Notify(func(c resilience.Change) {
		if added {
			return
		}
		added = true
		b.Reset() // made before the following Notify, delivered after it
		b.Notify(func(c resilience.Change) { got = append(got, c.To) })
		b.Disable()
	})
	b.ForceOpen()
	if fmt.Sprint(got) != "[disabled]" {
		t.Errorf("got changes to %v, want [disabled]", got)
	}
}

func TestNotifyStopReleasesListener(t *testing.T) {
	b := breaker.New(breaker.Config{})
	type big struct{ _ [1 << 16]byte }
	var stops []func()
	var listening []weak.Pointer[big]
	for range 3 {
		held := new(big)
		listening = append(listening, weak.Make(held))
		stops = append(stops, b.Notify(func(resilience.Change) { runtime.KeepAlive(held) }))
	}
	stops[1]()
	b.ForceOpen()
	for _, stop := range stops {
		stop()
	}
	runtime.GC()
	runtime.GC()
	for i, p := range listening {
		if p.Value() != nil {
			t.Errorf("listener %d is still in memory after stop", i)
		}
	}
	runtime.KeepAlive(stops)
	runtime.KeepAlive(b)
}

func TestNotifyStopKeepsNoBreakerInMemory(t *testing.T) {
	b := breaker.New(breaker.Config{})
	p := weak.Make(b)
	stop := b.Notify(func(resilience.Change) {})
	b.ForceOpen()
	b = nil
	runtime.GC()
	runtime.GC()
	if p.Value() != nil {
		t.Error("the breaker is still in memory")
	}
	stop()
}

func TestBreakerReportSurvivesLongestOpenTime(t *testing.T) {
	b := breaker.New(breaker.Config{Consecutive: 1, OpenFor: math.MaxInt64, MaxOpenFor: math.MaxInt64})
	run(t, b, "f")
	if v := b.Report().Values[4]; v.Name != "retry_after" || v.Value < 9e9 {
		t.Errorf("got %+v, want a retry_after of 292 years", v)
	}
}

func TestNotifyPanicsOnNil(t *testing.T) {
	defer func() {
		if got := recover(); got != "breaker: Notify: listen is nil, must be a function" {
			t.Errorf("got panic %v", got)
		}
	}()
	breaker.New(breaker.Config{}).Notify(nil)
}

func TestOpenErrorHasType(t *testing.T) {
	b := breaker.New(breaker.Config{})
	b.ForceOpen()
	_, err := breaker.Do(t.Context(), b, succeed)
	var typed interface{ ErrorType() string }
	if !errors.As(err, &typed) || typed.ErrorType() != "breaker_open" {
		t.Errorf("got %v, want an error of type breaker_open", err)
	}
}
