package resilienceprom_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/internal/pipelines"
	"github.com/effector-go/resilience/observe"
	"github.com/effector-go/resilience/resilienceprom"
)

func TestCollectPassesLint(t *testing.T) {
	obs := observe.New(observe.Config{})
	everything := pipelines.EveryKind(obs)
	defer runtime.KeepAlive(everything) // the observer exports the values of live policies
	if err := resilience.Run(t.Context(), everything, func(context.Context) error { return nil }); err != nil {
		t.Fatal(err)
	}
	collector := resilienceprom.New(obs)
	problems, err := testutil.CollectAndLint(collector)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	if n := testutil.CollectAndCount(collector); n < 60 {
		t.Errorf("got %d series, want 60 or more", n)
	}
}

func TestCollectExportsEveryResultAndEvent(t *testing.T) {
	obs := observe.New(observe.Config{})
	users := obs.Pipeline("users", breaker.New(breaker.Config{Consecutive: 1}))
	for range 2 {
		resilience.Run(t.Context(), users, func(context.Context) error { return errors.New("failed") })
	}
	collector := resilienceprom.New(obs)
	if got := testutil.CollectAndCount(collector, "resilience_call_duration_seconds"); got != 6 {
		t.Errorf("got %d results, want 6", got)
	}
	if got := testutil.CollectAndCount(collector, "resilience_events_total"); got != 5 {
		t.Errorf("got %d events, want 5", got)
	}
}

func TestCollectIsSafeForConcurrentUse(t *testing.T) {
	obs := observe.New(observe.Config{})
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(resilienceprom.New(obs))
	var g errgroup.Group
	for i := range 4 {
		g.Go(func() error {
			for n := range 50 {
				p := obs.Pipeline(fmt.Sprint(i, n%3), breaker.New(breaker.Config{Name: fmt.Sprint(n % 5)}))
				if err := resilience.Run(t.Context(), p, func(context.Context) error { return nil }); err != nil {
					return err
				}
			}
			return nil
		})
		g.Go(func() error {
			for range 20 {
				if _, err := registry.Gather(); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

func TestNewPanicsWithoutObserver(t *testing.T) {
	defer func() {
		if got, want := recover(), "resilienceprom: New: observer is nil, must be created with observe.New"; got != want {
			t.Errorf("got panic %v, want %v", got, want)
		}
	}()
	resilienceprom.New(nil)
}
