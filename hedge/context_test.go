package hedge

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"
)

var errCaller, errWon = errors.New("caller's cause"), errors.New("cause")

// told is what a ctx tells of its end.
type told struct {
	err, cause           error
	done                 bool
	childErr, childCause error
}

func ask(ctx context.Context) (t told) {
	t.err, t.cause = ctx.Err(), context.Cause(ctx)
	child, cancel := context.WithCancel(ctx)
	defer cancel()
	t.childErr, t.childCause = child.Err(), context.Cause(child)
	select {
	case <-ctx.Done():
		t.done = true
	default:
	}
	return t
}

// TestStartContextMatchesStandardLibrary in every order of its own end, its parent's, and the first look at it.
func TestStartContextMatchesStandardLibrary(t *testing.T) {
	steps := map[string]func(ctx context.Context, end, endParent func()){
		"end":    func(_ context.Context, end, _ func()) { end() },
		"parent": func(_ context.Context, _, endParent func()) { endParent() },
		"look":   func(ctx context.Context, _, _ func()) { ask(ctx) },
		"err":    func(ctx context.Context, _, _ func()) { ctx.Err() },
	}
	var orders func(so []string)
	orders = func(so []string) {
		parent, endParent := context.WithCancelCause(context.Background())
		std, endStd := context.WithCancelCause(parent)
		defer endParent(nil)
		defer endStd(nil)
		own := &startContext{Context: parent}
		for _, step := range so {
			steps[step](std, func() { endStd(errWon) }, func() { endParent(errCaller) })
			steps[step](own, func() { own.end(errWon) }, func() { endParent(errCaller) })
		}
		if got, want := ask(own), ask(std); got != want {
			t.Errorf("%v: %+v, want %+v", so, got, want)
		}
		if len(so) < 4 {
			for step := range steps {
				orders(append(so[:len(so):len(so)], step))
			}
		}
	}
	orders(nil)
}

func TestStartContextKeepsFirstCause(t *testing.T) {
	for _, armed := range []bool{false, true} {
		c := &startContext{Context: context.Background()}
		if armed {
			c.Done()
		}
		c.end(nil)
		c.end(errWon)
		if cause := context.Cause(c); c.Err() != context.Canceled || cause != context.Canceled {
			t.Errorf("armed %t: %v, cause %v, want canceled", armed, c.Err(), cause)
		}
	}
}

func TestStartContextEndsWithParentAndOnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		c := &startContext{Context: parent}
		child, stop := context.WithTimeout(c, time.Hour)
		defer stop()
		<-child.Done()
		if context.Cause(child) != context.DeadlineExceeded || c.Err() != context.DeadlineExceeded {
			t.Errorf("child %v, ctx %v, want deadline exceeded", context.Cause(child), c.Err())
		}

		c = &startContext{Context: t.Context()}
		heard := make(chan error, 1)
		context.AfterFunc(c, func() { heard <- context.Cause(c) })
		c.end(errWon)
		if err := <-heard; err != errWon {
			t.Errorf("cause %v, want %v", err, errWon)
		}
	})
}

// TestStartContextChildNeedsNoGoroutine: package context takes it for one of its own. In the bubble one that waits for the parent's end would be a deadlock.
func TestStartContextChildNeedsNoGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leaked := func(context.Context, context.CancelFunc) {}
		leaked(context.WithCancel(&startContext{Context: context.WithoutCancel(t.Context())}))
	})
}

// TestStartContextIsUnarmedUntilDoneIsNeeded: its parent's timer then runs for nobody.
func TestStartContextIsUnarmedUntilDoneIsNeeded(t *testing.T) {
	type key struct{}
	c := &startContext{Context: context.WithValue(t.Context(), key{}, 1)}
	if c.Err() != nil || c.Value(key{}) != 1 || c.Value("other") != nil {
		t.Errorf("%v, %v", c.Err(), c.Value(key{}))
	}
	c.Deadline()
	c.end(errWon)
	if c.inner != nil {
		t.Error("armed by Err, Value, Deadline or end")
	}
}

func TestStartContextIsSafeForConcurrentUse(t *testing.T) {
	for range 200 {
		parent, cancel := context.WithCancel(t.Context())
		c := &startContext{Context: parent}
		var group errgroup.Group
		group.Go(func() error { cancel(); return nil })
		group.Go(func() error { c.end(errWon); return nil })
		for range 2 {
			group.Go(func() error {
				<-c.Done()
				first := context.Cause(c)
				if c.Err() != context.Canceled || context.Cause(c) != first || first != errWon && first != context.Canceled {
					t.Errorf("%v, cause %v, then %v", c.Err(), first, context.Cause(c))
				}
				return nil
			})
			group.Go(func() error {
				if c.Err() != nil && c.Err() == nil {
					t.Error("ended, then lived")
				}
				return nil
			})
		}
		group.Wait()
		cancel()
	}
}
