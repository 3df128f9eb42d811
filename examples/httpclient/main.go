// Command httpclient calls a flaky server through resiliencehttp and prints what happens, attempt by
// attempt. It takes about four seconds.
//
//	go run ./examples/httpclient
//
// The client is in client.go, the server and its faults are in server.go.
package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/effector-go/resilience/examples/internal/program"
)

func main() { program.Main("httpclient", run) }

// A scene is a call and what it shows.
type scene struct {
	title        string
	method, path string
	key          string        // sent as Idempotency-Key
	limit        time.Duration // deadline of the caller
	times        int           // default 1
}

var scenes = []scene{
	{title: "A GET that is answered 503 twice is sent again, after the server's Retry-After.", method: "GET", path: "/flaky"},
	{title: "A POST that is answered 500 is sent once: the caller gets the response.", method: "POST", path: "/order"},
	{title: "With an Idempotency-Key the POST is sent again.", method: "POST", path: "/order", key: "order-1754"},
	{title: "A Retry-After of a year isn't waited for: the caller gets the response immediately.", method: "GET", path: "/maintenance", limit: 2 * time.Second},
	{title: "A body may take longer than an attempt: the attempt's limit ends with the headers.", method: "GET", path: "/stream"},
	{title: "A server that drops connections opens the breaker: calls are refused without a request.", method: "GET", path: "/down", times: 4},
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if err := program.NewFlags("httpclient").Parse(args, stderr); err != nil {
		return err
	}
	server := newServer()
	defer server.Close()
	client := newClient(stdout)
	defer client.CloseIdleConnections()
	for i, s := range scenes {
		fmt.Fprintf(stdout, "\n%d. %s\n", i+1, s.title)
		for range max(1, s.times) {
			if err := s.play(ctx, client, server.URL, stdout); err != nil {
				return err
			}
		}
	}
	return nil
}

// play makes a call. It returns an error only if the example can't go on.
func (s scene) play(ctx context.Context, client *http.Client, url string, out io.Writer) error {
	limited := ctx
	if s.limit > 0 {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeout(ctx, s.limit)
		defer cancel()
	}
	var body io.Reader
	if s.method == http.MethodPost {
		body = strings.NewReader("two books")
	}
	req, err := http.NewRequestWithContext(limited, s.method, url+s.path, body)
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
