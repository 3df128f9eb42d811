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

// Plain is the number of layers, with what is inside the pipeline, that a Run has room for. The Run of
// a larger pipeline must begin as Counted.
const Plain = 32

// Values of Run.Front after the call has run through all layers, or something else has happened. No
// layer follows them, so from then on Counted is called for each run of a layer.
const (
	Passed  = 254
	Counted = 255
)

// A Layer is what an observed pipeline does around a policy, or around what is inside the pipeline.
type Layer[Next any] interface {
	// Counted runs the policy if the call does not run through all layers for the first time. Run is
	// nil if the call has none.
	Counted(ctx context.Context, next Next, run *Run) error
	// Through is called when the call has run through all layers.
	Through(run *Run)
	// Failed is called when the policy has returned err.
	Failed(ctx context.Context, run *Run, err error)
}

// Calls are the functions of the root package, for its types Next and Policy.
type Calls[Next, Policy any] struct {
	// Enter begins a Run of the call, and returns the Next that runs the policies. The call's
	// former Next becomes what is inside the pipeline.
	Enter func(next Next, policies []Policy, watcher Watcher) (Next, *Run)
	// Layer returns a policy that runs the given one, nil for what is inside the pipeline, with what
	// the layer does around it. Position is from 1, the outermost.
	Layer func(position int, policy Policy, layer Layer[Next]) Policy
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
