// Command httpclient calls a flaky server of its own through resiliencehttp and prints what happened, attempt by attempt.
//
//	go run ./examples/httpclient
//
// The client is in client.go, what the server does wrong in server.go.
package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if len(os.Args) > 1 {
		fmt.Fprintln(os.Stderr, "httpclient: takes no arguments")
		os.Exit(2)
	}
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "httpclient:", err)
		os.Exit(1)
	}
}

// A scene is one call and what it shows.
type scene struct {
	title        string
	method, path string
	key          string // sent as Idempotency-Key
	limit        time.Duration
	times        int
}

var scenes = []scene{
	{title: "A GET that is answered 503 twice is sent again, after the server's Retry-After.", method: "GET", path: "/flaky"},
	{title: "A POST that is answered 500 is sent once, and its answer is the caller's.", method: "POST", path: "/order"},
	{title: "With an Idempotency-Key it may be sent again.", method: "POST", path: "/order", key: "order-1754"},
	{title: "A Retry-After of a year is not waited for: the answer comes at once.", method: "GET", path: "/maintenance", limit: 2 * time.Second},
	{title: "A body may take longer than an attempt: the limit ends with the headers.", method: "GET", path: "/stream"},
	{title: "A server that hangs up opens the breaker, and calls are refused without a request.", method: "GET", path: "/down", times: 4},
}

// run plays the scenes and writes what happens.
func run(ctx context.Context, out io.Writer) error {
	server := newServer()
	defer server.Close()
	client := newClient(out)
	defer client.CloseIdleConnections()
	for i, s := range scenes {
		fmt.Fprintf(out, "\n%d. %s\n", i+1, s.title)
		for range max(1, s.times) {
			if err := s.play(ctx, client, server.URL, out); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s scene) play(ctx context.Context, client *http.Client, url string, out io.Writer) error {
	if s.limit > 0 {
		limited, cancel := context.WithTimeout(ctx, s.limit)
		defer cancel()
		ctx = limited
	}
	var body io.Reader
	if s.method == http.MethodPost {
		body = strings.NewReader("two books")
	}
	req, err := http.NewRequestWithContext(ctx, s.method, url+s.path, body)
	if err != nil {
		return err
	}
	if s.key != "" {
		req.Header.Set("Idempotency-Key", s.key)
	}
	fmt.Fprintf(out, "   %s %s\n", s.method, s.path)
	response, err := client.Do(req)
	if err != nil {
		fmt.Fprintf(out, "   the caller gets the error: %s\n", strings.ReplaceAll(err.Error(), url, ""))
		return ctx.Err()
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("reading the body of %s: %w", s.path, err)
	}
	fmt.Fprintf(out, "   the caller gets %s: %q\n", response.Status, text)
	return nil
}
