package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/chaos"
	"github.com/effector-go/resilience/internal/mark"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

var errDown = errors.New("down")

// always returns a Chaos, which is on, whose fault applies to every call.
func always(fault chaos.Fault) *chaos.Chaos {
	fault.Share = 1
	c := chaos.New(chaos.Config{Name: "users", Faults: []chaos.Fault{fault}})
	c.Start(time.Hour)
	return c
}

// seen is what a policy around a Chaos saw of one run.
type seen struct {
	err        error
	starts     int
	repeatable bool
	panicked   any
}

// watch returns a policy that records what the run inside it did.
func watch(s *seen) resilience.Policy {
	return resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		defer func() {
			s.starts, s.repeatable, s.panicked = next.Starts(), next.Repeatable(), recover()
		}()
		s.err = next.Run(ctx)
		return s.err
	})
}

func TestChaosIsOffUntilStarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := chaos.New(chaos.Config{Faults: []chaos.Fault{{Share: 1, Err: errDown}}})
		call := resilience.ComposeRun(func(context.Context) error { return nil }, c)
		for _, step := range []struct {
			name string
			do   func()
			want error
		}{
			{"new", func() {}, nil},
			{"stopped before it began", c.Stop, nil},
			{"started", func() { c.Start(time.Minute) }, errDown},
			{"before the end", func() { time.Sleep(time.Minute - 1) }, errDown},
			{"at the end", func() { time.Sleep(time.Nanosecond); synctest.Wait() }, nil},
			{"started again", func() { c.Start(time.Minute) }, errDown},
			{"stopped", c.Stop, nil},
			{"stopped twice", c.Stop, nil},
			{"started a third time", func() { c.Start(time.Second) }, errDown},
			{"the end moved later", func() { c.Start(time.Hour); time.Sleep(time.Minute) }, errDown},
			{"the end moved sooner", func() { c.Start(time.Second); time.Sleep(time.Second); synctest.Wait() }, nil},
		} {
			step.do()
			if err := call(t.Context()); !errors.Is(err, step.want) {
				t.Errorf("%s: got %v, want %v", step.name, err, step.want)
			}
			if on := c.Snapshot().On; on != (step.want != nil) {
				t.Errorf("%s: on is %t", step.name, on)
			}
		}
	})
}

// TestStartMovesEndAtInstantOfEnd starts a Chaos again when its time is up. The timer of the former
// end may run before or after that, and must not end what began then.
func TestStartMovesEndAtInstantOfEnd(t *testing.T) {
	for range 100 {
		for name, restart := range map[string]func(*chaos.Chaos){
			"moved":               start,
			"stopped and started": func(c *chaos.Chaos) { c.Stop(); c.Start(time.Hour) },
		} {
			synctest.Test(t, func(t *testing.T) {
				c := chaos.New(chaos.Config{})
				c.Start(time.Second)
				time.Sleep(time.Second)
				restart(c)
				synctest.Wait()
				if s := c.Snapshot(); !s.On || time.Until(s.Until) != time.Hour {
					t.Fatalf("%s: on %t until %v from now, want an hour", name, s.On, time.Until(s.Until))
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				if c.Snapshot().On {
					t.Errorf("%s: on after the end", name)
				}
			})
		}
	}
}

func TestSnapshotUntilIsEndOfExperiment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := chaos.New(chaos.Config{})
		for _, step := range []struct {
			name string
			do   func()
			want time.Time
		}{
			{"new", func() {}, time.Time{}},
			{"started", func() { c.Start(time.Minute) }, time.Now().Add(time.Minute)},
			{"moved later", func() { c.Start(time.Hour) }, time.Now().Add(time.Hour)},
			{"moved sooner", func() { c.Start(time.Second) }, time.Now().Add(time.Second)},
			{"stopped", c.Stop, time.Time{}},
		} {
			step.do()
			if got := c.Snapshot().Until; !got.Equal(step.want) {
				t.Errorf("%s: got %v, want %v", step.name, got, step.want)
			}
		}
	})
}

// TestStartDuringSnapshotAndStop is meant for the race detector.
func TestStartDuringSnapshotAndStop(t *testing.T) {
	for _, other := range []func(*chaos.Chaos){func(c *chaos.Chaos) { c.Snapshot() }, (*chaos.Chaos).Stop} {
		for range 20 {
			c := chaos.New(chaos.Config{})
			c.Start(time.Hour)
			var group errgroup.Group
			for _, do := range []func(*chaos.Chaos){start, other, start} {
				group.Go(func() error { do(c); return nil })
			}
			group.Wait()
			c.Stop()
			if c.Snapshot().On {
				t.Error("on after Stop")
			}
		}
	}
}

func start(c *chaos.Chaos) { c.Start(time.Hour) }

// TestStopReleasesChaos: neither a stopped Chaos nor one whose end was moved waits for the former
// end.
func TestStopReleasesChaos(t *testing.T) {
	c := chaos.New(chaos.Config{})
	c.Start(24 * time.Hour)
	c.Start(24 * time.Hour)
	c.Stop()
	released := weak.Make(c)
	for n := 0; released.Value() != nil; n++ { // the runtime may keep a stopped timer for a while
		if n == 1000 {
			t.Fatal("the Chaos is still in use")
		}
		runtime.GC()
	}
}

func TestNameIsThatOfConfig(t *testing.T) {
	if got := chaos.New(chaos.Config{Name: "users"}).Name(); got != "users" {
		t.Errorf("got %q, want users", got)
	}
}

func TestStartPanicsOutOfRange(t *testing.T) {
	c := chaos.New(chaos.Config{Name: "users"})
	for _, d := range []time.Duration{0, -1, 24*time.Hour + 1, math.MaxInt64} {
		func() {
			defer func() {
				want := fmt.Sprintf("chaos users: Start: d is %v, must be positive and at most 24h0m0s", d)
				if got := recover(); got != want {
					t.Errorf("got panic %v, want %q", got, want)
				}
			}()
			c.Start(d)
		}()
	}
	c.Start(24 * time.Hour)
	c.Stop()
}

// TestChaosCountsFaultsAsStarts: policies treat a fault as a call that may have had its effect.
func TestChaosCountsFaultsAsStarts(t *testing.T) {
	for name, c := range map[string]struct {
		fault      chaos.Fault
		fails      error // the effector
		made       int   // calls of the effector
		wantErr    []error
		repeatable bool
		panics     bool
	}{
		"Err":              {fault: chaos.Fault{Err: errDown}, wantErr: []error{errDown, chaos.ErrInjected}},
		"Err not made":     {fault: chaos.Fault{Err: resilience.NotMade(errDown)}, wantErr: []error{errDown, chaos.ErrInjected}, repeatable: true},
		"Err, after delay": {fault: chaos.Fault{Err: errDown, Delay: time.Second, Jitter: time.Second}, wantErr: []error{errDown}},
		"Lose":             {fault: chaos.Fault{Lose: true}, made: 1, wantErr: []error{chaos.ErrInjected}},
		"Lose with Err":    {fault: chaos.Fault{Lose: true, Err: errDown}, made: 1, wantErr: []error{chaos.ErrInjected, errDown}},
		"Lose of a failure": {fault: chaos.Fault{Lose: true}, made: 1, fails: errDown,
			wantErr: []error{errDown}},
		"Lose of a failure without effect": {fault: chaos.Fault{Lose: true}, made: 1, fails: resilience.NotMade(errDown),
			wantErr: []error{errDown}, repeatable: true},
		"Hang":                 {fault: chaos.Fault{Hang: true}, wantErr: []error{context.DeadlineExceeded}},
		"Panic":                {fault: chaos.Fault{Panic: "boom"}, panics: true},
		"Delay":                {fault: chaos.Fault{Delay: time.Second}, made: 1},
		"Delay of a failure":   {fault: chaos.Fault{Delay: time.Second}, made: 1, fails: errDown, wantErr: []error{errDown}},
		"Delay until the end":  {fault: chaos.Fault{Delay: time.Hour}, wantErr: []error{context.DeadlineExceeded}},
		"Jitter until the end": {fault: chaos.Fault{Delay: time.Minute, Jitter: time.Nanosecond}, wantErr: []error{context.DeadlineExceeded}},
		"NotMade cut short": {fault: chaos.Fault{Delay: time.Hour, Err: resilience.NotMade(errDown)},
			wantErr: []error{context.DeadlineExceeded}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				policy := always(c.fault)
				defer policy.Stop()
				ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errors.New("test's deadline"))
				defer cancel()
				made := 0
				var s seen
				value, err := resilience.Do(ctx, resilience.Pipeline{resilience.AtMostOnce, watch(&s), policy},
					func(context.Context) (string, error) {
						made++
						return "answer", c.fails
					})
				if s.starts != 1 || made != c.made || s.repeatable != c.repeatable || (s.panicked != nil) != c.panics {
					t.Errorf("%d starts, %d of the effector, repeatable %t, panic %v; want 1, %d, %t, panic %t",
						s.starts, made, s.repeatable, s.panicked, c.made, c.repeatable, c.panics)
				}
				if c.panics {
					return
				}
				if len(c.wantErr) == 0 && err != nil {
					t.Errorf("got %v, want nil", err)
				}
				for _, want := range c.wantErr {
					if !errors.Is(err, want) {
						t.Errorf("got %v, want %v", err, want)
					}
				}
				if c.fails != nil && errors.Is(err, chaos.ErrInjected) {
					t.Errorf("got %v, want the call's own error", err)
				}
				if errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Cause(ctx)) {
					t.Errorf("got %v, want ContextErr with the cause", err)
				}
				if want := c.fault.Lose && c.fails == nil; want && value != "" {
					t.Errorf("got %q with %v: the lost answer reached the caller", value, err)
				}
				if s := policy.Snapshot(); s.Active != 0 || s.Calls != 1 || !slices.Equal(s.Injected, []uint64{1}) {
					t.Errorf("snapshot %+v, want 1 call with 1 fault and none active", s)
				}
			})
		})
	}
}

func TestChaosDrawsSharesOfCalls(t *testing.T) {
	c := chaos.New(chaos.Config{Seed: 1, Faults: []chaos.Fault{
		{Share: 0.5, Err: errDown}, {Share: 0.1, Lose: true}, {Share: 0.25, Panic: "boom"},
	}})
	c.Start(time.Hour)
	defer c.Stop()
	const calls = 20000
	clean := 0
	for range calls {
		func() {
			defer func() { _ = recover() }()
			if resilience.Run(t.Context(), c, func(context.Context) error { return nil }) == nil {
				clean++
			}
		}()
	}
	s := c.Snapshot()
	for i, want := range []float64{0.5, 0.1, 0.25} {
		if got := float64(s.Injected[i]) / calls; math.Abs(got-want) > 4*math.Sqrt(want*(1-want)/calls) {
			t.Errorf("fault %d applied to a share of %v, want %v", i, got, want)
		}
	}
	if total := s.Injected[0] + s.Injected[1] + s.Injected[2]; s.Calls != calls || total+uint64(clean) != calls {
		t.Errorf("%d calls, %d with faults, %d without; want %d in all", s.Calls, total, clean, calls)
	}
}

// sequence returns which of 200 calls had which fault, and with what delay.
func sequence(c *chaos.Chaos, injected *[]chaos.Injection) (faults []string) {
	for n := range 200 {
		*injected = nil
		_ = resilience.Run(context.Background(), c, func(context.Context) error { return nil })
		for _, i := range *injected {
			faults = append(faults, fmt.Sprint(n, i.Fault, i.Delay))
		}
	}
	return faults
}

func TestChaosRepeatsFaultsOfSeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var injected []chaos.Injection
		make := func(seed uint64) *chaos.Chaos {
			return chaos.New(chaos.Config{
				Seed:     seed,
				Faults:   []chaos.Fault{{Share: 0.2, Err: errDown}, {Share: 0.2, Delay: time.Second, Jitter: time.Minute}},
				OnInject: func(_ context.Context, i chaos.Injection) { injected = append(injected, i) },
			})
		}
		c := make(7)
		c.Start(24 * time.Hour)
		first := sequence(c, &injected)
		c.Start(24 * time.Hour) // while on: the sequence continues
		second := sequence(c, &injected)
		c.Stop()
		c.Start(24 * time.Hour) // the sequence starts over
		third := sequence(c, &injected)
		c.Stop()
		if len(first) < 40 || len(first) > 120 {
			t.Errorf("%d of 200 calls had a fault, want about 80", len(first))
		}
		if slices.Equal(first, second) || !slices.Equal(first, third) {
			t.Error("Start must restart the sequence while off, and only then")
		}
		for seed, want := range map[uint64]bool{7: true, 8: false, 0: false} {
			other := make(seed)
			other.Start(24 * time.Hour)
			if got := slices.Equal(sequence(other, &injected), first); got != want {
				t.Errorf("seed %d: the same faults as with seed 7: %t, want %t", seed, got, want)
			}
			other.Stop()
		}
	})
}

func TestChaosWithoutSeedDrawsOtherFaultsEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var injected []chaos.Injection
		c := chaos.New(chaos.Config{
			Faults:   []chaos.Fault{{Share: 0.5, Err: errDown}},
			OnInject: func(_ context.Context, i chaos.Injection) { injected = append(injected, i) },
		})
		var experiments [2][]string
		for i := range experiments {
			c.Start(time.Hour)
			experiments[i] = sequence(c, &injected)
			c.Stop()
		}
		if slices.Equal(experiments[0], experiments[1]) {
			t.Error("two experiments without a Seed had the same faults")
		}
	})
}

// TestChaosPassesResultOfCallWithoutFault, whatever the reason why it has none.
func TestChaosPassesResultOfCallWithoutFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fault := chaos.Fault{Share: 1, Hang: true}
		off := chaos.New(chaos.Config{Faults: []chaos.Fault{fault}})
		notSelected := chaos.New(chaos.Config{Faults: []chaos.Fault{fault}, Only: func(context.Context) bool { return false }})
		notDrawn := chaos.New(chaos.Config{})
		full := chaos.New(chaos.Config{Faults: []chaos.Fault{fault}, MaxActive: 1})
		for _, c := range []*chaos.Chaos{notSelected, notDrawn, full} {
			c.Start(time.Hour)
			defer c.Stop()
		}
		go resilience.Run(t.Context(), full, func(context.Context) error { return nil }) // hangs
		synctest.Wait()
		for name, c := range map[string]*chaos.Chaos{"off": off, "not selected": notSelected, "not drawn": notDrawn, "MaxActive reached": full} {
			for _, want := range []error{nil, errDown} {
				value, err := resilience.Do(t.Context(), c, func(context.Context) (int, error) { return 1, want })
				if value != 1 || err != want {
					t.Errorf("%s: got %d, %v, want 1, %v", name, value, err, want)
				}
			}
		}
	})
}

func TestChaosSelectsCallsWithOnly(t *testing.T) {
	type key struct{}
	c := chaos.New(chaos.Config{
		Faults: []chaos.Fault{{Share: 1, Err: errDown}},
		Only:   func(ctx context.Context) bool { return ctx.Value(key{}) != nil },
	})
	c.Start(time.Hour)
	defer c.Stop()
	for ctx, want := range map[context.Context]error{t.Context(): nil, context.WithValue(t.Context(), key{}, 1): errDown} {
		if err := resilience.Run(ctx, c, func(context.Context) error { return nil }); !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	if s := c.Snapshot(); s.Calls != 1 || s.Injected[0] != 1 {
		t.Errorf("snapshot %+v, want one call, which Only selected", s)
	}
}

func TestChaosLimitsActiveFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for max, want := range map[int]int{0: 100, 3: 3} {
			c := chaos.New(chaos.Config{MaxActive: max, Faults: []chaos.Fault{{Share: 1, Hang: true}}})
			c.Start(time.Hour)
			var passed atomic.Int64
			var group errgroup.Group
			for range 120 {
				group.Go(func() error {
					if resilience.Run(t.Context(), c, func(context.Context) error { return nil }) == nil {
						passed.Add(1)
					}
					return nil
				})
			}
			synctest.Wait()
			if s := c.Snapshot(); s.Active != want || s.Injected[0] != uint64(want) || int(passed.Load()) != 120-want {
				t.Errorf("MaxActive %d: %d active, %d injected, %d passed; want %d, %d, %d",
					max, s.Active, s.Injected[0], passed.Load(), want, want, 120-want)
			}
			c.Stop()
			group.Wait()
			if s := c.Snapshot(); s.Active != 0 {
				t.Errorf("MaxActive %d: %d active after the end", max, s.Active)
			}
		}
	})
}

// A call that passes because the limit is reached isn't active, however long it takes.
func TestChaosCountsOnlyFaultsAsActive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := chaos.New(chaos.Config{MaxActive: 1, Faults: []chaos.Fault{{Share: 1, Delay: time.Second, Err: errDown}}})
		c.Start(time.Hour)
		defer c.Stop()
		call := func() error {
			return resilience.Run(t.Context(), c, func(context.Context) error { time.Sleep(time.Minute); return nil })
		}
		var group errgroup.Group
		group.Go(func() error {
			if err := call(); !errors.Is(err, errDown) {
				t.Errorf("got %v for the first call, want the fault", err)
			}
			return nil
		})
		synctest.Wait()
		group.Go(call) // passes
		synctest.Wait()
		if s := c.Snapshot(); s.Active != 1 {
			t.Errorf("got %d active with one call under a fault, want 1", s.Active)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if s := c.Snapshot(); s.Active != 0 {
			t.Errorf("got %d active after the fault, want 0", s.Active)
		}
		if err := call(); !errors.Is(err, errDown) {
			t.Errorf("got %v with no call under a fault, want the fault", err)
		}
		if err := group.Wait(); err != nil {
			t.Errorf("got %v for the call that passed, want nil", err)
		}
	})
}

// endedContext is a context that ends without closing its Done, as if that came a moment later.
type endedContext struct {
	context.Context
	ended atomic.Bool
}

func (c *endedContext) Done() <-chan struct{} { return nil }

func (c *endedContext) Err() error {
	if c.ended.Load() {
		return context.Canceled
	}
	return nil
}

func TestChaosDelayNeverRunsEndedContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := always(chaos.Fault{Delay: time.Minute})
		ctx := &endedContext{Context: t.Context()}
		var s seen
		made := 0
		var group errgroup.Group
		group.Go(func() error {
			return resilience.Run(ctx, resilience.Pipeline{watch(&s), c}, func(context.Context) error { made++; return nil })
		})
		synctest.Wait()
		ctx.ended.Store(true)
		c.Stop()
		if err := group.Wait(); err != context.Canceled || made != 0 || s.starts != 1 {
			t.Errorf("got %v, %d calls, %d starts; want the context's error, 0, 1", err, made, s.starts)
		}
	})
}

// TestChaosEndsFaultsWithExperiment: hangs end with ErrInjected, delayed calls continue without a
// fault.
func TestChaosEndsFaultsWithExperiment(t *testing.T) {
	for name, end := range map[string]func(c *chaos.Chaos){
		"Stop": (*chaos.Chaos).Stop,
		"time": func(*chaos.Chaos) { time.Sleep(time.Minute); synctest.Wait() },
	} {
		for what, c := range map[string]struct {
			fault chaos.Fault
			want  error
			made  int
		}{
			"hang":           {chaos.Fault{Hang: true}, chaos.ErrInjected, 0},
			"delay":          {chaos.Fault{Delay: time.Hour}, nil, 1},
			"delay and Err":  {chaos.Fault{Delay: time.Hour, Err: errDown}, nil, 1},
			"delay and hang": {chaos.Fault{Delay: time.Hour, Hang: true}, nil, 1},
		} {
			synctest.Test(t, func(t *testing.T) {
				fault := c.fault
				fault.Share = 1
				policy := chaos.New(chaos.Config{Faults: []chaos.Fault{fault}})
				policy.Start(time.Minute)
				var made atomic.Int64
				var group errgroup.Group
				for range 3 {
					group.Go(func() error {
						return resilience.Run(t.Context(), policy, func(context.Context) error { made.Add(1); return nil })
					})
				}
				synctest.Wait()
				began := time.Now()
				end(policy)
				waited := time.Since(began)
				if err := group.Wait(); !errors.Is(err, c.want) {
					t.Errorf("%s, %s: got %v, want %v", what, name, err, c.want)
				}
				if time.Since(began) != waited || int(made.Load()) != 3*c.made {
					t.Errorf("%s, %s: %d of 3 calls made, %v after the end", what, name, made.Load(), time.Since(began)-waited)
				}
			})
		}
	}
}

// TestChaosFaultWithoutDelayIgnoresContext: only a delay and a hang end with the context.
func TestChaosFaultWithoutDelayIgnoresContext(t *testing.T) {
	c := always(chaos.Fault{Err: errDown})
	defer c.Stop()
	ctx, cancel := context.WithCancel(t.Context())
	ends := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		cancel()
		return next.Run(ctx)
	})
	if err := resilience.Run(ctx, resilience.Pipeline{ends, c}, func(context.Context) error { return nil }); !errors.Is(err, errDown) {
		t.Errorf("got %v, want %v", err, errDown)
	}
}

func TestChaosInjectedErrorKeepsMarks(t *testing.T) {
	for name, m := range map[string]func(error) error{
		"NotFailure": resilience.NotFailure, "Contention": resilience.Contention, "CallerFault": resilience.CallerFault,
		"Permanent": retry.Permanent, "RetryAfter": func(err error) error { return resilience.WithRetryAfter(err, time.Minute) },
	} {
		configured := m(errDown)
		var s seen
		policy := always(chaos.Fault{Err: configured})
		_ = resilience.Run(t.Context(), resilience.Pipeline{watch(&s), policy}, func(context.Context) error { return nil })
		policy.Stop()
		after, _ := resilience.RetryAfter(s.err)
		wantAfter, _ := resilience.RetryAfter(configured)
		if !errors.Is(s.err, configured) || mark.Of(s.err) != mark.Of(configured) || after != wantAfter {
			t.Errorf("%s: %#v doesn't have the marks of the configured error", name, s.err)
		}
		if want := "chaos users: injected: down"; s.err.Error() != want {
			t.Errorf("%s: error reads %q, want %q", name, s.err, want)
		}
	}
}

// Retry removes an outermost Permanent, also from an injected error, so that an outer retry tries
// again.
func TestChaosInjectedPermanentEndsInnermostRetryOnly(t *testing.T) {
	twice := func() resilience.Policy { return retry.New(retry.Config{MaxAttempts: 2, Backoff: retry.Constant(0)}) }
	for name, m := range map[string]func(error) error{
		"Permanent":             retry.Permanent,
		"Permanent(Contention)": func(err error) error { return retry.Permanent(resilience.Contention(err)) },
		"Contention(Permanent)": func(err error) error { return resilience.Contention(retry.Permanent(err)) },
		"NotFailure(Permanent)": func(err error) error { return resilience.NotFailure(retry.Permanent(err)) },
		"Contention":            resilience.Contention,
	} {
		fault := m(errDown)
		injected := always(chaos.Fault{Err: fault})
		defer injected.Stop()
		attempts := func(policies ...resilience.Policy) (n int, err error) {
			count := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
				n++
				return next.Run(ctx)
			})
			err = resilience.Run(t.Context(), append(resilience.Pipeline{twice(), twice(), count}, policies...),
				func(context.Context) error { return fault })
			return n, err
		}
		want, _ := attempts()
		if got, err := attempts(injected); got != want || !errors.Is(err, errDown) || !errors.Is(err, chaos.ErrInjected) {
			t.Errorf("%s: got %d attempts and %v, want %d as with a real error", name, got, err, want)
		}
	}
}

func TestChaosLoseDropsValueOnce(t *testing.T) {
	for name, around := range map[string]resilience.Pipeline{
		"alone":      nil,
		"with retry": {retry.New(retry.Config{MaxAttempts: 3, Backoff: retry.Constant(0)})},
	} {
		var dropped []int
		policy := always(chaos.Fault{Lose: true})
		made := 0
		call := resilience.Compose(func(context.Context) (int, error) { made++; return made, nil },
			resilience.Discard(func(v int) { dropped = append(dropped, v) }), around, policy)
		if value, err := call(t.Context()); value != 0 || !errors.Is(err, chaos.ErrInjected) {
			t.Errorf("%s: got %d, %v", name, value, err)
		}
		policy.Stop()
		var want []int
		for n := range made {
			want = append(want, n+1)
		}
		if !slices.Equal(dropped, want) || made != 1+2*len(around) {
			t.Errorf("%s: %d calls, dropped %v, want each once", name, made, dropped)
		}
	}
}

func TestChaosLoseKeepsRefusal(t *testing.T) {
	refuse := resilience.PolicyFunc(func(context.Context, resilience.Next) error { return resilience.ErrRefused })
	var s seen
	policy := always(chaos.Fault{Lose: true})
	defer policy.Stop()
	err := resilience.Run(t.Context(), resilience.Pipeline{watch(&s), policy, refuse}, func(context.Context) error { return nil })
	if err != resilience.ErrRefused || s.starts != 0 || !s.repeatable {
		t.Errorf("got %v with %d starts, want the refusal and none", err, s.starts)
	}
}

func TestChaosReleasesCallOnPanic(t *testing.T) {
	for name, config := range map[string]chaos.Config{
		"Only":     {Only: func(context.Context) bool { panic("boom") }},
		"OnInject": {OnInject: func(context.Context, chaos.Injection) { panic("boom") }},
		"fault":    {},
	} {
		config.Faults = []chaos.Fault{{Share: 1, Panic: "boom"}}
		c := chaos.New(config)
		c.Start(time.Hour)
		func() {
			defer func() {
				if got := recover(); got != "boom" {
					t.Errorf("%s: panic %v", name, got)
				}
			}()
			_ = resilience.Run(t.Context(), c, func(context.Context) error { return nil })
		}()
		if s := c.Snapshot(); s.Active != 0 {
			t.Errorf("%s: %d active", name, s.Active)
		}
		c.Stop()
	}
}

func TestChaosPassesGoexit(t *testing.T) {
	c := always(chaos.Fault{Delay: 1})
	defer c.Stop()
	var wait sync.WaitGroup
	wait.Go(func() {
		_ = resilience.Run(t.Context(), c, func(context.Context) error { runtime.Goexit(); return nil })
		t.Error("Run returned")
	})
	wait.Wait()
	if s := c.Snapshot(); s.Active != 0 {
		t.Errorf("%d active", s.Active)
	}
}

func TestChaosReportsInjectionBeforeFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		var got []chaos.Injection
		var at time.Time
		c := chaos.New(chaos.Config{
			Name:   "users",
			Faults: []chaos.Fault{{Share: 1, Delay: time.Second, Jitter: time.Second}},
			OnInject: func(ctx context.Context, i chaos.Injection) {
				if ctx.Value(key{}) != "call" {
					t.Error("OnInject did not receive the call's context")
				}
				got, at = append(got, i), time.Now()
			},
		})
		c.Start(time.Hour)
		defer c.Stop()
		began := time.Now()
		_ = resilience.Run(context.WithValue(t.Context(), key{}, "call"), c, func(context.Context) error { return nil })
		if len(got) != 1 || got[0].Name != "users" || got[0].Fault != 0 || !at.Equal(began) || time.Since(began) != got[0].Delay {
			t.Errorf("injections %+v at %v after the call began, which took %v", got, at.Sub(began), time.Since(began))
		}
		if d := got[0].Delay; d <= time.Second || d > 2*time.Second {
			t.Errorf("delay %v, want more than 1s and at most 2s", d)
		}
	})
}

// TestChaosFaultsOpenBreaker: the policies around a Chaos take its faults for the dependency's.
func TestChaosFaultsOpenBreaker(t *testing.T) {
	b := breaker.New(breaker.Config{Consecutive: 3})
	c := always(chaos.Fault{Err: errDown})
	defer c.Stop()
	for range 3 {
		_ = resilience.Run(t.Context(), resilience.Pipeline{b, c}, func(context.Context) error { return nil })
	}
	if b.State() != breaker.Open {
		t.Errorf("the breaker is %v after three faults, want open", b.State())
	}
}

func TestChaosHangEndsAtTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := always(chaos.Fault{Hang: true})
		defer c.Stop()
		err := resilience.Run(t.Context(), resilience.Pipeline{timeout.After(time.Second), c}, func(context.Context) error { return nil })
		if !errors.Is(err, timeout.ErrTimeout) {
			t.Errorf("got %v, want ErrTimeout", err)
		}
	})
}

func TestConfigValidateReportsAllErrors(t *testing.T) {
	for want, config := range map[string]chaos.Config{
		"": {Faults: []chaos.Fault{{Share: 0.7, Err: errDown}, {Share: 0.2, Lose: true, Err: errDown}, {Share: 0.1, Delay: math.MaxInt64 - 1, Jitter: 1}}},
		"chaos users: Faults[0].Share is 0, must be greater than 0 and at most 1": {Name: "users", Faults: []chaos.Fault{{Err: errDown}}},
		"chaos: Faults[1].Share is NaN, must be greater than 0 and at most 1": {Faults: []chaos.Fault{
			{Share: 0.1, Err: errDown}, {Share: math.NaN(), Hang: true}}},
		"chaos: Faults[0] has no fault, must have Err, Lose, Hang, Panic, or a Delay": {Faults: []chaos.Fault{{Share: 1}}},
		"chaos: Faults[0] has Err and Hang, must have only one of them":               {Faults: []chaos.Fault{{Share: 1, Err: errDown, Hang: true}}},
		"chaos: Faults[0] has Lose and Panic, must have only one of them":             {Faults: []chaos.Fault{{Share: 1, Lose: true, Panic: 1}}},
		"chaos: Faults[0].Delay is -1ns, must be 0 or more\n" +
			"chaos: Faults[0].Jitter is -2ns, must be 0 or more": {Faults: []chaos.Fault{{Share: 1, Delay: -1, Jitter: -2, Hang: true}}},
		"chaos: Faults[0].Jitter is 2ns, must be at most 1ns with this Delay": {Faults: []chaos.Fault{{Share: 1, Delay: math.MaxInt64 - 1, Jitter: 2}}},
		"chaos: sum of Faults' Share is 1.2, must be at most 1\n" +
			"chaos: MaxActive is -1, must be 0 (for the default, 100) or more": {
			MaxActive: -1, Faults: []chaos.Fault{{Share: 0.6, Err: errDown}, {Share: 0.6, Hang: true}}},
	} {
		got := ""
		if err := config.Validate(); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		func() {
			defer func() {
				if got := recover(); (got != nil) != (want != "") || got != nil && got != want {
					t.Errorf("New panicked with %v, want %q", got, want)
				}
			}()
			chaos.New(config)
		}()
	}
}

func TestConfigValidateToleratesRoundingOfShares(t *testing.T) {
	for tooMuch, valid := range map[float64]bool{1e-9: true, 1.1e-9: false} {
		c := chaos.Config{Faults: []chaos.Fault{{Share: 1, Err: errDown}, {Share: tooMuch, Err: errDown}}}
		if err := c.Validate(); (err == nil) != valid {
			t.Errorf("shares that add up to 1 + %v: got %v, want valid %t", tooMuch, err, valid)
		}
	}
}

func TestNewCopiesFaults(t *testing.T) {
	faults := []chaos.Fault{{Share: 1, Err: errDown}}
	c := chaos.New(chaos.Config{Faults: faults})
	faults[0].Err = nil
	c.Start(time.Hour)
	defer c.Stop()
	if err := resilience.Run(t.Context(), c, func(context.Context) error { return nil }); !errors.Is(err, errDown) {
		t.Errorf("got %v, want %v", err, errDown)
	}
}

// TestChaosStartAndStopDuringCalls: the counts agree, and nothing hangs, whatever the order.
func TestChaosStartAndStopDuringCalls(t *testing.T) {
	c := chaos.New(chaos.Config{Faults: []chaos.Fault{
		{Share: 0.3, Hang: true}, {Share: 0.3, Err: errDown}, {Share: 0.3, Delay: time.Microsecond},
	}})
	stop := make(chan struct{})
	var group, calls errgroup.Group
	for range 2 {
		group.Go(func() error {
			for {
				select {
				case <-stop:
					return nil
				default:
					c.Start(time.Millisecond)
					c.Snapshot()
					c.Stop()
				}
			}
		})
	}
	for range 4 {
		calls.Go(func() error {
			for range 2000 {
				err := resilience.Run(context.Background(), c, func(context.Context) error { return nil })
				if err != nil && !errors.Is(err, chaos.ErrInjected) {
					return err
				}
			}
			return nil
		})
	}
	if err := calls.Wait(); err != nil {
		t.Error(err)
	}
	close(stop)
	group.Wait()
	s := c.Snapshot()
	if s.On || s.Active != 0 || s.Calls > 8000 || s.Injected[0]+s.Injected[1]+s.Injected[2] > s.Calls {
		t.Errorf("snapshot %+v at the end", s)
	}
}

func BenchmarkChaos(b *testing.B) {
	call := func(context.Context) error { return nil }
	off := chaos.New(chaos.Config{Faults: []chaos.Fault{{Share: 0.01, Err: errDown}}})
	on := chaos.New(chaos.Config{Faults: []chaos.Fault{{Share: 1e-9, Err: errDown}}})
	on.Start(time.Hour)
	defer on.Stop()
	pass := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error { return next.Run(ctx) })
	for name, policy := range map[string]resilience.Policy{"off": off, "on, no fault": on, "a policy that does nothing": pass} {
		run := resilience.ComposeRun(call, policy)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = run(context.Background())
			}
		})
	}
}
