// Package shed refuses some of the calls to a dependency that rejects some of them, before they are made: client-side throttling.
//
//	search := shed.New(shed.Config{Name: "search"})
//
//	results, err := shed.Do(ctx, search, query)
//
// A dependency that is overloaded spends much of what it has on calls that it rejects in the end. A shedder sees to it that it gets at most K times
// as many as it accepts, and the rest fails at the caller for next to nothing. It needs no limit to be set: it goes by what the dependency
// accepts, call by call.
//
// Use one shedder for each dependency that may be overloaded, shared by all calls to it, inside of retry, so that it sees every attempt. Do not use one
// for calls that are rare (a few in Window): a lone failure then has the next call refused with a chance of one half. A dependency that is down altogether still gets
// a tenth of the calls (1 − MaxShare); package breaker refuses all, and tries one now and then.
//
// The algorithm is that of Site Reliability Engineering (Beyer, Jones, Petoff and Murphy, O'Reilly, 2016), chapter 21, "Handling
// Overload", section "Client-Side Throttling", which has no MaxShare. A call that is let through costs two readings of the clock and one compare-and-swap, takes no lock and allocates
// nothing (BenchmarkDo).
package shed

import (
	"context"
	"math/rand/v2"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/clock"
	"github.com/effector-go/resilience/internal/outcome"
)

// A Shedder refuses each call at random, with the probability
//
//	max(0, (requests − K × accepts) / (requests + 1)), at most MaxShare
//
// where requests are the calls of the last Window, those that it refused included, and accepts those of them that the dependency accepted. So the
// dependency gets no more than K times as many calls as it accepts, once the Window has seen them, but for the 1 − MaxShare of the calls that are made whatever is counted.
//
// A call is counted when it ends, so that a cold start of many at once is not refused. Ignored calls count nowhere, nor do those that a
// policy further in turned away. It is a [resilience.Policy], made by [New], and safe for concurrent use. It holds no goroutine and no timer.
type Shedder struct {
	config Config // with defaults filled in
	window *window
}

// New gives a Shedder that has counted nothing. It panics with the text of [Config.Validate]'s error if there is one.
func New(config Config) *Shedder {
	if err := config.Validate(); err != nil {
		panic(err.Error())
	}
	config = config.withDefaults()
	return &Shedder{config, newWindow(config.Window)}
}

// Do calls fn unless the call is refused and returns what fn returns. Its error is [*Error] if the call is refused, and [resilience.ContextErr] if
// ctx is already done: such a call is not made and counts nowhere. Do panics if s or fn is nil. It allocates nothing unless it refuses.
func Do[T any](ctx context.Context, s *Shedder, fn func(context.Context) (T, error)) (T, error) {
	if s == nil {
		panic("shed: Do: s is nil, must be a Shedder made by New")
	}
	if fn == nil {
		panic("shed: Do: fn is nil, must be a function")
	}
	var zero T
	if ctx.Err() != nil {
		return zero, resilience.ContextErr(ctx)
	}
	if err := s.admit(); err != nil {
		return zero, err
	}
	returned := false
	defer func() {
		if !returned {
			s.count(Outcome(outcome.OfUnwind(ctx)))
		}
	}()
	value, err := fn(ctx)
	s.count(s.config.Classify(ctx, err))
	returned = true
	return value, err
}

// Run makes the call unless it is refused: see [resilience.Policy]. A call that a policy further in turned away says nothing of the dependency and
// is not counted, whatever its error.
func (s *Shedder) Run(ctx context.Context, next resilience.Next) error {
	if err := s.admit(); err != nil {
		return err
	}
	starts, returned := next.Starts(), false
	defer func() {
		if !returned && next.Starts() != starts {
			s.count(Outcome(outcome.OfUnwind(ctx)))
		}
	}()
	err := next.Run(ctx)
	if next.Starts() != starts {
		s.count(s.config.Classify(ctx, err))
	}
	returned = true
	return err
}

// Name gives Config.Name.
func (s *Shedder) Name() string { return s.config.Name }

// A Snapshot is what a shedder goes by at one instant. Counts that calls change meanwhile may be apart by those calls.
type Snapshot struct {
	Name     string
	Requests int     // calls of the last Window that were accepted, rejected, or refused by the shedder
	Accepts  int     // accepted ones
	Share    float64 // the probability with which a call would be refused
}

// Snapshot tells the present state.
func (s *Shedder) Snapshot() Snapshot {
	requests, accepts := s.window.sums(clock.Now())
	return Snapshot{s.config.Name, int(requests), int(accepts), s.share(requests, accepts)}
}

// admit decides about a call. One that it refuses is counted.
func (s *Shedder) admit() error {
	now := clock.Now()
	if s.window.clean(now) {
		return nil // K is at least 1
	}
	share := s.share(s.window.sums(now))
	if share == 0 || rand.Float64() >= share {
		return nil
	}
	s.window.add(others, now)
	return &Error{s.config.Name, share}
}

func (s *Shedder) share(requests, accepts int64) float64 {
	excess := float64(requests) - s.config.K*float64(accepts)
	return min(max(0, excess/(float64(requests)+1)), s.config.MaxShare)
}

// count counts a call that ends now.
func (s *Shedder) count(o Outcome) {
	switch o {
	case Accepted:
		s.window.add(accepted, clock.Now())
	case Rejected:
		s.window.add(others, clock.Now())
	}
}
