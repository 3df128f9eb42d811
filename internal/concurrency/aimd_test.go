package concurrency

import "testing"

// TestARoundOfAIMDIsOfCallsThatBeganSinceTheLastChange, and a refusal counts for its own round alone.
func TestARoundOfAIMDIsOfCallsThatBeganSinceTheLastChange(t *testing.T) {
	l := NewAIMD(10, 1, 100)
	var early []Pass
	for range 5 {
		p, _ := l.Enter(Highest)
		early = append(early, p)
	}
	refuse := func() {
		var passes []Pass
		for {
			p, ok := l.Enter(Highest)
			if !ok {
				break
			}
			passes = append(passes, p)
		}
		for _, p := range passes {
			l.Leave(p, 0, Ignored)
		}
	}
	refuse()
	call(l, 10, 0, Sample)
	if l.Limit() != 11 {
		t.Fatalf("limit %d, want 11", l.Limit())
	}

	refuse()
	for _, p := range early {
		l.Leave(p, 0, Sample)
	}
	call(l, 10, 0, Sample)
	if l.Limit() != 11 {
		t.Errorf("limit %d, by calls that began when it was 10", l.Limit())
	}
	call(l, 1, 0, Sample)
	if l.Limit() != 12 {
		t.Errorf("limit %d, want 12", l.Limit())
	}

	call(l, 50, 0, Sample)
	if l.Limit() != 12 {
		t.Errorf("limit %d, though none of these was refused", l.Limit())
	}
}
