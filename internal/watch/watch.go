// Package watch lets package observe follow calls. What an observed pipeline keeps of a call is part
// of the call's state, which only the root package can access. So the root package provides functions
// for that, and package observe uses them.
package watch

import (
	"context"
	"sync/atomic"
)

// A Run is what an observed pipeline keeps of one call, or of one fork of a call. Only the goroutine
// that holds the call or the fork uses it, so it needs no lock. Counts points to atomics, which calls
// share.
//
// Most calls run through the layers in order, each layer once. For them, Front and Back are all that
// is written. Ran takes over when anything else happens.
type Run struct {
	Watcher Watcher          // the pipeline, or what it keeps in addition to this
	Counts  *[]atomic.Uint64 // where the pipeline counts what this call does
	Ran     uint32           // bit p: the latest run of the policy at position p has run the rest; set once Front is Counted
	Front   uint8            // number of layers that the call has entered in order, or Passed or Counted
	Back    uint8            // number of layers that have returned, of those that the call entered in order
	Reached bool             // what is inside the pipeline has run
	Slot    uint32           // differs for calls that run concurrently, as far as possible
}

// A Watcher follows the calls of an observed pipeline.
type Watcher interface {
	// Fork initializes the Run of a fork. Inside is the position of the layer at which the fork will
	// enter the pipeline, 0 if it is unknown.
	Fork(from, to *Run, inside int)
}

// Plain is the number of layers that a Run has room for, including what is inside the pipeline. The
// Run of a larger pipeline must begin with Front set to Counted.
const Plain = 32

// Values of Run.Front after the call has entered all layers in order, or after something else has
// happened. They are no layer's position, so from then on Counted is called for each run of a layer.
const (
	Passed  = 254
	Counted = 255
)

// A Layer is what an observed pipeline does around a policy, or around what is inside the pipeline.
type Layer[Next any] interface {
	// Counted runs the policy unless the call enters the layers in order. Run is nil if the call has
	// none.
	Counted(ctx context.Context, next Next, run *Run) error
	// Through is called when the call has entered all layers in order.
	Through(run *Run)
	// Failed is called when the policy has returned err, unless Counted ran it.
	Failed(ctx context.Context, run *Run, err error)
}

// Calls are functions of the root package. Next and Policy are its types of these names.
type Calls[Next, Policy any] struct {
	// Enter begins a Run of the call and returns the Next that runs the policies. What the given Next
	// would run becomes what is inside the pipeline.
	Enter func(next Next, policies []Policy, watcher Watcher) (Next, *Run)
	// Layer returns a policy that runs the given one with what the layer does around it. A nil policy
	// means what is inside the pipeline. Position counts from 1, the outermost.
	Layer func(position int, policy Policy, layer Layer[Next]) Policy
	// Leave ends the latest Run of the call. It must be called for each Enter, also after a panic. If
	// reuse is true, nothing refers to the Run any more, and another call will use it.
	Leave func(next Next, reuse bool)
	// Of returns the latest Run of the call, nil if it has none.
	Of func(next Next) *Run
	// Inside runs what is inside the pipeline of the latest Run.
	Inside func(ctx context.Context, next Next) error
}

// provided is written once, by an init function, and only read afterwards.
var provided any

// Provide is called by an init function of the root package.
func Provide[Next, Policy any](calls Calls[Next, Policy]) { provided = calls }

// Use returns what was provided.
func Use[Next, Policy any]() Calls[Next, Policy] { return provided.(Calls[Next, Policy]) }
