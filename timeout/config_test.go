package timeout_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/timeout"
)

// FuzzConfig creates and uses whatever Validate accepts: no panic, and the limit holds.
func FuzzConfig(f *testing.F) {
	f.Add(int64(time.Second), 0, int64(time.Hour))
	f.Add(int64(1), 1, int64(0))
	f.Add(int64(-1), -1, int64(5))
	f.Add(int64(1<<63-1), 1<<62, int64(1))
	f.Fuzz(func(t *testing.T, limit int64, abandon int, takes int64) {
		c := timeout.Config{Limit: time.Duration(limit), Abandon: abandon}
		if c.Validate() != nil {
			return
		}
		takes &= int64(time.Hour) - 1
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			_, err := timeout.Do(t.Context(), timeout.New(c), func(ctx context.Context) (int, error) {
				select {
				case <-ctx.Done():
					return 0, ctx.Err()
				case <-time.After(time.Duration(takes)):
					return 1, nil
				}
			})
			if took := time.Since(start); took > min(time.Duration(takes), c.Limit) || took < c.Limit && err != nil {
				t.Errorf("took %v and ended with %v at a limit of %v for a call of %v", took, err, c.Limit, time.Duration(takes))
			}
		})
	})
}

func TestTimeoutConfigReturnsWhatWasSet(t *testing.T) {
	first := timeout.Config{Name: "users", Limit: time.Second, Abandon: 3}
	policy := timeout.New(first)
	if policy.Config() != first || policy.Name() != "users" {
		t.Errorf("got %+v, %q; want %+v", policy.Config(), policy.Name(), first)
	}
	second := timeout.Config{Name: "accounts", Limit: time.Minute}
	if err := policy.SetConfig(second); err != nil || policy.Config() != second || policy.Name() != "accounts" {
		t.Errorf("got %v, %+v, %q; want %+v", err, policy.Config(), policy.Name(), second)
	}
}

func TestTimeoutSetConfigRejectsInvalidConfig(t *testing.T) {
	before := timeout.Config{Name: "users", Limit: time.Second}
	policy := timeout.New(before)
	invalid := timeout.Config{Name: "users", Limit: -1, Abandon: -1}
	if err := policy.SetConfig(invalid); err == nil || err.Error() != invalid.Validate().Error() {
		t.Errorf("got %v, want %v", err, invalid.Validate())
	}
	if policy.Config() != before {
		t.Errorf("the Config is %+v after an error, want %+v", policy.Config(), before)
	}
}

// TestTimeoutSetConfigAppliesToLaterCalls: a call in progress keeps its limit and its name.
func TestTimeoutSetConfigAppliesToLaterCalls(t *testing.T) {
	for _, abandon := range []int{0, 2} {
		synctest.Test(t, func(t *testing.T) {
			policy := timeout.New(timeout.Config{Name: "old", Limit: time.Second, Abandon: abandon})
			call := func(ctx context.Context) (int, error) {
				policy.SetConfig(timeout.Config{Name: "new", Limit: time.Minute, Abandon: abandon})
				<-ctx.Done()
				return 0, ctx.Err()
			}
			for _, want := range []timeout.Error{{Name: "old", Limit: time.Second}, {Name: "new", Limit: time.Minute}} {
				start := time.Now()
				_, err := timeout.Do(t.Context(), policy, call)
				var got *timeout.Error
				if !errors.As(err, &got) || got.Name != want.Name || got.Limit != want.Limit || time.Since(start) != want.Limit {
					t.Errorf("Abandon %d: got %v after %v, want %v of %q", abandon, err, time.Since(start), want.Limit, want.Name)
				}
			}
		})
	}
}

// TestTimeoutSetConfigKeepsAbandoned: effectors that were left running count against the new
// number.
func TestTimeoutSetConfigKeepsAbandoned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := timeout.Config{Limit: time.Second, Abandon: 5}
		policy := timeout.New(config)
		hang := func(context.Context) (int, error) { time.Sleep(time.Minute); return 0, nil }
		for range 2 {
			timeout.Do(t.Context(), policy, hang)
		}
		config.Abandon = 2
		if err := policy.SetConfig(config); err != nil || policy.Abandoned() != 2 {
			t.Fatalf("got %v with %d abandoned, want 2", err, policy.Abandoned())
		}
		if _, err := timeout.Do(t.Context(), policy, hang); !errors.Is(err, resilience.ErrRefused) {
			t.Errorf("got %v, want a refusal", err)
		}
		config.Abandon = 0
		policy.SetConfig(config)
		if _, err := timeout.Do(t.Context(), policy, func(context.Context) (int, error) { return 1, nil }); err != nil || policy.Abandoned() != 2 {
			t.Errorf("got %v with %d abandoned, want a call and 2", err, policy.Abandoned())
		}
		time.Sleep(time.Hour)
		if policy.Abandoned() != 0 {
			t.Errorf("%d abandoned after all have ended", policy.Abandoned())
		}
	})
}

func TestTimeoutSetConfigIsSafeForConcurrentUse(t *testing.T) {
	policy := timeout.After(time.Hour)
	var group errgroup.Group
	for range 4 {
		group.Go(func() error {
			for n := range 500 {
				config := policy.Config()
				config.Limit += time.Duration(n)
				if err := policy.SetConfig(config); err != nil {
					return err
				}
				if _, err := timeout.Do(context.Background(), policy, func(context.Context) (int, error) { return 1, nil }); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}
