package prelude

import (
	"net/http"

	"github.com/effector-go/resilience/chaos"
)

var (
	faults *chaos.Chaos
	mux    *http.ServeMux
)
