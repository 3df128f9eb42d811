package composition

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/ratelimit"
	"github.com/effector-go/resilience/resiliencetest"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// A row is a row of the table: two policies, what the test observes with a outside, and with b
// outside.
type row struct {
	a, b             string
	aAround, bAround string
	play             func(s *scene) string
}

const ms = time.Millisecond

var rows = []row{
	{
		"timeout", "retry",
		"timeout at 1s, 1 start",
		"timeout at 5s, 3 starts",
		func(s *scene) string {
			e := resiliencetest.Hang[int]()
			s.compose(e.Do, around(timeout.After(time.Second)), attempts(3))
			return fmt.Sprintf("%s, %s", s.once(), count(e.Calls(), "start"))
		},
	},
	{
		"timeout", "breaker",
		"counted at 3s, as an error",
		"counted at 1s, as a timeout",
		func(s *scene) string {
			var counted string
			b := breaker.New(breaker.Config{Classify: func(_ context.Context, err error) breaker.Outcome {
				kind := "an error"
				if errors.Is(err, timeout.ErrTimeout) {
					kind = "a timeout"
				}
				counted = fmt.Sprintf("counted at %v, as %s", time.Since(s.began), kind)
				return breaker.Failure
			}})
			s.compose(resiliencetest.IgnoresContext[int](3*time.Second).Do, around(timeout.New(timeout.Config{Limit: time.Second, Abandon: 1})), around(b))
			s.once()
			time.Sleep(time.Minute)
			synctest.Wait() // for the effector
			return counted
		},
	},
	{
		"timeout", "bulkhead",
		"ok at 800ms, timeout at 1s",
		"ok at 800ms, ok at 1.6s",
		func(s *scene) string {
			s.compose(answersIn(800*ms).Do, around(timeout.After(time.Second)), around(places(1, 1)))
			s.at(0)
			s.at(1)
			return s.end()
		},
	},
	{
		"timeout", "hedge",
		"timeout at 1s",
		"ok at 1.3s",
		func(s *scene) string {
			e := resiliencetest.Script(resiliencetest.Step[int]{Delay: time.Hour}, resiliencetest.Step[int]{Delay: 800 * ms})
			s.compose(e.Do, around(timeout.After(time.Second)), hedgedAfter(500*ms))
			return s.once()
		},
	},
	{
		"timeout", "ratelimit",
		"limited at 0s",
		"ok at 1.1s",
		func(s *scene) string {
			s.compose(answersIn(100*ms).Do, around(timeout.After(500*ms)), around(onePerSecond()))
			return s.once()
		},
	},
	{
		"timeout", "adaptive",
		"timeout at 1s, adaptive limit at 2s",
		"timeout at 1s, timeout at 3s",
		func(s *scene) string {
			s.compose(resiliencetest.IgnoresContext[int](10*time.Second).Do, around(timeout.New(timeout.Config{Limit: time.Second, Abandon: 2})), around(limitOne()))
			s.at(0)
			s.at(2 * time.Second)
			return s.end()
		},
	},
	{
		"timeout", "shed",
		"timeout at 1s, 0 calls counted",
		"timeout at 1s, 1 call counted",
		func(s *scene) string {
			sh := calm()
			s.compose(resiliencetest.IgnoresContext[int](3*time.Second).Do, around(timeout.New(timeout.Config{Limit: time.Second, Abandon: 1})), around(sh))
			return fmt.Sprintf("%s, %s counted", s.once(), count(sh.Snapshot().Requests-seen, "call"))
		},
	},
	{
		"timeout", "throttle",
		"a refused call takes 0 tokens",
		"a refused call takes 1 token",
		func(s *scene) string {
			th := handful(10)
			s.compose(resiliencetest.IgnoresContext[int](3*time.Second).Do, around(timeout.New(timeout.Config{Limit: time.Second, Abandon: 1})), around(th))
			s.once() // its effector is left running
			before := th.Snapshot().Available
			if _, err := s.call(s.t.Context()); !errors.Is(err, resilience.ErrRefused) {
				return err.Error()
			}
			return fmt.Sprintf("a refused call takes %s", count(before-th.Snapshot().Available, "token"))
		},
	},
	{
		"timeout", "share",
		"timeout at 1s, ok at 1.5s",
		"timeout at 1s, timeout at 1s",
		func(s *scene) string {
			s.compose(answersIn(1500*ms).Do, around(timeout.After(time.Second)), shared)
			s.at(0)
			s.at(700 * ms)
			return s.end()
		},
	},
	{
		"timeout", "debounce",
		"timeout at 1s",
		"ok at 2.5s",
		func(s *scene) string {
			s.compose(answersIn(500*ms).Do, around(timeout.After(time.Second)), last(2*time.Second))
			return s.once()
		},
	},
	{
		"retry", "breaker",
		"failed and open at 2s, 2 starts, open",
		"failed at 4s, 5 starts, closed",
		func(s *scene) string {
			e, b := fails(), opensAfter(2)
			s.compose(e.Do, attempts(5), around(b))
			return fmt.Sprintf("%s, %s, %v", s.once(), count(e.Calls(), "start"), b.State())
		},
	},
	{
		"retry", "bulkhead",
		"ok at 1s, ok at 500ms",
		"ok at 1s, full at 500ms",
		func(s *scene) string {
			s.compose(resiliencetest.FailFirst[int](1).Do, attempts(2), around(places(1, 0)))
			s.at(0)
			s.at(500 * ms)
			return s.end()
		},
	},
	{
		"retry", "hedge",
		"ok at 0s, 2 starts",
		"ok at 300ms, 2 starts",
		func(s *scene) string {
			e := resiliencetest.FailFirst[int](1)
			s.compose(e.Do, attempts(2), hedgedAfter(300*ms))
			return fmt.Sprintf("%s, %s", s.once(), count(e.Calls(), "start"))
		},
	},
	{
		"retry", "ratelimit",
		"2 starts by 2 tokens",
		"3 starts by 1 token",
		func(s *scene) string {
			e, l := fails(), tokens(2)
			s.compose(e.Do, attempts(3), around(l))
			s.once()
			return fmt.Sprintf("%s by %s", count(e.Calls(), "start"), count(2-l.Snapshot().Available, "token"))
		},
	},
	{
		"retry", "adaptive",
		"ok at 1s, ok at 500ms",
		"ok at 1s, adaptive limit at 500ms",
		func(s *scene) string {
			s.compose(resiliencetest.FailFirst[int](1).Do, attempts(2), around(limitOne()))
			s.at(0)
			s.at(500 * ms)
			return s.end()
		},
	},
	{
		"retry", "shed",
		"3 starts, 3 requests, 1 accepted",
		"3 starts, 1 request, 1 accepted",
		func(s *scene) string {
			e, sh := resiliencetest.FailFirst[int](2), calm()
			s.compose(e.Do, attempts(3), around(sh))
			s.once()
			seenNow := sh.Snapshot()
			return fmt.Sprintf("%s, %s, %d accepted", count(e.Calls(), "start"), count(seenNow.Requests-seen, "request"), seenNow.Accepts-seen)
		},
	},
	{
		"retry", "throttle",
		"2 starts by 2 tokens",
		"3 starts by 1 token",
		func(s *scene) string {
			e, th := fails(), handful(2)
			s.compose(e.Do, attempts(3), around(th))
			s.once()
			return fmt.Sprintf("%s by %s", count(e.Calls(), "start"), count(2-th.Snapshot().Available, "token"))
		},
	},
	{
		"retry", "share",
		"3 callers wait 6 times",
		"3 callers wait 2 times",
		func(s *scene) string {
			var waits atomic.Int32
			r := retry.New(retry.Config{Backoff: retry.Constant(time.Second), OnRetry: func(context.Context, retry.Event) { waits.Add(1) }})
			s.compose(failsIn(100*ms).Do, around(r), shared)
			for i := range time.Duration(3) {
				s.at(i * ms)
			}
			s.end()
			return fmt.Sprintf("3 callers wait %s", count(int(waits.Load()), "time"))
		},
	},
	{
		"retry", "debounce",
		"ok at 5s",
		"ok at 3s",
		func(s *scene) string {
			s.compose(resiliencetest.FailFirst[int](1).Do, attempts(2), last(2*time.Second))
			return s.once()
		},
	},
	{
		"breaker", "bulkhead",
		"open breaker refuses after 0s",
		"open breaker refuses after 9s",
		func(s *scene) string {
			b := opensAfter(5)
			s.compose(answersIn(10*time.Second).Do, around(b), around(places(1, 1)))
			s.at(0)
			time.Sleep(time.Second)
			b.ForceOpen()
			refused := time.Now()
			if _, err := s.call(s.t.Context()); !errors.Is(err, breaker.ErrOpen) {
				s.t.Errorf("got %v, want the refusal of an open breaker", err)
			}
			took := time.Since(refused)
			s.end()
			return fmt.Sprintf("open breaker refuses after %v", took)
		},
	},
	{
		"breaker", "hedge",
		"2 failed starts, closed",
		"2 failed starts, open",
		func(s *scene) string {
			e, b := fails(), opensAfter(2)
			s.compose(e.Do, around(b), hedgedAfter(time.Second))
			s.once()
			return fmt.Sprintf("%s, %v", count(e.Calls(), "failed start"), b.State())
		},
	},
	{
		"breaker", "ratelimit",
		"open at 0s, 0 tokens spent",
		"open at 0s, 1 token spent",
		func(s *scene) string {
			l := tokens(10)
			s.compose(fails().Do, around(open()), around(l))
			return fmt.Sprintf("%s, %s spent", s.once(), count(10-l.Snapshot().Available, "token"))
		},
	},
	{
		"breaker", "adaptive",
		"ok at 1s, open at 500ms",
		"ok at 1s, adaptive limit at 500ms",
		func(s *scene) string {
			b := opensAfter(5)
			s.compose(answersIn(time.Second).Do, around(b), around(limitOne()))
			s.at(0)
			s.at(500 * ms)
			time.Sleep(100 * ms)
			b.ForceOpen()
			return s.end()
		},
	},
	{
		"breaker", "shed",
		"all open, 0 requests counted",
		"some shed, requests counted",
		func(s *scene) string {
			sh := alarmed()
			s.compose(fails().Do, around(open()), around(sh))
			outcome := s.many()
			if n := sh.Snapshot().Requests - seen; n == 0 {
				return outcome + ", 0 requests counted"
			}
			return outcome + ", requests counted"
		},
	},
	{
		"breaker", "throttle",
		"open at 0s, 0 tokens spent",
		"open at 0s, 1 token spent",
		func(s *scene) string {
			th := handful(10)
			s.compose(fails().Do, around(open()), around(th))
			return fmt.Sprintf("%s, %s spent", s.once(), count(10-th.Snapshot().Available, "token"))
		},
	},
	{
		"breaker", "share",
		"1 failed run, open",
		"1 failed run, closed",
		func(s *scene) string {
			e, b := failsIn(100*ms), opensAfter(3)
			s.compose(e.Do, around(b), shared)
			for i := range time.Duration(3) {
				s.at(i * ms)
			}
			s.end()
			return fmt.Sprintf("%s, %v", count(e.Calls(), "failed run"), b.State())
		},
	},
	{
		"breaker", "debounce",
		"1 failed run, open",
		"1 failed run, closed",
		func(s *scene) string {
			e, b := fails(), opensAfter(3)
			s.compose(e.Do, around(b), last(time.Second))
			for i := range time.Duration(3) {
				s.at(i * ms)
			}
			s.end()
			return fmt.Sprintf("%s, %v", count(e.Calls(), "failed run"), b.State())
		},
	},
	{
		"bulkhead", "hedge",
		"2 concurrent in 1 place",
		"1 concurrent in 1 place",
		func(s *scene) string {
			e := answersIn(time.Second)
			s.compose(e.Do, around(places(1, 0)), hedgedAfter(500*ms))
			s.once()
			return fmt.Sprintf("%d concurrent in 1 place", e.MaxConcurrent())
		},
	},
	{
		"bulkhead", "ratelimit",
		"starts at 0s, 10.001s, 11.001s, 12.001s",
		"starts at 0s, 10.001s, 10.002s, 10.003s",
		func(s *scene) string {
			var n starts
			l := ratelimit.New(ratelimit.Config{Rate: 1, Wait: time.Minute})
			e := resiliencetest.Script(resiliencetest.Step[int]{Delay: 10*time.Second + ms}, resiliencetest.Step[int]{Delay: ms})
			s.compose(n.of(e.Do), around(places(1, 10)), around(l))
			for i := range time.Duration(4) {
				s.at(i * ms)
			}
			s.end()
			return n.since(s.began)
		},
	},
	{
		"bulkhead", "adaptive",
		"ok at 1s, ok at 2s",
		"ok at 1s, adaptive limit at 0s",
		func(s *scene) string {
			s.compose(answersIn(time.Second).Do, around(places(1, 1)), around(limitOne()))
			s.at(0)
			s.at(1)
			return s.end()
		},
	},
	{
		"bulkhead", "shed",
		"refused after 1s",
		"refused immediately",
		func(s *scene) string {
			sh := alarmed()
			b := places(1, manyCalls)
			held, _ := b.Acquire(s.t.Context())
			time.AfterFunc(time.Second, held.Release)
			s.compose(fails().Do, around(b), around(sh))
			for range manyCalls {
				s.at(0)
			}
			if strings.Contains(s.end(), "shed at 0s") {
				return "refused immediately"
			}
			return "refused after 1s"
		},
	},
	{
		"bulkhead", "throttle",
		"full at 0s, 0 tokens spent",
		"full at 0s, 1 token spent",
		func(s *scene) string {
			b, th := places(1, 0), handful(10)
			held, _ := b.Acquire(s.t.Context())
			defer held.Release()
			s.compose(fails().Do, around(b), around(th))
			return fmt.Sprintf("%s, %s spent", s.once(), count(10-th.Snapshot().Available, "token"))
		},
	},
	{
		"bulkhead", "share",
		"ok at 1s, full at 500ms",
		"ok at 1s, ok at 1s",
		func(s *scene) string {
			s.compose(answersIn(time.Second).Do, around(places(1, 0)), shared)
			s.at(0)
			s.at(500 * ms)
			return s.end()
		},
	},
	{
		"bulkhead", "debounce",
		"ok at 1s, full at 500ms",
		"ok at 1.5s, ok at 1.5s",
		func(s *scene) string {
			s.compose(resiliencetest.FailFirst[int](0).Do, around(places(1, 0)), last(time.Second))
			s.at(0)
			s.at(500 * ms)
			return s.end()
		},
	},
	{
		"hedge", "ratelimit",
		"1 start by 1 token",
		"2 starts by 1 token",
		func(s *scene) string {
			e, l := answersIn(time.Second), tokens(1)
			s.compose(e.Do, hedgedAfter(500*ms), around(l))
			s.once()
			return fmt.Sprintf("%s by %s", count(e.Calls(), "start"), count(1-l.Snapshot().Available, "token"))
		},
	},
	{
		"hedge", "adaptive",
		"1 concurrent, limit 1",
		"2 concurrent, limit 1",
		func(s *scene) string {
			e := answersIn(time.Second)
			s.compose(e.Do, hedgedAfter(500*ms), around(limitOne()))
			s.once()
			return fmt.Sprintf("%d concurrent, limit 1", e.MaxConcurrent())
		},
	},
	{
		"hedge", "shed",
		"2 failed starts, 2 requests",
		"2 failed starts, 1 request",
		func(s *scene) string {
			e, sh := fails(), calm()
			s.compose(e.Do, hedgedAfter(time.Second), around(sh))
			s.once()
			return fmt.Sprintf("%s, %s", count(e.Calls(), "failed start"), count(sh.Snapshot().Requests-seen, "request"))
		},
	},
	{
		"hedge", "throttle",
		"1 start by 1 token",
		"2 starts by 1 token",
		func(s *scene) string {
			e, th := answersIn(time.Second), handful(1)
			s.compose(e.Do, hedgedAfter(500*ms), around(th))
			s.once()
			return fmt.Sprintf("%s by %s", count(e.Calls(), "start"), count(1-th.Snapshot().Available, "token"))
		},
	},
	{
		"hedge", "share",
		"ok at 10s, 1 start",
		"ok at 600ms, 2 starts",
		func(s *scene) string {
			e := resiliencetest.Script(resiliencetest.Step[int]{Delay: 10 * time.Second}, resiliencetest.Step[int]{Delay: 100 * ms})
			s.compose(e.Do, hedgedAfter(500*ms), shared)
			return fmt.Sprintf("%s, %s", s.once(), count(e.Calls(), "start"))
		},
	},
	{
		"hedge", "debounce",
		"ok at 1.5s",
		"ok at 1s",
		func(s *scene) string {
			s.compose(resiliencetest.FailFirst[int](0).Do, hedgedAfter(500*ms), last(time.Second))
			return s.once()
		},
	},
	{
		"ratelimit", "adaptive",
		"ok at 1.1s, ok at 2.1s",
		"ok at 1.1s, adaptive limit at 500ms",
		func(s *scene) string {
			s.compose(answersIn(100*ms).Do, around(onePerSecond()), around(limitOne()))
			s.at(0)
			s.at(500 * ms)
			return s.end()
		},
	},
	{
		"ratelimit", "shed",
		"some shed, tokens taken",
		"some shed, no tokens taken",
		func(s *scene) string {
			l := tokens(1000)
			s.compose(fails().Do, around(l), around(alarmed()))
			outcome := s.many()
			if 1000-l.Snapshot().Available == manyCalls {
				return outcome + ", tokens taken"
			}
			return outcome + ", no tokens taken"
		},
	},
	{
		"ratelimit", "throttle",
		"limited at 0s, 0 tokens spent",
		"limited at 0s, 1 token spent",
		func(s *scene) string {
			l, th := tokens(1), handful(10)
			l.Allow()
			s.compose(fails().Do, around(l), around(th))
			return fmt.Sprintf("%s, %s spent", s.once(), count(10-th.Snapshot().Available, "token"))
		},
	},
	{
		"ratelimit", "share",
		"3 tokens for 1 run",
		"1 token for 1 run",
		func(s *scene) string {
			e, l := answersIn(time.Second), tokens(10)
			s.compose(e.Do, around(l), shared)
			for i := range time.Duration(3) {
				s.at(i * ms)
			}
			s.end()
			return fmt.Sprintf("%s for %s", count(10-l.Snapshot().Available, "token"), count(e.Calls(), "run"))
		},
	},
	{
		"ratelimit", "debounce",
		"3 tokens for 1 run",
		"1 token for 1 run",
		func(s *scene) string {
			e, l := resiliencetest.FailFirst[int](0), tokens(10)
			s.compose(e.Do, around(l), last(time.Second))
			for i := range time.Duration(3) {
				s.at(i * ms)
			}
			s.end()
			return fmt.Sprintf("%s for %s", count(10-l.Snapshot().Available, "token"), count(e.Calls(), "run"))
		},
	},
	{
		"adaptive", "shed",
		"all adaptive limit",
		"some shed",
		func(s *scene) string {
			limit := limitOne()
			s.callers.Go(func() error { // takes the only place
				_, err := resilience.Do(s.t.Context(), limit, answersIn(time.Second).Do)
				return err
			})
			synctest.Wait()
			s.compose(fails().Do, around(limit), around(alarmed()))
			return s.many()
		},
	},
	{
		"adaptive", "throttle",
		"adaptive limit, 0 tokens spent",
		"adaptive limit, 1 token spent",
		func(s *scene) string {
			th := handful(10)
			s.compose(answersIn(time.Second).Do, around(limitOne()), around(th))
			s.at(0)
			synctest.Wait()
			before := th.Snapshot().Available
			_, err := s.call(s.t.Context())
			spent := before - th.Snapshot().Available
			s.end()
			return fmt.Sprintf("%s, %s spent", name(err), count(spent, "token"))
		},
	},
	{
		"adaptive", "share",
		"ok at 1s, adaptive limit at 500ms",
		"ok at 1s, ok at 1s",
		func(s *scene) string {
			s.compose(answersIn(time.Second).Do, around(limitOne()), shared)
			s.at(0)
			s.at(500 * ms)
			return s.end()
		},
	},
	{
		"adaptive", "debounce",
		"ok at 1s, adaptive limit at 500ms",
		"ok at 1.5s, ok at 1.5s",
		func(s *scene) string {
			s.compose(resiliencetest.FailFirst[int](0).Do, around(limitOne()), last(time.Second))
			s.at(0)
			s.at(500 * ms)
			return s.end()
		},
	},
	{
		"shed", "throttle",
		"some shed, no tokens taken",
		"some shed, tokens taken",
		func(s *scene) string {
			th := handful(1000)
			s.compose(fails().Do, around(alarmed()), around(th))
			outcome := s.many()
			if 1000-th.Snapshot().Available == manyCalls {
				return outcome + ", tokens taken"
			}
			return outcome + ", no tokens taken"
		},
	},
	{
		"shed", "share",
		"1 failed run, 3 requests counted",
		"1 failed run, 1 request counted",
		func(s *scene) string {
			e, sh := failsIn(time.Second), calm()
			s.compose(e.Do, around(sh), shared)
			for i := range time.Duration(3) {
				s.at(i * ms)
			}
			s.end()
			return fmt.Sprintf("%s, %s counted", count(e.Calls(), "failed run"), count(sh.Snapshot().Requests-seen, "request"))
		},
	},
	{
		"shed", "debounce",
		"1 failed run, 3 requests counted",
		"1 failed run, 1 request counted",
		func(s *scene) string {
			e, sh := fails(), calm()
			s.compose(e.Do, around(sh), last(time.Second))
			for i := range time.Duration(3) {
				s.at(i * ms)
			}
			s.end()
			return fmt.Sprintf("%s, %s counted", count(e.Calls(), "failed run"), count(sh.Snapshot().Requests-seen, "request"))
		},
	},
	{
		"throttle", "share",
		"3 tokens for 1 run",
		"1 token for 1 run",
		func(s *scene) string {
			e, th := answersIn(time.Second), handful(10)
			s.compose(e.Do, around(th), shared)
			for i := range time.Duration(3) {
				s.at(i * ms)
			}
			s.end()
			return fmt.Sprintf("%s for %s", count(10-th.Snapshot().Available, "token"), count(e.Calls(), "run"))
		},
	},
	{
		"throttle", "debounce",
		"3 tokens for 1 run",
		"1 token for 1 run",
		func(s *scene) string {
			e, th := resiliencetest.FailFirst[int](0), handful(10)
			s.compose(e.Do, around(th), last(time.Second))
			for i := range time.Duration(3) {
				s.at(i * ms)
			}
			s.end()
			return fmt.Sprintf("%s for %s", count(10-th.Snapshot().Available, "token"), count(e.Calls(), "run"))
		},
	},
	{
		"share", "debounce",
		"ok at 1s, ok at 1s",
		"ok at 1.5s, ok at 1.5s",
		func(s *scene) string {
			s.compose(resiliencetest.FailFirst[int](0).Do, shared, last(time.Second))
			s.at(0)
			s.at(500 * ms)
			return s.end()
		},
	},
}

// TestCompositionRows plays the scene of each row in both orders.
func TestCompositionRows(t *testing.T) {
	for _, r := range rows {
		t.Run(r.a+","+r.b, func(t *testing.T) {
			for _, inverted := range []bool{false, true} {
				synctest.Test(t, func(t *testing.T) {
					s := &scene{t: t, inverted: inverted}
					outer, want := r.a, r.aAround
					if inverted {
						outer, want = r.b, r.bAround
					}
					if got := r.play(s); got != want {
						t.Errorf("%s outside: got %q, want %q", outer, got, want)
					}
					time.Sleep(time.Hour) // until effectors that are left running have ended
				})
			}
			if r.aAround == r.bAround {
				t.Error("both orders have the same outcome")
			}
		})
	}
}
