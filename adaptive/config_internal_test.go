package adaptive

import (
	"runtime"
	"testing"

	"golang.org/x/sync/errgroup"
)

// Otherwise the bounds of one Config might remain with the other fields of another.
func TestLimiterSetConfigWaitsForConcurrentSetConfig(t *testing.T) {
	l := New(Config{Name: "old"})
	l.changing.Lock() // another SetConfig is under way
	var g errgroup.Group
	g.Go(func() error { return l.SetConfig(Config{Name: "new", Max: 5}) })
	for range 1000 {
		runtime.Gosched() // g's goroutine gets its turn
	}
	if l.Name() != "old" || l.Limit() != defaultInitial {
		t.Errorf("got %+v during another SetConfig, want no change", l.Snapshot())
	}
	l.changing.Unlock()
	if err := g.Wait(); err != nil || l.Name() != "new" || l.Limit() != 5 {
		t.Errorf("got %v, %+v afterwards, want the new name with a limit of 5", err, l.Snapshot())
	}
}
