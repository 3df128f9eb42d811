package sim

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

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

func TestScenarioJSONReportsErrorsInLists(t *testing.T) {
	var s Scenario
	if err := json.Unmarshal([]byte(`{"incidents": [{"slowBy": true}]}`), &s); err == nil || !strings.Contains(err.Error(), "ncidents[0]") {
		t.Errorf("got error %v, want one that names the incident", err)
	}
}

func TestScenarioJSONReportsBrokenList(t *testing.T) {
	for _, text := range []string{`{"incidents": [{"slowBy": ]}`, `{"incidents": [{"slowBy": 1}, `, `{"incidents": [x]}`} {
		if err := new(Scenario).UnmarshalJSON([]byte(text)); err == nil {
			t.Errorf("got no error for %s", text)
		}
	}
}
