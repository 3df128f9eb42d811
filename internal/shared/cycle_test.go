package shared

import (
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"
)

// TestNodeEndedWaitsForNothing: goroutines that a run has left behind may still wait for others, but
// the run's own result is there.
func TestNodeEndedWaitsForNothing(t *testing.T) {
	first, ended, last := new(Node), new(Node), new(Node)
	if !first.Await(ended) || !ended.Await(last) {
		t.Fatal("a chain is reported as a cycle")
	}
	if last.Await(first) {
		t.Error("a cycle through a running node isn't reported")
	}
	ended.end()
	if !last.Await(first) {
		t.Error("a cycle through a node that has ended is reported")
	}
	if !ended.Await(first) || len(ended.waitsFor) != 1 {
		t.Errorf("a node that has ended waits for %d others, want only the one that it waited for before", len(ended.waitsFor))
	}
}

// TestNodeAwaitRefusesOneOfTwoConcurrentWaits: of two runs that begin to wait for each other
// concurrently, one is refused.
func TestNodeAwaitRefusesOneOfTwoConcurrentWaits(t *testing.T) {
	for range 1000 {
		a, b := new(Node), new(Node)
		var waits atomic.Int32
		var g errgroup.Group
		for _, n := range [][2]*Node{{a, b}, {b, a}} {
			g.Go(func() error {
				if n[0].Await(n[1]) {
					waits.Add(1)
				}
				return nil
			})
		}
		if g.Wait(); waits.Load() != 1 {
			t.Fatalf("%d of the two wait, want 1", waits.Load())
		}
	}
}

// TestNodeDoneAndEndAreSafeForConcurrentUse is meant for the race detector.
func TestNodeDoneAndEndAreSafeForConcurrentUse(t *testing.T) {
	for range 100 {
		a, b := new(Node), new(Node)
		var g errgroup.Group
		for _, n := range [][2]*Node{{a, b}, {b, a}} {
			g.Go(func() error {
				for range 10 {
					if n[0].Await(n[1]) {
						n[0].Done(n[1])
					}
				}
				return nil
			})
		}
		g.Go(func() error { a.end(); return nil })
		if g.Wait(); len(a.waitsFor) != 0 || len(b.waitsFor) != 0 {
			t.Fatalf("the nodes wait for %d and %d others afterwards, want 0", len(a.waitsFor), len(b.waitsFor))
		}
	}
}

// TestNodeAwaitVisitsEachRunOnce: from the first layer to the last there are 2^50 paths, which would
// take years.
func TestNodeAwaitVisitsEachRunOnce(t *testing.T) {
	first := [2]*Node{new(Node), new(Node)}
	last := first
	for range 50 {
		next := [2]*Node{new(Node), new(Node)}
		for i := range 4 {
			if !last[i/2].Await(next[i%2]) {
				t.Fatal("a chain is reported as a cycle")
			}
		}
		last = next
	}
	if !new(Node).Await(first[0]) || last[0].Await(first[0]) {
		t.Error("got a wait refused or a cycle accepted")
	}
}
