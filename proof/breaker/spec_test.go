package breaker_test

import (
	"fmt"
	"math/bits"
	"strings"

	"github.com/effector-go/resilience/breaker"
)

// A verb is what a command does.
type verb int

const (
	acquire verb = iota
	claim        // the moment at which a done or cancel becomes the one that counts; it has its effect later
	done         // the later moment at which it has its effect
	peek         // with a rate: the later moment at which it counts the failures, including those of others
	judge        // the later moment at which it counts the successes, and knows the share
	trip         // the last moment, at which a closed breaker opens if that was decided; other calls may continue in between
	cancel
	halfOpen
	reset
	forceOpen
	disable
	look  // State
	set   // SetConfig, to a Config that decides the same
	sumUp // Snapshot and all reported transitions, when no worker runs any more
	do    // a call by Do, recorded as an acquire and a done

	fallDue // the moment at which the open time ends
	tick    // the later moment at which that has its effect, by the timer or by a call that checks the clock
)

var force = map[verb]breaker.State{
	reset: breaker.Closed, halfOpen: breaker.HalfOpen, forceOpen: breaker.ForcedOpen, disable: breaker.Disabled,
}

// A command is one operation of a history.
type command struct {
	verb    verb
	permit  int8 // that it acquires or ends
	ending  int8 // the number of the done or cancel in the history, from 1
	outcome breaker.Outcome
	byDo    bool // part of a Do
}

func (c command) String() string {
	switch c.verb {
	case acquire:
		return fmt.Sprintf("acquire %d", c.permit)
	case claim:
		return fmt.Sprintf("  claim %d", c.permit)
	case peek:
		return fmt.Sprintf("  peek by %d", c.permit)
	case judge:
		return fmt.Sprintf("  judge by %d", c.permit)
	case trip:
		return fmt.Sprintf("  trip by %d", c.permit)
	case done:
		return fmt.Sprintf("done %d: %v", c.permit, c.outcome)
	case cancel:
		return fmt.Sprintf("cancel %d", c.permit)
	case look:
		return "look"
	case set:
		return "set config"
	case sumUp:
		return "sum up"
	case fallDue:
		return "open time is over"
	case tick:
		return "tick"
	}
	return "force " + force[c.verb].String()
}

// An answer is what a command returned.
type answer struct {
	refused bool
	state   breaker.State // that refused the call or was seen
	sum     summary
}

func (a answer) String() string {
	switch {
	case a.refused:
		return "refused, " + a.state.String()
	case a.sum != summary{}:
		return fmt.Sprintf("%v %+v", a.state, a.sum)
	}
	return a.state.String()
}

type summary struct {
	calls, failures, row, leak, running, openings int

	changes string // all transitions
}

// A spec is the specification of a breaker as a comparable value. No time passes in it except the
// first open time.
type spec struct {
	state     breaker.State
	due       bool       // the open time is over
	admitted  uint32     // permits that were acquired
	live      uint32     // permits that count in this phase
	claimed   [most]int8 // ending that claimed each permit
	ended     uint32     // endings that have had their effect
	peeked    uint32     // endings that have counted the failures
	judged    uint32     // endings that have then counted the successes
	counted   uint32     // endings of calls of this phase
	seen      [most]int8 // failures that each ending counted
	decided   int8       // ending that will open this phase
	row, leak int
	last      string // the last calls, oldest first
	successes int    // in the window, or of probes
	failures  int
	openings  int // consecutive
	changes   string
}

func (s spec) fresh(to breaker.State) spec {
	return spec{
		state: to, admitted: s.admitted, claimed: s.claimed, ended: s.ended, peeked: s.peeked, judged: s.judged,
		openings: s.openings, changes: s.changes,
	}
}

func (s spec) become(to breaker.State) spec {
	s.changes += transition(s.state, to)
	if to == breaker.Open {
		s.openings++
	}
	return s.fresh(to)
}

func transition(from, to breaker.State) string { return fmt.Sprintf("%v > %v; ", from, to) }

// step returns what a command makes of s, and what it answers.
func (s spec) step(c *breaker.Config, of command) (spec, answer) {
	switch of.verb {
	case acquire:
		shut := s.state == breaker.Open || s.state == breaker.ForcedOpen ||
			s.state == breaker.HalfOpen && bits.OnesCount32(s.live) >= c.Probes
		if shut && !c.DryRun {
			return s, answer{refused: true, state: s.state}
		}
		s.admitted |= 1 << of.permit
		if !shut {
			s.live |= 1 << of.permit
		}
	case claim:
		if of.byDo && s.admitted&(1<<of.permit) == 0 {
			return s, answer{refused: true} // never before its acquire
		}
		if s.claimed[of.permit] == 0 {
			s.claimed[of.permit] = of.ending
		}
	case done, cancel:
		claimed := s.claimed[of.permit]
		s.ended |= 1 << of.ending
		if claimed != of.ending {
			return s, answer{refused: claimed == 0} // never before a claim
		}
		counts := s.live&(1<<of.permit) != 0
		s.live &^= 1 << of.permit
		if counts && of.verb == done {
			s = s.count(c, of)
		}
	case peek:
		if s.ended&(1<<of.ending) == 0 {
			return s, answer{refused: true} // never before its done
		}
		s.peeked |= 1 << of.ending
		if s.counted&(1<<of.ending) != 0 {
			s.seen[of.ending] = int8(s.failures)
		}
	case judge:
		if s.peeked&(1<<of.ending) == 0 {
			return s, answer{refused: true} // never before its peek
		}
		s.judged |= 1 << of.ending
		if s.counted&(1<<of.ending) != 0 && s.decided == 0 && s.tooMany(c, int(s.seen[of.ending])) {
			s.decided = of.ending
		}
	case trip:
		if c.FailureRate == 0 && s.ended&(1<<of.ending) == 0 || c.FailureRate > 0 && s.judged&(1<<of.ending) == 0 {
			return s, answer{refused: true} // never before its done, or judge
		}
		if s.decided == of.ending {
			return s.become(breaker.Open), answer{}
		}
	case fallDue:
		s.due = true
	case tick:
		return s.tick(), answer{}
	case look:
		s = s.tick()
		return s, answer{state: s.state}
	case set:
	case sumUp:
		return s, answer{state: s.state, sum: s.summary(c)}
	default:
		s = s.tick()
		switch to := force[of.verb]; {
		case s.state != to:
			s = s.become(to)
		case to == breaker.Closed:
			s = s.fresh(to)
		}
		if of.verb == reset {
			s.openings = 0
		}
	}
	return s, answer{}
}

// tick ends the open time if it is over.
func (s spec) tick() spec {
	if s.due {
		return s.become(breaker.HalfOpen)
	}
	return s
}

func (s spec) count(c *breaker.Config, of command) spec {
	switch of.outcome {
	case breaker.Success:
		s.successes, s.row, s.leak, s.last = s.successes+1, 0, max(0, s.leak-1), s.last+"s"
	case breaker.Failure:
		s.failures, s.row, s.leak, s.last = s.failures+1, s.row+1, s.leak+1, s.last+"f"
	default:
		return s
	}
	s.last = s.last[max(0, len(s.last)-c.LastCalls):]
	if s.state == breaker.Closed {
		s.counted |= 1 << of.ending
	}
	switch {
	case s.state == breaker.HalfOpen && of.outcome == breaker.Success && s.successes == c.ProbeSuccesses:
		return s.become(breaker.Closed)
	case s.state == breaker.HalfOpen && of.outcome == breaker.Failure && s.failures == c.ProbeFailures:
		return s.become(breaker.Open)
	case s.state == breaker.Closed && s.trips(c) && s.decided == 0:
		s.decided = of.ending
	}
	return s
}

func (s spec) trips(c *breaker.Config) bool {
	return c.Consecutive > 0 && s.row >= c.Consecutive || c.Leaky > 0 && s.leak >= c.Leaky ||
		c.Failures > 0 && strings.Count(s.last, "f") >= c.Failures
}

// tooMany reports whether that many failures, with the current successes, reach the rate.
func (s spec) tooMany(c *breaker.Config, failures int) bool {
	calls := s.successes + failures
	return s.state == breaker.Closed && calls >= c.MinCalls && float64(failures)/float64(calls) >= c.FailureRate
}

func (s spec) summary(c *breaker.Config) summary {
	sum := summary{openings: s.openings, changes: s.changes}
	windowed := c.FailureRate > 0 || c.SlowRate > 0
	switch {
	case s.state == breaker.HalfOpen || s.state == breaker.Closed && windowed:
		sum.calls, sum.failures = s.successes+s.failures, s.failures
	case s.state == breaker.Closed && c.Failures > 0:
		sum.calls, sum.failures = len(s.last), strings.Count(s.last, "f")
	}
	if s.state == breaker.Closed && c.Consecutive > 0 {
		sum.row = s.row
	}
	if s.state == breaker.Closed && c.Leaky > 0 {
		sum.leak = s.leak
	}
	if s.state == breaker.HalfOpen || s.state == breaker.Closed && c.SlowRate > 0 {
		sum.running = bits.OnesCount32(s.live)
	}
	return sum
}
