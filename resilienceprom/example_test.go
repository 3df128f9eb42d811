package resilienceprom_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/observe"
	"github.com/effector-go/resilience/resilienceprom"
)

func Example() {
	obs := observe.New(observe.Config{})
	registry := prometheus.NewRegistry()
	registry.MustRegister(resilienceprom.New(obs))
	metrics := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	defer metrics.Close()

	users := obs.Pipeline("users", breaker.New(breaker.Config{Name: "users", Consecutive: 2}))
	for range 3 {
		resilience.Run(context.Background(), users, func(context.Context) error { return io.ErrUnexpectedEOF })
	}

	response, err := http.Get(metrics.URL)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "resilience_policy_state{") || strings.HasPrefix(line, "resilience_events_total{event=\"refusal") {
			fmt.Print(line)
		}
	}
	// Output:
	// resilience_events_total{event="refusal",layer="1",name="users",pipeline="users",policy="breaker"} 1
	// resilience_policy_state{name="users",policy="breaker",state="closed"} 0
	// resilience_policy_state{name="users",policy="breaker",state="open"} 1
}
