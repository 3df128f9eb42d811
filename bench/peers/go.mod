module github.com/effector-go/resilience/bench/peers

go 1.25.0

require (
	github.com/eapache/go-resiliency v1.7.0
	github.com/effector-go/resilience v0.0.0
	github.com/failsafe-go/failsafe-go v0.9.8
	github.com/sethvargo/go-retry v0.5.0
	github.com/sony/gobreaker/v2 v2.4.0
)

require (
	github.com/bits-and-blooms/bitset v1.24.4 // indirect
	github.com/cenkalti/backoff/v4 v4.3.0 // indirect
)

replace github.com/effector-go/resilience => ../..
