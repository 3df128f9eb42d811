package dashboard

import (
	"encoding/json"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/effector-go/resilience/observe"
)

func TestQuantileInterpolatesInBucket(t *testing.T) {
	limits := []float64{1, 2, 10}
	for _, test := range []struct {
		buckets []float64
		q, want float64
	}{
		{[]float64{0, 0, 0, 0}, 0.5, 0},
		{[]float64{4, 0, 0, 0}, 0.5, 0.5},
		{[]float64{0, 4, 0, 0}, 0.5, 1.5},
		{[]float64{1, 1, 2, 0}, 0.75, 6},
		{[]float64{2, 0, 2, 0}, 0.5, 1},
		{[]float64{0, 0, 0, 1}, 0.5, 10},
		{[]float64{98, 0, 0, 2}, 0.99, 10},
		{[]float64{0, 0, 1, 0}, 1, math.Nextafter(10, 0)},       // at most the bound, so not "that or more"
		{[]float64{0.1, 0.2, 0.3, 0}, 1, math.Nextafter(10, 0)}, // the ranks have a rounding error
	} {
		if got := quantile(limits, test.buckets, test.q); got != test.want {
			t.Errorf("quantile(%v, %v): got %v, want %v", test.buckets, test.q, got, test.want)
		}
	}
	if got := quantile(nil, []float64{3}, 0.5); got != 0 {
		t.Errorf("without bounds: got %v, want 0", got)
	}
}

func TestPointRateCountsAllCalls(t *testing.T) {
	p := point{results: [resultCount]float32{observe.Success: 1, observe.Failure: 2, observe.Refused: 4, observe.TimedOut: 8, observe.Canceled: 16, observe.Panicked: 32}}
	if got, bad := p.rate(), p.bad(); got != 63 || bad != 46 {
		t.Errorf("got %v calls per second, %v bad, want 63, 46", got, bad)
	}
}

func TestAppendNumberRoundsOnlyFractions(t *testing.T) {
	for _, test := range []struct {
		v    float64
		want string
	}{
		{0, "0"}, {-3, "-3"}, {999999, "999999"}, {1e6, "1e+06"}, {2.5, "2.5"}, {12.3456, "12.35"}, {-0.00012, "-0.00012"},
		{math.NaN(), "null"}, {math.Inf(1), "null"}, {math.Inf(-1), "null"},
	} {
		if got := string(appendNumber(nil, test.v, 4)); got != test.want {
			t.Errorf("%v: got %s, want %s", test.v, got, test.want)
		}
	}
}

func TestCountAddsUpBucketsOfCallsThatWereMade(t *testing.T) {
	p := pipelineOf("p", map[observe.Result]uint64{observe.Success: 3, observe.Failure: 4, observe.Refused: 5})
	for _, test := range []struct {
		bounds int
		want   []uint64
	}{
		{len(bounds), []uint64{0, 7, 0, 0, 0, 0}},
		{1, []uint64{0, 7}},
		{0, []uint64{0}},
	} {
		if got := count(&p, test.bounds).buckets; !slices.Equal(got, test.want) {
			t.Errorf("%d bounds: got %v, want %v", test.bounds, got, test.want)
		}
	}
}

func TestStateCountsWindow(t *testing.T) {
	r := newRecorder(begin, time.Hour, time.Second)
	calls := map[observe.Result]uint64{}
	var s *state
	for i := range 31 {
		calls[observe.Success] = uint64(3 * i)
		calls[observe.Refused] = uint64(i)
		s = r.add(&observe.Snapshot{At: begin.Add(time.Duration(i) * time.Second), Bounds: bounds, Pipelines: []observe.PipelineSnapshot{pipelineOf("p", calls)}})
		if want := min(10, float64(i)); s.Window != want {
			t.Fatalf("after %d s: got a window of %v s, want %v", i, s.Window, want)
		}
	}
	p := s.Pipelines[0]
	if p.Rate != 4 || p.Attempts != 3 || p.Results["success"] != 3 || p.Results["refused"] != 1 || *p.Good != 0.75 {
		t.Errorf("got rate %v, attempts %v, results %v, good %v, want 4, 3, 3 and 1, 0.75", p.Rate, p.Attempts, p.Results, *p.Good)
	}
	if p.Total["success"] != 90 || p.Total["refused"] != 30 || len(p.Total) != resultCount {
		t.Errorf("got totals %v, want 90 and 30 of 6 results", p.Total)
	}
	// All calls that were not refused took 1 to 10 ms.
	if want := 0.001 + 0.009*0.5; math.Abs(*p.P50-want) > 1e-9 {
		t.Errorf("got p50 %v, want %v", *p.P50, want)
	}
	if len(r.tallies) > 12 {
		t.Errorf("got %d tallies, want at most 12: those of the window", len(r.tallies))
	}

	// Rare samples: the window reaches back to the sample before.
	s = r.add(&observe.Snapshot{At: begin.Add(90 * time.Second), Bounds: bounds})
	if s.Window != 60 {
		t.Errorf("got a window of %v s after a pause of 60 s, want 60", s.Window)
	}
}

func TestStateKnowsNothingBeforeFirstSample(t *testing.T) {
	r := newRecorder(begin, time.Hour, time.Second)
	p := pipelineOf("p", map[observe.Result]uint64{observe.Failure: 100})
	p.Running = 1
	s := r.add(&observe.Snapshot{At: begin, Bounds: bounds, Pipelines: []observe.PipelineSnapshot{p}})
	if got := s.Pipelines[0]; got.Level != idle || got.Rate != 0 || got.Good != nil || len(s.Troubles) != 0 {
		t.Errorf("got level %v, rate %v, good %v, troubles %v, want idle, 0, null, none", got.Level, got.Rate, got.Good, s.Troubles)
	}
}

func TestStateWindowIsNeverNegative(t *testing.T) {
	r := newRecorder(begin, time.Hour, time.Second)
	r.add(&observe.Snapshot{At: begin, Bounds: bounds})
	if got := r.add(&observe.Snapshot{At: begin.Add(-time.Minute), Bounds: bounds}).Window; got != 0 {
		t.Errorf("got a window of %v s after the clock was set back, want 0", got)
	}
}

func TestStateHasNullForNoValue(t *testing.T) {
	s := record(t, []observe.PipelineSnapshot{pipelineOf("idle", nil), pipelineOf("canceled", map[observe.Result]uint64{observe.Canceled: 1}), pipelineOf("refused", map[observe.Result]uint64{observe.Refused: 1})})
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Pipelines []struct {
			Name           string
			Good, P50, P99 *float64
		}
		Policies, Changes []any
	}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	for _, p := range got.Pipelines {
		switch {
		case p.Name != "refused" && p.Good != nil:
			t.Errorf("%s: got good %v, want null", p.Name, *p.Good)
		case p.Name == "refused" && (p.Good == nil || *p.Good != 0 || p.P50 != nil):
			t.Errorf("refused: got good %v, p50 %v, want 0, null", p.Good, p.P50)
		case p.Name == "canceled" && p.P50 == nil:
			t.Error("canceled: got p50 null, want the time until the cancellation")
		case p.Name == "idle" && (p.P50 != nil || p.P99 != nil):
			t.Errorf("idle: got p50 %v, p99 %v, want null", p.P50, p.P99)
		}
	}
	if got.Policies == nil || got.Changes == nil {
		t.Errorf("got %s, want empty lists instead of null", text)
	}
}

func TestGridHasAtMost600Points(t *testing.T) {
	for _, test := range []struct {
		history, interval, step time.Duration
		points                  int64
	}{
		{time.Hour, time.Second, 6 * time.Second, 600},
		{time.Minute, 100 * time.Millisecond, 100 * time.Millisecond, 600},
		{time.Minute, time.Second, time.Second, 60},
		{24 * time.Hour, time.Minute, 144 * time.Second, 600},
		{time.Minute, time.Minute, time.Minute, 1},
	} {
		g := newGrid(begin, test.history, test.interval)
		if g.step != test.step || g.points != test.points {
			t.Errorf("%v every %v: got %d points of %v, want %d of %v", test.history, test.interval, g.points, g.step, test.points, test.step)
		}
	}
}

func TestHistoryFillsPointsBeforeLateSample(t *testing.T) {
	r := newRecorder(begin, 10*time.Minute, time.Second) // points of 1 s
	calls := map[observe.Result]uint64{}
	running := 2
	add := func(at time.Duration) {
		p := pipelineOf("p", calls)
		p.Running = running
		r.add(&observe.Snapshot{At: begin.Add(at), Bounds: bounds, Pipelines: []observe.PipelineSnapshot{p}})
	}
	add(0)
	calls[observe.Success] = 100
	add(10 * time.Second) // 10/s
	calls[observe.Success] = 105
	calls[observe.Failure] = 5
	running = 7
	add(10*time.Second + 500*time.Millisecond)
	running = 1
	add(11 * time.Second)
	got := r.pipelines["p"].series.json(r.grid, begin.Add(11*time.Second))
	if !got.Start.Equal(begin) || got.Step != 1 || len(got.Running) != 11 {
		t.Fatalf("got %d points of %v s from %v, want 11 of 1 s from %v", len(got.Running), got.Step, got.Start, begin)
	}
	for i := range 10 {
		if got.Results["success"][i] != 10 || got.Attempts[i] != 10 || got.Running[i] != 2 || got.P50[i] == 0 {
			t.Errorf("point %d: got %v calls, %v attempts, %v running, p50 %v", i, got.Results["success"][i], got.Attempts[i], got.Running[i], got.P50[i])
		}
	}
	if got.Results["success"][10] != 5 || got.Results["failure"][10] != 5 || got.Running[10] != 7 {
		t.Errorf("got %v good and %v failed calls per second, %v running in the last point, want 5, 5, 7: the most of any sample",
			got.Results["success"][10], got.Results["failure"][10], got.Running[10])
	}
	if len(got.Results) != resultCount {
		t.Errorf("got %d results, want %d", len(got.Results), resultCount)
	}
}

func TestHistorySurvivesClockThatIsSetBack(t *testing.T) {
	r := newRecorder(begin, time.Minute, time.Second)
	calls := map[observe.Result]uint64{}
	for i, second := range []int{0, 100, 1000, 1001, 100, 101, 1002} {
		calls[observe.Success] = uint64(i)
		r.add(&observe.Snapshot{At: begin.Add(time.Duration(second) * time.Second), Bounds: bounds, Pipelines: []observe.PipelineSnapshot{pipelineOf("p", calls)}})
	}
	attempts := 0.0
	for _, n := range r.pipelines["p"].series.json(r.grid, begin.Add(1002*time.Second)).Attempts {
		attempts += max(0, float64(n))
	}
	if attempts == 0 {
		t.Error("got a history without calls")
	}
}

func TestHistoryKeepsLatestPoints(t *testing.T) {
	r := newRecorder(begin, time.Minute, time.Second)
	for i := range 200 {
		p := pipelineOf("p", map[observe.Result]uint64{observe.Success: uint64(i * i)})
		r.add(&observe.Snapshot{At: begin.Add(time.Duration(i) * time.Second), Bounds: bounds, Pipelines: []observe.PipelineSnapshot{p}})
	}
	got := r.pipelines["p"].series.json(r.grid, begin.Add(199*time.Second))
	if len(got.Running) != 60 || !got.Start.Equal(begin.Add(139*time.Second)) {
		t.Fatalf("got %d points from %v, want 60 from 139 s on", len(got.Running), got.Start.Sub(begin))
	}
	for i, rate := range got.Results["success"] {
		if want := float32(2*(139+i) + 1); rate != want {
			t.Fatalf("point %d: got %v, want %v", i, rate, want)
		}
	}
	// A gap longer than the history.
	p := pipelineOf("p", map[observe.Result]uint64{observe.Success: 199*199 + 1000})
	r.add(&observe.Snapshot{At: begin.Add(1199 * time.Second), Bounds: bounds, Pipelines: []observe.PipelineSnapshot{p}})
	got = r.pipelines["p"].series.json(r.grid, begin.Add(1199*time.Second))
	if len(got.Running) != 60 || got.Results["success"][0] != 1 || got.Results["success"][59] != 1 {
		t.Errorf("after a gap: got %d points, %v", len(got.Running), got.Results["success"])
	}
}

func TestHistoryIsAtMost100kB(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder(time.Now(), time.Minute, 100*time.Millisecond)
		for i := range 2000 {
			time.Sleep(100*time.Millisecond + time.Duration(i)*time.Microsecond)
			p := pipelineOf("p", map[observe.Result]uint64{observe.Success: uint64(i * i * 12345), observe.Failure: uint64(i * i * 6789), observe.TimedOut: uint64(i * i * 777)})
			r.add(&observe.Snapshot{At: time.Now(), Bounds: bounds, Pipelines: []observe.PipelineSnapshot{p}})
		}
		series := &r.pipelines["p"].series
		text, err := json.Marshal(series.json(r.grid, time.Now()))
		if err != nil {
			t.Fatal(err)
		}
		if len(text) > 100_000 || cap(series.ring)*40 > 100_000 {
			t.Errorf("got %d bytes of JSON and %d points of memory, want at most 100 kB", len(text), cap(series.ring))
		}
	})
}

func TestRecorderForgetsNamesThatAreGone(t *testing.T) {
	r := newRecorder(begin, time.Minute, time.Second)
	r.add(&observe.Snapshot{At: begin, Bounds: bounds, Pipelines: []observe.PipelineSnapshot{pipelineOf("p", nil)}, Policies: []observe.PolicySnapshot{breakerOf("b", closed)}})
	r.add(&observe.Snapshot{At: begin.Add(time.Second), Bounds: bounds})
	if len(r.pipelines) != 0 || len(r.policies) != 0 {
		t.Errorf("got %d pipelines and %d policies, want none", len(r.pipelines), len(r.policies))
	}
}

func TestRecorderStartsAgainAtSmallerCounter(t *testing.T) {
	r := newRecorder(begin, time.Minute, time.Second)
	add := func(s int, n uint64) *state {
		return r.add(&observe.Snapshot{At: begin.Add(time.Duration(s) * time.Second), Bounds: bounds, Pipelines: []observe.PipelineSnapshot{pipelineOf("p", map[observe.Result]uint64{observe.Success: n})}})
	}
	add(0, 1000)
	if got := add(10, 20).Pipelines[0].Rate; got != 2 {
		t.Errorf("got %v calls per second, want 2", got)
	}
}
