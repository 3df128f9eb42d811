package clock

import (
	"math"
	"testing"
	"testing/synctest"
	"time"
)

func TestNowIsPositiveAndFollowsBubbleClock(t *testing.T) {
	if Now() <= 0 {
		t.Errorf("got %d, want a positive time", Now())
	}
	synctest.Test(t, func(t *testing.T) {
		before := Now()
		time.Sleep(time.Hour)
		if d := Now() - before; before <= 0 || d != int64(time.Hour) {
			t.Errorf("got %d and %v later, want positive and 1h", before, time.Duration(d))
		}
	})
}

func TestMonotonicIsInverseOfOf(t *testing.T) {
	at := time.Now()
	if back := Monotonic(uint64(Of(at))); !back.Equal(at) || back == back.Round(0) {
		t.Errorf("got %v, want %v with a monotonic reading", back, at)
	}
	synctest.Test(t, func(t *testing.T) {
		at := time.Now()
		if now := Now(); Of(at) != now {
			t.Errorf("got %d and %d at the same instant", Of(at), now)
		}
		if left := time.Until(Monotonic(uint64(Now()) + uint64(time.Hour))); left != time.Hour {
			t.Errorf("got %v until an hour from now", left)
		}
		// Times beyond the largest Duration.
		if d := Monotonic(math.MaxInt64 + 5).Sub(Monotonic(math.MaxInt64)); d != 5 {
			t.Errorf("got a difference of %v, want 5ns", d)
		}
		// The longest possible limit.
		if left := time.Until(Monotonic(uint64(Now()) + math.MaxInt64)); left < 250*365*24*time.Hour {
			t.Errorf("got %v until 292 years from now, want at least 250 years", left)
		}
	})
}

func TestAddSaturatesAtLargestTime(t *testing.T) {
	if got := Add(5, 0); got != 5 {
		t.Errorf("got %d after 0ns, want 5", got)
	}
	if Add(5, 7) != 12 || Add(Now(), math.MaxInt64) != math.MaxInt64 {
		t.Errorf("got %d and %d, want 12 and the largest time", Add(5, 7), Add(Now(), math.MaxInt64))
	}
}

func TestUntilReadsNoClockForMonotonicTime(t *testing.T) {
	at := time.Now()
	if got := Until(at, Of(at)-int64(time.Minute)); got != time.Minute {
		t.Errorf("got %v, want 1m", got)
	}
}

// TestUntilReturnsTimeFromNow covers times with a monotonic reading and without.
func TestUntilReturnsTimeFromNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, d := range []time.Duration{-time.Hour, 0, time.Nanosecond, 190 * 365 * 24 * time.Hour} {
			at := time.Now().Add(d)
			if with, without := Until(at, Now()), Until(at.Round(0), Now()); with != d || without != d {
				t.Errorf("got %v with a monotonic reading and %v without, want %v", with, without, d)
			}
		}
	})
}
