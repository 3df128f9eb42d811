package prelude

import (
	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/resilienceconfig"
)

// obs is an observer.
var obs interface {
	Pipeline(name string, policies ...resilience.Policy) resilience.Policy
}

var set *resilienceconfig.Set
