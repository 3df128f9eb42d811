package resiliencehttp_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/budget"
	"github.com/effector-go/resilience/resiliencehttp"
	"github.com/effector-go/resilience/retry"
	"github.com/effector-go/resilience/timeout"
)

func Example() {
	answers := []int{503, 200}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(answers[0])
		io.WriteString(w, http.StatusText(answers[0]))
		answers = answers[1:]
	}))
	defer server.Close()

	client := &http.Client{Transport: resiliencehttp.NewTransport(resiliencehttp.Config{
		Policies: func(key string) resilience.Policy {
			extra := budget.New(budget.Config{Ratio: 0.1, MinPerSecond: 10})
			return resilience.Pipeline{
				timeout.After(10 * time.Second),
				retry.New(retry.Config{Budget: extra, OnRetry: func(_ context.Context, e retry.Event) { fmt.Println("retry after attempt", e.Attempt) }}),
				breaker.New(breaker.Config{Name: key}),
				timeout.After(2 * time.Second),
			}
		},
	})}

	response, err := client.Get(server.URL)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	fmt.Println(response.StatusCode, string(body))
	// Output:
	// retry after attempt 1
	// 200 OK
}

func ExampleMiddleware() {
	maintenance := breaker.New(breaker.Config{Name: "maintenance"})
	guard := resiliencehttp.Middleware(resiliencehttp.ServerConfig{Policy: maintenance})
	server := httptest.NewServer(guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "hello")
	})))
	defer server.Close()

	for range 2 {
		response, err := http.Get(server.URL)
		if err != nil {
			fmt.Println(err)
			return
		}
		response.Body.Close()
		fmt.Println(response.Status)
		maintenance.ForceOpen()
	}
	// Output:
	// 200 OK
	// 503 Service Unavailable
}
