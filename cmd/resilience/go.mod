module github.com/effector-go/resilience/cmd/resilience

go 1.25.0

require (
	github.com/effector-go/resilience v0.0.0
	github.com/effector-go/resilience/resilienceconfig v0.0.0
	github.com/goccy/go-yaml v1.19.2
)

require github.com/cenkalti/backoff/v4 v4.3.0

replace (
	github.com/effector-go/resilience => ../..
	github.com/effector-go/resilience/resilienceconfig => ../../resilienceconfig
)
