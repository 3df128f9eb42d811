package resiliencetest_test

import (
	"context"
	"errors"
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

// A test of a pipeline takes five lines: an effector, the pipeline around it, a call, the result,
// and the number of calls.
func Example() {
	fetch := resiliencetest.FailFirst[string](2).Returning("alice")
	getUser := resilience.Compose(fetch.Do, retry.New(retry.Config{MaxAttempts: 3, Backoff: retry.Constant(0)}))
	user, err := getUser(context.Background())
	fmt.Println(user, err)
	fmt.Println(fetch.Calls(), "calls")
	// Output:
	// alice <nil>
	// 3 calls
}

// The dependency hangs: the timeout ends each call, and the breaker spares the next calls the wait.
func ExampleHang() {
	fetch := resiliencetest.Hang[string]()
	getUser := resilience.Compose(fetch.Do, breaker.New(breaker.Config{Consecutive: 2}), timeout.After(time.Millisecond))
	for range 4 {
		_, err := getUser(context.Background())
		fmt.Println(errors.Is(err, timeout.ErrTimeout), errors.Is(err, breaker.ErrOpen))
	}
	fmt.Println(fetch.Calls(), "calls")
	// Output:
	// true false
	// true false
	// false true
	// false true
	// 2 calls
}

// The first call succeeds, the next two fail like those of an overloaded server, and all later
// calls succeed.
func ExampleScript() {
	busy := resilience.WithRetryAfter(errors.New("status 429"), time.Millisecond)
	fetch := resiliencetest.Script(
		resiliencetest.Step[string]{Value: "alice"},
		resiliencetest.Step[string]{Err: busy, Times: 2},
		resiliencetest.Step[string]{Value: "bob"},
	)
	getUser := resilience.Compose(fetch.Do, retry.New(retry.Config{Backoff: retry.Constant(0)}))
	for range 3 {
		fmt.Println(getUser(context.Background()))
	}
	fmt.Println(fetch.Calls(), "calls")
	// Output:
	// alice <nil>
	// bob <nil>
	// bob <nil>
	// 5 calls
}

// Two recorders in one pipeline: one outside retry sees the call, one inside sees the attempts.
func ExampleRecorder() {
	var calls, attempts resiliencetest.Recorder
	fetch := resiliencetest.FailFirst[string](1)
	getUser := resilience.Compose(fetch.Do, &calls, retry.New(retry.Config{Backoff: retry.Constant(0)}), &attempts)
	_, _ = getUser(context.Background())
	for _, run := range calls.Runs() {
		fmt.Println("call:", run.Starts, run.Err)
	}
	for _, run := range attempts.Runs() {
		fmt.Println("attempt:", run.Starts, run.Err)
	}
	// Output:
	// call: 2 <nil>
	// attempt: 1 resiliencetest: failed
	// attempt: 1 <nil>
}

// docs/testing.md shows the following tests.

type User struct{ Name string }

var alice = User{"alice"}

// getUserPolicies is part of the program under test. Each test creates its own pipeline, since a
// breaker has state.
func getUserPolicies() resilience.Pipeline {
	return resilience.Pipeline{
		timeout.After(3 * time.Second),
		retry.New(retry.Config{MaxAttempts: 3}),
		breaker.New(breaker.Config{Name: "users"}),
		timeout.After(time.Second),
	}
}

func TestGetUserSurvivesTwoLostConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fetch := resiliencetest.FailFirst[User](2).Returning(alice)
		user, err := resilience.Do(t.Context(), getUserPolicies(), fetch.Do)
		if user != alice || err != nil || fetch.Calls() != 3 {
			t.Errorf("got %v, %v after %d calls, want %v, nil after 3", user, err, fetch.Calls(), alice)
		}
	})
}

func TestGetUserStopsCallingHangingServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fetch, began := resiliencetest.Hang[User](), time.Now()
		getUser := resilience.Compose(fetch.Do, breaker.New(breaker.Config{Consecutive: 2}), timeout.After(time.Second))
		for range 5 {
			_, _ = getUser(t.Context())
		}
		if fetch.Calls() != 2 || time.Since(began) != 2*time.Second {
			t.Errorf("got %d calls in %v, want 2 in 2s", fetch.Calls(), time.Since(began))
		}
	})
}

func TestGetUserProbesRecoveringServerOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fetch := resiliencetest.Script(
			resiliencetest.Step[User]{Err: errors.New("status 503")},
			resiliencetest.Step[User]{Value: alice, Delay: time.Second},
		)
		users := breaker.New(breaker.Config{Consecutive: 1, OpenFor: 5 * time.Second})
		getUser := resilience.Compose(fetch.Do, users)
		_, _ = getUser(t.Context()) // opens it
		time.Sleep(5 * time.Second)
		synctest.Wait() // for the breaker's own timer, which is due in the same instant
		for range 10 {
			go getUser(t.Context())
		}
		synctest.Wait() // until each has been refused, or is the probe
		if fetch.Calls() != 2 || fetch.Running() != 1 {
			t.Errorf("got %d calls, %d running, want 2, 1", fetch.Calls(), fetch.Running())
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if users.State() != breaker.Closed {
			t.Errorf("got state %v after the probe, want closed", users.State())
		}
	})
}

func TestQueryTimesOutThoughDriverIgnoresContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		query := resiliencetest.IgnoresContext[User](time.Minute)
		limit := timeout.New(timeout.Config{Limit: time.Second, Abandon: 2})
		for range 5 {
			_, _ = resilience.Do(t.Context(), limit, query.Do)
		}
		if query.Calls() != 2 || limit.Abandoned() != 2 { // the other three were refused
			t.Errorf("got %d calls, %d left running, want 2, 2", query.Calls(), limit.Abandoned())
		}
		time.Sleep(time.Minute) // until they end: the bubble fails a test that leaves a goroutine behind
		if query.Running() != 0 || limit.Abandoned() != 0 {
			t.Errorf("got %d running, %d left running, want 0, 0", query.Running(), limit.Abandoned())
		}
	})
}

func TestGetUserStopsRetryingWhenBreakerOpens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		attempts := &resiliencetest.Recorder{Name: "attempt"}
		fetch := resiliencetest.Slow[User](100 * time.Millisecond).Failing(errors.New("no route"))
		_, _ = resilience.Compose(fetch.Do,
			retry.New(retry.Config{MaxAttempts: 5, Backoff: retry.Constant(time.Second)}),
			attempts,
			breaker.New(breaker.Config{Name: "users", Consecutive: 2, OpenFor: 5 * time.Second}),
		)(t.Context())
		want := "attempt 1 at 0s: error after 100ms: no route\n" +
			"attempt 2 at 1.1s: error after 100ms: no route\n" +
			"attempt 3 at 2.2s: refused after 0s: breaker users: open, retry in 4s\n"
		if attempts.String() != want {
			t.Errorf("got\n%swant\n%s", attempts, want)
		}
	})
}
