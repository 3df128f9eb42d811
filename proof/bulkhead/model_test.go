// Package bulkhead compares the bulkhead with a plain queue, and the histories of racing goroutines
// with its specification.
package bulkhead

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/bulkhead"
)

// A plain is the reference: it holds callers by number, in the simplest form.
type plain struct {
	config  bulkhead.Config
	running []int
	waiting []waiter
	ends    map[int]string // how the calls that were not admitted ended
}

type waiter struct {
	id             int
	since, maxWait time.Duration
}

func (p *plain) come(id int, now time.Duration) {
	switch {
	case len(p.running) < p.config.Limit:
		p.running = append(p.running, id)
	case len(p.waiting) < p.config.Queue:
		p.waiting = append(p.waiting, waiter{id, now, p.config.MaxWait})
	default:
		p.ends[id] = "full"
	}
}

func (p *plain) release(id int) {
	p.running = slices.DeleteFunc(p.running, func(other int) bool { return other == id })
	p.serve()
}

// set changes the Config. Running calls continue and waiting calls stay, however many there are.
func (p *plain) set(config bulkhead.Config) {
	p.config = config
	p.serve()
}

func (p *plain) serve() {
	for len(p.running) < p.config.Limit && len(p.waiting) > 0 {
		p.running = append(p.running, p.waiting[0].id)
		p.waiting = p.waiting[1:]
	}
}

func (p *plain) cancel(id int) {
	p.drop(func(w waiter) bool { return w.id == id }, "canceled")
}

func (p *plain) pass(now time.Duration) {
	p.drop(func(w waiter) bool { return w.maxWait > 0 && now-w.since >= w.maxWait }, "waited too long")
}

func (p *plain) drop(which func(waiter) bool, end string) {
	p.waiting = slices.DeleteFunc(p.waiting, func(w waiter) bool {
		if which(w) {
			p.ends[w.id] = end
			return true
		}
		return false
	})
}

// A crowd is the same callers at the real bulkhead.
type crowd struct {
	bulkhead *bulkhead.Bulkhead
	mu       sync.Mutex // guards the fields below
	running  map[int]func()
	maxWaits map[int]time.Duration // as of the time when the call came
	cancel   map[int]context.CancelFunc
	ends     map[int]string
}

// come makes a call that lasts until it is released. The three ways of calling alternate.
func (c *crowd) come(ctx context.Context, id int) {
	ctx, cancel := context.WithCancel(ctx)
	c.cancel[id] = cancel
	c.mu.Lock()
	c.maxWaits[id] = c.bulkhead.Config().MaxWait
	c.mu.Unlock()
	go func() {
		defer cancel()
		release := make(chan struct{})
		run := func(context.Context) (int, error) {
			c.mu.Lock()
			c.running[id] = func() { close(release) }
			c.mu.Unlock()
			<-release
			return 0, nil
		}
		var err error
		switch id % 3 {
		case 0:
			_, err = bulkhead.Do(ctx, c.bulkhead, run)
		case 1:
			_, err = resilience.Do(ctx, c.bulkhead, run)
		default:
			var permit bulkhead.Permit
			if permit, err = c.bulkhead.Acquire(ctx); err == nil {
				run(ctx)
			}
			permit.Release()
			permit.Release()
		}
		if err != nil {
			c.end(id, err)
		}
	}()
}

func (c *crowd) end(id int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	text := err.Error()
	var full *bulkhead.FullError
	switch {
	case errors.Is(err, context.Canceled) && !errors.Is(err, resilience.ErrRefused):
		text = "canceled"
	case errors.As(err, &full) && errors.Is(err, resilience.ErrRefused) && full.Waited > 0:
		text = "waited too long"
		if full.Waited != c.maxWaits[id] {
			text = fmt.Sprintf("waited %v, with a MaxWait of %v", full.Waited, c.maxWaits[id])
		}
	case full != nil:
		text = "full"
	}
	c.ends[id] = text
}

const steps = 60

// For any order of calls, releases, cancellations, Configs, and times, the same callers must run,
// wait, and be refused.
func TestBulkheadMatchesPlainQueue(t *testing.T) {
	maxWaits := []time.Duration{0, 0, time.Second, 5 * time.Second, 20 * time.Second}
	rapid.Check(t, func(rt *rapid.T) {
		config := bulkhead.Config{
			Limit:   rapid.IntRange(1, 4).Draw(rt, "limit"),
			Queue:   rapid.IntRange(0, 5).Draw(rt, "queue"),
			MaxWait: rapid.SampledFrom(maxWaits).Draw(rt, "MaxWait"),
		}
		seed := rapid.Uint64().Draw(rt, "seed") // of the steps: rapid prefers small numbers, with which little happens
		synctest.Test(t, func(t *testing.T) {
			p := &plain{config: config, ends: map[int]string{}}
			c := &crowd{
				bulkhead: bulkhead.New(config),
				running:  map[int]func(){}, maxWaits: map[int]time.Duration{}, cancel: map[int]context.CancelFunc{}, ends: map[int]string{},
			}
			random := rand.New(rand.NewPCG(seed, 1))
			began, callers := time.Now(), 0
			for n := range steps {
				which := random.IntN(100)
				switch what := random.IntN(10); {
				case what < 4:
					p.come(callers, time.Since(began))
					c.come(t.Context(), callers)
					callers++
				case what < 6 && len(p.running) > 0:
					id := p.running[which%len(p.running)]
					p.release(id)
					c.release(id)
				case what < 7 && callers > 0:
					id := which % callers
					p.cancel(id)
					c.cancel[id]()
				case what < 8 && which%2 == 0:
					config := p.config
					config.Limit = 1 + which%6
					p.set(config)
					c.bulkhead.Resize(config.Limit)
				case what < 8:
					config := bulkhead.Config{Name: fmt.Sprint(which % 3), Limit: 1 + which%6, Queue: which % 7, MaxWait: maxWaits[which%5]}
					p.set(config)
					if err := c.bulkhead.SetConfig(config); err != nil {
						rt.Fatal(err)
					}
				default:
					time.Sleep(time.Duration(which%10) * time.Second)
					p.pass(time.Since(began))
				}
				synctest.Wait()
				c.compare(rt, n, p)
			}
			for len(p.running) > 0 {
				id := p.running[0]
				p.release(id)
				c.release(id)
				synctest.Wait()
			}
			c.compare(rt, steps, p)
		})
	})
}

func (c *crowd) release(id int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running[id]()
	delete(c.running, id)
}

func (c *crowd) compare(rt *rapid.T, step int, p *plain) {
	c.mu.Lock()
	defer c.mu.Unlock()
	slices.Sort(p.running)
	if got := slices.Sorted(maps.Keys(c.running)); !slices.Equal(got, p.running) {
		rt.Fatalf("step %d: got %v running, want %v", step, got, p.running)
	}
	if !maps.Equal(c.ends, p.ends) {
		rt.Fatalf("step %d: got ends %v, want %v", step, c.ends, p.ends)
	}
	want := bulkhead.Snapshot{Name: p.config.Name, Limit: p.config.Limit, Queue: p.config.Queue, Running: len(p.running), Waiting: len(p.waiting)}
	if s := c.bulkhead.Snapshot(); s != want {
		rt.Fatalf("step %d: got %+v, want %+v", step, s, want)
	}
	if got := c.bulkhead.Config(); got != p.config {
		rt.Fatalf("step %d: got %+v, want %+v", step, got, p.config)
	}
}
