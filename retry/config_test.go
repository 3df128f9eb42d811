package retry_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/effector-go/resilience"
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
		{retry.Config{RetryRefused: true}, []string{"RetryRefused is true and MaxElapsed is 0"}},
		{retry.Config{MaxAttempts: -9, MaxElapsed: -8, MaxRetryAfter: -7}, []string{"MaxAttempts is -9", "MaxElapsed is -8", "MaxRetryAfter is -7"}},
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
