package share

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/effector-go/resilience/internal/clock"
)

// The caller waited for the lock while another stored the value. It starts no run.
func TestCallJoinFindsValueStoredMeanwhile(t *testing.T) {
	c := newCall[int](Config{Fresh: time.Hour, Revalidate: time.Hour}, nil)
	c.last.Store(&good[int]{7, clock.Now()})
	if j, err := c.join(t.Context(), nil); j.run != nil || j.refresh || j.kept == nil || j.kept.value != 7 || err != nil {
		t.Errorf("got %+v, %v, want the value 7", j, err)
	}
}

// Of the callers that find an old value, one refreshes it: before its run begins, while it lasts, and
// again once it has ended.
func TestCallJoinLetsOneCallerRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCall(Config{Fresh: time.Minute, Revalidate: time.Hour}, func(context.Context) (int, error) {
			time.Sleep(time.Second)
			return 0, context.DeadlineExceeded
		})
		c.last.Store(&good[int]{7, clock.Now()})
		time.Sleep(time.Minute)
		join := func(when string, refresh bool) {
			t.Helper()
			if j, err := c.join(t.Context(), nil); j.kept == nil || j.refresh != refresh || err != nil {
				t.Errorf("%s: got %+v, %v, want the value with refresh %t", when, j, err, refresh)
			}
		}
		join("the first caller", true)
		join("before its run begins", false)
		c.refresh(t.Context(), nil)
		join("during the run", false)
		time.Sleep(2 * time.Second)
		join("after the run", true)
	})
}

// A caller that is about to refresh a value is late: the value has expired, and another caller has
// started a run. A second run doesn't begin, and the key isn't held for it.
func TestCallRefreshReleasesIfRunExists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runs := 0
		c := newCall(Config{Fresh: time.Minute, Revalidate: time.Hour}, func(context.Context) (int, error) {
			runs++
			time.Sleep(time.Second)
			return 8, nil
		})
		go c.effect(t.Context())
		synctest.Wait()
		released := 0
		c.refresh(t.Context(), func() { released++ })
		if released != 1 {
			t.Errorf("got %d releases during the other run, want 1", released)
		}
		c.refresh(t.Context(), nil) // of an effector without keys
		time.Sleep(time.Minute)
		if synctest.Wait(); runs != 1 || released != 1 {
			t.Errorf("got %d runs and %d releases, want 1 of each", runs, released)
		}
	})
}

func TestCallDoOfCycleAsksForNoRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c *call[int]
		c = newCall(Config{}, func(ctx context.Context) (int, error) {
			if _, refresh, err := c.do(ctx); refresh || err != ErrCycle {
				t.Errorf("got refresh %t, %v, want false, ErrCycle", refresh, err)
			}
			return 1, nil
		})
		if value, err := c.effect(t.Context()); value != 1 || err != nil {
			t.Errorf("got %d, %v, want 1", value, err)
		}
	})
}
