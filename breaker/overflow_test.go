package breaker

import (
	"context"
	"errors"
	"math"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"
)

// No test can count up to the limits of the counters. So each counter starts near its limit here.

var errCounted = errors.New("counted")

// countCalls makes calls through b that all end with err, and returns how many were admitted.
func countCalls(b *Breaker, calls int, err error) (admitted int) {
	for range calls {
		_, got := Do(context.Background(), b, func(context.Context) (int, error) { return 0, err })
		if !errors.Is(got, ErrOpen) {
			admitted++
		}
	}
	return admitted
}

const billion = 1_000_000_000

func TestConsecutiveOpensAtAnyLimit(t *testing.T) {
	for _, limit := range []int{billion, 1 << 40, math.MaxInt - 1, math.MaxInt} {
		b := New(Config{Consecutive: limit})
		b.phase.Load().streak.Store(int64(limit) - 3)
		if n := countCalls(b, 2, errCounted); n != 2 || b.State() != Closed {
			t.Errorf("limit %d: got %d calls, %v, want closed with one failure to go", limit, n, b.State())
		}
		if n := countCalls(b, 10, errCounted); n != 1 || b.State() != Open {
			t.Errorf("limit %d: got %d more calls, %v, want open at the limit", limit, n, b.State())
		}
	}
}

func TestConsecutiveForgetsAnyCountAtSuccess(t *testing.T) {
	b := New(Config{Consecutive: math.MaxInt})
	b.phase.Load().streak.Store(math.MaxInt64 - 1)
	countCalls(b, 1, nil)
	if n := countCalls(b, 1000, errCounted); n != 1000 || b.Snapshot().Consecutive != 1000 {
		t.Errorf("got %d calls, %+v, want 1000 failures in a row", n, b.Snapshot())
	}
}

func TestLeakyIsExactAtAnyLimit(t *testing.T) {
	for _, limit := range []int{billion, 1 << 40, math.MaxInt - 1, math.MaxInt} {
		b := New(Config{Leaky: limit})
		b.phase.Load().leak.Store(int64(limit) - 1)
		for range 5 {
			countCalls(b, 1, nil)
			if n := countCalls(b, 1, errCounted); n != 1 || b.State() != Closed || b.Snapshot().Leak != limit-1 {
				t.Fatalf("limit %d: got %+v, want closed with one failure to go", limit, b.Snapshot())
			}
		}
		if n := countCalls(b, 10, errCounted); n != 1 || b.State() != Open {
			t.Errorf("limit %d: got %d more calls, %v, want open at the limit", limit, n, b.State())
		}
	}
}

// Callers that follow the one that reaches the largest number also add to it. The sum overflows,
// but by then its phase has ended.
func TestBreakerOpensOnceAtLargestCount(t *testing.T) {
	for _, c := range []Config{{Consecutive: math.MaxInt}, {Leaky: math.MaxInt}} {
		opened := 0
		c.OnStateChange = func(Transition) { opened++ }
		b := New(c)
		for _, n := range []*atomic.Int64{b.phase.Load().streak, b.phase.Load().leak} {
			if n != nil {
				n.Store(math.MaxInt64 - 5)
			}
		}
		permits := make([]Permit, 20)
		for i := range permits {
			permits[i], _ = b.Acquire(context.Background())
		}
		var g errgroup.Group
		for i := range permits {
			g.Go(func() error { permits[i].Done(errCounted); return nil })
		}
		g.Wait()
		if opened != 1 || b.State() != Open {
			t.Errorf("%+v: got %d openings, %v, want 1, open", c, opened, b.State())
		}
	}
}

// fill sets the class's count of every epoch in the window, in every stripe.
func fill(w *window, class int, calls uint64) {
	for _, stripe := range *w.stripes.Load() {
		for epoch := range int64(span) {
			stripe.ended[class][epoch].Store(tag(epoch) | calls)
		}
	}
}

// With every word full the share is still exact to nine digits. Every decision is the same as with
// smaller counts.
func TestWindowKeepsShareWhenFull(t *testing.T) {
	for name, test := range map[string]struct {
		successes, failures uint64
		rate                float64
		opens               bool
	}{
		"billion failures of a billion calls":   {0, billion / span, 1, true},
		"billion failures of two billion calls": {billion / span, billion / span, 0.51, false},
		"full of failures":                      {0, countMask, 1, true},
		"one failure below full":                {0, countMask - 1, 1, true},
		"full of successes":                     {countMask, 0, 0.000001, false},
		"full of both and below the rate":       {countMask, countMask, 0.500001, false},
		"full of both and at the rate":          {countMask, countMask, 0.5, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := New(Config{FailureRate: test.rate, Window: time.Second, MinCalls: 1})
				w := b.phase.Load().window
				w.grow() // to the maximum of stripes
				time.Sleep(950 * time.Millisecond)
				fill(w, fastSuccess, test.successes)
				fill(w, fastFailure, test.failures)
				admitted := countCalls(b, 100, errCounted)
				if opened := b.State() == Open; opened != test.opens || opened != (admitted == 1) || !opened && admitted != 100 {
					t.Errorf("got %v after %d calls", b.State(), admitted)
				}
				if failures, calls := w.failed(9); failures < int64(test.failures) || calls < failures || calls < int64(test.successes) {
					t.Errorf("got %d failures of %d calls: the sum overflowed", failures, calls)
				}
			})
		})
	}
}

func TestWindowKeepsSlowShareWhenFull(t *testing.T) {
	for _, opens := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := New(Config{SlowRate: 0.6, SlowCall: time.Hour, Window: time.Second, MinCalls: 1})
			w := b.phase.Load().window
			w.grow()
			time.Sleep(950 * time.Millisecond)
			fill(w, fastSuccess, countMask)
			fill(w, slowSuccess, countMask)
			if opens {
				fill(w, slowFailure, countMask)
				fill(w, slowIgnored, countMask)
			}
			admitted := countCalls(b, 100, nil)
			if opened := b.State() == Open; opened != opens || !opened && admitted != 100 {
				t.Errorf("got %v after %d calls", b.State(), admitted)
			}
		})
	}
}

// A trillion calls hang until the ring has gone around.
func TestWindowCountsTrillionHangingCallsAsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{SlowRate: 1, SlowCall: time.Second, Window: time.Second, MinCalls: 1})
		w := b.phase.Load().window
		const trillion = 1_000_000_000_000
		w.carried.Store(trillion)
		if all, slow := w.running(w.began); all != trillion || slow != trillion {
			t.Errorf("got %d running, %d slow, want a trillion", all, slow)
		}
		if n := countCalls(b, 1, nil); n != 0 || b.State() != Open {
			t.Errorf("got %d calls, %v, want the hanging calls to open the breaker", n, b.State())
		}
	})
}

// A word holds thirty bits of its epoch's number. When they wrap around, counting continues and old
// calls are forgotten.
func TestWindowSurvivesEpochWraparound(t *testing.T) {
	for _, rounds := range []int64{1, 2, 7} {
		synctest.Test(t, func(t *testing.T) {
			b := New(Config{FailureRate: 0.5, SlowRate: 1, SlowCall: time.Second, Window: time.Second, MinCalls: 4})
			w := b.phase.Load().window
			w.began -= (rounds<<30 - 5) * w.width.by // five epochs to go
			for i := range 20 {
				countCalls(b, 3, nil)
				want := 3 * min(i+1, span)
				if s := b.Snapshot(); s.Calls != want || s.Failures != 0 || s.State != Closed || s.Running != 0 {
					t.Fatalf("round %d, epoch %d: got %+v, want %d calls", rounds, i, s, want)
				}
				time.Sleep(100 * time.Millisecond)
			}
			if n := countCalls(b, 100, errCounted); n != 27 || b.State() != Open {
				t.Errorf("round %d: got open after %d failures, want 27, the number of calls in nine epochs", rounds, n)
			}
		})
	}
}

// A call that hangs while the fine epochs wrap around is slow afterwards.
func TestWindowKeepsRunningCallsAtFineEpochWraparound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Config{SlowRate: 1, SlowCall: 800 * time.Millisecond, Window: time.Hour, MinCalls: 2})
		w := b.phase.Load().window
		w.began -= (1<<30 - 3) * w.fine.by
		hung := make([]Permit, 2)
		for i := range hung {
			hung[i], _ = b.Acquire(context.Background())
		}
		time.Sleep(700 * time.Millisecond)
		if n := countCalls(b, 1, errCounted); n != 1 || b.Snapshot().Running != 2 {
			t.Errorf("got %d calls, %+v, want 1 call, 2 running", n, b.Snapshot())
		}
		time.Sleep(100 * time.Millisecond)
		if s := b.Snapshot(); s.Running != 2 || s.Slow != 2 {
			t.Errorf("got %+v, want both slow", s)
		}
		for i := range hung {
			hung[i].Cancel()
		}
		if s := b.Snapshot(); s.Running != 0 || s.Slow != 0 {
			t.Errorf("got %+v, want none running", s)
		}
	})
}

// Misses are counted in 32 bits, which overflow on a busy server. Then the stripes aren't created
// again, and no call is lost.
func TestWindowSurvivesMissOverflow(t *testing.T) {
	const callers, each = 8, 2000
	for _, misses := range []int32{math.MaxInt32 - 1, math.MinInt32, -1, missesToGrow - 1} {
		b := New(Config{FailureRate: 1, Window: time.Hour, MinCalls: math.MaxInt})
		w := b.phase.Load().window
		w.grow()
		stripes := len(*w.stripes.Load())
		w.misses.Store(misses)
		var g errgroup.Group
		for range callers {
			g.Go(func() error { countCalls(b, each, errCounted); return nil })
		}
		g.Wait()
		w.misses.Store(missesToGrow)
		w.grow()
		if s := b.Snapshot(); s.Calls != callers*each || s.Failures != callers*each || len(*w.stripes.Load()) != stripes {
			t.Errorf("from %d misses: got %+v in %d stripes, want %d calls in %d", misses, s, len(*w.stripes.Load()), callers*each, stripes)
		}
	}
}

// Numbers of calls have 43 bits, which wrap around after a few months of a million calls per
// second. No call is lost or remembered for too long.
func TestLastCallsForgetAfterAnyNumberOfCalls(t *testing.T) {
	for _, size := range []int{4, 5, 1000} {
		for _, before := range []uint64{billion, 1 << 32, numberMask - 2, numberMask - 1, numberMask} {
			b := New(Config{Failures: 3, LastCalls: size})
			l := b.phase.Load().last
			l.word.Store(before<<numberShift | filled) // all succeeded
			for i := range l.size {
				number := (before - i) & numberMask
				l.slot(number).Store(number << 1)
			}
			for range 5 {
				countCalls(b, 2, errCounted)
				if s := b.Snapshot(); s.State != Closed || s.Calls != size || s.Failures != 2 {
					t.Fatalf("last %d calls after %d: got %+v, want closed, 2 failures", size, before, s)
				}
				countCalls(b, size-1, nil)
				if s := b.Snapshot(); s.State != Closed || s.Calls != size || s.Failures != 1 {
					t.Fatalf("last %d calls after %d: got %+v, want closed, 1 failure", size, before, s)
				}
				countCalls(b, 1, nil)
			}
			if n := countCalls(b, 20, errCounted); n != 3 || b.State() != Open {
				t.Errorf("last %d calls after %d: got %d more failures, %v, want open after 3", size, before, n, b.State())
			}
		}
	}
}

func TestLastCallsSurviveNumberWraparoundUnderRace(t *testing.T) {
	const size, callers, each = 64, 8, 2000
	l := newLastCalls(size)
	before := uint64(numberMask - callers*each/2)
	l.word.Store(before<<numberShift | filled)
	for i := range uint64(size) {
		number := (before - i) & numberMask
		l.slot(number).Store(number << 1)
	}
	var g errgroup.Group
	for i := range callers {
		g.Go(func() error {
			for j := range each {
				l.book((i+j)%3 == 0)
			}
			return nil
		})
	}
	g.Wait()
	written := 0
	for i := range l.ring {
		if number := l.ring[i].Load() >> 1; (l.word.Load()>>numberShift-number)&numberMask < size {
			written += int(l.ring[i].Load() & 1)
		}
	}
	if calls, failures := l.held(); calls != size || failures != written {
		t.Errorf("got %d calls, %d failures, %d failures in the ring", calls, failures, written)
	}
}

func TestProbesDecideAtAnyLimit(t *testing.T) {
	for _, limit := range []int{billion, math.MaxInt} {
		b := New(Config{ProbeSuccesses: limit, ProbeFailures: limit})
		for _, test := range []struct {
			count func(*probes) *int
			err   error
			then  State
		}{
			{func(p *probes) *int { return &p.succeeded }, nil, Closed},
			{func(p *probes) *int { return &p.failed }, errCounted, Open},
		} {
			b.HalfOpen()
			*test.count(b.phase.Load().probes) = limit - 2
			if countCalls(b, 1, test.err); b.State() != HalfOpen {
				t.Errorf("limit %d: got %v before the limit, want half-open", limit, b.State())
			}
			if countCalls(b, 1, test.err); b.State() != test.then {
				t.Errorf("limit %d: got %v at the limit, want %v", limit, b.State(), test.then)
			}
		}
	}
}

// The open time and its jitter add up to almost the largest Duration. As floating-point numbers they
// are rounded, to multiples of 512 and more.
func TestOpenTimeSurvivesRoundingOfJitter(t *testing.T) {
	for _, random := range []float64{0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9} {
		middle := time.Duration(math.MaxInt64 / (1 + random)) // with its jitter, it is the largest
		for d := middle - 10_000; d < middle+10_000; d++ {
			c := Config{OpenFor: d, MaxOpenFor: d, Jitter: 1}
			if got := c.openTime(1, 0, random); got < d {
				t.Fatalf("got %d for an open time of %d, lengthened by %v of it", got, d, random)
			}
		}
	}
}

// After any number of consecutive openings the open time is the largest, counting continues, and a
// success ends it.
func TestOpenTimeStaysAtMaxAfterAnyNumberOfOpenings(t *testing.T) {
	for _, openings := range []int{61, 62, 63, 64, 65, billion, math.MaxInt - 2} {
		for _, maxOpen := range []time.Duration{time.Minute, math.MaxInt64} {
			synctest.Test(t, func(t *testing.T) {
				b := New(Config{OpenFor: 5 * time.Second, MaxOpenFor: maxOpen})
				b.HalfOpen()
				b.phase.Load().openings = openings
				countCalls(b, 1, errCounted)
				p := b.phase.Load()
				if p.state != Open || p.openings != openings+1 || p.openTime != maxOpen || p.until < p.began {
					t.Errorf("after %d openings: got %v, opening %d, open for %v", openings, p.state, p.openings, p.openTime)
				}
				if maxOpen == math.MaxInt64 {
					return
				}
				time.Sleep(maxOpen)
				synctest.Wait()
				countCalls(b, 1, nil)
				time.Sleep(maxOpen)
				if s := b.Snapshot(); s.State != Closed || s.Openings != 0 {
					t.Errorf("after %d openings: got %+v, want closed, 0 openings", openings, s)
				}
			})
		}
	}
}
