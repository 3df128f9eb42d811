package bulkhead

import "testing"

// Calls that need not wait hold no lock, so they may start or end between change's load and its
// compare-and-swap.
func TestBulkheadChangeRetriesAfterConcurrentCall(t *testing.T) {
	for name, row := range map[string]struct {
		meanwhile func(b *Bulkhead)
		running   int
	}{
		"starts": {func(b *Bulkhead) { b.enterAtOnce() }, 2},
		"ends":   {(*Bulkhead).leave, 0},
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
			t.Errorf("a call %s: got %d tries and %+v, want 2 tries, %d running, and limit 3", name, tries, s, row.running)
		}
	}
}

// take and giveBack must look again if word has changed since it was read.
func TestBulkheadTakeFailsOnStaleWord(t *testing.T) {
	b := New(Config{Limit: 3})
	b.enterAtOnce()
	seen := b.word.Load()
	b.enterAtOnce()
	if b.take(seen) || b.giveBack(seen) || b.Snapshot().Running != 2 {
		t.Errorf("got %d running, want 2", b.Snapshot().Running)
	}
}
