package resiliencetest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/effector-go/resilience"
)

// A Recorder is a policy that changes nothing and records what passes through it. Where it stands in a pipeline says what it
// sees: outside of retry the calls, inside of it the attempts. The zero Recorder, with or without a Name, is ready; a
// pointer to it is the policy. It is safe for concurrent use.
type Recorder struct {
	Name string // stands in String

	mu    sync.Mutex // guards the following
	first time.Time
	runs  []Run
}

// A Run is one run of the rest of a pipeline, as a [Recorder] saw it.
type Run struct {
	Began  time.Duration // after the recorder's first run began
	Took   time.Duration
	Ended  bool  // or it runs still, and what follows is not known
	Starts int   // of the effector, in this run
	Err    error // what it returned
	Panic  any   // what it panicked with
	Goexit bool  // it ended by runtime.Goexit
}

// Run runs next and records it.
func (r *Recorder) Run(ctx context.Context, next resilience.Next) (err error) {
	i, began, starts := r.begin(), time.Now(), next.Starts()
	returned := false
	defer func() {
		value := recover()
		r.end(i, Run{
			Took: time.Since(began), Ended: true, Starts: next.Starts() - starts,
			Err: err, Panic: value, Goexit: !returned && value == nil,
		})
		if value != nil {
			panic(value) // on top of the stack that it came from
		}
	}()
	err = next.Run(ctx)
	returned = true
	return err
}

func (r *Recorder) begin() (i int) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.runs == nil {
		r.first = now
	}
	r.runs = append(r.runs, Run{Began: now.Sub(r.first)})
	return len(r.runs) - 1
}

func (r *Recorder) end(i int, run Run) {
	r.mu.Lock()
	defer r.mu.Unlock()
	run.Began = r.runs[i].Began
	r.runs[i] = run
}

// Runs gives what was recorded so far, in the order in which the runs began.
func (r *Recorder) Runs() []Run {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.runs)
}

// String tells the runs, a line for each.
func (r *Recorder) String() string {
	var text strings.Builder
	for i, run := range r.Runs() {
		if r.Name != "" {
			fmt.Fprintf(&text, "%s ", r.Name)
		}
		fmt.Fprintf(&text, "%d at %v: %v\n", i+1, run.Began, run)
	}
	return text.String()
}

// String tells how the run ended.
func (r Run) String() string {
	switch {
	case !r.Ended:
		return "still running"
	case r.Panic != nil:
		return fmt.Sprintf("panic after %v: %v", r.Took, r.Panic)
	case r.Goexit:
		return fmt.Sprintf("Goexit after %v", r.Took)
	case r.Starts == 0 && r.Err != nil:
		return fmt.Sprintf("turned away after %v: %v", r.Took, r.Err)
	case r.Err != nil:
		return fmt.Sprintf("error after %v: %v", r.Took, r.Err)
	}
	return fmt.Sprintf("ok after %v", r.Took)
}
