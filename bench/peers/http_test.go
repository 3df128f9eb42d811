package peers

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/failsafehttp"
	failsafetimeout "github.com/failsafe-go/failsafe-go/timeout"
	"github.com/hashicorp/go-retryablehttp"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/resiliencehttp"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// requesting returns the ways to send a GET to url over base, under a context that can be canceled.
// Each is an http.RoundTripper, and each response is read to the end.
func requesting(ctx context.Context, url string, base http.RoundTripper) []side {
	ours := func(policies ...resilience.Policy) http.RoundTripper {
		return resiliencehttp.NewTransport(resiliencehttp.Config{
			Base:     base,
			Policies: func(string) resilience.Policy { return resilience.Pipeline(policies) },
		})
	}
	theirs := func(policies ...failsafe.Policy[*http.Response]) http.RoundTripper {
		return failsafehttp.NewRoundTripper(base, policies...)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		panic(err) // the test server's own URL
	}
	way := func(name string, transport http.RoundTripper) side {
		return side{name, func() error { return get(transport, request.WithContext(ctx)) }}
	}
	return []side{
		way("ours", ours(timeout.After(10*time.Second), retry.New(retry.Config{}), breaker.New(breaker.Config{}),
			timeout.After(2*time.Second))),
		way("ours-retry", ours(retry.New(retry.Config{}))),
		way("ours-empty", ours()),
		way("bare", base),
		way("retryablehttp", retryable(base)),
		way("failsafe", theirs(failsafetimeout.New[*http.Response](10*time.Second), failsafehttp.NewRetryPolicyBuilder().Build(),
			circuitbreaker.NewWithDefaults[*http.Response](), failsafetimeout.New[*http.Response](2*time.Second))),
		way("failsafe-retry", theirs(failsafehttp.NewRetryPolicyBuilder().Build())),
	}
}

func retryable(base http.RoundTripper) http.RoundTripper {
	client := retryablehttp.NewClient()
	client.HTTPClient = &http.Client{Transport: base}
	client.Logger = nil
	return client.StandardClient().Transport
}

// get sends the request and reads the response to the end.
func get(transport http.RoundTripper, request *http.Request) error {
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", response.Status)
	}
	return nil
}

// serve starts a server on loopback until the test ends. It returns a transport that keeps enough
// connections to it.
func serve(tb testing.TB, handler http.HandlerFunc) (url string, base *http.Transport) {
	server := httptest.NewServer(handler)
	tb.Cleanup(server.Close)
	base = http.DefaultTransport.(*http.Transport).Clone()
	base.MaxIdleConnsPerHost = base.MaxIdleConns
	tb.Cleanup(base.CloseIdleConnections)
	return server.URL, base
}

// BenchmarkHTTP is a request to a server on loopback.
func BenchmarkHTTP(b *testing.B) {
	url, base := serve(b, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") })
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	sides := requesting(ctx, url, base)
	for _, s := range sides {
		if err := s.call(); err != nil { // what is measured must succeed
			b.Fatalf("%s: %v", s.name, err)
		}
	}
	run(b, sides)
}

// immediate is a transport that responds with 200 without sending anything.
type immediate struct{}

func (immediate) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("hello")),
	}, nil
}

// BenchmarkHTTPAlone is the same over a transport that responds immediately, so it measures no
// network and no kernel.
func BenchmarkHTTPAlone(b *testing.B) {
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	run(b, requesting(ctx, "http://site.test/", immediate{}))
}

func TestRequestsSucceedWithoutNetwork(t *testing.T) {
	sides := requesting(t.Context(), "http://site.test/", immediate{})
	for _, s := range append(sides, hedgingRequests(t.Context(), immediate{}, time.Minute)...) {
		if err := s.call(); err != nil {
			t.Errorf("%s: %v", s.name, err)
		}
	}
}

func TestRequestsAreSentOnceOverOneConnection(t *testing.T) {
	var requests atomic.Int64
	connections := map[string]bool{}
	url, base := serve(t, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		connections[r.RemoteAddr] = true // no lock: requests are sequential
		io.WriteString(w, "hello")
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, s := range requesting(ctx, url, base) {
		requests.Store(0)
		for i := range 20 {
			if err := s.call(); err != nil || requests.Load() != int64(i)+1 {
				t.Fatalf("%s: request %d: error %v, the server got %d requests", s.name, i+1, err, requests.Load())
			}
		}
	}
	if len(connections) != 1 {
		t.Errorf("%d connections, want 1", len(connections))
	}
}
