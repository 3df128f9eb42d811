package breaker_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/retry"
)

// The caller and the breaker's timer wake up at the same time.
func TestRetryAfterIsExact(t *testing.T) {
	for _, c := range []breaker.Config{
		{OpenFor: 3 * time.Millisecond}, {OpenFor: 100 * time.Millisecond}, {OpenFor: 101 * time.Millisecond},
		{OpenFor: 5 * time.Second}, {OpenFor: 5 * time.Second, Jitter: 1}, {OpenFor: time.Second, MaxOpenFor: time.Minute},
	} {
		c.Consecutive = 1
		synctest.Test(t, func(t *testing.T) {
			for i := range 100 {
				b := breaker.New(c)
				after := 30 * time.Second // longer than OpenFor, at most MaxOpenFor
				breaker.Do(t.Context(), b, func(context.Context) (int, error) { return 0, resilience.WithRetryAfter(errBoom, after) })
				if i%2 == 0 {
					time.Sleep(time.Duration(i) * c.OpenFor / 100)
				}
				_, refusal := breaker.Do(t.Context(), b, succeed)
				after, ok := resilience.RetryAfter(refusal)
				if s := b.Snapshot(); !ok || after != time.Until(s.Until) {
					t.Fatalf("%+v: got RetryAfter %v, want %v", c, after, time.Until(s.Until))
				}
				if i%3 == 0 {
					b.SetConfig(c)
				}
				time.Sleep(after - 1)
				if _, err := breaker.Do(t.Context(), b, succeed); !errors.Is(err, breaker.ErrOpen) {
					t.Fatalf("%+v: got %v before the end, want a refusal", c, err)
				}
				time.Sleep(time.Nanosecond)
				if _, err := breaker.Do(t.Context(), b, succeed); err != nil {
					t.Fatalf("%+v: got %v after %v, want the call admitted", c, err, after)
				}
			}
		})
	}
}

func TestRetryWaitsOutOpenTimeOfMaxRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker.New(breaker.Config{Consecutive: 1, OpenFor: 5 * time.Second})
		run(t, b, "f")
		start := time.Now()
		err := resilience.Run(t.Context(), resilience.Pipeline{
			retry.New(retry.Config{MaxRetryAfter: 5 * time.Second, RetryRefused: true, MaxElapsed: time.Minute, Backoff: retry.Constant(0)}),
			b,
		}, func(context.Context) error { return nil })
		if took := time.Since(start); err != nil || took != 5*time.Second {
			t.Errorf("got %v after %v, want success after 5s", err, took)
		}
	})
}
