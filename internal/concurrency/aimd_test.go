package concurrency

import "testing"

// TestAIMDRoundCountsCallsSinceLastChange checks that calls that began before the limit changed
// don't count for the next round, and that a refusal counts for its own round alone.
func TestAIMDRoundCountsCallsSinceLastChange(t *testing.T) {
	l := NewAIMD(10, 1, 100)
	early := occupy(l, 5)
	refuse := func() {
		var passes []Pass
		for {
			p, ok := l.Enter(Highest)
			if !ok {
				break
			}
			passes = append(passes, p)
		}
		leave(l, passes, 0, Ignored)
	}
	refuse()
	call(l, 10, 0, Sample)
	if l.Limit() != 11 {
		t.Fatalf("limit %d, want 11", l.Limit())
	}

	refuse()
	leave(l, early, 0, Sample)
	call(l, 10, 0, Sample)
	if l.Limit() != 11 {
		t.Errorf("limit %d, want 11: five of the calls began when it was 10", l.Limit())
	}
	call(l, 1, 0, Sample)
	if l.Limit() != 12 {
		t.Errorf("limit %d, want 12", l.Limit())
	}

	call(l, 50, 0, Sample)
	if l.Limit() != 12 {
		t.Errorf("limit %d, want 12: none of these calls was refused", l.Limit())
	}
}
