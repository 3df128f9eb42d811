package check

// The packages that code on the pages imports, except those of the standard library.
import (
	_ "github.com/avast/retry-go/v4"
	_ "github.com/cenkalti/backoff/v4"
	_ "github.com/cep21/circuit/v4/closers/hystrix"
	_ "github.com/eapache/go-resiliency/breaker"
	_ "github.com/failsafe-go/failsafe-go/circuitbreaker"
	_ "github.com/sony/gobreaker/v2"

	_ "github.com/effector-go/resilience"
)
