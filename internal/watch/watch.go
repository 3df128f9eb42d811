// Package watch lets package observe follow calls. What an observed pipeline keeps of a call is part
// of the call's state, which only the root package can access: the root package provides functions
// for that here, and package observe uses them.
package watch

import (
	"context"
	"sync/atomic"
)

// A Run is what an observed pipeline keeps of one call, or of one fork of a call. It belongs to the
// goroutine that holds the call or the fork.
type Run struct {
	Watcher Watcher          // the pipeline, or what it keeps in addition to this
	Counts  *[]atomic.Uint64 // where the pipeline counts what this call does
	Ran     uint32           // by layer: whether the current run of its policy has run the rest
	Front   uint8            // the layer that the call has reached, while it runs through each for the first time
	Back    uint8            // layers that have returned, likewise
	Reached bool             // what is inside the pipeline has run
	Slot    uint32           // differs for calls that run concurrently, as far as possible
}

// A Watcher follows the calls of an observed pipeline.
type Watcher interface {
	// Fork initializes the Run of a fork. Inside is the position of the layer at which the fork will
	// enter the pipeline, 0 if it is unknown.
	Fork(from, to *Run, inside int)
}

// A Layer is a policy of an observed pipeline, with what is recorded around it.
type Layer interface {
	Position(Friend) int // from 1, the outermost
}

// Friend restricts a method to this module: other modules can't name the type, so they can't have
// the method.
type Friend struct{}

// Calls are the functions of the root package, for its types Next and Policy.
type Calls[Next, Policy any] struct {
	// Enter begins a Run of the call, and returns the Next that runs the policies. The call's
	// former Next becomes what is inside the pipeline.
	Enter func(next Next, policies []Policy, watcher Watcher) (Next, *Run)
	// Leave ends the latest Run of the call. It must be called for each Enter, panics included. Reuse
	// states that nothing refers to the Run any more, so that another call can use it.
	Leave func(next Next, reuse bool)
	// Of returns the latest Run of the call, nil if it has none.
	Of func(next Next) *Run
	// Inside runs what is inside the pipeline of the latest Run.
	Inside func(ctx context.Context, next Next) error
}

var provided any

// Provide is called by an init function of the root package.
func Provide[Next, Policy any](calls Calls[Next, Policy]) { provided = calls }

// Use returns what was provided.
func Use[Next, Policy any]() Calls[Next, Policy] { return provided.(Calls[Next, Policy]) }
