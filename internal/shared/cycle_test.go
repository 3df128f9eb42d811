package shared

import (
	"errors"
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

// TestNodeAwaitVisitsEachNodeOnce: each pair of runs waits for both of the next pair, so there are
// 2^60 paths.
func TestNodeAwaitVisitsEachNodeOnce(t *testing.T) {
	first, last := new(Node), [2]*Node{new(Node), new(Node)}
	first.Await(last[0])
	first.Await(last[1])
	for range 60 {
		next := [2]*Node{new(Node), new(Node)}
		for _, from := range last {
			from.Await(next[0])
			from.Await(next[1])
		}
		last = next
	}
	if !new(Node).Await(first) || last[0].Await(first) {
		t.Error("want a cycle from the last run to the first, and none from another run")
	}
}

func TestNodeIsSafeForConcurrentUse(t *testing.T) {
	waiter, other := new(Node), new(Node)
	var g errgroup.Group
	for range 4 {
		g.Go(func() error {
			for range 100 {
				if !waiter.Await(other) {
					return errors.New("a cycle of runs of which one doesn't wait")
				}
				waiter.Done(other)
			}
			return nil
		})
	}
	g.Go(func() error { other.end(); return nil })
	if err := g.Wait(); err != nil || len(waiter.waitsFor) != 0 {
		t.Errorf("got %v, and the run waits for %d others in the end, want nil and 0", err, len(waiter.waitsFor))
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
