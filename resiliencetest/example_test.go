package resiliencetest_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/resiliencetest"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// A test of a pipeline in five lines.
func Example() {
	flaky := resiliencetest.FailFirst[string](2).Returning("hello")
	call := resilience.Compose(flaky.Do, retry.New(retry.Config{MaxAttempts: 3, Backoff: retry.Constant(0)}))
	value, err := call(context.Background())
	fmt.Println(value, err, flaky.Calls())
	// Output: hello <nil> 3
}

// Time in a testing/synctest bubble costs nothing and is exact.
func ExampleHang() {
	testPipeline := func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			hung := resiliencetest.Hang[string]()
			call := resilience.Compose(hung.Do, breaker.New(breaker.Config{Consecutive: 2}), timeout.After(time.Second))
			began := time.Now()
			for range 5 {
				call(t.Context())
			}
			if hung.Calls() != 2 || time.Since(began) != 2*time.Second {
				t.Errorf("%d calls in %v", hung.Calls(), time.Since(began))
			}
		})
	}
	_ = testPipeline
}

// The recorder stands where it is to look: here at each attempt.
func ExampleRecorder() {
	attempts := &resiliencetest.Recorder{Name: "attempt"}
	script := resiliencetest.Script(
		resiliencetest.Step[int]{Err: fmt.Errorf("no route")},
		resiliencetest.Step[int]{Value: 42},
	)
	call := resilience.Compose(script.Do, retry.New(retry.Config{Backoff: retry.Constant(0)}), attempts)
	call(context.Background())
	for _, run := range attempts.Runs() {
		fmt.Println(run.Starts, run.Err)
	}
	// Output:
	// 1 no route
	// 1 <nil>
}
