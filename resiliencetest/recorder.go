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

// A Recorder is a policy that changes nothing and records what passes through it. Where it stands in a pipeline is what it
// sees: outside of retry the calls, inside of it the attempts. It does not see values: no policy does.
//
// The zero Recorder is ready, and a pointer to it is the policy. It is safe for concurrent use. It keeps all that it has
// recorded, and takes a panic up and panics again with the same value, on top of the same stack.
type Recorder struct {
	Name string // what its lines in String begin with

	mu    sync.Mutex // guards the following
	first time.Time  // when runs[0] began
	runs  []Run      // in the order in which they began
}

// A Run is one run of the rest of a pipeline, as a [Recorder] saw it.
type Run struct {
	Began  time.Duration // since the recorder's first run began
	Ended  bool          // false while it is running; the rest is zero then
	Took   time.Duration
	Starts int   // how often it started the effector; 0: the call was turned away further in
	Err    error // what it returned
	Panic  any   // what it panicked with, nil if it did not
	Goexit bool  // whether it ended by runtime.Goexit, as with t.FailNow
}

// Run runs next, records it and returns its error.
func (r *Recorder) Run(ctx context.Context, next resilience.Next) (err error) {
	i := r.begin()
	starts, returned := next.Starts(), false
	defer func() {
		value := recover()
		r.end(i, Run{Starts: next.Starts() - starts, Err: err, Panic: value, Goexit: !returned && value == nil})
		if value != nil {
			panic(value)
		}
	}()
	err = next.Run(ctx)
	returned = true
	return err
}

func (r *Recorder) begin() (i int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now() // under mu, so that the runs are in order
	if len(r.runs) == 0 {
		r.first = now
	}
	r.runs = append(r.runs, Run{Began: now.Sub(r.first)})
	return len(r.runs) - 1
}

func (r *Recorder) end(i int, run Run) {
	r.mu.Lock()
	defer r.mu.Unlock()
	run.Ended = true
	run.Began = r.runs[i].Began
	run.Took = time.Since(r.first) - run.Began
	r.runs[i] = run
}

// Runs gives what was recorded so far, in the order in which the runs began. It may be called while calls are running.
func (r *Recorder) Runs() []Run {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.runs)
}

// String tells the runs in the order in which they began, a line for each, as in "attempt 2 at 1.1s: error after 100ms: EOF".
func (r *Recorder) String() string {
	var text strings.Builder
	for i, run := range r.Runs() {
		if r.Name != "" {
			text.WriteString(r.Name + " ")
		}
		fmt.Fprintf(&text, "%d at %v: %v\n", i+1, run.Began, run)
	}
	return text.String()
}

// String tells how the run ended, in one line: "ok after 2s".
func (r Run) String() string {
	switch {
	case !r.Ended:
		return "still running"
	case r.Panic != nil:
		value := r.Panic
		if elsewhere, ok := value.(*resilience.PanicError); ok {
			value = elsewhere.Value // without the stack
		}
		return fmt.Sprintf("panic after %v: %s", r.Took, oneLine(value))
	case r.Goexit:
		return fmt.Sprintf("Goexit after %v", r.Took)
	case r.Err != nil && r.Starts == 0:
		return fmt.Sprintf("turned away after %v: %s", r.Took, oneLine(r.Err))
	case r.Err != nil:
		return fmt.Sprintf("error after %v: %s", r.Took, oneLine(r.Err))
	}
	return fmt.Sprintf("ok after %v", r.Took)
}

// oneLine is the text of an error or another value; that of errors.Join has a line for each error.
func oneLine(value any) string {
	return strings.ReplaceAll(fmt.Sprint(value), "\n", "; ")
}
