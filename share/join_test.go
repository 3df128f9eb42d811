package share

import (
	"testing"
	"time"

	"github.com/effector-go/resilience/internal/clock"
)

// The caller waited for the lock while another stored the value. It starts no run.
func TestCallJoinFindsValueStoredMeanwhile(t *testing.T) {
	c := newCall[int](Config{Fresh: time.Hour}, nil)
	c.last.Store(&good[int]{7, clock.Now()})
	if j, err := c.join(t.Context(), nil); j.run != nil || j.refresh || j.kept == nil || j.kept.value != 7 || err != nil {
		t.Errorf("got %+v, %v, want the value 7", j, err)
	}
}
