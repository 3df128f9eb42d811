// Package bulkhead compares the bulkhead with a plain queue, and the histories of racing goroutines
// with its specification.
package bulkhead

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/bulkhead"
)

// A line is the reference: it holds callers by number, in the simplest form.
type line struct {
	limit, queue int
	maxWait      time.Duration
	running      []int
	waiting      []waiter
	ends         map[int]string // how the calls that were not admitted ended
}

type waiter struct {
	id    int
	since time.Duration
}

func (l *line) come(id int, now time.Duration) {
	switch {
	case len(l.running) < l.limit:
		l.running = append(l.running, id)
	case len(l.waiting) < l.queue:
		l.waiting = append(l.waiting, waiter{id, now})
	default:
		l.ends[id] = "full"
	}
}

func (l *line) release(id int) {
	l.running = slices.DeleteFunc(l.running, func(other int) bool { return other == id })
	l.serve()
}

func (l *line) resize(limit int) {
	l.limit = limit
	l.serve()
}

func (l *line) serve() {
	for len(l.running) < l.limit && len(l.waiting) > 0 {
		l.running = append(l.running, l.waiting[0].id)
		l.waiting = l.waiting[1:]
	}
}

func (l *line) cancel(id int) {
	l.drop(func(w waiter) bool { return w.id == id }, "canceled")
}

func (l *line) pass(now time.Duration) {
	if l.maxWait > 0 {
		l.drop(func(w waiter) bool { return now-w.since >= l.maxWait }, fmt.Sprint("waited ", l.maxWait))
	}
}

func (l *line) drop(which func(waiter) bool, end string) {
	l.waiting = slices.DeleteFunc(l.waiting, func(w waiter) bool {
		if which(w) {
			l.ends[w.id] = end
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
	cancel   map[int]context.CancelFunc
	ends     map[int]string
}

// come makes a call that lasts until it is released. The three ways of calling alternate.
func (c *crowd) come(ctx context.Context, id int) {
	ctx, cancel := context.WithCancel(ctx)
	c.cancel[id] = cancel
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
	text := err.Error()
	var full *bulkhead.FullError
	switch {
	case errors.Is(err, context.Canceled) && !errors.Is(err, resilience.ErrRefused):
		text = "canceled"
	case errors.As(err, &full) && errors.Is(err, resilience.ErrRefused) && full.Waited > 0:
		text = fmt.Sprint("waited ", full.Waited)
	case full != nil:
		text = "full"
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ends[id] = text
}

// For any order of calls, releases, cancellations, sizes, and times, the same callers must run,
// wait, and be refused.
func TestBulkheadMatchesPlainQueue(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		config := bulkhead.Config{
			Limit:   rapid.IntRange(1, 4).Draw(rt, "limit"),
			Queue:   rapid.IntRange(0, 5).Draw(rt, "queue"),
			MaxWait: time.Duration(rapid.SampledFrom([]int{0, 0, 1, 5, 20}).Draw(rt, "seconds of MaxWait")) * time.Second,
		}
		steps := rapid.SliceOfN(rapid.IntRange(0, 999), 1, 80).Draw(rt, "steps")
		synctest.Test(t, func(t *testing.T) {
			l := &line{limit: config.Limit, queue: config.Queue, maxWait: config.MaxWait, ends: map[int]string{}}
			c := &crowd{bulkhead: bulkhead.New(config), running: map[int]func(){}, cancel: map[int]context.CancelFunc{}, ends: map[int]string{}}
			began, callers := time.Now(), 0
			for n, s := range steps {
				which := s / 10
				switch what := s % 10; {
				case what < 4:
					l.come(callers, time.Since(began))
					c.come(t.Context(), callers)
					callers++
				case what < 6 && len(l.running) > 0:
					id := l.running[which%len(l.running)]
					l.release(id)
					c.release(id)
				case what < 7 && callers > 0:
					id := which % callers
					l.cancel(id)
					c.cancel[id]()
				case what < 8:
					l.resize(1 + which%6)
					c.bulkhead.Resize(1 + which%6)
				default:
					time.Sleep(time.Duration(which%10) * time.Second)
					l.pass(time.Since(began))
				}
				synctest.Wait()
				c.compare(rt, n, l)
			}
			for len(l.running) > 0 {
				id := l.running[0]
				l.release(id)
				c.release(id)
				synctest.Wait()
			}
			c.compare(rt, len(steps), l)
		})
	})
}

func (c *crowd) release(id int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running[id]()
	delete(c.running, id)
}

func (c *crowd) compare(rt *rapid.T, step int, l *line) {
	c.mu.Lock()
	defer c.mu.Unlock()
	slices.Sort(l.running)
	if got := slices.Sorted(maps.Keys(c.running)); !slices.Equal(got, l.running) {
		rt.Fatalf("step %d: got %v running, want %v", step, got, l.running)
	}
	if !maps.Equal(c.ends, l.ends) {
		rt.Fatalf("step %d: got ends %v, want %v", step, c.ends, l.ends)
	}
	want := bulkhead.Snapshot{Limit: l.limit, Queue: l.queue, Running: len(l.running), Waiting: len(l.waiting)}
	if s := c.bulkhead.Snapshot(); s != want {
		rt.Fatalf("step %d: got %+v, want %+v", step, s, want)
	}
}
