package timeout

import (
	"context"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience/internal/clock"

	"github.com/effector-go/resilience/internal/ctxkey"
)

// TestLimitCtxHasNotPassedIfParentEnded: the inner context may not have noticed either end yet.
func TestLimitCtxHasNotPassedIfParentEnded(t *testing.T) {
	live := context.Background()
	ended, end := context.WithCancel(live)
	end()
	for parent, want := range map[context.Context]bool{live: true, ended: false} {
		c := &limitCtx{root: parent, deadline: uint64(clock.Now())}
		c.inner, c.cancel = context.WithCancel(live)
		c.state.Store(armed)
		if c.passed() != want {
			t.Errorf("parent's error %v: passed is %t, want %t", parent.Err(), c.passed(), want)
		}
		c.end()
	}
}

// TestLimitCtxHasPassedIfOuterPassedLater: the inner timer is so late that both limits have passed.
func TestLimitCtxHasPassedIfOuterPassedLater(t *testing.T) {
	root := context.Background()
	outer := within(root, time.Hour)
	outer.deadline = uint64(clock.Now())
	c := &limitCtx{outer: outer, root: root, deadline: outer.deadline - 1}
	c.inner, c.cancel = context.WithCancel(root)
	c.state.Store(armed)
	if !c.passed() {
		t.Error("got false, want true: the inner limit passed first")
	}
	c.end()
	outer.end()
}

// TestLimitCtxSlowerArmLeavesNothing: of two goroutines that arm, the slower one releases its timer and its
// place among the parent's children.
func TestLimitCtxSlowerArmLeavesNothing(t *testing.T) {
	parent := &counting{Context: context.Background()}
	c := &limitCtx{root: parent, deadline: uint64(clock.Now()) + uint64(time.Hour)}
	parent.asked = func() { // while the slower one looks at its parent
		parent.asked = func() {}
		c.arm()
	}
	c.makeInner()
	if parent.made != 2 || parent.children != 1 {
		t.Errorf("%d children made, %d of them left, want 2 and 1", parent.made, parent.children)
	}
	if c.end(); parent.children != 0 {
		t.Errorf("%d children left after the call", parent.children)
	}
}

// TestLimitCtxEndDuringArmLeavesNothing arms the context while end finds out how it ended.
func TestLimitCtxEndDuringArmLeavesNothing(t *testing.T) {
	parent := &counting{Context: context.Background()}
	c := &limitCtx{root: parent, deadline: uint64(clock.Now()) + uint64(time.Hour)}
	parent.asked = func() {
		parent.asked = func() {}
		c.arm()
	}
	c.end()
	if parent.made != 1 || parent.children != 0 || c.Err() != context.Canceled {
		t.Errorf("%d made, %d of them left, error %v, want 1, 0 and Canceled", parent.made, parent.children, c.Err())
	}
}

// TestLimitCtxArmsOnceForManyCallers: any number of goroutines arm concurrently and receive the
// same channel. Run it with the race detector.
func TestLimitCtxArmsOnceForManyCallers(t *testing.T) {
	for range 100 {
		c := within(context.Background(), time.Hour)
		dones := make([]<-chan struct{}, 8)
		var g errgroup.Group
		for i := range dones {
			g.Go(func() error {
				dones[i] = c.Done()
				return nil
			})
		}
		g.Wait()
		for _, done := range dones {
			if done != c.Done() {
				t.Fatal("Done returned two different channels")
			}
		}
		c.end()
	}
}

// counting is a context that counts its children.
type counting struct {
	context.Context
	asked          func()
	made, children int
}

func (c *counting) Done() <-chan struct{} { return make(chan struct{}) }

func (c *counting) Err() error {
	c.asked()
	return nil
}

func (c *counting) AfterFunc(func()) (stop func() bool) {
	c.made++
	c.children++
	stopped := false
	return func() bool {
		if !stopped {
			stopped = true
			c.children--
		}
		return true
	}
}

func TestLimitCtxUnlimitedReturnsParent(t *testing.T) {
	outer := within(t.Context(), time.Hour)
	inner := within(outer, time.Minute)
	if got := inner.Unlimited(ctxkey.Friend{}); got != outer {
		t.Errorf("got %v, want the outer limit", got)
	}
	if got := outer.Unlimited(ctxkey.Friend{}); got != t.Context() {
		t.Errorf("got %v, want the caller's context", got)
	}
}

// TestLimitCtxIsNotArmedByCause: before Go 1.26, Cause asked for the key even if nothing had ended.
func TestLimitCtxIsNotArmedByCause(t *testing.T) {
	c := within(t.Context(), time.Hour)
	if err, found := context.Cause(c), c.Value(ctxkey.Cancel); err != nil || found != nil || c.state.Load() != live {
		t.Errorf("got %v and %v in state %d, want nil and nil in state %d", err, found, c.state.Load(), live)
	}
}

// TestAbandonedIsNeverNegative, even if an effector ends before its caller has counted it.
func TestAbandonedIsNeverNegative(t *testing.T) {
	timeout := After(time.Second)
	if timeout.left.n.Add(-1); timeout.Abandoned() != 0 {
		t.Errorf("%d abandoned", timeout.Abandoned())
	}
}
