package resiliencehttp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/effector-go/resilience"
)

// Config configures a [Transport]. Policies is required. All functions must be safe for concurrent
// use.
type Config struct {
	// Base sends the requests that the policies admit. The default is [http.DefaultTransport].
	Base http.RoundTripper

	// Policies returns the policy for a key, usually a [resilience.Pipeline]. It is required. It is
	// called once for each key, when the key is first used, and again if the key is used after it
	// was evicted. If it returns nil, the request fails with an error.
	Policies func(key string) resilience.Policy

	// Key returns the key of a request. Requests with the same key share a policy, so the key
	// should name what fails together. The default is scheme://host:port of the URL, with the host
	// in lowercase and the scheme's port filled in.
	Key func(*http.Request) string

	// MaxKeys is the maximum number of keys. Beyond it, the healthy key that was idle longest is
	// evicted, with its policy. A key is healthy if all breakers of its policy are closed. If more
	// than MaxKeys keys aren't healthy, the one of them that was idle longest is evicted. A key
	// that is in use is never evicted, so keys in flight may exceed the maximum. The default is
	// 10,000.
	//
	// Breakers are found in a [resilience.Pipeline], at any depth. They are policies with a method
	// State() breaker.State. A policy of your own that contains a breaker should have this method, for
	// example by embedding. The breaker of a [resilience.PolicyFunc] isn't found.
	MaxKeys int

	// IdleAfter is how long a key may be idle before it is evicted, with its policy. It is checked
	// when a key is looked up. The default is 15 minutes.
	//
	// While a breaker of the key is open, half-open, or was set manually, the key isn't evicted; from
	// then on, IdleAfter counts again.
	IdleAfter time.Duration

	// OnEvict, if set, is called after a key was evicted, for example to remove its metrics. It is
	// called by a request, by [Transport.Policy], or by [Transport.All], so it should return quickly.
	// It may use the Transport.
	OnEvict func(key string, p resilience.Policy)

	// Failed reports whether a response is a failure. It must not touch the body. The default is
	// [DefaultFailed].
	Failed func(*http.Response) bool

	// NotServed reports whether a failed response states that the server did not process the request.
	// The failure is then marked with [resilience.NotMade], so that even a request that isn't
	// repeatable is sent again. It must not touch the body. The default is status 429.
	NotServed func(*http.Response) bool

	// Repeatable reports whether a request may be sent again even though it may already have had an
	// effect. It is not called if [AllowRepeat] decides, or if the body cannot be replayed. The
	// default is [DefaultRepeatable].
	Repeatable func(*http.Request) bool

	// StatusErrors makes the Transport return a failed response as a [*StatusError] and drop its
	// body. By default, the caller receives the response.
	StatusErrors bool

	// DrainLimit is the maximum number of bytes that are read of a dropped body, so that its
	// connection can be reused. A body that is longer, or that doesn't end within 100 ms, is
	// closed. The default is 64 KiB.
	DrainLimit int64

	// DeadlineHeader is the name of a request header that holds the number of milliseconds until
	// the attempt's deadline, timeouts of the policies included. The number is at least 1. The
	// default is no header.
	//
	// The policies' timeouts end when the headers arrive, but a server that honors the header (see
	// [ServerConfig].DeadlineHeader) ends the response at that time even if the client is still
	// reading the body.
	DeadlineHeader string
}

// Validate reports all invalid fields of c, or nil if there are none. The errors are joined with
// [errors.Join]. Each names the field, its value, and the allowed range.
func (c Config) Validate() error {
	var mistakes []error
	mistake := func(ok bool, field string, value any, allowed string) {
		if !ok {
			mistakes = append(mistakes, fmt.Errorf("resiliencehttp: %s is %v, must be %s", field, value, allowed))
		}
	}
	mistake(c.Policies != nil, "Policies", "nil", "a function")
	mistake(c.MaxKeys >= 0, "MaxKeys", c.MaxKeys, "at least 1, or 0 for 10000")
	mistake(c.IdleAfter >= 0, "IdleAfter", c.IdleAfter, "positive, or 0 for 15m")
	mistake(c.DrainLimit >= 0, "DrainLimit", c.DrainLimit, "at least 1, or 0 for 65536")
	mistake(headerName(c.DeadlineHeader), "DeadlineHeader", fmt.Sprintf("%q", c.DeadlineHeader), "a header name, or empty for none")
	return errors.Join(mistakes...)
}

// withDefaults returns c with defaults in place of zero values.
func (c Config) withDefaults() Config {
	if c.Base == nil {
		c.Base = http.DefaultTransport
	}
	if c.Key == nil {
		c.Key = defaultKey
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
	if c.NotServed == nil {
		c.NotServed = defaultNotServed
	}
	if c.Repeatable == nil {
		c.Repeatable = DefaultRepeatable
	}
	if c.DrainLimit == 0 {
		c.DrainLimit = 64 << 10
	}
	return c
}

// headerName reports whether name is empty or a token as defined by RFC 9110.
func headerName(name string) bool {
	return strings.IndexFunc(name, func(r rune) bool {
		alphanumeric := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
		return !alphanumeric && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	}) < 0
}

// DefaultFailed is the default of [Config].Failed. It reports true for 408, 429, and 5xx except 501
// and 505, which another attempt wouldn't change.
func DefaultFailed(response *http.Response) bool {
	code := response.StatusCode
	return code == http.StatusRequestTimeout || code == http.StatusTooManyRequests || serverFailed(code)
}

// defaultNotServed is the default of Config.NotServed.
func defaultNotServed(response *http.Response) bool {
	return response.StatusCode == http.StatusTooManyRequests
}

// serverFailed is the default of ServerConfig.Failed.
func serverFailed(code int) bool {
	return 500 <= code && code <= 599 && code != http.StatusNotImplemented && code != http.StatusHTTPVersionNotSupported
}

// DefaultRepeatable is the default of [Config].Repeatable. It reports true for the idempotent
// methods of RFC 9110, section 9.2.2: GET (also as ""), HEAD, OPTIONS, TRACE, PUT, and DELETE. It
// also reports true for any request with an Idempotency-Key or X-Idempotency-Key header, even an
// empty one.
func DefaultRepeatable(req *http.Request) bool {
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	_, key := req.Header["Idempotency-Key"]
	_, xkey := req.Header["X-Idempotency-Key"]
	return key || xkey
}

type repeatKey struct{}

// AllowRepeat returns a context for one request that overrides [Config].Repeatable: if repeatable
// is true, the request may be sent again even though it may already have had an effect; if it is
// false, it may not. Requests that Base sends on behalf of this one are not affected. A request
// whose body cannot be replayed is never sent again.
func AllowRepeat(ctx context.Context, repeatable bool) context.Context {
	return context.WithValue(ctx, repeatKey{}, repeatable)
}
