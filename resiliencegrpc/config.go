package resiliencegrpc

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/effector-go/resilience"
)

// Config configures [DialOptions]. Policies is required. All functions must be safe for concurrent
// use. A method is a full name such as "/package.Service/Method".
type Config struct {
	// Policies returns the policy for a key, usually a [resilience.Pipeline]. It is required. It is
	// called once for each key, when the key is first used, and again if the key is used after it
	// was evicted. If it returns nil, the call fails with codes.Internal and names the key.
	Policies func(key string) resilience.Policy

	// Key returns the key of a call. Calls with the same key share a policy, so the key should name
	// what fails together. target is the argument of [grpc.NewClient]. The default is the target.
	Key func(target, method string) string

	// MaxKeys is the maximum number of keys. Beyond it, the healthy key that was idle longest is
	// evicted, with its policy. A key is healthy if all breakers of its policy are closed. If more
	// than MaxKeys keys aren't healthy, the one of them that was idle longest is evicted. A key
	// that is in use is never evicted, so keys in flight may exceed the maximum. The default is
	// 10,000.
	//
	// Breakers are found in a [resilience.Pipeline], at any depth. They are policies with a method
	// State() breaker.State.
	MaxKeys int

	// IdleAfter is how long a key may be idle before it is evicted, with its policy. It is checked
	// when a key is looked up. The default is 15 minutes. While a breaker of the key is open,
	// half-open, or was set manually, the key isn't evicted; from then on, IdleAfter counts again.
	IdleAfter time.Duration

	// Failed reports whether a code is a failure of the server. The default is [DefaultFailed].
	Failed func(codes.Code) bool

	// Retryable reports whether a call that ended with this error may be tried again. The error has
	// the methods GRPCStatus and RetryAfter. Retryable isn't called if the server forbids retries,
	// or if the error isn't the server's (see [DialOptions]). The default is [DefaultRetryable].
	Retryable func(error) bool

	// Repeatable reports whether a method may run twice, so that a call may be made again even though
	// it may already have had an effect. [AllowRepeat] overrides it for one call. By default, it
	// looks up the method's descriptor in [protoregistry.GlobalFiles] and reports true if its
	// idempotency_level is NO_SIDE_EFFECTS or IDEMPOTENT.
	Repeatable func(method string) bool

	// Skip reports whether calls of a method bypass the policies. The default is true for the
	// services in the packages grpc.health.v1 and grpc.reflection.
	Skip func(method string) bool
}

// Validate reports all invalid fields of c, or nil if there are none. The errors are joined with
// [errors.Join]. Each names the field, its value, and the allowed range.
func (c Config) Validate() error {
	var mistakes []error
	mistake := func(ok bool, field string, value any, allowed string) {
		if !ok {
			mistakes = append(mistakes, fmt.Errorf("resiliencegrpc: %s is %v, must be %s", field, value, allowed))
		}
	}
	mistake(c.Policies != nil, "Policies", "nil", "a function")
	mistake(c.MaxKeys >= 0, "MaxKeys", c.MaxKeys, "at least 1, or 0 for 10000")
	mistake(c.IdleAfter >= 0, "IdleAfter", c.IdleAfter, "positive, or 0 for 15m")
	return errors.Join(mistakes...)
}

// withDefaults returns c with defaults in place of zero values.
func (c Config) withDefaults() Config {
	if c.Key == nil {
		c.Key = func(target, _ string) string { return target }
	}
	if c.MaxKeys == 0 {
		c.MaxKeys = 10_000
	}
	if c.IdleAfter == 0 {
		c.IdleAfter = 15 * time.Minute
	}
	if c.Failed == nil {
		c.Failed = DefaultFailed
	}
	if c.Retryable == nil {
		c.Retryable = DefaultRetryable
	}
	if c.Repeatable == nil {
		c.Repeatable = idempotent
	}
	if c.Skip == nil {
		c.Skip = defaultSkip
	}
	return c
}

// DefaultFailed is the default of [Config].Failed. It reports true for Unknown, DeadlineExceeded,
// Internal, Unavailable, DataLoss, and ResourceExhausted. It is safe for concurrent use.
func DefaultFailed(code codes.Code) bool {
	return code == codes.ResourceExhausted || serverFailed(code)
}

// serverFailed is the default of ServerConfig.Failed.
func serverFailed(code codes.Code) bool {
	switch code {
	case codes.Unknown, codes.DeadlineExceeded, codes.Internal, codes.Unavailable, codes.DataLoss:
		return true
	}
	return false
}

// DefaultRetryable is the default of [Config].Retryable. It reports true for Unavailable, and for
// ResourceExhausted and Aborted if the server states when to retry: with the trailer
// grpc-retry-pushback-ms, 0 included, or with a positive google.rpc.RetryInfo. It reports false for
// nil and if the trailer forbids retries. It is safe for concurrent use.
func DefaultRetryable(err error) bool {
	if err == nil {
		return false
	}
	s := statusOf(err)
	_, stated := resilience.RetryAfter(err)
	stated = stated || retryInfo(s) > 0
	var e *attemptError
	if errors.As(err, &e) {
		if e.forbidden {
			return false
		}
		stated = stated || e.stated // also if the time is 0
	}
	switch s.Code() {
	case codes.Unavailable:
		return true
	case codes.ResourceExhausted, codes.Aborted:
		return stated
	}
	return false
}

// idempotent is the default of Config.Repeatable.
func idempotent(method string) bool {
	service, name, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	descriptor, _ := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service)) // nil if not found
	registered, ok := descriptor.(protoreflect.ServiceDescriptor)
	if !ok {
		return false
	}
	m := registered.Methods().ByName(protoreflect.Name(name))
	if m == nil {
		return false
	}
	options, _ := m.Options().(*descriptorpb.MethodOptions) // nil options have the level IDEMPOTENCY_UNKNOWN
	level := options.GetIdempotencyLevel()
	return level == descriptorpb.MethodOptions_NO_SIDE_EFFECTS || level == descriptorpb.MethodOptions_IDEMPOTENT
}

// defaultSkip is the default of Config.Skip and ServerConfig.Skip.
func defaultSkip(method string) bool {
	return strings.HasPrefix(method, "/grpc.health.v1.") || strings.HasPrefix(method, "/grpc.reflection.")
}

// AllowRepeat returns an option for one call that overrides [Config].Repeatable: if repeatable is
// true, the call may be made again even though it may already have had an effect; if it is false, it
// may not. Of several, the last one counts.
func AllowRepeat(repeatable bool) grpc.CallOption {
	return allowRepeat{repeatable: repeatable}
}

type allowRepeat struct {
	grpc.EmptyCallOption
	repeatable bool
}
