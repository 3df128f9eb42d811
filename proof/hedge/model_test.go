// Package hedge compares hedge with a model: a plain simulation that computes from the design alone
// when each start of a call begins, how the call ends, what happens to the losers, and the call's
// Starts, Repeatable, and budget afterwards.
package hedge

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/hedge"
	"github.com/effector-go/resilience/retry"
)

// An outcome is the result of one start.
type outcome struct {
	// ok, failed, permanent, rejected (by HedgeIf), not made (NotMade), not failure (NotFailure),
	// contention (Contention), caller fault (CallerFault), later (WithRetryAfter), refused (by an
	// inner policy), panicked.
	kind           string
	takes          time.Duration
	ignoresContext bool
}

// made reports whether the start starts the effector.
func (o outcome) made() bool { return o.kind != "refused" }

// A scenario is a hedge's configuration, a call, and its context.
type scenario struct {
	delay    time.Duration
	max      int
	tokens   int // in the budget before the call, which deposits one
	once     bool
	discards bool

	outcomes []outcome
	ends     string // how the context ends: never, canceled, deadline
	endsAt   time.Duration

	changesAt time.Duration // when the Config is replaced, which changes nothing for the call
}

const mostStarts = 6

func ms(t *rapid.T, most int, label string) time.Duration {
	return time.Duration(rapid.IntRange(0, most).Draw(t, label)) * time.Millisecond
}

func draw(t *rapid.T) scenario {
	s := scenario{
		delay:    ms(t, 20, "Delay") + time.Millisecond,
		max:      rapid.IntRange(0, mostStarts-1).Draw(t, "Max"),
		tokens:   rapid.IntRange(0, 5).Draw(t, "tokens"),
		once:     rapid.IntRange(0, 4).Draw(t, "once") == 0,
		discards: rapid.Bool().Draw(t, "discards"),
		ends:     rapid.SampledFrom([]string{"never", "never", "canceled", "deadline"}).Draw(t, "ends"),
	}
	kinds := []string{"ok", "failed", "failed", "failed", "permanent", "rejected", "not made", "refused", "panicked",
		"not failure", "contention", "contention", "caller fault", "caller fault", "later"}
	for i := range mostStarts {
		s.outcomes = append(s.outcomes, outcome{
			kind: rapid.SampledFrom(kinds).Draw(t, "kind"),
			// The order of two events at the same instant is undefined. A distinct bit in each time
			// avoids them.
			takes:          ms(t, 60, "takes") + time.Microsecond<<i,
			ignoresContext: rapid.IntRange(0, 3).Draw(t, "ignoresContext") == 0,
		})
	}
	s.endsAt = ms(t, 100, "endsAt") - time.Millisecond/4
	s.changesAt = ms(t, 60, "changesAt") + time.Millisecond/2
	return s
}

// A verdict is the result of a call.
type verdict struct {
	begins []time.Duration // of starts
	events []string
	ends   time.Duration
	// nil, dead, start N (its error), ended (the error of a start that ended with its context),
	// panic N.
	err        string
	value      int      // the start that the value comes from
	starts     int      // Next.Starts after the call
	repeatable bool     // Next.Repeatable after the call
	causes     []string // of the starts' contexts: over, lost, caller
	dropped    []int    // starts whose values were dropped
	tokens     int      // left in the budget
}

// A run is one start in the simulation.
type run struct {
	n        int // from 1
	ends     time.Duration
	ended    bool
	canceled bool // it ended because its context did
}

// expected is the model: the rules of hedging, as a simulation that goes from one event to the
// next.
func (s scenario) expected() (v verdict) {
	if s.ends != "never" && s.endsAt <= 0 {
		return verdict{err: "dead", repeatable: true, tokens: s.tokens}
	}
	var now time.Duration
	var runs []*run
	tokens, left := s.tokens, max(1, s.max)
	if s.max == 0 {
		left = 1
	}
	deposited, over := false, false
	last := 0 // the start whose value the call holds
	// The start whose error the call returns if all fail: the last one made, or the last of all
	// once the caller's context has ended.
	failed := 0
	slowAt := time.Duration(math.MaxInt64)

	outcomeOf := func(r *run) outcome { return s.outcomes[r.n-1] }
	begin := func() {
		n := len(runs) + 1
		runs = append(runs, &run{n: n, ends: now + s.outcomes[n-1].takes})
		v.begins = append(v.begins, now)
		slowAt = now + s.delay
		if left == 0 {
			slowAt = math.MaxInt64
		}
	}
	running := func() (rs []*run) {
		for _, r := range runs {
			if !r.ended {
				rs = append(rs, r)
			}
		}
		return rs
	}
	facts := func() (starts, effects, faults int) {
		for _, r := range runs {
			switch o := outcomeOf(r); {
			case !r.ended:
				starts, effects = starts+1, effects+1
			case r.canceled && o.made():
				starts, effects = starts+1, effects+1
			case o.made():
				starts++
				if o.kind != "not made" {
					effects++
				}
				if o.kind == "caller fault" {
					faults++
				}
			}
		}
		return starts, effects, faults
	}
	deposit := func() {
		if starts, _, faults := facts(); starts > faults && !deposited {
			deposited = true
			tokens++
		}
	}
	again := func(why string, asked func() bool) {
		_, effects, _ := facts()
		if left == 0 || over || s.once && effects > 0 || !asked() {
			return
		}
		if tokens == 0 {
			deposit()
		}
		if tokens == 0 {
			return
		}
		tokens--
		left--
		v.events = append(v.events, fmt.Sprintf("start %d after %v: %s", len(runs)+1, now, why))
		begin()
	}
	finish := func(err string, value int) verdict {
		deposit()
		v.err, v.value, v.ends, v.tokens = err, value, now, tokens
		starts, effects, _ := facts()
		v.starts, v.repeatable = starts, !s.once || effects == 0
		for _, r := range runs {
			switch {
			case over && (!r.ended || r.ends >= s.endsAt):
				v.causes = append(v.causes, "caller")
			case !r.ended:
				v.causes = append(v.causes, "lost")
			default:
				v.causes = append(v.causes, "over")
			}
			// A loser's context is canceled. Unless it ignores that, it ends then, with a value
			// nevertheless.
			if o := outcomeOf(r); s.discards && o.made() && (r.n != value || err != "nil") && (o.kind != "panicked" || r.canceled || !r.ended) {
				v.dropped = append(v.dropped, r.n)
			}
		}
		if s.discards && err != "nil" {
			v.value = 0
		}
		return v
	}

	begin()
	for {
		next := slowAt
		var first *run
		for _, r := range running() {
			if r.ends < next {
				next, first = r.ends, r
			}
		}
		switch {
		case s.ends != "never" && !over && s.endsAt < next:
			now, over = s.endsAt, true
			for _, r := range running() {
				if !outcomeOf(r).ignoresContext {
					r.ended, r.canceled, r.ends = true, true, now
					if outcomeOf(r).made() {
						last = -1 // any of them
					}
				}
			}
			if len(running()) == 0 {
				return finish("ended", last)
			}
		case first == nil:
			now, slowAt = slowAt, math.MaxInt64
			again("slow", func() bool { return true })
		default:
			now, first.ended = next, true
			o := outcomeOf(first)
			if o.made() || last == 0 || over {
				failed = first.n
			}
			if o.made() && o.kind != "panicked" {
				last = first.n
			}
			switch o.kind {
			case "ok":
				return finish("nil", first.n)
			case "not failure":
				return finish(fmt.Sprint("start ", first.n), first.n)
			case "panicked":
				return finish(fmt.Sprint("panic ", first.n), 0)
			case "permanent", "caller fault", "later":
				left, slowAt = 0, math.MaxInt64
			case "failed", "not made", "contention", "rejected":
				again(fmt.Sprint("start ", first.n), func() bool { return o.kind != "rejected" })
			}
			if len(running()) == 0 {
				return finish(fmt.Sprint("start ", failed), last)
			}
		}
	}
}

// A startError is the error of one start.
type startError struct {
	n        int
	canceled bool
}

func (e *startError) Error() string { return fmt.Sprint("start ", e.n) }

func (s scenario) errorOf(n int) error {
	err := error(&startError{n: n})
	switch s.outcomes[n-1].kind {
	case "permanent":
		return retry.Permanent(err)
	case "not made":
		return resilience.NotMade(resilience.Contention(err))
	case "not failure":
		return resilience.NotFailure(err)
	case "contention":
		return resilience.Contention(resilience.CallerFault(err))
	case "caller fault":
		return resilience.CallerFault(err)
	case "later":
		return resilience.WithRetryAfter(err, time.Second)
	case "refused":
		return fmt.Errorf("%w: %w", err, resilience.ErrRefused)
	}
	return err
}

func name(err error) string {
	var own *startError
	switch {
	case err == nil:
		return "nil"
	case !errors.As(err, &own):
		return err.Error()
	case own.canceled:
		return "ended"
	}
	return own.Error()
}

var errCaller = errors.New("caller")

// actual plays the scenario with the real hedge, in a bubble.
func (s scenario) actual() (v verdict) {
	began := time.Now()
	ctx := context.Background()
	switch s.ends {
	case "canceled":
		c, cancel := context.WithCancelCause(ctx)
		ctx = c
		if s.endsAt <= 0 {
			cancel(errCaller)
		}
		time.AfterFunc(s.endsAt, func() { cancel(errCaller) })
	case "deadline":
		c, cancel := context.WithDeadlineCause(ctx, began.Add(s.endsAt), errCaller)
		defer cancel()
		ctx = c
	}
	b := budget.New(budget.Config{Ratio: 1, TTL: time.Hour})
	for range s.tokens {
		b.Deposit()
	}
	other := hedge.Config{
		Name: "other", Delay: time.Millisecond, Max: mostStarts, Budget: budget.New(budget.Config{Ratio: 1, MinPerSecond: 1000}),
		HedgeIf: func(error) bool { v.events = append(v.events, "HedgeIf of another Config"); return false },
		OnHedge: func(context.Context, hedge.Event) { v.events = append(v.events, "OnHedge of another Config") },
	}
	h := hedge.New(other)
	change := func(config hedge.Config) {
		if err := h.SetConfig(config); err != nil {
			panic(err)
		}
	}
	change(hedge.Config{
		Delay: s.delay, Max: s.max, Budget: b,
		HedgeIf: func(err error) bool {
			var own *startError
			return !errors.As(err, &own) || s.outcomes[own.n-1].kind != "rejected"
		},
		OnHedge: func(_ context.Context, e hedge.Event) {
			why := "slow"
			if e.Err != nil {
				why = name(e.Err)
			}
			if e.After != time.Since(began) {
				why += ", with a wrong After"
			}
			v.events = append(v.events, fmt.Sprintf("start %d after %v: %s", e.Start, e.After, why))
		},
	})

	time.AfterFunc(s.changesAt, func() { change(other) })

	var mu sync.Mutex // guards the following and v.dropped
	var contexts []context.Context
	var begins []time.Duration
	wait := func(ctx context.Context, n int) (canceled bool) {
		o := s.outcomes[n-1]
		timer := time.NewTimer(o.takes)
		defer timer.Stop()
		var done <-chan struct{}
		if !o.ignoresContext {
			done = ctx.Done()
		}
		select {
		case <-timer.C:
			return false
		case <-done:
			return true
		}
	}
	var over atomic.Bool // the call has ended: a loser's panic would crash the program
	type number struct{}
	inner := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		mu.Lock()
		contexts = append(contexts, ctx)
		begins = append(begins, time.Since(began))
		n := len(contexts)
		mu.Unlock()
		if s.outcomes[n-1].made() {
			return next.Run(context.WithValue(ctx, number{}, n))
		}
		if wait(ctx, n) {
			return &startError{n, true}
		}
		return s.errorOf(n)
	})
	effector := func(ctx context.Context) (int, error) {
		n := ctx.Value(number{}).(int)
		switch {
		case wait(ctx, n):
			if !s.discards {
				// Any of them: the order in which they end is undefined.
				return -1, &startError{n, true}
			}
			return n, &startError{n, true}
		case s.outcomes[n-1].kind == "ok":
			return n, nil
		case s.outcomes[n-1].kind == "panicked" && !over.Load():
			panic(n)
		}
		return n, s.errorOf(n)
	}
	facts := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		defer func() {
			v.starts, v.repeatable = next.Starts(), next.Repeatable()
			v.ends = time.Since(began)
			over.Store(true)
		}()
		return next.Run(ctx)
	})
	policies := resilience.Pipeline{facts, h, inner}
	if s.discards {
		policies = append(resilience.Pipeline{resilience.Discard(func(n int) {
			mu.Lock()
			defer mu.Unlock()
			v.dropped = append(v.dropped, n)
		})}, policies...)
	}
	if s.once {
		policies = append(resilience.Pipeline{resilience.AtMostOnce}, policies...)
	}
	func() {
		defer func() {
			if p, ok := recover().(*resilience.PanicError); ok {
				v.err = fmt.Sprint("panic ", p.Value)
			}
		}()
		value, err := resilience.Do(ctx, policies, effector)
		if v.err, v.value = name(err), value; errors.Is(err, errCaller) {
			v.err, v.repeatable = "dead", true
		}
	}()
	mu.Lock()
	for _, ctx := range contexts {
		causes := map[error]string{hedge.ErrLost: "lost", errCaller: "caller", context.Canceled: "over"}
		v.causes = append(v.causes, causes[context.Cause(ctx)])
	}
	v.begins = begins
	mu.Unlock()
	for b.Withdraw() {
		v.tokens++
	}
	time.Sleep(time.Minute) // until the losers have ended
	mu.Lock()
	defer mu.Unlock()
	slices.Sort(v.dropped)
	return v
}

func TestHedgeMatchesModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := draw(rt)
		var got verdict
		synctest.Test(t, func(*testing.T) { got = s.actual() })
		if want := s.expected(); fmt.Sprint(got) != fmt.Sprint(want) {
			rt.Fatalf("%+v: got\n\t%+v, want\n\t%+v", s, got, want)
		}
	})
}

// TestHedgeQuantileMatchesModel compares the quantile with that of a plain list of durations. Calls
// of the last three minutes count, calls older than four don't.
func TestHedgeQuantileMatchesModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		share := rapid.SampledFrom([]float64{0.1, 0.5, 0.9, 0.95, 0.99}).Draw(rt, "Quantile")
		minSamples := rapid.SampledFrom([]int{1, 5, 30}).Draw(rt, "MinSamples")
		others := rapid.SliceOfN(rapid.SampledFrom([]float64{0, 0.05, 0.5, 0.9, 0.999}), 1, 5).Draw(rt, "other quantiles")
		steps := rapid.SliceOfN(rapid.IntRange(0, 1<<30), 1, 150).Draw(rt, "steps")
		synctest.Test(t, func(*testing.T) {
			const delay = time.Hour // no call takes this long
			config := hedge.Config{Quantile: share, MinSamples: minSamples, Delay: delay, Budget: budget.New(budget.Config{MinPerSecond: 1000})}
			h := hedge.New(config)
			ended := map[int]time.Time{}
			took := map[int]time.Duration{}
			for n, step := range steps {
				kind, size := step%8, time.Duration(step/8)
				switch {
				case kind == 0:
					time.Sleep(size % (2 * time.Minute))
				case kind == 2 && size%2 == 0: // the recent times remain, also if there is no Quantile for a moment
					config.Quantile = others[int(size)%len(others)]
					h.SetConfig(config)
					h.Snapshot()
					if config.Quantile == 0 {
						config.Quantile = share
						h.SetConfig(config)
					}
					share = config.Quantile
				case kind == 1:
					hedge.Do(context.Background(), h, func(context.Context) (int, error) { time.Sleep(size); return 0, errCaller })
				// Ignores its context, so that a hedge doesn't change when the first start ends;
				// the hedge takes as long and loses.
				default:
					hedge.Do(context.Background(), h, func(context.Context) (int, error) { time.Sleep(size); return 0, nil })
					ended[n], took[n] = time.Now(), size
				}
				unsure := false
				maps.DeleteFunc(ended, func(_ int, at time.Time) bool { return time.Since(at) > 4*time.Minute })
				var counts []time.Duration
				for n, at := range ended {
					unsure = unsure || time.Since(at) >= 3*time.Minute
					counts = append(counts, took[n])
				}
				if unsure {
					continue
				}
				got := h.Snapshot().Delay
				if len(counts) < minSamples {
					if got != delay {
						rt.Fatalf("step %d: got delay %v with %d samples, want %v", n, got, len(counts), delay)
					}
					continue
				}
				slices.Sort(counts)
				want := counts[max(0, int(math.Ceil(share*float64(len(counts))-1e-6))-1)]
				if got <= want || float64(got-want-1) > 0.05*float64(want) {
					rt.Fatalf("step %d: got delay %v, the exact quantile of %d durations is %v", n, got, len(counts), want)
				}
			}
			time.Sleep(time.Hour)
		})
	})
}
