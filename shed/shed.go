// Package shed refuses some of the calls to a dependency that rejects some of them, before they are
// made: client-side throttling.
//
//	search := shed.New(shed.Config{Name: "search"})
//
//	results, err := shed.Do(ctx, search, query)
//
// An overloaded dependency spends much of its capacity on calls that it rejects in the end. A
// shedder limits the calls it receives to K times as many as it accepts; the other calls fail at
// the caller at almost no cost. There is no limit to configure: the shedder follows what the
// dependency accepts, call by call.
//
// Use one shedder for each dependency that may be overloaded, shared by all calls to it, and put it
// inside retry, so that it sees every attempt. Don't use one for rare calls (a few per Window):
// after a single failure, the next call is refused with a probability of one half. A dependency
// that is down completely still receives a tenth of the calls (1 − MaxShare); package breaker
// refuses all of them and admits a probe now and then.
//
// The algorithm is from Site Reliability Engineering (Beyer, Jones, Petoff and Murphy, O'Reilly,
// 2016), chapter 21, "Handling Overload", section "Client-Side Throttling", which has no MaxShare.
// An admitted call costs two readings of the clock and one compare-and-swap; it takes no lock and
// allocates nothing (BenchmarkDo).
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
// where requests is the number of calls in the last Window, including those that the shedder
// refused, and accepts is how many of them the dependency accepted. So once the Window has seen
// them, the dependency receives at most K times as many calls as it accepts, plus the share of 1 −
// MaxShare that is made whatever the counts are.
//
// A call is counted when it ends, so that a cold start of many concurrent calls isn't refused.
// Ignored calls aren't counted, and neither are calls that an inner policy refused. A Shedder is a
// [resilience.Policy]; create it with [New]. It is safe for concurrent use. It holds no goroutine
// and no timer.
type Shedder struct {
	config Config // with defaults filled in
	window *window
}

// New returns a Shedder that has counted nothing. It panics with the text of [Config.Validate]'s
// error if there is one.
func New(config Config) *Shedder {
	if err := config.Validate(); err != nil {
		panic(err.Error())
	}
	config = config.withDefaults()
	return &Shedder{config, newWindow(config.Window)}
}

// Do calls fn unless the call is refused, and returns fn's result. It returns an [*Error] if the
// call is refused, and [resilience.ContextErr] if ctx has already ended: such a call isn't made and
// isn't counted. Do panics if s or fn is nil. It allocates nothing unless the call is refused.
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

// Run makes the call unless it is refused: see [resilience.Policy]. A call that an inner policy
// refused says nothing about the dependency and isn't counted, whatever its error is.
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

// Name returns Config.Name.
func (s *Shedder) Name() string { return s.config.Name }

// A Snapshot is the state of a shedder at one instant. Calls that end while it is taken may be
// missing from some of its counts.
type Snapshot struct {
	Name     string
	Requests int     // calls in the last Window: accepted, rejected, and refused by the shedder
	Accepts  int     // accepted calls in the last Window
	Share    float64 // the probability with which a call would be refused
}

// Snapshot returns the current state.
func (s *Shedder) Snapshot() Snapshot {
	requests, accepts := s.window.sums(clock.Now())
	return Snapshot{s.config.Name, int(requests), int(accepts), s.share(requests, accepts)}
}

// admit decides whether a call is made. It counts a call that it refuses.
func (s *Shedder) admit() error {
	now := clock.Now()
	if s.window.clean(now) {
		return nil // nothing is refused without rejections, since K is at least 1
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
