package prelude

import "github.com/effector-go/resilience"

var sessions = make([]resilience.Effector[User], 4)
