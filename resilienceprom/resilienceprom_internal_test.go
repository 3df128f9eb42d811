package resilienceprom

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/observe"
)

// A fixedSnapshot is a collector of one snapshot.
type fixedSnapshot struct{ observe.Snapshot }

func (fixedSnapshot) Describe(chan<- *prometheus.Desc) {}
func (f fixedSnapshot) Collect(metrics chan<- prometheus.Metric) {
	collect(f.Snapshot).send(metrics)
}

func compare(t *testing.T, s observe.Snapshot, want string, names ...string) {
	t.Helper()
	if err := testutil.CollectAndCompare(fixedSnapshot{s}, strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}
}

func TestHistogramIsCumulative(t *testing.T) {
	s := observe.Snapshot{
		Bounds: []time.Duration{time.Millisecond, time.Second},
		Pipelines: []observe.PipelineSnapshot{{
			Name:  "users",
			Calls: map[observe.Result]observe.Histogram{observe.TimedOut: {Count: 9, Sum: 12.5, Buckets: []uint64{2, 3, 4}}},
		}},
	}
	compare(t, s, `
# HELP resilience_call_duration_seconds Duration of calls through a pipeline.
# TYPE resilience_call_duration_seconds histogram
resilience_call_duration_seconds_bucket{pipeline="users",result="timed_out",le="0.001"} 2
resilience_call_duration_seconds_bucket{pipeline="users",result="timed_out",le="1"} 5
resilience_call_duration_seconds_bucket{pipeline="users",result="timed_out",le="+Inf"} 9
resilience_call_duration_seconds_sum{pipeline="users",result="timed_out"} 12.5
resilience_call_duration_seconds_count{pipeline="users",result="timed_out"} 9
`, "resilience_call_duration_seconds")
}

func TestEventsHaveLayerPolicyNameAndEvent(t *testing.T) {
	s := observe.Snapshot{Pipelines: []observe.PipelineSnapshot{{
		Name: "users", Running: 3, Attempts: 7,
		Layers: []observe.LayerSnapshot{
			{Position: 1, Kind: "retry", Events: map[observe.EventKind]uint64{observe.GiveUp: 2}},
			{Position: 2, Kind: "breaker", Name: "db", Events: map[observe.EventKind]uint64{observe.Refusal: 5}},
		},
	}}}
	compare(t, s, `
# HELP resilience_attempts_total Runs of what is inside the pipeline.
# TYPE resilience_attempts_total counter
resilience_attempts_total{pipeline="users"} 7
# HELP resilience_calls_running Calls in progress.
# TYPE resilience_calls_running gauge
resilience_calls_running{pipeline="users"} 3
# HELP resilience_events_total What the policies of a pipeline did.
# TYPE resilience_events_total counter
resilience_events_total{event="give_up",layer="1",name="",pipeline="users",policy="retry"} 2
resilience_events_total{event="refusal",layer="2",name="db",pipeline="users",policy="breaker"} 5
`)
}

func TestPolicyStateIsZeroForFormerStates(t *testing.T) {
	s := observe.Snapshot{Policies: []observe.PolicySnapshot{{
		Kind: "breaker", Name: "db",
		States:  map[string]int{"open": 2},
		InState: map[string]time.Duration{"open": time.Second, "closed": 1500 * time.Millisecond},
		Changes: map[string]uint64{"open": 3, "half-open": 1},
	}}}
	compare(t, s, `
# HELP resilience_policy_changes_total Changes of the state of policies.
# TYPE resilience_policy_changes_total counter
resilience_policy_changes_total{name="db",policy="breaker",to="half-open"} 1
resilience_policy_changes_total{name="db",policy="breaker",to="open"} 3
# HELP resilience_policy_state Live policies in a state.
# TYPE resilience_policy_state gauge
resilience_policy_state{name="db",policy="breaker",state="closed"} 0
resilience_policy_state{name="db",policy="breaker",state="half-open"} 0
resilience_policy_state{name="db",policy="breaker",state="open"} 2
# HELP resilience_policy_state_seconds_total Time that policies spent in a state.
# TYPE resilience_policy_state_seconds_total counter
resilience_policy_state_seconds_total{name="db",policy="breaker",state="closed"} 1.5
resilience_policy_state_seconds_total{name="db",policy="breaker",state="open"} 1
`)
}

func TestValuesInBracesAddUpAndOthersAreLargest(t *testing.T) {
	report := func(running, roundTrip, share float64) resilience.Report {
		return resilience.Report{Kind: "adaptive", Name: "db", Values: []resilience.Value{
			{Name: "running", Unit: "{call}", Value: running},
			{Name: "rate", Unit: "{call}/s", Value: running},
			{Name: "round_trip", Unit: "s", Value: roundTrip},
			{Name: "share", Unit: "1", Value: share},
		}}
	}
	s := observe.Snapshot{Policies: []observe.PolicySnapshot{{
		Kind: "adaptive", Name: "db", Reports: []resilience.Report{report(3, 0.5, 0.25), report(4, 0.125, 0.75)},
	}}}
	compare(t, s, `
# HELP resilience_adaptive_rate Value rate of policies of kind adaptive, in {call}/s.
# TYPE resilience_adaptive_rate gauge
resilience_adaptive_rate{name="db"} 7
# HELP resilience_adaptive_round_trip_seconds Value round_trip of policies of kind adaptive, in s.
# TYPE resilience_adaptive_round_trip_seconds gauge
resilience_adaptive_round_trip_seconds{name="db"} 0.5
# HELP resilience_adaptive_running Value running of policies of kind adaptive, in {call}.
# TYPE resilience_adaptive_running gauge
resilience_adaptive_running{name="db"} 7
# HELP resilience_adaptive_share_ratio Value share of policies of kind adaptive, in 1.
# TYPE resilience_adaptive_share_ratio gauge
resilience_adaptive_share_ratio{name="db"} 0.75
`)
}

func FuzzCollectIsValidForAllNames(f *testing.F) {
	f.Add("users", "users2", "breaker", "running", "{call}", 1.0)
	f.Add("\xff", "\xfe", "policy", "state", "", 2.0)
	f.Add("", "\uFFFD", "call", "duration", "s", math.Inf(1))
	f.Add("a\nb", "\"", "call_duration_seconds", "count", "1", math.NaN())
	f.Add("a", "b", "", "", "s", 0.0)
	f.Add("a", "b", "ä:.-", "9", "By", -1.0)
	f.Fuzz(func(t *testing.T, name, other, kind, value, unit string, v float64) {
		var s observe.Snapshot
		s.Bounds = []time.Duration{time.Second}
		for _, n := range []string{name, other} {
			values := []resilience.Value{{Name: value, Unit: unit, Value: v}, {Name: other, Unit: unit, Value: v}}
			s.Pipelines = append(s.Pipelines, observe.PipelineSnapshot{
				Name: n, Attempts: 1,
				Calls:  map[observe.Result]observe.Histogram{observe.Success: {Count: 1, Sum: 2, Buckets: []uint64{0, 1}}},
				Layers: []observe.LayerSnapshot{{Position: 1, Kind: kind, Name: value, Events: map[observe.EventKind]uint64{observe.Retry: 1}}},
			})
			for _, k := range []string{kind, n} {
				s.Policies = append(s.Policies, observe.PolicySnapshot{
					Kind: k, Name: n,
					Reports: []resilience.Report{{Kind: k, Name: n, Values: values}},
					States:  map[string]int{value: 1}, InState: map[string]time.Duration{other: 1}, Changes: map[string]uint64{name: 1},
				})
			}
		}
		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(fixedSnapshot{s})
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		var attempts float64
		for _, f := range families {
			if f.GetName() == "resilience_attempts_total" {
				for _, m := range f.GetMetric() {
					attempts += m.GetCounter().GetValue()
				}
			}
		}
		if attempts != 2 {
			t.Errorf("got %v attempts of two pipelines, want 2: names that become equal add up", attempts)
		}
	})
}
