package sim

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
)

// The next tests hold rules 11 to 14: numbers.

func TestResultCountsOutcomes(t *testing.T) {
	const ms = time.Millisecond
	after := func(d time.Duration, err error) func() resilience.Policy {
		return policy(func(ctx context.Context, next resilience.Next) error {
			time.Sleep(d)
			return err
		})
	}
	fails := errors.New("no")
	for name, test := range map[string]struct {
		create func() resilience.Policy
		want   [outcomes]float64
	}{
		"good":                     {after(200*ms, nil), [outcomes]float64{good: 1}},
		"late":                     {after(201*ms, nil), [outcomes]float64{late: 1}},
		"failed":                   {after(0, fails), [outcomes]float64{failed: 1}},
		"failed, however late":     {after(250*ms, fails), [outcomes]float64{failed: 1}},
		"no answer at the end":     {after(time.Minute, fails), [outcomes]float64{late: 1}},
		"refused":                  {after(0, fmt.Errorf("no: %w", resilience.ErrRefused)), [outcomes]float64{refused: 1}},
		"refused after an attempt": {policy(func(ctx context.Context, next resilience.Next) error { next.Run(ctx); return resilience.ErrRefused }), [outcomes]float64{failed: 1}},
		"half of them good, half failed": {func() resilience.Policy {
			n := 0
			return resilience.PolicyFunc(func(context.Context, resilience.Next) error {
				if n++; n%2 == 0 {
					return fails
				}
				return nil
			})
		}, [outcomes]float64{good: 0.5, failed: 0.5}},
	} {
		s := Scenario{Rate: Replay([]time.Duration{0, 300 * ms}), Length: time.Second, Runs: 2, GoodWithin: 200 * ms}
		r := Test(t, s, one(test.create)).Pipelines["users"]
		got := [outcomes]float64{r.Good.Mean, r.Late.Mean, r.Failed.Mean, r.Refused.Mean}
		if got != test.want || r.Calls != (Spread{2, 2, 2, 2}) {
			t.Errorf("%s: got shares of %v of %v calls, want %v of 2", name, got, r.Calls, test.want)
		}
	}
}

func TestResultCountsPhasesByTheTimeOfTheCall(t *testing.T) {
	times := []time.Duration{}
	for i := range 100 {
		times = append(times, time.Duration(i)*100*time.Millisecond)
	}
	s := Scenario{Rate: Replay(times), Runs: 1, Server: Server{Network: Fixed(0)}, Incidents: []Incident{
		{From: 2 * time.Second, For: time.Second, Fail: 1}, {From: 4 * time.Second, For: time.Second, Fail: 1},
	}}
	r := Test(t, s, one(none)).Pipelines["users"]
	if r.Before.Min != 1 || !near(r.During.Min, 1.0/3, 1e-9) || r.After.Min != 1 {
		t.Errorf("got %v, %v, %v, want 1, 1/3, 1", r.Before.Min, r.During.Min, r.After.Min)
	}
	if r := Test(t, Scenario{Rate: Constant(10), Length: time.Second}, one(none)).Pipelines["users"]; r.During.Runs != 0 || r.After.Runs != 0 || r.Before.Runs != 5 {
		t.Errorf("got %+v without incidents, want only Before", r)
	}
}

func TestResultCountsAttempts(t *testing.T) {
	s := Scenario{Rate: Constant(100), Length: 40 * time.Second, Runs: 1, Incidents: []Incident{{From: 10 * time.Second, For: 10 * time.Second, Fail: 1}}}
	r := Test(t, s, one(naive)).Pipelines["users"]
	if !near(r.Amplification.Max, 4, 0.02) || !near(r.Attempts.Max, 1.75, 0.05) {
		t.Errorf("got %v and %v at worst, want about 1.75 and 4", r.Attempts.Max, r.Amplification.Max)
	}
	if s := r.Series[15]; !near(s.Attempts, 4*s.Offered, 0.1) {
		t.Errorf("got %v attempts of %v calls in second 15, want four times as many", s.Attempts, s.Offered)
	}
}

// recordOf returns a record whose seconds have the given numbers of calls and good calls.
func recordOf(incident Incident, seconds []int, goods []int) *record {
	s := Scenario{Rate: Constant(1), Length: time.Duration(len(seconds)) * time.Second, Incidents: []Incident{incident}}.withDefaults()
	r := newRecord(&s, newServer(&s, 0))
	for second := range seconds {
		for call := range seconds[second] {
			o := failed
			if call < goods[second] {
				o = good
			}
			r.callBegins(time.Duration(second) * time.Second)
			r.callEnds(time.Duration(second)*time.Second, 0, o)
		}
	}
	return r
}

func repeated(n, v int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = v
	}
	return list
}

func joined(lists ...[]int) (all []int) {
	for _, list := range lists {
		all = append(all, list...)
	}
	return all
}

func TestRecordJudgesRecovery(t *testing.T) {
	incident := Incident{From: 10 * time.Second, For: 10 * time.Second, Fail: 1}
	for name, test := range map[string]struct {
		incident          Incident
		calls, good       []int
		second            int
		recovered, judged bool
	}{
		"at once":             {incident, repeated(60, 100), joined(repeated(10, 100), repeated(10, 0), repeated(40, 100)), 20, true, true},
		"after 7 s":           {incident, repeated(60, 100), joined(repeated(10, 100), repeated(17, 0), repeated(33, 100)), 27, true, true},
		"never":               {incident, repeated(60, 100), joined(repeated(10, 100), repeated(50, 0)), 0, false, true},
		"only the end":        {incident, repeated(60, 100), joined(repeated(10, 100), repeated(47, 0), repeated(3, 100)), 0, false, true},
		"but falls again":     {incident, repeated(60, 100), joined(repeated(10, 100), repeated(10, 0), repeated(10, 100), repeated(30, 0)), 0, false, true},
		"almost":              {incident, repeated(60, 100), joined(repeated(10, 100), repeated(10, 0), repeated(40, 94)), 20, true, true},
		"not quite":           {incident, repeated(60, 1000), joined(repeated(10, 1000), repeated(10, 0), repeated(40, 930)), 0, false, true},
		"as bad as before":    {incident, repeated(60, 100), joined(repeated(10, 50), repeated(10, 0), repeated(40, 48)), 20, true, true},
		"bad before, unknown": {incident, repeated(60, 5), joined(repeated(10, 2), repeated(50, 2)), 0, false, true}, // 50 calls before: of 1
		"few calls":           {incident, repeated(60, 2), joined(repeated(10, 2), repeated(10, 0), repeated(40, 2)), 20, true, true},
		"no calls after":      {incident, joined(repeated(20, 5), repeated(40, 0)), joined(repeated(20, 5), repeated(40, 0)), 0, false, false},
		"too short":           {incident, repeated(29, 100), repeated(29, 100), 0, false, false},
		"just long enough":    {incident, repeated(30, 100), repeated(30, 100), 20, true, true},
		"no incident":         {Incident{From: time.Hour, For: 1}, repeated(60, 100), repeated(60, 100), 0, false, false},
		"never ends":          {Incident{From: 10 * time.Second, For: math.MaxInt64}, repeated(60, 100), repeated(60, 100), 0, false, false},
		"between two seconds": {Incident{From: 10 * time.Second, For: 10*time.Second + 1}, repeated(60, 100), joined(repeated(10, 100), repeated(11, 0), repeated(39, 100)), 21, true, true},
	} {
		second, recovered, judged := recordOf(test.incident, test.calls, test.good).recovery()
		if second != test.second || recovered != test.recovered || judged != test.judged {
			t.Errorf("%s: got second %d, recovered %t, judged %t, want %d, %t, %t", name, second, recovered, judged, test.second, test.recovered, test.judged)
		}
	}
}

func TestResultCountsRecovery(t *testing.T) {
	s := Scenario{Rate: Constant(1), Length: time.Minute}.withDefaults()
	tally := newTally(&s)
	incident := Incident{From: 10 * time.Second, For: 10 * time.Second, Fail: 1}
	for _, bad := range []int{10, 14, 50} {
		tally.add(recordOf(incident, repeated(60, 100), joined(repeated(10, 100), repeated(bad, 0), repeated(50-bad, 100))))
	}
	if got, want := tally.end().Recovery, (Spread{0, 2, 4, 2}); got != want || tally.Metastable != 1 {
		t.Errorf("got %+v and %d, want %+v and 1", got, tally.Metastable, want)
	}
}

func TestResultCountsFalseOpenings(t *testing.T) {
	opening := func(at ...time.Duration) func() resilience.Policy {
		return func() resilience.Policy {
			b := breaker.New(breaker.Config{OpenFor: 100 * time.Millisecond})
			begun := time.Now()
			fail := func(ctx context.Context, next resilience.Next) error {
				for len(at) > 0 && time.Since(begun) > at[0] {
					at = at[1:]
					for range 5 {
						if p, err := b.Acquire(ctx); err == nil {
							p.Done(errors.New("no"))
						}
					}
				}
				return next.Run(ctx)
			}
			return hiding(resilience.Pipeline{resilience.PolicyFunc(fail)}, b)
		}
	}
	incident := []Incident{{From: 10 * time.Second, For: 5 * time.Second, Fail: 0.5}}
	for name, test := range map[string]struct {
		incidents []Incident
		at        []time.Duration
		want      float64
	}{
		"before":         {incident, []time.Duration{time.Second, 3 * time.Second}, 2},
		"during":         {incident, []time.Duration{12 * time.Second}, 0},
		"after recovery": {incident, []time.Duration{12 * time.Second, 25 * time.Second}, 1},
		"calm":           {nil, []time.Duration{time.Second, 5 * time.Second, 20 * time.Second}, 3},
	} {
		s := Scenario{Rate: Constant(100), Length: 40 * time.Second, Runs: 1, Incidents: test.incidents}
		r := Test(t, s, one(opening(test.at...))).Pipelines["users"]
		if r.FalseOpenings.Max != test.want {
			t.Errorf("%s: got %v false openings, want %v", name, r.FalseOpenings.Max, test.want)
		}
	}
}

func TestResultCountsNoOpeningOfBreakerThatIsCreatedOpen(t *testing.T) {
	r := Test(t, brief(), one(func() resilience.Policy {
		b := newBreaker()
		b.ForceOpen()
		return b
	})).Pipelines["users"]
	if r.FalseOpenings.Max != 0 || r.Series[0].Open != 1 {
		t.Errorf("got %v false openings and a share of %v open, want 0 and 1", r.FalseOpenings.Max, r.Series[0].Open)
	}
}

func TestSecondHasShareOfOpenBreakers(t *testing.T) {
	// The second breaker never opens.
	create := func() resilience.Policy {
		return resilience.Pipeline{hiding(resilience.Pipeline{breaker.New(breaker.Config{Consecutive: 1, OpenFor: time.Minute})}, breaker.New(breaker.Config{}))}
	}
	s := Scenario{Rate: Constant(50), Length: 4 * time.Second, Runs: 2, Clients: 2, Incidents: []Incident{{From: time.Second, For: time.Second, Fail: 1}}}
	r := Test(t, s, one(create)).Pipelines["users"]
	for i, want := range []float64{0, 0.5, 0.5, 0.5} {
		if got := r.Series[i].Open; !near(got, want, 0.15) {
			t.Errorf("second %d: got a share of %v open, want %v", i, got, want)
		}
	}
}

func TestLevelMeanIsOfTheTimeBeforeTheEnd(t *testing.T) {
	l := newLevel(1500 * time.Millisecond)
	l.add(2, 500*time.Millisecond)
	l.add(2, 1250*time.Millisecond)
	l.add(100, 2*time.Second)
	if got, want := []float64{l.mean(0), l.mean(1)}, []float64{1, 3}; !slices.Equal(got, want) {
		t.Errorf("got means of %v, want %v", got, want)
	}
}

func TestWastedIsWorkForCallersThatHaveLeft(t *testing.T) {
	// Every second call leaves.
	create := func() resilience.Policy {
		n := 0
		return resilience.PolicyFunc(func(ctx context.Context, next resilience.Next) error {
			if n++; n%2 == 0 {
				return next.Run(ctx)
			}
			ctx, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
			defer cancel()
			return next.Run(ctx)
		})
	}
	s := Scenario{Rate: Constant(20), Length: 30 * time.Second, Runs: 1, Server: Server{Service: Fixed(20 * time.Millisecond), Workers: 10}}
	if got := Test(t, s, one(create)).Pipelines["users"].Wasted.Mean; !near(got, 0.5, 0.02) {
		t.Errorf("got a share of %v, want 0.5", got)
	}
	s.Server.GivesUp = true // after 10 ms and half a round trip, minus the way there
	if got := Test(t, s, one(create)).Pipelines["users"].Wasted.Mean; !near(got, 1.0/3, 0.02) {
		t.Errorf("with GivesUp: got a share of %v, want a third", got)
	}
}

func TestQuantilesAreThoseOfGoodAnswers(t *testing.T) {
	s := Scenario{Rate: Constant(100), Length: time.Minute, Runs: 2, Server: Server{Workers: 1000, Service: Exponential(100 * time.Millisecond), Network: Fixed(0), Fail: 0.1}}
	r := Test(t, s, one(none)).Pipelines["users"]
	if !near(r.P50.Mean, 0.1*math.Ln2, 0.03) || !near(r.P99.Mean, 0.1*math.Log(100), 0.05) {
		t.Errorf("got %v and %v, want about 0.0693 and 0.46", r.P50.Mean, r.P99.Mean)
	}
	sum := 0.0
	for _, s := range r.Series {
		sum += s.P50
	}
	if got := sum / float64(len(r.Series)); !near(got, r.P50.Mean, 0.05) {
		t.Errorf("got %v as the mean of the series, want about %v", got, r.P50.Mean)
	}
}

func TestHistogramQuantileIsWithinOnePercent(t *testing.T) {
	var h histogram
	for i := 1; i <= 100_000; i++ {
		h.add(time.Duration(i) * 10 * time.Microsecond)
	}
	for _, q := range []float64{0.001, 0.5, 0.9, 0.99, 1} {
		if got, want := h.quantile(q).Seconds(), q; !near(got, want, 0.01) {
			t.Errorf("quantile %v: got %v, want %v", q, got, want)
		}
	}
	var same histogram
	same.add(21 * time.Millisecond)
	if got := same.quantile(0.5); got != 21*time.Millisecond {
		t.Errorf("got %v, want 21ms", got)
	}
}

// numbers calls visit with every float64 in v.
func numbers(v reflect.Value, visit func(path string, f float64), path string) {
	switch v.Kind() {
	case reflect.Float64:
		visit(path, v.Float())
	case reflect.Pointer:
		numbers(v.Elem(), visit, path)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				numbers(v.Field(i), visit, path+"."+v.Type().Field(i).Name)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			numbers(v.Index(i), visit, path)
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			numbers(v.MapIndex(key), visit, path+"."+key.String())
		}
	}
}

func TestReportHasNoNaN(t *testing.T) {
	refusing := policy(func(context.Context, resilience.Next) error { return resilience.ErrRefused })
	for name, s := range map[string]Scenario{
		"hardly any call": {Rate: Constant(0.01), Length: time.Second},
		"late calls":      {Rate: Steps(Step{20 * time.Second, 1}), Length: 30500 * time.Millisecond, Incidents: []Incident{{For: time.Second, Down: true}}},
		"no work":         {Rate: Constant(10), Length: 15 * time.Second, Server: Server{Service: Fixed(0), Network: Fixed(0)}},
		"nothing works":   {Rate: Constant(10), Length: 15 * time.Second, Incidents: []Incident{{For: time.Minute, Down: true}}},
		"no calls after":  {Rate: Steps(Step{0, 10}, Step{2 * time.Second, 0}), Length: 20 * time.Second, Incidents: []Incident{{From: time.Second, For: time.Second, Fail: 1}}},
	} {
		report := Test(t, s, map[string]func() resilience.Policy{"refusing": refusing, "guide": guide})
		numbers(reflect.ValueOf(report.Pipelines), func(path string, f float64) {
			if math.IsNaN(f) || math.IsInf(f, 0) {
				t.Errorf("%s: %s is %v", name, path, f)
			}
		}, "")
		for format, text := range formats(t, report) {
			if strings.Contains(text, "NaN") || strings.Contains(text, "Inf") {
				t.Errorf("%s: %s has NaN or Inf", name, format)
			}
		}
		for _, r := range report.Pipelines {
			if sum := r.Good.Mean + r.Late.Mean + r.Failed.Mean + r.Refused.Mean; r.Good.Runs > 0 && !near(sum, 1, 1e-9) {
				t.Errorf("%s: got a sum of the shares of %v, want 1", name, sum)
			}
		}
	}
}

// formats returns the report in all formats.
func formats(t *testing.T, r *Report) map[string]string {
	t.Helper()
	return map[string]string{
		"text": written(t, r.WriteText), "JSON": written(t, r.WriteJSON), "CSV": written(t, r.WriteCSV), "HTML": written(t, r.WriteHTML),
	}
}

// written returns what write writes.
func written(t *testing.T, write func(io.Writer) error) string {
	t.Helper()
	var b strings.Builder
	if err := write(&b); err != nil {
		t.Error(err)
	}
	return b.String()
}

func TestTextNeverRoundsToAllOrNothing(t *testing.T) {
	for _, test := range []struct {
		share float64
		want  string
	}{
		{0, "0%"}, {1, "100%"}, {0.99999, ">99.9%"}, {0.9995, ">99.9%"}, {0.9994, "99.9%"}, {0.00001, "<0.1%"}, {0.0004999, "<0.1%"}, {0.0005, "0.1%"}, {0.25, "25%"}, {0.2512, "25.1%"},
		{math.Nextafter(1, 0), ">99.9%"}, {math.SmallestNonzeroFloat64, "<0.1%"},
	} {
		if got := share(Spread{test.share, test.share, test.share, 1}); got != test.want {
			t.Errorf("%v: got %s, want %s", test.share, got, test.want)
		}
	}
	if got := share(Spread{0.00001, 0.5, 0.99999, 3}); got != "<0.1–>99.9%" {
		t.Errorf("got %s, want <0.1–>99.9%%", got)
	}
	if got := share(Spread{}); got != "–" {
		t.Errorf("got %s without runs, want –", got)
	}
}

func TestVerdictSaysWhatHappens(t *testing.T) {
	for want, r := range map[string]Result{
		"no incident":                     {},
		"ends too soon to judge":          {During: Spread{Runs: 1}},
		"does not recover":                {Metastable: 3},
		"does not recover in 1 of 3 runs": {Metastable: 1, Recovery: Spread{1, 2, 3, 2}},
		"recovers immediately":            {Recovery: Spread{0, 0, 0, 3}},
		"recovers in 6 s":                 {Recovery: Spread{5.5, 5.8, 6, 3}},
		"recovers in 4–6 s":               {Recovery: Spread{4, 5, 6, 3}},
	} {
		if got := r.verdict(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// The next tests hold rules 15 to 18: formats.

// runOutage runs an outage once for all tests. One of its two pipelines recovers.
var runOutage = sync.OnceValues(func() (*Report, error) {
	s := Scenario{
		Name: "<b>slow & \"quoted\"</b>", Rate: Constant(100), Length: 40 * time.Second, Runs: 2, Clients: 2,
		Incidents: []Incident{{From: 10 * time.Second, For: 5 * time.Second, SlowBy: 20}},
	}
	return Run(context.Background(), s, map[string]func() resilience.Policy{
		"<script>alert(1)</script>": naive, "guide\n\x1b[31m": guide,
	})
})

func outage(t *testing.T) *Report {
	t.Helper()
	report, err := runOutage()
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func TestWriteHTMLLoadsNothingAndEscapes(t *testing.T) {
	page := written(t, outage(t).WriteHTML)
	for _, bad := range []string{"<script", "http:", "https:", "src=", "@import", "<link", "href", "url(//", "javascript", "<b>", "\x1b"} {
		if i := strings.Index(page, bad); i >= 0 {
			t.Errorf("got %q, want none: ...%s", bad, page[i:min(len(page), i+60)])
		}
	}
	if regexp.MustCompile(`<[^>]*\son[a-z]+=`).MatchString(page) {
		t.Error("got an event handler, want none")
	}
	for _, url := range regexp.MustCompile(`url\([^)]*\)`).FindAllString(page, -1) {
		if url != "url(#dots)" && url != "url(#stripes)" {
			t.Errorf("got %s, want only patterns of the page", url)
		}
	}
	for _, want := range []string{"prefers-color-scheme: dark", "@media print", "width=device-width", "&lt;script&gt;", "does not recover", "recovers in", "<li>10s to 15s: 20 times slower</li>", "<!DOCTYPE html>", "role=\"img\""} {
		if !strings.Contains(page, want) {
			t.Errorf("got no %q", want)
		}
	}
	if got := strings.Count(page, "<figure>"); got != 2 {
		t.Errorf("got %d figures, want one for each of 2 pipelines", got)
	}
}

func TestWriteHTMLHasAtMost240PointsPerCurve(t *testing.T) {
	for _, length := range []time.Duration{time.Second, 236 * time.Second, 237 * time.Second, 1000*time.Second + 1, 24 * time.Hour} {
		s := Scenario{Rate: Constant(1), Length: length}.withDefaults()
		result := newTally(&s).Result
		for i := range result.Series { // no two seconds are equal
			result.Series[i] = Second{At: i, Offered: 10, Good: float64(i % 7), Failed: float64(i % 3), Attempts: float64(i % 11), Open: float64(i%5) / 5}
		}
		r := &Report{Scenario: s, Pipelines: map[string]*Result{"users": result}}
		longest := 0
		for _, path := range regexp.MustCompile(` d="([^"]*)"`).FindAllStringSubmatch(written(t, r.WriteHTML), -1) {
			points := strings.Count(path[1], "V") + 2 // with its beginning and end
			longest = max(longest, points)
			if points > 240 {
				t.Errorf("%v: got %d points, want at most 240", length, points)
			}
		}
		if length > time.Minute && longest < 100 {
			t.Errorf("%v: got at most %d points, want a curve", length, longest)
		}
	}
}

func TestWriteHTMLDrawsMeanShareOfOpenBreakers(t *testing.T) {
	s := Scenario{Rate: Constant(1), Length: 2 * maxBins * time.Second}.withDefaults() // two seconds are one bin
	result := newTally(&s).Result
	middle := len(result.Series) / 2
	result.Series[middle].Open, result.Series[middle+1].Open = 1, 0.5
	r := &Report{Scenario: s, Pipelines: map[string]*Result{"users": result}}
	// Each bin is 340/236 = 1.44 wide, and the strip is 14 high.
	if got, want := r.page().Plots[0].Open, "M0 14H170V3.5H171.4V14H340V14H0Z"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestWriteHTMLUsesOneScale(t *testing.T) {
	page := outage(t).page()
	if len(page.Plots) != 2 || page.Plots[0].Attempts == page.Plots[1].Attempts {
		t.Fatalf("got %d plots, want two with other attempts", len(page.Plots))
	}
	// All pipelines receive the same calls, from the same server.
	a, b := page.Plots[0], page.Plots[1]
	if a.Offered != b.Offered || a.Capacity != b.Capacity {
		t.Errorf("got calls %q and %q, and capacities %q and %q, want the same", a.Offered, b.Offered, a.Capacity, b.Capacity)
	}
	for _, p := range page.Plots {
		steps := regexp.MustCompile(`V(-?[0-9.]+)`).FindAllStringSubmatch(p.Attempts, -1)
		for _, y := range steps {
			if strings.HasPrefix(y[1], "-") {
				t.Errorf("%s: got attempts above the plot: %q", p.Name, p.Attempts)
			}
		}
		if len(steps) == 0 {
			t.Errorf("%s: got attempts %q, want steps", p.Name, p.Attempts)
		}
	}
}

func TestTicksLabelTimeAxis(t *testing.T) {
	for length, want := range map[time.Duration]string{
		3 * time.Second:  "0:00 0:01 0:02 0:03",
		2 * time.Minute:  "0:00 0:30 1:00 1:30 2:00",
		10 * time.Minute: "0:00 5:00 10:00",
		24 * time.Hour:   "0 h 00 12 h 00 24 h 00",
	} {
		var labels []string
		for _, tick := range ticks(length) {
			labels = append(labels, tick.Label)
		}
		if got := strings.Join(labels, " "); got != want {
			t.Errorf("got %q for %v, want %q", got, length, want)
		}
	}
}

func TestIncidentWordsNameOnlyWhatChanges(t *testing.T) {
	slow := Incident{From: 30 * time.Second, For: 20 * time.Second, SlowBy: 10}
	all := Incident{From: time.Second, For: time.Second, Replica: 2, SlowBy: 2, Fail: 0.5, Hang: 0.25, Down: true, Capacity: 0.1, Surge: 3}
	for want, incident := range map[string]Incident{
		"30s to 50s: 10 times slower": slow,
		"0s to 1s: nothing happens":   {For: time.Second},
		"1s to 2s, at replica 2: 2 times slower, 50% of the calls fail immediately, 25% of the calls hang, connections are refused, 10% of the workers remain, 3 times as many calls": all,
	} {
		if got := incident.words(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestWriteTextIsATable(t *testing.T) {
	text := written(t, outage(t).WriteText)
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) != 9 || strings.Contains(text, "\x1b") {
		t.Errorf("got %d lines, want 9: title, setting, incident, empty, heads, rows\n%s", len(lines), text)
	}
	for _, want := range []string{"does not recover", "recovers", "10s to 15s: 20 times slower", "100 calls per second for 40s from 2 clients"} {
		if !strings.Contains(text, want) {
			t.Errorf("got no %q in\n%s", want, text)
		}
	}
	for _, line := range lines {
		if strings.TrimRight(line, " ") != line {
			t.Errorf("got spaces at the end of %q", line)
		}
	}
}

func TestWriteCSVHasALineForEachSecond(t *testing.T) {
	rows, err := csv.NewReader(strings.NewReader(written(t, outage(t).WriteCSV))).ReadAll()
	if err != nil || len(rows) != 1+2*40 || rows[1][0] != "<script>alert(1)</script>" || rows[41][1] != "0" {
		t.Errorf("got %d rows, %v, want 81", len(rows), err)
	}
	second := reflect.TypeFor[Second]()
	for i := range second.NumField() {
		if got, want := rows[0][i+1], second.Field(i).Tag.Get("json"); got != want {
			t.Errorf("got column %q, want %q", got, want)
		}
	}
}

func TestWriteJSONCanRunAgain(t *testing.T) {
	s := Scenario{
		Name: "again", Seed: 3, Rate: Replay([]time.Duration{0, 5 * time.Millisecond, time.Second + 1}), Runs: 2,
		Server: Server{Service: Recorded([]time.Duration{time.Millisecond, 1234567, time.Second})},
	}
	first := Test(t, s, one(naive))
	var read Report
	if err := json.Unmarshal(jsonOf(t, first), &read); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(read.Scenario, first.Scenario) || !reflect.DeepEqual(read.Pipelines, first.Pipelines) {
		t.Errorf("got %+v, want %+v", read.Scenario, first.Scenario)
	}
	if second := jsonOf(t, Test(t, read.Scenario, one(naive))); !bytes.Equal(second, jsonOf(t, first)) {
		t.Error("got another report from the report's scenario, want the same")
	}
}
