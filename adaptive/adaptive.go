// Package adaptive limits concurrent calls and finds the limit itself.
//
//	search := adaptive.New(adaptive.Config{Name: "search"})
//
//	page, err := adaptive.Do(ctx, search, fetchPage)
//
// A [Limiter] is a bulkhead that sets its own limit. Use one for each dependency whose capacity you
// don't know, or that changes. Don't use one
//
//   - if you know the limit, for example the size of a pool: use package bulkhead;
//   - for calls that last as long as the caller wishes, such as streams and long polls: their
//     duration says nothing about the dependency.
//
// Put it next to the call, inside retry: the waits between attempts aren't round trips.
//
// [Queue], the default algorithm, keeps the dependency's queue at 2 to 6% of the limit, by Little's
// law (John Little, 1961), as TCP Vegas (Brakmo and Peterson, 1995) does for a network link. It
// judges a round of calls when the last of them has ended, so that long calls count as much as
// short ones; it takes more calls for a round where their times vary; and it lowers the limit only
// by what is certain, by two standard deviations. So it refuses about half a percent, and rarely
// more than two percent, of the calls to a dependency that could take any number of them, whether
// their times are all the same or vary by a factor of a hundred. [AIMD] is TCP's additive increase
// and multiplicative decrease (Chiu and Jain, 1989).
//
// A call costs two readings of the clock (none with AIMD), a few atomic operations, and a lock that
// calls on different processors seldom share. It allocates nothing (BenchmarkDo).
package adaptive

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/clock"
	"github.com/effector-go/resilience/internal/concurrency"
	"github.com/effector-go/resilience/internal/describe"
	"github.com/effector-go/resilience/internal/mark"
)

// A Limiter admits calls while fewer run than its limit, and refuses the others immediately with
// [*LimitError]. It sets the limit by how long calls take, or whether they fail. It is a
// [resilience.Policy], made by [New], and safe for concurrent use. It has no goroutine and no
// timer.
//
// The limit changes only by evidence: it grows only if calls met it, and without calls it stays.
// Now and then [Queue] admits no more than half of the limit, to measure how long a call takes that
// doesn't queue. Such a drain lasts two round trips where calls take equally long, and more where
// their times vary. It follows when the limit has shrunk by a sixth, and otherwise after 8 round
// trips, later after 128; where times vary the pauses are as much longer as the drains are.
type Limiter struct {
	// config is replaced by SetConfig, which holds changing. Its defaults are filled in, except
	// functions. A call loads it once when it begins, and once when it ends, to count.
	config   atomic.Pointer[Config]
	changing sync.Mutex
	limit    *concurrency.Limit
}

// New returns a Limiter. It panics with the text of the error if [Config.Validate] returns one.
func New(config Config) *Limiter {
	if err := config.Validate(); err != nil {
		panic(err.Error())
	}
	config = config.withDefaults()
	newLimit := concurrency.NewQueue
	if config.Algorithm == AIMD {
		newLimit = concurrency.NewAIMD
	}
	l := &Limiter{limit: newLimit(config.Initial, config.Min, config.Max)}
	l.config.Store(&config)
	return l
}

// Do calls fn if the limit admits it, and returns what fn returns. Its error is [*LimitError] if
// the call is refused, and [resilience.ContextErr] if the context is done already. Do panics if l
// or fn is nil. It allocates nothing unless it refuses.
func Do[T any](ctx context.Context, l *Limiter, fn func(context.Context) (T, error)) (T, error) {
	if l == nil {
		panic("adaptive: Do: l is nil, must be a Limiter made by New")
	}
	if fn == nil {
		panic("adaptive: Do: fn is nil, must be a function")
	}
	var zero T
	if ctx.Err() != nil {
		return zero, resilience.ContextErr(ctx)
	}
	var c call
	if err := c.begin(ctx, l); err != nil {
		return zero, err
	}
	defer c.leave() // panics and Goexit too
	value, err := fn(ctx)
	c.returned(ctx, err)
	return value, err
}

// Run makes the call if the limit admits it: see [resilience.Policy]. Its error is [*LimitError] if
// the call is refused. A call that an inner policy refused is ignored, whatever its error.
func (l *Limiter) Run(ctx context.Context, next resilience.Next) error {
	var c call
	if err := c.begin(ctx, l); err != nil {
		return err
	}
	defer c.leave() // panics and Goexit too
	starts := next.Starts()
	err := next.Run(ctx)
	if next.Starts() != starts {
		c.returned(ctx, err)
	}
	return err
}

// Acquire splits a call into two steps, for streams and callbacks. The holder of the permit makes
// the call and then reports its outcome with [Permit.Done], or gives the permit back with
// [Permit.Cancel]. The call runs until then, and takes as long. It is safe to defer Cancel in any
// case.
//
// Acquire returns [*LimitError] if the call is refused, and [resilience.ContextErr] if ctx is done.
// Done also uses ctx to classify the outcome. Report a stream with Done(nil) once it is
// established, not when it ends: how long it lasts shows nothing about the dependency.
func (l *Limiter) Acquire(ctx context.Context) (Permit, error) {
	if ctx.Err() != nil {
		return Permit{}, resilience.ContextErr(ctx)
	}
	var c call
	if err := c.begin(ctx, l); err != nil {
		return Permit{}, err
	}
	return Permit{ctx: ctx, call: c}, nil
}

// A Permit is permission to make one call. Only the first call of Done or Cancel counts; later ones
// do nothing. Both are safe for concurrent use. The zero Permit does nothing. A Permit must not be
// copied after first use.
type Permit struct {
	ctx  context.Context
	used atomic.Bool // set by the first call of Done or Cancel; only that call uses call
	call call        // without a limiter in the zero Permit
}

// Done ends the call and reports its error, nil for success. The call is counted as by [Do]: how
// long it took since Acquire, and what its error shows. An error that is marked with
// [resilience.CallerFault] gives the permit back, as Cancel does.
func (p *Permit) Done(err error) {
	if p.used.Swap(true) || p.call.limiter == nil {
		return
	}
	c := p.call
	defer c.leave() // where Classify panics
	c.returned(p.ctx, err)
}

// Cancel gives the permit back. The call counts as never made.
func (p *Permit) Cancel() {
	if p.used.Swap(true) || p.call.limiter == nil {
		return
	}
	p.call.leave()
}

// Name returns the Config's Name.
func (l *Limiter) Name() string { return l.config.Load().Name }

// Config returns the Config in use, with its defaults filled in. Functions that were not set are
// nil.
func (l *Limiter) Config() Config { return *l.config.Load() }

// SetConfig replaces the Config while calls run. If config is invalid, SetConfig changes nothing
// and returns [Config.Validate]'s error. It is safe for concurrent use.
//
//   - The limit stays, moved into Min to Max. Initial has no effect, but is validated: set it to 0
//     if Min or Max leave it out.
//   - Running calls go on, even if they are more than the new limit. A call is counted when it
//     ends, by the Config at that time.
//   - What was learned about round trips stays, unless Algorithm changes.
//
// A call that began under [AIMD] has no duration, and [Queue] ignores it.
func (l *Limiter) SetConfig(config Config) error {
	if err := config.Validate(); err != nil {
		return err
	}
	config = config.withDefaults()
	l.changing.Lock()
	defer l.changing.Unlock()
	old := l.config.Swap(&config)
	l.limit.SetBounds(config.Min, config.Max)
	if config.Algorithm != old.Algorithm {
		if config.Algorithm == AIMD {
			l.limit.UseAIMD()
		} else {
			l.limit.UseQueue()
		}
	}
	return nil
}

// Limit returns how many concurrent calls are admitted, as found so far. During a drain it is not
// the half that is admitted.
func (l *Limiter) Limit() int { return l.limit.Limit() }

// A Snapshot is the state of a limiter at one instant.
type Snapshot struct {
	Name      string
	Limit     int
	Running   int           // may exceed Limit while that shrinks
	RoundTrip time.Duration // mean time of a call that doesn't queue; 0 until Queue has measured it, and with AIMD
}

// Snapshot returns the present state. Its values may be apart by calls that begin or end meanwhile.
func (l *Limiter) Snapshot() Snapshot {
	return Snapshot{l.Name(), l.limit.Limit(), l.limit.Running(), l.limit.RoundTrip()}
}

// Report describes the limiter: its values are limit, running, and round_trip, as in [Snapshot].
func (l *Limiter) Report() resilience.Report {
	s, c := l.Snapshot(), l.Config()
	return resilience.Report{
		Kind: "adaptive", Name: c.Name, Config: describe.Config(c),
		Values: []resilience.Value{
			describe.Calls("limit", s.Limit),
			describe.Calls("running", s.Running),
			{Name: "round_trip", Unit: "s", Value: s.RoundTrip.Seconds()},
		},
	}
}

// A call is one that was admitted and must leave.
type call struct {
	limiter *Limiter
	pass    concurrency.Pass
	timed   bool
	began   int64 // by package clock, if timed
	took    time.Duration
	outcome Outcome // Ignored until the call has returned: a panic, also of Classify, shows nothing
}

// begin admits a call, or refuses it.
func (c *call) begin(ctx context.Context, l *Limiter) error {
	config := l.config.Load()
	priority := concurrency.Highest
	if config.Priority != nil {
		priority = max(0, min(config.Priority(ctx), concurrency.Highest))
	}
	pass, ok := l.limit.Enter(priority)
	if !ok {
		return &LimitError{Name: config.Name, Limit: l.limit.Limit(), Priority: priority}
	}
	c.limiter, c.pass, c.outcome = l, pass, Ignored
	if config.Algorithm == Queue {
		c.timed, c.began = true, clock.Now()
	}
	return nil
}

// returned records how long the call took, and its outcome. A call whose error is marked as a
// caller's fault counts as never made.
func (c *call) returned(ctx context.Context, err error) {
	if c.timed {
		c.took = max(0, time.Duration(clock.Now()-c.began)) // a clock may go back
	}
	if err != nil && mark.Of(err) == mark.CallerFault {
		return
	}
	config := c.limiter.config.Load()
	classify := config.Classify
	if classify == nil {
		classify = DefaultClassify
	}
	if o := classify(ctx, err); c.timed || config.Algorithm == AIMD {
		c.outcome = o
	}
}

func (c *call) leave() {
	c.limiter.limit.Leave(c.pass, c.took, concurrency.Outcome(c.outcome))
}
