package shared

import (
	"context"
	"errors"
	"slices"
	"sync"
)

// ErrCycle is the error of a call that would make a run wait for itself.
var ErrCycle = errors.New("resilience: run would wait for its own result")

// A Node is a run in the graph of runs that wait for each other's results. A caller belongs to the
// run whose context it uses.
type Node struct {
	waitsFor []*Node // one entry per waiting caller; guarded by graph
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

// Await records that a caller of n waits for the run of other, until [Node.Done]. It returns
// [ErrCycle], and records nothing, if that run waits for n, directly or through other runs. A nil n
// records nothing.
func (n *Node) Await(other *Node) error {
	if n == nil {
		return nil
	}
	graph.Lock()
	defer graph.Unlock()
	if other.reaches(n, map[*Node]bool{}) {
		return ErrCycle
	}
	n.waitsFor = append(n.waitsFor, other)
	return nil
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
	if seen[n] {
		return false
	}
	seen[n] = true
	return slices.ContainsFunc(n.waitsFor, func(next *Node) bool { return next.reaches(target, seen) })
}

// Running reports whether the run can be joined: it has neither ended nor been given up. It is
// called with the owner's mutex held.
func (r *Run[T]) Running() bool { return r.state == running }
