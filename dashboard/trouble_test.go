package dashboard

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/observe"
)

func what(s *state) []string {
	list := []string{}
	for _, t := range s.Troubles {
		list = append(list, t.Level.String()+": "+t.What)
	}
	return list
}

func TestTroubleIsOnePerBreakerName(t *testing.T) {
	openLayer := layerOf(1, breakerKind, "b", map[string]int{open: 2})
	bad := map[observe.Result]uint64{observe.Refused: 10}
	s := record(t, []observe.PipelineSnapshot{pipelineOf("p", bad, openLayer), pipelineOf("q", bad, openLayer), pipelineOf("r", bad)}, breakerOf("b", open, open))
	if got, want := what(s), []string{"down: all 2 breakers b are open", "down: Pipeline r is down"}; !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
	if got, want := s.Troubles[0].Pipelines, []string{id("pipeline", "p"), id("pipeline", "q")}; !slices.Equal(got, want) {
		t.Errorf("the breaker's pipelines are %v, want %v", got, want)
	}
	if got, want := s.Troubles[0].Policy, id(breakerKind, "b"); got != want {
		t.Errorf("got policy %q, want %q", got, want)
	}
	if got := s.Troubles[1]; got.Policy != "" || !slices.Equal(got.Pipelines, []string{id("pipeline", "r")}) {
		t.Errorf("the pipeline's trouble has policy %q and pipelines %v", got.Policy, got.Pipelines)
	}
}

func TestTroubleOfBreakerDependsOnState(t *testing.T) {
	calls := map[observe.Result]uint64{observe.Success: 100}
	for _, test := range []struct {
		states []string
		calls  map[observe.Result]uint64
		want   []string
	}{
		{[]string{open}, nil, []string{"down: breaker b is open"}},
		{[]string{forcedOpen}, nil, []string{"down: breaker b is forced open"}},
		{[]string{open, closed}, calls, []string{"degraded: 1 of 2 breakers b is open"}},
		{[]string{disabled}, nil, []string{"degraded: breaker b is disabled"}},
		{[]string{halfOpen}, calls, []string{"degraded: breaker b is half-open"}},
		{[]string{halfOpen}, nil, []string{}},
		{[]string{closed}, calls, []string{}},
		{nil, calls, []string{}},
		// Refused calls make the pipeline bad, and the breaker explains that.
		{[]string{halfOpen}, map[observe.Result]uint64{observe.Refused: 10}, []string{"down: breaker b is half-open"}},
		// A disabled breaker refuses nothing, so it does not explain failures.
		{[]string{disabled}, map[observe.Result]uint64{observe.Failure: 10}, []string{"down: Pipeline p is down", "degraded: breaker b is disabled"}},
	} {
		p := breakerOf("b", test.states...)
		s := record(t, []observe.PipelineSnapshot{pipelineOf("p", test.calls, layerOf(1, breakerKind, "b", p.States))}, p)
		if got := what(s); !slices.Equal(got, test.want) {
			t.Errorf("%v, %v: got %q, want %q", test.states, test.calls, got, test.want)
		}
	}
}

func TestTroubleThatIsDownExplainsPipelineThatIsDown(t *testing.T) {
	p := pipelineOf("p", map[observe.Result]uint64{observe.Refused: 10},
		layerOf(1, breakerKind, "a", map[string]int{open: 1}), layerOf(2, breakerKind, "b", map[string]int{open: 1, closed: 1}))
	for _, policies := range [][]observe.PolicySnapshot{
		{breakerOf("a", open), breakerOf("b", open, closed)},
		{breakerOf("b", open, closed), breakerOf("a", open)},
	} {
		s := record(t, []observe.PipelineSnapshot{p}, policies...)
		if got, want := what(s), []string{"down: breaker a is open", "degraded: 1 of 2 breakers b is open"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestTroubleOfInnerBreakerExplainsOuterPipeline(t *testing.T) {
	bad := map[observe.Result]uint64{observe.Refused: 10}
	s := record(t, []observe.PipelineSnapshot{
		pipelineOf("inner", bad, layerOf(1, breakerKind, "b", map[string]int{open: 1})),
		pipelineOf("outer", bad, layerOf(1, pipelineKind, "inner", nil)),
	}, breakerOf("b", open))
	if got, want := what(s), []string{"down: breaker b is open"}; !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
	if got := s.Troubles[0].Pipelines; len(got) != 2 {
		t.Errorf("got pipelines %v, want both", got)
	}
}

func TestTroubleOfBreakersInOnePlaceExplainsPipeline(t *testing.T) {
	s := record(t, []observe.PipelineSnapshot{
		pipelineOf("hosts", map[observe.Result]uint64{observe.Refused: 10, observe.Success: 10}, layerOf(1, breakerKind, "", map[string]int{open: 1, closed: 1})),
	}, breakerOf("a.example", closed), breakerOf("b.example", open))
	if got, want := what(s), []string{"down: breaker b.example is open"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := s.Pipelines[0].Why, "10 of 20 calls were refused in the last 10 s"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := s.Pipelines[0].Layers[0].Name, "(several)"; got != want {
		t.Errorf("got name %q of the place, want %q", got, want)
	}
}

func TestAffectedByLooksInUnnamedPlacesLast(t *testing.T) {
	for _, test := range []struct {
		name   string
		states map[string]int // of the breakers b
		place  string         // the name of the breakers in pipeline own
		other  string         // the name of another breaker
		want   []string
	}{
		{"same state", map[string]int{open: 1}, "c", "c", []string{"hosts"}},
		{"no breaker in that state", map[string]int{open: 0, disabled: 1}, "c", "c", nil},
		{"closed", map[string]int{closed: 1}, "c", "c", nil},
		{"named place", map[string]int{open: 1}, "b", "c", []string{"own"}},
		{"unnamed breakers", map[string]int{open: 1}, "c", "", nil},
		{"named place and unnamed breakers", map[string]int{open: 1}, "b", "", []string{"own"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			own := pipelineOf("own", nil, layerOf(1, breakerKind, test.place, map[string]int{open: 1}))
			hosts := pipelineOf("hosts", nil, layerOf(1, breakerKind, "", map[string]int{open: 1, closed: 1}))
			b := observe.PolicySnapshot{Kind: breakerKind, Name: "b", States: test.states}
			snap := &observe.Snapshot{Policies: []observe.PolicySnapshot{b, breakerOf(test.other, closed)}}
			var got []string
			for _, v := range affectedBy(&b, snap, []*pipelineView{{snap: &own}, {snap: &hosts}}) {
				got = append(got, v.snap.Name)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestTroubleSinceIsWhenBreakerLeftClosed(t *testing.T) {
	at := func(s int) time.Time { return begin.Add(time.Duration(s) * time.Second) }
	change := func(s int, from, to, cause string) observe.Change {
		return observe.Change{At: at(s), From: from, To: to, Cause: cause}
	}
	failed := &observe.ErrorSample{At: at(3), Type: "*url.Error", Text: "https://u:p@h"}
	opened := change(3, closed, open, "second failure")
	opened.Error = failed
	recent := []observe.Change{change(1, closed, open, "first failure"), change(2, open, closed, "reset"), opened}
	for range 20 {
		recent = append(recent, change(4, open, halfOpen, "open time over"), change(5, halfOpen, open, "a probe failed"))
	}
	p := breakerOf("b", open)
	p.Recent, p.Since = recent, at(5)
	r := newRecorder(begin, time.Hour, time.Second)
	trouble := func(s int) trouble {
		t.Helper()
		state := r.add(&observe.Snapshot{At: at(s), Bounds: bounds, Policies: []observe.PolicySnapshot{p}})
		if len(state.Troubles) != 1 {
			t.Fatalf("got %d troubles, want 1", len(state.Troubles))
		}
		return state.Troubles[0]
	}
	got := trouble(10)
	if !got.Since.Equal(at(3)) || got.Why != "second failure" {
		t.Errorf("got since %v, because of %q, want %v, second failure", got.Since, got.Why, at(3))
	}
	if got.Error == nil || got.Error.Text != "https://…@h" || got.Error.Type != "*url.Error" {
		t.Errorf("got error %v, want that of the change, redacted", got.Error)
	}

	// The change is no longer among the latest 50.
	p.Recent = nil
	for range 25 {
		p.Recent = append(p.Recent, change(20, open, halfOpen, "open time over"), change(21, halfOpen, open, "a probe failed"))
	}
	if got := trouble(22); !got.Since.Equal(at(3)) || got.Why != "second failure" {
		t.Errorf("after many probes: got since %v, because of %q, want %v, second failure", got.Since, got.Why, at(3))
	}

	// Two of a name: the trouble began with the first, and lasts.
	p = breakerOf("b", open, closed)
	p.Recent = []observe.Change{change(30, closed, open, "one"), change(31, closed, open, "two"), change(32, open, closed, "one recovered")}
	if got := trouble(33); !got.Since.Equal(at(30)) || got.Why != "one" {
		t.Errorf("two breakers: got since %v, because of %q, want %v, one", got.Since, got.Why, at(30))
	}
}

func TestTroubleSinceIsFirstSeenWithoutChanges(t *testing.T) {
	p := breakerOf("b", open)
	p.Since = begin
	got := record(t, nil, p).Troubles[0]
	if !got.Since.Equal(begin) || got.Why != "it was open when it was first seen" {
		t.Errorf("got since %v, because of %q", got.Since, got.Why)
	}
}

func TestTroubleOfPipelineBeginsWhenLevelGotBad(t *testing.T) {
	r := newRecorder(begin, time.Hour, time.Second)
	calls := map[observe.Result]uint64{}
	add := func(s int) *state {
		return r.add(&observe.Snapshot{At: begin.Add(time.Duration(s) * time.Second), Bounds: bounds, Pipelines: []observe.PipelineSnapshot{pipelineOf("p", calls)}})
	}
	add(0)
	calls[observe.Success] = 100
	if s := add(10); len(s.Troubles) != 0 {
		t.Fatalf("got %q, want no trouble", what(s))
	}
	calls[observe.Failure] = 10
	add(11) // degraded
	calls[observe.Failure] = 200
	s := add(12)
	if len(s.Troubles) != 1 || s.Troubles[0].Level != down || !s.Troubles[0].Since.Equal(begin.Add(11*time.Second)) {
		t.Errorf("got %v, want one that is down since 11 s", s.Troubles)
	}
	add(30)
	calls[observe.Failure] = 300
	if s := add(31); len(s.Troubles) != 1 || !s.Troubles[0].Since.Equal(begin.Add(31*time.Second)) {
		t.Errorf("got %v, want one since 31 s, since it was idle before", s.Troubles)
	}
}

func TestTroublesAreSortedByLevelThenAge(t *testing.T) {
	var policies []observe.PolicySnapshot
	for i, states := range [][]string{{open, closed}, {open}, {disabled}, {forcedOpen}} {
		p := breakerOf(string(rune('a'+i)), states...)
		p.Since = begin.Add(time.Duration(-i) * time.Minute)
		policies = append(policies, p)
	}
	got := what(record(t, nil, policies...))
	want := []string{"down: breaker d is forced open", "down: breaker b is open", "degraded: breaker c is disabled", "degraded: 1 of 2 breakers a is open"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTroubleAdvises(t *testing.T) {
	bad := map[observe.Result]uint64{observe.Failure: 10}
	openFor := breakerOf("b", open)
	openFor.Reports[0].Values = []resilience.Value{{Name: "retry_after", Unit: "s", Value: 12.3}}
	dry := breakerOf("b", open)
	dry.Reports[0].Config = map[string]string{"DryRun": "true"}
	retried := pipelineOf("p", bad, layerOf(1, "retry", "r", nil))
	retried.Attempts = 30
	retried.Layers[0].Events = map[observe.EventKind]uint64{observe.Retry: 20}
	guarded := pipelineOf("p", bad, layerOf(1, breakerKind, "b", map[string]int{closed: 1}), layerOf(2, timeoutKind, "", nil))
	nested := pipelineOf("q", bad, layerOf(1, pipelineKind, "p", nil))
	for _, test := range []struct {
		name      string
		pipelines []observe.PipelineSnapshot
		policies  []observe.PolicySnapshot
		want, not string
	}{
		{"probe", nil, []observe.PolicySnapshot{openFor}, "It lets a probe through in 12 s.", ""},
		{"forced open", nil, []observe.PolicySnapshot{breakerOf("b", forcedOpen)}, "It was forced open manually", "probe"},
		{"disabled", nil, []observe.PolicySnapshot{breakerOf("b", disabled)}, "It was disabled manually", ""},
		{"dry run", nil, []observe.PolicySnapshot{dry}, "It is a dry run: it refuses no call.", "It refuses calls"},
		{"retries", []observe.PipelineSnapshot{retried}, nil, "Retries multiply the load of p: 3.0 attempts for each call.", ""},
		{"no breaker", []observe.PipelineSnapshot{pipelineOf("p", bad, layerOf(1, timeoutKind, "", nil))}, nil, "It has no breaker", "no timeout"},
		{"no timeout", []observe.PipelineSnapshot{pipelineOf("p", bad, layerOf(1, breakerKind, "b", nil))}, nil, "It has no timeout", "no breaker"},
		{"both", []observe.PipelineSnapshot{guarded}, nil, "", "It has no"},
		{"both inside", []observe.PipelineSnapshot{nested, guarded}, nil, "", "It has no"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := record(t, test.pipelines, test.policies...).Troubles[0].Advice
			if !strings.Contains(got, test.want) || test.not != "" && strings.Contains(got, test.not) {
				t.Errorf("got %q, want %q in it and %q not in it", got, test.want, test.not)
			}
		})
	}
}

func TestAmplificationNamesFirstThreePipelines(t *testing.T) {
	view := func(name string, calls, refused, attempts, retries uint64) *pipelineView {
		d := &delta{results: [resultCount]uint64{observe.Failure: calls, observe.Refused: refused}, attempts: attempts, layers: map[place]layerCounts{}}
		d.layers[place{1, "retry"}] = layerCounts{events: [eventCount]uint64{observe.Retry: retries}}
		return &pipelineView{snap: &observe.PipelineSnapshot{Name: name}, delta: d}
	}
	got := amplification([]*pipelineView{
		view("idle", 0, 0, 0, 0), view("once", 10, 0, 10, 0), view("refused", 0, 10, 0, 1), view("seldom", 10, 0, 14, 4),
		view("a", 10, 10, 15, 5), view("b", 10, 0, 20, 10), view("c", 10, 0, 30, 20), view("d", 10, 0, 40, 30),
	})
	want := []string{
		"Retries multiply the load of a: 1.5 attempts for each call.",
		"Retries multiply the load of b: 2.0 attempts for each call.",
		"Retries multiply the load of c: 3.0 attempts for each call.",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTroubleShowsErrorOfMostFrequentResult(t *testing.T) {
	p := pipelineOf("p", map[observe.Result]uint64{observe.Failure: 1, observe.TimedOut: 10})
	p.Errors = map[observe.Result]observe.ErrorSample{observe.Failure: {Type: "failure"}, observe.TimedOut: {Type: "timeout"}, observe.Canceled: {Type: "canceled"}}
	if got := record(t, []observe.PipelineSnapshot{p}).Troubles[0].Error; got == nil || got.Type != "timeout" {
		t.Errorf("got %v, want the timeout", got)
	}
}
