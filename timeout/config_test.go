package timeout_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/effector-go/resilience/timeout"
)

// What Validate accepts is made and used without a panic, and keeps its limit.
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
