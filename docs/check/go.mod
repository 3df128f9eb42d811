module github.com/effector-go/resilience/docs/check

go 1.25.0

require (
	github.com/avast/retry-go/v4 v4.7.0
	github.com/cenkalti/backoff/v4 v4.3.0
	github.com/cep21/circuit/v4 v4.1.0
	github.com/eapache/go-resiliency v1.7.0
	github.com/effector-go/resilience v0.0.0
	github.com/effector-go/resilience/resilienceconfig v0.0.0
	github.com/failsafe-go/failsafe-go v0.9.8
	github.com/golangci/misspell v0.8.0
	github.com/sony/gobreaker/v2 v2.4.0
	github.com/yuin/goldmark v1.8.7
)

require (
	github.com/bits-and-blooms/bitset v1.24.4 // indirect
	github.com/goccy/go-yaml v1.19.2 // indirect
	golang.org/x/net v0.35.0 // indirect
)

replace github.com/effector-go/resilience => ../../

replace github.com/effector-go/resilience/resilienceconfig => ../../resilienceconfig
