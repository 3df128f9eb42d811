package breaker

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/describe"
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

// Report describes the breaker: its state as State returns it, and the values calls, failures, slow,
// and running, as in [Snapshot], and retry_after, the time until an open breaker becomes half-open,
// which is 0 in other states.
func (b *Breaker) Report() resilience.Report {
	s, c := b.Snapshot(), b.Config()
	retryAfter := max(0, time.Until(s.Until)) // 0 if not open: Until is zero then
	return resilience.Report{
		Kind: "breaker", Name: c.Name, State: s.State.String(), Config: describe.Config(c),
		Values: []resilience.Value{
			describe.Calls("calls", s.Calls),
			describe.Calls("failures", s.Failures),
			describe.Calls("slow", s.Slow),
			describe.Calls("running", s.Running),
			{Name: "retry_after", Unit: "s", Value: retryAfter.Seconds()},
		},
	}
}

// Notify calls listen once for every later transition, as OnStateChange is called: in order, never
// concurrently, and with no lock held. For each transition, OnStateChange comes first, then the
// listeners, oldest first, each of them even if another one panics. Listen may call the breaker,
// including Notify.
//
// The returned function removes listen; it may be called repeatedly, and by listen itself.
// Transitions that follow are not delivered to listen, and neither are those that still wait for
// delivery. Notify panics if listen is nil.
func (b *Breaker) Notify(listen func(resilience.Change)) (stop func()) {
	if listen == nil {
		panic("breaker: Notify: listen is nil, must be a function")
	}
	l := new(listener)
	l.listen.Store(&listen)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forgetStopped()
	b.listeners = append(b.listeners, l)
	return func() { l.listen.Store(nil) }
}

// A listener is a function that was passed to Notify, until its stop function is called. That does
// no more than to store nil, so it keeps neither the function nor the breaker in memory.
type listener struct {
	listen atomic.Pointer[func(resilience.Change)]
}

func (l *listener) stopped() bool { return l.listen.Load() == nil }

func (l *listener) deliver(c resilience.Change) {
	if listen := l.listen.Load(); listen != nil {
		(*listen)(c)
	}
}

// forgetStopped needs b.mu held.
func (b *Breaker) forgetStopped() {
	b.listeners = slices.DeleteFunc(b.listeners, (*listener).stopped)
}

// queue adds the deliveries of a transition from p to next. It needs b.mu held. Listeners that are
// added later don't receive it.
func (b *Breaker) queue(p, next *phase, cause string, err error) {
	if hook := p.cfg.OnStateChange; hook != nil {
		t := Transition{
			Name: p.cfg.Name, From: p.state, To: next.state, At: next.since, Cause: cause, Snapshot: p.snapshot(), Err: err,
		}
		b.deliveries = append(b.deliveries, func() { hook(t) })
	}
	if b.forgetStopped(); len(b.listeners) == 0 {
		return
	}
	c := resilience.Change{
		Kind: "breaker", Name: p.cfg.Name, From: p.state.String(), To: next.state.String(), At: next.since, Cause: cause, Err: err,
	}
	for _, l := range b.listeners {
		b.deliveries = append(b.deliveries, func() { l.deliver(c) })
	}
}

// deliver makes the queued deliveries, unless another goroutine is doing so: that goroutine then
// makes all of them.
func (b *Breaker) deliver() {
	b.mu.Lock()
	mine := !b.delivering && len(b.deliveries) > 0
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
		if !done { // the hook panicked or called runtime.Goexit: deliver the rest before that continues
			b.deliverAll()
		}
	}()
	for {
		deliver := b.nextDelivery()
		if deliver == nil {
			done = true
			return
		}
		deliver()
	}
}

func (b *Breaker) nextDelivery() (next func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.deliveries) == 0 {
		b.deliveries, b.delivering = nil, false
		return nil
	}
	next = b.deliveries[0]
	b.deliveries = b.deliveries[1:]
	return next
}
