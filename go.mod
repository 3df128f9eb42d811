module github.com/effector-go/resilience

go 1.25.0

require (
	github.com/cenkalti/backoff/v4 v4.3.0
	golang.org/x/sync v0.22.0
)
