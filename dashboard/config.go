package dashboard

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Config is the configuration of a [Dashboard]. The zero Config shows the dashboard to everybody who
// can reach it, except for requests that a foreign page sends to a loopback address, and lets nobody
// control breakers.
type Config struct {
	// Title is the name in the header and in the browser's tab. Default the program's name.
	Title string
	// Interval is the time between samples while somebody views the dashboard. Without a viewer in
	// the last minute, it is at least 10 s. 100 ms to 1 min; default 1 s.
	Interval time.Duration
	// History is how far the charts reach back. 1 min to 24 h; default 1 h.
	History time.Duration
	// Authorize decides who can see the dashboard. It is called for every request, concurrently.
	// Default: a request that arrives at a loopback address must name as its host an IP address,
	// localhost, or a subdomain of localhost, so that a foreign page cannot read the dashboard by
	// changing what its own name resolves to (DNS rebinding); every other request is allowed.
	Authorize func(r *http.Request) bool
	// Control decides who, of those whom Authorize allows, can control breakers. It is called for
	// each page and each action, concurrently. Default nobody.
	Control func(r *http.Request) bool
}

// Validate returns an error that lists every invalid field of c with its value and range, or nil if
// there is none.
func (c Config) Validate() error {
	var mistakes []error
	within := func(field string, value, low, high time.Duration, fallback string) {
		if value != 0 && (value < low || value > high) {
			mistakes = append(mistakes, fmt.Errorf("dashboard: %s is %v, must be %v to %v, or 0 for %s", field, value, low, high, fallback))
		}
	}
	within("Interval", c.Interval, 100*time.Millisecond, time.Minute, "1s")
	within("History", c.History, time.Minute, 24*time.Hour, "1h")
	return errors.Join(mistakes...)
}

func (c Config) withDefaults() Config {
	if c.Title == "" && len(os.Args) > 0 {
		c.Title = strings.TrimSuffix(filepath.Base(os.Args[0]), ".exe")
	}
	c.Interval = cmp.Or(c.Interval, time.Second)
	c.History = cmp.Or(c.History, time.Hour)
	if c.Authorize == nil {
		c.Authorize = notRebound
	}
	if c.Control == nil {
		c.Control = func(*http.Request) bool { return false }
	}
	return c
}
