package sim

import (
	"encoding/json"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestValidateReportsAllErrors(t *testing.T) {
	s := Scenario{
		Runs: 1001, Length: 25 * time.Hour, Clients: -1, GoodWithin: -time.Second,
		Server: Server{Replicas: -1, Workers: -1, Queue: -2, Service: Fixed(-1), Network: LogNormal(2, 1), Fail: 1.5},
		Incidents: []Incident{
			{For: time.Second},
			{From: -time.Second, Replica: 2, SlowBy: -1, Fail: math.NaN(), Hang: 2, Capacity: 1.1, Surge: math.Inf(1)},
		},
	}
	want := []string{
		"sim: Scenario.Runs: 1001, must be 1 to 1000, or 0 for 5",
		"sim: Scenario.Length: 25h, must be 1s to 24h, or 0s for the default",
		"sim: Scenario.Clients: -1, must be 1 to 10000, or 0 for 1",
		"sim: Scenario.Rate: not set, must be set, for example to Constant(200)",
		"sim: Scenario.Server.Replicas: -1, must be 1 to 1000, or 0 for 1",
		"sim: Scenario.Server.Workers: -1, must be 1 to 1000000, or 0 for the default",
		"sim: Scenario.Server.Queue: -2, must be 1 to 1000000, 0 for 1000, or -1 for none",
		"sim: Scenario.Server.Service: fixed at -1ns, must be 0s to 24h",
		"sim: Scenario.Server.Network: logNormal with a 99th percentile of 1ns, must be the median (2ns) to 24h",
		"sim: Scenario.Server.Fail: 1.5, must be 0 to 1",
		"sim: Scenario.Incidents[1].From: -1s, must be at least 0s",
		"sim: Scenario.Incidents[1].For: 0s, must be positive",
		"sim: Scenario.Incidents[1].Replica: 2, must be 1 to Replicas (1), or 0 for all",
		"sim: Scenario.Incidents[1].SlowBy: -1, must be 0 to 10000",
		"sim: Scenario.Incidents[1].Fail: NaN, must be 0 to 1",
		"sim: Scenario.Incidents[1].Hang: 2, must be 0 to 1",
		"sim: Scenario.Incidents[1].Capacity: 1.1, must be 0 to 1",
		"sim: Scenario.Incidents[1].Surge: +Inf, must be 0 to 1000",
		"sim: Scenario.GoodWithin: -1s, must be positive, at most 24h, or 0s for 1s",
	}
	err := s.Validate()
	if err == nil || err.Error() != strings.Join(want, "\n") {
		t.Errorf("got\n%v\nwant\n%s", err, strings.Join(want, "\n"))
	}
	if _, runErr := Run(t.Context(), s, one(naive)); runErr == nil || runErr.Error() != err.Error() {
		t.Errorf("Run: got %v, want the same errors", runErr)
	}
}

func TestValidateReportsAtMostHundredErrors(t *testing.T) {
	var text strings.Builder
	text.WriteString(`{"incidents": [{"for": true}`)
	s := Scenario{Rate: Constant(1), Incidents: make([]Incident, 102)} // without For
	for range s.Incidents[1:] {
		text.WriteString(`, {"for": true}`)
	}
	text.WriteString(`]}`)
	for name, err := range map[string]error{"Validate": s.Validate(), "UnmarshalJSON": new(Scenario).UnmarshalJSON([]byte(text.String()))} {
		lines := strings.Split(err.Error(), "\n")
		if len(lines) != 101 || lines[100] != "sim: Scenario: 2 more errors" {
			t.Errorf("%s: got %d lines, the last %q, want 100 errors and the number of the rest", name, len(lines), lines[len(lines)-1])
		}
	}
}

func TestValidateChecksRates(t *testing.T) {
	for want, rate := range map[string]Rate{
		"0 calls per second":       Constant(0),
		"NaN calls per second":     Constant(math.NaN()),
		"100001 calls per second":  Constant(100_001),
		"-1 calls per second":      Steps(Step{0, -1}),
		"steps without calls":      Steps(),
		"a step at 0s":             Steps(Step{0, 1}, Step{0, 2}),
		"a step at -1s":            Steps(Step{-time.Second, 1}),
		"a ramp without calls":     Ramp(0, 0, time.Second),
		"a ramp over 0s":           Ramp(1, 2, 0),
		"+Inf calls per second":    Ramp(1, math.Inf(1), time.Second),
		"a replay without calls":   Replay(nil),
		"a call at -1ns":           Replay([]time.Duration{5, -1}),
		"a call at 24h":            Replay([]time.Duration{24 * time.Hour}),
		"no calls within 2s":       {},
		"Rate: no calls within 2s": Steps(Step{2 * time.Second, 5}),
		"no calls within 2m":       Steps(Step{2 * time.Minute, 5}), // the default
	} {
		s := Scenario{Rate: rate}
		if strings.HasSuffix(want, "within 2s") {
			s.Length = 2 * time.Second
		}
		if want == "no calls within 2s" {
			s.Rate = Replay([]time.Duration{3 * time.Second})
		}
		if err := s.Validate(); err == nil || !strings.Contains(err.Error(), "sim: Scenario.Rate: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error of Rate with %q", err, want)
		}
	}
}

func TestValidateAcceptsLibrary(t *testing.T) {
	library := Library()
	for _, name := range []string{"calm", "slow", "errors-20", "errors-100", "hang", "down", "brownout", "one-of-many", "surge", "cold-start", "flapping"} {
		incidents, ok := library[name]
		if !ok {
			t.Errorf("%s: not in the library", name)
		}
		s := Scenario{Rate: Constant(1), Incidents: incidents}
		if err := s.Validate(); err != nil || len(incidents) == 0 && name != "calm" {
			t.Errorf("%s: got %d incidents, %v, want some and nil", name, len(incidents), err)
		}
		if last := s.withDefaults(); last.Length-last.lastIncident() < 10*time.Second && name != "calm" {
			t.Errorf("%s: got an end at %v, want time to recover", name, last.lastIncident())
		}
	}
	if len(library) != 11 {
		t.Errorf("got %d entries, want 11", len(library))
	}
	library["slow"][0].SlowBy = 1
	if Library()["slow"][0].SlowBy == 1 {
		t.Error("got the same list again, want a copy")
	}
}

func TestLibraryIncidentsAreOverAfter70Seconds(t *testing.T) {
	for name, incidents := range Library() {
		for _, i := range incidents {
			if i.From < 30*time.Second || i.end() > 70*time.Second {
				t.Errorf("%s: got an incident from %v to %v, want none before 30s or after 70s", name, i.From, i.end())
			}
		}
	}
}

func TestLibraryFlapsFourTimes(t *testing.T) {
	var want []Incident
	for _, from := range []time.Duration{30 * time.Second, 40 * time.Second, 50 * time.Second, 60 * time.Second} {
		want = append(want, Incident{From: from, For: 5 * time.Second, Down: true})
	}
	if got := Library()["flapping"]; !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// full returns a scenario in which every field is set.
func full() Scenario {
	return Scenario{
		Name: "full", Seed: math.MaxUint64, Runs: 3, Length: 90 * time.Second, Clients: 2,
		Rate:       Steps(Step{0, 100}, Step{30 * time.Second, 400.5}),
		Server:     Server{Replicas: 3, Workers: 4, Queue: -1, Service: LogNormal(20*time.Millisecond, 100*time.Millisecond), Network: Fixed(0), Fail: 0.01, GivesUp: true},
		Incidents:  []Incident{{From: time.Second, For: time.Minute, Replica: 1, SlowBy: 10, Fail: 0.1, Hang: 0.2, Down: true, Capacity: 0.5, Surge: 1e-7}, {For: 1}},
		GoodWithin: 1500 * time.Millisecond,
	}
}

func TestScenarioHasAJSONForm(t *testing.T) {
	const want = `{"name":"full","seed":18446744073709551615,"runs":3,"length":"1m30s","clients":2,"rate":"steps(0s: 100, 30s: 400.5)",` +
		`"server":{"replicas":3,"workers":4,"queue":-1,"service":"logNormal(20ms, 100ms)","network":"fixed(0s)","fail":0.01,"givesUp":true},` +
		`"incidents":[{"from":"1s","for":"1m","replica":1,"slowBy":10,"fail":0.1,"hang":0.2,"down":true,"capacity":0.5,"surge":1e-7},{"for":"1ns"}],` +
		`"goodWithin":"1.5s"}`
	s := full()
	got, err := json.Marshal(s)
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
	var read Scenario
	if err := json.Unmarshal(got, &read); err != nil || !reflect.DeepEqual(read, s) {
		t.Errorf("got %+v, %v, want %+v", read, err, s)
	}
	// No field is forgotten.
	v := reflect.ValueOf(s)
	for i := range v.NumField() {
		if v.Field(i).IsZero() && v.Type().Field(i).Name != "OnProgress" {
			t.Errorf("%s is not set, must be", v.Type().Field(i).Name)
		}
	}
	if got, err := json.Marshal(Scenario{Rate: Constant(200)}); err != nil || string(got) != `{"rate":"200"}` {
		t.Errorf("got %s, %v, want only the rate", got, err)
	}
}

func TestScenarioJSONIsStrict(t *testing.T) {
	for text, want := range map[string][]string{
		`{"Rate": "200"}`:                      {`sim: Scenario: "Rate", must be one of name,`},
		`{"rate": "200", "rate": "300"}`:       {`sim: Scenario: "rate", must be set once`},
		`{"runs": "3", "length": 20}`:          {`sim: Scenario.Runs: "3", must be a whole number`, `sim: Scenario.Length: 20, must be a duration`},
		`{"length": "20"}`:                     {`sim: Scenario.Length: "20", must be a duration`},
		`{"runs": 1.5, "seed": -1}`:            {`sim: Scenario.Runs: 1.5`, `sim: Scenario.Seed: -1`},
		`{"name": null}`:                       {`sim: Scenario.Name: null, must be text`},
		`{"server": {"queu": 1, "fail": "x"}}`: {`sim: Scenario.Server: "queu", must be one of`, `sim: Scenario.Server.Fail: "x", must be a number`},
		`{"server": {"service": "fixed(20)"}}`: {`sim: Scenario.Server.Service: "fixed(20)", must be a distribution: "20" must be a duration`},
		`{"server": []}`:                       {`sim: Scenario.Server: a list, must be an object`},
		`{"incidents": {}}`:                    {`sim: Scenario.Incidents: an object, must be a list`},
		`{"incidents": [{"for": "1s"}, {"down": 1, "x": {"y": [1, 2]}, "for": true}]}`: {`sim: Scenario.Incidents[1].Down: 1, must be true or false`, `sim: Scenario.Incidents[1]: "x"`, `sim: Scenario.Incidents[1].For: true`},
		`{"rate": "ramp(1, 2)"}`:     {`sim: Scenario.Rate: "ramp(1, 2)", must be a rate`},
		`{"rate": true}`:             {`sim: Scenario.Rate: true, must be a rate such as "200"`},
		`{"server": {"network": 5}}`: {`sim: Scenario.Server.Network: 5, must be a distribution such as "fixed(20ms)"`},
		`{"rate": 0}`:                {`sim: Scenario.Rate: "0", must be a rate: Rate: 0 calls per second, must be above 0`},
		`[]`:                         {`sim: Scenario: a list, must be an object`},
		`null`:                       {`sim: Scenario: null, must be an object`},
		`{"onProgress": 1}`:          {`sim: Scenario: "onProgress"`},
	} {
		s := full()
		err := json.Unmarshal([]byte(text), &s)
		if err == nil {
			t.Errorf("%s: got nil, want an error", text)
			continue
		}
		for _, part := range want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: got %v, want %s", text, err, part)
			}
		}
		if got := len(strings.Split(err.Error(), "\n")); got != len(want) {
			t.Errorf("%s: got %d errors, want %d: %v", text, got, len(want), err)
		}
		if !reflect.DeepEqual(s, full()) {
			t.Errorf("%s: got a changed scenario, want none after an error", text)
		}
	}
	var s Scenario
	if err := json.Unmarshal([]byte(`{"rate": 200}`), &s); err != nil || s.Rate.String() != "200" {
		t.Errorf("got %v, %v, want a number as a rate", s.Rate, err)
	}
	if err := s.UnmarshalJSON([]byte(`{} {}`)); err == nil {
		t.Error("got nil for two values, want an error")
	}
}

func TestScenarioJSONReportsErrorsInLists(t *testing.T) {
	var s Scenario
	if err := json.Unmarshal([]byte(`{"incidents": [{"slowBy": true}]}`), &s); err == nil || !strings.Contains(err.Error(), "ncidents[0]") {
		t.Errorf("got %v, want an error that names the incident", err)
	}
}

func TestScenarioJSONNamesThePlaceOfSyntaxErrors(t *testing.T) {
	for text, want := range map[string]string{
		`{"incidents": [{"slowBy": ]}`:      "Scenario.Incidents[0].SlowBy: invalid character ']'",
		`{"incidents": [{"slowBy": 1}, `:    "Scenario.Incidents[1]: unexpected EOF",
		`{"incidents": [x]}`:                "Scenario.Incidents[0]: invalid character 'x'",
		`{"incidents": [{"for": "1s"} {}]}`: "Scenario.Incidents[1]: invalid character '{'",
		`{"server": {"queue" 1}}`:           "Scenario.Server.Queue: invalid character '1'",
		`{"server": {"queue": 1`:            "Scenario.Server: unexpected EOF",
		`{"x": {"y": `:                      "Scenario: unexpected EOF",
		`{"x": `:                            "Scenario: unexpected EOF",
		`{"x": [1, }`:                       "Scenario: invalid character '}'",
		`{"runs": 1,}`:                      "Scenario: invalid character '}'",
		`{"runs": 1 "seed": 2}`:             "Scenario: invalid character '\"'",
		`{x`:                                "Scenario: invalid character 'x'",
		`{`:                                 "Scenario: unexpected EOF",
		``:                                  "Scenario: unexpected EOF",
		`{"runs": 1}}`:                      "Scenario: more text follows the JSON value",
	} {
		if err := new(Scenario).UnmarshalJSON([]byte(text)); err == nil || !strings.HasPrefix(err.Error(), "sim: "+want) {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}

func TestRateText(t *testing.T) {
	for text, want := range map[string]Rate{
		"200":                        Constant(200),
		"0.5":                        Constant(0.5),
		"steps(0s: 100, 30s: 400)":   Steps(Step{0, 100}, Step{30 * time.Second, 400}),
		"ramp(100, 400, 1m)":         Ramp(100, 400, time.Minute),
		"replay(0s, 1.5ms, 2h)":      Replay([]time.Duration{2 * time.Hour, 0, 1500 * time.Microsecond}),
		" steps( 0s:100 ,1h1m: 4 ) ": Steps(Step{0, 100}, Step{time.Hour + time.Minute, 4}),
		"1e3":                        Constant(1000),
	} {
		var got Rate
		if err := got.UnmarshalText([]byte(text)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v, want %+v", text, got, err, want)
		}
		again, err := got.MarshalText()
		var back Rate
		if err != nil || back.UnmarshalText(again) != nil || !reflect.DeepEqual(back, want) {
			t.Errorf("%s: got %s, %v, want a text that reads the same", text, again, err)
		}
	}
	for _, text := range []string{"", "x", "-1", "NaN", "Inf", "0x10", "1_000", "200/s", "steps", "steps()", "steps(0s)", "steps(0s: 1, 0s: 2)", "ramp(1, 2, 3)", "replay()", "replay(1)", "steps(0s: 1", "steps(0s: 1))", "ramp(1, 2, 1s, 1s)", "fixed(1s)", "1e999"} {
		var r Rate
		if err := r.UnmarshalText([]byte(text)); err == nil || !strings.HasPrefix(err.Error(), "sim: ") {
			t.Errorf("%q: got %v, %v, want an error of sim", text, r, err)
		}
	}
	if _, err := (Rate{}).MarshalText(); err == nil {
		t.Error("got nil for the zero rate, want an error")
	}
	if got := Replay(make([]time.Duration, 3)).String(); got != "replay of 3 calls" {
		t.Errorf("got %q, want a replay of 3 calls", got)
	}
}

func TestDistributionText(t *testing.T) {
	const ms = time.Millisecond
	for text, want := range map[string]Distribution{
		"fixed(20ms)":                      Fixed(20 * ms),
		"exponential(20ms)":                Exponential(20 * ms),
		"logNormal(20ms, 100ms)":           LogNormal(20*ms, 100*ms),
		"percentiles(50: 5ms, 99.9: 50ms)": Percentiles(Percentile{50, 5 * ms}, Percentile{99.9, 50 * ms}),
		"recorded(5ms, 1ms)":               Recorded([]time.Duration{5 * ms, ms}),
	} {
		var got Distribution
		if err := got.UnmarshalText([]byte(text)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v, want %+v", text, got, err, want)
		}
		if again, err := got.MarshalText(); err != nil || string(again) != text {
			t.Errorf("got %s, %v, want %s", again, err, text)
		}
	}
	for _, text := range []string{"", "20ms", "fixed", "fixed()", "fixed(1)", "fixed(-1ms)", "fixed(25h)", "exponential(0s)", "logNormal(20ms)", "logNormal(20ms, 10ms)", "percentiles()", "percentiles(50: 5ms, 50: 6ms)", "percentiles(50: 5ms, 60: 4ms)", "percentiles(101: 5ms)", "percentiles(50: 0s)", "recorded()", "recorded(-1ms)", "Fixed(1ms)"} {
		var d Distribution
		if err := d.UnmarshalText([]byte(text)); err == nil || !strings.HasPrefix(err.Error(), "sim: ") {
			t.Errorf("%q: got %v, %v, want an error of sim", text, d, err)
		}
	}
}

func TestDistributionMeanAgreesWithItsTimes(t *testing.T) {
	const ms = time.Millisecond
	for _, d := range []Distribution{
		Fixed(20 * ms), Exponential(20 * ms), LogNormal(20*ms, 100*ms), Recorded([]time.Duration{ms, 3 * ms, 50 * ms}),
		Percentiles(Percentile{50, 5 * ms}, Percentile{90, 5 * ms}, Percentile{99, 50 * ms}), Percentiles(Percentile{100, 7 * ms}),
	} {
		sum, n := 0.0, 200_000
		last := time.Duration(0)
		for i := range n {
			at := d.at((float64(i) + 0.5) / float64(n))
			if at < last && d.kind != "recorded" && d.kind != "exponential" {
				t.Fatalf("%v: got %v after %v, want ascending times", d, at, last)
			}
			last = at
			sum += at.Seconds()
		}
		if got, want := d.Mean().Seconds(), sum/float64(n); !near(got, want, 0.002) {
			t.Errorf("%v: got a mean of %v, want %v", d, got, want)
		}
	}
	d := LogNormal(20*ms, 100*ms)
	if got := d.at(0.99); !near(got.Seconds(), 0.1, 1e-6) {
		t.Errorf("got a 99th percentile of %v, want 100ms", got)
	}
	p := Percentiles(Percentile{50, 10 * ms}, Percentile{90, 1000 * ms})
	if got := p.at(0.7); !near(got.Seconds(), 0.1, 1e-6) {
		t.Errorf("got %v between 10ms and 1s, want 100ms", got)
	}
	if p.at(0.1) != 10*ms || p.at(0.99) != 1000*ms {
		t.Errorf("got %v and %v beyond the points, want those of the points", p.at(0.1), p.at(0.99))
	}
	if got := (Distribution{}).Mean(); got != 0 {
		t.Errorf("got %v for the zero distribution, want 0", got)
	}
}
