package prelude

import (
	"github.com/effector-go/resilience"
	"github.com/effector-go/resilience/observe"
)

var (
	obs      *observe.Observer
	policies []resilience.Policy
	userID   string
)
