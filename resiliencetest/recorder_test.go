package resiliencetest_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/resiliencetest"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

func TestRecorderSeesCallsOrAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := &resiliencetest.Recorder{Name: "call"}
		attempts := &resiliencetest.Recorder{}
		script := resiliencetest.Script(
			resiliencetest.Step[int]{Err: errOwn, Delay: time.Second},
			resiliencetest.Step[int]{Value: 1, Delay: 2 * time.Second},
		)
		call := resilience.Compose(script.Do, calls, retry.New(retry.Config{Backoff: retry.Constant(time.Minute)}), attempts)
		time.Sleep(time.Hour) // Began counts from the first run
		if value, err := call(t.Context()); value != 1 || err != nil {
			t.Errorf("got %v, %v", value, err)
		}
		for _, test := range []struct {
			recorder *resiliencetest.Recorder
			runs     []resiliencetest.Run
			text     string
		}{
			{calls, []resiliencetest.Run{{Ended: true, Took: 63 * time.Second, Starts: 2}}, "call 1 at 0s: ok after 1m3s\n"},
			{attempts, []resiliencetest.Run{
				{Ended: true, Took: time.Second, Starts: 1, Err: errOwn},
				{Began: 61 * time.Second, Ended: true, Took: 2 * time.Second, Starts: 1},
			}, "1 at 0s: error after 1s: own\n2 at 1m1s: ok after 2s\n"},
		} {
			if got := test.recorder.Runs(); !reflect.DeepEqual(got, test.runs) {
				t.Errorf("got %+v, want %+v", got, test.runs)
			}
			if got := test.recorder.String(); got != test.text {
				t.Errorf("got %swant %s", got, test.text)
			}
		}
	})
}

func TestRecorderChangesNothing(t *testing.T) {
	type key struct{}
	ctx := context.WithValue(t.Context(), key{}, "v")
	e := func(inner context.Context) (string, error) {
		if inner != ctx {
			t.Error("the effector received another context")
		}
		return "value", errOwn
	}
	if value, err := resilience.Compose(e, &resiliencetest.Recorder{})(ctx); value != "value" || err != errOwn {
		t.Errorf("got %q, %v", value, err)
	}
}

func TestRecorderStartsEmpty(t *testing.T) {
	var r resiliencetest.Recorder
	if len(r.Runs()) != 0 || r.String() != "" {
		t.Errorf("got %v, %q, want none", r.Runs(), r.String())
	}
}

func TestRecorderDistinguishesRefusalsFromErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		forced := breaker.New(breaker.Config{})
		forced.ForceOpen()
		var r resiliencetest.Recorder
		resilience.Compose(resiliencetest.FailAfter[int](0).Do, &r, forced)(t.Context())
		// The effector's own error says that another dependency refused: this call was made.
		resilience.Compose(resiliencetest.FailAfter[int](0).Failing(breaker.ErrOpen).Do, &r)(t.Context())
		want := "1 at 0s: refused after 0s: breaker: forced open\n2 at 0s: error after 0s: breaker: open\n"
		if got := r.String(); got != want {
			t.Errorf("got %swant %s", got, want)
		}
		if runs := r.Runs(); runs[0].Starts != 0 || !errors.Is(runs[0].Err, breaker.ErrOpen) || runs[1].Starts != 1 {
			t.Errorf("got %+v", runs)
		}
	})
}

func TestRecorderReportsRunningCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var outside, inside resiliencetest.Recorder
		abandoning := timeout.New(timeout.Config{Limit: time.Second, Abandon: 1})
		call := resilience.Compose(resiliencetest.IgnoresContext[int](time.Minute).Do, &outside, abandoning, &inside)
		if _, err := call(t.Context()); !errors.Is(err, timeout.ErrTimeout) {
			t.Error(err)
		}
		if got, want := inside.String(), "1 at 0s: still running\n"; got != want {
			t.Errorf("got %swant %s", got, want)
		}
		if got := inside.Runs(); !reflect.DeepEqual(got, []resiliencetest.Run{{}}) {
			t.Errorf("got %+v", got)
		}
		before := inside.Runs()
		time.Sleep(time.Minute)
		synctest.Wait()
		if got, want := inside.String(), "1 at 0s: ok after 1m0s\n"; got != want {
			t.Errorf("got %swant %s", got, want)
		}
		if got, want := outside.String(), "1 at 0s: error after 1s: timeout: limit of 1s passed\n"; got != want {
			t.Errorf("got %swant %s", got, want)
		}
		if before[0].Ended {
			t.Error("the slice returned by Runs changed")
		}
	})
}

func explode(context.Context) (int, error) { panic(errOwn) }

func TestRecorderPassesPanicWithStack(t *testing.T) {
	var r resiliencetest.Recorder
	func() {
		defer func() {
			value, stack := recover(), string(debug.Stack())
			if value != errOwn || !strings.Contains(stack, "resiliencetest_test.explode(") {
				t.Errorf("got panic %v at %s", value, stack)
			}
		}()
		resilience.Compose(explode, &r)(t.Context())
	}()
	run := r.Runs()[0]
	if !run.Ended || run.Panic != errOwn || run.Goexit || run.Err != nil || run.Starts != 1 {
		t.Errorf("got %+v", run)
	}
	if !strings.HasPrefix(run.String(), "panic after ") || !strings.HasSuffix(run.String(), ": own") {
		t.Errorf("got %v", run)
	}
}

func TestRecorderPassesGoexit(t *testing.T) {
	var r resiliencetest.Recorder
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		resilience.Compose(func(context.Context) (int, error) { runtime.Goexit(); return 0, nil }, &r)(t.Context())
		t.Error("Goexit did not end the goroutine")
	}()
	<-ended
	run := r.Runs()[0]
	if !run.Ended || !run.Goexit || run.Panic != nil || run.Err != nil || run.Starts != 1 {
		t.Errorf("got %+v", run)
	}
	if !strings.HasPrefix(run.String(), "Goexit after ") {
		t.Errorf("got %v", run)
	}
}

func TestRunStringIsOneLine(t *testing.T) {
	forwarded := &resilience.PanicError{Value: errOwn, Stack: []byte("goroutine 1")}
	for want, run := range map[string]resiliencetest.Run{
		"still running":              {},
		"ok after 1s":                {Ended: true, Took: time.Second, Starts: 1},
		"ok after 0s":                {Ended: true}, // an inner policy answered without a call
		"error after 1s: own; cause": {Ended: true, Took: time.Second, Starts: 1, Err: errors.Join(errOwn, errCause)},
		"refused after 1s: own":      {Ended: true, Took: time.Second, Err: errOwn},
		"panic after 1s: a; b":       {Ended: true, Took: time.Second, Panic: "a\nb"},
		"panic after 1s: own":        {Ended: true, Took: time.Second, Panic: forwarded},
		"Goexit after 1s":            {Ended: true, Took: time.Second, Starts: 1, Goexit: true},
	} {
		if got := run.String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestRecorderOrdersRunsOfConcurrentCallers(t *testing.T) {
	const callers, each = 16, 40
	r := &resiliencetest.Recorder{Name: "call"}
	e := resiliencetest.Flaky[int](0.3, 7)
	call := resilience.Compose(e.Do, r)
	_, want := pattern(t.Context(), resiliencetest.Flaky[int](0.3, 7), callers*each)
	var g errgroup.Group
	for range callers {
		g.Go(func() error {
			for range each {
				call(t.Context())
				if runs := r.Runs(); !slices.ContainsFunc(runs, func(run resiliencetest.Run) bool { return run.Ended }) {
					return fmt.Errorf("none of %d runs has ended", len(runs))
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	runs, failures := r.Runs(), 0
	for _, run := range runs {
		if !run.Ended || run.Starts != 1 || run.Began < 0 || run.Took < 0 {
			t.Fatalf("got %+v", run)
		}
		if run.Err != nil {
			failures++
		}
	}
	if len(runs) != callers*each || failures != want {
		t.Errorf("got %d runs, %d failures, want %d, %d", len(runs), failures, callers*each, want)
	}
	if !slices.IsSortedFunc(runs, func(a, b resiliencetest.Run) int { return int(a.Began - b.Began) }) {
		t.Error("the runs are not in the order in which they began")
	}
	if lines := strings.Count(r.String(), "\n"); lines != len(runs) {
		t.Errorf("got %d lines for %d runs", lines, len(runs))
	}
}
