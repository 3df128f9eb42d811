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
			t.Errorf("got %d requests and %d accepts, want %d", requests, accepts, countMask)
		}
		if time.Sleep(2 * time.Second); w.sum(accepted, w.epoch(clock.Now())) != 0 {
			t.Error("the counter overflowed into the tag")
		}
	})
}

// The late caller has read the clock before others used its word for a later epoch.
func TestWindowLateAddCountsNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := clock.Now()
		w := newWindow(time.Second)
		time.Sleep(buckets * time.Second / span)
		w.add(others, clock.Now())
		w.add(others, before)
		if requests, _ := w.sums(clock.Now()); requests != 2 {
			t.Errorf("got %d calls, want 2", requests)
		}
	})
}

// The caller of sums has read the clock just before the epoch begins.
func TestWindowSumsNextEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before := clock.Now()
		w := newWindow(time.Second)
		time.Sleep(time.Duration(w.width))
		w.add(accepted, clock.Now())
		if _, accepts := w.sums(before); accepts != 1 {
			t.Errorf("got %d calls, want 1", accepts)
		}
	})
}

// However far the clock goes back, earlier calls are gone and new ones are counted.
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
				t.Errorf("%v back: got %d calls of the future, want 0", back, requests)
			}
		})
	}
}

func TestWindowEpochIsTenthRoundedUp(t *testing.T) {
	for length, want := range map[time.Duration]int64{1_000_000: 100_000, 1_000_001: 100_001, 1_000_009: 100_001, 1_000_010: 100_001, 1<<63 - 1: 922337203685477581} {
		if got := newWindow(length).width; got != want {
			t.Errorf("window of %d ns: got an epoch of %d ns, want %d", length, got, want)
		}
	}
}

// Two calls that are counted concurrently both count, also as the first ones of an epoch.
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
				t.Errorf("got %d calls, want %d", accepts, n)
			}
		}
	})
}
