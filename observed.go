package resilience

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/effector-go/resilience/internal/watch"
)

func init() {
	watch.Provide(watch.Calls[Next, Policy]{Enter: enter, Layer: newLayer, Leave: leave, Of: runOf, Inside: runInside})
}

// A watched call is a call, or a fork, while it runs through an observed pipeline. It takes the
// place of the call that it wraps, so calls that aren't observed pay nothing.
type watched struct {
	call            // as it is outside the pipeline
	inside []Policy // what follows the pipeline
	watch.Run
}

// A pool of watched calls saves most calls an allocation, and the collector its work. The pool
// returns one that the same processor has used before, so slots tell processors apart.
var (
	watchedPool = sync.Pool{New: func() any { return &watched{Run: watch.Run{Slot: slots.Add(1)}} }}
	slots       atomic.Uint32
)

func enter(n Next, policies []Policy, watcher watch.Watcher) (Next, *watch.Run) {
	w := watchedPool.Get().(*watched)
	w.call, w.inside, w.Watcher = n.facts.call, n.policies, watcher
	n.facts.call = w
	return Next{n.facts, policies}, &w.Run
}

func leave(n Next, reuse bool) {
	w, ok := n.facts.call.(*watched)
	if !ok {
		return
	}
	n.facts.call = w.call
	if reuse {
		*w = watched{Run: watch.Run{Slot: w.Slot}}
		watchedPool.Put(w)
	}
}

// A layer is a policy of an observed pipeline, or, without a policy, what is inside the pipeline.
type layer struct {
	policy   Policy
	position int   // from 1
	before   uint8 // Front when the call gets here on its run through all layers
	watch.Layer[Next]
}

func newLayer(position int, policy Policy, around watch.Layer[Next]) Policy {
	before := uint8(watch.Passed - 1) // no call gets here on such a run: see watch.Plain
	if position <= watch.Plain {
		before = uint8(position - 1)
	}
	return &layer{policy, position, before, around}
}

// Run is the path of every observed call. Whatever is not part of a run through all layers, each for
// the first time, is left to Counted.
func (l *layer) Run(ctx context.Context, next Next) (err error) {
	w, ok := next.facts.call.(*watched)
	if !ok { // a policy uses its Next after it has returned
		return l.Counted(ctx, next, nil)
	}
	if w.Front != l.before {
		return l.Counted(ctx, next, &w.Run)
	}
	if l.policy != nil {
		w.Front = l.before + 1
		err = l.policy.Run(ctx, next)
	} else {
		w.Front, w.Reached = watch.Passed, true
		l.Through(&w.Run)
		err = w.runInside(ctx, next)
	}
	if err != nil {
		l.Failed(ctx, &w.Run, err)
	}
	w.Back++
	return err
}

func runOf(n Next) *watch.Run {
	if w, ok := n.facts.call.(*watched); ok {
		return &w.Run
	}
	return nil
}

func runInside(ctx context.Context, n Next) error {
	if w, ok := n.facts.call.(*watched); ok {
		return w.runInside(ctx, n)
	}
	return n.Run(ctx)
}

func (w *watched) runInside(ctx context.Context, n Next) error {
	if len(w.inside) == 0 {
		return w.call.start(ctx)
	}
	// The policies inside run outside of the pipeline's Run, like the effector.
	n.facts.call = w.call
	defer func() { n.facts.call = w }() // panics too: a policy may recover and run the call again
	return Next{n.facts, w.inside}.Run(ctx)
}

// fork forks the call with the Runs of all pipelines that it runs through.
func (w *watched) fork(rest []Policy) *facts {
	f := w.call.fork(w.inside)
	fork := &watched{call: f.call, inside: w.inside}
	f.call = fork
	w.Watcher.Fork(&w.Run, &fork.Run, firstLayer(rest))
	return f
}

// firstLayer returns the position of the first layer among policies, 0 if there is none.
func firstLayer(policies []Policy) int {
	for _, policy := range policies {
		if l, ok := policy.(*layer); ok {
			return l.position
		}
	}
	return 0
}

// unwatched returns the call that c wraps, at any depth.
func unwatched(c call) call {
	for {
		w, ok := c.(*watched)
		if !ok {
			return c
		}
		c = w.call
	}
}
