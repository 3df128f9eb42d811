package throttle_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/resiliencetest"
	"github.com/effector-go/resilience/throttle"
)

// takes makes n calls that must be admitted, or must be refused.
func takes(t *testing.T, th *throttle.Throttle, n int, admitted bool) {
	t.Helper()
	for i := range n {
		_, err := throttle.Do(t.Context(), th, resiliencetest.FailFirst[int](0).Do)
		if (err == nil) != admitted || err != nil && !errors.Is(err, throttle.ErrThrottled) {
			t.Fatalf("call %d: got %v, want admitted %v", i+1, err, admitted)
		}
	}
}

// set sets the Config, which must be valid, and checks how many tokens there are.
func set(t *testing.T, th *throttle.Throttle, config throttle.Config, available int) {
	t.Helper()
	if err := th.SetConfig(config); err != nil {
		t.Fatal(err)
	}
	if got, want := th.Snapshot(), (throttle.Snapshot{Name: config.Name, Max: config.Max, Available: available}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestThrottleConfigReturnsWhatWasSet(t *testing.T) {
	first := throttle.Config{Name: "api", Max: 3, Refill: 2, Every: time.Second}
	th := throttle.New(first)
	if th.Config() != first || th.Name() != "api" {
		t.Errorf("got %+v, %q; want %+v", th.Config(), th.Name(), first)
	}
	second := throttle.Config{Name: "mail", Max: 7, Refill: 5, Every: time.Minute}
	if err := th.SetConfig(second); err != nil || th.Config() != second || th.Name() != "mail" {
		t.Errorf("got %v, %+v, %q; want %+v", err, th.Config(), th.Name(), second)
	}
}

func TestThrottleSetConfigRejectsInvalidConfig(t *testing.T) {
	before := throttle.Config{Name: "api", Max: 3, Refill: 2, Every: time.Second}
	th := throttle.New(before)
	takes(t, th, 1, true)
	invalid := throttle.Config{Name: "other", Max: 10, Refill: -1, Every: 1}
	if err := th.SetConfig(invalid); err == nil || err.Error() != invalid.Validate().Error() {
		t.Errorf("got %v, want %v", err, invalid.Validate())
	}
	if th.Config() != before || th.Snapshot().Available != 2 {
		t.Errorf("got %+v, %+v after an error, want %+v and 2 tokens", th.Config(), th.Snapshot(), before)
	}
}

// The bucket lacks 6 of 10 tokens, then 6 of 20, 6 of 8, and all of 4.
func TestThrottleSetConfigKeepsUsedTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := throttle.Config{Max: 10, Refill: 1, Every: time.Hour}
		th := throttle.New(config)
		takes(t, th, 6, true)
		for _, step := range []struct{ max, available int }{{20, 14}, {8, 2}, {4, 0}, {5, 1}} {
			config.Max = step.max
			set(t, th, config, step.available)
		}
		takes(t, th, 1, true)
		takes(t, th, 1, false)
	})
}

// Refills that were due before the change came by the old Config.
func TestThrottleSetConfigAppliesToLaterRefills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := throttle.New(throttle.Config{Max: 100, Refill: 1, Every: time.Second})
		takes(t, th, 100, true)
		time.Sleep(3 * time.Second)
		set(t, th, throttle.Config{Max: 100, Refill: 10, Every: time.Second}, 3)
		time.Sleep(2 * time.Second)
		if got := th.Snapshot().Available; got != 23 {
			t.Errorf("got %d tokens, want 3 and two refills of 10", got)
		}
	})
}

// With the same Every, refills come when they would have come.
func TestThrottleSetConfigNewEveryCountsFromNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := throttle.Config{Name: "old", Max: 2, Refill: 1, Every: 10 * time.Second}
		th := throttle.New(config)
		refill := func(name string, want time.Duration) {
			t.Helper()
			_, err := throttle.Do(t.Context(), th, resiliencetest.FailFirst[int](0).Do)
			var refused *throttle.Error
			if !errors.As(err, &refused) || refused.Name != name || refused.RetryAfter() != want {
				t.Fatalf("got %v of %q, want a refusal with RetryAfter %v", err, name, want)
			}
			time.Sleep(want - 1)
			takes(t, th, 1, false)
			time.Sleep(time.Nanosecond)
			takes(t, th, 1, true)
		}
		takes(t, th, 2, true)
		time.Sleep(14 * time.Second)
		takes(t, th, 1, true)
		config.Name = "new"
		set(t, th, config, 0)
		refill("new", 6*time.Second)
		time.Sleep(4 * time.Second)
		config.Every = 7 * time.Second
		set(t, th, config, 0)
		refill("new", 7*time.Second)
		refill("new", 7*time.Second)
	})
}

func TestThrottleSetConfigOfOwnConfigChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := throttle.New(throttle.Config{Name: "api", Max: 5, Refill: 2, Every: 10 * time.Second})
		takes(t, th, 5, true)
		time.Sleep(14 * time.Second)
		config := th.Config()
		set(t, th, th.Config(), 2)
		if th.Config() != config {
			t.Errorf("got %+v, want %+v", th.Config(), config)
		}
		takes(t, th, 2, true)
		_, err := throttle.Do(t.Context(), th, resiliencetest.FailFirst[int](0).Do)
		if after, _ := resilience.RetryAfter(err); after != 6*time.Second {
			t.Errorf("got RetryAfter %v, want 6s", after)
		}
		time.Sleep(time.Hour)
		one := func(context.Context) (int, error) { return 1, nil }
		ctx := t.Context()
		if n := testing.AllocsPerRun(3, func() { throttle.Do(ctx, th, one) }); n != 0 {
			t.Errorf("got %v allocations per call, want 0", n)
		}
	})
}

// The longest Every is 292 years, and the number of tokens is the largest.
func TestThrottleSetConfigOfExtremes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := throttle.New(throttle.Config{Max: 1, Refill: 1, Every: time.Microsecond})
		takes(t, th, 1, true)
		set(t, th, throttle.Config{Max: 1e9, Refill: 1e9, Every: 1<<63 - 1}, 1e9-1)
		time.Sleep(time.Hour)
		set(t, th, throttle.Config{Max: 1, Refill: 1e9, Every: 1<<63 - 1}, 0)
		_, err := throttle.Do(t.Context(), th, resiliencetest.FailFirst[int](0).Do)
		if after, _ := resilience.RetryAfter(err); after != 1<<63-1-time.Hour {
			t.Errorf("got RetryAfter %v, want 292 years minus an hour", after)
		}
	})
}

var movedClock = throttle.New(throttle.Config{Max: 2, Refill: 1, Every: time.Minute})

// The throttle is used outside a bubble and then inside one, decades earlier, where its Config is
// set.
func TestThrottleSetConfigAfterClockWentBack(t *testing.T) {
	takes(t, movedClock, 2, true)
	synctest.Test(t, func(t *testing.T) {
		set(t, movedClock, throttle.Config{Max: 3, Refill: 1, Every: time.Minute}, 1)
		takes(t, movedClock, 1, true)
		_, err := throttle.Do(t.Context(), movedClock, resiliencetest.FailFirst[int](0).Do)
		if after, ok := resilience.RetryAfter(err); !ok || after != time.Minute {
			t.Errorf("got %v with RetryAfter %v, want 1m", err, after)
		}
	})
}

// No refill comes, and the smallest Max is above the number of used tokens, so all calls together
// take as many tokens as the last Max has.
func TestThrottleSetConfigIsSafeForConcurrentUse(t *testing.T) {
	configs := []throttle.Config{{Name: "a", Max: 4000, Refill: 1, Every: 24 * time.Hour}, {Name: "b", Max: 5000, Refill: 2, Every: 48 * time.Hour}}
	th := throttle.New(configs[0])
	one := resiliencetest.FailFirst[int](0)
	var g errgroup.Group
	for worker := range 8 {
		g.Go(func() error {
			for i := range 400 {
				if worker < 2 {
					if err := th.SetConfig(configs[i%2]); err != nil {
						return err
					}
				}
				if got := th.Config(); !slices.Contains(configs, got) {
					t.Errorf("got %+v, want one of %+v", got, configs)
				}
				if _, err := throttle.Do(t.Context(), th, one.Do); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	set(t, th, configs[1], 5000-3200)
}
