package shed

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/effector-go/resilience/internal/clock"
)

func TestWindowFullCounterStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := clock.Now()
		w := newWindow(time.Second)
		w.ring[accepted][w.epoch(now)%buckets].Store(tag(w.epoch(now)) | countMask - 1)
		for range 3 {
			w.add(accepted, now)
		}
		if requests, accepts := w.sums(now); requests != countMask || accepts != countMask {
			t.Errorf("%d requests, %d accepts", requests, accepts)
		}
		if time.Sleep(2 * time.Second); w.sum(accepted, w.epoch(clock.Now())) != 0 {
			t.Error("it ran over into the tag")
		}
	})
}

// TestWindowLateAddCountsNow: he has read the clock, and others have used his word for a later epoch since.
func TestWindowLateAddCountsNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := clock.Now()
		w := newWindow(time.Second)
		time.Sleep(buckets * time.Second / span)
		w.add(others, clock.Now())
		w.add(others, before)
		if requests, _ := w.sums(clock.Now()); requests != 2 {
			t.Errorf("%d calls counted, of 2", requests)
		}
	})
}

// TestWindowSumsNextEpoch for one that has read the clock just before it begins.
func TestWindowSumsNextEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := clock.Now()
		w := newWindow(time.Second)
		time.Sleep(time.Duration(w.width))
		w.add(accepted, clock.Now())
		if _, accepts := w.sums(before); accepts != 1 {
			t.Errorf("%d calls counted, of 1", accepts)
		}
	})
}

// TestWindowSurvivesClockGoingBack by any time: what was counted before is gone, and what is counted then is there.
func TestWindowSurvivesClockGoingBack(t *testing.T) {
	for _, back := range []time.Duration{2 * time.Second, time.Minute, 26 * 365 * 24 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			w := newWindow(time.Second)
			for range buckets {
				w.add(others, clock.Now())
				time.Sleep(time.Duration(w.width))
			}
			now := clock.Now() - int64(back)
			if requests, _ := w.sums(now); requests != 0 {
				t.Errorf("%v back: %d calls of the future", back, requests)
			}
		})
	}
}

func TestWindowEpochIsTenthRoundedUp(t *testing.T) {
	for length, want := range map[time.Duration]int64{1_000_000: 100_000, 1_000_001: 100_001, 1_000_009: 100_001, 1_000_010: 100_001, 1<<63 - 1: 922337203685477581} {
		if got := newWindow(length).width; got != want {
			t.Errorf("%d ns: %d, want %d", length, got, want)
		}
	}
}

// TestWindowCountsConcurrentAdds, also as the first of an epoch.
func TestWindowCountsConcurrentAdds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWindow(time.Second)
		for n := 2; n <= 4; n += 2 {
			w.between = func() {
				w.between = nil
				w.add(accepted, clock.Now())
			}
			w.add(accepted, clock.Now())
			if _, accepts := w.sums(clock.Now()); accepts != int64(n) {
				t.Errorf("%d calls counted, of %d", accepts, n)
			}
		}
	})
}
