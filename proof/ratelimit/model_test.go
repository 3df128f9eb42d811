package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"math"
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

// A plain is the reference: a bucket in floating point, and a queue of callers. Times are since it began.
type plain struct {
	now    time.Duration
	tokens float64
	rate   float64
	burst  int
	wait   time.Duration
	queue  []caller
	ends   []end // of callers, by their numbers
}

type caller struct {
	id               int
	latest, deadline time.Duration
}

type how string

const (
	pending  how = ""
	started  how = "started"
	limited  how = "limited"
	canceled how = "canceled"
)

// An end is what became of a call, and when.
type end struct {
	how   how
	at    time.Duration
	after time.Duration // RetryAfter
}

const never = time.Duration(math.MaxInt64)

// turn is when there is a token for one who comes after so many others.
func (p *plain) turn(others int) time.Duration {
	lack := float64(others+1) - p.tokens
	if lack <= 0 {
		return p.now
	}
	return p.now + time.Duration(lack/p.rate*1e9)
}

func (p *plain) late(c caller, turn time.Duration) bool { return turn > c.latest || turn >= c.deadline }

func (p *plain) allow() bool {
	if len(p.queue) > 0 || p.tokens < 1 {
		return false
	}
	p.tokens--
	return true
}

func (p *plain) come(timeout time.Duration) {
	c := caller{id: len(p.ends), latest: p.now + p.wait, deadline: never}
	if timeout > 0 {
		c.deadline = p.now + timeout
	}
	p.ends = append(p.ends, end{})
	switch {
	case p.allow():
		p.ends[c.id] = end{how: started, at: p.now}
	case p.wait == 0 || p.late(c, p.turn(len(p.queue))):
		p.refuse(c, len(p.queue))
	default:
		p.queue = append(p.queue, c)
	}
}

func (p *plain) refuse(c caller, others int) {
	p.ends[c.id] = end{limited, p.now, p.turn(others) - p.now}
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

// pass lets time pass, with all that happens.
func (p *plain) pass(to time.Duration) {
	for {
		// Whoever is first and cannot have its turn in time goes at once.
		for len(p.queue) > 0 && p.late(p.queue[0], p.turn(0)) {
			p.refuse(p.queue[0], 0)
			p.queue = p.queue[1:]
		}
		next := to
		var what func()
		for i, c := range p.queue {
			if i == 0 {
				if turn := p.turn(0); turn <= next {
					next, what = turn, func() {
						p.tokens = max(0, p.tokens-1)
						p.ends[c.id] = end{how: started, at: p.now}
						p.queue = p.queue[1:]
					}
				}
				continue
			}
			if c.deadline < next {
				next, what = c.deadline, func() { p.cancel(c.id) }
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

// A crowd is the same callers at the real limiter.
type crowd struct {
	limiter *ratelimit.Limiter
	began   time.Time
	cancels []context.CancelFunc
	mu      sync.Mutex // guards ends
	ends    []end
}

func (c *crowd) come(ctx context.Context, timeout time.Duration) {
	ctx, cancel := context.WithCancel(ctx)
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
		if id%2 == 0 {
			err = wait(ctx, c.limiter)
		} else {
			err = resilience.Run(ctx, c.limiter, call)
		}
		switch {
		case errors.Is(err, ratelimit.ErrLimited) && errors.Is(err, resilience.ErrRefused):
			e.how = limited
			e.after, _ = resilience.RetryAfter(err)
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

// same compares what became of the calls. Times may differ by what SetRate rounds.
func same(a, b end) bool {
	const rounding = 2 * time.Microsecond
	return a.how == b.how && (a.at-b.at).Abs() < rounding && (a.after-b.after).Abs() < rounding
}

// TestLimiterMatchesBucketWithQueue for any order of calls that wait or do not, cancellations, deadlines, changes of the rate, and times: each call
// starts, or is turned away, when the reference says.
func TestLimiterMatchesBucketWithQueue(t *testing.T) {
	rates := []float64{1, 2.5, 4, 10, 40}
	rapid.Check(t, func(rt *rapid.T) {
		config := ratelimit.Config{
			Rate:  rapid.SampledFrom(rates).Draw(rt, "rate"),
			Burst: rapid.IntRange(1, 5).Draw(rt, "burst"),
			Wait:  rapid.SampledFrom([]time.Duration{0, 333_333_333, 1_777_777_777, 7_123_456_789, time.Hour}).Draw(rt, "wait"),
		}
		steps := rapid.SliceOfN(rapid.IntRange(0, 9999), 1, 80).Draw(rt, "steps")
		synctest.Test(t, func(t *testing.T) {
			p := &plain{tokens: float64(config.Burst), rate: config.Rate, burst: config.Burst, wait: config.Wait}
			c := &crowd{limiter: ratelimit.New(config), began: time.Now()}
			pass := func(d time.Duration) {
				time.Sleep(d)
				p.pass(time.Since(c.began))
				synctest.Wait()
			}
			for n, s := range steps {
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
					p.come(timeout)
					c.come(t.Context(), timeout)
				case what < 5:
					if got, want := c.limiter.Allow(), p.allow(); got != want {
						rt.Fatalf("step %d: Allow says %v, want %v", n, got, want)
					}
				case what < 6 && len(p.ends) > 0:
					id := int(which) % len(p.ends)
					p.cancel(id)
					c.cancels[id]()
				case what < 7:
					rate, burst := rates[which%5], 1+int(which/5)%6
					p.setRate(rate, burst)
					c.limiter.SetRate(rate, burst)
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
		rt.Fatalf("step %d: calls ended\n%v, want\n%v", step, fmt.Sprint(c.ends), fmt.Sprint(p.ends))
	}
	want := ratelimit.Snapshot{Rate: p.rate, Burst: p.burst}
	if len(p.queue) == 0 {
		want.Available = int(p.tokens)
	}
	if s := c.limiter.Snapshot(); s != want {
		rt.Fatalf("step %d: %+v, want %+v", step, s, want)
	}
}
