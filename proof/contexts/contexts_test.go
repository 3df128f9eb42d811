// Package contexts compares the context that package timeout passes to an effector with the
// standard library's: the same operations on random trees of contexts on top of both, which must
// report the same.
package contexts

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/effector-go/resilience/proof/internal/cases"
	"github.com/effector-go/resilience/timeout"
)

// limiting makes a call of fn under a limit: with package timeout or with package context.
type limiting func(ctx context.Context, limit time.Duration, fn func(context.Context) error) error

func byTimeout(ctx context.Context, limit time.Duration, fn func(context.Context) error) error {
	if ctx.Err() != nil {
		return ctx.Err() // Do's error contains the cause too
	}
	_, err := timeout.Do(ctx, timeout.After(limit), func(ctx context.Context) (int, error) { return 0, seen(ctx, fn(ctx)) })
	var late *timeout.Error
	if errors.As(err, &late) {
		return late.Unwrap() // the error that says whose limit passed has its own tests
	}
	return err
}

// seen looks at the context of a call that returns err. This is one of two differences to the
// standard library (see drawPlan for the other): if a call succeeds late and nothing has looked at
// its context, the context of package timeout reports the end of the call instead of the deadline
// (see the package documentation).
func seen(ctx context.Context, err error) error {
	if err == nil {
		ctx.Err()
	}
	return err
}

// byContext does what package timeout documents for calls that it doesn't limit: a call whose
// context is done is not made, and one whose context has a deadline no later than the limit
// receives that context.
func byContext(ctx context.Context, limit time.Duration, fn func(context.Context) error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= limit {
		return fn(ctx)
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return fn(limited)
}

// A step is one operation on the tree. Its meaning depends on kind.
type step struct {
	kind string
	node int           // the context, modulo their number
	d    time.Duration // for times
}

func (s step) String() string { return fmt.Sprintf("%s(%d, %v)", s.kind, s.node, s.d) }

// A plan is what both sides do.
type plan struct {
	root   string // what the outermost parent is
	levels []level
	inside []step // while the innermost call runs
	fails  bool
	after  []step // after all calls have returned
	looks  bool   // look at all limits after every step
}

// A level is a limit, with a value and a wait before it.
type level struct {
	limit, before time.Duration
	valued        bool
}

func (p plan) String() string {
	return fmt.Sprintf("root %s, levels %v, inside %v, fails %v, after %v, looks %v", p.root, p.levels, p.inside, p.fails, p.after, p.looks)
}

var kinds = []string{
	"sleep", "sleep", "sleep", "sleep to the deadline", "err", "err", "cause", "deadline", "value", "done",
	"WithCancel", "WithCancelCause", "WithDeadline", "WithDeadlineCause", "WithTimeout", "WithoutCancel", "WithValue", "AfterFunc",
	"cancel", "stop",
}

func durations() *rapid.Generator[time.Duration] {
	return rapid.Map(rapid.IntRange(0, 12), func(n int) time.Duration { return time.Duration(n) * 250 * time.Millisecond })
}

func drawPlan(t *rapid.T) plan {
	steps := func(label string, kinds []string) []step {
		one := rapid.Custom(func(t *rapid.T) step {
			return step{rapid.SampledFrom(kinds).Draw(t, "kind"), rapid.IntRange(0, 7).Draw(t, "node"), durations().Draw(t, "d")}
		})
		return rapid.SliceOfN(one, 0, 12).Draw(t, label)
	}
	levels := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) level {
		return level{durations().Draw(t, "limit") + time.Nanosecond, durations().Draw(t, "before") / 4, rapid.Bool().Draw(t, "valued")}
	}), 1, 3).Draw(t, "levels")
	p := plan{levels: levels, fails: rapid.Bool().Draw(t, "fails")}
	// If a limit passes, the caller's context ends, and nothing looks in between, the context of
	// package timeout reports the caller's end, whichever came first (docs/timeout.md). So where
	// the root may end, each step looks at every limit.
	p.looks = rapid.Bool().Draw(t, "looks")
	inside := kinds
	if p.looks {
		p.root = rapid.SampledFrom([]string{"value", "canceled", "deadline", "deadline with cause", "custom"}).Draw(t, "root")
		inside = append([]string{"cancel root"}, kinds...)
	} else {
		p.root = rapid.SampledFrom([]string{"background", "value"}).Draw(t, "root")
	}
	p.inside = steps("inside", inside)
	p.after = steps("after", inside)
	return p
}

// A custom context is of a kind that package context doesn't know.
type custom struct{ context.Context }

func (c custom) Value(k any) any {
	if k == key("custom") {
		return "custom"
	}
	return c.Context.Value(k)
}

type key string

// A world carries out a plan and logs what it sees.
type world struct {
	began  time.Time
	log    []string
	nodes  []context.Context
	limits []context.Context
	cancel []func(cause error) // of nodes; nil if there is nothing to cancel
	stops  []func() bool
	ends   func(cause error) // the root's
	fired  chan string
}

func (w *world) say(format string, args ...any) { w.log = append(w.log, fmt.Sprintf(format, args...)) }

// carryOut runs in a synctest bubble.
func carryOut(p plan, call func(w *world, root context.Context) error) []string {
	w := &world{began: time.Now(), fired: make(chan string, 1000)}
	root := context.WithValue(context.Background(), key("key"), "root")
	var cancels []func()
	w.ends = func(error) {}
	switch p.root {
	case "background":
		root = context.Background()
	case "value":
	case "canceled", "custom":
		ctx, cancel := context.WithCancelCause(root)
		root, w.ends = ctx, func(cause error) { cancel(cause) }
		cancels = append(cancels, func() { cancel(nil) })
		if p.root == "custom" {
			root = custom{ctx}
		}
	case "deadline":
		ctx, cancel := context.WithDeadline(root, w.began.Add(1100*time.Millisecond))
		root, w.ends = ctx, func(error) { cancel() }
		cancels = append(cancels, cancel)
	case "deadline with cause":
		ctx, cancel := context.WithDeadlineCause(root, w.began.Add(1100*time.Millisecond), errors.New("root's deadline"))
		root, w.ends = ctx, func(error) { cancel() }
		cancels = append(cancels, cancel)
	}
	w.say("returned %v", call(w, root))
	synctest.Wait()
	w.look(p.looks)
	for _, s := range p.after {
		w.do(s, p.looks)
	}
	for i := range w.nodes {
		w.report(i)
	}
	for _, cancel := range w.cancel {
		if cancel != nil {
			cancel(nil)
		}
	}
	for _, cancel := range cancels {
		cancel()
	}
	synctest.Wait()
	return w.log
}

// nested makes the calls of the plan's levels, one inside the other.
func (w *world) nested(ctx context.Context, p plan, limit limiting) error {
	var descend func(ctx context.Context, levels []level) error
	descend = func(ctx context.Context, levels []level) error {
		if len(levels) == 0 {
			for _, s := range p.inside {
				w.do(s, p.looks)
			}
			if p.fails {
				return errors.New("failed")
			}
			return nil
		}
		l := levels[0]
		w.wait(l.before)
		if l.valued {
			ctx = context.WithValue(ctx, key(fmt.Sprint("level", len(levels))), len(levels))
		}
		err := limit(ctx, l.limit, func(ctx context.Context) error {
			w.add(ctx, nil)
			w.limits = append(w.limits, ctx)
			w.look(p.looks)
			return descend(ctx, levels[1:])
		})
		synctest.Wait()
		w.look(p.looks)
		return err
	}
	return descend(ctx, p.levels)
}

func (w *world) add(ctx context.Context, cancel func(error)) {
	w.nodes, w.cancel = append(w.nodes, ctx), append(w.cancel, cancel)
}

// wait lets time pass and everything happen that is due.
func (w *world) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (w *world) look(looks bool) {
	if looks {
		for i, ctx := range w.limits {
			w.say("limit %d: %v", i, ctx.Err())
		}
	}
}

// report logs everything that a context reports.
func (w *world) report(i int) {
	ctx := w.nodes[i]
	deadline, ok := ctx.Deadline()
	left := time.Duration(0)
	if ok {
		left = time.Until(deadline)
	}
	select {
	case <-ctx.Done():
		w.say("node %d at %v: done, %v, %v, %v %v, %v", i, time.Since(w.began), ctx.Err(), context.Cause(ctx), left, ok, values(ctx))
	default:
		w.say("node %d at %v: alive, %v, %v, %v %v, %v", i, time.Since(w.began), ctx.Err(), context.Cause(ctx), left, ok, values(ctx))
	}
}

func values(ctx context.Context) []any {
	var found []any
	for _, k := range []key{"key", "level1", "level2", "level3", "own", "custom", "none"} {
		found = append(found, ctx.Value(k))
	}
	return found
}

func (w *world) do(s step, looks bool) {
	defer w.look(looks)
	if len(w.nodes) == 0 {
		w.wait(s.d)
		return
	}
	i := s.node % len(w.nodes)
	ctx := w.nodes[i]
	cause := fmt.Errorf("cause %d", len(w.nodes))
	d := s.d + time.Duration(len(w.nodes))*time.Microsecond // no two deadlines at the same instant: the order of their timers is undefined
	switch s.kind {
	case "sleep":
		w.wait(s.d)
	case "sleep to the deadline":
		if deadline, ok := ctx.Deadline(); ok {
			w.wait(time.Until(deadline))
		}
	case "err":
		w.say("%v at %v: %v", s, time.Since(w.began), ctx.Err())
	case "cause":
		w.say("%v: %v", s, context.Cause(ctx))
	case "deadline":
		deadline, ok := ctx.Deadline()
		w.say("%v: %v %v", s, deadline.Sub(w.began), ok)
		if again, _ := ctx.Deadline(); !again.Equal(deadline) {
			w.say("another deadline the second time")
		}
	case "value":
		w.say("%v: %v", s, values(ctx))
	case "done":
		select {
		case <-ctx.Done():
			w.say("%v: done", s)
		default:
			w.say("%v: not done", s)
		}
	case "WithCancel":
		child, cancel := context.WithCancel(ctx)
		w.add(child, func(error) { cancel() })
	case "WithCancelCause":
		child, cancel := context.WithCancelCause(ctx)
		w.add(child, func(cause error) { cancel(cause) })
	case "WithDeadline":
		child, cancel := context.WithDeadline(ctx, time.Now().Add(d-time.Second/2))
		w.add(child, func(error) { cancel() })
	case "WithDeadlineCause":
		child, cancel := context.WithDeadlineCause(ctx, time.Now().Add(d), cause)
		w.add(child, func(error) { cancel() })
	case "WithTimeout":
		child, cancel := context.WithTimeout(ctx, d)
		w.add(child, func(error) { cancel() })
	case "WithoutCancel":
		w.add(context.WithoutCancel(ctx), nil)
	case "WithValue":
		w.add(context.WithValue(ctx, key("own"), len(w.nodes)), nil)
	case "AfterFunc":
		n := len(w.stops)
		began := w.began
		w.stops = append(w.stops, context.AfterFunc(ctx, func() {
			w.fired <- fmt.Sprintf("func %d at %v: %v, %v", n, time.Since(began), ctx.Err(), context.Cause(ctx))
		}))
		synctest.Wait()
	case "stop":
		if len(w.stops) > 0 {
			w.say("%v: %v", s, w.stops[s.node%len(w.stops)]())
		}
	case "cancel":
		if w.cancel[i] != nil {
			w.cancel[i](cause)
			synctest.Wait()
		}
	case "cancel root":
		w.ends(cause)
		synctest.Wait()
	}
	// Functions that are due at the same time run in any order.
	var due []string
	for len(w.fired) > 0 {
		due = append(due, <-w.fired)
	}
	if len(due) > 0 {
		w.say("%d functions ran: %v", len(due), sorted(due))
	}
}

func sorted(texts []string) []string {
	for i := range texts {
		for j := i; j > 0 && texts[j] < texts[j-1]; j-- {
			texts[j], texts[j-1] = texts[j-1], texts[j]
		}
	}
	return texts
}

// TestContextAgreesWithStandardLibrary, whatever is done with the context, during its call and
// afterwards.
func TestContextAgreesWithStandardLibrary(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := drawPlan(rt)
		var logs [2][]string
		for i, limit := range []limiting{byTimeout, byContext} {
			synctest.Test(t, func(*testing.T) {
				logs[i] = carryOut(p, func(w *world, root context.Context) error { return w.nested(root, p, limit) })
			})
		}
		if got, want := strings.Join(logs[0], "\n"), strings.Join(logs[1], "\n"); got != want {
			rt.Fatalf("%v\ntimeout:\n%s\n\ncontext:\n%s", p, got, want)
		}
	})
}

func TestMain(m *testing.M) { cases.Main(m, 2000, 0) }
