package faults

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/proof/internal/cases"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// A fault is what goes wrong in a scene.
type fault struct {
	name    string
	at      site
	applies func(order []kind) bool // nil: to every order

	// What the effector does at its nth start.
	effect func(s *scene, ctx context.Context, n int) error
	strike func(s *scene) // what happens at any other site

	notMade bool          // the effector's error is NotMade
	delay   time.Duration // of the schedule; 0: a second

	// The caller's context; nil: one that can be canceled.
	ctx  func() (context.Context, context.CancelFunc)
	dead bool // it has ended before the call
	// Its deadline is earlier than any timeout, so that the effector receives it unchanged.
	nearer bool
	leaves bool // effectors ignore their context for hours
	// Checks a call that returned; nil: it must return.
	want func(s *scene, end ending)
}

func (f fault) context() (context.Context, context.CancelFunc) {
	if f.ctx == nil {
		return context.WithCancel(context.Background())
	}
	return f.ctx()
}

var errDown = errors.New("down")

func TestFaultsInEveryOrder(t *testing.T) {
	neverHappened(t, play(t, orders(), roundRobin))
}

// roundRobin distributes the orders and faults among the shapes.
func roundRobin(order, fault int) int { return (order + fault) % shapes }

func neverHappened(t *testing.T, faults []string) {
	if len(faults) > 0 {
		t.Errorf("got no scene in which these faults happened: %q", faults)
	}
}

func TestFaultsThroughAllPolicies(t *testing.T) {
	var all [][]kind
	for i := range kinds {
		order := slices.Concat(kinds[i:], kinds[:i])
		// Outermost, it prevents all retries.
		back := slices.DeleteFunc(slices.Clone(order), func(k kind) bool { return k == atMostOnce })
		slices.Reverse(back)
		all = append(all, order, back)
	}
	// With a third of the combinations, some faults never happen.
	if never := play(t, all, roundRobin); *every {
		neverHappened(t, never)
	}
}

func TestFaultsThroughEveryDo(t *testing.T) {
	var all [][]kind
	for _, k := range kinds {
		if k != atMostOnce && k != discarding {
			all = append(all, []kind{k})
		}
	}
	play(t, all, func(int, int) int { return byDo })
}

func TestFaultsThroughEveryPermit(t *testing.T) {
	var all [][]kind
	for _, k := range kinds {
		if k.breaks() || k == bulkheading {
			all = append(all, []kind{k})
		}
	}
	play(t, all, func(int, int) int { return byPermit })
}

// play runs every fault that applies in every order, each in its own scene and bubble. Among the
// faults of which no scene was left out, it returns those that never happened.
func play(t *testing.T, orders [][]kind, shape func(order, fault int) int) (never []string) {
	all := faults()
	wanted, ran, struck := map[string]int{}, map[string]int{}, map[string]int{}
	sum := 0
	for i, order := range orders {
		applies := func(j int) bool {
			return (all[j].applies == nil || all[j].applies(order)) && (i+j)%oneOf(len(order)) == 0
		}
		t.Run(name(order), func(t *testing.T) {
			for j, f := range all {
				if !applies(j) {
					continue
				}
				t.Run(f.name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						s := newScene(t, order, f)
						s.run(shape(i, j))
						struck[f.name] += s.struck
						ran[f.name]++
						sum++
					})
				})
			}
		})
		for j, f := range all {
			if applies(j) {
				wanted[f.name]++
			}
		}
	}
	t.Logf("%d orders, %d faults: %d combinations", len(orders), len(all), sum)
	for _, f := range all {
		if wanted[f.name] > 0 && ran[f.name] == wanted[f.name] && struck[f.name] == 0 && !f.dead {
			never = append(never, f.name)
		}
	}
	return never
}

var every = flag.Bool("every", false, "every order meets every fault: takes minutes")

// oneOf returns n if an order of this many policies gets one in n of the faults, a different one
// for each order.
//
// Without -every, each policy alone and each order of two gets all faults, and each order of three
// some of them: so each two policies in each order get all faults, with another policy inside. The
// numbers are primes, so that each fault meets each policy in each place. With the race detector, n
// is larger: except for policies that start goroutines, a scene has only one goroutine running.
func oneOf(policies int) int {
	switch {
	case *every || policies == 1:
		return 1
	case policies == 2 && cases.Race:
		return 5
	case policies == 3 && cases.Race:
		return 79
	case policies == 3:
		return 11
	case policies > 3:
		return 3
	}
	return 1
}

// orders returns every order of one, two, or three policies, including orders of the same policy
// twice.
func orders() (all [][]kind) {
	for _, a := range kinds {
		all = append(all, []kind{a})
	}
	for _, a := range kinds {
		for _, b := range kinds {
			all = append(all, []kind{a, b})
		}
	}
	for _, a := range kinds {
		for _, b := range kinds {
			for _, c := range kinds {
				if a != b && b != c && c != a {
					all = append(all, []kind{a, b, c})
				}
			}
		}
	}
	return all
}

func name(order []kind) string {
	var names []string
	for _, k := range order {
		names = append(names, string(k))
	}
	return strings.Join(names, ">")
}

func faults() []fault {
	return slices.Concat(panics(), exits(), badErrors(), badMethods(), callsBack(), hours(), contexts(), callbacks())
}

// goWrong appears in the stack of every panic.
//
//go:noinline
func goWrong(how func()) { how() }

// The ways to end other than returning.

func (s *scene) panics(value any) {
	s.throws(func(got any) bool { return reflect.DeepEqual(got, value) })
	goWrong(func() { panic(value) })
}

func (s *scene) exit() {
	s.exits()
	goWrong(runtime.Goexit)
}

func panics() []fault {
	at := func(name string, effect func(s *scene, ctx context.Context, n int)) fault {
		return fault{name: "effector panics " + name, at: atEffector, effect: func(s *scene, ctx context.Context, n int) error {
			if name != "at its second start" || n == 2 {
				s.hit(len(s.order))
			}
			effect(s, ctx, n)
			return errDown
		}}
	}
	all := []fault{
		at("with nil", func(s *scene, _ context.Context, _ int) {
			s.throws(func(got any) bool { _, ok := got.(*runtime.PanicNilError); return ok })
			goWrong(func() { panic(nil) })
		}),
		at("with a runtime error", func(s *scene, _ context.Context, _ int) {
			s.throws(isRuntimeError)
			var m map[int]int
			goWrong(func() { m[1] = 1 })
		}),
		at("at its second start", func(s *scene, _ context.Context, n int) {
			if n == 2 {
				s.panics("second")
			}
		}),
		at("with children of its context", func(s *scene, ctx context.Context, _ int) { withChildren(ctx); s.panics("children") }),
		at("after calling Err of its context", func(s *scene, ctx context.Context, _ int) {
			if err := ctx.Err(); err != nil {
				s.t.Error(err)
			}
			s.panics("after Err")
		}),
	}
	for name, value := range map[string]any{
		"with a string":              "string",
		"with an error":              errDown,
		"with an incomparable value": []int{1},
		"with a PanicError":          &resilience.PanicError{Value: "inner", Stack: []byte("goWrong")},
		"with a refusal":             &breaker.OpenError{},
		"with a permanent error":     retry.Permanent(errDown),
		"with an effector's NotMade": resilience.NotMade(errDown),
		"with an error of contexts":  context.Canceled,
	} {
		all = append(all, at(name, func(s *scene, _ context.Context, _ int) { s.panics(value) }))
	}
	slices.SortFunc(all, func(a, b fault) int { return strings.Compare(a.name, b.name) })
	return all
}

// withChildren creates children of ctx and never cancels them, like a careless effector.
func withChildren(ctx context.Context) {
	child, cancel := context.WithTimeout(ctx, 10000*time.Hour)
	_ = cancel
	context.AfterFunc(child, func() {})
	ctx.Done()
}

func exits() []fault {
	return []fault{
		{name: "effector exits", at: atEffector, effect: func(s *scene, _ context.Context, _ int) error {
			s.hit(len(s.order))
			s.exit()
			return nil
		}},
		{name: "effector exits with children of its context", at: atEffector, effect: func(s *scene, ctx context.Context, _ int) error {
			s.hit(len(s.order))
			withChildren(ctx)
			s.exit()
			return nil
		}},
		{name: "effector exits at its second start", at: atEffector, effect: func(s *scene, _ context.Context, n int) error {
			if n == 2 {
				s.hit(len(s.order))
				s.exit()
			}
			return errDown
		}},
	}
}

// returns is an effector that fails with err.
func returns(name string, err error, want func(s *scene, end ending)) fault {
	return fault{name: "effector fails with " + name, at: atEffector, want: want, effect: func(s *scene, _ context.Context, _ int) error {
		s.hit(len(s.order))
		return err
	}}
}

func failed(s *scene, end ending) {
	if end.err == nil {
		s.t.Error("got nil, want the error")
	}
}

func failedWith(err error) func(s *scene, end ending) {
	return func(s *scene, end ending) {
		if !errors.Is(end.err, err) {
			s.t.Errorf("got %v, want an error that is %v", end.err, err)
		}
	}
}

// A quietNil is an error whose methods work on a nil pointer.
type quietNil struct{}

func (*quietNil) Error() string { return "nil" }

// A touchyNil is an error whose methods panic on a nil pointer.
type touchyNil struct{ after time.Duration }

func (e *touchyNil) Error() string                 { return e.after.String() }
func (e *touchyNil) RetryAfter() (d time.Duration) { goWrong(func() { d = e.after }); return d }

// An unequal is an error that can't be compared.
type unequal []error

func (unequal) Error() string     { return "unequal" }
func (e unequal) Unwrap() []error { return e }

// A blunt error has an invalid RetryAfter.
type blunt time.Duration

func (blunt) Error() string               { return "blunt" }
func (b blunt) RetryAfter() time.Duration { return time.Duration(b) }

func badErrors() []fault {
	touchy := returns("a nil pointer whose methods panic", (*touchyNil)(nil), failed)
	touchy.effect = func(s *scene, _ context.Context, _ int) error {
		s.hit(-1)
		s.touchy = true
		return (*touchyNil)(nil)
	}
	notMade := returns("NotMade", resilience.NotMade(errDown), failedWith(errDown))
	notMade.notMade = true
	return []fault{
		returns("an error", errDown, failedWith(errDown)),
		returns("a nil pointer", (*quietNil)(nil), func(s *scene, end ending) {
			var got *quietNil
			if !errors.As(end.err, &got) || got != nil {
				s.t.Errorf("got %v that contains %v, want the nil pointer", end.err, got)
			}
		}),
		touchy,
		returns("an incomparable error", unequal{errDown, nil, unequal{}}, failedWith(errDown)),
		returns("a negative RetryAfter", blunt(math.MinInt64), failed),
		returns("an endless RetryAfter", blunt(math.MaxInt64), failed),
		returns("a permanent nil", retry.Permanent((*quietNil)(nil)), failed),
		returns("a permanent error", retry.Permanent(errDown), failedWith(errDown)),
		notMade,
		returns("another's refusal", fmt.Errorf("other: %w", &breaker.OpenError{Name: "other"}), failedWith(breaker.ErrOpen)),
		returns("another's end of retrying", &retry.ExhaustedError{}, failed),
		returns("another's timeout", &timeout.Error{}, failedWith(timeout.ErrTimeout)),
		returns("a canceled context that is another's", context.Canceled, failedWith(context.Canceled)),
	}
}

// A bad error misbehaves when one of its methods is called.
type bad struct {
	method string
	do     func()
}

func (e *bad) call(method string) {
	if e.method == method {
		e.do()
	}
}

func (e *bad) Error() string             { e.call("Error"); return "bad" }
func (e *bad) Is(error) bool             { e.call("Is"); return false }
func (e *bad) As(any) bool               { e.call("As"); return false }
func (e *bad) Timeout() bool             { e.call("Timeout"); return false }
func (e *bad) Temporary() bool           { e.call("Temporary"); return false }
func (e *bad) RetryAfter() time.Duration { e.call("RetryAfter"); return 0 }
func (e *bad) Unwrap() error             { e.call("Unwrap"); return nil }

// A badTree is a bad error that wraps several errors.
type badTree struct{ *bad }

func (e badTree) Unwrap() []error { e.call("Unwrap []error"); return []error{errDown} }

func badMethods() (all []fault) {
	for _, method := range []string{"Error", "Is", "As", "Timeout", "Temporary", "RetryAfter", "Unwrap", "Unwrap []error"} {
		for _, w := range ways() {
			all = append(all, fault{
				name: "effector fails with an error whose " + method + " " + w.name, at: atEffector, want: failed,
				effect: func(s *scene, _ context.Context, _ int) error {
					s.hit(-1) // which policy calls the method, if any, is undefined
					e := &bad{method, func() { w.do(s) }}
					if method == "Unwrap []error" {
						return badTree{e}
					}
					return e
				},
			})
		}
	}
	return all
}

// A way is one of the ways in which functions go wrong.
type way struct {
	name string
	do   func(s *scene)
}

func ways() []way {
	return []way{
		{"panics", func(s *scene) { s.panics("way") }},
		{"exits", (*scene).exit},
	}
}

func callsBack() []fault {
	fails := func(*scene) {}
	withCallers := append(ways(), way{"fails", fails})
	breaks := func(order []kind) bool { return slices.ContainsFunc(order, kind.breaks) }
	var all []fault
	for _, w := range withCallers {
		all = append(all, fault{name: "effector calls back and " + w.name, at: atEffector, effect: func(s *scene, _ context.Context, _ int) error {
			s.hit(len(s.order))
			s.callFromWithin()
			w.do(s)
			return errDown
		}})
		for _, state := range []breaker.State{breaker.Closed, breaker.ForcedOpen, breaker.HalfOpen, breaker.Disabled} {
			all = append(all, fault{
				name: fmt.Sprintf("effector makes breakers %v and %s", state, w.name), at: atEffector, applies: breaks,
				effect: func(s *scene, _ context.Context, _ int) error {
					s.hit(len(s.order))
					s.force(state)
					w.do(s)
					return errDown
				},
			})
		}
	}
	return all
}

// hours returns effectors that take hours of the bubble's clock.
func hours() []fault {
	late := func(name string, ends func(s *scene) error) fault {
		return fault{name: "effector " + name + " after hours", at: atEffector, leaves: true, effect: func(s *scene, _ context.Context, _ int) error {
			s.hit(len(s.order))
			time.Sleep(5 * time.Hour)
			return ends(s)
		}}
	}
	attended := func(order []kind) bool { return !slices.Contains(order, abandoning) }
	timedOut := func(s *scene, end ending) {
		if len(s.timeouts) > 0 && !errors.Is(end.err, timeout.ErrTimeout) {
			s.t.Errorf("got %v, want an error that is %v", end.err, timeout.ErrTimeout)
		}
		if end.err == nil || attended(s.order) && !errors.Is(end.err, errDown) {
			s.t.Errorf("got %v, want an error that is %v", end.err, errDown)
		}
	}

	fails := late("fails", func(*scene) error { return errDown })
	fails.want = timedOut
	succeeds := late("succeeds", func(*scene) error { return nil })
	succeeds.want = func(s *scene, end ending) {
		if attended(s.order) && (end.value != 1 || end.err != nil) {
			s.t.Errorf("got %v, %v, want the late value", end.value, end.err)
		}
		if !attended(s.order) && !errors.Is(end.err, timeout.ErrTimeout) {
			s.t.Errorf("got %v, want an error that is %v", end.err, timeout.ErrTimeout)
		}
	}
	exits := late("exits", func(s *scene) error {
		if attended(s.order) {
			s.exit()
		}
		goWrong(runtime.Goexit) // the caller has left
		return nil
	})
	panics := late("panics", func(s *scene) error { s.panics("late"); return nil })
	panics.applies = attended // otherwise the panic crashes the program
	hangs := fault{
		name: "effector hangs until its context is done", at: atEffector, want: failed, ctx: endsIn(limit * 5 / 2),
		effect: func(s *scene, ctx context.Context, _ int) error {
			s.hit(len(s.order))
			<-ctx.Done()
			return ctx.Err()
		},
	}
	return []fault{fails, succeeds, exits, panics, hangs}
}

var errCause = errors.New("cause")

// endsIn returns contexts that are canceled after d. d must differ from the times at which timeouts
// expire, because the order of two events at the same instant is undefined.
func endsIn(d time.Duration) func() (context.Context, context.CancelFunc) {
	return func() (context.Context, context.CancelFunc) {
		ctx, cancel := context.WithCancelCause(context.Background())
		time.AfterFunc(d, func() { cancel(errCause) })
		return ctx, func() { cancel(nil) }
	}
}

// A foreign context isn't of package context's kind. Its Done may return nil.
type foreign struct {
	context.Context
	done  chan struct{}
	ended atomic.Bool
}

func (c *foreign) Done() <-chan struct{} { return c.done }

func (c *foreign) Err() error {
	if c.ended.Load() {
		return context.Canceled
	}
	return nil
}

func (c *foreign) end() {
	c.ended.Store(true)
	if c.done != nil {
		close(c.done)
	}
}
func (c *foreign) Value(any) any { return nil }

func contexts() []fault {
	retries := func(order []kind) bool { return slices.ContainsFunc(order, kind.retries) }
	unmade := func(name string, ctx func() (context.Context, context.CancelFunc)) fault {
		return fault{name: name, at: atEffector, ctx: ctx, dead: true, effect: func(s *scene, _ context.Context, _ int) error { return errDown }}
	}
	gone := func(s *scene, end ending) {
		if !errors.Is(end.err, errDown) && !(s.holds(abandoning) && errors.Is(end.err, context.Canceled)) {
			s.t.Errorf("got %v, want the effector's error, or the context's if it was abandoned", end.err)
		}
	}
	all := []fault{
		unmade("context canceled before", func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			return ctx, cancel
		}),
		unmade("context canceled before for a cause", func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(context.Background())
			cancel(errCause)
			return ctx, func() {}
		}),
		unmade("deadline hours ago", func() (context.Context, context.CancelFunc) {
			return context.WithDeadline(context.Background(), time.Now().Add(-5*time.Hour))
		}),
		unmade("deadline hours ago for a cause", func() (context.Context, context.CancelFunc) {
			return context.WithDeadlineCause(context.Background(), time.Unix(0, 0), errCause)
		}),
		unmade("foreign context that has ended", func() (context.Context, context.CancelFunc) {
			c := &foreign{Context: context.Background()}
			c.end()
			return c, func() {}
		}),
		{name: "foreign context", at: atEffector, want: failedWith(errDown), ctx: func() (context.Context, context.CancelFunc) {
			c := &foreign{Context: context.Background(), done: make(chan struct{})}
			return c, c.end
		}, effect: func(s *scene, ctx context.Context, _ int) error {
			s.hit(len(s.order))
			// Otherwise nothing ends the goroutine of such a context's child.
			if len(s.timeouts) > 0 {
				withChildren(ctx)
			}
			return errDown
		}},
		{name: "context canceled during the wait", at: atEffector, applies: retries, want: gone, ctx: endsIn(time.Second / 2),
			effect: func(s *scene, _ context.Context, _ int) error { s.hit(len(s.order)); return errDown }},
		{name: "schedule that stops", at: atEffector, applies: retries, delay: backoff.Stop, want: failedWith(errDown),
			effect: func(s *scene, _ context.Context, _ int) error { s.hit(len(s.order)); return errDown }},
		{
			name: "schedule that waits forever", at: atEffector, applies: retries, delay: math.MaxInt64, ctx: endsIn(limit * 5 / 2),
			effect: func(s *scene, _ context.Context, _ int) error {
				s.hit(len(s.order))
				// Added to the schedule's delay.
				return resilience.WithRetryAfter(errDown, time.Minute)
			},
			want: func(s *scene, end ending) {
				gone(s, end)
				if s.faulty != 1 && !s.holds(hedging) {
					s.t.Errorf("got %d starts, want the first wait never to end", s.faulty)
				}
			},
		},
		{name: "deadline too near for the wait", at: atEffector, applies: retries, nearer: true, want: failedWith(errDown),
			ctx: func() (context.Context, context.CancelFunc) {
				return context.WithTimeout(context.Background(), time.Second/2)
			},
			effect: func(s *scene, _ context.Context, _ int) error { s.hit(len(s.order)); return errDown }},
	}
	for _, w := range append(ways(), way{"fails", func(*scene) {}}) {
		all = append(all, fault{name: "effector cancels its caller and " + w.name, at: atEffector, want: gone, ctx: cancelable,
			effect: func(s *scene, ctx context.Context, _ int) error {
				s.hit(len(s.order))
				ctx.Value(cancelKey{}).(context.CancelFunc)()
				if s.holds(abandoning) {
					// The caller may have left already: then a panic would crash the program.
					return errDown
				}
				w.do(s)
				return errDown
			}})
	}
	return all
}

type cancelKey struct{}

// cancelable is a context that its holder can cancel.
func cancelable() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	return context.WithValue(ctx, cancelKey{}, cancel), cancel
}

// callbacks returns faults of the functions that users pass to policies: each function goes wrong
// in each way while the effector fails, and OnStateChange also while it succeeds.
func callbacks() (all []fault) {
	needs := func(does func(kind) bool) func([]kind) bool {
		return func(order []kind) bool { return slices.ContainsFunc(order, does) }
	}
	owners := map[site]func(kind) bool{
		atClassify:      kind.classifies,
		atOnStateChange: func(k kind) bool { return k == tripping || k == deciding },
		atRetryIf:       kind.retries,
		atOnRetry:       kind.retries,
		atBackoff:       kind.retries,
		atNextBackOff:   kind.retries,
		atReset:         kind.retries,
		atDrop:          func(k kind) bool { return k == discarding },
		atPriority:      func(k kind) bool { return k == adapting },
		atHedgeIf:       func(k kind) bool { return k == hedging },
		atOnHedge:       func(k kind) bool { return k == hedging },
	}
	down := func(*scene, context.Context, int) error { return errDown }
	wrong := append(ways(), way{"calls back", (*scene).callFromWithin})
	for _, at := range []site{
		atClassify, atOnStateChange, atRetryIf, atOnRetry, atBackoff, atNextBackOff, atReset, atDrop, atPriority, atHedgeIf, atOnHedge,
	} {
		for _, w := range wrong {
			all = append(all, fault{name: string(at) + " " + w.name, at: at, applies: needs(owners[at]), effect: down, strike: w.do})
		}
	}
	for _, w := range wrong {
		all = append(all, fault{
			name: "OnStateChange at closing " + w.name, at: atOnStateChange, applies: needs(func(k kind) bool { return k == deciding }),
			effect: func(*scene, context.Context, int) error { return nil }, strike: w.do,
		})
	}
	for _, state := range []breaker.State{breaker.Closed, breaker.ForcedOpen} {
		for _, at := range []site{atClassify, atOnStateChange, atRetryIf, atOnRetry, atDrop, atPriority, atHedgeIf, atOnHedge} {
			all = append(all, fault{
				name: fmt.Sprintf("%s makes breakers %v", at, state), at: at, effect: down,
				applies: func(order []kind) bool { return needs(owners[at])(order) && needs(kind.breaks)(order) },
				strike:  func(s *scene) { s.force(state) },
			})
		}
	}
	return all
}
