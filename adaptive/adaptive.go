// Package adaptive finds how many calls at once a dependency takes, and refuses those beyond.
//
//	search := adaptive.New(adaptive.Config{Name: "search"})
//
//	page, err := adaptive.Do(ctx, search, fetchPage)
//
// Use one for each dependency whose capacity you do not know, or that changes: it is a bulkhead that sets its own limit. Do not use one where the limit is
// known, a pool's size say (package bulkhead), nor for calls that last as long as somebody wishes, streams and long polls: how long they take tells nothing of
// the dependency. Put it next to the call, inside retry: the waits between attempts are no round trips.
//
// [Queue] holds the dependency's queue at 2 to 6 % of the limit, by Little's law (John Little, 1961), as TCP Vegas (Brakmo and Peterson, 1995) holds a
// link's; [AIMD] is TCP's additive increase and multiplicative decrease (Chiu and Jain, 1989). A call costs two readings of the clock (none
// with AIMD), a compare-and-swap, an addition and an uncontended lock, and allocates nothing (BenchmarkDo).
package adaptive

import (
	"context"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/clock"
	"github.com/effector-go/resilience/internal/concurrency"
)

// A Limiter lets calls through while fewer run than its limit, refuses others at once with [*LimitError], and sets the limit by how long calls take or
// whether they fail. It is a [resilience.Policy], made by [New], and safe for concurrent use. It holds no goroutine and no timer.
//
// The limit changes by evidence alone: it grows only where calls met it, and without calls it stays. Now and then, at first after 8 round trips and
// later after 128 unless the limit falls, [Queue] admits no more than half of it for three, to learn anew how long a call takes that does not queue.
type Limiter struct {
	name     string
	limit    *concurrency.Limit
	timed    bool                      // it matters how long calls take
	priority func(context.Context) int // nil: all calls have the highest
	classify func(context.Context, error) Outcome
}

// New gives a Limiter. It panics with the text of [Config.Validate]'s error if there is one.
func New(config Config) *Limiter {
	if err := config.Validate(); err != nil {
		panic(err.Error())
	}
	config = config.withDefaults()
	newLimit := concurrency.NewQueue
	if config.Algorithm == AIMD {
		newLimit = concurrency.NewAIMD
	}
	return &Limiter{
		name:     config.Name,
		limit:    newLimit(config.Initial, config.Min, config.Max),
		timed:    config.Algorithm == Queue,
		priority: config.Priority,
		classify: config.Classify,
	}
}

// Do calls fn if the limit admits it and returns what fn returns. Its error is [*LimitError] if the call is refused, and [resilience.ContextErr] if ctx is
// done already. Do panics if l or fn is nil. It allocates nothing unless it refuses.
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
	c, err := l.begin(ctx)
	if err != nil {
		return zero, err
	}
	defer c.leave() // panics and Goexit too
	value, err := fn(ctx)
	c.returned(ctx, err)
	return value, err
}

// Run makes the call if the limit admits it: see [resilience.Policy]. Its error is [*LimitError] if the call is refused. A call that a policy further in
// turned away is ignored, whatever its error.
func (l *Limiter) Run(ctx context.Context, next resilience.Next) error {
	c, err := l.begin(ctx)
	if err != nil {
		return err
	}
	defer c.leave() // panics and Goexit too
	starts := next.Starts()
	err = next.Run(ctx)
	if next.Starts() != starts {
		c.returned(ctx, err)
	}
	return err
}

// Name gives Config.Name.
func (l *Limiter) Name() string { return l.name }

// Limit is how many calls may run at once, as found so far. It is not the half that is admitted while the round trip is learned anew.
func (l *Limiter) Limit() int { return l.limit.Limit() }

// A Snapshot is what a limiter is like at one instant.
type Snapshot struct {
	Name      string
	Limit     int
	Running   int           // may be above Limit while that shrinks
	RoundTrip time.Duration // of a call that does not queue, as Queue has learned it; 0 while it has not, and with AIMD
}

// Snapshot tells the present state. Counts that calls change meanwhile may be apart by those calls.
func (l *Limiter) Snapshot() Snapshot {
	return Snapshot{l.name, l.limit.Limit(), l.limit.Running(), l.limit.RoundTrip()}
}

// A call is one that was admitted and has to leave.
type call struct {
	limiter *Limiter
	pass    concurrency.Pass
	began   int64 // on package clock, if the limiter is timed
	took    time.Duration
	outcome Outcome // Ignored until the call has returned: a panic, Classify's too, tells nothing
}

// begin admits a call, or refuses it.
func (l *Limiter) begin(ctx context.Context) (call, error) {
	priority := concurrency.Highest
	if l.priority != nil {
		priority = max(0, min(l.priority(ctx), concurrency.Highest))
	}
	pass, ok := l.limit.Enter(priority)
	if !ok {
		return call{}, &LimitError{Name: l.name, Limit: l.limit.Limit(), Priority: priority}
	}
	c := call{limiter: l, pass: pass, outcome: Ignored}
	if l.timed {
		c.began = clock.Now()
	}
	return c, nil
}

// returned notes what the call tells.
func (c *call) returned(ctx context.Context, err error) {
	if c.limiter.timed {
		c.took = max(0, time.Duration(clock.Now()-c.began)) // a clock that went back has told nothing
	}
	c.outcome = c.limiter.classify(ctx, err)
}

func (c *call) leave() {
	c.limiter.limit.Leave(c.pass, c.took, concurrency.Outcome(c.outcome))
}
