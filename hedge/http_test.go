package hedge_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/resiliencehttp"
)

// A stream is a response's body that ends with its request's context, like net/http's.
type stream struct {
	io.Reader
	ctx    context.Context
	closed atomic.Int32
}

func (s *stream) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.Reader.Read(p)
}

func (s *stream) Close() error {
	s.closed.Add(1)
	return nil
}

// roundTrips is a function that implements http.RoundTripper.
type roundTrips func(*http.Request) (*http.Response, error)

func (f roundTrips) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestHedgeKeepsStreamedBodyOfResiliencehttp also checks that the loser's response is closed when
// it arrives.
func TestHedgeKeepsStreamedBodyOfResiliencehttp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bodies := [2]*stream{}
		var requests atomic.Int32
		base := roundTrips(func(r *http.Request) (*http.Response, error) {
			n := requests.Add(1)
			if n == 1 {
				time.Sleep(time.Minute) // ignores its context
			}
			bodies[n-1] = &stream{Reader: strings.NewReader("streamed"), ctx: r.Context()}
			return &http.Response{StatusCode: http.StatusOK, Body: bodies[n-1], ContentLength: -1, Request: r}, nil
		})
		client := &http.Client{Transport: resiliencehttp.NewTransport(resiliencehttp.Config{
			Base:     base,
			Policies: func(string) resilience.Policy { return after(1) },
		})}
		began := time.Now()
		response, err := client.Get("http://users.example/")
		if err != nil || time.Since(began) != time.Second {
			t.Fatalf("got %v after %v, want nil after 1s", err, time.Since(began))
		}
		synctest.Wait()
		if body, err := io.ReadAll(response.Body); string(body) != "streamed" || err != nil {
			t.Errorf("got %q, %v, want the whole body", body, err)
		}
		response.Body.Close()
		time.Sleep(time.Minute)
		synctest.Wait()
		for n, body := range bodies {
			if body == nil || body.closed.Load() != 1 {
				t.Errorf("body of request %d was not closed once", n+1)
			}
		}
	})
}
