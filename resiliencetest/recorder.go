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

// A Recorder is a policy that records what passes through it and changes nothing. What it sees
// depends on its place in the pipeline: calls outside retry, attempts inside. Like any policy, it
// doesn't see values.
//
// The zero Recorder is ready to use; its pointer is the policy. It is safe for concurrent use. It
// keeps every run that it has recorded. It recovers a panic and panics again with the same value,
// on the same stack.
type Recorder struct {
	Name string // the prefix of the lines of String

	mu    sync.Mutex // guards the following
	first time.Time  // when runs[0] began
	runs  []Run      // in the order in which they began
}

// A Run is one run of the rest of the pipeline, as a [Recorder] saw it.
type Run struct {
	Began  time.Duration // time since the recorder's first run began
	Ended  bool          // false while the run is running; the following fields are zero until it ends
	Took   time.Duration // how long it ran
	Starts int           // number of starts of the effector; 0 if an inner policy refused the call
	Err    error         // the error that it returned
	Panic  any           // the value that it panicked with, nil if it didn't panic
	Goexit bool          // whether it ended with runtime.Goexit, as t.FailNow does
}

// Run runs next, records the run, and returns its error.
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

// Report describes the policy. It has no values.
func (r *Recorder) Report() resilience.Report {
	return resilience.Report{Kind: "resiliencetest", Name: r.Name}
}

func (r *Recorder) begin() (i int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now() // with mu held, so that the runs are in order
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

// Runs returns a copy of the runs so far, in the order in which they began. It may be called while
// calls are running.
func (r *Recorder) Runs() []Run {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.runs)
}

// String returns one line for each run, in the order in which they began, for example
// "attempt 2 at 1.1s: error after 100ms: EOF".
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

// String returns how the run ended, in one line, for example "ok after 2s".
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
		return fmt.Sprintf("refused after %v: %s", r.Took, oneLine(r.Err))
	case r.Err != nil:
		return fmt.Sprintf("error after %v: %s", r.Took, oneLine(r.Err))
	}
	return fmt.Sprintf("ok after %v", r.Took)
}

// oneLine returns the text of a value in one line. The text of an errors.Join error has several.
func oneLine(value any) string {
	return strings.ReplaceAll(fmt.Sprint(value), "\n", "; ")
}
