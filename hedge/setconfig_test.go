package hedge_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/hedge"
)

func TestHedgeConfigReturnsDefaultsAndWhatWasSet(t *testing.T) {
	h := hedge.New(hedge.Config{Delay: time.Second})
	want := fmt.Sprintf("%+v", hedge.Config{Delay: time.Second, MinSamples: 100, Max: 1})
	if got := fmt.Sprintf("%+v", h.Config()); got != want || h.Name() != "" {
		t.Errorf("got %s, want %s", got, want)
	}
	full := hedge.Config{Name: "users", Delay: 1, Quantile: 0.5, MinSamples: 2, Max: 3, Budget: plenty(),
		HedgeIf: func(error) bool { return true }, OnHedge: func(context.Context, hedge.Event) {}}
	if err := h.SetConfig(full); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprintf("%+v", h.Config()), fmt.Sprintf("%+v", full); got != want || h.Name() != "users" || h.Snapshot().Name != "users" {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestHedgeSetConfigRejectsInvalidConfig(t *testing.T) {
	h := hedge.New(hedge.Config{Name: "users", Delay: time.Second})
	before := fmt.Sprintf("%+v", h.Config())
	invalid := hedge.Config{Delay: -1, Max: -1}
	if err := h.SetConfig(invalid); err == nil || err.Error() != invalid.Validate().Error() {
		t.Errorf("got %v, want %v", err, invalid.Validate())
	}
	if got := fmt.Sprintf("%+v", h.Config()); got != before {
		t.Errorf("got %s after an error, want %s", got, before)
	}
}

// TestHedgeSetConfigAppliesToLaterCalls: a call in progress finishes with the Config that it began
// with.
func TestHedgeSetConfigAppliesToLaterCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hedged := ""
		hook := func(name string) func(context.Context, hedge.Event) {
			return func(_ context.Context, e hedge.Event) { hedged += name + "/" + e.Name + " " }
		}
		first, second := plenty(), budget.New(budget.Config{Ratio: 1})
		h := hedge.New(hedge.Config{Name: "before", Delay: time.Second, Max: 2, Budget: first, OnHedge: hook("before")})
		s := scripted(answer{takes: 10 * time.Second})
		time.AfterFunc(time.Second/2, func() {
			h.SetConfig(hedge.Config{Name: "after", Delay: 4 * time.Second, Max: 1, Budget: second, OnHedge: hook("after")})
		})
		hedge.Do(t.Context(), h, s.call)
		s.want(t, 0, time.Second, 2*time.Second)
		if want := "before/before before/before "; hedged != want {
			t.Errorf("got hooks %q, want %q", hedged, want)
		}
		if second.Withdraw() {
			t.Error("the call that began before SetConfig deposited into the new budget")
		}
		hedged = ""
		s = scripted(answer{takes: 10 * time.Second})
		hedge.Do(t.Context(), h, s.call)
		s.want(t, 0, 4*time.Second)
		if want := "after/after "; hedged != want {
			t.Errorf("got hooks %q, want %q", hedged, want)
		}
		time.Sleep(time.Minute)
	})
}

// record makes a call that takes the time.
func record(ctx context.Context, h *hedge.Hedge, takes time.Duration) {
	hedge.Do(ctx, h, func(context.Context) (int, error) { time.Sleep(takes); return 1, nil })
}

// TestHedgeSetConfigKeepsRecentTimes: for another Quantile, and while Quantile is 0, during which no
// times are recorded.
func TestHedgeSetConfigKeepsRecentTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := hedge.Config{Quantile: 0.9, MinSamples: 10, Delay: time.Hour, Budget: plenty()}
		h := hedge.New(config)
		for n := range 10 {
			record(t.Context(), h, time.Duration(n+1)*time.Second)
		}
		for _, c := range []struct {
			quantile float64
			delay    time.Duration // 0: that of the Config
		}{{0.9, 9 * time.Second}, {0.1, time.Second}, {0.5, 5 * time.Second}, {0.99, 10 * time.Second}, {0, 0}, {0.5, 5 * time.Second}} {
			config.Quantile = c.quantile
			if err := h.SetConfig(config); err != nil {
				t.Fatal(err)
			}
			got := h.Snapshot().Delay
			if c.delay == 0 && got != time.Hour || c.delay > 0 && !near(got, c.delay) {
				t.Errorf("Quantile %v: got delay %v, want %v", c.quantile, got, c.delay)
			}
			if c.quantile == 0 {
				for range 20 {
					record(t.Context(), h, time.Minute/100)
				}
			}
		}
		time.Sleep(5 * time.Minute)
		if got := h.Snapshot().Delay; got != time.Hour {
			t.Errorf("got delay %v after five minutes, want 1h: the times are too old", got)
		}
	})
}

// TestHedgeSetConfigChangesQuantileForLaterCalls: the call in progress keeps its delay and records
// its time.
func TestHedgeSetConfigChangesQuantileForLaterCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hedge.New(hedge.Config{Quantile: 0.5, MinSamples: 2, Delay: 5 * time.Second, Budget: plenty()})
		record(t.Context(), h, time.Second)
		s := scripted(answer{takes: 10 * time.Second})
		time.AfterFunc(time.Second, func() {
			h.SetConfig(hedge.Config{Quantile: 0.9, MinSamples: 2, Delay: time.Minute, Budget: plenty()})
		})
		hedge.Do(t.Context(), h, s.call)
		s.want(t, 0, 5*time.Second)
		if got := h.Snapshot().Delay; !near(got, 10*time.Second) {
			t.Errorf("got delay %v, want 10s", got)
		}
		time.Sleep(time.Minute)
	})
}

// TestHedgeSetConfigKeepsDefaultBudget: with its tokens, also while another budget is in use.
func TestHedgeSetConfigKeepsDefaultBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := hedge.Config{Delay: time.Second}
		h := hedge.New(config)
		for range 19 {
			record(t.Context(), h, 0)
		}
		other := config
		other.Budget = budget.New(budget.Config{Ratio: 1})
		for _, c := range []hedge.Config{h.Config(), other, config} {
			if err := h.SetConfig(c); err != nil {
				t.Fatal(err)
			}
		}
		s := scripted(answer{takes: 2 * time.Second, ignoresContext: true}, answer{takes: time.Hour})
		hedge.Do(t.Context(), h, s.call)
		s.want(t, 0, time.Second)
		s = scripted(answer{takes: 2 * time.Second})
		hedge.Do(t.Context(), h, s.call)
		s.want(t, 0)
		time.Sleep(time.Hour)
	})
}

// TestHedgeSetConfigOfOwnConfigKeepsCost: a call still allocates as little as before.
func TestHedgeSetConfigOfOwnConfigKeepsCost(t *testing.T) {
	for _, config := range []hedge.Config{{Delay: time.Hour}, {Quantile: 0.5, Delay: time.Hour}} {
		h := hedge.New(config)
		call := func() { hedge.Do(context.Background(), h, succeed) }
		before := testing.AllocsPerRun(100, call)
		if err := h.SetConfig(h.Config()); err != nil {
			t.Fatal(err)
		}
		if after := testing.AllocsPerRun(100, call); after != before {
			t.Errorf("got %v allocations after SetConfig, want %v", after, before)
		}
		if c := h.Config(); c.Budget != nil || c.HedgeIf != nil || c.OnHedge != nil {
			t.Errorf("got %+v, want no functions and no budget", c)
		}
	}
}

func TestHedgeSetConfigIsSafeForConcurrentUse(t *testing.T) {
	h := hedge.New(hedge.Config{Delay: time.Hour})
	var group errgroup.Group
	for i := range 4 {
		group.Go(func() error {
			if err := h.SetConfig(hedge.Config{Delay: time.Hour, Quantile: 0.5}); err != nil { // the first ones
				return err
			}
			for n := range 300 {
				config := h.Config()
				config.Quantile = float64(n%3+i%2) / 10
				if err := h.SetConfig(config); err != nil {
					return err
				}
				if _, err := hedge.Do(context.Background(), h, succeed); err != nil {
					return err
				}
				h.Snapshot()
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}
