package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/observe"
)

// Layers of the observed pipeline.
const (
	retryLayer = 4
	guardLayer = 6
)

const (
	resultKinds = int(observe.Panicked) + 1
	eventKinds  = int(observe.GiveUp) + 1
)

// A witness is a listener of the observer. It counts everything that it is called for.
type witness struct {
	ledger *ledger

	begun, ended            atomic.Int64
	results                 [resultKinds]atomic.Int64
	attempts, attemptsEnded atomic.Int64
	events                  [eventKinds]atomic.Int64
	changes                 atomic.Int64
}

type witnessKey struct{}

// newObserver returns an observer with all listeners: a log, and two witnesses of which the second
// must see what the first one sees.
func newObserver(l *ledger) (*observe.Observer, [2]*witness) {
	log := slog.New(slog.NewJSONHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelDebug}))
	witnesses := [2]*witness{{ledger: l}, {ledger: l}}
	return observe.New(observe.Config{Listeners: []observe.Listener{
		witnesses[0].listener(), observe.Log(log), witnesses[1].listener(),
	}}), witnesses
}

func (w *witness) listener() observe.Listener {
	return observe.Listener{
		Begin: func(ctx context.Context, _ *observe.Call) context.Context {
			w.begun.Add(1)
			return context.WithValue(ctx, witnessKey{}, w)
		},
		Attempt: func(ctx context.Context, _ *observe.Call, number int) (context.Context, func(observe.Result, error)) {
			w.attempts.Add(1)
			if number < 1 {
				w.ledger.violated(wrongObservation, "attempt %d begins", number)
			}
			var done atomic.Bool
			return nil, func(observe.Result, error) {
				w.attemptsEnded.Add(1)
				if done.Swap(true) {
					w.ledger.violated(wrongObservation, "attempt %d ends twice", number)
				}
			}
		},
		Event: func(_ context.Context, _ *observe.Call, e observe.Event) {
			w.events[e.Kind].Add(1)
			if again := e.Kind == observe.Retry || e.Kind == observe.Hedge; again != (e.Attempt > 1) {
				w.ledger.violated(wrongObservation, "event %v of %s has attempt %d", e.Kind, e.Policy, e.Attempt)
			}
		},
		End: func(ctx context.Context, call *observe.Call) {
			w.ended.Add(1)
			w.results[call.Result].Add(1)
			if ctx.Value(witnessKey{}) != w {
				w.ledger.violated(wrongObservation, "a call ends with another listener's context")
			}
		},
		Changed: func(c resilience.Change) {
			if c.Name == "guard" {
				w.changes.Add(1)
			}
		},
	}
}

// observed is what the observer counted, and its witnesses.
type observed struct {
	pipeline  observe.PipelineSnapshot
	guard     observe.PolicySnapshot
	witnesses [2]testimony
}

// A testimony is what a witness counted.
type testimony struct {
	begun, ended            int64
	results                 [resultKinds]int64
	attempts, attemptsEnded int64
	events                  [eventKinds]int64
	changes                 int64
}

func (w *witness) testimony() testimony {
	t := testimony{
		begun: w.begun.Load(), ended: w.ended.Load(),
		attempts: w.attempts.Load(), attemptsEnded: w.attemptsEnded.Load(),
		changes: w.changes.Load(),
	}
	for i := range t.results {
		t.results[i] = w.results[i].Load()
	}
	for i := range t.events {
		t.events[i] = w.events[i].Load()
	}
	return t
}

func newObserved(s observe.Snapshot, witnesses [2]*witness) observed {
	o := observed{witnesses: [2]testimony{witnesses[0].testimony(), witnesses[1].testimony()}}
	for _, p := range s.Pipelines {
		if p.Name == "soak" {
			o.pipeline = p
		}
	}
	for _, p := range s.Policies {
		if p.Kind == "breaker" && p.Name == "guard" {
			o.guard = p
		}
	}
	return o
}

func (o observed) layer(position int) observe.LayerSnapshot {
	for _, l := range o.pipeline.Layers {
		if l.Position == position {
			return l
		}
	}
	return observe.LayerSnapshot{}
}

// observedChecks compare the observer with the ledger.
func observedChecks() []check {
	return []check{
		{"both listeners are called for the same", func(l *ledger) (string, bool) {
			a, b := l.observed.witnesses[0], l.observed.witnesses[1]
			return fmt.Sprintf("%d and %d calls", a.begun, b.begun), a == b
		}},
		{"the observer counts every call once", func(l *ledger) (string, bool) {
			sum := uint64(0)
			for _, h := range l.observed.pipeline.Calls {
				sum += h.Count
			}
			runs, w := l.runs.Load(), l.observed.witnesses[0]
			return fmt.Sprintf("%d runs, %d counted, %d running", runs, sum, l.observed.pipeline.Running),
				int64(sum) == runs && w.begun == runs && w.ended == runs && l.observed.pipeline.Running == 0
		}},
		{"the observer's results are the callers'", func(l *ledger) (string, bool) {
			ok := true
			for result, n := range l.observed.witnesses[0].results {
				ok = ok && uint64(n) == l.observed.pipeline.Calls[observe.Result(result)].Count
			}
			counted := func(r observe.Result) int64 { return int64(l.observed.pipeline.Calls[r].Count) }
			succeeded, panics, refusals := l.ended[succeeded].Load(), l.ended[panicked].Load()+l.ended[exited].Load(), l.ended[refused].Load()
			return fmt.Sprintf("%d success, %d panicked, %d refused", counted(observe.Success), counted(observe.Panicked), counted(observe.Refused)),
				ok && counted(observe.Success) == succeeded && counted(observe.Panicked) == panics && counted(observe.Refused) >= refusals
		}},
		{"the observer counts every attempt", func(l *ledger) (string, bool) {
			figures, ok := same("started", l.attempts.Load(), "counted", int64(l.observed.pipeline.Attempts))
			w := l.observed.witnesses[0] // which isn't called for an abandoned start that begins after the call's end
			return figures, ok && w.attempts <= l.attempts.Load() && w.attemptsEnded == w.attempts
		}},
		{"the observer's layers are the policies'", func(l *ledger) (string, bool) {
			retries, guard := l.observed.layer(retryLayer), l.observed.layer(guardLayer)
			asked, admitted, refusals := l.asked.Load(), l.admitted.Load(), l.refusals.Load()
			return fmt.Sprintf("%d entered, %d passed, %d refused", guard.Entered, guard.Passed, guard.Events[observe.Refusal]),
				int64(retries.Passed) == asked && int64(guard.Entered) == asked && int64(guard.Passed) == admitted && int64(guard.Events[observe.Refusal]) == refusals
		}},
		{"no listener is called for an event that isn't counted", func(l *ledger) (string, bool) {
			sums := [eventKinds]int64{}
			for _, layer := range l.observed.pipeline.Layers {
				for kind, n := range layer.Events {
					sums[kind] += int64(n)
				}
			}
			ok := true
			for kind, n := range l.observed.witnesses[0].events {
				ok = ok && n <= sums[kind] // after the call's end, an event is counted, but listeners aren't called
			}
			return fmt.Sprintf("%d refusals, %d retries, %d timeouts", sums[observe.Refusal], sums[observe.Retry], sums[observe.Timeout]), ok
		}},
		{"the observer sees every change of the guard", func(l *ledger) (string, bool) {
			sum := uint64(0)
			for _, n := range l.observed.guard.Changes {
				sum += n
			}
			figures, ok := same("reported", int64(l.transitions), "counted", int64(sum))
			return figures, ok && l.observed.witnesses[0].changes == int64(l.transitions)
		}},
	}
}
