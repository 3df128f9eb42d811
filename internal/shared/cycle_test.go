package shared

import "testing"

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
