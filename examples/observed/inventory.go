package main

import (
	"math/rand/v2"
	"net"
	"net/http"
	"time"
)

// A schedule is when the inventory fails: it works for calm, then fails for outage, and so on.
type schedule struct{ calm, outage time.Duration }

func (s schedule) fails(sinceStart time.Duration) bool {
	return sinceStart%(s.calm+s.outage) >= s.calm
}

// An inventory is the dependency: a server on loopback.
type inventory struct {
	http.Server
	URL string
}

func startInventory(s schedule) (*inventory, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	i := &inventory{URL: "http://" + listener.Addr().String()}
	start := time.Now()
	i.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		work, fail := 5*time.Millisecond, rand.Float64() < 0.01
		if s.fails(time.Since(start)) {
			work, fail = 150*time.Millisecond, rand.Float64() < 0.8
		}
		select {
		case <-time.After(time.Duration(rand.ExpFloat64() * float64(work))):
		case <-r.Context().Done():
			return
		}
		if fail {
			http.Error(w, "the database is away", http.StatusServiceUnavailable)
			return
		}
		w.Write([]byte("12 in stock\n"))
	})
	go i.Serve(listener)
	return i, nil
}
