package dashboard

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/observe"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// A night: the dependency fails while nobody looks, probes fail for an hour, then it recovers.
func TestDashboardShowsOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		obs := observe.New(observe.Config{})
		b := breaker.New(breaker.Config{Name: "payments", Consecutive: 5, OpenFor: 10 * time.Second, MaxOpenFor: 10 * time.Second})
		payments := obs.Pipeline("payments", timeout.After(3*time.Second), retry.New(retry.Config{Name: "payments", Backoff: retry.Constant(time.Millisecond)}), b)
		d := New(obs, Config{})
		defer d.Close()
		failing := false
		run := func(lasts time.Duration) {
			for end := time.Now().Add(lasts); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
				resilience.Run(context.Background(), payments, func(context.Context) error {
					time.Sleep(5 * time.Millisecond)
					if failing {
						return &url.Error{Op: "Post", URL: "https://u:secret@host/?key=secret", Err: errors.New("connection refused")}
					}
					return nil
				})
			}
		}
		decode := func() (s struct {
			Troubles []struct {
				Level, What, Why, Advice, Policy string
				Since                            time.Time
				Error                            *errorJSON
				Pipelines                        []string
			}
			Pipelines []struct {
				Level          string
				Good, P50, P99 *float64
				Rate, Attempts float64
				Layers         []struct {
					Kind            string
					Entered, Passed float64
					States          map[string]int
				}
			}
		}) {
			if err := json.Unmarshal(get(d, "/state.json").Body.Bytes(), &s); err != nil {
				t.Fatal(err)
			}
			return s
		}

		run(20 * time.Minute)
		s := decode()
		if len(s.Troubles) != 0 || s.Pipelines[0].Level != "ok" || *s.Pipelines[0].Good != 1 {
			t.Fatalf("before the outage: got %+v", s)
		}
		if p50 := *s.Pipelines[0].P50; p50 < 0.002 || p50 > 0.005 {
			t.Errorf("got p50 %v, want the bucket of 5 ms", p50)
		}
		began := time.Now()
		failing = true
		run(time.Hour)
		s = decode()
		if len(s.Troubles) != 1 {
			t.Fatalf("in the outage: got %+v, want one trouble", s.Troubles)
		}
		trouble := s.Troubles[0]
		if since := trouble.Since.Sub(began); since < 0 || since > time.Second {
			t.Errorf("got a trouble since %v after the outage began, although probes failed since then", since)
		}
		if trouble.Level != "down" || trouble.Why != "5 failures in a row" || trouble.Error == nil || !strings.Contains(trouble.Error.Text, "https://…@host/?…") || trouble.Error.Type != "*url.Error" {
			t.Errorf("got %+v, error %+v", trouble, trouble.Error)
		}
		if trouble.Policy != id(breakerKind, "payments") || len(trouble.Pipelines) != 1 || trouble.Pipelines[0] != id(pipelineKind, "payments") {
			t.Errorf("got policy %s and pipelines %v", trouble.Policy, trouble.Pipelines)
		}
		if b.State() == breaker.Open && !strings.Contains(trouble.Advice, "probe") {
			t.Errorf("got advice %q, want when the next probe comes", trouble.Advice)
		}
		p := s.Pipelines[0]
		if last := p.Layers[len(p.Layers)-1]; last.Kind != breakerKind || last.Entered < 5 || last.Passed > 1 {
			t.Errorf("got %+v, want calls that enter the breaker and do not pass", last)
		}

		// The history goes back to before the outage, although nobody has looked.
		var h historyJSON
		if err := json.Unmarshal(get(d, "/history.json?pipeline="+id(pipelineKind, "payments")).Body.Bytes(), &h); err != nil {
			t.Fatal(err)
		}
		if len(h.Running) != 600 || h.Step != 6 || h.Start.After(began) {
			t.Errorf("got %d points of %v s from %v on, want an hour", len(h.Running), h.Step, h.Start)
		}

		failing = false
		run(time.Minute)
		if s = decode(); len(s.Troubles) != 0 || s.Pipelines[0].Level != "ok" {
			t.Errorf("after the outage: got %+v", s)
		}
	})
}
