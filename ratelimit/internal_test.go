package ratelimit

import (
	"testing"

	"github.com/effector-go/resilience/internal/clock"
)

// TestSetRateClosesReplacedBucket, though he has come by it before: what it had is in the new one.
func TestSetRateClosesReplacedBucket(t *testing.T) {
	l := New(Config{Rate: 1e-5, Burst: 3})
	old := l.bucket.Load()
	l.SetRate(1e-5, 3)
	if _, open := old.take(0, clock.Now(), 1); open {
		t.Error("the old bucket is open")
	}
	for i := range 4 {
		if l.Allow() != (i < 3) {
			t.Errorf("call %d of 3 tokens", i+1)
		}
	}
}

// TestBucketMoveFailsOnStaleArrival, but looks again: another has taken that one.
func TestBucketMoveFailsOnStaleArrival(t *testing.T) {
	l := New(Config{Rate: 1e-5, Burst: 2})
	b := l.bucket.Load()
	l.Allow()
	seen := b.arrive.Load()
	l.Allow()
	if b.move(seen, seen+b.token) || l.Allow() {
		t.Error("a third token of two")
	}
}
