package prelude

import (
	"net/http"

	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/resiliencehttp"
)

var (
	req         *http.Request
	client      *http.Client
	transport   *resiliencehttp.Transport
	policies    func(key string) resilience.Policy
	guard       func(http.Handler) http.Handler
	mux, events http.Handler
	name, url   string
)
