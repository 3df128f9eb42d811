package hedge

import (
	"context"
	"sync"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/clock"
	"github.com/effector-go/resilience/internal/detached"
	"github.com/effector-go/resilience/internal/permanent"
)

// A call is one call through a Hedge. What mu does not guard belongs to the caller's goroutine.
type call struct {
	hedge *Hedge
	ctx   context.Context
	next  resilience.Next
	begun int64         // on package clock
	delay time.Duration // before each further start
	left  int           // further starts that the call may still have
	pays  bool          // a deposit into the budget, once the call was made

	first   start
	further []*start
	running int         // starts whose end the caller has not seen
	latest  int64       // when the latest start began, on package clock; not later than the timer was set
	timer   *time.Timer // runs isSlow, a delay after the latest start; nil if the call is not hedged

	mu      sync.Mutex
	changed sync.Cond // something of what follows
	ended   []*start  // for the caller to see, in the order in which they ended
	slow    bool      // the timer ran
	decided bool      // a start succeeded or panicked, or the caller has gone: starts that end now have lost

	room [2]*start // for ended, unless Max is larger than 1
}

// A start is one start of a call, on a goroutine of its own.
type start struct {
	detached.Run
	call     *call
	ctx      startCtx
	panicked bool // or ended its goroutine, and is the call's
	seen     bool // by the caller: it has ended
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
	var last error // of those that were made, or of all if none was, or once the caller's ctx has ended
	made := false
	for {
		s := c.wait()
		if s == nil {
			c.hedgeSlow()
			continue
		}
		err := c.see(s)
		if err == nil {
			return nil
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

// start starts the call on s.
func (c *call) start(s *start) {
	s.call = c
	s.ctx.Context = c.ctx
	s.Fork = c.next.Fork()
	// In the fork alone, so that policies further in know who pays, and that one who was refused has not paid.
	if first := s.Fork.FirstTime(c.hedge.config.Budget); s == &c.first {
		c.pays = c.pays && first
	}
	c.running++
	go s.Do(&s.ctx, s)
}

// Ended decides whether the start is the call's or has lost: it is [detached.Owner]'s.
func (s *start) Ended(returned bool, err error) (awaited bool) {
	c := s.call
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.decided {
		return false
	}
	c.decided = !returned || err == nil
	s.panicked = !returned
	if returned {
		c.tell(s)
	}
	return true
}

// Done tells the caller of a panic, which is there only now: it is [detached.Owner]'s.
func (s *start) Done(awaited bool) {
	if awaited && s.panicked {
		s.call.mu.Lock()
		defer s.call.mu.Unlock()
		s.call.tell(s)
	}
}

// tell tells the caller that s has ended. It is called with mu held.
func (c *call) tell(s *start) {
	c.ended = append(c.ended, s)
	c.changed.Signal()
}

// isSlow tells the caller that the latest start is slow.
func (c *call) isSlow() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.slow = true
	c.changed.Signal()
}

// wait gives the next start that ended, or nil when the latest one is slow.
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

// see makes the result of s the call's.
func (c *call) see(s *start) error {
	s.seen = true
	s.ctx.end(nil)
	c.running--
	c.next.Adopt(s.Fork)
	err := s.Result()
	if err == nil && c.hedge.recent != nil && (s == &c.first || !c.first.seen) {
		now := clock.Now() // when the first start won; or lost: it would have taken longer, and was slow in any case
		c.hedge.recent.record(time.Duration(now-c.begun), now)
	}
	return err
}

// hedgeSlow starts the call again because the latest start is slow.
func (c *call) hedgeSlow() {
	if time.Duration(clock.Now()-c.latest) < c.delay {
		return // it is another by now: one failed as the timer ran, which has been set anew
	}
	if c.mayStart() {
		c.again(nil)
	}
}

// hedgeFailed starts the call again because s failed with err.
func (c *call) hedgeFailed(s *start, err error) {
	if permanent.Is(err) {
		c.left = 0
	}
	if s.Fork.Starts() == 0 || !c.mayStart() { // refused further in, or the last
		return
	}
	hedgeIf := c.hedge.config.HedgeIf
	if hedgeIf == nil || hedgeIf(err) {
		c.again(err)
	}
}

// mayStart reports whether the call may have a further start, but for the budget.
func (c *call) mayStart() bool { return c.left > 0 && c.ctx.Err() == nil && c.next.Repeatable() }

// answered reports whether the answer is there for the caller to see: it came while the caller saw to something else.
func (c *call) answered() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.decided
}

// again starts the call again if the budget has a token. err is what the start before failed with, nil if it is slow.
func (c *call) again(err error) {
	if c.answered() || !c.withdraw() {
		return
	}
	c.left--
	if onHedge := c.hedge.config.OnHedge; onHedge != nil {
		onHedge(Event{c.hedge.config.Name, len(c.further) + 2, time.Duration(clock.Now() - c.begun), err})
		if c.ctx.Err() != nil {
			return
		}
	}
	c.latest = clock.Now()
	s := new(start)
	c.further = append(c.further, s)
	c.start(s)
	if c.left > 0 {
		c.timer.Reset(c.delay)
	}
}

// withdraw takes a token for a further start.
func (c *call) withdraw() bool {
	c.deposit()
	return c.hedge.config.Budget.Withdraw()
}

// deposit pays for the call once it was made. One that an open breaker further in refuses pays nothing.
func (c *call) deposit() {
	if c.pays && c.next.Starts() > 0 {
		c.pays = false
		c.next.FirstTime(c.hedge.config.Budget) // whether a start that was made is adopted or runs on
		c.hedge.config.Budget.Deposit()
	}
}

// end pays, and gives up the starts that the caller has not seen.
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
	for _, s := range append(c.further, &c.first) {
		if !s.seen {
			s.ctx.end(ErrLost)
		}
	}
	for _, s := range unseen { // HedgeIf or OnHedge panicked
		defer s.Fork.Discard() // each, even if drop panics
	}
}
