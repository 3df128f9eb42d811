package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/ratelimit"
)

func wait(ctx context.Context, l *ratelimit.Limiter) error {
	_, err := ratelimit.Do(ctx, l, func(context.Context) (int, error) { return 0, nil })
	return err
}

type costKey struct{}

// A plain is the reference: a bucket in floating point, and a queue of callers. Times are relative
// to its start.
type plain struct {
	now    time.Duration
	tokens float64
	rate   float64
	burst  int
	wait   time.Duration
	factor int // of costs
	queue  []caller
	ends   []end // of callers, by their numbers
}

type caller struct {
	id, cost         int
	latest, deadline time.Duration
}

type how string

const (
	pending  how = ""
	started  how = "started"
	limited  how = "limited"
	canceled how = "canceled"
	costly   how = "costly"
)

// An end is how a call ended, and when.
type end struct {
	how   how
	at    time.Duration
	after time.Duration // RetryAfter
	more  time.Duration // by which it may be longer, because calls before it left in the same instant
}

const never = time.Duration(math.MaxInt64)

// turn returns the time at which this many tokens are there, if none is taken before.
func (p *plain) turn(tokens int) time.Duration {
	lack := float64(tokens) - p.tokens
	if lack <= 0 {
		return p.now
	}
	return p.now + time.Duration(lack/p.rate*1e9)
}

func (p *plain) late(c caller, turn time.Duration) bool { return turn > c.latest || turn >= c.deadline }

func (p *plain) allow(n int) bool {
	switch {
	case n <= 0:
		return true
	case len(p.queue) > 0 || p.tokens < float64(n):
		return false
	}
	p.tokens -= float64(n)
	return true
}

func (p *plain) come(timeout time.Duration, cost int) {
	cost *= p.factor
	c := caller{id: len(p.ends), cost: cost, latest: p.now + p.wait, deadline: never}
	if timeout > 0 {
		c.deadline = p.now + timeout
	}
	p.ends = append(p.ends, end{})
	total := cost
	for _, other := range p.queue {
		total += other.cost
	}
	switch {
	case p.allow(cost):
		p.ends[c.id] = end{how: started, at: p.now}
	case cost > p.burst || p.wait == 0 || p.late(c, p.turn(total)):
		p.refuse(c, total)
	default:
		p.queue = append(p.queue, c)
	}
}

func (p *plain) refuse(c caller, total int) {
	if c.cost > p.burst {
		p.ends[c.id] = end{how: costly, at: p.now}
		return
	}
	p.ends[c.id] = end{how: limited, at: p.now, after: p.turn(total) - p.now}
}

// refuseOverdue refuses the callers whose latest time has come while an earlier one, with a longer
// wait, is still waiting for its turn.
func (p *plain) refuseOverdue() {
	first, ahead, leaving := p.queue[0].id, 0, 0 // costs
	p.queue = slices.DeleteFunc(p.queue, func(c caller) bool {
		if c.id == first || c.latest > p.now {
			ahead += c.cost
			return false
		}
		p.refuse(c, ahead+c.cost)
		if e := &p.ends[c.id]; e.how == limited {
			e.more = p.turn(ahead+leaving+c.cost) - p.turn(ahead+c.cost)
		}
		leaving += c.cost
		return true
	})
}

func (p *plain) cancel(id int) {
	p.queue = slices.DeleteFunc(p.queue, func(c caller) bool {
		if c.id == id {
			p.ends[id] = end{how: canceled, at: p.now}
			return true
		}
		return false
	})
}

func (p *plain) setRate(rate float64, burst int) {
	used := min(float64(p.burst)-p.tokens, float64(burst))
	p.rate, p.burst, p.tokens = rate, burst, float64(burst)-used
}

// pass lets time pass, with everything that happens meanwhile.
func (p *plain) pass(to time.Duration) {
	for {
		// A caller that is first and can't have its turn in time leaves immediately.
		for len(p.queue) > 0 && (p.queue[0].cost > p.burst || p.late(p.queue[0], p.turn(p.queue[0].cost))) {
			p.refuse(p.queue[0], p.queue[0].cost)
			p.queue = p.queue[1:]
		}
		next := to
		var what func()
		for i, c := range p.queue {
			if i == 0 {
				if turn := p.turn(c.cost); turn <= next {
					next, what = turn, func() {
						p.tokens = max(0, p.tokens-float64(c.cost))
						p.ends[c.id] = end{how: started, at: p.now}
						p.queue = p.queue[1:]
					}
				}
				continue
			}
			if c.deadline < next {
				next, what = c.deadline, func() { p.cancel(c.id) }
			}
			if c.latest < next {
				next, what = c.latest, p.refuseOverdue
			}
		}
		p.tokens = min(float64(p.burst), p.tokens+(next-p.now).Seconds()*p.rate)
		p.now = next
		if what == nil {
			return
		}
		what()
	}
}

// near reports whether something is decided so close to this moment that rounding could decide it.
func (p *plain) near() bool {
	const close = 5 * time.Microsecond
	fraction := p.tokens - math.Floor(p.tokens)
	if off := min(fraction, 1-fraction) / p.rate * 1e9; p.tokens < float64(p.burst) && off < float64(close) {
		return true
	}
	for _, c := range p.queue {
		if (c.latest-p.now).Abs() < close || (c.deadline-p.now).Abs() < close {
			return true
		}
	}
	return false
}

// A crowd is the same callers with the real limiter.
type crowd struct {
	limiter *ratelimit.Limiter
	began   time.Time
	cancels []context.CancelFunc
	mu      sync.Mutex // guards ends
	ends    []end
}

func (c *crowd) come(ctx context.Context, timeout time.Duration, cost int) {
	ctx, cancel := context.WithCancel(context.WithValue(ctx, costKey{}, cost))
	if timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, timeout)
	}
	id := len(c.ends)
	c.cancels = append(c.cancels, cancel)
	c.mu.Lock()
	c.ends = append(c.ends, end{})
	c.mu.Unlock()
	go func() {
		defer cancel()
		e := end{how: started}
		call := func(context.Context) error { return nil }
		var err error
		switch id % 3 {
		case 0:
			err = wait(ctx, c.limiter)
		case 1:
			err = resilience.Run(ctx, c.limiter, call)
		case 2:
			err = c.limiter.Wait(ctx)
		}
		switch {
		case errors.Is(err, ratelimit.ErrLimited) && errors.Is(err, resilience.ErrRefused):
			e.how = limited
			e.after, _ = resilience.RetryAfter(err)
		case errors.Is(err, ratelimit.ErrCost) && errors.Is(err, resilience.ErrRefused):
			e.how = costly
		case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
			e.how = canceled
		case err != nil:
			e.how = how(err.Error())
		}
		e.at = time.Since(c.began)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.ends[id] = e
	}()
}

// same compares how two calls ended. Times may differ by what a change of the rate rounds.
func same(got, want end) bool {
	const rounding = 2 * time.Microsecond
	return got.how == want.how && (got.at-want.at).Abs() < rounding &&
		got.after > want.after-rounding && got.after < want.after+want.more+rounding
}

// The limiter must start and refuse each call when the reference does, for any order of calls with
// any cost, with and without a wait, cancellations, deadlines, and changes of the Config.
func TestLimiterMatchesBucketWithQueue(t *testing.T) {
	rates := []float64{1, 2.5, 4, 10, 40, 0.1}
	waits := []time.Duration{0, 333_333_333, 1_777_777_777, 7_123_456_789, time.Hour}
	costs := func(factor int) func(context.Context) int {
		return func(ctx context.Context) int { return factor * ctx.Value(costKey{}).(int) }
	}
	rapid.Check(t, func(rt *rapid.T) {
		config := ratelimit.Config{
			Rate:  rapid.SampledFrom(rates).Draw(rt, "rate"),
			Burst: rapid.IntRange(1, 5).Draw(rt, "burst"),
			Wait:  rapid.SampledFrom(waits).Draw(rt, "wait"),
		}
		config.Cost = costs(1)
		maxCost := rapid.SampledFrom([]int{1, 3, 7}).Draw(rt, "max cost") // above some bursts
		seed := rapid.Uint64().Draw(rt, "seed")                           // of the steps: rapid prefers small numbers, with which hardly any call waits
		synctest.Test(t, func(t *testing.T) {
			p := &plain{tokens: float64(config.Burst), rate: config.Rate, burst: config.Burst, wait: config.Wait, factor: 1}
			c := &crowd{limiter: ratelimit.New(config), began: time.Now()}
			pass := func(d time.Duration) {
				time.Sleep(d)
				p.pass(time.Since(c.began))
				synctest.Wait()
			}
			random := rand.New(rand.NewPCG(seed, 1))
			for n := range 80 {
				s := random.IntN(10_000)
				which := time.Duration(s / 10)
				pass(0)
				for p.near() {
					pass(7 * time.Microsecond)
				}
				switch what := s % 10; {
				case what < 4:
					timeout := time.Duration(0)
					if which%3 == 0 {
						timeout = which * 2_345_677
					}
					cost := 1
					if maxCost > 1 {
						cost = int(which)%(maxCost+2) - 1 // sometimes 0 and -1
					}
					p.come(timeout, cost)
					c.come(t.Context(), timeout, cost)
				case what < 5:
					tokens, got := 1, false
					if maxCost == 1 {
						got = c.limiter.Allow()
					} else {
						tokens = int(which) % (maxCost + 1)
						got = c.limiter.AllowN(tokens)
					}
					if want := p.allow(tokens); got != want {
						rt.Fatalf("step %d: got %v for %d tokens, want %v", n, got, tokens, want)
					}
				case what < 6 && len(p.ends) > 0:
					id := int(which) % len(p.ends)
					p.cancel(id)
					c.cancels[id]()
				case what < 8:
					rate, burst := rates[int(which)%len(rates)], 1+int(which/5)%6
					if which%3 == 0 {
						p.setRate(rate, burst)
						c.limiter.SetRate(rate, burst)
						break
					}
					config := c.limiter.Config()
					if which%3 == 1 {
						config.Rate, config.Burst = rate, burst
					}
					p.setRate(config.Rate, config.Burst)
					p.wait, p.factor = waits[int(which/7)%len(waits)], 1
					if which%2 == 1 && maxCost > 1 {
						p.factor = 2
					}
					config.Wait, config.Cost = p.wait, costs(p.factor)
					if err := c.limiter.SetConfig(config); err != nil {
						rt.Fatal(err)
					}
				default:
					pass(which * 1_234_567)
				}
				pass(0)
				for p.near() {
					pass(7 * time.Microsecond)
				}
				c.compare(rt, n, p)
			}
			for _, cancel := range c.cancels {
				cancel()
			}
		})
	})
}

func (c *crowd) compare(rt *rapid.T, step int, p *plain) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.EqualFunc(c.ends, p.ends, same) {
		rt.Fatalf("step %d: calls ended with\n%v, want\n%v", step, fmt.Sprint(c.ends), fmt.Sprint(p.ends))
	}
	want := ratelimit.Snapshot{Rate: p.rate, Burst: p.burst}
	if len(p.queue) == 0 {
		want.Available = int(p.tokens)
	}
	if s := c.limiter.Snapshot(); s != want {
		rt.Fatalf("step %d: got %+v, want %+v", step, s, want)
	}
	if got := c.limiter.Config(); got.Rate != p.rate || got.Burst != p.burst || got.Wait != p.wait {
		rt.Fatalf("step %d: got %+v, want rate %v, burst %d, and wait %v", step, got, p.rate, p.burst, p.wait)
	}
}
