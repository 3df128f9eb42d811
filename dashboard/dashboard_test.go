package dashboard

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/effector-go/resilience/observe"
	"golang.org/x/sync/errgroup"
)

// get makes a request of d, with header fields as pairs.
func get(d http.Handler, target string, fields ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, target, nil)
	for i := 0; i < len(fields); i += 2 {
		r.Header.Add(fields[i], fields[i+1])
	}
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	return w
}

func stateOf(t *testing.T, d http.Handler) map[string]any {
	t.Helper()
	w := get(d, "/state.json")
	var s map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &s); err != nil || w.Code != http.StatusOK {
		t.Fatalf("got status %d, %v: %s", w.Code, err, w.Body)
	}
	return s
}

func TestNewPanicsOnMistakes(t *testing.T) {
	for name, test := range map[string]struct {
		observer *observe.Observer
		config   Config
		want     string
	}{
		"nil":   {nil, Config{}, "dashboard: the Observer is nil"},
		"short": {observe.New(observe.Config{}), Config{Interval: time.Millisecond, History: time.Second}, "dashboard: Interval is 1ms, must be 100ms to 1m0s, or 0 for 1s\ndashboard: History is 1s, must be 1m0s to 24h0m0s, or 0 for 1h"},
		"long":  {observe.New(observe.Config{}), Config{Interval: time.Hour, History: 25 * time.Hour}, "dashboard: Interval is 1h0m0s, must be 100ms to 1m0s, or 0 for 1s\ndashboard: History is 25h0m0s, must be 1m0s to 24h0m0s, or 0 for 1h"},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if got := recover(); got != test.want {
					t.Errorf("got panic %v, want %s", got, test.want)
				}
			}()
			New(test.observer, test.config)
		})
	}
}

func TestConfigValidateAcceptsBounds(t *testing.T) {
	for _, c := range []Config{{}, {Interval: 100 * time.Millisecond, History: time.Minute}, {Interval: time.Minute, History: 24 * time.Hour}} {
		if err := c.Validate(); err != nil {
			t.Errorf("%+v: got %v, want nil", c, err)
		}
	}
}

func TestConfigWithDefaultsNamesProgram(t *testing.T) {
	defer func(args []string) { os.Args = args }(os.Args)
	for _, test := range []struct {
		title, program, want string
	}{
		{"", "/usr/bin/payments", "payments"},
		{"", "payments.exe", "payments"},
		{"Payments", "/usr/bin/payments", "Payments"},
	} {
		os.Args = []string{test.program, "serve"}
		if got := (Config{Title: test.title}).withDefaults().Title; got != test.want {
			t.Errorf("title %q of %s: got %q, want %q", test.title, test.program, got, test.want)
		}
	}
}

func TestDashboardSamplesWithoutViewers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSource{}
		d := start(f, Config{})
		time.Sleep(time.Minute + time.Millisecond)
		if got := f.count(); got != 7 {
			t.Errorf("got %d samples in a minute without a viewer, want 7", got)
		}
		d.Close()
		d = start(f, Config{Interval: time.Minute})
		defer d.Close()
		before := f.count()
		time.Sleep(10*time.Minute + time.Millisecond)
		if got := f.count() - before; got != 10 {
			t.Errorf("got %d samples in 10 min with an Interval of 1 min, want 10", got)
		}
	})
}

func TestDashboardSamplesEachIntervalForViewers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSource{}
		d := start(f, Config{})
		defer d.Close()
		time.Sleep(5 * time.Second)
		get(d, "/state.json")
		if got := f.count(); got != 2 {
			t.Fatalf("got %d samples, want 2: the first, and one for the first viewer", got)
		}
		time.Sleep(59*time.Second + time.Millisecond)
		if got := f.count(); got != 61 {
			t.Errorf("got %d samples in the minute after a request, want 61", got)
		}
		time.Sleep(time.Minute)
		if got := f.count(); got > 70 {
			t.Errorf("got %d samples, want one in 10 s after a minute without a request", got)
		}
	})
}

func TestDashboardSamplesAsOftenFor50Viewers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSource{}
		d := start(f, Config{})
		defer d.Close()
		var group errgroup.Group
		for i := range 50 {
			group.Go(func() error {
				time.Sleep(time.Duration(i) * 17 * time.Millisecond)
				for range 60 {
					at, err := time.Parse(time.RFC3339, stateOf(t, d)["at"].(string))
					if age := time.Since(at); err != nil || age >= time.Second {
						t.Errorf("got a state that is %v old (%v), want less than 1 s", age, err)
					}
					time.Sleep(time.Second)
				}
				return nil
			})
		}
		group.Wait()
		if got := f.count(); got > 63 {
			t.Errorf("got %d samples in 61 s, want about one per second", got)
		}
	})
}

func TestDashboardSamplesTakeAtMostTwentiethOfTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSource{during: func() { time.Sleep(500 * time.Millisecond) }}
		d := start(f, Config{})
		defer d.Close()
		for range 600 {
			get(d, "/state.json")
			time.Sleep(500 * time.Millisecond)
		}
		if got := f.count(); got > 32 || got < 25 {
			t.Errorf("got %d samples of 0.5 s in 5 min, want about 30", got)
		}
	})
}

func TestDashboardSavesLittleTimeForSlowSamples(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSource{}
		d := start(f, Config{})
		defer d.Close()
		time.Sleep(time.Hour) // in which samples take no time
		f.mu.Lock()
		f.during = func() { time.Sleep(500 * time.Millisecond) }
		f.mu.Unlock()
		before := f.count()
		for range 600 {
			get(d, "/state.json")
			time.Sleep(500 * time.Millisecond)
		}
		if got := f.count() - before; got > 40 {
			t.Errorf("got %d samples of 0.5 s in 5 min, want about 30, although there were none before", got)
		}
	})
}

func TestDashboardForgivesOneSlowSample(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSource{}
		d := start(f, Config{})
		defer d.Close()
		for i := range 20 {
			f.mu.Lock()
			f.during = func() {
				if i == 10 { // the process was interrupted
					time.Sleep(200 * time.Millisecond)
				}
				f.mu.Lock()
				defer f.mu.Unlock()
				f.during = nil
			}
			f.mu.Unlock()
			at, err := time.Parse(time.RFC3339, stateOf(t, d)["at"].(string))
			if age := time.Since(at); err != nil || age >= time.Second {
				t.Errorf("request %d: got a state that is %v old (%v), want less than 1 s", i, age, err)
			}
			time.Sleep(time.Second)
		}
	})
}

func TestDashboardHasNoGoroutineAtRest(t *testing.T) {
	before := runtime.NumGoroutine()
	d := New(observe.New(observe.Config{}), Config{})
	defer d.Close()
	if got := runtime.NumGoroutine(); got > before {
		t.Errorf("got %d goroutines, want %d as before", got, before)
	}
}

func TestDashboardEncodesOncePerSample(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := start(&fakeSource{snap: observe.Snapshot{Pipelines: []observe.PipelineSnapshot{pipelineOf("p", nil)}}}, Config{})
		defer d.Close()
		get(d, "/state.json")
		first, _, _ := d.current(t.Context())
		second, _, _ := d.current(t.Context())
		if &first.plain[0] != &second.plain[0] || &d.gzipped(first)[0] != &d.gzipped(second)[0] {
			t.Error("got a state that was encoded or compressed again, want that of the latest sample")
		}
		if h := d.history(first, id(pipelineKind, "p")); h == nil || h != d.history(second, id(pipelineKind, "p")) {
			t.Error("got a history that was encoded again, want that of the latest sample")
		}
	})
}

func TestStateIsCompressedIfAccepted(t *testing.T) {
	d := New(observe.New(observe.Config{}), Config{})
	defer d.Close()
	for accept, want := range map[string]string{
		"": "", "gzip": "gzip", "br, GZIP ;q=0.5": "gzip", "gzip;q=0": "", "gzip; q=0.000": "", "gzipped": "", "identity": "",
	} {
		w := get(d, "/state.json", "Accept-Encoding", accept)
		if got := w.Header().Get("Content-Encoding"); got != want || w.Header().Get("Vary") != "Accept-Encoding" {
			t.Errorf("Accept-Encoding %q: got %q, want %q", accept, got, want)
		}
		body := io.Reader(w.Body)
		if want == "gzip" {
			var err error
			if body, err = gzip.NewReader(w.Body); err != nil {
				t.Fatal(err)
			}
		}
		if err := json.NewDecoder(body).Decode(&map[string]any{}); err != nil {
			t.Errorf("Accept-Encoding %q: got %v, want JSON", accept, err)
		}
	}
}

func TestDashboardSurvivesReportThatPanics(t *testing.T) {
	for name, during := range map[string]func(){"panic": func() { panic("report") }, "exit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fakeSource{snap: observe.Snapshot{Pipelines: []observe.PipelineSnapshot{pipelineOf("p", nil)}}}
				d := start(f, Config{})
				defer d.Close()
				stateOf(t, d)
				f.mu.Lock()
				f.during = during
				f.mu.Unlock()
				time.Sleep(30 * time.Second) // the timer's samples panic too
				request := func() int {
					done := make(chan int, 1)
					go func() { // a goroutine that may exit
						defer close(done)
						done <- get(d, "/state.json").Code
					}()
					return <-done
				}
				if got := request(); got != http.StatusInternalServerError && name == "panic" {
					t.Errorf("got status %d, want 500", got)
				}
				if got := get(d, "/").Code; got != http.StatusOK {
					t.Errorf("got status %d for the page, want 200", got)
				}
				f.mu.Lock()
				f.during = nil
				f.mu.Unlock()
				if got := request(); got != http.StatusInternalServerError {
					t.Errorf("got status %d before another sample, want 500", got)
				}
				time.Sleep(time.Second)
				if got := request(); got != http.StatusOK {
					t.Errorf("got status %d after a good sample, want 200", got)
				}
			})
		})
	}
}

func TestNewSurvivesReportThatPanics(t *testing.T) {
	f := &fakeSource{during: func() { panic("report") }}
	d := start(f, Config{})
	defer d.Close()
	if got := get(d, "/state.json").Code; got != http.StatusInternalServerError {
		t.Errorf("got status %d, want 500", got)
	}
	if w := get(d, "/?pipeline=unknown123"); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "The Report of a policy panics") {
		t.Errorf("got status %d, want a page that names the reason:\n%s", w.Code, w.Body)
	}
}

func TestDashboardWaitsNoLongerThanClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		f := &fakeSource{}
		d := start(f, Config{})
		defer d.Close()
		f.mu.Lock()
		f.during = func() { <-release }
		f.mu.Unlock()
		time.Sleep(11 * time.Second) // the timer's sample blocks
		server := httptest.NewRequest(http.MethodGet, "/state.json", nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		w := httptest.NewRecorder()
		begin := time.Now()
		d.ServeHTTP(w, server.WithContext(ctx))
		if got := time.Since(begin); w.Code != http.StatusServiceUnavailable || got != time.Second {
			t.Errorf("got status %d after %v, want 503 after 1s", w.Code, got)
		}
		close(release)
	})
}

func TestCloseStopsSampling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSource{}
		d := start(f, Config{})
		for range 2 {
			if err := d.Close(); err != nil {
				t.Errorf("got %v, want nil", err)
			}
		}
		before := f.count()
		for _, path := range []string{"/", "/state.json", "/static/x.js", "/unknown"} {
			w := get(d, path)
			if w.Code != http.StatusServiceUnavailable || w.Header().Get("Content-Security-Policy") == "" {
				t.Errorf("%s: got status %d after Close, want 503 with the headers", path, w.Code)
			}
		}
		time.Sleep(time.Hour)
		if got := f.count(); got != before {
			t.Errorf("got %d samples after Close, want none", got-before)
		}
	})
}

func TestCloseDuringSampleStopsSampling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSource{during: func() { time.Sleep(time.Second) }}
		d := start(f, Config{})
		time.Sleep(20*time.Second + 500*time.Millisecond) // within the second sample
		d.Close()
		before := f.count()
		time.Sleep(time.Hour)
		if got := f.count(); got != before {
			t.Errorf("got %d samples after Close, want none", got-before)
		}
	})
}
