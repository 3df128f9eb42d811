package sim

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

// FuzzReadTrace reads traces: what it returns can run.
func FuzzReadTrace(f *testing.F) {
	f.Add("start,duration,outcome\n12.5,0.020,ok\n10,30ms,200\n10.25,1s,503\n")
	f.Add("\uFEFFhost, outcome ,duration,start\r\na,ok,20ms,2026-01-02T03:04:07.5Z\r\n")
	f.Add("start,duration\n-9000000000,24h\n9000000000,0\n")
	f.Add("start,duration\n1700-01-01T00:00:00Z,1\n2200-01-01T00:00:00Z,1\n")
	f.Fuzz(func(t *testing.T, text string) {
		trace, err := ReadTrace(strings.NewReader(text))
		if err != nil {
			if trace != nil || !strings.HasPrefix(err.Error(), "sim: trace: ") {
				t.Fatalf("got %v, %v, want nil and an error of sim", trace, err)
			}
			return
		}
		if trace.Used < 1 || trace.Used+trace.Failed > trace.Calls || trace.String() == "" {
			t.Fatalf("got %+v, want between 1 and all successful calls in use", trace)
		}
		s := Scenario{Rate: trace.Rate, Length: time.Minute, Server: Server{Service: trace.Service}}
		if err := s.Validate(); err != nil {
			t.Fatalf("got %v, want a valid scenario", err)
		}
	})
}

// FuzzScenarioJSON reads scenarios: what is valid reads the same again after it was written.
func FuzzScenarioJSON(f *testing.F) {
	text, err := json.Marshal(full())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"rate":"200","incidents":[{"for":"1s","down":true}]}`))
	f.Add([]byte(`{"rate":1e2,"server":{"service":"percentiles(50: 5ms, 99: 50ms)"},"x":[[{}]],"seed":1,"seed":2}`))
	f.Add([]byte(`{"rate":"replay(0s, 1ms)","server":{"network":"recorded(1ms)"}}`))
	f.Add([]byte(`{"rate":"steps(2m: 1)"}`)) // after the default Length
	f.Fuzz(func(t *testing.T, data []byte) {
		var s Scenario
		if err := s.UnmarshalJSON(data); err != nil {
			if !reflect.DeepEqual(s, Scenario{}) || !strings.HasPrefix(err.Error(), "sim: ") {
				t.Fatalf("got %+v, %v, want no scenario and an error of sim", s, err)
			}
			return
		}
		if s.Validate() != nil {
			return
		}
		written, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var again Scenario
		if err := json.Unmarshal(written, &again); err != nil {
			t.Fatalf("%s: %v", written, err)
		}
		rewritten, err := json.Marshal(again)
		if err != nil || !bytes.Equal(written, rewritten) {
			t.Fatalf("got %s, %v, want %s", rewritten, err, written)
		}
		if err := s.withDefaults().Validate(); err != nil {
			t.Fatalf("got %v with defaults, want nil", err)
		}
	})
}

// FuzzText reads rates and distributions: what is valid reads the same again after it was written.
func FuzzText(f *testing.F) {
	for _, text := range []string{"200", "steps(0s: 100, 30s: 400)", "ramp(100, 400, 1m)", "replay(0s, 12ms)", "fixed(20ms)", "exponential(1h)", "logNormal(20ms, 100ms)", "percentiles(50: 5ms, 99: 50ms)", "recorded(1ms, 1ns)"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var r, r2 Rate
		if err := r.UnmarshalText([]byte(text)); err == nil {
			written, err := r.MarshalText()
			if err != nil || r2.UnmarshalText(written) != nil || !reflect.DeepEqual(r, r2) {
				t.Fatalf("got %s, %v, want the text of %q", written, err, text)
			}
			if m := r.mean(time.Minute); !(m >= 0 && m <= 1e12) {
				t.Fatalf("got a mean of %v, want a number", m)
			}
		}
		var d, d2 Distribution
		if err := d.UnmarshalText([]byte(text)); err == nil {
			written, err := d.MarshalText()
			if err != nil || d2.UnmarshalText(written) != nil || !reflect.DeepEqual(d, d2) {
				t.Fatalf("got %s, %v, want the text of %q", written, err, text)
			}
			for _, u := range []float64{1e-16, 0.5, 1 - 1e-16} {
				if at := d.at(u); at < 0 || at > maxTime {
					t.Fatalf("got %v, want 0 to %v", at, maxTime)
				}
			}
			if m := d.Mean(); m < 0 || m > maxTime {
				t.Fatalf("got a mean of %v, want 0 to %v", m, maxTime)
			}
		}
	})
}
