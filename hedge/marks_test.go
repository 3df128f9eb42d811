package hedge_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/hedge"
	"github.com/effector-go/resilience/retry"
)

func afterTenSeconds(err error) error { return resilience.WithRetryAfter(err, 10*time.Second) }

// winning are errors with which a start wins.
var winning = map[string]error{
	"NotFailure":                 resilience.NotFailure(errDown),
	"NotFailure(Contention)":     resilience.NotFailure(resilience.Contention(errDown)),
	"NotFailure(Permanent)":      resilience.NotFailure(retry.Permanent(errDown)),
	"Permanent(NotFailure)":      retry.Permanent(resilience.NotFailure(errDown)),
	"WithRetryAfter(NotFailure)": afterTenSeconds(resilience.NotFailure(errDown)),
}

func TestHedgeStartThatReturnsNotFailureWins(t *testing.T) {
	for name, want := range winning {
		synctest.Test(t, func(t *testing.T) {
			hedgeIf := func(error) bool { t.Errorf("%s: HedgeIf was called", name); return true }
			h := hedge.New(hedge.Config{Delay: time.Second, Max: 3, Budget: plenty(), HedgeIf: hedgeIf})
			// The only start.
			s := scripted(answer{err: want})
			value, err := hedge.Do(t.Context(), h, s.call)
			if value != 1 || err != want {
				t.Errorf("%s: got %d, %#v, want 1, %#v", name, value, err, want)
			}
			s.want(t, 0)
			// The second start, while the first one is still running: that one loses.
			s = scripted(answer{takes: time.Hour}, answer{takes: time.Second / 2, err: want}, answer{takes: time.Hour})
			value, err = hedge.Do(t.Context(), h, s.call)
			if value != 2 || err != want || time.Since(s.begun) != 1500*time.Millisecond {
				t.Errorf("%s: got %d, %#v after %v, want 2, %#v after 1.5s", name, value, err, time.Since(s.begun), want)
			}
			if cause := context.Cause(s.ctx(1)); cause != hedge.ErrLost {
				t.Errorf("%s: got cause %v for the first start, want ErrLost", name, cause)
			}
			time.Sleep(time.Hour)
			s.want(t, 0, time.Second)
		})
	}
}

// TestHedgeNotFailureWinsAfterFailures: neither an earlier failure nor a later success of another
// start replaces it.
func TestHedgeNotFailureWinsAfterFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		want := resilience.NotFailure(errors.New("not found"))
		s := scripted(answer{takes: time.Millisecond, err: errDown}, answer{takes: time.Second, err: want}, answer{takes: time.Hour})
		value, err := hedge.Do(t.Context(), after(5), s.call)
		if value != 2 || err != want {
			t.Errorf("got %d, %v, want 2, %v", value, err, want)
		}
		time.Sleep(2 * time.Hour)
	})
}

// TestHedgeNotFailureWinsOnceContextEnded: as a success does, without waiting for the other starts.
func TestHedgeNotFailureWinsOnceContextEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		want := resilience.NotFailure(errDown)
		s := scripted(answer{takes: time.Hour, ignoresContext: true}, answer{takes: time.Second, err: want, ignoresContext: true})
		if _, err := hedge.Do(ctx, after(1), s.call); err != want || time.Since(s.begun) != 2*time.Second {
			t.Errorf("got %v after %v, want %v after 2s", err, time.Since(s.begun), want)
		}
		time.Sleep(2 * time.Hour)
	})
}

// TestHedgeNotFailureOfUnmadeStartWins: an inner policy, such as a cache, may answer by itself.
func TestHedgeNotFailureOfUnmadeStartWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		want := resilience.NotFailure(errDown)
		var runs atomic.Int32
		inner := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			if runs.Add(1) == 1 {
				return next.Run(ctx)
			}
			return want
		})
		s := scripted(answer{takes: time.Hour})
		if _, err := resilience.Do(t.Context(), resilience.Pipeline{after(1), inner}, s.call); err != want || time.Since(s.begun) != time.Second {
			t.Errorf("got %v after %v, want %v after 1s", err, time.Since(s.begun), want)
		}
	})
}

// TestHedgeDropsValueOfNotFailureOnce: with a Discard policy, a value that accompanies an error is
// dropped, the winner's too.
func TestHedgeDropsValueOfNotFailureOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex // guards the following
		dropped := map[int]int{}
		drop := func(n int) {
			mu.Lock()
			defer mu.Unlock()
			dropped[n]++
		}
		s := scripted(answer{takes: 3 * time.Second, ignoresContext: true}, answer{takes: time.Second, err: resilience.NotFailure(errDown)})
		value, err := resilience.Do(t.Context(), resilience.Pipeline{resilience.Discard(drop), after(1)}, s.call)
		if value != 0 || !errors.Is(err, errDown) {
			t.Errorf("got %d, %v, want 0, %v", value, err, errDown)
		}
		time.Sleep(time.Minute)
		mu.Lock()
		defer mu.Unlock()
		if len(dropped) != 2 || dropped[1] != 1 || dropped[2] != 1 {
			t.Errorf("got dropped %v, want each value once", dropped)
		}
	})
}

func TestHedgeStartsNothingAfterCallerFaultOrRetryAfter(t *testing.T) {
	for name, want := range map[string]error{
		"CallerFault":                resilience.CallerFault(errDown),
		"CallerFault(Contention)":    resilience.CallerFault(resilience.Contention(errDown)),
		"WithRetryAfter":             afterTenSeconds(errDown),
		"Contention(WithRetryAfter)": resilience.Contention(afterTenSeconds(errDown)),
		"a wrapped RetryAfter":       fmt.Errorf("get: %w", afterTenSeconds(errDown)),
		"a joined RetryAfter":        errors.Join(errDown, afterTenSeconds(errDown)),
		"Permanent(Contention)":      retry.Permanent(resilience.Contention(errDown)),
		"Contention(Permanent)":      resilience.Contention(retry.Permanent(errDown)),
	} {
		synctest.Test(t, func(t *testing.T) {
			hedgeIf := func(error) bool { t.Errorf("%s: HedgeIf was called", name); return true }
			h := hedge.New(hedge.Config{Delay: time.Second, Max: 5, Budget: plenty(), HedgeIf: hedgeIf})
			s := scripted(answer{err: want})
			if _, err := hedge.Do(t.Context(), h, s.call); err != want {
				t.Errorf("%s: got %#v, want %#v", name, err, want)
			}
			time.Sleep(time.Hour)
			s.want(t, 0)

			// Starts that are already running continue, and no more follow for slowness.
			s = scripted(answer{takes: 5 * time.Second}, answer{takes: time.Second / 2, err: want})
			if value, err := hedge.Do(t.Context(), h, s.call); value != 1 || err != nil {
				t.Errorf("%s: got %d, %v, want 1, nil", name, value, err)
			}
			s.want(t, 0, time.Second)
		})
	}
}

// TestHedgeStartsNothingAfterRefusalWithRetryAfter: an open breaker refused the second start.
func TestHedgeStartsNothingAfterRefusalWithRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var runs atomic.Int32
		inner := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			if runs.Add(1) == 2 {
				return afterTenSeconds(resilience.ErrRefused)
			}
			return next.Run(ctx)
		})
		s := scripted(answer{takes: 5 * time.Second})
		if _, err := resilience.Do(t.Context(), resilience.Pipeline{after(5), inner}, s.call); err != nil || runs.Load() != 2 {
			t.Errorf("got %v after %d starts, want nil after 2", err, runs.Load())
		}
	})
}

func TestHedgeStartsNextAfterContentionAndInnerMarks(t *testing.T) {
	for name, first := range map[string]error{
		"Contention":              resilience.Contention(errDown),
		"NotMade(Contention)":     resilience.NotMade(resilience.Contention(errDown)),
		"Contention(NotFailure)":  resilience.Contention(resilience.NotFailure(errDown)),
		"Contention(CallerFault)": resilience.Contention(resilience.CallerFault(errDown)),
		"wrapped NotFailure":      fmt.Errorf("get: %w", resilience.NotFailure(errDown)),
		"wrapped CallerFault":     fmt.Errorf("get: %w", resilience.CallerFault(errDown)),
		"RetryAfter of zero":      resilience.WithRetryAfter(errDown, 0),
	} {
		synctest.Test(t, func(t *testing.T) {
			asked := 0
			h := hedge.New(hedge.Config{Delay: time.Second, Budget: plenty(), HedgeIf: func(error) bool { asked++; return true }})
			s := scripted(answer{err: first}, answer{})
			if value, err := hedge.Do(t.Context(), h, s.call); value != 2 || err != nil || asked != 1 {
				t.Errorf("%s: got %d, %v with %d calls of HedgeIf, want 2, nil with 1", name, value, err, asked)
			}
			s.want(t, 0, 0)
		})
	}
}

func TestHedgeStartsNotMadeInsideMarksAgainUnderAtMostOnce(t *testing.T) {
	for _, c := range []struct {
		err    error
		starts int
	}{
		{resilience.Contention(errDown), 1},
		{resilience.Contention(resilience.NotMade(errDown)), 2},
		{resilience.NotMade(resilience.Contention(errDown)), 2},
		{afterTenSeconds(resilience.NotMade(errDown)), 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := scripted(answer{err: c.err}, answer{})
			resilience.Do(t.Context(), resilience.Pipeline{resilience.AtMostOnce, after(1)}, s.call)
			if got := len(s.started()); got != c.starts {
				t.Errorf("%#v: got %d starts, want %d", c.err, got, c.starts)
			}
		})
	}
}

func TestHedgeDepositsNothingForCallerFault(t *testing.T) {
	fault := resilience.CallerFault(errDown)
	// Each hedge takes a token.
	for name, c := range map[string]struct {
		tokens  int // before the call
		max     int
		answers []answer
		left    int // tokens after the call; a deposit is two
	}{
		"the only start":                {0, 1, []answer{{err: fault}}, 0},
		"Permanent(CallerFault)":        {0, 1, []answer{{err: retry.Permanent(fault)}}, 0},
		"slow, with a token":            {1, 1, []answer{{takes: 2 * time.Second, err: fault}}, 0},
		"slow, all starts":              {2, 2, []answer{{takes: 5 * time.Second, err: fault}}, 0},
		"NotFailure(CallerFault)":       {0, 1, []answer{{err: resilience.NotFailure(fault)}}, 2},
		"NotFailure":                    {0, 1, []answer{{err: resilience.NotFailure(errDown)}}, 2},
		"a success":                     {0, 1, []answer{{}}, 2},
		"a success and a CallerFault":   {1, 1, []answer{{takes: 3 * time.Second}, {err: fault}}, 2},
		"a failure after a CallerFault": {1, 1, []answer{{takes: 3 * time.Second, err: errDown}, {err: fault}}, 2},
		"a CallerFault after a failure": {1, 1, []answer{{err: errDown}, {err: fault}}, 2},
		"slow, without a token before":  {0, 1, []answer{{takes: 2 * time.Second, err: fault}}, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := budget.New(budget.Config{Ratio: 2, TTL: time.Hour})
			b.Deposit()
			for range 2 - c.tokens {
				b.Withdraw()
			}
			h := hedge.New(hedge.Config{Delay: time.Second, Max: c.max, Budget: b})
			hedge.Do(t.Context(), h, scripted(c.answers...).call)
			left := 0
			for b.Withdraw() {
				left++
			}
			if left != c.left {
				t.Errorf("%s: got %d tokens left, want %d", name, left, c.left)
			}
			time.Sleep(time.Minute)
		})
	}
}

// TestHedgeQuantileRecordsNotFailure: an answer is an answer; other errors aren't.
func TestHedgeQuantileRecordsNotFailure(t *testing.T) {
	for name, c := range map[string]struct {
		err     error
		records bool
	}{
		"NotFailure":  {resilience.NotFailure(errDown), true},
		"Contention":  {resilience.Contention(errDown), false},
		"CallerFault": {resilience.CallerFault(errDown), false},
		"RetryAfter":  {afterTenSeconds(errDown), false},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := hedge.New(hedge.Config{Quantile: 0.5, MinSamples: 3, Budget: plenty()})
			for range 3 {
				hedge.Do(t.Context(), h, scripted(answer{takes: time.Second, err: c.err}).call)
			}
			got := h.Snapshot().Delay
			if c.records != near(got, time.Second) || !c.records && got != 0 {
				t.Errorf("%s: got delay %v, want records %t of 1s", name, got, c.records)
			}
		})
	}
}

// TestHedgeQuantileRecordsWhenFirstStartLostToNotFailure: then, the first start would have taken
// longer still.
func TestHedgeQuantileRecordsWhenFirstStartLostToNotFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hedge.New(hedge.Config{Quantile: 0.5, MinSamples: 1, Delay: time.Second, Budget: plenty()})
		s := scripted(answer{takes: time.Hour}, answer{takes: time.Second, err: resilience.NotFailure(errDown)})
		hedge.Do(t.Context(), h, s.call)
		if got := h.Snapshot().Delay; !near(got, 2*time.Second) {
			t.Errorf("got delay %v, want 2s", got)
		}
	})
}

type requestKey struct{}

func TestHedgeCallsOnHedgeWithContextOfPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.WithValue(t.Context(), requestKey{}, "r1")
		calls := 0
		h := hedge.New(hedge.Config{Delay: time.Second, Max: 2, Budget: plenty(), OnHedge: func(got context.Context, _ hedge.Event) {
			if calls++; got != ctx {
				t.Errorf("got context %v, want %v", got, ctx)
			}
		}})
		hedge.Do(ctx, h, scripted(answer{takes: time.Minute}).call)
		if calls != 2 {
			t.Errorf("got %d calls of OnHedge, want 2", calls)
		}
	})
}

// TestHedgeDoRemovesNotMade: it may have started the call more than once, so an outer pipeline under
// AtMostOnce must not repeat it.
func TestHedgeDoRemovesNotMade(t *testing.T) {
	h := hedge.New(hedge.Config{Delay: time.Hour})
	outer := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		err := next.Run(ctx)
		if next.Repeatable() {
			t.Error("an outer policy may repeat the call")
		}
		return err
	})
	_, err := resilience.Do(t.Context(), resilience.Pipeline{resilience.AtMostOnce, outer}, func(ctx context.Context) (int, error) {
		return hedge.Do(ctx, h, func(context.Context) (int, error) { return 0, resilience.NotMade(errDown) })
	})
	if err != errDown {
		t.Errorf("got %v, want the error without its mark", err)
	}
}
