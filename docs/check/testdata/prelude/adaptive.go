package prelude

import "github.com/effector-go/resilience/adaptive"

var search = adaptive.New(adaptive.Config{Name: "search"})
