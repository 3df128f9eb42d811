package detached_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/internal/detached"
)

var errDown = errors.New("down")

// An owner records what it is called with. It awaits the run unless it has left.
type owner struct {
	left     bool
	returned bool
	err      error
	done     chan bool
}

func (o *owner) Ended(returned bool, err error) (awaited bool) {
	o.returned, o.err = returned, err
	return !o.left
}

func (o *owner) Done(awaited bool) { o.done <- awaited }

// run runs fn as a detached run of o, in a call with a Discard policy. It returns the run's Result
// method and the values that were dropped.
func run(t *testing.T, o *owner, fn func(context.Context) (int, error)) (result func() error, dropped []int) {
	t.Helper()
	o.done = make(chan bool, 1)
	resilience.Do(t.Context(), resilience.Pipeline{
		resilience.Discard(func(n int) { dropped = append(dropped, n) }),
		resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			r := &detached.Run{Fork: next.Fork()}
			go r.Do(ctx, o)
			if awaited := <-o.done; awaited == o.left {
				t.Errorf("got Done(%t), want the result of Ended", awaited)
			}
			if o.left && len(dropped) != 1 {
				t.Errorf("dropped %v before Done, want the run's value", dropped)
			}
			result = r.Result
			next.Adopt(r.Fork)
			return nil
		}),
	}, fn)
	return result, dropped
}

func TestRunResultIsWhatForkReturned(t *testing.T) {
	for _, want := range []error{nil, errDown} {
		o := &owner{}
		result, dropped := run(t, o, func(context.Context) (int, error) { return 1, want })
		if got := result(); got != want || !o.returned || o.err != want || dropped != nil {
			t.Errorf("got result %v, Ended(%t, %v), dropped %v, want %v", got, o.returned, o.err, dropped, want)
		}
	}
}

func TestRunDiscardsUnawaitedValueBeforeDone(t *testing.T) {
	run(t, &owner{left: true}, func(context.Context) (int, error) { return 1, nil })
}

func TestRunPassesPanicWithStack(t *testing.T) {
	o := &owner{}
	result, _ := run(t, o, whereItHappened)
	defer func() {
		panicked, ok := recover().(*resilience.PanicError)
		if !ok || panicked.Value != errDown || !strings.Contains(string(panicked.Stack), "whereItHappened") || o.returned {
			t.Errorf("got panic %v, Ended(%t), want a *PanicError of errDown with its stack, Ended(false)", panicked, o.returned)
		}
	}()
	result()
}

//go:noinline
func whereItHappened(context.Context) (int, error) { panic(errDown) }

func TestPanicErrorIsNotWrappedTwice(t *testing.T) {
	inner := &resilience.PanicError{Value: "inner"}
	result, _ := run(t, &owner{}, func(context.Context) (int, error) { panic(inner) })
	defer func() {
		if got := recover(); got != inner {
			t.Errorf("got panic %v, want the inner *PanicError unchanged", got)
		}
	}()
	result()
}

func TestRunPassesGoexit(t *testing.T) {
	o := &owner{}
	result, _ := run(t, o, func(context.Context) (int, error) { runtime.Goexit(); return 0, nil })
	ended := make(chan bool)
	go func() {
		returned := false
		defer func() { ended <- returned || recover() != nil }()
		result()
		returned = true
	}()
	if <-ended || o.returned {
		t.Errorf("Result returned or panicked, or Ended was called with returned %t, want Goexit and false", o.returned)
	}
}

// A listener awaits the run or has left, and inspects it when it is done.
type listener struct {
	awaits bool
	done   func()
}

func (l listener) Ended(bool, error) (awaited bool) { return l.awaits }
func (l listener) Done(bool)                        { l.done() }

// TestRunResultIsReadyWhenDoneIsCalled covers a panic that is passed on and a value that is
// dropped.
func TestRunResultIsReadyWhenDoneIsCalled(t *testing.T) {
	for _, awaits := range []bool{true, false} {
		dropped, ready := 0, make(chan bool, 1)
		resilience.Do(t.Context(), resilience.Pipeline{
			resilience.Discard(func(int) { dropped++ }),
			resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
				r := &detached.Run{Fork: next.Fork()}
				go r.Do(ctx, listener{awaits, func() {
					if !awaits {
						ready <- dropped == 1
						return
					}
					panicked := make(chan bool)
					go func() { // without a recorded panic, Result calls Goexit
						defer func() { panicked <- recover() != nil }()
						r.Result()
					}()
					ready <- <-panicked
				}})
				if !<-ready {
					t.Errorf("awaited %t: Done was called too early", awaits)
				}
				next.Adopt(r.Fork)
				return nil
			}),
		}, func(context.Context) (int, error) {
			if awaits {
				panic(errDown)
			}
			return 1, nil
		})
	}
}
