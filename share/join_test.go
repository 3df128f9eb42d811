package share

import (
	"testing"
	"time"

	"github.com/effector-go/resilience/internal/clock"
)

// TestCallJoinFindsValueStoredMeanwhile, and starts no run.
func TestCallJoinFindsValueStoredMeanwhile(t *testing.T) {
	c := &call[int]{fresh: time.Hour} // without an effector
	c.last.Store(&good[int]{7, clock.Now()})
	if r, kept := c.join(t.Context()); r != nil || kept == nil || kept.value != 7 {
		t.Errorf("%v, %+v", r, kept)
	}
}
