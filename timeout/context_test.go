package timeout_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience/timeout"
)

// limitedBy holds two ways to limit a context to a second, the standard library's and ours, for
// tests that compare them. cancel ends the context as the end of the call does, and returns when it
// has ended.
var limitedBy = []struct {
	name string
	make func(parent context.Context) (ctx context.Context, cancel func())
}{
	{"context.WithTimeout", func(parent context.Context) (context.Context, func()) {
		ctx, cancel := context.WithTimeout(parent, time.Second)
		return ctx, cancel
	}},
	{"timeout.Do", func(parent context.Context) (context.Context, func()) {
		started, end, ended := make(chan context.Context), make(chan struct{}), make(chan struct{})
		go func() {
			defer close(ended)
			timeout.Do(parent, timeout.After(time.Second), func(ctx context.Context) (int, error) {
				started <- ctx
				<-end
				return 0, nil
			})
		}()
		return <-started, func() { close(end); <-ended }
	}},
}

type (
	key      struct{}
	otherKey struct{}
)

var errBoss = errors.New("boss said no")

// state returns all that a context reports about its end.
func state(ctx context.Context) string {
	before := ctx.Err()
	closed := false
	select {
	case <-ctx.Done():
		closed = true
	default:
	}
	return fmt.Sprintf("err %v, cause %v, done %t, err %v, cause %v", before, context.Cause(ctx), closed, ctx.Err(), context.Cause(ctx))
}

// lazyState calls Cause first and arms the context last.
func lazyState(ctx context.Context) string {
	return fmt.Sprintf("cause %v, err %v, then %s", context.Cause(ctx), ctx.Err(), state(ctx))
}

// TestContextKeepsPromisesOfPackageContext runs each row with our context and with the standard
// library's. Both must report the same, before and after something ends the context, whatever was asked
// in between. The exceptions are TestContextIsCanceledIfLateSuccessWentUnseen and
// TestContextPrefersUnseenEndOfParent.
func TestContextKeepsPromisesOfPackageContext(t *testing.T) {
	ends := map[string]func(ctx context.Context, cancelParent context.CancelCauseFunc, cancel func()){
		"nothing":   func(context.Context, context.CancelCauseFunc, func()) {},
		"the call":  func(_ context.Context, _ context.CancelCauseFunc, cancel func()) { cancel() },
		"the limit": func(context.Context, context.CancelCauseFunc, func()) { time.Sleep(time.Second + 1) },
		"the call, then limit": func(_ context.Context, _ context.CancelCauseFunc, cancel func()) {
			cancel()
			time.Sleep(time.Second + 1)
		},
		"the parent": func(_ context.Context, parent context.CancelCauseFunc, _ func()) { parent(errBoss); synctest.Wait() },
		"the parent, then limit": func(_ context.Context, parent context.CancelCauseFunc, _ func()) {
			parent(errBoss)
			time.Sleep(time.Second + 1)
		},
		"the parent, then call": func(_ context.Context, parent context.CancelCauseFunc, cancel func()) { parent(errBoss); cancel() },
		"the call, then parent": func(_ context.Context, parent context.CancelCauseFunc, cancel func()) {
			cancel()
			parent(errBoss)
			synctest.Wait()
		},
		"the limit, which something sees, then the call": func(ctx context.Context, _ context.CancelCauseFunc, cancel func()) {
			time.Sleep(time.Second + 1)
			ctx.Err()
			cancel()
		},
	}
	promises := map[string]func(ctx context.Context, end func()) []any{
		"state":        func(ctx context.Context, end func()) []any { end(); return []any{state(ctx)} },
		"state, twice": func(ctx context.Context, end func()) []any { a := state(ctx); end(); return []any{a, state(ctx)} },
		"cause unarmed": func(ctx context.Context, end func()) []any {
			a := context.Cause(ctx)
			end()
			return []any{a, lazyState(ctx)}
		},
		"err unarmed": func(ctx context.Context, end func()) []any {
			a := ctx.Err()
			end()
			return []any{a, ctx.Err(), state(ctx)}
		},
		"state, later": func(ctx context.Context, end func()) []any {
			end()
			a := state(ctx)
			time.Sleep(time.Hour)
			return []any{a, state(ctx)}
		},
		"same done": func(ctx context.Context, end func()) []any {
			before := ctx.Done()
			end()
			return []any{before == ctx.Done()}
		},
		"deadline": func(ctx context.Context, end func()) []any {
			before, ok := ctx.Deadline()
			end()
			after, _ := ctx.Deadline()
			return []any{ok, before.Equal(after), before}
		},
		"value": func(ctx context.Context, end func()) []any {
			before := ctx.Value(key{})
			end()
			return []any{before, ctx.Value(key{}), ctx.Value(0)}
		},
		"WithCancel child": func(ctx context.Context, end func()) []any {
			child, cancel := context.WithCancel(ctx)
			defer cancel()
			end()
			synctest.Wait()
			return []any{state(child), state(ctx)}
		},
		"WithCancel child after": func(ctx context.Context, end func()) []any {
			end()
			child, cancel := context.WithCancel(ctx)
			defer cancel()
			return []any{state(child), state(ctx)}
		},
		"child's own cancel": func(ctx context.Context, end func()) []any {
			child, cancel := context.WithCancelCause(ctx)
			cancel(errDown)
			a := state(ctx)
			end()
			return []any{a, state(child), state(ctx)}
		},
		"WithDeadline child": func(ctx context.Context, end func()) []any {
			child, cancel := context.WithTimeoutCause(ctx, time.Minute, errDown)
			defer cancel()
			sooner, cancel := context.WithTimeoutCause(ctx, time.Millisecond, errDown)
			defer cancel()
			end()
			synctest.Wait()
			own, _ := child.Deadline()
			return []any{state(child), state(sooner), own}
		},
		"WithoutCancel child": func(ctx context.Context, end func()) []any {
			child := context.WithoutCancel(ctx)
			end()
			_, ok := child.Deadline()
			return []any{child.Err(), context.Cause(child), child.Done() == nil, ok, child.Value(key{})}
		},
		"WithValue child": func(ctx context.Context, end func()) []any {
			child := context.WithValue(ctx, otherKey{}, "zero")
			a := context.Cause(child)
			end()
			return []any{a, lazyState(child), child.Value(otherKey{}), child.Value(key{})}
		},
		"grandchild": func(ctx context.Context, end func()) []any {
			child, cancel := context.WithCancel(context.WithValue(ctx, otherKey{}, 0))
			defer cancel()
			grandchild, cancel := context.WithCancel(child)
			defer cancel()
			end()
			synctest.Wait()
			return []any{state(grandchild), state(child)}
		},
		"AfterFunc": func(ctx context.Context, end func()) []any {
			runs, stopped := make(chan string, 2), 0
			stop := context.AfterFunc(ctx, func() { runs <- state(ctx) })
			stopFirst := context.AfterFunc(ctx, func() { stopped++ })
			a := stopFirst()
			end()
			synctest.Wait()
			reports := "did not run"
			if len(runs) > 0 {
				reports = <-runs
			}
			return []any{a, stopped, reports, stop(), len(runs)}
		},
		"AfterFunc after": func(ctx context.Context, end func()) []any {
			end()
			runs := 0
			stop := context.AfterFunc(ctx, func() { runs++ })
			synctest.Wait()
			return []any{runs, stop()}
		},
		"String": func(ctx context.Context, end func()) []any {
			child := context.WithValue(ctx, otherKey{}, 0)
			text := func(v any) string { return regexp.MustCompile(`m=\S+`).ReplaceAllString(fmt.Sprint(v), "m") }
			return []any{text(ctx), text(child)}
		},
	}
	for promise, report := range promises {
		for ending, end := range ends {
			t.Run(promise+"/ended by "+ending, func(t *testing.T) {
				var reports [2][]any
				for i, by := range limitedBy {
					synctest.Test(t, func(t *testing.T) {
						parent, cancelParent := context.WithCancelCause(context.WithValue(context.Background(), key{}, "parent's"))
						defer cancelParent(nil)
						ctx, cancel := by.make(parent)
						ended := false
						reports[i] = report(ctx, func() { end(ctx, cancelParent, func() { cancel(); ended = true }) })
						if !ended {
							cancel()
						}
					})
				}
				if !reflect.DeepEqual(reports[0], reports[1]) {
					t.Errorf("%s:\n\t%v\n%s:\n\t%v", limitedBy[0].name, reports[0], limitedBy[1].name, reports[1])
				}
			})
		}
	}
}

// TestContextIsCanceledIfLateSuccessWentUnseen shows a difference to context.WithTimeout: after a
// success, Do doesn't read the clock, so a context that nothing armed or looked at reports the end of
// its call, even if the limit had passed.
func TestContextIsCanceledIfLateSuccessWentUnseen(t *testing.T) {
	for callErr, want := range map[error]error{nil: context.Canceled, errDown: context.DeadlineExceeded} {
		synctest.Test(t, func(t *testing.T) {
			var kept context.Context
			timeout.Do(t.Context(), timeout.After(time.Second), func(ctx context.Context) (int, error) {
				kept = ctx
				time.Sleep(time.Minute)
				return 0, callErr
			})
			if got, want := state(kept), fmt.Sprintf("err %v, cause %[1]v, done true, err %[1]v, cause %[1]v", want); got != want {
				t.Errorf("call's error %v: got %s, want %s", callErr, got, want)
			}
		})
	}
}

// TestContextPrefersUnseenEndOfParent: if the parent was canceled after the limit and nothing
// looked in between, the context reports the parent's end and its cause.
func TestContextPrefersUnseenEndOfParent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent, cancelParent := context.WithCancelCause(context.Background())
		ctx, cancel := limitedBy[1].make(parent)
		time.Sleep(time.Minute)
		cancelParent(errBoss)
		cancel()
		const want = "err context canceled, cause boss said no, done true, err context canceled, cause boss said no"
		if got := state(ctx); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

// TestTimeoutReturnsErrorIfCancellationHidLimit: the same, seen from the caller. A call that looked at
// its context after the limit is blamed on the limit.
func TestTimeoutReturnsErrorIfCancellationHidLimit(t *testing.T) {
	for _, looks := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			parent, cancelParent := context.WithCancel(context.Background())
			_, err := timeout.Do(parent, timeout.After(time.Second), func(ctx context.Context) (int, error) {
				time.Sleep(time.Minute)
				if looks {
					ctx.Err()
				}
				cancelParent()
				return 0, errDown
			})
			if late := errors.Is(err, timeout.ErrTimeout); late != looks || !errors.Is(err, errDown) {
				t.Errorf("looks %t: got %v, ErrTimeout %t", looks, err, late)
			}
		})
	}
}

// TestContextKeepsLimitThatPassedFirst: if both the limit and the parent's later deadline have passed and
// nothing looked in between, the limit was first, whether the call still runs or not.
func TestContextKeepsLimitThatPassedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent, stop := context.WithTimeoutCause(context.Background(), time.Minute, errBoss)
		defer stop()
		inCall, cancel := limitedBy[1].make(parent)
		afterCall, cancelAfter := limitedBy[1].make(parent)
		time.Sleep(time.Hour)
		cancelAfter()
		for _, ctx := range []context.Context{inCall, afterCall} {
			if ctx.Err() != context.DeadlineExceeded || context.Cause(ctx) != context.DeadlineExceeded {
				t.Errorf("got %s, want DeadlineExceeded without the parent's cause", state(ctx))
			}
		}
		cancel()
	})
}

// TestContextFollowsForeignParent covers a parent that package context doesn't know and that ends
// without notifying its children. The context reports its end, during the call and afterwards, and
// doesn't attribute it to the limit, which may pass later.
func TestContextFollowsForeignParent(t *testing.T) {
	for _, parentErr := range []error{context.Canceled, context.DeadlineExceeded} {
		want := fmt.Sprintf("err %v, cause %[1]v, done true, err %[1]v, cause %[1]v", parentErr)
		for name, during := range map[string]func(context.Context){
			"looked at in the call": func(ctx context.Context) {
				if got := state(ctx); got != want {
					t.Errorf("got %s, want %s", got, want)
				}
			},
			"looked at after it":                  func(context.Context) {},
			"looked at after it, and after limit": func(context.Context) { time.Sleep(2 * time.Hour) },
		} {
			t.Run(fmt.Sprint(parentErr, " ", name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					parent := &foreign{Context: context.Background()}
					var kept context.Context
					_, err := timeout.Do(parent, timeout.After(time.Hour), func(ctx context.Context) (int, error) {
						kept = ctx
						parent.err = parentErr
						during(ctx)
						return 0, errDown
					})
					if err != errDown {
						t.Errorf("error %v, want errDown itself", err)
					}
					if got := state(kept); got != want {
						t.Errorf("got %s, want %s", got, want)
					}
				})
			})
		}
	}
}

type foreign struct {
	context.Context
	err error
}

func (f *foreign) Err() error { return f.err }

// TestContextKeepsCauseOfForeignParent covers a parent that has ended but hasn't notified its
// children.
func TestContextKeepsCauseOfForeignParent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended, cancel := context.WithCancelCause(context.Background())
		cancel(errBoss)
		parent := &tardy{Context: ended}
		timeout.Do(parent, timeout.After(time.Hour), func(ctx context.Context) (int, error) {
			parent.ended = true
			const want = "err context canceled, cause boss said no, done true, err context canceled, cause boss said no"
			if got := state(ctx); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			return 0, nil
		})
	})
}

// tardy is an ended context whose Err reports it once ended is set, and whose Done never does.
type tardy struct {
	context.Context
	ended bool
}

func (c *tardy) Done() <-chan struct{} { return make(chan struct{}) }

func (c *tardy) Err() error {
	if c.ended {
		return c.Context.Err()
	}
	return nil
}

// TestContextEndsWithOuterCall, although the inner call began on another goroutine and continues
// after the outer call has returned.
func TestContextEndsWithOuterCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		goOn, ended := make(chan struct{}), make(chan struct{})
		timeout.Do(t.Context(), timeout.After(time.Minute), func(outer context.Context) (int, error) {
			inside := make(chan struct{})
			go func() {
				defer close(ended)
				timeout.Do(outer, timeout.After(time.Second), func(ctx context.Context) (int, error) {
					close(inside)
					<-goOn
					if ctx.Err() != context.Canceled {
						t.Errorf("error %v, want Canceled", ctx.Err())
					}
					return 0, nil
				})
			}()
			<-inside
			return 0, nil
		})
		close(goOn)
		<-ended
	})
}

func TestContextEndsAtDeadlineUnarmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		timeout.Do(t.Context(), timeout.After(time.Second), func(ctx context.Context) (int, error) {
			time.Sleep(time.Second - 1)
			if ctx.Err() != nil {
				t.Errorf("error %v before the deadline", ctx.Err())
			}
			time.Sleep(time.Nanosecond)
			if ctx.Err() != context.DeadlineExceeded {
				t.Errorf("error %v at the deadline", ctx.Err())
			}
			return 0, nil
		})
	})
}

func TestContextChildStartsNoGoroutine(t *testing.T) {
	timeout.Do(context.Background(), timeout.After(time.Hour), func(ctx context.Context) (int, error) {
		before := runtime.NumGoroutine()
		for range 10 {
			_, cancel := context.WithCancel(context.WithValue(ctx, otherKey{}, 0))
			defer cancel()
			stop := context.AfterFunc(ctx, func() {})
			defer stop()
		}
		if after := runtime.NumGoroutine(); after != before {
			t.Errorf("%d goroutines, %d before the children were made", after, before)
		}
		return 0, nil
	})
}

// TestContextEndAgreesWithChildren lets calls end while other goroutines make children and look:
// all of them report the same end.
func TestContextEndAgreesWithChildren(t *testing.T) {
	for _, limit := range []time.Duration{time.Hour, 20 * time.Microsecond} {
		for range 500 {
			var group errgroup.Group
			parent, cancelParent := context.WithCancelCause(context.Background())
			var ctx context.Context
			timeout.Do(parent, timeout.After(limit), func(inner context.Context) (int, error) {
				ctx = inner
				for range 2 {
					group.Go(func() error {
						child, cancel := context.WithCancel(inner)
						defer cancel()
						<-child.Done()
						if child.Err() != inner.Err() || context.Cause(child) != context.Cause(inner) {
							return fmt.Errorf("child reports %v, %v; its parent %v, %v", child.Err(), context.Cause(child), inner.Err(), context.Cause(inner))
						}
						return nil
					})
					group.Go(func() error {
						for inner.Err() == nil {
							if cause := context.Cause(inner); cause != nil && cause != inner.Err() && cause != errBoss {
								return fmt.Errorf("cause %v", cause)
							}
							runtime.Gosched()
						}
						err, cause := inner.Err(), context.Cause(inner)
						<-inner.Done()
						if inner.Err() != err || context.Cause(inner) != cause {
							return fmt.Errorf("reported %v, %v, then %v, %v", err, cause, inner.Err(), context.Cause(inner))
						}
						return nil
					})
				}
				group.Go(func() error { cancelParent(errBoss); return nil })
				runtime.Gosched()
				return 0, nil
			})
			if ctx.Err() == nil {
				t.Error("the call has ended, its context has not")
			}
			if err := group.Wait(); err != nil {
				t.Error(err)
			}
		}
	}
}
