package ratelimit

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/effector-go/resilience/internal/clock"
)

// A goroutine may have loaded the old bucket before. Its tokens are in the new one.
func TestSetRateClosesReplacedBucket(t *testing.T) {
	l := New(Config{Rate: 1e-5, Burst: 3})
	old := l.bucket.Load()
	l.SetRate(1e-5, 3)
	if _, open := old.take(0, clock.Now(), 1); open {
		t.Error("the old bucket is open")
	}
	for i := range 4 {
		if l.Allow() != (i < 3) {
			t.Errorf("call %d with 3 tokens: got %v", i+1, i >= 3)
		}
	}
}

// Another goroutine has taken that token, so this one must look again.
func TestBucketMoveFailsOnStaleArrival(t *testing.T) {
	l := New(Config{Rate: 1e-5, Burst: 2})
	b := l.bucket.Load()
	l.Allow()
	seen := b.arrive.Load()
	l.Allow()
	if b.move(seen, seen+b.token) || l.Allow() {
		t.Error("got a third token from a bucket of two")
	}
}

// Another goroutine has noticed that the clock went back, and the bucket has filled since.
func TestBucketRewindKeepsTokensThatCameSince(t *testing.T) {
	l := New(Config{Rate: 1, Burst: 2})
	b := l.bucket.Load()
	l.AllowN(2)
	stale := b.arrive.Load() // decades after the times in the bubble
	synctest.Test(t, func(t *testing.T) {
		l.Allow()
		time.Sleep(2 * time.Second)
		if b.rewind(stale); !l.AllowN(2) {
			t.Errorf("got %d tokens, want 2", b.available(clock.Now()))
		}
	})
}

// exactPace has 1497 units in 512 nanoseconds, so that many times need no rounding.
var exactPace = newPace(1, 953_428)

func TestPaceUnitsAreExactWithoutRounding(t *testing.T) {
	for _, n := range []int64{1, 1000, int64(century) / 512, int64(century) / 512 * 3 / 2} {
		if got, want := exactPace.units(512*n), 1497*uint64(n); got != want {
			t.Errorf("got %d units in %v, want %d", got, time.Duration(512*n), want)
		}
	}
}

// So a turn is never reported a nanosecond late.
func TestPaceClockIsInverseOfUnits(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, p := range []pace{exactPace, newPace(1e6, 1), newPace(0.7, 5), newPace(1.0/3600, 100), newPace(1e-8, 3)} {
		for range 1000 {
			now := random.Int64N(2 * int64(century))
			for _, want := range []int64{now, now &^ 511} {
				if got := p.clock(p.units(want)); got != want {
					t.Fatalf("%+v: got %d, want %d", p, got, want)
				}
			}
		}
	}
}
