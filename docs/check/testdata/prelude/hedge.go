package prelude

import "github.com/effector-go/resilience/hedge"

var hedges = hedge.New(hedge.Config{Quantile: 0.95})

const url = "http://users.example"
