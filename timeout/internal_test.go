package timeout

import (
	"testing"
	"time"
)

// TestNoFewerThanNoneAreLeftBehind where an effector ends before its caller has counted it.
func TestNoFewerThanNoneAreLeftBehind(t *testing.T) {
	timeout := After(time.Second)
	if timeout.left.n.Add(-1); timeout.Abandoned() != 0 {
		t.Errorf("%d abandoned", timeout.Abandoned())
	}
}
