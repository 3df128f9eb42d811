package prelude

import "github.com/effector-go/resilience/ratelimit"

var mail = ratelimit.New(ratelimit.Config{Rate: 10})
