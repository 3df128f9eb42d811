package resiliencetest_test

import (
	"context"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/resiliencetest"
	"github.com/effector-go/resilience/retry"
)

func TestTheRecorderSeesWhatPassesWhereItStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := &resiliencetest.Recorder{Name: "calls"}
		attempts := &resiliencetest.Recorder{Name: "attempts"}
		slow := resiliencetest.Script(
			resiliencetest.Step[int]{Err: errOwn, Delay: time.Second},
			resiliencetest.Step[int]{Value: 1, Delay: 2 * time.Second},
		)
		call := resilience.Compose(slow.Do, calls, retry.New(retry.Config{Backoff: retry.Constant(time.Minute)}), attempts)
		if value, err := call(t.Context()); value != 1 || err != nil {
			t.Errorf("%v, %v", value, err)
		}
		if got, want := calls.String(), "calls 1 at 0s: ok after 1m3s\n"; got != want {
			t.Errorf("%swant %s", got, want)
		}
		if got, want := attempts.String(), "attempts 1 at 0s: error after 1s: own\nattempts 2 at 1m1s: ok after 2s\n"; got != want {
			t.Errorf("%swant %s", got, want)
		}
		if runs := calls.Runs(); runs[0].Starts != 2 || runs[0].Err != nil || !runs[0].Ended {
			t.Errorf("%+v", runs)
		}
	})
}

func TestTheRecorderTellsRefusalsAndRunsThatGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		forced := breaker.New(breaker.Config{})
		forced.ForceOpen()
		var r resiliencetest.Recorder
		resilience.Compose(resiliencetest.Hang[int]().Do, &r, forced)(t.Context())
		ctx, cancel := context.WithCancel(t.Context())
		var g errgroup.Group
		g.Go(func() error {
			_, err := resilience.Compose(resiliencetest.Hang[int]().Do, &r)(ctx)
			return err
		})
		synctest.Wait()
		if got, want := r.String(), "1 at 0s: turned away after 0s: breaker: forced open\n2 at 0s: still running\n"; got != want {
			t.Errorf("%swant %s", got, want)
		}
		cancel()
		if err := g.Wait(); r.Runs()[1].Err != err || err == nil {
			t.Errorf("%+v", r.Runs()[1])
		}
	})
}

// TestPanicAndGoexitPassTheRecorder with the stack that they came from.
func TestPanicAndGoexitPassTheRecorder(t *testing.T) {
	var r resiliencetest.Recorder
	func() {
		defer func() {
			if value, stack := recover(), string(debug.Stack()); value != "boom" || !strings.Contains(stack, "resiliencetest/effector.go") {
				t.Errorf("panicked with %v at %s", value, stack)
			}
		}()
		resilience.Compose(resiliencetest.Panic[int]("boom").Do, &r)(t.Context())
	}()
	ended := make(chan bool)
	go func() {
		defer close(ended)
		resilience.Compose(func(context.Context) (int, error) { runtime.Goexit(); return 0, nil }, &r)(t.Context())
		t.Error("Goexit did not end the goroutine")
	}()
	<-ended
	if runs := r.Runs(); len(runs) != 2 || runs[0].Panic != "boom" || runs[0].Goexit || !runs[1].Goexit || runs[1].Panic != nil || runs[0].Starts != 1 {
		t.Errorf("%+v", runs)
	}
	if text := r.String(); !strings.Contains(text, ": panic after ") || !strings.Contains(text, ": Goexit after ") {
		t.Error(text)
	}
}

func TestTheRecorderIsSafeForManyCallers(t *testing.T) {
	var r resiliencetest.Recorder
	call := resilience.Compose(resiliencetest.Flaky[int](0.5, 1).Do, &r)
	var g errgroup.Group
	for range 10 {
		g.Go(func() error {
			for range 100 {
				call(t.Context())
				_ = r.Runs()
			}
			return nil
		})
	}
	g.Wait()
	if n := len(r.Runs()); n != 1000 {
		t.Errorf("%d runs", n)
	}
	for _, run := range r.Runs() {
		if !run.Ended || run.Starts != 1 {
			t.Fatalf("%+v", run)
		}
	}
}
