package retry_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/retry"
)

func TestConfigValidateReportsAllErrors(t *testing.T) {
	for _, test := range []struct {
		config retry.Config
		wants  []string
	}{
		{retry.Config{MaxAttempts: -2}, []string{"retry: MaxAttempts is -2, must be positive, 0 for the default 3 or Unlimited (-1)"}},
		{retry.Config{Name: "x", MaxElapsed: -1}, []string{"retry x: MaxElapsed is -1ns, must be positive"}},
		{retry.Config{MaxRetryAfter: -1}, []string{"MaxRetryAfter is -1ns, must be positive"}},
		{retry.Config{ResetAfter: -1}, []string{"ResetAfter is -1ns, must be positive, or 0 for never"}},
		{retry.Config{RetryRefused: true}, []string{"RetryRefused is true and MaxElapsed is 0"}},
		{retry.Config{MaxAttempts: -9, MaxElapsed: -8, MaxRetryAfter: -7, ResetAfter: -6}, []string{"MaxAttempts is -9", "MaxElapsed is -8", "MaxRetryAfter is -7", "ResetAfter is -6"}},
	} {
		err := test.config.Validate()
		if err == nil {
			t.Errorf("%+v: got no error", test.config)
			continue
		}
		for _, want := range test.wants {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("got %q, want it to contain %q", err, want)
			}
		}
		func() {
			defer func() {
				if got := recover(); got != err.Error() {
					t.Errorf("New panicked with %v, want %q", got, err)
				}
			}()
			retry.New(test.config)
		}()
	}
	if err := (retry.Config{}).Validate(); err != nil {
		t.Errorf("zero Config: got %v, want nil", err)
	}
}

func FuzzRetryRunsWithAnyValidConfig(f *testing.F) {
	f.Add("", 0, int64(0), int64(0), false, int64(0), 2)
	f.Add("x", -1, int64(time.Hour), int64(1), true, int64(1<<62), 9)
	f.Add("x", 5, int64(1<<63-1), int64(1<<63-1), true, int64(1<<63-1), 3)
	f.Fuzz(func(t *testing.T, name string, attempts int, elapsed, maxAfter int64, refused bool, after int64, failures int) {
		config := retry.Config{Name: name, MaxAttempts: attempts, MaxElapsed: time.Duration(elapsed), MaxRetryAfter: time.Duration(maxAfter), RetryRefused: refused}
		if config.Validate() != nil {
			return
		}
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
			defer cancel()
			n, want := 0, max(failures%20, -(failures%20))
			err := resilience.Run(ctx, resilience.Pipeline{retry.New(config), refuseFirst(want/2, refusal{time.Duration(after)})}, func(context.Context) error {
				if n++; n <= want {
					return resilience.WithRetryAfter(errBoom, time.Duration(after))
				}
				return nil
			})
			if err != nil && !errors.Is(err, errBoom) && !errors.Is(err, resilience.ErrRefused) {
				t.Errorf("%+v: %v", config, err)
			}
			if err != nil && err.Error() == "" {
				t.Error("got an error without text")
			}
		})
	})
}

func TestRetryConfigReturnsDefaultsAndWhatWasSet(t *testing.T) {
	r := retry.New(retry.Config{})
	if got, want := fmt.Sprintf("%+v", r.Config()), fmt.Sprintf("%+v", retry.Config{MaxAttempts: 3, MaxRetryAfter: time.Minute}); got != want || r.Name() != "" {
		t.Errorf("got %s, want %s", got, want)
	}
	full := retry.Config{Name: "users", MaxAttempts: retry.Unlimited, MaxElapsed: 1, MaxRetryAfter: 2, ResetAfter: 3, RetryRefused: true,
		Backoff: now, RetryIf: func(error) bool { return true }, Budget: budget.New(budget.Config{Ratio: 1}),
		OnRetry: func(context.Context, retry.Event) {}, OnGiveUp: func(context.Context, *retry.ExhaustedError) {}}
	if err := r.SetConfig(full); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprintf("%+v", r.Config()), fmt.Sprintf("%+v", full); got != want || r.Name() != "users" {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestRetrySetConfigRejectsInvalidConfig(t *testing.T) {
	r := retry.New(retry.Config{Name: "users", MaxAttempts: 5})
	before := fmt.Sprintf("%+v", r.Config())
	invalid := retry.Config{MaxAttempts: -2, MaxElapsed: -1}
	if err := r.SetConfig(invalid); err == nil || err.Error() != invalid.Validate().Error() {
		t.Errorf("got %v, want %v", err, invalid.Validate())
	}
	if got := fmt.Sprintf("%+v", r.Config()); got != before {
		t.Errorf("got %s after an error, want %s", got, before)
	}
}

// TestRetrySetConfigAppliesToLaterCalls: a call in progress finishes with the Config that it began
// with.
func TestRetrySetConfigAppliesToLaterCalls(t *testing.T) {
	both(t, func(t *testing.T, do doer) {
		gaveUp := ""
		hook := func(name string) func(context.Context, *retry.ExhaustedError) {
			return func(context.Context, *retry.ExhaustedError) { gaveUp += name }
		}
		before := budget.New(budget.Config{Ratio: 10, TTL: time.Hour})
		r := retry.New(retry.Config{Name: "before", MaxAttempts: 4, Backoff: retry.Constant(time.Second), Budget: before, OnGiveUp: hook("before")})
		fn := func(context.Context) (int, error) {
			if err := r.SetConfig(retry.Config{Name: "after", MaxAttempts: 2, Backoff: retry.Constant(time.Minute), OnGiveUp: hook("after")}); err != nil {
				t.Error(err)
			}
			return 0, errBoom
		}
		for _, want := range []struct {
			name     string
			attempts int
			took     time.Duration
		}{{"before", 4, 3 * time.Second}, {"after", 2, time.Minute}} {
			gaveUp = ""
			began := time.Now()
			_, err := do(t.Context(), r, fn)
			e := exhausted(t, err, retry.ReasonAttempts, want.attempts)
			if e.Name != want.name || gaveUp != want.name || time.Since(began) != want.took {
				t.Errorf("got %q, hook of %q, after %v, want %q after %v", e.Name, gaveUp, time.Since(began), want.name, want.took)
			}
		}
		left := 0
		for before.Withdraw() {
			left++
		}
		if left != 7 {
			t.Errorf("got %d tokens left in the first budget, want 7", left)
		}
	})
}

// TestRetrySetConfigOfOwnConfigKeepsCost: a call that succeeds still allocates nothing.
func TestRetrySetConfigOfOwnConfigKeepsCost(t *testing.T) {
	r := retry.New(retry.Config{})
	if err := r.SetConfig(r.Config()); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if n := testing.AllocsPerRun(100, func() { _, _ = retry.Do(ctx, r, succeed) }); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
	fn, _ := failing(9, errBoom)
	synctest.Test(t, func(t *testing.T) { _, _ = retry.Do(t.Context(), r, fn) })
	if c := r.Config(); c.Backoff != nil || c.Budget != nil || c.RetryIf != nil || c.OnRetry != nil || c.OnGiveUp != nil {
		t.Errorf("got %+v, want no functions and no budget", c)
	}
}

func TestRetrySetConfigIsSafeForConcurrentUse(t *testing.T) {
	r := retry.New(retry.Config{Backoff: now})
	var group errgroup.Group
	for range 4 {
		group.Go(func() error {
			for n := range 500 {
				config := r.Config()
				config.MaxAttempts = 2 + n%5
				if err := r.SetConfig(config); err != nil {
					return err
				}
				fn, _ := failing(1, errBoom)
				if _, err := retry.Do(context.Background(), r, fn); err != nil {
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
