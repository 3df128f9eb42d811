package dashboard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/bulkhead"
	"github.com/effector-go/resilience/observe"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// service is an observer with that many pipelines of four policies each.
func service(pipelines int) (*observe.Observer, []resilience.Policy) {
	obs := observe.New(observe.Config{})
	var list []resilience.Policy
	for i := range pipelines {
		name := "service-" + strconv.Itoa(i)
		list = append(list, obs.Pipeline(name,
			timeout.New(timeout.Config{Name: name, Limit: time.Second}),
			retry.New(retry.Config{Name: name}),
			bulkhead.New(bulkhead.Config{Name: name, Limit: 100}),
			breaker.New(breaker.Config{Name: name, FailureRate: 0.9})))
	}
	return obs, list
}

// callAll makes calls in all pipelines, with some errors.
func callAll(list []resilience.Policy, calls int) {
	failed := fmt.Errorf("get: %w", errors.New("https://user:secret@host/path?query: connection refused"))
	for i := range calls {
		resilience.Run(context.Background(), list[i%len(list)], func(context.Context) error {
			if i%97 == 0 {
				return resilience.NotFailure(failed)
			}
			if i%101 == 0 {
				return resilience.CallerFault(failed)
			}
			return nil
		})
	}
}

// BenchmarkSample is what each sample of 200 pipelines costs, at 50,000 calls per second: with the
// snapshot, the history, the state's JSON, and its compression.
func BenchmarkSample(b *testing.B) {
	obs, list := service(200)
	d := New(obs, Config{})
	defer d.Close()
	for b.Loop() {
		b.StopTimer()
		callAll(list, 2000) // what matters is that all pipelines changed
		b.StartTimer()
		d.sampling <- struct{}{}
		d.sample()
		d.gzipped(d.latest)
	}
	runtime.KeepAlive(list)
	b.ReportMetric(float64(len(d.latest.plain)), "state-bytes")
	b.ReportMetric(float64(len(d.gzipped(d.latest))), "gzip-bytes")
}

// BenchmarkSecond is what a second with 50 viewers of 200 pipelines costs: one sample, 50 states, and
// 50 histories each 6 s. 5% of a second are 50 ms.
func BenchmarkSecond(b *testing.B) {
	obs, list := service(200)
	d := New(obs, Config{Interval: time.Minute})
	defer d.Close()
	state := httptest.NewRequest(http.MethodGet, "/state.json", nil)
	state.Header.Set("Accept-Encoding", "gzip")
	second := 0
	for b.Loop() {
		b.StopTimer()
		callAll(list, 2000)
		b.StartTimer()
		d.sampling <- struct{}{}
		d.sample()
		for viewer := range 50 {
			d.ServeHTTP(discardResponse{http.Header{}}, state)
			if (second+viewer)%6 == 0 {
				history := httptest.NewRequest(http.MethodGet, "/history.json?pipeline="+id("pipeline", "service-"+strconv.Itoa(viewer)), nil)
				history.Header.Set("Accept-Encoding", "gzip")
				d.ServeHTTP(discardResponse{http.Header{}}, history)
			}
		}
		second++
	}
	runtime.KeepAlive(list)
}

type discardResponse struct{ header http.Header }

func (d discardResponse) Header() http.Header         { return d.header }
func (d discardResponse) WriteHeader(int)             {}
func (d discardResponse) Write(b []byte) (int, error) { return io.Discard.Write(b) }

// BenchmarkPage is a page with the tables for browsers without JavaScript, of 200 pipelines.
func BenchmarkPage(b *testing.B) {
	obs, list := service(200)
	d := New(obs, Config{Interval: time.Minute})
	defer d.Close()
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	for b.Loop() {
		d.ServeHTTP(discardResponse{http.Header{}}, r)
	}
	runtime.KeepAlive(list)
}

func BenchmarkRedact(b *testing.B) {
	for name, text := range map[string]string{
		"plain": "dial tcp 192.0.2.1:443: connect: connection refused",
		"url":   `Post "https://user:secret@payments.internal/v1/charge?key=secret": dial tcp: connect: connection refused`,
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				redact(text)
			}
		})
	}
}
