package sim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/effector-go/resilience"
)

// A simCall is one call.
type simCall struct {
	number   int // from 1
	client   int
	made     time.Duration
	attempts int // guarded by the run's mutex
}

// align returns the first time from t on with the same last digits as the time of the call. So if
// policies wait for multiples of a microsecond, no two of the latest 1000 calls of a client wake up
// at the same time, when their order would be up to Go's scheduler.
func (c *simCall) align(t time.Duration) time.Duration {
	aligned := t/grid*grid + c.made%grid
	if aligned < t {
		aligned += grid
	}
	return aligned
}

// A run is one run of one pipeline. It has a bubble of package synctest, in which a driver, the
// goroutine that simulates, shares the time with a goroutine for each call and those of policies.
//
// The order of everything that happens is determined by the virtual time and the numbers of calls,
// not by Go's scheduler. Policies act only when a timer of theirs ends, or when the driver lets
// them: when a call begins, when an answer arrives, and when an attempt returns because its caller
// has left. The driver does one of these and then waits until all goroutines are blocked again.
type run struct {
	scenario *Scenario
	seed     uint64
	pipeline string // its name
	create   func() resilience.Policy
	parent   context.Context

	progress atomic.Int64 // changes with each step of the driver; see markProgress
	stopped  atomic.Bool  // the driver must end the run
	finished atomic.Bool  // the driver has ended the run

	// The following belongs to the bubble. When that has ended, do drops most of it, because the pool
	// keeps all runs until the last one has ended.
	policies []resilience.Policy // by client
	start    time.Time
	calls    *arrivals
	server   *server
	over     chan struct{} // closed when attempts must not wait any more
	wake     chan struct{} // wakes the driver

	mu      sync.Mutex // guards the following
	record  *record
	begun   []*attempt // not seen by the driver yet
	leaving []*attempt // wait for the driver to let them return
	running int        // calls
	asleep  bool       // the driver waits for wake, or for a time
	fault   error      // the first one
}

// errStopped is the fault of a run that another one's fault, or the end of the context, has stopped.
var errStopped = errors.New("sim: stopped")

// fail stops the run with an error, unless there was one before.
func (r *run) fail(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fault == nil {
		r.fault = fmt.Errorf("sim: pipeline %q: "+format, append([]any{r.pipeline}, args...)...)
	}
	r.stopped.Store(true)
}

// do makes the run and returns its record, or an error. It must be called outside of bubbles. If a
// goroutine of the run blocks outside of virtual time, it doesn't return: see [run.watch].
func (r *run) do() (result *record, err error) {
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if v := recover(); v != nil && r.fault == nil {
			// synctest panics if a goroutine remains, and if all are blocked.
			if r.finished.Load() {
				r.fault = fmt.Errorf("sim: pipeline %q: a goroutine outlives the run: %v", r.pipeline, v)
			} else {
				r.fault = fmt.Errorf("sim: pipeline %q: %v", r.pipeline, v)
			}
		}
		if err = r.fault; err == nil {
			result = r.record
		}
		r.policies, r.calls, r.server, r.record = nil, nil, nil, nil
	}()
	synctest.Test(new(testing.T), func(*testing.T) { r.drive() })
	return nil, nil
}

// now returns the virtual time since the beginning of the run.
func (r *run) now() time.Duration { return time.Since(r.start) }

func (r *run) drive() {
	defer r.finished.Store(true)
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.parent))
	defer cancel()
	r.server = newServer(r.scenario, r.seed)
	r.calls = newArrivals(r.scenario, r.seed)
	r.record = newRecord(r.scenario, r.server)
	r.over = make(chan struct{})
	r.wake = make(chan struct{}, 1)
	r.start = time.Now()
	stop := r.build()
	defer stop()

	end := r.scenario.Length + r.scenario.GoodWithin
	for timer := time.NewTimer(0); !r.stopped.Load(); {
		now := r.now()
		r.step(ctx, now)
		if idle := r.calls.next == nil && r.isIdle(); now >= end || idle && now >= r.scenario.Length {
			timer.Stop()
			break
		}
		r.sleep(timer, now, min(r.next(), now+time.Second, max(end, now)))
	}
	r.finish(cancel)
}

// next returns the time of the next event.
func (r *run) next() time.Duration {
	next := r.scenario.Length + r.scenario.GoodWithin
	if len(r.server.events) > 0 {
		next = min(next, r.server.events[0].at)
	}
	if call := r.calls.next; call != nil {
		next = min(next, call.made)
	}
	return next
}

func (r *run) isIdle() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.running == 0
}

// sleep returns at the given time, or when an attempt needs the driver earlier. Then everything that
// happens at this time without the driver has happened. None needs it when sleep begins: step has
// left only blocked goroutines.
func (r *run) sleep(timer *time.Timer, now, until time.Duration) {
	r.mu.Lock()
	r.asleep = true
	r.mu.Unlock()
	timer.Reset(until - now)
	select {
	case <-timer.C:
	case <-r.wake:
	}
	r.mu.Lock()
	r.asleep = false
	r.mu.Unlock()
	synctest.Wait()
}

// markProgress notes that the driver makes a step: the virtual time, and a counter in the lowest byte,
// because there are steps at the same time.
func (r *run) markProgress() { r.progress.Store(int64(r.now())<<8 | (r.progress.Load()+1)&0xff) }

// reached returns the virtual time of the latest step. It can be called from outside the bubble.
func (r *run) reached() time.Duration { return time.Duration(r.progress.Load() >> 8) }

// step makes everything happen that is due.
func (r *run) step(ctx context.Context, now time.Duration) {
	r.collect(now)
	for !r.stopped.Load() {
		r.markProgress()
		call := r.calls.next
		switch events := r.server.events; {
		case len(events) > 0 && events[0].at <= now && (call == nil || events[0].at <= call.made):
			r.happen(popEvent(&r.server.events), now)
		case call != nil && call.made <= now:
			r.calls.advance()
			r.begin(ctx, call)
		default:
			r.mu.Lock()
			r.record.finish(now)
			r.mu.Unlock()
			return
		}
	}
}

// collect takes over from attempts what has happened since.
func (r *run) collect(now time.Duration) {
	for {
		r.mu.Lock()
		begun, leaving := r.begun, r.leaving
		r.begun, r.leaving = nil, nil
		r.mu.Unlock()
		if len(begun)+len(leaving) == 0 {
			return
		}
		// Goroutines that woke up at the same time came in any order.
		slices.SortFunc(begun, byNumber)
		slices.SortFunc(leaving, byNumber)
		for _, a := range begun {
			r.server.send(a, now)
		}
		for _, a := range leaving {
			r.server.leave(a, now)
			a.result <- errLeft
			synctest.Wait()
		}
	}
}

func byNumber(a, b *attempt) int {
	return cmp.Or(cmp.Compare(a.call.number, b.call.number), cmp.Compare(a.number, b.number))
}

// happen makes an event happen. An answer reaches its attempt unless the caller has left.
func (r *run) happen(e event, now time.Duration) {
	if e.kind != answer {
		r.server.happen(e, now)
		return
	}
	useful := !e.attempt.left
	r.server.account(e.attempt, useful)
	if useful {
		e.attempt.result <- e.err
		synctest.Wait()
		r.collect(now)
	}
}

// begin starts a call.
func (r *run) begin(ctx context.Context, c *simCall) {
	r.mu.Lock()
	r.running++
	r.record.callBegins(c.made)
	r.mu.Unlock()
	go r.call(ctx, c)
	synctest.Wait()
	r.collect(c.made)
}

func (r *run) call(ctx context.Context, c *simCall) {
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.running--
		r.wakeDriver() // it may wait for the last call
	}()
	returned := false
	defer r.guard(&returned, "a policy")
	err := resilience.Run(ctx, r.policies[c.client], func(ctx context.Context) error { return r.attempt(ctx, c) })
	returned = true
	r.end(c, err)
}

// guard stops the run with an error unless what was called has returned. It must be deferred itself,
// because it calls recover.
func (r *run) guard(returned *bool, what string) {
	if *returned {
		return
	}
	if v := recover(); v != nil {
		r.fail("panic of %s: %v\n\n%s", what, v, debug.Stack())
		return
	}
	r.fail("%s called runtime.Goexit", what)
}

// end counts a call that has returned, unless it is known to be late.
func (r *run) end(c *simCall, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if now >= r.scenario.Length+r.scenario.GoodWithin {
		r.record.callEnds(c.made, now-c.made, late)
		return
	}
	o := failed
	switch {
	case err == nil && now-c.made <= r.scenario.GoodWithin:
		o = good
	case err == nil:
		o = late
	case c.attempts == 0 && errors.Is(err, resilience.ErrRefused):
		o = refused
	}
	r.record.callEnds(c.made, now-c.made, o)
}

// errLeft is what the driver sends to an attempt whose caller has left, and that may return now.
var errLeft = errors.New("sim: left")

// attempt is the effector: it sends an attempt to the server and waits for the answer.
func (r *run) attempt(ctx context.Context, c *simCall) error {
	a := &attempt{call: c, result: make(chan error, 1)}
	r.mu.Lock()
	now := r.now()
	c.attempts++
	a.number = c.attempts
	r.record.attemptBegins(now)
	if ctx.Err() != nil {
		r.mu.Unlock()
		return resilience.ContextErr(ctx)
	}
	r.begun = append(r.begun, a)
	r.wakeDriver()
	r.mu.Unlock()

	select {
	case err := <-a.result:
		return err
	case <-r.over:
		return ErrFailed
	case <-ctx.Done():
	}
	r.mu.Lock()
	r.leaving = append(r.leaving, a)
	r.wakeDriver()
	r.mu.Unlock()
	select {
	case <-a.result:
	case <-r.over:
	}
	return resilience.ContextErr(ctx)
}

// wakeDriver wakes the driver if it sleeps. It needs r.mu held.
func (r *run) wakeDriver() {
	if !r.asleep {
		return
	}
	select {
	case r.wake <- struct{}{}:
	default: // a signal is on its way
	}
}

// patience is how long calls can take, in virtual time, after their contexts have ended.
const patience = time.Hour

// finish ends the contexts of the remaining calls and waits for them. There are no tickers here: if
// a goroutine of a policy keeps time going, the wait ends with it.
func (r *run) finish(cancel func()) {
	cancel()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		synctest.Wait()
		r.collect(r.now())
		r.mu.Lock()
		n := r.running
		r.asleep = n > 0
		r.mu.Unlock()
		if n == 0 {
			break
		}
		select {
		case <-r.wake:
			continue
		case <-deadline.C:
		}
		r.fail("deadlock: %s did not return within %s after the end of the context", counted(n, "call"), short(patience))
		break
	}
	close(r.over)
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fault == nil && r.stopped.Load() {
		r.fault = errStopped
	}
	r.record.end(r.server)
}

// build creates the pipelines and listens to their breakers. The returned function ends that.
func (r *run) build() (stop func()) {
	stops := []func(){}
	stop = func() {
		for _, stop := range stops {
			stop()
		}
	}
	for range r.scenario.Clients + 1 {
		policy, ok := r.createPolicy()
		if !ok {
			return stop
		}
		r.policies = append(r.policies, policy)
	}
	synctest.Wait()         // nothing changes the policies while they are inspected
	owners := map[any]int{} // of policies and budgets
	var notifiers []resilience.Notifier
	for client, policy := range r.policies {
		found := inspect(policy)
		for _, part := range found.parts {
			if other, ok := owners[part]; ok && other != client {
				r.fail("two clients share a %T, must each have their own: the function must create it", part)
				return stop
			}
			owners[part] = client
		}
		if client < r.scenario.Clients { // the last result only shows whether it shares anything
			notifiers = append(notifiers, found.notifiers...)
		}
	}
	for _, n := range notifiers {
		stops = append(stops, r.listen(n))
	}
	return stop
}

// createPolicy calls the pipeline function.
func (r *run) createPolicy() (policy resilience.Policy, ok bool) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		returned := false
		defer r.guard(&returned, "the function")
		policy = r.create()
		returned = true
	}()
	<-done
	if r.stopped.Load() {
		return nil, false
	}
	if problem := nilPolicy(policy); problem != "" {
		r.fail("%s", problem)
		return nil, false
	}
	return policy, true
}

// listen counts the changes of a breaker.
func (r *run) listen(n resilience.Notifier) (stop func()) {
	const closed, open = "closed", "open"
	r.mu.Lock()
	r.record.breakers++
	if reporter, ok := n.(resilience.Reporter); ok && reporter.Report().State != closed {
		r.record.breakerChanges(true, false, false, r.now())
	}
	r.mu.Unlock()
	return n.Notify(func(c resilience.Change) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.record.breakerChanges(c.From == closed, c.To == closed, c.To == open, r.now())
	})
}
