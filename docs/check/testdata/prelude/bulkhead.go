package prelude

import "github.com/effector-go/resilience/bulkhead"

var reports = bulkhead.New(bulkhead.Config{Limit: 10})
