package resilience_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/effector-go/resilience"
)

var (
	errDown  = errors.New("down")
	errCause = errors.New("shutting down")
)

func one(context.Context) (int, error) { return 1, nil }

// pass is a policy that does nothing.
var pass = resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error { return next.Run(ctx) })

// twice makes the call two times, whatever the first one returns.
var twice = resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
	_ = next.Run(ctx)
	return next.Run(ctx)
})

func TestCheckTurnsBadResultIntoError(t *testing.T) {
	var received error
	listen := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		received = next.Run(ctx)
		return received
	})
	call := resilience.Effector[int](one).Check(func(n int) error {
		if n == 1 {
			return errDown
		}
		return nil
	}).With(listen)

	value, err := call(t.Context())
	if value != 1 || err != errDown || received != errDown {
		t.Errorf("got %d, %v, and the policy received %v; want 1, %v, %[4]v", value, err, received, errDown)
	}
}

func TestCheckIsNotCalledForFailure(t *testing.T) {
	call := resilience.Effector[int](func(context.Context) (int, error) { return 2, errDown }).
		Check(func(int) error { t.Error("check was called"); return nil })
	if value, err := call(t.Context()); value != 2 || err != errDown {
		t.Errorf("got %d, %v; want 2, %v", value, err, errDown)
	}
}

func TestCheckThatAcceptsChangesNothing(t *testing.T) {
	call := resilience.Effector[int](one).Check(func(int) error { return nil })
	if value, err := call(t.Context()); value != 1 || err != nil {
		t.Errorf("got %d, %v; want 1, nil", value, err)
	}
}

func TestOrElseAnswersForFailure(t *testing.T) {
	call := resilience.Effector[int](func(context.Context) (int, error) { return 2, errDown }).
		OrElse(func(_ context.Context, err error) (int, error) {
			if err != errDown {
				t.Errorf("the fallback got %v, want %v", err, errDown)
			}
			return 3, io.EOF
		})
	if value, err := call(t.Context()); value != 3 || err != io.EOF {
		t.Errorf("got %d, %v; want 3, EOF", value, err)
	}
}

func TestOrElseIsNotCalledForSuccess(t *testing.T) {
	call := resilience.Effector[int](one).OrElse(func(context.Context, error) (int, error) {
		t.Error("the fallback was called")
		return 0, nil
	})
	if value, err := call(t.Context()); value != 1 || err != nil {
		t.Errorf("got %d, %v; want 1, nil", value, err)
	}
}

func TestOrElseAnswersForEndedContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	call := resilience.Effector[int](one).With(pass).OrElse(func(got context.Context, err error) (int, error) {
		if got != ctx || !errors.Is(err, context.Canceled) {
			t.Errorf("the fallback got context %v and error %v", got, err)
		}
		return 4, nil
	})
	if value, err := call(ctx); value != 4 || err != nil {
		t.Errorf("got %d, %v; want 4, nil", value, err)
	}
}

func TestRetryAfterUnwraps(t *testing.T) {
	marked := resilience.WithRetryAfter(errDown, 3*time.Second)
	if after, ok := resilience.RetryAfter(fmt.Errorf("get: %w", marked)); after != 3*time.Second || !ok {
		t.Errorf("got %v, %t; want 3s, true", after, ok)
	}
	if !errors.Is(marked, errDown) || errors.Unwrap(marked) != errDown || marked.Error() != errDown.Error() {
		t.Errorf("the marked error %v does not unwrap to %v and keep its text", marked, errDown)
	}
}

func TestRetryAfterReturnsLongestInTree(t *testing.T) {
	three, five := resilience.WithRetryAfter(errDown, 3*time.Second), resilience.WithRetryAfter(io.EOF, 5*time.Second)
	for _, c := range []struct {
		name string
		err  error
		want time.Duration
	}{
		{"outer mark", resilience.WithRetryAfter(three, 7*time.Second), 7 * time.Second},
		{"inner mark", resilience.WithRetryAfter(five, time.Second), 5 * time.Second},
		{"joined", errors.Join(io.ErrUnexpectedEOF, three, five), 5 * time.Second},
		{"joined in another order", errors.Join(five, three), 5 * time.Second},
		{"several %w", fmt.Errorf("%w, then %w", errDown, five), 5 * time.Second},
		{"deep", errors.Join(fmt.Errorf("a: %w", errors.Join(errDown, five)), three), 5 * time.Second},
		{"with one without", errors.Join(resilience.WithRetryAfter(errDown, 0), three), 3 * time.Second},
		{"below one without", resilience.WithRetryAfter(three, -time.Second), 3 * time.Second},
		{"nil in the tree", tree{nil, three, nil}, 3 * time.Second},
		{"an error's own method", fmt.Errorf("get: %w", busy(4*time.Second)), 4 * time.Second},
	} {
		if after, ok := resilience.RetryAfter(c.err); after != c.want || !ok {
			t.Errorf("%s: got %v, %t; want %v, true", c.name, after, ok, c.want)
		}
	}
}

// A tree is an error whose Unwrap may return nil errors.
type tree []error

func (tree) Error() string     { return "tree" }
func (t tree) Unwrap() []error { return t }

// busy is a user's own error that specifies when to call again.
type busy time.Duration

func (busy) Error() string               { return "busy" }
func (b busy) RetryAfter() time.Duration { return time.Duration(b) }

// leafError has an Unwrap method, but wraps nothing.
type leafError struct{ error }

func (leafError) RetryAfter() time.Duration { return time.Second }
func (leafError) Unwrap() error             { return nil }

func TestRetryAfterOfErrorThatWrapsNothing(t *testing.T) {
	if after, ok := resilience.RetryAfter(leafError{errDown}); after != time.Second || !ok {
		t.Errorf("got %v, %t, want 1s, true", after, ok)
	}
}

func TestRetryAfterIsFalseUnlessPositive(t *testing.T) {
	for _, err := range []error{
		nil,
		errDown,
		resilience.WithRetryAfter(errDown, 0),
		resilience.WithRetryAfter(errDown, -time.Second),
		errors.Join(resilience.WithRetryAfter(errDown, 0), resilience.WithRetryAfter(errDown, -time.Second)),
	} {
		if after, ok := resilience.RetryAfter(err); after != 0 || ok {
			t.Errorf("RetryAfter(%v) = %v, %t; want 0, false", err, after, ok)
		}
	}
}

func TestContextErrIsNilForLiveContext(t *testing.T) {
	if err := resilience.ContextErr(t.Context()); err != nil {
		t.Errorf("got %v, want nil", err)
	}
}

func TestContextErrMatchesErrAndCause(t *testing.T) {
	canceled, cancel := context.WithCancelCause(t.Context())
	cancel(errCause)
	expired, stop := context.WithDeadlineCause(t.Context(), time.Unix(0, 0), errCause)
	defer stop()
	for _, ctx := range []context.Context{canceled, expired} {
		err := resilience.ContextErr(ctx)
		if !errors.Is(err, ctx.Err()) || !errors.Is(err, errCause) {
			t.Errorf("%v does not match %v and %v", err, ctx.Err(), errCause)
		}
		timeout, ok := err.(interface{ Timeout() bool })
		if !ok || timeout.Timeout() != (ctx == expired) {
			t.Errorf("%v: Timeout() is wrong", err)
		}
	}
}

func TestContextErrWithoutCauseIsErr(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := resilience.ContextErr(ctx); err != context.Canceled {
		t.Errorf("got %#v, want context.Canceled itself", err)
	}
}

func TestPanicErrorHoldsValueAndStack(t *testing.T) {
	err := &resilience.PanicError{Value: errDown, Stack: []byte("the stack")}
	if !errors.Is(err, errDown) || err.Error() != "down\n\nthe stack" {
		t.Errorf("got %v", err)
	}
	if inner := errors.Unwrap(&resilience.PanicError{Value: "no error"}); inner != nil {
		t.Errorf("a value that isn't an error unwraps to %v, want nil", inner)
	}
}

// panicOf returns what f panics with.
func panicOf(f func()) (value any) {
	defer func() { value = recover() }()
	f()
	return nil
}

func TestComposePanicNamesMistake(t *testing.T) {
	ctx := t.Context()
	var none resilience.Effector[int]
	var nilPointer *pointerPolicy
	some := resilience.Effector[int](one)
	nested := func(p resilience.Policy) resilience.Pipeline {
		return resilience.Pipeline{pass, resilience.Pipeline{pass, pass, p}}
	}
	for _, c := range []struct {
		want string
		f    func()
	}{
		{"Compose: effector is nil, must be a function", func() { resilience.Compose(none, pass) }},
		{"Compose: effector is nil, must be a function", func() { none.With() }},
		{"Check: effector is nil", func() { none.Check(func(int) error { return nil }) }},
		{"Check: check is nil, must be a function", func() { some.Check(nil) }},
		{"OrElse: effector is nil", func() { none.OrElse(func(context.Context, error) (int, error) { return 0, nil }) }},
		{"OrElse: fallback is nil, must be a function", func() { some.OrElse(nil) }},
		{"Do: effector is nil", func() { _, _ = resilience.Do(ctx, pass, none) }},
		{"Run: fn is nil", func() { _ = resilience.Run(ctx, pass, nil) }},
		{"Discard: drop is nil", func() { resilience.Discard[int](nil) }},
		{"ComposeRun: fn is nil, must be a function", func() { resilience.ComposeRun(nil, pass) }},
		{"ComposeRun: policies[1] is nil", func() { resilience.ComposeRun(func(context.Context) error { return nil }, pass, nil) }},

		{"Compose: policies[0] is nil (<nil>), must be a Policy", func() { resilience.Compose(some, nil) }},
		{"Compose: policies[1] is nil", func() { some.With(pass, nil) }},
		{"Compose: policies[0] is nil (*resilience_test.pointerPolicy)", func() { some.With(nilPointer) }},
		{"Compose: policies[0] is nil (resilience.PolicyFunc)", func() { some.With(resilience.PolicyFunc(nil)) }},
		{"Compose: policies[2][1][2] is nil (<nil>), must be a Policy", func() { some.With(pass, pass, nested(nil)) }},
		{"Do: policy is nil (<nil>), must be a Policy", func() { _, _ = resilience.Do(ctx, nil, some) }},
		{"Do: policy is nil (resilience.PolicyFunc)", func() { _, _ = resilience.Do(ctx, resilience.PolicyFunc(nil), some) }},
		{"Do: policy[1][2] is nil (<nil>), must be a Policy", func() { _, _ = resilience.Do(ctx, nested(nil), some) }},
		{"Do: policy[1][2] is nil (resilience.PolicyFunc)", func() { _, _ = resilience.Do(ctx, nested(resilience.PolicyFunc(nil)), some) }},
		{"Do: policy[0] is nil", func() { _ = resilience.Run(ctx, resilience.Pipeline{nil}, func(context.Context) error { return nil }) }},
	} {
		got := fmt.Sprint(panicOf(c.f))
		if !strings.HasPrefix(got, "resilience: "+c.want) {
			t.Errorf("got panic %q, want it to begin with %q", got, "resilience: "+c.want)
		}
	}
}

type pointerPolicy struct{}

func (*pointerPolicy) Run(ctx context.Context, next resilience.Next) error { return next.Run(ctx) }

func TestDoPanicsOnMistakeWithEndedContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := panicOf(func() { _, _ = resilience.Do(ctx, resilience.Pipeline{nil}, one) }); got == nil {
		t.Error("a nil policy was not noticed")
	}
}

func panicker(context.Context) (int, error) { panic(errDown) }

func TestComposePassesPanicWithStack(t *testing.T) {
	var stack string
	func() {
		defer func() {
			buf := make([]byte, 64<<10)
			stack = string(buf[:runtime.Stack(buf, false)])
			if r := recover(); r != errDown {
				t.Errorf("recovered %v, want %v", r, errDown)
			}
		}()
		drop := resilience.Discard(func(int) {})
		_, _ = resilience.Do(t.Context(), resilience.Pipeline{drop, pass, resilience.AtMostOnce}, panicker)
	}()
	if !strings.Contains(stack, "resilience_test.panicker") {
		t.Errorf("the stack does not reach the effector:\n%s", stack)
	}
}

func TestComposePassesGoexit(t *testing.T) {
	done := make(chan bool)
	go func() {
		returned := false
		defer func() { done <- returned || recover() != nil }()
		drop := resilience.Discard(func(int) {})
		_, _ = resilience.Do(t.Context(), resilience.Pipeline{drop, pass}, func(context.Context) (int, error) {
			runtime.Goexit()
			return 0, nil
		})
		returned = true
	}()
	if <-done {
		t.Error("the call returned or panicked, want it to end its goroutine")
	}
}

// TestPipelineRunsWithoutCall: a pipeline outside a call needs no Next if its policies make no
// call.
func TestPipelineRunsWithoutCall(t *testing.T) {
	refuse := resilience.PolicyFunc(func(context.Context, resilience.Next) error { return resilience.ErrRefused })
	if err := (resilience.Pipeline{pass, refuse}).Run(t.Context(), resilience.Next{}); err != resilience.ErrRefused {
		t.Error(err)
	}
}

func TestNextForkedReportsForksOnly(t *testing.T) {
	var original, fork, nested bool
	policy := resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
		f := next.Fork()
		original, fork, nested = next.Forked(), f.Forked(), f.Fork().Forked()
		return next.Run(ctx)
	})
	if err := resilience.Run(t.Context(), policy, func(context.Context) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if original || !fork || !nested {
		t.Errorf("got Forked %v of the call, %v of a fork, %v of a fork's fork, want false, true, true", original, fork, nested)
	}
}
