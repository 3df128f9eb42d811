package prelude

import (
	"net/http"

	"github.com/effector-go/resilience/dashboard"
	"github.com/effector-go/resilience/observe"
)

var (
	mux *http.ServeMux
	obs *observe.Observer
	d   *dashboard.Dashboard
)

func isEngineer(*http.Request) bool { return true }
func isOnCall(*http.Request) bool   { return true }
