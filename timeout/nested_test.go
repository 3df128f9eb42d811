package timeout

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"
)

// nested returns limits inside one another, outermost first, the innermost an hour long and each
// one around it an hour longer.
func nested(root context.Context, depth int) []*limitCtx {
	limits := make([]*limitCtx, depth)
	ctx := root
	for i := range limits {
		limits[i] = within(ctx, time.Duration(depth-i)*time.Hour)
		ctx = limits[i]
	}
	return limits
}

func isDone(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return true
	default:
		return false
	}
}

func TestLimitCtxNestedArmsOnlyInnermost(t *testing.T) {
	root := &counting{Context: context.Background(), asked: func() {}}
	limits := nested(root, 3)
	limits[2].Done()
	if root.made != 1 || limits[0].state.Load() != live || limits[1].state.Load() != live {
		t.Errorf("%d contexts made, outer states %d and %d, want 1 context and two live limits",
			root.made, limits[0].state.Load(), limits[1].state.Load())
	}
	for i := range limits { // innermost first, as calls return
		limits[2-i].end()
	}
	if root.made != 1 || root.children != 0 {
		t.Errorf("%d contexts made and %d left after the calls, want 1 and 0", root.made, root.children)
	}
}

// TestLimitCtxEndOfOuterEndsNested covers a fork or an abandoned effector that outlives the call
// around it.
func TestLimitCtxEndOfOuterEndsNested(t *testing.T) {
	for ends := range 3 {
		for arms, what := range map[string]func(limits []*limitCtx){
			"nothing":                    func([]*limitCtx) {},
			"the innermost":              func(l []*limitCtx) { l[2].Done() },
			"the innermost, then others": func(l []*limitCtx) { l[2].Done(); l[1].Done(); l[0].Done() },
			"all, outermost first":       func(l []*limitCtx) { l[0].Done(); l[1].Done(); l[2].Done() },
			"the middle one first":       func(l []*limitCtx) { l[1].Done(); l[2].Done() },
			"the outermost last":         func(l []*limitCtx) { l[2].Done(); l[0].Done() },
		} {
			t.Run(fmt.Sprintf("%d ends after arming %s", ends, arms), func(t *testing.T) {
				root := &counting{Context: context.Background(), asked: func() {}}
				limits := nested(root, 3)
				what(limits)
				child, cancel := context.WithCancel(limits[2])
				defer cancel()
				limits[ends].end()
				for i, c := range limits {
					if want := i >= ends; isDone(c) != want || (c.Err() != nil) != want {
						t.Errorf("limit %d: done %t, error %v, want done %t", i, isDone(c), c.Err(), want)
					}
					if err := c.Err(); err != nil && (err != context.Canceled || context.Cause(c) != context.Canceled) {
						t.Errorf("limit %d: error %v, cause %v, want Canceled", i, err, context.Cause(c))
					}
				}
				if !isDone(child) {
					t.Error("a child of the innermost limit has not ended")
				}
				for _, c := range limits { // outermost first: the worst order
					c.end()
				}
				if root.children != 0 {
					t.Errorf("%d children of the root are left", root.children)
				}
			})
		}
	}
}

func TestLimitCtxArmedAfterOuterEndedHasEnded(t *testing.T) {
	for depth := 2; depth <= 4; depth++ {
		limits := nested(context.Background(), depth)
		limits[0].end()
		if inner := limits[depth-1]; !isDone(inner) || inner.Err() != context.Canceled {
			t.Errorf("depth %d: done %t, error %v, want done and Canceled", depth, isDone(inner), inner.Err())
		}
	}
}

func TestLimitCtxNestedKeepsCauseOfRoot(t *testing.T) {
	boss := errors.New("boss said no")
	root, cancel := context.WithCancelCause(context.Background())
	limits := nested(root, 3)
	limits[2].Done()
	cancel(boss)
	for i, c := range limits {
		if !isDone(c) || c.Err() != context.Canceled || context.Cause(c) != boss {
			t.Errorf("limit %d: done %t, error %v, cause %v, want Canceled because boss said no",
				i, isDone(c), c.Err(), context.Cause(c))
		}
		c.end()
	}
}

// TestLimitCtxNestedEndsAtOwnDeadline: each limit ends at its own deadline, although only the
// innermost has a timer at first.
func TestLimitCtxNestedEndsAtOwnDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := nested(context.Background(), 3)
		limits[2].Done()
		for i := 2; i >= 0; i-- {
			time.Sleep(time.Hour)
			synctest.Wait()
			for j, c := range limits {
				want := error(nil)
				if j >= i {
					want = context.DeadlineExceeded
				}
				if c.Err() != want || isDone(c) != (want != nil) {
					t.Errorf("after %d h, limit %d: error %v, done %t, want %v", 3-i, j, c.Err(), isDone(c), want)
				}
			}
		}
		for i := range limits {
			limits[2-i].end()
		}
	})
}

// TestLimitCtxHoldsOnlyRunningCall: a limit doesn't keep what a call left that has ended, so a call
// that retries forever inside a limit doesn't grow and doesn't arm it.
func TestLimitCtxHoldsOnlyRunningCall(t *testing.T) {
	outer := within(context.Background(), time.Hour)
	for range 100 {
		middle := within(outer, time.Minute)
		inner := within(middle, time.Second)
		inner.Done()
		if outer.nested.Load() != middle || middle.nested.Load() != inner {
			t.Fatal("the limits around an armed one don't hold it")
		}
		inner.end()
		middle.end()
		if outer.nested.Load() != nil || middle.nested.Load() != nil {
			t.Fatal("the limits hold a call that has ended")
		}
	}
	if state := outer.state.Load(); state != live {
		t.Errorf("outer state %d after calls one after the other, want live", state)
	}
}

// TestLimitCtxAttemptsArmNoLimitAround: attempts one after the other, inside two limits, cost one
// timer each.
func TestLimitCtxAttemptsArmNoLimitAround(t *testing.T) {
	limits := nested(context.Background(), 2)
	for range 3 {
		attempt := within(limits[1], time.Second)
		attempt.Done()
		attempt.end()
	}
	if outer, middle := limits[0].state.Load(), limits[1].state.Load(); outer != live || middle != live {
		t.Errorf("states %d and %d of the limits around three attempts, want live", outer, middle)
	}
}

// TestLimitCtxArmedTwiceInsideArmsOuter: of calls that wait concurrently inside a limit, only the
// first is held. The others are children of the limit, so their number costs nothing.
func TestLimitCtxArmedTwiceInsideArmsOuter(t *testing.T) {
	root := &counting{Context: context.Background(), asked: func() {}}
	outer := within(root, time.Hour)
	var calls []*limitCtx
	for range 10 {
		c := within(outer, time.Minute)
		c.Done()
		calls = append(calls, c)
	}
	if outer.nested.Load() != calls[0] || outer.state.Load() != armed || root.made != 2 {
		t.Errorf("outer state %d, %d children of the root, want armed and 2", outer.state.Load(), root.made)
	}
	calls[9].end()
	for i, c := range calls[:9] {
		if isDone(c) {
			t.Errorf("call %d has ended with another one", i)
		}
	}
	outer.end()
	for i, c := range calls {
		if !isDone(c) || c.Err() != context.Canceled {
			t.Errorf("call %d: done %t, error %v after the outer call, want done and Canceled", i, isDone(c), c.Err())
		}
	}
	if root.children != 0 || outer.nested.Load() != nil {
		t.Errorf("%d children of the root are left", root.children)
	}
}

// TestLimitCtxHeldAfterItsEndEndsWithOuter: a goroutine that arms a limit too late may make the outer
// one hold it after its end. Later calls must end all the same.
func TestLimitCtxHeldAfterItsEndEndsWithOuter(t *testing.T) {
	outer := within(context.Background(), time.Hour)
	stale := within(outer, time.Minute)
	stale.end()
	stale.join()
	next := within(outer, time.Minute)
	next.Done()
	if isDone(next) || !isDone(stale) {
		t.Errorf("done %t, the limit before it %t, want false and true", isDone(next), isDone(stale))
	}
	if outer.end(); !isDone(next) || outer.nested.Load() != nil {
		t.Errorf("done %t after the outer call, want true", isDone(next))
	}
}

// TestLimitCtxEndDuringNestedArm has goroutines arm limits while the call around them returns: each
// limit ends, however the two meet. A limit that doesn't end hangs the test.
func TestLimitCtxEndDuringNestedArm(t *testing.T) {
	for range 300 {
		limits := nested(context.Background(), 2)
		outer, middle := limits[0], limits[1]
		var group errgroup.Group
		for i := range 4 {
			group.Go(func() error {
				parent := outer
				if i%2 == 0 {
					parent = middle
				}
				inner := within(parent, time.Minute)
				defer inner.end()
				child, cancel := context.WithCancel(inner)
				defer cancel()
				<-inner.Done()
				<-child.Done()
				if inner.Err() != context.Canceled || child.Err() != context.Canceled {
					return fmt.Errorf("limit's error %v, its child's %v, want Canceled", inner.Err(), child.Err())
				}
				return nil
			})
		}
		group.Go(func() error { middle.Done(); return nil })
		group.Go(func() error { outer.end(); return nil })
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		if middle.end(); outer.nested.Load() != nil || middle.nested.Load() != nil {
			t.Fatal("limits hold a call that has ended")
		}
	}
}

// TestLimitCtxEndDuringConcurrentArms has goroutines arm the same limit, and one next to it, while the
// call around them returns. Run it with the race detector.
func TestLimitCtxEndDuringConcurrentArms(t *testing.T) {
	for range 1000 {
		outer := within(context.Background(), time.Hour)
		same, other := within(outer, time.Minute), within(outer, time.Minute)
		var group errgroup.Group
		for range 3 {
			group.Go(func() error { same.Done(); return nil })
		}
		group.Go(func() error { other.Done(); return nil })
		group.Go(func() error { outer.end(); return nil })
		group.Wait()
		if !isDone(same) || !isDone(other) {
			t.Fatalf("done %t, the other %t after the outer call, want both", isDone(same), isDone(other))
		}
	}
}
