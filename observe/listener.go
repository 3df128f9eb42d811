package observe

import (
	"context"
	"fmt"
	"time"

	"github.com/effector-go/resilience"
)

// A Listener is called during each call of a pipeline, on the goroutine of the call or, for starts that
// a policy runs on another goroutine, on that one; never concurrently for one call. Its functions must
// be safe for concurrent use, because calls are concurrent. They can make calls and snapshots. Each
// function can be nil. A panic of a function is the call's panic.
//
// A function that returns a context can add values to it; the policies, the effector, and the next
// listener receive the result. A nil context changes nothing.
type Listener struct {
	// Begin is called before the outermost policy.
	Begin func(ctx context.Context, call *Call) context.Context
	// Attempt is called before each run of what is inside the pipeline. Number counts from 1. The
	// returned function, if not nil, is called once, when the attempt ends. That can be after End,
	// for a hedge or an abandoned call.
	Attempt func(ctx context.Context, call *Call, number int) (context.Context, func(Result, error))
	// Event is called when a policy refused the call, started it again, or gave up. The context is
	// that of the new run for Retry and Hedge, otherwise that of the policy.
	Event func(ctx context.Context, call *Call, event Event)
	// End is called with the context that the same listener's Begin returned.
	End func(ctx context.Context, call *Call)
	// Changed is called after a policy has changed its state: for each policy that the observer has
	// seen and that is a [resilience.Notifier].
	Changed func(change resilience.Change)
}

// A Call is one call of a pipeline. Listeners must not change it. A Call is valid until the call's
// End has returned and its last attempt has ended.
type Call struct {
	Pipeline string
	Start    time.Time

	// The following are set before End is called.
	Duration time.Duration
	Attempts int // runs of what is inside the pipeline so far
	Result   Result
	Err      error // what the outermost policy returned; nil for Panicked
}

// An Event is something that a policy did to a call.
type Event struct {
	Kind    EventKind
	Layer   int           // the policy's position; 1 is the outermost
	Policy  string        // the kind of its Report; otherwise its type, such as "resilience.PolicyFunc"
	Name    string        // of its Report
	Attempt int           // Retry, Hedge: the new run, from 2; otherwise 0
	Wait    time.Duration // Retry: since the last run ended; Hedge: since it began; otherwise 0
	Err     error         // Retry: of the last run; Hedge: nil; otherwise what the policy returned
}

// Result is how a call, or an attempt, ended.
type Result int

// The results. The first that applies counts, in the order Panicked, Success, TimedOut because of a
// policy, Refused, Canceled, TimedOut because of the caller, Failure.
const (
	Success  Result = iota // no error, or one that is marked as [resilience.NotFailure]
	Failure                // any other error
	Refused                // a policy refused the call, and nothing ran inside the pipeline
	TimedOut               // a timeout of the pipeline, or the caller's deadline, ended the call
	Canceled               // the caller canceled the call
	Panicked               // a panic or runtime.Goexit
)

var results = [...]string{
	Success:  "success",
	Failure:  "failure",
	Refused:  "refused",
	TimedOut: "timed_out",
	Canceled: "canceled",
	Panicked: "panicked",
}

// String returns the result in snake case, such as "timed_out".
func (r Result) String() string {
	if r < 0 || int(r) >= len(results) {
		return fmt.Sprintf("Result(%d)", int(r))
	}
	return results[r]
}

// MarshalText returns String.
func (r Result) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// EventKind is what a policy did.
type EventKind int

// The kinds of events.
const (
	Refusal EventKind = iota // it returned an error without running the rest of the pipeline
	Retry                    // it ran the rest again
	Hedge                    // it ran the rest beside a run that had not ended
	Timeout                  // it ended the call at its limit
	GiveUp                   // it stopped retrying
)

var eventKinds = [...]string{
	Refusal: "refusal",
	Retry:   "retry",
	Hedge:   "hedge",
	Timeout: "timeout",
	GiveUp:  "give_up",
}

// String returns the kind in snake case, such as "give_up".
func (k EventKind) String() string {
	if k < 0 || int(k) >= len(eventKinds) {
		return fmt.Sprintf("EventKind(%d)", int(k))
	}
	return eventKinds[k]
}

// MarshalText returns String.
func (k EventKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }
