package bulkhead

import "testing"

// TestAChangeIsMadeAnewWhereACallComesOrGoesMeanwhile: calls that need not wait hold no lock, so they come and go also between the look at
// the counts and the swap.
func TestAChangeIsMadeAnewWhereACallComesOrGoesMeanwhile(t *testing.T) {
	for name, row := range map[string]struct {
		meanwhile func(b *Bulkhead)
		running   int
	}{
		"comes": {func(b *Bulkhead) { b.enterAtOnce() }, 2},
		"goes":  {(*Bulkhead).leave, 0},
	} {
		b := New(Config{Limit: 2})
		b.enterAtOnce()
		tries := 0
		b.change(func(word uint64) uint64 {
			if tries++; tries == 1 {
				row.meanwhile(b)
			}
			return word&(1<<limitShift-1) | 3<<limitShift
		})
		if s := b.Snapshot(); tries != 2 || s.Running != row.running || s.Limit != 3 {
			t.Errorf("a call %s: %d tries, %+v", name, tries, s)
		}
	}
}

// TestWhoHasSeenOldCountsTakesNoPlaceAndGivesNoneBack, but looks again.
func TestWhoHasSeenOldCountsTakesNoPlaceAndGivesNoneBack(t *testing.T) {
	b := New(Config{Limit: 3})
	b.enterAtOnce()
	seen := b.word.Load()
	b.enterAtOnce()
	if b.take(seen) || b.giveBack(seen) || b.Snapshot().Running != 2 {
		t.Errorf("%d running, of 2 who have taken a place", b.Snapshot().Running)
	}
}
