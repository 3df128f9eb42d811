package prelude

import (
	"net/http"

	"github.com/effector-go/resilience"
)

var checked resilience.Effector[*http.Response]
