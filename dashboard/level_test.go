package dashboard

import (
	"strings"
	"testing"

	"github.com/effector-go/resilience/observe"
)

func TestLevelIsFirstMatch(t *testing.T) {
	const good, failed, refused, timedOut, canceled, panicked = observe.Success, observe.Failure, observe.Refused, observe.TimedOut, observe.Canceled, observe.Panicked
	for _, test := range []struct {
		name    string
		calls   map[observe.Result]uint64
		running int
		states  map[string]int
		want    level
		why     string
	}{
		{name: "nothing", want: idle},
		{name: "good", calls: map[observe.Result]uint64{good: 100}, want: ok},
		{name: "canceled only", calls: map[observe.Result]uint64{canceled: 100}, want: ok},
		{name: "open", states: map[string]int{open: 1}, want: down, why: "breaker b is open"},
		{name: "open or forced open", states: map[string]int{open: 1, forcedOpen: 2}, calls: map[observe.Result]uint64{good: 100}, want: down, why: "all 3 breakers b are open"},
		{name: "forced open", states: map[string]int{forcedOpen: 1}, want: down, why: "breaker b is forced open"},
		{name: "open before stuck", states: map[string]int{open: 1}, running: 1, want: down},
		{name: "stuck", running: 2, want: degraded, why: "2 calls are running, and none ended in the last 10 s"},
		{name: "running", running: 2, calls: map[observe.Result]uint64{good: 1}, want: ok},
		{name: "half are bad", calls: map[observe.Result]uint64{good: 5, failed: 2, refused: 1, timedOut: 1, panicked: 1}, want: down,
			why: "5 of 10 calls were bad in the last 10 s: 2 failed, 1 timed out, 1 refused, 1 panicked"},
		{name: "half, with canceled ones", calls: map[observe.Result]uint64{good: 5, failed: 5, canceled: 100}, want: down},
		{name: "less than half", calls: map[observe.Result]uint64{good: 6, failed: 5}, want: degraded},
		{name: "only four", calls: map[observe.Result]uint64{failed: 4}, want: degraded, why: "4 of 4 calls failed in the last 10 s"},
		{name: "5%", calls: map[observe.Result]uint64{good: 95, refused: 5}, want: degraded, why: "5 of 100 calls were refused in the last 10 s"},
		{name: "less than 5%", calls: map[observe.Result]uint64{good: 96, timedOut: 5}, want: ok},
		{name: "one panicked", calls: map[observe.Result]uint64{good: 999, panicked: 1}, want: degraded, why: "1 call panicked in the last 10 s"},
		{name: "some are open", states: map[string]int{open: 1, closed: 1}, want: degraded, why: "1 of 2 breakers b is open"},
		{name: "some are forced open", states: map[string]int{forcedOpen: 2, closed: 1}, want: degraded, why: "2 of 3 breakers b are open"},
		{name: "one is disabled", states: map[string]int{disabled: 1, closed: 1}, want: degraded, why: "1 of 2 breakers b is disabled"},
		{name: "half-open with calls", states: map[string]int{halfOpen: 1}, calls: map[observe.Result]uint64{good: 1}, want: degraded, why: "breaker b is half-open"},
		{name: "half-open without calls", states: map[string]int{halfOpen: 1}, want: idle},
		{name: "closed", states: map[string]int{closed: 2}, want: idle},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := pipelineOf("p", test.calls, layerOf(1, "retry", "r", nil), layerOf(2, breakerKind, "b", test.states))
			p.Running = test.running
			got := record(t, []observe.PipelineSnapshot{p}).Pipelines[0]
			if got.Level != test.want || test.why != "" && got.Why != test.why {
				t.Errorf("got %v, %q, want %v, %q", got.Level, got.Why, test.want, test.why)
			}
			if got.Level.bad() == (got.Why == "") {
				t.Errorf("got reason %q for level %v, want one only if the level is bad", got.Why, got.Level)
			}
		})
	}
}

func TestStateSortsPipelinesByLevelThenName(t *testing.T) {
	bad, good := map[observe.Result]uint64{observe.Failure: 10}, map[observe.Result]uint64{observe.Success: 10}
	some := map[observe.Result]uint64{observe.Failure: 1, observe.Success: 10}
	s := record(t, []observe.PipelineSnapshot{pipelineOf("a", nil), pipelineOf("b", good), pipelineOf("c", some), pipelineOf("d", bad), pipelineOf("e", bad), pipelineOf("f", good)})
	var got []string
	for _, p := range s.Pipelines {
		got = append(got, p.Name)
	}
	if got, want := strings.Join(got, ""), "decbfa"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
