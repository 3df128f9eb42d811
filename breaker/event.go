package breaker

import (
	"fmt"
	"time"
)

// State is the state of a breaker.
type State int

// The states of a breaker.
const (
	Closed     State = iota // calls are admitted and counted
	Open                    // calls are refused until the open time ends
	HalfOpen                // some calls are admitted, as probes or in a slow start; others are refused
	ForcedOpen              // set manually: calls are refused
	Disabled                // set manually: calls are admitted and not counted
)

// String returns "closed", "open", "half-open", "forced open", or "disabled".
func (s State) String() string {
	switch s {
	case Closed:
		return "closed"
	case Open:
		return "open"
	case HalfOpen:
		return "half-open"
	case ForcedOpen:
		return "forced open"
	case Disabled:
		return "disabled"
	}
	return fmt.Sprintf("State(%d)", int(s))
}

// MarshalText returns the text of String.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// A Transition is a change of state. OnStateChange is called with it.
type Transition struct {
	Name     string
	From, To State
	At       time.Time
	Cause    string   // why, for people, such as "5 failures in a row"
	Snapshot Snapshot // of the state that ended
	Err      error    // of the call that caused it; nil if no call did, or if that call returned no error
}

// String returns a text like "breaker payments: closed to open: 5 failures in a row".
func (t Transition) String() string {
	return fmt.Sprintf("%s: %v to %v: %s", title(t.Name), t.From, t.To, t.Cause)
}

// A Snapshot is a breaker's state and counts at one time. Counts that no rule of its Config needs
// are zero.
type Snapshot struct {
	Name  string
	State State
	Since time.Time // when the state began
	Until time.Time // when an open breaker becomes half-open; otherwise zero

	// Calls is the number of calls that ended in Window or are among LastCalls, without ignored
	// ones; while half-open and before a slow start, the number of probes that ended.
	Calls    int
	Failures int // how many of Calls failed

	// Slow is the number of slow calls in Window if SlowRate is set, including ignored ones and
	// those still running.
	Slow int

	// Running is the number of calls that were admitted in this state and haven't ended. It is
	// counted with SlowRate, or if half-open.
	Running     int
	Consecutive int // failures in a row; with the rule Consecutive
	Leak        int // failures minus successes; with the rule Leaky

	// Openings is the number of consecutive openings, which determines the open time. It is 0 again
	// once the breaker has been closed for longer than the last open time.
	Openings int

	// Share is the share of the calls that are admitted now, if half-open in a slow start;
	// otherwise 0.
	Share float64
}

// An event is a transition that has not been delivered yet.
type event struct {
	Transition
	hook func(Transition) // OnStateChange at the time of the transition
}

// deliver calls OnStateChange with the queued events, unless another goroutine is doing so: that
// goroutine then delivers all of them.
func (b *Breaker) deliver() {
	b.mu.Lock()
	mine := !b.delivering && len(b.events) > 0
	if mine {
		b.delivering = true
	}
	b.mu.Unlock()
	if mine {
		b.deliverAll()
	}
}

func (b *Breaker) deliverAll() {
	done := false
	defer func() {
		if !done { // OnStateChange panicked or called runtime.Goexit: deliver the rest before that continues
			b.deliverAll()
		}
	}()
	for {
		event, ok := b.nextEvent()
		if !ok {
			done = true
			return
		}
		event.hook(event.Transition)
	}
}

func (b *Breaker) nextEvent() (next event, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.events) == 0 {
		b.events, b.delivering = nil, false
		return event{}, false
	}
	next = b.events[0]
	b.events = b.events[1:]
	return next, true
}
