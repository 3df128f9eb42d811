package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"golang.org/x/sync/errgroup"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/dashboard"
	"github.com/effector-go/resilience/observe"
	"github.com/effector-go/resilience/resilienceconfig"
	"github.com/effector-go/resilience/resilienceotel"
	"github.com/effector-go/resilience/resilienceprom"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// A service asks the inventory, and is observed.
type service struct {
	server http.Server
	url    string
	stock  resilience.Effector[string]
	close  []func() error // what Close does, in reverse order
}

// startService starts a service that listens on addr. Its pipeline is that of the file, if there is one.
func startService(addr, file, inventory string, log *slog.Logger, traces io.Writer) (_ *service, err error) {
	s := &service{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	obs, err := s.newObserver(log, traces)
	if err != nil {
		return nil, err
	}
	live := dashboard.New(obs, dashboard.Config{Title: "observed"})
	s.close = append(s.close, live.Close)
	pipeline, stopWatching, err := newPipeline(obs, file, log)
	if err != nil {
		return nil, err
	}
	s.close = append(s.close, stopWatching)

	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}}
	s.close = append(s.close, func() error { client.CloseIdleConnections(); return nil })
	s.stock = resilience.Compose(func(ctx context.Context) (string, error) { return get(ctx, client, inventory) }, pipeline)

	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	s.url = "http://" + listener.Addr().String()
	s.server.Handler = s.routes(obs, live)
	s.server.ReadHeaderTimeout = 5 * time.Second
	s.close = append(s.close, s.server.Close)
	go s.server.Serve(listener)
	return s, nil
}

// newObserver returns an observer whose calls are logged and traced. What it counts goes to
// OpenTelemetry.
func (s *service) newObserver(log *slog.Logger, traces io.Writer) (*observe.Observer, error) {
	// A real program would have the exporters of its backend.
	tracing := sdktrace.NewTracerProvider(sdktrace.WithSyncer(&printer{out: traces}))
	metering := sdkmetric.NewMeterProvider()
	s.close = append(s.close,
		func() error { return metering.Shutdown(context.Background()) },
		func() error { return tracing.Shutdown(context.Background()) })
	telemetry, err := resilienceotel.New(resilienceotel.Config{
		TracerProvider: tracing,
		MeterProvider:  metering,
		Spans:          resilienceotel.SpanAttempts, // because nothing else traces the calls
	})
	if err != nil {
		return nil, err
	}
	obs := observe.New(observe.Config{Listeners: []observe.Listener{observe.Log(log), telemetry.Listener()}})
	stop, err := telemetry.Observe(obs)
	if err != nil {
		return nil, err
	}
	s.close = append(s.close, stop)
	return obs, nil
}

// routes returns what the service answers.
func (s *service) routes(obs *observe.Observer, live *dashboard.Dashboard) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(resilienceprom.New(obs))
	mux := http.NewServeMux()
	mux.Handle("/debug/resilience/", live) // only programs on this machine can reach it
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("/debug/pipelines", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		encoder.Encode(obs.Snapshot())
	})
	mux.HandleFunc("/order", func(w http.ResponseWriter, r *http.Request) {
		text, err := s.stock(r.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		io.WriteString(w, text)
	})
	return mux
}

// newPipeline returns the pipeline in front of the inventory: that of the file, which it watches until
// stop is called, or, without a file, the one in code.
func newPipeline(obs *observe.Observer, file string, log *slog.Logger) (_ resilience.Policy, stop func() error, err error) {
	if file == "" {
		retries := budget.New(budget.Config{Name: "inventory", Ratio: 0.1, MinPerSecond: 1})
		obs.Watch(retries) // it isn't a policy of the pipeline
		return obs.Pipeline("inventory",
			timeout.After(400*time.Millisecond),
			retry.New(retry.Config{MaxAttempts: 3, Backoff: retry.FullJitter(20*time.Millisecond, 200*time.Millisecond), Budget: retries}),
			breaker.New(breaker.Config{Name: "inventory", FailureRate: 0.5, Window: 2 * time.Second, OpenFor: 2 * time.Second}),
			timeout.After(150*time.Millisecond),
		), func() error { return nil }, nil
	}
	set, err := resilienceconfig.Load(file, resilienceconfig.Options{
		Wrap:     func(name string, p resilience.Pipeline) resilience.Policy { return obs.Pipeline(name, p...) },
		Interval: time.Second,
	})
	if err != nil {
		return nil, nil, err
	}
	pipeline, ok := set.Lookup("inventory")
	if !ok {
		return nil, nil, fmt.Errorf("%s has no pipeline inventory", file)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var watching errgroup.Group
	watching.Go(func() error {
		set.Watch(ctx, file, func(d resilienceconfig.Diff, err error) {
			if err != nil {
				log.Error("the file is wrong: the pipeline stays as it is", "file", file, "error", err)
				return
			}
			log.Info("the file has changed", "file", file, "changed", d.Changed, "added", d.Added, "removed", d.Removed)
		})
		return nil // Watch ends with the context
	})
	return pipeline, func() error { cancel(); return watching.Wait() }, nil
}

// Close ends everything that startService started.
func (s *service) Close() (err error) {
	for _, end := range slices.Backward(s.close) {
		err = errors.Join(err, end())
	}
	return err
}

// get is the effector: one request to the inventory.
func get(ctx context.Context, client *http.Client, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	response, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<10))
	if err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK {
		return "", statusError(response.StatusCode)
	}
	return string(body), nil
}

// A statusError is an answer of the inventory that isn't 200.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("the inventory answered %d", int(e)) }

// ErrorType is error.type in metrics and traces.
func (e statusError) ErrorType() string { return fmt.Sprint(int(e)) }

// load calls the service at a steady rate until the context ends, and waits for the last calls.
func load(ctx context.Context, s *service, perSecond int) {
	var calls errgroup.Group
	ticker := time.NewTicker(time.Second / time.Duration(perSecond))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			calls.Wait()
			return
		case <-ticker.C:
			calls.Go(func() error {
				s.stock(context.WithoutCancel(ctx)) // the pipeline counts how it ended
				return nil
			})
		}
	}
}
