package dashboard_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/breaker"
	"github.com/effector-go/resilience/dashboard"
	"github.com/effector-go/resilience/observe"
)

// The dashboard is one handler. Here, operators are those who know a password, and who can also
// control breakers.
func Example() {
	obs := observe.New(observe.Config{})
	payments := obs.Pipeline("payments", breaker.New(breaker.Config{Name: "payments", Consecutive: 1}))

	operators := func(r *http.Request) bool {
		user, password, _ := r.BasicAuth()
		return user == "operator" && password == "secret" // compare in constant time in a program
	}
	d := dashboard.New(obs, dashboard.Config{Title: "shop", Authorize: operators, Control: operators})
	defer d.Close()
	mux := http.NewServeMux()
	mux.Handle("/debug/resilience/", d)
	server := httptest.NewServer(mux)
	defer server.Close()

	err := resilience.Run(context.Background(), payments, func(context.Context) error { return errors.New("connection refused") })
	fmt.Println(err)

	get := func(user string) (int, string) {
		request, err := http.NewRequest(http.MethodGet, server.URL+"/debug/resilience/", nil)
		if err != nil {
			panic(err)
		}
		request.SetBasicAuth(user, "secret")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			panic(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			panic(err)
		}
		return response.StatusCode, string(body)
	}
	status, _ := get("guest")
	fmt.Println(status)
	status, page := get("operator")
	fmt.Println(status, strings.Contains(page, "<strong>shop</strong>"))

	// Output:
	// connection refused
	// 403
	// 200 true
}
