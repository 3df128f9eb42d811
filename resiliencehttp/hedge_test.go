package resiliencehttp_test

import (
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/hedge"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

// hedging returns a policy that starts a request again after a second.
func hedging() resilience.Policy {
	return hedge.New(hedge.Config{Delay: time.Second, Budget: budget.New(budget.Config{Ratio: 1})})
}

// TestTransportHedgeWinnerKeepsStreaming after the hedge has returned and canceled what it started.
// The loser leaves no response and no connection open.
func TestTransportHedgeWinnerKeepsStreaming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var requests, gone atomic.Int32
		m := newMemory(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if requests.Add(1) == 1 {
				<-r.Context().Done() // slow, until the client cancels
				gone.Add(1)
				return
			}
			io.WriteString(w, "begun")
			w.(http.Flusher).Flush()
			time.Sleep(time.Hour)
			io.WriteString(w, ", ended")
		}))
		began := time.Now()
		client := &http.Client{Transport: through(m.base, resilience.Pipeline{timeout.After(time.Minute), hedging(), timeout.After(30 * time.Second)})}
		response, err := client.Get("http://example.com/")
		if err != nil || time.Since(began) != time.Second {
			t.Fatal(err, time.Since(began))
		}
		if synctest.Wait(); gone.Load() != 1 {
			t.Error("the loser's request still runs")
		}
		if text := readAll(t, response); text != "begun, ended" || time.Since(began) != time.Hour+time.Second {
			t.Errorf("got %q after %v", text, time.Since(began))
		}
	})
}

// TestTransportHedgeDropsAllFailedResponsesButLast: the caller receives the last one.
func TestTransportHedgeDropsAllFailedResponsesButLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := &answers{statuses: []int{503, 500}}
		response, err := through(base, hedging()).RoundTrip(newRequest(t, "GET", "http://example.com/", ""))
		if err != nil || response.StatusCode != 500 || readAll(t, response) != "answer 2" {
			t.Errorf("got %v, %v", response, err)
		}
		synctest.Wait()
		checkClosed(t, base.bodies)
	})
}

// TestTransportDoesNotHedgePOST, even inside a retry.
func TestTransportDoesNotHedgePOST(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := &answers{statuses: []int{500}}
		policy := resilience.Pipeline{retries(retry.Config{}), hedging()}
		response, err := through(base, policy).RoundTrip(newRequest(t, "POST", "http://example.com/", "x"))
		if err != nil || response.StatusCode != 500 || len(base.bodies) != 1 {
			t.Errorf("got %v, %v after %d requests", response, err, len(base.bodies))
		}
		response.Body.Close()
		synctest.Wait()
	})
}

// TestTransportHedgedAttemptsHaveSeparateHeaders: a Base that sets headers doesn't race. It relies on the
// race detector.
func TestTransportHedgedAttemptsHaveSeparateHeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var started atomic.Int32
		both := make(chan struct{})
		base := roundTripper(func(req *http.Request) (*http.Response, error) {
			if started.Add(1) == 2 {
				close(both)
			}
			<-both
			for i := range 100 {
				req.Header.Set("X-Span", fmt.Sprint(i))
			}
			req.Header.Add("X-Own", "2")
			if got := req.Header["X-Own"]; len(got) != 2 {
				t.Errorf("got %v", got)
			}
			return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
		})
		req := newRequest(t, "GET", "http://example.com/", "")
		req.Header.Set("X-Own", "1")
		if _, err := through(base, hedging()).RoundTrip(req); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if started.Load() != 2 || len(req.Header) != 1 || len(req.Header["X-Own"]) != 1 {
			t.Errorf("the caller's header became %v after %d starts", req.Header, started.Load())
		}
	})
}
