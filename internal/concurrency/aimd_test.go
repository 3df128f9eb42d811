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

// TestAIMDRoundForgetsWhatWasBefore checks a round that follows one at the largest limit, and one
// that follows a change of the bounds.
func TestAIMDRoundForgetsWhatWasBefore(t *testing.T) {
	l := NewAIMD(10, 1, 10)
	leave(l, occupy(l, 10), 0, Sample)
	l.SetBounds(1, 100)
	if call(l, 30, 0, Sample); l.Limit() != 10 {
		t.Errorf("limit %d, want 10: ten calls ran in an earlier round only", l.Limit())
	}

	leave(l, occupy(l, 5), 0, Sample)
	l.SetBounds(20, 100)
	passes := occupy(l, 20)
	if leave(l, passes[:19], 0, Sample); l.Limit() != 20 {
		t.Errorf("limit %d after 19 calls, want 20", l.Limit())
	}
	if leave(l, passes[19:], 0, Sample); l.Limit() != 21 {
		t.Errorf("limit %d after 20 calls, want 21", l.Limit())
	}

	passes = occupy(l, 21)
	if _, ok := l.Enter(Highest); ok {
		t.Fatal("a call above the limit was admitted")
	}
	l.SetBounds(30, 100)
	leave(l, passes, 0, Ignored)
	if call(l, 60, 0, Sample); l.Limit() != 30 {
		t.Errorf("limit %d, want 30: a call was refused in an earlier round only", l.Limit())
	}
}

// TestAIMDLooksOnceARound checks when a round may be over: not before as many calls have left as it
// lacks.
func TestAIMDLooksOnceARound(t *testing.T) {
	l := NewAIMD(10, 1, 100)
	a := l.law.(*aimd)
	due := func() bool { return a.due(l.word.Load()) }
	for round := range 3 {
		call(l, 6, 0, Ignored)
		call(l, 3, 0, Sample)
		if due() {
			t.Errorf("round %d: due after 9 calls, want 10", round)
		}
		call(l, 1, 0, Sample)
		if due() || a.ends != 4 || a.next != left(l.word.Load())+6 {
			t.Errorf("round %d: due %v, next at %d; want false, since 6 calls are lacking, and %d", round, due(), a.next, left(l.word.Load())+6)
		}
		call(l, 6, 0, Sample)
		if due() || a.ends != 0 || a.next != left(l.word.Load())+10 {
			t.Errorf("round %d: due %v, %d count, next at %d; want a new round until %d", round, due(), a.ends, a.next, left(l.word.Load())+10)
		}
	}
}

// TestAIMDDueWithOverflow checks the comparison once the number of calls has overflowed.
func TestAIMDDueWithOverflow(t *testing.T) {
	const all = 1 << leftBits
	for _, test := range []struct {
		next, left uint64
		want       bool
	}{
		{10, 9, false}, {10, 10, true}, {10, all - 1, false}, {all + 5, 5, true}, {all + 5, 4, false},
		{all + 5, all - 1, false}, {0, all/2 - 1, true}, {0, all / 2, false},
	} {
		if got := (&aimd{next: int(test.next)}).due(test.left << leftShift); got != test.want {
			t.Errorf("%+v: got %v", test, got)
		}
	}
}
