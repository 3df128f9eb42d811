package breaker

import (
	"fmt"
	"time"
)

// State is a breaker's state.
type State int

// The states.
const (
	Closed     State = iota // calls go through and are counted
	Open                    // calls are refused until the open time is over
	HalfOpen                // some calls go through as probes, others are refused
	ForcedOpen              // by hand: calls are refused
	Disabled                // by hand: calls go through and are not counted
)

// String names the state: closed, open, half-open, forced open, disabled.
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

// A Transition is a change of state, as OnStateChange hears it.
type Transition struct {
	Name     string
	From, To State
	At       time.Time
	Cause    string   // in words, such as "5 failures in a row"
	Snapshot Snapshot // of the phase that ended
}

// String reads like "breaker payments: closed to open: 5 failures in a row".
func (t Transition) String() string {
	return fmt.Sprintf("%s: %v to %v: %s", title(t.Name), t.From, t.To, t.Cause)
}

// A Snapshot tells what a breaker knows at one time. Counts that no rule of its Config needs stay zero.
type Snapshot struct {
	Name  string
	State State
	Since time.Time // when the state began
	Until time.Time // of an open breaker: when it becomes half-open; else zero

	Calls       int // closed: that ended in Window (or among LastCalls), ignored ones excepted; half-open: probes that ended
	Failures    int // of those Calls
	Slow        int // closed, with SlowRate: slow ones in Window, ignored ones and those still running included
	Running     int // with SlowRate, or half-open: calls that the phase admitted and that have not ended
	Consecutive int // with the rule Consecutive: failures in a row
	Leak        int // with the rule Leaky: failures less successes
	Openings    int // in a row, for the open time; 0 again once closed for longer than the last open time
}

// deliver tells the events that wait, unless another goroutine is at it: that one then tells them all.
func (b *Breaker) deliver() {
	b.mu.Lock()
	mine := !b.delivering && len(b.events) > 0
	if mine {
		b.delivering = true
	}
	b.mu.Unlock()
	if mine {
		b.tellAll()
	}
}

func (b *Breaker) tellAll() {
	done := false
	defer func() {
		if !done { // OnStateChange panicked, or called runtime.Goexit: that goes on when the rest is told
			b.tellAll()
		}
	}()
	for {
		event, ok := b.nextEvent()
		if !ok {
			done = true
			return
		}
		b.cfg.OnStateChange(event)
	}
}

func (b *Breaker) nextEvent() (event Transition, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.events) == 0 {
		b.events, b.delivering = nil, false
		return Transition{}, false
	}
	event = b.events[0]
	b.events = b.events[1:]
	return event, true
}
