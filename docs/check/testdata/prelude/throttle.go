package prelude

import (
	"time"

	"github.com/effector-go/resilience/throttle"
)

var api = throttle.New(throttle.Config{Max: 100, Refill: 100, Every: time.Minute})
