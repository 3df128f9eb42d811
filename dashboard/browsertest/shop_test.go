package browsertest

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/bulkhead"
	"github.com/effector-go/resilience/observe"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// A shop is a process with six pipelines. When its dependencies fail, the breaker of payments opens;
// inventory has none.
type shop struct {
	observer *observe.Observer
	payments *breaker.Breaker
	lines    map[string]resilience.Policy
	failing  atomic.Bool
	delay    atomic.Int64 // of the effector
}

func newShop(t *testing.T) *shop {
	t.Helper()
	s := &shop{observer: observe.New(observe.Config{}), lines: map[string]resilience.Policy{}}
	s.payments = breaker.New(breaker.Config{Name: "payments", FailureRate: 0.5, OpenFor: time.Minute})
	s.lines["payments"] = s.observer.Pipeline("payments",
		timeout.New(timeout.Config{Name: "overall", Limit: 3 * time.Second}),
		retry.New(retry.Config{Name: "payments", MaxAttempts: 2, Backoff: retry.Constant(time.Millisecond)}),
		bulkhead.New(bulkhead.Config{Name: "payments", Limit: 40}),
		s.payments,
		timeout.New(timeout.Config{Name: "attempt", Limit: time.Second}))
	s.lines["inventory"] = s.observer.Pipeline("inventory",
		retry.New(retry.Config{Name: "inventory", MaxAttempts: 3, Backoff: retry.Constant(time.Millisecond)}))
	for _, name := range []string{"users", "search", "recommendations", "mail"} {
		s.lines[name] = s.observer.Pipeline(name,
			timeout.New(timeout.Config{Name: name, Limit: time.Second}),
			breaker.New(breaker.Config{Name: name}))
	}
	t.Cleanup(func() { runtime.KeepAlive(s) })
	return s
}

func (s *shop) call(name string) error {
	return resilience.Run(context.Background(), s.lines[name], func(context.Context) error {
		time.Sleep(time.Duration(s.delay.Load()))
		if s.failing.Load() && (name == "payments" || name == "inventory") {
			return &url.Error{Op: "Post", URL: "https://shop:secret@" + name + ".internal/v1/charge?key=secret",
				Err: &net.OpError{Op: "dial", Net: "tcp", Err: fmt.Errorf("connect: %w", syscall.ECONNREFUSED)}}
		}
		return nil
	})
}

// fail makes calls until the breaker is open and inventory is down.
func (s *shop) fail() {
	s.calls(20)
	s.failing.Store(true)
	s.calls(40)
}

// outage fails, and goes on making calls until the end of the test, however slow the browser is.
func (s *shop) outage(t *testing.T) {
	s.fail()
	var group errgroup.Group
	group.Go(func() error {
		for t.Context().Err() == nil { // canceled just before the cleanup
			s.calls(1)
			time.Sleep(20 * time.Millisecond)
		}
		return nil
	})
	t.Cleanup(func() { group.Wait() })
}

func (s *shop) calls(n int) {
	for range n {
		for _, name := range []string{"payments", "inventory", "users", "search", "recommendations"} {
			s.call(name)
		}
	}
}
