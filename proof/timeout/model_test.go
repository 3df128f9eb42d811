// Package timeout compares the timeout with the rules that define when a call returns, and what.
package timeout

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/proof/internal/cases"
	"github.com/effector-go/resilience/timeout"
)

// A scenario is a call under nested limits whose caller may leave. No two of its times are equal,
// because the order of events in the same instant is unspecified.
type scenario struct {
	outer, inner time.Duration // limits; outer 0: none
	takes        time.Duration // duration of the effector if nothing ends it
	respects     bool          // the effector ends with its context
	fails        bool
	ends         string // how the caller's context ends: never, canceled, deadline
	endsAt       time.Duration
	abandon      bool // the inner limit
}

func draw(t *rapid.T) scenario {
	ms := func(label string, low int) time.Duration {
		return time.Duration(rapid.IntRange(low, 100).Draw(t, label)) * time.Millisecond
	}
	s := scenario{
		inner: ms("inner", 1) + 1, takes: ms("takes", 0) + 2,
		respects: rapid.Bool().Draw(t, "respects"), fails: rapid.Bool().Draw(t, "fails"), abandon: rapid.Bool().Draw(t, "abandon"),
		ends: rapid.SampledFrom([]string{"never", "canceled", "deadline"}).Draw(t, "ends"), endsAt: ms("endsAt", 1) + 3,
	}
	if rapid.Bool().Draw(t, "nested") {
		s.outer = ms("outer", 1) + 4
	}
	return s
}

var errOwn = errors.New("own")

// expected returns when the call returns, and what: ok, own (the effector's error), limit inner,
// limit outer, or caller.
func (s scenario) expected() (at time.Duration, what string) {
	first, whose := s.inner, "limit inner"
	if s.outer > 0 && s.outer < first {
		first, whose = s.outer, "limit outer"
	}
	if s.ends != "never" && s.endsAt < first {
		first, whose = s.endsAt, "caller"
	}
	switch {
	case s.takes < first:
		if s.fails {
			return s.takes, "own"
		}
		return s.takes, "ok"
	case s.respects || s.abandon:
		return first, whose
	case !s.fails: // the call waits for the effector, which succeeds late
		return s.takes, "ok"
	case whose == "caller":
		return s.takes, "own"
	case s.outer > 0 && s.outer < s.takes && (s.ends == "never" || s.outer < s.endsAt): // both limits have passed
		if s.inner < s.outer && s.ends == "canceled" && s.endsAt < s.takes {
			return s.takes, "limit inner" // nothing looked at the outer context before the cancellation
		}
		return s.takes, "limit outer" // reported around the inner one
	}
	return s.takes, whose
}

func (s scenario) actual() (at time.Duration, what string, left int) {
	ctx := context.Background()
	switch s.ends {
	case "canceled":
		c, cancel := context.WithCancel(ctx)
		ctx = c
		time.AfterFunc(s.endsAt, cancel)
	case "deadline":
		c, cancel := context.WithTimeout(ctx, s.endsAt)
		defer cancel()
		ctx = c
	}
	config := timeout.Config{Name: "inner", Limit: s.inner}
	if s.abandon {
		config.Abandon = 1
	}
	inner := timeout.New(config)
	p := resilience.Pipeline{inner}
	if s.outer > 0 {
		p = resilience.Pipeline{timeout.New(timeout.Config{Name: "outer", Limit: s.outer}), inner}
	}
	began := time.Now()
	_, err := resilience.Do(ctx, p, func(ctx context.Context) (int, error) {
		done := ctx.Done()
		if !s.respects {
			done = nil
		}
		select {
		case <-time.After(s.takes):
		case <-done:
			return 0, ctx.Err()
		}
		if s.fails {
			return 0, errOwn
		}
		return 1, nil
	})
	at = time.Since(began)
	synctest.Wait() // an effector that respects its context ends now
	left = inner.Abandoned()
	var limit *timeout.Error
	switch {
	case err == nil:
		what = "ok"
	case errors.As(err, &limit):
		what = "limit " + limit.Name
		if !errors.Is(err, context.DeadlineExceeded) || !limit.Timeout() {
			what += ", which isn't a timeout"
		}
	case errors.Is(err, errOwn):
		what = "own"
	case errors.Is(err, ctx.Err()):
		what = "caller"
	}
	return at, what, left
}

func TestTimeoutMatchesModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := draw(rt)
		var got, want string
		synctest.Test(t, func(*testing.T) {
			at, what, left := s.actual()
			got = fmt.Sprint(what, " at ", at, ", abandoned: ", left)
			time.Sleep(time.Second) // until the abandoned call has ended
		})
		at, what := s.expected()
		left := 0
		if s.abandon && at < s.takes && !s.respects {
			left = 1
		}
		if want = fmt.Sprint(what, " at ", at, ", abandoned: ", left); got != want {
			rt.Fatalf("%+v: got %s, want %s", s, got, want)
		}
	})
}

func TestMain(m *testing.M) { cases.Main(m, 1000, 0) }
