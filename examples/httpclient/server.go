package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"
)

// newServer starts a server on loopback that has one fault per path.
func newServer() *httptest.Server {
	s := &counter{requests: map[string]int{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /flaky", func(w http.ResponseWriter, r *http.Request) {
		if s.count("/flaky") < 3 {
			w.Header().Set("Retry-After", "1")
			http.Error(w, "overloaded", http.StatusServiceUnavailable)
			return
		}
		io.WriteString(w, "hello")
	})
	mux.HandleFunc("POST /order", func(w http.ResponseWriter, r *http.Request) {
		if n := s.count("/order"); n < 3 {
			w.WriteHeader(http.StatusInternalServerError)
			fmt.Fprintf(w, "order %d may have been placed", n)
			return
		}
		io.WriteString(w, "placed")
	})
	mux.HandleFunc("GET /maintenance", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "31536000")
		w.WriteHeader(http.StatusServiceUnavailable)
		io.WriteString(w, "back next year")
	})
	mux.HandleFunc("GET /stream", func(w http.ResponseWriter, r *http.Request) {
		for i := range 4 {
			fmt.Fprint(w, i)
			w.(http.Flusher).Flush()
			select {
			case <-time.After(300 * time.Millisecond):
			case <-r.Context().Done():
				return
			}
		}
	})
	mux.HandleFunc("GET /down", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	server := httptest.NewUnstartedServer(mux)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.Start()
	return server
}

// A counter counts the requests to each path.
type counter struct {
	mu       sync.Mutex
	requests map[string]int
}

// count returns the number of requests to the path, including this one.
func (c *counter) count(path string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests[path]++
	return c.requests[path]
}
