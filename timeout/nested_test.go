package timeout

import (
	"context"
	"errors"
	"fmt"
	"runtime"
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

// TestLimitCtxListsOnlyRunningCalls: a call that retries forever inside a limit doesn't grow.
func TestLimitCtxListsOnlyRunningCalls(t *testing.T) {
	outer := within(context.Background(), time.Hour)
	lasting := within(outer, time.Minute)
	lasting.Done()
	for range 100 {
		middle := within(outer, time.Minute)
		inner := within(middle, time.Second)
		inner.Done()
		inner.end()
		middle.end()
	}
	if head := outer.nested.Load(); head != lasting || head.next != nil {
		t.Errorf("the list holds %p, then %p, want only the running call's limit %p", head, head.next, lasting)
	}
	lasting.end()
	if outer.nested.Load() != nil {
		t.Error("the list isn't empty after all calls")
	}
	outer.end()
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
			t.Fatal("ended limits are still listed")
		}
	}
}

// TestLimitCtxFindsOuterThatEndedBeforeListing holds an inner limit between its look at the outer
// one's state and its entry in the list. The outer one ends there: its end finds an empty list.
func TestLimitCtxFindsOuterThatEndedBeforeListing(t *testing.T) {
	limits := nested(context.Background(), 2)
	outer, inner := limits[0], limits[1]
	head := outer.lock()
	done := make(chan (<-chan struct{}))
	go func() { done <- inner.Done() }()
	for range 100 {
		runtime.Gosched()
	}
	outer.state.Store(returned)
	outer.nested.Store(head)
	<-done
	if !isDone(inner) || inner.Err() != context.Canceled {
		t.Errorf("done %t, error %v, want done and Canceled", isDone(inner), inner.Err())
	}
	inner.end()
}
