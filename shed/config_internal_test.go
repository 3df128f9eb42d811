package shed

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// Otherwise calls might be counted in a window that another SetConfig replaces by one of the same
// length.
func TestShedderSetConfigWaitsForConcurrentSetConfig(t *testing.T) {
	s := New(Config{Name: "old"})
	s.changing.Lock() // another SetConfig is under way
	var g errgroup.Group
	g.Go(func() error { return s.SetConfig(Config{Name: "new", Window: time.Hour}) })
	for range 1000 {
		runtime.Gosched() // g's goroutine gets its turn
	}
	if s.Name() != "old" {
		t.Errorf("got %+v during another SetConfig, want no change", s.Config())
	}
	s.changing.Unlock()
	if err := g.Wait(); err != nil || s.Name() != "new" || s.Config().Window != time.Hour {
		t.Errorf("got %v, %+v afterwards, want the new Config", err, s.Config())
	}
}
