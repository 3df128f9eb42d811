package peers

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// The rows of a table are comparable only if each one makes the call, as often as the table says.

// eachSide runs test for each side, with the number of calls of the effector since the test
// started.
func eachSide(t *testing.T, sides func(effector) []side, fn effector, test func(t *testing.T, s side, n *int)) {
	n := 0
	for _, s := range sides(func(ctx context.Context) (int, error) { n++; return fn(ctx) }) {
		t.Run(s.name, func(t *testing.T) {
			n = 0
			test(t, s, &n)
		})
	}
}

func TestSidesMakeCallOnce(t *testing.T) {
	for name, sides := range map[string]func(effector) []side{
		"Closed":     func(fn effector) []side { return counting(fn, time.Hour) },
		"RateWindow": windowed,
		"Retry":      retrying,
		"Timeout":    func(fn effector) []side { return limiting(ctx, fn) },
		"Pipeline":   func(fn effector) []side { return piped(ctx, fn) },
		"Waiting":    func(fn effector) []side { return limiting(request(t), waiting(fn)) },
		"Requests":   func(fn effector) []side { return piped(request(t), waiting(fn)) },
		"Bulkhead":   bulkheadsOfOne,
		"Adaptive":   func(fn effector) []side { return adapting(fn, 20) },
		"Queue":      func(fn effector) []side { return queueing(fn, 1) },
		"RateLimit":  limiters,
		"Share":      sharing,
		"Shed":       shedding,
		"Hedge":      func(fn effector) []side { return hedging(fn, time.Minute, never) },
		"Length":     func(fn effector) []side { return lengthened(fn, 4) },
	} {
		t.Run(name, func(t *testing.T) {
			eachSide(t, sides, succeed, func(t *testing.T, s side, n *int) {
				for i := range 100 {
					if err := s.call(); err != nil || *n != i+1 {
						t.Fatalf("call %d: error %v, %d calls of the effector", i+1, err, *n)
					}
				}
			})
		})
	}
}

// waiting returns an effector that waits before it calls fn.
func waiting(fn effector) effector {
	return func(ctx context.Context) (int, error) {
		if _, err := wait(ctx); err != nil {
			return 0, err
		}
		return fn(ctx)
	}
}

func filled(t *testing.T, sides func(effector) []side) func(effector) []side {
	return func(fn effector) []side {
		filled, release := full(sides, fn)
		t.Cleanup(release)
		return filled
	}
}

func TestSidesRefuse(t *testing.T) {
	for name, sides := range map[string]func(effector) []side{
		"Open":         opened,
		"PipelineOpen": pipedOpen,
		"RateLimited":  limited,
		"Shed":         overloaded,
		"BulkheadFull": filled(t, bulkheadsOfOne),
		"AdaptiveFull": filled(t, adaptingOne),
	} {
		t.Run(name, func(t *testing.T) {
			eachSide(t, sides, fail, func(t *testing.T, s side, n *int) {
				refusals := 0
				for range 1000 {
					if err := s.call(); err != nil && !errors.Is(err, errBoom) {
						refusals++
					}
				}
				most := 0 // admitted calls
				switch {
				case name == "Shed" && (strings.HasPrefix(s.name, "ours") || strings.HasPrefix(s.name, "failsafe")):
					most = 200 // one in ten
				case s.name == "aegis":
					most = 50 // at random
				}
				if refusals+*n != 1000 || *n > most {
					t.Errorf("%d refused and %d made, want 1000 calls and at most %d made", refusals, *n, most)
				}
			})
		})
	}
}

func TestSidesRetryTwice(t *testing.T) {
	for name, sides := range map[string]func(func()) []side{"RetryTwice": retryingWithoutWait, "PipelineTwice": pipedTwice} {
		t.Run(name, func(t *testing.T) {
			n := 0
			for _, s := range sides(func() { n++ }) {
				n = 0
				if err := s.call(); err != nil || n != 3 {
					t.Errorf("%s: error %v, %d calls of the effector, want 3", s.name, err, n)
				}
			}
		})
	}
}

func TestTrippingSidesOpen(t *testing.T) {
	eachSide(t, tripping, fail, func(t *testing.T, s side, n *int) {
		if err := s.call(); !errors.Is(err, errBoom) || *n != failures {
			t.Errorf("error %v, %d calls of the effector, want %d", err, *n, failures)
		}
	})
	// The sides of counting have the same configuration. They refuse the next call.
	eachSide(t, func(fn effector) []side { return counting(fn, time.Hour) }, fail, func(t *testing.T, s side, n *int) {
		for range failures + 1 {
			s.call()
		}
		if s.name != "ours-two-step" && *n != failures { // it has the same breaker as ours
			t.Errorf("%d calls of the effector, want %d", *n, failures)
		}
	})
}
