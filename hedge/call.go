package hedge

import (
	"context"
	"sync"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/clock"
	"github.com/effector-go/resilience/internal/detached"
	"github.com/effector-go/resilience/internal/mark"
	"github.com/effector-go/resilience/internal/permanent"
)

// A call is one call through a Hedge. Fields that mu doesn't guard belong to the caller's
// goroutine.
type call struct {
	settings *settings
	ctx      context.Context
	next     resilience.Next
	begun    int64         // time of package clock
	delay    time.Duration // before each additional start
	left     int           // additional starts that the call may still have
	deposits bool          // the call deposits into the budget as soon as it was made

	first      start
	additional []*start
	running    int         // starts whose end the caller hasn't seen
	faults     int         // starts of the effector that ended by the caller's fault
	latest     int64       // when the latest start began, by package clock; not after the timer was set
	timer      *time.Timer // calls isSlow, a delay after the latest start; nil if not hedged

	mu      sync.Mutex
	changed sync.Cond // signals a change of the following fields
	ended   []*start  // ended starts that the caller hasn't seen, in the order in which they ended
	slow    bool      // the timer ran
	decided bool      // a start won or panicked, or the caller has left: the others have lost

	room [2]*start // backs ended, which is sufficient unless Max is larger than 1
}

// A start is one start of a call, on its own goroutine.
type start struct {
	detached.Run
	call     *call
	ctx      startContext
	panicked bool // panicked or called Goexit, and so decides the call
	seen     bool // the caller has seen that it ended
}

// run makes the call.
func (c *call) run() error {
	c.changed.L = &c.mu
	c.ended = c.room[:0]
	defer c.end()
	c.start(&c.first)
	if c.left > 0 {
		c.timer = time.AfterFunc(c.delay, c.isSlow)
	}
	// The error of the last start that was made. If none was made, or once the caller's context has
	// ended: the error of the last start of all.
	var last error
	made := false
	for {
		s := c.wait()
		if s == nil {
			c.hedgeSlow()
			continue
		}
		err := c.see(s)
		if wins(err) {
			return err
		}
		if s.Fork.Starts() > 0 || !made || c.ctx.Err() != nil {
			last, made = err, s.Fork.Starts() > 0
		}
		c.hedgeFailed(s, err)
		if c.running == 0 {
			return last
		}
	}
}

// wins reports whether a start that returned err provides the call's result.
func wins(err error) bool { return err == nil || mark.Of(err) == mark.NotFailure }

// start runs the rest of the pipeline as start s.
func (c *call) start(s *start) {
	s.call = c
	s.ctx.Context = c.ctx
	s.Fork = c.next.Fork()
	// Asked of the fork only: inner policies then know that the hedge deposits for this start, and
	// a refused start leaves no trace in the call.
	if first := s.Fork.FirstTime(c.settings.budget); s == &c.first {
		c.deposits = c.deposits && first
	}
	c.running++
	go s.Do(&s.ctx, s)
}

// Ended implements [detached.Owner]. It decides whether the call uses the start's result or the
// start has lost.
func (s *start) Ended(returned bool, err error) (awaited bool) {
	c := s.call
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.decided {
		return false
	}
	c.decided = !returned || wins(err)
	s.panicked = !returned
	if returned {
		c.report(s)
	}
	return true
}

// Done implements [detached.Owner]. It reports a panic to the caller: its value is available only
// now.
func (s *start) Done(awaited bool) {
	if awaited && s.panicked {
		s.call.mu.Lock()
		defer s.call.mu.Unlock()
		s.call.report(s)
	}
}

// report notifies the caller that s has ended. mu must be held.
func (c *call) report(s *start) {
	c.ended = append(c.ended, s)
	c.changed.Signal()
}

// isSlow notifies the caller that the latest start is slow.
func (c *call) isSlow() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.slow = true
	c.changed.Signal()
}

// wait returns the next start that ended, or nil if the latest one is slow.
func (c *call) wait() *start {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.ended) == 0 && !c.slow {
		c.changed.Wait()
	}
	if len(c.ended) == 0 {
		c.slow = false
		return nil
	}
	s := c.ended[0]
	c.ended = c.ended[1:]
	return s
}

// see adopts the result of s into the call.
func (c *call) see(s *start) error {
	s.seen = true
	s.ctx.end(nil)
	c.running--
	c.next.Adopt(s.Fork)
	err := s.Result()
	if mark.Of(err) == mark.CallerFault {
		c.faults += s.Fork.Starts()
	}
	if wins(err) && c.settings.recent != nil && (s == &c.first || !c.first.seen) {
		now := clock.Now() // when the first start won, or lost: it would have taken longer still
		c.settings.recent.record(time.Duration(now-c.begun), now)
	}
	return err
}

// hedgeSlow starts the call again because the latest start is slow.
func (c *call) hedgeSlow() {
	if time.Duration(clock.Now()-c.latest) < c.delay {
		return // the timer ran for a start that failed meanwhile; it was reset for the next one
	}
	if c.mayStart() {
		c.again(nil)
	}
}

// hedgeFailed starts the call again because s failed with err.
func (c *call) hedgeFailed(s *start, err error) {
	if endsHedging(err) {
		c.left = 0
	}
	if s.Fork.Starts() == 0 || !c.mayStart() { // refused by an inner policy, or the last one
		return
	}
	hedgeIf := c.settings.config.HedgeIf
	if hedgeIf == nil || hedgeIf(err) {
		c.again(err)
	}
}

// endsHedging reports whether the call has no additional starts after a start that failed with err.
func endsHedging(err error) bool {
	if permanent.Is(err) || mark.Of(err) == mark.CallerFault {
		return true
	}
	_, later := resilience.RetryAfter(err)
	return later
}

// mayStart reports whether the call may have another start if the budget allows it.
func (c *call) mayStart() bool { return c.left > 0 && c.ctx.Err() == nil && c.next.Repeatable() }

// answered reports whether the call is already decided: the answer may arrive while the caller is
// busy with another start's failure.
func (c *call) answered() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.decided
}

// again starts the call again if the budget has a token. err is the error of the start that failed,
// nil if the latest start is slow.
func (c *call) again(err error) {
	if c.answered() || !c.withdraw() {
		return
	}
	c.left--
	if onHedge := c.settings.config.OnHedge; onHedge != nil {
		onHedge(c.ctx, Event{c.settings.config.Name, len(c.additional) + 2, time.Duration(clock.Now() - c.begun), err})
		if c.ctx.Err() != nil {
			return
		}
	}
	c.latest = clock.Now()
	s := new(start)
	c.additional = append(c.additional, s)
	c.start(s)
	if c.left > 0 {
		c.timer.Reset(c.delay)
	}
}

// withdraw takes a token for an additional start. It deposits only if there is none: a start that is
// still running may yet end by the caller's fault.
func (c *call) withdraw() bool {
	if c.settings.budget.Withdraw() {
		return true
	}
	c.deposit()
	return c.settings.budget.Withdraw()
}

// deposit deposits into the budget once the call was made. A call that an inner policy such as an
// open breaker refuses deposits nothing, and neither does one all of whose starts ended by the
// caller's fault.
func (c *call) deposit() {
	if c.deposits && c.next.Starts() > c.faults {
		c.deposits = false
		// Marks the call itself: the start may still be running.
		c.next.FirstTime(c.settings.budget)
		c.settings.budget.Deposit()
	}
}

// end deposits, and gives up the starts that the caller hasn't seen.
func (c *call) end() {
	if c.timer != nil {
		c.timer.Stop()
	}
	c.deposit()
	if c.running > 0 {
		c.giveUp()
	}
}

func (c *call) giveUp() {
	c.mu.Lock()
	c.decided = true
	unseen := c.ended
	c.mu.Unlock()
	for _, s := range append(c.additional, &c.first) {
		if !s.seen {
			s.ctx.end(ErrLost)
		}
	}
	for _, s := range unseen { // not empty only if HedgeIf or OnHedge panicked
		defer s.Fork.Discard() // deferred, so that all are discarded even if drop panics
	}
}
