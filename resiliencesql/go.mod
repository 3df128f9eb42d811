module github.com/effector-go/resilience/resiliencesql

go 1.25.0

require github.com/effector-go/resilience v0.0.0

require github.com/cenkalti/backoff/v4 v4.3.0 // indirect

replace github.com/effector-go/resilience => ../
