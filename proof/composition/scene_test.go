// Package composition checks docs/composition.md. For each row of its table, it plays a scene in
// both orders of two policies and compares the outcomes.
package composition

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/adaptive"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/bulkhead"
	"github.com/effector-go/resilience/debounce"
	"github.com/effector-go/resilience/hedge"
	"github.com/effector-go/resilience/ratelimit"
	"github.com/effector-go/resilience/resiliencetest"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/share"
	"github.com/effector-go/resilience/shed"
	"github.com/effector-go/resilience/throttle"
	"github.com/effector-go/resilience/timeout"
)

// An effector is what the layers are composed around.
type effector = resilience.Effector[int]

// A layer is a policy, or another function that turns one effector into another.
type layer struct {
	policy resilience.Policy
	wrap   func(effector) effector // nil for a policy
}

func around(policy resilience.Policy) layer { return layer{policy: policy} }

var shared = layer{wrap: share.Calls[int]}

func last(quiet time.Duration) layer {
	return layer{wrap: func(e effector) effector { return debounce.Last(e, quiet, 0) }}
}

// compose puts the outer layer around the inner one. Two policies form one pipeline.
func compose(e effector, outer, inner layer) effector {
	switch {
	case outer.wrap == nil && inner.wrap == nil:
		return resilience.Compose(e, outer.policy, inner.policy)
	case outer.wrap == nil:
		return resilience.Compose(inner.wrap(e), outer.policy)
	case inner.wrap == nil:
		return outer.wrap(resilience.Compose(e, inner.policy))
	}
	return outer.wrap(inner.wrap(e))
}

// A scene is a pair of layers around an effector, in one of the two orders.
type scene struct {
	t        *testing.T
	inverted bool
	began    time.Time
	call     effector
	callers  errgroup.Group

	mu       sync.Mutex // guards outcomes
	outcomes []string   // of the calls, in the order in which at was called
}

// compose puts the first layer around the second, or the second around the first.
func (s *scene) compose(e effector, first, second layer) {
	if s.inverted {
		first, second = second, first
	}
	s.call, s.began = compose(e, first, second), time.Now()
}

// at makes a call, when after the scene began.
func (s *scene) at(when time.Duration) {
	s.mu.Lock()
	id := len(s.outcomes)
	s.outcomes = append(s.outcomes, "")
	s.mu.Unlock()
	s.callers.Go(func() error {
		time.Sleep(when)
		_, err := s.call(s.t.Context())
		outcome := fmt.Sprintf("%s at %v", name(err), time.Since(s.began).Round(time.Millisecond))
		s.mu.Lock()
		defer s.mu.Unlock()
		s.outcomes[id] = outcome
		return nil
	})
}

// end waits for the calls and returns their outcomes, in their order.
func (s *scene) end() string {
	s.callers.Wait()
	return strings.Join(s.outcomes, ", ")
}

// once makes one call and returns its outcome.
func (s *scene) once() string {
	s.at(0)
	return s.end()
}

// name describes an error in a word, or in several if it matches several errors.
func name(err error) string {
	if err == nil {
		return "ok"
	}
	var words []string
	for _, e := range []struct {
		err  error
		word string
	}{
		{resiliencetest.ErrFailed, "failed"}, {timeout.ErrTimeout, "timeout"}, {breaker.ErrOpen, "open"}, {bulkhead.ErrFull, "full"},
		{ratelimit.ErrLimited, "limited"}, {adaptive.ErrLimit, "adaptive limit"}, {shed.ErrShed, "shed"}, {throttle.ErrThrottled, "throttled"},
	} {
		if errors.Is(err, e.err) {
			words = append(words, e.word)
		}
	}
	if words == nil {
		return err.Error()
	}
	return strings.Join(words, " and ")
}

// count returns the number n of things in words.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// Effectors.

func answersIn(d time.Duration) *resiliencetest.Effector[int] { return resiliencetest.Slow[int](d) }

func fails() *resiliencetest.Effector[int] { return resiliencetest.FailAfter[int](0) }

func failsIn(d time.Duration) *resiliencetest.Effector[int] {
	return resiliencetest.Slow[int](d).Failing(resiliencetest.ErrFailed)
}

// starts records when the effector is started.
type starts struct {
	mu    sync.Mutex
	times []time.Time
}

func (n *starts) of(e effector) effector {
	return func(ctx context.Context) (int, error) {
		n.mu.Lock()
		n.times = append(n.times, time.Now())
		n.mu.Unlock()
		return e(ctx)
	}
}

func (n *starts) since(began time.Time) string {
	var all []string
	for _, at := range n.times {
		all = append(all, at.Sub(began).String())
	}
	return "starts at " + strings.Join(all, ", ")
}

// Policies that several scenes use.

// attempts makes up to n attempts, each a second after the previous failure.
func attempts(n int) layer {
	return around(retry.New(retry.Config{MaxAttempts: n, Backoff: retry.Constant(time.Second)}))
}

func opensAfter(failures int) *breaker.Breaker {
	return breaker.New(breaker.Config{Consecutive: failures, OpenFor: time.Hour})
}

func open() *breaker.Breaker {
	b := opensAfter(5)
	b.ForceOpen()
	return b
}

// hedgedAfter starts a slow call again after the delay.
func hedgedAfter(delay time.Duration) layer {
	return around(hedge.New(hedge.Config{Delay: delay, Budget: budget.New(budget.Config{MinPerSecond: 100})}))
}

func places(n, queue int) *bulkhead.Bulkhead {
	return bulkhead.New(bulkhead.Config{Limit: n, Queue: queue})
}

// limitOne returns a limiter whose limit is fixed at one call.
func limitOne() *adaptive.Limiter {
	return adaptive.New(adaptive.Config{Initial: 1, Min: 1, Max: 1})
}

func tokens(n int) *ratelimit.Limiter { return ratelimit.New(ratelimit.Config{Rate: 0.001, Burst: n}) }

// onePerSecond lets calls wait, and has no token at the beginning.
func onePerSecond() *ratelimit.Limiter {
	l := ratelimit.New(ratelimit.Config{Rate: 1, Wait: time.Minute})
	l.Allow()
	return l
}

func handful(n int) *throttle.Throttle {
	return throttle.New(throttle.Config{Max: n, Refill: 1, Every: time.Hour})
}

// calm returns a shedder that has counted enough accepted calls to refuse none for a while.
func calm() *shed.Shedder { return shedder(resiliencetest.FailFirst[int](0)) }

// alarmed returns a shedder that has counted enough rejected calls to refuse nearly all.
func alarmed() *shed.Shedder { return shedder(fails()) }

func shedder(e *resiliencetest.Effector[int]) *shed.Shedder {
	s := shed.New(shed.Config{MaxShare: 1})
	for range seen {
		shed.Do(context.Background(), s, e.Do)
	}
	return s
}

const seen = 1000 // calls that a shedder has counted before the scene

// many makes manyCalls calls, one after another, and returns which errors there were.
func (s *scene) many() string {
	errs := map[string]bool{}
	for range manyCalls {
		_, err := s.call(s.t.Context())
		errs[name(err)] = true
	}
	if errs["shed"] {
		return "some shed"
	}
	var all []string
	for word := range errs {
		all = append(all, word)
	}
	slices.Sort(all)
	return "all " + strings.Join(all, ", ")
}

const manyCalls = 50
