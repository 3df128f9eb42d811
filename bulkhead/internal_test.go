package bulkhead

import "testing"

// Calls that need not wait hold no lock, so they may start or end between change's load and its
// compare-and-swap.
func TestBulkheadChangeRetriesAfterConcurrentCall(t *testing.T) {
	for name, row := range map[string]struct {
		meanwhile func(b *Bulkhead)
		running   int
	}{
		"starts": {func(b *Bulkhead) { b.tryAcquire() }, 2},
		"ends":   {(*Bulkhead).release, 0},
	} {
		b := New(Config{Limit: 2})
		b.tryAcquire()
		tries := 0
		b.change(func(word uint64) uint64 {
			if tries++; tries == 1 {
				row.meanwhile(b)
			}
			return withLimit(word, 3)
		})
		if s := b.Snapshot(); tries != 2 || s.Running != row.running || s.Limit != 3 {
			t.Errorf("a call %s: got %d tries and %+v, want 2 tries, %d running, and limit 3", name, tries, s, row.running)
		}
	}
}

// take and putBack must look again if word has changed since it was read.
func TestBulkheadTakeFailsOnStaleWord(t *testing.T) {
	b := New(Config{Limit: 3})
	b.tryAcquire()
	seen := b.word.Load()
	b.tryAcquire()
	if b.take(seen) || b.putBack(seen) || b.Snapshot().Running != 2 {
		t.Errorf("got %d running, want 2", b.Snapshot().Running)
	}
}

func TestBulkheadEnqueueTakesPlaceThatIsFreeAgain(t *testing.T) {
	b := New(Config{Limit: 2, Queue: 1})
	w, _, err := b.enqueue()
	if s := b.Snapshot(); w != nil || err != nil || s.Running != 1 || s.Waiting != 0 {
		t.Errorf("got waiter %v, %v, %d running, %d waiting, want none, nil, 1, 0", w, err, s.Running, s.Waiting)
	}
}
