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
// refuses all of them and admits an occasional probe.
//
// The algorithm is from Site Reliability Engineering (Beyer, Jones, Petoff and Murphy, O'Reilly,
// 2016), chapter 21, "Handling Overload", section "Client-Side Throttling", which has no MaxShare.
// An admitted call costs two readings of the clock and one compare-and-swap; it takes no lock and
// allocates nothing (BenchmarkDo).
package shed

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/clock"
	"github.com/effector-go/resilience/internal/describe"
	"github.com/effector-go/resilience/internal/mark"
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
// Ignored calls aren't counted, and neither are calls that an inner policy refused, nor calls whose
// error is marked with [resilience.CallerFault]: they count as never made. A Shedder is a
// [resilience.Policy]; create it with [New]. It is safe for concurrent use. It holds no goroutine
// and no timer.
type Shedder struct {
	// state is replaced by SetConfig, which holds changing. A call loads it once when it begins, to
	// decide, and once when it ends, to count.
	state    atomic.Pointer[state]
	changing sync.Mutex
}

// A state is a Config, with defaults filled in except Classify, and the calls that were counted. A
// state with the same Window has the same counts.
type state struct {
	Config
	window *window
}

// New returns a Shedder that has counted nothing. It panics with the text of [Config.Validate]'s
// error if there is one.
func New(config Config) *Shedder {
	if err := config.Validate(); err != nil {
		panic(err.Error())
	}
	config = config.withDefaults()
	s := new(Shedder)
	s.state.Store(&state{config, newWindow(config.Window)})
	return s
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
			s.state.Load().count(Outcome(outcome.OfUnwind(ctx)))
		}
	}()
	value, err := fn(ctx)
	s.countResult(ctx, err)
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
			s.state.Load().count(Outcome(outcome.OfUnwind(ctx)))
		}
	}()
	err := next.Run(ctx)
	if next.Starts() != starts {
		s.countResult(ctx, err)
	}
	returned = true
	return err
}

// Name returns the Config's Name.
func (s *Shedder) Name() string { return s.state.Load().Name }

// Config returns the Config in use, with defaults filled in. Classify is nil if it wasn't set.
func (s *Shedder) Config() Config { return s.state.Load().Config }

// SetConfig replaces the Config while calls run. The counts stay, and are judged by the new K and
// MaxShare from the next call on; only a new Window begins without counts. A call in progress is
// counted when it ends, by the Config at that time. If config is invalid, SetConfig changes nothing
// and returns [Config.Validate]'s error.
func (s *Shedder) SetConfig(config Config) error {
	if err := config.Validate(); err != nil {
		return err
	}
	next := &state{Config: config.withDefaults()}
	s.changing.Lock()
	defer s.changing.Unlock()
	if old := s.state.Load(); next.Window == old.Window {
		next.window = old.window
	} else {
		next.window = newWindow(next.Window)
	}
	s.state.Store(next)
	return nil
}

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
	current := s.state.Load()
	requests, accepts := current.window.sums(clock.Now())
	return Snapshot{current.Name, int(requests), int(accepts), current.share(requests, accepts)}
}

// Report describes the shedder: its values are requests, accepts, and share, as in [Snapshot].
func (s *Shedder) Report() resilience.Report {
	now, c := s.Snapshot(), s.Config()
	return resilience.Report{
		Kind: "shed", Name: c.Name, Config: describe.Config(c),
		Values: []resilience.Value{
			describe.Calls("requests", now.Requests),
			describe.Calls("accepts", now.Accepts),
			{Name: "share", Unit: "1", Value: now.Share},
		},
	}
}

// admit decides whether a call is made. It counts a call that it refuses.
func (s *Shedder) admit() error {
	current, now := s.state.Load(), clock.Now()
	if current.window.clean(now) {
		return nil // nothing is refused without rejections, since K is at least 1
	}
	share := current.share(current.window.sums(now))
	if share == 0 || rand.Float64() >= share {
		return nil
	}
	current.window.add(others, now)
	return &Error{current.Name, share}
}

func (s *state) share(requests, accepts int64) float64 {
	excess := float64(requests) - s.K*float64(accepts)
	return min(max(0, excess/(float64(requests)+1)), s.MaxShare)
}

// countResult counts a call that returned err, unless it counts as never made.
func (s *Shedder) countResult(ctx context.Context, err error) {
	if err != nil && mark.Of(err) == mark.CallerFault {
		return
	}
	current := s.state.Load()
	classify := current.Classify
	if classify == nil {
		classify = DefaultClassify
	}
	current.count(classify(ctx, err))
}

// count counts a call that ends now.
func (s *state) count(o Outcome) {
	switch o {
	case Accepted:
		s.window.add(accepted, clock.Now())
	case Rejected:
		s.window.add(others, clock.Now())
	}
}
