package breaker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience/breaker"
)

// set changes the Config of b.
func set(t *testing.T, b *breaker.Breaker, change func(*breaker.Config)) {
	t.Helper()
	c := b.Config()
	change(&c)
	if err := b.SetConfig(c); err != nil {
		t.Fatal(err)
	}
}

func TestBreakerConfigHasDefaults(t *testing.T) {
	got := breaker.New(breaker.Config{Name: "db", Probes: 2}).Config()
	if got.Classify != nil || got.OnStateChange != nil {
		t.Errorf("got functions in %+v, want nil", got)
	}
	want := breaker.Config{
		Name: "db", Consecutive: 5, Window: 10 * time.Second, MinCalls: 20, OpenFor: 5 * time.Second, MaxOpenFor: time.Minute,
		Probes: 2, ProbeSuccesses: 2, ProbeFailures: 1, ProbeTimeout: time.Minute,
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestBreakerSetConfigReplacesConfig(t *testing.T) {
	b := breaker.New(breaker.Config{Name: "old"})
	if err := b.SetConfig(breaker.Config{Name: "new", OpenFor: time.Minute}); err != nil {
		t.Fatal(err)
	}
	if c := b.Config(); c.Name != "new" || b.Name() != "new" || c.OpenFor != time.Minute || c.MaxOpenFor != time.Minute || c.Probes != 1 {
		t.Errorf("got %+v", c)
	}
	b.ForceOpen()
	set(t, b, func(c *breaker.Config) { c.Name = "newer" })
	if _, err := b.Acquire(t.Context()); fmt.Sprint(err) != "breaker newer: forced open" {
		t.Errorf("got %v, want the new name in the error", err)
	}
}

func TestBreakerSetConfigRejectsInvalidConfig(t *testing.T) {
	b := breaker.New(breaker.Config{Name: "db"})
	run(t, b, "ff")
	before := fmt.Sprint(b.Config())
	invalid := breaker.Config{Name: "db", Jitter: 2, Probes: -1}
	if err := b.SetConfig(invalid); err == nil || err.Error() != invalid.Validate().Error() {
		t.Errorf("got %v, want %v", err, invalid.Validate())
	}
	if got := fmt.Sprint(b.Config()); got != before || b.Snapshot().Consecutive != 2 {
		t.Errorf("got %s, %+v after an error, want %s", got, b.Snapshot(), before)
	}
}

func TestBreakerSetConfigKeepsEveryState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, set := range []func(b *breaker.Breaker){
			func(*breaker.Breaker) {},
			func(b *breaker.Breaker) { run(t, b, "fffff") },
			(*breaker.Breaker).HalfOpen, (*breaker.Breaker).ForceOpen, (*breaker.Breaker).Disable,
		} {
			changes := 0
			b := breaker.New(breaker.Config{OnStateChange: func(breaker.Transition) { changes++ }})
			set(b)
			before, changed := b.Snapshot(), changes
			time.Sleep(time.Second)
			if err := b.SetConfig(breaker.Config{Name: "new", Leaky: 2, OnStateChange: func(breaker.Transition) { changes++ }}); err != nil {
				t.Fatal(err)
			}
			got := b.Snapshot()
			got.Name = ""
			if got.Consecutive = before.Consecutive; got != before || changes != changed {
				t.Errorf("got %+v and %d transitions, want %+v and none", got, changes-changed, before)
			}
		}
	})
}

// The path of a call stays the same too: no allocation, and the same counts.
func TestBreakerSetConfigToItsConfigChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []breaker.Config{
			{}, {Leaky: 5}, {Failures: 3, LastCalls: 5}, {FailureRate: 0.9, MinCalls: 50},
			{SlowRate: 1, SlowCall: time.Second, MinCalls: 50}, {Consecutive: 4, FailureRate: 0.9, SlowRate: 1, SlowCall: time.Second, MinCalls: 50},
		} {
			b, same := breaker.New(c), breaker.New(c)
			for _, script := range []string{"sffsf", "f", "fs", "ss", "ff", "f"} {
				permit, _ := b.Acquire(t.Context())
				permitOfSame, _ := same.Acquire(t.Context())
				run(t, b, script)
				run(t, same, script)
				set(t, same, func(*breaker.Config) {})
				time.Sleep(300 * time.Millisecond)
				if got, want := same.Snapshot(), b.Snapshot(); got != want || fmt.Sprint(same.Config()) != fmt.Sprint(b.Config()) {
					t.Fatalf("%+v: got %+v, want %+v", c, got, want)
				}
				permit.Done(nil)
				permitOfSame.Done(nil)
				if b.State() == breaker.Open {
					break
				}
			}
			b.Reset()
			set(t, b, func(*breaker.Config) {})
			if n := testing.AllocsPerRun(100, func() { breaker.Do(context.Background(), b, succeed) }); n != 0 {
				t.Errorf("%+v: got %v allocations, want 0", c, n)
			}
		}
	})
}

func TestBreakerSetConfigKeepsCountsForNextResult(t *testing.T) {
	for name, test := range map[string]struct {
		before, after breaker.Config
		calls         string // that leave the breaker closed under both
		next          string // the result that opens it
	}{
		"Consecutive lowered":       {breaker.Config{Consecutive: 5}, breaker.Config{Consecutive: 2}, "ffff", "f"},
		"Consecutive raised":        {breaker.Config{Consecutive: 3}, breaker.Config{Consecutive: 4}, "ff", "ff"},
		"Leaky lowered":             {breaker.Config{Leaky: 5}, breaker.Config{Leaky: 3}, "ffff", "s"},
		"Failures lowered":          {breaker.Config{Failures: 5, LastCalls: 9}, breaker.Config{Failures: 2, LastCalls: 9}, "ffff", "s"},
		"FailureRate lowered":       {breaker.Config{FailureRate: 0.9, MinCalls: 4}, breaker.Config{FailureRate: 0.5, MinCalls: 4}, "sffff", "s"},
		"MinCalls lowered":          {breaker.Config{FailureRate: 0.5, MinCalls: 9}, breaker.Config{FailureRate: 0.5, MinCalls: 4}, "sffff", "s"},
		"SlowRate added to another": {breaker.Config{Consecutive: 3}, breaker.Config{Consecutive: 3, SlowRate: 1, SlowCall: time.Second}, "ff", "f"},
		"rate added to another":     {breaker.Config{Consecutive: 3}, breaker.Config{Consecutive: 3, FailureRate: 1}, "ff", "f"},
		"another added to a rate":   {breaker.Config{FailureRate: 0.6, MinCalls: 3}, breaker.Config{FailureRate: 0.6, MinCalls: 3, Leaky: 9}, "ss", "fff"},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := breaker.New(test.before)
			run(t, b, test.calls)
			before := b.Snapshot()
			if err := b.SetConfig(test.after); err != nil {
				t.Fatal(err)
			}
			if after := b.Snapshot(); after != before {
				t.Errorf("%s: got %+v, want %+v", name, after, before)
			}
			run(t, b, test.next[1:])
			if b.State() != breaker.Closed {
				t.Errorf("%s: got %v, want closed until the next result", name, b.State())
			}
			run(t, b, test.next[:1])
			if b.State() != breaker.Open {
				t.Errorf("%s: got %+v, want open", name, b.Snapshot())
			}
		})
	}
}

// A failure meets the rule, and a call succeeds before the breaker has opened. A Config that lowers no
// limit doesn't make the success open it.
func TestBreakerSetConfigLeavesOpeningToFailure(t *testing.T) {
	for name, c := range map[string]breaker.Config{"same": {Failures: 2, LastCalls: 9}, "others": {Failures: 1, LastCalls: 9}} {
		var got []breaker.Transition
		c.OnStateChange = func(tr breaker.Transition) { got = append(got, tr) }
		b := breaker.New(c)
		run(t, b, "s")
		set(t, b, func(c *breaker.Config) { c.Failures = 2 })
		run(t, b, "f")
		err := &asking{func() { run(t, b, "s") }}
		breaker.Do(t.Context(), b, func(context.Context) (int, error) { return 0, err })
		if len(got) != 1 || got[0].Err != err {
			t.Errorf("%s: got %+v, want one transition with the failure's error", name, got)
		}
	}
}

func TestBreakerSetConfigForgetsCountsOfOtherKind(t *testing.T) {
	for name, test := range map[string]struct{ before, after breaker.Config }{
		"LastCalls":        {breaker.Config{Failures: 5, LastCalls: 9}, breaker.Config{Failures: 5, LastCalls: 10}},
		"Window":           {breaker.Config{FailureRate: 1}, breaker.Config{FailureRate: 1, Window: time.Minute}},
		"SlowCall":         {breaker.Config{SlowRate: 1, SlowCall: time.Second}, breaker.Config{SlowRate: 1, SlowCall: time.Minute}},
		"Consecutive, off": {breaker.Config{Consecutive: 5}, breaker.Config{Leaky: 5}},
		"Leaky, off":       {breaker.Config{Leaky: 5}, breaker.Config{Consecutive: 5}},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := breaker.New(test.before)
			run(t, b, "ffff")
			if err := b.SetConfig(test.after); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if s := b.Snapshot(); s.Calls != 0 || s.Failures != 0 || s.Consecutive != 0 || s.Leak != 0 || s.State != breaker.Closed {
					t.Errorf("%s: got %+v, want no counts", name, s)
				}
				b.SetConfig(test.before)
			}
		})
	}
}

func TestBreakerSetConfigCountsRunningCallByNewConfig(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, way := range []string{"Acquire", "Do"} {
			b := breaker.New(breaker.Config{})
			end := make(chan error)
			ended := make(chan struct{})
			begin := func() {
				if way == "Do" {
					go func() {
						breaker.Do(t.Context(), b, func(context.Context) (int, error) { return 0, <-end })
						ended <- struct{}{}
					}()
				} else {
					permit, _ := b.Acquire(t.Context())
					go func() { permit.Done(<-end); ended <- struct{}{} }()
				}
				synctest.Wait()
			}
			finish := func(err error) { end <- err; <-ended }

			for range 3 {
				begin()
			}
			b.SetConfig(breaker.Config{FailureRate: 0.9, MinCalls: 3})
			finish(nil) // needs nothing but a load by the Config of its admission
			if s := b.Snapshot(); s.Calls != 1 || s.Failures != 0 {
				t.Errorf("%s: got %+v, want one success in the window", way, s)
			}
			classified := 0
			b.SetConfig(breaker.Config{Leaky: 3, Classify: func(context.Context, error) breaker.Outcome {
				classified++
				return breaker.Failure
			}})
			finish(nil)
			finish(errBoom)
			if s := b.Snapshot(); s.Leak != 2 || classified != 2 {
				t.Errorf("%s: got %+v, %d classified, want two failures by Classify", way, s, classified)
			}
			begin()
			b.SetConfig(breaker.Config{Leaky: 3})
			finish(errBoom)
			wantState(t, b, breaker.Open)
		}
	})
}

func TestBreakerSetConfigKeepsPermitsOfItsStateOnly(t *testing.T) {
	b := breaker.New(breaker.Config{Consecutive: 9})
	stale, _ := b.Acquire(t.Context())
	b.Reset()
	permit, _ := b.Acquire(t.Context())
	for range 3 {
		set(t, b, func(c *breaker.Config) { c.Consecutive-- })
	}
	stale.Done(errBoom)
	permit.Done(errBoom)
	permit.Done(errBoom)
	if s := b.Snapshot(); s.Consecutive != 1 {
		t.Errorf("got %+v, want one failure", s)
	}
}

// The effector and Classify change the Config, and the call ends by panic or return.
func TestBreakerSetConfigInsideOfCall(t *testing.T) {
	for way, end := range map[string]func() error{
		"return": func() error { return errBoom },
		"panic":  func() error { panic("x") },
	} {
		b := breaker.New(breaker.Config{})
		func() {
			defer func() { recover() }()
			breaker.Do(t.Context(), b, func(context.Context) (int, error) {
				b.SetConfig(breaker.Config{FailureRate: 1, MinCalls: 1})
				return 0, end()
			})
		}()
		if s := b.Snapshot(); s.State != breaker.Open || s.Openings != 1 {
			t.Errorf("%s: got %+v, want the new rule to open", way, s)
		}
	}
	var b *breaker.Breaker
	b = breaker.New(breaker.Config{Classify: func(context.Context, error) breaker.Outcome {
		b.SetConfig(breaker.Config{Leaky: 1})
		return breaker.Failure
	}})
	ways["Do"](t.Context(), b, nil)
	wantState(t, b, breaker.Open)
}

// A call that began without SlowRate was never noted as running.
func TestBreakerSetConfigKeepsRunningAtZero(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, end := range []func(*breaker.Permit){(*breaker.Permit).Cancel, func(p *breaker.Permit) { p.Done(nil) }} {
			b := breaker.New(breaker.Config{FailureRate: 1})
			permit, _ := b.Acquire(t.Context())
			time.Sleep(time.Hour)
			set(t, b, func(c *breaker.Config) { c.SlowRate, c.SlowCall = 1, time.Second })
			end(&permit)
			if s := b.Snapshot(); s.Running != 0 || s.Slow != 0 || s.State != breaker.Closed {
				t.Errorf("got %+v, want none running and none slow", s)
			}
		}
	})
}

// A call whose beginning is known is slow by the SlowCall of its end.
func TestBreakerSetConfigJudgesRunningCallByNewSlowCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{SlowRate: 1, SlowCall: time.Hour, MinCalls: 9})
		first, _ := b.Acquire(t.Context())
		time.Sleep(2 * time.Second)
		set(t, b, func(c *breaker.Config) { c.SlowCall = time.Second })
		second, _ := b.Acquire(t.Context())
		time.Sleep(time.Second / 2)
		first.Done(nil)
		second.Done(nil)
		if s := b.Snapshot(); s.Slow != 1 || s.Calls != 2 || s.Running != 0 {
			t.Errorf("got %+v, want 1 of 2 slow", s)
		}
		third, _ := b.Acquire(t.Context())
		set(t, b, func(c *breaker.Config) { c.SlowRate, c.SlowCall, c.FailureRate = 0, 0, 1 })
		set(t, b, func(c *breaker.Config) { c.SlowRate, c.SlowCall = 1, time.Second })
		third.Cancel()
		if s := b.Snapshot(); s.Running != 0 || s.Slow != 0 {
			t.Errorf("got %+v, want none running", s)
		}
	})
}

func TestBreakerSetConfigKeepsRunningCallsInSameWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{SlowRate: 1, SlowCall: time.Second, MinCalls: 9})
		permits := acquire(b, 3)
		set(t, b, func(c *breaker.Config) { c.MinCalls = 3 })
		if s := b.Snapshot(); s.Running != 3 {
			t.Errorf("got %+v, want 3 running", s)
		}
		permits[0].Cancel()
		acquire(b, 1)
		time.Sleep(time.Second * 9 / 8)
		if permits := acquire(b, 1); len(permits) != 0 || b.State() != breaker.Open {
			t.Errorf("got %+v, want open: three calls hang", b.Snapshot())
		}
	})
}

func TestBreakerSetConfigKeepsOpenTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{OpenFor: 10 * time.Second})
		run(t, b, "fffff")
		before := b.Snapshot()
		for _, openFor := range []time.Duration{time.Second, time.Hour} {
			time.Sleep(time.Second)
			b.SetConfig(breaker.Config{OpenFor: openFor})
			if got := b.Snapshot(); got != before {
				t.Errorf("got %+v, want %+v", got, before)
			}
		}
		time.Sleep(8*time.Second - 1)
		wantState(t, b, breaker.Open)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		wantState(t, b, breaker.HalfOpen)
		run(t, b, "f")
		if s := b.Snapshot(); s.Openings != 2 || s.Until.Sub(s.Since) != time.Hour {
			t.Errorf("got %+v, want the second opening, for the new MaxOpenFor", s)
		}
	})
}

func TestBreakerSetConfigKeepsProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{Probes: 3, ProbeSuccesses: 5, ProbeFailures: 5, ProbeTimeout: 10 * time.Second})
		b.HalfOpen()
		run(t, b, "sffs")
		acquire(b, 2) // until 10 s
		b.SetConfig(breaker.Config{Probes: 1, ProbeSuccesses: 5, ProbeFailures: 5, ProbeTimeout: time.Second})
		if s := b.Snapshot(); s.Calls != 4 || s.Failures != 2 || s.Running != 2 || len(acquire(b, 1)) != 0 {
			t.Errorf("got %+v, want 4 ended and 2 running, and no place", s)
		}
		b.SetConfig(breaker.Config{Probes: 3, ProbeSuccesses: 5, ProbeFailures: 5, ProbeTimeout: time.Second})
		if len(acquire(b, 2)) != 1 { // until 1 s
			t.Error("want one more place")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if s := b.Snapshot(); s.Failures != 3 || s.Running != 2 {
			t.Errorf("after 1 s: got %+v, want 3 failures and 2 running", s)
		}
		time.Sleep(9*time.Second - 1)
		if s := b.Snapshot(); s.Failures != 3 || s.Running != 2 {
			t.Errorf("before 10 s: got %+v, want 3 failures and 2 running", s)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		wantState(t, b, breaker.Open)
	})
}

// A probe that is admitted later may have to end earlier, without traffic.
func TestBreakerSetConfigFailsShorterProbeInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		changes := make(chan breaker.Transition, 9)
		c := breaker.Config{Probes: 2, ProbeTimeout: 10 * time.Second, OnStateChange: func(tr breaker.Transition) { changes <- tr }}
		b := breaker.New(c)
		b.HalfOpen()
		<-changes
		acquire(b, 1)
		c.ProbeTimeout = time.Second
		b.SetConfig(c)
		acquire(b, 1)
		start := time.Now()
		if tr := <-changes; tr.To != breaker.Open || time.Since(start) != time.Second {
			t.Errorf("got %v after %v, want an opening after 1s", tr, time.Since(start))
		}
	})
}

func TestBreakerSetConfigChangesNumberOfProbes(t *testing.T) {
	b := breaker.New(breaker.Config{})
	b.HalfOpen()
	for _, step := range []struct{ probes, admitted int }{{1, 1}, {3, 2}, {2, 0}, {5, 2}} {
		b.SetConfig(breaker.Config{Probes: step.probes})
		if got := len(acquire(b, 9)); got != step.admitted {
			t.Errorf("%d probes: got %d more admitted, want %d", step.probes, got, step.admitted)
		}
	}
}

func TestBreakerSetConfigJudgesProbesAtNextResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, test := range []struct {
			before, after       string
			successes, failures int
			want                breaker.State
		}{
			{"ss", "s", 2, 9, breaker.Closed},
			{"ss", "f", 2, 9, breaker.Closed},
			{"ff", "f", 9, 2, breaker.Open},
			{"ff", "s", 9, 2, breaker.Open},
			{"ffss", "s", 2, 2, breaker.Closed},
			{"ffss", "f", 2, 2, breaker.Open},
			{"ffss", "c", 2, 2, breaker.HalfOpen},
		} {
			b := breaker.New(breaker.Config{ProbeSuccesses: 9, ProbeFailures: 9})
			b.HalfOpen()
			run(t, b, test.before)
			b.SetConfig(breaker.Config{ProbeSuccesses: test.successes, ProbeFailures: test.failures})
			wantState(t, b, breaker.HalfOpen)
			run(t, b, test.after)
			if b.State() != test.want {
				t.Errorf("%+v: got %v", test, b.State())
			}
		}
	})
}

func TestBreakerSetConfigKeepsSlowStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, got := slowly(t, breaker.Config{Consecutive: 4})
		run(t, b, "ff")
		time.Sleep(5 * time.Second)
		acquire(b, 1)
		for _, slowStart := range []time.Duration{0, time.Hour} {
			set(t, b, func(c *breaker.Config) { c.SlowStart = slowStart })
			if s := b.Snapshot(); s.Share != 0.5 || s.Running != 1 || s.Consecutive != 2 || s.State != breaker.HalfOpen {
				t.Errorf("got %+v, want the slow start", s)
			}
		}
		if n := len(acquire(b, 100)); n < 49 || n > 51 {
			t.Errorf("got %d of 100 admitted, want half", n)
		}
		set(t, b, func(c *breaker.Config) { c.Probes, c.ProbeSuccesses = 1000, 1000 })
		if n := len(acquire(b, 100)); n != 100 {
			t.Errorf("got %d of 100 admitted, want all: fewer than Probes run", n)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if len(got()) != 1 || got()[0].To != breaker.Closed {
			t.Errorf("got %v, want closed", got())
		}
	})
}

func TestBreakerSetConfigReportsLaterTransitionsToNewHook(t *testing.T) {
	var old, next []string
	b := breaker.New(breaker.Config{Name: "old"})
	set(t, b, func(c *breaker.Config) {
		c.OnStateChange = func(tr breaker.Transition) {
			old = append(old, tr.String())
			set(t, b, func(c *breaker.Config) { // a hook may change the Config
				c.Name = "new"
				c.OnStateChange = func(tr breaker.Transition) { next = append(next, tr.String()) }
			})
		}
	})
	run(t, b, "fffff")
	b.Reset()
	if fmt.Sprint(old, next) != "[breaker old: closed to open: 5 failures in a row] [breaker new: open to closed: manual]" {
		t.Errorf("got %q, %q", old, next)
	}
}

func TestBreakerSetConfigSwitchesDryRun(t *testing.T) {
	b := breaker.New(breaker.Config{Consecutive: 1, OpenFor: time.Hour, MaxOpenFor: time.Hour})
	run(t, b, "f")
	for _, dryRun := range []bool{true, false, true} {
		set(t, b, func(c *breaker.Config) { c.DryRun = dryRun })
		if admitted := len(acquire(b, 3)); (admitted == 3) != dryRun || b.State() != breaker.Open {
			t.Errorf("DryRun %v: got %d of 3 admitted, %v", dryRun, admitted, b.State())
		}
	}
}

// Transitions, results, and changes of the Config race. No failure is lost, and every opening is
// reported once.
func TestBreakerSetConfigLosesNothingUnderRace(t *testing.T) {
	const each = 2000
	for _, c := range []breaker.Config{
		{Consecutive: 1 << 40}, {Leaky: 1 << 40}, {Failures: 1 << 16, LastCalls: 1 << 16},
		{FailureRate: 1, MinCalls: 1 << 40, Window: 100 * time.Hour},
		{SlowRate: 1, SlowCall: time.Hour, MinCalls: 1 << 40, Window: 100 * time.Hour},
	} {
		b := breaker.New(c)
		var g errgroup.Group
		for range 4 {
			g.Go(func() error {
				for range each {
					permit, err := b.Acquire(context.Background())
					if err != nil {
						return err
					}
					permit.Done(errBoom)
				}
				return nil
			})
		}
		g.Go(func() error {
			for i := range 500 {
				c := b.Config()
				c.OpenFor = time.Duration(i+1) * time.Millisecond
				if err := b.SetConfig(c); err != nil {
					return err
				}
			}
			return nil
		})
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		if s := b.Snapshot(); max(s.Consecutive, s.Leak, s.Failures) != 4*each || s.Running != 0 || s.State != breaker.Closed {
			t.Errorf("%+v: got %+v, want %d failures", c, s, 4*each)
		}
	}
}

func TestBreakerSetConfigRacesWithTransitions(t *testing.T) {
	opened, last := 0, breaker.Closed
	hook := func(tr breaker.Transition) {
		if tr.From != last {
			t.Errorf("got %v, want a transition from %v", tr, last)
		}
		if last = tr.To; last == breaker.Open {
			opened++
		}
	}
	b := breaker.New(breaker.Config{Consecutive: 2, SlowStart: time.Millisecond, OpenFor: time.Millisecond, OnStateChange: hook})
	var g errgroup.Group
	for i := range 4 {
		g.Go(func() error {
			for j := range 2000 {
				breaker.Do(context.Background(), b, func(context.Context) (int, error) {
					return 0, []error{nil, errBoom, errBoom}[(i+j)%3]
				})
				if j%50 == 0 {
					b.HalfOpen()
				}
			}
			return nil
		})
	}
	g.Go(func() error {
		for i := range 2000 {
			c := breaker.Config{Consecutive: 1 + i%3, OpenFor: time.Millisecond, OnStateChange: hook, Probes: 1 + i%2, SlowStart: time.Millisecond}
			if i%2 == 0 {
				c.SlowRate, c.SlowCall = 1, time.Second
			}
			if err := b.SetConfig(c); err != nil {
				return err
			}
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	b.Reset()
	if last != breaker.Closed || opened == 0 {
		t.Errorf("got %v and %d openings, want closed after some", last, opened)
	}
}

func TestEnumerationsMarshalAsTheirText(t *testing.T) {
	got, err := json.Marshal(map[string]any{
		"states":   []breaker.State{breaker.Closed, breaker.Open, breaker.HalfOpen, breaker.ForcedOpen, breaker.Disabled, 9},
		"outcomes": []breaker.Outcome{breaker.Success, breaker.Failure, breaker.Ignored, 9},
	})
	want := `{"outcomes":["success","failure","ignored","Outcome(9)"],` +
		`"states":["closed","open","half-open","forced open","disabled","State(9)"]}`
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
}
