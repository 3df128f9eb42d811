package sim

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestReadTraceReadsCalls(t *testing.T) {
	const ms = time.Millisecond
	for name, text := range map[string]string{
		"seconds":  "start,duration,outcome\n12.5,0.020,ok\n10,30ms,200\n10.25,1s,503\n11.000000001,10ms,error\n",
		"RFC 3339": "\uFEFFhost, outcome ,duration,start\r\na,ok,20ms,2026-01-02T03:04:07.5Z\r\nb,404,30ms,2026-01-02T04:04:05+01:00\r\nc,,1,2026-01-02T03:04:05.25Z\r\nd,500,10ms,2026-01-02T03:04:06.000000001Z\r\n",
	} {
		got, err := ReadTrace(strings.NewReader(text))
		want := &Trace{Calls: 4, Failed: 2, Used: 2, Rate: Replay([]time.Duration{0, 250 * ms, time.Second + 1, 2500 * ms}), Service: Recorded([]time.Duration{30 * ms, 20 * ms})}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v, want %+v", name, got, err, want)
		}
	}
	got, err := ReadTrace(strings.NewReader("duration,start\n20ms,-5\n20ms,-4\n"))
	if err != nil || got.Calls != 2 || got.Failed != 0 {
		t.Errorf("got %+v, %v without outcomes, want two successful calls", got, err)
	}
	if want := "2 calls in 1s, 0 failed; service times of 2 successful calls, mean 20ms"; got.String() != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if s := (Scenario{Rate: got.Rate, Server: Server{Service: got.Service}}).withDefaults(); s.Length != 2*time.Second {
		t.Errorf("got a length of %v, want 1s after the last call", s.Length)
	}
}

func TestReadTraceNamesTheLine(t *testing.T) {
	for text, want := range map[string]string{
		"":                                              "empty",
		"start\n1\n":                                    "line 1",
		"1,2\n":                                         "line 1",
		"start,start,duration\n":                        "line 1",
		"start,duration\n1,1\nx,1\n":                    "line 3: start \"x\"",
		"start,duration\n1,1\n\n\n1,x\n":                "line 5: duration \"x\"",
		"start,duration\n1,1\n1\n":                      "line 3",
		"start,duration\n1,-1ms\n":                      "line 2: duration",
		"start,duration\n1,25h\n":                       "line 2: duration",
		"start,duration\n1,\"a\n":                       "line 2",
		"start,duration\nNaN,1\n":                       "line 2: start",
		"start,duration\n1e300,1\n":                     "line 2: start",
		"start,duration\n99999999999,1\n":               "line 2: start",
		"start,duration,outcome\n1,1,500\n":             "no successful call",
		"start,duration\n-9000000000,1\n9000000000,1\n": "the calls span more than 292 years",
		"start,duration\n":                              "no successful call",
		"start,duration\n2026-13-01T00:00:00Z,1":        "line 2: start",
	} {
		if got, err := ReadTrace(strings.NewReader(text)); err == nil || got != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, %v, want nil and an error with %q", text, got, err, want)
		}
	}
}

func TestReadTraceIsBounded(t *testing.T) {
	text := "start,duration\n1,1\n2,1\n3,1\n"
	size := int64(len(text))
	for _, test := range []struct {
		size  int64
		calls int
		want  string
	}{
		{size, 3, ""},
		{size - 1, 3, "sim: trace: larger than 1 GiB"}, // without the last line's end
		{size - 3, 3, "sim: trace: larger than 1 GiB"}, // within the last line
		{size, 2, "sim: trace: line 4: more than 2 calls"},
	} {
		got, err := readTrace(strings.NewReader(text), test.size, test.calls)
		if test.want == "" && err == nil && got.Calls == 3 {
			continue
		}
		if err == nil || got != nil || err.Error() != test.want {
			t.Errorf("%d bytes and %d calls: got %v, %v, want nil and %q", test.size, test.calls, got, err, test.want)
		}
	}
}

func TestRoundedHasAboutThreeDigits(t *testing.T) {
	for d, want := range map[time.Duration]string{
		999:                         "999ns",
		1_234_567:                   "1.23ms",
		12_345 * time.Second:        "3h25m",
		1_000_000 * time.Second:     "278h", // from there on, whole hours
		9_000_000_000 * time.Second: "2500000h",
	} {
		if got := short(rounded(d)); got != want {
			t.Errorf("%v: got %s, want %s", d, got, want)
		}
	}
}

// recordedQueue returns the trace of a server with some workers, at a load.
func recordedQueue(rate float64, workers int) string {
	random := rand.New(rand.NewPCG(1, 2))
	free := make([]float64, workers)
	var b strings.Builder
	b.WriteString("start,duration\n")
	now := 0.0
	for range 20_000 {
		now += random.ExpFloat64() / rate
		first := 0
		for i := range free {
			if free[i] < free[first] {
				first = i
			}
		}
		free[first] = max(free[first], now) + 0.02*random.ExpFloat64()
		fmt.Fprintf(&b, "%.9f,%.9f\n", now, free[first]-now)
	}
	return b.String()
}

func TestReadTraceRemovesQueueing(t *testing.T) {
	busy, err := ReadTrace(strings.NewReader(recordedQueue(170, 4))) // 85% load
	if err != nil || busy.Used != 5000 || !near(busy.Service.Mean().Seconds(), 0.02, 0.05) {
		t.Errorf("got %v, %v, want a quarter of the calls with a mean of 20ms", busy, err)
	}
	if err == nil && !strings.Contains(busy.String(), "met the fewest others") {
		t.Errorf("got %q, want it to state that queueing was removed", busy)
	}
	later, err := ReadTrace(strings.NewReader("start,duration\n0,1ms\n1,1ms\n2,1ms\n3,1ms\n4,9ms\n5,9ms\n6,9ms\n7,9ms\n"))
	if err != nil || later.Used != 8 {
		t.Errorf("got %v, %v for calls that met no others, want all of them", later, err)
	}
	idle, err := ReadTrace(strings.NewReader(recordedQueue(50, 50)))
	if err != nil || idle.Used != 20_000 || !near(idle.Service.Mean().Seconds(), 0.02, 0.05) {
		t.Errorf("got %v, %v, want all calls with a mean of 20ms", idle, err)
	}
}
