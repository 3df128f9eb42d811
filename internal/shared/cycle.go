package shared

import (
	"context"
	"slices"
	"sync"
)

// A Cycle is the error of a call that would make a run wait for itself. It is the name of the
// package that returns it. It matches the Cycle of any package, because a cycle may lead through
// several.
type Cycle string

func (c Cycle) Error() string { return string(c) + ": run would wait for its own result" }

// Is reports whether target is a Cycle.
func (c Cycle) Is(target error) bool {
	_, ok := target.(Cycle)
	return ok
}

// A Node is a run in the graph of runs that wait for each other's results. A caller belongs to the
// run whose context it uses, as long as that run lasts.
type Node struct {
	// The following are guarded by graph.
	waitsFor []*Node // one entry per waiting caller
	ended    bool
}

// graph guards the edges of all nodes, so that of two runs that begin to wait for each other
// concurrently, one sees the other's edge.
var graph sync.Mutex

type nodeKey struct{}

// NewNode returns the node of a new run, and the context for the run, which identifies it.
func NewNode(ctx context.Context) (context.Context, *Node) {
	n := new(Node)
	return context.WithValue(ctx, nodeKey{}, n), n
}

// NodeOf returns the node of the run that ctx belongs to, or nil if it belongs to none.
func NodeOf(ctx context.Context) *Node {
	n, _ := ctx.Value(nodeKey{}).(*Node)
	return n
}

// Await records that a caller of n waits for the run of other, until [Node.Done]. It records nothing
// and returns false if that run waits for n, directly or through other runs. If n is nil or has
// ended, it records nothing and returns true.
func (n *Node) Await(other *Node) bool {
	if n == nil {
		return true
	}
	graph.Lock()
	defer graph.Unlock()
	if n.ended {
		return true
	}
	if other.reaches(n, map[*Node]bool{}) {
		return false
	}
	n.waitsFor = append(n.waitsFor, other)
	return true
}

// end records that the effector of the run has ended. Its result no longer depends on anything, even
// if runs that wait for it haven't received it yet.
func (n *Node) end() {
	if n == nil {
		return
	}
	graph.Lock()
	defer graph.Unlock()
	n.ended = true
}

// Done ends one [Node.Await].
func (n *Node) Done(other *Node) {
	if n == nil {
		return
	}
	graph.Lock()
	defer graph.Unlock()
	if i := slices.Index(n.waitsFor, other); i >= 0 {
		n.waitsFor = slices.Delete(n.waitsFor, i, i+1)
	}
}

func (n *Node) reaches(target *Node, seen map[*Node]bool) bool {
	if n == target {
		return true
	}
	if n.ended || seen[n] {
		return false
	}
	seen[n] = true
	return slices.ContainsFunc(n.waitsFor, func(next *Node) bool { return next.reaches(target, seen) })
}

// Running reports whether the run can be joined: it has neither ended nor been given up. It is
// called with the owner's mutex held.
func (r *Run[T]) Running() bool { return r.state == running }
