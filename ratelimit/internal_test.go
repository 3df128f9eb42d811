package ratelimit

import (
	"testing"

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
