package resiliencehttp_test

import (
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// silent is the log of servers whose handlers fail on purpose.
var silent = log.New(io.Discard, "", 0)

func empty(string) resilience.Policy { return resilience.Pipeline{} }

// page is the pipeline of docs/http.md, without a budget.
func page(key string) resilience.Policy {
	return resilience.Pipeline{
		timeout.After(10 * time.Second), retry.New(retry.Config{}), breaker.New(breaker.Config{Name: key}), timeout.After(2 * time.Second),
	}
}

// instantBase is a Base that answers without a connection, to measure only the transport's own
// cost.
func instantBase() http.RoundTripper {
	body, response := &trackedBody{}, new(http.Response)
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		*response = http.Response{StatusCode: 200, Body: body}
		return response, nil
	})
}

// TestTransportAllocatesLittle: in addition to the bare transport's about 50 allocations, at most
// 10 with an empty pipeline and 20 with page's, under a context that can be canceled. A request
// that may be sent only once also has a trace.
func TestTransportAllocatesLittle(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, c := range []struct {
		name, method string
		policies     func(string) resilience.Policy
		most         float64
	}{{"empty", "GET", empty, 10}, {"page", "GET", page, 20}, {"empty", "POST", empty, 10}, {"page", "POST", page, 20}} {
		req, err := http.NewRequestWithContext(ctx, c.method, "http://example.com/", nil)
		if err != nil {
			t.Fatal(err)
		}
		transport := wrapped(instantBase(), c.policies)
		got := testing.AllocsPerRun(1000, func() {
			response, err := transport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
		})
		t.Logf("%s pipeline, %s: %v allocations", c.name, c.method, got)
		if got > c.most {
			t.Errorf("%s pipeline, %s: %v allocations, want at most %v", c.name, c.method, got, c.most)
		}
	}
}

// BenchmarkRoundTripAlone measures what this transport adds: its Base answers immediately.
func BenchmarkRoundTripAlone(b *testing.B) {
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	for _, side := range []struct {
		name     string
		policies func(string) resilience.Policy
	}{{"empty", empty}, {"page", page}} {
		b.Run(side.name, func(b *testing.B) {
			b.ReportAllocs()
			req, err := http.NewRequestWithContext(ctx, "GET", "http://example.com/", nil)
			if err != nil {
				b.Fatal(err)
			}
			transport := wrapped(instantBase(), side.policies)
			for b.Loop() {
				response, err := transport.RoundTrip(req)
				if err != nil {
					b.Fatal(err)
				}
				response.Body.Close()
			}
		})
	}
}

// BenchmarkRoundTrip measures a request to a loopback server, through the bare transport and
// through this one.
func BenchmarkRoundTrip(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") }))
	defer server.Close()
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	base := http.DefaultTransport.(*http.Transport).Clone()
	defer base.CloseIdleConnections()
	for _, side := range []struct {
		name      string
		transport http.RoundTripper
	}{{"bare", base}, {"empty", wrapped(base, empty)}, {"page", wrapped(base, page)}} {
		b.Run(side.name, func(b *testing.B) {
			b.ReportAllocs()
			req, err := http.NewRequestWithContext(ctx, "GET", server.URL, nil)
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				response, err := side.transport.RoundTrip(req)
				if err != nil {
					b.Fatal(err)
				}
				io.Copy(io.Discard, response.Body)
				response.Body.Close()
			}
		})
	}
}
