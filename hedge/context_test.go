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

// A report is what a context reports about its end.
type report struct {
	err, cause           error
	done                 bool
	childErr, childCause error
}

func ask(ctx context.Context) (t report) {
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

// TestStartContextMatchesStandardLibrary covers every order of its own end, its parent's end, and
// its first use.
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
			t.Errorf("%v: got %+v, want %+v", so, got, want)
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
			t.Errorf("armed %t: got %v, cause %v, want canceled", armed, c.Err(), cause)
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
			t.Errorf("got child %v, context %v, want deadline exceeded", context.Cause(child), c.Err())
		}

		c = &startContext{Context: t.Context()}
		ended := make(chan error, 1)
		context.AfterFunc(c, func() { ended <- context.Cause(c) })
		c.end(errWon)
		if err := <-ended; err != errWon {
			t.Errorf("got cause %v, want %v", err, errWon)
		}
	})
}

// TestStartContextChildNeedsNoGoroutine checks that package context treats it as one of its own. In
// the bubble, a goroutine that waits for the parent's end would be a deadlock.
func TestStartContextChildNeedsNoGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leaked := func(context.Context, context.CancelFunc) {}
		leaked(context.WithCancel(&startContext{Context: context.WithoutCancel(t.Context())}))
	})
}

// TestStartContextIsUnarmedUntilDoneIsNeeded checks that no timer of its parent is armed
// unnecessarily.
func TestStartContextIsUnarmedUntilDoneIsNeeded(t *testing.T) {
	type key struct{}
	c := &startContext{Context: context.WithValue(t.Context(), key{}, 1)}
	if c.Err() != nil || c.Value(key{}) != 1 || c.Value("other") != nil {
		t.Errorf("got %v, %v, want nil, 1", c.Err(), c.Value(key{}))
	}
	c.Deadline()
	c.end(errWon)
	if c.inner != nil {
		t.Error("armed by Err, Value, Deadline, or end")
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
					t.Errorf("got %v, cause %v, then %v, want canceled and one cause", c.Err(), first, context.Cause(c))
				}
				return nil
			})
			group.Go(func() error {
				if c.Err() != nil && c.Err() == nil {
					t.Error("Err is nil after the context has ended")
				}
				return nil
			})
		}
		group.Wait()
		cancel()
	}
}
